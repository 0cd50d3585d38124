//! The simulated journal: what cpe wrote down, in one queue that is committed a little later, as the real one is. What was not committed
//! is lost with the process; an intent is waited for. The auditor is told of each record as it is written. Its times are engine time, as
//! the auditor's are in cpe; only the ages of snapshots and the ends of maintenance are of wall time.

use std::collections::{BTreeMap, BTreeSet};

use cpe_calendar::Place;
use cpe_proto::api::{Intent, IntentRecord};
use cpe_proto::decision::Decision;
use cpe_proto::event::{Event, EventKind, EventRecord};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::guard::GuardSnapshot;
use cpe_proto::snapshot::{Desired, Snapshot};
use cpe_proto::time::Timestamp;
use dped::IncidentKey;
use dped::audit::{self, Auditor, DecisionRecord, Hold, HoldKind, IncidentRecord, Notified, OPEN_MAX};

use super::happening;

/// The wall time of engine time zero, in milliseconds: some moment of 2026.
const WALL_OF_BOOT: u64 = 1_795_000_000_000;

/// A point of engine time as a record is dated.
pub(super) fn millis(at: Timestamp) -> u64 {
    WALL_OF_BOOT + u64::try_from(at.since_boot().as_millis()).unwrap_or(0)
}

/// Something to be written.
#[derive(Clone, Debug)]
pub(super) enum Record {
    Event(Box<EventRecord>),
    Decision(Name, Box<Decision>, Timestamp),
    Intent(Intent, Timestamp),
    Creation(Name, ActionId, Timestamp),
    Outcome(Name, ActionId, Timestamp),
    Snapshot(Name, Written, Box<Snapshot>),
    ForgetSnapshot(Name),
    Guard(Written, Box<GuardSnapshot>),
    Notified(Notified),
}

/// An incident that was opened.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) open: bool,
    /// A person was told of it.
    pub(super) told: bool,
    pub(super) assembly: Option<Name>,
}

/// When a snapshot was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) wall: u64,
    pub(super) at: Timestamp,
}

/// What is begun once its record is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// An action.
    Action,
    /// The first step of one that makes a new instance.
    Fence,
    /// Its second.
    Creation,
    /// Nothing: that creation was begun before.
    Refused,
}

fn replaces(intent: &Intent) -> bool {
    intent.rung.is_some_and(Rung::replaces)
}

/// Everything that outlives the process.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) auditor: Auditor,
    /// Intents without an outcome.
    unresolved: BTreeMap<(Name, ActionId), Intent>,
    /// The intents of all actions whose creation may still be begun.
    to_create: BTreeMap<(Name, ActionId), Intent>,
    /// Every incident that was opened.
    incidents: BTreeMap<IncidentKey, Opened>,
    pub(super) snapshots: BTreeMap<Name, (Written, Snapshot)>,
    pub(super) guard: Option<(Written, GuardSnapshot)>,
    pub(super) desired: BTreeMap<Name, Desired>,
    /// None: everything.
    pub(super) pauses: BTreeSet<Option<Name>>,
    pub(super) paused_parts: BTreeSet<happening::Place>,
    /// With its end in wall time.
    pub(super) maintenance: BTreeMap<(Name, Option<Name>), u64>,
    /// When a person last ended one.
    pub(super) maintenance_ended: BTreeMap<Place, u64>,
    /// Open incidents that somebody knows of.
    pub(super) acknowledged: BTreeSet<IncidentKey>,
    pub(super) unwritable_until: Timestamp,
    /// How far the wall clock was set.
    pub(super) wall_set: i64,
    pending: Vec<Record>,
    numbers: BTreeMap<Name, (u64, u64)>,
    next_event: u64,
    next_decision: u64,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            auditor: Auditor::new(0, OPEN_MAX),
            unresolved: BTreeMap::new(),
            to_create: BTreeMap::new(),
            incidents: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            guard: None,
            desired: BTreeMap::new(),
            pauses: BTreeSet::new(),
            paused_parts: BTreeSet::new(),
            maintenance: BTreeMap::new(),
            maintenance_ended: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            unwritable_until: Timestamp::ZERO,
            wall_set: 0,
            pending: Vec::new(),
            numbers: BTreeMap::new(),
            next_event: 1,
            next_decision: 1,
        }
    }

    pub(super) fn wall(&self, now: Timestamp) -> u64 {
        millis(now).saturating_add_signed(self.wall_set)
    }

    /// The wall clock shows that.
    pub(super) fn set_wall(&mut self, wall: u64, now: Timestamp) {
        self.wall_set = wall.cast_signed() - millis(now).cast_signed();
    }

    pub(super) fn writable(&self, now: Timestamp) -> bool {
        now >= self.unwritable_until
    }

    /// True: nothing was waiting before.
    pub(super) fn append(&mut self, record: Record) -> bool {
        // Numbers are used from the moment that something has them, written or not.
        match &record {
            Record::Decision(deployable, decision, _) => {
                self.used(deployable, Some(decision.action), Some(decision.incident));
            }
            Record::Intent(intent, _) => self.used(&intent.deployable, Some(intent.action), intent.incident),
            _ => {}
        }
        self.pending.push(record);
        self.pending.len() == 1
    }

    /// An event of now, whatever engine time that is.
    pub(super) fn event(&mut self, deployable: Option<Name>, event: Event, now: Timestamp) -> EventRecord {
        if let Some(deployable) = &deployable {
            self.used(deployable, event.action, event.incident);
        }
        let record = EventRecord { seq: self.next_event, time: millis(now), deployable, event };
        self.next_event += 1;
        record
    }

    /// Whether everything that was said is written.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// Writes what waits; what is to be begun now that it is durable, and whether that is refused, because it was before.
    pub(super) fn commit(&mut self) -> Vec<(Name, ActionId, Begin)> {
        let mut intents = Vec::new();
        for record in std::mem::take(&mut self.pending) {
            self.write(record, &mut intents);
        }
        intents
    }

    /// Nothing can be written: the intents that fail. All else waits.
    pub(super) fn fail(&mut self) -> Vec<(Name, ActionId, Begin)> {
        let mut failed = Vec::new();
        self.pending.retain(|record| match record {
            Record::Intent(intent, _) => {
                let begin = if replaces(intent) { Begin::Fence } else { Begin::Action };
                failed.push((intent.deployable.clone(), intent.action, begin));
                false
            }
            Record::Creation(deployable, action, _) => {
                failed.push((deployable.clone(), *action, Begin::Creation));
                false
            }
            _ => true,
        });
        failed
    }

    /// The process ended: what was not written is lost.
    pub(super) fn lose(&mut self, now: Timestamp) {
        if !self.pending.is_empty() {
            self.pending.clear();
            self.auditor.lost(millis(now));
        }
    }

    fn write(&mut self, record: Record, intents: &mut Vec<(Name, ActionId, Begin)>) {
        match record {
            Record::Event(record) => self.write_event(&record),
            Record::Decision(deployable, decision, at) => {
                let time = millis(at);
                let record =
                    DecisionRecord { number: self.next_decision, time, deployable, decision: *decision };
                self.next_decision += 1;
                self.auditor.add(audit::Record::Decision(&record));
            }
            Record::Intent(intent, at) => {
                let begin = if replaces(&intent) { Begin::Fence } else { Begin::Action };
                intents.push((intent.deployable.clone(), intent.action, begin));
                let record =
                    IntentRecord { time: millis(at), intent, created: None, outcome: None, resolved: None };
                self.auditor.add(audit::Record::Intent(&record));
                let key = (record.intent.deployable.clone(), record.intent.action);
                if replaces(&record.intent) {
                    self.to_create.insert(key.clone(), record.intent.clone());
                }
                self.unresolved.insert(key, record.intent);
            }
            Record::Creation(deployable, action, at) => {
                let key = (deployable, action);
                let Some(intent) = self.to_create.remove(&key) else {
                    return intents.push((key.0, action, Begin::Refused));
                };
                self.auditor.add(audit::Record::Created(&key.0, action, millis(at)));
                intents.push((key.0.clone(), action, Begin::Creation));
                self.unresolved.insert(key, intent);
            }
            Record::Outcome(deployable, action, at) => {
                let key = (deployable, action);
                if self.unresolved.remove(&key).is_some() {
                    self.auditor.add(audit::Record::Outcome(&key.0, action, millis(at)));
                }
            }
            Record::Snapshot(name, at, snapshot) => drop(self.snapshots.insert(name, (at, *snapshot))),
            Record::Guard(at, snapshot) => self.guard = Some((at, *snapshot)),
            Record::ForgetSnapshot(name) => drop(self.snapshots.remove(&name)),
            Record::Notified(notified) => {
                self.auditor.add(audit::Record::Notified(&notified));
                let key = notified.incident.map(|incident| (notified.deployable, incident));
                if let Some(it) = key.and_then(|key| self.incidents.get_mut(&key)) {
                    it.told = true;
                }
            }
        }
    }

    fn write_event(&mut self, record: &EventRecord) {
        let (time, event) = (record.time, &record.event);
        if let (Some(deployable), Some(incident)) = (&record.deployable, event.incident) {
            let key = (deployable.clone(), incident);
            match event.kind {
                EventKind::IncidentOpened if !self.incidents.contains_key(&key) => {
                    let assembly = event.assembly.clone();
                    self.incidents.insert(key, Opened { open: true, told: false, assembly });
                    self.auditor.add(audit::Record::Opened(&IncidentRecord {
                        deployable: deployable.clone(),
                        incident,
                        assembly: event.assembly.clone(),
                        service: event.service.clone(),
                        opened: time,
                        closed: None,
                    }));
                }
                EventKind::IncidentClosed if self.incidents.get(&key).is_some_and(|it| it.open) => {
                    self.acknowledged.remove(&key);
                    self.auditor.add(audit::Record::Closed(deployable, incident, time));
                    if let Some(it) = self.incidents.get_mut(&key) {
                        it.open = false;
                    }
                }
                _ => {}
            }
        }
        self.auditor.add(audit::Record::Event(record));
    }

    fn used(&mut self, deployable: &Name, action: Option<ActionId>, incident: Option<IncidentId>) {
        let numbers = self.numbers.entry(deployable.clone()).or_default();
        numbers.0 = numbers.0.max(action.map_or(0, |it| it.0));
        numbers.1 = numbers.1.max(incident.map_or(0, |it| it.0));
    }

    /// The newest snapshot of an engine, written or not, and when it was made.
    pub(super) fn snapshot_of(&self, name: &Name) -> Option<(Timestamp, &Snapshot)> {
        for record in self.pending.iter().rev() {
            match record {
                Record::Snapshot(of, written, snapshot) if of == name => return Some((written.at, snapshot)),
                Record::ForgetSnapshot(of) if of == name => return None,
                _ => {}
            }
        }
        self.snapshots.get(name).map(|(written, snapshot)| (written.at, snapshot))
    }

    /// The incidents of a deployable that are open.
    pub(super) fn open_written(&self, name: &Name) -> impl Iterator<Item = (IncidentId, &Opened)> {
        let first = (name.clone(), IncidentId(0));
        let all = self.incidents.range(first..).take_while(move |((of, _), _)| of == name);
        all.filter(|(_, it)| it.open).map(|((_, incident), it)| (*incident, it))
    }

    /// The open incidents of which a person was told.
    pub(super) fn told(&self) -> BTreeSet<IncidentKey> {
        let told = self.incidents.iter().filter(|(_, it)| it.open && it.told);
        told.map(|(key, _)| key.clone()).collect()
    }

    /// The incidents of a deployable that are open, those included that wait to be written.
    pub(super) fn open_of(&self, name: &Name) -> BTreeSet<IncidentId> {
        let mut open: BTreeSet<IncidentId> = self.open_written(name).map(|(incident, _)| incident).collect();
        for record in &self.pending {
            let Record::Event(record) = record else { continue };
            let Some(incident) = record.event.incident.filter(|_| record.deployable.as_ref() == Some(name))
            else {
                continue;
            };
            match record.event.kind {
                EventKind::IncidentOpened => _ = open.insert(incident),
                EventKind::IncidentClosed => _ = open.remove(&incident),
                _ => {}
            }
        }
        open
    }

    /// The first numbers of a deployable that were never used; what a crash lost was not.
    pub(super) fn next_numbers(&self, deployable: &Name) -> (ActionId, IncidentId) {
        let (action, incident) = self.numbers.get(deployable).copied().unwrap_or_default();
        (ActionId(action + 1), IncidentId(incident + 1))
    }

    /// Who acknowledges an incident knows of it, so that for the auditor a person was told.
    pub(super) fn acknowledge(&mut self, incident: &IncidentKey, at: Timestamp) {
        self.acknowledged.insert(incident.clone());
        let (deployable, incident) = (incident.0.clone(), Some(incident.1));
        self.auditor.add(audit::Record::Notified(&Notified { time: millis(at), deployable, incident }));
    }

    pub(super) fn hold(&mut self, kind: HoldKind, name: String, began: bool, at: Timestamp) {
        self.auditor.add(audit::Record::Hold(&Hold { time: millis(at), kind, name, began }));
    }

    /// Whether an action was begun, and nobody was told how it ended.
    pub(super) fn is_unresolved(&self, deployable: &Name, action: ActionId) -> bool {
        self.unresolved.contains_key(&(deployable.clone(), action))
    }

    /// What an ended process left of a deployable: intents without an outcome, which are ended here, and open incidents; of both only
    /// those that the engine of the snapshot does not carry on.
    pub(super) fn settle(&mut self, deployable: &Name, at: Timestamp) -> (Vec<Intent>, Vec<IncidentId>) {
        let (actions, incidents) =
            self.snapshots.get(deployable).map(|(_, snapshot)| snapshot.carried_on()).unwrap_or_default();
        let mut ended = Vec::new();
        let of = |(name, _): &(Name, ActionId)| name == deployable;
        let unresolved: Vec<_> = self.unresolved.extract_if(.., |key, _| of(key)).collect();
        for ((name, action), intent) in unresolved {
            self.auditor.add(audit::Record::Outcome(&name, action, millis(at)));
            if !actions.contains(&action) {
                ended.push(intent);
            }
        }
        let open = self.open_written(deployable).map(|(incident, _)| incident);
        let closed = open.filter(|incident| !incidents.contains(incident)).collect();
        (ended, closed)
    }
}
