//! The fleet guard: the one gate above all engines (policy.md section 6). Called in the process, synchronously, with its own state only:
//! budgets as leases that expire, and which paths were proven by whom. If the journal cannot be written, nothing is admitted.
//!
//! Self-trust by canaries, held domains and the fleet breaker have their place in [`Guard::self_trusted`] and [`Guard::held_domain`]:
//! none is configured yet, so nothing is distrusted or held.

mod lease;
mod path;

use std::time::Duration;

use cpe_proto::decision::{Answer, Refusal, Value};
use cpe_proto::id::{ActionId, AssemblyIndex, Name};
use cpe_proto::rung::Rung;
use cpe_proto::time::Timestamp;

use crate::describe::{span, value};
use crate::output::Request;
use lease::{Lease, Leases};
use path::Paths;

/// The budgets, with policy.md section 6's values as the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardSettings {
    /// In flight in one deployable (1).
    pub in_flight_deployable: usize,
    /// In flight in one failure domain (5).
    pub in_flight_domain: usize,
    /// In flight on one infrastructure (10).
    pub in_flight_infrastructure: usize,
    /// In flight in all (50).
    pub in_flight_fleet: usize,
    /// Machine rungs on one infrastructure (10) ...
    pub machine_rungs: usize,
    /// ... within this (10 min).
    pub machine_rungs_within: Duration,
    /// A lease that was not released ends after this (30 min): longer than `action_give_up` and a verification together.
    pub lease: Duration,
}

impl Default for GuardSettings {
    fn default() -> Self {
        Self {
            in_flight_deployable: 1,
            in_flight_domain: 5,
            in_flight_infrastructure: 10,
            in_flight_fleet: 50,
            machine_rungs: 10,
            machine_rungs_within: Duration::from_secs(600),
            lease: Duration::from_secs(1800),
        }
    }
}

/// Where an action would be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The deployable's infrastructure.
    pub infrastructure: Option<Name>,
    /// The assembly's failure domains.
    pub domains: &'a [Name],
}

/// The fleet guard.
#[derive(Debug)]
pub struct Guard {
    settings: GuardSettings,
    leases: Leases,
    paths: Paths,
    journal_writable: bool,
    paused: bool,
}

impl Guard {
    /// A guard that has granted nothing yet and may write its journal.
    #[must_use]
    pub fn new(settings: GuardSettings) -> Self {
        Self {
            settings,
            leases: Leases::default(),
            paths: Paths::default(),
            journal_writable: true,
            paused: false,
        }
    }

    /// Whether the journal can be written. Without it nothing is admitted, whatever the rung.
    pub const fn set_journal_writable(&mut self, writable: bool) {
        self.journal_writable = writable;
    }

    /// An operator stopped, or allowed again, every recovery of the fleet.
    pub const fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Whether every recovery of the fleet is stopped.
    #[must_use]
    pub const fn paused(&self) -> bool {
        self.paused
    }

    /// Whether the controller trusts itself. No canaries are configured: trusted.
    #[must_use]
    pub const fn self_trusted(&self) -> bool {
        true
    }

    /// The held domain among these. No domain is ever held yet.
    #[must_use]
    pub fn held_domain(&self, _domains: &[Name]) -> Option<Name> {
        None
    }

    /// Admits or refuses, with everything that was looked at, in order; the last value decided a refusal. An admission is a lease:
    /// [`release`](Self::release) it.
    pub fn ask(
        &mut self,
        key: &Name,
        request: &Request,
        place: &Place<'_>,
        now: Timestamp,
    ) -> (Answer, Vec<Value>) {
        self.leases.expire(now, self.settings.machine_rungs_within);
        let mut gates = Vec::with_capacity(8);
        let answer = match self.refusal(key, request, place, &mut gates) {
            Some(refusal) => Answer::Refused(refusal),
            None => {
                self.grant(key, request, place, now);
                Answer::Admitted
            }
        };
        (answer, gates)
    }

    fn refusal(
        &self,
        key: &Name,
        request: &Request,
        place: &Place<'_>,
        gates: &mut Vec<Value>,
    ) -> Option<Refusal> {
        gates.push(value("fleet", if self.paused { "paused" } else { "not paused" }));
        if self.paused {
            return Some(Refusal::Paused);
        }
        gates.push(value("self", "trusted, none configured"));
        if !self.self_trusted() || !request.facts.self_trusted {
            return Some(Refusal::Untrusted);
        }
        let (age, limit) = (span(request.evidence_age), span(request.evidence_age_max));
        gates.push(value("age of the evidence", format!("{age}, at most {limit}")));
        if request.evidence_age > request.evidence_age_max {
            return Some(Refusal::Evidence);
        }
        if self.held_domain(place.domains).is_some() {
            return Some(Refusal::DomainHeld);
        }
        if self.over_budget(key, request, place, gates) {
            return Some(Refusal::Budget);
        }
        gates.push(value("journal", if self.journal_writable { "writable" } else { "not writable" }));
        (!self.journal_writable).then_some(Refusal::Journal)
    }

    /// Whether a budget is spent; it stops at the first that is.
    fn over_budget(&self, key: &Name, request: &Request, place: &Place<'_>, gates: &mut Vec<Value>) -> bool {
        let mut spent = |what: String, used: usize, limit: usize| {
            gates.push(value(&what, format!("{used} of {limit}")));
            used >= limit
        };
        // A start step on a machine whose recovery holds the lease is part of that recovery.
        let step_of = request.rung.is_none().then_some(request.assembly);
        let settings = &self.settings;
        if spent(
            "in flight, deployable".to_owned(),
            self.leases.of_deployable(key, step_of),
            settings.in_flight_deployable,
        ) {
            return true;
        }
        for domain in place.domains {
            if spent(
                format!("in flight, domain {domain}"),
                self.leases.of_domain(domain),
                settings.in_flight_domain,
            ) {
                return true;
            }
        }
        if let Some(name) = &place.infrastructure {
            if spent(
                format!("in flight, infrastructure {name}"),
                self.leases.of_infrastructure(name),
                settings.in_flight_infrastructure,
            ) {
                return true;
            }
            let machine = request.rung.is_some_and(|rung| rung > Rung::RestartService);
            let within = span(settings.machine_rungs_within);
            if machine
                && spent(
                    format!("machine rungs in {within}, infrastructure {name}"),
                    self.leases.machine_rungs(name),
                    settings.machine_rungs,
                )
            {
                return true;
            }
        }
        spent("in flight, fleet".to_owned(), self.leases.len(), settings.in_flight_fleet)
    }

    fn grant(&mut self, key: &Name, request: &Request, place: &Place<'_>, now: Timestamp) {
        let machine = request.rung.is_some_and(|rung| rung > Rung::RestartService);
        if let Some(name) = place.infrastructure.as_ref().filter(|_| machine) {
            self.leases.note_machine_rung(name, now);
        }
        let lease = Lease {
            assembly: request.assembly,
            infrastructure: place.infrastructure.clone(),
            domains: place.domains.into(),
            until: now.after(self.settings.lease),
        };
        self.leases.add(key, request.action, lease);
    }

    /// A lease ends. One that is not there is no error: it expired, or was never granted.
    pub fn release(&mut self, key: &Name, action: ActionId, _now: Timestamp) {
        self.leases.remove(key, action);
    }

    /// How many leases are out.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.leases.len()
    }

    /// A channel over that path answered.
    pub fn answered(&mut self, path: &str, deployable: &Name, assembly: AssemblyIndex, now: Timestamp) {
        self.paths.answered(path, deployable, assembly, now);
    }

    /// How long ago another one on that path answered, and who: the deployable's name and its assembly's place.
    #[must_use]
    pub fn path_answered(
        &self,
        path: &str,
        except: (&Name, AssemblyIndex),
        now: Timestamp,
    ) -> Option<(Duration, (Name, AssemblyIndex))> {
        self.paths.answered_by_another(path, except, now)
    }
}
