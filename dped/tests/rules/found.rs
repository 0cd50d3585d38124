//! What the simulated world (`sim/`) found, each by the least that shows it.

use cpe_proto::event::EventKind;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;

use cpe_proto::infrastructure::InstanceState;
use dped::{Act, Order};

use crate::site::words::pause_of;
use crate::site::{Machine, Outcome, Site, Unit, seconds};

/// `failures` of the assembly scope; a service that nothing restarts, so that each failure of it is one of its machine.
fn shop(failures: u32) -> String {
    format!(
        r#"
        name = "shop"
        infrastructure = "prod"
        probe = {{ interval = "2s" }}
        [escalation]
        service = {{ failures = 2, within = "10m" }}
        assembly = {{ failures = {failures}, within = "1h" }}
        [assemblies.web]
        instance = "i-1"
        data = "none"
        max_rung = "rebuild"
        services.queue.process = "queue"
        services.nginx.systemd = "nginx.service"
        "#
    )
}

/// The shop's machine waits for another one, which nothing but a person can mend; that is told after a minute.
fn behind_a_database() -> String {
    let database = "[assemblies.db]\ninstance = \"i-2\"\nmax_rung = \"restart-service\"\n[assemblies.web]\nafter = [\"db\"]";
    shop(2).replace("[assemblies.web]", database) + "[timing]\ndependency_wait = \"60s\"\n"
}

#[test]
fn a_machine_is_rebuilt_only_after_a_reboot_of_that_same_incident() {
    let mut site = Site::with(&shop(2));
    site.kill("web/queue");
    site.until("it is rebooted", 60.0, |site| site.rungs() == [Rung::RebootSoft]);
    site.until("the incident is closed", 120.0, |site| !site.kinds(EventKind::IncidentClosed).is_empty());
    // The count is full, but the reboot of the earlier incident had worked.
    site.break_for_good("web/queue");
    site.until("a reboot did not help", 600.0, |site| site.rungs().last() == Some(&Rung::Rebuild));
    assert_eq!(site.rungs()[1..], [Rung::RebootHard, Rung::Rebuild], "{}", site.transcript());
}

#[test]
fn a_count_of_one_is_rebooted_before_it_is_given_up() {
    let mut site = Site::with(&shop(1));
    site.freeze("web");
    site.until("something is done", 120.0, |site| !site.rungs().is_empty());
    assert_eq!(site.rungs(), [Rung::RebootHard]);
    site.until("it is well", 120.0, |site| site.view().state == State::Healthy);
}

#[test]
fn a_machine_that_goes_down_after_its_ladder_ended_for_a_service_is_told() {
    let mut site = Site::with(&shop(1));
    site.break_for_good("web/nginx");
    site.until("the ladder ended", 1800.0, |site| site.state("web/nginx") == State::Exhausted);
    site.mend("web/nginx");
    site.until("it is well", 60.0, |site| site.view().state == State::Healthy);
    site.forget();
    site.machine("web", Machine::Gone);
    site.run(300.0);
    let told = site.notified().into_iter().filter(|it| it.starts_with("shop/web is exhausted: gone")).count();
    assert_eq!(told, 1, "{:?}", site.notified());
}

#[test]
fn what_has_no_address_is_asked_for_until_it_has_one() {
    let mut site = Site::with(&shop(2));
    site.cut("web", Some(ChannelFailure::NotTried));
    site.run(60.0);
    let asked = site.asked;
    site.run(60.0);
    assert!(site.asked >= asked + 20, "asked {} times in a minute", site.asked - asked);
}

#[test]
fn a_unit_that_is_stuck_on_its_way_up_is_started_by_an_ordered_start_all_the_same() {
    for unit in [Unit::Activating, Unit::Hangs] {
        let mut site = Site::with(&shop(2).replace(
            "nginx.systemd = \"nginx.service\"",
            "queue2.process = \"q\"\nservices.queue2.restart.systemd = \"q.service\"",
        ));
        if unit == Unit::Activating {
            site = Site::with(&shop(2));
        }
        let name = if unit == Unit::Activating { "web/nginx" } else { "web/queue2" };
        site.order(Order::Stop);
        site.until("it is stopped", 60.0, |site| site.state(name) == State::Stopped);
        site.unit(name, unit);
        site.order(Order::Start);
        site.until("it runs", 600.0, |site| site.state(name) == State::Healthy);
    }
}

#[test]
fn a_machine_that_is_stopped_on_purpose_is_told_each_time() {
    let mut site = Site::with(&shop(9));
    site.freeze("web");
    site.until("it is rebooted", 120.0, |site| !site.rungs().is_empty());
    for nth in [1, 2] {
        site.until("the incident is closed", 300.0, |site| {
            site.view().incidents.is_empty() && site.view().state == State::Healthy
        });
        site.machine("web", Machine::Off);
        site.host("web").ordered = true;
        site.run(60.0);
        let told = site.notified().into_iter().filter(|it| it.contains("as somebody ordered")).count();
        assert_eq!(told, nth, "{:?}", site.notified());
        site.machine("web", Machine::Up);
        site.host("web").ordered = false;
        site.mend("web/queue");
        site.mend("web/nginx");
    }
}

#[test]
fn what_came_in_maintenance_is_told_at_its_end_also_while_recovery_is_paused() {
    let report =
        shop(2).replace("[escalation]", "timing = { on_unexpected_stop = \"report\" }\n[escalation]");
    let mut site = Site::with(&report);
    site.maintenance(true);
    site.pause(true);
    site.machine("web", Machine::Gone);
    site.run(120.0);
    assert_eq!(site.notified(), [""; 0]);
    site.maintenance(false);
    site.run(300.0);
    assert!(site.notified().iter().any(|it| it.starts_with("shop/web: gone")), "{}", site.transcript());
}

#[test]
fn a_second_outage_of_a_machine_whose_service_is_exhausted_is_concluded_anew() {
    let definition = shop(1)
        .replace("infrastructure = \"prod\"", "")
        .replace("instance = \"i-1\"", "address = \"192.0.2.1\"");
    let mut site = Site::with(&definition);
    site.canary = false;
    site.break_for_good("web/nginx");
    site.until("the ladder ended", 1800.0, |site| site.state("web/nginx") == State::Exhausted);
    for nth in [1, 2] {
        site.forget();
        site.freeze("web");
        site.run(30.0);
        let told = site.reasons(EventKind::FaultIsolated);
        let of_machine = told.iter().filter(|it| it.starts_with("unreachable")).count();
        assert_eq!(of_machine, 1, "outage {nth}\n{}", site.transcript());
        site.machine("web", Machine::Up);
        site.run(30.0);
    }
}

#[test]
fn what_waits_is_said_also_while_what_it_waits_for_is_being_recovered() {
    let definition = r#"
        name = "shop"
        probe = { interval = "2s" }
        timing = { dependency_wait = "30s", service_action_timeout = "60s" }
        [escalation]
        service = { failures = 3, within = "10m" }
        [assemblies.web]
        address = "192.0.2.1"
        services.db.systemd = "db.service"
        [assemblies.web.services.app]
        systemd = "app.service"
        after = ["db"]
    "#;
    let mut site = Site::with(definition);
    site.break_for_good("web/db");
    site.kill("web/app");
    site.until("it waits", 20.0, |site| site.reason("web/app").contains("waits for web/db"));
    // Every restart takes so long that one is always under way.
    site.outcomes = vec![Outcome::Late(seconds(50.0)); 9];
    site.run(120.0);
    let said = site.notified().into_iter().filter(|it| it.contains("web/app has waited for web/db")).count();
    assert_eq!(said, 1, "{:?}\n{}", site.notified(), site.transcript());
}

#[test]
fn a_machine_that_was_down_before_a_stop_is_told_again_after_the_start() {
    let mut site = Site::with(&shop(2).replace("max_rung = \"rebuild\"", "max_rung = \"restart-service\""));
    site.canary = false;
    site.freeze("web");
    site.run(60.0);
    site.order(Order::Stop);
    site.run(60.0);
    site.forget();
    site.order(Order::Start);
    site.run(900.0);
    let told = site.reasons(EventKind::FaultIsolated);
    assert_eq!(told.len(), 1, "{told:?}\n{}", site.transcript());
    assert!(!site.notified().is_empty(), "{}", site.transcript());
}

#[test]
fn a_machine_whose_wait_for_another_ends_while_cpe_does_not_trust_itself_is_told_all_the_same() {
    let mut site = Site::with(&behind_a_database());
    site.freeze("db");
    site.until("it ended", 120.0, |site| site.state("db") == State::Exhausted);
    site.machine("web", Machine::Off);
    site.until("it is off, and waits", 30.0, |site| site.state("web") == State::Failed);
    site.run(1.0);
    site.self_trusted = false;
    site.run(90.0);
    site.self_trusted = true;
    site.run(120.0);
    let said = site.notified().into_iter().filter(|it| it.contains("web has waited for db")).count();
    assert_eq!(said, 1, "{:?}\n{}", site.notified(), site.transcript());
}

#[test]
fn silence_at_an_address_that_a_machine_has_left_is_no_reason_to_reboot_it() {
    let mut site = Site::with(&shop(3));
    site.host("web").address = Some("192.0.2.10".into());
    site.cut("web", Some(ChannelFailure::TimedOut));
    site.run(1.0);
    site.claims("web", InstanceState::Unknown);
    site.run(120.0);
    assert_eq!(site.acts.len(), 0, "{}", site.transcript());
    // The infrastructure answers again: it runs, elsewhere.
    site.host("web").claims = None;
    site.host("web").address = Some("192.0.2.11".into());
    let before = site.reconnects;
    site.until("it is known to be elsewhere", 30.0, |site| site.reconnects > before);
    site.cut("web", None);
    site.run(60.0);
    assert_eq!(site.acts.len(), 0, "{}", site.transcript());
    assert_eq!(site.state("web"), State::Healthy);
}

#[test]
fn nothing_is_replaced_while_an_earlier_reboot_that_nobody_saw_end_may_still_be_done() {
    let mut site = Site::with(&shop(2).replace("max_rung = \"rebuild\"", "max_rung = \"recreate\""));
    site.break_for_good("web/queue");
    site.outcomes = vec![Outcome::Lost];
    site.until("it is replaced", 7200.0, |site| site.rungs().contains(&Rung::Recreate));
    let of = |rung| site.acts.iter().find(|(_, action)| action.act == Act::Machine(rung)).map(|(at, _)| *at);
    let fenced =
        site.acts.iter().find(|(_, action)| action.act == Act::Fence(Rung::Recreate)).map(|(at, _)| *at);
    let (Some(lost), Some(fenced)) = (of(Rung::RebootSoft), fenced) else { panic!("{}", site.transcript()) };
    assert!(fenced.since(lost) >= seconds(900.0), "{}", site.transcript());
}

#[test]
fn what_waited_before_a_stop_that_was_never_carried_out_says_after_the_start_that_it_waits() {
    let mut site = Site::with(&behind_a_database());
    site.freeze("db");
    site.until("it ended", 120.0, |site| site.state("db") == State::Exhausted);
    site.break_for_good("web/queue");
    site.until("it waits", 30.0, |site| site.reason("web/queue").contains("waits for db"));
    let maintenance = |on| Order::Maintenance { assembly: None, on, reason: "work".into() };
    site.order(maintenance(true));
    site.order(Order::Stop);
    site.run(120.0);
    site.order(maintenance(false));
    site.order(Order::Start);
    site.forget();
    site.run(300.0);
    let said = site.notified().into_iter().filter(|it| it.contains("web/queue has waited for db")).count();
    assert_eq!(said, 1, "{:?}\n{}", site.notified(), site.transcript());
}

#[test]
fn a_machine_whose_address_nobody_knew_before_a_stop_is_told_again_after_the_start() {
    let mut site = Site::with(&shop(2));
    site.cut("web", Some(ChannelFailure::NotTried));
    site.run(60.0);
    site.order(Order::Stop);
    site.run(3600.0);
    site.order(Order::Start);
    site.forget();
    site.run(3600.0);
    let said = site.notified().into_iter().filter(|it| it.contains("web: unreachable for")).count();
    assert_eq!(said, 1, "{:?}\n{}", site.notified(), site.transcript());
}

#[test]
fn a_wait_that_was_told_is_not_told_again_when_the_verdict_of_its_machine_changes() {
    let mut site = Site::with(&behind_a_database());
    site.freeze("db");
    site.until("it ended", 120.0, |site| site.state("db") == State::Exhausted);
    site.machine("web", Machine::Off);
    site.until("it waits", 30.0, |site| site.reason("web").contains("timed out"));
    site.run(90.0);
    site.claims("web", InstanceState::Unknown);
    site.run(60.0);
    site.claims("web", InstanceState::Off);
    site.run(900.0);
    let said = site.notified().into_iter().filter(|it| it.contains("web has waited for db")).count();
    assert_eq!(said, 1, "{:?}\n{}", site.notified(), site.transcript());
}

#[test]
fn a_restart_of_which_nothing_was_heard_through_a_maintenance_gives_no_leave_to_act_at_its_end() {
    let timing = "[timing]\nservice_action_timeout = \"20s\"\nmachine_action_timeout = \"60s\"\naction_give_up = \"200s\"\n";
    let mut site = Site::with(&(shop(3) + timing));
    site.kill("web/nginx");
    site.outcomes = vec![Outcome::Lost];
    site.until("it is restarted", 60.0, |site| site.rungs().len() == 1);
    site.machine("web", Machine::Off);
    site.run(30.0);
    site.maintenance(true);
    site.run(140.0);
    site.maintenance(false);
    let freed = site.now;
    site.until("something else is done", 3600.0, |site| site.rungs().len() == 2);
    assert!(site.now.since(freed) >= seconds(60.0), "{}", site.transcript());
}

/// A site whose machine is made anew, of which nothing is heard; the old instance is still there, off.
fn made_unseen() -> Site {
    let definition = shop(2).replace("max_rung = \"rebuild\"", "max_rung = \"recreate\"");
    let mut site = Site::with(&definition.replace(
        "[escalation]",
        "timing = { retry_after = \"1m\", machine_action_timeout = \"60s\" }\n[escalation]",
    ));
    site.break_for_good("web/queue");
    let made = |site: &Site| site.acts.last().is_some_and(|(_, it)| it.act == Act::Machine(Rung::Recreate));
    site.until("it is made anew", 7200.0, made);
    site.outcomes = vec![Outcome::Lost];
    site.acts.clear();
    site
}

#[test]
fn the_old_instance_is_not_started_while_a_new_one_that_nobody_saw_made_may_still_come_up() {
    for restarts in [false, true] {
        let mut site = made_unseen();
        let made = site.now;
        for _ in 0..200 {
            site.machine("web", Machine::Off);
            site.run(1.0);
        }
        if restarts {
            site.restart(20.0);
        }
        let hand = site.recover("web", Some(Rung::RebootHard));
        site.until("it is started", 3600.0, |site| !site.acts.is_empty());
        assert!(site.acts[0].0.since(made) >= seconds(890.0), "{}", site.transcript());
        let refused = site.answer(hand).unwrap_err();
        assert!(refused.contains("whose end nobody saw, may still be done for"), "{refused}");
    }
}

#[test]
fn what_a_late_reboot_has_started_again_after_a_stop_is_stopped_again() {
    let mut site = Site::with(&shop(2));
    site.outcomes = vec![Outcome::Lost];
    site.recover("web", Some(Rung::RebootHard));
    site.until("it is rebooted", 30.0, |site| !site.acts.is_empty());
    site.order(Order::Stop);
    site.restart(30.0);
    site.until("it is stopped", 300.0, |site| site.state("web/nginx") == State::Stopped);
    // Only now the infrastructure does what it was asked for.
    site.unit("web/nginx", Unit::Running);
    site.acts.clear();
    let stopped = |site: &Site| site.acts.iter().any(|(_, it)| matches!(it.act, Act::StopService(_)));
    site.until("it is stopped again", 1800.0, stopped);
}

#[test]
fn a_machine_that_somebody_stops_while_its_recovery_is_paused_is_told_as_stopped() {
    let mut site = Site::with(&shop(2));
    site.order(pause_of("web", true));
    site.machine("web", Machine::Off);
    site.until("it is off", 60.0, |site| site.state("web") == State::Failed);
    site.run(600.0);
    site.forget();
    site.host("web").ordered = true;
    site.until("a person is told", 120.0, |site| {
        site.notified().iter().any(|it| it.contains("as somebody ordered"))
    });
    site.run(600.0);
    assert_eq!(site.notified().len(), 1, "{:?}", site.notified());
}
