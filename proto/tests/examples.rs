//! The definitions in `deployables/` are right, and their reference has every key there is.

use std::path::PathBuf;

use cpe_proto::definition::{Check, Definition, Deployable, HostOf, Machine, Mode, SCHEMAS, check_set};
use cpe_proto::rung::Rung;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deployables")
}

fn load(name: &str) -> Definition {
    let bytes = std::fs::read(folder().join(name)).expect("the example is there");
    match Definition::parse_bytes(name, &bytes) {
        Ok(definition) => definition,
        Err(errors) => panic!("{}", errors.iter().map(|error| format!("{error}\n")).collect::<String>()),
    }
}

#[test]
fn every_example_is_right_and_has_no_warning() {
    let files = std::fs::read_dir(folder()).expect("the folder is there");
    let mut set = Vec::new();
    for file in files {
        let name = file.expect("an entry").file_name().into_string().expect("a plain name");
        if name.ends_with(".toml") {
            let definition = load(&name);
            assert_eq!(definition.warnings, [], "{name}");
            set.push(definition);
        }
    }
    assert!(set.len() >= 4, "{} examples", set.len());
    assert_eq!(check_set(&set, 22), [], "the folder can be used as it is");
}

#[test]
fn count_makes_assemblies_whose_services_depend_on_all_that_a_name_means() {
    let shop = load("two-tier.toml").deployable;
    let names: Vec<&str> = shop.assemblies.iter().map(|assembly| assembly.name.as_str()).collect();
    assert_eq!(names, ["database-1", "database-2", "web-1", "web-2", "web-3", "web-4"]);

    let web = shop.assembly_named("web-2").expect("web-2");
    let after: Vec<&str> =
        shop.assembly(web).after.iter().map(|other| shop.assembly(*other).name.as_str()).collect();
    assert_eq!(after, ["database-1", "database-2"]);

    let service = shop.service(shop.service_named(web, "shop").expect("shop"));
    let path = |index| {
        let other = shop.service(index);
        format!("{}/{}", shop.assembly(other.assembly).name, other.name)
    };
    let after: Vec<String> = service.after.iter().copied().map(path).collect();
    assert_eq!(after, ["database-1/postgres", "database-2/postgres", "web-2/nginx"]);
    assert_eq!(service.check, Check::Tcp { host: "127.0.0.1".into(), port: 8080 });
    assert_eq!(service.restart.as_ref().map(ToString::to_string).as_deref(), Some("shop.service"));
    assert_eq!(shop.assembly(web).max_rung, Rung::Recreate);
}

#[test]
fn what_is_not_said_has_the_defaults_of_the_policy() {
    use cpe_proto::definition::{Data, Escalation, ProbeSettings, Timing};

    let mail = load("single-host.toml").deployable;
    assert_eq!((mail.mode, mail.infrastructure.as_ref()), (Mode::Act, None));
    assert_eq!((&mail.escalation, mail.timing), (&Escalation::default(), Timing::default()));
    let host = &mail.assemblies[0];
    assert_eq!(host.machine, Machine::Address("mail.example.com".to_owned()));
    assert_eq!(
        (host.data, host.max_rung, host.probe),
        (Data::Local, Rung::RebootHard, ProbeSettings::channel())
    );
    assert_eq!(mail.services[0].probe, ProbeSettings::service());
    assert_eq!(
        mail.services[0].restart.as_ref().map(ToString::to_string).as_deref(),
        Some("postfix.service")
    );
}

#[test]
fn the_nearest_probe_table_wins_key_by_key() {
    let text = r#"
        name = "x"
        [probe]
        interval = "3s"
        failure_threshold = 4
        [assemblies.a]
        address = "192.0.2.1"
        probe = { interval = "7s" }
        services.one.systemd = "one.service"
        services.two = { systemd = "two.service", probe = { failure_threshold = 1 } }
        [assemblies.b]
        address = "192.0.2.2"
    "#;
    let parsed = Deployable::parse("x.toml", text).expect("it is right");
    let probes: Vec<(u64, u32)> = [parsed.assemblies[0].probe, parsed.assemblies[1].probe]
        .into_iter()
        .chain(parsed.services.iter().map(|service| service.probe))
        .map(|probe| (probe.interval.as_secs(), probe.failure_threshold.get()))
        .collect();
    assert_eq!(probes, [(7, 4), (3, 4), (7, 4), (7, 1)]);
}

#[test]
fn the_reference_has_every_key_with_a_comment() {
    let text = std::fs::read_to_string(folder().join("reference.toml")).expect("the reference is there");
    let keys = SCHEMAS.iter().flat_map(|schema| schema.keys);
    for key in keys {
        let header = |line: &str| line.starts_with('[') && line.contains(key);
        let explained = |line: &str| {
            let (code, comment) = line.split_once('#').unwrap_or((line, ""));
            let words = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            !comment.is_empty() && words.into_iter().any(|word| word == *key)
        };
        assert!(
            text.lines().any(|line| header(line) || explained(line)),
            "reference.toml does not explain `{key}`"
        );
    }
}

#[test]
fn a_reference_to_its_own_name_is_each_assembly_itself_and_only_programs_at_its_address_are_witnesses() {
    let text = r#"
        name = "x"
        infrastructure = "prod"
        [assemblies.web]
        image = "debian-12"
        count = 2
        services.own = { http = "http://{web.address}/", restart = { systemd = "a.service" } }
        services.inside = { http = "http://{web.address}/", from = "guest", restart = { systemd = "a.service" } }
        services.other = { http = "http://{db.address}/", restart = { systemd = "a.service" } }
        services.port = { tcp = 80, from = "controller", restart = { systemd = "a.service" } }
        services.echo = { icmp = true, restart = { systemd = "a.service" } }
        [assemblies.db]
        address = "192.0.2.1"
        services.balancer = { http = "http://192.0.2.9/", restart = { systemd = "a.service" } }
        services.certificate = { tls = "192.0.2.1:443", restart = { systemd = "a.service" } }
    "#;
    let parsed = Deployable::parse("x.toml", text).expect("it is right");
    let seen: Vec<String> = parsed
        .assembly_indices()
        .flat_map(|index| parsed.services_of(index))
        .map(|index| {
            let service = parsed.service(index);
            let asked = service.check.direct().or(service.check.from_guest());
            let target = match asked.expect("all are direct, or from the guest").target() {
                HostOf::Assembly(index) => parsed.assembly(*index).name.to_string(),
                HostOf::Host(host) => host.as_str().to_owned(),
            };
            let own = &parsed.assembly(service.assembly).name;
            let witness = if parsed.is_witness(index) { ", a witness" } else { "" };
            format!("{own}/{} ({}) asks {target}{witness}", service.name, service.check.kind())
        })
        .collect();
    assert_eq!(
        seen,
        [
            "web-1/own (http) asks web-1, a witness",
            "web-1/inside (http) asks web-1",
            "web-1/other (http) asks db",
            "web-1/port (tcp) asks web-1",
            "web-1/echo (icmp) asks web-1",
            "web-2/own (http) asks web-2, a witness",
            "web-2/inside (http) asks web-2",
            "web-2/other (http) asks db",
            "web-2/port (tcp) asks web-2",
            "web-2/echo (icmp) asks web-2",
            "db/balancer (http) asks 192.0.2.9",
            "db/certificate (tls) asks 192.0.2.1, a witness",
        ]
    );
}
