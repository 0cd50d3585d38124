//! What a verification concludes when its time is over (policy.md sections 1 and 3): only what was seen failing has failed, only what is
//! ours to mend counts, and it is named.

use cpe_proto::event::EventKind;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;

use crate::site::words::{deeds, pause_of};
use crate::site::{Machine, Outcome, Site, Unit, seconds};

const SHOP: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "1s", timeout = "500ms", startup_grace = "40s" }
    [escalation]
    service = { failures = 3, within = "1h" }
    assembly = { failures = 5, within = "6h" }
    [assemblies.web]
    address = "192.0.2.1"
    services.cron.systemd = "cron.service"
    services.nginx.systemd = "nginx.service"
"#;

/// A reboot by hand that is begun.
fn rebooted(mut site: Site) -> Site {
    let order = site.recover("web", Some(Rung::RebootSoft));
    assert!(site.answer(order).is_ok());
    site.until("it is begun", 10.0, |site| deeds(site) == ["reboot-soft web"]);
    site
}

/// Its end: what it came to, and why.
fn end(site: &mut Site) -> (State, String) {
    let over = |site: &Site| !site.kinds(EventKind::RecoveryFinished).is_empty();
    site.until("it is over", 1800.0, over);
    let event = site.kinds(EventKind::RecoveryFinished)[0];
    (event.to.expect("what it came to"), event.reason.to_string())
}

#[test]
fn a_reboot_that_does_not_help_names_the_service_that_is_unwell_and_the_ladder_goes_on() {
    let mut site = Site::with(SHOP);
    site.order(pause_of("web/cron", true));
    for name in ["web/cron", "web/nginx"] {
        site.break_for_good(name);
    }
    let mut site = rebooted(site);
    let said = end(&mut site);
    assert_eq!(said, (State::Failed, "nginx is not healthy in time: unit inactive".into()));
    site.until("the next rung is begun", 300.0, |site| deeds(site).contains(&"reboot-hard web".to_owned()));
    let why = &site.reasons(EventKind::RecoveryStarted)[1];
    assert!(why.starts_with("nginx: unit "), "what is paused is not what it is for: {why}");
}

#[test]
fn a_reboot_after_which_only_what_is_paused_fails_has_worked() {
    let mut site = Site::with(SHOP);
    site.order(pause_of("web/cron", true));
    site.break_for_good("web/cron");
    let mut site = rebooted(site);
    let (to, reason) = end(&mut site);
    assert_eq!(to, State::Healthy, "{reason}\n{}", site.transcript());
}

#[test]
fn a_reboot_after_which_a_unit_is_neither_up_nor_down_has_neither_worked_nor_failed() {
    let mut site = Site::with(SHOP);
    site.order(pause_of("web/cron", true));
    site.break_for_good("web/cron");
    let mut site = rebooted(site);
    site.run(22.5);
    site.unit("web/nginx", Unit::Odd);
    let (to, reason) = end(&mut site);
    assert_eq!((to, &*reason), (State::Unknown, "no answer says whether it worked"), "{}", site.transcript());
}

#[test]
fn another_service_that_dies_while_a_restart_is_verified_is_seen_at_once() {
    let slow = SHOP.replace(
        "services.nginx.systemd = \"nginx.service\"",
        "services.nginx = { systemd = \"nginx.service\", probe = { stable_for = \"60s\" } }",
    );
    let mut site = Site::with(&slow);
    site.kill("web/nginx");
    site.until("it is restarted", 20.0, |site| deeds(site) == ["restart web/nginx"]);
    let cron = dped::Target::Service(site.service_index("web/cron"));
    site.forget();
    site.run(20.0);
    let looks = site.probes.iter().filter(|(_, target)| *target == cron).count();
    assert!((19..=21).contains(&looks), "at its own pace: {looks} looks in 20 intervals");
    site.kill("web/cron");
    site.until("it is told", 5.0, |site| site.state("web/cron") == State::Failed);
    assert_eq!(site.state("web/nginx"), State::Recovering);
}

#[test]
fn a_restart_that_fails_while_paused_is_not_counted() {
    let mut site = Site::with(SHOP);
    site.break_for_good("web/nginx");
    site.until("it is restarted", 20.0, |site| site.acts.len() == 1);
    site.pause(true);
    site.run(60.0);
    site.mend("web/nginx");
    site.until("a person mended it", 60.0, |site| site.state("web/nginx") == State::Healthy);
    site.pause(false);
    site.kill("web/nginx");
    site.until("it is restarted again", 60.0, |site| site.acts.len() == 2);
    let why = &site.reasons(EventKind::RecoveryStarted)[1];
    assert!(why.contains("failure 2 of 3"), "{why}\n{}", site.transcript());
}

#[test]
fn a_reboot_of_which_no_probe_said_anything_has_not_failed() {
    let mut site = rebooted(Site::with(SHOP));
    site.run(1.0);
    site.lagging = true;
    let (to, reason) = end(&mut site);
    assert_eq!((to, &*reason), (State::Unknown, "no answer says whether it worked"), "{}", site.transcript());
}

#[test]
fn what_came_to_nothing_after_the_end_of_maintenance_is_watched_anew() {
    let mut site = Site::with(SHOP);
    site.outcomes = vec![Outcome::Fails];
    let mut site = rebooted(site);
    site.maintenance(true);
    site.maintenance(false);
    assert_ne!(end(&mut site).0, State::Healthy);
    let anew = |it: &String| it.contains("watched anew after maintenance");
    assert!(site.reasons(EventKind::StateChanged).iter().any(anew), "{}", site.transcript());
}

#[test]
fn a_machine_that_a_restart_of_the_whole_left_off_is_started() {
    let whole = SHOP.replace("service = { failures = 3", "service = { failures = 1").replace(
        "assembly = { failures = 5",
        "deployable = { failures = 3, within = \"1d\" }\n    assembly = { failures = 1",
    );
    let mut site = Site::with(&whole);
    site.break_for_good("web/nginx");
    site.until("its own ladder has ended", 600.0, |site| {
        site.reasons(EventKind::Escalated).iter().any(|it| it.ends_with("escalates to restart-deployable"))
    });
    site.outcomes = vec![Outcome::Unresolved];
    site.until("its deployable is restarted", 60.0, |site| {
        deeds(site).iter().any(|it| it == "restart-deployable web")
    });
    site.run(3.0);
    site.machine("web", Machine::Off);
    site.host("web").boot = seconds(5.0);
    site.acts.clear();
    site.until("it is started", 1800.0, |site| !site.acts.is_empty());
    assert_eq!(deeds(&site), ["start web"], "{}", site.transcript());
}

#[test]
fn a_replacement_that_nobody_saw_made_and_that_answers_is_connected_to_anew() {
    let replaced = SHOP.replace(
        "address = \"192.0.2.1\"",
        "address = \"192.0.2.1\"\n    data = \"none\"\n    max_rung = \"recreate\"",
    );
    let mut site = Site::with(&replaced);
    site.recover("web", Some(Rung::Recreate));
    site.until("it is made", 60.0, |site| deeds(site) == ["fence web", "recreate web"]);
    assert!(site.acts.iter().all(|(_, act)| !act.fenced), "nobody said that it is down: that is verified");
    site.outcomes = vec![Outcome::Unresolved];
    site.reconnects = 0;
    let (to, _) = end(&mut site);
    assert_eq!((to, site.reconnects), (State::Healthy, 1), "{}", site.transcript());
}
