//! Power by order (policy.md section 5): machines are powered off after their services were stopped, and on before they are started; what
//! is off by order is nobody's fault.

use cpe_proto::event::EventKind;
use cpe_proto::infrastructure::{InstanceState, Owner};
use cpe_proto::observation::ChannelFailure;
use cpe_proto::state::State;
use dped::{Act, Desired, Order, Switch};

use super::site::{Machine, Outcome, Site, Unit};

pub(crate) const TWO_TIERS: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s" }
    [assemblies.db]
    address = "192.0.2.7"
    [assemblies.db.services.mariadb]
    systemd = "mariadb.service"
    [assemblies.web]
    address = "192.0.2.8"
    after = ["db"]
    [assemblies.web.services.php]
    systemd = "php.service"
    [assemblies.web.services.nginx]
    systemd = "nginx.service"
    after = ["php"]
"#;

/// What was begun, in order.
pub(crate) fn acts(site: &Site) -> Vec<String> {
    let definition = site.engine.definition();
    let said = |act: Act, machine: &str| match act {
        Act::Power(switch) => format!("{switch:?} {machine}"),
        Act::StopService(it) => format!("stop {}", definition.service(it).name),
        Act::StartService(it) => format!("start {}", definition.service(it).name),
        other => format!("{other:?}"),
    };
    site.acts
        .iter()
        .map(|(_, action)| said(action.act, definition.assembly(action.assembly).name.as_str()))
        .collect()
}

pub(crate) fn all_off(site: &Site) -> bool {
    site.hosts.iter().all(|host| host.machine == Machine::Off)
        && site.view().assemblies.iter().all(|it| &*it.reason == "powered off")
}

pub(crate) fn powered_off() -> Site {
    let mut site = Site::with(TWO_TIERS);
    site.order(Order::PowerOff);
    site.until("all is off", 60.0, all_off);
    site
}

#[test]
fn machines_are_powered_off_once_nothing_runs_on_them_dependents_first() {
    let site = powered_off();
    assert_eq!(acts(&site), ["stop nginx", "stop php", "stop mariadb", "Off web", "Off db"]);
    assert_eq!(site.view().state, State::Stopped);
    assert!(site.reasons(EventKind::Ordered).iter().all(|reason| reason == "powered off"));
}

#[test]
fn what_is_off_by_order_is_neither_probed_nor_recovered_nor_told() {
    let mut site = powered_off();
    site.forget();
    site.run(7200.0);
    assert_eq!(
        (acts(&site), site.events.len(), site.notified().len()),
        (vec![], 0, 0),
        "{}",
        site.transcript()
    );
    assert!(site.probes.is_empty(), "nothing is there to be probed");
}

#[test]
fn a_start_powers_on_what_others_need_first_and_then_starts_services() {
    let mut site = powered_off();
    site.guests.iter_mut().for_each(|guest| guest.enabled = false);
    site.forget();
    site.order(Order::Start);
    site.until("all is well", 180.0, |site| site.view().state == State::Healthy);
    assert_eq!(acts(&site), ["On db", "On web", "start mariadb", "start php", "start nginx"]);
    assert_eq!(
        site.kinds(EventKind::IncidentOpened).len(),
        0,
        "a start is no recovery\n{}",
        site.transcript()
    );
    assert_eq!(site.rungs(), []);
    assert!(site.notified().is_empty());
}

#[test]
fn what_runs_once_its_machine_is_on_is_not_started() {
    let mut site = powered_off();
    site.forget();
    site.order(Order::Start);
    site.until("all is well", 180.0, |site| site.view().state == State::Healthy);
    assert_eq!(acts(&site), ["On db", "On web"]);
}

#[test]
fn a_plain_stop_leaves_machines_on_and_one_after_a_power_off_does_not_switch_them() {
    let mut site = Site::with(TWO_TIERS);
    site.order(Order::Stop);
    site.until("all is stopped", 60.0, |site| site.view().state == State::Stopped);
    site.order(Order::PowerOff);
    site.until("all is off", 60.0, all_off);
    site.forget();
    site.order(Order::Stop);
    site.run(600.0);
    assert_eq!(acts(&site), Vec::<String>::new());
    site.order(Order::Start);
    site.until("all is well", 180.0, |site| site.view().state == State::Healthy);
    assert_eq!(acts(&site), ["On db", "On web"]);
}

#[test]
fn a_start_ordered_half_way_powers_on_only_what_is_off() {
    let mut site = Site::with(TWO_TIERS);
    site.order(Order::PowerOff);
    site.until("the first is being powered off", 60.0, |site| acts(site).contains(&"Off web".to_owned()));
    site.order(Order::Start);
    site.until("all is well", 180.0, |site| site.view().state == State::Healthy);
    site.run(60.0);
    assert_eq!(acts(&site), ["stop nginx", "stop php", "stop mariadb", "Off web", "On web", "start mariadb"]);
    assert_eq!(site.rungs(), []);
}

#[test]
fn a_machine_that_cannot_be_powered_off_is_told_tried_on_and_keeps_no_other_on() {
    let mut site = Site::with(TWO_TIERS);
    site.order(Order::PowerOff);
    site.until("all is stopped", 60.0, |site| site.view().state == State::Stopped);
    site.outcomes = vec![Outcome::Fails; 4];
    site.until("all is off", 1200.0, all_off);
    assert_eq!(acts(&site)[3..], ["Off web", "Off web", "Off web", "Off db", "Off db", "Off web"]);
    assert_eq!(
        site.notified(),
        ["shop/web is not powered off yet: power-off failed: refused by the infrastructure; it is tried on"]
    );
}

#[test]
fn nothing_is_powered_off_whose_services_could_not_be_stopped() {
    let mut site = Site::with(TWO_TIERS);
    site.cut("web", Some(ChannelFailure::TimedOut));
    site.run(30.0);
    site.forget();
    site.order(Order::PowerOff);
    site.run(1800.0);
    assert_eq!(acts(&site), Vec::<String>::new());
    let told = "shop/web/php is not stopped yet: its channel does not answer: timed out; it is tried on";
    assert!(site.notified().contains(&told), "{:?}", site.notified());
    site.cut("web", None);
    site.until("all is off", 60.0, all_off);
}

#[test]
fn a_machine_that_was_off_or_gone_needs_no_power_off_and_one_that_is_gone_is_told() {
    let mut site = Site::with(TWO_TIERS);
    site.pause(true);
    site.machine("web", Machine::Gone);
    site.machine("db", Machine::Off);
    site.run(60.0);
    site.forget();
    site.order(Order::PowerOff);
    site.until("all counts as off", 60.0, |site| {
        site.view().assemblies.iter().all(|it| &*it.reason == "powered off")
    });
    assert_eq!(acts(&site), Vec::<String>::new());
    assert_eq!(site.notified().len(), 1, "{:?}", site.notified());
    assert!(site.notified()[0].starts_with("shop/web: there is no instance of it any more"));
    assert_eq!(site.view().state, State::Stopped);
}

#[test]
fn an_infrastructure_that_lies_is_not_believed_while_the_machine_answers() {
    let mut site = Site::with(TWO_TIERS);
    site.claims("web", InstanceState::Off);
    site.order(Order::PowerOff);
    site.until("the services are stopped", 60.0, |site| acts(site).contains(&"stop php".to_owned()));
    site.run(30.0);
    assert!(acts(&site).contains(&"Off web".to_owned()), "{}", site.transcript());
}

#[test]
fn another_controllers_machine_is_left_on_and_told() {
    let mut site = Site::with(TWO_TIERS);
    site.host("web").owner = Owner::Another("other".into());
    site.order(Order::Stop);
    site.until("all is stopped", 60.0, |site| site.view().state == State::Stopped);
    let web = site.assembly_index("web");
    let (state, owner) = (InstanceState::Active, Owner::Another("other".into()));
    site.input(dped::Input::Instance { assembly: web, state, address: None, ordered: false, owner });
    site.forget();
    site.order(Order::PowerOff);
    site.run(900.0);
    assert_eq!(acts(&site), ["stop mariadb", "Off db"]);
    assert_eq!(site.notified(), ["shop/web is not powered off yet: not_owner; it is tried on"]);
}

#[test]
fn in_maintenance_and_while_paused_nothing_is_switched() {
    let mut site = Site::with(TWO_TIERS);
    site.order(Order::Stop);
    site.until("all is stopped", 60.0, |site| site.view().state == State::Stopped);
    site.maintenance(true);
    site.forget();
    site.order(Order::PowerOff);
    site.run(1800.0);
    assert_eq!((acts(&site), site.notified()), (vec![], vec![]));
    site.maintenance(false);
    site.pause(true);
    site.run(60.0);
    assert_eq!(acts(&site), Vec::<String>::new());
    site.pause(false);
    site.until("all is off", 60.0, all_off);
}

#[test]
fn a_power_off_and_a_start_survive_a_kill_at_any_of_their_steps() {
    for at in 0..80_u32 {
        let mut site = Site::with(TWO_TIERS);
        site.order(Order::PowerOff);
        site.run(f64::from(at) * 0.25);
        site.restart(5.0);
        site.until("all is off", 1200.0, all_off);
        assert_eq!(site.rungs(), [], "{}", site.transcript());
        site.restart(3600.0);
        site.run(600.0);
        assert!(all_off(&site), "{}", site.transcript());
        site.order(Order::Start);
        site.run(f64::from(at) * 0.25);
        site.restart(5.0);
        site.until("all is well", 1200.0, |site| site.view().state == State::Healthy);
        assert_eq!(site.rungs(), [], "{}", site.transcript());
        let notified: Vec<_> = site.notified().into_iter().filter(|it| it.contains("power")).collect();
        assert!(notified.is_empty(), "{notified:?}\n{}", site.transcript());
    }
}

#[test]
fn an_order_that_was_kept_and_not_carried_out_yet_is_carried_out() {
    let mut site = Site::with(TWO_TIERS);
    site.desired = Desired::PoweredOff;
    site.restart(10.0);
    site.until("all is off", 60.0, all_off);
    site.desired = Desired::Running;
    site.restart(10.0);
    site.until("all is well", 180.0, |site| site.view().state == State::Healthy);
    assert_eq!(site.rungs(), []);
}

#[test]
fn what_became_of_a_power_off_that_nobody_heard_of_is_looked_at() {
    let mut site = Site::with(TWO_TIERS);
    site.order(Order::PowerOff);
    site.until("all is stopped", 60.0, |site| site.view().state == State::Stopped);
    site.outcomes = vec![Outcome::Unresolved];
    site.until("all is off", 1200.0, all_off);
    assert_eq!(acts(&site)[3..], ["Off web", "Off db"], "done once");
}

#[test]
fn a_machine_that_does_not_come_up_after_its_start_is_recovered_as_ever() {
    let mut site = powered_off();
    site.forget();
    site.order(Order::Start);
    site.until("it is powered on", 60.0, |site| acts(site).contains(&"On db".to_owned()));
    site.run(3.0);
    site.machine("db", Machine::Frozen);
    site.until("it is recovered", 600.0, |site| !site.rungs().is_empty());
    assert_eq!(site.kinds(EventKind::IncidentOpened).len(), 1);
}

#[test]
fn a_service_that_is_not_known_to_be_stopped_any_more_is_stopped_before_its_machine_is_off() {
    let mut site = Site::with(TWO_TIERS);
    site.unit("web/nginx", Unit::Odd);
    site.order(Order::PowerOff);
    site.until("all is off", 60.0, all_off);
    assert_eq!(acts(&site).iter().position(|it| it == "stop nginx"), Some(0));
    assert!(site.acts.iter().any(|(_, it)| it.act == Act::Power(Switch::Off)));
}

#[test]
fn a_machine_that_is_added_after_a_power_off_is_left_as_it_is_until_that_is_ordered_again() {
    let mut site = powered_off();
    let three = format!(
        "{TWO_TIERS}    [assemblies.mail]\n    address = \"192.0.2.9\"\n    services.postfix.systemd = \"postfix.service\"\n"
    );
    site.redefine(&three);
    site.forget();
    site.run(600.0);
    assert_eq!(acts(&site), Vec::<String>::new());
    assert!(
        site.reason("mail").starts_with("left as it is: it was added after the power-off"),
        "{}",
        site.reason("mail")
    );
    site.restart(30.0);
    site.run(600.0);
    assert_eq!(acts(&site), Vec::<String>::new());
    site.order(Order::PowerOff);
    site.until("all is off", 60.0, all_off);
    assert_eq!(acts(&site), ["stop postfix", "Off mail"]);
    site.order(Order::Start);
    site.until("all is well", 300.0, |site| site.view().state == State::Healthy);
}

#[test]
fn what_was_exhausted_and_anothers_before_a_power_off_is_told_anew_after_the_start() {
    let mut site = Site::with(TWO_TIERS);
    site.machine("web", Machine::Gone);
    site.until("a person is told", 600.0, |site| site.state("web") == State::Exhausted);
    site.host("web").owner = Owner::Another("elsewhere".into());
    site.until("it is known whose it is", 60.0, |site| !site.kinds(EventKind::OwnerChanged).is_empty());
    site.order(Order::PowerOff);
    site.until("all counts as off", 300.0, |site| site.view().state == State::Stopped);
    site.forget();
    site.order(Order::Start);
    site.run(60.0);
    site.host("web").owner = Owner::OursOrNone;
    site.until("a person is told again", 900.0, |site| {
        site.notified().iter().any(|it| it.contains("web is exhausted"))
    });
}

/// Another machine, that nobody was asked about when the rest was powered off.
fn with_cache() -> String {
    format!(
        "{TWO_TIERS}\n[assemblies.cache]\naddress = \"192.0.2.9\"\nservices.redis.systemd = \"redis.service\"\n"
    )
}

fn with_cron() -> String {
    let cron = "[assemblies.db.services.cron]\nsystemd = \"cron.service\"\n[assemblies.web]";
    TWO_TIERS.replace("[assemblies.web]", cron)
}

const LEFT: &str = "shop/cache came to what is powered off, and is left as it is; \
                    `cpe stop --power-off shop` powers it off, too";

#[test]
fn a_machine_that_a_reload_adds_to_what_is_powered_off_is_left_as_it_is_and_told_once() {
    let mut site = powered_off();
    site.forget();
    site.redefine(&with_cache());
    site.run(600.0);
    site.restart(5.0);
    site.run(600.0);
    assert_eq!((acts(&site), site.notified()), (vec![], vec![LEFT]), "{}", site.transcript());
    assert_eq!(site.host("cache").machine, Machine::Up);
}

#[test]
fn a_machine_that_was_added_while_cpe_was_down_is_told_as_well() {
    let mut site = powered_off();
    let before = site.written.clone();
    site.redefine(&with_cache());
    site.forget();
    // What an engine that did not hear of it had written down.
    site.written = before;
    site.restart(5.0);
    site.run(600.0);
    assert_eq!((acts(&site), site.notified()), (vec![], vec![LEFT]), "{}", site.transcript());
}

#[test]
fn a_start_takes_a_machine_that_was_added_as_it_finds_it() {
    let mut site = powered_off();
    site.redefine(&with_cache());
    site.run(60.0);
    site.forget();
    site.order(Order::Start);
    site.until("all is well", 180.0, |site| site.view().state == State::Healthy);
    assert_eq!(acts(&site), ["On db", "On web"]);
}

#[test]
fn a_service_that_is_added_to_a_machine_that_is_still_on_is_stopped_before_it_is_off() {
    for while_down in [false, true] {
        let mut site = Site::with(TWO_TIERS);
        site.maintenance(true);
        site.order(Order::PowerOff);
        site.run(30.0);
        let before = site.written.clone();
        site.redefine(&with_cron());
        if while_down {
            site.written = before;
            site.restart(5.0);
        }
        site.run(30.0);
        site.forget();
        site.maintenance(false);
        site.until("all is off", 120.0, all_off);
        assert!(acts(&site).contains(&"stop cron".to_owned()), "{:?}", acts(&site));
    }
}

#[test]
fn a_machine_that_was_off_when_it_was_added_is_told_once_and_counts_as_off_once_that_is_ordered() {
    let mut site = powered_off();
    site.forget();
    site.redefine(&with_cache());
    site.machine("cache", Machine::Off);
    site.run(1800.0);
    assert_eq!((acts(&site), site.notified()), (vec![], vec![LEFT]), "{}", site.transcript());
    site.order(Order::PowerOff);
    site.until("all is off", 120.0, all_off);
    assert_eq!((acts(&site), site.notified()), (vec![], vec![LEFT]), "{}", site.transcript());
}

#[test]
fn what_runs_again_or_anew_since_a_plain_stop_is_stopped_before_its_machine_is_off() {
    let mut site = Site::with(TWO_TIERS);
    site.order(Order::Stop);
    site.until("all is stopped", 60.0, |site| site.view().state == State::Stopped);
    // Somebody started one by hand, and a reload added another.
    site.unit("db/mariadb", Unit::Running);
    site.redefine(&with_cron());
    site.run(30.0);
    site.forget();
    site.order(Order::PowerOff);
    site.until("all is off", 120.0, all_off);
    assert!(site.notified().is_empty(), "{:?}", site.notified());
    let acts = acts(&site);
    for stop in ["stop mariadb", "stop cron"] {
        assert!(acts.contains(&stop.to_owned()), "{acts:?}");
    }
}
