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
    /// It runs, and says that a person should look at it.
    Warned(Box<str>),
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
        (Check::Direct(_) | Check::FromGuest(_), _) => judge_direct(observation),
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
        (_, Observation::NotAsked(detail)) => Judgement::Unknown(detail.clone()),
        (Check::Nagios(_), Observation::Exited(code, detail)) => plugin(*code, detail),
        (Check::Ocf(_), Observation::Exited(code, detail)) => resource(*code, detail),
        (Check::Lsb(_), Observation::Exited(code, detail)) => script(*code, detail),
        _ => Judgement::Unknown("answer of another kind of probe".into()),
    }
}

/// What the controller saw itself, or through the guest's sshd. The text was made where it was seen, and says of what it speaks.
fn judge_direct(observation: &Observation) -> Judgement {
    match observation {
        Observation::Expected(_) | Observation::Connected => Judgement::Passed,
        Observation::Warned(detail) => Judgement::Warned(clause("warning", detail)),
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

/// The Monitoring Plugins' exit codes. A warning is no failure: no restart gives a full disk its space back.
fn plugin(code: i32, detail: &str) -> Judgement {
    match code {
        0 => Judgement::Passed,
        1 => Judgement::Warned(clause("warning", detail)),
        2 => Judgement::Failed(clause("critical", detail)),
        3 => Judgement::Misconfigured(clause("plugin cannot tell", detail)),
        126 | 127 => not_runnable(code, detail),
        _ => Judgement::Failed(clause(&format!("exit status {code}"), detail)),
    }
}

/// OCF resource agent API 1.1, of the action `monitor`.
fn resource(code: i32, detail: &str) -> Judgement {
    let wrong = |what: &str| Judgement::Misconfigured(clause(what, detail));
    match code {
        // Running, and running as the promoted one.
        0 | 8 => Judgement::Passed,
        2 => wrong("agent says its arguments are invalid"),
        3 => wrong("agent has no `monitor`"),
        4 => wrong("agent lacks a permission"),
        5 => wrong("agent misses what it needs: not installed"),
        6 => wrong("agent says the resource is not configured"),
        7 => Judgement::Failed(clause("not running", detail)),
        9 => Judgement::Failed(clause("failed while promoted", detail)),
        126 | 127 => not_runnable(code, detail),
        // Running, and degraded.
        190 | 191 => Judgement::Warned(clause("degraded", detail)),
        _ => Judgement::Failed(clause(&format!("exit status {code}"), detail)),
    }
}

/// LSB core specification, init script actions, of the action `status`.
fn script(code: i32, detail: &str) -> Judgement {
    match code {
        0 => Judgement::Passed,
        1 => Judgement::Failed(clause("dead, and its pid file is there", detail)),
        2 => Judgement::Failed(clause("dead, and its lock file is there", detail)),
        3 => Judgement::Failed(clause("not running", detail)),
        4 => Judgement::Unknown(clause("init script cannot tell", detail)),
        126 | 127 => not_runnable(code, detail),
        _ => Judgement::Failed(clause(&format!("exit status {code}"), detail)),
    }
}

fn not_runnable(code: i32, detail: &str) -> Judgement {
    Judgement::Misconfigured(clause(&format!("probe cannot be run, exit status {code}"), detail))
}

fn clause(what: &str, detail: &str) -> Box<str> {
    if detail.is_empty() { what.into() } else { format!("{what}: {detail}").into() }
}
