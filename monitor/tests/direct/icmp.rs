//! Echoes, where this host permits them.

use cpe_proto::observation::Observation;

use crate::site::look;

#[tokio::test]
async fn an_echo_comes_back_or_is_not_permitted_and_says_what_to_set() {
    for kind in ["icmp = true", "icmp = \"127.0.0.1\""] {
        match look(kind).await {
            Observation::Connected => {}
            Observation::NotRunnable(why) => assert!(why.contains("net.ipv4.ping_group_range"), "{why}"),
            other => panic!("{kind}: {other:?}"),
        }
    }
}
