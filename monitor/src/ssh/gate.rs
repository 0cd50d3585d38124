//! How many connections are made at once and how fast, over all sessions: so that a fleet that was lost and came back does not
//! stampede us or it. One session alone is never slowed: it tries once for each channel probe, and the engine paces those.

use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// What may be caught up of turns that nobody used, or that a coarse timer missed.
const SLACK: Duration = Duration::from_millis(10);

/// The limits on connecting.
pub(super) struct Gate {
    /// When the next connection may start. Whoever waits for it holds the lock: first come, first served, and one that gives up
    /// uses nothing.
    next: Mutex<Instant>,
    gap: Duration,
    handshakes: Semaphore,
}

impl Gate {
    pub(super) fn new(concurrency: usize, per_second: u32) -> Self {
        let gap = Duration::from_secs(1) / per_second.max(1);
        Self {
            next: Mutex::new(Instant::now()),
            gap,
            handshakes: Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS)),
        }
    }

    /// Waits until it is this connection's turn.
    pub(super) async fn turn(&self) {
        let mut next = self.next.lock().await;
        tokio::time::sleep_until(*next).await;
        // Between half a gap and one and a half: machines that were lost together are not met again in step.
        let gap = self.gap.mul_f64(0.5 + rand::random::<f64>());
        let earliest = Instant::now().checked_sub(SLACK).unwrap_or_else(Instant::now);
        *next = (*next).max(earliest) + gap;
    }

    /// Waits until a key exchange and login may be done. It is asked for only when the server has spoken, so that machines that
    /// accept connections and say nothing cannot keep the others out.
    pub(super) async fn handshake(&self) -> Option<SemaphorePermit<'_>> {
        self.handshakes.acquire().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_are_spread_over_time() {
        let gate = Gate::new(1, 100);
        let start = Instant::now();
        for _ in 0..201 {
            gate.turn().await;
        }
        let took = start.elapsed();
        assert!(took > Duration::from_millis(1600) && took < Duration::from_millis(2500), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_gives_up_waiting_uses_no_turn() {
        let gate = Gate::new(1, 1);
        gate.turn().await;
        for _ in 0..100 {
            assert!(tokio::time::timeout(Duration::from_millis(1), gate.turn()).await.is_err());
        }
        let start = Instant::now();
        gate.turn().await;
        assert!(start.elapsed() < Duration::from_millis(1500));
    }

    #[tokio::test]
    async fn handshakes_are_limited() {
        let gate = Gate::new(1, 1);
        let first = gate.handshake().await;
        assert!(tokio::time::timeout(Duration::from_millis(1), gate.handshake()).await.is_err());
        drop(first);
        assert!(gate.handshake().await.is_some());
    }
}
