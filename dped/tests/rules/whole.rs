//! The deployable's scope (policy.md section 3): the ladder of a machine has ended, so its deployable is restarted around it. What depends
//! on it lets go before and comes back after it, in order; no other machine is touched; what was taken is given back, whatever comes of it.

use cpe_proto::decision::Refusal;
use cpe_proto::event::EventKind;
use cpe_proto::infrastructure::{Capabilities, Operation};
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::Order;

use crate::site::words::{deeds, pause_of};
use crate::site::{Machine, Outcome, Site, Unit, seconds};

/// The first fault of a unit of db escalates, the first reboot that does not help is the end of its machine's own ladder.
const SHOP: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s", startup_grace = "30s" }
    timing = { retry_after = "10m", service_action_timeout = "20s" }
    [escalation]
    service = { failures = 1, within = "1h" }
    assembly = { failures = 1, within = "6h" }
    deployable = { failures = 2, within = "1d" }
    [assemblies.db]
    address = "192.0.2.1"
    services.pg.systemd = "pg.service"
    [assemblies.app]
    address = "192.0.2.2"
    after = ["db"]
    services.rails.systemd = "rails.service"
    services.jobs = { systemd = "jobs.service", after = ["rails"] }
    [assemblies.web]
    address = "192.0.2.3"
    services.nginx = { systemd = "nginx.service", after = ["app/rails"] }
    services.static.systemd = "static.service"
    [assemblies.mail]
    address = "192.0.2.4"
    services.postfix.systemd = "postfix.service"
"#;

/// A site whose database no reboot mends, just before its deployable is restarted.
fn broken(definition: &str) -> Site {
    broken_at(Site::with(definition))
}

fn broken_at(mut site: Site) -> Site {
    site.break_for_good("db/pg");
    site.until("its own ladder has ended", 600.0, |site| {
        site.reasons(EventKind::Escalated).iter().any(|it| it.contains("restart-deployable"))
    });
    site.acts.clear();
    site
}

fn restarted_once(site: &Site) -> bool {
    deeds(site).iter().filter(|it| *it == "restart-deployable db").count() == 1
}

#[test]
fn what_depends_on_it_lets_go_in_reverse_and_comes_back_in_order_and_nothing_else_is_touched() {
    let mut site = broken(SHOP);
    site.until("the machine is restarted", 300.0, restarted_once);
    site.mend("db/pg");
    site.until("everything is healthy", 300.0, |site| site.view().state == State::Healthy);
    site.run(120.0);
    assert_eq!(
        deeds(&site),
        [
            "stop app/jobs",
            "stop web/nginx",
            "stop app/rails",
            "restart-deployable db",
            "start app/rails",
            "start app/jobs",
            "start web/nginx",
        ]
    );
    let started = site.reasons(EventKind::RecoveryStarted);
    assert!(started.last().unwrap().contains("failure 1 of 2 in 24 h of the deployable"), "{started:?}");
    assert_eq!(site.notified(), [""; 0], "it healed by itself");
}

#[test]
fn with_all_every_other_service_is_restarted_too() {
    let mut site = broken(&SHOP.replace("within = \"1d\" }", "within = \"1d\", scope = \"all\" }"));
    site.until("the machine is restarted", 300.0, restarted_once);
    let stopped: Vec<_> = deeds(&site).into_iter().filter(|it| it.starts_with("stop")).collect();
    assert!(stopped.contains(&"stop mail/postfix".to_owned()), "{stopped:?}");
    assert!(stopped.contains(&"stop web/static".to_owned()), "{stopped:?}");
    site.mend("db/pg");
    site.until("everything is healthy", 300.0, |site| site.view().state == State::Healthy);
}

#[test]
fn where_it_does_not_help_what_let_go_comes_back_and_the_second_failure_ends_the_ladder() {
    let mut site = broken(SHOP);
    site.until("a person is told", 900.0, |site| !site.notified().is_empty());
    assert_eq!(site.rungs().iter().filter(|it| **it == Rung::RestartDeployable).count(), 1);
    assert!(
        site.notified()[0].contains("exhausted: failure 2 of 2 in 24 h of the deployable"),
        "{:?}",
        site.notified()
    );
    site.run(60.0);
    let runs = |site: &mut Site, name: &str| site.guest(name).unit == Unit::Running;
    for name in ["app/rails", "app/jobs", "web/nginx", "web/static", "mail/postfix"] {
        assert!(runs(&mut site, name), "{name} ran before\n{}", site.transcript());
    }
}

#[test]
fn what_cannot_be_stopped_is_tried_three_times_with_a_pause_and_then_not_waited_for() {
    let mut site = broken(SHOP);
    site.outcomes = vec![Outcome::Fails; 5];
    site.until("the machine is restarted", 300.0, restarted_once);
    assert_eq!(
        deeds(&site),
        [
            "stop app/jobs",
            "stop web/nginx",
            "stop app/jobs",
            "stop web/nginx",
            "stop app/jobs",
            "stop web/nginx",
            "stop app/rails",
            "restart-deployable db"
        ],
        "jobs would not go three times, nginx went in the end"
    );
    let after = |index: usize| site.acts[index].0.since(site.acts[index - 2].0);
    assert!(after(2) >= seconds(0.9) && after(4) >= seconds(1.8), "{}", site.transcript());
    let lead = site.acts[7].1.incident;
    assert!(lead.is_some() && site.acts.iter().all(|(_, action)| action.incident == lead), "one incident");
}

#[test]
fn what_cannot_be_reached_any_more_is_not_waited_for() {
    let mut site = broken(SHOP);
    site.outcomes = vec![Outcome::Late(seconds(15.0))];
    site.until("jobs is being stopped", 60.0, |site| deeds(site).len() == 1);
    site.cut("app", Some(ChannelFailure::TimedOut));
    site.until("the machine is restarted", 60.0, restarted_once);
}

#[test]
fn what_let_go_has_its_time_to_come_back_one_after_the_other() {
    let mut site = broken(SHOP);
    site.until("the machine is restarted", 300.0, restarted_once);
    site.mend("db/pg");
    site.until("the first comes back", 120.0, |site| {
        deeds(site).last().is_some_and(|it| it.starts_with("start"))
    });
    site.outcomes = vec![Outcome::Late(seconds(18.0)); 3];
    let end = |site: &Site| {
        let ends = site.kinds(EventKind::RecoveryFinished);
        ends.iter().find(|it| it.rung == Some(Rung::RestartDeployable)).and_then(|it| it.to)
    };
    site.until("it is over", 300.0, |site| end(site).is_some());
    assert_eq!(end(&site), Some(State::Healthy), "{}", site.transcript());
    assert_eq!(site.state("web/nginx"), State::Healthy, "{}", site.transcript());
}

#[test]
fn it_is_over_when_what_let_go_is_back_or_has_been_waited_for() {
    let mut site = broken(SHOP);
    site.until("the machine is restarted", 300.0, restarted_once);
    site.mend("db/pg");
    let over = |site: &Site| {
        let ends = site.kinds(EventKind::RecoveryFinished);
        ends.iter().any(|it| it.rung == Some(Rung::RestartDeployable))
    };
    site.until("it is over", 300.0, over);
    assert_eq!(deeds(&site).last().map(String::as_str), Some("start web/nginx"), "{}", site.transcript());
    assert_eq!(site.state("web/nginx"), State::Healthy);
}

#[test]
fn a_restart_that_did_not_help_is_told_as_failed_when_what_let_go_is_back() {
    let mut site = broken(SHOP);
    site.until("a person is told", 900.0, |site| !site.notified().is_empty());
    let ends = site.kinds(EventKind::RecoveryFinished);
    let end = ends.iter().find(|it| it.rung == Some(Rung::RestartDeployable));
    assert_eq!(end.and_then(|it| it.to), Some(State::Failed), "{}", site.transcript());
}

#[test]
fn it_reaches_what_is_after_a_machine_of_which_a_part_let_go_and_nothing_that_rests_elsewhere() {
    let more = SHOP.replace(
        "static.service\"",
        "static.service\"\n    services.feed = { systemd = \"feed.service\", after = [\"mail/postfix\"] }",
    ) + r#"
    [assemblies.cdn]
    address = "192.0.2.5"
    after = ["web"]
    services.varnish.systemd = "varnish.service"
    [assemblies.news]
    address = "192.0.2.6"
    after = ["mail"]
    services.mailman.systemd = "mailman.service"
"#;
    let mut site = broken(&more);
    site.until("the machine is restarted", 300.0, restarted_once);
    let mut stopped = deeds(&site);
    stopped.sort_unstable();
    assert_eq!(
        stopped,
        ["restart-deployable db", "stop app/jobs", "stop app/rails", "stop cdn/varnish", "stop web/nginx"]
    );
}

#[test]
fn what_let_go_for_a_machine_that_is_defined_no_more_is_started_again() {
    let mut site = broken(SHOP);
    site.until("two have let go", 60.0, |site| deeds(site).len() == 2 && !site.in_flight());
    let (before, after) = SHOP.split_once("    [assemblies.db]").unwrap_or_default();
    let (_, after) = after.split_once("    [assemblies.app]").unwrap_or_default();
    site.redefine(&format!("{before}    [assemblies.app]{}", after.replace("after = [\"db\"]", "")));
    site.until("all of it runs", 120.0, |site| site.view().state == State::Healthy);
    let mut started: Vec<String> = deeds(&site).into_iter().filter(|it| it.starts_with("start")).collect();
    started.sort_unstable();
    assert_eq!(started, ["start app/jobs", "start web/nginx"], "{}", site.transcript());
}

#[test]
fn a_machine_that_does_not_come_back_takes_nothing_with_it() {
    let mut site = broken(SHOP);
    site.host("db").boot = seconds(1e6);
    site.until("a person is told", 900.0, |site| !site.notified().is_empty());
    site.run(60.0);
    for name in ["app/rails", "app/jobs", "web/nginx"] {
        let unit = site.guest(name).unit;
        assert_eq!(unit, Unit::Running, "{name}\n{}", site.transcript());
    }
}

#[test]
fn what_heals_while_the_others_let_go_is_not_powered_off() {
    let mut site = broken(SHOP);
    // A stop takes its time.
    site.outcomes = vec![Outcome::Lost];
    site.until("the first lets go", 60.0, |site| !deeds(site).is_empty());
    site.mend("db/pg");
    site.unit("db/pg", Unit::Running);
    site.until("everything is healthy", 300.0, |site| site.view().state == State::Healthy);
    assert!(!deeds(&site).contains(&"restart-deployable db".to_owned()), "{}", site.transcript());
    let ended = site.reasons(EventKind::RecoveryFinished);
    assert!(ended.last().unwrap().starts_with("not begun"), "{ended:?}");
}

#[test]
fn nothing_else_of_the_deployable_is_recovered_meanwhile() {
    let mut site = broken(SHOP);
    site.until("the first lets go", 60.0, |site| !deeds(site).is_empty());
    site.kill("mail/postfix");
    site.until("the machine is restarted", 300.0, restarted_once);
    site.mend("db/pg");
    site.until("it is over", 300.0, |site| {
        site.kinds(EventKind::RecoveryFinished).iter().any(|it| it.rung == Some(Rung::RestartDeployable))
    });
    assert!(!deeds(&site).contains(&"reboot-soft mail".to_owned()), "{:?}", deeds(&site));
    assert!(site.recover("mail", None) > 0);
    site.until("all of it is healthy", 300.0, |site| site.view().state == State::Healthy);
}

#[test]
fn what_is_held_before_its_machine_was_touched_is_called_off_and_nothing_stays_stopped() {
    for which in ["pause", "maintenance", "fleet"] {
        let mut site = broken(SHOP);
        site.until("the first lets go", 60.0, |site| !deeds(site).is_empty());
        let hold = |site: &mut Site, on: bool| match which {
            "pause" => site.pause(on),
            "maintenance" => site.maintenance(on),
            _ => {
                site.guard.set_paused(on);
                site.order(Order::FleetPause { on });
            }
        };
        hold(&mut site, true);
        site.run(60.0);
        assert!(!deeds(&site).contains(&"restart-deployable db".to_owned()), "{}", site.transcript());
        for name in ["app/rails", "app/jobs", "web/nginx"] {
            let unit = site.guest(name).unit;
            assert_eq!(unit, Unit::Running, "{which}: {name}\n{}", site.transcript());
        }
        hold(&mut site, false);
        site.mend("db/pg");
        site.until("everything is healthy", 600.0, |site| site.view().state == State::Healthy);
    }
}

#[test]
fn what_somebody_paused_by_name_is_left_alone_by_it() {
    for (paused, left) in [("app/jobs", "app/jobs"), ("web", "web/nginx")] {
        let mut site = Site::with(SHOP);
        site.order(pause_of(paused, true));
        let mut site = broken_at(site);
        site.until("the machine is restarted", 300.0, restarted_once);
        site.mend("db/pg");
        site.run(300.0);
        let deeds = deeds(&site);
        assert!(!deeds.iter().any(|it| it.ends_with(left)), "{paused}: {deeds:?}");
        assert!(deeds.contains(&"start app/rails".to_owned()), "{paused}: {deeds:?}");
    }
}

#[test]
fn what_is_paused_by_name_after_it_let_go_comes_back_all_the_same() {
    for paused in ["app/jobs", "app", "web/nginx", "web"] {
        let mut site = broken(SHOP);
        site.until("three have let go", 60.0, |site| deeds(site).len() == 3);
        site.order(pause_of(paused, true));
        site.until("the machine is restarted", 300.0, restarted_once);
        site.mend("db/pg");
        site.run(300.0);
        for name in ["app/rails", "app/jobs", "web/nginx"] {
            let unit = site.guest(name).unit;
            assert_eq!(unit, Unit::Running, "{paused}: {name}\n{}", site.transcript());
        }
    }
}

/// Started again it would wait for the address, so it is better left running.
#[test]
fn what_is_set_up_with_an_address_that_nobody_knows_keeps_running() {
    let told = SHOP
        .replace(
            "services.jobs = { systemd = \"jobs.service\", after = [\"rails\"] }",
            "services.jobs = { systemd = \"jobs.service\", after = [\"rails\"], configure = \"/usr/sbin/set-up\", parameters = { mail = \"{mail.address}\" } }",
        )
        .replace("    address = \"192.0.2.4\"\n", "    instance = \"mail\"\n");
    let mut site = Site::cold(&told);
    site.run(60.0);
    let mut site = broken_at(site);
    site.until("the machine is restarted", 300.0, restarted_once);
    let deeds = deeds(&site);
    assert!(!deeds.contains(&"stop app/jobs".to_owned()), "{deeds:?}");
    assert!(deeds.contains(&"stop app/rails".to_owned()), "{deeds:?}");
}

#[test]
fn what_is_held_after_its_machine_was_touched_is_finished() {
    let mut site = broken(SHOP);
    site.until("the machine is restarted", 300.0, restarted_once);
    site.mend("db/pg");
    site.maintenance(true);
    site.run(120.0);
    for name in ["app/rails", "app/jobs", "web/nginx"] {
        let unit = site.guest(name).unit;
        assert_eq!(unit, Unit::Running, "{name}\n{}", site.transcript());
    }
}

#[test]
fn whatever_step_cpe_ends_at_it_is_neither_lost_nor_done_twice() {
    for steps in 0..8 {
        for down in [0.1, 3.0, 200.0] {
            let mut site = broken(SHOP);
            site.until("so many steps", 300.0, |site| {
                site.acts.len() >= steps || !site.notified().is_empty()
            });
            if steps > 3 {
                site.mend("db/pg");
            }
            site.restart(down);
            site.until("it is over", 3000.0, |site| {
                site.view().state == State::Healthy || !site.notified().is_empty()
            });
            let restarts = site.rungs().iter().filter(|it| **it == Rung::RestartDeployable).count();
            assert!(restarts <= 1, "{steps} {down}\n{}", site.transcript());
            site.run(120.0);
            for name in ["app/rails", "app/jobs", "web/nginx"] {
                let unit = site.guest(name).unit;
                assert_eq!(unit, Unit::Running, "{name} {steps} {down}\n{}", site.transcript());
            }
        }
    }
}

#[test]
fn a_machine_that_was_left_off_between_its_stop_and_its_start_is_started() {
    // Whatever is done where somebody else stops one.
    left_off(SHOP);
    left_off(&SHOP.replace("timing = {", "timing = { on_unexpected_stop = \"report\","));
}

fn left_off(definition: &str) {
    let mut site = broken(definition);
    site.until("the others have let go", 300.0, |site| deeds(site).contains(&"stop app/rails".to_owned()));
    site.until("the machine is restarted", 300.0, restarted_once);
    site.outcomes = vec![Outcome::Lost];
    site.run(3.0);
    site.machine("db", Machine::Off);
    site.restart(0.1);
    site.mend("db/pg");
    site.until("everything is healthy", 1200.0, |site| site.view().state == State::Healthy);
    assert!(site.rungs().contains(&Rung::Start), "{}", site.transcript());
}

#[test]
fn what_forbids_it_is_recorded_and_the_ladder_ends_as_without_it() {
    let without_power = || {
        let can = Operation::ALL.into_iter().filter(|it| *it != Operation::Stop);
        Capabilities(can.collect())
    };
    let mut site = Site::with(SHOP);
    site.capabilities = Some(without_power());
    site.break_for_good("db/pg");
    site.until("a person is told", 900.0, |site| !site.notified().is_empty());
    assert!(
        site.notified()[0].contains("restart-deployable skipped: the infrastructure cannot do it"),
        "{:?}",
        site.notified()
    );
    assert!(!deeds(&site).iter().any(|it| it.starts_with("stop")));
}

#[test]
fn a_person_orders_it_where_the_definition_gives_it() {
    let mut site = Site::with(SHOP);
    let order = site.recover("db", Some(Rung::RestartDeployable));
    site.until("it is answered", 20.0, |site| site.answers.contains_key(&order));
    assert!(site.answer(order).is_ok(), "{:?}", site.answer(order));
    site.until("the machine is restarted", 60.0, restarted_once);
    site.until("everything is healthy", 300.0, |site| site.view().state == State::Healthy);
    assert_eq!(
        deeds(&site)[..4],
        ["stop app/jobs", "stop web/nginx", "stop app/rails", "restart-deployable db"]
    );

    let mut site = Site::with(&SHOP.replace("    deployable = { failures = 2, within = \"1d\" }\n", ""));
    let order = site.recover("db", Some(Rung::RestartDeployable));
    site.until("it is answered", 20.0, |site| site.answers.contains_key(&order));
    let said = site.answer(order).unwrap_err();
    assert!(said.contains("[escalation] does not give it"), "{said}");
}

#[test]
fn a_stop_while_others_let_go_says_that_nothing_was_done_to_the_machine() {
    let finished = |site: &Site| {
        let told = site.kinds(EventKind::RecoveryFinished);
        told.last().map(|event| (event.rung, event.reason.to_string()))
    };
    let mut site = broken(SHOP);
    site.until("others let go", 60.0, |site| !site.acts.is_empty());
    site.order(Order::Stop);
    let as_a_whole = Some(Rung::RestartDeployable);
    assert_eq!(finished(&site), Some((as_a_whole, "not begun: stopped by an order".to_owned())));
    assert!(!restarted_once(&site));

    // The same while they come back from one that was called off.
    let mut site = broken(SHOP);
    site.until("others let go", 60.0, |site| !site.acts.is_empty());
    site.order(Order::Maintenance {
        assembly: Some(site.assembly_index("db")),
        on: true,
        reason: "work".into(),
    });
    site.run(0.1);
    site.order(Order::Stop);
    let (rung, reason) = finished(&site).unwrap();
    assert_eq!(rung, as_a_whole);
    assert!(reason.starts_with("not begun: ") && reason.ends_with("; stopped by an order"), "{reason}");
}

#[test]
fn what_something_rests_on_that_nobody_can_start_is_not_stopped_for_it() {
    // Ended with nginx it would be down for good: a probe of a program that cpe has no way to start.
    let watched = SHOP.replace(
        "    services.static.systemd",
        "    services.agent = { process = \"agent\", after = [\"nginx\"] }\n    services.static.systemd",
    );
    let mut site = broken(&watched);
    site.until("db was restarted", 600.0, restarted_once);
    let deeds = deeds(&site);
    assert!(!deeds.iter().any(|it| it == "stop web/nginx" || it == "stop app/rails"), "{deeds:?}");
    assert!(deeds.contains(&"stop app/jobs".to_owned()), "{deeds:?}");
}

#[test]
fn a_start_that_is_admitted_when_the_restart_that_it_was_a_step_of_is_over_is_asked_for_anew() {
    // What let go cannot be started for the whole of its time, and the gate answers late.
    let ending = |free_at: Option<f64>| {
        let mut site = broken(SHOP);
        site.until("db is restarted", 600.0, restarted_once);
        site.mend("db/pg");
        site.refuses = Some(Refusal::Journal);
        let begun = site.now;
        if let Some(free_at) = free_at {
            site.run(free_at);
            (site.refuses, site.gate_takes) = (None, seconds(4.0));
        }
        let over = |site: &Site| {
            let told = site.kinds(EventKind::RecoveryFinished);
            told.iter().any(|event| event.rung == Some(Rung::RestartDeployable))
        };
        site.until("it is over", 900.0, over);
        let (over, acts) = (site.now.since(begun).as_secs_f64(), site.acts.len());
        site.run(60.0);
        let stale = site.acts[acts..].iter().any(|(_, action)| action.part_of.is_some());
        assert!(!stale, "free at {free_at:?}\n{}", site.transcript());
        over
    };
    let over = ending(None);
    for early in 1..16 {
        ending(Some(over - f64::from(early) * 0.5));
    }
}
