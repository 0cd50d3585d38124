//! The one action of the fleet guard itself, as `cpe/src/evacuation.rs` does it: durable first, then done by the infrastructure, whose answer
//! can be lost, late or refused. Each is held against what is true of its domain.

use std::time::Duration;

use cpe_proto::decision::Refusal;
use cpe_proto::definition::Mode;
use cpe_proto::id::Name;
use cpe_proto::infrastructure::Operation;
use cpe_proto::snapshot::guard::EvacuationPhase;
use cpe_proto::time::Timestamp;
use dped::{ActionOutcome, Evacuate, Scope};

use super::happening::Fate;
use super::machine::Power;
use super::queue::{Item, Message};
use super::{What, World};

/// What was well for longer than this, and reached, was not dead: the longest that evidence takes to become old.
const WELL: Duration = Duration::from_secs(60);

/// Between two looks whether it is durable.
const DURABLE: Duration = Duration::from_millis(100);

impl World {
    pub(super) fn note_hold(&mut self, scope: &Scope) {
        let Scope::Domain(domain) = scope else { return };
        if !self.process.guard.holds().any(|held| held == scope) {
            self.truth.hold_over(domain);
        }
    }

    pub(super) fn evacuate(&mut self, evacuate: Evacuate) {
        self.judge_evacuation(&evacuate);
        self.say(What::Did(format!("evacuate domain {} !{}", evacuate.domain, evacuate.number)));
        self.coverage.count("guard's own", "evacuation");
        let (life, until) = (self.process.life, self.now.after(evacuate.timeout));
        self.queue.push(self.now, Item::Evacuate { life, evacuate: Box::new(evacuate), until });
    }

    /// Nothing that works; nothing that an operator wants left alone; nothing that is being recovered.
    fn judge_evacuation(&mut self, evacuate: &Evacuate) {
        let label = format!("evacuation of {} (!{})", evacuate.domain, evacuate.number);
        let mut wrong = Vec::new();
        for (deployable, index) in &evacuate.members {
            let Some(member) = self.files.iter().position(|(name, _)| name == deployable) else { continue };
            let Some(it) = self.member(member) else { continue };
            let definition = it.engine.definition();
            let assembly = definition.assembly(*index);
            let name = format!("{deployable}/{}", assembly.name);
            if !assembly.failure_domains.contains(&evacuate.domain) {
                wrong.push(format!("{name} is not in it"));
            }
            let stopped = self.journal.desired.get(deployable).is_some_and(|it| !it.runs());
            if definition.mode == Mode::Observe
                || stopped
                || self.truth.is_left_alone(deployable, &assembly.name)
            {
                wrong.push(format!("{name} is to be left alone"));
            }
            if self.truth.acts_on(member, &assembly.name, self.now) {
                wrong.push(format!("{name} is being recovered"));
            }
        }
        for member in 0..self.files.len() {
            let Some(it) = self.member(member) else { continue };
            for (assembly, machine) in it.engine.definition().assemblies.iter().zip(&it.machines) {
                let machine = &self.machines[*machine];
                let well = machine.well_since.map(|since| self.now.since(since));
                let well = well.filter(|well| *well > WELL + self.process.lag_at(self.now));
                if let Some(well) = well.filter(|_| assembly.failure_domains.contains(&evacuate.domain)) {
                    let (name, well) = (machine.label(), well.as_secs_f64());
                    wrong.push(format!("{name} in it works and was reached for {well:.1} s"));
                }
            }
        }
        for wrong in wrong {
            self.broken(format!("{label}: {wrong}"));
        }
    }

    pub(super) fn begin_evacuation(&mut self, life: u32, evacuate: &Evacuate, until: Timestamp) {
        if life != self.process.life || self.now >= until {
            return;
        }
        let again =
            |evacuate: &Evacuate| Item::Evacuate { life, evacuate: Box::new(evacuate.clone()), until };
        if self.process.stands_still(self.now) {
            return self.queue.push(self.process.still_until, again(evacuate));
        }
        let begun = EvacuationPhase::Begun(evacuate.number.0);
        let written = self.journal.guard.as_ref().is_some_and(|(_, guard)| {
            let holds = guard.holds.iter().filter(|hold| hold.domain.as_ref() == Some(&evacuate.domain));
            holds.into_iter().any(|hold| hold.evacuation == Some(begun))
        });
        if !written {
            return self.queue.push(self.now.after(DURABLE), again(evacuate));
        }
        self.ask_to_evacuate(life, evacuate, until);
    }

    fn ask_to_evacuate(&mut self, life: u32, evacuate: &Evacuate, until: Timestamp) {
        if !self.truth.evacuates(&evacuate.domain) {
            self.broken(format!("evacuation of {}: a second one in one hold", evacuate.domain));
        }
        let (now, soon) = (self.now, self.now.after(Duration::from_secs(1)));
        let reachable = now >= self.infrastructures_cut;
        let known = self.infrastructures.get_mut(&evacuate.infrastructure);
        let Some(it) = known.filter(|it| it.kind.capabilities.0.contains(&Operation::Evacuate)) else {
            let detail = "it cannot evacuate".into();
            return self.tell_evacuated(
                now,
                life,
                evacuate,
                ActionOutcome::NotBegun { why: Refusal::NotStarted, detail },
            );
        };
        let fate = it.fates.pop_front();
        if now < it.silent_until || !reachable {
            let detail = "no answer in time".into();
            return self.tell_evacuated(until, life, evacuate, ActionOutcome::Unresolved { detail });
        }
        if now < it.down_until {
            let detail = "it does not answer".into();
            return self.tell_evacuated(
                soon,
                life,
                evacuate,
                ActionOutcome::NotBegun { why: Refusal::NotStarted, detail },
            );
        }
        if now < it.errors_until || fate == Some(Fate::Refused) {
            let detail = "refused".into();
            return self.tell_evacuated(soon, life, evacuate, ActionOutcome::Failed { detail });
        }
        let late = match fate {
            Some(Fate::DoneLate(late)) => late,
            _ => Duration::ZERO,
        };
        let done = now.after(it.takes(now)).after(late);
        self.queue.push(done, Item::Evacuates { life, evacuate: Box::new(evacuate.clone()), until, fate });
    }

    /// The old host is fenced, and all that ran there and is asked for is started elsewhere, whoever still waits for it.
    pub(super) fn evacuates(&mut self, life: u32, evacuate: &Evacuate, until: Timestamp, fate: Option<Fate>) {
        let labels: Vec<(Name, Name)> = evacuate
            .members
            .iter()
            .filter_map(|(deployable, index)| {
                let (_, definition) = self.files.iter().find(|(name, _)| name == deployable)?;
                let assembly = definition.as_ref()?.assemblies.get(usize::from(index.0))?;
                Some((deployable.clone(), assembly.name.clone()))
            })
            .collect();
        for place in labels {
            let Some(machine) = self.places.get(&place).copied() else { continue };
            if self.machines[machine].power != Power::Gone {
                self.machines[machine].host_dead_until = Timestamp::ZERO;
                self.boot(machine);
            }
        }
        self.note();
        let at = match fate {
            Some(Fate::AnswerLost) => return,
            Some(Fate::AnsweredLate(late)) => self.now.after(late),
            _ => self.now,
        };
        let outcome = if at > until {
            ActionOutcome::Unresolved { detail: "no answer in time".into() }
        } else {
            ActionOutcome::Done { detail: "infrastructure: active".into() }
        };
        self.tell_evacuated(at.min(until.max(self.now)), life, evacuate, outcome.clone());
        if fate == Some(Fate::AnsweredTwice) {
            self.tell_evacuated(at.after(Duration::from_secs(1)), life, evacuate, outcome);
        }
    }

    fn tell_evacuated(&mut self, at: Timestamp, life: u32, evacuate: &Evacuate, outcome: ActionOutcome) {
        let (domain, number) = (evacuate.domain.clone(), evacuate.number);
        let message = Box::new(Message::Evacuated { domain, number, outcome });
        self.queue.push(at, Item::Tell { life, natural: at, message });
    }
}
