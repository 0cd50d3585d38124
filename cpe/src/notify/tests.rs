//! What reaches a person, and what does not: over a real program and a real HTTP server on loopback.

mod authority;
mod https;
mod mail;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use cpe_proto::config::Webhook;
use cpe_proto::event::{Event, EventKind};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::journal::Settings;
use crate::vital::Vital;

/// A program that runs `script` in that folder.
fn program(dir: &TempDir, script: &str) -> Notify {
    let path = dir.path().join("page");
    std::fs::write(&path, format!("#!/bin/sh\ncd {}\n{script}\n", dir.path().display())).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    Notify { command: Some(path), ..Notify::default() }
}

fn journal(dir: &TempDir) -> Journal {
    let state_dir = dir.path().join("state");
    let settings = Settings { state_dir, keep: Duration::from_secs(86_400), max_size: 1 << 30 };
    Journal::open(&settings, &Arc::new(Metrics::new())).unwrap()
}

/// The journal of the next cpe, as soon as the last one has let go of it.
async fn reopened(dir: &TempDir) -> Journal {
    let mut next = None;
    until("the next cpe has the journal", || {
        let state_dir = dir.path().join("state");
        let settings = Settings { state_dir, keep: Duration::from_secs(86_400), max_size: 1 << 30 };
        next = Journal::open(&settings, &Arc::new(Metrics::new())).ok();
        next.is_some()
    })
    .await;
    next.unwrap()
}

/// What the journal says became of a notification, once it begins so.
async fn outcome(dir: &TempDir, beginning: &str) -> String {
    let path = dir.path().join("state/journal.sqlite");
    let outcomes = || -> rusqlite::Result<Vec<String>> {
        let connection = rusqlite::Connection::open(&path)?;
        let mut query = connection.prepare("SELECT outcome FROM notifications WHERE outcome IS NOT NULL")?;
        query.query_map([], |row| row.get(0))?.collect()
    };
    let mut found = None;
    until(beginning, || {
        found = outcomes().unwrap_or_default().into_iter().find(|it| it.starts_with(beginning));
        found.is_some()
    })
    .await;
    found.unwrap()
}

fn shop() -> Name {
    Name::parse("shop").unwrap()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn incident(kind: EventKind, number: u64) -> Event {
    Event {
        at: clock::now(),
        kind,
        assembly: Some(Name::parse("web").unwrap()),
        service: None,
        from: None,
        to: None,
        reason: "healthy for 15 s".into(),
        incident: Some(IncidentId(number)),
        action: None,
        rung: None,
    }
}

/// A receiver that answers 503 so often first.
#[derive(Clone, Default)]
struct Chat {
    busy: Arc<Mutex<u32>>,
    got: Arc<Mutex<Vec<Value>>>,
}

impl Chat {
    async fn serve(busy: u32) -> (Self, Notify) {
        let chat = Self { busy: Arc::new(Mutex::new(busy)), got: Arc::default() };
        let router = Router::new().route("/hook", post(take)).with_state(chat.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (chat, Notify { webhook: Some(Webhook::parse(&address).unwrap()), ..Notify::default() })
    }

    fn got(&self) -> Vec<Value> {
        self.got.lock().unwrap().clone()
    }
}

async fn take(State(chat): State<Chat>, body: String) -> StatusCode {
    let mut busy = chat.busy.lock().unwrap();
    if *busy > 0 {
        *busy -= 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    chat.got.lock().unwrap().push(serde_json::from_str(&body).unwrap());
    StatusCode::NO_CONTENT
}

fn quick() -> Pace {
    Pace { retry: Retry { first_wait: Duration::from_millis(1), attempts: 6 }, ..Pace::default() }
}

#[tokio::test]
async fn a_webhook_that_is_busy_is_asked_again_and_gets_one_thread_from_opening_to_close() {
    let dir = TempDir::new().unwrap();
    let (chat, notify) = Chat::serve(3).await;
    let journal = journal(&dir);
    let metrics = Arc::new(Metrics::new());
    let notifier = Notifier::with_pace(notify, metrics, journal.clone(), quick(), &Vital::new().0);
    journal.event(Some(shop()), incident(EventKind::IncidentOpened, 3));
    journal.event(Some(shop()), incident(EventKind::IncidentOpened, 4));
    notifier.notify(&shop(), Some(IncidentId(3)), "shop/web is exhausted");
    until("it is told", || chat.got().len() == 1).await;
    journal.event(Some(shop()), incident(EventKind::IncidentClosed, 4));
    journal.event(Some(shop()), incident(EventKind::IncidentClosed, 3));
    until("its end is told", || chat.got().len() == 2).await;
    let got = chat.got();
    assert_eq!(got[0]["incident"], "shop#3");
    assert_eq!(got[0]["state"], "open");
    assert_eq!(got[0]["message"], "shop/web is exhausted");
    assert_eq!(got[1]["incident"], "shop#3", "of the other nobody was told, so its end is no news");
    assert_eq!(got[1]["state"], "closed");
    assert_eq!(got[1]["message"], "shop/web: over: healthy for 15 s");
}

#[tokio::test]
async fn the_same_state_is_told_once_also_by_the_next_cpe_and_what_is_acknowledged_never_again() {
    let dir = TempDir::new().unwrap();
    let (chat, notify) = Chat::serve(0).await;
    let metrics = Arc::new(Metrics::new());
    let first = journal(&dir);
    first.event(Some(shop()), incident(EventKind::IncidentOpened, 3));
    let notifier =
        Notifier::with_pace(notify.clone(), Arc::clone(&metrics), first.clone(), quick(), &Vital::new().0);
    notifier.notify(&shop(), Some(IncidentId(3)), "shop/web: unreachable for 5 min");
    notifier.notify(&shop(), Some(IncidentId(3)), "shop/web: unreachable for 10 min");
    notifier.notify(&shop(), None, "the journal is slow");
    until("two are told", || metrics.notifications.sent.get() == 2).await;
    assert_eq!(chat.got()[1]["message"], "the journal is slow");
    drop(notifier);
    first.close().await.unwrap();
    // The tasks of the first end with their last handle; then its lock is free.
    drop(first);
    let second = reopened(&dir).await;
    let notifier = Notifier::with_pace(notify, metrics, second.clone(), quick(), &Vital::new().0);
    notifier.notify(&shop(), Some(IncidentId(3)), "shop/web: unreachable for 5 min");
    notifier.notify(&shop(), Some(IncidentId(3)), "shop/web is exhausted");
    until("the new state is told", || chat.got().len() == 3).await;
    assert_eq!(chat.got()[2]["message"], "shop/web is exhausted");
    notifier.acknowledge(&shop(), IncidentId(3));
    notifier.notify(&shop(), Some(IncidentId(3)), "shop/web: recovery is refused");
    second.event(Some(shop()), incident(EventKind::IncidentClosed, 3));
    notifier.notify(&shop(), None, "after all that");
    until("what comes after is told", || chat.got().len() == 4).await;
    assert_eq!(chat.got()[3]["message"], "after all that");
}

/// What the outbox says: ids with their channels.
fn unsent(dir: &TempDir) -> Vec<(String, String)> {
    let connection = rusqlite::Connection::open(dir.path().join("state/journal.sqlite")).unwrap();
    let mut query = connection.prepare("SELECT id, channel FROM outbox ORDER BY number").unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn what_was_not_sent_when_cpe_ended_is_sent_by_the_next_under_the_same_id_and_over_that_channel_only() {
    let dir = TempDir::new().unwrap();
    // Its webhook is busy for longer than this cpe lives; its program takes the notification at once.
    let (chat, busy) = Chat::serve(u32::MAX).await;
    let page = program(&dir, "cat >> paged; echo >> paged");
    let notify = Notify { command: page.command.clone(), ..busy };
    let pace = Pace { retry: Retry { first_wait: Duration::from_secs(600), attempts: 6 }, ..quick() };
    let first = journal(&dir);
    first.event(Some(shop()), incident(EventKind::IncidentOpened, 3));
    let metrics = Arc::new(Metrics::new());
    let vital = Vital::new().0;
    let notifier = Notifier::with_pace(notify.clone(), Arc::clone(&metrics), first.clone(), pace, &vital);
    notifier.notify(&shop(), Some(IncidentId(3)), "shop/web is exhausted");
    until("one channel was told", || metrics.notifications.sent.get() == 1).await;
    until("the other was tried", || *chat.busy.lock().unwrap() < u32::MAX).await;
    first.close().await.unwrap();
    let left = unsent(&dir);
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].0.starts_with("shop#3-") && left[0].1 == "webhook", "{left:?}");

    // The next one, in a folder of its own: this process still holds the lock of the first.
    let next = TempDir::new().unwrap();
    let state = next.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
    let kept = rusqlite::Connection::open(dir.path().join("state/journal.sqlite")).unwrap();
    kept.execute("VACUUM INTO ?1", [state.join("journal.sqlite").to_str().unwrap()]).unwrap();
    *chat.busy.lock().unwrap() = 0;
    let second = journal(&next);
    let metrics = Arc::new(Metrics::new());
    let notifier = Notifier::with_pace(notify, Arc::clone(&metrics), second.clone(), quick(), &vital);
    until("it is told", || metrics.notifications.sent.get() == 1).await;
    let got = chat.got();
    assert_eq!((got.len(), &got[0]["message"]), (1, &"shop/web is exhausted".into()));
    assert_eq!(got[0]["id"], *left[0].0);
    assert_eq!(std::fs::read_to_string(dir.path().join("paged")).unwrap().lines().count(), 1);
    // It was told, and that state of it never again.
    notifier.notify(&shop(), Some(IncidentId(3)), "shop/web is exhausted");
    notifier.notify(&shop(), None, "after it");
    until("what comes after is told", || chat.got().len() == 2).await;
    assert_eq!(chat.got()[1]["message"], "after it");
    until("both ways", || metrics.notifications.sent.get() == 3).await;
    second.close().await.unwrap();
    assert_eq!(unsent(&next), []);
}

#[tokio::test]
async fn a_flood_is_told_in_part_and_the_rest_as_one_digest() {
    let dir = TempDir::new().unwrap();
    let (chat, notify) = Chat::serve(0).await;
    let pace = Pace { burst: 2, every: Duration::from_millis(700), ..quick() };
    let notifier =
        Notifier::with_pace(notify, Arc::new(Metrics::new()), journal(&dir), pace, &Vital::new().0);
    for number in 1..=60 {
        notifier.notify(&shop(), Some(IncidentId(number)), "shop/web is exhausted");
    }
    let digest = || chat.got().into_iter().find(|got| got["state"] == "digest");
    until("a digest is told", || digest().is_some()).await;
    let digest = digest().unwrap();
    let told = chat.got().iter().filter(|got| got["state"] == "open").count();
    assert!((2..60).contains(&told), "{told}");
    let more = digest["message"].as_str().unwrap().split(' ').next().unwrap().parse::<usize>().unwrap();
    assert!(more >= 1 && more + told <= 60, "{digest}");
    assert_eq!(digest["messages"].as_array().unwrap().len(), more.min(50));
}

#[tokio::test]
async fn without_a_way_to_a_person_it_is_recorded_that_nobody_was_told() {
    let dir = TempDir::new().unwrap();
    let kept = journal(&dir);
    let nobody = Notifier::new(Notify::default(), Arc::new(Metrics::new()), kept.clone(), &Vital::new().0);
    nobody.notify(&shop(), Some(IncidentId(1)), "shop/web is exhausted");
    let path = dir.path().join("state/journal.sqlite");
    let outcome = || {
        let connection = rusqlite::Connection::open(&path).ok()?;
        connection
            .query_row("SELECT outcome FROM notifications", [], |row| row.get::<_, Option<String>>(0))
            .ok()?
    };
    until("it is recorded", || outcome().is_some()).await;
    assert_eq!(outcome().unwrap(), "nobody is configured to be told");
}

#[tokio::test]
async fn a_person_is_told_as_json_one_at_a_time_in_order() {
    let dir = TempDir::new().unwrap();
    let metrics = Arc::new(Metrics::new());
    let script = "mkdir busy || exit 1; cat >> told; echo >> told; rmdir busy";
    let notifier = Notifier::new(program(&dir, script), Arc::clone(&metrics), journal(&dir), &Vital::new().0);
    notifier.notify(&shop(), Some(IncidentId(3)), "web is exhausted");
    notifier.notify(&shop(), None, "second");
    until("both are sent", || metrics.notifications.sent.get() == 2).await;
    let told = std::fs::read_to_string(dir.path().join("told")).unwrap();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told[0]["incident"], "shop#3");
    assert_eq!(told[0]["message"], "web is exhausted");
    assert_eq!(told[1]["message"], "second");
    assert_eq!(metrics.notifications.failed.get(), 0);
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_all_that_it_started_and_the_next_is_told() {
    let dir = TempDir::new().unwrap();
    let metrics = Arc::new(Metrics::new());
    let script = "[ -e child ] && exit 0; sleep 600 & echo $! > child; wait";
    let notify = program(&dir, script);
    let notifier = {
        let pace = Pace { program: Duration::from_secs(2), ..Pace::default() };
        Notifier::with_pace(notify, Arc::clone(&metrics), journal(&dir), pace, &Vital::new().0)
    };
    notifier.notify(&shop(), None, "first");
    notifier.notify(&shop(), None, "second");
    until("the second is sent", || metrics.notifications.sent.get() == 1).await;
    assert_eq!(metrics.notifications.failed.get(), 1);
    let child = std::fs::read_to_string(dir.path().join("child")).unwrap();
    // Gone, or a zombie that nobody has collected yet.
    let stat = format!("/proc/{}/stat", child.trim());
    until("its child is dead", || !std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")))
        .await;
}

#[tokio::test]
async fn a_program_that_fails_or_is_missing_is_counted_and_blocks_nobody() {
    let dir = TempDir::new().unwrap();
    let metrics = Arc::new(Metrics::new());
    let journal = journal(&dir);
    let script = "cat > /dev/null; echo no modem >&2; exit 7";
    let notifier =
        Notifier::new(program(&dir, script), Arc::clone(&metrics), journal.clone(), &Vital::new().0);
    notifier.notify(&shop(), None, "first");
    until("it has failed", || metrics.notifications.failed.get() == 1).await;
    let nowhere = Notify { command: Some("/nonexistent".into()), ..Notify::default() };
    let missing = Notifier::new(nowhere, Arc::clone(&metrics), journal, &Vital::new().0);
    missing.notify(&shop(), None, "first");
    until("it has failed", || metrics.notifications.failed.get() == 2).await;
}

#[tokio::test]
async fn what_the_queue_cannot_hold_is_counted() {
    let dir = TempDir::new().unwrap();
    let metrics = Arc::new(Metrics::new());
    let notifier =
        Notifier::new(program(&dir, "cat > /dev/null"), Arc::clone(&metrics), journal(&dir), &Vital::new().0);
    // Nothing is taken out of the queue before this task waits.
    for _ in 0..QUEUE + 10 {
        notifier.notify(&shop(), None, "again");
    }
    assert_eq!(metrics.notifications.dropped.get(), 10);
}
