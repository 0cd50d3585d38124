//! Recoveries of services: `systemctl`, through `sudo` unless we are root there.

use std::sync::Arc;

use russh::client::Handle;
use tokio::time::Instant;

use super::connect::Client;
use super::exec::{self, Outcome};
use super::settings::{Act, ActError, ServiceAct};

/// How the forced command (`packaging/cpe-guest`) begins what it says.
const FORCED: &str = "cpe-guest: ";

/// Does it and says how it ended.
pub(super) async fn run(
    handle: Arc<Handle<Client>>,
    user: String,
    act: Act,
    output_max: usize,
) -> Result<String, ActError> {
    let deadline = Instant::now() + act.timeout;
    let started = exec::run(handle, command(&act, user == "root"), deadline, output_max);
    // The open of a channel has no deadline of its own; a session that lost its peer ends it later than we may wait.
    let outcome = Box::pin(started);
    match tokio::time::timeout_at(deadline + std::time::Duration::from_millis(100), outcome).await {
        Ok(outcome) => judge(outcome, &act, &user),
        Err(_) => Err(ActError::TimedOut),
    }
}

/// The command line. The units' names are safe as words by their type. `LC_ALL=C`, so that a refusal is recognised.
fn command(act: &Act, root: bool) -> String {
    let sudo = if root { "" } else { "sudo -n " };
    let (verb, unit) = (act.act.verb(), &act.unit);
    let reset = match act.act {
        // Without it a unit that failed too often is not started again. It fails for a unit that is not loaded: of no matter.
        ServiceAct::Restart | ServiceAct::Start => {
            format!("{sudo}systemctl reset-failed {unit} >/dev/null 2>&1; ")
        }
        ServiceAct::Stop => String::new(),
    };
    format!("exec /bin/sh -c 'export LC_ALL=C; {reset}{sudo}systemctl {verb} {unit}'")
}

fn judge(outcome: Outcome, act: &Act, user: &str) -> Result<String, ActError> {
    let (status, output) = match outcome {
        Outcome::Ended { status, output } => (status, exec::text(&output)),
        Outcome::Refused(why) => return Err(ActError::NotRunnable(why.to_owned())),
        Outcome::Late => return Err(ActError::TimedOut),
        Outcome::TooMuch => {
            return Err(ActError::Failed { status: None, output: "it printed without end".to_owned() });
        }
        Outcome::Lost => return Err(ActError::NoChannel("the session was lost while it ran".to_owned())),
    };
    if status == Some(0) {
        return Ok(output.into());
    }
    if output.starts_with(FORCED) {
        return Err(ActError::NotRunnable(output.into()));
    }
    if status == Some(127) || status == Some(126) || sudo_refused(&output) {
        let verb = act.act.verb();
        return Err(ActError::NotRunnable(format!(
            "{output}; user {user} needs, in sudoers: {user} ALL=(root) NOPASSWD: /usr/bin/systemctl reset-failed *, /usr/bin/systemctl {verb} *"
        )));
    }
    Err(ActError::Failed { status, output: output.into() })
}

/// sudo's own words (in the C locale) for: no password given, not in sudoers, no terminal.
pub(super) fn sudo_refused(output: &str) -> bool {
    output.starts_with("sudo: ")
        || output.starts_with("Sorry, user ")
        || output.contains("is not in the sudoers file")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cpe_proto::definition::UnitName;

    use super::*;

    fn act(act: ServiceAct) -> Act {
        Act { act, unit: UnitName::parse("nginx.service").unwrap(), timeout: Duration::from_secs(1) }
    }

    #[test]
    fn a_restart_forgets_earlier_failures_first() {
        assert_eq!(
            command(&act(ServiceAct::Restart), false),
            "exec /bin/sh -c 'export LC_ALL=C; sudo -n systemctl reset-failed nginx.service >/dev/null 2>&1; sudo -n systemctl restart nginx.service'"
        );
        assert_eq!(
            command(&act(ServiceAct::Stop), true),
            "exec /bin/sh -c 'export LC_ALL=C; systemctl stop nginx.service'"
        );
    }

    #[test]
    fn a_refusal_of_sudo_is_not_a_failure_of_the_unit() {
        let ended = |status, output: &str| Outcome::Ended { status: Some(status), output: output.into() };
        let outcome = |status, text| judge(ended(status, text), &act(ServiceAct::Restart), "dped");
        for refusal in [
            "sudo: a password is required",
            "Sorry, user dped is not allowed to execute '/usr/bin/systemctl restart nginx.service' as root on web.",
            "dped is not in the sudoers file.",
        ] {
            assert!(matches!(outcome(1, refusal), Err(ActError::NotRunnable(_))), "{refusal}");
        }
        assert!(matches!(outcome(127, "sh: 1: sudo: not found"), Err(ActError::NotRunnable(_))));
        assert!(matches!(
            outcome(1, "Job for nginx.service failed."),
            Err(ActError::Failed { status: Some(1), .. })
        ));
        assert_eq!(outcome(0, ""), Ok(String::new()));
    }
}
