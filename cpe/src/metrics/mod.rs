//! What is counted, for Prometheus. Every label has a fixed set of values; a deployable's name is never one of them, but for what plugins
//! measure (`perfdata.rs`). Handles are found once: counting a probe is an addition. `process.rs` has the figures of the process itself, `serve.rs` the listener.

mod perfdata;
mod process;
mod serve;
mod tally;
mod text;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cpe_monitor::perfdata::Measure;
use cpe_proto::api::DeployableStatus;
use cpe_proto::decision::Refusal;
use cpe_proto::definition::Check;
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::Name;
use cpe_proto::observation::Observation;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::judge::{Judgement, judge};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use self::perfdata::Perfdata;
pub use self::perfdata::Place;
pub use serve::{ServeError, serve};
pub use tally::Tally;

/// The kinds of probes: the channel's own, then those of a definition, then what is none of these.
const PROBE_KINDS: [&str; 13] = [
    "channel", "systemd", "process", "tcp", "command", "nagios", "ocf", "lsb", "http", "tls", "dns", "icmp",
    "other",
];

/// Seconds of a probe's round trip and of a durable write, from 0.25 ms to 8 s.
const SHORT: [f64; 13] = [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 8.0];
/// Seconds that we were late with a deadline: the tick is 16 ms, the budget 250 ms.
const LATE: [f64; 9] = [0.001, 0.004, 0.016, 0.032, 0.064, 0.125, 0.25, 1.0, 4.0];

/// What an observation says by itself, before anything is confirmed or concluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProbeOutcome {
    Passed,
    Failed,
    Misconfigured,
    Unknown,
}

impl ProbeOutcome {
    const ALL: [Self; 4] = [Self::Passed, Self::Failed, Self::Misconfigured, Self::Unknown];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Misconfigured => "misconfigured",
            Self::Unknown => "unknown",
        }
    }

    /// By the tables of policy.md section 1; without a check, of the channel itself.
    fn of(check: Option<&Check>, observation: &Observation) -> Self {
        match check.map(|check| judge(check, observation)) {
            None => Self::of_channel(observation),
            Some(Judgement::Passed | Judgement::Warned(_)) => Self::Passed,
            Some(Judgement::Failed(_)) => Self::Failed,
            Some(Judgement::Misconfigured(_)) => Self::Misconfigured,
            Some(
                Judgement::Pending(_)
                | Judgement::Deadline
                | Judgement::Silent(_)
                | Judgement::Unknown(_)
                | Judgement::NotObserved,
            ) => Self::Unknown,
        }
    }

    fn of_channel(observation: &Observation) -> Self {
        match observation {
            Observation::Alive | Observation::Connected | Observation::Expected(_) => Self::Passed,
            Observation::Channel(..) | Observation::NotConnected(_) | Observation::Unexpected(_) => {
                Self::Failed
            }
            Observation::NotRunnable(_) => Self::Misconfigured,
            _ => Self::Unknown,
        }
    }
}

/// What a state is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Deployable,
    Assembly,
    Service,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeLabels {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RecoveryLabels {
    rung: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    probes: [[Counter; 4]; PROBE_KINDS.len()],
    probe_duration: Histogram,
    lateness: Histogram,
    recoveries_started: [Counter; Rung::ALL.len()],
    recoveries_worked: [Counter; Rung::ALL.len()],
    recoveries_failed: [Counter; Rung::ALL.len()],
    recoveries_unknown: [Counter; Rung::ALL.len()],
    refusals: [Counter; Refusal::ALL.len()],
    states: [[Gauge; State::ALL.len()]; 3],
    perfdata: Arc<Perfdata>,
    perfdata_dropped: Counter,
    incidents_opened: Counter,
    incidents_open: Gauge,
    events: Vec<(EventKind, Counter)>,
    /// Sessions to assemblies that are connected.
    pub sessions: Gauge,
    pub(crate) held_domains: Gauge,
    pub(crate) fleet_breaker_open: Gauge,
    pub(crate) self_trusted: Gauge,
    pub(crate) leases: Gauge,
    /// From asking for an intent to its being on disk, in seconds.
    pub(crate) journal_durable: Histogram,
    pub(crate) journal_queue: Gauge,
    pub(crate) journal_writable: Gauge,
    pub(crate) journal_dropped: Counter,
    pub(crate) notifications: NotificationCounters,
    /// Policy engines that panicked.
    pub(crate) engine_panics: Counter,
    /// Policy engines that are parked after panics.
    pub(crate) engines_parked: Gauge,
}

/// What became of notifications.
#[derive(Debug)]
pub(crate) struct NotificationCounters {
    pub(crate) sent: Counter,
    pub(crate) failed: Counter,
    pub(crate) dropped: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero, and the journal writable.
    #[must_use]
    pub fn new() -> Self {
        let mut root = Registry::default();
        // The process's figures have the names that every client library gives them, without our prefix.
        root.register_collector(Box::new(process::Process));
        let metrics = Self::register(root);
        metrics.journal_writable.set(1);
        metrics.self_trusted.set(1);
        metrics
    }

    fn register(mut root: Registry) -> Self {
        let perfdata = Arc::new(Perfdata::default());
        root.register_collector(Box::new(Arc::clone(&perfdata)));
        let registry = root.sub_registry_with_prefix("cpe");
        let probes = Family::<ProbeLabels, Counter>::default();
        registry.register("probes", "Probes that ended, by what they saw", probes.clone());
        let recoveries = Family::<RecoveryLabels, Counter>::default();
        registry.register("recoveries", "Recoveries, by rung and what became of them", recoveries.clone());
        let refusals = Family::<ReasonLabels, Counter>::default();
        registry.register("refusals", "Actions that the gate refused, by the reason", refusals.clone());
        let notifications = Family::<OutcomeLabels, Counter>::default();
        registry.register("notifications", "Notifications, by what became of them", notifications.clone());
        let recovery = |outcome| {
            Rung::ALL.map(|rung| handle(&recoveries, &RecoveryLabels { rung: rung.as_str(), outcome }))
        };
        let notification = |outcome| handle(&notifications, &OutcomeLabels { outcome });
        Self {
            probes: PROBE_KINDS.map(|kind| {
                ProbeOutcome::ALL
                    .map(|outcome| handle(&probes, &ProbeLabels { kind, outcome: outcome.as_str() }))
            }),
            probe_duration: seconds(registry, "probe_duration", "From sending a probe to its answer", &SHORT),
            lateness: seconds(registry, "lateness", "How late this process was with what was due", &LATE),
            recoveries_started: recovery("started"),
            recoveries_worked: recovery("worked"),
            recoveries_failed: recovery("failed"),
            recoveries_unknown: recovery("unknown"),
            refusals: Refusal::ALL.map(|reason| handle(&refusals, &ReasonLabels { reason: reason.as_str() })),
            states: [
                states(registry, "deployables", "Deployables by state"),
                states(registry, "assemblies", "Assemblies by state"),
                states(registry, "services", "Services by state"),
            ],
            perfdata,
            perfdata_dropped: counter(
                registry,
                "perfdata_dropped",
                "Figures of plugins that could not be read, or were too many",
            ),
            incidents_opened: counter(registry, "incidents_opened", "Incidents that were opened"),
            incidents_open: gauge(registry, "incidents_open", "Incidents that are open now"),
            events: events(registry),
            sessions: gauge(registry, "sessions", "Sessions to assemblies that are connected now"),
            held_domains: gauge(registry, "held_domains", "Failure domains that are held or in slow start"),
            fleet_breaker_open: gauge(
                registry,
                "fleet_breaker_open",
                "1 while the fleet breaker is open or in slow start",
            ),
            self_trusted: gauge(
                registry,
                "self_trusted",
                "1 while cpe trusts itself; at 0 nothing that rests on silence is done",
            ),
            leases: gauge(registry, "leases", "Recoveries that were admitted and are not over"),
            journal_durable: seconds(
                registry,
                "journal_durable",
                "From asking for an intent to its being on disk",
                &SHORT,
            ),
            journal_queue: gauge(registry, "journal_queue", "Records that could not be written yet"),
            journal_writable: gauge(
                registry,
                "journal_writable",
                "1 while the journal can be written; at 0 nothing is recovered",
            ),
            journal_dropped: counter(
                registry,
                "journal_dropped",
                "Records that were lost because the journal could not take them",
            ),
            notifications: NotificationCounters {
                sent: notification("sent"),
                failed: notification("failed"),
                dropped: notification("dropped"),
            },
            engine_panics: counter(
                registry,
                "engine_panics",
                "Panics of policy engines; each was restored from its last snapshot or parked",
            ),
            engines_parked: gauge(
                registry,
                "engines_parked",
                "Policy engines that panicked three times within a minute: nothing is probed or recovered there",
            ),
            registry: Mutex::new(root),
        }
    }

    /// A probe ended: of what it was (none: of a channel), what it saw and how long that took.
    pub fn probed(&self, check: Option<&Check>, observation: &Observation, took: Duration) {
        let kind = check.map_or("channel", Check::kind);
        let kind = PROBE_KINDS.iter().position(|known| *known == kind).unwrap_or(PROBE_KINDS.len() - 1);
        self.probes[kind][ProbeOutcome::of(check, observation) as usize].inc();
        self.probe_duration.observe(took.as_secs_f64());
    }

    /// A plugin measured these, in place of what it measured before; `dropped` could not be read.
    pub fn measured(&self, place: Place, measures: Vec<Measure>, dropped: u32) {
        let over = self.perfdata.record(place, measures, Instant::now());
        self.perfdata_dropped.inc_by(u64::from(dropped) + u64::try_from(over).unwrap_or(u64::MAX));
    }

    /// What a deployable's plugins measured says nothing any more.
    pub fn unmeasured(&self, deployable: &Name) {
        self.perfdata.forget(deployable);
    }

    /// Something was done that much after it was due.
    pub fn lateness(&self, late: Duration) {
        self.lateness.observe(late.as_secs_f64());
    }

    /// The gate refused.
    pub fn refused(&self, reason: Refusal) {
        self.refusals[reason as usize].inc();
    }

    fn entered(&self, scope: Scope, state: State) {
        self.states[scope as usize][state as usize].inc();
    }

    fn left(&self, scope: Scope, state: State) {
        self.states[scope as usize][state as usize].dec();
    }

    /// Counts an event: states, recoveries, incidents, and the event itself.
    pub fn observe_event(&self, event: &Event) {
        if let Some((_, counter)) = self.events.iter().find(|(kind, _)| *kind == event.kind) {
            counter.inc();
        }
        match event.kind {
            EventKind::StateChanged => self.moved(event),
            EventKind::IncidentOpened => {
                self.incidents_opened.inc();
                self.incidents_open.inc();
            }
            EventKind::IncidentClosed => {
                self.incidents_open.dec();
            }
            EventKind::RecoveryStarted => count(&self.recoveries_started, event.rung),
            EventKind::RecoveryFinished => self.finished(event),
            _ => {}
        }
    }

    fn finished(&self, event: &Event) {
        match event.to {
            Some(State::Healthy) => count(&self.recoveries_worked, event.rung),
            Some(State::Unknown) => count(&self.recoveries_unknown, event.rung),
            Some(_) => count(&self.recoveries_failed, event.rung),
            // A late outcome of what was counted before.
            None => {}
        }
    }

    fn moved(&self, event: &Event) {
        let scope = scope_of(event);
        if let Some(from) = event.from {
            self.left(scope, from);
        }
        if let Some(to) = event.to {
            self.entered(scope, to);
        }
    }

    /// All of it in Prometheus's text format 0.0.4. Reads /proc: not for the runtime's threads.
    ///
    /// # Errors
    /// Only if the text cannot grow.
    pub fn exposition(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::with_capacity(16 << 10);
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text::prometheus(&text))
    }
}

fn scope_of(event: &Event) -> Scope {
    match (&event.assembly, &event.service) {
        (_, Some(_)) => Scope::Service,
        (Some(_), None) => Scope::Assembly,
        (None, None) => Scope::Deployable,
    }
}

fn each_state(status: &DeployableStatus, mut tell: impl FnMut(Scope, State)) {
    tell(Scope::Deployable, status.state);
    for assembly in &status.assemblies {
        tell(Scope::Assembly, assembly.state);
        for service in &assembly.services {
            tell(Scope::Service, service.state);
        }
    }
}

fn count(by_rung: &[Counter; Rung::ALL.len()], rung: Option<Rung>) {
    if let Some(rung) = rung {
        by_rung[rung as usize].inc();
    }
}

fn handle<L>(family: &Family<L, Counter>, labels: &L) -> Counter
where
    L: Clone + std::hash::Hash + Eq,
{
    family.get_or_create_owned(labels)
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::<u64, AtomicU64>::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn seconds(registry: &mut Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let histogram = Histogram::new(buckets.iter().copied());
    registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
    histogram
}

fn states(registry: &mut Registry, name: &str, help: &str) -> [Gauge; State::ALL.len()] {
    let family = Family::<StateLabels, Gauge>::default();
    registry.register(name, help, family.clone());
    State::ALL.map(|state| family.get_or_create_owned(&StateLabels { state: state.as_str() }))
}

fn events(registry: &mut Registry) -> Vec<(EventKind, Counter)> {
    let family = Family::<KindLabels, Counter>::default();
    registry.register("events", "Events, by kind", family.clone());
    EVENT_KINDS.map(|kind| (kind, handle(&family, &KindLabels { kind: kind.as_str() }))).into()
}

const EVENT_KINDS: [EventKind; 15] = [
    EventKind::StateChanged,
    EventKind::FaultIsolated,
    EventKind::RecoveryStarted,
    EventKind::RecoveryFinished,
    EventKind::RecoveryRefused,
    EventKind::Escalated,
    EventKind::IncidentOpened,
    EventKind::IncidentClosed,
    EventKind::DefinitionLoaded,
    EventKind::DefinitionRejected,
    EventKind::MaintenanceChanged,
    EventKind::BreakerChanged,
    EventKind::Ordered,
    EventKind::Fenced,
    EventKind::OwnerChanged,
];

#[cfg(test)]
mod tests;
