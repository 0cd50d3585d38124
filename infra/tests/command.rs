//! What happens when the operator's own program does what it should, and when it does not. The programs are in `programs/` and
//! `../examples/`; they are real processes.

#![cfg(feature = "command")]

mod processes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cpe_infra::command::Command;
use cpe_infra::{Error, EvacuationRequest, Evacuee, Infrastructure, InstanceAnswer, InstanceRequest};
use cpe_proto::config::CommandSettings;
use cpe_proto::fence::FenceOptions;
use cpe_proto::infrastructure::{Capabilities, InstanceState, Operation};
use processes::{lives, number_in, until};
use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn settings(name: &str) -> CommandSettings {
    CommandSettings {
        program: program(name),
        parameters: BTreeMap::new(),
        timeout: LONG,
        capabilities: None,
        in_flight: 10,
    }
}

fn infrastructure(name: &str) -> Infrastructure {
    Infrastructure::Command(Command::new(&settings(name)))
}

fn request(action: &str, parameters: &[(&str, &str)]) -> InstanceRequest {
    InstanceRequest {
        action_id: action.to_owned(),
        controller: "here".to_owned(),
        deployable: "shop".to_owned(),
        assembly: "web-1".to_owned(),
        instance: None,
        address: Some("192.0.2.1".to_owned()),
        zone: None,
        parameters: parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        fence: FenceOptions::new(),
    }
}

fn path(directory: &tempfile::TempDir) -> &str {
    directory.path().to_str().expect("a plain path")
}

/// A reboot by the program that misbehaves in that way.
async fn misbehave(
    way: &str,
    directory: &tempfile::TempDir,
    timeout: Duration,
) -> Result<InstanceAnswer, Error> {
    let request = request("a-1", &[("way", way), ("directory", path(directory))]);
    infrastructure("tests/programs/misbehave").perform(Operation::RebootHard, &request, timeout).await
}

async fn misbehaved(way: &str) -> Error {
    let directory = tempfile::tempdir().expect("a directory");
    misbehave(way, &directory, LONG).await.expect_err("it misbehaves")
}

#[tokio::test]
async fn a_dead_hypervisor_is_evacuated_by_the_operators_program() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut settings = settings("tests/programs/misbehave");
    settings.parameters.insert("way".to_owned(), "moves".to_owned());
    settings.parameters.insert("directory".to_owned(), path(&directory).to_owned());
    let request = || EvacuationRequest {
        action_id: "cpe-evacuate-1".to_owned(),
        domain: "hv7".to_owned(),
        assemblies: vec![Evacuee {
            deployable: "shop".to_owned(),
            assembly: "web".to_owned(),
            instance: None,
            address: Some("192.0.2.7".to_owned()),
        }],
        parameters: BTreeMap::new(),
    };
    let moves = Infrastructure::Command(Command::new(&settings));
    let answer = moves.evacuate(request(), LONG).await.expect("it answers");
    assert_eq!((answer.state, answer.detail.as_str()), (InstanceState::Active, "5 moved to hv8"));
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect("it left word");
    assert_eq!(read("action"), "evacuate\n");
    assert!(read("request").starts_with(
        r#"{"action_id":"cpe-evacuate-1","domain":"hv7","assemblies":[{"deployable":"shop","assembly":"web","instance":null,"address":"192.0.2.7"}],"parameters":{"#
    ));
    // What cpe.toml does not list is not begun.
    settings.capabilities = Some(Capabilities([Operation::Status].into()));
    let cannot = Infrastructure::Command(Command::new(&settings)).evacuate(request(), LONG).await;
    assert!(!cannot.expect_err("it is not listed").is_unresolved());
}

#[tokio::test]
async fn the_example_program_does_every_action() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut settings = settings("examples/command-infrastructure");
    settings.parameters.insert("directory".to_owned(), path(&directory).to_owned());
    let example = Infrastructure::Command(Command::new(&settings));
    // A machine in a file is on no hypervisor.
    let all = Operation::ALL.into_iter().filter(|it| *it != Operation::Evacuate).collect();
    assert_eq!(example.capabilities().await, Ok(Capabilities(all)));

    let steps = [
        (Operation::Status, InstanceState::Gone, "boot 0"),
        (Operation::Create, InstanceState::Active, "boot 1"),
        (Operation::Status, InstanceState::Active, "boot 1"),
        (Operation::Stop, InstanceState::Off, "boot 1"),
        (Operation::Status, InstanceState::Off, "boot 1"),
        (Operation::Start, InstanceState::Active, "boot 2"),
        (Operation::RebootSoft, InstanceState::Active, "boot 3"),
        (Operation::RebootHard, InstanceState::Active, "boot 4"),
        (Operation::Rebuild, InstanceState::Active, "boot 5"),
        (Operation::Claim, InstanceState::Active, "boot 5"),
        (Operation::Destroy, InstanceState::Gone, "boot 5"),
        (Operation::Status, InstanceState::Gone, "boot 0"),
    ];
    for (number, (operation, state, detail)) in steps.into_iter().enumerate() {
        let request = request(&format!("shop-{number}"), &[]);
        let answer = example.perform(operation, &request, LONG).await.expect("it answers");
        assert_eq!((answer.state, answer.detail.as_str()), (state, detail), "{operation}");
    }
    let elsewhere = |number: u32, zone: Option<&str>| InstanceRequest {
        zone: zone.map(str::to_owned),
        ..request(&format!("shop-z{number}"), &[])
    };
    let asked = elsewhere(1, Some("az2"));
    let answer = example.perform(Operation::Relocate, &asked, LONG).await.expect("it answers");
    assert_eq!((answer.state, answer.detail.as_str()), (InstanceState::Active, "boot 1 in az2"));
    example.perform(Operation::Destroy, &elsewhere(2, None), LONG).await.expect("it answers");
    let error =
        example.perform(Operation::RebootHard, &request("shop-99", &[]), LONG).await.expect_err("it is gone");
    assert!(
        error.to_string().contains("exit status 1") && error.to_string().contains("no such machine"),
        "{error}"
    );
}

#[tokio::test]
async fn an_action_that_is_asked_twice_is_done_once_by_the_example() {
    let directory = tempfile::tempdir().expect("a directory");
    let example = infrastructure("examples/command-infrastructure");
    let parameters = [("directory", path(&directory))];
    let mut boots = Vec::new();
    for (operation, action) in [
        (Operation::Create, "a-1"),
        (Operation::RebootHard, "a-2"),
        (Operation::RebootHard, "a-2"),
        (Operation::RebootHard, "a-3"),
    ] {
        let answer =
            example.perform(operation, &request(action, &parameters), LONG).await.expect("it answers");
        assert_eq!(answer.instance.as_deref(), Some("a-1"));
        boots.push(answer.detail);
    }
    assert_eq!(boots, ["boot 1", "boot 2", "boot 2", "boot 3"]);
}

#[tokio::test]
async fn capabilities_of_the_configuration_are_not_asked_for_and_hold() {
    let mut settings = settings("tests/programs/missing");
    settings.capabilities = Some(Capabilities([Operation::Status].into()));
    let command = Infrastructure::Command(Command::new(&settings));
    assert_eq!(command.capabilities().await, Ok(Capabilities([Operation::Status].into())));
    let error =
        command.perform(Operation::RebootHard, &request("a-1", &[]), LONG).await.expect_err("it may not");
    assert!(!error.is_unresolved() && error.to_string().contains("not in its `capabilities`"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_started_certainly_had_no_effect() {
    for (name, said) in [
        ("tests/programs/missing", "check `program` in cpe.toml"),
        ("tests/programs/not-executable", "it has to be executable"),
        ("tests/programs", "it has to be executable"),
    ] {
        let error = infrastructure(name).perform(Operation::RebootHard, &request("a-1", &[]), LONG).await;
        let error = error.expect_err("it cannot be started");
        assert!(matches!(error, Error::NotStarted { .. }) && !error.is_unresolved(), "{error:?}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_time_out_ends_the_program_and_its_children_and_theirs() {
    let directory = tempfile::tempdir().expect("a directory");
    let error = misbehave("hangs", &directory, Duration::from_secs(4)).await.expect_err("it hangs");
    assert!(matches!(error, Error::TimedOut { .. }) && error.is_unresolved(), "{error:?}");
    for name in ["leader", "child", "grandchild"] {
        let process = number_in(&directory.path().join(name)).expect("it had started");
        until(&format!("the {name} has ended"), || !lives(process)).await;
    }
}

#[tokio::test]
async fn a_late_program_may_tidy_up_and_so_it_does_when_nobody_waits_for_it_any_more() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let waiting = tokio::spawn({
        let directory = Arc::clone(&directory);
        async move { misbehave("tidies", &directory, Duration::from_secs(3)).await }
    });
    until("it runs", || directory.path().join("ready").exists()).await;
    waiting.abort();
    until("it was ended at its time-out", || directory.path().join("tidied").exists()).await;
}

#[tokio::test]
async fn an_answer_that_is_none_leaves_the_effect_unknown() {
    let error = misbehaved("garbage").await;
    assert!(
        matches!(error, Error::BadAnswer { .. }) && error.to_string().contains("\"all good\""),
        "{error}"
    );
    let error = misbehaved("silent").await;
    assert!(
        matches!(error, Error::BadAnswer { .. }) && error.to_string().contains("nothing on standard"),
        "{error}"
    );
    let error = misbehaved("huge").await;
    assert!(
        matches!(error, Error::BadAnswer { .. }) && error.to_string().contains("more than 65536 bytes"),
        "{error}"
    );
}

#[tokio::test]
async fn a_long_answer_is_taken_and_its_detail_cut() {
    let directory = tempfile::tempdir().expect("a directory");
    let answer = misbehave("just", &directory, LONG).await.expect("just below the limit");
    assert_eq!((answer.state, answer.detail.len()), (InstanceState::Active, 1000));
}

#[tokio::test]
async fn output_without_an_end_is_thrown_away_until_the_time_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let error = misbehave("endless", &directory, Duration::from_secs(1)).await.expect_err("it never ends");
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn a_failure_is_told_with_the_end_of_what_the_program_said() {
    let error = misbehaved("complains").await;
    let Error::ExitStatus { status, detail, .. } = &error else { panic!("{error:?}") };
    assert_eq!(status, "exit status 7");
    assert!(detail.ends_with("5000 no route to the power switch") && detail.len() < 4200, "{detail}");
    let error = misbehaved("dies").await;
    assert!(matches!(&error, Error::ExitStatus { status, .. } if status == "signal 9"), "{error:?}");
}

#[tokio::test]
async fn a_program_need_not_read_its_input() {
    let large = "x".repeat(1024 * 1024);
    let request = request("a-1", &[("large", &large)]);
    let answer = infrastructure("tests/programs/deaf").perform(Operation::Status, &request, LONG).await;
    assert_eq!(answer.map(|answer| answer.detail), Ok("not listening".to_owned()));
}

#[tokio::test]
async fn a_program_that_reads_slowly_gets_all_of_its_input() {
    let large = "x".repeat(1024 * 1024);
    let request = request("a-1", &[("large", &large)]);
    let size = serde_json::to_vec(&request).expect("JSON").len() + 1;
    let answer =
        infrastructure("tests/programs/slow-reader").perform(Operation::Status, &request, LONG).await;
    assert_eq!(answer.map(|answer| answer.detail), Ok(format!("{size} bytes")));
}

#[tokio::test]
async fn a_child_that_is_left_behind_is_not_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let answer = misbehave("leaves", &directory, LONG).await.expect("it ended well");
    assert_eq!(answer.state, InstanceState::Active);
    let left = number_in(&directory.path().join("left")).expect("its number");
    assert!(lives(left), "the answer came only after the child had ended");
    kill_process(Pid::from_raw(left).expect("a process"), Signal::KILL).expect("it is ours");
}

#[tokio::test]
async fn a_program_sees_the_request_and_nothing_of_ours() {
    let directory = tempfile::tempdir().expect("a directory");
    let ours = tempfile::NamedTempFile::new().expect("a file that is open here");
    misbehave("surroundings", &directory, LONG).await.expect("it answers");
    let text = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect("it was left");

    // The shell itself adds PWD and its like.
    let environment = text("env");
    let known = ["CPE_ACTION=reboot-hard", "LANG=C", "PATH=/usr/local/sbin:"];
    assert!(
        known.iter().all(|known| environment.lines().any(|line| line.starts_with(known))),
        "{environment}"
    );
    let shell = ["PWD=/", "OLDPWD=", "SHLVL=", "_="];
    let expected = |line: &str| known.iter().chain(&shell).any(|start| line.starts_with(start));
    assert!(environment.lines().all(expected), "{environment}");

    assert_eq!((text("pwd").as_str(), text("action").as_str()), ("/\n", "reboot-hard\n"));
    let ours = ours.path().to_str().expect("a plain path");
    assert!(!text("fds").contains(ours), "{}", text("fds"));
    let expected = serde_json::json!({
        "action_id": "a-1",
            "controller": "here", "deployable": "shop", "assembly": "web-1", "instance": null, "address": "192.0.2.1",
        "parameters": {"way": "surroundings", "directory": path(&directory)},
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text("request")).expect("JSON"), expected);
}

#[tokio::test]
async fn no_more_processes_than_allowed_run_at_a_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let command = Command::new(&CommandSettings { in_flight: 2, ..settings("tests/programs/misbehave") });
    let infrastructure = Arc::new(Infrastructure::Command(command));
    let request = request("a-1", &[("way", "waits"), ("directory", path(&directory))]);
    let start = |operation| {
        let (infrastructure, request) = (Arc::clone(&infrastructure), request.clone());
        tokio::spawn(async move { infrastructure.perform(operation, &request, LONG).await })
    };
    let running = || {
        let entries = std::fs::read_dir(directory.path()).expect("the directory");
        entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name() != "go")).count()
    };
    let both = [start(Operation::Status), start(Operation::Status)];
    until("both run", || running() == 2).await;

    let third = infrastructure.perform(Operation::Status, &request, Duration::from_millis(50)).await;
    let third = third.expect_err("there is no turn for it");
    assert!(matches!(&third, Error::NotStarted { .. }) && third.to_string().contains("in_flight"), "{third}");
    assert_eq!(running(), 2, "it was not run");

    let action = start(Operation::RebootHard);
    until("an action does not wait behind questions", || running() == 3).await;

    std::fs::write(directory.path().join("go"), "").expect("a file");
    for one in both.into_iter().chain([action]) {
        assert_eq!(one.await.expect("no panic").map(|answer| answer.state), Ok(InstanceState::Active));
    }
    assert!(infrastructure.perform(Operation::Status, &request, LONG).await.is_ok(), "its turn has come");
}
