//! The steps of an operation on one outlet: what is asked, what is believed, and how long it is tried.

use std::time::Duration;

use cpe_proto::infrastructure::{InstanceState, Operation};
use tokio::time::Instant;

use super::Shared;
use super::agent::{OFF, Trouble};
use super::metadata::{Action, Metadata, Reboot};
use super::options::Options;
use crate::process::one_line;
use crate::{DETAIL_MAX_CHARS, Error, InstanceAnswer};

/// Between two looks at a machine that is not yet as it was told to be; devices take a moment.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// So many looks, then it is told again.
const LOOKS: u32 = 5;

/// The longest wait between two attempts; the first is a second, each further one twice as long.
const TRY_AGAIN_MAX: Duration = Duration::from_secs(8);

/// One operation on one outlet.
pub(super) struct Power<'a> {
    pub(super) shared: &'a Shared,
    pub(super) metadata: &'a Metadata,
    pub(super) options: &'a Options,
    pub(super) operation: Operation,
    pub(super) deadline: Instant,
}

/// What the device says of the outlet.
enum Seen {
    On,
    Off,
}

impl Seen {
    const fn state(&self) -> InstanceState {
        match self {
            Self::On => InstanceState::Active,
            Self::Off => InstanceState::Off,
        }
    }
}

impl Power<'_> {
    pub(super) async fn perform(&self) -> Result<InstanceAnswer, Error> {
        match self.operation {
            Operation::Status => self.status().await,
            Operation::Start => self.start().await,
            Operation::Stop => {
                let detail =
                    self.verified(Action::Off, self.deadline).await.map_err(|trouble| self.error(trouble))?;
                Ok(answer(InstanceState::Off, &detail))
            }
            Operation::RebootHard => match self.metadata.reboot() {
                Some(Reboot::Verified) => self.off_and_on().await,
                Some(Reboot::Own) | None => self.own_reboot().await,
            },
            Operation::Create
            | Operation::Relocate
            | Operation::RebootSoft
            | Operation::Rebuild
            | Operation::Destroy
            | Operation::Evacuate
            | Operation::Claim
            | Operation::Capabilities => {
                let detail = "a fence agent switches power and nothing else".to_owned();
                Err(self.shared.not_started(self.operation, detail))
            }
        }
    }

    /// What cannot be known is no error: it is an answer that nothing is concluded from.
    async fn status(&self) -> Result<InstanceAnswer, Error> {
        match self.look(self.deadline).await {
            Ok(seen) => Ok(answer(seen.state(), "")),
            Err(Trouble::Exit { status, said, .. }) => {
                Ok(answer(InstanceState::Unknown, &format!("the agent's status ended with {status}{said}")))
            }
            Err(trouble) => Err(self.error(trouble)),
        }
    }

    async fn start(&self) -> Result<InstanceAnswer, Error> {
        if self.metadata.does(Action::Status) {
            let detail =
                self.verified(Action::On, self.deadline).await.map_err(|trouble| self.error(trouble))?;
            return Ok(answer(InstanceState::Active, &detail));
        }
        let done = self.shared.call(Action::On, self.options, self.deadline).await;
        done.map_err(|trouble| self.error(trouble))?;
        Ok(answer(InstanceState::Active, "on, not verified: the agent has no status"))
    }

    /// Off is tried for two thirds of the time, so that there is some left to switch the machine on again.
    async fn off_and_on(&self) -> Result<InstanceAnswer, Error> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let off = self.verified(Action::Off, self.deadline - left / 3).await;
        let off = off.map_err(|trouble| self.error(trouble))?;
        let trouble = match self.verified(Action::On, self.deadline).await {
            Ok(on) => return Ok(answer(InstanceState::Active, &format!("{off}; {on}"))),
            Err(trouble) => self.error(trouble),
        };
        // That it was off is known. If it still is, that is an answer, by which it is started again.
        let detail = format!("{off}; but then: {trouble}");
        match self.look(self.deadline + LOOK_AGAIN).await {
            Ok(seen) => Ok(answer(seen.state(), &detail)),
            Err(_) => Ok(answer(InstanceState::Unknown, &detail)),
        }
    }

    async fn own_reboot(&self) -> Result<InstanceAnswer, Error> {
        let done = self.shared.call(Action::Reboot, self.options, self.deadline).await;
        done.map_err(|trouble| self.error(trouble))?;
        let detail = "rebooted by the agent; not verified: the agent does not do off, status and on";
        let state = match self.metadata.does(Action::Status) {
            true => self.look(self.deadline).await.map_or(InstanceState::Unknown, |seen| seen.state()),
            false => InstanceState::Unknown,
        };
        Ok(answer(state, detail))
    }

    /// Tells the device until it says that it is so, or until the deadline. The answer says how often it was told; the trouble is
    /// the last one that was not of the deadline's making.
    async fn verified(&self, action: Action, deadline: Instant) -> Result<String, Trouble> {
        let (mut last, mut attempts, mut pause) = (None, 0_u32, LOOK_AGAIN);
        loop {
            attempts += 1;
            let trouble = match self.shared.call(action, self.options, deadline).await {
                Ok(_) => match self.becomes(action, deadline).await {
                    Ok(()) => return Ok(told(action, attempts)),
                    Err(trouble) => trouble,
                },
                Err(Trouble::NotBegun(detail)) if last.is_none() => return Err(Trouble::NotBegun(detail)),
                Err(trouble) => trouble,
            };
            let trouble = self.telling(last, trouble);
            if deadline.saturating_duration_since(Instant::now()) <= pause {
                return Err(after(trouble, action, attempts));
            }
            last = Some(trouble);
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(TRY_AGAIN_MAX);
        }
    }

    /// Waits for the device to say that the outlet is as it was told to be.
    async fn becomes(&self, action: Action, deadline: Instant) -> Result<(), Trouble> {
        let word = action.as_str();
        let mut last = None;
        for look in 0..LOOKS {
            if look > 0 && deadline.saturating_duration_since(Instant::now()) > LOOK_AGAIN {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            let trouble = match (self.look(deadline).await, action) {
                (Ok(Seen::On), Action::On) | (Ok(Seen::Off), Action::Off) => return Ok(()),
                (Ok(seen), _) => {
                    let state = seen.state();
                    Trouble::Doubt(format!(
                        "it said that {word} was done, and then that the machine is {state}"
                    ))
                }
                // It was told: that its status cannot be asked does not undo that. Without time for a look the last one counts.
                (Err(Trouble::NotBegun(detail)), _) => {
                    let doubt =
                        format!("it said that {word} was done, but its status could not be asked: {detail}");
                    return Err(last.unwrap_or(Trouble::Doubt(doubt)));
                }
                (Err(trouble), _) => trouble,
            };
            last = Some(self.telling(last, trouble));
        }
        Err(last.unwrap_or_else(|| Trouble::Doubt(format!("nobody looked after {word}"))))
    }

    /// Of two troubles the one that says more: a call that only the deadline cut short says nothing of the device.
    fn telling(&self, last: Option<Trouble>, trouble: Trouble) -> Trouble {
        match (last, trouble) {
            (Some(last), Trouble::NotBegun(_)) => last,
            (Some(last), Trouble::Late { after, .. }) if after < self.shared.settings.timeout => last,
            (_, trouble) => trouble,
        }
    }

    async fn look(&self, deadline: Instant) -> Result<Seen, Trouble> {
        match self.shared.call(Action::Status, self.options, deadline).await {
            Ok(_) => Ok(Seen::On),
            Err(Trouble::Exit { code: Some(OFF), .. }) => Ok(Seen::Off),
            Err(trouble) => Err(trouble),
        }
    }

    fn error(&self, trouble: Trouble) -> Error {
        self.shared.error(self.operation, trouble)
    }
}

fn answer(state: InstanceState, detail: &str) -> InstanceAnswer {
    InstanceAnswer {
        state,
        instance: None,
        address: None,
        owner: None,
        detail: one_line(detail, DETAIL_MAX_CHARS),
    }
}

fn told(action: Action, attempts: u32) -> String {
    let word = action.as_str();
    match attempts {
        1 => format!("{word}, as its status says"),
        more => format!("{word} after {more} attempts, as its status says"),
    }
}

/// The last trouble with the number of attempts.
fn after(trouble: Trouble, action: Action, attempts: u32) -> Trouble {
    let tried = format!(" ({} was tried {attempts} times)", action.as_str());
    match trouble {
        _ if attempts == 1 => trouble,
        Trouble::NotBegun(detail) => Trouble::Doubt(format!("{detail}{tried}")),
        Trouble::Late { after, said } => Trouble::Late { after, said: format!("{said}{tried}") },
        Trouble::Exit { code, status, said } => {
            Trouble::Exit { code, status, said: format!("{said}{tried}") }
        }
        Trouble::Doubt(detail) => Trouble::Doubt(format!("{detail}{tried}")),
    }
}
