//! A failing plan made small: what may be left out while the world still fails is left out, the halves first.

use std::time::Duration;

use super::fleet::Fleet;
use super::{Planned, live};

/// Worlds that are lived at the most to make one small.
const TRIES_MAX: usize = 400;

/// The smallest part of a plan that still fails in the same way, and the shortest time that it needs.
#[must_use]
pub fn shrink(fleet: &Fleet, plan: &[Planned], seed: u64, lasts: Duration) -> (Vec<Planned>, Duration) {
    let mut tries = 0;
    let kind = kind_of(fleet, plan, seed, lasts);
    let mut fails = |plan: &[Planned], lasts: Duration| {
        tries += 1;
        tries <= TRIES_MAX && kind_of(fleet, plan, seed, lasts) == kind
    };
    let mut kept = plan.to_vec();
    let mut width = kept.len().div_ceil(2);
    while width > 0 {
        let mut from = 0;
        while from < kept.len() {
            let end = (from + width).min(kept.len());
            let without: Vec<Planned> = kept[..from].iter().chain(&kept[end..]).cloned().collect();
            if fails(&without, lasts) {
                kept = without;
            } else {
                from = end;
            }
        }
        width /= 2;
    }
    // Without the time in which nothing happens any more.
    let last = kept.last().map_or(Duration::ZERO, |planned| planned.at) + Duration::from_secs(60);
    if last < lasts && fails(&kept, last) {
        return (kept, last);
    }
    (kept, lasts)
}

/// How a world fails: the first thing that breaks, without its names and numbers.
fn kind_of(fleet: &Fleet, plan: &[Planned], seed: u64, lasts: Duration) -> Option<String> {
    let lived = live(fleet, plan, seed, lasts);
    let words =
        lived.breaches.first()?.split(' ').filter(|word| !word.contains(|it: char| it.is_ascii_digit()));
    Some(words.take(8).collect::<Vec<_>>().join(" "))
}
