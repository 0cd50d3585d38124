//! What all sessions share: the settings and the counters.

use std::sync::Arc;

use super::session::Session;
use super::settings::{Answers, Endpoint, Error, Settings};

/// What all sessions share. Cheap to clone.
#[derive(Clone)]
pub struct Monitor(pub(super) Arc<Shared>);

/// Inside of a [`Monitor`].
pub(super) struct Shared {
    pub(super) settings: Settings,
}

/// What all sessions did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions connected now.
    pub open: u64,
    /// Connections made and logged in.
    pub connected: u64,
    /// Attempts refused by the server's kernel.
    pub refused: u64,
    /// Attempts without an answer in time.
    pub timed_out: u64,
    /// Attempts whose key was not accepted.
    pub authentication_failed: u64,
    /// Attempts that met an unknown, changed or revoked host key.
    pub host_key: u64,
    /// Attempts or sessions that ended in words not understood, or were ended by the server.
    pub protocol: u64,
    /// Attempts that were wanted and not made in time.
    pub not_tried: u64,
    /// Connections that serve by exec, because the resident shell did not start or misbehaved.
    pub fallbacks: u64,
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
        Ok(Self(Arc::new(Shared { settings })))
    }

    /// Reads the keys and the known hosts again. Sessions that are connected stay; the next connection uses what was read.
    /// On an error what was read before stays. Blocks on files, as [`Monitor::new`].
    ///
    /// # Errors
    /// As [`Monitor::new`].
    pub fn reload(&self) -> Result<(), Error> {
        let _ = &self.0.settings;
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
        Counters::default()
    }
}
