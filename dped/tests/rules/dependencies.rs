//! policy.md section 4 and design.md section 3: `after` means order and health, in faults, starts and stops.

use cpe_proto::event::EventKind;
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::{Act, Desired, Order};
use expect_test::expect_file;

use crate::site::{Machine, Outcome, Site, Unit, seconds};

const TWO_TIERS: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s" }
    [assemblies.db]
    address = "192.0.2.1"
    [assemblies.db.services.mariadb]
    systemd = "mariadb.service"
    [assemblies.web]
    address = "192.0.2.2"
    after = ["db"]
    [assemblies.web.services.php]
    systemd = "php.service"
    [assemblies.web.services.blog]
    process = "blog"
    restart = { systemd = "blog.service" }
    after = ["web/php", "db/mariadb"]
"#;

fn acts(site: &Site) -> Vec<String> {
    let name = |service| {
        let part = site.engine.definition().service(service);
        part.name.to_string()
    };
    let word = |act: Act| match act {
        Act::RestartService(service) => format!("restart {}", name(service)),
        Act::StartService(service) => format!("start {}", name(service)),
        Act::StopService(service) => format!("stop {}", name(service)),
        Act::Reconfigure(service) => format!("reconfigure {}", name(service)),
        Act::Power(switch) => format!("power {switch:?}"),
        Act::Fence(rung) => format!("fence for {rung}"),
        Act::Machine(rung) => rung.to_string(),
    };
    site.acts.iter().map(|(_, action)| word(action.act)).collect()
}

#[test]
fn a_killed_dependency_is_restarted_and_its_dependent_is_not_blamed() {
    let mut site = Site::with(TWO_TIERS);
    site.kill("db/mariadb");
    site.kill("web/blog");
    site.until("the dependency recovers", 30.0, |site| site.state("db/mariadb") == State::Recovering);
    assert_eq!(acts(&site), ["restart mariadb"]);
    // As it would: the dependent finds its database again by itself.
    site.mend("web/blog");
    site.until("all is well", 60.0, |site| site.view().state == State::Healthy);
    assert_eq!(acts(&site), ["restart mariadb"]);
    assert!(site.reasons(EventKind::Escalated).is_empty());
}

#[test]
fn a_dependent_that_stays_down_is_restarted_after_a_newer_pass_of_its_dependency() {
    let mut site = Site::with(TWO_TIERS);
    site.kill("db/mariadb");
    site.kill("web/blog");
    site.until("all is well", 60.0, |site| site.acts.len() == 2 && site.view().state == State::Healthy);
    assert_eq!(acts(&site), ["restart mariadb", "restart blog"]);
    assert!(
        site.reasons(EventKind::RecoveryStarted)
            .iter()
            .all(|reason| reason.ends_with("failure 1 of 5 in 1 h"))
    );
    expect_file!["../transcripts/dependency-killed.txt"].assert_eq(&site.transcript());
}

#[test]
fn a_dependency_of_another_assembly_is_waited_for_too() {
    let mut site = Site::with(TWO_TIERS);
    site.unit("db/mariadb", Unit::Masked);
    site.run(10.0);
    site.kill("web/php");
    site.run(60.0);
    assert_eq!(acts(&site), [""; 0]);
    assert_eq!(site.state("web/php"), State::Failed);
    let isolated = site.reasons(EventKind::FaultIsolated);
    assert_eq!(
        isolated,
        ["consequence: unit inactive, confirmed by 2 probes; waits for db/mariadb"],
        "row 13"
    );
    assert!(
        site.reason("web/php").contains("consequence: waits for db/mariadb"),
        "{}",
        site.reason("web/php")
    );
}

#[test]
fn after_dependency_wait_a_consequence_says_so_once() {
    let mut site = Site::with(TWO_TIERS);
    site.unit("db/mariadb", Unit::Masked);
    site.run(10.0);
    site.kill("web/blog");
    site.run(280.0);
    assert_eq!(site.notified().len(), 1, "only the misconfiguration: {:?}", site.notified());
    site.run(3600.0);
    assert_eq!(site.notified().len(), 2, "{:?}", site.notified());
    assert_eq!(site.notified()[1], "shop/web/blog has waited for db/mariadb for 5 min");
    assert_eq!(acts(&site), [""; 0], "and it is not counted");
}

#[test]
fn a_healthy_dependency_is_looked_at_before_its_dependent_is_acted_on() {
    let mut site = Site::with(&TWO_TIERS.replace("interval = \"2s\"", "interval = \"30s\""));
    site.kill("web/blog");
    let detected = site.until("it is suspected", 40.0, |site| site.state("web/blog") == State::Suspected);
    let waited = site.until("it is restarted", 40.0, |site| !site.acts.is_empty());
    assert!(
        waited < seconds(2.0),
        "{waited:?} after {detected:?}: nobody waits for the dependency's next turn"
    );
    let restarted = site.acts[0].0;
    let mariadb = dped::Target::Service(site.service_index("db/mariadb"));
    assert!(site.probes.iter().any(|(at, target)| *target == mariadb && restarted.since(*at) < seconds(1.0)));
}

#[test]
fn a_cold_start_probes_first_and_starts_only_what_does_not_run_in_order() {
    let mut site = Site::cold(TWO_TIERS);
    for guest in ["db/mariadb", "web/php", "web/blog"] {
        site.unit(guest, Unit::Stopped);
    }
    site.until("all is well", 60.0, |site| site.view().state == State::Healthy);
    assert_eq!(acts(&site), ["start mariadb", "start php", "start blog"]);
    assert_eq!(site.kinds(EventKind::IncidentOpened).len(), 0, "never having been healthy is not a fault");
    expect_file!["../transcripts/cold-start.txt"].assert_eq(&site.transcript());

    let mut site = Site::cold(TWO_TIERS);
    site.unit("web/php", Unit::Stopped);
    site.until("all is well", 60.0, |site| site.view().state == State::Healthy);
    assert_eq!(acts(&site), ["start php"]);
    // Nobody asked for that just now: it says why.
    assert_eq!(site.reasons(EventKind::Ordered), ["start, as it does not run: unit inactive"]);
}

#[test]
fn after_its_grace_a_service_that_never_came_up_is_a_fault_like_another() {
    let mut site = Site::cold(TWO_TIERS);
    site.break_for_good("db/mariadb");
    site.run(55.0);
    assert_eq!((acts(&site), site.state("db/mariadb")), (vec!["start mariadb".to_owned()], State::Starting));
    site.run(20.0);
    assert_eq!(site.kinds(EventKind::IncidentOpened).len(), 1);
    assert_eq!(site.rungs()[0], Rung::RestartService);
}

#[test]
fn a_machine_that_never_answered_is_no_fault_within_its_grace() {
    let mut site = Site::cold(TWO_TIERS);
    site.machine("db", Machine::Off);
    site.run(55.0);
    assert_eq!((acts(&site), site.state("db")), (vec![], State::Starting));
    site.run(60.0);
    assert_eq!(site.rungs(), [Rung::Start]);
}

#[test]
fn a_stop_is_the_reverse_and_its_faults_are_none() {
    let mut site = Site::with(TWO_TIERS);
    site.order(Order::Stop);
    site.until("all is stopped", 30.0, |site| site.view().state == State::Stopped);
    assert_eq!(acts(&site), ["stop blog", "stop php", "stop mariadb"]);
    site.forget();
    site.run(3600.0);
    assert_eq!((acts(&site), site.events.len()), (vec![], 0), "{}", site.transcript());
    assert!(
        site.probes.iter().all(|(_, target)| matches!(target, dped::Target::Channel(_))),
        "only channels are probed"
    );
    site.order(Order::Start);
    site.until("all is well", 60.0, |site| site.view().state == State::Healthy);
    assert_eq!(acts(&site), ["start mariadb", "start php", "start blog"]);
}

/// Found by seed 3436: the service stayed "stopped" for ever.
#[test]
fn a_start_ordered_while_a_stop_is_being_done_starts_what_that_stops() {
    let mut site = Site::with(TWO_TIERS);
    site.order(Order::Stop);
    site.until("the first stop is begun", 5.0, |site| acts(site) == ["stop blog"]);
    site.order(Order::Start);
    site.run(30.0);
    assert_eq!(
        (acts(&site), site.view().state),
        (vec!["stop blog".into(), "start blog".into()], State::Healthy)
    );
}

#[test]
fn a_stop_of_a_stopped_one_succeeds() {
    let mut site = Site::with(TWO_TIERS);
    site.unit("web/blog", Unit::Stopped);
    site.order(Order::Stop);
    site.until("all is stopped", 30.0, |site| site.view().state == State::Stopped);
    site.order(Order::Stop);
    assert_eq!(site.view().desired, Desired::Stopped);
}

#[test]
fn a_stop_that_fails_is_told_and_tried_on() {
    let mut site = Site::with(TWO_TIERS);
    site.outcomes = vec![Outcome::Fails; 4];
    site.order(Order::Stop);
    site.until("all is stopped", 120.0, |site| site.view().state == State::Stopped);
    assert_eq!(
        acts(&site),
        ["stop blog", "stop blog", "stop blog", "stop blog", "stop blog", "stop php", "stop mariadb"]
    );
    assert_eq!(
        site.notified(),
        ["shop/web/blog could not be stopped: refused by the infrastructure; it is tried on"]
    );
}

#[test]
fn a_stop_that_cannot_reach_its_machine_is_told_and_done_once_it_can() {
    let mut site = Site::with(TWO_TIERS);
    site.cut("db", Some(ChannelFailure::Refused));
    site.run(30.0);
    site.forget();
    site.order(Order::Stop);
    site.run(1800.0);
    assert_eq!(acts(&site), ["stop blog", "stop php"]);
    assert_eq!(
        site.notified(),
        ["shop/db/mariadb is not stopped yet: its channel does not answer: refused; it is tried on"]
    );
    site.cut("db", None);
    site.until("all is stopped", 30.0, |site| site.view().state == State::Stopped);
}

#[test]
fn a_stop_closes_open_incidents_and_calls_recoveries_off() {
    let mut site = Site::with(TWO_TIERS);
    site.break_for_good("web/php");
    site.until("an incident is open", 30.0, |site| site.rungs().len() == 2);
    site.order(Order::Stop);
    site.until("all is stopped", 60.0, |site| site.view().state == State::Stopped);
    assert!(site.view().incidents.is_empty());
    assert_eq!(site.reasons(EventKind::IncidentClosed), ["stopped by an order"]);
}

const FROM_IMAGE: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s" }
    [assemblies.web]
    image = "debian-12"
    [assemblies.web.services.php]
    systemd = "php.service"
"#;

#[test]
fn an_assembly_made_from_an_image_without_an_instance_is_drift_and_not_created() {
    let mut site = Site::cold(FROM_IMAGE);
    site.machine("web", Machine::Gone);
    site.run(3600.0);
    assert_eq!((acts(&site), site.state("web")), (vec![], State::Unknown));
    assert_eq!(site.notified(), ["shop/web: no instance of it exists, and one is only made by an order"]);
    assert!(site.probes.is_empty());
    site.machine("web", Machine::Up);
    site.until("it is watched once it exists", 30.0, |site| site.state("web") == State::Healthy);
}

#[test]
fn an_assembly_made_from_an_image_that_is_not_known_yet_is_asked_for() {
    let mut site = Site::cold(FROM_IMAGE);
    site.claims("web", InstanceState::Unknown);
    site.run(600.0);
    assert_eq!((site.notified().len(), site.state("web")), (0, State::Unknown));
    site.host("web").claims = None;
    site.until("it is watched once it exists", 30.0, |site| site.state("web") == State::Healthy);
}
