//! The last rung (policy.md section 3): a machine that nothing helped where it is, is stopped, verified off, and made anew in another zone,
//! once; what depends on it lets go before and comes back after it. It stays there, and after it only a person can help.

use cpe_proto::event::EventKind;
use cpe_proto::id::Name;
use cpe_proto::infrastructure::{Capabilities, InstanceState, Operation};
use cpe_proto::rung::Rung;
use cpe_proto::state::State;

use crate::site::words::deeds;
use crate::site::{Machine, Outcome, Site, Unit};

/// The first fault of a unit of db escalates, the first reboot that does not help is the end of its machine's own ladder.
const SHOP: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s", startup_grace = "30s" }
    timing = { retry_after = "10m", service_action_timeout = "20s" }
    [escalation]
    service = { failures = 1, within = "1h" }
    assembly = { failures = 1, within = "6h" }
    relocate = { zone = "az2" }
    [assemblies.db]
    address = "192.0.2.1"
    failure_domains = ["az1"]
    data = "volume"
    max_rung = "relocate"
    services.pg.systemd = "pg.service"
    [assemblies.app]
    address = "192.0.2.2"
    after = ["db"]
    services.rails.systemd = "rails.service"
    [assemblies.mail]
    address = "192.0.2.3"
    services.postfix.systemd = "postfix.service"
"#;

const AS_A_WHOLE: &str = "    deployable = { failures = 2, within = \"1d\" }\n    relocate =";

/// A site whose database no reboot mends, on an infrastructure that replaces nothing but by making it elsewhere.
fn broken(definition: &str) -> Site {
    let mut site = Site::with(definition);
    let milder = |it: &Operation| !matches!(it, Operation::Rebuild | Operation::Create);
    site.capabilities = Some(Capabilities(Operation::ALL.into_iter().filter(milder).collect()));
    site.break_for_good("db/pg");
    site
}

fn to_the_other_place(site: &mut Site) {
    site.until("it is to be made elsewhere", 1200.0, |site| {
        site.reasons(EventKind::Escalated).iter().any(|it| it.ends_with("escalates to relocate"))
    });
    site.acts.clear();
}

fn made_elsewhere(site: &Site) -> usize {
    deeds(site).iter().filter(|it| *it == "relocate db").count()
}

fn zone(site: &Site) -> Option<String> {
    site.engine.zone(site.assembly_index("db")).map(Name::to_string)
}

#[test]
fn it_is_fenced_first_and_made_elsewhere_once_and_what_depends_on_it_comes_back() {
    let mut site = broken(SHOP);
    to_the_other_place(&mut site);
    assert_eq!(zone(&site), None, "where it is defined to be");
    site.until("it is made", 300.0, |site| made_elsewhere(site) == 1);
    site.mend("db/pg");
    site.until("everything is healthy", 300.0, |site| site.view().state == State::Healthy);
    site.run(120.0);
    assert_eq!(deeds(&site), ["stop app/rails", "fence db", "relocate db", "start app/rails"]);
    assert_eq!(zone(&site).as_deref(), Some("az2"));
    let said = site.reasons(EventKind::Fenced);
    assert!(said[0].ends_with("its replacement is made in az2"), "{said:?}");
    let domains: Vec<String> =
        site.engine.domains(site.assembly_index("db")).iter().map(Name::to_string).collect();
    assert_eq!(domains, ["az1", "az2"], "an outage of either may be what it suffers from");
    assert_eq!(site.notified(), [""; 0], "it healed by itself");
}

#[test]
fn it_comes_after_the_restart_of_the_deployable() {
    let mut site = broken(&SHOP.replace("    relocate =", AS_A_WHOLE));
    site.until("a person is told", 2400.0, |site| !site.notified().is_empty());
    let rungs: Vec<Rung> = site.rungs().into_iter().filter(|it| *it >= Rung::RestartDeployable).collect();
    assert_eq!(rungs, [Rung::RestartDeployable, Rung::Relocate], "{}", site.transcript());
}

#[test]
fn where_it_does_not_help_either_a_person_is_told_and_it_is_not_moved_again() {
    let mut site = broken(SHOP);
    site.until("a person is told", 2400.0, |site| !site.notified().is_empty());
    assert!(
        site.notified()[0].contains("relocate skipped: it was made there before"),
        "{:?}",
        site.notified()
    );
    site.run(3600.0);
    assert_eq!(made_elsewhere(&site), 1, "{}", site.transcript());
    assert_eq!(site.guest("app/rails").unit, Unit::Running, "what let go comes back");
}

#[test]
fn what_forbids_it_is_recorded_and_the_ladder_ends() {
    let only = |text: &str, more: Option<Operation>| {
        let mut site = broken(text);
        if let Some(capabilities) = &mut site.capabilities {
            capabilities.0.retain(|it| Some(*it) != more);
        }
        site.until("a person is told", 2400.0, |site| !site.notified().is_empty());
        assert_eq!(made_elsewhere(&site), 0, "{}", site.transcript());
        site.notified()[0].to_owned()
    };
    let local = SHOP.replace("data = \"volume\"", "data = \"local\"");
    let capped = SHOP.replace("max_rung = \"relocate\"", "max_rung = \"recreate\"");
    for (text, lacks, why) in [
        (local.as_str(), None, "relocate skipped: would lose local data"),
        (capped.as_str(), None, "relocate skipped: above max_rung"),
        (SHOP, Some(Operation::Relocate), "relocate skipped: the infrastructure cannot do it"),
        (SHOP, Some(Operation::Stop), "relocate skipped: the infrastructure cannot do it"),
    ] {
        let told = only(text, lacks);
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn what_is_not_verified_off_is_not_made_elsewhere() {
    let mut site = broken(SHOP);
    to_the_other_place(&mut site);
    site.until("what depends on it lets go", 60.0, |site| deeds(site).contains(&"stop app/rails".to_owned()));
    site.run(1.0);
    site.outcomes = vec![Outcome::Fails];
    site.until("a person is told", 1200.0, |site| !site.notified().is_empty());
    assert_eq!((made_elsewhere(&site), zone(&site)), (0, None), "{}", site.transcript());
}

#[test]
fn where_its_place_is_lost_with_all_that_could_say_so_a_person_confirms_that_it_is_down() {
    let mut site = broken(SHOP);
    site.mend("db/pg");
    site.machine("db", Machine::Frozen);
    site.claims("db", InstanceState::Unknown);
    site.run(120.0);
    assert!(deeds(&site).is_empty(), "nobody can fence it\n{}", site.transcript());
    site.confirm_fenced("db").unwrap();
    site.until("it is made", 300.0, |site| made_elsewhere(site) == 1);
    assert_eq!(zone(&site).as_deref(), Some("az2"));
    site.host("db").claims = None;
    site.until("everything is healthy", 300.0, |site| site.view().state == State::Healthy);
}

#[test]
fn whatever_step_cpe_ends_at_there_are_no_two_of_it() {
    for steps in 1..5 {
        for down in [0.1, 3.0, 200.0] {
            let mut site = broken(SHOP);
            to_the_other_place(&mut site);
            site.until("so many steps", 300.0, |site| {
                site.acts.len() >= steps || !site.notified().is_empty()
            });
            if steps > 2 {
                site.mend("db/pg");
            }
            site.restart(down);
            site.until("it is over", 3000.0, |site| {
                site.view().state == State::Healthy || !site.notified().is_empty()
            });
            assert!(made_elsewhere(&site) <= 1, "{steps} {down}\n{}", site.transcript());
            let there = (made_elsewhere(&site) == 1).then_some("az2");
            assert_eq!(zone(&site).as_deref(), there, "{steps} {down}\n{}", site.transcript());
            site.run(120.0);
            let unit = site.guest("app/rails").unit;
            assert_eq!(unit, Unit::Running, "{steps} {down}\n{}", site.transcript());
        }
    }
}

#[test]
fn a_person_moves_it_where_the_definition_says_where_to_and_brings_it_home() {
    let ordered = |site: &mut Site, rung: Rung| {
        let order = site.recover("db", Some(rung));
        site.until("it is answered", 30.0, |site| site.answers.contains_key(&order));
        let answer = site.answer(order);
        site.run(120.0);
        answer
    };
    let mut site = Site::with(SHOP);
    assert!(ordered(&mut site, Rung::Relocate).is_ok());
    assert_eq!((zone(&site).as_deref(), site.view().state), (Some("az2"), State::Healthy));
    let again = ordered(&mut site, Rung::Relocate).unwrap_err();
    assert!(again.contains("it was made there before"), "{again}");
    assert!(ordered(&mut site, Rung::Recreate).is_ok());
    assert_eq!(zone(&site).as_deref(), Some("az2"), "a recreate stays where the machine is");

    let without = SHOP.replace("    relocate = { zone = \"az2\" }\n", "");
    site.redefine(&without);
    assert_eq!(zone(&site).as_deref(), Some("az2"), "a definition moves nothing");
    let no = ordered(&mut site, Rung::Relocate).unwrap_err();
    assert!(no.contains("[escalation] does not give it"), "{no}");
    assert!(ordered(&mut site, Rung::Recreate).is_ok());
    assert_eq!((zone(&site), site.view().state), (None, State::Healthy), "home");
}

#[test]
fn what_lives_where_the_definition_no_longer_sends_it_is_made_anew_where_it_is_defined_to_be() {
    let mut site = Site::with(SHOP);
    site.recover("db", Some(Rung::Relocate));
    let db = site.assembly_index("db");
    let domains =
        |site: &Site| -> Vec<String> { site.engine.domains(db).iter().map(Name::to_string).collect() };
    site.until("it is fenced", 60.0, |site| deeds(site).contains(&"fence db".to_owned()));
    assert_eq!((zone(&site), domains(&site)), (None, vec!["az1".into(), "az2".into()]), "it goes there");
    site.run(120.0);
    assert_eq!((zone(&site).as_deref(), site.view().state), (Some("az2"), State::Healthy));
    site.redefine(&SHOP.replace("az2", "az3"));
    site.recover("db", Some(Rung::Recreate));
    site.until("it is fenced again", 60.0, |site| deeds(site).ends_with(&["fence db".into()]));
    assert_eq!(domains(&site), ["az1", "az2"], "nobody moves it to az3");
    site.run(120.0);
    assert_eq!((zone(&site), site.view().state), (None, State::Healthy));
}

#[test]
fn one_whose_move_nobody_saw_end_and_that_is_off_is_not_started_where_it_was() {
    let mut site = Site::with(SHOP);
    site.recover("db", Some(Rung::Relocate));
    site.until("it is made", 60.0, |site| made_elsewhere(site) == 1);
    site.outcomes = vec![Outcome::Unresolved];
    site.run(3.0);
    site.machine("db", Machine::Off);
    site.until("a person is told", 3600.0, |site| !site.notified().is_empty());
    assert!(!deeds(&site).contains(&"start db".to_owned()), "{}", site.transcript());
}
