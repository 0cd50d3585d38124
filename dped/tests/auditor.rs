//! The auditor that is told of each record as it is made finds what an audit of the whole finds, however often it looks in between: on
//! random journals, most of which tell lies.
#![allow(clippy::unwrap_used, reason = "what fails here is a test's failure")]

use std::collections::BTreeSet;

use cpe_proto::api::{Intent, IntentRecord};
use cpe_proto::decision::{Answer, ChannelFact, Decision, Facts, Refusal, Value, Verdict};
use cpe_proto::event::{Event, EventKind, EventRecord};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;
use dped::audit::{Auditor, DecisionRecord, Hold, HoldKind, IncidentRecord, Notified, Records, audit};

/// An hour, so that each journal has incidents that are open for too long.
const SPAN: u64 = 3_600_000;

struct Dice(u64);

impl Dice {
    /// Below that number (Knuth's linear congruential generator; the high bits).
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }

    /// A time soon after another: at once, within a moment, or much later.
    fn after(&mut self, time: u64) -> u64 {
        time + match self.roll(4) {
            0 => 0,
            1 => self.roll(30),
            2 => self.roll(6_000),
            _ => self.roll(SPAN / 4),
        }
    }

    fn name(&mut self, of: [&str; 2]) -> Name {
        Name::parse(of[usize::try_from(self.roll(2)).unwrap()]).unwrap()
    }
}

fn value(name: &str, value: &str) -> Value {
    Value { name: name.into(), value: value.into() }
}

fn decision(dice: &mut Dice, number: u64, time: u64, intent: &Intent) -> DecisionRecord {
    let evidence = ["fenced", "ordered", "count"][usize::try_from(dice.roll(3)).unwrap()];
    let decision = Decision {
        at: Timestamp::ZERO,
        incident: intent.incident.unwrap_or(IncidentId(1)),
        action: intent.action,
        assembly: intent.assembly.clone(),
        service: intent.service.clone(),
        rung: if dice.one_in(9) { Rung::Recreate } else { intent.rung.unwrap_or(Rung::RebootHard) },
        verdict: if dice.one_in(9) { Verdict::Gone } else { Verdict::PerService },
        facts: Facts {
            self_trusted: true,
            held_domain: None,
            instance: None,
            ordered: false,
            channel: ChannelFact::Healthy,
            live_witness: false,
            path_proven: true,
        },
        evidence: vec![value(evidence, "x")],
        gates: vec![
            value("mode", if dice.one_in(9) { "observe" } else { "act" }),
            value(
                "age of the evidence",
                if dice.one_in(9) { "9 s, at most 4 s" } else { "1 s, at most 4 s" },
            ),
        ],
        answer: if dice.one_in(5) { Answer::Refused(Refusal::Budget) } else { Answer::Admitted },
    };
    DecisionRecord { number, time, deployable: intent.deployable.clone(), decision }
}

fn event(seq: u64, time: u64, kind: EventKind, reason: &str, of: &Intent) -> EventRecord {
    let event = Event {
        assembly: Some(of.assembly.clone()),
        service: of.service.clone(),
        incident: of.incident,
        action: Some(of.action),
        ..Event::new(kind, reason, Timestamp::ZERO)
    };
    EventRecord { seq, time, deployable: Some(of.deployable.clone()), event }
}

/// An action with what belongs to it, of which some is missing and some is at the wrong time.
fn add_action(dice: &mut Dice, records: &mut Records, number: u64) {
    use EventKind::*;
    let rungs = [Rung::RestartService, Rung::RebootHard, Rung::Rebuild, Rung::Recreate];
    let rung = rungs[usize::try_from(dice.roll(4)).unwrap()];
    let step = dice.one_in(6);
    let intent = Intent {
        deployable: dice.name(["shop", "blog"]),
        action: ActionId(if dice.one_in(12) { 1 } else { number }),
        incident: (!dice.one_in(9)).then(|| IncidentId(1 + dice.roll(4))),
        assembly: dice.name(["web", "db"]),
        service: dice.one_in(2).then(|| Name::parse("nginx").unwrap()),
        act: if step { dped::audit::RECONFIGURE.to_owned() } else { rung.to_string() },
        rung: (!step).then_some(rung),
    };
    let begun = dice.roll(SPAN);
    let ended = dice.after(begun);
    let decided = if dice.one_in(8) { dice.after(begun) } else { begun };
    let tell = |records: &mut Records, time, kind, reason: &str| {
        records.events.push(event(number * 10 + kind as u64, time, kind, reason, &intent));
    };
    if !dice.one_in(8) {
        tell(records, ended, RecoveryFinished, "healthy");
    }
    if dice.one_in(8) {
        tell(records, decided, RecoveryRefused, "budget");
    }
    if dice.one_in(3) {
        let word = if dice.one_in(2) { "recover, by uid 0" } else { "confirm-fenced, by uid 0" };
        tell(records, dice.after(begun.saturating_sub(9_000)), Ordered, word);
    }
    if !dice.one_in(8) {
        let decision = decision(dice, number, decided, &intent);
        records.decisions.push(decision);
    }
    if !dice.one_in(8) {
        let resolved = (!dice.one_in(6)).then_some(ended);
        let created = dice.one_in(3).then(|| dice.after(begun));
        if let Some(created) = created.filter(|_| !dice.one_in(4)) {
            records.events.push(event(
                number * 10 + 9,
                dice.after(created.saturating_sub(25)),
                Fenced,
                "off",
                &intent,
            ));
        }
        records.intents.push(IntentRecord { time: begun, intent, created, outcome: None, resolved });
    }
}

fn add_incidents(dice: &mut Dice, records: &mut Records) {
    for incident in 1..=4 {
        for deployable in ["shop", "blog"].map(|it| Name::parse(it).unwrap()) {
            if dice.one_in(5) {
                continue;
            }
            let opened = dice.roll(SPAN / 2);
            let closed = dice.one_in(2).then(|| dice.after(opened));
            let assembly = Some(dice.name(["web", "db"]));
            let service = dice.one_in(2).then(|| Name::parse("nginx").unwrap());
            if dice.one_in(2) {
                let incident = (!dice.one_in(4)).then_some(IncidentId(incident));
                let time = dice.after(opened);
                records.notifications.push(Notified { time, deployable: deployable.clone(), incident });
            }
            if dice.one_in(2) {
                let event = Event {
                    assembly: assembly.clone(),
                    service: service.clone(),
                    to: Some(State::Exhausted),
                    incident: (!dice.one_in(4)).then_some(IncidentId(incident)),
                    ..Event::new(EventKind::StateChanged, "no rung is left", Timestamp::ZERO)
                };
                let (seq, time) = (incident, dice.after(opened));
                records.events.push(EventRecord { seq, time, deployable: Some(deployable.clone()), event });
            }
            let incident = IncidentId(incident);
            records.incidents.push(IncidentRecord {
                deployable,
                incident,
                assembly,
                service,
                opened,
                closed,
            });
        }
    }
}

fn add_hold(dice: &mut Dice, records: &mut Records, number: u64) {
    let deployable = (!dice.one_in(3)).then(|| dice.name(["shop", "blog"]));
    let assembly = deployable.as_ref().and_then(|_| dice.one_in(2).then(|| dice.name(["web", "db"])));
    let (kind, event, words) = match dice.one_in(2) {
        true => (HoldKind::Pause, EventKind::BreakerChanged, ["paused: storm", "resumed: over"]),
        false => (HoldKind::Maintenance, EventKind::MaintenanceChanged, ["on: disks", "off: done"]),
    };
    let name = match (&deployable, &assembly) {
        (Some(deployable), Some(assembly)) => format!("{deployable}/{assembly}"),
        (Some(deployable), None) => deployable.to_string(),
        _ => String::new(),
    };
    let from = dice.roll(SPAN);
    let to = dice.after(from);
    for (began, time, word) in [(true, from, words[0]), (false, to, words[1])] {
        if !dice.one_in(4) {
            records.holds.push(Hold { time, kind, name: name.clone(), began });
        }
        if !dice.one_in(4) {
            let event = Event { assembly: assembly.clone(), ..Event::new(event, word, Timestamp::ZERO) };
            let time = dice.after(time).min(time + 50);
            let seq = number * 10 + 9 - u64::from(began);
            records.events.push(EventRecord { seq, time, deployable: deployable.clone(), event });
        }
    }
}

fn journal(seed: u64) -> Records {
    let mut dice = Dice(seed);
    let complete_since = if dice.one_in(3) { dice.roll(SPAN / 2) } else { 0 };
    let mut records = Records { now: 2 * SPAN, complete_since, open_max: SPAN / 3, ..Records::default() };
    add_incidents(&mut dice, &mut records);
    for number in 1..=dice.roll(20) {
        add_action(&mut dice, &mut records, number);
    }
    for number in 100..100 + dice.roll(6) {
        add_hold(&mut dice, &mut records, number);
    }
    records
}

#[test]
fn however_often_the_auditor_looks_it_finds_what_an_audit_of_the_whole_finds() {
    let mut rules = BTreeSet::new();
    for seed in 0..1_000 {
        let records = journal(seed);
        let whole = audit(&records);
        rules.extend(whole.iter().map(|it| it.rule));
        for every in [1, 2, 7] {
            let mut dice = Dice(seed + every);
            let mut auditor = Auditor::new(records.complete_since, records.open_max);
            let mut told = BTreeSet::new();
            for record in records.in_order() {
                if dice.one_in(every) {
                    auditor.at(record.time() - u64::from(record.time() > 0));
                    told.extend(auditor.news());
                }
                auditor.add(record);
            }
            auditor.at(records.now);
            auditor.end();
            told.extend(auditor.news());
            assert_eq!(auditor.findings(), whole, "seed {seed}, one look in {every} records");
            assert!(whole.iter().all(|it| told.contains(it)), "seed {seed}: what is found is told");
        }
    }
    assert_eq!(rules, (1..=7).collect(), "these journals break every rule that a journal can show");
}
