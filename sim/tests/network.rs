//! What the network sees of a machine of the live fleet, by plain TCP: what differs between refused, silent and gone.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails by panicking")]

use std::io::ErrorKind;
use std::time::Duration;

use cpe_sim::live::{Fleet, FleetSettings, Machine, MachineSpec, Power, UnitSpec};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// Long enough for any answer of loopback, also on a busy machine: what has not answered by then does not answer.
const NO_ANSWER: Duration = Duration::from_millis(700);

async fn fleet(port: u16, boot_time: Duration) -> Fleet {
    let spec =
        |name: &str| MachineSpec { boot_time, ..MachineSpec::new(name, vec![UnitSpec::new("web.service")]) };
    Fleet::start(FleetSettings { port, ..FleetSettings::new(vec![spec("web-1"), spec("web-2")]) })
        .await
        .unwrap()
}

/// How a connection attempt ends: the first bytes of the SSH banner, or what happened instead.
async fn knock(machine: &Machine) -> String {
    let Ok(connected) = tokio::time::timeout(NO_ANSWER, TcpStream::connect(machine.address())).await else {
        return "no connection".to_owned();
    };
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return "refused".to_owned(),
        Err(error) => return error.to_string(),
    };
    let mut banner = [0; 4];
    match tokio::time::timeout(NO_ANSWER, stream.read_exact(&mut banner)).await {
        Ok(Ok(_)) => String::from_utf8_lossy(&banner).into_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "connected, no banner".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_state_of_a_machine_looks_on_the_network_as_it_should_and_its_neighbour_is_untouched() {
    let fleet = fleet(2101, Duration::ZERO).await;
    let web = fleet.machine("web-1").unwrap();
    assert_eq!(knock(web).await, "SSH-");

    web.stop_sshd().await;
    assert_eq!(knock(web).await, "refused");
    web.start_sshd().await;
    assert_eq!(knock(web).await, "SSH-");

    web.freeze().await;
    assert_eq!(knock(web).await, "connected, no banner");
    web.thaw().await;
    assert_eq!(knock(web).await, "SSH-");

    web.cut_off().await;
    assert_eq!(knock(web).await, "no connection");
    assert_eq!(knock(fleet.machine("web-2").unwrap()).await, "SSH-");
    web.heal().await;
    assert_eq!(knock(web).await, "SSH-");

    web.power_off().await;
    assert_eq!(knock(web).await, "no connection");
    web.power_on().await;
    web.until_booted().await;
    assert_eq!(knock(web).await, "SSH-");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_machine_does_not_hear_a_soft_reboot_and_comes_back_by_a_hard_one() {
    let fleet = fleet(2102, Duration::from_millis(10)).await;
    let web = fleet.machine("web-1").unwrap();
    web.kill_unit("web.service").unwrap();
    web.freeze().await;
    assert!(!web.reboot_soft().await);
    assert_eq!(knock(web).await, "connected, no banner");
    web.reboot_hard().await;
    web.until_booted().await;
    assert_eq!(knock(web).await, "SSH-");
    assert!(web.is_active("web.service").unwrap(), "a boot starts enabled units");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_boots_is_gone_until_it_is_up_and_old_connections_are_reset() {
    let fleet = fleet(2103, Duration::from_secs(3600)).await;
    let web = fleet.machine("web-1").unwrap();
    let mut old = TcpStream::connect(web.address()).await.unwrap();
    let mut bytes = [0; 4];
    old.read_exact(&mut bytes).await.unwrap();
    web.reboot_hard().await;
    assert_eq!(web.power(), Power::Booting);
    assert_eq!(knock(web).await, "no connection");
    web.power_off().await;
    assert_eq!(web.power(), Power::Off);
    drop(fleet);
    let mut rest = Vec::new();
    assert_eq!(old.read_to_end(&mut rest).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn two_fleets_do_not_share_an_address_and_a_name_is_given_once() {
    let (one, two) = (fleet(2104, Duration::ZERO).await, fleet(2104, Duration::ZERO).await);
    assert_ne!(one.machine("web-1").unwrap().address(), two.machine("web-1").unwrap().address());
    let twice = vec![MachineSpec::new("a", vec![]), MachineSpec::new("a", vec![])];
    let error = Fleet::start(FleetSettings { port: 2104, ..FleetSettings::new(twice) }).await.unwrap_err();
    assert!(error.to_string().contains("named a"), "{error}");
}
