//! The auditor against one honest record of a night, and against that record with one lie in it each.
#![allow(clippy::unwrap_used, reason = "what fails here is a test's failure")]

use cpe_proto::api::{Intent, IntentRecord};
use cpe_proto::decision::{Answer, ChannelFact, Decision, Facts, Refusal, Value, Verdict};
use cpe_proto::event::{Event, EventKind, EventRecord};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;
use dped::audit::{
    Auditor, DecisionRecord, Finding, Hold, HoldKind, IncidentRecord, Notified, OPEN_MAX, Record, Records,
    audit,
};

const MINUTE: u64 = 60_000;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn value(name: &str, value: &str) -> Value {
    Value { name: name.into(), value: value.into() }
}

fn facts() -> Facts {
    Facts {
        self_trusted: true,
        held_domain: None,
        instance: None,
        ordered: false,
        channel: ChannelFact::Healthy,
        live_witness: false,
        path_proven: true,
    }
}

fn decision(number: u64, time: u64, action: u64, answer: Answer) -> DecisionRecord {
    let gates = [
        ("mode", "act"),
        ("maintenance", "no"),
        ("paused", "no"),
        ("in flight, assembly", "0 of 1"),
        ("fleet", "not paused"),
        ("age of the evidence", "300 ms, at most 4 s"),
        ("journal", "writable"),
    ];
    let decision = Decision {
        at: Timestamp::ZERO,
        incident: IncidentId(1),
        action: ActionId(action),
        assembly: name("web"),
        service: Some(name("nginx")),
        rung: Rung::RestartService,
        verdict: Verdict::PerService,
        facts: facts(),
        evidence: vec![value("count", "failure 1 of 3 in 1 h")],
        gates: gates.map(|(name, text)| value(name, text)).into(),
        answer,
    };
    DecisionRecord { number, time, deployable: name("shop"), decision }
}

fn intent(time: u64, action: u64, resolved: Option<u64>) -> IntentRecord {
    let intent = Intent {
        deployable: name("shop"),
        action: ActionId(action),
        incident: Some(IncidentId(1)),
        assembly: name("web"),
        service: Some(name("nginx")),
        act: "restart-service".to_owned(),
        rung: Some(Rung::RestartService),
    };
    IntentRecord { time, intent, created: None, outcome: resolved.map(|_| "done: ".to_owned()), resolved }
}

fn event(seq: u64, time: u64, kind: EventKind, reason: &str, action: Option<u64>) -> EventRecord {
    EventRecord {
        seq,
        time,
        deployable: Some(name("shop")),
        event: Event {
            at: Timestamp::ZERO,
            kind,
            assembly: Some(name("web")),
            service: Some(name("nginx")),
            from: None,
            to: None,
            reason: reason.into(),
            incident: Some(IncidentId(1)),
            action: action.map(ActionId),
            rung: None,
        },
    }
}

/// nginx fails, its first restart is refused in maintenance, the second is done and holds.
fn night() -> Records {
    use EventKind::*;
    let of_web = |mut record: EventRecord| {
        record.event.service = None;
        record
    };
    Records {
        now: 20 * MINUTE,
        complete_since: 0,
        open_max: OPEN_MAX,
        decisions: vec![
            decision(1, 2 * MINUTE, 1, Answer::Refused(Refusal::Maintenance)),
            decision(2, 6 * MINUTE, 2, Answer::Admitted),
        ],
        intents: vec![intent(6 * MINUTE + 5, 2, Some(6 * MINUTE + 900))],
        events: vec![
            of_web(event(1, MINUTE, MaintenanceChanged, "on: new disks", None)),
            event(2, 2 * MINUTE, IncidentOpened, "unit inactive", None),
            event(3, 2 * MINUTE, RecoveryRefused, "maintenance", Some(1)),
            of_web(event(4, 5 * MINUTE, MaintenanceChanged, "off: switched off", None)),
            event(5, 6 * MINUTE, RecoveryStarted, "unit inactive", Some(2)),
            event(6, 7 * MINUTE, RecoveryFinished, "healthy after 5 s", Some(2)),
            event(7, 8 * MINUTE, IncidentClosed, "healthy for 15 s", None),
        ],
        incidents: vec![IncidentRecord {
            deployable: name("shop"),
            incident: IncidentId(1),
            assembly: Some(name("web")),
            service: Some(name("nginx")),
            opened: 2 * MINUTE,
            closed: Some(8 * MINUTE),
        }],
        notifications: Vec::new(),
        holds: vec![
            Hold {
                time: MINUTE - 100,
                kind: HoldKind::Maintenance,
                name: "shop/web".to_owned(),
                began: true,
            },
            Hold { time: 5 * MINUTE, kind: HoldKind::Maintenance, name: "shop/web".to_owned(), began: false },
        ],
    }
}

/// The only finding after that change.
fn finding(change: impl FnOnce(&mut Records)) -> Finding {
    let mut records = night();
    change(&mut records);
    let findings = audit(&records);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.into_iter().next().unwrap()
}

#[test]
fn an_honest_record_has_no_finding() {
    assert_eq!(audit(&night()), []);
    assert_eq!(audit(&Records::default()), []);
}

#[test]
fn rule_1_two_actions_of_one_assembly_overlap() {
    let found = finding(|records| {
        records.decisions.push(decision(3, 6 * MINUTE + 400, 3, Answer::Admitted));
        records.intents.push(intent(6 * MINUTE + 400, 3, Some(6 * MINUTE + 500)));
    });
    assert_eq!(
        (found.rule, found.records),
        (1, vec!["intent shop/2".to_owned(), "intent shop/3".to_owned()])
    );
    assert_eq!(found.what, "shop/web: restart-service began while restart-service was under way");
    let found = finding(|records| {
        records.intents[0].resolved = None;
        records.decisions.push(decision(3, 9 * MINUTE, 3, Answer::Admitted));
        records.intents.push(intent(9 * MINUTE, 3, Some(10 * MINUTE)));
    });
    assert_eq!(found.rule, 1, "what never ended is under way for ever");
}

#[test]
fn rule_2_admitted_in_maintenance_or_pause() {
    let found = finding(|records| records.decisions[1].time = 4 * MINUTE);
    assert_eq!((found.rule, found.records), (2, vec!["decision 2".to_owned()]));
    assert_eq!(found.what, "restart-service of shop/web was admitted while shop/web was in maintenance");
    let found = finding(|records| {
        let mut paused = event(8, 3 * MINUTE, EventKind::BreakerChanged, "paused: storm (by uid 0)", None);
        (paused.deployable, paused.event.assembly, paused.event.service) = (None, None, None);
        records.events.insert(3, paused);
    });
    assert_eq!(found.what, "restart-service of shop/web was admitted while everything was paused");
}

fn step(time: u64, act: &str) -> IntentRecord {
    let mut step = intent(time, 3, Some(time + 100));
    (step.intent.act, step.intent.rung) = (act.to_owned(), None);
    step
}

#[test]
fn rule_2_switched_in_maintenance() {
    for switch in [dped::Switch::Off, dped::Switch::On] {
        let word = dped::audit::power_word(switch);
        let found = finding(|records| records.intents.insert(0, step(4 * MINUTE, word)));
        assert_eq!((found.rule, found.records), (2, vec!["intent shop/3".to_owned()]));
        assert_eq!(found.what, format!("{word} of shop/web was begun while it was in maintenance"));
        let mut records = night();
        records.intents.push(step(9 * MINUTE, word));
        assert_eq!(audit(&records), [], "a step needs no decision of its own");
    }
}

#[test]
fn rule_2_reconfigured_in_maintenance() {
    let reconfigured = |time| step(time, dped::audit::RECONFIGURE);
    let found = finding(|records| records.intents.insert(0, reconfigured(4 * MINUTE)));
    assert_eq!((found.rule, found.records), (2, vec!["intent shop/3".to_owned()]));
    assert_eq!(found.what, "reconfigure-service of shop/web was begun while it was in maintenance");
    let mut records = night();
    records.intents.push(reconfigured(9 * MINUTE));
    assert_eq!(audit(&records), [], "a step needs no decision of its own");
}

#[test]
fn rule_3_a_new_instance_is_made_only_after_the_old_one_was_said_to_be_down() {
    let found = finding(|records| records.intents[0].created = Some(records.intents[0].time + 50));
    assert_eq!((found.rule, found.records), (3, vec!["intent shop/2".to_owned()]));
    assert_eq!(found.what, "action 2 began a creation before the old instance was fenced");
    let mut records = night();
    let time = records.intents[0].time;
    records.intents[0].created = Some(time + 50);
    records.events.push(event(20, time + 40, EventKind::Fenced, "the old instance is off", Some(2)));
    assert_eq!(audit(&records), []);
}

#[test]
fn a_creation_that_was_begun_twice_is_found() {
    let mut records = night();
    let time = records.intents[0].time;
    records.intents[0].created = Some(time + 50);
    records.events.push(event(20, time + 40, EventKind::Fenced, "the old instance is off", Some(2)));
    let mut auditor = looked_at(&records, |_| {});
    auditor.add(Record::Created(&name("shop"), ActionId(2), time + 60));
    auditor.end();
    let found: Vec<_> = auditor.findings().into_iter().map(|it| (it.rule, it.what)).collect();
    assert_eq!(found, [(4, "action 2 began 2 creations".to_owned())]);
}

/// What is found of a step at 9 min, on a machine that another controller has marked at 7 min.
fn on_a_foreign_machine(act: &str, meanwhile: impl FnOnce(&mut Records)) -> Vec<String> {
    let mut records = night();
    let mut marked = event(20, 7 * MINUTE, EventKind::OwnerChanged, "foreign: controller east", None);
    marked.event.service = None;
    records.events.push(marked);
    records.intents.push(step(9 * MINUTE, act));
    meanwhile(&mut records);
    audit(&records).into_iter().map(|it| it.what).collect()
}

#[test]
fn rule_2_a_step_on_another_controllers_machine() {
    let mut ours = event(21, 8 * MINUTE, EventKind::OwnerChanged, "ours: it was given back", None);
    ours.event.service = None;
    let removed = |of: &str| {
        let mut record = event(21, 8 * MINUTE, EventKind::DefinitionLoaded, "removed", None);
        (record.deployable, record.event.assembly, record.event.service) = (Some(name(of)), None, None);
        record
    };
    let found = ["start-service of shop/web was begun while it was another controller's"];
    assert_eq!(on_a_foreign_machine("start-service", |_| {}), found);
    assert_eq!(on_a_foreign_machine("start-service", |records| records.events.push(ours)), [""; 0]);
    let managed_no_more =
        on_a_foreign_machine("start-service", |records| records.events.push(removed("shop")));
    assert_eq!(managed_no_more, [""; 0], "nobody looks any more");
    let another = on_a_foreign_machine("start-service", |records| records.events.push(removed("shop-2")));
    assert_eq!(another, found);
    let mut records = night();
    records.intents.insert(0, step(4 * MINUTE, "start-service"));
    assert_eq!(audit(&records), [], "a step of a start is not held back by maintenance");
}

#[test]
fn rule_2_an_end_that_was_ordered_and_not_told_before_a_crash_is_an_end() {
    let mut records = night();
    records.events.remove(3);
    assert_eq!(audit(&records), [], "the order is durable, its event was lost");
    records.holds.remove(1);
    assert_eq!(audit(&records).len(), 1, "nobody ended it");
}

#[test]
fn rule_2_a_gate_that_should_have_refused() {
    for (gate, text, rule) in [
        (0, "observe", 2),
        (1, "yes", 2),
        (2, "yes", 2),
        (3, "1 of 1", 1),
        (4, "paused", 2),
        (5, "4.1 s, at most 4 s", 6),
        (5, "3 min, at most 90 s", 6),
        (5, "soon", 6),
        (6, "not writable", 4),
    ] {
        let found = finding(|records| records.decisions[1].decision.gates[gate].value = text.into());
        assert_eq!((found.rule, &*found.records[0]), (rule, "decision 2"), "{text}");
    }
}

#[test]
fn rule_3_a_replacement_without_a_reboot_before_it() {
    let recreate = |records: &mut Records| {
        let decision = &mut records.decisions[1].decision;
        (decision.rung, decision.service) = (Rung::Recreate, None);
        let intent = &mut records.intents[0].intent;
        (intent.rung, intent.service) = (Some(Rung::Recreate), None);
    };
    assert_eq!(finding(recreate).rule, 3);
    let mut records = night();
    recreate(&mut records);
    let mut reboot = intent(3 * MINUTE, 9, Some(4 * MINUTE));
    (reboot.intent.rung, reboot.intent.service) = (Some(Rung::RebootHard), None);
    let mut admitted = decision(9, 3 * MINUTE, 9, Answer::Admitted);
    (admitted.decision.rung, admitted.decision.service) = (Rung::RebootHard, None);
    records.intents.insert(0, reboot);
    records.decisions.push(admitted);
    records.events.retain(|record| record.event.kind != EventKind::MaintenanceChanged);
    assert_eq!(audit(&records), []);
}

#[test]
fn rules_3_and_7_a_persons_word_needs_a_record_of_it() {
    let says = |line: &str| {
        let mut records = night();
        let decision = &mut records.decisions[1].decision;
        decision.evidence.push(value(line, "confirmed by uid 0 (root): dark"));
        records
    };
    let ordered = |reason: &str| {
        let mut it = event(9, 5 * MINUTE, EventKind::Ordered, reason, None);
        it.event.incident = Some(IncidentId(1));
        it
    };
    for (line, word, rule) in [("fenced", "confirm-fenced, by uid 0", 3), ("ordered", "recover, by uid 0", 7)]
    {
        let mut records = says(line);
        let findings = audit(&records);
        assert_eq!((findings.len(), findings[0].rule), (1, rule), "{findings:?}");
        records.events.insert(4, ordered(word));
        assert_eq!(audit(&records), []);
    }
}

#[test]
fn rule_4_an_outcome_without_an_intent_or_before_it() {
    let found = finding(|records| records.intents.clear());
    assert_eq!((found.rule, &*found.records[0]), (4, "event 6"));
    let found = finding(|records| {
        records.intents[0].time = 7 * MINUTE + 500;
        records.intents[0].resolved = Some(8 * MINUTE);
    });
    assert_eq!(found.what, "the intent of action 2 is later than its end");
    let mut records = night();
    records.intents.clear();
    records.events[5].event.reason = "not begun: the journal cannot be written".into();
    assert_eq!(audit(&records), [], "no intent, no action: as it should be");
}

#[test]
fn rule_5_silence() {
    let open = |records: &mut Records| {
        records.incidents[0].closed = None;
        records.now = 2 * MINUTE + OPEN_MAX + 1;
    };
    assert_eq!(finding(open).what, "incident shop#1 is open for 6 h and nobody was told");
    let mut records = night();
    open(&mut records);
    let told = |time| Notified { time, deployable: name("shop"), incident: Some(IncidentId(1)) };
    records.notifications.push(told(9 * MINUTE));
    assert_eq!(audit(&records), []);

    let exhausted = |records: &mut Records| {
        let mut exhausted = event(8, 7 * MINUTE + 1, EventKind::StateChanged, "", None);
        exhausted.event.to = Some(State::Exhausted);
        records.events.insert(6, exhausted);
        records.incidents[0].closed = None;
    };
    let found = finding(exhausted);
    assert_eq!(found.records, ["incident shop#1", "event 8"]);
    let mut records = night();
    exhausted(&mut records);
    records.notifications.push(told(7 * MINUTE + 2));
    assert_eq!(audit(&records), []);
}

#[test]
fn rule_5_a_service_behind_a_machine_that_a_person_knows_of_is_not_silent() {
    let mut records = night();
    records.incidents[0].closed = None;
    records.incidents.push(IncidentRecord {
        incident: IncidentId(2),
        service: None,
        opened: 3 * MINUTE,
        ..records.incidents[0].clone()
    });
    records.now = 4 * MINUTE + OPEN_MAX;
    let told = Notified { time: 9 * MINUTE, deployable: name("shop"), incident: Some(IncidentId(2)) };
    records.notifications.push(told);
    assert_eq!(audit(&records), []);
    records.incidents[1].closed = Some(10 * MINUTE);
    assert_eq!(audit(&records).len(), 1, "the machine is well, and its service is not");
}

#[test]
fn rule_6_admitted_on_a_verdict_that_forbids_it() {
    let found = finding(|records| {
        let decision = &mut records.decisions[1].decision;
        decision.facts.channel = ChannelFact::Dead(ChannelFailure::HostKey);
        decision.verdict = Verdict::MisconfiguredChannel;
    });
    assert_eq!(found.rule, 6);
}

#[test]
fn rule_7_a_verdict_that_its_facts_do_not_give() {
    let found = finding(|records| records.decisions[1].decision.verdict = Verdict::Hung);
    assert_eq!((found.rule, &*found.records[0]), (7, "decision 2"));
    assert_eq!(found.what, "the recorded facts give per_service (row 13), the record says hung");
}

#[test]
fn rule_7_begun_without_being_admitted_or_as_something_else() {
    let found = finding(|records| drop(records.decisions.remove(1)));
    assert_eq!(found.what, "restart-service was begun and no decision admitted it");
    let found = finding(|records| records.decisions[1].decision.answer = Answer::Refused(Refusal::Budget));
    assert_eq!(found.what, "restart-service was refused and begun all the same");
    let found = finding(|records| records.intents[0].intent.service = Some(name("php")));
    assert_eq!(found.rule, 7);
    let found = finding(|records| records.decisions[1].time += 1_000);
    assert_eq!(found.what, "restart-service was begun 995 ms before it was admitted");
    let found = finding(|records| drop(records.decisions.remove(0)));
    assert_eq!(found.what, "the refusal of action 1 has no record");
    let found = finding(|records| {
        records.incidents.clear();
        records.decisions.remove(0);
        records.events.remove(2);
    });
    assert_eq!(found.what, "a decision of shop#1, which was never opened");
}

#[test]
fn what_retention_deleted_is_not_missed() {
    let mut records = night();
    records.complete_since = 30 * MINUTE;
    records.decisions.clear();
    assert_eq!(audit(&records), []);
    records.decisions = night().decisions;
    records.intents.clear();
    records.incidents.clear();
    assert_eq!(audit(&records), []);
}

#[test]
fn rule_5_what_is_exhausted_is_told_with_its_own_incident() {
    let exhausted = |seq, incident, service: Option<&str>| {
        let mut record = event(seq, 7 * MINUTE, EventKind::StateChanged, "no rung is left", None);
        record.event.service = service.map(name);
        (record.event.to, record.event.incident) = (Some(State::Exhausted), Some(IncidentId(incident)));
        record
    };
    let incident = |number, service: Option<&str>| IncidentRecord {
        deployable: name("shop"),
        incident: IncidentId(number),
        assembly: Some(name("web")),
        service: service.map(name),
        opened: 2 * MINUTE,
        closed: None,
    };
    let mut records = Records { now: 20 * MINUTE, open_max: OPEN_MAX, ..Records::default() };
    // The first incident of nginx became its machine's; a second one ends in exhausted, and its machine follows it.
    records.incidents = vec![incident(1, Some("nginx")), incident(2, Some("nginx")), incident(3, None)];
    records.events = vec![exhausted(1, 2, Some("nginx")), exhausted(2, 3, None)];
    records.notifications =
        vec![Notified { time: 7 * MINUTE, deployable: name("shop"), incident: Some(IncidentId(2)) }];
    assert_eq!(audit(&records), []);
    records.notifications.clear();
    assert_eq!(audit(&records).len(), 1, "nobody was told of the second one");
}

#[test]
fn nothing_of_a_deployable_is_begun_while_it_recovers_as_a_whole() {
    let whole = |kind, seq, time| {
        let mut record = event(seq, time, kind, "", Some(9));
        record.event.rung = Some(Rung::RestartDeployable);
        record
    };
    let restarted = |began: u64, ended: u64| {
        let mut records = night();
        records.events.push(whole(EventKind::RecoveryStarted, 101, began));
        records.events.push(whole(EventKind::RecoveryFinished, 102, ended));
        records.intents.push(IntentRecord {
            intent: Intent { action: ActionId(9), ..intent(began, 9, None).intent },
            ..intent(began + 10, 9, Some(ended))
        });
        records.decisions.push(decision(90, began, 9, Answer::Admitted));
        let broken = audit(&records).into_iter().filter(|it| it.what.contains("as a whole"));
        broken.map(|it| (it.rule, it.what)).collect::<Vec<_>>()
    };
    assert_eq!(restarted(7 * MINUTE, 8 * MINUTE), [], "the restart of nginx was begun a minute before");
    let what = "restart-service of shop was begun while it recovered as a whole".to_owned();
    assert_eq!(restarted(5 * MINUTE, 8 * MINUTE), [(1, what)]);
}

/// Two records that are made together may carry times this far apart (`SAME_TIME` of the auditor).
const TOGETHER: u64 = 20;

/// A night whose only maintenance is told by these events and ended by these orders, and whose restart is admitted then: what is found.
fn held(told: &[(u64, &str)], ended: &[u64], admitted: u64) -> usize {
    let mut records = night();
    records.events.retain(|it| it.event.kind != EventKind::MaintenanceChanged);
    let kind = |word: &str| match word.split(':').next() {
        Some("on" | "off") => EventKind::MaintenanceChanged,
        _ => EventKind::BreakerChanged,
    };
    for (seq, (time, word)) in (50..).zip(told) {
        let mut record = event(seq, *time, kind(word), word, None);
        record.event.service = None;
        records.events.push(record);
    }
    records.events.sort_by_key(|it| it.time);
    let end = |time: &u64| Hold {
        time: *time,
        kind: HoldKind::Maintenance,
        name: "shop/web".to_owned(),
        began: false,
    };
    records.holds = ended.iter().map(end).collect();
    records.decisions[1].time = admitted;
    records.incidents[0].opened = MINUTE / 2;
    let found = audit(&records);
    assert!(found.iter().all(|it| it.rule == 2), "{found:#?}");
    found.len()
}

#[test]
fn rule_2_a_hold_lasts_from_when_it_is_told_to_when_its_end_is_told_or_was_ordered() {
    let at = |minutes: u64| minutes * MINUTE;
    let night = [(at(1), "on: work"), (at(4), "off: done")];
    for (admitted, found) in [
        (at(1) + TOGETHER, 0),
        (at(1) + TOGETHER + 1, 1),
        (at(3), 1),
        (at(4) - TOGETHER - 1, 1),
        (at(4) - TOGETHER, 0),
        (at(5), 0),
    ] {
        assert_eq!(held(&night, &[], admitted), found, "admitted at {admitted}");
    }
    let pause = [(at(1), "paused: storm"), (at(3), "resumed")];
    assert_eq!((held(&pause, &[], at(2)), held(&pause, &[], at(5))), (1, 0));
    assert_eq!(
        held(&[(at(1), "off: switched off")], &[], at(3)),
        0,
        "an end without a beginning holds nothing"
    );
    let again = [(at(1), "on: work"), (at(2), "on: work"), (at(4), "off: done")];
    assert_eq!((held(&again, &[], at(3)), held(&again, &[], at(5))), (1, 0), "told again after a restart");
    let twice = [(at(1), "on: work"), (at(2), "off: done"), (at(4), "on: more")];
    assert_eq!((held(&twice, &[], at(3)), held(&twice, &[], at(5))), (0, 1));
    // The event of its end was lost with a process; then another one begins.
    let lost = [(at(1), "on: work"), (at(4), "on: more")];
    assert_eq!((held(&lost, &[at(2)], at(3)), held(&lost, &[at(2)], at(5))), (0, 1));
    // Its end was told before the order's record was made: it is over by the earlier of the two.
    assert_eq!((held(&night, &[at(2)], at(3)), held(&night, &[at(5)], at(4) + at(1))), (0, 0));
}

#[test]
fn ages_are_read_in_whatever_unit_they_are_written() {
    for (age, found) in [
        ("1 min, at most 90 s", 0),
        ("1 h, at most 90 min", 0),
        ("1.5 s, at most 1600 ms", 0),
        ("1.5 s, at most 1500 ms", 0),
        ("1.5 s, at most 1400 ms", 1),
        ("61 min, at most 1 h", 1),
    ] {
        let mut records = night();
        records.decisions[1].decision.gates[5].value = age.into();
        assert_eq!(audit(&records).len(), found, "{age}");
    }
}

#[test]
fn what_was_made_together_may_be_recorded_in_any_order() {
    // A second restart begins while the first one ends.
    let overlaps = |by: u64| {
        let mut records = night();
        let ended = records.intents[0].resolved.unwrap();
        records.decisions.push(decision(3, ended - by, 3, Answer::Admitted));
        records.intents.push(intent(ended - by, 3, Some(7 * MINUTE)));
        audit(&records).into_iter().map(|it| it.rule).collect::<Vec<_>>()
    };
    assert_eq!((overlaps(TOGETHER), overlaps(TOGETHER + 1)), (vec![], vec![1]));
    // An intent that is later than its decision's admission, or than its end, by so much.
    let admitted_late = |by: u64| {
        let mut records = night();
        records.decisions[1].time = records.intents[0].time + by;
        audit(&records).len()
    };
    assert_eq!((admitted_late(TOGETHER), admitted_late(TOGETHER + 1)), (0, 1));
    let ended_before = |by: u64| {
        let mut records = night();
        records.intents[0].time = 7 * MINUTE + by;
        records.intents[0].resolved = Some(8 * MINUTE);
        audit(&records).into_iter().map(|it| it.rule).collect::<Vec<_>>()
    };
    assert_eq!((ended_before(TOGETHER), ended_before(TOGETHER + 1)), (vec![], vec![4]));
    let fenced_late = |by: u64| {
        let mut records = night();
        let time = records.intents[0].time;
        records.intents[0].created = Some(time + 50);
        records.events.push(event(20, time + 50 + by, EventKind::Fenced, "the old instance is off", Some(2)));
        audit(&records).into_iter().map(|it| it.rule).collect::<Vec<_>>()
    };
    assert_eq!((fenced_late(TOGETHER), fenced_late(TOGETHER + 1)), (vec![], vec![3]));
    let ordered_late = |by: u64| {
        let mut records = night();
        let line = value("ordered", "by uid 0 (root): now");
        records.decisions[1].decision.evidence.push(line);
        let time = records.decisions[1].time + by;
        records.events.push(event(21, time, EventKind::Ordered, "recover, by uid 0", None));
        audit(&records).into_iter().map(|it| it.rule).collect::<Vec<_>>()
    };
    assert_eq!((ordered_late(TOGETHER), ordered_late(TOGETHER + 1)), (vec![], vec![7]));
}

#[test]
fn rule_3_a_replacement_rests_on_an_earlier_reboot_or_on_a_person() {
    let recreate = |reboot: Option<u64>, ordered: bool| {
        let mut records = night();
        records.events.retain(|it| it.event.kind != EventKind::MaintenanceChanged);
        let decided = &mut records.decisions[1].decision;
        (decided.rung, decided.service) = (Rung::Recreate, None);
        if ordered {
            decided.evidence.push(value("ordered", "by uid 0 (root): now"));
            records.events.push(event(21, 5 * MINUTE, EventKind::Ordered, "recover, by uid 0", None));
        }
        let meant = &mut records.intents[0].intent;
        (meant.rung, meant.service) = (Some(Rung::Recreate), None);
        if let Some(time) = reboot {
            let mut earlier = intent(time, 9, Some(time));
            (earlier.intent.rung, earlier.intent.service) = (Some(Rung::RebootHard), None);
            let mut admitted = decision(9, time, 9, Answer::Admitted);
            (admitted.decision.rung, admitted.decision.service) = (Rung::RebootHard, None);
            records.intents.insert(0, earlier);
            records.decisions.push(admitted);
        }
        audit(&records).into_iter().map(|it| it.rule).collect::<Vec<_>>()
    };
    let began = night().intents[0].time;
    assert_eq!(recreate(None, false), [3]);
    assert_eq!(recreate(None, true), []);
    assert_eq!(recreate(Some(began - 1), false), []);
    assert_eq!(recreate(Some(began), false), [3], "at the same moment is not before");
}

#[test]
fn a_whole_recovery_lasts_until_its_end_its_incidents_end_or_a_new_definition() {
    let found = |began: u64, ends: &dyn Fn(&mut Records)| {
        let mut records = night();
        let mut whole = event(101, began, EventKind::RecoveryStarted, "", Some(9));
        (whole.event.rung, whole.event.incident) = (Some(Rung::RestartDeployable), Some(IncidentId(9)));
        records.events.push(whole);
        ends(&mut records);
        records.events.sort_by_key(|it| it.time);
        audit(&records).into_iter().filter(|it| it.what.contains("as a whole")).count()
    };
    let restart = night().intents[0].time;
    let never: &dyn Fn(&mut Records) = &|_| {};
    assert_eq!(found(restart - TOGETHER, never), 0);
    assert_eq!(found(restart - TOGETHER - 1, never), 1);
    let told = |kind, action: Option<u64>, time: u64| {
        move |records: &mut Records| {
            let mut end = event(102, time, kind, "", action);
            end.event.rung = Some(Rung::RestartDeployable);
            records.events.push(end);
        }
    };
    let (finished, loaded) = (EventKind::RecoveryFinished, EventKind::DefinitionLoaded);
    assert_eq!(found(3 * MINUTE, &told(finished, Some(9), 4 * MINUTE)), 0);
    assert_eq!(found(3 * MINUTE, &told(finished, Some(8), 4 * MINUTE)), 1, "another action's end");
    assert_eq!(found(3 * MINUTE, &told(finished, Some(9), restart + TOGETHER)), 0);
    assert_eq!(found(3 * MINUTE, &told(finished, Some(9), restart + TOGETHER + 1)), 1);
    assert_eq!(found(3 * MINUTE, &told(loaded, None, 4 * MINUTE)), 0);
    let closed = |number: u64| {
        move |records: &mut Records| {
            let mut incident = records.incidents[0].clone();
            (incident.incident, incident.service) = (IncidentId(number), None);
            (incident.opened, incident.closed) = (2 * MINUTE, Some(4 * MINUTE));
            records.incidents.push(incident);
        }
    };
    assert_eq!((found(3 * MINUTE, &closed(9)), found(3 * MINUTE, &closed(8))), (0, 1));
    // It ended before, and a later end of the same action changes nothing.
    let twice = |records: &mut Records| {
        told(finished, Some(9), 4 * MINUTE)(records);
        told(finished, Some(9), 7 * MINUTE)(records);
    };
    assert_eq!(found(3 * MINUTE, &twice), 0);
}

#[test]
fn rule_5_only_what_an_open_incident_says_of_its_own_part_is_exhausted() {
    let found = |change: &dyn Fn(&mut EventRecord), closed: Option<u64>, complete_since: u64| {
        let mut records = night();
        let mut exhausted = event(8, 7 * MINUTE, EventKind::StateChanged, "no rung is left", None);
        exhausted.event.to = Some(State::Exhausted);
        change(&mut exhausted);
        records.events.push(exhausted);
        records.events.sort_by_key(|it| it.time);
        (records.incidents[0].closed, records.complete_since) = (closed, complete_since);
        audit(&records).len()
    };
    assert_eq!(found(&|_| {}, None, 0), 1);
    assert_eq!(found(&|it| it.event.service = Some(name("php")), None, 0), 0, "another service");
    assert_eq!(found(&|it| it.time = MINUTE, None, 0), 0, "before it was opened");
    assert_eq!(found(&|_| {}, Some(6 * MINUTE), 0), 0, "after it was closed");
    assert_eq!(found(&|_| {}, Some(7 * MINUTE + 1), 0), 0, "a crash closed it before it could be told");
    assert_eq!(found(&|_| {}, None, 7 * MINUTE), 0, "what was told then may be lost");
}

/// What an auditor that looks at records as they are made finds, after `before` was done to it.
fn looked_at(records: &Records, before: impl FnOnce(&mut Auditor)) -> Auditor {
    let mut auditor = Auditor::new(0, OPEN_MAX);
    before(&mut auditor);
    records.in_order().into_iter().for_each(|record| auditor.add(record));
    auditor
}

#[test]
fn records_are_looked_at_in_the_order_of_their_times() {
    let records = night();
    let times: Vec<u64> = records.in_order().iter().map(Record::time).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!((times.first(), times.last()), (Some(&(MINUTE - 100)), Some(&(8 * MINUTE))));
}

#[test]
fn what_was_lost_is_not_missed_and_what_only_waits_is_judged_at_the_end() {
    let mut records = night();
    records.decisions.pop();
    let mut missing = looked_at(&records, |_| {});
    assert_eq!(missing.findings(), [], "it may still come");
    missing.end();
    assert_eq!(missing.findings().len(), 1);
    let mut lost = looked_at(&records, |auditor| auditor.lost(10 * MINUTE));
    lost.end();
    assert_eq!(lost.findings(), []);
}

#[test]
fn rule_5_what_was_closed_is_not_open_for_long() {
    let mut records = night();
    let mut closed = looked_at(&records, |_| {});
    closed.at(2 * OPEN_MAX);
    assert_eq!(closed.findings(), []);
    records.incidents[0].closed = None;
    let mut open = looked_at(&records, |_| {});
    open.at(2 * OPEN_MAX);
    assert_eq!(open.findings().len(), 1);
}
