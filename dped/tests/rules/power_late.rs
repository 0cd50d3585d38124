//! Power by order (`power.rs`) when an answer is late or lost, is overtaken by another order, or is about something else.

use cpe_proto::event::EventKind;
use cpe_proto::id::ActionId;
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::state::State;
use dped::{ActionOutcome, Input, Order};

use super::power::{TWO_TIERS, acts, all_off, powered_off};
use super::site::words::pause_of;
use super::site::{Machine, Outcome, Site, seconds};

/// A power-off of what was stopped before: its services are stopped once more, and the last of these stops is under way.
fn being_stopped() -> Site {
    let mut site = Site::with(TWO_TIERS);
    site.order(Order::Stop);
    site.until("all is stopped", 60.0, |site| site.view().state == State::Stopped);
    site.run(5.0);
    site.order(Order::PowerOff);
    site.until("its services are stopped again", 60.0, |site| site.acts.len() == 6);
    site
}

/// All of it is stopped, and the power-off of web is asked for: the gate takes its time.
fn about_to_be_off() -> Site {
    let mut site = being_stopped();
    site.gate_takes = seconds(4.0);
    site.until("the last is stopped", 60.0, |site| !site.in_flight());
    site.until("the gate has admitted", 60.0, |site| !site.leases.is_empty());
    assert_eq!(acts(&site).len(), 6, "{}", site.transcript());
    site
}

#[test]
fn a_power_off_that_was_asked_for_before_a_start_a_pause_or_maintenance_is_not_done() {
    let orders = [
        Order::Start,
        pause_of("web", true),
        Order::Pause { on: true, reason: "looking".into() },
        Order::Maintenance { assembly: None, on: true, reason: "upgrade".into() },
    ];
    for order in orders {
        let mut site = about_to_be_off();
        site.order(order.clone());
        site.run(4.5);
        assert!(!acts(&site).contains(&"Off web".to_owned()), "{order:?}\n{}", site.transcript());
    }
}

#[test]
fn a_power_off_to_which_the_gate_gave_no_answer_is_asked_for_again() {
    let mut site = being_stopped();
    site.deaf = true;
    site.run(20.0);
    assert_eq!(acts(&site).len(), 6, "{}", site.transcript());
    site.deaf = false;
    site.until("all is off", 60.0, all_off);
}

#[test]
fn a_power_off_whose_end_nobody_knows_is_looked_at_and_given_up_after_action_give_up() {
    let mut site = about_to_be_off();
    site.outcomes = vec![Outcome::Lost];
    site.until("web is being powered off", 60.0, |site| acts(site).contains(&"Off web".to_owned()));
    site.claims("web", InstanceState::Unknown);
    let offs = |site: &Site| acts(site).iter().filter(|it| *it == "Off web").count();
    site.run(840.0);
    assert_eq!(offs(&site), 1, "{}", site.transcript());
    let failed = |site: &Site| {
        site.reasons(EventKind::Ordered)
            .iter()
            .any(|it| it.contains("power-off failed: unresolved for 15 min"))
    };
    assert!(!failed(&site));
    site.until("it is given up", 600.0, failed);
}

#[test]
fn a_machine_that_hangs_once_its_services_are_stopped_is_powered_off_all_the_same() {
    let mut site = Site::with(TWO_TIERS);
    site.order(Order::Stop);
    site.until("all is stopped", 60.0, |site| site.view().state == State::Stopped);
    site.freeze("web");
    site.run(60.0);
    site.order(Order::PowerOff);
    site.until("all is off", 600.0, all_off);
    assert!(acts(&site).contains(&"Off web".to_owned()), "{}", site.transcript());
}

#[test]
fn what_somebody_else_stopped_while_it_was_off_is_not_powered_on_by_a_start() {
    let mut site = powered_off();
    site.host("web").ordered = true;
    site.order(Order::Start);
    site.run(300.0);
    assert!(acts(&site).contains(&"On db".to_owned()) && !acts(&site).contains(&"On web".to_owned()));
    assert_eq!(site.hosts[1].machine, Machine::Off);
}

#[test]
fn the_outcome_of_one_action_is_not_taken_for_that_of_another() {
    let others = |site: &mut Site| {
        let outcome = ActionOutcome::Failed { detail: "somebody else's".into() };
        site.input(Input::Acted { action: ActionId(9999), outcome });
    };
    let mut site = about_to_be_off();
    site.outcomes = vec![Outcome::Late(seconds(20.0))];
    site.until("web is being powered off", 60.0, |site| acts(site).contains(&"Off web".to_owned()));
    others(&mut site);
    site.until("all is off", 120.0, all_off);
    assert!(
        !site.reasons(EventKind::Ordered).iter().any(|it| it.contains("failed")),
        "{}",
        site.transcript()
    );
    let mut site = being_stopped();
    others(&mut site);
    site.until("all is off", 120.0, all_off);
    let stops = acts(&site).iter().filter(|it| it.starts_with("stop")).count();
    assert_eq!(stops, 6, "none is stopped once more\n{}", site.transcript());
}

#[test]
fn a_power_off_under_way_is_written_down_as_one() {
    let mut site = about_to_be_off();
    site.outcomes = vec![Outcome::Late(seconds(20.0))];
    site.until("web is being powered off", 60.0, |site| acts(site).contains(&"Off web".to_owned()));
    let written = site.engine.snapshot(site.now);
    let flights = written.assemblies.iter().filter_map(|it| it.power.as_ref()?.flight.as_ref());
    assert_eq!(flights.map(|it| it.switch).collect::<Vec<_>>(), [dped::Switch::Off]);
}

#[test]
fn what_was_powered_off_is_not_taken_to_be_on_while_its_infrastructure_does_not_say() {
    let mut site = powered_off();
    site.claims("db", InstanceState::Unknown);
    site.order(Order::Start);
    site.run(60.0);
    assert!(site.reason("db").contains("waits for its infrastructure to say"), "{}", site.reason("db"));
    site.host("db").claims = None;
    site.until("everything is healthy", 300.0, |site| site.view().state == State::Healthy);
    assert!(acts(&site).contains(&"On db".to_owned()), "{}", site.transcript());
}

#[test]
fn what_its_infrastructure_is_changing_is_not_powered_off_meanwhile() {
    let mut site = Site::with(TWO_TIERS);
    site.order(Order::Stop);
    site.until("all is stopped", 60.0, |site| site.view().state == State::Stopped);
    site.freeze("web");
    site.claims("web", InstanceState::Changing);
    site.run(60.0);
    site.order(Order::PowerOff);
    site.run(120.0);
    assert!(!acts(&site).contains(&"Off web".to_owned()), "{}", site.transcript());
    site.host("web").claims = None;
    site.until("all is off", 600.0, all_off);
}
