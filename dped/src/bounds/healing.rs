//! Rule 5 as one figure for all that is managed: how long after the last fault everything is healthy, or exhausted and told. Every wait
//! that can stand in the way is a summand with a name, each at its longest and one after the other, because one can begin when another
//! ends. Real healings take a small part of it; what takes longer is a defect of the engine, or of this page.
//!
//! What comes and goes by itself is a fault each time, and so is what starts later than its `startup_grace`; what an operator holds back, by
//! maintenance, a pause or a stop, is waited for first. How long the others' work takes meanwhile is in `turns.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use cpe_proto::definition::Deployable;
use cpe_proto::id::{AssemblyIndex, Name};

use super::times::{machine_action, restart};
use super::turns::{Turns, turns};
use super::{Assumptions, FaultBounds, detection, hung_machine, hung_start, service};
use crate::action::OUTCOME_LOST_AFTER;
use crate::guard::GuardSettings;

/// A definition that is managed, with what its bounds rest on.
#[derive(Clone, Debug)]
pub struct Managed<'a> {
    /// What is managed.
    pub definition: &'a Deployable,
    /// What is assumed of it.
    pub assumed: Assumptions,
    /// Whether a failure domain of it is evacuated when it is dead.
    pub evacuated: bool,
}

/// From the end of the last fault until everything is healthy, or exhausted and a person was told: what it is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healing {
    /// What was begun before that and cannot work any more is given up, and looked at; a lease that nobody gives back expires.
    pub given_up: Duration,
    /// cpe trusts itself again, and what is left of the faults is found, after the grace that follows a maintenance.
    pub found: Duration,
    /// What is only waited for is waited for to the end, and told: a foreign change, a machine that is out of reach, a dependency.
    pub waited: Duration,
    /// A common cause is held, started slowly, and that once more after it was stopped by the last fault.
    pub held: Duration,
    /// The ladder that ends last is climbed to its end, as if nothing else were broken.
    pub climbed: Duration,
    /// It waits for its turn: everything else in its deployable, others where they can fill a budget, the budget of machine actions.
    pub turns: Duration,
    /// What was exhausted by the last fault has its dated retry, which works.
    pub retried: Duration,
}

impl Healing {
    /// Each summand with what it is, as a clause, and what it is made of.
    #[must_use]
    pub const fn summands(&self) -> [(&'static str, &'static str, Duration); 7] {
        [
            (
                "what was begun is given up",
                "an action in flight is looked at until action_give_up; a lease that nobody gives back ends",
                self.given_up,
            ),
            ("what is left is found", "trust returns, startup_grace, the slowest detection", self.found),
            (
                "what is waited for is told",
                "transition_wait, unreachable_notify, dependency_wait",
                self.waited,
            ),
            (
                "a common cause is held and started slowly",
                "hold and steps of 1, 2, 4 ..., and again after a step that failed; 0 where no domain is that large",
                self.held,
            ),
            (
                "the last ladder is climbed",
                "each of its attempts at its longest, and the waits between",
                self.climbed,
            ),
            (
                "its turn comes",
                "all else in its deployable, one action at a time; others where they can fill a budget",
                self.turns,
            ),
            ("what was exhausted is tried again", "retry_after and the longest action", self.retried),
        ]
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.summands().into_iter().map(|(_, _, span)| span).sum()
    }
}

/// What all definitions together come to.
#[must_use]
pub fn healed(all: &[Managed<'_>], guard: &GuardSettings) -> Healing {
    if all.is_empty() {
        return Healing::default();
    }
    let Turns { climbed, turns } = turns(all, guard);
    let most = |of: &dyn Fn(&Managed<'_>) -> Duration| all.iter().map(of).max().unwrap_or_default();
    let trusts = guard.gap + guard.canary_fresh + guard.late_settle;
    Healing {
        given_up: most(&given_up).max(guard.lease),
        found: trusts + most(&found),
        waited: most(&|it| {
            let timing = it.definition.timing;
            timing.transition_wait + timing.unreachable_notify + timing.dependency_wait
        }),
        held: held(all, guard),
        climbed,
        turns,
        retried: most(&|it| it.definition.timing.retry_after + longest_action(it)),
    }
}

fn assemblies<'a>(it: &'a Managed<'_>) -> impl Iterator<Item = AssemblyIndex> + 'a {
    it.definition.assembly_indices()
}

/// Every kind of fault that a definition's parts can have.
fn faults<'a>(it: &'a Managed<'_>) -> impl Iterator<Item = FaultBounds> + 'a {
    let Managed { definition, assumed, .. } = it;
    assemblies(it).flat_map(move |index| {
        let services = definition.services_of(index).map(|part| service(definition, part, assumed));
        services.chain(hung_machine(definition, index, assumed)).collect::<Vec<_>>()
    })
}

/// One action on a machine or a restart, whichever takes longer, with its verification.
fn longest_action(it: &Managed<'_>) -> Duration {
    let Managed { definition, assumed, .. } = it;
    let each = assemblies(it).map(|index| {
        let assembly = definition.assembly(index);
        let services = definition.services_of(index).map(|part| {
            let probe = &definition.service(part).probe;
            restart(&definition.timing, assembly, probe.startup_grace + probe.stable_for)
        });
        let machine = assumed
            .capabilities
            .as_ref()
            .map(|_| machine_action(&definition.timing, assembly.max_rung, assembly, assumed));
        services.chain(machine).max().unwrap_or_default()
    });
    each.max().unwrap_or_default()
}

/// The action reaches its time-out, is unresolved for `action_give_up`, and its assembly is looked at.
fn given_up(it: &Managed<'_>) -> Duration {
    longest_action(it) + OUTCOME_LOST_AFTER + it.definition.timing.action_give_up
}

/// After a maintenance, evidence is dropped and `startup_grace` awaited; then the slowest fault to find is found.
fn found(it: &Managed<'_>) -> Duration {
    let definition = it.definition;
    let machines = assemblies(it).map(|index| definition.assembly(index).probe.startup_grace);
    let grace = definition.services.iter().map(|part| part.probe.startup_grace).chain(machines).max();
    let starts = definition.services.iter().map(|part| hung_start(&part.probe).max(detection(&part.probe)));
    let all = faults(it).map(|fault| fault.detection).chain(starts);
    grace.unwrap_or_default() + all.max().unwrap_or_default()
}

/// policy.md section 6: the hold, perhaps an evacuation whose outcome is lost and that did not help, then steps of 1, 2, 4 ... repairs, each asked for, done and verified. A step that failed with the last
/// fault stops the slow start for `retry_after`, and all of it comes again.
///
/// A domain of fewer assemblies than are counted is never held, nor is such a fleet.
fn held(all: &[Managed<'_>], guard: &GuardSettings) -> Duration {
    let mut domains: BTreeMap<&Name, usize> = BTreeMap::new();
    for domain in all.iter().flat_map(|it| &it.definition.assemblies).flat_map(|it| &it.failure_domains) {
        *domains.entry(domain).or_default() += 1;
    }
    let fleet: usize = all.iter().map(|it| it.definition.assemblies.len()).sum();
    let domain = domains.into_values().max().filter(|most| *most >= guard.domain_count);
    let Some(members) = domain.max((fleet >= guard.fleet_count).then_some(fleet)) else {
        return Duration::ZERO;
    };
    let steps = usize::BITS - members.leading_zeros();
    let each = all.iter().map(longest_action).max().unwrap_or_default() + guard.verified_within;
    let evacuation = guard.evacuation_heard + guard.evacuation + guard.evacuation_verified;
    let evacuation = if all.iter().any(|it| it.evacuated) { evacuation } else { Duration::ZERO };
    let once = guard.hold + evacuation + each * steps;
    once * 2 + guard.retry_after
}
