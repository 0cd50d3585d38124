//! The ways in which a channel is not alive, told apart.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cpe_monitor::ssh::{Answer, Endpoint, Error, Identity, Monitor, Probe, ProbeRequest, Settings};
use cpe_proto::id::ProbeId;
use cpe_proto::observation::{ChannelFailure, Observation};

use crate::guest::{Guest, Kind, PATIENCE, free_port, keygen};
use crate::watch::{Watch, command, failure};

const SOON: Duration = Duration::from_millis(600);

fn loopback(port: u16) -> Endpoint {
    let address = "127.0.0.1".to_owned();
    Endpoint { label: "shop/web".to_owned(), address, port: Some(port), ..Endpoint::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_nobody_listens_on_is_refused() {
    let mut watch = Watch::with(Settings::default(), loopback(free_port()));
    let seen = watch.ask(&[Probe::Channel, command("true")]).await;
    assert_eq!(failure(&seen[0]).0, ChannelFailure::Refused);
    assert_eq!(seen[1], Observation::NotObserved);
    assert_eq!(watch.monitor.counters().refused, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_and_says_nothing_is_timed_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut watch = Watch::with(Settings::default(), loopback(listener.local_addr().unwrap().port()));
    let seen = watch.ask_timed(&[(Probe::Channel, SOON), (command("true"), PATIENCE)]).await;
    assert_eq!(
        failure(&seen[0]),
        (ChannelFailure::TimedOut, "the port accepts connections, but no SSH server speaks")
    );
    assert_eq!(seen[1], Observation::NotObserved, "it does not wait for a channel that is not there");
    assert_eq!(watch.monitor.counters().timed_out, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_after_its_banner_is_timed_out_and_let_go() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut watch = Watch::with(Settings::default(), loopback(listener.local_addr().unwrap().port()));
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"SSH-2.0-silent\r\n").unwrap();
        // Ends only when the other side does.
        std::io::copy(&mut Read::by_ref(&mut stream), &mut std::io::sink()).unwrap();
    });
    let seen = watch.ask_timed(&[(Probe::Channel, SOON)]).await;
    assert_eq!(
        failure(&seen[0]),
        (ChannelFailure::TimedOut, "the SSH server fell silent in the key exchange")
    );
    server.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_something_else_is_a_protocol_error() {
    for speech in ["HTTP/1.0 400 Bad Request\r\n\r\n", "SSH-1.5-old\r\n", ""] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut watch = Watch::with(Settings::default(), loopback(listener.local_addr().unwrap().port()));
        std::thread::spawn(move || {
            use std::io::Write;
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(speech.as_bytes()).unwrap();
        });
        let seen = watch.channel().await;
        assert_eq!(failure(&seen).0, ChannelFailure::Protocol, "{speech:?}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_accepted_is_told_with_its_fingerprint() {
    let guest = Guest::new();
    keygen(&guest.path("other"), "ed25519", "");
    let identities = vec![Identity::File(guest.path("other"))];
    let mut watch = Watch::with(Settings { identities, ..guest.settings() }, guest.endpoint());
    let seen = watch.channel().await;
    let (cause, detail) = failure(&seen);
    assert_eq!(cause, ChannelFailure::AuthenticationFailed);
    assert!(detail.contains("SHA256:") && detail.contains(&guest.user), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_key_is_offered_after_the_first_and_an_endpoint_may_have_its_own() {
    let guest = Guest::new();
    keygen(&guest.path("other"), "ecdsa", "");
    let other = Identity::File(guest.path("other"));
    let good = Identity::File(guest.path("id"));
    let settings = Settings { identities: vec![other.clone(), good.clone()], ..guest.settings() };
    let mut watch = Watch::with(settings, guest.endpoint());
    assert_eq!(watch.channel().await, Observation::Alive);
    let settings = Settings { identities: vec![other], ..guest.settings() };
    let mut watch = Watch::with(settings, Endpoint { identity: Some(good), ..guest.endpoint() });
    assert_eq!(watch.channel().await, Observation::Alive);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rsa_key_logs_in_by_sha2() {
    let guest = Guest::new();
    keygen(&guest.path("rsa"), "rsa", "");
    std::fs::copy(guest.path("rsa.pub"), guest.path("authorized_keys")).unwrap();
    let identities = vec![Identity::File(guest.path("rsa"))];
    let mut watch = Watch::with(Settings { identities, ..guest.settings() }, guest.endpoint());
    assert_eq!(watch.channel().await, Observation::Alive);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_key_is_accepted_and_an_agent_that_is_not_there_is_told() {
    let guest = Guest::new();
    let socket = guest.path("agent");
    let mut agent = std::process::Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    crate::guest::eventually("the agent listens", || socket.exists());
    let added = std::process::Command::new("ssh-add")
        .arg(guest.path("id"))
        .env("SSH_AUTH_SOCK", &socket)
        .output()
        .unwrap();
    assert!(added.status.success(), "{added:?}");
    let identities = vec![Identity::Agent(socket.clone())];
    let mut watch = Watch::with(Settings { identities, ..guest.settings() }, guest.endpoint());
    assert_eq!(watch.channel().await, Observation::Alive);
    agent.kill().unwrap();
    agent.wait().unwrap();
    watch.session.reconnect();
    let seen = watch.channel().await;
    let (cause, detail) = failure(&seen);
    assert_eq!(cause, ChannelFailure::AuthenticationFailed);
    assert!(detail.contains(socket.to_str().unwrap()), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_key_logs_in_by_its_passphrase_and_a_wrong_one_is_never_shown() {
    let guest = Guest::new();
    keygen(&guest.path("locked"), "ed25519", "correct horse");
    std::fs::copy(guest.path("locked.pub"), guest.path("authorized_keys")).unwrap();
    for (file, text) in [("good", "correct horse\n"), ("wrong", "battery staple\n")] {
        guest.write(file, text);
        std::fs::set_permissions(guest.path(file), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let locked = |file| Identity::Encrypted { key: guest.path("locked"), passphrase: guest.path(file) };
    let settings = Settings { identities: vec![locked("good")], ..guest.settings() };
    let mut watch = Watch::with(settings, guest.endpoint());
    assert_eq!(watch.channel().await, Observation::Alive);
    let endpoint = Endpoint { identity: Some(locked("wrong")), ..guest.endpoint() };
    let seen = Watch::with(guest.settings(), endpoint).channel().await;
    let (cause, detail) = failure(&seen);
    assert_eq!(cause, ChannelFailure::AuthenticationFailed);
    assert!(detail.contains("is not unlocked by the passphrase in"), "{detail}");
    assert!(!format!("{seen:?}").contains("staple"));
}

#[test]
fn a_key_that_cannot_be_used_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    keygen(&dir.path().join("locked"), "ed25519", "a passphrase");
    std::fs::write(dir.path().join("text"), "no key").unwrap();
    for (file, says) in [("locked", "passphrase"), ("text", "no private key"), ("missing", "cannot be read")]
    {
        let identities = vec![Identity::File(dir.path().join(file))];
        let Err(error) =
            Monitor::new(Settings { identities, known_hosts: Vec::new(), ..Settings::default() })
        else {
            panic!("{file} was accepted");
        };
        assert!(matches!(error, Error::Identity { .. }) && error.to_string().contains(says), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_limits_keep_from_being_tried_says_nothing_of_the_assembly() {
    let guest = Guest::new();
    let settings = Settings { connects_per_second: 1, ..guest.settings() };
    let monitor = Monitor::new(settings).unwrap();
    let mut first = Watch::under(monitor.clone(), guest.endpoint());
    assert_eq!(first.channel().await, Observation::Alive);
    let mut second = Watch::under(monitor, guest.endpoint());
    let seen = second.ask_timed(&[(Probe::Channel, Duration::from_millis(20))]).await;
    assert_eq!(failure(&seen[0]).0, ChannelFailure::NotTried);
    assert_eq!(second.channel().await, Observation::Alive, "its turn comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_a_shell_is_a_protocol_error() {
    let guest = Guest::of(&Kind { config: "ForceCommand echo no shell here", ..Kind::default() });
    let mut watch = Watch::of(&guest);
    let seen = watch.channel().await;
    let (cause, detail) = failure(&seen);
    assert_eq!(cause, ChannelFailure::Protocol);
    assert!(detail.contains("no shell here"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_not_observed_without_a_channel_and_do_not_connect() {
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.ask(&[command("true")]).await, vec![Observation::NotObserved]);
    assert_eq!(watch.monitor.counters(), cpe_monitor::ssh::Counters::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_panicked_says_that_it_has_ended_and_tries_nothing_more() {
    let monitor = Monitor::new(Settings::default()).unwrap();
    let (sender, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let first = AtomicBool::new(true);
    let answered = Box::new(move |answer: Answer| {
        assert!(!first.swap(false, Ordering::Relaxed), "the first answer makes its task panic");
        let _ = sender.send(answer);
    });
    let session = monitor.session(loopback(free_port()), answered);
    assert!(!session.has_ended());
    let ask = || vec![ProbeRequest { probe: ProbeId(1), what: Probe::Channel, timeout: PATIENCE }];
    session.submit(ask());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !session.has_ended() {
        assert!(tokio::time::Instant::now() < deadline, "its task lives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    session.submit(ask());
    let answer = answers.recv().await.unwrap();
    assert_eq!(failure(&answer.observation).0, ChannelFailure::NotTried);
}
