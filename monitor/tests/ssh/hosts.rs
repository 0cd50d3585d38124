//! A host is believed only where a file says so.

use cpe_monitor::ssh::{Endpoint, Settings};
use cpe_proto::observation::{ChannelFailure, Observation};

use crate::guest::{Guest, Kind, keygen};
use crate::watch::{Watch, failure};

/// What a session says where known_hosts holds this text.
async fn told(guest: &Guest, known: &str) -> Observation {
    let settings = guest.settings();
    guest.write("known_hosts", known);
    Watch::with(settings, guest.endpoint()).channel().await
}

fn host_key_fault(seen: &Observation) -> &str {
    let (cause, detail) = failure(seen);
    assert_eq!(cause, ChannelFailure::HostKey, "{detail}");
    detail
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_is_never_accepted_and_its_fingerprint_is_told() {
    let guest = Guest::new();
    let seen = told(&guest, "").await;
    let output = std::process::Command::new("ssh-keygen")
        .arg("-lf")
        .arg(guest.path("host_ed25519.pub"))
        .output()
        .unwrap();
    let fingerprint = String::from_utf8(output.stdout).unwrap().split(' ').nth(1).unwrap().to_owned();
    let detail = host_key_fault(&seen);
    assert!(detail.contains(&fingerprint) && detail.contains("cpe trust"), "{detail}");
    assert_eq!(guest.read("known_hosts"), "", "nothing is learnt silently");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_host_key_is_told_with_the_place_of_the_known_one() {
    let guest = Guest::new();
    keygen(&guest.path("before"), "ed25519", "");
    let before = guest.read("before.pub");
    let seen = told(&guest, &format!("# hosts\n[127.0.0.1]:{} {before}", guest.port)).await;
    let detail = host_key_fault(&seen);
    assert!(detail.starts_with("changed: seen SHA256:"), "{detail}");
    assert!(detail.contains("known_hosts:2"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_host_key_is_refused() {
    let guest = Guest::new();
    let key = guest.host_key("ed25519");
    let seen = told(&guest, &format!("[127.0.0.1]:{} {key}\n@revoked * {key}\n", guest.port)).await;
    assert!(host_key_fault(&seen).contains("revoked by"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_authority_is_not_believed_yet_and_says_so() {
    let guest = Guest::new();
    let seen = told(&guest, &format!("@cert-authority * {}\n", guest.host_key("ed25519"))).await;
    assert!(host_key_fault(&seen).contains("not supported yet"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_ssh_keygen_hashed_are_known() {
    let guest = Guest::new();
    let settings = guest.settings();
    let hashed = std::process::Command::new("ssh-keygen")
        .args(["-q", "-H", "-f"])
        .arg(guest.path("known_hosts"))
        .output();
    assert!(hashed.unwrap().status.success());
    assert!(guest.read("known_hosts").starts_with("|1|"));
    assert_eq!(Watch::with(settings, guest.endpoint()).channel().await, Observation::Alive);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_in_the_second_file_is_known() {
    let guest = Guest::new();
    let mut settings = guest.settings();
    guest.write("known_hosts", "");
    guest.write("more", &format!("[127.0.0.?]:* {}\n", guest.host_key("ed25519")));
    settings.known_hosts.extend([guest.path("not-there"), guest.path("more")]);
    assert_eq!(Watch::with(settings, guest.endpoint()).channel().await, Observation::Alive);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_several_keys_is_asked_for_the_known_one() {
    let guest = Guest::of(&Kind { rsa: true, ..Kind::default() });
    for kind in ["rsa", "ecdsa", "ed25519"] {
        let seen = told(&guest, &format!("[127.0.0.1]:{} {}\n", guest.port, guest.host_key(kind))).await;
        assert_eq!(seen, Observation::Alive, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_known_by_the_name_it_is_reached_by_and_reload_reads_anew() {
    let guest = Guest::new();
    let endpoint = Endpoint { address: "localhost".to_owned(), ..guest.endpoint() };
    let settings: Settings = guest.settings();
    let mut watch = Watch::with(settings, endpoint);
    host_key_fault(&watch.channel().await);
    guest.write("known_hosts", &format!("[localhost]:{} {}\n", guest.port, guest.host_key("ed25519")));
    watch.monitor.reload().unwrap();
    assert_eq!(watch.channel().await, Observation::Alive);
    assert_eq!(watch.monitor.counters().host_key, 1);
}
