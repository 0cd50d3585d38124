//! Why a probe did not pass, in the classes that the policy tells apart, and what that is of a service and of a channel.

use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use cpe_proto::observation::{ChannelFailure, Observation, detail};

use crate::ssh::Closed;

/// What a probe that passed has to say.
pub(super) enum Answer {
    /// A kernel answered: a connection, an echo.
    Kernel,
    /// A program did.
    Program(String),
    /// A program did, and a person should look at something.
    Warning(String),
}

/// Why a probe did not pass.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection was refused or closed: a kernel answers, the program does not.
    Refused(String),
    /// A program answered otherwise than expected.
    Unexpected(String),
    /// A program answered, with a certificate that no restart makes better.
    Certificate(String),
    /// Nothing answered, or the network said unreachable.
    Silent(String),
    /// We could not ask now: limits, names that are not resolved.
    NotAsked(String),
    /// We can never ask so: a file that is not there, a permission. A person has to see to it.
    Unfit(String),
}

pub(super) type Outcome = Result<Answer, Trouble>;

impl Trouble {
    /// From a socket's error while it connected or was used; `what` says of what.
    pub(super) fn of(what: &str, error: &Error) -> Self {
        let said = format!("{what}: {}", plain(error));
        match error.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof => Self::Refused(said),
            // Our own: no more files or ports, or a rule of this host's firewall.
            ErrorKind::AddrNotAvailable | ErrorKind::PermissionDenied => Self::NotAsked(said),
            _ if error.raw_os_error().is_some_and(|code| [EMFILE, ENFILE].contains(&code)) => {
                Self::NotAsked(said)
            }
            _ => Self::Silent(said),
        }
    }

    /// From what a guest's sshd says of a port.
    pub(super) fn closed(why: Closed) -> Self {
        match why {
            Closed::Unreached(why) => Self::Refused(why),
            Closed::NoRoom => {
                Self::NotAsked("too many ports are connected to in the guest at a time".to_owned())
            }
            Closed::Forbidden(why) => Self::Unfit(why.to_owned()),
            Closed::Lost => Self::NotAsked("the session was lost".to_owned()),
        }
    }
}

/// errno(3): this process, or this host, has too many open files. The numbers of Linux on every architecture that it is built for.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// An error's words without the number at their end.
pub(super) fn plain(error: &Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text).to_owned();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// What the engine is told of a service.
pub(super) fn of_service(outcome: Outcome) -> Observation {
    match outcome {
        Ok(Answer::Kernel) => Observation::Connected,
        Ok(Answer::Program(said)) => Observation::Expected(detail(&said)),
        Ok(Answer::Warning(said)) => Observation::Warned(detail(&said)),
        Err(Trouble::Refused(why)) => Observation::NotConnected(detail(&why)),
        Err(Trouble::Unexpected(why)) => Observation::Unexpected(detail(&why)),
        Err(Trouble::Certificate(why) | Trouble::Unfit(why)) => Observation::NotRunnable(detail(&why)),
        Err(Trouble::Silent(why)) => Observation::Silent(detail(&why)),
        Err(Trouble::NotAsked(why)) => Observation::NotAsked(detail(&why)),
    }
}

/// What it is told of a channel: only whether it answers matters, and who.
pub(super) fn of_channel(outcome: Outcome) -> Observation {
    let (failure, why) = match outcome {
        Ok(Answer::Kernel) => return Observation::Connected,
        Ok(Answer::Program(_) | Answer::Warning(_))
        | Err(Trouble::Unexpected(_) | Trouble::Certificate(_)) => {
            return Observation::Alive;
        }
        Err(Trouble::Refused(why)) => (ChannelFailure::Refused, why),
        Err(Trouble::Silent(why)) => (ChannelFailure::TimedOut, why),
        Err(Trouble::NotAsked(why) | Trouble::Unfit(why)) => (ChannelFailure::NotTried, why),
    };
    Observation::Channel(failure, detail(&why))
}

/// How far a probe has come, for the words when its deadline has passed.
#[derive(Default)]
pub(super) struct Progress(AtomicU8);

/// A stage of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    Waiting = 0,
    LookingUp = 1,
    Connecting = 2,
    Greeting = 3,
    Asked = 4,
    Reading = 5,
}

impl Progress {
    pub(super) fn reach(&self, stage: Stage) {
        self.0.store(stage as u8, Relaxed);
    }

    /// Why there is no answer by the deadline.
    pub(super) fn late(&self) -> Trouble {
        match self.0.load(Relaxed) {
            0 => Trouble::NotAsked("too many probes connect at a time here".to_owned()),
            1 => Trouble::NotAsked("its name was not resolved by the deadline".to_owned()),
            2 => Trouble::Silent("not connected by the deadline".to_owned()),
            3 => Trouble::Silent("connected, and no end of the TLS handshake by the deadline".to_owned()),
            4 => Trouble::Silent("asked, and no answer by the deadline".to_owned()),
            _ => Trouble::Silent("no end of the answer by the deadline".to_owned()),
        }
    }
}
