//! The journal's promises, each as the incident in which it matters. The crash with SIGKILL is in `tests/journal_crash.rs`.

use std::sync::Arc;
use std::time::Duration;

use cpe_proto::api::Intent;
use cpe_proto::decision::{Answer, ChannelFact, Decision, Facts, Value, Verdict};
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::rung::Rung;
use cpe_proto::time::Timestamp;
use tempfile::TempDir;

use super::*;

fn settings(dir: &TempDir) -> Settings {
    Settings { state_dir: dir.path().to_owned(), keep: Duration::from_secs(90 * 86_400), max_size: 2 << 30 }
}

fn open(dir: &TempDir) -> Journal {
    Journal::open(&settings(dir), &Arc::new(Metrics::new())).unwrap()
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn event(kind: EventKind, incident: Option<u64>, reason: &str) -> Event {
    Event {
        at: clock::now(),
        kind,
        assembly: Some(name("web")),
        service: Some(name("nginx")),
        from: None,
        to: None,
        reason: reason.into(),
        incident: incident.map(IncidentId),
        action: None,
        rung: None,
    }
}

fn intent(action: u64) -> Intent {
    Intent {
        deployable: name("shop"),
        action: ActionId(action),
        incident: Some(IncidentId(1)),
        assembly: name("web"),
        service: Some(name("nginx")),
        act: "restart-service".to_owned(),
        rung: Some(Rung::RestartService),
    }
}

fn decision(action: u64, answer: Answer) -> Box<Decision> {
    Box::new(Decision {
        at: clock::now(),
        incident: IncidentId(1),
        action: ActionId(action),
        assembly: name("web"),
        service: Some(name("nginx")),
        rung: Rung::RestartService,
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
        evidence: vec![Value { name: "nginx".into(), value: "unit inactive, 0.5 s ago".into() }],
        gates: vec![Value { name: "in flight, deployable shop".into(), value: "0 of 1".into() }],
        answer,
    })
}

/// A journal as version 1 left it, with a maintenance.
fn of_version_1(dir: &TempDir) {
    let connection = rusqlite::Connection::open(dir.path().join("journal.sqlite")).unwrap();
    connection.execute_batch(schema::FIRST).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    connection
        .execute_batch("INSERT INTO maintenance VALUES ('shop', 99, 'new disks', 'uid 0 (root)')")
        .unwrap();
}

#[tokio::test]
async fn a_journal_of_version_1_is_brought_to_today_and_keeps_what_it_holds() {
    let dir = TempDir::new().unwrap();
    of_version_1(&dir);
    let journal = open(&dir);
    assert_eq!(journal.start_state().maintenance[0].reason, "new disks");
    assert_eq!(journal.start_state().pauses, []);
    journal.close().await.unwrap();
}

#[tokio::test]
async fn pauses_and_acknowledgements_outlive_a_restart_until_they_end() {
    let dir = TempDir::new().unwrap();
    let pause = |name: &str| Pause {
        name: name.to_owned(),
        since: 7,
        reason: "storm".to_owned(),
        by: "uid 0 (root)".to_owned(),
    };
    let journal = open(&dir);
    journal.set_pause(pause("")).await.unwrap();
    journal.set_pause(pause("shop")).await.unwrap();
    journal.event(Some(name("shop")), event(EventKind::IncidentOpened, Some(1), "unit inactive"));
    journal.acknowledge(name("shop"), IncidentId(1), "uid 0 (root)").await.unwrap();
    journal.end_pause("", "uid 0 (root)").await.unwrap();
    let open_ones = |text: &str| journal.open_incidents(WhyQuery::parse(text).unwrap());
    assert_eq!(open_ones("shop/web").await.unwrap(), [(name("shop"), IncidentId(1))]);
    assert_eq!(open_ones("shop#2").await.unwrap(), []);
    journal.close().await.unwrap();
    drop(journal);
    let journal = open(&dir);
    assert_eq!(journal.start_state().pauses, [pause("shop")]);
    assert!(journal.start_state().acknowledged.contains(&(name("shop"), IncidentId(1))));
    journal.event(Some(name("shop")), event(EventKind::IncidentClosed, Some(1), "healthy"));
    journal.close().await.unwrap();
    drop(journal);
    assert!(open(&dir).start_state().acknowledged.is_empty(), "its incident is closed");
}

/// Who knows of an incident before anybody was told of it is told nothing more: for the audit that is no silence.
#[tokio::test]
async fn an_audit_counts_whoever_acknowledged_an_incident_as_told() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let reader = rusqlite::Connection::open(dir.path().join("journal.sqlite")).unwrap();
    let before = axis::now(&reader, &clock::Boot::this()).unwrap();
    journal.event(Some(name("shop")), event(EventKind::IncidentOpened, Some(1), "unit inactive"));
    journal.acknowledge(name("shop"), IncidentId(1), "uid 0 (root)").await.unwrap();
    let records = records(&dir.path().join("journal.sqlite"), Duration::from_secs(60)).unwrap();
    let [told] = records.notifications.as_slice() else { panic!("{:?}", records.notifications) };
    assert_eq!((told.deployable.as_str(), told.incident), ("shop", Some(IncidentId(1))));
    // The journal's time goes on from its opening, and is rounded for itself.
    assert!(told.time + 1 >= before, "{} {before}", told.time);
    journal.close().await.unwrap();
}

fn all() -> EventQuery {
    EventQuery { name: None, after_seq: 0, since: 0 }
}

#[tokio::test]
async fn an_incident_is_told_with_its_events_decisions_and_actions() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    journal.event(Some(name("shop")), event(EventKind::IncidentOpened, Some(1), "unit inactive"));
    journal.decision(name("shop"), decision(7, Answer::Admitted));
    journal.intend(intent(7)).await.unwrap();
    journal.resolve(&name("shop"), ActionId(7), "done: restarted");
    journal.event(Some(name("shop")), event(EventKind::IncidentClosed, Some(1), "healthy after 5.2 s"));
    journal.event(Some(name("other")), event(EventKind::StateChanged, None, "unrelated"));
    journal.set_desired(name("shop"), Desired::Started).await.unwrap();

    let told = journal.why(WhyQuery::Name("shop/web/nginx".parse().unwrap())).await.unwrap();
    assert_eq!(told.len(), 1);
    let kinds: Vec<_> = told[0].events.iter().map(|record| record.event.kind).collect();
    assert_eq!(kinds, [EventKind::IncidentOpened, EventKind::IncidentClosed]);
    assert_eq!(told[0].decisions.len(), 1);
    assert_eq!(told[0].intents[0].outcome.as_deref(), Some("done: restarted"));
    assert!(told[0].closed.is_some());
    let same = journal.why(WhyQuery::Incident(name("shop"), IncidentId(1))).await.unwrap();
    assert_eq!(same, told);
    assert!(journal.why(WhyQuery::Name("shop/db".parse().unwrap())).await.unwrap().is_empty());
}

#[tokio::test]
async fn events_are_numbered_without_gaps_and_read_by_name_and_number() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let mut live = journal.subscribe();
    for number in 0..1200 {
        let whose = if number % 2 == 0 { "shop" } else { "wiki" };
        journal.event(Some(name(whose)), event(EventKind::StateChanged, None, &format!("event {number}")));
    }
    journal.set_desired(name("shop"), Desired::Started).await.unwrap();

    let first = journal.events(all()).await.unwrap();
    assert_eq!(first.len(), EventQuery::PAGE);
    assert!(first.iter().zip(1..).all(|(record, seq)| record.seq == seq));
    let rest = journal.events(EventQuery { after_seq: 1198, ..all() }).await.unwrap();
    assert_eq!(rest.len(), 2);
    let wiki = EventQuery { name: Some("w?ki".parse().unwrap()), after_seq: 1190, since: 0 };
    assert_eq!(journal.events(wiki).await.unwrap().len(), 5);
    assert_eq!(journal.tail(Some("shop".parse().unwrap()), 2).await.unwrap(), 1196);
    for seq in 1..=1200 {
        assert_eq!(live.recv().await.unwrap().seq, seq, "subscribers see the same, in order");
    }
}

#[tokio::test]
async fn what_an_operator_ordered_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    let maintenance =
        |name: &str| Maintenance { name: name.into(), until: 17, reason: "disk".into(), by: "uid 0".into() };
    let journal = open(&dir);
    journal.set_maintenance(maintenance("shop/web")).await.unwrap();
    journal.set_maintenance(maintenance("shop")).await.unwrap();
    journal.end_maintenance("shop", "uid 0 (root)").await.unwrap();
    journal.set_desired(name("shop"), Desired::Started).await.unwrap();
    journal.set_desired(name("shop"), Desired::Stopped).await.unwrap();
    journal.close().await.unwrap();
    drop(journal);

    let journal = open(&dir);
    assert_eq!(journal.start_state().maintenance, [maintenance("shop/web")]);
    let ended: Vec<&str> = journal.start_state().maintenance_ended.keys().map(String::as_str).collect();
    assert_eq!(ended, ["shop"], "a person did");
    assert_eq!(journal.start_state().desired.get(&name("shop")), Some(&Desired::Stopped));
}

/// A start would be the opposite of what may have been meant: nobody starts anything on a word that is not understood.
#[tokio::test]
async fn a_power_off_survives_a_restart_and_an_order_in_an_unknown_word_is_not_taken_for_a_start() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    journal.set_desired(name("shop"), Desired::PoweredOff).await.unwrap();
    journal.close().await.unwrap();
    drop(journal);
    let journal = open(&dir);
    assert_eq!(journal.start_state().desired.get(&name("shop")), Some(&Desired::PoweredOff));
    journal.close().await.unwrap();
    drop(journal);

    let file = rusqlite::Connection::open(dir.path().join("journal.sqlite")).unwrap();
    file.execute("UPDATE desired SET state = 'hibernated'", []).unwrap();
    drop(file);
    let refused = Journal::open(&settings(&dir), &Arc::new(Metrics::new())).unwrap_err();
    let why =
        std::error::Error::source(&refused).map_or(refused.to_string(), |why| format!("{refused}: {why}"));
    assert!(why.contains("hibernated"), "{why}");
}

#[tokio::test]
async fn numbers_are_never_used_twice_and_unfinished_actions_are_known_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    assert_eq!(journal.next_ids(&name("shop")), NextIds::default());
    journal.event(Some(name("shop")), event(EventKind::IncidentOpened, Some(1), "unit inactive"));
    journal.intend(intent(3)).await.unwrap();
    journal.intend(intent(4)).await.unwrap();
    journal.resolve(&name("shop"), ActionId(3), "done");
    let again = journal.intend(intent(4)).await;
    assert_eq!(again, Err(JournalError::Duplicate { deployable: name("shop"), action: ActionId(4) }));
    journal.close().await.unwrap();
    drop(journal);

    let journal = open(&dir);
    assert_eq!(journal.next_ids(&name("shop")), NextIds { action: ActionId(5), incident: IncidentId(2) });
    let unresolved: Vec<_> =
        journal.start_state().unresolved.iter().map(|(_, intent)| intent.action).collect();
    assert_eq!(unresolved, [ActionId(4)]);
    assert_eq!(journal.start_state().open_incidents, [(name("shop"), IncidentId(1))]);
    journal.event(None, event(EventKind::StateChanged, None, "first after the restart"));
    journal.set_desired(name("shop"), Desired::Started).await.unwrap();
    let seqs: Vec<_> = journal.events(all()).await.unwrap().iter().map(|record| record.seq).collect();
    assert_eq!(seqs, [1, 2], "a clean end leaves no gap");
}

#[tokio::test]
async fn a_second_cpe_on_the_same_state_dir_is_refused_and_told_who_has_it() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let refused = Journal::open(&settings(&dir), &Arc::new(Metrics::new())).unwrap_err();
    let message = refused.to_string();
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
    assert!(message.contains("state_dir"), "{message}");
    drop(journal);
    open(&dir);
}

#[tokio::test]
async fn a_journal_of_a_newer_cpe_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    journal.close().await.unwrap();
    drop(journal);
    let file = rusqlite::Connection::open(dir.path().join("journal.sqlite")).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    drop(file);
    let refused = Journal::open(&settings(&dir), &Arc::new(Metrics::new())).unwrap_err();
    assert!(refused.to_string().contains("schema 99"), "{refused}");
}

#[tokio::test]
async fn while_it_cannot_be_written_nothing_is_intended_and_events_are_shown_and_written_later() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    journal.intend(intent(1)).await.unwrap();
    // Another program that holds the write lock makes every write fail, as a full disk would.
    let other = rusqlite::Connection::open(dir.path().join("journal.sqlite")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut writable = journal.writable();
    let mut live = journal.subscribe();

    let refused = journal.intend(intent(2)).await;
    assert!(matches!(refused, Err(JournalError::NotWritable(_))), "{refused:?}");
    writable.wait_for(|now| matches!(now, Writable::No(_))).await.unwrap();
    journal.event(Some(name("shop")), event(EventKind::StateChanged, None, "seen meanwhile"));
    let seen = live.recv().await.unwrap();
    assert!(!journal.health().writable);

    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    writable.wait_for(|now| *now == Writable::Yes).await.unwrap();
    journal.intend(intent(2)).await.expect("a refused intent was never begun, so its number is free");
    let kept = journal.events(all()).await.unwrap();
    let same = |record: &EventRecord| record.seq == seen.seq && record.event.reason == seen.event.reason;
    assert!(kept.iter().any(same), "what was shown is written, with the same number");
    assert!(
        kept.iter().any(|record| record.event.reason.contains("cannot be written")),
        "and that it failed"
    );
}

#[test]
fn the_oldest_is_deleted_by_age_and_size_and_an_open_incident_is_kept() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("journal.sqlite");
    let mut store = store::Store::open(&path).unwrap();
    let record = |seq: u64, incident: Option<u64>, kind| {
        Arc::new(EventRecord {
            seq,
            time: seq * 1000,
            deployable: Some(name("shop")),
            event: event(kind, incident, &"x".repeat(500)),
        })
    };
    let mut records =
        vec![record(1, Some(1), EventKind::IncidentOpened), record(2, Some(2), EventKind::IncidentOpened)];
    records.push(record(3, Some(2), EventKind::IncidentClosed));
    records.extend((4..=9000).map(|seq| record(seq, None, EventKind::StateChanged)));
    let entries: Vec<_> = records.iter().map(|record| (clock::now(), store::Entry::Event(record))).collect();
    store.write(&entries, 9000, store::Durability::Synced).unwrap();
    let count = |store: &store::Store, sql: &str| -> i64 {
        store.connection.query_row(sql, [], |row| row.get(0)).unwrap()
    };

    let by_age = Settings { keep: Duration::from_secs(1000), max_size: u64::MAX, ..settings(&dir) };
    let now = 2_000_000;
    while retention::pass(&mut store.connection, &by_age, now).unwrap() == retention::Progress::More {}
    assert_eq!(
        count(&store, "SELECT count(*) FROM events WHERE time < 1000000"),
        1,
        "that of the open incident"
    );
    assert_eq!(count(&store, "SELECT count(*) FROM incidents"), 1);
    assert_eq!(count(&store, "SELECT count(*) FROM events WHERE time >= 1000000"), 8001);

    let by_size = Settings { keep: Duration::MAX, max_size: 1 << 20, ..settings(&dir) };
    while retention::pass(&mut store.connection, &by_size, now).unwrap() == retention::Progress::More {}
    let pages = count(&store, "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()");
    assert!(pages <= 2 << 20, "{pages} bytes are left");
    assert_eq!(
        count(&store, "SELECT seq FROM events ORDER BY seq LIMIT 1"),
        1,
        "the open incident's event is still there"
    );
    assert_eq!(count(&store, "SELECT max(seq) FROM events"), 9000, "the newest are kept");
}

/// Maintenance at 10:00, at 10:01 somebody sets the clock two hours ahead, maintenance ends, the clock is set back, and at 10:03 something
/// is restarted: by the wall clock in maintenance.
#[test]
fn a_clock_that_is_set_ahead_and_back_gives_no_finding() {
    const TEN: u64 = 1_795_000_000_000;
    const SET: u64 = 2 * 3_600_000;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("journal.sqlite");
    let mut store = store::Store::open(&path).unwrap();
    let at = |seconds: u64| Timestamp::from_boot(Duration::from_secs(1000 + seconds));
    let told = |seq: u64, seconds: u64, set: u64, kind, reason: &str| {
        let (time, event) = (TEN + seconds * 1000 + set, event(kind, Some(1), reason));
        let event = Event { service: None, incident: None, ..event };
        let record = EventRecord { seq, time, deployable: Some(name("shop")), event };
        (at(seconds), Arc::new(record))
    };
    let on = told(1, 0, 0, EventKind::MaintenanceChanged, "on: new disks");
    let off = told(2, 60, SET, EventKind::MaintenanceChanged, "off: by order");
    let mut opened = told(3, 120, 0, EventKind::IncidentOpened, "unit inactive");
    let event = Event { incident: Some(IncidentId(1)), ..opened.1.event.clone() };
    opened.1 = Arc::new(EventRecord { event, ..(*opened.1).clone() });
    let decided =
        |time| Record::Decision { time, deployable: name("shop"), decision: decision(1, Answer::Admitted) };
    let begun = |time| Record::Intent { time, intent: Box::new(intent(1)) };
    let wall = TEN + 180_000;
    let (decided, begun) = (decided(wall), begun(wall + 5));
    let entries = [
        (on.0, store::Entry::Event(&on.1)),
        (off.0, store::Entry::Event(&off.1)),
        (opened.0, store::Entry::Event(&opened.1)),
        (at(180), store::Entry::Other(&decided)),
        (at(180), store::Entry::Other(&begun)),
    ];
    store.write(&entries, 3, store::Durability::Synced).unwrap();
    let found = || dped::audit::audit(&records(&path, Duration::from_secs(1 << 40)).unwrap());
    assert_eq!(found(), []);
    for table in ["events", "decisions", "intents", "incidents"] {
        store.connection.execute(&format!("UPDATE {table} SET steady = NULL"), []).unwrap();
    }
    assert_eq!(found().len(), 1, "wall times alone say that it was in maintenance: {:?}", found());
}

#[test]
fn the_time_of_a_journal_goes_on_over_a_reboot_with_another_clock() {
    let dir = TempDir::new().unwrap();
    let store = store::Store::open(&dir.path().join("journal.sqlite")).unwrap();
    let connection = &store.connection;
    let at = |seconds: u64| Timestamp::from_boot(Duration::from_secs(seconds));
    let boot = |id: &str, seconds, wall_ms| clock::Boot { id: id.to_owned(), now: at(seconds), wall_ms };
    let first = axis::Axis::open(connection, &boot("a", 50, 1_000_000)).unwrap();
    assert_eq!(first.at(at(60)), 1_010_000, "it begins with the wall clock");
    assert_eq!(axis::Axis::open(connection, &boot("a", 70, 9)).unwrap(), first, "and does not follow it");
    let sql = "INSERT INTO events (seq, time, kind, body, steady) VALUES (1, 5, 'ordered', '{}', ?1)";
    connection.execute(sql, [store::int(first.at(at(90)))]).unwrap();
    assert_eq!(axis::now(connection, &boot("b", 3, 7)).unwrap(), 1_040_000, "a reader after a reboot");
    let second = axis::Axis::open(connection, &boot("b", 10, 2_000)).unwrap();
    assert_eq!(second.at(at(10)), 1_040_001, "after everything that is there");
    assert_eq!(axis::now(connection, &boot("b", 20, 0)).unwrap(), 1_050_001);
    assert_eq!(axis::of_wall(connection, 6).unwrap(), 1_040_001, "a wall time near that record");
}

/// The budget of machine rungs is spent, cpe ends, and somebody sets the clock an hour ahead before it is started again.
#[test]
fn a_clock_that_is_set_while_cpe_is_down_makes_nothing_older_than_it_is() {
    const SET: u64 = 3_600_000;
    let dir = TempDir::new().unwrap();
    let store = store::Store::open(&dir.path().join("journal.sqlite")).unwrap();
    let at = |seconds: u64| Timestamp::from_boot(Duration::from_secs(seconds));
    let boot = |id: &str, seconds, wall_ms| clock::Boot { id: id.to_owned(), now: at(seconds), wall_ms };
    let axis = axis::Axis::open(&store.connection, &boot("a", 50, 10_000_000)).unwrap();
    let (wall, steady) = (10_050_000, axis.at(at(100)));
    let sql = "INSERT INTO guard (one, time, body, steady) VALUES (1, ?1, '{}', ?2)";
    store.connection.execute(sql, [store::int(wall), store::int(steady)]).unwrap();
    let age = |boot: clock::Boot| {
        axis::Axis::open(&store.connection, &boot).unwrap().age(wall, Some(steady), &boot)
    };
    assert_eq!(age(boot("a", 130, wall + 30_000 + SET)), Duration::from_secs(30));
    assert_eq!(age(boot("a", 130, wall - SET)), Duration::from_secs(30), "nor younger");
    assert_eq!(
        age(boot("b", 20, wall + 90_000)),
        Duration::from_secs(90),
        "over a reboot the wall clock says"
    );
    assert_eq!(age(boot("c", 20, wall - SET)), Duration::from_secs(20), "and it is at least as old as that");
    assert_eq!(
        axis.age(wall, None, &boot("a", 130, wall + 5_000)),
        Duration::from_secs(5),
        "an older version's"
    );
}

#[tokio::test]
async fn a_flood_of_events_is_bounded_and_counted_and_does_not_hold_an_intent_up() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let flood = 3 * ROOM_RECORDS;
    for number in 0..flood {
        journal.event(Some(name("shop")), event(EventKind::StateChanged, None, &format!("event {number}")));
    }
    journal.intend(intent(1)).await.unwrap();
    journal.close().await.unwrap();
    let dropped = journal.health().dropped;
    let connection = rusqlite::Connection::open(dir.path().join("journal.sqlite")).unwrap();
    let kept: u64 = connection
        .query_row("SELECT count(*) FROM events WHERE deployable IS NOT NULL", [], |row| row.get::<_, i64>(0))
        .map(i64::unsigned_abs)
        .unwrap();
    assert_eq!(kept + dropped, u64::try_from(flood).unwrap(), "each is either kept or counted as lost");
}

#[tokio::test]
async fn when_the_clock_is_set_back_events_stay_in_the_order_in_which_they_happened() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let mut live = journal.subscribe();
    for (minutes, reason) in [(60, "first"), (5, "second"), (30, "third")] {
        let at = clock::now().after(Duration::from_secs(minutes * 60));
        journal.event(Some(name("shop")), Event { at, ..event(EventKind::StateChanged, None, reason) });
    }
    journal.set_desired(name("shop"), Desired::Started).await.unwrap();
    let kept = journal.events(EventQuery { name: None, after_seq: 0, since: 0 }).await.unwrap();
    let reasons: Vec<&str> = kept.iter().map(|record| &*record.event.reason).collect();
    assert_eq!(reasons, ["first", "second", "third"]);
    assert!(kept[1].time < kept[0].time, "its time is what the clock said");
    for expected in reasons {
        assert_eq!(&*live.recv().await.unwrap().event.reason, expected);
    }
}

#[tokio::test]
async fn a_writer_that_panics_leaves_no_action_possible_and_everybody_who_waits_is_told() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let mut writable = journal.writable();
    assert!(journal.beat().await.is_ok());
    journal.panic();
    assert!(writable.changed().await.is_err(), "who follows it learns that it has ended");
    assert_eq!(journal.intend(intent(1)).await, Err(JournalError::Closed));
    assert_eq!(journal.beat().await, Err(JournalError::Closed));
}

#[tokio::test]
async fn a_creation_is_begun_once_whatever_was_said_of_its_action_since() {
    let dir = TempDir::new().unwrap();
    let (journal, shop) = (open(&dir), name("shop"));
    let begun_before = Err(JournalError::Created { deployable: shop.clone(), action: ActionId(7) });
    assert_eq!(
        journal.create(&shop, ActionId(7)).await,
        begun_before,
        "without an intent nothing is created"
    );
    journal.intend(intent(7)).await.unwrap();
    // As after a crash: the outcome of its first step is not known.
    journal.resolve(&shop, ActionId(7), "not known");
    assert_eq!(journal.create(&shop, ActionId(7)).await, Ok(()));
    assert_eq!(journal.create(&shop, ActionId(7)).await, begun_before);
    journal.close().await.unwrap();
    drop(journal);

    let journal = open(&dir);
    let unresolved: Vec<_> = journal.start_state().unresolved.iter().map(|(_, it)| it.action).collect();
    assert_eq!(unresolved, [ActionId(7)], "its creation is under way, as far as anybody knows");
    assert_eq!(journal.create(&shop, ActionId(7)).await, begun_before);
    let records = records(&dir.path().join("journal.sqlite"), Duration::from_secs(3600)).unwrap();
    assert!(records.intents[0].created.is_some());
}
