//! What waits, what warns, and what was known before: waits are told and end, a look is not hastened for what is not well, and what was
//! seen of an earlier fault is no evidence of this one.

use cpe_proto::event::EventKind;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::{Target, Wait};

use crate::site::{Site, Unit, seconds};

const SHOP: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s", timeout = "1s" }
    [assemblies.db]
    address = "192.0.2.2"
    services.pg.systemd = "pg.service"
    [assemblies.web]
    address = "192.0.2.1"
    after = ["db"]
    services.nginx.systemd = "nginx.service"
    services.blog = { http = "http://{web.address}/", restart = { systemd = "php.service" } }
"#;

#[test]
fn a_dead_dependency_is_looked_at_at_its_own_pace_while_others_wait_for_it() {
    let mut site = Site::with(SHOP);
    site.canary = false;
    site.cut("db", Some(ChannelFailure::AuthenticationFailed));
    site.kill("web/nginx");
    site.until("it waits", 60.0, |site| site.reason("web/nginx").contains("waits for"));
    site.run(30.0);
    site.forget();
    site.run(60.0);
    let db = Target::Channel(site.assembly_index("db"));
    let looks = site.probes.iter().filter(|(_, target)| *target == db).count();
    assert!((25..=35).contains(&looks), "{looks} looks in 30 intervals");
    assert_eq!(site.rungs(), []);
}

#[test]
fn a_service_that_waited_for_its_channel_and_then_for_a_dependency_is_told_in_its_time() {
    let mut site = Site::with(SHOP);
    site.unit("web/blog", Unit::Stopped);
    site.cut("web", Some(ChannelFailure::AuthenticationFailed));
    site.until("it waits for its channel", 60.0, |site| {
        site.reason("web/blog").contains("waits for its channel")
    });
    site.cut("db", Some(ChannelFailure::AuthenticationFailed));
    site.run(20.0);
    site.cut("web", None);
    site.until("it waits for db", 60.0, |site| site.reason("web/blog").contains("waits for db"));
    site.forget();
    site.run(400.0);
    let told = site.notified().iter().any(|it| it.starts_with("shop/web/blog has waited for db for 5 min"));
    assert!(told, "{:?}\n{}", site.notified(), site.transcript());
}

#[test]
fn only_what_its_channel_keeps_from_a_restart_is_said_to_wait_for_it() {
    let mut site = Site::with(SHOP);
    site.break_for_good("web/blog");
    site.break_for_good("web/nginx");
    for _ in 0..120 {
        site.run(0.5);
        for name in ["web/blog", "web/nginx"] {
            assert!(!site.reason(name).contains("waits for its channel"), "{name}: {}", site.reason(name));
        }
    }
    site.cut("web", Some(ChannelFailure::AuthenticationFailed));
    for _ in 0..120 {
        site.run(0.5);
        assert!(!site.reason("web/nginx").contains("waits for its channel"), "it is not known to fail");
    }
    assert!(site.reason("web/blog").contains("waits for its channel"), "{}", site.reason("web/blog"));
}

#[test]
fn nothing_that_has_passed_wakes_the_engine() {
    let mut site = Site::with(SHOP);
    site.break_for_good("web/nginx");
    site.until("a later attempt waits", 120.0, |site| {
        let nginx = usize::from(site.service_index("web/nginx").0);
        site.rungs().len() == 3 && site.view().services[nginx].waits.iter().any(|it| it.what == Wait::BackOff)
    });
    site.cut("web", Some(ChannelFailure::AuthenticationFailed));
    for _ in 0..200 {
        site.run(0.1);
        let (at, wake) = site.engine.poll_timeout().unwrap();
        assert!(at >= site.now.before(seconds(0.1)), "{wake:?} was due {:?} ago", site.now.since(at));
    }
}

#[test]
fn a_path_that_answered_before_this_outage_proves_nothing_of_it() {
    let mut site = Site::with(&SHOP.replace("\"2s\", timeout", "\"10s\", timeout"));
    site.canary = false;
    site.cut("db", Some(ChannelFailure::TimedOut));
    site.until("it is dead", 30.0, |site| site.state("db") == State::Unreachable);
    site.cut("db", None);
    site.until("it answers", 20.0, |site| site.state("db") == State::Healthy);
    let web = Target::Channel(site.assembly_index("web"));
    site.forget();
    site.until("the other one answers", 20.0, |site| site.probes.iter().any(|(_, target)| *target == web));
    site.run(0.1);
    for name in ["web", "db"] {
        site.freeze(name);
    }
    site.run(600.0);
    assert_eq!(site.rungs(), [], "our own network may be cut\n{}", site.transcript());
}

#[test]
fn a_machine_out_of_reach_is_told_also_when_in_between_it_was_not_tried() {
    let mut site = Site::with(SHOP);
    site.canary = false;
    for name in ["web", "db"] {
        site.cut(name, Some(ChannelFailure::TimedOut));
    }
    site.run(60.0);
    for name in ["web", "db"] {
        site.cut(name, Some(ChannelFailure::NotTried));
    }
    site.run(60.0);
    for name in ["web", "db"] {
        site.cut(name, Some(ChannelFailure::TimedOut));
    }
    site.run(400.0);
    let told = site.notified().iter().filter(|it| it.starts_with("shop/db")).count();
    assert_eq!(told, 1, "{:?}\n{}", site.notified(), site.transcript());
}

#[test]
fn a_warning_and_its_end_are_events_and_the_end_of_one_that_was_not_told_is_none() {
    let definition = SHOP.replace("systemd = \"nginx.service\"", "nagios = \"check_disk\"");
    let said = |site: &Site| -> Vec<String> {
        let stays = |event: &&cpe_proto::event::Event| event.from == event.to;
        site.kinds(EventKind::StateChanged)
            .into_iter()
            .filter(stays)
            .map(|it| it.reason.to_string())
            .collect()
    };
    let mut site = Site::with(&definition);
    site.unit("web/nginx", Unit::Warns);
    site.run(20.0);
    site.unit("web/nginx", Unit::Running);
    site.run(60.0);
    assert_eq!(said(&site), ["warning: look at it", "the warning is gone"], "{}", site.transcript());
    // It came and went while a reboot was verified.
    let mut site = Site::with(&definition);
    site.recover("web", Some(Rung::RebootSoft));
    site.run(22.5);
    site.unit("web/nginx", Unit::Warns);
    site.run(2.0);
    assert_eq!(site.state("web/nginx"), State::Recovering, "{}", site.transcript());
    site.unit("web/nginx", Unit::Running);
    site.run(60.0);
    assert_eq!((said(&site), site.state("web/nginx")), (vec![], State::Healthy), "{}", site.transcript());
}
