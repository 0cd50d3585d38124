//! A host is believed only where a file says so.

use std::path::Path;
use std::process::Command;

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
    let output = Command::new("ssh-keygen").arg("-lf").arg(guest.path("host_ed25519.pub")).output().unwrap();
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

/// A guest whose host key `key` an authority has signed, by ssh-keygen and these of its options; and the authority's public key.
fn certified(key: &str, options: &[&str]) -> (Guest, String) {
    let file = format!("host_{key}");
    let sign = |dir: &Path| {
        keygen(&dir.join("authority"), "ed25519", "");
        let mut command = Command::new("ssh-keygen");
        let command = command.current_dir(dir).args(["-q", "-s", "authority", "-I", "web"]);
        let status = command.args(options).arg(format!("{file}.pub")).status().unwrap();
        assert!(status.success());
    };
    let config = format!("HostCertificate DIR/{file}-cert.pub");
    let kind = Kind { config: &config, prepare: Some(&sign), rsa: key == "rsa", ..Kind::default() };
    let guest = Guest::of(&kind);
    let authority = guest.read("authority.pub");
    (guest, authority)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_believed_by_the_certificate_of_a_known_authority_alone() {
    for key in ["ed25519", "ecdsa", "rsa"] {
        let (guest, authority) = certified(key, &["-h", "-n", "127.0.0.1"]);
        let seen = told(&guest, &format!("@cert-authority 127.0.0.* {authority}")).await;
        assert_eq!(seen, Observation::Alive, "{key}");
        let seen = told(&guest, &format!("@cert-authority [127.0.0.1]:{} {authority}", guest.port)).await;
        assert_eq!(seen, Observation::Alive, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_does_not_prove_the_host_is_refused_with_what_to_do() {
    for (options, says) in [
        (&["-h", "-n", "192.0.2.7"][..], "is for other hosts"),
        (&["-h"], "names no host"),
        (&["-h", "-n", "127.0.0.1", "-V", "20200101:20200102"], "has expired"),
        (&["-h", "-n", "127.0.0.1", "-V", "20990101:20990102"], "not valid yet"),
    ] {
        let (guest, authority) = certified("ed25519", options);
        let seen = told(&guest, &format!("# ours\n@cert-authority * {authority}")).await;
        let detail = host_key_fault(&seen);
        assert!(detail.contains(says) && detail.contains("known_hosts:2"), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_no_more_than_its_key() {
    let (guest, _) = certified("ed25519", &["-h", "-n", "127.0.0.1"]);
    keygen(&guest.path("other"), "ed25519", "");
    let other = format!("@cert-authority * {}", guest.read("other.pub"));
    let seen = told(&guest, &other).await;
    assert!(host_key_fault(&seen).contains("nothing that it signed"), "{seen:?}");
    let known = format!("{other}[127.0.0.1]:{} {}\n", guest.port, guest.host_key("ed25519"));
    assert_eq!(told(&guest, &known).await, Observation::Alive);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_authority_and_a_revoked_certified_key_are_refused() {
    let (guest, authority) = certified("ed25519", &["-h", "-n", "127.0.0.1"]);
    for revoked in [authority.trim().to_owned(), guest.host_key("ed25519")] {
        let known = format!("@cert-authority * {authority}@revoked * {revoked}\n");
        let seen = told(&guest, &known).await;
        assert!(host_key_fault(&seen).contains("revoked by"), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_certificate_is_told_what_it_lacks() {
    let guest = Guest::new();
    let seen = told(&guest, &format!("@cert-authority * {}\n", guest.host_key("ed25519"))).await;
    assert!(
        host_key_fault(&seen).contains("HostCertificate"),
        "an authority's own key is no host's: {seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_ssh_keygen_hashed_are_known() {
    let guest = Guest::new();
    let settings = guest.settings();
    let hashed = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(guest.path("known_hosts")).output();
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
    // A name to whoever compares, and no file has to be there that says what it means.
    let endpoint = Endpoint { address: "127.1".to_owned(), ..guest.endpoint() };
    let settings: Settings = guest.settings();
    let mut watch = Watch::with(settings, endpoint);
    host_key_fault(&watch.channel().await);
    guest.write("known_hosts", &format!("[127.1]:{} {}\n", guest.port, guest.host_key("ed25519")));
    watch.monitor.reload().unwrap();
    assert_eq!(watch.channel().await, Observation::Alive);
    assert_eq!(watch.monitor.counters().host_key, 1);
}
