//! What the auditor looks at: everything that is known at once ([`Records`]), or one record after the other as they are made ([`Record`]).

use cpe_proto::api::IntentRecord;
use cpe_proto::decision::Decision;
use cpe_proto::event::EventRecord;
use cpe_proto::id::{ActionId, IncidentId, Name};

/// Everything that is known. All times are wall times in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// When the records were read.
    pub now: u64,
    /// What is older may have been deleted: nothing is missed there.
    pub complete_since: u64,
    /// An incident may stay open for so long without a person having been told ([`super::OPEN_MAX`]).
    pub open_max: u64,
    /// In the order in which they were made.
    pub decisions: Vec<DecisionRecord>,
    /// In the order of their times.
    pub intents: Vec<IntentRecord>,
    /// In the order of their numbers.
    pub events: Vec<EventRecord>,
    /// All.
    pub incidents: Vec<IncidentRecord>,
    /// In the order of their times.
    pub notifications: Vec<Notified>,
    /// In the order of their times.
    pub holds: Vec<Hold>,
}

/// A decision as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionRecord {
    /// Its number among the decisions.
    pub number: u64,
    /// When.
    pub time: u64,
    /// Of which deployable.
    pub deployable: Name,
    /// What.
    pub decision: Decision,
}

/// An incident as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentRecord {
    /// The deployable.
    pub deployable: Name,
    /// Its number.
    pub incident: IncidentId,
    /// What it is about; none: the deployable.
    pub assembly: Option<Name>,
    /// What it is about, for the service scope.
    pub service: Option<Name>,
    /// When.
    pub opened: u64,
    /// When, if it is.
    pub closed: Option<u64>,
}

/// That a person was told, or would have been if one were configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notified {
    /// When.
    pub time: u64,
    /// Of which deployable.
    pub deployable: Name,
    /// Of which incident.
    pub incident: Option<IncidentId>,
}

/// What an operator ordered, durably: that nothing is done, or that something may be again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When it was ordered.
    pub time: u64,
    /// What.
    pub kind: HoldKind,
    /// `deployable` or `deployable/assembly`; empty: everything.
    pub name: String,
    /// False: it ended.
    pub began: bool,
}

/// What holds recovery back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoldKind {
    /// In maintenance.
    Maintenance,
    /// Paused.
    Pause,
    /// It bears another controller's mark.
    Foreign,
}

/// One record, as it is made.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// An incident was opened.
    Opened(&'a IncidentRecord),
    /// An event.
    Event(&'a EventRecord),
    /// An operator's order about holding.
    Hold(&'a Hold),
    /// A decision.
    Decision(&'a DecisionRecord),
    /// An intent, durable by now. Its outcome is a record of its own.
    Intent(&'a IntentRecord),
    /// The making of a new instance is about to be begun, durably.
    Created(&'a Name, ActionId, u64),
    /// How an action ended, and when.
    Outcome(&'a Name, ActionId, u64),
    /// A person was told.
    Notified(&'a Notified),
    /// An incident was closed, and when.
    Closed(&'a Name, IncidentId, u64),
}

impl Record<'_> {
    /// When it was made.
    #[must_use]
    pub const fn time(&self) -> u64 {
        match self {
            Self::Opened(incident) => incident.opened,
            Self::Event(event) => event.time,
            Self::Hold(hold) => hold.time,
            Self::Decision(decision) => decision.time,
            Self::Intent(intent) => intent.time,
            Self::Notified(notified) => notified.time,
            Self::Created(.., time) | Self::Outcome(.., time) | Self::Closed(.., time) => *time,
        }
    }
}

impl Records {
    /// All of them in the order in which they were made. Of those of one millisecond it cannot be told: what a record may refer to
    /// is before it.
    #[must_use]
    pub fn in_order(&self) -> Vec<Record<'_>> {
        let mut all: Vec<Record<'_>> = self.incidents.iter().map(Record::Opened).collect();
        all.extend(self.events.iter().map(Record::Event));
        all.extend(self.holds.iter().map(Record::Hold));
        all.extend(self.decisions.iter().map(Record::Decision));
        all.extend(self.intents.iter().map(Record::Intent));
        all.extend(
            self.intents
                .iter()
                .filter_map(|it| Some(Record::Created(&it.intent.deployable, it.intent.action, it.created?))),
        );
        all.extend(
            self.intents.iter().filter_map(|it| {
                Some(Record::Outcome(&it.intent.deployable, it.intent.action, it.resolved?))
            }),
        );
        all.extend(self.notifications.iter().map(Record::Notified));
        all.extend(
            self.incidents
                .iter()
                .filter_map(|it| Some(Record::Closed(&it.deployable, it.incident, it.closed?))),
        );
        all.sort_by_key(Record::time);
        all
    }
}
