//! The auditor: the rules that may not be broken (design.md section 4), checked against records of what was decided and done. Pure: the
//! same for a journal of last year, read at once ([`audit`]), and for a simulated world, whose records are added as they are made
//! ([`Auditor`]). It trusts nobody: verdicts are computed again, and what a record claims is compared with the others. What a journal
//! cannot show (that a fenced machine is really down, that a broken file costs nobody else anything) is not judged here.
//!
//! `audit/record.rs` what is looked at; `audit/decision.rs` what one decision shows by itself; `audit/action.rs` what belongs to one action;
//! `audit/incident.rs` who was told; `audit/hold.rs` maintenance and pauses; `audit/whole.rs` recoveries of
//! a whole deployable.

mod action;
mod decision;
mod hold;
mod incident;
mod record;
mod whole;

use std::collections::{BTreeMap, BTreeSet};

use cpe_proto::event::{EventKind, EventRecord};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::snapshot::Switch;

use action::Action;
use hold::Holds;
use incident::Incidents;
use whole::Wholes;

pub use record::{DecisionRecord, Hold, HoldKind, IncidentRecord, Notified, Record, Records};

/// The word of intents for a service that is configured anew, because what its parameters refer to has changed.
pub const RECONFIGURE: &str = "reconfigure-service";

/// The words of intents for a machine that is powered off, or on, by an order.
const POWER: [&str; 2] = ["power-off", "power-on"];

/// The word of an intent for the power of a machine.
#[must_use]
pub const fn power_word(switch: Switch) -> &'static str {
    match switch {
        Switch::Off => POWER[0],
        Switch::On => POWER[1],
    }
}

/// Records are dated in milliseconds, some of them computed from another clock: nearer than this is at the same time. What one record
/// shows of another is judged when this is over.
const SAME_TIME: u64 = 20;

/// An incident may stay open for so long without a person having been told (6 h), in milliseconds.
pub const OPEN_MAX: u64 = 6 * 3_600_000;

/// A notification may be written this much after what it tells, in milliseconds.
const TOLD_WITHIN: u64 = 5_000;

/// A rule that was broken, or a record that cannot be true.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The number of the rule in design.md section 4.
    pub rule: u8,
    /// What is wrong, with the values.
    pub what: String,
    /// Which records show it: "intent shop/7", "decision 12", "event 33".
    pub records: Vec<String>,
}

impl Finding {
    const fn new(rule: u8, what: String, records: Vec<String>) -> Self {
        Self { rule, what, records }
    }
}

/// All findings, in the order of the rules.
#[must_use]
pub fn audit(records: &Records) -> Vec<Finding> {
    let mut auditor = Auditor::new(records.complete_since, records.open_max);
    for record in records.in_order() {
        auditor.add(record);
    }
    auditor.at(records.now);
    auditor.end();
    auditor.findings()
}

/// A judge to whom records are told as they are made. What one of them shows of others is judged when those must be there: by a queue of
/// times, so that each record costs about the same however many there were.
#[derive(Debug)]
pub struct Auditor {
    complete_since: u64,
    open_max: u64,
    actions: BTreeMap<ActionKey, Action>,
    /// The newest intent of each assembly.
    newest: BTreeMap<(Name, Name), (ActionKey, usize)>,
    /// The first reboot of each incident on each assembly.
    reboots: BTreeMap<(IncidentKey, Name), u64>,
    /// The first order of a person in each incident, by its word.
    orders: BTreeMap<(IncidentKey, &'static str), u64>,
    incidents: Incidents,
    holds: Holds,
    wholes: Wholes,
    due: BTreeSet<(u64, Check)>,
    /// What one record shows by itself.
    lies: BTreeSet<Finding>,
    /// What each check found when it was last done.
    found: BTreeMap<Check, Vec<Finding>>,
    news: Vec<Finding>,
}

type ActionKey = (Name, ActionId);
type IncidentKey = (Name, IncidentId);

/// What is to be judged at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Check {
    /// Everything about an action.
    Action(ActionKey),
    /// An incident is exhausted: a person was told.
    Exhausted(IncidentKey),
    /// An incident has been open for long: a person was told.
    Open(IncidentKey),
}

/// The words of orders that decisions may rest on.
const ORDERS: [&str; 2] = ["confirm-fenced", "recover"];

impl Auditor {
    /// Of records from `complete_since` on (what is older may have been deleted: nothing is missed there). An incident may stay open for
    /// `open_max` milliseconds without a person having been told.
    #[must_use]
    pub fn new(complete_since: u64, open_max: u64) -> Self {
        Self {
            complete_since,
            open_max,
            actions: BTreeMap::new(),
            newest: BTreeMap::new(),
            reboots: BTreeMap::new(),
            orders: BTreeMap::new(),
            incidents: Incidents::default(),
            holds: Holds::default(),
            wholes: Wholes::default(),
            due: BTreeSet::new(),
            lies: BTreeSet::new(),
            found: BTreeMap::new(),
            news: Vec::new(),
        }
    }

    /// Records up to that time were lost: they are not missed.
    pub fn lost(&mut self, until: u64) {
        self.complete_since = self.complete_since.max(until);
    }

    /// A record was made.
    pub fn add(&mut self, record: Record<'_>) {
        match record {
            Record::Opened(incident) => self.opened(incident),
            Record::Closed(deployable, incident, time) => {
                self.incidents.closed(&(deployable.clone(), incident), time);
                self.wholes.closed(deployable, incident, time);
            }
            Record::Event(event) => self.event(event),
            Record::Hold(hold) => self.holds.ordered(hold),
            Record::Decision(decision) => self.decided(decision),
            Record::Intent(intent) => self.began(intent),
            Record::Created(deployable, action, time) => self.created(deployable, action, time),
            Record::Outcome(deployable, action, time) => self.ended(deployable, action, time),
            Record::Notified(notified) => self.incidents.notified(notified),
        }
    }

    fn event(&mut self, record: &EventRecord) {
        self.holds.told(record);
        let Some(deployable) = &record.deployable else { return };
        self.wholes.told(deployable, record);
        let event = &record.event;
        match event.kind {
            EventKind::RecoveryFinished | EventKind::RecoveryRefused => {
                self.said_of_action(deployable, record);
            }
            EventKind::Fenced => self.fenced(deployable, record),
            EventKind::StateChanged => self.state_changed(deployable, record),
            EventKind::Ordered => {
                let Some(incident) = event.incident else { return };
                for word in ORDERS.into_iter().filter(|word| event.reason.starts_with(word)) {
                    let first =
                        self.orders.entry(((deployable.clone(), incident), word)).or_insert(record.time);
                    *first = record.time.min(*first);
                }
            }
            _ => {}
        }
    }

    /// It is that time, and everything that was made until then was added: what had to be there by then is judged.
    pub fn at(&mut self, now: u64) {
        while let Some((due, _)) = self.due.first()
            && *due <= now
            && let Some((due, check)) = self.due.pop_first()
        {
            self.check(check, due);
        }
    }

    /// No record will be added any more: what only waits for others is judged.
    pub fn end(&mut self) {
        for (due, check) in std::mem::take(&mut self.due) {
            if matches!(check, Check::Action(_)) {
                self.check(check, due);
            }
        }
    }

    fn check(&mut self, check: Check, due: u64) {
        let found = match &check {
            Check::Action(key) => self.judge_action(key),
            Check::Exhausted(key) => self.judge_exhausted(key).into_iter().collect(),
            Check::Open(key) => self.judge_open(key, due).into_iter().collect(),
        };
        let before = self.found.get(&check).map_or(&[][..], |it| it);
        self.news.extend(found.iter().filter(|it| !before.contains(it)).cloned());
        if found.is_empty() {
            self.found.remove(&check);
        } else {
            self.found.insert(check, found);
        }
    }

    fn lie(&mut self, finding: Finding) {
        if self.lies.insert(finding.clone()) {
            self.news.push(finding);
        }
    }

    /// What was found since this was last asked.
    pub fn news(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.news)
    }

    /// All findings so far, in the order of the rules.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let all: BTreeSet<&Finding> = self.lies.iter().chain(self.found.values().flatten()).collect();
        all.into_iter().cloned().collect()
    }

    /// Whether everything of that time is still there.
    const fn complete(&self, time: u64) -> bool {
        time > self.complete_since
    }

    fn schedule_action(&mut self, key: &ActionKey, time: u64) {
        self.due.insert((time + SAME_TIME, Check::Action(key.clone())));
    }
}

fn of_intent(key: &ActionKey) -> String {
    format!("intent {}/{}", key.0, key.1)
}

fn of_event(seq: u64) -> String {
    format!("event {seq}")
}
