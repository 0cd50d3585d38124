//! What is looked at once a second for as long as the process runs: the end of maintenance, how many sessions there are, and whether the
//! engines still answer, which is what systemd's watchdog is told (`systemd.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cpe_proto::time::Timestamp;

use crate::api::Controller as _;
use crate::clock;
use crate::fleet::Fleet;
use crate::systemd::Liveness;

const EVERY: Duration = Duration::from_secs(1);

/// When no engine has answered for so long, although each is asked in turn, we are as good as dead and systemd may restart us.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// Whether the engines answer.
#[derive(Debug)]
pub struct Pulse {
    /// In microseconds of engine time.
    answered: AtomicU64,
}

impl Pulse {
    /// A pulse that was felt just now.
    #[must_use]
    pub fn new() -> Self {
        let pulse = Self { answered: AtomicU64::new(0) };
        pulse.felt();
        pulse
    }

    fn felt(&self) {
        let now = u64::try_from(clock::now().since_boot().as_micros()).unwrap_or(u64::MAX);
        self.answered.store(now, Ordering::Relaxed);
    }

    /// For systemd: what we do, or since when we do not.
    ///
    /// # Errors
    /// When no engine has answered for 30 s.
    pub fn check(&self, fleet: &Fleet) -> Liveness {
        let answered = Timestamp::from_boot(Duration::from_micros(self.answered.load(Ordering::Relaxed)));
        let silent = clock::now().since(answered);
        if silent > SILENT_MAX {
            return Err(format!("no policy engine has answered for {} s", silent.as_secs()));
        }
        let (deployables, assemblies, services) = fleet.size();
        Ok(format!("watching {services} services on {assemblies} assemblies of {deployables} deployables"))
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

/// Looks once a second.
pub async fn run(fleet: Arc<Fleet>, pulse: Arc<Pulse>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut asked = None;
    loop {
        ticks.tick().await;
        fleet.end_maintenance().await;
        let shared = fleet.shared();
        let open = shared.monitor.counters().open;
        shared.metrics.sessions.set(i64::try_from(open).unwrap_or(i64::MAX));
        if fleet.answers(&mut asked).await {
            pulse.felt();
        }
    }
}
