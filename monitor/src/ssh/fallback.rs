//! One exec per probe: what serves where the resident shell cannot run. Slower for the guest by a fork of sshd and a login shell each.

use std::sync::Arc;

use cpe_proto::definition::Check;
use cpe_proto::observation::{ChannelFailure, Observation, detail};
use russh::client::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::connect::Client;
use super::exec::{self, Outcome, quote};
use super::observe;
use super::settings::Probe;

/// Commands at one time over one session: sshd's MaxSessions is 10, and acts need room.
pub(super) const CONCURRENT_MAX: usize = 4;

/// Looks for a process by its name, `$1`, as the resident shell does.
const PROCESS: &str = r#"for d in /proc/[0-9]*; do c=; { read -r c <"$d/comm"; } 2>/dev/null; [ "$c" = "$1" ] || continue; z=; { read -r z <"$d/stat"; } 2>/dev/null; case ${z##*") "} in ""|[ZX]*) ;; *) exit 0;; esac; done; c=; { read -r c </proc/1/comm; } 2>/dev/null; [ -n "$c" ] || exit 2; exit 1"#;

/// Runs one probe.
pub(super) async fn probe(
    handle: Arc<Handle<Client>>,
    limit: Arc<Semaphore>,
    what: Probe,
    deadline: Instant,
    output_max: usize,
) -> Observation {
    let nonce = format!("{:016x}", rand::random::<u64>());
    let command = match &what {
        Probe::Channel => format!("echo {nonce}"),
        Probe::Check(Check::Systemd(unit)) => {
            format!("systemctl show --property=Id,LoadState,ActiveState,SubState -- {unit}")
        }
        Probe::Check(Check::Process(name)) => {
            format!("exec /bin/sh -c {} sh {}", quote(PROCESS), quote(name.as_str()))
        }
        Probe::Check(Check::Command(line)) => format!("exec /bin/sh -c {}", quote(line.as_str())),
        Probe::Check(Check::Tcp { .. } | Check::Direct(_)) => return Observation::NotObserved,
    };
    let Ok(_permit) = limit.acquire().await else { return Observation::NotObserved };
    let outcome = Box::pin(exec::run(handle, command, deadline, output_max)).await;
    match what {
        Probe::Channel => channel(&outcome, &nonce),
        Probe::Check(check) => service(outcome, &check),
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

fn service(outcome: Outcome, check: &Check) -> Observation {
    let (status, output) = match outcome {
        Outcome::Ended { status: Some(status), output } => (status, output),
        Outcome::Ended { status: None, .. } => return Observation::Exited(128, "ended by a signal".into()),
        Outcome::Refused(why) => return Observation::NotRunnable(why.into()),
        Outcome::TooMuch => {
            return Observation::NotRunnable(
                "it prints more than is read of a probe: send its output elsewhere".into(),
            );
        }
        Outcome::Late => return Observation::DeadlinePassed,
        Outcome::Lost => return Observation::NotObserved,
    };
    match check {
        Check::Systemd(unit) => {
            let words = String::from_utf8_lossy(&output);
            observe::units(&words, status, std::iter::once(unit)).pop().unwrap_or(Observation::NotObserved)
        }
        Check::Process(_) => observe::process(match status {
            0 => Some(true),
            2 => None,
            _ => Some(false),
        }),
        _ => observe::ended(status, &exec::text(&output)),
    }
}
