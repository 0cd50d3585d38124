//! Edges that `cargo mutants` showed nobody looked at.

use cpe_proto::decision::Refusal;
use cpe_proto::event::EventKind;
use cpe_proto::id::ActionId;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::{ActionOutcome, Input, Target};

use crate::site::{Outcome, Site, Unit, seconds};

const SHOP: &str = r#"
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
    [assemblies.web.services.blog]
    systemd = "blog.service"
    after = ["db/mariadb"]
"#;

fn of_another(site: &mut Site) {
    let outcome = ActionOutcome::Failed { detail: "of another one".into() };
    site.input(Input::Acted { action: ActionId(777), outcome });
    site.run(1.0);
}

#[test]
fn the_outcome_of_another_action_does_not_end_the_one_under_way() {
    let mut site = Site::with(SHOP);
    site.outcomes = vec![Outcome::Late(seconds(20.0))];
    site.kill("db/mariadb");
    site.until("a restart is under way", 10.0, |site| site.acts.len() == 1);
    of_another(&mut site);
    assert!(site.in_flight());
    let said = site.reasons(EventKind::RecoveryFinished);
    assert!(said.iter().all(|it| it.starts_with("late outcome")), "{said:?}");

    let mut cold = Site::cold(SHOP);
    cold.unit("db/mariadb", Unit::Stopped);
    cold.outcomes = vec![Outcome::Late(seconds(20.0))];
    cold.until("a start is under way", 60.0, |site| site.acts.len() == 1);
    of_another(&mut cold);
    assert_eq!(cold.acts.len(), 1, "it is not begun once more: {}", cold.transcript());
}

#[test]
fn what_could_not_be_begun_is_told_as_a_refusal_of_the_journal_and_tried_again() {
    let mut site = Site::with(SHOP);
    site.outcomes = vec![Outcome::NotBegun; 3];
    site.kill("db/mariadb");
    site.until("it is healthy in the end", 120.0, |site| {
        site.acts.len() > 3 && site.state("db/mariadb") == State::Healthy
    });
    let refused = site.reasons(EventKind::RecoveryRefused);
    assert!(!refused.is_empty());
    assert!(refused[0].starts_with(Refusal::Journal.as_str()), "{refused:?}");
}

#[test]
fn a_machine_is_verified_although_one_of_its_services_waits_for_another_machine() {
    let mut site = Site::with(SHOP);
    site.unit("db/mariadb", Unit::Masked);
    site.run(10.0);
    site.guest("web/blog").enabled = false;
    site.recover("web", Some(Rung::RebootHard));
    site.until("the reboot is over", 600.0, |site| !site.kinds(EventKind::RecoveryFinished).is_empty());
    let said = site.reasons(EventKind::RecoveryFinished);
    assert!(said[0].starts_with("healthy after"), "{said:?}");
    assert_ne!(site.state("web/blog"), State::Healthy, "nobody starts it before its database is there");
}

#[test]
fn a_dependency_that_is_not_healthy_is_probed_at_its_own_pace() {
    let mut site = Site::with(SHOP);
    site.unit("db/mariadb", Unit::Masked);
    site.run(10.0);
    site.kill("web/blog");
    site.run(10.0);
    let mariadb = Target::Service(site.service_index("db/mariadb"));
    let probes = |site: &Site| site.probes.iter().filter(|(_, target)| *target == mariadb).count();
    let before = probes(&site);
    site.run(60.0);
    assert_eq!(probes(&site) - before, 30, "once every 2 s");
}

#[test]
fn an_admission_that_never_comes_is_asked_for_again() {
    let mut site = Site::with(SHOP);
    site.deaf = true;
    site.kill("db/mariadb");
    site.run(60.0);
    assert_eq!(site.acts.len(), 0, "nothing is done without an answer");
    site.deaf = false;
    site.until("it is restarted", 60.0, |site| site.acts.len() == 1);
}

#[test]
fn a_start_waits_until_a_restart_on_its_machine_is_verified() {
    let mut site = Site::with(SHOP);
    site.kill("db/mariadb");
    site.until("it was restarted", 30.0, |site| site.acts.len() == 1 && !site.in_flight());
    let cron = "[assemblies.db.services.cron]\n    systemd = \"cron.service\"\n    probe = { failure_threshold = 1 }";
    site.redefine(&SHOP.replace("[assemblies.web]", &format!("{cron}\n    [assemblies.web]")));
    site.unit("db/cron", Unit::Stopped);
    site.until("cron is started", 60.0, |site| site.acts.len() == 2);
    assert_eq!(site.kinds(EventKind::RecoveryFinished).len(), 1, "{}", site.transcript());
}
