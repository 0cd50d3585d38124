//! Reads the tables of numbers: `[probe]`, `[escalation]`, `[timing]`, each within its limits. Their defaults are in `settings.rs`.

use std::num::NonZeroU32;
use std::time::Duration;

use super::read::name;
use super::schema::{DEPLOYABLE_SCOPE, RELOCATION, WINDOW};
use super::{Affected, DeployableScope, Escalation, OnOrder, ProbeSettings, Relocation, Timing, Window};
use crate::document::Table;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn read_escalation(table: &Table<'_>) -> Escalation {
    let window = |key: &str| read_window(&table.table(key, &WINDOW)?);
    let deployable = || {
        let scope = table.table("deployable", &DEPLOYABLE_SCOPE)?;
        let words = [("affected", Affected::Dependents), ("all", Affected::All)];
        let affected = scope.word("scope", &words).unwrap_or_default();
        Some(DeployableScope { window: read_window(&scope)?, scope: affected })
    };
    let relocate = || {
        let relocate = table.table("relocate", &RELOCATION)?;
        relocate.require("zone", "zone = \"...\"");
        Some(Relocation { zone: relocate.parse("zone", name)? })
    };
    Escalation {
        service: window("service"),
        assembly: window("assembly"),
        deployable: deployable(),
        relocate: relocate(),
    }
}

fn read_window(window: &Table<'_>) -> Option<Window> {
    window.require("failures", "failures = N, within = \"...\"");
    window.require("within", "failures = N, within = \"...\"");
    let failures = window.number("failures", 1, 100).and_then(NonZeroU32::new);
    let within = window.duration("within", Duration::from_secs(1), 30 * DAY);
    Some(Window { failures: failures?, within: within? })
}

pub(super) fn read_timing(table: &Table<'_>) -> Timing {
    let default = Timing::default();
    let wait = |key: &str, default| table.duration(key, Duration::from_secs(1), DAY).unwrap_or(default);
    let order = |key: &str, default| {
        table.word(key, &[("recover", OnOrder::Recover), ("report", OnOrder::Report)]).unwrap_or(default)
    };
    let timing = Timing {
        dependency_wait: wait("dependency_wait", default.dependency_wait),
        unreachable_notify: wait("unreachable_notify", default.unreachable_notify),
        transition_wait: wait("transition_wait", default.transition_wait),
        retry_after: wait("retry_after", default.retry_after),
        service_action_timeout: wait("service_action_timeout", default.service_action_timeout),
        machine_action_timeout: wait("machine_action_timeout", default.machine_action_timeout),
        action_give_up: wait("action_give_up", default.action_give_up),
        on_channel_refused: order("on_channel_refused", default.on_channel_refused),
        on_unexpected_stop: order("on_unexpected_stop", default.on_unexpected_stop),
    };
    if timing.action_give_up < timing.machine_action_timeout.max(timing.service_action_timeout) {
        let message = "`action_give_up` is shorter than an action's time-out: it is given up before it is late, expected more";
        table.report().error(table.at_key("action_give_up"), message);
    }
    timing
}

/// The `probe` tables above a service or a channel, the nearest last: what none of them says has its default.
#[derive(Clone, Copy, Default)]
pub(super) struct ProbeKeys {
    interval: Option<Duration>,
    timeout: Option<Duration>,
    confirm_interval: Option<Duration>,
    failure_threshold: Option<NonZeroU32>,
    startup_grace: Option<Duration>,
    stable_for: Option<Duration>,
}

impl ProbeKeys {
    /// With what that table says in place of what those above it say.
    pub(super) fn or_read(self, table: Option<&Table<'_>>) -> Self {
        let Some(table) = table else { return self };
        let millis = Duration::from_millis;
        let keys = Self {
            interval: table.duration("interval", millis(100), HOUR).or(self.interval),
            timeout: table.duration("timeout", millis(100), 5 * MINUTE).or(self.timeout),
            confirm_interval: table
                .duration("confirm_interval", millis(50), 5 * MINUTE)
                .or(self.confirm_interval),
            failure_threshold: table
                .number("failure_threshold", 1, 20)
                .and_then(NonZeroU32::new)
                .or(self.failure_threshold),
            startup_grace: table.duration("startup_grace", millis(100), HOUR).or(self.startup_grace),
            stable_for: table.duration("stable_for", millis(100), HOUR).or(self.stable_for),
        };
        keys.warn(table);
        keys
    }

    /// The settings, with those for what is not said.
    pub(super) fn over(self, default: ProbeSettings) -> ProbeSettings {
        ProbeSettings {
            interval: self.interval.unwrap_or(default.interval),
            timeout: self.timeout.unwrap_or(default.timeout),
            confirm_interval: self.confirm_interval.unwrap_or(default.confirm_interval),
            failure_threshold: self.failure_threshold.unwrap_or(default.failure_threshold),
            startup_grace: self.startup_grace.unwrap_or(default.startup_grace),
            stable_for: self.stable_for.unwrap_or(default.stable_for),
        }
    }

    fn warn(self, table: &Table<'_>) {
        let settings = self.over(ProbeSettings::service());
        let suspect = |one: &str, other: &str, shorter: bool, because: &str| {
            if shorter && (table.has(one) || table.has(other)) {
                let at = if table.has(one) { one } else { other };
                table
                    .report()
                    .warning(table.at_key(at), format!("`{one}` is shorter than `{other}`: {because}"));
            }
        };
        let because = "a start is judged before it can have worked";
        suspect("startup_grace", "stable_for", settings.startup_grace < settings.stable_for, because);
        let because = "confirming a fault is slower than probing again";
        let slower = settings.interval < settings.confirm_interval;
        let both = self.interval.is_some() && self.confirm_interval.is_some();
        if slower && both && (table.has("interval") || table.has("confirm_interval")) {
            let at = if table.has("confirm_interval") { "confirm_interval" } else { "interval" };
            let message =
                format!("`confirm_interval` is longer than `interval`: {because}, expected at most that");
            table.report().error(table.at_key(at), message);
        } else {
            suspect("interval", "confirm_interval", slower, because);
        }
    }
}
