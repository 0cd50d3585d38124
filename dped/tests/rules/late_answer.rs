//! The gate admits, and what was asked for is not wanted any more when its answer arrives: nothing is begun, and the lease goes back
//! (policy.md section 7: evidence is fresh when an action begins, not when it is asked for).

use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::{Guard, GuardSettings, Order};

use crate::site::words::{deeds, pause_of};
use crate::site::{Machine, Site, Unit, seconds};

const SHOP: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "1s", timeout = "500ms" }
    [escalation]
    service = { failures = 2, within = "1h" }
    assembly = { failures = 3, within = "6h" }
    [assemblies.web]
    address = "192.0.2.1"
    services = { nginx.systemd = "nginx.service", cron.systemd = "cron.service" }
    [assemblies.db]
    address = "192.0.2.2"
    services.pg.systemd = "pg.service"
"#;

/// A site whose gate takes its time.
fn slow() -> Site {
    let mut site = Site::with(SHOP);
    site.gate_takes = seconds(4.0);
    site
}

#[track_caller]
fn asked(site: &mut Site) {
    site.until("the gate has admitted", 120.0, |site| !site.leases.is_empty());
    assert_eq!(site.acts.len(), 0, "its answer is under way");
}

/// The answer arrives.
#[track_caller]
fn nothing_is_begun(site: &mut Site) {
    let (begun, asked) = (site.acts.len(), site.leases.clone());
    site.run(4.5);
    assert_eq!(site.acts.len(), begun, "{}", site.transcript());
    assert!(asked.is_disjoint(&site.leases), "the lease went back\n{}", site.transcript());
}

#[test]
fn a_service_that_runs_again_when_its_restart_is_admitted_is_not_restarted() {
    let mut site = slow();
    site.kill("web/nginx");
    asked(&mut site);
    site.mend("web/nginx");
    nothing_is_begun(&mut site);
}

#[test]
fn a_service_whose_channel_died_before_its_restart_was_admitted_is_not_restarted() {
    let mut site = slow();
    site.kill("web/nginx");
    asked(&mut site);
    site.cut("web", Some(ChannelFailure::TimedOut));
    nothing_is_begun(&mut site);
}

#[test]
fn a_pause_and_maintenance_hold_back_what_was_asked_for_before_them() {
    for order in [
        pause_of("web/nginx", true),
        pause_of("web", true),
        Order::Pause { on: true, reason: "looking".into() },
        Order::Maintenance { assembly: None, on: true, reason: "upgrade".into() },
    ] {
        let mut site = slow();
        site.kill("web/nginx");
        asked(&mut site);
        site.order(order);
        nothing_is_begun(&mut site);
    }
}

#[test]
fn a_machine_that_answers_again_when_its_reboot_is_admitted_is_not_rebooted() {
    let mut site = slow();
    site.freeze("web");
    asked(&mut site);
    site.machine("web", Machine::Up);
    nothing_is_begun(&mut site);
    site.until("it is healthy", 60.0, |site| site.state("web") == State::Healthy);
    assert_eq!(site.rungs(), []);
}

/// The unit of web stays down, its first restart did not help, and the reboot that comes next is asked for.
fn escalated() -> Site {
    let mut site = Site::with(SHOP);
    site.break_for_good("web/nginx");
    site.until("a restart was tried", 60.0, |site| site.rungs() == [Rung::RestartService]);
    site.until("it is over", 60.0, |site| site.leases.is_empty());
    site.gate_takes = seconds(4.0);
    site.until("the gate has admitted", 120.0, |site| !site.leases.is_empty());
    assert_eq!(site.rungs(), [Rung::RestartService]);
    site
}

#[test]
fn a_machine_is_not_rebooted_for_a_service_that_runs_again_or_that_nobody_sees_any_more() {
    let mut site = escalated();
    site.mend("web/nginx");
    nothing_is_begun(&mut site);
    let mut site = escalated();
    site.cut("web", Some(ChannelFailure::TimedOut));
    nothing_is_begun(&mut site);
}

#[test]
fn a_person_is_told_that_what_they_ordered_became_impossible_before_it_began() {
    let mut site = slow();
    let order = site.recover("web/nginx", None);
    site.cut("web", Some(ChannelFailure::TimedOut));
    nothing_is_begun(&mut site);
    assert_eq!(site.answer(order), Err("meanwhile it is not possible any more".into()));
}

#[test]
fn a_restart_of_the_whole_does_not_begin_beside_what_began_elsewhere_while_its_answer_was_under_way() {
    let scope = "assembly = { failures = 3, within = \"6h\" }";
    let whole =
        SHOP.replace(scope, &format!("{scope}\n    deployable = {{ failures = 2, within = \"1d\" }}"));
    let mut site = Site::with(&whole);
    site.guard = Guard::new(GuardSettings { in_flight_deployable: 2, ..GuardSettings::default() });
    site.gate_takes = seconds(4.0);
    let order = site.recover("web", Some(Rung::RestartDeployable));
    site.gate_takes = seconds(0.0);
    site.kill("db/pg");
    site.run(4.5);
    assert_eq!(deeds(&site), ["restart db/pg"], "{}", site.transcript());
    assert_eq!(site.answer(order), Err("meanwhile it is not possible any more".into()));
}

#[test]
fn an_answer_about_one_restart_is_not_taken_for_one_about_another() {
    let mut site = slow();
    site.guard = Guard::new(GuardSettings { in_flight_deployable: 2, ..GuardSettings::default() });
    site.kill("web/nginx");
    asked(&mut site);
    site.gate_takes = seconds(0.0);
    site.kill("db/pg");
    site.until("one is restarted", 10.0, |site| !site.acts.is_empty());
    assert_eq!(deeds(&site), ["restart db/pg"], "{}", site.transcript());
}

/// One of its units does not run, and its start is asked for.
fn starting() -> Site {
    let mut site = Site::cold(SHOP);
    site.unit("web/nginx", Unit::Stopped);
    site.gate_takes = seconds(4.0);
    asked(&mut site);
    site
}

#[test]
fn a_start_that_was_asked_for_before_a_stop_a_pause_or_the_end_of_its_channel_is_not_done() {
    let mut site = starting();
    site.order(Order::Stop);
    site.run(60.0);
    assert!(!deeds(&site).contains(&"start web/nginx".to_owned()), "{}", site.transcript());
    let mut site = starting();
    site.order(pause_of("web/nginx", true));
    nothing_is_begun(&mut site);
    let mut site = starting();
    site.cut("web", Some(ChannelFailure::TimedOut));
    nothing_is_begun(&mut site);
}

#[test]
fn a_stop_that_was_asked_for_before_a_start_is_not_done() {
    let mut site = slow();
    site.order(Order::Stop);
    asked(&mut site);
    site.order(Order::Start);
    nothing_is_begun(&mut site);
    site.run(60.0);
    assert_eq!(deeds(&site), Vec::<String>::new(), "all of it runs");
}
