//! How long it takes at worst until a fault that no recovery mends is found, each of its rungs was tried, and it is exhausted. The ladder
//! is climbed with the engine's own choice of rungs (`ladder.rs`) and its own back-off, each at its longest.

use std::time::Duration;

use cpe_proto::decision::Verdict;
use cpe_proto::definition::{Assembly, Deployable, Service, Timing, Window};
use cpe_proto::id::{AssemblyIndex, ServiceIndex};
use cpe_proto::rung::Rung;

use super::{Assumptions, confirmation, detection, turn};
use crate::action::OUTCOME_LOST_AFTER;
use crate::backoff;
use crate::ladder::{self, Bounds, Elsewhere, Ladder};
use crate::whole::affected;

/// One kind of fault of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultBounds {
    /// From the fault to the conclusion that something is to be done about it.
    pub detection: Duration,
    /// The rungs that a fault climbs which none of them mends, in order, each attempt by itself.
    pub rungs: Vec<RungBound>,
    /// From the fault until every rung was tried in vain and a person is told.
    pub exhausted: Duration,
}

/// One attempt of a rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RungBound {
    /// The rung.
    pub rung: Rung,
    /// From the fault until this attempt was verified, or has failed: when this rung is the one that helps, the fault lasted no longer.
    pub over: Duration,
    /// What of that the attempt itself takes, with its verification: nothing else is begun in its deployable meanwhile.
    pub takes: Duration,
}

impl FaultBounds {
    /// From the fault until the last attempt of that rung is over; none: that rung is never tried.
    #[must_use]
    pub fn repaired_by(&self, rung: Rung) -> Option<Duration> {
        self.rungs.iter().rev().find(|it| it.rung == rung).map(|it| it.over)
    }
}

/// A fault of a service whose machine answers: restarts, then, where the definition has `[escalation]` for services, its machine's ladder.
#[must_use]
pub fn service(definition: &Deployable, index: ServiceIndex, assumed: &Assumptions) -> FaultBounds {
    let part = definition.service(index);
    let assembly = definition.assembly(part.assembly);
    let found = detection(&part.probe);
    let (mut rungs, mut at) = (Vec::new(), found);
    if part.restart.is_some() {
        // The N-th failure escalates instead, so that N - 1 are answered by a restart (policy.md section 3).
        for attempt in 0..restarts(definition) {
            at += backoff::longest(Rung::RestartService, attempt);
            if attempt > 0 {
                // Nothing acts on old evidence: what was seen before the attempt is confirmed anew.
                at += found;
            }
            let takes =
                restart(&definition.timing, assembly, part.probe.startup_grace + part.probe.stable_for);
            at += takes;
            rungs.push(RungBound { rung: Rung::RestartService, over: at, takes });
        }
    }
    if definition.escalation.service.is_some() {
        at = climb(definition, part.assembly, &Verdict::PerService, assumed, found, at, &mut rungs);
    }
    FaultBounds { detection: found, rungs, exhausted: at }
}

/// A machine that hangs (policy.md section 2, row 11). None: nothing proves the path or can reboot it, so that it is only reported.
#[must_use]
pub fn hung_machine(
    definition: &Deployable,
    index: AssemblyIndex,
    assumed: &Assumptions,
) -> Option<FaultBounds> {
    let (peers, assembly) = (assumed.path_answers?, definition.assembly(index));
    if !assumed.permits(assembly, Rung::RebootHard) {
        return None;
    }
    let found = hang_found(assembly, peers, assumed);
    let mut rungs = Vec::new();
    let exhausted = climb(definition, index, &Verdict::Hung, assumed, found, found, &mut rungs);
    Some(FaultBounds { detection: found, rungs, exhausted })
}

/// Until a hang is concluded: the first failed probe ends; a peer answers after that; the engine asks for that answer once an interval,
/// waits for the probe in flight, and as many probes as confirm a channel, less the first, fail after it; meanwhile the infrastructure
/// has said the machine's state.
fn hang_found(assembly: &Assembly, peers: Duration, assumed: &Assumptions) -> Duration {
    let probe = &assembly.probe;
    let after_the_answer = (probe.failure_threshold.get() - 1).max(1);
    let silent = turn(probe) + probe.timeout;
    let proven = peers + probe.interval + probe.timeout + confirmation(probe) * after_the_answer;
    let dead = confirmation(probe) * (probe.failure_threshold.get() - 1);
    silent + proven.max(dead) + asked_again(assembly) + assumed.infrastructure_answers
}

/// How long it is until the guard and the infrastructure are asked again.
pub(super) fn asked_again(assembly: &Assembly) -> Duration {
    assembly.probe.interval.max(Duration::from_secs(1))
}

/// How many failures of a service are answered by a restart.
pub(super) fn restarts(definition: &Deployable) -> u32 {
    definition.escalation.service.unwrap_or(Window::DEFAULT).failures.get() - 1
}

/// One restart, from its beginning to the end of its verification: its time-out, the time in which its outcome may be lost, a look at the
/// machine (a probe of the channel in flight and a fresh one), and then probes must pass for `stable_for` within `startup_grace` after it.
pub(super) fn restart(timing: &Timing, assembly: &Assembly, verified: Duration) -> Duration {
    timing.service_action_timeout + OUTCOME_LOST_AFTER + assembly.probe.timeout * 2 + verified
}

/// One action on a machine, likewise; what it came to is asked of the infrastructure, too. One that makes a new instance has two steps.
pub(super) fn machine_action(
    timing: &Timing,
    rung: Rung,
    assembly: &Assembly,
    assumed: &Assumptions,
) -> Duration {
    let steps = if rung.replaces() { 2 } else { 1 };
    let looked_at = (asked_again(assembly) + assumed.infrastructure_answers).max(assembly.probe.timeout * 2);
    let verified = assembly.probe.startup_grace + assembly.probe.stable_for;
    (timing.machine_action_timeout + OUTCOME_LOST_AFTER + looked_at) * steps + verified
}

/// The ladder of an assembly from `at` on, until no rung is left.
fn climb(
    definition: &Deployable,
    index: AssemblyIndex,
    verdict: &Verdict,
    assumed: &Assumptions,
    confirmed: Duration,
    mut at: Duration,
    rungs: &mut Vec<RungBound>,
) -> Duration {
    let assembly = definition.assembly(index);
    let window = definition.escalation.assembly;
    let bounds = Bounds {
        max_rung: assembly.max_rung,
        data: assembly.data,
        capabilities: assumed.capabilities.as_ref(),
        climbs: window.is_some(),
        deployable: definition.escalation.deployable.is_some(),
        relocate: elsewhere(definition),
    };
    let failures = window.unwrap_or(Window::DEFAULT).failures.get();
    let mut ladder = Ladder::default();
    // When the attempt before began, and that before the fault at the latest.
    let mut began = Duration::ZERO;
    for failure in 1.. {
        ladder.climbed |= failure >= failures;
        at += asked_again(assembly) + assumed.infrastructure_answers;
        let Some(rung) = ladder::choose(verdict, failure == 1, &ladder, bounds).rung else { break };
        let wait = backoff::longest(rung, ladder.attempts_of(rung));
        if rung.replaces() {
            // What the attempt before may still do is waited for, from when that began; of those before it that is over by then.
            at = at.max(began + definition.timing.action_give_up);
        }
        began = at + wait;
        let takes = machine_action(&definition.timing, rung, assembly, assumed);
        at = began + takes;
        ladder.attempted(rung);
        rungs.push(RungBound { rung, over: at, takes });
        // It did not help: that is confirmed anew, also after the wait before the next attempt.
        at += confirmed * 2;
    }
    beyond(definition, index, verdict, assumed, bounds, (at, confirmed), rungs)
}

fn elsewhere(definition: &Deployable) -> Elsewhere {
    definition.escalation.relocate.as_ref().map_or(Elsewhere::NotGiven, |_| Elsewhere::Given)
}

/// The deployable's scope after it: all but the N-th failure are answered by a restart of what is affected, and each that does not help
/// is a failure at once. Then the other place, once. Others let go before it and come back after it, or are given back, each step at its longest.
fn beyond(
    definition: &Deployable,
    index: AssemblyIndex,
    verdict: &Verdict,
    assumed: &Assumptions,
    bounds: Bounds<'_>,
    (mut at, confirmed): (Duration, Duration),
    rungs: &mut Vec<RungBound>,
) -> Duration {
    let (assembly, timing) = (definition.assembly(index), &definition.timing);
    let others = affected(definition, index).into_iter().map(|it| definition.service(it));
    let others = others.filter(|it| it.restart.is_some());
    let each = |service: &Service| {
        let step = timing.service_action_timeout + OUTCOME_LOST_AFTER;
        step * 3 + timing.service_action_timeout + service.probe.startup_grace + service.probe.stable_for
    };
    let others: Duration = others.map(each).sum();
    let looked_at = (assembly.probe.interval + assembly.probe.timeout) * 8;
    let mut answered = |rung: Rung, attempt: u32| {
        at += asked_again(assembly) + assumed.infrastructure_answers;
        if rung.replaces() {
            // What the attempt before may still do is waited for.
            at += timing.action_give_up;
        }
        at += backoff::longest(rung, attempt);
        let takes = others + looked_at + machine_action(timing, rung, assembly, assumed);
        at += takes;
        rungs.push(RungBound { rung, over: at, takes });
        at += confirmed * 2;
    };
    let restart = ladder::forbidden_as_whole(Some(verdict), bounds).is_none();
    let scope = definition.escalation.deployable.filter(|_| restart);
    for failure in 1..scope.map_or(1, |scope| scope.window.failures.get()) {
        answered(Rung::RestartDeployable, failure - 1);
    }
    if ladder::forbidden(Rung::Relocate, bounds).is_none() {
        answered(Rung::Relocate, 0);
    }
    at
}
