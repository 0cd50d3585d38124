//! policy.md section 4, its last sentence: an assembly that comes back with another address, and who is told of it.

use cpe_proto::decision::Refusal;
use cpe_proto::definition::{Check, Direct, ParameterName};
use cpe_proto::event::EventKind;
use cpe_proto::infrastructure::{InstanceState, Owner};
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::{Act, Input, Order, Parameters};

use crate::site::{Machine, Outcome, Site, Unit, seconds};

/// A database that is made anew elsewhere, and who uses it: two by its address, in order, one by its name, one not at all.
const SHOP: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s", timeout = "2s", startup_grace = "60s" }
    [escalation]
    assembly = { failures = 1, within = "1h" }
    [assemblies.db]
    instance = "db"
    data = "none"
    max_rung = "recreate"
    services.mariadb.systemd = "mariadb.service"
    [assemblies.app]
    address = "192.0.2.2"
    services.app = { systemd = "app.service", configure = "/usr/sbin/set-up", parameters = { db = "{db.address}", mode = "fast" } }
    [assemblies.web]
    address = "192.0.2.3"
    services.shop = { systemd = "shop.service", configure = "/usr/sbin/set-up", parameters = { db = "{db.address}" }, after = ["app/app"] }
    services.named = { systemd = "named.service", configure = "/usr/sbin/set-up", parameters = { db = "{db.name}" } }
    services.static.systemd = "static.service"
"#;

/// The database with something to set it up with.
const OWN: &str = "services.mariadb = { systemd = \"mariadb.service\", configure = \"/usr/sbin/set-up\", parameters = { size = \"9\" } }";

fn site(definition: &str) -> Site {
    let mut site = Site::cold(definition);
    site.host("db").address = Some("10.0.0.1".into());
    site.until("everything is healthy", 60.0, |site| site.view().state == State::Healthy);
    // Whoever runs was set up by somebody.
    for name in ["app/app", "web/shop", "web/named"] {
        let service = site.service_index(name);
        site.set_up.insert(name.to_owned(), site.engine.rendered(service));
    }
    site.forget();
    site
}

/// The database's machine is lost for good: it is made anew, elsewhere.
fn lose_the_database(site: &mut Site, address: &str) {
    site.host("db").moves_to = Some(address.into());
    site.machine("db", Machine::Gone);
}

fn steps(site: &Site) -> Vec<String> {
    let name = |service| {
        let part = site.engine.definition().service(service);
        format!("{}/{}", site.engine.definition().assembly(part.assembly).name, part.name)
    };
    let step = |act: Act| match act {
        Act::Reconfigure(service) => Some(format!("reconfigure {}", name(service))),
        Act::RestartService(service) => Some(format!("restart {}", name(service))),
        Act::Machine(rung) => Some(rung.to_string()),
        Act::Fence(_) | Act::Power(_) | Act::StartService(_) | Act::StopService(_) => None,
    };
    site.acts.iter().filter_map(|(_, action)| step(action.act)).collect()
}

fn given(site: &Site, name: &str) -> Option<Parameters> {
    site.set_up.get(name).cloned().flatten()
}

fn parameters(list: &[(&str, &str)]) -> Option<Parameters> {
    list.iter().map(|(name, value)| Some((ParameterName::parse(name).ok()?, (*value).to_owned()))).collect()
}

#[test]
fn dependents_whose_parameters_changed_are_reconfigured_once_in_order_and_uncounted() {
    let mut site = site(SHOP);
    lose_the_database(&mut site, "10.0.0.2");
    site.until("both are reconfigured", 300.0, |site| steps(site).len() >= 3);
    site.until("all is well", 120.0, |site| site.view().state == State::Healthy);
    site.run(7200.0);
    assert_eq!(steps(&site), ["recreate", "reconfigure app/app", "reconfigure web/shop"]);
    assert_eq!(given(&site, "app/app"), parameters(&[("db", "10.0.0.2"), ("mode", "fast")]));
    assert_eq!(given(&site, "web/named"), parameters(&[("db", "db")]));
    // Steps of the database's incident, and no failure of anybody.
    let incident = site.kinds(EventKind::IncidentOpened)[0].incident;
    let opened = site.kinds(EventKind::IncidentOpened).len();
    assert_eq!(opened, 1, "{}", site.transcript());
    for (_, action) in &site.acts {
        assert_eq!(action.incident, incident, "{action:?}");
    }
    let began = site.reasons(EventKind::RecoveryStarted);
    assert_eq!(began[1..], ["reconfigured: db changed", "reconfigured: db changed"], "and no value is told");
    assert!(site.events.iter().all(|event| !event.reason.contains("10.0.0.2")));
    assert_eq!(site.view().incidents, []);
}

#[test]
fn nobody_is_touched_where_the_address_is_the_same() {
    let mut site = site(SHOP);
    lose_the_database(&mut site, "10.0.0.1");
    site.until("it is recreated", 300.0, |site| steps(site) == ["recreate"]);
    site.until("all is well", 120.0, |site| site.view().state == State::Healthy);
    site.run(3600.0);
    assert_eq!(steps(&site), ["recreate"]);
}

/// What it is set up with has no address yet: it cannot be started, and that is not silent.
#[test]
fn a_start_that_waits_for_an_address_is_told() {
    let mut site = Site::cold(&SHOP.replace(", after = [\"app/app\"]", ""));
    site.machine("db", Machine::Gone);
    site.unit("web/shop", Unit::Failed);
    site.run(900.0);
    let told = site.notified();
    assert!(told.contains(&"shop/web/shop has waited for db for 5 min"), "{told:?}");
}

#[test]
fn dependents_wait_until_what_they_are_told_of_is_healthy() {
    let mut site = site(SHOP);
    site.guest("db/mariadb").broken = true;
    lose_the_database(&mut site, "10.0.0.2");
    site.until("it is recreated", 300.0, |site| steps(site).first().is_some_and(|step| step == "recreate"));
    site.run(600.0);
    let told = |site: &Site| steps(site).iter().any(|step| step.starts_with("reconfigure"));
    assert!(!told(&site), "{}", site.transcript());
    site.mend("db/mariadb");
    site.until("they are told", 4000.0, told);
}

#[test]
fn a_held_dependent_is_reconfigured_when_it_is_held_no_more() {
    let mut site = site(SHOP);
    lose_the_database(&mut site, "10.0.0.2");
    site.until("it is recreated", 300.0, |site| steps(site) == ["recreate"]);
    site.maintenance(true);
    site.run(600.0);
    assert_eq!(steps(&site), ["recreate"]);
    assert!(!site.reasons(EventKind::RecoveryRefused).is_empty(), "{}", site.transcript());
    site.maintenance(false);
    site.until("both are reconfigured", 300.0, |site| steps(site).len() >= 3);
    site.run(600.0);
    assert_eq!(steps(&site).len(), 3, "{}", site.transcript());
}

#[test]
fn observed_dependents_are_not_reconfigured_and_that_is_told_once() {
    let mut site = site(&SHOP.replace("name = \"shop\"", "name = \"shop\"\nmode = \"observe\""));
    site.host("db").address = Some("10.0.0.2".into());
    site.machine("db", Machine::Off);
    site.run(60.0);
    site.machine("db", Machine::Up);
    site.run(600.0);
    assert_eq!(steps(&site), [""; 0]);
    let refused = site.reasons(EventKind::RecoveryRefused);
    let mine: Vec<&String> = refused.iter().filter(|reason| reason.starts_with("reconfigure: ")).collect();
    assert!(!mine.is_empty() && mine.len() <= 2, "{refused:?}");
}

#[test]
fn what_was_given_outlives_a_restart() {
    let mut site = site(SHOP);
    site.restart(30.0);
    site.run(600.0);
    assert_eq!(steps(&site), [""; 0], "nothing has changed");
    lose_the_database(&mut site, "10.0.0.2");
    site.until("the first is reconfigured", 300.0, |site| {
        given(site, "app/app") == parameters(&[("db", "10.0.0.2"), ("mode", "fast")])
    });
    site.restart(30.0);
    site.until("so is the second", 300.0, |site| {
        given(site, "web/shop") == parameters(&[("db", "10.0.0.2")])
    });
    site.run(3600.0);
    let second = steps(&site).iter().filter(|step| step.ends_with("web/shop")).count();
    assert_eq!(second, 1, "{}", site.transcript());
    site.restart(30.0);
    let before = steps(&site).len();
    site.run(3600.0);
    assert_eq!(steps(&site).len(), before, "{}", site.transcript());
}

#[test]
fn a_reconfiguration_that_fails_is_tried_again_and_then_told_and_counts_for_nothing() {
    let mut site = site(SHOP);
    lose_the_database(&mut site, "10.0.0.2");
    site.until("it is recreated", 300.0, |site| steps(site) == ["recreate"]);
    site.until("it is healthy", 300.0, |site| site.state("db") == State::Healthy);
    site.outcomes = vec![Outcome::Fails; 3];
    let told = |site: &Site| site.notified().iter().any(|it| it.contains("could not be reconfigured"));
    site.until("a person is told", 300.0, told);
    assert_eq!(
        steps(&site),
        ["recreate", "reconfigure app/app", "reconfigure app/app", "reconfigure app/app"]
    );
    // The next in order does not wait for what cannot be had.
    site.until("the other is reconfigured", 120.0, |site| {
        steps(site).last().is_some_and(|it| it.ends_with("shop"))
    });
    site.until("it is tried again in the end", 2000.0, |site| steps(site).len() == 6);
    site.run(7200.0);
    assert_eq!(steps(&site).len(), 6, "{}", site.transcript());
    assert!(!steps(&site).iter().any(|step| step.starts_with("restart")), "{}", site.transcript());
}

#[test]
fn what_a_new_machine_runs_is_set_up_although_nothing_else_changed() {
    let own = SHOP.replace("services.mariadb.systemd = \"mariadb.service\"", OWN);
    let mut site = site(&own);
    site.set_up.insert("db/mariadb".to_owned(), parameters(&[("size", "9")]));
    lose_the_database(&mut site, "10.0.0.1");
    site.until("it is recreated", 300.0, |site| steps(site).first().is_some_and(|step| step == "recreate"));
    site.until("all is well", 300.0, |site| site.view().state == State::Healthy);
    site.run(3600.0);
    assert_eq!(given(&site, "db/mariadb"), parameters(&[("size", "9")]), "{}", site.transcript());
    assert_eq!(
        steps(&site).iter().filter(|step| step.starts_with("reconfigure")).count(),
        1,
        "{}",
        site.transcript()
    );
}

#[test]
fn a_disk_that_was_made_anew_while_cpe_was_down_is_set_up() {
    let own = SHOP
        .replace("max_rung = \"recreate\"", "max_rung = \"rebuild\"")
        .replace("[escalation]", "[escalation]\nservice = { failures = 1, within = \"1h\" }")
        .replace("services.mariadb.systemd = \"mariadb.service\"", OWN);
    let mut site = site(&own);
    site.set_up.insert("db/mariadb".to_owned(), parameters(&[("size", "9")]));
    site.break_for_good("db/mariadb");
    site.outcomes = vec![Outcome::Fails, Outcome::Late(seconds(600.0))];
    site.until("its disk is made anew", 3600.0, |site| site.rungs().contains(&Rung::Rebuild));
    site.restart(30.0);
    site.mend("db/mariadb");
    site.until("all is well", 3600.0, |site| site.view().state == State::Healthy);
    site.run(3600.0);
    let reconfigured = steps(&site).iter().filter(|step| *step == "reconfigure db/mariadb").count();
    assert_eq!(reconfigured, 1, "{}", site.transcript());
}

#[test]
fn a_service_that_does_not_run_is_set_up_by_its_start() {
    let mut site = Site::cold(SHOP);
    site.host("db").address = Some("10.0.0.1".into());
    site.unit("app/app", Unit::Stopped);
    site.until("all is well", 120.0, |site| site.view().state == State::Healthy);
    assert_eq!(given(&site, "app/app"), parameters(&[("db", "10.0.0.1"), ("mode", "fast")]));
    assert_eq!(steps(&site), [""; 0]);
}

#[test]
fn a_service_is_not_started_with_an_address_that_nobody_knows() {
    let mut site = Site::cold(SHOP);
    site.unit("app/app", Unit::Stopped);
    site.run(600.0);
    assert!(site.acts.is_empty(), "{}", site.transcript());
    site.later(
        std::time::Duration::ZERO,
        Input::Instance {
            assembly: site.assembly_index("db"),
            state: InstanceState::Active,
            address: Some("10.0.0.1".into()),
            ordered: false,
            owner: Owner::OursOrNone,
        },
    );
    site.until("it is started", 60.0, |site| site.state("app/app") == State::Healthy);
}

#[test]
fn a_changed_definition_restarts_nothing() {
    let mut site = site(SHOP);
    site.redefine(&SHOP.replace("mode = \"fast\"", "mode = \"slow\""));
    site.run(600.0);
    assert_eq!(steps(&site), [""; 0]);
}

#[test]
fn another_name_for_an_address_of_the_definition_is_no_change() {
    let own = SHOP
        .replace("instance = \"db\"", "address = \"db.example.com\"")
        .replace("failures = 1", "failures = 3");
    let mut site = site(&own);
    // The infrastructure is asked only in trouble, and knows the machine by its number.
    site.freeze("db");
    site.until("it is rebooted", 120.0, |site| !site.acts.is_empty());
    site.until("all is well", 200.0, |site| site.view().state == State::Healthy);
    assert!(steps(&site).iter().all(|step| step.starts_with("reboot")), "{}", site.transcript());
    lose_the_database(&mut site, "10.0.0.2");
    site.until("both are reconfigured", 600.0, |site| {
        steps(site).iter().any(|it| it == "reconfigure web/shop")
    });
}

/// Probes of the shop that refer to its database, and what the web machine is made with.
const ASKED: &str = r#"
    name = "shop"
    infrastructure = "prod"
    [assemblies.db]
    instance = "db"
    services.mariadb.systemd = "mariadb.service"
    [assemblies.web]
    address = "192.0.2.3"
    parameters = { seed = "db={db.address} of {db.name}", size = "small" }
    services.ping = { command = "nc -z {db.address} 3306 && awk '{print $1}' /proc/uptime", restart = { systemd = "a.service" } }
    services.plugin = { nagios = "check_tcp -H \"{db.address}\" -p 3306", restart = { systemd = "a.service" } }
    services.page = { http = "http://{web.address}/of/{db.address}?name={db.name}", restart = { systemd = "a.service" } }
    services.inside = { http = "http://127.0.0.1/?of={db.address}", from = "guest", restart = { systemd = "a.service" } }
"#;

/// The infrastructure says where the database is.
fn say_address(site: &mut Site, address: &str) {
    let assembly = site.engine.definition().assembly_named("db").expect("it is there");
    let (state, address, owner) = (InstanceState::Active, Some(address.into()), Owner::OursOrNone);
    site.engine.handle_input(Input::Instance { assembly, state, address, ordered: false, owner }, site.now);
}

fn asked(site: &Site, name: &str) -> Result<String, String> {
    match site.engine.check(site.service_index(name))? {
        Check::Command(line) | Check::Nagios(line) => Ok(line.as_str().to_owned()),
        Check::Direct(asked) | Check::FromGuest(asked) => match &*asked {
            Direct::Http(http) => Ok(http.url.path.to_string()),
            other => panic!("{name} is probed as {other:?}"),
        },
        other => panic!("{name} is probed as {other:?}"),
    }
}

#[test]
fn probes_and_machines_are_given_the_newest_address_and_nothing_while_there_is_none() {
    let mut site = Site::cold(ASKED);
    let web = site.engine.definition().assembly_named("web").expect("it is there");
    let unknown = "the address of db is not known yet";
    for service in ["web/ping", "web/page", "web/inside"] {
        assert_eq!(asked(&site, service), Err(unknown.to_owned()), "{service}");
    }
    let (known, missing) = site.engine.made_with(web);
    assert_eq!(known.into_iter().collect::<Vec<_>>(), [("size".to_owned(), "small".to_owned())]);
    assert_eq!(missing.as_deref(), Some("parameter seed: the address of db is not known yet"));
    for address in ["10.0.0.1", "10.0.0.2", "2001:db8::1", "db.example.com"] {
        say_address(&mut site, address);
        let line = format!("nc -z {address} 3306 && awk '{{print $1}}' /proc/uptime");
        assert_eq!(asked(&site, "web/ping"), Ok(line));
        assert_eq!(asked(&site, "web/plugin"), Ok(format!("check_tcp -H \"{address}\" -p 3306")));
        assert_eq!(asked(&site, "web/page"), Ok(format!("/of/{address}?name=db")));
        assert_eq!(asked(&site, "web/inside"), Ok(format!("/?of={address}")));
        let (known, missing) = site.engine.made_with(web);
        assert_eq!((known["seed"].as_str(), missing), (&*format!("db={address} of db"), None));
    }
}

/// What an infrastructure calls an address is not the operator's own text.
#[test]
fn an_address_that_is_none_never_reaches_a_shell_or_an_infrastructure() {
    let mut site = Site::cold(ASKED);
    let web = site.engine.definition().assembly_named("web").expect("it is there");
    for hostile in [
        "10.0.0.1; reboot",
        "$(reboot)",
        "`reboot`",
        "a b",
        "'",
        "\"",
        "a\nreboot",
        "-oProxyCommand=reboot",
        "a|b",
        "a&b",
        "a>b",
        "../x",
        "",
        "{web.address}",
        "fe80::1%$(id)",
        "\\",
        "*",
        "~",
    ] {
        say_address(&mut site, hostile);
        for service in ["web/ping", "web/plugin", "web/page", "web/inside"] {
            let said = asked(&site, service).expect_err(hostile);
            assert!(said.contains("expected an IP address or a host name"), "{hostile:?}: {said}");
            assert!(!said.contains('\n'), "{said}");
        }
        let (known, missing) = site.engine.made_with(web);
        assert!(!known.contains_key("seed") && missing.is_some(), "{hostile:?}");
    }
}

#[test]
fn a_reconfiguration_that_was_asked_for_before_a_stop_is_not_done() {
    let mut site = site(SHOP);
    lose_the_database(&mut site, "10.0.0.2");
    site.until("it is recreated", 300.0, |site| steps(site) == ["recreate"]);
    site.gate_takes = seconds(4.0);
    let db = site.service_index("db/mariadb");
    site.until("the database is well", 120.0, |site| {
        site.view().services[usize::from(db.0)].state == State::Healthy
    });
    site.until("the gate has admitted", 120.0, |site| !site.leases.is_empty());
    site.order(Order::Stop);
    site.run(120.0);
    assert_eq!(steps(&site), ["recreate"], "{}", site.transcript());
    assert_eq!(site.view().state, State::Stopped);
}

#[test]
fn a_reconfiguration_that_the_gate_refuses_is_told_as_one() {
    let mut site = site(SHOP);
    lose_the_database(&mut site, "10.0.0.2");
    site.until("it is recreated", 300.0, |site| steps(site) == ["recreate"]);
    site.refuses = Some(Refusal::Budget);
    site.until("it is refused", 300.0, |site| !site.kinds(EventKind::RecoveryRefused).is_empty());
    assert_eq!(site.reasons(EventKind::RecoveryRefused)[0], "reconfigure: budget");
}

#[test]
fn after_a_retry_a_reconfiguration_that_was_given_up_is_tried_at_once() {
    let mut site = site(SHOP);
    lose_the_database(&mut site, "10.0.0.2");
    site.until("it is recreated", 300.0, |site| steps(site) == ["recreate"]);
    site.until("it is healthy", 300.0, |site| site.state("db") == State::Healthy);
    site.outcomes = vec![Outcome::Fails; 3];
    let told = |site: &Site| site.notified().iter().any(|it| it.contains("could not be reconfigured"));
    site.until("a person is told", 300.0, told);
    site.until("the other is reconfigured", 120.0, |site| steps(site).len() == 5);
    site.run(30.0);
    assert_eq!(steps(&site).len(), 5, "not before retry_after, though the other one worked");
    site.order(Order::Retry { assembly: None });
    site.until("it is tried", 10.0, |site| steps(site).len() == 6);
}

#[test]
fn it_is_known_what_a_service_runs_with_and_how_it_is_probed_now() {
    let mut site = site(&SHOP.replace(
        "services.static.systemd = \"static.service\"",
        r#"services.static.http = "http://192.0.2.3/{db.name}"
    services.inside = { http = "http://127.0.0.1/{db.name}", from = "guest" }
    services.plugin.nagios = "check_tcp -H {db.address}"
    services.script.command = "probe {db.address}""#,
    ));
    let check = |site: &Site, name: &str| site.engine.check(site.service_index(name));
    let path = |asked: &Direct| match asked {
        Direct::Http(http) => http.url.path.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(check(&site, "web/static"), Ok(Check::Direct(asked)) if path(&asked) == "/db"));
    assert!(matches!(check(&site, "web/inside"), Ok(Check::FromGuest(asked)) if path(&asked) == "/db"));
    assert!(matches!(check(&site, "web/plugin"), Ok(Check::Nagios(_))));
    assert!(matches!(check(&site, "web/script"), Ok(Check::Command(_))));
    let app = site.service_index("app/app");
    let runs_with = |site: &Site| site.engine.parameters(app);
    assert_eq!(runs_with(&site), parameters(&[("db", "10.0.0.1"), ("mode", "fast")]));
    lose_the_database(&mut site, "10.0.0.2");
    site.until("it is recreated", 300.0, |site| steps(site) == ["recreate"]);
    assert_eq!(runs_with(&site), parameters(&[("db", "10.0.0.1"), ("mode", "fast")]), "still");
    site.until("it is told", 300.0, |site| steps(site).len() > 1);
    site.run(10.0);
    assert_eq!(runs_with(&site), parameters(&[("db", "10.0.0.2"), ("mode", "fast")]));
}

#[test]
fn a_reboot_whose_end_nobody_knows_leaves_its_machine_set_up() {
    let mut site = site(&SHOP.replace("services.mariadb.systemd = \"mariadb.service\"", OWN));
    site.set_up.insert("db/mariadb".to_owned(), parameters(&[("size", "9")]));
    site.outcomes = vec![Outcome::Unresolved];
    site.freeze("db");
    site.until("it is rebooted", 120.0, |site| steps(site) == ["reboot-hard"]);
    site.run(900.0);
    assert_eq!(steps(&site), ["reboot-hard"], "{}", site.transcript());
}

#[test]
fn a_reconfiguration_under_way_ends_as_one_after_a_reload_that_moves_its_service() {
    let mut site = site(SHOP);
    lose_the_database(&mut site, "10.0.0.2");
    site.until("it is recreated", 300.0, |site| steps(site) == ["recreate"]);
    site.until("it is healthy", 300.0, |site| site.state("db") == State::Healthy);
    site.outcomes = vec![Outcome::Late(seconds(10.0))];
    site.until("app is being reconfigured", 120.0, |site| steps(site).len() == 2);
    let ended = site.kinds(EventKind::RecoveryFinished).len();
    let more = "services.aaa.systemd = \"aaa.service\"\n    services.app =";
    site.redefine(&SHOP.replace("services.app =", more));
    site.until("it has ended", 60.0, |site| site.kinds(EventKind::RecoveryFinished).len() > ended);
    let app = site.service_index("app/app");
    assert_eq!(site.engine.parameters(app), parameters(&[("db", "10.0.0.2"), ("mode", "fast")]));
}

#[test]
fn a_machine_that_was_made_anew_and_not_set_up_yet_is_so_by_the_next_process() {
    let mut site = site(&SHOP.replace("services.mariadb.systemd = \"mariadb.service\"", OWN));
    site.set_up.insert("db/mariadb".to_owned(), parameters(&[("size", "9")]));
    lose_the_database(&mut site, "10.0.0.1");
    site.until("it is recreated", 300.0, |site| steps(site) == ["recreate"]);
    site.refuses = Some(Refusal::Budget);
    site.until("its set-up is refused", 300.0, |site| !site.kinds(EventKind::RecoveryRefused).is_empty());
    site.restart(1.0);
    site.refuses = None;
    site.until("it is set up", 300.0, |site| steps(site).contains(&"reconfigure db/mariadb".to_owned()));
}
