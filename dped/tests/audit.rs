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
    DecisionRecord, Finding, Hold, HoldKind, IncidentRecord, Notified, OPEN_MAX, Records, audit,
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

#[test]
fn rule_2_reconfigured_in_maintenance() {
    let reconfigured = |time| {
        let mut step = intent(time, 3, Some(time + 100));
        (step.intent.act, step.intent.rung) = (dped::audit::RECONFIGURE.to_owned(), None);
        step
    };
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
