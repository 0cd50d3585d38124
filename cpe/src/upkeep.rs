//! What is looked at once a second for as long as the process runs: maintenance that ends or begins, how many sessions there are, and whether the
//! engines and the journal still answer, which is what systemd's watchdog is told (`systemd.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cpe_proto::time::Timestamp;

use crate::api::Controller as _;
use crate::clock;
use crate::fleet::Fleet;
use crate::journal::Journal;
use crate::systemd::Liveness;

const EVERY: Duration = Duration::from_secs(1);

/// When no engine has answered for so long, although each is asked in turn, we are as good as dead and systemd may restart us.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// The journal's thread may wait for a slow disk. One that takes up nothing for longer hangs.
const JOURNAL_SILENT_MAX: Duration = Duration::from_secs(60);

/// Between two looks at the journal's thread.
const JOURNAL_EVERY: Duration = Duration::from_secs(5);

/// Whether the engines and the journal answer.
#[derive(Debug)]
pub struct Pulse {
    engines: Beat,
    journal: Beat,
}

/// When something answered last, in microseconds of engine time.
#[derive(Debug)]
struct Beat(AtomicU64);

impl Beat {
    fn new() -> Self {
        let beat = Self(AtomicU64::new(0));
        beat.felt();
        beat
    }

    fn felt(&self) {
        let now = u64::try_from(clock::now().since_boot().as_micros()).unwrap_or(u64::MAX);
        self.0.store(now, Ordering::Relaxed);
    }

    fn silent(&self, now: Timestamp) -> Duration {
        now.since(Timestamp::from_boot(Duration::from_micros(self.0.load(Ordering::Relaxed))))
    }
}

impl Pulse {
    /// A pulse that was felt just now.
    #[must_use]
    pub fn new() -> Self {
        Self { engines: Beat::new(), journal: Beat::new() }
    }

    /// For systemd: what we do, or since when we do not.
    ///
    /// # Errors
    /// When no engine has answered for 30 s, or the journal's thread for 60 s.
    pub fn check(&self, fleet: &Fleet) -> Liveness {
        self.alive(clock::now())?;
        let (deployables, assemblies, services) = fleet.size();
        Ok(format!("watching {services} services on {assemblies} assemblies of {deployables} deployables"))
    }

    fn alive(&self, now: Timestamp) -> Result<(), String> {
        let (engines, journal) = (self.engines.silent(now), self.journal.silent(now));
        if engines > SILENT_MAX {
            return Err(format!("no policy engine has answered for {} s", engines.as_secs()));
        }
        if journal > JOURNAL_SILENT_MAX {
            return Err(format!("the journal has taken up nothing for {} s", journal.as_secs()));
        }
        Ok(())
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
        fleet.keep_windows().await;
        let shared = fleet.shared();
        let open = shared.monitor.counters().open;
        shared.metrics.sessions.set(i64::try_from(open).unwrap_or(i64::MAX));
        if fleet.answers(&mut asked).await {
            pulse.engines.felt();
        }
    }
}

/// Looks at the journal's thread, for as long as it runs.
pub async fn follow_journal(journal: Journal, pulse: Arc<Pulse>) {
    while journal.beat().await.is_ok() {
        pulse.journal.felt();
        tokio::time::sleep(JOURNAL_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_not_fed_when_no_engine_or_no_journal_answers() {
        let pulse = Pulse::new();
        let now = clock::now();
        assert_eq!(pulse.alive(now.after(Duration::from_secs(20))), Ok(()));
        let hung = pulse.alive(now.after(Duration::from_secs(35)));
        assert!(hung.is_err_and(|reason| reason.starts_with("no policy engine has answered for 3")));
        let later = u64::try_from(now.after(Duration::from_secs(70)).since_boot().as_micros()).unwrap();
        pulse.engines.0.store(later, Ordering::Relaxed);
        let hung = pulse.alive(now.after(Duration::from_secs(75)));
        assert!(hung.is_err_and(|reason| reason.starts_with("the journal has taken up nothing for 7")));
    }
}
