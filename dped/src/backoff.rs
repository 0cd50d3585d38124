//! How long an attempt of a rung waits after the one before it (policy.md section 3): 0, 1, 2, 4 ... 60 s for services,
//! 0, 30 s, 1 min ... 10 min for machines, each with 10% jitter so that a fleet does not act in step.

use std::time::Duration;

use cpe_proto::rung::Rung;

use crate::random::Random;

/// The wait before the attempt that follows `attempts` others of the same rung.
pub(crate) fn wait(rung: Rung, attempts: u32, random: &mut Random) -> Duration {
    let longest = longest(rung, attempts);
    // Up to 10% less: the cap stays a cap.
    longest - random.within(longest / 10)
}

/// The longest that this wait can be: without its jitter.
pub(crate) fn longest(rung: Rung, attempts: u32) -> Duration {
    let (first, cap) = match rung {
        Rung::RestartService => (Duration::from_secs(1), Duration::from_secs(60)),
        _ => (Duration::from_secs(30), Duration::from_secs(600)),
    };
    let Some(doublings) = attempts.checked_sub(1) else { return Duration::ZERO };
    first.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(cap)
}

/// The shortest that it can be.
pub(crate) fn shortest(rung: Rung, attempts: u32) -> Duration {
    let longest = longest(rung, attempts);
    longest - longest / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_to_its_cap() {
        let within = |rung, plain: &[u64]| {
            for (seed, (attempts, plain)) in (0_u32..).zip(plain).enumerate() {
                let wait = wait(rung, attempts, &mut Random::new(seed as u64));
                let (low, high) = (Duration::from_millis(plain * 900), Duration::from_secs(*plain));
                assert_eq!((shortest(rung, attempts), longest(rung, attempts)), (low, high));
                assert!(
                    low <= wait && wait <= high,
                    "{rung} after {attempts}: {wait:?} is not within 10% below {plain} s"
                );
            }
        };
        within(Rung::RestartService, &[0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        within(Rung::RebootHard, &[0, 30, 60, 120, 240, 480, 600, 600]);
        assert!(wait(Rung::RestartService, u32::MAX, &mut Random::new(1)) <= Duration::from_secs(60));
    }
}
