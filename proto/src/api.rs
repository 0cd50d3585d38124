//! The types of the HTTP API and of `--json`: stable field names (design.md section 6).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::decision::Decision;
use crate::event::EventRecord;
use crate::id::{ActionId, IncidentId, Name};
use crate::rung::Rung;
use crate::state::State;

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// In the order of their names.
    pub deployables: Vec<DeployableStatus>,
    /// Every recovery is stopped by an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// Every recovery in these failure domains is stopped by an operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub paused_domains: BTreeMap<Name, Paused>,
}

/// Recovery that an operator stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Since when, in milliseconds since 1970-01-01T00:00:00Z.
    pub since: u64,
    /// Why.
    pub reason: String,
    /// Who ordered it.
    pub by: String,
}

/// A policy engine that panicked and does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// Since when, in milliseconds since 1970-01-01T00:00:00Z.
    pub since: u64,
    /// What happened, and what ends it.
    pub reason: String,
}

/// One deployable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployableStatus {
    /// Its name.
    pub name: Name,
    /// The worst of its parts; `degraded` while some still serve.
    pub state: State,
    /// `act` or `observe`.
    pub mode: String,
    /// Whether the whole of it is in maintenance.
    pub maintenance: bool,
    /// Its recovery is stopped by an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// Its policy engine panicked, and nobody watches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Parked>,
    /// In the definition's order.
    pub assemblies: Vec<AssemblyStatus>,
}

/// One assembly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssemblyStatus {
    /// Its name.
    pub name: Name,
    /// Its state.
    pub state: State,
    /// Where it is reached, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `ssh`.
    pub monitor: String,
    /// Whether it is in maintenance by itself.
    #[serde(default)]
    pub maintenance: bool,
    /// Its recovery, by its own name, is stopped by an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// In that state since, in milliseconds since 1970-01-01T00:00:00Z; 0 where it is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub since: u64,
    /// Why it is not healthy, as one clause.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub reason: Box<str>,
    /// How its instance differs from what the definition says, as one clause; nothing is done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Box<str>>,
    /// What it can fail together with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<Name>,
    /// What it waits for, and until when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Waiting>,
    /// In the definition's order.
    pub services: Vec<ServiceStatus>,
}

/// Something that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// As one clause.
    pub what: Box<str>,
    /// Until then at the latest, in milliseconds since 1970-01-01T00:00:00Z.
    pub until: u64,
}

// serde calls it with a reference.
const fn is_false(flag: &bool) -> bool {
    !*flag
}

// Likewise.
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: Name,
    /// Its state.
    pub state: State,
    /// Since when, in milliseconds since 1970-01-01T00:00:00Z.
    pub since: u64,
    /// Why it is not healthy, as one clause.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub reason: Box<str>,
    /// Its recovery, by its own name, is stopped by an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// What it waits for, and until when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Waiting>,
}

/// `GET /v1/why?name=NAME` or `?incident=N`: the incidents that match, newest first, at most 20.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The incidents.
    pub incidents: Vec<Incident>,
}

/// One incident with its whole timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The deployable.
    pub deployable: Name,
    /// Its number within the deployable.
    pub incident: IncidentId,
    /// Opened, in milliseconds since 1970-01-01T00:00:00Z.
    pub opened: u64,
    /// Closed, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<u64>,
    /// Its events, oldest first.
    pub events: Vec<EventRecord>,
    /// Its decisions, oldest first, each with the wall time in milliseconds.
    pub decisions: Vec<(u64, Decision)>,
    /// What was begun for it, oldest first.
    #[serde(default)]
    pub intents: Vec<IntentRecord>,
    /// Who knows of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledged>,
}

/// That an operator knows of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Since when, in milliseconds since 1970-01-01T00:00:00Z.
    pub time: u64,
    /// Who.
    pub by: String,
}

/// `GET /v1/why-not?name=NAME`: why nothing is done now about what is not healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyNot {
    /// How many assemblies and services of it are healthy.
    pub healthy: u64,
    /// The others, in the order of the definitions.
    pub parts: Vec<Stuck>,
}

/// A part that is not healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    /// `deployable/assembly` or `deployable/assembly/service`.
    pub name: String,
    /// Its state.
    pub state: State,
    /// In that state since, in milliseconds since 1970-01-01T00:00:00Z; 0 where it is not known.
    pub since: u64,
    /// What was seen, as one clause.
    pub reason: Box<str>,
    /// Its open incident, or its machine's: `shop#3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// What isolation concluded last for that incident, as one clause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concluded: Option<Box<str>>,
    /// All that stands in the way, at least one.
    pub because: Vec<Because>,
}

/// One thing that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Because {
    /// What kind.
    pub what: Obstacle,
    /// As one clause.
    pub detail: Box<str>,
    /// Until when, in milliseconds since 1970-01-01T00:00:00Z, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// What can stand in the way of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// Somebody ordered it to be stopped.
    Stopped,
    /// A fault that is not confirmed yet.
    BeingConfirmed,
    /// It is being started.
    Starting,
    /// Something is being done.
    UnderWay,
    /// No recovery can help.
    Misconfigured,
    /// Its state is not known, which never counts as failed.
    Unknown,
    /// The ladder has ended.
    Exhausted,
    /// Its failure domain is held.
    Held,
    /// Its infrastructure is changing it.
    InTransition,
    /// What isolation concludes asks for no action.
    NoAction,
    /// Recovery is paused.
    Paused,
    /// In maintenance.
    Maintenance,
    /// In observe mode.
    ObserveMode,
    /// The journal cannot be written.
    Journal,
    /// The gate refused.
    Refused,
    /// A time has to come.
    Waiting,
    /// It is not what the definition says; that is reported, not acted upon.
    Drift,
    /// Nothing that is known.
    Nothing,
}

/// An intent as the journal keeps it: that it was begun, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentRecord {
    /// Made durable before the action began, in milliseconds since 1970-01-01T00:00:00Z.
    pub time: u64,
    /// What was about to be done.
    #[serde(flatten)]
    pub intent: Intent,
    /// When the making of a new instance was recorded, which is begun once at most; absent: it was not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<u64>,
    /// How it ended, as one clause; absent: not known to have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// When that was recorded, likewise in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<u64>,
}

/// `GET /v1/health`: whether this controller can do its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Of this program.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Since when it runs, in milliseconds since 1970-01-01T00:00:00Z.
    pub started: u64,
    /// How many deployables are loaded.
    pub deployables: u64,
    /// How many assemblies they have.
    pub assemblies: u64,
    /// Whether actions are possible.
    pub journal: JournalHealth,
}

/// What the journal says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalHealth {
    /// False: nothing is done until it is true again.
    pub writable: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub reason: Box<str>,
    /// Records that wait to be written.
    pub queue: u64,
    /// Records that were lost since the start because the journal was too slow or could not be written.
    pub dropped: u64,
}

/// A line of `GET /v1/events` that is not an event: the stream ends here, and how to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    /// Why it ended.
    pub error: String,
    /// Give this as `after_seq` to go on without a gap.
    pub after_seq: u64,
}

/// `POST /v1/command`: what an operator orders. Each is recorded with who ordered it (the peer's user id) and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Start a deployable.
    Start {
        /// A deployable.
        name: String,
    },
    /// Stop its services in reverse order.
    Stop {
        /// A deployable.
        name: String,
        /// Then power its machines off, too; otherwise they stay on.
        #[serde(default, skip_serializing_if = "is_false")]
        power_off: bool,
    },
    /// Watched but not acted upon, until an hour.
    MaintenanceOn {
        /// A deployable or one of its assemblies.
        name: String,
        /// For how long, in seconds.
        for_seconds: u64,
        /// Why.
        reason: String,
    },
    /// Ends it.
    MaintenanceOff {
        /// A deployable or one of its assemblies.
        name: String,
    },
    /// Stop recovery until it is resumed. What was begun finishes.
    Pause {
        /// A deployable, an assembly, a service, or `domain:NAME`; none: everything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Why.
        reason: String,
    },
    /// Allow recovery again.
    Resume {
        /// A deployable, an assembly, a service, or `domain:NAME`; none: everything. What was paused by its own name stays so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Why.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// Forget the counts of what is exhausted, and begin its ladder anew, now.
    Retry {
        /// A deployable or one of its assemblies or services: the counts of the whole assembly are forgotten.
        name: String,
    },
    /// A recovery by hand, through the same gate.
    Recover {
        /// An assembly or a service.
        name: String,
        /// The rung; none: the next of the ladder.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rung: Option<Rung>,
        /// Why.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// A machine is down for certain, where that cannot be verified: it may be replaced.
    ConfirmFenced {
        /// An assembly.
        name: String,
        /// How that is known.
        reason: String,
    },
    /// Machines that bear another controller's mark are ours from now on: our mark is put over it.
    Claim {
        /// A deployable, an assembly, or a glob of these.
        name: String,
        /// Why.
        reason: String,
    },
    /// The host key of an assembly is believed from now on, if it is what the host shows; one that it replaces is revoked.
    Trust {
        /// An assembly.
        name: String,
        /// `SHA256:...`: what a person has compared.
        fingerprint: String,
        /// That of the jump host that it is reached through.
        #[serde(default, skip_serializing_if = "is_false")]
        jump: bool,
    },
    /// An operator knows of an incident: its notifications stop.
    Ack {
        /// An incident (`shop#3`), or a name: all open incidents of it and of what is in it.
        name: String,
    },
}

/// `GET /v1/host-key?name=NAME`: the key that the host of an assembly shows now. With `jump=1` that of its jump host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKey {
    /// The host, as known_hosts files name it.
    pub host: String,
    /// `ssh-ed25519`.
    pub kind: String,
    /// `SHA256:...`
    pub fingerprint: String,
    /// What is known of it.
    #[serde(flatten)]
    pub standing: HostKeyStanding,
}

/// What is known of a host key that was shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
pub enum HostKeyStanding {
    /// It is the known one.
    Known,
    /// Nothing is known of the host.
    Unknown,
    /// Another one is known.
    Changed {
        /// Where that is written: file and line.
        place: String,
        /// Its fingerprint.
        known: String,
    },
    /// It is revoked.
    Revoked {
        /// Where that is written.
        place: String,
    },
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandAnswer {
    /// What was done, as a sentence.
    pub message: String,
}

/// The answer to anything that was refused or not found, with an HTTP status of 4xx or 5xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// What was asked, what is wrong, what to do.
    pub error: String,
}

/// An action that is recorded before it is done and resolved after it (design.md section 4, rule 4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The deployable.
    pub deployable: Name,
    /// The action's number within the deployable.
    pub action: ActionId,
    /// Its incident; none for an ordered start or stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    /// The assembly.
    pub assembly: Name,
    /// The service, for the service scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// What is about to be done: a rung's word, or `stop-service`, `start-service`.
    pub act: String,
    /// The rung, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<Rung>,
}
