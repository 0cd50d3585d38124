//! Recoveries of services over the session that probes them.

use std::time::Duration;

use cpe_monitor::ssh::{ActError, Deed, Probe, ServiceAct, Subject};
use cpe_proto::definition::UnitName;
use cpe_proto::observation::Observation;

use crate::guest::{Guest, Kind};
use crate::watch::{Watch, state, unit};

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_unit_is_restarted_through_sudo_and_seen_running() {
    let guest = Guest::new();
    guest.unit("nginx.service", "nginx.service loaded failed failed");
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.check(unit("nginx.service")).await, state("loaded", "failed", "failed"));
    guest.write("units/log", "");
    assert_eq!(watch.act(ServiceAct::Restart, "nginx.service").await, Ok(String::new()));
    assert_eq!(
        guest.read("units/log"),
        "sudo -n systemctl reset-failed nginx.service\nsystemctl reset-failed nginx.service\n\
         sudo -n systemctl restart nginx.service\nsystemctl restart nginx.service\n"
    );
    assert_eq!(watch.check(unit("nginx.service")).await, state("loaded", "active", "running"));
    assert_eq!(watch.act(ServiceAct::Stop, "nginx.service").await, Ok(String::new()));
    assert_eq!(watch.check(unit("nginx.service")).await, state("loaded", "inactive", "dead"));
    assert_eq!(watch.act(ServiceAct::Start, "nginx.service").await, Ok(String::new()));
    assert_eq!(watch.check(unit("nginx.service")).await, state("loaded", "active", "running"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sudo_that_refuses_is_told_with_the_line_that_it_needs() {
    let guest = Guest::new();
    guest.unit("nginx.service", "nginx.service loaded failed failed");
    guest.write("units/sudo-refuses", "");
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    let outcome = watch.act(ServiceAct::Restart, "nginx.service").await;
    let Err(ActError::NotRunnable(why)) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("a password is required") && why.contains("NOPASSWD"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_cannot_be_restarted_is_told_in_systemds_words() {
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    let outcome = watch.act(ServiceAct::Restart, "nope.service").await;
    let output = "Failed to restart nope.service: Unit nope.service not found.".to_owned();
    assert_eq!(outcome, Err(ActError::Failed { status: Some(5), output }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_that_takes_too_long_is_given_up_while_probes_go_on() {
    let guest = Guest::new();
    guest.unit("slow.service", "slow.service loaded inactive dead");
    guest.write("units/mode", "slow\n");
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    let act = watch.session.act(cpe_monitor::ssh::Act {
        deed: Deed::Service(ServiceAct::Start, Subject::Unit(UnitName::parse("slow.service").unwrap())),
        timeout: Duration::from_millis(1500),
    });
    let act = tokio::spawn(act);
    assert_eq!(watch.check(unit("slow.service")).await, state("loaded", "inactive", "dead"));
    assert_eq!(act.await.unwrap(), Err(ActError::TimedOut));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_never_connects() {
    let guest = Guest::new();
    let watch = Watch::of(&guest);
    let outcome = watch.act(ServiceAct::Restart, "nginx.service").await;
    assert!(matches!(outcome, Err(ActError::NoChannel(_))), "{outcome:?}");
    assert_eq!(watch.monitor.counters().connected, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_session_allowed_probes_go_on_and_an_act_says_what_to_change() {
    let guest = Guest::of(&Kind { config: "MaxSessions 1", ..Kind::default() });
    guest.unit("nginx.service", "nginx.service loaded active running");
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.check(unit("nginx.service")).await, state("loaded", "active", "running"));
    let outcome = watch.act(ServiceAct::Restart, "nginx.service").await;
    assert!(
        matches!(&outcome, Err(ActError::NotRunnable(why)) if why.contains("MaxSessions")),
        "{outcome:?}"
    );
    assert_eq!(watch.ask(&[Probe::Channel]).await, vec![Observation::Alive]);
}
