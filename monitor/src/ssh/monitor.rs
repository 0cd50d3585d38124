//! What all sessions share: the settings, the keys, the known hosts, the limits on connecting, the counters.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cpe_proto::observation::ChannelFailure;

use super::gate::Gate;
use super::identity::Keys;
use super::jump::Jumps;
use super::known_hosts::KnownHosts;
use super::session::Session;
use super::settings::{Answers, Endpoint, Error, Settings};

/// What all sessions share. Cheap to clone.
#[derive(Clone)]
pub struct Monitor(Arc<Shared>);

/// Inside of a [`Monitor`].
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) gate: Gate,
    pub(super) tally: Tally,
    pub(super) jumps: Jumps,
    /// Held while a key is enrolled.
    pub(super) enrolling: Mutex<()>,
    trust: RwLock<Arc<Trust>>,
}

/// Whom we are, and whom we believe: what was read from files.
pub(super) struct Trust {
    /// The settings' own keys were read at once; those of endpoints are read when first needed.
    pub(super) keys: Keys,
    pub(super) known_hosts: KnownHosts,
}

/// What all sessions did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions connected now, those to jump hosts included.
    pub open: u64,
    /// Connections made and logged in, those to jump hosts included.
    pub connected: u64,
    /// Attempts refused by the server's kernel.
    pub refused: u64,
    /// Attempts without an answer in time.
    pub timed_out: u64,
    /// Attempts whose key was not accepted.
    pub authentication_failed: u64,
    /// Attempts that met an unknown, changed or revoked host key.
    pub host_key: u64,
    /// Attempts that ended in words not understood, or were ended by the server.
    pub protocol: u64,
    /// Attempts that were wanted and not made in time.
    pub not_tried: u64,
    /// Connections that serve by exec, because the resident shell did not start or misbehaved.
    pub fallbacks: u64,
}

/// The same, being counted.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) open: AtomicU64,
    pub(super) connected: AtomicU64,
    pub(super) fallbacks: AtomicU64,
    refused: AtomicU64,
    timed_out: AtomicU64,
    authentication_failed: AtomicU64,
    host_key: AtomicU64,
    protocol: AtomicU64,
    not_tried: AtomicU64,
}

impl Tally {
    pub(super) fn failed(&self, cause: ChannelFailure) {
        let counter = match cause {
            ChannelFailure::Refused => &self.refused,
            ChannelFailure::TimedOut => &self.timed_out,
            ChannelFailure::AuthenticationFailed => &self.authentication_failed,
            ChannelFailure::HostKey => &self.host_key,
            ChannelFailure::Protocol => &self.protocol,
            ChannelFailure::NotTried => &self.not_tried,
        };
        counter.fetch_add(1, Relaxed);
    }
}

impl Trust {
    fn read(settings: &Settings) -> Result<Self, Error> {
        let files = settings.known_hosts.iter().chain(&settings.enrolled);
        let trust = Self { keys: Keys::default(), known_hosts: KnownHosts::read(files)? };
        for identity in &settings.identities {
            trust.keys.get(identity)?;
        }
        Ok(trust)
    }
}

impl Shared {
    /// What is believed now.
    pub(super) fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Monitor {
    /// Reads the keys and the known hosts. Blocks on files: call it at start or on the blocking pool.
    ///
    /// # Errors
    /// A setting out of range, a key or a file of known hosts that cannot be used.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        if settings.connect_concurrency == 0 || settings.connects_per_second == 0 || settings.queue_max == 0 {
            return Err(Error::Settings(
                "connect_concurrency, connects_per_second and queue_max must be at least 1",
            ));
        }
        let trust = RwLock::new(Arc::new(Trust::read(&settings)?));
        let gate = Gate::new(settings.connect_concurrency, settings.connects_per_second);
        let (tally, jumps, enrolling) = Default::default();
        Ok(Self(Arc::new(Shared { settings, gate, tally, jumps, enrolling, trust })))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// Reads the keys and the known hosts again. Sessions that are connected stay; the next connection uses what was read.
    /// On an error what was read before stays. Blocks on files, as [`Monitor::new`].
    ///
    /// # Errors
    /// As [`Monitor::new`].
    pub fn reload(&self) -> Result<(), Error> {
        let trust = Arc::new(Trust::read(&self.0.settings)?);
        *self.0.trust.write().unwrap_or_else(PoisonError::into_inner) = trust;
        Ok(())
    }

    /// A session to one assembly: one task on the runtime this is called in. It connects with the first channel probe.
    /// Dropping it closes it; what was asked and not answered is then not answered.
    #[must_use]
    pub fn session(&self, endpoint: Endpoint, answers: Answers) -> Session {
        Session::start(Arc::clone(&self.0), endpoint, answers)
    }

    /// The counters now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let tally = &self.0.tally;
        Counters {
            open: tally.open.load(Relaxed),
            connected: tally.connected.load(Relaxed),
            refused: tally.refused.load(Relaxed),
            timed_out: tally.timed_out.load(Relaxed),
            authentication_failed: tally.authentication_failed.load(Relaxed),
            host_key: tally.host_key.load(Relaxed),
            protocol: tally.protocol.load(Relaxed),
            not_tried: tally.not_tried.load(Relaxed),
            fallbacks: tally.fallbacks.load(Relaxed),
        }
    }
}
