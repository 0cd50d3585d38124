//! A changed definition, and orders about a part of it: what they are not about stays as it was (policy.md section 5). What a reload does
//! to a machine is in `hand.rs` (drift) and `setup.rs` (references).

use cpe_proto::event::EventKind;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::Order;

use crate::site::words::deeds;
use crate::site::{Machine, Outcome, Site, seconds};

const SHOP: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "1s", timeout = "500ms" }
    timing = { retry_after = "30m" }
    [escalation]
    service = { failures = 3, within = "1h" }
    [assemblies.web]
    address = "192.0.2.1"
    services.nginx.systemd = "nginx.service"
    [assemblies.db]
    address = "192.0.2.2"
    services.pg.systemd = "pg.service"
"#;

const IMAGES: &str = r#"
    name = "shop"
    infrastructure = "prod"
    [assemblies.web]
    image = "debian-12"
    data = "none"
    services.nginx.systemd = "nginx.service"
"#;

fn with_cron() -> String {
    SHOP.replace("services.pg.", "services.cron.systemd = \"cron.service\"\nservices.pg.")
}

/// What was told of an assembly and its services since the last look.
fn told_of(site: &Site, name: &str) -> Vec<String> {
    let mine =
        |event: &&cpe_proto::event::Event| event.assembly.as_ref().is_some_and(|it| it.as_str() == name);
    site.events.iter().filter(mine).map(|event| format!("{:?}", event.kind)).collect()
}

#[test]
fn what_is_stopped_stays_stopped_when_maintenance_ends_or_a_service_is_added() {
    let mut site = Site::with(SHOP);
    site.order(Order::Stop);
    site.until("it is stopped", 120.0, |site| site.view().state == State::Stopped);
    site.forget();
    site.maintenance(true);
    site.maintenance(false);
    site.redefine(&with_cron());
    site.kill("db/cron");
    site.run(120.0);
    assert_eq!(deeds(&site), [""; 0]);
    assert_eq!((site.state("web/nginx"), site.state("db/cron")), (State::Stopped, State::Stopped));
}

#[test]
fn the_end_of_maintenance_of_one_machine_is_nothing_to_another() {
    let mut site = Site::with(SHOP);
    let order = |on| Order::Maintenance { assembly: Some(site.assembly_index("web")), on, reason: "".into() };
    let (on, off) = (order(true), order(false));
    site.order(on);
    site.run(10.0);
    site.forget();
    site.order(off);
    site.run(30.0);
    assert_eq!(told_of(&site, "db"), [""; 0], "{}", site.transcript());
    assert!(!told_of(&site, "web").is_empty(), "it is watched anew");
}

#[test]
fn a_pause_is_told_once_and_so_is_its_end() {
    let mut site = Site::with(SHOP);
    for (on, told) in [(true, 1), (true, 1), (false, 2), (false, 2)] {
        site.pause(on);
        assert_eq!(site.kinds(EventKind::BreakerChanged).len(), told);
    }
    assert_eq!(site.reasons(EventKind::BreakerChanged), ["paused: looking", "resumed: looking"]);
}

#[test]
fn a_retry_of_one_machine_is_not_one_of_another() {
    let mut site = Site::with(&SHOP.replace("failures = 3", "failures = 2"));
    for name in ["web/nginx", "db/pg"] {
        site.break_for_good(name);
    }
    site.until("both are exhausted", 3600.0, |site| {
        site.state("web/nginx") == State::Exhausted && site.state("db/pg") == State::Exhausted
    });
    site.run(5.0);
    site.acts.clear();
    let assembly = Some(site.assembly_index("db"));
    site.order(Order::Retry { assembly });
    site.run(20.0);
    assert_eq!(deeds(&site).first().map(String::as_str), Some("restart db/pg"), "{}", site.transcript());
    assert!(deeds(&site).iter().all(|it| it.ends_with("db") || it.contains("db/")), "{:?}", deeds(&site));
}

#[test]
fn a_fault_that_is_known_stays_a_fault_when_something_else_is_added() {
    let mut site = Site::with(SHOP);
    site.pause(true);
    site.kill("web/nginx");
    site.until("it has failed", 20.0, |site| site.state("web/nginx") == State::Failed);
    site.redefine(&with_cron());
    site.pause(false);
    site.until("it is mended", 60.0, |site| site.state("web/nginx") == State::Healthy);
    assert_eq!(
        (deeds(&site), site.rungs()),
        (vec!["restart web/nginx".to_owned()], vec![Rung::RestartService])
    );
}

#[test]
fn a_machine_at_another_address_is_another_one() {
    let mut site = Site::with(SHOP);
    site.cut("web", Some(ChannelFailure::TimedOut));
    site.until("it is dead", 20.0, |site| site.state("web") == State::Unreachable);
    site.redefine(&SHOP.replace("192.0.2.1", "192.0.2.9"));
    assert_eq!(site.state("web"), State::Starting, "nothing is known of it");
    assert_eq!(site.reasons(EventKind::IncidentClosed), ["no longer managed"]);
}

#[test]
fn a_changed_login_is_tried_at_once_and_nothing_else_breaks_a_connection() {
    let mut site = Site::with(SHOP);
    site.redefine(&with_cron());
    assert_eq!(site.reconnects, 0);
    let login = "ssh = { user = \"ha\" }\nservices.nginx";
    site.redefine(&with_cron().replace("services.nginx", login));
    assert_eq!((site.reconnects, site.state("web")), (1, State::Healthy));
}

#[test]
fn what_is_no_longer_managed_gives_back_its_lease_and_its_incident_is_closed() {
    let mut site = Site::with(SHOP);
    site.kill("web/nginx");
    site.until("it is restarted", 20.0, |site| !site.acts.is_empty());
    assert_eq!(site.leases.len(), 1);
    let (before, rest) = SHOP.split_at(SHOP.find("[assemblies.web]").unwrap());
    let db = &rest[rest.find("[assemblies.db]").unwrap()..];
    site.redefine(&format!("{before}{db}"));
    assert!(site.leases.is_empty());
    assert_eq!(site.reasons(EventKind::IncidentClosed), ["no longer managed"]);
    assert!(site.view().incidents.is_empty());
}

#[test]
fn drift_is_told_of_what_has_drifted_and_when_it_does() {
    let mut site = Site::with(IMAGES);
    let other = IMAGES.replace("debian-12", "debian-13");
    site.redefine(&other);
    assert_eq!(site.notified().len(), 1, "{:?}", site.notified());
    let more = format!("{other}services.cron.systemd = \"cron.service\"\n");
    site.redefine(&more);
    assert_eq!(site.notified().len(), 1, "it is known: {:?}", site.notified());
    site.forget();
    site.redefine(&format!(
        "{more}[assemblies.www]\nimage = \"debian-13\"\ndata = \"none\"\nservices.nginx.systemd = \"nginx.service\"\n"
    ));
    assert_eq!(site.notified(), [""; 0], "a second one of that image is not the first one renamed");
}

#[test]
fn a_start_that_was_asked_for_before_a_stop_is_not_given_out() {
    let mut site = Site::cold(SHOP);
    site.kill("web/nginx");
    site.gate_takes = seconds(4.0);
    site.until("the gate has admitted", 60.0, |site| !site.leases.is_empty());
    let asked = site.leases.clone();
    site.order(Order::Stop);
    assert!(asked.is_disjoint(&site.leases), "it is not wanted any more");
    site.run(60.0);
    assert!(deeds(&site).iter().all(|it| it.starts_with("stop ")), "{:?}", deeds(&site));
}

#[test]
fn an_answer_about_one_step_is_not_taken_for_one_about_another() {
    let mut site = Site::cold(SHOP);
    for name in ["web/nginx", "db/pg"] {
        site.kill(name);
    }
    site.guest("db/pg").enabled = false;
    site.machine("db", Machine::Booting { until: site.now.after(seconds(3.0)) });
    site.deaf = true;
    site.run(3.0);
    // What web asked is lost, and not asked again yet.
    site.deaf = false;
    site.until("db's service is started", 60.0, |site| !site.acts.is_empty());
    assert_eq!(deeds(&site), ["start db/pg"], "{}", site.transcript());
    site.until("both run", 120.0, |site| site.view().state == State::Healthy);
}

#[test]
fn a_stop_under_way_is_one_also_after_a_reload_that_moves_its_service() {
    let mut site = Site::with(SHOP);
    site.outcomes = vec![Outcome::Late(seconds(10.0))];
    site.order(Order::Stop);
    site.until("it is being stopped", 10.0, |site| site.acts.len() == 1);
    site.redefine(&with_cron());
    site.until("all is stopped", 120.0, |site| site.view().state == State::Stopped);
    let mut stops = deeds(&site);
    stops.sort_unstable();
    stops.dedup();
    assert_eq!(stops.len(), deeds(&site).len(), "each once: {}", site.transcript());
}
