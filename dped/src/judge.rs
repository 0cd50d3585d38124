//! From what a probe saw to what that says of a service, one rule per kind of check (policy.md section 1). The states that follow
//! from a row of judgements are `health.rs`'s.

use cpe_proto::definition::Check;
use cpe_proto::observation::Observation;

use crate::systemd;

/// What one observation says of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It runs.
    Passed,
    /// It does not, and how.
    Failed(Box<str>),
    /// No recovery could help, and why.
    Misconfigured(Box<str>),
    /// Between two states: unknown, and failed after `startup_grace` of it.
    Pending(Box<str>),
    /// The probe itself did not end: unknown, and failed after `failure_threshold` of them over a healthy channel.
    Deadline,
    /// Nothing answered the controller itself: unknown, and failed after `failure_threshold` of them over a healthy channel, which
    /// shows that it is neither the machine nor the way to it.
    Silent(Box<str>),
    /// Neither, and why.
    Unknown(Box<str>),
    /// The channel carried no answer: says nothing of the service, but much of the channel.
    NotObserved,
}

/// Judges one observation of a service that is checked so.
#[must_use]
pub fn judge(check: &Check, observation: &Observation) -> Judgement {
    match (check, observation) {
        (_, Observation::NotObserved | Observation::Channel(..)) => Judgement::NotObserved,
        (Check::Direct(_), _) => judge_direct(observation),
        (_, Observation::NotRunnable(detail)) => {
            Judgement::Misconfigured(clause("probe cannot be run", detail))
        }
        (Check::Systemd(_), Observation::Unit(unit)) => systemd::judge(unit),
        (Check::Systemd(_), Observation::DeadlinePassed) => {
            Judgement::Unknown("systemd did not answer by the deadline".into())
        }
        (_, Observation::DeadlinePassed) => Judgement::Deadline,
        (Check::Process(name), Observation::Exited(code, detail)) => match code {
            0 => Judgement::Passed,
            126 | 127 => not_runnable(*code, detail),
            _ => Judgement::Failed(format!("no process {name}").into()),
        },
        (Check::Tcp { port, .. }, Observation::NotConnected(detail)) => {
            Judgement::Failed(clause(&format!("port {port}"), detail))
        }
        (Check::Tcp { port, .. }, Observation::Exited(code, detail)) => match code {
            0 => Judgement::Passed,
            126 | 127 => not_runnable(*code, detail),
            _ => Judgement::Failed(clause(&format!("port {port} not connected"), detail)),
        },
        (Check::Tcp { .. }, Observation::Connected) => Judgement::Passed,
        (Check::Command(_), Observation::Exited(code, detail)) => match code {
            0 => Judgement::Passed,
            126 | 127 => not_runnable(*code, detail),
            _ => Judgement::Failed(clause(&format!("exit status {code}"), detail)),
        },
        _ => Judgement::Unknown("answer of another kind of probe".into()),
    }
}

/// What the controller saw itself. The text was made where it was seen, and says of what it speaks.
fn judge_direct(observation: &Observation) -> Judgement {
    match observation {
        Observation::Expected(_) | Observation::Connected => Judgement::Passed,
        Observation::Unexpected(detail) | Observation::NotConnected(detail) => {
            Judgement::Failed(detail.clone())
        }
        Observation::NotRunnable(detail) => Judgement::Misconfigured(detail.clone()),
        Observation::Silent(detail) => Judgement::Silent(detail.clone()),
        Observation::DeadlinePassed => Judgement::Silent("no answer by the deadline".into()),
        Observation::NotAsked(detail) => Judgement::Unknown(detail.clone()),
        _ => Judgement::Unknown("answer of another kind of probe".into()),
    }
}

fn not_runnable(code: i32, detail: &str) -> Judgement {
    Judgement::Misconfigured(clause(&format!("probe cannot be run, exit status {code}"), detail))
}

fn clause(what: &str, detail: &str) -> Box<str> {
    if detail.is_empty() { what.into() } else { format!("{what}: {detail}").into() }
}
