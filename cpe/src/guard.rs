//! The fleet guard of this process: its numbers from cpe.toml, taken up from the journal at the start, written down whenever what must
//! outlive the process has changed. What it decides is `dped::guard`'s.

use std::collections::BTreeSet;

use cpe_proto::config::Config;
use cpe_proto::id::{ActionId, Name};
use cpe_proto::time::Timestamp;
use dped::{Carried, Guard, GuardSettings};

use crate::clock;
use crate::journal::StartState;
use crate::past;
use crate::shared::Shared;

/// The guard's numbers as the configuration has them.
#[must_use]
pub fn settings(config: &Config) -> GuardSettings {
    let (budgets, holds) = (&config.budgets, &config.holds);
    let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    GuardSettings {
        in_flight_deployable: count(budgets.per_deployable),
        in_flight_domain: count(budgets.per_domain),
        in_flight_infrastructure: count(budgets.per_infrastructure),
        in_flight_fleet: count(budgets.fleet),
        machine_rungs: count(budgets.machine_rungs.failures.get()),
        machine_rungs_within: budgets.machine_rungs.within,
        window: holds.window,
        hold: holds.hold,
        domain_count: count(holds.domain.count),
        domain_percent: count(holds.domain.percent),
        fleet_count: count(holds.fleet.count),
        fleet_percent: count(holds.fleet.percent),
        ..GuardSettings::default()
    }
}

/// A guard that goes on where an earlier cpe ended. Leases of actions that have ended or were never begun end here; what no engine knows of
/// and nobody saw end is in flight until it is given up.
#[must_use]
pub fn taken_up(start: &StartState, settings: GuardSettings) -> Guard {
    let Some((age, snapshot)) = &start.guard else { return Guard::new(settings) };
    let now = clock::now();
    let mut guard = Guard::restore(settings, snapshot, *age, now);
    let carried_on: BTreeSet<(Name, ActionId)> = past::carried_on_by_all(start);
    let unseen: BTreeSet<(Name, ActionId)> =
        start.unresolved.iter().map(|(_, intent)| (intent.deployable.clone(), intent.action)).collect();
    let carried = |deployable: &Name, action| match (deployable.clone(), action) {
        key if carried_on.contains(&key) => Carried::On,
        key if unseen.contains(&key) => Carried::Unseen,
        _ => Carried::Not,
    };
    guard.retain_leases(carried, now);
    guard
}

impl Shared {
    /// Writes the guard down if that is needed. The guard is locked meanwhile, so that what is newer is written later; an intent that
    /// follows from an admission is durable only after the admission is.
    pub fn keep_guard(&self, guard: &mut Guard, now: Timestamp) {
        if guard.take_persist() {
            self.journal.guard(Box::new(guard.snapshot(now)));
        }
    }

    /// Shows what the guard thinks of itself and what it holds.
    pub fn count_guard(&self, guard: &Guard, now: Timestamp) {
        let metrics = &self.metrics;
        let (domains, fleet) = guard.holds().fold((0_i64, 0_i64), |(domains, fleet), scope| match scope {
            dped::Scope::Domain(_) => (domains + 1, fleet),
            dped::Scope::Fleet => (domains, 1),
            dped::Scope::Itself => (domains, fleet),
        });
        metrics.held_domains.set(domains);
        metrics.fleet_breaker_open.set(fleet);
        metrics.self_trusted.set(i64::from(guard.trusts_itself(now)));
        metrics.leases.set(i64::try_from(guard.in_flight()).unwrap_or(i64::MAX));
    }
}
