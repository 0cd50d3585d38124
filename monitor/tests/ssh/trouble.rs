//! Sessions that end, freeze and come back.

use std::time::Duration;

use cpe_monitor::ssh::{Probe, Settings};
use cpe_proto::observation::{ChannelFailure, Observation};

use crate::guest::{Guest, Kind, PATIENCE, eventually};
use crate::watch::{Watch, command, failure, process};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_killed_while_idle_is_connected_anew_by_the_next_channel_probe() {
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    guest.signal_sessions("KILL");
    assert_eq!(watch.channel().await, Observation::Alive);
    eventually("the old session is counted off", || watch.monitor.counters().open == 1);
    assert_eq!(watch.monitor.counters().connected, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_killed_mid_probe_is_connected_anew_and_the_channel_probe_is_answered() {
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    // Stopped, so that the probe surely waits; then killed.
    guest.signal_sessions("STOP");
    let ids = watch.submit(&[(Probe::Channel, PATIENCE), (command("true"), PATIENCE)]);
    guest.signal_sessions("KILL");
    let mut seen = [watch.answer().await, watch.answer().await];
    seen.sort_by_key(|answer| answer.probe);
    assert_eq!(seen[0].probe, ids[0]);
    assert_eq!(seen[0].observation, Observation::Alive);
    // The service's probe was lost with the session, unless it had not been sent yet.
    assert!(
        matches!(&seen[1].observation, Observation::NotObserved | Observation::Exited(0, _)),
        "{:?}",
        seen[1].observation
    );
    watch.assert_no_more_answers();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_guest_fails_its_channel_and_nothing_behind_it_is_observed() {
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    guest.signal_sessions("STOP");
    let soon = Duration::from_millis(700);
    let seen = watch
        .ask_timed(&[
            (Probe::Channel, soon),
            (command("true"), soon),
            (process("sshd"), PATIENCE),
            (crate::watch::tcp(22), soon),
        ])
        .await;
    assert_eq!(failure(&seen[0]).0, ChannelFailure::TimedOut);
    assert_eq!(seen[1..], [Observation::NotObserved, Observation::NotObserved, Observation::NotObserved]);
    assert_eq!(watch.monitor.counters().open, 0, "the session was given up");
    guest.signal_sessions("CONT");
    assert_eq!(watch.channel().await, Observation::Alive);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_is_killed_is_started_anew() {
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    let kill = "p=$PPID; while read -r a b c d e </proc/$p/stat; case $(tr '\\0' ' ' </proc/$p/cmdline) in *': cpe-resident 1;'*) false;; esac; do p=$d; done; kill -KILL $p";
    let seen = watch.ask(&[Probe::Channel, command(kill)]).await;
    assert_eq!(seen[0], Observation::Alive);
    assert_eq!(watch.check(command("exit 7")).await, Observation::Exited(7, "".into()));
    assert_eq!(watch.monitor.counters().fallbacks, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_shell_never_answers_the_next_connection_serves_by_exec() {
    // The login shell swallows what the resident one should read.
    let force = "ForceCommand case \"$SSH_ORIGINAL_COMMAND\" in *cpe-resident*) cat >/dev/null;; *) eval \"$SSH_ORIGINAL_COMMAND\";; esac";
    let guest = Guest::of(&Kind { config: force, ..Kind::default() });
    let mut watch = Watch::of(&guest);
    let seen = watch.ask_timed(&[(Probe::Channel, Duration::from_millis(1500))]).await;
    assert_eq!(failure(&seen[0]).0, ChannelFailure::TimedOut);
    assert_eq!(watch.check(command("exit 7")).await, Observation::Exited(7, "".into()));
    assert_eq!(watch.monitor.counters().fallbacks, 1);
    watch.session.reconnect();
    let seen = watch.ask_timed(&[(Probe::Channel, Duration::from_millis(1500))]).await;
    assert_eq!(failure(&seen[0]).0, ChannelFailure::TimedOut, "the shell is tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn sshd_that_is_stopped_is_refused_and_found_again() {
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    let endpoint = guest.endpoint();
    drop(guest);
    let seen = watch.channel().await;
    assert_eq!(failure(&seen).0, ChannelFailure::Refused, "port {:?}", endpoint.port);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_probe_is_answered_exactly_once_whatever_happens() {
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    let short = Duration::from_millis(300);
    let mut asked = Vec::new();
    for round in 0..40_u32 {
        let timeout = if round % 3 == 0 { short } else { PATIENCE / 3 };
        let batch: Vec<_> = [
            Probe::Channel,
            command("exit 1"),
            command("sleep 1"),
            process("sshd"),
            crate::watch::unit("a.service"),
            crate::watch::tcp(guest.port),
        ]
        .into_iter()
        .map(|probe| (probe, timeout))
        .collect();
        asked.extend(watch.submit(&batch));
        match round {
            10 | 25 if !guest.sessions().is_empty() => guest.signal_sessions("KILL"),
            15 | 30 => watch.session.reconnect(),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut answered = Vec::new();
    for _ in &asked {
        answered.push(watch.answer().await.probe);
    }
    answered.sort_unstable();
    assert_eq!(answered, asked);
    watch.assert_no_more_answers();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_full_answers_at_once() {
    let guest = Guest::new();
    let mut watch = Watch::with(Settings { queue_max: 1, ..guest.settings() }, guest.endpoint());
    let mut asked = Vec::new();
    for _ in 0..200 {
        asked.extend(watch.submit(&[(Probe::Channel, PATIENCE)]));
    }
    let mut not_tried = 0;
    for _ in &asked {
        match watch.answer().await.observation {
            Observation::Alive => {}
            Observation::Channel(ChannelFailure::NotTried, _) => not_tried += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(not_tried > 0, "the queue holds one batch");
    watch.assert_no_more_answers();
}
