//! Everything that is ever reported, with stable field names (design.md section 6). The engine makes an [`Event`];
//! the controller adds what only it knows and keeps an [`EventRecord`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{ActionId, IncidentId, Name};
use crate::rung::Rung;
use crate::state::State;
use crate::time::Timestamp;

/// What kind of thing happened, in the past tense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A service, assembly or deployable changed its state.
    StateChanged,
    /// A fault was concluded, with its scope.
    FaultIsolated,
    /// An admitted action was given to a monitor or an infrastructure.
    RecoveryStarted,
    /// An action ended, verified or not.
    RecoveryFinished,
    /// The gate refused, and why. A standing refusal is told once.
    RecoveryRefused,
    /// The next rung, or the next scope.
    Escalated,
    /// An incident began.
    IncidentOpened,
    /// An incident ended.
    IncidentClosed,
    /// A definition was loaded or changed.
    DefinitionLoaded,
    /// A definition has errors; the running version, if any, stays.
    DefinitionRejected,
    /// Maintenance was switched on or off, or ran out.
    MaintenanceChanged,
    /// A breaker, a pause or a hold began or ended.
    BreakerChanged,
    /// A person ordered something by hand: a recovery, that a machine counts as down, that a host key is believed. And what follows from
    /// an order, or from being defined: a machine is powered off or on, a service that does not run is started.
    Ordered,
    /// An old instance is down for certain; its replacement is made now.
    Fenced,
    /// A machine was found to bear another controller's mark (`foreign: ...`), or no such mark any more (`ours: ...`).
    OwnerChanged,
}

impl EventKind {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StateChanged => "state_changed",
            Self::FaultIsolated => "fault_isolated",
            Self::RecoveryStarted => "recovery_started",
            Self::RecoveryFinished => "recovery_finished",
            Self::RecoveryRefused => "recovery_refused",
            Self::Escalated => "escalated",
            Self::IncidentOpened => "incident_opened",
            Self::IncidentClosed => "incident_closed",
            Self::DefinitionLoaded => "definition_loaded",
            Self::DefinitionRejected => "definition_rejected",
            Self::MaintenanceChanged => "maintenance_changed",
            Self::BreakerChanged => "breaker_changed",
            Self::Ordered => "ordered",
            Self::Fenced => "fenced",
            Self::OwnerChanged => "owner_changed",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// One event of one deployable, as its engine makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in engine time.
    #[serde(skip)]
    pub at: Timestamp,
    /// What kind.
    pub kind: EventKind,
    /// The assembly that it is about, or that its service is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assembly: Option<Name>,
    /// The service that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// The state before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<State>,
    /// The state after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<State>,
    /// One clause for a person: "unit inactive, confirmed by 2 probes; failure 1 of 5 in 1 h".
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub reason: Box<str>,
    /// The incident that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    /// The action that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionId>,
    /// The rung of that action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<Rung>,
}

impl Event {
    /// An event without a part, states, an incident or an action.
    #[must_use]
    pub fn new(kind: EventKind, reason: impl Into<Box<str>>, at: Timestamp) -> Self {
        Self {
            at,
            kind,
            assembly: None,
            service: None,
            from: None,
            to: None,
            reason: reason.into(),
            incident: None,
            action: None,
            rung: None,
        }
    }
}

/// An event as it is kept and shown: numbered over all deployables and dated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its number in the journal; grows, never used twice.
    pub seq: u64,
    /// Wall time, in milliseconds since 1970-01-01T00:00:00Z.
    pub time: u64,
    /// The deployable; absent for events of the controller itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployable: Option<Name>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl EventRecord {
    /// `deployable/assembly/service`, as far as they apply; "cpe" for the controller itself.
    #[must_use]
    pub fn subject(&self) -> String {
        let Some(deployable) = &self.deployable else { return "cpe".to_owned() };
        let mut out = deployable.to_string();
        for part in [&self.event.assembly, &self.event.service].into_iter().flatten() {
            out.push('/');
            out.push_str(part.as_str());
        }
        out
    }
}
