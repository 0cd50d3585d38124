//! A recovery that makes a new instance, in its two steps (design.md section 4, rules 3 and 4): the old instance is fenced, then the new
//! one is made. Both are admitted once (`gate.rs`) and end as one action (`action.rs`). What a crash leaves between them is looked at: a
//! fence may be gone on from, a creation is never begun twice.

use std::borrow::Cow;

use cpe_proto::event::EventKind;
use cpe_proto::id::{ActionId, AssemblyIndex, Name};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::Stage;
use cpe_proto::time::Timestamp;

use crate::action::OUTCOME_LOST_AFTER;
use crate::engine::{About, Engine};
use crate::health::ChannelHealth;
use crate::input::ActionOutcome;
use crate::ladder::Elsewhere;
use crate::output::{Act, Action, Output};
use crate::parts::{Phase, Recovery};

impl Engine {
    /// A stop of an old instance ended, or somebody says so.
    pub(crate) fn fenced(&mut self, action: ActionId, outcome: ActionOutcome, now: Timestamp) {
        let mine = |it: &Recovery| {
            let open = matches!(it.phase, Phase::Acting { .. } | Phase::Unresolved { .. });
            it.action == action && it.stage == Some(Stage::Fencing) && open
        };
        let of = |index: &AssemblyIndex| self.assembly(*index).recovery.as_deref().is_some_and(mine);
        let Some(index) = self.definition().assembly_indices().find(of) else {
            return self.came_late(action, &outcome, now);
        };
        self.arrives(action, &outcome);
        match outcome {
            ActionOutcome::Done { detail } => self.create(index, &detail, now),
            ended => self.recovery_acted(index, ended, now),
        }
    }

    /// The old instance is down. An admitted action finishes its steps: no maintenance or pause strands it half way.
    pub(crate) fn create(&mut self, index: AssemblyIndex, proof: &str, now: Timestamp) {
        let timeout = self.definition().timing.machine_action_timeout;
        if let Some(controller) = self.assembly(index).foreign.clone() {
            let why = format!("nothing is made: the machine bears the mark of controller {controller} now");
            return self.end_recovery(index, None, &why, now);
        }
        let Some(recovery) = &mut self.assembly_mut(index).recovery else { return };
        recovery.stage = Some(Stage::Creating);
        let rung = recovery.rung;
        self.made_in(index, rung);
        let Some(recovery) = &mut self.assembly_mut(index).recovery else { return };
        recovery.phase = Phase::Acting { until: now.after(timeout).after(OUTCOME_LOST_AFTER) };
        let Recovery { action, rung, incident, .. } = **recovery;
        self.sends(index, action, true, now);
        self.changed = true;
        let place = self.zone(index).map_or(String::new(), |zone| format!(" in {zone}"));
        let reason = format!("{proof}; its replacement is made{place}").into();
        self.report(About::Assembly(index), EventKind::Fenced, now, |it| {
            it.reason = reason;
            (it.incident, it.action, it.rung) = (Some(incident), Some(action), Some(rung));
        });
        let act = Act::Machine(rung);
        let incident = Some(incident);
        let fenced = self.assembly(index).trouble.as_ref().is_some_and(|trouble| trouble.fenced.is_some());
        self.output(Output::Act(Action {
            action,
            incident,
            assembly: index,
            act,
            timeout,
            fenced,
            part_of: None,
        }));
    }

    /// Where its new instance is made: a recreate stays where the machine is, for as long as the definition gives that place.
    fn made_in(&mut self, index: AssemblyIndex, rung: Rung) {
        let given = self.definition().escalation.relocate.as_ref().map(|relocate| relocate.zone.clone());
        let stays = self.assembly(index).zone.is_some() && self.assembly(index).zone == given;
        self.assembly_mut(index).zone = given.filter(|_| stays || rung == Rung::Relocate);
    }

    /// The zone that an assembly lives in, or is being made in, where that is another than its definition's.
    #[must_use]
    pub fn zone(&self, index: AssemblyIndex) -> Option<&Name> {
        self.assembly(index).zone.as_ref()
    }

    pub(crate) fn may_go_elsewhere(&self, index: AssemblyIndex) -> Elsewhere {
        match &self.definition().escalation.relocate {
            None => Elsewhere::NotGiven,
            Some(relocate) if self.zone(index) == Some(&relocate.zone) => Elsewhere::ThereAlready,
            Some(_) => Elsewhere::Given,
        }
    }

    /// The failure domains of an assembly: those of its definition, and the zones that it was made in or is to be made in. What it still
    /// shares with its first place nobody knows.
    #[must_use]
    pub fn domains(&self, index: AssemblyIndex) -> Cow<'_, [Name]> {
        let own = &self.definition().assembly(index).failure_domains;
        let part = self.assembly(index);
        let goes = part.recovery.as_ref().is_some_and(|it| it.rung == Rung::Relocate);
        let to = self.definition().escalation.relocate.as_ref().filter(|_| goes).map(|it| &it.zone);
        let more = part.zone.iter().chain(to).filter(|zone| !own.contains(zone));
        let mut all = Cow::Borrowed(own.as_slice());
        for zone in more {
            if !all.contains(zone) {
                all.to_mut().push(zone.clone());
            }
        }
        all
    }

    /// What an unresolved one was looked at for: the old instance is down for certain, and its replacement was not begun by this process.
    /// Whether it was by an earlier one is in its journal, where it is begun once.
    pub(crate) fn may_create(&self, index: AssemblyIndex) -> bool {
        let part = self.assembly(index);
        let stage = part.recovery.as_ref().and_then(|recovery| recovery.stage);
        let seen = part.trouble.as_ref().and_then(|trouble| trouble.instance);
        let down = seen.is_some_and(|seen| matches!(seen.state, InstanceState::Off | InstanceState::Gone));
        matches!(stage, Some(Stage::Fencing | Stage::Fenced))
            && part.channel != ChannelHealth::Healthy
            && (down || seen.is_some() && self.is_fenced(index))
    }

    /// An unresolved one was looked at, and the machine is there: what runs after its fence is the instance that was made.
    pub(crate) fn adopt(&mut self, index: AssemblyIndex) {
        let Some(recovery) = &self.assembly(index).recovery else { return };
        let incident = recovery.incident;
        if matches!(recovery.stage, Some(Stage::Fenced | Stage::Creating)) {
            self.output(Output::Reconnect(index));
            self.machine_made_anew(index, incident);
        }
    }
}
