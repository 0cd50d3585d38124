//! The infrastructure of the live fleet over its socket, as `cpe demo-infra` asks it: an object of the `command` infrastructure's
//! contract in, one out.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails by panicking")]

use cpe_proto::infrastructure::InstanceState;
use cpe_sim::live::control::{Answer, CallError, Request, call};
use cpe_sim::live::{Fleet, FleetSettings, MachineSpec, Power, UnitSpec};
use std::path::PathBuf;
use std::time::Duration;

async fn ask(path: &std::path::Path, object: String) -> Answer {
    let path = path.to_owned();
    let request: Request = serde_json::from_str(&object).unwrap();
    tokio::task::spawn_blocking(move || call(&path, &request)).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_looked_at_switched_off_and_on_and_rebooted_by_name_or_address() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.sock");
    let spec = MachineSpec {
        boot_time: Duration::ZERO,
        ..MachineSpec::new("shop/web-1", vec![UnitSpec::new("web.service")])
    };
    let fleet = Fleet::start(FleetSettings { port: 2121, ..FleetSettings::new(vec![spec]) }).await.unwrap();
    fleet.serve_control(&path).await.unwrap();
    let machine = fleet.machine("shop/web-1").unwrap();
    let ip = machine.address().ip();

    let by_name =
        r#"{"action":"status","action_id":7,"deployable":"shop","instance":"shop/web-1","parameters":{}}"#;
    let answer = ask(&path, by_name.to_owned()).await;
    assert_eq!((answer.state, answer.detail.as_str()), (InstanceState::Active, "running"));
    assert_eq!(answer.address, Some(ip.to_string()));

    let by_address = |action: &str| format!(r#"{{"action":"{action}","instance":null,"address":"{ip}"}}"#);
    assert_eq!(ask(&path, by_address("stop")).await.state, InstanceState::Off);
    assert_eq!(machine.power(), Power::Off);
    assert_eq!(ask(&path, by_address("start")).await.state, InstanceState::Active);
    machine.until_booted().await;

    machine.freeze().await;
    let soft = ask(&path, by_address("reboot-soft")).await;
    assert_eq!(soft.detail, "the guest was asked to reboot and did not react");
    ask(&path, by_address("reboot-hard")).await;
    machine.until_booted().await;
    assert_eq!(machine.counts().boots, 2);

    let capabilities = ask(&path, by_address("capabilities")).await.capabilities;
    let words: Vec<&str> = capabilities.iter().map(|operation| operation.as_str()).collect();
    assert_eq!(words, ["status", "start", "stop", "reboot-soft", "reboot-hard", "capabilities"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_is_an_error_that_says_what_could() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.sock");
    let fleet = Fleet::start(FleetSettings { port: 2122, ..FleetSettings::new(vec![]) }).await.unwrap();
    fleet.serve_control(&path).await.unwrap();
    let unable = ask(&path, r#"{"action":"rebuild","instance":"a"}"#.to_owned()).await.error.unwrap();
    assert!(unable.contains("status, start, stop, reboot-soft"), "{unable}");
    let unknown = ask(&path, r#"{"action":"status","instance":"a"}"#.to_owned()).await.error.unwrap();
    assert!(unknown.contains("no machine a"), "{unknown}");
    drop(fleet);
    let nobody = call(&PathBuf::from("/nonexistent/fleet.sock"), &Request::default()).unwrap_err();
    assert!(matches!(nobody, CallError::Io { .. }), "{nobody}");
}
