//! What must have come before an action, in truth: a fault that lasted as long as its confirmation takes, a path that something else proves,
//! a milder rung that was tried. And before a hold: as many losses as it says. Beside `truth.rs`, which looks at the moment itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cpe_proto::decision::{ChannelFact, Verdict};
use cpe_proto::definition::{Deployable, ProbeSettings};
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{ActionId, IncidentId, Name, ServiceIndex};
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;
use dped::guard::Scope;
use dped::{Act, Action, GuardSettings, Request};

use super::World;
use super::machine::{Fell, Machine, Running};

/// What was ill this long before the guard's window may still count: it was seen later.
const SEEN_LATER: Duration = Duration::from_secs(120);

/// A probe that finds it ill may have begun so much earlier.
const FIRST_PROBE: Duration = Duration::from_millis(100);

/// What is done once in an incident.
#[derive(Debug, Default)]
pub(super) struct Once {
    done: BTreeMap<(Name, IncidentId, Rung), ActionId>,
    /// Machines that were rebuilt at any time, by their places: a ladder outlives its incident.
    rebuilt: BTreeSet<usize>,
}

impl Once {
    /// A person wants its ladders to begin anew.
    pub(super) fn again(&mut self, deployable: &Name) {
        self.done.retain(|(name, ..), _| name != deployable);
    }

    /// It was admitted, and could not be begun.
    pub(super) fn not_begun(&mut self, deployable: &Name, action: ActionId) {
        self.done.retain(|(name, ..), by| name != deployable || *by != action);
    }
}

impl World {
    /// Two probes say so before a restart: it takes a while.
    pub(super) fn judge_confirmed_service(
        &self,
        member: usize,
        definition: &Deployable,
        service: ServiceIndex,
        wrong: &mut Vec<String>,
    ) {
        let Some(unit) = self.unit_of(member, service) else { return };
        let probe = definition.service(service).probe;
        if unit.well_since.is_none() {
            wrong.extend(self.too_soon(unit.fell, &probe));
        }
    }

    /// What was well for long and is acted upon before as many probes as it takes can have failed.
    fn too_soon(&self, fell: Option<Fell>, probe: &ProbeSettings) -> Option<String> {
        let patience = self.patience(probe);
        let fell = fell.filter(|fell| fell.after > patience)?;
        let ill = self.now.since(fell.at);
        let takes = probe.confirm_interval * (probe.failure_threshold.get() - 1);
        (ill + FIRST_PROBE < takes)
            .then(|| format!("it has been ill for {:.2} s, and nobody confirmed it", ill.as_secs_f64()))
    }

    /// Whoever ordered it.
    pub(super) fn note_rebuild(&mut self, member: usize, action: &Action) {
        let place = self.member(member).map(|it| it.machines[usize::from(action.assembly.0)]);
        self.truth.once.rebuilt.extend(place.filter(|_| action.act == Act::Machine(Rung::Rebuild)));
    }

    /// Grounds for a rung of a machine.
    pub(super) fn judge_grounds(
        &mut self,
        member: usize,
        definition: &Deployable,
        action: &Action,
        rung: Rung,
        request: &Request,
        wrong: &mut Vec<String>,
    ) {
        let Some(place) = self.member(member).map(|it| it.machines[usize::from(action.assembly.0)]) else {
            return;
        };
        let (assembly, machine) = (definition.assembly(action.assembly), &self.machines[place]);
        let dead = matches!(request.facts.channel, ChannelFact::Dead(_));
        if dead && machine.well_since.is_none() {
            wrong.extend(self.too_soon(machine.fell, &assembly.probe));
        }
        if request.verdict == Verdict::Hung && !self.path_was_proven(place, &assembly.probe) {
            wrong.push("it is called hung, and nothing else answered on its path".to_owned());
        }
        if !matches!(rung, Rung::Rebuild | Rung::Recreate | Rung::Relocate) {
            return;
        }
        let again = action.incident.is_some_and(|incident| {
            let key = (definition.name.clone(), incident, rung);
            self.truth.once.done.insert(key, action.action).is_some()
        });
        if again {
            wrong.push(format!("a second {rung} in one incident"));
        }
        let can = definition.infrastructure.as_ref().and_then(|name| self.infrastructures.get(name));
        let milder = can.is_some_and(|it| it.kind.capabilities.can(Rung::Rebuild));
        let untried = rung == Rung::Recreate && milder && !self.truth.once.rebuilt.contains(&place);
        if untried && request.verdict != Verdict::Gone {
            wrong.push("it is replaced, and was never rebuilt".to_owned());
        }
    }

    /// What an engine concludes, whether or not it may act on it.
    pub(super) fn judge_conclusion(&mut self, member: usize, event: &Event) {
        let Some(it) = self.member(member) else { return };
        let definition = it.engine.definition();
        let Some(index) = event.assembly.as_ref().and_then(|name| definition.assembly_named(name.as_str()))
        else {
            return;
        };
        let (place, probe) = (it.machines[usize::from(index.0)], definition.assembly(index).probe);
        let service = event.service.as_ref().and_then(|name| definition.service_named(index, name.as_str()));
        let unit = service.map(|service| it.units[usize::from(service.0)]);
        match event.kind {
            // It was not tried; or its old instance was fenced, and no other one was made.
            EventKind::RecoveryFinished
                if ["nothing is made", "not begun"].iter().any(|word| event.reason.starts_with(word)) =>
            {
                let name = definition.name.clone();
                if let Some(action) = event.action {
                    self.truth.once.not_begun(&name, action);
                }
            }
            EventKind::FaultIsolated
                if event.service.is_none()
                    && event.reason.starts_with("hung: ")
                    && !self.path_was_proven(place, &probe) =>
            {
                self.broken(format!(
                    "{} is called hung, and nothing else answered on its path",
                    self.machines[place].label()
                ));
            }
            EventKind::RecoveryFinished
                if event.to == Some(State::Failed) && event.rung == Some(Rung::RestartService) =>
            {
                let Some((machine, unit)) = unit else { return };
                let it = &self.machines[machine].units[unit];
                let Some(started) = it.started else { return };
                let by = event.action.map(|action| (self.process.life, member, action));
                // Running, reached, and seen as it is, ever since.
                let well = it.well_since.is_some_and(|since| since <= started.at);
                if Some(started.by) == by && started.life == it.life && well {
                    let what = format!(
                        "{}/{} runs since its restart, which is said to have failed",
                        self.machines[machine].label(),
                        it.name
                    );
                    self.broken(what);
                }
            }
            _ => {}
        }
    }

    /// What systemd says of a unit that runs is that it runs, or nothing: a question that is not answered is no failure.
    pub(super) fn judge_unanswered(
        &self,
        member: usize,
        definition: &Deployable,
        service: ServiceIndex,
        wrong: &mut Vec<String>,
    ) {
        let Some(unit) = self.unit_of(member, service) else { return };
        let part = definition.service(service);
        let patience = self.patience(&part.probe);
        let ill = unit.fell.is_some_and(|fell| self.now.since(fell.at) > patience);
        let hangs = unit.hangs_until > self.now && ill && unit.running == Running::Active;
        if part.check.kind() == "systemd" && hangs && unit.truly_seen(self.now) && unit.dies_after.is_none() {
            wrong.push("it runs, and systemd did not answer".to_owned());
        }
    }

    /// Whether a canary, or another machine, could be heard a moment ago.
    fn path_was_proven(&self, place: usize, probe: &ProbeSettings) -> bool {
        let patience = probe.interval * 2 + probe.timeout * 2 + self.slack();
        let lately = |at: Option<Timestamp>| at.is_none_or(|at| self.now.since(at) <= patience);
        if self.canaries > 1 && lately(self.truth.canaries_since) || self.canaries == 1 {
            return true;
        }
        let heard = |other: usize| {
            let fell = self.machines[other].fell;
            self.answers(other) || fell.is_some_and(|fell| lately(Some(fell.at)))
        };
        (0..self.machines.len()).any(|other| other != place && heard(other))
    }

    /// A hold that opens has as many losses as policy.md section 6 wants.
    pub(super) fn judge_hold(&mut self, scope: &Scope, reason: &str) {
        if !reason.contains(" left health within ") {
            return;
        }
        let settings = GuardSettings::default();
        // A start takes what was down before for a loss until it has looked: a restart in an outage must not take it for quiet.
        if self.now.since(self.process.began) <= settings.window {
            return;
        }
        let since = settings.window + SEEN_LATER;
        let lately = |well: Option<Timestamp>| well.is_none_or(|well| self.now.since(well) <= since);
        let ill =
            |it: &&Machine| lately(it.well_since) || it.units.iter().any(|unit| lately(unit.well_since));
        let inside = |it: &&Machine| match scope {
            Scope::Domain(name) => it.domains.contains(name),
            Scope::Fleet | Scope::Itself => true,
        };
        let lost = self.machines.iter().filter(inside).filter(ill).count();
        let least = if *scope == Scope::Fleet { settings.fleet_count } else { settings.domain_count };
        if lost < least {
            self.broken(format!("{scope} is held, and {lost} of its machines are or were ill"));
        }
    }
}
