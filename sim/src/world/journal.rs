//! The simulated journal: what cpe wrote down, in one queue that is committed a little later, as the real one is. What was not committed
//! is lost with the process; an intent is waited for. The auditor reads what is here. Its times are engine time, so that a wall clock
//! that is set does not put records out of order; only the ages of snapshots and the ends of maintenance are of wall time.

use std::collections::{BTreeMap, BTreeSet};

use cpe_proto::api::{Intent, IntentRecord};
use cpe_proto::decision::Decision;
use cpe_proto::event::{Event, EventKind, EventRecord};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::snapshot::guard::GuardSnapshot;
use cpe_proto::snapshot::{AssemblySnapshot, Desired, Snapshot};
use cpe_proto::time::Timestamp;
use dped::audit::{DecisionRecord, Hold, HoldKind, IncidentRecord, Notified, OPEN_MAX, Records};

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
    Decision(Name, Box<Decision>),
    Intent(Intent, Timestamp),
    Outcome(Name, ActionId, String, Timestamp),
    Snapshot(Name, u64, Box<Snapshot>),
    ForgetSnapshot(Name),
    Guard(u64, Box<GuardSnapshot>),
    Notified(Notified),
}

/// Everything that outlives the process.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) records: Records,
    pub(super) snapshots: BTreeMap<Name, (u64, Snapshot)>,
    pub(super) guard: Option<(u64, GuardSnapshot)>,
    pub(super) desired: BTreeMap<Name, Desired>,
    /// None: everything.
    pub(super) pauses: BTreeSet<Option<Name>>,
    /// With its end in wall time.
    pub(super) maintenance: BTreeMap<(Name, Option<Name>), u64>,
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
            records: Records { open_max: OPEN_MAX, ..Records::default() },
            snapshots: BTreeMap::new(),
            guard: None,
            desired: BTreeMap::new(),
            pauses: BTreeSet::new(),
            maintenance: BTreeMap::new(),
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

    pub(super) fn writable(&self, now: Timestamp) -> bool {
        now >= self.unwritable_until
    }

    /// True: nothing was waiting before.
    pub(super) fn append(&mut self, record: Record) -> bool {
        self.pending.push(record);
        self.pending.len() == 1
    }

    pub(super) fn event(&mut self, deployable: Option<Name>, event: Event) -> EventRecord {
        let record = EventRecord { seq: self.next_event, time: millis(event.at), deployable, event };
        self.next_event += 1;
        record
    }

    /// Writes what waits; the intents that are durable now.
    pub(super) fn commit(&mut self) -> Vec<(Name, ActionId)> {
        let mut intents = Vec::new();
        for record in std::mem::take(&mut self.pending) {
            self.write(record, &mut intents);
        }
        intents
    }

    /// Nothing can be written: the intents that fail. All else waits.
    pub(super) fn fail(&mut self) -> Vec<(Name, ActionId)> {
        let mut failed = Vec::new();
        self.pending.retain(|record| match record {
            Record::Intent(intent, _) => {
                failed.push((intent.deployable.clone(), intent.action));
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
            self.records.complete_since = millis(now);
        }
    }

    fn write(&mut self, record: Record, intents: &mut Vec<(Name, ActionId)>) {
        match record {
            Record::Event(record) => self.write_event(*record),
            Record::Decision(deployable, decision) => {
                self.used(&deployable, Some(decision.action), Some(decision.incident));
                let time = millis(decision.at);
                let record =
                    DecisionRecord { number: self.next_decision, time, deployable, decision: *decision };
                self.next_decision += 1;
                self.records.decisions.push(record);
            }
            Record::Intent(intent, at) => {
                self.used(&intent.deployable, Some(intent.action), intent.incident);
                intents.push((intent.deployable.clone(), intent.action));
                let record = IntentRecord { time: millis(at), intent, outcome: None, resolved: None };
                self.records.intents.push(record);
            }
            Record::Outcome(deployable, action, outcome, at) => {
                self.resolve(&deployable, action, outcome, at);
            }
            Record::Snapshot(name, at, snapshot) => drop(self.snapshots.insert(name, (at, *snapshot))),
            Record::Guard(at, snapshot) => self.guard = Some((at, *snapshot)),
            Record::ForgetSnapshot(name) => drop(self.snapshots.remove(&name)),
            Record::Notified(notified) => self.records.notifications.push(notified),
        }
    }

    fn resolve(&mut self, deployable: &Name, action: ActionId, outcome: String, at: Timestamp) {
        let mut intents = self.records.intents.iter_mut().rev();
        let open = intents.find(|it| it.intent.deployable == *deployable && it.intent.action == action);
        if let Some(open) = open.filter(|it| it.resolved.is_none()) {
            (open.outcome, open.resolved) = (Some(outcome), Some(millis(at)));
        }
    }

    fn write_event(&mut self, record: EventRecord) {
        let (time, event) = (record.time, &record.event);
        if let Some(deployable) = &record.deployable {
            self.used(deployable, event.action, event.incident);
        }
        if let (Some(deployable), Some(incident)) = (&record.deployable, event.incident) {
            let known = |it: &&mut IncidentRecord| it.deployable == *deployable && it.incident == incident;
            match event.kind {
                EventKind::IncidentOpened
                    if !self.records.incidents.iter_mut().any(|it| known(&&mut *it)) =>
                {
                    self.records.incidents.push(IncidentRecord {
                        deployable: deployable.clone(),
                        incident,
                        assembly: event.assembly.clone(),
                        service: event.service.clone(),
                        opened: time,
                        closed: None,
                    });
                }
                EventKind::IncidentClosed => {
                    let found = self.records.incidents.iter_mut().rev().find(known);
                    if let Some(open) = found {
                        open.closed.get_or_insert(time);
                    }
                }
                _ => {}
            }
        }
        self.records.events.push(record);
    }

    fn used(&mut self, deployable: &Name, action: Option<ActionId>, incident: Option<IncidentId>) {
        let numbers = self.numbers.entry(deployable.clone()).or_default();
        numbers.0 = numbers.0.max(action.map_or(0, |it| it.0));
        numbers.1 = numbers.1.max(incident.map_or(0, |it| it.0));
    }

    /// The first numbers of a deployable that were never used, as far as that was written.
    pub(super) fn next_numbers(&self, deployable: &Name) -> (ActionId, IncidentId) {
        let (action, incident) = self.numbers.get(deployable).copied().unwrap_or_default();
        (ActionId(action + 1), IncidentId(incident + 1))
    }

    pub(super) fn hold(&mut self, kind: HoldKind, name: String, began: bool, at: Timestamp) {
        self.records.holds.push(Hold { time: millis(at), kind, name, began });
    }

    /// What an ended process left of a deployable: intents without an outcome, which are ended here, and open incidents; of both only
    /// those that the engine of the snapshot does not carry on.
    pub(super) fn settle(&mut self, deployable: &Name, at: Timestamp) -> (Vec<Intent>, Vec<IncidentId>) {
        let (actions, incidents) =
            self.snapshots.get(deployable).map(|(_, snapshot)| carried_on(snapshot)).unwrap_or_default();
        let mut ended = Vec::new();
        for record in &mut self.records.intents {
            if record.intent.deployable != *deployable || record.resolved.is_some() {
                continue;
            }
            (record.outcome, record.resolved) = (Some("not known".to_owned()), Some(millis(at)));
            if !actions.contains(&record.intent.action) {
                ended.push(record.intent.clone());
            }
        }
        let open =
            self.records.incidents.iter().filter(|it| it.deployable == *deployable && it.closed.is_none());
        let closed = open.map(|it| it.incident).filter(|incident| !incidents.contains(incident)).collect();
        (ended, closed)
    }
}

/// The actions and incidents that a snapshot's engine goes on with.
pub(super) fn carried_on(snapshot: &Snapshot) -> (BTreeSet<ActionId>, BTreeSet<IncidentId>) {
    let (mut actions, mut incidents) = (BTreeSet::new(), BTreeSet::new());
    for AssemblySnapshot { past, recovery, step, services, .. } in &snapshot.assemblies {
        let pasts = past.iter().chain(services.iter().filter_map(|service| service.past.as_ref()));
        incidents.extend(pasts.filter_map(|past| past.incident));
        actions.extend(step.iter().map(|step| step.action));
        actions.extend(recovery.iter().map(|recovery| recovery.action));
        incidents.extend(recovery.iter().map(|recovery| recovery.incident));
    }
    (actions, incidents)
}
