//! The numbers of a definition, with policy.md's defaults in one place.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::id::Name;

/// When something is probed and believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// From the start of one probe to the start of the next (10 s).
    pub interval: Duration,
    /// A probe without an answer by then has none (5 s).
    pub timeout: Duration,
    /// Between the probes that confirm a first failure (500 ms).
    pub confirm_interval: Duration,
    /// Failed probes in a row that make a fault: 2 for services, 3 for channels.
    pub failure_threshold: NonZeroU32,
    /// How long a start may take: a unit that is still activating, a machine that is still booting (60 s).
    pub startup_grace: Duration,
    /// How long fresh probes must pass until a recovery has worked (5 s).
    pub stable_for: Duration,
}

impl ProbeSettings {
    /// policy.md's values for a service.
    #[must_use]
    pub const fn service() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            confirm_interval: Duration::from_millis(500),
            failure_threshold: NonZeroU32::MIN.saturating_add(1),
            startup_grace: Duration::from_secs(60),
            stable_for: Duration::from_secs(5),
        }
    }

    /// policy.md's values for a channel.
    #[must_use]
    pub const fn channel() -> Self {
        Self { failure_threshold: NonZeroU32::MIN.saturating_add(2), ..Self::service() }
    }
}

/// `failures = N, within = T`: the N-th failure inside T escalates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// N.
    pub failures: NonZeroU32,
    /// T.
    pub within: Duration,
}

impl Window {
    /// What holds for a scope without `[escalation]`: 5 in 1 h, and then exhausted, not the next scope.
    pub const DEFAULT: Self =
        Self { failures: NonZeroU32::MIN.saturating_add(4), within: Duration::from_secs(3600) };
}

/// When a scope is escalated. A scope without a window never climbs: [`Window::DEFAULT`] ends in exhausted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Escalation {
    /// From restarting a service to its assembly.
    pub service: Option<Window>,
    /// From rebooting an assembly to rebuilding it.
    pub assembly: Option<Window>,
    /// When the ladder of an assembly has ended: restarting what is affected; none: that rung is never tried.
    pub deployable: Option<DeployableScope>,
    /// After that: where else a machine may be made; none: it is never made elsewhere.
    pub relocate: Option<Relocation>,
}

/// `relocate = { zone }`: where a machine is made anew when nothing has helped it where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The infrastructure's name of a zone. A failure domain of that name is this one.
    pub zone: Name,
}

/// `deployable = { failures, within, scope }`: what is done when the ladder of an assembly has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeployableScope {
    /// Each ladder that ends counts; the N-th is not answered by a restart any more.
    pub window: Window,
    /// What is restarted.
    pub scope: Affected,
}

/// What a restart of the deployable touches besides the machine that has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affected {
    /// The services that depend on the failed assembly, one through another.
    #[default]
    Dependents,
    /// The services of all other assemblies.
    All,
}

/// What to do when something that is not broken proves that somebody, or nobody known, stopped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOrder {
    /// Treat it as a fault.
    Recover,
    /// Report it and leave it.
    Report,
}

/// Waits and limits of a deployable that are not of a single probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A dependent waits this long for its dependency before it says so (5 min).
    pub dependency_wait: Duration,
    /// An assembly that is unreachable for this long is notified (5 min).
    pub unreachable_notify: Duration,
    /// A foreign change (resize, migration) is waited for this long (10 min).
    pub transition_wait: Duration,
    /// After exhausted, one lowest-rung attempt every so often (30 min).
    pub retry_after: Duration,
    /// A restart of a service that takes longer is unresolved (90 s).
    pub service_action_timeout: Duration,
    /// An action on a machine that takes longer is unresolved (5 min).
    pub machine_action_timeout: Duration,
    /// An action that is unresolved for this long ends in exhausted (15 min).
    pub action_give_up: Duration,
    /// A channel that is refused, with nothing else known, climbs only with [`OnOrder::Recover`] (report).
    pub on_channel_refused: OnOrder,
    /// A machine that is off or gone and nobody known stopped it (recover).
    pub on_unexpected_stop: OnOrder,
}

impl Default for Timing {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self {
            dependency_wait: minutes(5),
            unreachable_notify: minutes(5),
            transition_wait: minutes(10),
            retry_after: minutes(30),
            service_action_timeout: Duration::from_secs(90),
            machine_action_timeout: minutes(5),
            action_give_up: minutes(15),
            on_channel_refused: OnOrder::Report,
            on_unexpected_stop: OnOrder::Recover,
        }
    }
}
