//! Templates: what assemblies share is written once, in the definition or in a file beside it, and each assembly's own keys count.

use cpe_proto::definition::{Check, Definition, Deployable, Machine, SCHEMAS, TemplatesFile};
use cpe_proto::rung::Rung;

fn parse(text: &str) -> Deployable {
    parse_with(text, "").unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// With a file of templates beside it.
fn parse_with(text: &str, templates: &str) -> Result<Deployable, Vec<String>> {
    let said = |errors: Vec<_>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    let file = TemplatesFile::parse_bytes("templates.toml", templates.as_bytes()).map_err(said)?;
    let parsed = Definition::parse_with("shop.toml", text.as_bytes(), Some(&file.open())).map_err(said)?;
    Ok(Deployable::clone(&parsed.deployable))
}

const SHARED: &str = r#"
    [templates.web]
    data = "none"
    max_rung = "rebuild"
    image = "debian-12"
    flavor = "small"
    count = 3
    failure_domains = ["az1"]
    probe = { interval = "4s", failure_threshold = 4 }
    services.nginx = { systemd = "nginx.service", probe = { interval = "2s" } }
    services.shop = { tcp = 8080, restart = { systemd = "shop.service" } }
"#;

#[test]
fn an_assembly_has_what_its_template_says_but_for_its_own_key_by_key() {
    let text = r#"
        name = "shop"
        infrastructure = "prod"
        [assemblies.web]
        template = "web"
        count = 2
        max_rung = "recreate"
        failure_domains = ["az2"]
        probe = { interval = "9s" }
        services.nginx.probe.timeout = "1s"
        services.cron.systemd = "cron.service"
    "#;
    let shop = parse_with(text, SHARED).expect("it is right");
    let names: Vec<&str> = shop.assemblies.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["web-1", "web-2"]);
    let web = &shop.assemblies[0];
    assert_eq!(
        web.machine,
        Machine::Image { image: "debian-12".to_owned(), flavor: Some("small".to_owned()) }
    );
    assert_eq!((web.max_rung, web.failure_domains[0].as_str()), (Rung::Recreate, "az2"));
    assert_eq!(web.failure_domains.len(), 1, "a list is one value");
    assert_eq!((web.probe.interval.as_secs(), web.probe.failure_threshold.get()), (9, 4));
    let services: Vec<&str> = shop.services.iter().take(3).map(|it| it.name.as_str()).collect();
    assert_eq!(services, ["nginx", "cron", "shop"], "own ones first");
    let nginx = shop.services.iter().find(|it| it.name.as_str() == "nginx").expect("it is inherited");
    assert_eq!((nginx.probe.interval.as_secs(), nginx.probe.timeout.as_secs()), (2, 1));
}

#[test]
fn an_own_machine_and_an_own_kind_take_the_place_of_the_template_s() {
    let text = r#"
        name = "shop"
        infrastructure = "prod"
        [assemblies.old]
        template = "web"
        address = "192.0.2.1"
        services.nginx.process = "nginx"
        services.nginx.restart.systemd = "nginx.service"
    "#;
    let shop = parse_with(text, SHARED).expect("the template's image and its count mean nothing here");
    assert_eq!(shop.assemblies.len(), 1);
    assert_eq!(shop.assemblies[0].machine, Machine::Address("192.0.2.1".to_owned()));
    let nginx = shop.services.iter().find(|it| it.name.as_str() == "nginx").expect("it is there");
    assert!(matches!(nginx.check, Check::Process(_)), "{:?}", nginx.check);
}

#[test]
fn the_definition_s_own_template_counts_before_that_of_the_directory() {
    let text = r#"
        name = "shop"
        [templates.web]
        services.apache.systemd = "apache2.service"
        [assemblies.a]
        template = "web"
        address = "192.0.2.1"
        [assemblies.b]
        template = "web"
        address = "192.0.2.2"
    "#;
    let shop = parse_with(text, SHARED).expect("it is right");
    let services: Vec<&str> = shop.services.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(services, ["apache", "apache"]);
    assert_eq!(parse(text), shop, "and needs no other file");
}

#[test]
fn references_and_names_in_a_template_mean_those_of_who_has_it() {
    let templates = r#"
        [templates.app]
        after = ["db"]
        parameters = { me = "{app.name}", db = "{db.address}" }
        services.app = { systemd = "app.service", after = ["db/pg"] }
    "#;
    let text = r#"
        name = "shop"
        infrastructure = "prod"
        [assemblies.db]
        address = "192.0.2.1"
        services.pg.systemd = "pg.service"
        [assemblies.app]
        template = "app"
        image = "debian-12"
        count = 2
    "#;
    let shop = parse_with(text, templates).expect("it is right");
    assert_eq!(shop.assemblies.len(), 3);
    assert_eq!(shop.services.last().map(|it| it.after.len()), Some(1));
    let without = text.replace("assemblies.db", "assemblies.pg");
    let said = parse_with(&without, templates).expect_err("there is no db");
    assert!(said[0].starts_with("shop.toml:8:20: ") && said[0].contains("templates.toml:"), "{said:?}");
}

#[test]
fn what_is_wrong_in_a_shared_template_is_told_where_it_is_used_and_where_it_stands() {
    let text = "name = \"shop\"\n[assemblies.a]\ntemplate = \"web\"\naddress = \"192.0.2.1\"\n";
    let said = parse_with(text, "[templates.web]\nmax_rung = \"reboot-smooth\"\n").expect_err("no such rung");
    assert!(said[0].starts_with("shop.toml:3:12: `max_rung` is \"reboot-smooth\", expected"), "{said:?}");
    assert!(said[0].ends_with(" (in templates.toml:2:12, which is included here)"), "{said:?}");
}

#[test]
fn a_file_of_templates_has_nothing_else_and_says_what_is_wrong_with_it() {
    let of = |text: &str| parse_with("", text).expect_err("it is wrong").join("\n");
    assert_eq!(
        of("name = \"x\"\n"),
        "templates.toml:1:1: unknown key `name` in the file of templates, expected `templates`"
    );
    let said = of("[templates.web]\naddress = \"192.0.2.1\"\n[templates.-]\n");
    assert!(said.contains("templates.toml:2:1: unknown key `address` in [templates.web]"), "{said}");
    assert!(said.contains("templates.toml:3:12: \"-\" is not a name of a template"), "{said}");
    assert!(of("[templates.web\n").contains("not TOML"), "{}", of("[templates.web\n"));
}

#[test]
fn a_large_template_is_not_multiplied_without_a_bound() {
    let templates = format!("[templates.web]\nparameters = {{ x = \"{}\" }}\n", "x".repeat(100_000));
    let mut text = "name = \"shop\"\n".to_owned();
    for number in 0..200 {
        text.push_str(&format!(
            "[assemblies.a{number}]\ntemplate = \"web\"\naddress = \"a{number}.example\"\n"
        ));
    }
    let said = parse_with(&text, &templates).expect_err("20 MB");
    let bound = |it: &String| it.contains("templates add more than 8388608 bytes to this definition");
    assert!(said.iter().any(bound), "{said:?}");
}

#[test]
fn a_template_may_say_all_that_an_assembly_may_but_what_names_one_machine() {
    let keys = |title: &str| SCHEMAS.iter().find(|it| it.title == title).expect("it is there").keys;
    let shared = |key: &&&str| !["template", "address", "instance", "adopt"].contains(*key);
    let expected: Vec<_> = keys("an assembly").iter().filter(shared).collect();
    assert_eq!(keys("a template").iter().collect::<Vec<_>>(), expected);
}
