//! What happens in a live fleet, told as it happens: to the demo's live view, and to tests that wait for it instead of sleeping.
//! Counters are beside it, for those who only want sums.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

/// How many happenings are kept for an observer that is slow; then it loses the oldest and is told so.
pub(super) const KEPT: usize = 4096;

/// Something that happened in the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// When: time since the fleet's start.
    pub at: Duration,
    /// On which machine.
    pub machine: Arc<str>,
    /// What.
    pub what: What,
}

/// What happened on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A unit was started over SSH (`systemctl start` or `restart`) and runs.
    UnitStarted(Arc<str>),
    /// A unit was ordered to start over SSH and does not run.
    UnitStartFailed(Arc<str>),
    /// A unit was stopped over SSH.
    UnitStopped(Arc<str>),
    /// A unit died by its own behaviour.
    UnitDied(Arc<str>),
    /// A unit was killed by the fleet's master.
    UnitKilled(Arc<str>),
    /// A unit was masked.
    UnitMasked(Arc<str>),
    /// Nothing runs any more, the kernel accepts connections.
    Frozen,
    /// It runs again.
    Thawed,
    /// Its packets vanish.
    CutOff,
    /// Its packets arrive again.
    Healed,
    /// It was switched off.
    PoweredOff,
    /// It boots, and was there before or not.
    Booting(Boot),
    /// It booted: sshd and the enabled units run.
    Booted,
    /// It was asked to reboot and is in no state to hear it.
    RebootIgnored,
    /// Its sshd was stopped.
    SshdStopped,
    /// Its sshd was started.
    SshdStarted,
    /// Its host key was changed.
    HostKeyChanged,
    /// From now on it refuses the fleet's client key.
    KeyRefused,
    /// From now on it accepts the fleet's client key.
    KeyAccepted,
    /// A client logged in.
    LoggedIn,
}

/// Why a machine boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// It was off.
    PowerOn,
    /// The guest was asked to reboot.
    Soft,
    /// Its power was cut and given back.
    Hard,
}

impl fmt::Display for Happening {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:7.3} s  {}  {}", self.at.as_secs_f64(), self.machine, self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::UnitStarted(unit) => return write!(out, "{unit} started"),
            Self::UnitStartFailed(unit) => return write!(out, "{unit} did not start"),
            Self::UnitStopped(unit) => return write!(out, "{unit} stopped"),
            Self::UnitDied(unit) => return write!(out, "{unit} died"),
            Self::UnitKilled(unit) => return write!(out, "{unit} killed"),
            Self::UnitMasked(unit) => return write!(out, "{unit} masked"),
            Self::Frozen => "frozen",
            Self::Thawed => "thawed",
            Self::CutOff => "cut off from the network",
            Self::Healed => "back on the network",
            Self::PoweredOff => "powered off",
            Self::Booting(Boot::PowerOn) => "powered on, boots",
            Self::Booting(Boot::Soft) => "reboots (asked)",
            Self::Booting(Boot::Hard) => "reboots (power cut)",
            Self::Booted => "booted",
            Self::RebootIgnored => "did not hear the request to reboot",
            Self::SshdStopped => "sshd stopped",
            Self::SshdStarted => "sshd started",
            Self::HostKeyChanged => "has another host key",
            Self::KeyRefused => "refuses the key",
            Self::KeyAccepted => "accepts the key",
            Self::LoggedIn => "client logged in",
        };
        out.write_str(word)
    }
}

/// Where machines tell what happens.
#[derive(Clone, Debug)]
pub(super) struct Observer {
    start: Instant,
    sender: broadcast::Sender<Happening>,
}

impl Observer {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), sender: broadcast::Sender::new(KEPT) }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Happening> {
        self.sender.subscribe()
    }

    pub(super) fn tell(&self, machine: &Arc<str>, what: What) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        let happening = Happening { at: self.start.elapsed(), machine: Arc::clone(machine), what };
        // An error says that the last observer has just gone.
        let _ = self.sender.send(happening);
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What one machine, or the fleet, was asked since its start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl std::ops::AddAssign for Counts {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }

        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
        }

        impl Counters {
            pub(super) fn read(&self) -> Counts {
                Counts { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// TCP connections accepted.
    connections,
    /// Logins that succeeded.
    logins,
    /// Logins that were refused.
    refused_logins,
    /// Exec requests: one each, whatever the command.
    execs,
    /// Probes answered over a resident shell.
    resident_probes,
    /// Round trips over a resident shell: one or more probes each.
    resident_rounds,
    /// Connections asked for through the guest (`direct-tcpip`).
    tunnels,
    /// `systemctl start` and `restart` of a unit, whether it started or not.
    unit_starts,
    /// `systemctl stop` of a unit.
    unit_stops,
    /// Boots, of any kind.
    boots,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}
