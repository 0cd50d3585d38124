//! Counting of failures: `failures = N, within = T`, the N-th inside T escalates and the count starts anew (policy.md section 3).
//! The window slides with engine time. What is done about a full window is `ladder.rs`'s.

use std::num::NonZeroU32;
use std::time::Duration;

use cpe_proto::definition::Window;
use cpe_proto::time::Timestamp;

/// The failures of one scope that may still count; at most N - 1 of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Failures(Vec<Failure>);

/// When one was, and how much longer ago than the clock can say: it may lie before the boot, in an earlier process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Failure {
    at: Timestamp,
    before: Duration,
}

impl Failure {
    fn age(self, now: Timestamp) -> Duration {
        now.since(self.at).saturating_add(self.before)
    }
}

/// What one more failure came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Which failure it was: "failure 1 of 3".
    pub failure: u32,
    /// The N.
    pub of: NonZeroU32,
    /// It was the N-th inside T, and the count starts anew.
    pub full: bool,
}

impl Failures {
    /// Counts one more. Two failures lie within T when they are not more than T apart.
    pub fn add(&mut self, window: Window, now: Timestamp) -> Count {
        self.0.retain(|failure| failure.age(now) <= window.within);
        self.0.push(Failure { at: now, before: Duration::ZERO });
        let failure = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let full = failure >= window.failures.get();
        if full {
            self.0 = Vec::new();
        }
        Count { failure, of: window.failures, full }
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }

    /// How long ago each was, oldest first.
    pub fn ages(&self, now: Timestamp) -> impl Iterator<Item = Duration> + '_ {
        self.0.iter().map(move |failure| failure.age(now))
    }

    /// Failures of these ages, oldest first.
    #[must_use]
    pub fn from_ages(ages: impl Iterator<Item = Duration>, now: Timestamp) -> Self {
        let known = now.since_boot();
        let failure = |age: Duration| Failure { at: now.before(age), before: age.saturating_sub(known) };
        Self(ages.map(failure).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `failures = 3, within = "1s"`, failures at these tenths of seconds: the count of each, a full one as 0.
    fn counts(tenths: &[u64]) -> Vec<u32> {
        let window = Window { failures: NonZeroU32::new(3).unwrap(), within: Duration::from_secs(1) };
        let mut failures = Failures::default();
        let count =
            |tenth: &u64| failures.add(window, Timestamp::from_boot(Duration::from_millis(tenth * 100)));
        tenths.iter().map(count).map(|count| if count.full { 0 } else { count.failure }).collect()
    }

    #[test]
    fn three_at_once_escalate_and_the_count_starts_anew() {
        assert_eq!(counts(&[0, 0, 0, 0, 0, 0]), [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn three_that_do_not_lie_within_the_window_do_not_escalate() {
        assert_eq!(counts(&[0, 6, 12]), [1, 2, 2]);
    }

    #[test]
    fn the_last_three_count_wherever_the_window_began() {
        assert_eq!(counts(&[0, 6, 12, 15]), [1, 2, 2, 0]);
    }

    #[test]
    fn exactly_the_window_apart_is_within_it() {
        assert_eq!(counts(&[0, 5, 10]), [1, 2, 0]);
    }
    #[test]
    fn what_begins_anew_has_counted_nothing() {
        let window = Window { failures: NonZeroU32::new(3).unwrap(), within: Duration::from_secs(1) };
        let mut failures = Failures::default();
        failures.add(window, Timestamp::ZERO);
        failures.clear();
        assert_eq!(failures.add(window, Timestamp::ZERO).failure, 1);
    }
}
