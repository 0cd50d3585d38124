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

/// Which boot of the machine this is, and both clocks now.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The kernel's name for it (random(4), `boot_id`).
    pub id: String,
    /// Engine time.
    pub now: Timestamp,
    /// Wall time, in milliseconds since 1970-01-01T00:00:00Z.
    pub wall_ms: u64,
}

impl Boot {
    /// This one. Where the kernel does not say which it is, each process counts as one.
    #[must_use]
    pub fn this() -> Self {
        let wall_ms = wall_ms();
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let id = id.map_or_else(|_| format!("process of {wall_ms}"), |id| id.trim().to_owned());
        Self { id, now: now(), wall_ms }
    }
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

/// The wall clock for what cannot be undone: one that was set is believed only once it has stood for an hour, so that a wrong hour of a
/// moment deletes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    /// The wall time of the boot as it is believed, in milliseconds.
    believed: u64,
    /// Another one, and since when it was seen.
    other: Option<(u64, Timestamp)>,
}

impl Steady {
    /// A step above this is no drift but somebody who set the clock.
    const STEP_MS: u64 = 60_000;
    /// How long a clock that was set stands until it is believed.
    const STANDS: Duration = Duration::from_secs(3600);

    /// Believes the clock as it is.
    #[must_use]
    pub fn new(now: Timestamp, wall_ms: u64) -> Self {
        Self { believed: wall_ms.saturating_sub(millis(now)), other: None }
    }

    /// The wall time that is believed, in milliseconds since 1970-01-01T00:00:00Z.
    pub fn wall_ms(&mut self, now: Timestamp, wall_ms: u64) -> u64 {
        let found = wall_ms.saturating_sub(millis(now));
        let near = |boot: u64| boot.abs_diff(found) <= Self::STEP_MS;
        self.other = match self.other {
            _ if near(self.believed) => {
                self.believed = found;
                None
            }
            Some((other, since)) if near(other) && now.since(since) >= Self::STANDS => {
                self.believed = found;
                None
            }
            Some((other, since)) if near(other) => Some((other, since)),
            _ => Some((found, now)),
        };
        self.believed.saturating_add(millis(now))
    }
}

fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.since_boot().as_millis()).unwrap_or(u64::MAX)
}

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
    fn engine_time_goes_on_while_the_machine_is_suspended_and_is_not_the_wall_clock() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        // proc(5): it includes the time spent in suspend, as CLOCK_BOOTTIME does.
        let since = now().since_boot().as_secs_f64();
        assert!(since >= uptime && since - uptime < 60.0, "{since} {uptime}");
    }

    #[test]
    fn a_clock_that_is_set_for_a_moment_is_not_believed_and_one_that_stands_for_an_hour_is() {
        const YEAR: u64 = 365 * 86_400_000;
        let at = |minutes: u64| Timestamp::from_boot(Duration::from_secs(minutes * 60));
        let right = |minutes: u64| YEAR + minutes * 60_000;
        let mut steady = Steady::new(at(0), right(0));
        assert_eq!(steady.wall_ms(at(1), right(1) + 900), right(1) + 900, "it drifts");
        assert_eq!(steady.wall_ms(at(2), right(2) + YEAR), right(2) + 900, "somebody sets it");
        assert_eq!(steady.wall_ms(at(50), right(50) + YEAR), right(50) + 900);
        assert_eq!(steady.wall_ms(at(51), right(51)), right(51), "and back");
        assert_eq!(steady.wall_ms(at(52), right(52) + YEAR), right(52), "the hour begins anew");
        assert_eq!(steady.wall_ms(at(100), right(100) + YEAR), right(100));
        assert_eq!(steady.wall_ms(at(112), right(112) + YEAR), right(112) + YEAR);
        assert_eq!(steady.wall_ms(at(113), 0), right(113) + YEAR, "nor is one that lost its battery");
    }

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
