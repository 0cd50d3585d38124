//! A machine of the live fleet over SSH, by a plain SSH client that knows nothing of cpe: logins, exec, the resident shell's
//! protocol word by word, tunnels. That cpe's own client and this agree is another test (`monitor.rs`).

#![allow(clippy::unwrap_used, reason = "a helper of a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use cpe_sim::live::{Behaviour, Command, Fleet, FleetSettings, Machine, MachineSpec, UnitSpec};
use russh::client::{AuthResult, Config, Handle, Handler};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, decode_secret_key};
use russh::{ChannelMsg, Error};

/// Far more than anything on loopback takes; a wait that is longer is a failure.
const DEADLINE: Duration = Duration::from_secs(10);
/// Long enough for any answer of loopback: what has not come by then does not come.
const NO_ANSWER: Duration = Duration::from_millis(300);

struct Client;

impl Handler for Client {
    type Error = Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Error> {
        Ok(true)
    }
}

async fn fleet(port: u16) -> Fleet {
    let units = vec![UnitSpec::new("web.service").listening(80), UnitSpec::new("db.service")];
    Fleet::start(FleetSettings { port, ..FleetSettings::new(vec![MachineSpec::new("m", units)]) })
        .await
        .unwrap()
}

async fn log_in(fleet: &Fleet, machine: &Machine, user: &str) -> Result<Handle<Client>, AuthResult> {
    let key = decode_secret_key(fleet.client_key_openssh(), None).unwrap();
    let connected = russh::client::connect(Arc::new(Config::default()), machine.address(), Client);
    let mut session = connected.await.unwrap();
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    match session.authenticate_publickey(user, key).await.unwrap() {
        AuthResult::Success => Ok(session),
        refused => Err(refused),
    }
}

async fn exec(session: &Handle<Client>, line: &str) -> (Option<u32>, String) {
    let mut channel = session.channel_open_session().await.unwrap();
    channel.exec(true, line).await.unwrap();
    let (mut status, mut output) = (None, String::new());
    while let Some(message) = tokio::time::timeout(DEADLINE, channel.wait()).await.unwrap() {
        match message {
            ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => {
                output += &String::from_utf8_lossy(&data);
            }
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    (status, output)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_fleets_user_with_the_fleets_key_gets_in_while_the_machine_accepts_it() {
    let fleet = fleet(2111).await;
    let machine = fleet.machine("m").unwrap();
    assert!(log_in(&fleet, machine, "dped").await.is_ok());
    assert!(log_in(&fleet, machine, "root").await.is_err());
    machine.refuse_key().await;
    assert!(log_in(&fleet, machine, "dped").await.is_err());
    machine.accept_key();
    assert!(log_in(&fleet, machine, "dped").await.is_ok());
    assert_eq!((machine.counts().logins, machine.counts().refused_logins), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_is_killed_seen_failed_restarted_by_sudo_and_seen_running() {
    let fleet = fleet(2112).await;
    let machine = fleet.machine("m").unwrap();
    let session = log_in(&fleet, machine, "dped").await.ok().unwrap();
    let show = "systemctl show --property=LoadState,ActiveState,SubState -- web.service";
    let running = (Some(0), "LoadState=loaded\nActiveState=active\nSubState=running\n".to_owned());
    assert_eq!(exec(&session, show).await, running);

    machine.kill_unit("web.service").unwrap();
    assert_eq!(exec(&session, show).await.1, "LoadState=loaded\nActiveState=failed\nSubState=failed\n");
    let restart = "sudo -n systemctl reset-failed web.service && sudo -n systemctl restart web.service";
    assert_eq!(exec(&session, restart).await, (Some(0), String::new()));
    assert_eq!(exec(&session, show).await, running);
    assert_eq!(machine.counts().unit_starts, 1);

    machine.mask("web.service").unwrap();
    let (status, output) = exec(&session, restart).await;
    assert_eq!(status, Some(1));
    assert!(output.contains("is masked"), "{output}");
    machine.remove_unit("db.service").unwrap();
    assert_eq!(exec(&session, "sudo -n systemctl restart db.service").await.0, Some(5));
    machine.allow_sudo(false);
    assert_eq!(exec(&session, restart).await, (Some(1), "sudo: a password is required\n".to_owned()));
    assert_eq!(exec(&session, "no-such-program --flag").await.0, Some(127));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_resident_shell_answers_every_kind_of_request_as_its_protocol_says() {
    let fleet = fleet(2113).await;
    let machine = fleet.machine("m").unwrap();
    let exits = |status, output: &str, after| Command::Exits { status, output: output.to_owned(), after };
    machine.set_command("check disk", exits(2, "full\nvery", Duration::ZERO));
    machine.set_command("slow", exits(0, "", Duration::from_millis(30)));
    machine.set_command("stuck", Command::Hangs);
    machine.set_process("lonely", true);
    machine.kill_unit("db.service").unwrap();

    let session = log_in(&fleet, machine, "dped").await.ok().unwrap();
    let mut channel = session.channel_open_session().await.unwrap();
    channel.exec(true, "exec /bin/sh -c ': cpe-resident 1; ...' cpe-resident '...'").await.unwrap();
    let batch = "0123456789abcdef\na 1\np 2 web db lonely\ns 3 5 web.service db.service no.service\n\
        c 4 5 check disk\nc 5 5 slow\nc 6 1 stuck\n";
    channel.data_bytes(batch).await.unwrap();
    let mut text = String::new();
    while text.lines().count() < 10 {
        let message = tokio::time::timeout(DEADLINE, channel.wait()).await.unwrap().unwrap();
        if let ChannelMsg::Data { data } = message {
            text += &String::from_utf8_lossy(&data);
        }
    }
    let bodies: Vec<&str> = text
        .lines()
        .map(|line| {
            line.strip_prefix("0123456789abcdef ").unwrap().strip_suffix(" 0123456789abcdef").unwrap()
        })
        .collect();
    let expected = [
        "r 1",
        "a 1",
        "p 2 1 0 1",
        "u 3 Id=web.service LoadState=loaded ActiveState=active SubState=running",
        "u 3 Id=db.service LoadState=loaded ActiveState=failed SubState=failed",
        "u 3 Id=no.service LoadState=not-found ActiveState=inactive SubState=dead",
        "s 3 0 ",
        "c 4 2 full very",
        "c 5 0 ",
        "t 6",
    ];
    assert_eq!(bodies, expected);
    assert_eq!(machine.counts().resident_probes, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_is_open_through_the_guest_while_its_unit_runs() {
    let fleet = fleet(2114).await;
    let machine = fleet.machine("m").unwrap();
    let session = log_in(&fleet, machine, "dped").await.ok().unwrap();
    assert!(session.channel_open_direct_tcpip("127.0.0.1", 80, "127.0.0.1", 0).await.is_ok());
    machine.kill_unit("web.service").unwrap();
    assert!(session.channel_open_direct_tcpip("127.0.0.1", 80, "127.0.0.1", 0).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_in_a_crash_loop_dies_again_after_each_start_and_the_observer_hears_of_it() {
    let fleet = fleet(2115).await;
    let machine = fleet.machine("m").unwrap();
    let session = log_in(&fleet, machine, "dped").await.ok().unwrap();
    let mut happenings = fleet.observe();
    machine.crash_loop("web.service", Duration::from_millis(20)).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..2 {
        let died = tokio::time::timeout(DEADLINE, happenings.recv()).await.unwrap().unwrap();
        told.push(died.what.to_string());
        assert!(!machine.is_active("web.service").unwrap());
        assert_eq!(exec(&session, "sudo -n systemctl restart web.service").await.0, Some(0));
        told.push(happenings.recv().await.unwrap().what.to_string());
    }
    assert_eq!(told, ["web.service died", "web.service started", "web.service died", "web.service started"]);

    machine.behave("db.service", Behaviour::FailsToStart).await.unwrap();
    assert_eq!(exec(&session, "sudo -n systemctl restart db.service").await.0, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_stands_still_while_the_machine_is_frozen_and_goes_on_after_it() {
    let fleet = fleet(2116).await;
    let machine = fleet.machine("m").unwrap();
    let session = log_in(&fleet, machine, "dped").await.ok().unwrap();
    machine.freeze().await;
    {
        let mut asked = std::pin::pin!(exec(&session, "true"));
        assert!(tokio::time::timeout(NO_ANSWER, &mut asked).await.is_err(), "a frozen guest answered");
        machine.thaw().await;
        assert_eq!(asked.await.0, Some(0));
    }

    machine.stop_sshd().await;
    let ended = tokio::time::timeout(DEADLINE, session).await;
    assert!(ended.is_ok(), "a session outlived its sshd");
}
