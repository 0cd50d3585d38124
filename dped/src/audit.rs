//! The auditor: the rules that may not be broken (design.md section 4), checked against records of what was decided and done. Pure: the
//! same for a journal of last year and for a simulated world. It trusts nobody: verdicts are computed again, and what a record claims is
//! compared with the others. What a journal cannot show (that a fenced machine is really down, that a broken file costs nobody else
//! anything) is not judged here.

use std::collections::{BTreeMap, BTreeSet};

use cpe_proto::api::IntentRecord;
use cpe_proto::decision::{Answer, Decision, Verdict};
use cpe_proto::event::{EventKind, EventRecord};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::rung::Rung;
use cpe_proto::state::State;

use crate::isolate::isolate;

/// The word of intents for a service that is configured anew, because what its parameters refer to has changed.
pub const RECONFIGURE: &str = "reconfigure-service";

/// Records are dated in milliseconds, some of them computed from another clock: nearer than this is at the same time.
const SAME_TIME: u64 = 20;

/// An incident may stay open for so long without a person having been told (6 h), in milliseconds.
pub const OPEN_MAX: u64 = 6 * 3_600_000;

/// A notification may be written this much after what it tells, in milliseconds.
const TOLD_WITHIN: u64 = 5_000;

/// Everything that is known. All times are wall times in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// When the records were read.
    pub now: u64,
    /// What is older may have been deleted: nothing is missed there.
    pub complete_since: u64,
    /// An incident may stay open for so long without a person having been told ([`OPEN_MAX`]).
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
}

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

/// All findings, in the order of the rules.
#[must_use]
pub fn audit(records: &Records) -> Vec<Finding> {
    let mut auditor = Auditor { records, index: Index::of(records), findings: Vec::new() };
    auditor.one_at_a_time();
    auditor.every_action_was_decided();
    auditor.nothing_while_held();
    auditor.no_step_while_held();
    auditor.nothing_without_an_intent();
    auditor.no_incident_in_silence();
    auditor.decisions_hold();
    let mut findings = auditor.findings;
    findings.sort();
    findings.dedup();
    findings
}

type Key<'a> = (&'a Name, ActionId);

/// By deployable and action.
struct Index<'a> {
    decisions: BTreeMap<Key<'a>, Vec<&'a DecisionRecord>>,
    intents: BTreeMap<Key<'a>, Vec<&'a IntentRecord>>,
}

impl<'a> Index<'a> {
    fn of(records: &'a Records) -> Self {
        let mut index = Self { decisions: BTreeMap::new(), intents: BTreeMap::new() };
        for record in &records.decisions {
            let key = (&record.deployable, record.decision.action);
            index.decisions.entry(key).or_default().push(record);
        }
        for record in &records.intents {
            let key = (&record.intent.deployable, record.intent.action);
            index.intents.entry(key).or_default().push(record);
        }
        index
    }

    fn admitted(&self, key: Key<'_>) -> Option<&'a DecisionRecord> {
        let all = self.decisions.get(&key)?;
        all.iter().copied().find(|record| record.decision.answer == Answer::Admitted)
    }
}

struct Auditor<'a> {
    records: &'a Records,
    index: Index<'a>,
    findings: Vec<Finding>,
}

impl<'a> Auditor<'a> {
    fn find(&mut self, rule: u8, what: String, records: Vec<String>) {
        self.findings.push(Finding { rule, what, records });
    }

    /// Whether everything of that time is still there.
    fn complete(&self, time: u64) -> bool {
        time > self.records.complete_since
    }

    /// Rule 1: at most one action in flight per assembly.
    fn one_at_a_time(&mut self) {
        let mut running: BTreeMap<(&Name, &Name), &IntentRecord> = BTreeMap::new();
        for intent in &self.records.intents {
            let place = (&intent.intent.deployable, &intent.intent.assembly);
            if let Some(before) = running.insert(place, intent) {
                let ended = before.resolved;
                if ended.is_none_or(|ended| ended > intent.time + SAME_TIME) {
                    let what = format!(
                        "{}/{}: {} began while {} was under way",
                        place.0, place.1, intent.intent.act, before.intent.act
                    );
                    self.find(1, what, vec![of_intent(before), of_intent(intent)]);
                }
            }
        }
        let index = &self.index.intents;
        let twice: Vec<_> = index.values().filter(|intents| intents.len() > 1).cloned().collect();
        for intents in twice {
            let what = format!("action {} was begun {} times", intents[0].intent.action, intents.len());
            self.find(4, what, intents.into_iter().map(of_intent).collect());
        }
    }

    /// Rules 4 and 7: every action has an admitted decision that precedes it and is about the same; what was refused was not done.
    fn every_action_was_decided(&mut self) {
        for intent in &self.records.intents {
            let begun = &intent.intent;
            let key = (&begun.deployable, begun.action);
            let Some(record) = self.index.admitted(key) else {
                if let Some(refused) = self.index.decisions.get(&key).and_then(|all| all.first()) {
                    let what = format!("{} was refused and begun all the same", begun.act);
                    let shows = vec![of_decision(refused), of_intent(intent)];
                    self.find(7, what, shows);
                } else if begun.rung.is_some() && self.complete(intent.time) {
                    let what = format!("{} was begun and no decision admitted it", begun.act);
                    self.find(7, what, vec![of_intent(intent)]);
                }
                continue;
            };
            let decision = &record.decision;
            let shows = || vec![of_decision(record), of_intent(intent)];
            let same = decision.assembly == begun.assembly
                && decision.service == begun.service
                && Some(decision.rung) == begun.rung;
            if !same {
                let what = format!("{} was admitted, {} was begun", decision.rung, begun.act);
                self.find(7, what, shows());
            }
            if record.time > intent.time + SAME_TIME {
                let late = record.time - intent.time;
                self.find(7, format!("{} was begun {late} ms before it was admitted", begun.act), shows());
            }
            self.reboot_came_first(record, intent);
            self.person_said_so(record);
        }
    }

    /// Rules 3 and 7: what rests on a person's word has a record of that word.
    fn person_said_so(&mut self, record: &DecisionRecord) {
        for (evidence, word, rule) in [("fenced", "confirm-fenced", 3), ("ordered", "recover", 7)] {
            let rests = record.decision.evidence.iter().any(|line| &*line.name == evidence);
            if rests && self.complete(record.time) && !self.was_ordered(record, word) {
                let what = format!(
                    "{} rests on a person's word that is not recorded ({word})",
                    record.decision.rung
                );
                self.find(rule, what, vec![of_decision(record)]);
            }
        }
    }

    fn was_ordered(&self, record: &DecisionRecord, word: &str) -> bool {
        self.records.events.iter().any(|it| {
            it.event.kind == EventKind::Ordered
                && it.event.reason.starts_with(word)
                && it.event.incident == Some(record.decision.incident)
                && it.deployable.as_ref() == Some(&record.deployable)
                && it.time <= record.time + SAME_TIME
        })
    }

    /// Rule 3, as far as records show it: what replaces an instance follows a reboot of the same incident, or the instance was gone.
    fn reboot_came_first(&mut self, record: &DecisionRecord, intent: &IntentRecord) {
        let decision = &record.decision;
        let by_hand = decision.evidence.iter().any(|line| &*line.name == "ordered");
        let replaces = matches!(decision.rung, Rung::Rebuild | Rung::Recreate);
        if !replaces || decision.verdict == Verdict::Gone || by_hand {
            return;
        }
        let rebooted = self.records.intents.iter().any(|earlier| {
            earlier.intent.incident == Some(decision.incident)
                && earlier.intent.deployable == record.deployable
                && earlier.intent.assembly == decision.assembly
                && matches!(
                    earlier.intent.rung,
                    Some(Rung::RebootSoft | Rung::RebootHard | Rung::Start | Rung::Rebuild)
                )
                && earlier.time < intent.time
        });
        if !rebooted && self.complete(intent.time) {
            let what = format!("{} without a reboot of its incident before it", decision.rung);
            self.find(3, what, vec![of_decision(record), of_intent(intent)]);
        }
    }

    /// Rule 2: nothing is admitted in maintenance or while recovery is paused.
    fn nothing_while_held(&mut self) {
        for (kind, name, from, to) in self.spans() {
            for record in &self.records.decisions {
                if record.decision.answer != Answer::Admitted || !covers(&name, record) {
                    continue;
                }
                let inside = record.time > from + SAME_TIME && record.time + SAME_TIME < to;
                if inside {
                    let held = if name.is_empty() { "everything" } else { &name };
                    let word = if kind == HoldKind::Pause { "paused" } else { "in maintenance" };
                    let what = format!(
                        "{} of {}/{} was admitted while {held} was {word}",
                        record.decision.rung, record.deployable, record.decision.assembly
                    );
                    self.find(2, what, vec![of_decision(record)]);
                }
            }
        }
    }

    /// Rule 2: what has no decision of its own, a step, is not begun in maintenance or while recovery is paused either.
    fn no_step_while_held(&mut self) {
        for (kind, name, from, to) in self.spans() {
            for record in self.records.intents.iter().filter(|it| it.intent.act == RECONFIGURE) {
                let begun = &record.intent;
                let held = covers_place(&name, &begun.deployable, &begun.assembly);
                if held && record.time > from + SAME_TIME && record.time + SAME_TIME < to {
                    let word = if kind == HoldKind::Pause { "paused" } else { "in maintenance" };
                    let what = format!(
                        "{RECONFIGURE} of {}/{} was begun while it was {word}",
                        begun.deployable, begun.assembly
                    );
                    self.find(2, what, vec![of_intent(record)]);
                }
            }
        }
    }

    /// When what was held, from its event (then its engine knew) to its event or order, whichever is first.
    fn spans(&self) -> Vec<(HoldKind, String, u64, u64)> {
        let ends = |kind, name: &str, from: u64| {
            let ordered = self
                .records
                .holds
                .iter()
                .find(|hold| hold.kind == kind && hold.name == name && !hold.began && hold.time >= from);
            ordered.map_or(self.records.now, |hold| hold.time)
        };
        let mut spans = Vec::new();
        let mut open: BTreeMap<(HoldKind, String), u64> = BTreeMap::new();
        for record in &self.records.events {
            let Some((kind, began)) = hold_of(record) else { continue };
            let name = if record.deployable.is_some() { record.subject() } else { String::new() };
            if began {
                // Told again, as after a restart: it goes on, unless its end was ordered and only not told.
                let from = *open.entry((kind, name.clone())).or_insert(record.time);
                let to = ends(kind, &name, from);
                if to < record.time {
                    spans.push((kind, name.clone(), from, to));
                    open.insert((kind, name), record.time);
                }
            } else if let Some(from) = open.remove(&(kind, name.clone())) {
                let to = record.time.min(ends(kind, &name, from));
                spans.push((kind, name, from, to));
            }
        }
        for ((kind, name), from) in open {
            let to = ends(kind, &name, from);
            spans.push((kind, name, from, to));
        }
        spans
    }

    /// Rule 4: what has an outcome had a durable intent.
    fn nothing_without_an_intent(&mut self) {
        for record in &self.records.events {
            let event = &record.event;
            let (Some(deployable), Some(action)) = (&record.deployable, event.action) else { continue };
            if event.kind != EventKind::RecoveryFinished || !self.complete(record.time) {
                continue;
            }
            let not_begun = event.reason.starts_with("not begun");
            let intent = self.index.intents.get(&(deployable, action)).and_then(|all| all.first());
            match intent {
                None if !not_begun => {
                    let what = format!("action {action} ended ({}) and has no intent", event.reason);
                    self.find(4, what, vec![of_event(record)]);
                }
                Some(intent) if intent.time > record.time + SAME_TIME => {
                    let what = format!("the intent of action {action} is later than its end");
                    let shows = vec![of_intent(intent), of_event(record)];
                    self.find(4, what, shows);
                }
                _ => {}
            }
        }
    }

    /// Rule 5: an incident is closed, or a person was told, or it is young; what is exhausted was told.
    fn no_incident_in_silence(&mut self) {
        for incident in &self.records.incidents {
            let told = |from: u64, to: u64| {
                self.records.notifications.iter().any(|notified| {
                    notified.deployable == incident.deployable
                        && notified.incident.is_none_or(|of| of == incident.incident)
                        && (from..=to).contains(&notified.time)
                })
            };
            let of = format!("incident {}#{}", incident.deployable, incident.incident);
            let age = self.records.now.saturating_sub(incident.opened);
            let begun = incident.opened.saturating_sub(SAME_TIME);
            if incident.closed.is_none() && age > self.records.open_max && !told(begun, u64::MAX) {
                let hours = age / 3_600_000;
                let what = format!("{of} is open for {hours} h and nobody was told");
                self.findings.push(Finding { rule: 5, what, records: vec![of.clone()] });
            }
            let exhausted = self.records.events.iter().find(|record| exhausts(record, incident));
            let Some(exhausted) = exhausted.filter(|it| !self.follows_a_service(it)) else { continue };
            let until = exhausted.time + TOLD_WITHIN;
            // A crash may have come between the two; then a restart closed the incident.
            let cut_off = incident.closed.is_some_and(|closed| closed < until) || self.records.now < until;
            if !cut_off && self.complete(exhausted.time) && !told(begun, until) {
                let what = format!("{of} is exhausted and nobody was told");
                self.findings.push(Finding { rule: 5, what, records: vec![of, of_event(exhausted)] });
            }
        }
        self.incidents_open_first();
    }

    /// Whether an assembly is exhausted because a service of it is: that is told with the service's incident, which is still open.
    fn follows_a_service(&self, exhausted: &EventRecord) -> bool {
        let still_open = |of: &EventRecord| {
            let own = |it: &&IncidentRecord| {
                Some(&it.deployable) == of.deployable.as_ref() && Some(it.incident) == of.event.incident
            };
            let incident = self.records.incidents.iter().find(own);
            incident.is_some_and(|it| it.closed.is_none_or(|closed| closed >= exhausted.time))
        };
        exhausted.event.service.is_none()
            && self.records.events.iter().any(|record| {
                record.deployable == exhausted.deployable
                    && record.event.assembly == exhausted.event.assembly
                    && record.event.service.is_some()
                    && record.event.to == Some(State::Exhausted)
                    && record.time <= exhausted.time + SAME_TIME
                    && still_open(record)
            })
    }

    /// What is said of an incident lies between its opening and its end.
    fn incidents_open_first(&mut self) {
        let known: BTreeSet<_> =
            self.records.incidents.iter().map(|it| (&it.deployable, it.incident)).collect();
        for record in &self.records.decisions {
            let key = (&record.deployable, record.decision.incident);
            if !known.contains(&key) && self.complete(record.time) {
                let what = format!("a decision of {}#{}, which was never opened", key.0, key.1);
                self.find(7, what, vec![of_decision(record)]);
            }
        }
    }

    /// Rules 2, 6 and 7, from each decision by itself.
    fn decisions_hold(&mut self) {
        for record in &self.records.decisions {
            let decision = &record.decision;
            let (again, row) = isolate(&decision.facts);
            if again != decision.verdict {
                let what = format!(
                    "the recorded facts give {again} (row {row}), the record says {}",
                    decision.verdict
                );
                self.find(7, what, vec![of_decision(record)]);
            }
            if decision.answer != Answer::Admitted {
                continue;
            }
            if forbids(&decision.verdict) {
                let what = format!("{} was admitted on the verdict {}", decision.rung, decision.verdict);
                self.find(6, what, vec![of_decision(record)]);
            }
            self.gates_hold(record);
        }
        self.refusals_are_recorded();
    }

    /// An admitted decision shows no gate that should have refused.
    fn gates_hold(&mut self, record: &DecisionRecord) {
        for gate in record.decision.gates.iter().chain(&record.decision.evidence) {
            let (name, value) = (&*gate.name, &*gate.value);
            let wrong = match name {
                "mode" if value != "act" => 2,
                "maintenance" | "paused" if value != "no" => 2,
                "fleet" if value != "not paused" => 2,
                "journal" if value != "writable" => 4,
                "age of the evidence" if !fresh(value) => 6,
                _ if name.starts_with("in flight") && spent(value) => 1,
                _ => continue,
            };
            let what = format!("{} was admitted although {name} was {value}", record.decision.rung);
            self.find(wrong, what, vec![of_decision(record)]);
        }
    }

    /// Rule 7: a refusal that was told has its record.
    fn refusals_are_recorded(&mut self) {
        for record in &self.records.events {
            let event = &record.event;
            let (Some(deployable), Some(action)) = (&record.deployable, event.action) else { continue };
            if event.kind != EventKind::RecoveryRefused || !self.complete(record.time) {
                continue;
            }
            let all = self.index.decisions.get(&(deployable, action));
            if !all.is_some_and(|all| all.iter().any(|it| matches!(it.decision.answer, Answer::Refused(_)))) {
                let what = format!("the refusal of action {action} has no record");
                self.find(7, what, vec![of_event(record)]);
            }
        }
    }
}

/// Whether an event begins (true) or ends (false) a hold, in the words of the engines and of the controller.
fn hold_of(record: &EventRecord) -> Option<(HoldKind, bool)> {
    let reason = &*record.event.reason;
    let word = reason.split(':').next().unwrap_or_default();
    match (record.event.kind, word) {
        (EventKind::MaintenanceChanged, "on") => Some((HoldKind::Maintenance, true)),
        (EventKind::MaintenanceChanged, "off") => Some((HoldKind::Maintenance, false)),
        (EventKind::BreakerChanged, "paused") => Some((HoldKind::Pause, true)),
        (EventKind::BreakerChanged, "resumed") => Some((HoldKind::Pause, false)),
        _ => None,
    }
}

/// Whether a hold of that name covers what a decision is about.
fn covers(name: &str, record: &DecisionRecord) -> bool {
    covers_place(name, &record.deployable, &record.decision.assembly)
}

fn covers_place(name: &str, deployable: &Name, assembly: &Name) -> bool {
    match name.split_once('/') {
        None => name.is_empty() || name == deployable.as_str(),
        Some(whole) => whole == (deployable.as_str(), assembly.as_str()),
    }
}

fn exhausts(record: &EventRecord, incident: &IncidentRecord) -> bool {
    let event = &record.event;
    let during = record.time >= incident.opened && incident.closed.is_none_or(|end| record.time <= end);
    event.kind == EventKind::StateChanged
        && event.to == Some(State::Exhausted)
        && record.deployable.as_ref() == Some(&incident.deployable)
        && event.assembly == incident.assembly
        && event.service == incident.service
        && event.incident.is_none_or(|of| of == incident.incident)
        && during
}

/// Verdicts on which nothing is ever done.
const fn forbids(verdict: &Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Untrusted | Verdict::CommonCause(_) | Verdict::InTransition | Verdict::MisconfiguredChannel
    )
}

/// "1.2 s, at most 4 s": whether the first is not more than the second. What cannot be read is not fresh.
fn fresh(value: &str) -> bool {
    let Some((age, limit)) = value.split_once(", at most ") else { return false };
    match (millis(age), millis(limit)) {
        (Some(age), Some(limit)) => age <= limit,
        _ => false,
    }
}

/// "3 of 3": whether nothing is left. What is no such count is none.
fn spent(value: &str) -> bool {
    let Some((used, limit)) = value.split_once(" of ") else { return false };
    match (used.parse::<u64>(), limit.parse::<u64>()) {
        (Ok(used), Ok(limit)) => used >= limit,
        _ => false,
    }
}

/// A span as `describe` writes it, in milliseconds.
fn millis(span: &str) -> Option<u64> {
    let (number, unit) = span.trim().split_once(' ')?;
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let (whole, tenths): (u64, u64) = (whole.parse().ok()?, tenths.parse().ok()?);
    whole.checked_mul(unit)?.checked_add(tenths.checked_mul(unit)? / 10)
}

fn of_intent(record: &IntentRecord) -> String {
    format!("intent {}/{}", record.intent.deployable, record.intent.action)
}

fn of_decision(record: &DecisionRecord) -> String {
    format!("decision {}", record.number)
}

fn of_event(record: &EventRecord) -> String {
    format!("event {}", record.seq)
}
