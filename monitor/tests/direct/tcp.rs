//! Ports, limits and names.

use cpe_monitor::direct::{Prober, Purpose, Settings};
use cpe_proto::observation::{ChannelFailure, Observation};

use crate::site::{SOON, ask, free_port, look, serve, target};

#[tokio::test]
async fn a_port_that_accepts_is_connected_and_one_that_does_not_says_how() {
    let port = serve(|_| async {}).await.port();
    assert_eq!(look(&format!("tcp = {port}, from = \"controller\"")).await, Observation::Connected);
    let port = free_port();
    let seen = look(&format!("tcp = {port}, from = \"controller\"")).await;
    assert_eq!(seen, Observation::NotConnected(format!("port {port}: connection refused").into()));
}

#[tokio::test]
async fn a_name_is_looked_up_and_one_that_does_not_exist_says_nothing_of_the_service() {
    let port = serve(|_| async {}).await.port();
    // localhost may be ::1 first, where nobody listens: the next address is tried.
    let seen = look(&format!("tcp = \"localhost:{port}\", from = \"controller\"")).await;
    assert_eq!(seen, Observation::Connected);
    // RFC 6761: no resolver knows a name in .invalid.
    let seen = look("tcp = \"db.invalid:5432\", from = \"controller\"").await;
    assert!(
        matches!(&seen, Observation::NotAsked(why) if why.starts_with("db.invalid cannot be")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_probe_that_finds_no_room_was_not_asked() {
    let prober = Prober::new(Settings { connecting: 0, ..Settings::default() });
    let port = serve(|_| async {}).await.port();
    let kind = format!("tcp = {port}, from = \"controller\"");
    let seen = ask(&target(&prober, &kind), Purpose::Service, SOON).await;
    assert_eq!(seen, Observation::NotAsked("too many probes connect at a time here".into()));
    let seen = ask(&target(&prober, &kind), Purpose::Channel, SOON).await;
    assert!(matches!(seen, Observation::Channel(ChannelFailure::NotTried, _)), "{seen:?}");
}

#[tokio::test]
async fn a_refused_port_of_a_channel_is_refused() {
    let kind = format!("tcp = {}, from = \"controller\"", free_port());
    let seen = ask(&target(&Prober::new(Settings::default()), &kind), Purpose::Channel, SOON).await;
    assert!(matches!(seen, Observation::Channel(ChannelFailure::Refused, _)), "{seen:?}");
}
