//! The longest wait of healing (`healing.rs`): a ladder is climbed while others have their turns. Nothing but these sums is in it:
//!
//! * One action is under way in a deployable. Whenever a ladder's part wants to act and may not, because of that, something else of its
//!   deployable is being done: it waits no longer than all that takes, and its own ladder is not among it.
//! * After the last fault a machine's ladder is climbed once. Its services are restarted before it, and once more when it has ended, not
//!   between its rungs: while a machine wants its next rung, nothing of it is restarted, and a rung that worked has everything on it run.
//!   A service that waits for another machine is no part of that, and may begin the ladder anew when its time has come.
//! * Others can fill the budget of a domain, an infrastructure or the fleet only if there are as many other deployables there; then that
//!   many of their actions are under way at a time.
//! * As long as the budget of machine actions is spent, so many were begun within its window. First attempts have all of it, as soon as
//!   one waits; dated retries, of which each machine needs one, the part that they may use.

use std::collections::BTreeMap;
use std::time::Duration;

use cpe_proto::definition::Deployable;
use cpe_proto::id::{AssemblyIndex, Name, ServiceIndex};
use cpe_proto::rung::Rung;

use super::healing::Managed;
use super::times::asked_again;
use super::{FaultBounds, hung_machine, service};
use crate::guard::GuardSettings;

/// The ladder that ends last, when others come before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turns {
    /// Its own time.
    pub(super) climbed: Duration,
    /// How long it waits for its turn.
    pub(super) turns: Duration,
}

pub(super) fn turns(all: &[Managed<'_>], guard: &GuardSettings) -> Turns {
    let works: Vec<Work> = all.iter().map(Work::of).collect();
    let crowds = Crowds::of(all, &works);
    let own = limit(guard.in_flight_deployable);
    let mut last = Turns::default();
    for (it, work) in all.iter().zip(&works) {
        let others = crowds.keep_waiting(it.definition, work, guard);
        for ladder in &work.ladders {
            let turns = work.takes.saturating_sub(ladder.takes) / own + others;
            if ladder.climbed + turns > last.climbed + last.turns {
                last = Turns { climbed: ladder.climbed, turns };
            }
        }
    }
    last.turns += windows(all, &works, guard);
    last
}

/// One kind of fault of one part.
struct OwnLadder {
    climbed: Duration,
    /// What of that its actions take.
    takes: Duration,
}

/// The actions that a deployable can come to after the last fault, if everything in it climbs its ladder to the end.
struct Work {
    /// How long they take, one after the other.
    takes: Duration,
    machine_rungs: u32,
    /// Of how many machines these are.
    machines: u32,
    ladders: Vec<OwnLadder>,
}

impl Work {
    fn of(it: &Managed<'_>) -> Self {
        let mut work = Self { takes: Duration::ZERO, machine_rungs: 0, machines: 0, ladders: Vec::new() };
        for index in it.definition.assembly_indices() {
            work.add(it, index);
        }
        work
    }

    fn add(&mut self, Managed { definition, assumed, .. }: &Managed<'_>, index: AssemblyIndex) {
        let asked = asked_again(definition.assembly(index));
        let services: Vec<FaultBounds> =
            definition.services_of(index).map(|part| service(definition, part, assumed)).collect();
        let hung = hung_machine(definition, index, assumed);
        let (mut rungs, mut machine) = (0, Duration::ZERO);
        for ladder in services.iter().chain(&hung) {
            let of_machine = ladder.rungs.iter().filter(|it| it.rung > Rung::RestartService);
            let takes = of_machine.clone().map(|it| it.takes + asked).sum();
            (rungs, machine) = (rungs.max(of_machine.count()), machine.max(takes));
        }
        let rounds = 1 + u32::from(definition.services_of(index).any(|it| waits_elsewhere(definition, it)));
        let rungs = u32::try_from(rungs).unwrap_or(u32::MAX).saturating_mul(rounds);
        self.machine_rungs = self.machine_rungs.saturating_add(rungs);
        self.machines = self.machines.saturating_add(rungs.min(1));
        self.takes += machine * rounds;
        let times = if rungs > 0 { 2 } else { 1 };
        for ladder in &services {
            let restarts = ladder.rungs.iter().filter(|it| it.rung == Rung::RestartService);
            self.takes += restarts.map(|it| it.takes + asked).sum::<Duration>() * times;
        }
        let own = |ladder: &FaultBounds| OwnLadder {
            climbed: ladder.exhausted,
            takes: ladder.rungs.iter().map(|it| it.takes).sum(),
        };
        self.ladders.extend(services.iter().chain(&hung).map(own));
    }
}

/// Whether a service waits for something on another machine, so that nothing done to its own could mend it.
fn waits_elsewhere(definition: &Deployable, index: ServiceIndex) -> bool {
    let part = definition.service(index);
    !definition.assembly(part.assembly).after.is_empty()
        || part.after.iter().any(|other| definition.service(*other).assembly != part.assembly)
}

/// How many deployables there are in a place, and their work.
#[derive(Clone, Copy, Debug, Default)]
struct Crowd {
    deployables: usize,
    takes: Duration,
}

impl Crowd {
    fn add(&mut self, work: &Work) {
        self.deployables += 1;
        self.takes += work.takes;
    }

    /// How long the others of it can fill a budget.
    fn fills(&self, work: &Work, budget: usize, guard: &GuardSettings) -> Duration {
        let others = self.deployables.saturating_sub(1).saturating_mul(guard.in_flight_deployable);
        if others < budget {
            return Duration::ZERO;
        }
        self.takes.saturating_sub(work.takes) / limit(budget)
    }
}

/// The crowds of all places that have a budget.
#[derive(Default)]
struct Crowds<'a> {
    domains: BTreeMap<&'a Name, Crowd>,
    infrastructures: BTreeMap<&'a Name, Crowd>,
    fleet: Crowd,
}

impl<'a> Crowds<'a> {
    fn of(all: &[Managed<'a>], works: &[Work]) -> Self {
        let mut crowds = Self::default();
        for (it, work) in all.iter().zip(works) {
            for domain in domains(it.definition) {
                crowds.domains.entry(domain).or_default().add(work);
            }
            if let Some(name) = &it.definition.infrastructure {
                crowds.infrastructures.entry(name).or_default().add(work);
            }
            crowds.fleet.add(work);
        }
        crowds
    }

    /// How long something of that deployable waits for other deployables, in whichever of its places that is longest.
    fn keep_waiting(&self, definition: &Deployable, work: &Work, guard: &GuardSettings) -> Duration {
        let in_domain = |name: &Name| {
            let crowd = self.domains.get(name).copied().unwrap_or_default();
            crowd.fills(work, guard.in_flight_domain, guard)
        };
        let of_machine = definition.assemblies.iter();
        let of_machine = of_machine.map(|it| it.failure_domains.iter().map(in_domain).sum::<Duration>());
        let domains = of_machine.max().unwrap_or_default();
        let infrastructure = definition.infrastructure.as_ref().and_then(|it| self.infrastructures.get(it));
        let infrastructure = infrastructure.copied().unwrap_or_default();
        domains
            + infrastructure.fills(work, guard.in_flight_infrastructure, guard)
            + self.fleet.fills(work, guard.in_flight_fleet, guard)
    }
}

/// Each failure domain that something of a definition is in, once.
fn domains(definition: &Deployable) -> std::collections::BTreeSet<&Name> {
    definition.assemblies.iter().flat_map(|it| &it.failure_domains).collect()
}

/// How long machine actions wait for their budget.
fn windows(all: &[Managed<'_>], works: &[Work], guard: &GuardSettings) -> Duration {
    let mut sums: BTreeMap<&Name, (u32, u32)> = BTreeMap::new();
    for (it, work) in all.iter().zip(works) {
        if let Some(infrastructure) = &it.definition.infrastructure {
            let (rungs, machines) = sums.entry(infrastructure).or_default();
            *rungs = rungs.saturating_add(work.machine_rungs);
            *machines = machines.saturating_add(work.machines);
        }
    }
    // What was spent before the last fault ended is spent for one window more.
    let windows = |(rungs, machines): (u32, u32)| {
        let first_attempts = rungs.div_ceil(limit(guard.machine_rungs_for(false)));
        first_attempts.saturating_add(machines.div_ceil(limit(guard.machine_rungs_for(true))))
    };
    guard.machine_rungs_within * sums.into_values().map(windows).max().unwrap_or(0)
}

fn limit(most: usize) -> u32 {
    u32::try_from(most.max(1)).unwrap_or(u32::MAX)
}
