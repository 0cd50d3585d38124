//! The most actions of each rung that could be admitted in any ten minutes, whatever fails and however it fails: what the back-off, the
//! counts and the guard's budget for machine rungs leave. Operators who begin anew (`cpe retry`) and steps of an ordered start come on top.

use std::collections::BTreeMap;
use std::time::Duration;

use cpe_proto::definition::{Deployable, Window};
use cpe_proto::id::{AssemblyIndex, ServiceIndex};
use cpe_proto::rung::Rung;

use super::Assumptions;
use crate::backoff;
use crate::guard::GuardSettings;

/// The window that rates are of.
pub const RATE_WINDOW: Duration = Duration::from_secs(600);

/// So many of each rung at most. Rungs that can never be chosen are absent.
pub type Rates = BTreeMap<Rung, u64>;

/// Of one deployable.
#[must_use]
pub fn rates(definition: &Deployable, assumed: &Assumptions, guard: &GuardSettings) -> Rates {
    let mut all = Rates::new();
    for index in definition.assembly_indices() {
        let (machine, actions) = of_machine(definition, index, assumed);
        let actions = actions.min(machine_budget(guard));
        let restarts = definition.services_of(index).map(|service| of_service(definition, service, actions));
        *all.entry(Rung::RestartService).or_default() += restarts.sum::<u64>();
        for (rung, most) in machine {
            *all.entry(rung).or_default() += most;
        }
    }
    capped(all, guard)
}

/// Of several deployables that share one infrastructure (policy.md section 6: the budget of machine rungs is each infrastructure's).
#[must_use]
pub fn together<'a>(several: impl IntoIterator<Item = &'a Rates>, guard: &GuardSettings) -> Rates {
    let mut all = Rates::new();
    for (rung, most) in several.into_iter().flatten() {
        let sum = all.entry(*rung).or_default();
        *sum = sum.saturating_add(*most);
    }
    capped(all, guard)
}

/// No machine rung is begun more often than the infrastructure's budget allows.
fn capped(mut rates: Rates, guard: &GuardSettings) -> Rates {
    for (rung, most) in &mut rates {
        if *rung > Rung::RestartService {
            *most = (*most).min(machine_budget(guard));
        }
    }
    rates.retain(|_, most| *most > 0);
    rates
}

/// Machine rungs on one infrastructure in the window (policy.md section 6: 10 in 10 min, a window that slides).
fn machine_budget(guard: &GuardSettings) -> u64 {
    let windows = RATE_WINDOW.as_millis().div_ceil(guard.machine_rungs_within.as_millis().max(1));
    let windows = u64::try_from(windows).unwrap_or(u64::MAX);
    u64::try_from(guard.machine_rungs).unwrap_or(u64::MAX).saturating_mul(windows)
}

/// Restarts of one service. Back-off begins anew when it escalated and its machine was acted on, and when its counts decay, so these cut the
/// window into parts; the shortest waits in equal parts come to the most (the waits only grow). Then the dated retries (policy.md section 3).
fn of_service(definition: &Deployable, index: ServiceIndex, machine_actions: u64) -> u64 {
    if definition.service(index).restart.is_none() {
        return 0;
    }
    let window = definition.escalation.service.unwrap_or(Window::DEFAULT);
    let decays = times(window.within);
    let climbs = if definition.escalation.service.is_some() { machine_actions } else { 0 };
    let parts = climbs.saturating_add(decays).saturating_add(1);
    let each = attempts_in(Rung::RestartService, part_of_window(parts)).saturating_mul(parts);
    // With N = 1 the first failure escalates, and only dated retries are left.
    let each = if window.failures.get() == 1 { 0 } else { each };
    each.saturating_add(retries(definition, decays))
}

/// Of one assembly's machine, without the budget: each rung by itself, and all together. An action follows a failure that counts, and
/// these are fewer than what each rung could come to alone.
fn of_machine(definition: &Deployable, index: AssemblyIndex, assumed: &Assumptions) -> (Rates, u64) {
    let assembly = definition.assembly(index);
    let window = definition.escalation.assembly.unwrap_or(Window::DEFAULT);
    // Counts decay, or slide out of the window, so often; then the ladder begins anew.
    let scope =
        definition.escalation.deployable.filter(|_| assumed.permits(assembly, Rung::RestartDeployable));
    let restarts = scope.map_or(0, |scope| u64::from(scope.window.failures.get() - 1));
    let whole =
        scope.map_or(0, |scope| restarts.saturating_mul(times(scope.window.within).saturating_add(1)));
    // It does so after each restart of the deployable, too.
    let rounds = times(window.within).saturating_add(1).saturating_add(whole);
    let reboots = u64::from(window.failures.get() - 1);
    let retries = retries(definition, rounds - 1);
    let hard = reboots.min(attempts_in(Rung::RebootHard, part_of_window(rounds)));
    let mut rates = Rates::new();
    let mut add = |rung: Rung, each: u64, more: u64| {
        if assumed.permits(assembly, rung) {
            rates.insert(rung, each.saturating_mul(rounds).saturating_add(more));
        }
    };
    add(Rung::Start, hard, retries);
    add(Rung::RebootSoft, u64::from(reboots > 0), retries);
    add(Rung::RebootHard, hard, retries);
    add(Rung::RestartDeployable, 0, whole);
    // Once each.
    add(Rung::Rebuild, 1, 0);
    add(Rung::Recreate, 1, 0);
    if definition.escalation.relocate.is_some() {
        // It stays where it is made.
        add(Rung::Relocate, 0, 1);
    }
    let replaces = [Rung::Rebuild, Rung::Recreate, Rung::Relocate]
        .into_iter()
        .filter(|rung| rates.contains_key(rung))
        .count();
    let each = reboots.saturating_add(u64::try_from(replaces).unwrap_or(0));
    let all = each.saturating_mul(rounds).saturating_add(retries).saturating_add(whole);
    let acted_on = if rates.is_empty() { 0 } else { all };
    (rates, acted_on)
}

/// Dated retries of what is exhausted: one every `retry_after`, and one more where what was exhausted can have been well meanwhile.
fn retries(definition: &Deployable, decays: u64) -> u64 {
    times(definition.timing.retry_after).saturating_add(u64::from(decays > 0)).max(1)
}

/// How often such a time can be over within the window.
fn times(span: Duration) -> u64 {
    u64::try_from(RATE_WINDOW.as_millis() / span.as_millis().max(1)).unwrap_or(u64::MAX)
}

fn part_of_window(parts: u64) -> Duration {
    RATE_WINDOW / u32::try_from(parts).unwrap_or(u32::MAX)
}

/// The most attempts of a rung within that time, each after the shortest back-off.
fn attempts_in(rung: Rung, span: Duration) -> u64 {
    let (mut attempts, mut spent) = (1_u32, Duration::ZERO);
    loop {
        spent = spent.saturating_add(backoff::shortest(rung, attempts));
        if spent > span {
            return u64::from(attempts);
        }
        attempts += 1;
    }
}
