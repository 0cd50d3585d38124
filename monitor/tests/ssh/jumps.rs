//! Assemblies behind a jump host: reached through one session to it, and never blamed for what is wrong with it.

use std::time::Duration;

use cpe_monitor::ssh::{Endpoint, Identity, Jump, Monitor, Probe, Route, ServiceAct, Settings};
use cpe_proto::observation::{ChannelFailure, Observation};

use crate::guest::{Guest, Kind, free_port, keygen};
use crate::watch::{Watch, command, failure, state, unit};

const SOON: Duration = Duration::from_secs(2);

/// A jump host and an assembly behind it.
struct Site {
    bastion: Guest,
    web: Guest,
}

impl Site {
    fn new() -> Self {
        Self::of(&Kind::default())
    }

    fn of(bastion: &Kind<'_>) -> Self {
        let site = Self { bastion: Guest::of(bastion), web: Guest::new() };
        // One key for both, as in `[ssh]`.
        std::fs::copy(site.web.path("authorized_keys"), site.bastion.path("authorized_keys")).unwrap();
        site
    }

    fn jump(&self) -> Jump {
        Jump { user: None, address: "127.0.0.1".to_owned(), port: Some(self.bastion.port) }
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings { jump: Some(self.jump()), ..self.web.settings() };
        // Writes the bastion's known_hosts.
        settings.known_hosts.extend(self.bastion.settings().known_hosts);
        settings
    }

    fn watch(&self) -> Watch {
        Watch::with(self.settings(), self.web.endpoint())
    }

    fn name(&self) -> String {
        format!("jump host 127.0.0.1:{}", self.bastion.port)
    }

    /// What an assembly at that port says, when the session to the jump host is there already.
    async fn port(&self, port: u16) -> Observation {
        let mut first = self.watch();
        assert_eq!(first.channel().await, Observation::Alive);
        let endpoint = Endpoint { port: Some(port), ..self.web.endpoint() };
        let mut watch = Watch::under(first.monitor.clone(), endpoint);
        watch.ask_timed(&[(Probe::Channel, SOON)]).await.remove(0)
    }

    /// Asserts that this is the jump host's trouble, and proves nothing of the assembly.
    fn assert_not_blamed(&self, seen: &Observation) {
        let (cause, detail) = failure(seen);
        assert_eq!(cause, ChannelFailure::NotTried, "{detail}");
        assert!(detail.contains("jump host"), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn assemblies_behind_a_jump_host_are_probed_and_recovered_through_one_session_to_it() {
    let site = Site::new();
    site.web.unit("nginx.service", "nginx.service loaded failed failed");
    let monitor = Monitor::new(site.settings()).unwrap();
    let mut first = Watch::under(monitor.clone(), site.web.endpoint());
    let mut second = Watch::under(monitor.clone(), site.web.endpoint());
    let asked = [Probe::Channel, unit("nginx.service"), command("echo fine")];
    let (one, two) = tokio::join!(first.ask(&asked), second.ask(&asked));
    let expected =
        [Observation::Alive, state("loaded", "failed", "failed"), Observation::Exited(0, "fine".into())];
    assert_eq!((&*one, &*two), (&expected[..], &expected[..]));
    assert_eq!((site.bastion.sessions().len(), site.web.sessions().len()), (1, 2));
    assert_eq!(monitor.counters().open, 3, "two, and that to the jump host");
    first.act(ServiceAct::Restart, "nginx.service").await.unwrap();
    assert_eq!(first.check(unit("nginx.service")).await, state("loaded", "active", "running"));
    drop((first, second));
    crate::guest::eventually("all sessions are closed with the last assembly's", || {
        monitor.counters().open == 0 && site.bastion.sessions().is_empty() && site.web.sessions().is_empty()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assembly_may_have_a_jump_host_of_its_own_or_none() {
    let site = Site::new();
    let route = Some(Route::Jump(Jump { user: Some(site.bastion.user.clone()), ..site.jump() }));
    let settings = Settings { jump: None, ..site.settings() };
    let mut watch = Watch::with(settings, Endpoint { route, ..site.web.endpoint() });
    assert_eq!(watch.channel().await, Observation::Alive);
    assert_eq!(site.bastion.sessions().len(), 1);
    let endpoint = Endpoint { route: Some(Route::Direct), ..site.web.endpoint() };
    let mut watch = Watch::with(site.settings(), endpoint);
    assert_eq!(watch.channel().await, Observation::Alive);
    assert_eq!(site.bastion.sessions().len(), 1, "no other session to it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_jump_host_meets_at_the_assembly_is_the_assemblys() {
    let site = Site::new();
    let port = Some(free_port());
    let seen = Watch::with(site.settings(), Endpoint { port, ..site.web.endpoint() }).channel().await;
    let (cause, detail) = failure(&seen);
    assert_eq!(cause, ChannelFailure::Refused, "{detail}");
    assert!(detail.contains("Connection refused") && detail.contains(&site.name()), "{detail}");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let seen = site.port(listener.local_addr().unwrap().port()).await;
    assert_eq!(failure(&seen).0, ChannelFailure::TimedOut, "{seen:?}");

    let settings = site.settings();
    site.web.write("known_hosts", "");
    let seen = Watch::with(settings, site.web.endpoint()).channel().await;
    let (cause, detail) = failure(&seen);
    assert_eq!(cause, ChannelFailure::HostKey, "{detail}");
    assert!(!detail.contains("jump host"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_host_that_is_down_proves_nothing_of_the_assemblies_behind_it() {
    let site = Site::new();
    let jump = Jump { port: Some(free_port()), ..site.jump() };
    let mut watch = Watch::with(Settings { jump: Some(jump), ..site.settings() }, site.web.endpoint());
    let seen = watch.ask(&[Probe::Channel, command("true")]).await;
    site.assert_not_blamed(&seen[0]);
    assert_eq!(seen[1], Observation::NotObserved);
    assert_eq!((watch.monitor.counters().refused, watch.monitor.counters().not_tried), (0, 1));

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let jump = Jump { port: Some(listener.local_addr().unwrap().port()), ..site.jump() };
    let mut watch = Watch::with(Settings { jump: Some(jump), ..site.settings() }, site.web.endpoint());
    let seen = watch.ask_timed(&[(Probe::Channel, SOON)]).await;
    site.assert_not_blamed(&seen[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_host_that_freezes_is_told_from_an_assembly_that_freezes() {
    let site = Site::new();
    let mut watch = site.watch();
    assert_eq!(watch.channel().await, Observation::Alive);
    site.bastion.signal_sessions("STOP");
    let seen = watch.ask_timed(&[(Probe::Channel, SOON)]).await;
    site.assert_not_blamed(&seen[0]);
    let seen = watch.ask_timed(&[(Probe::Channel, SOON)]).await;
    site.assert_not_blamed(&seen[0]);
    site.bastion.signal_sessions("CONT");
    assert_eq!(watch.channel().await, Observation::Alive);
    site.web.signal_sessions("STOP");
    let seen = watch.ask_timed(&[(Probe::Channel, SOON)]).await;
    let (cause, detail) = failure(&seen[0]);
    assert_eq!(cause, ChannelFailure::TimedOut, "{detail}");
    site.web.signal_sessions("CONT");
    assert_eq!(watch.channel().await, Observation::Alive);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_to_the_jump_host_that_was_killed_is_made_anew() {
    let site = Site::new();
    let mut watch = site.watch();
    for _ in 0..3 {
        assert_eq!(watch.channel().await, Observation::Alive);
        site.bastion.signal_sessions("KILL");
        crate::guest::eventually("it is gone", || site.bastion.sessions().is_empty());
    }
    assert_eq!(watch.channel().await, Observation::Alive);
    assert_eq!(site.bastion.sessions().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_host_is_believed_only_by_its_own_known_key_and_says_who_was_refused() {
    let site = Site::new();
    let settings = Settings { known_hosts: vec![site.web.path("known_hosts")], ..site.settings() };
    let seen = Watch::with(settings, site.web.endpoint()).channel().await;
    let (cause, detail) = failure(&seen);
    assert_eq!(cause, ChannelFailure::HostKey, "{detail}");
    assert!(detail.starts_with(&site.name()), "{detail}");
    assert!(site.web.sessions().is_empty());

    keygen(&site.web.path("other"), "ed25519", "");
    let own = Some(Identity::File(site.web.path("id")));
    let identities = vec![Identity::File(site.web.path("other"))];
    let settings = Settings { identities, ..site.settings() };
    let endpoint = Endpoint { identity: own, ..site.web.endpoint() };
    let seen = Watch::with(settings, endpoint).channel().await;
    let (cause, detail) = failure(&seen);
    assert_eq!(cause, ChannelFailure::AuthenticationFailed, "{detail}");
    assert!(detail.starts_with(&site.name()), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_host_that_forbids_forwarding_is_told_with_what_to_change() {
    let site = Site::of(&Kind { config: "AllowTcpForwarding no", ..Kind::default() });
    let seen = site.watch().channel().await;
    site.assert_not_blamed(&seen);
    assert!(failure(&seen).1.contains("AllowTcpForwarding local"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_that_is_given_up_leaves_no_connection_behind() {
    let site = Site::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let seen = site.port(listener.local_addr().unwrap().port()).await;
    assert_eq!(failure(&seen).0, ChannelFailure::TimedOut, "{seen:?}");
    let (mut stream, _) = listener.accept().unwrap();
    // Ends only when the jump host closes it.
    let ended = tokio::task::spawn_blocking(move || std::io::copy(&mut stream, &mut std::io::sink()));
    tokio::time::timeout(crate::guest::PATIENCE, ended).await.expect("it is closed").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_host_that_is_itself_an_assembly_is_reached_directly() {
    let site = Site::new();
    let mut watch = Watch::with(site.settings(), site.bastion.endpoint());
    assert_eq!(watch.channel().await, Observation::Alive);
    assert_eq!((site.bastion.sessions().len(), watch.monitor.counters().open), (1, 1));
    let itself = Endpoint { port: Some(free_port()), ..site.bastion.endpoint() };
    let jump = Jump { port: itself.port, ..site.jump() };
    let settings = Settings { jump: Some(jump), ..site.settings() };
    let seen = Watch::with(settings, itself).channel().await;
    assert_eq!(failure(&seen).0, ChannelFailure::Refused, "its own death is told: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_busy_sessions_share_a_jump_host_without_holding_each_other_up() {
    let site = Site::new();
    let monitor = Monitor::new(site.settings()).unwrap();
    let talk: Vec<Probe> = std::iter::once(Probe::Channel)
        .chain((0..30).map(|index| command(&format!("printf {index}; head -c 3000 /dev/zero | tr '\\0' x"))))
        .collect();
    let sessions = (0..8).map(|_| {
        let (mut watch, talk) = (Watch::under(monitor.clone(), site.web.endpoint()), talk.clone());
        tokio::spawn(async move {
            for _ in 0..2 {
                let seen = watch.ask(&talk).await;
                assert_eq!(seen[0], Observation::Alive);
                for (index, observation) in seen.iter().skip(1).enumerate() {
                    let told = matches!(observation, Observation::Exited(0, text) if text.starts_with(&index.to_string()));
                    assert!(told, "{observation:?}");
                }
            }
            watch
        })
    });
    let mut open = Vec::new();
    for session in sessions.collect::<Vec<_>>() {
        open.push(session.await.unwrap());
    }
    assert_eq!(monitor.counters().connected, 9, "eight, and that to the jump host");
    assert_eq!(site.bastion.sessions().len(), 1);
}
