//! `[guard]`: when a common cause is suspected, and how long nothing is done then (policy.md section 6).

use std::time::Duration;

use crate::document::{Schema, Table};

/// When a failure domain, or the fleet, is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// What left health within this counts together (2 min).
    pub window: Duration,
    /// How long nothing is done before a slow start (2 min).
    pub hold: Duration,
    /// A domain is held at so many of its assemblies (3 and 20%).
    pub domain: Threshold,
    /// The fleet breaker opens at so many of all (5 and 30%), in two or more domains.
    pub fleet: Threshold,
}

/// So many, which are so much: both must be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// So many assemblies.
    pub count: u32,
    /// So much of those that were healthy, in percent.
    pub percent: u32,
}

impl Default for Holds {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self {
            window: minutes(2),
            hold: minutes(2),
            domain: Threshold { count: 3, percent: 20 },
            fleet: Threshold { count: 5, percent: 30 },
        }
    }
}

pub(super) const GUARD: Schema =
    Schema { title: "[guard]", keys: &["window", "hold", "domain", "fleet"], later: &[] };
pub(super) const THRESHOLD: Schema = Schema { title: "a threshold", keys: &["count", "percent"], later: &[] };

pub(super) fn read(root: &Table<'_>) -> Holds {
    let default = Holds::default();
    let Some(table) = root.table("guard", &GUARD) else { return default };
    let hour = Duration::from_secs(3600);
    let wait = |key: &str, default| table.duration(key, Duration::from_secs(1), hour).unwrap_or(default);
    let threshold = |key: &str, default: Threshold| {
        let Some(table) = table.table(key, &THRESHOLD) else { return default };
        // With one, every single fault would be a common cause.
        Threshold {
            count: table.number("count", 2, 10_000).unwrap_or(default.count),
            percent: table.number("percent", 1, 100).unwrap_or(default.percent),
        }
    };
    let holds = Holds {
        window: wait("window", default.window),
        hold: wait("hold", default.hold),
        domain: threshold("domain", default.domain),
        fleet: threshold("fleet", default.fleet),
    };
    if holds.fleet.count < holds.domain.count {
        let message = "`fleet` opens at fewer than a `domain` is held at: one domain that fails stops recovery everywhere, expected more";
        let at = if table.has("fleet") { "fleet" } else { "domain" };
        table.report().error(table.at_key(at), message);
    }
    holds
}
