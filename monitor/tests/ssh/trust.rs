//! A key is looked at without logging in, and believed only when somebody says so; what it replaces is revoked.

use std::time::Duration;

use cpe_monitor::ssh::{Endpoint, Jump, Monitor, Settings, ShownKey, Standing, Whose};
use cpe_proto::observation::{ChannelFailure, Observation};

use crate::guest::{Guest, eventually, keygen};
use crate::watch::{Watch, failure};

const LIMIT: Duration = Duration::from_secs(30);

async fn shown(monitor: &Monitor, endpoint: &Endpoint, whose: Whose) -> ShownKey {
    monitor.show_key(endpoint, whose, LIMIT).await.unwrap()
}

/// What a session says now.
async fn told(monitor: &Monitor, endpoint: Endpoint) -> Observation {
    Watch::under(monitor.clone(), endpoint).channel().await
}

fn settings(guest: &Guest, known: &str) -> Settings {
    let settings = Settings { enrolled: Some(guest.path("enrolled")), ..guest.settings() };
    guest.write("known_hosts", known);
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_shown_and_believed_once_it_is_confirmed() {
    let guest = Guest::new();
    let monitor = Monitor::new(settings(&guest, "")).unwrap();
    let key = shown(&monitor, &guest.endpoint(), Whose::Machine).await;
    assert_eq!((key.standing.clone(), key.kind().as_str()), (Standing::Unknown, "ssh-ed25519"));
    assert_eq!(key.host(), format!("[127.0.0.1]:{}", guest.port));
    // A login would stay: sessions are kept.
    eventually("what only looked has hung up", || guest.sessions().is_empty());
    assert_eq!(
        failure(&told(&monitor, guest.endpoint()).await).0,
        ChannelFailure::HostKey,
        "looking is not believing"
    );
    assert_eq!(monitor.enrol(&key, "by ann").unwrap(), Vec::<String>::new());
    assert_eq!(told(&monitor, guest.endpoint()).await, Observation::Alive);
    assert_eq!(shown(&monitor, &guest.endpoint(), Whose::Machine).await.standing, Standing::Known);
    let anew = Monitor::new(settings(&guest, "")).unwrap();
    assert_eq!(told(&anew, guest.endpoint()).await, Observation::Alive, "kept in the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_replaces_the_old_one_which_is_revoked_wherever_it_is_written() {
    let guest = Guest::new();
    keygen(&guest.path("before"), "ed25519", "");
    let before = guest.read("before.pub");
    let line = format!("[127.0.0.1]:{} {before}", guest.port);
    let monitor = Monitor::new(settings(&guest, &line)).unwrap();
    let key = shown(&monitor, &guest.endpoint(), Whose::Machine).await;
    let Standing::Changed { place, known } = &key.standing else { panic!("{:?}", key.standing) };
    assert!(place.ends_with("known_hosts:1"), "{place}");
    assert_eq!(&monitor.enrol(&key, "by ann").unwrap(), std::slice::from_ref(known));
    assert_eq!(told(&monitor, guest.endpoint()).await, Observation::Alive);
    assert_eq!(guest.read("known_hosts"), line, "a file of somebody else's is not touched");
    let kept = guest.read("enrolled");
    let old: Vec<&str> = before.split_ascii_whitespace().take(2).collect();
    assert!(kept.contains(&format!("@revoked [127.0.0.1]:{} {}", guest.port, old.join(" "))), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_elses_file_revokes_cannot_be_enrolled() {
    let guest = Guest::new();
    let revoked = format!("@revoked * {}\n", guest.host_key("ed25519"));
    let monitor = Monitor::new(settings(&guest, &revoked)).unwrap();
    let key = shown(&monitor, &guest.endpoint(), Whose::Machine).await;
    assert!(matches!(key.standing, Standing::Revoked(_)));
    assert!(monitor.enrol(&key, "by ann").unwrap_err().to_string().contains("revokes that key"));
    assert_eq!(guest.read("enrolled"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_jump_host_both_keys_can_be_looked_at() {
    let (bastion, web) = (Guest::new(), Guest::new());
    std::fs::copy(web.path("authorized_keys"), bastion.path("authorized_keys")).unwrap();
    let jump = Jump { user: None, address: "127.0.0.1".to_owned(), port: Some(bastion.port) };
    let monitor = Monitor::new(Settings { jump: Some(jump), ..settings(&web, "") }).unwrap();
    let refused = monitor.show_key(&web.endpoint(), Whose::Machine, LIMIT).await.unwrap_err();
    assert!(refused.contains("jump host") && refused.contains("unknown"), "{refused}");
    let key = shown(&monitor, &web.endpoint(), Whose::Jump).await;
    assert_eq!(key.host(), format!("[127.0.0.1]:{}", bastion.port));
    monitor.enrol(&key, "by ann").unwrap();
    // The failed attempt is remembered for a moment.
    let deadline = std::time::Instant::now() + LIMIT;
    let key = loop {
        match monitor.show_key(&web.endpoint(), Whose::Machine, LIMIT).await {
            Ok(key) => break key,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(key.host(), format!("[127.0.0.1]:{}", web.port));
    monitor.enrol(&key, "by ann").unwrap();
    assert_eq!(told(&monitor, web.endpoint()).await, Observation::Alive);
}
