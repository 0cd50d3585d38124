//! The renderings as snapshots: what an operator sees of one night.

use cpe_proto::api::{
    Acknowledged, AssemblyStatus, Because, DeployableStatus, Incident, Intent, IntentRecord, Obstacle,
    Paused, ServiceStatus, Status, Stuck, Why, WhyNot,
};
use cpe_proto::decision::{Answer, ChannelFact, Decision, Facts, Refusal, Value, Verdict};
use cpe_proto::event::{Event, EventKind, EventRecord};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::time::Timestamp;
use expect_test::expect_file;

use super::*;

/// 2026-11-22T10:42:00Z.
const MORNING: u64 = 1_795_344_120_000;

fn reader() -> Reader {
    Reader::new(TimeZone::UTC, MORNING + 600_000, Colour::Off)
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// An event of `shop/web/nginx`, so many milliseconds after MORNING.
fn event(seq: u64, after: u64, kind: EventKind, reason: &str) -> EventRecord {
    EventRecord {
        seq,
        time: MORNING + after,
        deployable: Some(name("shop")),
        event: Event {
            at: Timestamp::ZERO,
            kind,
            assembly: Some(name("web")),
            service: Some(name("nginx")),
            from: None,
            to: None,
            reason: reason.into(),
            incident: Some(IncidentId(3)),
            action: None,
            rung: None,
        },
    }
}

fn with(mut record: EventRecord, change: impl FnOnce(&mut Event)) -> EventRecord {
    change(&mut record.event);
    record
}

fn recovery(
    seq: u64,
    after: u64,
    kind: EventKind,
    action: u64,
    rung: Rung,
    to: Option<State>,
    reason: &str,
) -> EventRecord {
    with(event(seq, after, kind, reason), |event| {
        event.action = Some(ActionId(action));
        event.rung = Some(rung);
        event.to = to;
    })
}

/// As the engine tells it: a unit that is stopped once, then one that fails again after its restarts, a frozen machine, an operator.
fn night() -> Vec<EventRecord> {
    use EventKind::*;
    let moved = |seq, after, from, to, reason: &str| {
        with(event(seq, after, StateChanged, reason), |event| (event.from, event.to) = (Some(from), Some(to)))
    };
    let of_web = |record| with(record, |event: &mut Event| event.service = None);
    let whole = |record| {
        with(record, |event: &mut Event| (event.assembly, event.service, event.incident) = (None, None, None))
    };
    let own = |mut record: EventRecord| {
        record.deployable = None;
        whole(record)
    };
    let no_incident = |record| with(record, |event: &mut Event| event.incident = None);
    let restart = Rung::RestartService;
    vec![
        whole(event(1, 0, DefinitionLoaded, "2 assemblies, 3 services")),
        no_incident(moved(2, 200, State::Starting, State::Healthy, "")),
        of_web(no_incident(moved(3, 200, State::Starting, State::Healthy, ""))),
        whole(moved(4, 200, State::Starting, State::Healthy, "")),
        no_incident(moved(5, 6_400, State::Healthy, State::Suspected, "unit inactive")),
        of_web(no_incident(moved(6, 6_400, State::Healthy, State::Suspected, "nginx is suspected"))),
        whole(moved(7, 6_400, State::Healthy, State::Suspected, "")),
        no_incident(moved(8, 6_900, State::Suspected, State::Failed, "unit inactive")),
        event(9, 6_900, IncidentOpened, "unit inactive, confirmed by 2 probes"),
        event(10, 6_900, FaultIsolated, "service_fault: unit inactive, confirmed by 2 probes"),
        of_web(no_incident(moved(11, 6_900, State::Suspected, State::Failed, "nginx is failed"))),
        whole(moved(12, 6_900, State::Suspected, State::Degraded, "")),
        recovery(
            13,
            7_000,
            RecoveryStarted,
            7,
            restart,
            None,
            "unit inactive, confirmed by 2 probes; failure 1 of 5 in 1 h",
        ),
        moved(14, 7_000, State::Failed, State::Recovering, ""),
        recovery(15, 12_200, RecoveryFinished, 7, restart, Some(State::Healthy), "healthy after 5.2 s"),
        moved(16, 12_200, State::Recovering, State::Healthy, ""),
        of_web(no_incident(moved(17, 12_200, State::Recovering, State::Healthy, ""))),
        whole(moved(18, 12_200, State::Degraded, State::Healthy, "")),
        event(19, 27_200, IncidentClosed, "healthy for 15 s"),
        recovery(
            20,
            60_000,
            RecoveryStarted,
            8,
            restart,
            None,
            "unit failed, confirmed by 2 probes; failure 4 of 5 in 1 h",
        ),
        recovery(
            21,
            65_000,
            RecoveryFinished,
            8,
            restart,
            Some(State::Failed),
            "unit failed again after 3.1 s",
        ),
        event(22, 65_000, Escalated, "failure 5 of 5 in 1 h: escalates to the assembly"),
        of_web(recovery(
            23,
            65_100,
            RecoveryRefused,
            9,
            Rung::RebootSoft,
            None,
            "3 of 3 in flight on infrastructure prod",
        )),
        of_web(event(241, 66_000, IncidentOpened, "channel timed out, confirmed by 3 probes")),
        of_web(moved(24, 66_000, State::Failed, State::Unreachable, "channel timed out")),
        no_incident(moved(242, 66_000, State::Failed, State::Unknown, "channel timed out")),
        of_web(event(25, 66_000, FaultIsolated, "hung: channel timed out, confirmed by 3 probes")),
        of_web(recovery(
            26,
            70_000,
            RecoveryStarted,
            10,
            Rung::RebootHard,
            None,
            "hung: channel timed out, confirmed by 3 probes; failure 1 of 3 in 6 h",
        )),
        of_web(event(27, 71_000, MaintenanceChanged, "on: disk replaced (by uid 0 (root))")),
        own(event(
            28,
            72_000,
            BreakerChanged,
            "the journal cannot be written (disk full): probing goes on, nothing is recovered",
        )),
        of_web(event(281, 72_100, Ordered, "recover reboot-hard, by uid 0 (root): it swaps")),
        own(event(29, 72_500, DefinitionRejected, "wiki.toml:3:1: unknown key \x1b[31m\"adress\"")),
        of_web(no_incident(moved(30, 73_000, State::Unreachable, State::InTransition, "resize"))),
        of_web(no_incident(moved(31, 74_000, State::InTransition, State::Healthy, ""))),
        whole(with(event(32, 75_000, RecoveryFinished, "late outcome, not believed: done"), |event| {
            event.action = Some(ActionId(10));
        })),
        recovery(33, 76_000, RecoveryStarted, 11, restart, None, "unit failed; a dated retry"),
        recovery(
            34,
            77_000,
            RecoveryFinished,
            11,
            restart,
            Some(State::Unknown),
            "its channel does not answer, so it could not be verified",
        ),
        event(35, 78_000, IncidentClosed, "stop ordered"),
        whole(moved(36, 79_000, State::Healthy, State::Stopped, "")),
    ]
}

#[test]
fn a_listing_of_events_joins_a_recovery_to_one_sentence() {
    let mut joined = Joined::new(reader());
    let mut lines: Vec<String> = night().into_iter().flat_map(|record| joined.push(record)).collect();
    lines.extend(joined.finish());
    expect_file!["snapshots/events.txt"].assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn while_following_each_event_is_told_when_it_happens() {
    let mut follow = Follow::new(reader());
    let lines: Vec<String> = night().iter().filter_map(|record| follow.line(record)).collect();
    expect_file!["snapshots/follow.txt"].assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn another_day_is_shown_with_its_date() {
    let yesterday = with(event(1, 0, EventKind::StateChanged, ""), |event| event.to = Some(State::Unknown));
    let next_day = Reader::new(TimeZone::UTC, MORNING + 86_400_000, Colour::Off);
    assert_eq!(
        Follow::new(next_day).line(&yesterday).unwrap(),
        "2026-11-22 10:42:00  shop/web/nginx  is unknown"
    );
}

#[test]
fn a_recovery_without_an_end_does_not_hold_the_listing_up_for_ever() {
    let mut joined = Joined::new(reader());
    let start = recovery(1, 0, EventKind::RecoveryStarted, 1, Rung::RebootHard, None, "hung");
    assert!(joined.push(start).is_empty(), "its end may come");
    let lines: Vec<String> = (2..3_000)
        .flat_map(|seq| joined.push(event(seq, seq, EventKind::MaintenanceChanged, "on")))
        .collect();
    assert_eq!(lines.first().map(String::as_str), Some("10:42:00  shop/web/nginx  rebooting (hard) (hung)"));
    assert_eq!(lines.len() + joined.finish().len(), 2_999, "nothing is lost");
}

fn shop() -> Status {
    let service = |service: &str, state, reason: &str| ServiceStatus {
        paused: None,
        name: name(service),
        state,
        since: MORNING,
        reason: reason.into(),
        waits: Vec::new(),
    };
    let assembly = |assembly: &str, state, services| AssemblyStatus {
        paused: None,
        name: name(assembly),
        state,
        address: Some("192.0.2.7".to_owned()),
        monitor: "ssh".to_owned(),
        maintenance: false,
        since: MORNING,
        reason: "".into(),
        drift: None,
        domains: Vec::new(),
        waits: Vec::new(),
        services,
    };
    let web = vec![
        service("nginx", State::Recovering, "unit inactive; restarted, being verified"),
        service("php", State::Healthy, ""),
    ];
    let db = AssemblyStatus {
        paused: None,
        address: None,
        maintenance: true,
        reason: "no answer for 5 min".into(),
        ..assembly("db", State::Unreachable, vec![service("mariadb", State::Unknown, "channel timed out")])
    };
    let deployable = |deployable: &str, state, mode: &str, assemblies| DeployableStatus {
        name: name(deployable),
        state,
        mode: mode.to_owned(),
        maintenance: false,
        paused: None,
        parked: None,
        assemblies,
    };
    let wiki = vec![assembly("a", State::Healthy, vec![service("wiki", State::Healthy, "")])];
    Status {
        deployables: vec![
            deployable("shop", State::Degraded, "act", vec![assembly("web", State::Healthy, web), db]),
            deployable("wiki", State::Healthy, "observe", wiki),
        ],
        paused: None,
        paused_domains: std::collections::BTreeMap::new(),
    }
}

#[test]
fn the_status_is_a_table_in_the_order_of_the_definitions() {
    expect_file!["snapshots/status.txt"].assert_eq(&status(&shop(), &reader()));
    assert!(!is_healthy(&shop()));
}

#[test]
fn a_pause_is_shown_with_who_ordered_it_and_why() {
    let paused =
        |reason: &str| Paused { since: MORNING, reason: reason.to_owned(), by: "uid 1000 (ann)".to_owned() };
    let mut shop = shop();
    shop.deployables[1].paused = Some(paused("migration"));
    shop.paused = Some(paused("storm in \x1b[31maz1"));
    shop.paused_domains.insert(Name::parse("az2").unwrap(), paused("power"));
    expect_file!["snapshots/status-paused.txt"].assert_eq(&status(&shop, &reader()));
}

#[test]
fn why_nothing_is_done_is_told_for_each_part_with_all_that_stands_in_the_way() {
    let because = |what, detail: &str, until| Because { what, detail: detail.into(), until };
    let nginx = Stuck {
        name: "shop/web/nginx".to_owned(),
        state: State::Failed,
        since: MORNING,
        reason: "unit inactive".into(),
        incident: Some("shop#3".to_owned()),
        concluded: Some("service_fault: unit inactive, confirmed by 2 probes".into()),
        because: vec![
            because(Obstacle::Paused, "all recovery is paused: storm (by uid 0 (root))", None),
            because(
                Obstacle::Maintenance,
                "shop/web is in maintenance: new disks (by uid 1000 (ann))",
                Some(MORNING + 7_200_000),
            ),
        ],
    };
    let php = Stuck {
        name: "shop/web/php".to_owned(),
        state: State::Suspected,
        incident: None,
        concluded: None,
        because: vec![because(Obstacle::BeingConfirmed, "one probe failed: the next decide", None)],
        ..nginx.clone()
    };
    let stuck = why_not(&WhyNot { healthy: 4, parts: vec![nginx, php] }, &reader());
    let well = why_not(&WhyNot { healthy: 6, parts: Vec::new() }, &reader());
    expect_file!["snapshots/why-not.txt"].assert_eq(&format!("{stuck}\n{well}"));
}

#[test]
fn a_status_can_be_asked_for_in_part() {
    let mut part = shop();
    "shop/*/nginx".parse::<crate::glob::Glob>().unwrap().prune(&mut part);
    expect_file!["snapshots/status-part.txt"].assert_eq(&status(&part, &reader()));
    let mut wiki = shop();
    "wiki".parse::<crate::glob::Glob>().unwrap().prune(&mut wiki);
    assert!(is_healthy(&wiki));
}

#[test]
fn colours_are_for_terminals_and_do_not_move_columns() {
    let terminal = Reader::new(TimeZone::UTC, MORNING, Colour::On);
    let coloured = status(&shop(), &terminal);
    assert!(
        coloured.contains("\x1b[31munreachable\x1b[0m") && coloured.contains("\x1b[32mhealthy"),
        "{coloured}"
    );
    let mut bare = coloured;
    for code in ["31", "32", "33", "0"] {
        bare = bare.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(bare, status(&shop(), &reader()));
}

fn value(name: &str, value: &str) -> Value {
    Value { name: name.into(), value: value.into() }
}

fn decision(action: u64, rung: Rung, answer: Answer) -> Decision {
    Decision {
        at: Timestamp::ZERO,
        incident: IncidentId(3),
        action: ActionId(action),
        assembly: name("web"),
        service: Some(name("nginx")),
        rung,
        verdict: Verdict::PerService,
        facts: Facts {
            self_trusted: true,
            held_domain: None,
            instance: None,
            ordered: false,
            channel: ChannelFact::Healthy,
            live_witness: false,
            path_proven: true,
        },
        evidence: vec![value("nginx", "unit inactive, 0.1 s ago"), value("failure", "1 of 5 in 1 h")],
        gates: vec![value("mode", "act"), value("in flight, deployable shop", "0 of 1")],
        answer,
    }
}

#[test]
fn an_incident_is_a_timeline_with_its_evidence() {
    let mut events = night();
    events.retain(|record| (5..=19).contains(&record.seq) && record.event.incident.is_some());
    let intent = Intent {
        deployable: name("shop"),
        action: ActionId(7),
        incident: Some(IncidentId(3)),
        assembly: name("web"),
        service: Some(name("nginx")),
        act: "restart-service".to_owned(),
        rung: Some(Rung::RestartService),
    };
    let closed = Incident {
        deployable: name("shop"),
        incident: IncidentId(3),
        opened: MORNING + 6_900,
        closed: Some(MORNING + 27_200),
        events,
        decisions: vec![(MORNING + 6_950, decision(7, Rung::RestartService, Answer::Admitted))],
        intents: vec![IntentRecord {
            time: MORNING + 6_980,
            intent: intent.clone(),
            created: None,
            outcome: Some("done: restarted".to_owned()),
            resolved: Some(MORNING + 7_180),
        }],
        acknowledged: Some(Acknowledged { time: MORNING + 9_000, by: "uid 1000 (ann)".to_owned() }),
    };
    let hung = Decision {
        service: None,
        verdict: Verdict::Hung,
        facts: Facts {
            instance: Some(InstanceState::Active),
            channel: ChannelFact::Dead(ChannelFailure::TimedOut),
            ..decision(0, Rung::RebootHard, Answer::Admitted).facts
        },
        ..decision(9, Rung::RebootHard, Answer::Refused(Refusal::Budget))
    };
    let open = Incident {
        incident: IncidentId(4),
        closed: None,
        events: vec![with(event(20, 6_900, EventKind::IncidentOpened, "hung"), |event| event.service = None)],
        decisions: vec![(MORNING + 7_000, hung)],
        intents: vec![IntentRecord {
            time: MORNING + 8_000,
            intent: Intent { action: ActionId(10), ..intent },
            created: None,
            outcome: None,
            resolved: None,
        }],
        ..closed.clone()
    };
    expect_file!["snapshots/why.txt"].assert_eq(&why(&Why { incidents: vec![open, closed] }, &reader()));
}
