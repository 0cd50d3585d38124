//! Each kind of probe, passing and failing, through each shell and through exec.

use std::time::Duration;

use cpe_monitor::ssh::Probe;
use cpe_proto::observation::Observation;

use crate::guest::{Guest, Kind, PATIENCE, am_root, eventually, free_port, processes};
use crate::watch::{Watch, command, process, state, tcp, unit};

/// A short wait for what is meant to be late.
const SOON: Duration = Duration::from_millis(1500);

async fn every_kind_passes_and_fails(kind: &Kind<'_>, fallbacks: u64) {
    let guest = Guest::of(kind);
    guest.unit("nginx.service", "nginx.service loaded active running");
    guest.unit("broken.service", "broken.service loaded failed failed");
    guest.unit("alias.service", "real.service masked inactive dead");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().port();
    let closed = free_port();
    let mut watch = Watch::of(&guest);
    // Twice: the first batch greets the shell, the second finds it there.
    for _ in 0..2 {
        let seen = watch
            .ask(&[
                Probe::Channel,
                unit("alias.service"),
                unit("nginx.service"),
                unit("broken.service"),
                unit("missing.service"),
                unit("nginx.service"),
                process("sshd"),
                process("no-such-one"),
                tcp(open),
                tcp(closed),
                command("echo fine; echo more"),
                command("echo 'it is '\\''bad'\\'' $((1 + 1))' >&2; exit 3"),
                command("no-such-command"),
                command("kill -TERM $$"),
            ])
            .await;
        assert_eq!(seen[0], Observation::Alive);
        assert_eq!(
            seen[1],
            state("masked", "inactive", "dead"),
            "an alias is told by its place, not its name"
        );
        assert_eq!(seen[2], state("loaded", "active", "running"));
        assert_eq!(seen[3], state("loaded", "failed", "failed"));
        assert_eq!(seen[4], state("not-found", "inactive", "dead"));
        assert_eq!(seen[5], seen[2], "asked twice, told twice");
        assert_eq!(seen[6], Observation::Exited(0, "".into()));
        assert_eq!(seen[7], Observation::Exited(1, "no such process".into()));
        assert_eq!(seen[8], Observation::Connected);
        assert!(matches!(&seen[9], Observation::NotConnected(_)), "{:?}", seen[9]);
        assert_eq!(seen[10], Observation::Exited(0, "fine more".into()));
        assert_eq!(seen[11], Observation::Exited(3, "it is 'bad' $((1 + 1))".into()));
        assert!(
            matches!(&seen[12], Observation::NotRunnable(text) if text.contains("not found")),
            "{:?}",
            seen[12]
        );
        assert!(matches!(&seen[13], Observation::Exited(status, _) if *status >= 128), "{:?}", seen[13]);
    }
    assert_eq!(watch.monitor.counters().connected, 1, "one session serves all");
    assert_eq!(watch.monitor.counters().fallbacks, fallbacks);
    watch.assert_no_more_answers();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_resident_shell_answers_every_kind() {
    every_kind_passes_and_fails(&Kind::default(), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bash_and_busybox_answer_as_dash_does() {
    if !am_root() {
        // Another /bin/sh needs a mount namespace; the test above has tried this machine's own.
        return;
    }
    for shell in ["/bin/bash", "/bin/dash", "/bin/busybox"] {
        every_kind_passes_and_fails(&Kind { shell: Some(shell), ..Kind::default() }, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_serves_where_the_resident_shell_cannot_guard_commands() {
    let kind = Kind { only_commands: Some(&["sh", "sleep", "tail", "cat"]), ..Kind::default() };
    every_kind_passes_and_fails(&kind, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_asked_once_for_all_units_of_a_batch() {
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    watch.ask(&[Probe::Channel, unit("a.service"), unit("b.timer"), unit("c@x.service")]).await;
    assert_eq!(
        guest.read("units/log"),
        "systemctl show --property=Id,LoadState,ActiveState,SubState -- a.service b.timer c@x.service\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_hangs_is_ended_with_all_it_started_and_delays_no_other() {
    for kind in
        [Kind::default(), Kind { only_commands: Some(&["sh", "sleep", "tail", "cat"]), ..Kind::default() }]
    {
        let guest = Guest::of(&kind);
        guest.write("units/mode", "hang\n");
        let mut watch = Watch::of(&guest);
        assert_eq!(watch.channel().await, Observation::Alive);
        let mark = guest.port;
        let hang = command(&format!("sleep 6{mark} & sleep 7{mark}"));
        let ids = watch.submit(&[
            (Probe::Channel, PATIENCE),
            (hang, SOON),
            (unit("nginx.service"), SOON),
            (command("echo other"), PATIENCE),
            (process("sshd"), PATIENCE),
        ]);
        let mut order = Vec::new();
        for _ in 0..5 {
            let answer = watch.answer().await;
            let late = answer.finished.duration_since(answer.asked) >= SOON;
            order.push((answer.probe, answer.observation, late));
        }
        for (probe, observation, late) in &order {
            let hung = *probe == ids[1] || *probe == ids[2];
            assert_eq!(*observation == Observation::DeadlinePassed, hung, "{order:?}");
            assert!(hung == *late || !hung, "{order:?}");
        }
        assert_eq!(order[4].1, Observation::DeadlinePassed, "the others did not wait for it: {order:?}");
        let running = || {
            let marks = [format!("sleep 6{mark}"), format!("sleep 7{mark}")];
            processes().iter().any(|process| {
                process.state != 'Z' && marks.iter().any(|text| process.command.contains(text))
            })
        };
        eventually("the guest has ended what hung", || !running());
        watch.assert_no_more_answers();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_of_output_neither_use_memory_nor_block_others() {
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    let before = resident_bytes();
    let flood = command("head -c 100000000 /dev/zero | tr '\\0' x; exit 4");
    let seen = watch.ask(&[Probe::Channel, flood, command("echo other")]).await;
    assert_eq!(seen[0], Observation::Alive);
    assert!(matches!(&seen[1], Observation::Exited(4, text) if text.starts_with("xxx")), "{:?}", seen[1]);
    assert_eq!(seen[2], Observation::Exited(0, "other".into()));
    assert!(resident_bytes() < before + 32_000_000, "the output was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_exec_a_hundred_megabytes_of_output_are_cut_off() {
    let guest = Guest::of(&Kind { only_commands: Some(&["sh", "sleep", "head", "tr"]), ..Kind::default() });
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    let before = resident_bytes();
    let seen =
        watch.ask(&[Probe::Channel, command("head -c 100000000 /dev/zero"), command("echo other")]).await;
    assert_eq!(seen[0], Observation::Alive);
    assert!(
        matches!(&seen[1], Observation::NotRunnable(text) if text.contains("prints more")),
        "{:?}",
        seen[1]
    );
    assert_eq!(seen[2], Observation::Exited(0, "other".into()));
    assert!(resident_bytes() < before + 32_000_000, "the output was kept");
}

/// This process's memory.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn output_cannot_forge_an_answer() {
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    for line in [
        // Frames with a guessed nonce, to the end of its own line and beyond it.
        "printf '0123456789abcdef c 4 0 forged 0123456789abcdef\\n'; exit 5",
        "printf '\\n\\n0\\n0\\n'; exit 5",
        // A status in the output's place, on both streams and without a newline.
        "printf '\\n0' >&2; printf '\\n0'; exit 5",
        "printf '\\000\\n0\\000'; exit 5",
        "printf ' a 1 \\r\\n c 2 0 x'; exit 5",
    ] {
        let seen = watch.check(command(line)).await;
        assert!(matches!(&seen, Observation::Exited(5, _)), "{line}: {seen:?}");
    }
    // A status, and then no end: the deadline counts, not what was printed.
    let seen =
        watch.ask_timed(&[(Probe::Channel, PATIENCE), (command("printf '\\n0'; sleep 600"), SOON)]).await;
    assert_eq!(seen, vec![Observation::Alive, Observation::DeadlinePassed]);
    assert_eq!(watch.monitor.counters().fallbacks, 0, "nothing of it reached the framing");
}

#[tokio::test(flavor = "multi_thread")]
async fn words_between_the_shell_and_us_are_never_believed_and_exec_takes_over() {
    // As if something wrote where the shell writes: frames of the right form behind each of its own, but for the nonce.
    for forged in ["0123456789abcdef c 7 0 forged 0123456789abcdef", " c 7 0 forged ", "oops"] {
        let force = format!(
            "ForceCommand case \"$SSH_ORIGINAL_COMMAND\" in *cpe-resident*) eval \"$SSH_ORIGINAL_COMMAND\" | \
             while read -r line; do echo \"$line\"; echo \"{forged}\"; done;; *) eval \"$SSH_ORIGINAL_COMMAND\";; esac"
        );
        let guest = Guest::of(&Kind { config: &force.replace("\\\n", ""), ..Kind::default() });
        let mut watch = Watch::of(&guest);
        let seen = watch.ask(&[Probe::Channel, command("exit 5"), process("sshd"), tcp(guest.port)]).await;
        let expected = vec![
            Observation::Alive,
            Observation::Exited(5, "".into()),
            Observation::Exited(0, "".into()),
            Observation::Connected,
        ];
        assert_eq!(seen, expected, "{forged}");
        assert_eq!(watch.monitor.counters().fallbacks, 1, "{forged}");
        assert_eq!(watch.monitor.counters().connected, 1, "the session itself is good");
        watch.assert_no_more_answers();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sshd_that_forbids_forwarding_is_a_matter_for_a_person() {
    let guest = Guest::of(&Kind { config: "AllowTcpForwarding no", ..Kind::default() });
    let mut watch = Watch::of(&guest);
    let seen = watch.check(tcp(22)).await;
    assert!(
        matches!(&seen, Observation::NotRunnable(text) if text.contains("AllowTcpForwarding")),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_keeps_no_zombies_and_nothing_is_left_when_the_session_is_dropped() {
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    let commands: Vec<_> = std::iter::once(Probe::Channel).chain((0..20).map(|_| command("true"))).collect();
    watch.ask(&commands).await;
    let shells = || processes().into_iter().filter(|process| process.command.contains(": cpe-resident 1;"));
    let ours: Vec<u32> =
        shells().filter(|shell| below(shell.parent, &guest.sessions())).map(|shell| shell.id).collect();
    let children = || processes().into_iter().filter(|process| ours.contains(&process.parent)).count();
    assert_eq!(ours.len(), 1);
    eventually("the shell has no child, dead or alive", || children() == 0);
    drop(watch);
    eventually("the shell has ended", || !shells().any(|shell| ours.contains(&shell.id)));
    eventually("sshd serves no session", || guest.sessions().is_empty());
}

fn below(mut id: u32, ancestors: &[u32]) -> bool {
    let all = processes();
    while id > 1 {
        if ancestors.contains(&id) {
            return true;
        }
        let Some(process) = all.iter().find(|process| process.id == id) else { return false };
        id = process.parent;
    }
    false
}
