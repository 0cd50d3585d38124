//! What is done to services, and how that went; `words.rs` has the command lines.

use std::sync::Arc;

use russh::client::Handle;
use tokio::time::Instant;

use super::connect::Client;
use super::exec::{self, Outcome};
use super::settings::{Act, ActError, Deed, Subject};
use super::words::{self, Rights};

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
    let command = command(&act.deed, Rights::of(&user))?;
    let started = exec::run(handle, command, deadline, output_max);
    // The open of a channel has no deadline of its own; a session that lost its peer ends it later than we may wait.
    let outcome = Box::pin(started);
    match tokio::time::timeout_at(deadline + std::time::Duration::from_millis(100), outcome).await {
        Ok(outcome) => judge(outcome, &act.deed, &user),
        Err(_) => Err(ActError::TimedOut),
    }
}

fn command(deed: &Deed, rights: Rights) -> Result<String, ActError> {
    let parameters = match deed {
        Deed::Service(_, Subject::Resource(resource)) => &*resource.parameters,
        Deed::Configure(configuration) => &*configuration.parameters,
        Deed::Service(..) => &[],
    };
    if let Some(why) = words::unfit(parameters) {
        return Err(ActError::NotRunnable(why));
    }
    Ok(match deed {
        Deed::Service(act, subject) => words::act(*act, subject, rights),
        Deed::Configure(configuration) => words::configure(configuration, rights),
    })
}

fn judge(outcome: Outcome, deed: &Deed, user: &str) -> Result<String, ActError> {
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
        let needs = match deed {
            Deed::Service(act, Subject::Unit(_)) => format!(
                "user {user} needs, in sudoers: {user} ALL=(root) NOPASSWD: /usr/bin/systemctl reset-failed *, /usr/bin/systemctl {} *",
                act.verb()
            ),
            _ => format!("is it there, and may user {user} run it (packaging/sudoers-cpe has the lines)?"),
        };
        return Err(ActError::NotRunnable(format!("{output}; {needs}")));
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
    use cpe_proto::definition::UnitName;

    use super::*;
    use crate::ssh::ServiceAct;

    #[test]
    fn a_refusal_of_sudo_is_not_a_failure_of_the_unit() {
        let ended = |status, output: &str| Outcome::Ended { status: Some(status), output: output.into() };
        let unit = Subject::Unit(UnitName::parse("nginx.service").unwrap());
        let deed = Deed::Service(ServiceAct::Restart, unit);
        let outcome = |status, text| judge(ended(status, text), &deed, "dped");
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
