//! One exec per probe: what serves where the resident shell cannot run. Slower for the guest by a fork of sshd and a login shell each.

use std::sync::Arc;

use cpe_proto::definition::Check;
use cpe_proto::observation::{ChannelFailure, Observation, detail};
use russh::client::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::connect::Client;
use super::exec::{self, Outcome, quote};
use super::pending::Seen;
use super::settings::Probe;
use super::words::Rights;
use super::{observe, shell};

/// Commands at one time over one session: sshd's MaxSessions is 10, and acts need room.
pub(super) const CONCURRENT_MAX: usize = 4;

/// Looks for a process by its name, `$1`, as the resident shell does.
const PROCESS: &str = r#"for d in /proc/[0-9]*; do c=; { read -r c <"$d/comm"; } 2>/dev/null; [ "$c" = "$1" ] || continue; z=; { read -r z <"$d/stat"; } 2>/dev/null; case ${z##*") "} in ""|[ZX]*) ;; *) exit 0;; esac; done; c=; { read -r c </proc/1/comm; } 2>/dev/null; [ -n "$c" ] || exit 2; exit 1"#;

/// Runs one probe.
pub(super) async fn probe(
    handle: Arc<Handle<Client>>,
    limit: Arc<Semaphore>,
    (what, rights): (Probe, Rights),
    deadline: Instant,
    output_max: usize,
) -> Seen {
    let nonce = format!("{:016x}", rand::random::<u64>());
    let command = match &what {
        Probe::Channel => format!("echo {nonce}"),
        Probe::Check(Check::Systemd(unit)) => {
            format!("systemctl show --property=Id,LoadState,ActiveState,SubState -- {unit}")
        }
        Probe::Check(Check::Process(name)) => {
            format!("exec /bin/sh -c {} sh {}", quote(PROCESS), quote(name.as_str()))
        }
        other => match shell::command(other, rights) {
            Some((_, line)) => format!("exec /bin/sh -c {}", quote(&line)),
            None => return Observation::NotObserved.into(),
        },
    };
    let Ok(_permit) = limit.acquire().await else { return Observation::NotObserved.into() };
    let outcome = Box::pin(exec::run(handle, command, deadline, output_max)).await;
    match what {
        Probe::Channel => channel(&outcome, &nonce).into(),
        what => service(outcome, &what),
    }
}

fn channel(outcome: &Outcome, nonce: &str) -> Observation {
    let failed = |text: &str| Observation::Channel(ChannelFailure::Protocol, detail(text));
    match outcome {
        // A login shell may have written before it.
        Outcome::Ended { output, .. } if String::from_utf8_lossy(output).contains(nonce) => {
            Observation::Alive
        }
        Outcome::Ended { output, .. } => {
            failed(&format!("the login shell did not run `echo`; it said: {}", exec::text(output)))
        }
        Outcome::Refused(why) => failed(why),
        Outcome::TooMuch => failed("the login shell prints without end"),
        Outcome::Late => {
            Observation::Channel(ChannelFailure::TimedOut, "the login shell gave no answer".into())
        }
        Outcome::Lost => failed("the server ended the session"),
    }
}

fn service(outcome: Outcome, what: &Probe) -> Seen {
    let (status, output) = match outcome {
        Outcome::Ended { status: Some(status), output } => (status, output),
        other => return unended(&other).into(),
    };
    match what {
        Probe::Check(Check::Systemd(unit)) => {
            let words = String::from_utf8_lossy(&output);
            let seen = observe::units(&words, status, std::iter::once(unit)).pop();
            seen.unwrap_or(Observation::NotObserved).into()
        }
        Probe::Check(Check::Process(_)) => observe::process(match status {
            0 => Some(true),
            2 => None,
            _ => Some(false),
        })
        .into(),
        Probe::Check(Check::Nagios(_)) => {
            observe::plugin(status, &String::from_utf8_lossy(&output), output.len() >= exec::KEPT_BYTES)
        }
        _ => observe::ended(status, &exec::text(&output)).into(),
    }
}

fn unended(outcome: &Outcome) -> Observation {
    match outcome {
        Outcome::Ended { .. } => Observation::Exited(128, "ended by a signal".into()),
        Outcome::Refused(why) => Observation::NotRunnable((*why).into()),
        Outcome::TooMuch => Observation::NotRunnable(
            "it prints more than is read of a probe: send its output elsewhere".into(),
        ),
        Outcome::Late => Observation::DeadlinePassed,
        Outcome::Lost => Observation::NotObserved,
    }
}
