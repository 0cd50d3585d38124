//! Whose a machine is (policy.md section 7; design.md section 4, rule 2): a foreign mark is reported, and its machine never acted upon.

use cpe_proto::decision::{Answer, Refusal};
use cpe_proto::event::EventKind;
use cpe_proto::infrastructure::Owner;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;

use crate::site::{Machine, Site, Unit};

const WEB: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s" }
    [escalation]
    service = { failures = 3, within = "1h" }
    assembly = { failures = 2, within = "6h" }
    [assemblies.web]
    address = "192.0.2.1"
    [assemblies.web.services.nginx]
    systemd = "nginx.service"
    [assemblies.db]
    address = "192.0.2.2"
    [assemblies.db.services.pg]
    systemd = "pg.service"
"#;

fn taken() -> Site {
    let mut site = Site::with(WEB);
    site.host("web").owner = Owner::Another("east".into());
    site
}

#[test]
fn a_machine_of_another_controller_is_reported_and_never_acted_upon() {
    let mut site = taken();
    site.machine("web", Machine::Off);
    site.run(1_800.0);
    assert!(site.acts.is_empty(), "{}", site.transcript());
    let told =
        site.notified().into_iter().filter(|it| it.contains("mark of another controller, east")).count();
    assert_eq!(told, 1, "once: {:?}", site.notified());
    assert_eq!(site.reasons(EventKind::OwnerChanged), ["foreign: it bears the mark of controller east"]);
    let refused = site.decisions.iter().filter(|it| it.answer == Answer::Refused(Refusal::NotOwner));
    assert_eq!(refused.count(), 1, "a standing refusal is recorded once");
    assert_eq!(site.reasons(EventKind::RecoveryRefused), ["not_owner: owner controller east"]);
}

#[test]
fn what_is_given_back_is_recovered() {
    let mut site = taken();
    site.machine("web", Machine::Off);
    site.run(300.0);
    assert!(site.acts.is_empty(), "{}", site.transcript());
    site.host("web").owner = Owner::OursOrNone;
    site.until("it is started", 120.0, |site| site.rungs() == [Rung::Start]);
    site.until("all is well", 300.0, |site| site.view().state == State::Healthy);
    assert_eq!(site.kinds(EventKind::OwnerChanged).len(), 2, "{}", site.transcript());
}

#[test]
fn its_services_are_not_restarted_either_and_its_owner_is_asked_for_until_it_is_ours() {
    let mut site = taken();
    site.machine("web", Machine::Off);
    site.until("its owner is known", 60.0, |site| !site.kinds(EventKind::OwnerChanged).is_empty());
    // The other one sees to it.
    site.machine("web", Machine::Up);
    site.until("it answers", 120.0, |site| site.state("web") == State::Healthy);
    site.unit("web/nginx", Unit::Failed);
    site.run(900.0);
    assert!(site.acts.is_empty(), "{}", site.transcript());
    site.host("web").owner = Owner::OursOrNone;
    site.until("it is restarted", 120.0, |site| site.rungs() == [Rung::RestartService]);
}

#[test]
fn a_person_is_refused_too_and_told_whose_it_is() {
    let mut site = taken();
    let order = site.recover("web", Some(Rung::RebootHard));
    let said = site.answer(order).expect_err("it is not ours");
    assert!(said.starts_with("not_owner: its machine bears the mark of controller east"), "{said}");
    assert!(site.acts.is_empty(), "{}", site.transcript());
}

#[test]
fn what_the_infrastructure_cannot_say_changes_nothing() {
    let mut site = taken();
    site.machine("web", Machine::Off);
    site.until("its owner is known", 60.0, |site| !site.kinds(EventKind::OwnerChanged).is_empty());
    site.host("web").owner = Owner::NotSaid;
    site.run(900.0);
    assert!(site.acts.is_empty(), "{}", site.transcript());
}

#[test]
fn whose_it_is_outlives_a_restart() {
    let mut site = taken();
    site.machine("web", Machine::Off);
    site.until("its owner is known", 60.0, |site| !site.kinds(EventKind::OwnerChanged).is_empty());
    site.host("web").owner = Owner::NotSaid;
    site.restart(5.0);
    site.run(900.0);
    assert!(site.acts.is_empty(), "{}", site.transcript());
}
