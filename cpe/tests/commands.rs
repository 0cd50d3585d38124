//! The program as an operator or a script calls it: what it prints where, and how it exits.
#![allow(clippy::unwrap_used, reason = "what fails here is a test's failure")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn cpe(dir: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cpe"))
        .args(arguments)
        .current_dir(dir.path())
        .env_remove("CPE_CONFIG")
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn definition(name: &str, address: &str) -> String {
    format!(
        "name = \"{name}\"\n[assemblies.a]\naddress = \"{address}\"\n[assemblies.a.services.s]\nsystemd = \"s.service\"\n"
    )
}

fn write(dir: &TempDir, file: &str, text: &str) {
    let path = dir.path().join(file);
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn good_definitions_are_counted_and_the_exit_is_0() {
    let dir = TempDir::new().unwrap();
    write(&dir, "defs/a.toml", &definition("a", "192.0.2.1"));
    write(&dir, "defs/b.toml", &definition("b", "192.0.2.2"));
    write(&dir, "defs/notes.txt", "not read");
    let checked = cpe(&dir, &["check", "defs"]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    assert!(text(&checked.stdout).ends_with("2 files, 2 valid, 0 errors, 0 warnings\n"), "{checked:?}");
}

#[test]
fn every_error_has_its_place_and_one_broken_file_costs_only_itself() {
    let dir = TempDir::new().unwrap();
    write(&dir, "defs/a.toml", &definition("a", "192.0.2.1"));
    write(&dir, "defs/broken.toml", "name = \"Broken\"\n[assemblies.a]\nadress = \"192.0.2.2\"\n");
    let checked = cpe(&dir, &["check", "defs"]);
    assert_eq!(checked.status.code(), Some(1));
    let said = text(&checked.stdout);
    assert!(said.lines().any(|line| line.starts_with("defs/broken.toml:1:8: ")), "{said}");
    assert!(
        said.lines().any(|line| line.starts_with("defs/broken.toml:3:1: ") && line.contains("address")),
        "{said}"
    );
    assert!(said.contains("2 files, 1 valid, "), "{said}");

    let json: serde_json::Value =
        serde_json::from_slice(&cpe(&dir, &["check", "--json", "defs"]).stdout).unwrap();
    assert_eq!((&json["files"], &json["valid"]), (&2.into(), &1.into()));
    assert_eq!(json["errors"][0]["file"], "defs/broken.toml");
    assert_eq!(json["errors"][0]["line"], 1);
}

#[test]
fn an_unknown_infrastructure_is_an_error_where_the_configuration_is_checked_too() {
    let dir = TempDir::new().unwrap();
    let with_infrastructure = definition("a", "192.0.2.1").replacen('\n', "\ninfrastructure = \"prod\"\n", 1);
    write(&dir, "defs/a.toml", &with_infrastructure);
    write(&dir, "cpe.toml", "[infrastructures.lab]\nkind = \"command\"\nprogram = \"/bin/true\"\n");
    assert_eq!(cpe(&dir, &["check", "defs"]).status.code(), Some(0), "alone it cannot be known");
    let checked = cpe(&dir, &["check", "cpe.toml", "defs"]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(text(&checked.stdout).contains("prod"), "{checked:?}");
}

#[test]
fn what_was_loaded_comes_with_its_bounds() {
    let dir = TempDir::new().unwrap();
    write(
        &dir,
        "defs/a.toml",
        &definition("a", "192.0.2.1").replacen('\n', "\ninfrastructure = \"prod\"\n", 1),
    );
    write(&dir, "defs/b.toml", &definition("b", "192.0.2.2"));
    write(
        &dir,
        "cpe.toml",
        "[infrastructures.prod]\nkind = \"command\"\nprogram = \"/bin/true\"\ncapabilities = [\"status\", \"reboot-hard\"]\n",
    );
    let checked = text(&cpe(&dir, &["check", "cpe.toml", "defs"]).stdout);
    for line in [
        "  a/a/s  found in 20 s, restarted by 13 min, exhausted by 13 min\n",
        "  a/a    found in 95 s, rebooted (hard) by 44 min, exhausted by 48 min\n",
        "in any 10 min at most, on prod: 18 restart-service, 5 reboot-hard\n",
        "in any 10 min at most, in all: 36 restart-service, 5 reboot-hard\n",
        " after the last fault everything is healthy or a person was told:\n      30 min  what was begun is given up (",
    ] {
        assert!(checked.contains(line), "{line}is not in\n{checked}");
    }
    let json: serde_json::Value =
        serde_json::from_slice(&cpe(&dir, &["check", "--json", "cpe.toml", "defs"]).stdout).unwrap();
    assert_eq!(json["bounds"]["services"][0]["found_ms"], 20_000);
    assert_eq!(json["bounds"]["machines"][0]["rungs"][0]["rung"], "reboot-hard");
    assert_eq!(json["bounds"]["in_10_min"]["fleet"]["restart-service"], 36);
    let healed = &json["bounds"]["healed"];
    let each = healed["summands"].as_array().unwrap().iter().map(|it| it["ms"].as_u64().unwrap());
    assert_eq!(healed["within_ms"].as_u64().unwrap(), each.sum::<u64>(), "{healed}");
}

#[test]
fn timers_that_contradict_each_other_are_refused_with_their_place_and_the_reason() {
    let dir = TempDir::new().unwrap();
    let windows = "[escalation]\nservice = { failures = 5, within = \"5s\" }\nassembly = { failures = 3, within = \"6h\" }\n";
    write(&dir, "hasty.toml", &definition("a", "192.0.2.1").replacen("[ass", &format!("{windows}[ass"), 1));
    let checked = cpe(&dir, &["check", "hasty.toml"]);
    assert_eq!(checked.status.code(), Some(1));
    let said = text(&checked.stdout);
    assert!(
        said.starts_with("hasty.toml:3:1: `service` never escalates: 5 failures take 6.3 s at least"),
        "{said}"
    );
    assert!(said.contains("1 file, 0 valid, 1 error"), "{said}");
}

#[test]
fn nothing_to_check_is_an_error_and_not_a_success() {
    let dir = TempDir::new().unwrap();
    write(&dir, "empty/notes.txt", "");
    for path in ["empty", "missing.toml"] {
        let checked = cpe(&dir, &["check", path]);
        assert_eq!(checked.status.code(), Some(1), "{path}");
        assert!(text(&checked.stdout).starts_with(&format!("{path}:1:1: ")), "{checked:?}");
    }
}

#[test]
fn without_a_controller_the_exit_is_3_and_the_socket_is_named() {
    let dir = TempDir::new().unwrap();
    write(&dir, "cpe.toml", "[listen]\napi = \"unix:api.sock\"\n");
    for command in ["status", "events", "why shop", "start shop", "stop shop", "maintenance off shop"] {
        let mut arguments = vec!["--config", "cpe.toml"];
        arguments.extend(command.split(' '));
        let asked = cpe(&dir, &arguments);
        assert_eq!(asked.status.code(), Some(3), "{command}");
        assert!(asked.stdout.is_empty(), "{command}");
        let said = text(&asked.stderr);
        assert!(said.contains("api.sock") && said.contains("systemctl status cpe"), "{said}");
    }
}

#[test]
fn shells_and_man_know_every_command_without_a_configuration() {
    let dir = TempDir::new().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = cpe(&dir, &["completions", shell]);
        assert_eq!(script.status.code(), Some(0), "{script:?}");
        let script = text(&script.stdout);
        for command in ["why-not", "maintenance", "audit", "pause"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    assert_eq!(cpe(&dir, &["man", "man/man1"]).status.code(), Some(0));
    for (page, holds) in [("cpe.1", "audit"), ("cpe-pause.1", "reason"), ("cpe-maintenance-on.1", "DURATION")]
    {
        let page = fs::read_to_string(dir.path().join("man/man1").join(page)).unwrap();
        assert!(page.contains(".TH ") && page.contains(holds), "{page}");
    }
    write(&dir, "a-file", "");
    let nowhere = cpe(&dir, &["man", "a-file/man1"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("a-file/man1"), "{nowhere:?}");
}

#[test]
fn wrong_usage_is_2_and_a_broken_configuration_is_1_with_its_place() {
    let dir = TempDir::new().unwrap();
    assert_eq!(cpe(&dir, &["statsu"]).status.code(), Some(2));
    assert_eq!(cpe(&dir, &["maintenance", "on", "shop"]).status.code(), Some(2));
    write(&dir, "cpe.toml", "state_dri = \"x\"\n");
    let asked = cpe(&dir, &["--config", "cpe.toml", "status"]);
    assert_eq!(asked.status.code(), Some(1));
    let said = text(&asked.stderr);
    assert!(said.contains("cpe.toml:1:1: ") && said.contains("state_dir"), "{said}");
}

#[test]
fn check_prints_when_windows_come_and_refuses_what_never_does() {
    let dir = TempDir::new().unwrap();
    let with = |keys: &str| {
        definition("a", "192.0.2.1") + "[[maintenance]]\nfrom = \"02:00\"\nfor = \"2h\"\n" + keys
    };
    write(&dir, "a.toml", &with("days = [\"sun\"]\n"));
    let checked = cpe(&dir, &["check", "a.toml"]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let said = text(&checked.stdout);
    let line = said.lines().find(|line| line.starts_with("maintenance of a: Sun ")).unwrap();
    assert_eq!(line.matches("02:00 to Sun 04:00 UTC").count(), 3, "{line}");
    let json: serde_json::Value =
        serde_json::from_slice(&cpe(&dir, &["check", "--json", "a.toml"]).stdout).unwrap();
    assert_eq!(json["maintenance"][0]["next"].as_array().map(Vec::len), Some(3));
    write(&dir, "a.toml", &with("dates = [\"31\"]\nmonths = [\"feb\"]\n"));
    let never = text(&cpe(&dir, &["check", "a.toml"]).stdout);
    assert!(never.starts_with("a.toml:7:1: the window never happens"), "{never}");
    write(&dir, "a.toml", &with("zone = \"Europe/Nowhere\"\n"));
    let nowhere = text(&cpe(&dir, &["check", "a.toml"]).stdout);
    assert!(nowhere.starts_with("a.toml:7:1: no time zone \"Europe/Nowhere\""), "{nowhere}");
}
