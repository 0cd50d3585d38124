//! Every wake-up has a reason. The times themselves lie where they are decided; this table finds the earliest.

use std::time::Duration;

use cpe_proto::id::{ActionId, AssemblyIndex, ServiceIndex};
use cpe_proto::time::Timestamp;

use crate::engine::Engine;
use crate::output::Target;
use crate::parts::{AssemblyPart, Phase, Poll};

/// A result that is this much later than its probe's timeout was lost on the way to us; the probe is void and is sent again.
/// The shell answers each probe by its deadline, so this only bounds what a defect there can do.
pub const LOST_AFTER: Duration = Duration::from_secs(10);

/// Why the engine wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// A probe is due.
    ProbeDue(Target),
    /// A probe's result never came.
    ProbeLost(Target),
    /// The infrastructure and the guard are asked again.
    AskAgain(AssemblyIndex),
    /// The gate did not answer, or an action did not end, or its verification did not.
    ActionDeadline(ActionId),
    /// The next attempt of a service's rung.
    ServiceAttempt(ServiceIndex),
    /// The next attempt of an assembly's rung.
    AssemblyAttempt(AssemblyIndex),
    /// Something that waits is said.
    SayWaiting(AssemblyIndex),
    /// An incident may be closed, or counts decay.
    Settle(AssemblyIndex),
}

impl Engine {
    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest, and why. None: only an input can change anything.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Timestamp, Wake)> {
        let mut earliest = None;
        for index in self.definition().assembly_indices() {
            self.wakes_of(index, &mut |at, wake| {
                if earliest.is_none_or(|(known, _)| at < known) {
                    earliest = Some((at, wake));
                }
            });
        }
        earliest
    }

    fn wakes_of(&self, index: AssemblyIndex, found: &mut impl FnMut(Timestamp, Wake)) {
        let part = self.assembly(index);
        let settings = &self.definition().assembly(index).probe;
        if self.probes_channel(index) {
            poll(&part.poll, settings.timeout, Target::Channel(index), found);
        }
        for service in self.definition().services_of(index) {
            let state = self.service(service);
            if self.probes_service(service) {
                poll(
                    &state.poll,
                    self.definition().service(service).probe.timeout,
                    Target::Service(service),
                    found,
                );
            }
            if let Some(at) = state.setup.as_ref().and_then(|setup| setup.wait_until) {
                found(at, Wake::ServiceAttempt(service));
            }
            let Some(trouble) = &state.trouble else { continue };
            if let Some(at) = trouble.wait_until {
                found(at, Wake::ServiceAttempt(service));
            }
            if let Some(at) = trouble.waits.as_ref().and_then(|waits| waits.say_at) {
                found(at, Wake::SayWaiting(index));
            }
            if let Some(at) = self.service_settles(service) {
                found(at, Wake::Settle(index));
            }
        }
        actions(part, found);
        if let Some(by_hand) = part.by_hand.as_ref().filter(|it| it.action.is_none()) {
            found(by_hand.until, Wake::AskAgain(index));
        }
        if let Some(power) = &part.power {
            let times = [
                (power.ask_at, Wake::AskAgain(index)),
                (power.wait_until, Wake::AssemblyAttempt(index)),
                (power.say_at, Wake::SayWaiting(index)),
            ];
            for (at, wake) in times {
                at.into_iter().for_each(|at| found(at, wake));
            }
        }
        let Some(trouble) = &part.trouble else { return };
        if let Some(at) = trouble.ask_at {
            found(at, Wake::AskAgain(index));
        }
        if let Some(at) = trouble.wait_until {
            found(at, Wake::AssemblyAttempt(index));
        }
        for at in
            [trouble.say_at, trouble.waits.as_ref().and_then(|waits| waits.say_at)].into_iter().flatten()
        {
            found(at, Wake::SayWaiting(index));
        }
        if let Some(at) = self.assembly_settles(index) {
            found(at, Wake::Settle(index));
        }
    }
}

fn poll(poll: &Poll, timeout: Duration, target: Target, found: &mut impl FnMut(Timestamp, Wake)) {
    match poll.flight {
        Some(_) => found(poll.began.after(timeout).after(LOST_AFTER), Wake::ProbeLost(target)),
        None => found(poll.due, Wake::ProbeDue(target)),
    }
}

fn actions(part: &AssemblyPart, found: &mut impl FnMut(Timestamp, Wake)) {
    let flight = part.power.as_ref().and_then(|power| power.flight.as_ref());
    let phases = [
        flight.map(|it| (it.action, it.phase)),
        part.recovery.as_ref().map(|it| (it.action, it.phase)),
        part.step.as_ref().map(|it| (it.action, it.phase)),
    ];
    for (action, phase) in phases.into_iter().flatten() {
        let (Phase::Asked { until }
        | Phase::Preparing { until }
        | Phase::GivingBack { until }
        | Phase::Acting { until }
        | Phase::Unresolved { until }
        | Phase::Verifying { until, .. }) = phase;
        found(until, Wake::ActionDeadline(action));
    }
}
