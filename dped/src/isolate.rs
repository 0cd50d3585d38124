//! Isolation (policy.md section 2): from facts to a verdict, first match wins, the outermost scope first. A pure and total function:
//! the same facts give the same verdict in the engine, in `cpe why` and in an audit years later. Who gathers the facts and acts on
//! the verdict is `fault.rs`.

use cpe_proto::decision::{ChannelFact, Facts, Verdict};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::observation::ChannelFailure;

/// The verdict, and the row of the policy's table that gave it.
///
/// "Timed out" of rows 11 and 12 includes a protocol error: the kernel answered, no shell did, and a TCP connect never proves a live machine.
#[must_use]
pub fn isolate(facts: &Facts) -> (Verdict, u8) {
    use InstanceState as I;
    let healthy = facts.channel == ChannelFact::Healthy;
    let dead = match facts.channel {
        ChannelFact::Dead(how) => Some(how),
        _ => None,
    };
    if !facts.self_trusted {
        return (Verdict::Untrusted, 1);
    }
    if let (Some(domain), false) = (&facts.held_domain, healthy) {
        return (Verdict::CommonCause(domain.clone()), 2);
    }
    match (facts.instance, dead) {
        (Some(I::Off | I::Error | I::Gone), None) if healthy => (Verdict::Disagreement, 3),
        (Some(I::Changing), _) if !healthy => (Verdict::InTransition, 4),
        (_, Some(ChannelFailure::AuthenticationFailed | ChannelFailure::HostKey)) => {
            (Verdict::MisconfiguredChannel, 5)
        }
        (Some(I::Gone), Some(_)) => (Verdict::Gone, 6),
        (Some(I::Off), Some(_)) => (Verdict::Off, 7),
        (Some(I::Error), Some(_)) => (Verdict::Down, 8),
        (_, Some(_)) if facts.live_witness => (Verdict::ChannelFault, 9),
        (Some(I::Active) | None, Some(ChannelFailure::Refused)) => (Verdict::ChannelFault, 10),
        (Some(I::Active), Some(how)) if silent(how) && facts.path_proven => (Verdict::Hung, 11),
        (Some(I::Unknown) | None, Some(how)) if silent(how) => (Verdict::Unreachable, 12),
        _ if healthy => (Verdict::PerService, 13),
        _ => (Verdict::Unreachable, 14),
    }
}

const fn silent(how: ChannelFailure) -> bool {
    matches!(how, ChannelFailure::TimedOut | ChannelFailure::Protocol)
}
