//! cpe's own SSH monitor against the live fleet, for each verb of a machine: what one sends the other understands, and what happens
//! to a machine is seen as what it is. This keeps both ends of the resident shell's protocol in step.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails by panicking")]

use std::time::Duration;

use cpe_monitor::ssh::{
    Act, ActError, Answer, Deed, Endpoint, Identity, Monitor, Probe, ProbeRequest, ServiceAct, Session,
    Settings, Subject,
};
use cpe_proto::definition::{Check, CommandLine, ProcessName, UnitName};
use cpe_proto::id::ProbeId;
use cpe_proto::observation::{ChannelFailure, Observation};
use cpe_sim::live::{Behaviour, Command, Fleet, FleetSettings, Machine, MachineSpec, UnitSpec};
use tokio::sync::mpsc;

/// A probe's own deadline.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Far more than anything here takes, back-off of connections included; a wait that is longer is a failure.
const DEADLINE: Duration = Duration::from_secs(20);

/// A fleet of one machine, and cpe's session to it.
struct World {
    fleet: Fleet,
    session: Session,
    monitor: Monitor,
    answers: mpsc::UnboundedReceiver<Answer>,
    next: u64,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new(port: u16) -> Self {
        let units = vec![UnitSpec::new("web.service").listening(80), UnitSpec::new("db.service")];
        let spec = MachineSpec { boot_time: Duration::from_millis(20), ..MachineSpec::new("m", units) };
        let fleet = Fleet::start(FleetSettings { port, ..FleetSettings::new(vec![spec]) }).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (identity, known_hosts) = (folder.path().join("identity"), folder.path().join("known_hosts"));
        std::fs::write(&identity, fleet.client_key_openssh()).unwrap();
        std::fs::set_permissions(&identity, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&known_hosts, fleet.known_hosts()).unwrap();
        let settings = Settings {
            user: fleet.user().to_owned(),
            port: fleet.port(),
            identities: vec![Identity::File(identity)],
            known_hosts: vec![known_hosts],
            ..Settings::default()
        };
        let monitor = Monitor::new(settings).unwrap();
        let (sender, answers) = mpsc::unbounded_channel();
        let address = fleet.machine("m").unwrap().address().ip().to_string();
        let endpoint = Endpoint { label: "test/m".to_owned(), address, ..Endpoint::default() };
        let session = monitor.session(endpoint, Box::new(move |answer| drop(sender.send(answer))));
        Self { fleet, session, monitor, answers, next: 0, _folder: folder }
    }

    fn machine(&self) -> &Machine {
        self.fleet.machine("m").unwrap()
    }

    /// Probes all of it in one batch and returns what was seen, in the order asked.
    async fn look(&mut self, probes: &[Probe]) -> Vec<Observation> {
        let first = self.next;
        self.next += probes.len() as u64;
        let numbered = probes.iter().cloned().zip(first..);
        self.session.submit(
            numbered
                .map(|(what, number)| ProbeRequest { probe: ProbeId(number), what, timeout: TIMEOUT })
                .collect(),
        );
        let mut seen = Vec::new();
        while seen.len() < probes.len() {
            let answer = tokio::time::timeout(DEADLINE, self.answers.recv()).await.unwrap().unwrap();
            seen.push(answer);
        }
        seen.sort_by_key(|answer| answer.probe);
        seen.into_iter().map(|answer| answer.observation).collect()
    }

    async fn look_at(&mut self, probe: Probe) -> Observation {
        self.look(&[probe]).await.remove(0)
    }

    /// Probes the channel until it is seen so: a reconnection has its back-off.
    async fn until_channel(&mut self, wanted: fn(&Observation) -> bool) {
        let end = tokio::time::Instant::now() + DEADLINE;
        loop {
            let seen = self.look_at(Probe::Channel).await;
            if wanted(&seen) {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "last seen: {seen:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn act(&self, act: ServiceAct, unit: &str) -> Result<String, ActError> {
        let deed = Deed::Service(act, Subject::Unit(UnitName::parse(unit).unwrap()));
        tokio::time::timeout(DEADLINE, self.session.act(Act { deed, timeout: TIMEOUT })).await.unwrap()
    }

    async fn unit(&mut self, name: &str) -> String {
        match self.look_at(unit(name)).await {
            Observation::Unit(unit) => format!("{} {} {}", unit.load, unit.active, unit.sub),
            other => format!("{other:?}"),
        }
    }
}

fn unit(name: &str) -> Probe {
    Probe::Check(Check::Systemd(UnitName::parse(name).unwrap()))
}

fn process(name: &str) -> Probe {
    Probe::Check(Check::Process(ProcessName::parse(name).unwrap()))
}

fn command(line: &str) -> Probe {
    Probe::Check(Check::Command(CommandLine::parse(line).unwrap()))
}

fn tcp(port: u16) -> Probe {
    Probe::Check(Check::Tcp { host: "127.0.0.1".into(), port })
}

fn is_alive(seen: &Observation) -> bool {
    *seen == Observation::Alive
}

/// Every kind of probe, on a machine of which half is broken; the same by the resident shell and by exec.
async fn every_kind(world: &mut World) {
    let exits =
        |status, output: &str| Command::Exits { status, output: output.to_owned(), after: Duration::ZERO };
    let machine = world.machine();
    machine.set_command("check disk", exits(2, "93% full\n"));
    machine.set_command("check load", exits(0, "0.1\n"));
    machine.set_command("stuck", Command::Hangs);
    machine.set_process("lonely", true);
    machine.kill_unit("db.service").unwrap();

    world.until_channel(is_alive).await;
    let probes = [unit("web.service"), unit("db.service"), process("web"), process("db"), process("lonely")];
    let seen = world.look(&probes).await;
    assert!(matches!(&seen[0], Observation::Unit(unit) if &*unit.active == "active"), "{seen:?}");
    assert!(matches!(&seen[1], Observation::Unit(unit) if &*unit.active == "failed"), "{seen:?}");
    let statuses: Vec<_> = seen[2..].iter().map(|seen| matches!(seen, Observation::Exited(0, _))).collect();
    assert_eq!(statuses, [true, false, true], "{seen:?}");

    let seen = world.look(&[command("check disk"), command("check load"), command("nonsense")]).await;
    assert!(matches!(&seen[0], Observation::Exited(2, text) if text.contains("93% full")), "{seen:?}");
    assert!(matches!(&seen[1], Observation::Exited(0, _)), "{seen:?}");
    assert!(matches!(&seen[2], Observation::NotRunnable(_)), "{seen:?}");
    assert_eq!(world.look_at(command("stuck")).await, Observation::DeadlinePassed);
    assert_eq!(world.look_at(tcp(80)).await, Observation::Connected);
    assert!(matches!(world.look_at(tcp(81)).await, Observation::NotConnected(_)));
    world.machine().let_systemctl_answer(false);
    assert_eq!(world.look_at(unit("web.service")).await, Observation::DeadlinePassed);
    assert_eq!(
        world.look_at(Probe::Channel).await,
        Observation::Alive,
        "a stuck systemctl harmed the channel"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_probe_is_answered_by_the_resident_shell() {
    let mut world = World::new(2131).await;
    every_kind(&mut world).await;
    assert_eq!(world.monitor.counters().fallbacks, 0);
    assert!(world.machine().counts().resident_probes > 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_probe_is_answered_by_exec_where_no_resident_shell_runs() {
    let mut world = World::new(2132).await;
    world.machine().allow_resident_shell(false).await;
    every_kind(&mut world).await;
    assert!(world.monitor.counters().fallbacks > 0);
    assert_eq!(world.machine().counts().resident_probes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_unit_is_seen_failed_and_runs_again_after_a_restart() {
    let mut world = World::new(2133).await;
    world.until_channel(is_alive).await;
    world.machine().kill_unit("web.service").unwrap();
    assert_eq!(world.unit("web.service").await, "loaded failed failed");
    world.act(ServiceAct::Restart, "web.service").await.unwrap();
    assert_eq!(world.unit("web.service").await, "loaded active running");
    world.act(ServiceAct::Stop, "web.service").await.unwrap();
    assert_eq!(world.unit("web.service").await, "loaded inactive dead");
    world.act(ServiceAct::Start, "web.service").await.unwrap();
    assert_eq!(world.unit("web.service").await, "loaded active running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_that_cannot_be_restarted_says_why() {
    let mut world = World::new(2134).await;
    world.until_channel(is_alive).await;
    world.machine().mask("web.service").unwrap();
    assert_eq!(world.unit("web.service").await, "masked inactive dead");
    let refused = world.act(ServiceAct::Restart, "web.service").await.unwrap_err();
    assert!(
        matches!(&refused, ActError::Failed { status: Some(1), output } if output.contains("masked")),
        "{refused:?}"
    );

    world.machine().behave("db.service", Behaviour::HangsInStart).await.unwrap();
    assert_eq!(world.act(ServiceAct::Restart, "db.service").await, Err(ActError::TimedOut));
    assert_eq!(world.unit("db.service").await, "loaded activating start");
    world.machine().remove_unit("db.service").unwrap();
    assert_eq!(world.unit("db.service").await, "not-found inactive dead");

    world.machine().allow_sudo(false);
    let refused = world.act(ServiceAct::Restart, "web.service").await.unwrap_err();
    assert!(matches!(refused, ActError::NotRunnable(_)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_gives_no_answer_is_timed_out_whatever_the_reason_and_comes_back() {
    let mut world = World::new(2135).await;
    let timed_out = |seen: &Observation| matches!(seen, Observation::Channel(ChannelFailure::TimedOut, _));
    world.until_channel(is_alive).await;

    world.machine().freeze().await;
    world.until_channel(timed_out).await;
    world.machine().thaw().await;
    world.until_channel(is_alive).await;

    world.machine().cut_off().await;
    world.until_channel(timed_out).await;
    world.machine().heal().await;
    world.until_channel(is_alive).await;

    world.machine().power_off().await;
    world.until_channel(timed_out).await;
    world.machine().power_on().await;
    world.until_channel(is_alive).await;
    assert_eq!(world.unit("web.service").await, "loaded active running");

    assert!(world.machine().reboot_soft().await);
    world.machine().until_booted().await;
    world.until_channel(is_alive).await;
    world.machine().reboot_hard().await;
    world.machine().until_booted().await;
    world.until_channel(is_alive).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_another_host_key_and_a_refused_login_are_told_apart() {
    let mut world = World::new(2136).await;
    world.until_channel(is_alive).await;
    world.machine().stop_sshd().await;
    world.until_channel(|seen| matches!(seen, Observation::Channel(ChannelFailure::Refused, _))).await;
    world.machine().start_sshd().await;
    world.until_channel(is_alive).await;

    world.machine().refuse_key().await;
    let refused =
        |seen: &Observation| matches!(seen, Observation::Channel(ChannelFailure::AuthenticationFailed, _));
    world.until_channel(refused).await;
    world.machine().accept_key();
    world.until_channel(is_alive).await;

    world.machine().change_host_key().await.unwrap();
    world.until_channel(|seen| matches!(seen, Observation::Channel(ChannelFailure::HostKey, _))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_prints_without_end_costs_nobody_else_anything() {
    let mut world = World::new(2137).await;
    world.machine().set_command("flood", Command::Floods { bytes: 100_000_000 });
    for resident in [true, false] {
        world.machine().allow_resident_shell(resident).await;
        world.until_channel(is_alive).await;
        let seen = world.look(&[command("flood"), unit("web.service"), Probe::Channel]).await;
        assert!(matches!(seen[0], Observation::Exited(0, _) | Observation::NotRunnable(_)), "{:?}", seen[0]);
        assert!(matches!(&seen[1], Observation::Unit(unit) if &*unit.active == "active"), "{:?}", seen[1]);
        assert_eq!(seen[2], Observation::Alive);
    }
}
