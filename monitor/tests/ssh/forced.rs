//! The forced command that is shipped (`packaging/cpe-guest`): all that cpe sends works through it, and nothing else does.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use cpe_monitor::ssh::{ActError, Probe, ServiceAct, Subject};
use cpe_proto::observation::Observation;

use crate::from_guest::{WELCOME, from_guest, says};
use crate::guest::{Guest, Kind, am_root};
use crate::resources::{act, configure, lsb, plugin, resource};
use crate::watch::{Watch, command, process, state, tcp, unit};

const SCRIPT: &str = include_str!("../../../packaging/cpe-guest");

/// What an intruder leaves in the folder `units`, where the user may write.
const TRACE: &str = "intruder";

/// The shipped script with this guest's list and commands, and a key that can do nothing else.
fn install(dir: &Path, options: &str, path: &str) {
    let place = dir.to_str().unwrap();
    let lines = [
        ("PATH=/usr/sbin:/usr/bin:/sbin:/bin\n", format!("PATH={}\n", path.replace("DIR", place))),
        ("allow=/etc/cpe/guest.allow\n", format!("allow={place}/guest.allow\n")),
    ];
    let script = lines.iter().fold(SCRIPT.to_owned(), |script, (line, with)| {
        assert!(script.contains(line), "the script has no line {line}");
        script.replace(line, with)
    });
    fs::write(dir.join("cpe-guest"), script).unwrap();
    fs::set_permissions(dir.join("cpe-guest"), fs::Permissions::from_mode(0o755)).unwrap();
    let allow = format!(
        "# ours\nunit nginx.service\ncommand echo it works\ncommand exit 3\ncommand printf '%s' \"it's\"\n\
         nagios check_dummy 1 look\nocf ocf:heartbeat:Dummy dummy state={place}/units/dummy\nlsb no-such\n\
         configure {place}/configure shop/web/blog db=192.0.2.7 mode=fast\n"
    );
    fs::write(dir.join("guest.allow"), allow).unwrap();
    let configure =
        format!("#!/bin/sh\necho \"$CPE_PARAMETER_db $CPE_PARAMETER_mode\" > {place}/units/configured\n");
    fs::write(dir.join("configure"), configure).unwrap();
    fs::set_permissions(dir.join("configure"), fs::Permissions::from_mode(0o755)).unwrap();
    let key = fs::read_to_string(dir.join("id.pub")).unwrap();
    let line = format!("restrict,{options}command=\"{place}/cpe-guest\" {key}");
    fs::write(dir.join("authorized_keys"), line).unwrap();
}

fn restricted(kind: &Kind<'_>) -> Guest {
    let path = if kind.only_commands.is_some() { "DIR/bin" } else { "DIR/bin:/usr/bin:/bin" };
    let guest = Guest::of(&Kind { prepare: Some(&|dir| install(dir, "", path)), ..*kind });
    guest.unit("nginx.service", "nginx.service loaded failed failed");
    guest.unit("other.service", "other.service loaded active running");
    guest
}

/// What the key's holder gets with ssh(1).
fn ssh(guest: &Guest, arguments: &[&str], input: &str) -> Output {
    drop(guest.settings());
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o"])
        .arg(format!("UserKnownHostsFile={}", guest.path("known_hosts").display()))
        .args(["-i", guest.path("id").to_str().unwrap(), "-p", &guest.port.to_string()])
        .arg(format!("{}@127.0.0.1", guest.user))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut ssh = ssh.spawn().expect("ssh (Debian: openssh-client) is needed for these tests");
    // One that refuses may have ended before it reads.
    let _unread = ssh.stdin.take().unwrap().write_all(input.as_bytes());
    ssh.wait_with_output().unwrap()
}

async fn everything_that_cpe_sends_works(kind: &Kind<'_>) {
    let guest = restricted(kind);
    let mut watch = Watch::of(&guest);
    let asked = [
        Probe::Channel,
        unit("nginx.service"),
        unit("other.service"),
        process("sshd"),
        process("no-such"),
        command("echo it works"),
        command("exit 3"),
        command("printf '%s' \"it's\""),
    ];
    for _ in 0..2 {
        let seen = watch.ask(&asked).await;
        let expected = [
            Observation::Alive,
            state("loaded", "failed", "failed"),
            state("loaded", "active", "running"),
            Observation::Exited(0, "".into()),
            Observation::Exited(1, "no such process".into()),
            Observation::Exited(0, "it works".into()),
            Observation::Exited(3, "".into()),
            Observation::Exited(0, "it's".into()),
        ];
        assert_eq!(seen, expected);
    }
    for (act, then) in [
        (ServiceAct::Restart, state("loaded", "active", "running")),
        (ServiceAct::Stop, state("loaded", "inactive", "dead")),
        (ServiceAct::Start, state("loaded", "active", "running")),
    ] {
        watch.act(act, "nginx.service").await.unwrap();
        assert_eq!(watch.check(unit("nginx.service")).await, then);
    }
    assert!(guest.read("units/log").contains("systemctl reset-failed nginx.service\n"));
    assert_eq!(watch.monitor.counters().fallbacks, 0, "by the resident shell");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_cpe_sends_works_through_the_forced_command() {
    everything_that_cpe_sends_works(&Kind::default()).await;
}

async fn resources_work_as_they_are_listed(kind: &Kind<'_>) {
    let guest = restricted(kind);
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    let warned = watch.measured(plugin("check_dummy 1 look")).await;
    assert_eq!(warned.observation, Observation::Exited(1, "WARNING: look".into()));
    let state = guest.path("units/dummy").display().to_string();
    let dummy = resource("ocf:heartbeat:Dummy", &[("state", &state)]);
    let subject = || Subject::Resource(Arc::clone(&dummy));
    let runs = |seen: &Observation| matches!(seen, Observation::Exited(0, _));
    for (deed, then) in [(ServiceAct::Start, true), (ServiceAct::Stop, false), (ServiceAct::Restart, true)] {
        act(&watch, deed, subject()).await.unwrap();
        let seen = watch.check(Probe::Resource(Arc::clone(&dummy))).await;
        assert_eq!(runs(&seen), then, "{deed:?}: {seen:?}");
    }
    configure(&watch, &guest, &[("db", "192.0.2.7"), ("mode", "fast")]).await.unwrap();
    assert_eq!(guest.read("units/configured"), "192.0.2.7 fast\n");
    // A script that is listed and not there: cpe says so, and not that it is not listed.
    let seen = watch.check(lsb("no-such")).await;
    assert!(matches!(&seen, Observation::NotRunnable(why) if !why.contains("guest.allow")), "{seen:?}");
    assert_eq!(watch.monitor.counters().fallbacks, 0, "by the resident shell");
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_resources_and_configure_scripts_work_through_the_forced_command_in_each_shell() {
    resources_work_as_they_are_listed(&Kind::default()).await;
    for shell in ["/bin/bash", "/bin/busybox"].into_iter().filter(|_| am_root()) {
        resources_work_as_they_are_listed(&Kind { shell: Some(shell), ..Kind::default() }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_or_a_plugin_that_is_listed_otherwise_is_not_touched() {
    let guest = restricted(&Kind::default());
    let mut watch = Watch::of(&guest);
    let state = guest.path("units/dummy").display().to_string();
    let other = guest.path("units/other").display().to_string();
    let before = guest.read("units/log");
    for parameters in [
        vec![("state", other.as_str())],
        vec![("state", state.as_str()), ("fake", "x")],
        vec![],
        vec![("state", "x' /bin/sh '-c")],
    ] {
        let dummy = resource("ocf:heartbeat:Dummy", &parameters);
        let seen = watch.check(Probe::Resource(Arc::clone(&dummy))).await;
        assert!(matches!(&seen, Observation::NotRunnable(why) if why.contains("guest.allow")), "{seen:?}");
        for deed in [ServiceAct::Start, ServiceAct::Stop, ServiceAct::Restart] {
            let told = act(&watch, deed, Subject::Resource(Arc::clone(&dummy))).await;
            assert!(matches!(&told, Err(ActError::NotRunnable(_))), "{told:?}");
        }
    }
    for line in ["check_dummy 1 look; id", "check_dummy 0", "touch units/intruder"] {
        let seen = watch.check(plugin(line)).await;
        assert!(matches!(&seen, Observation::NotRunnable(why) if why.contains("guest.allow")), "{seen:?}");
    }
    // What is listed as a plugin is no command, and the other way round.
    assert!(matches!(watch.check(command("check_dummy 1 look")).await, Observation::NotRunnable(_)));
    assert!(matches!(watch.check(plugin("echo it works")).await, Observation::NotRunnable(_)));
    assert!(configure(&watch, &guest, &[("db", "192.0.2.8"), ("mode", "fast")]).await.is_err());
    assert_eq!(guest.read("units/log"), before, "sudo was not called");
    assert!(!guest.path("units/configured").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forced_command_runs_in_each_shell() {
    if !am_root() {
        // Another /bin/sh needs a mount namespace; the test above has tried this machine's own.
        return;
    }
    for shell in ["/bin/bash", "/bin/dash", "/bin/busybox"] {
        everything_that_cpe_sends_works(&Kind { shell: Some(shell), ..Kind::default() }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_listed_is_not_done_and_says_where_to_list_it() {
    let guest = restricted(&Kind::default());
    let mut watch = Watch::of(&guest);
    for text in ["touch units/intruder", "echo it works ", "echo it works; id", "id", "exit"] {
        let seen = watch.check(command(text)).await;
        assert!(
            matches!(&seen, Observation::NotRunnable(why) if why.contains("is not in") && why.contains("guest.allow")),
            "{text}: {seen:?}"
        );
    }
    let before = guest.read("units/log");
    for act in [ServiceAct::Restart, ServiceAct::Start, ServiceAct::Stop] {
        let told = watch.act(act, "other.service").await;
        let Err(ActError::NotRunnable(why)) = &told else { panic!("{act:?}: {told:?}") };
        assert!(why.contains("unit other.service is not in") && !why.contains("sudoers"), "{why}");
    }
    assert_eq!(guest.read("units/log"), before, "systemctl was not called");
    fs::remove_file(guest.path("guest.allow")).unwrap();
    assert!(watch.act(ServiceAct::Restart, "nginx.service").await.is_err(), "no list allows nothing");
    assert_eq!(watch.check(unit("nginx.service")).await, state("loaded", "failed", "failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_what_cpe_sends_is_run_for_the_keys_holder() {
    let guest = restricted(&Kind::default());
    let trace = guest.path("units").join(TRACE);
    let touch = format!("touch {}", trace.display());
    let act = |inner: &str| format!("exec /bin/sh -c 'export LC_ALL=C; {inner}'");
    let before = guest.read("units/log");
    for sent in [
        String::new(),
        touch.clone(),
        format!("/bin/sh -c '{touch}'"),
        format!("echo `{touch}`"),
        format!("echo 0123456789abcdef; {touch}"),
        format!("echo 0123456789abcdef\n{touch}"),
        "systemctl restart nginx.service".to_owned(),
        "systemctl show --property=Id,LoadState,ActiveState,SubState -- *".to_owned(),
        format!("systemctl show --property=Id,LoadState,ActiveState,SubState -- a.service; {touch}"),
        act(&touch),
        act(&format!("{touch}; systemctl stop nginx.service")),
        act(&format!("systemctl stop nginx.service; {touch}")),
        act(&format!("systemctl stop $({touch})")),
        act("systemctl stop nginx.service other.service"),
        act("systemctl stop --now"),
        act("systemctl mask nginx.service"),
        act("systemctl restart nginx.service"),
        act(
            "sudo -n systemctl reset-failed other.service >/dev/null 2>&1; sudo -n systemctl restart nginx.service",
        ),
        act(&format!("systemctl stop nginx.service' ; {touch} ; 'x")),
        act("sudo -n reboot"),
        "internal-sftp".to_owned(),
        "scp -t /tmp".to_owned(),
    ] {
        let output = ssh(&guest, &[&sent], "");
        assert_eq!(output.status.code(), Some(126), "{sent}: {output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("cpe-guest: not a command of cpe"),
            "{sent}"
        );
        assert!(!trace.exists(), "{sent}");
    }
    assert_eq!(guest.read("units/log"), before, "systemctl was not called");
    let forwarded = ssh(&guest, &["-W", &format!("127.0.0.1:{}", guest.port)], "");
    assert!(!forwarded.status.success() && !forwarded.stdout.starts_with(b"SSH-"), "{forwarded:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_resident_shell_is_the_guests_own_and_its_input_is_vetted() {
    let guest = restricted(&Kind::default());
    let trace = guest.path("units").join(TRACE);
    let touch = format!("touch {}", trace.display());
    let start = format!("exec /bin/sh -c ': cpe-resident 1; {touch}' cpe-resident '{touch}'");
    let input = format!(
        "0123456789abcdef\na 1\na 2; {touch}\nc 3 5 {touch}\nc 4;{touch} 5 echo it works\nc 5 `{touch}` echo it works\n\
         p 6 $({touch})\np 7 /*\ns 8 5 nginx.service;{touch}\ns 9 5 *\nx 10 {touch}\n{touch}\nc\np 11 no-such\n"
    );
    let output = ssh(&guest, &[&start], &input);
    let text = String::from_utf8(output.stdout).unwrap();
    let bodies: Vec<&str> = text
        .lines()
        .map(|line| line.trim_start_matches("0123456789abcdef ").trim_end_matches(" 0123456789abcdef"))
        .collect();
    let mut ours: Vec<&str> = bodies.iter().copied().filter(|body| !body.starts_with("c 3 ")).collect();
    ours.sort_unstable();
    assert_eq!(ours, ["a 1", "p 11 0", "r 1"], "{text}");
    assert!(!trace.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn by_exec_the_channel_and_units_are_still_seen() {
    let guest =
        restricted(&Kind { only_commands: Some(&["sh", "sleep", "tail", "cat", "id"]), ..Kind::default() });
    let mut watch = Watch::of(&guest);
    let seen = watch.ask(&[Probe::Channel, unit("other.service"), command("echo it works")]).await;
    assert_eq!((&seen[0], &seen[1]), (&Observation::Alive, &state("loaded", "active", "running")));
    assert!(matches!(&seen[2], Observation::NotRunnable(why) if why.contains("cpe-guest")), "{seen:?}");
    assert_eq!(watch.monitor.counters().fallbacks, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_need_forwarding_and_reach_no_further_than_permitopen() {
    let closed = restricted(&Kind::default());
    let seen = Watch::of(&closed).check(tcp(closed.port)).await;
    assert!(matches!(&seen, Observation::NotRunnable(why) if why.contains("port-forwarding")), "{seen:?}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = format!("port-forwarding,permitopen=\"127.0.0.1:{port}\",");
    let prepare = |dir: &Path| install(dir, &options, "DIR/bin:/usr/bin:/bin");
    let guest =
        Guest::of(&Kind { prepare: Some(&prepare), config: "AllowTcpForwarding local", ..Kind::default() });
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.check(tcp(port)).await, Observation::Connected);
    assert!(matches!(watch.check(tcp(guest.port)).await, Observation::NotRunnable(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn so_do_pages_that_are_asked_for_from_within() {
    let (port, other) = (says(WELCOME).await, says(WELCOME).await);
    let http = |port| from_guest(&format!("http = \"http://127.0.0.1:{port}/\""));
    let closed = restricted(&Kind::default());
    let seen = Watch::of(&closed).check(http(port)).await;
    assert!(matches!(&seen, Observation::NotRunnable(why) if why.contains("port-forwarding")), "{seen:?}");
    let options = format!("port-forwarding,permitopen=\"127.0.0.1:{port}\",");
    let prepare = |dir: &Path| install(dir, &options, "DIR/bin:/usr/bin:/bin");
    let guest =
        Guest::of(&Kind { prepare: Some(&prepare), config: "AllowTcpForwarding local", ..Kind::default() });
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.check(http(port)).await, Observation::Expected("status 200".into()));
    assert!(matches!(watch.check(http(other)).await, Observation::NotRunnable(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_in_the_guest_when_the_session_is_dropped() {
    let guest = restricted(&Kind::default());
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.check(command("echo it works")).await, Observation::Exited(0, "it works".into()));
    let place = guest.path("cpe-guest").display().to_string();
    let left = || crate::guest::processes().iter().any(|process| process.command.contains(&place));
    assert!(left());
    drop(watch);
    crate::guest::eventually("it has ended", || !left());
}
