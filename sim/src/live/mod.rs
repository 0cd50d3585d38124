//! A live fleet: thousands of machines to watch and to break, in one process, on loopback, with nothing but this code.
//!
//! **Real**: TCP, the SSH protocol with its host keys, logins, sessions and channels (russh's server), the time that things take.
//! **Imitated**: the guests. No program runs in them: the command lines that cpe-monitor sends are recognised and answered from a
//! state that the [`Machine`]'s verbs change (`guest.rs`, `resident.rs`). And the cable: see [`Machine::cut_off`].
//!
//! Each machine has an address of its own in 127.0.0.0/8 and a listener of its own, so that one of them can refuse while its
//! neighbour answers. All share one port, which no other program's outgoing connection can take (it is below Linux's range for those).
//!
//! Files: `machine.rs` verbs; `state.rs` what they change; `unit.rs` one unit; `run.rs` a machine's task; `port.rs`, `connection.rs` its network;
//! `session.rs` SSH; `guest.rs`, `resident.rs` answers; `control.rs` the infrastructure of the fleet; `observer.rs` what happened.

mod connection;
pub mod control;
mod guest;
mod keys;
mod line;
mod machine;
mod observer;
mod port;
mod resident;
mod run;
mod session;
mod state;
mod unit;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;
use tokio::task::JoinSet;

pub use machine::{Command, Machine, MachineSpec, NoSuchUnit};
pub use observer::{Boot, Counts, Happening, What};
pub use state::Power;
pub use unit::{Behaviour, UnitSpec};

use keys::{ClientKey, HostKey};
use observer::Observer;
use port::Port;

/// The port of all machines, unless the settings name another: below Linux's default range of outgoing connections (32768).
pub const PORT: u16 = 2022;

/// The user that logs in, unless the settings name another: the one of design.md's examples.
pub const USER: &str = "dped";

/// File descriptors that the process needs for other things than machines.
const OTHER_FILES: u64 = 64;
/// A machine needs a listener and a session; while its packets vanish, a listener and a filler, and its old session.
const FILES_PER_MACHINE: u64 = 3;
/// Addresses used in each /24: `.1` to `.250`.
const HOSTS_PER_NET: usize = 250;
/// Nets of machines in one fleet's /16; the last is the claim's.
const NETS: usize = 255;

/// How many /16 of loopback are tried for a fleet: 127.1 to 127.250. Other programs use 127.0.
const BLOCKS: u32 = 250;

/// What a fleet is made of.
#[derive(Clone, Debug)]
pub struct FleetSettings {
    /// The machines.
    pub machines: Vec<MachineSpec>,
    /// The only user that may log in ([`USER`]).
    pub user: String,
    /// The port of all machines ([`PORT`]).
    pub port: u16,
}

impl FleetSettings {
    /// A fleet of these machines, with the default user and port.
    #[must_use]
    pub fn new(machines: Vec<MachineSpec>) -> Self {
        Self { machines, user: USER.to_owned(), port: PORT }
    }
}

/// Why a fleet could not be started, or a part of it not be made.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Two machines of one name.
    #[error("two machines of the live fleet are named {0}: give each its own name")]
    TwoOfOneName(Arc<str>),
    /// More machines than the process may have open files for.
    #[error(
        "a live fleet of {machines} machines needs {needed} open files, this process may have {allowed}: raise it (ulimit -n) or \
         take fewer machines"
    )]
    TooManyMachines {
        /// How many machines were wanted.
        machines: usize,
        /// Open files for that.
        needed: u64,
        /// RLIMIT_NOFILE.
        allowed: u64,
    },
    /// No /16 of loopback is free.
    #[error(
        "no part of 127.0.0.0/8 has port {port} free for a live fleet: end other fleets, or name another port"
    )]
    NoFreeAddresses {
        /// The port.
        port: u16,
        /// What the last attempt said.
        source: io::Error,
    },
    /// A machine's port cannot be opened.
    #[error("cannot listen on {address} for a machine of the live fleet: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A key cannot be made or written.
    #[error("cannot make a key for the live fleet: {0}")]
    Key(russh::keys::ssh_key::Error),
    /// The runtime ended meanwhile.
    #[error("the live fleet's start was ended: {0}")]
    Ended(tokio::task::JoinError),
    /// The socket of the control protocol cannot be opened.
    #[error("cannot listen on {path} for the control of the live fleet: {source}")]
    Control {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A running fleet. It ends, with all its connections, when it is dropped.
pub struct Fleet {
    machines: Arc<Machines>,
    user: Arc<str>,
    port: u16,
    client_key_openssh: String,
    observer: Observer,
    /// The machines' tasks and the control's.
    tasks: Mutex<JoinSet<()>>,
    _claim: std::net::TcpListener,
}

/// All machines, found by name or address.
#[derive(Debug, Default)]
struct Machines {
    all: Vec<Arc<Machine>>,
    by_name: BTreeMap<Arc<str>, usize>,
    by_address: BTreeMap<IpAddr, usize>,
}

impl Fleet {
    /// Starts it: every machine is on, booted, and listens when this returns.
    ///
    /// # Errors
    /// [`FleetError`]; then nothing of it is left.
    pub async fn start(settings: FleetSettings) -> Result<Self, FleetError> {
        let count = settings.machines.len();
        check_files(count)?;
        let (claim, block) = claim(settings.port)?;
        let (client_key, host_keys) = make_keys(count).await?;
        let client_key_openssh = client_key.openssh().map_err(FleetError::Key)?;
        let client_key = Arc::new(client_key);
        let observer = Observer::new();
        let user: Arc<str> = settings.user.into();
        let mut machines = Machines::default();
        let mut tasks = JoinSet::new();
        for (index, (spec, host_key)) in settings.machines.into_iter().zip(host_keys).enumerate() {
            let address = SocketAddr::new(address(block, index), settings.port);
            let port = Port::open(address).map_err(|source| FleetError::Listen { address, source })?;
            let machine = Machine::new(spec, address, Arc::clone(&user), host_key, observer.clone());
            let machine = Arc::new(machine);
            machines.add(Arc::clone(&machine))?;
            tasks.spawn(run::run(machine, port, Arc::clone(&client_key)));
        }
        let (machines, tasks) = (Arc::new(machines), Mutex::new(tasks));
        Ok(Self { machines, user, port: settings.port, client_key_openssh, observer, tasks, _claim: claim })
    }

    /// The only user that may log in.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The port of all machines.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The machine of that name.
    #[must_use]
    pub fn machine(&self, name: &str) -> Option<&Arc<Machine>> {
        self.machines.named(name)
    }

    /// All machines, in the order of the settings.
    #[must_use]
    pub fn machines(&self) -> &[Arc<Machine>] {
        &self.machines.all
    }

    /// The text of a `known_hosts` file with the present keys of all machines.
    #[must_use]
    pub fn known_hosts(&self) -> String {
        self.machines.all.iter().map(|machine| machine.known_hosts_line()).collect()
    }

    /// The private key that all machines accept, as text of an OpenSSH key file. It is of worth for this fleet only.
    #[must_use]
    pub fn client_key_openssh(&self) -> &str {
        &self.client_key_openssh
    }

    /// What all machines were asked so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for machine in &self.machines.all {
            sum += machine.counts();
        }
        sum
    }

    /// What happens from now on. A slow observer loses the oldest happenings and is told how many.
    #[must_use]
    pub fn observe(&self) -> broadcast::Receiver<Happening> {
        self.observer.subscribe()
    }

    /// Serves the fleet's infrastructure on a unix socket; see [`control`]. The socket's file is replaced if it exists.
    ///
    /// # Errors
    /// [`FleetError::Control`].
    pub async fn serve_control(&self, path: &Path) -> Result<(), FleetError> {
        let task = control::serve(path, Arc::clone(&self.machines))
            .await
            .map_err(|source| FleetError::Control { path: path.to_owned(), source })?;
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
        Ok(())
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the client's private key.
        let machines = self.machines.all.len();
        out.debug_struct("Fleet")
            .field("machines", &machines)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner).abort_all();
        for machine in &self.machines.all {
            machine.abandon();
        }
    }
}

impl Machines {
    fn add(&mut self, machine: Arc<Machine>) -> Result<(), FleetError> {
        let index = self.all.len();
        if self.by_name.insert(Arc::clone(&machine.name), index).is_some() {
            return Err(FleetError::TwoOfOneName(Arc::clone(&machine.name)));
        }
        self.by_address.insert(machine.address.ip(), index);
        self.all.push(machine);
        Ok(())
    }

    fn named(&self, name: &str) -> Option<&Arc<Machine>> {
        self.by_name.get(name).and_then(|index| self.all.get(*index))
    }

    fn at(&self, address: IpAddr) -> Option<&Arc<Machine>> {
        self.by_address.get(&address).and_then(|index| self.all.get(*index))
    }
}

/// Makes all keys on the blocking pool: thousands take a good part of a second.
async fn make_keys(machines: usize) -> Result<(ClientKey, Vec<HostKey>), FleetError> {
    let make = move || {
        let host_keys = (0..machines).map(|_| HostKey::new()).collect::<Result<Vec<_>, _>>()?;
        Ok((ClientKey::new(), host_keys))
    };
    tokio::task::spawn_blocking(make).await.map_err(FleetError::Ended)?.map_err(FleetError::Key)
}

fn check_files(machines: usize) -> Result<(), FleetError> {
    let needed = OTHER_FILES + FILES_PER_MACHINE * machines as u64;
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    if needed > allowed || machines > NETS * HOSTS_PER_NET {
        return Err(FleetError::TooManyMachines { machines, needed, allowed });
    }
    Ok(())
}

/// Takes a /16 of loopback for this fleet, so that fleets of other tests and processes do not get in its way: whoever holds the
/// port of the last address holds all.
fn claim(port: u16) -> Result<(std::net::TcpListener, u8), FleetError> {
    // Neighbouring processes begin in different places.
    let first = std::process::id() % BLOCKS;
    let mut last = io::ErrorKind::AddrInUse.into();
    for step in 0..BLOCKS {
        let block = u8::try_from(1 + (first + step) % BLOCKS).unwrap_or(u8::MAX);
        match std::net::TcpListener::bind((Ipv4Addr::new(127, block, 255, 254), port)) {
            Ok(claim) => return Ok((claim, block)),
            Err(error) => last = error,
        }
    }
    Err(FleetError::NoFreeAddresses { port, source: last })
}

fn address(block: u8, index: usize) -> IpAddr {
    let net = u8::try_from(index / HOSTS_PER_NET).unwrap_or(u8::MAX);
    let host = u8::try_from(index % HOSTS_PER_NET + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, block, net, host).into()
}
