//! What cpe.toml says, and what is said of one that is wrong: each file in `config/` has its answer beside it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cpe_proto::config::{
    ApiAddress, Budgets, Config, ControllerId, InfrastructureKind, Login, Privacy, SCHEMAS, Ssh,
};
use cpe_proto::definition::Definition;
use cpe_proto::document::Diagnostic;
use cpe_proto::fence::FenceValue;
use cpe_proto::id::Name;
use cpe_proto::secret::SecretSource;
use cpe_proto::ssh::{JumpHost, Passphrase};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

fn kind<'c>(config: &'c Config, name: &str) -> &'c InfrastructureKind {
    &config.infrastructures[&Name::parse(name).expect("a name")].kind
}

fn lines(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n")).collect()
}

#[test]
fn an_empty_file_has_the_defaults() {
    let config = Config::parse("/etc/cpe/cpe.toml", "").expect("an empty file is valid");
    assert_eq!(config.deployables, Path::new("/etc/cpe/deployables"));
    assert_eq!(config.state_dir, Path::new("/var/lib/cpe"));
    assert_eq!(config.listen.api, [ApiAddress::Unix("/run/cpe/api.sock".into())]);
    assert_eq!((config.listen.token, config.listen.plain), (None, false));
    assert_eq!(config.listen.metrics, "127.0.0.1:9464".parse().ok());
    assert_eq!(config.ssh.login, Login::Identity("/etc/cpe/id_ed25519".into()));
    assert_eq!((config.ssh.user.as_str(), config.ssh.port), ("dped", 22));
    assert_eq!((config.journal.keep, config.journal.max_size), (Duration::from_secs(90 * 86_400), 2 << 30));
    assert_eq!((config.budgets, config.lag_budget), (Budgets::default(), Duration::from_millis(250)));
    assert_eq!((config.infrastructures.len(), config.notify.command, config.warnings), (0, None, Vec::new()));
}

#[test]
fn the_reference_says_the_defaults_and_has_every_key_with_a_comment() {
    let text = std::fs::read_to_string(folder().join("reference.toml")).expect("the reference is there");
    let config = Config::parse("/etc/cpe/cpe.toml", &text).expect("it is right");
    let default = Config::parse("/etc/cpe/cpe.toml", "").expect("an empty file is valid");
    let ssh = Ssh { passphrase: None, jump: None, ..config.ssh.clone() };
    assert_eq!(config.ssh.passphrase, Some(Passphrase::Credential("ssh".to_owned())));
    assert_eq!(config.ssh.jump, JumpHost::parse("dped@bastion.example.org:22").ok());
    assert_eq!((&ssh, config.journal), (&default.ssh, default.journal));
    assert_eq!((&config.listen.api[..1], config.listen.api.len()), (&default.listen.api[..], 2));
    assert_eq!(config.listen.token, Some(SecretSource::Credential("api".to_owned())));
    assert_eq!((config.listen.plain, config.listen.metrics), (default.listen.plain, default.listen.metrics));
    assert_eq!((config.notify.burst, config.notify.every), (default.notify.burst, default.notify.every));
    let email = config.notify.email.as_ref().expect("it is given");
    assert_eq!((email.server.port, email.server.privacy), (465, Privacy::Tls));
    assert_eq!((config.budgets, config.lag_budget), (default.budgets, default.lag_budget));
    assert_eq!(config.canaries[0].tcp.port, 22);
    let webhook = config.notify.webhook.as_ref().expect("it is given");
    assert_eq!(format!("{webhook:?}"), "Webhook(chat.example.org)", "its path may be a secret");
    assert!(config.written_secrets().any(|key| key == "notify.webhook"));
    let InfrastructureKind::Command(lab) = kind(&config, "lab") else { panic!("a command") };
    assert_eq!((lab.timeout, lab.in_flight), (Duration::from_secs(30), 10));
    let InfrastructureKind::Fence(rack) = kind(&config, "rack7") else { panic!("an agent") };
    assert_eq!((rack.timeout, rack.in_flight), (Duration::from_secs(60), 1));
    assert_eq!(lab.capabilities.as_ref().map(|capabilities| capabilities.0.len()), Some(4));
    for key in SCHEMAS.iter().flat_map(|schema| schema.keys) {
        let header = |line: &str| line.starts_with('[') && line.contains(key);
        let explained = |line: &str| {
            let (code, comment) = line.split_once('#').unwrap_or((line, ""));
            !comment.is_empty()
                && code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == *key)
        };
        assert!(
            text.lines().any(|line| header(line) || explained(line)),
            "reference.toml does not explain `{key}`"
        );
    }
}

#[test]
fn the_controllers_id_is_none_or_one_line_with_its_place() {
    let config = Config::parse("cpe.toml", "[controller]\nid = \"prod-east\"\n").expect("it is right");
    let controller = config.controller.expect("it is given");
    assert_eq!((controller.id.as_str(), controller.at.line, controller.at.column), ("prod-east", 2, 1));
    assert_eq!(Config::parse("cpe.toml", "[controller]\n").expect("it is right").controller, None);
    let longest = "x".repeat(255);
    assert_eq!(ControllerId::parse(&longest).map(|id| id.to_string()), Ok(longest.clone()));
    for wrong in ["", " ", " east", "east\n", "a\u{7}b", "ea\nst", &format!("{longest}x"), &"ü".repeat(128)]
    {
        assert!(ControllerId::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn relative_paths_begin_at_the_file() {
    let text = "deployables = \"deployables\"\nstate_dir = \"/state\"\n[listen]\napi = \"unix:api.sock\"\nmetrics = \"off\"\n\
                [ssh]\nagent = true\nknown_hosts = [\"known_hosts\"]\n[notify]\ncommand = \"page\"\n\
                [infrastructures.lab]\nkind = \"command\"\nprogram = \"lab\"\n";
    let config = Config::parse("/srv/cpe/cpe.toml", text).expect("it is right");
    assert_eq!(config.deployables, Path::new("/srv/cpe/deployables"));
    assert_eq!(config.state_dir, Path::new("/state"));
    assert_eq!(config.listen.api, [ApiAddress::Unix("/srv/cpe/api.sock".into())]);
    assert_eq!((config.listen.metrics, &config.ssh.login), (None, &Login::Agent));
    assert_eq!(config.ssh.known_hosts, [Path::new("/srv/cpe/known_hosts")]);
    assert_eq!(config.notify.command.as_deref(), Some(Path::new("/srv/cpe/page")));
    let InfrastructureKind::Command(lab) = kind(&config, "lab") else { panic!("a command") };
    assert_eq!(lab.program, Path::new("/srv/cpe/lab"));
}

#[test]
fn an_agent_is_found_by_its_name_or_beside_the_file_and_its_secrets_are_told_from_its_options() {
    let text = "[infrastructures.a]\nkind = \"fence\"\nagent = \"fence_apc\"\n\
                options = { ip = \"192.0.2.9\", password = { file = \"secret\" } }\n\
                [infrastructures.b]\nkind = \"fence\"\nagent = \"agents/fence_own\"\noptions = { passwd = \"hunter2\" }\n";
    let config = Config::parse("/srv/cpe/cpe.toml", text).expect("it is right");
    let InfrastructureKind::Fence(a) = kind(&config, "a") else { panic!("an agent") };
    let InfrastructureKind::Fence(b) = kind(&config, "b") else { panic!("an agent") };
    assert_eq!(
        (a.agent.as_path(), b.agent.as_path()),
        (Path::new("fence_apc"), Path::new("/srv/cpe/agents/fence_own"))
    );
    assert_eq!(a.options["password"], FenceValue::File("/srv/cpe/secret".into()));
    assert_eq!(config.written_secrets().collect::<Vec<_>>(), ["infrastructures.b.options.passwd"]);
    assert!(!format!("{config:?}{:?}", config.warnings).contains("hunter2"));
}

#[test]
fn a_parameter_whose_name_says_so_is_a_secret_of_the_file() {
    let text = "[infrastructures.lab]\nkind = \"command\"\nprogram = \"lab\"\n\
                parameters = { zone = \"a\", api_token = \"hunter2\" }\n";
    let config = Config::parse("/srv/cpe/cpe.toml", text).expect("it is right");
    assert_eq!(config.written_secrets().collect::<Vec<_>>(), ["infrastructures.lab.parameters.api_token"]);
}

#[test]
fn every_wrong_configuration_is_answered_as_written_beside_it() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    for file in files {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a plain name");
        let text = std::fs::read_to_string(&file).expect("it can be read");
        let answer = match Config::parse(name, &text) {
            Ok(config) => lines(&config.warnings),
            Err(errors) => lines(&errors),
        };
        expect_test::expect_file![file.with_extension("txt")].assert_eq(&answer);
    }
}

#[test]
fn a_socket_path_that_the_kernel_would_not_take_is_refused() {
    let text = format!("listen.api = \"unix:/{}\"", "x".repeat(107));
    let errors = Config::parse("cpe.toml", &text).expect_err("108 bytes");
    assert!(lines(&errors).contains("at most 107 bytes"), "{errors:?}");
}

#[test]
fn a_machine_of_a_fence_agent_has_an_outlet_and_an_address() {
    let text = "name = \"shop\"\ninfrastructure = \"rack7\"\n[assemblies.right]\naddress = \"192.0.2.1\"\nfence = { plug = \"7\" }\n\
                [assemblies.bare]\naddress = \"192.0.2.2\"\n[assemblies.made]\nimage = \"debian-12\"\nfence = { plug = \"8\" }\n";
    let definition = Definition::parse("shop.toml", text).expect("it is right by itself");
    let rack: BTreeSet<Name> = [Name::parse("rack7").expect("a name")].into();
    let said = lines(&definition.check_outlets(&rack));
    let expected = "shop.toml:7:1: no `fence` in assembly \"bare\", expected its outlet, as { plug = \"7\" }: [infrastructures.rack7] is a fence agent\n\
                    shop.toml:9:1: assembly \"made\" has no `address`, expected one: [infrastructures.rack7] is a fence agent, which switches machines and knows nothing else of them\n";
    assert_eq!(said, expected);
    let said = lines(&definition.check_outlets(&BTreeSet::new()));
    assert!(
        said.starts_with(
            "shop.toml:4:1: `fence` in assembly \"right\", but [infrastructures.rack7] is not a fence agent"
        ),
        "{said}"
    );
    assert_eq!(said.lines().count(), 2);
}

#[test]
fn a_definition_may_only_name_an_infrastructure_that_is_there() {
    let text = "name = \"shop\"\ninfrastructure = \"pord\"\n[assemblies.web]\naddress = \"192.0.2.1\"\n";
    let definition = Definition::parse("shop.toml", text).expect("it is right by itself");
    let known =
        |names: &[&str]| names.iter().map(|name| Name::parse(name).expect("a name")).collect::<BTreeSet<_>>();
    assert_eq!(definition.check_infrastructure(&known(&["pord"])), None);
    let said = definition.check_infrastructure(&known(&["lab", "prod"])).map(|said| said.to_string());
    let expected = "shop.toml:2:1: no infrastructure \"pord\" in cpe.toml, nearest is \"prod\", expected [infrastructures.pord] there";
    assert_eq!(said.as_deref(), Some(expected));
}

#[test]
fn an_api_over_the_network_needs_a_token_and_loopback() {
    let said = |listen: &str| match Config::parse("cpe.toml", &format!("[listen]\n{listen}\n")) {
        Ok(_) => String::new(),
        Err(errors) => lines(&errors),
    };
    let token = "token = { file = \"token\" }";
    assert_eq!(said(&format!("api = \"127.0.0.1:7070\"\n{token}")), "");
    assert_eq!(said(&format!("api = [\"[::1]:7070\", \"unix:a\"]\nread_{token}")), "");
    assert!(said("api = \"127.0.0.1:7070\"").contains("there is no `token`, expected token = {"));
    let open = format!("api = \"192.0.2.1:7070\"\n{token}");
    assert!(said(&open).contains("tokens could be read on the way"), "{}", said(&open));
    assert_eq!(said(&format!("{open}\nplain = true")), "");
    assert!(said("api = []").contains("expected 1 to 8"));
    assert!(said("api = \"localhost:7070\"").contains("expected unix:"));
    let two = "api = \"127.0.0.1:7070\"\ntoken = { file = \"a\", env = \"B\" }";
    assert!(said(two).contains("exactly one of `file`, `credential` and `env`"), "{}", said(two));
}
