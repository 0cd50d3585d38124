//! What belongs to one action: its decisions, its intent, its outcome and what was said of it. Rules 1 to 4 and 7.

use cpe_proto::api::IntentRecord;
use cpe_proto::decision::{Answer, Verdict};
use cpe_proto::event::{EventKind, EventRecord};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::rung::Rung;

use super::record::{DecisionRecord, HoldKind};
use super::{ActionKey, Auditor, Finding, ORDERS, POWER, RECONFIGURE, SAME_TIME, of_event, of_intent};

#[derive(Debug, Default)]
pub(super) struct Action {
    decisions: Vec<Decided>,
    /// More than one breaks rule 4.
    intents: Vec<Begun>,
    /// When its old instance was said to be down.
    fenced: Option<u64>,
    /// When its making of a new instance was begun; more than one breaks rule 4.
    created: Vec<u64>,
    ends: Vec<End>,
    /// The events that told a refusal: number and time.
    refusals: Vec<(u64, u64)>,
}

/// What matters of a decision.
#[derive(Debug)]
struct Decided {
    number: u64,
    time: u64,
    incident: IncidentId,
    assembly: Name,
    service: Option<Name>,
    rung: Rung,
    gone: bool,
    admitted: bool,
    /// Which of [`ORDERS`] it rests on.
    rests_on: [bool; ORDERS.len()],
}

impl Decided {
    fn name(&self) -> String {
        format!("decision {}", self.number)
    }

    /// Whether it is a person's word that stands in place of evidence.
    const fn by_hand(&self) -> bool {
        self.rests_on[1]
    }
}

#[derive(Debug)]
struct Begun {
    time: u64,
    resolved: Option<u64>,
    assembly: Name,
    service: Option<Name>,
    rung: Option<Rung>,
    act: String,
    /// The action on the same assembly that was begun before it.
    before: Option<(ActionKey, usize)>,
}

#[derive(Debug)]
struct End {
    seq: u64,
    time: u64,
    reason: Box<str>,
}

impl Auditor {
    pub(super) fn decided(&mut self, record: &DecisionRecord) {
        self.decision_holds(record);
        let decision = &record.decision;
        let rests_on = |word: &str| decision.evidence.iter().any(|line| &*line.name == word);
        let key = (record.deployable.clone(), decision.action);
        self.schedule_action(&key, record.time);
        self.actions.entry(key).or_default().decisions.push(Decided {
            number: record.number,
            time: record.time,
            incident: decision.incident,
            assembly: decision.assembly.clone(),
            service: decision.service.clone(),
            rung: decision.rung,
            gone: decision.verdict == Verdict::Gone,
            admitted: decision.answer == Answer::Admitted,
            rests_on: [rests_on("fenced"), rests_on("ordered")],
        });
    }

    pub(super) fn began(&mut self, record: &IntentRecord) {
        let intent = &record.intent;
        let key = (intent.deployable.clone(), intent.action);
        self.schedule_action(&key, record.time);
        let action = self.actions.entry(key.clone()).or_default();
        let place = (intent.deployable.clone(), intent.assembly.clone());
        let before = self.newest.insert(place, (key.clone(), action.intents.len()));
        action.intents.push(Begun {
            time: record.time,
            resolved: None,
            assembly: intent.assembly.clone(),
            service: intent.service.clone(),
            rung: intent.rung,
            act: intent.act.clone(),
            before,
        });
        let reboots = matches!(
            intent.rung,
            Some(Rung::RebootSoft | Rung::RebootHard | Rung::Start | Rung::Rebuild | Rung::RestartDeployable)
        );
        if let Some(incident) = intent.incident.filter(|_| reboots) {
            let of = ((intent.deployable.clone(), incident), intent.assembly.clone());
            let first = self.reboots.entry(of).or_insert(record.time);
            *first = record.time.min(*first);
        }
    }

    /// A new instance is about to be made.
    pub(super) fn created(&mut self, deployable: &Name, action: ActionId, time: u64) {
        let key = (deployable.clone(), action);
        self.schedule_action(&key, time);
        self.actions.entry(key).or_default().created.push(time);
    }

    /// An event that tells that the old instance is down.
    pub(super) fn fenced(&mut self, deployable: &Name, record: &EventRecord) {
        let Some(action) = record.event.action else { return };
        self.actions.entry((deployable.clone(), action)).or_default().fenced.get_or_insert(record.time);
    }

    pub(super) fn ended(&mut self, deployable: &Name, action: ActionId, time: u64) {
        let action = self.actions.get_mut(&(deployable.clone(), action));
        if let Some(open) =
            action.and_then(|action| action.intents.iter_mut().find(|it| it.resolved.is_none()))
        {
            open.resolved = Some(time);
        }
    }

    /// An event that tells a refusal or an end.
    pub(super) fn said_of_action(&mut self, deployable: &Name, record: &EventRecord) {
        let Some(action) = record.event.action else { return };
        let key = (deployable.clone(), action);
        self.schedule_action(&key, record.time);
        let action = self.actions.entry(key).or_default();
        if record.event.kind == EventKind::RecoveryRefused {
            action.refusals.push((record.seq, record.time));
        } else {
            let reason = record.event.reason.clone();
            action.ends.push(End { seq: record.seq, time: record.time, reason });
        }
    }

    pub(super) fn judge_action(&self, key: &ActionKey) -> Vec<Finding> {
        let Some(action) = self.actions.get(key) else { return Vec::new() };
        let mut found = Vec::new();
        for begun in &action.intents {
            found.extend(self.alone(key, begun));
            found.extend(begun.rung.and_then(|_| self.while_whole(key, begun.time, &begun.act)));
            found.extend(self.step_while_held(key, begun));
            self.was_decided(key, action, begun, &mut found);
        }
        if action.intents.len() > 1 {
            let what = format!("action {} was begun {} times", key.1, action.intents.len());
            found.push(Finding::new(4, what, vec![of_intent(key)]));
        }
        self.created_once_and_fenced(key, action, &mut found);
        for decided in &action.decisions {
            found.extend(self.admitted_while_held(key, decided));
            found.extend(self.in_an_incident(key, decided));
        }
        self.has_an_intent(key, action, &mut found);
        self.refusals_are_recorded(key, action, &mut found);
        found
    }

    /// Rule 1: at most one action in flight per assembly.
    fn alone(&self, key: &ActionKey, begun: &Begun) -> Option<Finding> {
        let (before, index) = begun.before.as_ref()?;
        let earlier = self.actions.get(before)?.intents.get(*index)?;
        if earlier.resolved.is_some_and(|ended| ended <= begun.time + SAME_TIME) {
            return None;
        }
        let what =
            format!("{}/{}: {} began while {} was under way", key.0, begun.assembly, begun.act, earlier.act);
        Some(Finding::new(1, what, vec![of_intent(before), of_intent(key)]))
    }

    /// Rules 4 and 7: every action has an admitted decision that precedes it and is about the same; what was refused was not done.
    fn was_decided(&self, key: &ActionKey, action: &Action, begun: &Begun, found: &mut Vec<Finding>) {
        let Some(decided) = action.decisions.iter().find(|it| it.admitted) else {
            if let Some(refused) = action.decisions.first() {
                let what = format!("{} was refused and begun all the same", begun.act);
                found.push(Finding::new(7, what, vec![refused.name(), of_intent(key)]));
            } else if begun.rung.is_some() && self.complete(begun.time) {
                let what = format!("{} was begun and no decision admitted it", begun.act);
                found.push(Finding::new(7, what, vec![of_intent(key)]));
            }
            return;
        };
        let mut find = |rule, what| {
            found.push(Finding::new(rule, what, vec![decided.name(), of_intent(key)]));
        };
        let same = decided.assembly == begun.assembly
            && decided.service == begun.service
            && Some(decided.rung) == begun.rung;
        if !same {
            find(7, format!("{} was admitted, {} was begun", decided.rung, begun.act));
        }
        if decided.time > begun.time + SAME_TIME {
            let late = decided.time - begun.time;
            find(7, format!("{} was begun {late} ms before it was admitted", begun.act));
        }
        if self.complete(begun.time) && !self.reboot_came_first(key, decided, begun) {
            find(3, format!("{} without a reboot of its incident before it", decided.rung));
        }
        self.person_said_so(key, decided, found);
    }

    /// Rule 3, as far as records show it: what replaces an instance follows a reboot of the same incident, or the instance was gone.
    fn reboot_came_first(&self, key: &ActionKey, decided: &Decided, begun: &Begun) -> bool {
        let replaces = matches!(decided.rung, Rung::Rebuild | Rung::Recreate | Rung::Relocate);
        if !replaces || decided.gone || decided.by_hand() {
            return true;
        }
        let of = ((key.0.clone(), decided.incident), decided.assembly.clone());
        self.reboots.get(&of).is_some_and(|earlier| *earlier < begun.time)
    }

    /// Rules 3 and 4: a new instance is made once, of an action that was intended, after the old one was said to be down.
    fn created_once_and_fenced(&self, key: &ActionKey, action: &Action, found: &mut Vec<Finding>) {
        let Some(first) = action.created.first().copied() else { return };
        if action.created.len() > 1 {
            let what = format!("action {} began {} creations", key.1, action.created.len());
            found.push(Finding::new(4, what, vec![of_intent(key)]));
        }
        if !self.complete(first) {
            return;
        }
        if action.intents.is_empty() {
            let what = format!("action {} began a creation and has no intent", key.1);
            found.push(Finding::new(4, what, vec![of_intent(key)]));
        }
        if action.fenced.is_none_or(|fenced| fenced > first + SAME_TIME) {
            let what = format!("action {} began a creation before the old instance was fenced", key.1);
            found.push(Finding::new(3, what, vec![of_intent(key)]));
        }
    }

    /// Rules 3 and 7: what rests on a person's word has a record of that word.
    fn person_said_so(&self, key: &ActionKey, decided: &Decided, found: &mut Vec<Finding>) {
        for ((word, rests), rule) in ORDERS.into_iter().zip(decided.rests_on).zip([3, 7]) {
            let ordered = self.orders.get(&((key.0.clone(), decided.incident), word));
            let recorded = ordered.is_some_and(|time| *time <= decided.time + SAME_TIME);
            if rests && !recorded && self.complete(decided.time) {
                let what = format!("{} rests on a person's word that is not recorded ({word})", decided.rung);
                found.push(Finding::new(rule, what, vec![decided.name()]));
            }
        }
    }

    /// Rule 2: nothing is admitted in maintenance or while recovery is paused.
    fn admitted_while_held(&self, key: &ActionKey, decided: &Decided) -> Option<Finding> {
        let held = self.holds.over(&key.0, &decided.assembly, decided.service.as_ref(), decided.time);
        let (kind, name) = held.filter(|_| decided.admitted)?;
        let held = if name.is_empty() { "everything" } else { &name };
        let (rung, assembly) = (decided.rung, &decided.assembly);
        let what = format!("{rung} of {}/{assembly} was admitted while {held} was {}", key.0, word(kind));
        Some(Finding::new(2, what, vec![decided.name()]))
    }

    /// Rule 2: what has no decision of its own, a step, is not begun on another controller's machine, and what of it is ours to decide not
    /// in maintenance or while recovery is paused either.
    fn step_while_held(&self, key: &ActionKey, begun: &Begun) -> Option<Finding> {
        let (kind, _) = self.holds.over(&key.0, &begun.assembly, None, begun.time)?;
        let ours = begun.act == RECONFIGURE || POWER.contains(&&*begun.act);
        let forbids = ours || begun.rung.is_none() && kind == HoldKind::Foreign;
        let (act, assembly, word) = (&begun.act, &begun.assembly, word(kind));
        let what = format!("{act} of {}/{assembly} was begun while it was {word}", key.0);
        forbids.then(|| Finding::new(2, what, vec![of_intent(key)]))
    }

    /// Rule 7: what was decided belongs to an incident that had been opened.
    fn in_an_incident(&self, key: &ActionKey, decided: &Decided) -> Option<Finding> {
        let of = (key.0.clone(), decided.incident);
        if !self.complete(decided.time) || self.incidents.opened_by(&of, decided.time) {
            return None;
        }
        let what = format!("a decision of {}#{}, which was never opened", of.0, of.1);
        Some(Finding::new(7, what, vec![decided.name()]))
    }

    /// Rule 4: what has an outcome had a durable intent.
    fn has_an_intent(&self, key: &ActionKey, action: &Action, found: &mut Vec<Finding>) {
        for end in action.ends.iter().filter(|end| self.complete(end.time)) {
            match action.intents.first() {
                None if !end.reason.starts_with("not begun") => {
                    let what = format!("action {} ended ({}) and has no intent", key.1, end.reason);
                    found.push(Finding::new(4, what, vec![of_event(end.seq)]));
                }
                Some(begun) if begun.time > end.time + SAME_TIME => {
                    let what = format!("the intent of action {} is later than its end", key.1);
                    found.push(Finding::new(4, what, vec![of_intent(key), of_event(end.seq)]));
                }
                _ => {}
            }
        }
    }

    /// Rule 7: a refusal that was told has its record.
    fn refusals_are_recorded(&self, key: &ActionKey, action: &Action, found: &mut Vec<Finding>) {
        if action.decisions.iter().any(|it| !it.admitted) {
            return;
        }
        for (seq, time) in &action.refusals {
            if self.complete(*time) {
                let what = format!("the refusal of action {} has no record", key.1);
                found.push(Finding::new(7, what, vec![of_event(*seq)]));
            }
        }
    }
}

const fn word(kind: HoldKind) -> &'static str {
    match kind {
        HoldKind::Pause => "paused",
        HoldKind::Maintenance => "in maintenance",
        HoldKind::Foreign => "another controller's",
    }
}
