//! What is looked at besides each action: the auditor over the journal, and what must be so when all faults have ended.

use std::time::Duration;

use cpe_proto::definition::{Deployable, Mode};
use cpe_proto::event::EventKind;
use cpe_proto::id::Name;
use cpe_proto::state::State;
use dped::GuardSettings;
use dped::bounds::{self, Assumptions, Managed};

use super::journal::millis;
use super::{What, World};

/// Something that is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwell {
    /// `deployable/assembly` or `deployable/assembly/service`.
    pub name: String,
    /// What is concluded of it.
    pub state: State,
    /// Why, as a clause.
    pub reason: String,
    /// A person was told of it, by its name, since its incident was opened.
    pub told: bool,
}

impl World {
    /// Holds what the journal has until now against the rules of design.md; what may still have to be written waits.
    pub(super) fn audit_step(&mut self) {
        if self.journal.is_settled() {
            self.journal.auditor.at(millis(self.now));
        }
        for finding in self.journal.auditor.news() {
            self.broken(format!("rule {}: {} ({})", finding.rule, finding.what, finding.records.join(", ")));
        }
    }

    /// The same at the end of a world, in which nothing more will be written. True: nothing was ever found.
    pub fn audit(&mut self) -> bool {
        let life = self.process.life;
        // What waits to be written belongs to it.
        if self.process.up && self.journal.writable(self.now) {
            self.commit(life);
        }
        if self.journal.is_settled() {
            self.journal.auditor.at(millis(self.now));
            self.journal.auditor.end();
        }
        self.audit_step();
        self.journal.auditor.findings().is_empty()
    }

    /// All that is managed, to be acted on and not stopped, and not known to be healthy.
    #[must_use]
    pub fn unwell(&self) -> Vec<Unwell> {
        let mut unwell = Vec::new();
        for (definition, told) in self.unwatched() {
            let (name, reason) = (definition.name.to_string(), "its policy engine panicked".to_owned());
            unwell.push(Unwell { name, state: State::Unknown, reason, told });
        }
        for member in self.process.members.iter().flatten() {
            let definition = member.engine.definition();
            let view = member.engine.view();
            if !view.desired.runs() {
                continue;
            }
            for (assembly, seen) in definition.assemblies.iter().zip(&view.assemblies) {
                self.note_unwell(definition, &assembly.name, None, seen.state, &seen.reason, &mut unwell);
            }
            for (service, seen) in definition.services.iter().zip(&view.services) {
                let assembly = &definition.assembly(service.assembly).name;
                let name = Some(&service.name);
                self.note_unwell(definition, assembly, name, seen.state, &seen.reason, &mut unwell);
            }
        }
        unwell
    }

    fn note_unwell(
        &self,
        definition: &Deployable,
        assembly: &Name,
        service: Option<&Name>,
        state: State,
        reason: &str,
        unwell: &mut Vec<Unwell>,
    ) {
        if state == State::Healthy {
            return;
        }
        let machine = format!("{}/{assembly}", definition.name);
        let name = service.map_or(machine.clone(), |service| format!("{machine}/{service}"));
        // A machine is as bad as the worst of its services, and these are looked at for themselves.
        let follows = service.is_none() && reason.ends_with(&format!(" is {state}"));
        // Of these a person was told when they began, before there was an incident.
        let waits = reason.contains("consequence: waits for") || state == State::Misconfigured;
        let told = follows
            || self.was_told(&name, waits)
            || service.is_some() && self.was_told(&machine, false)
            || state == State::Held && self.was_told("failure domain", true);
        unwell.push(Unwell { name, state, reason: reason.to_owned(), told });
    }

    /// Whether a person was told of that name, since its incident was opened or ever.
    fn was_told(&self, name: &str, ever: bool) -> bool {
        for entry in self.transcript.iter().rev() {
            match &entry.what {
                // What is acknowledged is known.
                What::Told(_, _, message) | What::Withheld(_, _, message) => {
                    let Some(rest) = message.strip_prefix(name) else { continue };
                    if rest.starts_with([' ', ':']) {
                        return true;
                    }
                }
                What::Event(record)
                    if !ever
                        && record.event.kind == EventKind::IncidentOpened
                        // Of that one its person knows.
                        && !record.event.reason.starts_with("a recovery was ordered")
                        && record.subject() == name =>
                {
                    return false;
                }
                _ => {}
            }
        }
        false
    }

    /// Whether everything that is acted upon is healthy, or not and a person knows.
    #[must_use]
    pub fn is_healthy_or_told(&self) -> bool {
        self.process.up
            && self.unwell().iter().all(|it| it.told || it.state == State::Stopped || self.observed(&it.name))
    }

    /// Whether everything that is managed is healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.process.up && self.unwell().iter().all(|it| self.observed(&it.name))
    }

    /// What is only observed is not repaired by anybody.
    fn observed(&self, name: &str) -> bool {
        let deployable = name.split('/').next().unwrap_or_default();
        let file = self.files.iter().find(|(known, _)| known.as_str() == deployable);
        file.and_then(|(_, it)| it.as_ref()).is_some_and(|it| it.mode == Mode::Observe)
    }

    /// From the end of all faults until everything is healthy or told, at the latest: what `cpe check` says of these definitions.
    #[must_use]
    pub fn bound(&self) -> Duration {
        let definitions: Vec<&Deployable> = self.files.iter().filter_map(|(_, it)| it.as_deref()).collect();
        let machines = definitions.iter().flat_map(|it| &it.assemblies);
        let peers = machines.map(|it| bounds::answers_every(&it.probe)).max();
        let path_answers = peers.filter(|_| self.canaries > 0 || self.machines.len() > 1);
        let managed = definitions.into_iter().map(|definition| {
            let mut assumed = Assumptions::of(definition, path_answers);
            let infrastructure =
                definition.infrastructure.as_ref().and_then(|it| self.infrastructures.get(it));
            assumed.capabilities = infrastructure.map(|it| it.kind.capabilities.clone());
            let domains = definition.assemblies.iter().flat_map(|it| &it.failure_domains);
            let evacuated = domains.into_iter().any(|domain| self.shared_points.contains_key(domain));
            Managed { definition, assumed, evacuated }
        });
        bounds::healed(&managed.collect::<Vec<_>>(), &GuardSettings::default()).total()
    }
}
