//! What a caller says: how to connect, to what, and what to do there. And what it is told.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cpe_proto::definition::{Check, OcfAgent, ParameterName, ProgramPath, ScriptName, UnitName};
use cpe_proto::id::{Name, ProbeId};
use cpe_proto::observation::Observation;

use crate::direct;
use crate::perfdata::Measure;

/// How all sessions of a [`Monitor`](super::Monitor) connect.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The user to log in as, where an endpoint does not say.
    pub user: String,
    /// The port, where an endpoint does not say (22).
    pub port: u16,
    /// The keys to offer, in this order, where an endpoint does not say.
    pub identities: Vec<Identity>,
    /// The jump host that assemblies are reached through, where an endpoint does not say (none). One that is itself an assembly, by
    /// the same address and port, is reached directly.
    pub jump: Option<Jump>,
    /// The files of known host keys, as sshd(8) describes them. A file that does not exist is an empty one.
    pub known_hosts: Vec<PathBuf>,
    /// One more such file, which [`Monitor::enrol`](super::Monitor::enrol) writes (none).
    pub enrolled: Option<PathBuf>,
    /// Key exchanges and logins under way at one time (64): each costs about a millisecond of CPU here, and memory.
    pub connect_concurrency: usize,
    /// New connections a second, over all sessions (200).
    pub connects_per_second: u32,
    /// A session that heard nothing for this long asks the server whether it lives (15 s) ...
    pub keepalive: Duration,
    /// ... and is given up when it asked this often without an answer (3).
    pub keepalive_max: usize,
    /// The most bytes that are read of one command that had to be run over a channel of its own (1 MiB). One that prints more is
    /// ended. The resident shell needs no such limit: it cuts output in the guest.
    pub output_max: usize,
    /// Batches that may wait in one session (16). What comes on top is answered at once as not tried.
    pub queue_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            user: "dped".to_owned(),
            port: 22,
            identities: Vec::new(),
            jump: None,
            known_hosts: vec![PathBuf::from("/etc/ssh/ssh_known_hosts")],
            enrolled: None,
            connect_concurrency: 64,
            connects_per_second: 200,
            keepalive: Duration::from_secs(15),
            keepalive_max: 3,
            output_max: 1024 * 1024,
            queue_max: 16,
        }
    }
}

/// Where a private key is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A private key's file (OpenSSH or PEM format, not encrypted).
    File(PathBuf),
    /// A private key's file that is encrypted, and the file that holds its passphrase (a systemd credential is one). Nobody but its
    /// owner and group may read that; a newline at its end is no part of the passphrase.
    Encrypted {
        /// The key's file.
        key: PathBuf,
        /// The passphrase's file.
        passphrase: PathBuf,
    },
    /// The socket of an agent (`SSH_AUTH_SOCK`): each of its keys is offered.
    Agent(PathBuf),
}

impl Identity {
    /// The file of the key, or the agent's socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Encrypted { key: path, .. } | Self::Agent(path) => path,
        }
    }
}

/// One assembly's SSH server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// How messages name it: `deployable/assembly`.
    pub label: String,
    /// A host name or an IP address. Known host keys are looked up by this text.
    pub address: String,
    /// The port, where it differs from the settings'.
    pub port: Option<u16>,
    /// The user, where it differs.
    pub user: Option<String>,
    /// The only key to offer, where it differs.
    pub identity: Option<Identity>,
    /// How it is reached, where it differs.
    pub route: Option<Route>,
}

/// How an assembly is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// From here.
    Direct,
    /// Through a jump host.
    Jump(Jump),
}

/// A host that connects us to others (`ssh -J`): there is one session to it, for all assemblies behind it. Its host key has to be
/// known as any other. The settings' keys are offered to it, never an endpoint's. It resolves the names of the assemblies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Jump {
    /// The user to log in as, where it differs from the settings'.
    pub user: Option<String>,
    /// A host name or an IP address.
    pub address: String,
    /// The port (22, whatever that of the assemblies is).
    pub port: Option<u16>,
}

impl Jump {
    /// The port, where none is given.
    pub(super) const PORT: u16 = 22;

    /// Whether that is its own address.
    pub(super) fn is_at(&self, address: &str, port: u16) -> bool {
        self.address.eq_ignore_ascii_case(address) && self.port.unwrap_or(Self::PORT) == port
    }
}

impl fmt::Display for Jump {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(out, "{user}@")?;
        }
        let port = self.port.unwrap_or(Self::PORT);
        if self.address.contains(':') {
            write!(out, "[{}]:{port}", self.address)
        } else {
            write!(out, "{}:{port}", self.address)
        }
    }
}

/// What to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The channel itself. Only this connects a session that is not connected.
    Channel,
    /// A service behind it. Of an OCF resource this is one without parameters; [`Probe::Resource`] has them.
    Check(Check),
    /// An OCF resource behind it.
    Resource(Arc<Resource>),
    /// What a direct probe asks, over connections that the guest's sshd makes.
    FromGuest(Arc<direct::Target>),
}

/// An OCF resource with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its agent.
    pub agent: OcfAgent,
    /// What tells it from others of that agent in the guest (`OCF_RESOURCE_INSTANCE`).
    pub instance: Name,
    /// Its parameters, each `OCF_RESKEY_NAME` in the agent's environment.
    pub parameters: Vec<(ParameterName, String)>,
}

impl Resource {
    /// One of that agent without parameters.
    pub(super) fn bare(agent: &OcfAgent) -> Option<Self> {
        Some(Self { agent: agent.clone(), instance: Name::parse("cpe").ok()?, parameters: Vec::new() })
    }
}

/// One probe asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// Comes back with the answer.
    pub probe: ProbeId,
    /// What.
    pub what: Probe,
    /// From now to the deadline. It is answered by then, whatever happens.
    pub timeout: Duration,
}

/// The one answer to a probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The number it was asked with.
    pub probe: ProbeId,
    /// What was seen.
    pub observation: Observation,
    /// What a plugin measured; of any other probe none.
    pub measures: Vec<Measure>,
    /// How many figures of a plugin could not be read.
    pub dropped: u32,
    /// When it was asked.
    pub asked: Instant,
    /// When it was answered. Later than `asked` + timeout by our own lag only.
    pub finished: Instant,
    /// How late we noticed the deadline ourselves; zero where there was an answer. Above the lag budget the answer is void.
    pub lag: Duration,
}

/// Where the answers of one session go. It must not block: it is called on the async runtime, or within
/// [`Session::submit`](super::Session::submit) where the session's queue is full.
pub type Answers = Box<dyn Fn(Answer) + Send + Sync>;

/// What to do with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceAct {
    /// `systemctl reset-failed`, then `systemctl restart`. Of anything but a unit: stop, and start once that succeeded.
    Restart,
    /// `systemctl reset-failed`, then `systemctl start`. Of anything but a unit: start.
    Start,
    /// Stop. It succeeds for what is stopped already.
    Stop,
}

impl ServiceAct {
    /// The verb that `systemctl`, agents and scripts take.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}

/// Something to do to a service. As root it is `systemctl VERB UNIT`, as anybody else `sudo -n systemctl VERB UNIT`, for which
/// the guest needs, for user `dped`, in sudoers:
///
/// ```text
/// dped ALL=(root) NOPASSWD: /usr/bin/systemctl reset-failed *, /usr/bin/systemctl restart *, /usr/bin/systemctl start *, /usr/bin/systemctl stop *
/// ```
///
/// or, narrower, the same with the units' names in place of `*`.
///
/// Agents, init scripts and configure scripts are run by `sudo -n` as well; `packaging/sudoers-cpe` has lines for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// What.
    pub deed: Deed,
    /// How long it may take. After it the outcome is not known: systemd goes on with it.
    pub timeout: Duration,
}

/// What an [`Act`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Something to a service.
    Service(ServiceAct, Subject),
    /// Runs a configure script.
    Configure(Configuration),
}

/// What is restarted, started or stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A unit.
    Unit(UnitName),
    /// An OCF resource.
    Resource(Arc<Resource>),
    /// An init script.
    Script(ScriptName),
}

/// A configure script with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// For which service: `CPE_SERVICE` in its environment.
    pub service: String,
    /// The script.
    pub program: ProgramPath,
    /// Its parameters, each `CPE_PARAMETER_NAME` in its environment.
    pub parameters: Vec<(ParameterName, String)>,
}

/// Why an act did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// It was never started, and cannot be until a person changes something.
    #[error("cannot be run: {0}")]
    NotRunnable(String),
    /// It ended, and not with success. The status is absent after a signal.
    #[error("ended with {}: {output}", .status.map_or_else(|| "a signal".to_owned(), |status| format!("status {status}")))]
    Failed {
        /// The exit status.
        status: Option<i32>,
        /// The first of its output, one line.
        output: String,
    },
    /// It did not end in time. It may yet take effect.
    #[error("did not end in time")]
    TimedOut,
    /// There is no session to do it over, or it was lost on the way. Where it was lost, it may yet take effect.
    #[error("no channel: {0}")]
    NoChannel(String),
}

/// Why a monitor cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A private key cannot be used.
    #[error("private key {path}: {what}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// A file of known hosts cannot be read.
    #[error("known hosts {path}: {source}")]
    KnownHosts {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A setting is out of range.
    #[error("{0}")]
    Settings(&'static str),
}
