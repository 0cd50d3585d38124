//! What goes into the journal, and what comes out of it at a start. The SQL of each record is in `store.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cpe_proto::api::{Command, Intent};
use cpe_proto::decision::Decision;
use cpe_proto::event::Event;
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::snapshot::Snapshot;
use cpe_proto::snapshot::guard::GuardSnapshot;
use cpe_proto::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::JournalError;

/// One thing to write.
#[derive(Debug)]
pub(super) enum Record {
    Event {
        time: u64,
        deployable: Option<Name>,
        event: Event,
    },
    Decision {
        time: u64,
        deployable: Name,
        decision: Box<Decision>,
    },
    Command {
        time: u64,
        by: String,
        command: Command,
        answer: String,
    },
    Intent {
        time: u64,
        intent: Box<Intent>,
    },
    Creation {
        time: u64,
        deployable: Name,
        action: ActionId,
    },
    Outcome {
        time: u64,
        deployable: Name,
        action: ActionId,
        outcome: String,
    },
    Maintenance {
        time: u64,
        maintenance: Maintenance,
    },
    MaintenanceOver {
        time: u64,
        name: String,
        by: String,
    },
    Pause(Pause),
    PauseOver {
        time: u64,
        name: String,
        by: String,
    },
    Acknowledged {
        time: u64,
        deployable: Name,
        incident: IncidentId,
        by: String,
    },
    Notified {
        notified: Notified,
        outgoing: Vec<Outgoing>,
    },
    NotifiedOutcome {
        notified: Notified,
        outcome: String,
    },
    /// What stood for itself in the outbox stands there as one from now on.
    Gathered {
        ids: Vec<String>,
        outgoing: Vec<Outgoing>,
    },
    Delivered {
        id: String,
        channel: String,
    },
    Desired {
        time: u64,
        deployable: Name,
        desired: Desired,
    },
    Snapshot {
        time: u64,
        deployable: Name,
        snapshot: Box<Snapshot>,
    },
    NoSnapshot(Name),
    Parked {
        deployable: Name,
        park: Park,
    },
    Unparked(Name),
    /// Nothing: whether the thread lives.
    Beat,
    Guard {
        time: u64,
        snapshot: Box<GuardSnapshot>,
    },
    /// The thread panics.
    #[cfg(test)]
    Panic,
    /// The last one.
    Close,
}

/// A record on its way to the thread. Its permit is its room in the queue; with `done` somebody waits for durability.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) record: Record,
    /// When it was made.
    pub(super) at: Timestamp,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) done: Option<oneshot::Sender<Result<(), JournalError>>>,
}

/// Watched but not acted upon, until an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    /// `deployable` or `deployable/assembly`.
    pub name: String,
    /// Until then, in milliseconds since 1970-01-01T00:00:00Z.
    pub until: u64,
    /// Why.
    pub reason: String,
    /// Who ordered it.
    pub by: String,
}

/// That a person is told something, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notified {
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub time: u64,
    /// Of which deployable.
    pub deployable: Name,
    /// Of which incident; without one it may be told again.
    pub incident: Option<IncidentId>,
    /// What distinguishes it from what else is told of that incident.
    pub state: String,
    /// One sentence.
    pub message: String,
}

/// What is to be sent over one channel, until that was done or given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The notification's, the same over every channel and each time that it is sent.
    pub id: String,
    /// The channel.
    pub channel: String,
    /// All that is needed to send it.
    pub body: String,
}

/// That the engine of a deployable panicked again and again, and is not started until somebody says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Park {
    /// Since then, in milliseconds since 1970-01-01T00:00:00Z.
    pub since: u64,
    /// The last panic's text.
    pub said: String,
    /// What the engine ran: a definition, by a cpe.
    pub ran: String,
}

/// Recovery that an operator stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// A deployable; empty: everything.
    pub name: String,
    /// Since then, in milliseconds since 1970-01-01T00:00:00Z.
    pub since: u64,
    /// Why.
    pub reason: String,
    /// Who ordered it.
    pub by: String,
}

/// What an operator wants of a deployable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Desired {
    /// `cpe start`.
    Started,
    /// `cpe stop`.
    Stopped,
    /// `cpe stop --power-off`.
    PoweredOff,
}

impl Desired {
    /// The word in the file.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::PoweredOff => "powered_off",
        }
    }

    /// The state of that word.
    pub(super) fn of(word: &str) -> Option<Self> {
        [Self::Started, Self::Stopped, Self::PoweredOff].into_iter().find(|it| it.as_str() == word)
    }
}

/// The first numbers of a deployable that were never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextIds {
    /// For its next action.
    pub action: ActionId,
    /// For its next incident.
    pub incident: IncidentId,
}

impl Default for NextIds {
    fn default() -> Self {
        Self { action: ActionId(1), incident: IncidentId(1) }
    }
}

impl NextIds {
    /// Takes note that these were used.
    pub(super) fn raise(&mut self, action: Option<ActionId>, incident: Option<IncidentId>) {
        if let Some(action) = action {
            self.action = self.action.max(ActionId(action.0.saturating_add(1)));
        }
        if let Some(incident) = incident {
            self.incident = self.incident.max(IncidentId(incident.0.saturating_add(1)));
        }
    }
}

/// Who ends a maintenance whose hour has come, in the journal.
pub const CPE: &str = "cpe";

/// What was kept over a restart.
#[derive(Clone, Debug, Default)]
pub struct StartState {
    /// Unused numbers by deployable.
    pub ids: BTreeMap<Name, NextIds>,
    /// Every maintenance that was not ended, also those whose hour has passed meanwhile.
    pub maintenance: Vec<Maintenance>,
    /// When a person last ended the maintenance of a name, in milliseconds of wall time.
    pub maintenance_ended: BTreeMap<String, u64>,
    /// What was to be sent and is not known to be, oldest first.
    pub outbox: Vec<Outgoing>,
    /// Every deployable that was parked.
    pub parked: BTreeMap<Name, Park>,
    /// Every pause that was not resumed.
    pub pauses: Vec<Pause>,
    /// Open incidents of which a person was told.
    pub told: BTreeSet<(Name, IncidentId)>,
    /// Incidents that an operator knows of and that are open.
    pub acknowledged: BTreeSet<(Name, IncidentId)>,
    /// What operators want, where they ever said so.
    pub desired: BTreeMap<Name, Desired>,
    /// What each engine was last written down as, and how old that was when the journal was opened.
    pub snapshots: BTreeMap<Name, (Duration, Snapshot)>,
    /// What the fleet guard was last written down as, and how old that was.
    pub guard: Option<(Duration, GuardSnapshot)>,
    /// Actions that were begun and are not known to have ended, oldest first, with the wall time in milliseconds. They are
    /// resolved by looking, never by repeating.
    pub unresolved: Vec<(u64, Intent)>,
    /// Incidents that were opened and not closed.
    pub open_incidents: Vec<(Name, IncidentId)>,
    /// The first number for the next event.
    pub(super) next_seq: u64,
}
