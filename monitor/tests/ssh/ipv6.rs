//! Assemblies with IPv6 addresses. They need a loopback that has one.

use cpe_monitor::ssh::{Endpoint, Jump, Route, Settings};
use cpe_proto::definition::Check;
use cpe_proto::observation::{ChannelFailure, Observation};

use crate::guest::{Guest, Kind, free_port};
use crate::watch::{Watch, failure};

fn guest() -> Guest {
    Guest::of(&Kind { config: "ListenAddress ::1", ..Kind::default() })
}

fn endpoint(guest: &Guest) -> Endpoint {
    Endpoint { address: "::1".to_owned(), ..guest.endpoint() }
}

/// Settings that know the guest by what is written before its key.
fn knows(guest: &Guest, name: &str) -> Settings {
    let settings = guest.settings();
    guest.write("known_hosts", &format!("{name} {}\n", guest.host_key("ed25519")));
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_reached_by_its_ipv6_address_and_known_by_it() {
    let guest = guest();
    for name in [&*format!("[::1]:{}", guest.port), "::1", "[::*]:*"] {
        let mut watch = Watch::with(knows(&guest, name), endpoint(&guest));
        assert_eq!(watch.channel().await, Observation::Alive, "{name}");
    }
    let seen = Watch::with(knows(&guest, "[127.0.0.1]:*"), endpoint(&guest)).channel().await;
    let (cause, detail) = failure(&seen);
    assert_eq!(cause, ChannelFailure::HostKey);
    assert!(detail.contains(&format!("of ::1 port {}", guest.port)), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_ssh_keygen_hashed_is_known_for_ipv6_too() {
    let guest = guest();
    let settings = knows(&guest, &format!("[::1]:{}", guest.port));
    let mut hash = std::process::Command::new("ssh-keygen");
    assert!(hash.args(["-q", "-H", "-f"]).arg(guest.path("known_hosts")).status().unwrap().success());
    assert!(guest.read("known_hosts").starts_with("|1|"));
    assert_eq!(Watch::with(settings, endpoint(&guest)).channel().await, Observation::Alive);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_port_is_told_over_ipv6_as_over_ipv4() {
    let guest = guest();
    let settings = knows(&guest, "[::1]:*");
    let closed = Endpoint { port: Some(free_port()), ..endpoint(&guest) };
    let seen = Watch::with(settings.clone(), closed).channel().await;
    assert_eq!(failure(&seen).0, ChannelFailure::Refused, "{seen:?}");
    let mut watch = Watch::with(settings, endpoint(&guest));
    let tcp = |port| cpe_monitor::ssh::Probe::Check(Check::Tcp { host: "::1".into(), port });
    assert_eq!(watch.check(tcp(guest.port)).await, Observation::Connected, "a port in the guest");
    assert!(matches!(watch.check(tcp(free_port())).await, Observation::NotConnected(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_host_and_what_is_behind_it_may_have_ipv6_addresses() {
    let guest = guest();
    let jump = Jump { user: None, address: "::1".to_owned(), port: Some(guest.port) };
    let (settings, route) = (knows(&guest, "[::1]:*"), Some(Route::Jump(jump)));
    let behind = Endpoint { route, ..endpoint(&guest) };
    let mut watch = Watch::with(settings.clone(), behind.clone());
    assert_eq!(watch.channel().await, Observation::Alive);
    assert_eq!(watch.monitor.counters().open, 2, "one within the other");
    let closed = Endpoint { port: Some(free_port()), ..behind };
    let seen = Watch::with(settings, closed).channel().await;
    let (cause, detail) = failure(&seen);
    assert_eq!(cause, ChannelFailure::Refused);
    assert!(detail.contains(&format!("[::1]:{}", guest.port)), "{detail}");
}
