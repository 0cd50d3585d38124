//! The process's clocks: engine time is `CLOCK_BOOTTIME`, which goes on while the machine is suspended and never jumps;
//! wall time is for display and expiry only (policy.md section 8). The lag of this process is in `lag.rs`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cpe_proto::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Engine time now.
#[must_use]
pub fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Timestamp::from_boot(Duration::new(seconds, nanos))
}

/// Wall time now, in milliseconds since 1970-01-01T00:00:00Z.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The wall time of a point of engine time, in milliseconds since 1970-01-01T00:00:00Z. The same for the same point each time, as long as
/// nobody sets the wall clock.
#[must_use]
pub fn wall_of(at: Timestamp) -> u64 {
    let at = u64::try_from(at.since_boot().as_millis()).unwrap_or(u64::MAX);
    boot_wall_ms().saturating_add(at)
}

/// The wall time of the boot. Two clocks cannot be read at one moment, so what was found first is kept until it is clearly another.
fn boot_wall_ms() -> u64 {
    static KEPT: AtomicU64 = AtomicU64::new(0);
    let since_boot = u64::try_from(now().since_boot().as_millis()).unwrap_or(u64::MAX);
    let found = wall_ms().saturating_sub(since_boot);
    let kept = KEPT.load(Ordering::Relaxed);
    if kept != 0 && kept.abs_diff(found) <= WALL_SET_MS {
        return kept;
    }
    KEPT.store(found, Ordering::Relaxed);
    found
}

/// A difference above this means that the wall clock was set, or has drifted as far since.
const WALL_SET_MS: u64 = 100;

/// Probes that fall due within one tick are sent together: CPU is wake-ups (research: 60% less than one timer a probe), and a
/// tick is far below any interval.
pub const TICK: Duration = Duration::from_millis(16);

/// The end of the tick in which `at` lies. The grid is common to all engines of the process, so that they wake together.
#[must_use]
pub fn tick_after(at: Timestamp) -> Timestamp {
    let tick = TICK.as_micros();
    let ticks = at.since_boot().as_micros().div_ceil(tick);
    let micros = u64::try_from(ticks * tick).unwrap_or(u64::MAX);
    Timestamp::from_boot(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_ups_meet_on_a_common_grid_and_are_never_early() {
        for micros in [0, 1, 15_999, 16_000, 16_001, 1_234_567] {
            let at = Timestamp::from_boot(Duration::from_micros(micros));
            let tick = tick_after(at);
            assert!(tick >= at && tick.since(at) < TICK, "{at} {tick}");
            assert_eq!(tick.since_boot().as_micros() % TICK.as_micros(), 0);
        }
    }
}
