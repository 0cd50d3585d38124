//! What a scraper sees, and that Prometheus's own tool accepts it.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use cpe_proto::api::{AssemblyStatus, ServiceStatus};
use cpe_proto::definition::{CommandLine, UnitName};
use cpe_proto::id::Name;
use cpe_proto::observation::{ChannelFailure, UnitState};
use cpe_proto::time::Timestamp;
use expect_test::expect_file;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::vital::Vital;

fn event(kind: EventKind, assembly: Option<&str>, service: Option<&str>) -> Event {
    Event {
        at: Timestamp::ZERO,
        kind,
        assembly: assembly.map(|name| Name::parse(name).unwrap()),
        service: service.map(|name| Name::parse(name).unwrap()),
        from: None,
        to: None,
        reason: "".into(),
        incident: None,
        action: None,
        rung: None,
    }
}

fn systemd() -> Check {
    Check::Systemd(UnitName::parse("nginx.service").unwrap())
}

fn command() -> Check {
    Check::Command(CommandLine::parse("true").unwrap())
}

fn plugin() -> Check {
    Check::Nagios(CommandLine::parse("check_disk").unwrap())
}

/// One service in one assembly, about to be probed.
fn shop() -> DeployableStatus {
    let name = |text| Name::parse(text).unwrap();
    let service = ServiceStatus {
        paused: None,
        name: name("nginx"),
        state: State::Starting,
        since: 0,
        reason: "".into(),
        waits: Vec::new(),
    };
    let assembly = AssemblyStatus {
        paused: None,
        name: name("web"),
        state: State::Starting,
        address: None,
        monitor: "ssh".to_owned(),
        maintenance: false,
        since: 0,
        reason: "".into(),
        drift: None,
        domains: Vec::new(),
        waits: Vec::new(),
        services: vec![service],
    };
    let mode = "act".to_owned();
    DeployableStatus {
        name: name("shop"),
        state: State::Starting,
        mode,
        maintenance: false,
        paused: None,
        parked: None,
        assemblies: vec![assembly],
    }
}

/// A busy night.
fn night() -> Metrics {
    let metrics = Metrics::new();
    let unit = |load: &str, active: &str| {
        Observation::Unit(UnitState { load: load.into(), active: active.into(), sub: "dead".into() })
    };
    for observation in [
        unit("loaded", "active"),
        unit("loaded", "failed"),
        unit("masked", "inactive"),
        unit("loaded", "activating"),
    ] {
        metrics.probed(Some(&systemd()), &observation, Duration::from_millis(3));
    }
    metrics.probed(None, &Observation::Alive, Duration::from_micros(400));
    metrics.probed(None, &Observation::Channel(ChannelFailure::TimedOut, "".into()), Duration::from_secs(5));
    metrics.probed(Some(&command()), &Observation::DeadlinePassed, Duration::from_secs(5));
    metrics.probed(Some(&plugin()), &Observation::Exited(1, "".into()), Duration::from_secs(1));
    metrics.probed(Some(&plugin()), &Observation::Exited(3, "".into()), Duration::from_secs(1));
    let name = |text| Name::parse(text).unwrap();
    let printed = cpe_monitor::perfdata::read("OK | /=26MB;30 'a \"b\\'=1.5% x=y", false);
    metrics.measured((name("shop"), name("web"), name("disk")), printed.measures, printed.dropped);
    metrics.lateness(Duration::from_millis(17));
    metrics.refused(Refusal::Budget);
    let _ = metrics.loaded(&shop());
    let moved = |from, to| Event {
        from: Some(from),
        to: Some(to),
        ..event(EventKind::StateChanged, Some("web"), Some("nginx"))
    };
    metrics.observe_event(&moved(State::Starting, State::Healthy));
    metrics.observe_event(&moved(State::Healthy, State::Failed));
    metrics.observe_event(&event(EventKind::IncidentOpened, Some("web"), None));
    metrics.observe_event(&event(EventKind::IncidentOpened, Some("web"), None));
    metrics.observe_event(&event(EventKind::IncidentClosed, Some("web"), None));
    let recovery = |kind, rung, to| Event { rung: Some(rung), to, ..event(kind, Some("web"), None) };
    metrics.observe_event(&recovery(EventKind::RecoveryStarted, Rung::RebootHard, None));
    metrics.observe_event(&recovery(EventKind::RecoveryFinished, Rung::RebootHard, Some(State::Healthy)));
    metrics.observe_event(&recovery(EventKind::RecoveryFinished, Rung::RestartService, Some(State::Failed)));
    metrics.journal_durable.observe(0.004);
    metrics
}

#[test]
fn a_scraper_sees_what_was_counted() {
    let text = night().exposition().unwrap();
    // The process's own figures differ each time; what is zero is not shown here.
    let shown =
        |line: &&str| !line.starts_with("process_") && (line.starts_with('#') || !line.ends_with(" 0"));
    let shown: Vec<&str> = text.lines().filter(shown).collect();
    expect_file!["snapshots/exposition.txt"].assert_eq(&(shown.join("\n") + "\n"));
    for figure in
        ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds", "threads"]
    {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("process_{figure} ")))
            .unwrap_or_else(|| panic!("{figure}"));
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value > 0.0 || figure == "cpu_seconds_total", "{line}");
    }
}

#[test]
fn what_is_not_managed_any_more_is_in_no_state() {
    let metrics = Metrics::new();
    let tally = metrics.loaded(&shop());
    metrics.unloaded(&tally);
    let text = metrics.exposition().unwrap();
    let states: Vec<&str> = text.lines().filter(|line| line.contains("{state=")).collect();
    assert_eq!(states.len(), 3 * State::ALL.len());
    assert!(states.iter().all(|line| line.ends_with(" 0")), "{states:?}");
}

#[test]
fn the_number_of_series_does_not_grow_with_what_is_watched() {
    let metrics = night();
    let series = |metrics: &Metrics| {
        metrics.exposition().unwrap().lines().filter(|line| !line.starts_with('#')).count()
    };
    let before = series(&metrics);
    for number in 0..1_000 {
        let name = format!("machine-{number}");
        let moved = event(EventKind::StateChanged, Some(&name), Some(&name));
        metrics.observe_event(&Event { from: Some(State::Healthy), to: Some(State::Suspected), ..moved });
        metrics.probed(None, &Observation::Alive, Duration::from_millis(1));
    }
    assert_eq!(series(&metrics), before);
    assert!(before < 300, "{before}");
}

#[test]
fn prometheus_accepts_the_exposition() {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed for this test: install Debian's package prometheus");
    promtool.stdin.take().unwrap().write_all(night().exposition().unwrap().as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr) + String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}");
}

#[tokio::test]
async fn metrics_are_served_on_a_listener_of_their_own() {
    let address = serve("127.0.0.1:0".parse().unwrap(), Arc::new(night()), &Vital::new().0).await.unwrap();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: cpe\r\nConnection: close\r\n\r\n";
    connection.write_all(request).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("cpe_incidents_open 1\n"), "{answer}");
    let taken = serve(address, Arc::new(Metrics::new()), &Vital::new().0).await.unwrap_err();
    assert!(taken.to_string().contains(&address.to_string()), "{taken}");
}
