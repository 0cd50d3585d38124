//! Direct probes: what the controller sees for itself over the network, without a session to the guest. One [`Target`] for each probed
//! service or channel, from one [`Prober`] that all share (limits on connecting, trusted certificates). `ask.rs` is one probe from its
//! start to its deadline; `http.rs`, `tls.rs`, `dns.rs` and `icmp.rs` know one kind each; `connect.rs` is the way to a port.

mod ask;
mod connect;
mod dns;
mod expiry;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
mod icmp;
mod redirect;
mod secret;
mod tls;
mod trouble;
mod trust;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;

pub use ask::{Purpose, Target};

use trust::Trust;

/// The limits of direct probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Probes that connect at a time (256). One that finds no room by its deadline was not asked.
    pub connecting: usize,
    /// Names that are looked up at a time (16): the host's own resolver blocks a thread for each.
    pub lookups: usize,
    /// Connections of http that are kept for the next probe, in all (4,096); beyond that each probe connects anew.
    pub kept: usize,
    /// How long a kept connection is used (30 s): now and then a probe shows that a new one can be had.
    pub kept_for: Duration,
    /// The most of a body that is read, in bytes (64 KiB).
    pub body_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connecting: 256,
            lookups: 16,
            kept: 4096,
            kept_for: Duration::from_secs(30),
            body_max: 64 * 1024,
        }
    }
}

/// What all direct probes did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections made.
    pub connected: u64,
    /// Requests that went over a kept connection.
    pub reused: u64,
}

/// What all direct probes share. Cheap to clone.
#[derive(Clone)]
pub struct Prober(Arc<Shared>);

/// Inside of a [`Prober`].
struct Shared {
    settings: Settings,
    connecting: Semaphore,
    lookups: Arc<Semaphore>,
    kept: Arc<Semaphore>,
    trust: Trust,
    connected: AtomicU64,
    reused: AtomicU64,
}

impl Prober {
    /// A prober with these limits.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared {
            settings,
            connecting: Semaphore::new(settings.connecting),
            lookups: Arc::new(Semaphore::new(settings.lookups)),
            kept: Arc::new(Semaphore::new(settings.kept)),
            trust: Trust::default(),
            connected: AtomicU64::new(0),
            reused: AtomicU64::new(0),
        }))
    }

    /// The counters now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters { connected: self.0.connected.load(Relaxed), reused: self.0.reused.load(Relaxed) }
    }
}
