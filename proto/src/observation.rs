//! What one probe saw, as plain facts. What is concluded from them is `dped`'s: the monitor never says "failed" of a service.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most text that an observation carries, in bytes: enough for one line of a person's attention.
pub const DETAIL_MAX_BYTES: usize = 200;

/// What a probe saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observation {
    /// The channel answered: the guest's shell, agent or program spoke to us, which a mere kernel cannot do.
    Alive,
    /// The channel gave no answer, and how.
    Channel(ChannelFailure, Box<str>),
    /// systemd's own view of a unit: the values of `LoadState`, `ActiveState` and `SubState`.
    Unit(UnitState),
    /// A command, a process or a plugin ended with this status; the text is the first of its output.
    Exited(i32, Box<str>),
    /// A program could not be started or was not allowed: 126, 127, `sudo` refused. The text says which.
    NotRunnable(Box<str>),
    /// A port accepted a connection, or a kernel answered an echo.
    Connected,
    /// A port did not: the text says how (refused, unreachable).
    NotConnected(Box<str>),
    /// A program answered a direct probe, and as its definition expects.
    Expected(Box<str>),
    /// The same, and the text says what a person should look at.
    Warned(Box<str>),
    /// A program answered a direct probe, and otherwise than its definition expects: the text says how.
    Unexpected(Box<str>),
    /// Nothing answered a direct probe by its deadline, or the network said unreachable: the service, its machine or the way to it.
    Silent(Box<str>),
    /// A direct probe could not ask: the text says why. Says nothing of the service.
    NotAsked(Box<str>),
    /// The probe was sent over a channel that is alive, and did not end by its deadline. It was ended by force.
    DeadlinePassed,
    /// The probe could not be sent or its answer was lost, because its channel is not alive.
    NotObserved,
}

/// systemd's view of a unit (`systemctl show --property=LoadState,ActiveState,SubState`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// `loaded`, `not-found`, `bad-setting`, `error`, `masked`, ...
    pub load: Box<str>,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`, ...
    pub active: Box<str>,
    /// Depends on the unit's type: `running`, `exited`, `dead`, `auto-restart`, ...
    pub sub: Box<str>,
}

/// How a channel failed. Told apart because isolation concludes different things from them (policy.md section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelFailure {
    /// The connection was refused: a kernel answers, the server does not run.
    Refused,
    /// Nothing answered by the deadline, or the network said unreachable.
    TimedOut,
    /// The server answered and did not accept our key.
    AuthenticationFailed,
    /// The server's host key is not the known one, or none is known.
    HostKey,
    /// The server speaks, but not so that we understand it; or it ended the session.
    Protocol,
    /// We did not try: too many attempts are under way here. Says nothing of the assembly.
    NotTried,
}

impl ChannelFailure {
    /// The word of events and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed out",
            Self::AuthenticationFailed => "authentication failed",
            Self::HostKey => "host key changed or unknown",
            Self::Protocol => "protocol error",
            Self::NotTried => "not tried",
        }
    }
}

impl fmt::Display for ChannelFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// Text from outside, cut to [`DETAIL_MAX_BYTES`] and made printable: one line, no control characters.
#[must_use]
pub fn detail(text: &str) -> Box<str> {
    let mut out = String::with_capacity(text.len().min(DETAIL_MAX_BYTES));
    let mut gap = false;
    for character in text.trim().chars() {
        if character.is_control() || character.is_whitespace() {
            gap = true;
            continue;
        }
        if out.len() + character.len_utf8() + usize::from(gap) > DETAIL_MAX_BYTES {
            break;
        }
        if std::mem::take(&mut gap) {
            out.push(' ');
        }
        out.push(character);
    }
    out.into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_one_short_printable_line() {
        assert_eq!(&*detail("  a\n\tb\x1b[31m \0c  "), "a b [31m c");
        assert_eq!(detail(&"é".repeat(1000)).len(), DETAIL_MAX_BYTES);
    }
}
