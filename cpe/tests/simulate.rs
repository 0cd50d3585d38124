//! `cpe simulate`: each scenario in `scenarios/` has its transcript beside it as text, the same each time; a script with mistakes is told
//! all of them with their places; and what is feared of automatic recovery is shown by a scenario or by a test that is named here.
#![allow(clippy::unwrap_used, reason = "what fails here is a test's failure")]

use std::path::{Path, PathBuf};
use std::process::Command;

use cpe::simulate::simulate;
use expect_test::expect_file;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn scenarios() -> Vec<PathBuf> {
    let files = std::fs::read_dir(root().join("scenarios")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

fn transcript(scenario: &Path) -> String {
    let told = match simulate(scenario, &[]) {
        Ok(told) => told,
        Err(errors) => panic!("{}", errors.iter().map(|it| format!("{it}\n")).collect::<String>()),
    };
    assert!(!told.is_broken(), "{} breaks a rule", scenario.display());
    let mut text = Vec::new();
    told.write_text(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn each_scenario_has_its_transcript() {
    for scenario in scenarios() {
        let name = scenario.file_name().unwrap().to_owned();
        let kept = root().join("scenarios/transcripts").join(name);
        expect_file![kept.display().to_string()].assert_eq(&transcript(&scenario));
    }
}

#[test]
fn a_scenario_is_the_same_each_time() {
    let scenario = root().join("scenarios/02-limits-that-fit-a-small-and-a-large-fleet.txt");
    assert_eq!(transcript(&scenario), transcript(&scenario));
}

/// Of the 20 things that are feared of automatic recovery, those that no simulated world can show: the test that does, and its file.
const SHOWN_BY_A_TEST: [(u32, &str, &str); 1] = [
    // The monitor itself dies silently.
    (
        9,
        "a_stranger_is_running_under_systemd_and_systemd_restarts_a_cpe_that_hangs",
        "tests/tests/stories_systemd.rs",
    ),
];

#[test]
fn each_thing_that_is_feared_has_a_scenario_or_a_test() {
    let names: Vec<String> =
        scenarios().iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    for feared in 1..=20 {
        let scenario = names.iter().any(|name| name.starts_with(&format!("{feared:02}-")));
        let test = SHOWN_BY_A_TEST.iter().find(|(number, _, _)| *number == feared);
        assert!(scenario || test.is_some(), "{feared} is shown by nothing");
        if let Some((_, test, file)) = test {
            let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
            assert!(text.contains(test), "{test} of {file} shows {feared}, and is not there");
        }
    }
}

#[test]
fn every_mistake_of_a_script_is_told_with_its_place_and_the_nearest_word() {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
    let definition = "name = \"shop\"\n[assemblies.web]\naddress = \"192.0.2.1\"\n[assemblies.web.services.nginx]\nsystemd = \"nginx.service\"\n";
    write("shop.toml", definition);
    let script = "use shop.toml\nat 30s kil shop/web/nginx\nat 30 kill shop/web/nginx\nat 30s kill shop/web/ngnx\nat 1m cut domain az1 for 10m\n\
                  at 1m cut monitor\nat 1m operator puase\nat 1m kill shop/web/nginx twice\nseeds 7\nat 1m hang shop/web/nginx/x\nat 1m claim shop/web on for 1m\nat 1m define nothing.toml\nend 30m\n";
    write("bad.txt", script);
    let errors = simulate(&dir.path().join("bad.txt"), &[]).unwrap_err();
    let shown = |text: String| text.replace(&format!("{}/", dir.path().display()), "");
    let text: String = errors.iter().map(|error| shown(format!("{error}\n"))).collect();
    expect_file!["snapshots/bad-scenario.txt"].assert_eq(&text);
}

#[test]
fn the_command_tells_a_scenario_as_text_and_as_json() {
    let cpe = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_cpe")).args(arguments).current_dir(root()).output().unwrap()
    };
    let scenario = "scenarios/17-slow-detection.txt";
    let text = cpe(&["simulate", scenario]);
    assert_eq!(text.status.code(), Some(0), "{text:?}");
    assert!(String::from_utf8_lossy(&text.stdout).contains("  + restart-service shop/web-2/nginx !1\n"));
    let json = cpe(&["simulate", "--json", scenario]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["did"]["reboot-hard"], 1);
    assert_eq!(json["broken"], serde_json::json!([]));
    assert!(
        json["transcript"].as_array().unwrap().iter().any(|line| line["event"]["kind"] == "recovery_started")
    );
    let none = cpe(&["simulate", "scenarios/none.txt"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).starts_with("scenarios/none.txt:1:1: cannot be read"));
    let help = String::from_utf8(cpe(&["simulate", "--help"]).stdout).unwrap();
    for usage in cpe_sim::script::GRAMMAR {
        let first = usage.usage.split(" | ").next().unwrap();
        let words: Vec<&str> = first.split_whitespace().take(2).collect();
        assert!(help.contains(&words.join(" ")), "{first} is not in the help");
    }
}
