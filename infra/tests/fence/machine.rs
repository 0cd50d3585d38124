//! Through our own agent: a machine is a process that is really started and killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cpe_infra::{Error, Infrastructure, InstanceAnswer};
use cpe_proto::config::FenceSettings;
use cpe_proto::fence::FenceValue;
use cpe_proto::infrastructure::{InstanceState, Operation};
use rustix::process::{Pid, Signal, kill_process};

use super::processes::{lives, number_in, until};
use super::{LONG, infrastructure, options, request, settings};

/// A rack of machines with its own agent, gone with its processes at the end of a test.
struct Rack {
    directory: tempfile::TempDir,
    settings: FenceSettings,
    infrastructure: Infrastructure,
}

impl Rack {
    fn new(agent: &str, more: &[(&str, &str)]) -> Self {
        Self::with(agent, more, |settings| settings)
    }

    fn with(agent: &str, more: &[(&str, &str)], change: impl FnOnce(FenceSettings) -> FenceSettings) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_str().expect("a plain path").to_owned();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(agent);
        let mut settings = settings(program, more);
        settings.options.extend(options(&[("directory", &path)]));
        let settings = change(settings);
        Self { directory, infrastructure: infrastructure(&settings), settings }
    }

    async fn perform(&self, operation: Operation, timeout: Duration) -> Result<InstanceAnswer, Error> {
        let own = request(options(&[("plug", "7")]));
        self.infrastructure.perform(operation, &own, timeout).await
    }

    async fn done(&self, operation: Operation) -> InstanceAnswer {
        self.perform(operation, LONG).await.unwrap_or_else(|error| panic!("{operation}: {error}"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The process that is the machine, dead or alive.
    fn process(&self) -> i32 {
        number_in(&self.file("7.pid")).expect("the machine was on once")
    }

    /// The actions that the agent was called for, in order.
    fn called(&self) -> Vec<String> {
        let called = std::fs::read_to_string(self.file("called")).unwrap_or_default();
        called.lines().filter_map(|line| line.strip_prefix("action ")).map(str::to_owned).collect()
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.directory.path()).into_iter().flatten().flatten() {
            let machine = entry.path().extension().is_some_and(|extension| extension == "pid");
            if let Some(process) = number_in(&entry.path()).filter(|process| machine && lives(*process)) {
                let _ = Pid::from_raw(process).map(|process| kill_process(process, Signal::KILL));
            }
        }
    }
}

#[tokio::test]
async fn a_machine_is_switched_on_and_off_and_rebooted() {
    let rack = Rack::new("fence_machine", &[]);
    let can = rack.infrastructure.capabilities().await.expect("it says so");
    let words: Vec<&str> = can.0.iter().map(|operation| operation.as_str()).collect();
    assert_eq!(words, ["status", "start", "stop", "reboot-hard"]);

    assert_eq!(rack.done(Operation::Status).await.state, InstanceState::Off);
    let on = rack.done(Operation::Start).await;
    assert_eq!((on.state, on.detail.as_str()), (InstanceState::Active, "on, as its status says"));
    let first = rack.process();
    assert!(lives(first));
    assert_eq!(rack.done(Operation::Status).await.state, InstanceState::Active);

    let rebooted = rack.done(Operation::RebootHard).await;
    assert_eq!(
        (rebooted.state, rebooted.detail.as_str()),
        (InstanceState::Active, "off, as its status says; on, as its status says")
    );
    let second = rack.process();
    assert!(!lives(first) && lives(second), "{first} {second}");

    assert_eq!(rack.done(Operation::Stop).await.state, InstanceState::Off);
    assert!(!lives(second));
    // What is off already is off.
    assert_eq!(rack.done(Operation::Stop).await.state, InstanceState::Off);
    assert!(!rack.called().contains(&"reboot".to_owned()), "its own reboot is not verified");
}

#[tokio::test]
async fn an_agent_that_lies_about_off_is_not_believed_and_nothing_is_switched_on_after_it() {
    let rack = Rack::new("fence_machine", &[("way", "lies")]);
    rack.done(Operation::Start).await;
    let error = rack.perform(Operation::Stop, Duration::from_secs(6)).await.expect_err("it lives");
    assert!(error.is_unresolved(), "{error}");
    let said = error.to_string();
    assert!(said.contains("it said that off was done, and then that the machine is active"), "{said}");
    let before = rack.called().len();
    let error = rack.perform(Operation::RebootHard, Duration::from_secs(9)).await.expect_err("it lives");
    assert!(error.is_unresolved(), "{error}");
    let after = rack.called().split_off(before);
    assert!(!after.contains(&"on".to_owned()) && after.contains(&"off".to_owned()), "{after:?}");
    assert!(lives(rack.process()));
}

#[tokio::test]
async fn off_is_tried_again_until_it_is_seen() {
    for (way, agent) in [("fails-once", "fence_machine"), ("lies-once", "fence_machine")] {
        let rack = Rack::new(agent, &[("way", way)]);
        rack.done(Operation::Start).await;
        let off = rack.done(Operation::Stop).await;
        assert_eq!(
            (off.state, off.detail.as_str()),
            (InstanceState::Off, "off after 2 attempts, as its status says"),
            "{way}"
        );
        assert!(!lives(rack.process()), "{way}");
    }
}

#[tokio::test]
async fn a_call_that_hangs_is_ended_with_what_it_started_and_tried_again() {
    let short = |settings| FenceSettings { timeout: Duration::from_secs(6), ..settings };
    let rack = Rack::with("fence_machine", &[("way", "hangs-once")], short);
    rack.done(Operation::Start).await;
    let off = rack.done(Operation::Stop).await;
    assert_eq!(off.detail, "off after 2 attempts, as its status says");
    let child = number_in(&rack.file("child")).expect("it had a child");
    until("its child is dead", || !lives(child)).await;
    assert!(!lives(rack.process()));
}

#[tokio::test]
async fn a_device_that_hangs_for_good_leaves_the_machine_unresolved() {
    let rack = Rack::new("fence_machine", &[("way", "hangs")]);
    rack.done(Operation::Start).await;
    let error = rack.perform(Operation::Stop, Duration::from_secs(5)).await.expect_err("it hangs");
    assert!(matches!(error, Error::TimedOut { .. }) && error.is_unresolved(), "{error}");
    let child = number_in(&rack.file("child")).expect("it had a child");
    until("its child is dead", || !lives(child)).await;
}

#[tokio::test]
async fn a_machine_that_is_off_for_certain_but_does_not_come_on_is_told_as_off() {
    let rack = Rack::new("fence_machine", &[]);
    rack.done(Operation::Start).await;
    let broken = options(&[("plug", "7"), ("way", "on-fails")]);
    let answer = rack
        .infrastructure
        .perform(Operation::RebootHard, &request(broken), Duration::from_secs(12))
        .await
        .expect("that it is off is known");
    assert_eq!(answer.state, InstanceState::Off);
    assert!(answer.detail.starts_with("off, as its status says; but then: "), "{}", answer.detail);
    assert!(answer.detail.contains("Timed out waiting to power ON"), "{}", answer.detail);
    assert!(!lives(rack.process()));
    // The next rung, a start, works once the device does.
    assert_eq!(rack.done(Operation::Start).await.state, InstanceState::Active);
}

#[tokio::test]
async fn a_status_that_fails_is_unknown_and_never_off() {
    for (way, said) in
        [("status-fails", "exit status 1; it said: Failed: Unable"), ("status-crashes", "signal 11")]
    {
        let rack = Rack::new("fence_machine", &[("way", way)]);
        let answer = rack.done(Operation::Status).await;
        assert_eq!(answer.state, InstanceState::Unknown, "{way}");
        assert!(answer.detail.contains(said), "{way}: {}", answer.detail);
        // And off that cannot be seen is not off.
        let error = rack.perform(Operation::Stop, Duration::from_secs(5)).await.expect_err("it is not seen");
        assert!(error.is_unresolved(), "{error}");
    }
}

#[tokio::test]
async fn a_secret_is_in_no_error_no_argument_no_environment_and_no_debug_output() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("password");
    std::fs::write(&file, "open sesame\n").expect("written");
    let rack = Rack::with("fence_machine", &[("way", "fails")], |mut settings| {
        settings.options.insert("password".to_owned(), FenceValue::File(file.clone()));
        settings
    });
    let error = rack.perform(Operation::Stop, Duration::from_secs(5)).await.expect_err("it fails");
    let said = format!("{error} {error:?} {:?} {:?}", rack.infrastructure, rack.settings);
    assert!(said.contains("Unable to connect as admin:(hidden) to the device"), "{said}");
    let called = std::fs::read_to_string(rack.file("called")).expect("it was called");
    assert!(called.contains("action off"), "{called}");
    for text in [said, called] {
        assert!(!text.contains("sesame"), "{text}");
    }
}

#[tokio::test]
async fn a_wrong_option_is_an_error_before_anything_is_switched() {
    let cases: [(&[(&str, &str)], &str); 5] = [
        (
            &[],
            "nothing says which outlet is that of shop/web-1; write fence = { plug = \"7\" } into its assembly",
        ),
        (&[("way", "x")], "the agent needs `plug`; a machine's outlet is the `fence` of its assembly"),
        (&[("plgu", "7")], "the agent has no option `plgu`, nearest is `plug`"),
        (
            &[("plug", "7"), ("power_wait", "soon")],
            "the value of `power_wait` is not one that the agent takes, expected a whole number",
        ),
        (&[("plug", "7\naction=on")], "the value of `plug` is empty or has more than one line"),
    ];
    let rack = Rack::new("fence_machine", &[]);
    for (own, expected) in cases {
        let error = rack.infrastructure.perform(Operation::Stop, &request(options(own)), LONG).await;
        let error = error.expect_err("it is wrong");
        assert!(!error.is_unresolved() && error.to_string().contains(expected), "{error}");
    }
    assert_eq!(rack.called(), [""; 0]);

    let error = Rack::new("fence_machine", &[("pasword", "x")]).infrastructure.capabilities().await;
    let error = error.expect_err("it is wrong").to_string();
    assert!(error.contains("the agent has no option `pasword`, nearest is `password`"), "{error}");
}

#[tokio::test]
async fn a_secret_file_that_is_not_there_is_named_before_anything_is_switched() {
    let rack = Rack::with("fence_machine", &[], |mut settings| {
        settings.options.insert("password".to_owned(), FenceValue::File("/nonexistent/secret".into()));
        settings
    });
    let error = rack.perform(Operation::Stop, LONG).await.expect_err("there is none");
    assert!(!error.is_unresolved(), "{error}");
    assert!(
        error.to_string().contains("`password` could not be read from /nonexistent/secret: No such file"),
        "{error}"
    );
    assert_eq!(rack.called(), [""; 0]);
}

#[tokio::test]
async fn an_agent_without_metadata_or_that_is_not_there_is_asked_for_nothing() {
    let rack = Rack::new("fence_garbage", &[]);
    let error = rack.perform(Operation::Stop, LONG).await.expect_err("it prints garbage");
    assert!(!error.is_unresolved() && error.to_string().contains("its metadata: "), "{error}");
    assert!(
        error.to_string().contains("Traceback")
            && error.to_string().contains("expected the <resource-agent>")
    );
    assert_eq!(rack.called(), [""; 0]);

    let missing = infrastructure(&settings("fence_nonexistent", &[]));
    let error = missing.capabilities().await.expect_err("there is none");
    assert!(!error.is_unresolved() && error.to_string().contains("check `agent` in cpe.toml"), "{error}");
}

#[tokio::test]
async fn an_agent_that_cuts_a_machine_off_the_network_can_stop_it_and_does_not_reboot_it() {
    let rack = Rack::new("fence_fabric", &[]);
    rack.done(Operation::Start).await;
    let error = rack.perform(Operation::RebootHard, LONG).await.expect_err("it is none");
    assert!(!error.is_unresolved(), "{error}");
    assert!(error.to_string().contains("the agent does monitor, status, off, on only"), "{error}");
    assert!(lives(rack.process()));
    assert_eq!(rack.done(Operation::Stop).await.state, InstanceState::Off);
}

#[tokio::test]
async fn an_agent_that_can_only_reset_is_asked_to_and_its_word_is_told_as_unverified() {
    for agent in ["fence_reset", "fence_blind"] {
        let rack = Rack::new(agent, &[]);
        let answer = rack.done(Operation::RebootHard).await;
        assert_eq!(answer.state, InstanceState::Unknown, "{agent}");
        assert!(answer.detail.contains("not verified"), "{}", answer.detail);
        assert_eq!(rack.called(), ["reboot"]);
        assert!(lives(rack.process()));
        // Off that nobody can see is no stop.
        let error = rack.perform(Operation::Stop, LONG).await.expect_err("it is none");
        assert!(!error.is_unresolved(), "{error}");
    }
}

#[tokio::test]
async fn a_device_that_does_not_answer_can_do_nothing_until_it_does() {
    let rack = Rack::new("fence_machine", &[("way", "unreachable"), ("plug", "1")]);
    let error = rack.infrastructure.capabilities().await.expect_err("it does not answer");
    assert!(error.to_string().contains("no route to the device"), "{error}");
    // Where the plug is the assembly's, there is nothing to ask with yet.
    let rack = Rack::new("fence_machine", &[("way", "unreachable")]);
    assert!(rack.infrastructure.capabilities().await.is_ok());
}

#[tokio::test]
async fn more_output_than_anybody_reads_is_neither_on_nor_off() {
    let rack = Rack::new("fence_machine", &[]);
    rack.done(Operation::Start).await;
    let loud = request(options(&[("plug", "7"), ("way", "shouts")]));
    let error = rack.infrastructure.perform(Operation::Status, &loud, LONG).await;
    let error = error.expect_err("it is too much");
    assert!(error.to_string().contains("more than 65536 bytes of output"), "{error}");
}

#[tokio::test]
async fn an_operation_that_nobody_waits_for_any_more_is_not_left_half_way() {
    let rack = Rack::new("fence_machine", &[("way", "fails-once")]);
    rack.done(Operation::Start).await;
    let first = rack.process();
    let waiting = rack.perform(Operation::RebootHard, LONG);
    // Its first attempt has failed by then.
    let begun = async {
        while !rack.file("7.failed").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = waiting => panic!("it was to fail once"),
        () = begun => {}
    }
    let rebooted = async {
        while lives(first) || rack.process() == first || !lives(rack.process()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, rebooted).await.expect("it is off and on again");
}
