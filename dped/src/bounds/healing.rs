//! Rule 5 as one figure for all that is managed: how long after the last fault everything is healthy, or exhausted and told. Every wait
//! that can stand in the way is a summand with a name, each at its longest and one after the other, because one can begin when another
//! ends. Real healings take a small part of it; what takes longer is a defect of the engine, or of this page.
//!
//! What comes and goes by itself is a fault each time; what an operator holds back, by maintenance, a pause or a stop, is waited for first.

use std::collections::BTreeMap;
use std::time::Duration;

use cpe_proto::definition::Deployable;
use cpe_proto::id::{AssemblyIndex, Name};
use cpe_proto::rung::Rung;

use super::times::{asked_again, machine_action, restart, restarts};
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
    /// The longest ladder is climbed to its end, as if nothing else were broken.
    pub climbed: Duration,
    /// It waits for its turn: other assemblies of its deployable, other deployables, the budget of machine actions.
    pub turns: Duration,
    /// What was exhausted by the last fault has its dated retry, which works.
    pub retried: Duration,
}

impl Healing {
    /// Each summand with what it is, as a clause.
    #[must_use]
    pub const fn summands(&self) -> [(&'static str, Duration); 7] {
        [
            ("what was begun is given up", self.given_up),
            ("what is left is found", self.found),
            ("what is waited for is told", self.waited),
            ("a common cause is held and started slowly", self.held),
            ("the longest ladder is climbed", self.climbed),
            ("its turn comes", self.turns),
            ("what was exhausted is tried again", self.retried),
        ]
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.summands().into_iter().map(|(_, span)| span).sum()
    }
}

/// What all definitions together come to.
#[must_use]
pub fn healed(all: &[Managed<'_>], guard: &GuardSettings) -> Healing {
    if all.is_empty() {
        return Healing::default();
    }
    let works: Vec<Work> = all.iter().map(Work::of).collect();
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
        climbed: most(&|it| faults(it).map(|fault| fault.exhausted).max().unwrap_or_default()),
        turns: turns(all, &works, guard),
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
fn held(all: &[Managed<'_>], guard: &GuardSettings) -> Duration {
    let members: usize = all.iter().map(|it| it.definition.assemblies.len()).sum();
    let steps = usize::BITS - members.leading_zeros();
    let each = all.iter().map(longest_action).max().unwrap_or_default() + guard.verified_within;
    let evacuation = guard.evacuation_heard + guard.evacuation + guard.evacuation_verified;
    let evacuation = if all.iter().any(|it| it.evacuated) { evacuation } else { Duration::ZERO };
    let once = guard.hold + evacuation + each * steps;
    once * 2 + guard.retry_after
}

/// The actions that a deployable can come to, if everything in it climbs its ladder to the end.
struct Work {
    /// How long they take, one after the other.
    takes: Duration,
    /// What of that is the part's own that has the least.
    least: Duration,
    machine_rungs: u32,
}

impl Work {
    fn of(it: &Managed<'_>) -> Self {
        let mut work = Self { takes: Duration::ZERO, least: Duration::MAX, machine_rungs: 0 };
        for index in it.definition.assembly_indices() {
            work.add(it, index);
        }
        work.least = work.least.min(work.takes);
        work
    }

    fn add(&mut self, Managed { definition, assumed, .. }: &Managed<'_>, index: AssemblyIndex) {
        let assembly = definition.assembly(index);
        let asked = asked_again(assembly);
        let hung = hung_machine(definition, index, assumed);
        let services = definition.services_of(index).map(|part| service(definition, part, assumed));
        let of_machine =
            |ladder: &FaultBounds| ladder.rungs.iter().filter(|it| it.rung > Rung::RestartService).count();
        let rungs = services.chain(hung.clone()).map(|ladder| of_machine(&ladder)).max().unwrap_or(0);
        let rungs = u32::try_from(rungs).unwrap_or(u32::MAX);
        let action = |rung| machine_action(&definition.timing, rung, assembly, assumed);
        let machine = (action(Rung::RebootHard) + asked) * rungs;
        // One of them, at most, has a second step.
        let second = action(assembly.max_rung).saturating_sub(action(Rung::RebootHard));
        self.machine_rungs = self.machine_rungs.saturating_add(rungs);
        self.takes += machine + second;
        if hung.is_some() {
            self.least = self.least.min(machine);
        }
        for part in definition.services_of(index) {
            let probe = &definition.service(part).probe;
            let each = restart(&definition.timing, assembly, probe.startup_grace + probe.stable_for) + asked;
            // Counts begin anew after each action on the machine (policy.md section 3).
            let times =
                definition.service(part).restart.as_ref().map_or(0, |_| restarts(definition) * (rungs + 1));
            self.takes += each * times;
            self.least = self.least.min(each * times + machine);
        }
    }
}

/// While something waits for its turn, as many other actions are under way as the limit allows: all others' work, by that limit.
fn turns(all: &[Managed<'_>], works: &[Work], guard: &GuardSettings) -> Duration {
    let total: Duration = works.iter().map(|work| work.takes).sum();
    let at_once = guard.in_flight_domain.min(guard.in_flight_infrastructure).min(guard.in_flight_fleet);
    let at_once = u32::try_from(at_once.max(1)).unwrap_or(u32::MAX);
    let own = u32::try_from(guard.in_flight_deployable.max(1)).unwrap_or(u32::MAX);
    let waits = works.iter().map(|work| (work.takes - work.least) / own + (total - work.takes) / at_once);
    let mut rungs: BTreeMap<&Name, u32> = BTreeMap::new();
    for (it, work) in all.iter().zip(works) {
        if let Some(infrastructure) = &it.definition.infrastructure {
            let sum = rungs.entry(infrastructure).or_default();
            *sum = sum.saturating_add(work.machine_rungs);
        }
    }
    let limit = u32::try_from(guard.machine_rungs.max(1)).unwrap_or(u32::MAX);
    // What was spent before the last fault ended is spent for one window more.
    let windows = rungs.into_values().max().map_or(0, |most| most.div_ceil(limit));
    waits.max().unwrap_or_default() + guard.machine_rungs_within * windows
}
