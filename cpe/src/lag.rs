//! Whether this process itself is late. A probe that fails while we were late proves nothing of the assembly (policy.md section 1),
//! and a gap between two ticks (suspend, SIGSTOP) voids everything that is known (section 6). Used by `driver.rs`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cpe_proto::time::Timestamp;
use tokio::sync::watch;

use crate::clock;

/// How often the lag is measured. Far below the budget, so that a lag above it cannot hide between two ticks.
const TICK: Duration = Duration::from_millis(50);

/// A gap between ticks above this is not a lag but an absence: suspended, or stopped by a signal.
pub const GAP: Duration = Duration::from_secs(3);

/// The lag of this process.
#[derive(Debug)]
pub struct Lag {
    budget: Duration,
    /// When we were last above the budget, in microseconds of engine time; 0: never.
    late_at: AtomicU64,
    gaps: watch::Sender<u64>,
}

impl Lag {
    /// A lag that is above its budget where it exceeds `budget`.
    #[must_use]
    pub fn new(budget: Duration) -> Self {
        Self { budget, late_at: AtomicU64::new(0), gaps: watch::Sender::new(0) }
    }

    /// Records that something due at `due` was only begun at `now`.
    pub fn observe(&self, due: Timestamp, now: Timestamp) {
        if self.exceeds(now.since(due)) {
            let micros = u64::try_from(now.since_boot().as_micros()).unwrap_or(u64::MAX);
            self.late_at.fetch_max(micros, Ordering::Relaxed);
        }
    }

    /// Whether such a lag is above the budget.
    #[must_use]
    pub fn exceeds(&self, lag: Duration) -> bool {
        lag > self.budget
    }

    /// Whether we were late at any time since `since`.
    #[must_use]
    pub fn late_since(&self, since: Timestamp) -> bool {
        let late_at = self.late_at.load(Ordering::Relaxed);
        late_at != 0 && u128::from(late_at) >= since.since_boot().as_micros()
    }

    /// Counts the gaps; changes with each.
    #[must_use]
    pub fn gaps(&self) -> watch::Receiver<u64> {
        self.gaps.subscribe()
    }

    /// Measures for as long as the process runs.
    pub async fn measure(&self) {
        let mut due = clock::now().after(TICK);
        loop {
            tokio::time::sleep(due.since(clock::now())).await;
            let now = clock::now();
            self.observe(due, now);
            let absence = now.since(due);
            if absence > GAP {
                tracing::warn!(seconds = absence.as_secs(), "this process stood still: all evidence is void");
                self.gaps.send_modify(|count| *count += 1);
            }
            due = now.after(TICK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_boot(Duration::from_millis(millis))
    }

    #[test]
    fn a_probe_is_void_when_we_were_late_after_it_was_sent() {
        let lag = Lag::new(Duration::from_millis(250));
        lag.observe(at(1000), at(1250));
        assert!(!lag.late_since(at(0)), "within the budget");
        lag.observe(at(2000), at(2251));
        assert!(lag.late_since(at(2100)), "sent before we were late");
        assert!(!lag.late_since(at(2300)), "sent after it");
    }
}
