//! The engine's time: an offset from the machine's boot (`CLOCK_BOOTTIME`), never wall time. See policy.md section 8.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time, in microseconds since the machine's boot. Printable, storable, the same in each replay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The boot of the machine, or the start of a simulation.
    pub const ZERO: Self = Self(0);

    /// The point that lies `since_boot` after the boot; saturates after 584,000 years.
    #[must_use]
    pub fn from_boot(since_boot: Duration) -> Self {
        Self(micros(since_boot))
    }

    /// The point that lies `wait` later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(micros(wait)))
    }

    /// The point that lies `span` earlier, or the boot.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros(span)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Time since the boot.
    #[must_use]
    pub fn since_boot(self) -> Duration {
        Duration::from_micros(self.0)
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{:03}s", self.0 / 1_000_000, self.0 / 1000 % 1000)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards_or_over() {
        let late = Timestamp::from_boot(Duration::MAX);
        assert_eq!(late.after(Duration::from_secs(1)), late);
        assert_eq!(Timestamp::ZERO.before(Duration::from_secs(1)), Timestamp::ZERO);
        assert_eq!(Timestamp::ZERO.since(late), Duration::ZERO);
        assert_eq!(Timestamp::from_boot(Duration::from_millis(61_007)).to_string(), "61.007s");
    }
}
