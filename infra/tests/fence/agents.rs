//! Through agents of Debian's fence-agents, as they are installed: fence_dummy, whose machine is a file, and fence_virsh, which logs
//! in to a real sshd and finds machines there that are real processes. What other agents say of themselves is read in
//! `src/fence/metadata.rs`.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cpe_infra::Infrastructure;
use cpe_proto::infrastructure::{InstanceState, Operation};
use rustix::process::{Pid, Signal, kill_process};

use super::processes::{lives, number_in};
use super::{LONG, infrastructure, options, request, settings};

fn installed(agent: &str) {
    let program = Path::new("/usr/sbin").join(agent);
    let advice = "apt-get install fence-agents, or run tests/run as root";
    assert!(program.exists(), "{} is missing: {advice}", program.display());
}

async fn steps(infrastructure: &Infrastructure, own: &[(&str, &str)], steps: &[(Operation, InstanceState)]) {
    for (operation, state) in steps {
        let answer = infrastructure.perform(*operation, &request(options(own)), LONG).await;
        let answer = answer.unwrap_or_else(|error| panic!("{operation}: {error}"));
        assert_eq!(answer.state, *state, "{operation}: {}", answer.detail);
    }
}

#[tokio::test]
async fn fence_dummy_switches_its_file() {
    installed("fence_dummy");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("status");
    let own = [("status_file", file.to_str().expect("a plain path"))];
    // Found by its name, where programs are.
    let fence = infrastructure(&settings("fence_dummy", &[("type", "file")]));
    let can = fence.capabilities().await.expect("it answers").0;
    assert_eq!(can, [Operation::Status, Operation::Start, Operation::Stop, Operation::RebootHard].into());
    steps(
        &fence,
        &own,
        &[
            (Operation::Status, InstanceState::Off),
            (Operation::Start, InstanceState::Active),
            (Operation::Status, InstanceState::Active),
            (Operation::RebootHard, InstanceState::Active),
            (Operation::Stop, InstanceState::Off),
            (Operation::Status, InstanceState::Off),
        ],
    )
    .await;
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "off");
    // It has no outlets, and would have ignored this.
    let error = fence.perform(Operation::Stop, &request(options(&[("plug", "7")])), LONG).await;
    let error = error.expect_err("it has no such option");
    assert!(!error.is_unresolved() && error.to_string().contains("no option `plug`"), "{error}");
}

#[tokio::test]
async fn fence_dummy_that_fails_to_switch_leaves_it_unresolved() {
    installed("fence_dummy");
    let fence = infrastructure(&settings("fence_dummy", &[("type", "fail"), ("power_timeout", "1")]));
    fence.capabilities().await.expect("it says that it works");
    let own = options(&[("status_file", "/nonexistent/status")]);
    let error = fence.perform(Operation::Stop, &request(own), Duration::from_secs(10)).await;
    let error = error.expect_err("it fails");
    assert!(error.is_unresolved() && error.to_string().contains("Timed out waiting to power OFF"), "{error}");
}

/// sshd gives each terminal to the group `tty`, which an ordinary user's may only where terminals have it from the start (`gid=5` of
/// devpts). Where they do not, it runs in a mount namespace without such a group, as on systems that have none.
fn sshd(folder: &Path) -> Command {
    const PROGRAM: &str = "/usr/sbin/sshd";
    let read = |path: &str| std::fs::read_to_string(path).expect("every Linux has it");
    let groups = read("/etc/group");
    let tty = groups.lines().find_map(|line| line.strip_prefix("tty:")?.split(':').nth(1));
    let given = tty.is_none_or(|tty| {
        let own = |line: &str| line.contains(" /dev/pts devpts ") && line.contains(&format!("gid={tty}"));
        read("/proc/self/mounts").lines().any(own)
    });
    if given || rustix::process::geteuid().is_root() {
        return Command::new(PROGRAM);
    }
    let without: String = groups.split_inclusive('\n').filter(|line| !line.starts_with("tty:")).collect();
    let own = folder.join("group");
    std::fs::write(&own, without).expect("written");
    let namespace = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-current-user", "--mount", "--keep-caps", "--"]);
        unshare
    };
    let tried = namespace().arg("true").status().expect("unshare is of util-linux");
    assert!(
        tried.success(),
        "an ordinary user's sshd can have no terminal here: mount -o remount,gid=5,mode=620 /dev/pts, permit user namespaces, or run as root"
    );
    let mut command = namespace();
    command.args(["sh", "-c", "mount --bind \"$1\" /etc/group && shift && exec \"$@\"", "sh"]);
    command.arg(own).arg(PROGRAM);
    command
}

/// A hypervisor: a real sshd, and in its sessions a `virsh` whose machines are processes.
struct Hypervisor {
    folder: tempfile::TempDir,
    port: u16,
    sshd: Child,
}

impl Hypervisor {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().to_str().expect("a plain path").to_owned();
        std::fs::create_dir(folder.path().join("bin")).expect("made");
        let virsh = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/virsh");
        std::os::unix::fs::symlink(virsh, folder.path().join("bin/virsh")).expect("linked");
        for key in ["host", "id"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.path().join(key))
                .status();
            assert!(made.expect("ssh-keygen is of openssh-client").success());
        }
        // sshd's own, otherwise made by its systemd unit; only root's sshd asks for it.
        let _ = std::fs::create_dir_all("/run/sshd");
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let port = free.expect("a free port").port();
            let config = format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nPidFile none\nUsePAM no\nStrictModes no\n\
                 AuthorizedKeysFile {place}/id.pub\nPasswordAuthentication no\nSetEnv PATH={place}/bin:/usr/bin:/bin\n"
            );
            std::fs::write(folder.path().join("sshd_config"), config).expect("written");
            let mut sshd = sshd(folder.path())
                .args(["-D", "-e", "-f", &format!("{place}/sshd_config")])
                .stderr(Stdio::piped())
                .spawn()
                .expect("sshd is of openssh-server");
            let mut said = BufReader::new(sshd.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
            if said.any(|line| line.starts_with("Server listening")) {
                std::thread::spawn(move || said.for_each(drop));
                return Self { folder, port, sshd };
            }
            sshd.wait().expect("it ended");
        }
        panic!("no free port for sshd");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Hypervisor {
    fn drop(&mut self) {
        let machine = number_in(&self.file("web-1.pid")).filter(|process| lives(*process));
        if let Some(process) = machine.and_then(Pid::from_raw) {
            let _ = kill_process(process, Signal::KILL);
        }
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

#[tokio::test]
async fn fence_virsh_reboots_a_machine_through_a_real_ssh_session() {
    installed("fence_virsh");
    let hypervisor = Hypervisor::start();
    // A machine that is there and is off.
    std::fs::write(hypervisor.file("web-1.pid"), "").expect("written");
    let user = Command::new("id").arg("-un").output().expect("id runs").stdout;
    let user = String::from_utf8(user).expect("a name");
    let port = hypervisor.port.to_string();
    let identity = hypervisor.file("id");
    // The last part is the agent's own default; the first is for a host key that nobody knows.
    let ssh = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
               -t '/bin/bash -c \"PS1=\\\\[EXPECT\\\\]# /bin/bash --noprofile --norc\"'";
    let common = [
        ("ip", "127.0.0.1"),
        ("ipport", port.as_str()),
        ("username", user.trim()),
        ("identity_file", identity.to_str().expect("a plain path")),
        ("ssh_options", ssh),
        ("login_timeout", "30"),
        ("shell_timeout", "30"),
    ];
    let fence = infrastructure(&settings("fence_virsh", &common));
    steps(
        &fence,
        &[("plug", "web-1")],
        &[(Operation::Status, InstanceState::Off), (Operation::Start, InstanceState::Active)],
    )
    .await;
    let first = number_in(&hypervisor.file("web-1.pid")).expect("a process");
    assert!(lives(first));
    steps(&fence, &[("port", "web-1")], &[(Operation::RebootHard, InstanceState::Active)]).await;
    let second = number_in(&hypervisor.file("web-1.pid")).expect("a process");
    assert!(!lives(first) && lives(second));
    steps(&fence, &[("plug", "web-1")], &[(Operation::Stop, InstanceState::Off)]).await;
    assert!(!lives(second));

    // A machine that the hypervisor does not know is neither on nor off.
    let answer = fence.perform(Operation::Status, &request(options(&[("plug", "web-9")])), LONG).await;
    let answer = answer.expect("it answers");
    assert_eq!(answer.state, InstanceState::Unknown);
    assert!(answer.detail.contains("existing name"), "{}", answer.detail);
}
