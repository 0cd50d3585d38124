//! Counting of failures: `failures = N, within = T`, the N-th inside T escalates and the count starts anew (policy.md section 3).
//! The window slides with engine time. What is done about a full window is `ladder.rs`'s.

use std::num::NonZeroU32;

use cpe_proto::definition::Window;
use cpe_proto::time::Timestamp;

/// The failures of one scope that may still count; at most N - 1 of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures(Vec<Timestamp>);

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
        self.0.retain(|at| now.since(*at) <= window.within);
        self.0.push(now);
        let failure = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let full = failure >= window.failures.get();
        if full {
            self.0 = Vec::new();
        }
        Count { failure, of: window.failures, full }
    }

    /// How many would count now.
    #[must_use]
    pub fn count(&self, window: Window, now: Timestamp) -> usize {
        self.0.iter().filter(|at| now.since(**at) <= window.within).count()
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }

    /// The newest.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.0.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
