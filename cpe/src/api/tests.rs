//! The API over a real socket, asked by the real client; only the fleet behind it is a stand-in.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use cpe_proto::api::{AssemblyStatus, DeployableStatus, Health};
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{IncidentId, Name};
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::UnixStream;

use super::*;
use crate::client::{Client, ClientError, EventsRequest, Place};
use crate::journal::{Desired, Settings};
use crate::metrics::Metrics;
use crate::vital::Vital;

/// Two deployables, and it remembers who ordered what.
#[derive(Default)]
pub(super) struct Fleet {
    orders: Mutex<Vec<(Command, String)>>,
}

impl Fleet {
    pub(super) fn ordered_by(&self) -> Vec<String> {
        self.orders.lock().unwrap().iter().map(|(_, by)| by.clone()).collect()
    }
}

impl Controller for Fleet {
    async fn status(&self, _wanted: &Glob) -> Status {
        let assembly = |name: &str| AssemblyStatus {
            paused: None,
            name: Name::parse(name).unwrap(),
            state: State::Healthy,
            address: None,
            monitor: "ssh".to_owned(),
            maintenance: false,
            since: 0,
            reason: "".into(),
            drift: None,
            domains: Vec::new(),
            waits: Vec::new(),
            services: Vec::new(),
        };
        let deployable = |name: &str| DeployableStatus {
            name: Name::parse(name).unwrap(),
            state: State::Healthy,
            mode: "act".to_owned(),
            maintenance: false,
            paused: None,
            parked: None,
            assemblies: vec![assembly("db"), assembly("web")],
        };
        Status {
            deployables: vec![deployable("shop"), deployable("wiki")],
            paused: None,
            paused_domains: BTreeMap::new(),
        }
    }

    async fn command(&self, command: Command, by: String) -> Result<CommandAnswer, Refused> {
        self.orders.lock().unwrap().push((command.clone(), by));
        match command {
            Command::Start { .. } => Ok(CommandAnswer { message: "started".to_owned() }),
            _ => Err(Refused::conflict("shop recovers as a whole; wait for its end")),
        }
    }

    async fn host_key(&self, name: &str, _jump: bool) -> Result<HostKey, Refused> {
        Err(Refused::conflict(format!("{name}: no key was seen")))
    }

    fn size(&self) -> (usize, usize, usize) {
        (2, 4, 0)
    }
}

struct World {
    dir: TempDir,
    fleet: Arc<Fleet>,
    journal: Journal,
    client: Client,
}

pub(super) fn journal_in(state_dir: PathBuf) -> Journal {
    let settings = Settings { state_dir, keep: Duration::from_secs(86_400), max_size: 1 << 30 };
    Journal::open(&settings, &Arc::new(Metrics::new())).unwrap()
}

async fn world() -> World {
    let dir = TempDir::new().unwrap();
    let journal = journal_in(dir.path().join("state"));
    let fleet = Arc::new(Fleet::default());
    let socket = dir.path().join("api.sock");
    serve(&socket, Arc::clone(&fleet), journal.clone(), &Vital::new().0).await.unwrap();
    World { fleet, journal, client: Client::new(Place::Unix(socket), None), dir }
}

impl World {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    /// A request that the client would never make.
    async fn raw(&self, method: &str, path: &str, body: &'static str) -> (StatusCode, serde_json::Value) {
        let stream = UnixStream::connect(self.socket()).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::builder().method(method).uri(path).header("host", "cpe");
        let answer =
            sender.send_request(request.body(Full::<axum::body::Bytes>::from(body)).unwrap()).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }
}

fn event(deployable: &str, reason: &str) -> (Option<Name>, Event) {
    let event = Event {
        at: Timestamp::ZERO,
        kind: EventKind::IncidentOpened,
        assembly: None,
        service: None,
        from: None,
        to: None,
        reason: reason.into(),
        incident: Some(IncidentId(1)),
        action: None,
        rung: None,
    };
    (Some(Name::parse(deployable).unwrap()), event)
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer.unwrap_err() {
        ClientError::Refused(message) => message,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_status_is_of_what_was_asked_for() {
    let world = world().await;
    assert_eq!(world.client.status(None).await.unwrap().deployables.len(), 2);
    let part = world.client.status(Some("sh*/web")).await.unwrap();
    assert_eq!(part.deployables.len(), 1);
    assert_eq!(part.deployables[0].assemblies.len(), 1);
    let nobody = refused(world.client.status(Some("nobody")).await);
    assert!(nobody.contains("nobody") && nobody.contains("cpe status"), "{nobody}");
}

#[tokio::test]
async fn an_order_is_recorded_with_who_gave_it_as_the_kernel_says() {
    let world = world().await;
    let order = Command::Start { name: "shop".to_owned() };
    assert_eq!(world.client.command(&order).await.unwrap().message, "started");
    let by = world.fleet.orders.lock().unwrap()[0].1.clone();
    let uid = rustix::process::getuid().as_raw();
    assert!(by.starts_with(&format!("uid {uid}")), "{by}");
    let refusal =
        refused(world.client.command(&Command::Stop { name: "shop".to_owned(), power_off: false }).await);
    assert_eq!(refusal, "shop recovers as a whole; wait for its end");

    world.journal.set_desired(Name::parse("shop").unwrap(), Desired::Started).await.unwrap();
    let file = rusqlite::Connection::open(world.dir.path().join("state/journal.sqlite")).unwrap();
    let kept: Vec<(String, String)> = file
        .prepare("SELECT ordered_by, answer FROM commands ORDER BY id")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(kept[0], (by.clone(), "started".to_owned()));
    assert_eq!(kept[1], (by, "refused: shop recovers as a whole; wait for its end".to_owned()));
}

#[tokio::test]
async fn followed_events_are_the_journal_and_then_what_happens_without_a_gap() {
    let world = world().await;
    let tell = |name: &str, reason: String| {
        let (deployable, event) = event(name, &reason);
        world.journal.event(deployable, event);
    };
    for number in 1..=700 {
        tell(if number % 2 == 0 { "shop" } else { "wiki" }, format!("before {number}"));
    }
    world.journal.set_desired(Name::parse("shop").unwrap(), Desired::Started).await.unwrap();
    let request = EventsRequest { name: Some("shop".to_owned()), follow: true, ..EventsRequest::default() };
    let mut followed = world.client.events(&request).await.unwrap();
    for number in (2..=700).step_by(2) {
        assert_eq!(&*followed.next().await.unwrap().unwrap().event.reason, format!("before {number}"));
    }
    for number in 701..=740 {
        tell("shop", format!("live {number}"));
    }
    let mut last = 0;
    for number in 701..=740 {
        let record = followed.next().await.unwrap().unwrap();
        assert_eq!(&*record.event.reason, format!("live {number}"));
        last = record.seq;
    }

    let again = EventsRequest { after_seq: Some(last - 2), ..EventsRequest::default() };
    let mut resumed = world.client.events(&again).await.unwrap();
    assert_eq!(resumed.next().await.unwrap().unwrap().seq, last - 1, "goes on where it was told to");
    assert_eq!(resumed.next().await.unwrap().unwrap().seq, last);
    assert_eq!(resumed.next().await.unwrap(), None, "and ends without follow");
    let newest = EventsRequest { limit: Some(3), ..EventsRequest::default() };
    let mut newest = world.client.events(&newest).await.unwrap();
    assert_eq!(newest.next().await.unwrap().unwrap().seq, last - 2);
}

#[tokio::test]
async fn why_is_asked_by_name_or_by_incident() {
    let world = world().await;
    let (deployable, event) = event("shop", "hung");
    world.journal.event(deployable, event);
    world.journal.set_desired(Name::parse("shop").unwrap(), Desired::Started).await.unwrap();
    let by_name = world.client.why("shop").await.unwrap();
    assert_eq!(by_name.incidents.len(), 1);
    assert_eq!(world.client.why("shop#1").await.unwrap(), by_name);
    assert!(world.client.why("shop#2").await.unwrap().incidents.is_empty());
    assert!(refused(world.client.why("no#name").await).contains("shop#12"));
}

#[tokio::test]
async fn what_makes_no_sense_is_answered_with_what_to_do() {
    let world = world().await;
    let long = Box::leak(format!("{{\"command\":\"{}\"}}", "x".repeat(20_000)).into_boxed_str());
    for (method, path, body, status, says) in [
        ("GET", "/v1/nothing", "", 404, "/v1/status"),
        ("GET", "/v1/status?nam=shop", "", 400, "name"),
        ("GET", "/v1/status?name=../etc", "", 400, "is no name"),
        ("GET", "/v1/events?after_seq=-1", "", 400, "after_seq"),
        ("GET", "/v1/why", "", 400, "incident=deployable#N"),
        ("POST", "/v1/command", "{\"command\":\"destroy\"}", 400, "destroy"),
        ("POST", "/v1/command", "not json", 400, "no command"),
        ("POST", "/v1/command", long, 413, "limit"),
        (
            "POST",
            "/v1/command",
            "{\"command\":\"maintenance_on\",\"name\":\"shop\",\"for_seconds\":0,\"reason\":\"x\"}",
            400,
            "one second",
        ),
        (
            "POST",
            "/v1/command",
            "{\"command\":\"maintenance_on\",\"name\":\"shop\",\"for_seconds\":60,\"reason\":\" \"}",
            400,
            "reason",
        ),
    ] {
        let (answered, answer) = world.raw(method, path, body).await;
        assert_eq!(answered.as_u16(), status, "{method} {path}: {answer}");
        assert!(
            answer["error"].as_str().is_some_and(|error| error.contains(says)),
            "{method} {path}: {answer}"
        );
    }
    assert!(world.fleet.orders.lock().unwrap().is_empty(), "nothing of this reached the fleet");
}

#[tokio::test]
async fn health_says_whether_anything_can_be_done() {
    let world = world().await;
    let (status, answer) = world.raw("GET", "/v1/health", "").await;
    let health: Health = serde_json::from_value(answer).unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!((health.deployables, health.assemblies, health.journal.writable), (2, 4, true));
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_group_and_a_living_one_is_left_alone() {
    let world = world().await;
    let mode = std::fs::metadata(world.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let second =
        serve(&world.socket(), Arc::new(Fleet::default()), world.journal.clone(), &Vital::new().0).await;
    assert!(matches!(second, Err(ServeError::InUse(_))), "{second:?}");
    assert!(world.client.status(None).await.is_ok(), "the first still answers");
}

#[tokio::test]
async fn what_a_dead_cpe_left_is_replaced_and_what_is_no_socket_is_not() {
    let world = world().await;
    let stale = world.dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    serve(&stale, Arc::new(Fleet::default()), world.journal.clone(), &Vital::new().0).await.unwrap();
    assert!(Client::new(Place::Unix(stale), None).status(None).await.is_ok());

    let precious = world.dir.path().join("precious");
    std::fs::write(&precious, "data").unwrap();
    let refused = serve(&precious, Arc::new(Fleet::default()), world.journal.clone(), &Vital::new().0)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("not a socket"), "{refused}");
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "data");
}

#[tokio::test]
async fn without_a_controller_the_client_says_which_socket_was_tried() {
    let missing =
        Client::new(Place::Unix("/nonexistent/api.sock".into()), None).status(None).await.unwrap_err();
    assert!(matches!(missing, ClientError::Unreachable { .. }));
    assert!(missing.to_string().contains("/nonexistent/api.sock"), "{missing}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_reading_is_cut_off_and_told_how_to_go_on() {
    let dir = TempDir::new().unwrap();
    let journal = journal_in(dir.path().into());
    for number in 0..6_000 {
        let (deployable, event) = event("shop", &format!("event {number}"));
        journal.event(deployable, event);
    }
    journal.set_desired(Name::parse("shop").unwrap(), Desired::Started).await.unwrap();
    let wanted = stream::Wanted { name: None, only: None, since: 0, after_seq: 0, follow: true };
    let body = stream::events(journal, wanted);
    // Nobody reads for ten minutes: time stands still while anything works, and jumps when everything waits.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let text = body.collect().await.unwrap().to_bytes();
    let lines: Vec<serde_json::Value> = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let (end, events) = lines.split_last().unwrap();
    assert!(events.len() < 6_000, "{} events were kept for it", events.len());
    assert!(end["error"].as_str().unwrap().contains("cut off"), "{end}");
    assert_eq!(end["after_seq"], events.last().unwrap()["seq"], "the first that is missing comes after that");
}
