//! A guest for these tests: a real sshd on loopback, as an ordinary process in a folder of its own. `systemctl` and `sudo` are small
//! scripts first in the session's PATH, since what is tested here is how cpe speaks with them, not they.
//! As root, sshd runs in a mount namespace in which there is a user `dped`, so that sessions are those of an ordinary user and
//! `/bin/sh` can be another shell; as an ordinary user it serves that user.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cpe_monitor::ssh::{Endpoint, Identity, Settings};
use tempfile::TempDir;

/// Far above anything that is waited for here, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const SYSTEMCTL: &str = r#"#!/bin/sh
echo "systemctl $*" >> DIR/units/log
verb=$1
case $verb in
show)
    shift 3
    while read -r line; do [ "$line" != hang ] || sleep 600; done < DIR/units/mode
    for unit; do
        id=$unit load=not-found active=inactive sub=dead
        [ ! -f "DIR/units/$unit" ] || read -r id load active sub < "DIR/units/$unit"
        printf 'Id=%s\nLoadState=%s\nActiveState=%s\nSubState=%s\n\n' "$id" "$load" "$active" "$sub"
    done;;
reset-failed) [ -f "DIR/units/$2" ];;
*)
    if [ ! -f "DIR/units/$2" ]; then echo "Failed to $verb $2: Unit $2 not found." >&2; exit 5; fi
    while read -r line; do [ "$line" != slow ] || sleep 600; done < DIR/units/mode
    if [ "$verb" = stop ]; then echo "$2 loaded inactive dead"; else echo "$2 loaded active running"; fi > "DIR/units/$2";;
esac
"#;

const SUDO: &str = r#"#!/bin/sh
echo "sudo $*" >> DIR/units/log
if [ -f DIR/units/sudo-refuses ]; then echo "sudo: a password is required" >&2; exit 1; fi
[ "$1" = -n ] && shift
exec "$@"
"#;

/// How a guest differs from the usual one.
#[derive(Default)]
pub(crate) struct Kind<'a> {
    /// More lines for sshd_config. `DIR` in them is the guest's folder.
    pub(crate) config: &'a str,
    /// What is made in the guest's folder before sshd starts.
    pub(crate) prepare: Option<&'a dyn Fn(&Path)>,
    /// What `/bin/sh` is (root only).
    pub(crate) shell: Option<&'a str>,
    /// Whether the server has an RSA key too: those take long to make.
    pub(crate) rsa: bool,
    /// Commands that the guest has instead of all.
    pub(crate) only_commands: Option<&'a [&'a str]>,
}

pub(crate) struct Guest {
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) dir: TempDir,
    sshd: Child,
}

impl Guest {
    pub(crate) fn new() -> Self {
        Self::of(&Kind::default())
    }

    pub(crate) fn of(kind: &Kind<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let user = furnish(dir.path(), kind);
        if let Some(prepare) = kind.prepare {
            prepare(dir.path());
        }
        for _ in 0..5 {
            let port = free_port();
            if let Some(sshd) = start(dir.path(), port, kind) {
                return Self { port, user, dir, sshd };
            }
        }
        panic!("no free port for sshd");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o666)).unwrap();
    }

    /// A unit of the fake systemd.
    pub(crate) fn unit(&self, name: &str, state: &str) {
        self.write(&format!("units/{name}"), &format!("{state}\n"));
    }

    /// A host's public key, as known_hosts has it.
    pub(crate) fn host_key(&self, kind: &str) -> String {
        let key = self.read(&format!("host_{kind}.pub"));
        key.split(' ').take(2).collect::<Vec<_>>().join(" ").trim().to_owned()
    }

    /// Settings that know this guest's key and have one that it accepts.
    pub(crate) fn settings(&self) -> Settings {
        let known = format!("[127.0.0.1]:{} {}\n", self.port, self.host_key("ed25519"));
        self.write("known_hosts", &known);
        Settings {
            user: self.user.clone(),
            identities: vec![Identity::File(self.path("id"))],
            known_hosts: vec![self.path("known_hosts")],
            ..Settings::default()
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint {
            label: "shop/web".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: Some(self.port),
            ..Endpoint::default()
        }
    }

    /// The processes of sshd that serve sessions.
    pub(crate) fn sessions(&self) -> Vec<u32> {
        processes()
            .into_iter()
            .filter(|process| process.parent == self.sshd.id())
            .map(|process| process.id)
            .collect()
    }

    /// Gives a signal to everything that serves sessions, with all below it.
    pub(crate) fn signal_sessions(&self, signal: &str) {
        let sessions = self.sessions();
        assert!(!sessions.is_empty(), "no session to signal");
        Self::signal_those(sessions, signal);
    }

    fn signal_those(mut chosen: Vec<u32>, signal: &str) {
        let all = processes();
        let mut index = 0;
        while index < chosen.len() {
            let parent = chosen[index];
            chosen.extend(all.iter().filter(|process| process.parent == parent).map(|process| process.id));
            index += 1;
        }
        let ids: Vec<String> = chosen.iter().map(u32::to_string).collect();
        // Those below a killed one may be gone before it is their turn.
        let _gone = Command::new("kill").arg(format!("-{signal}")).args(ids).stderr(Stdio::null()).status();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        Self::signal_those(self.sessions(), "KILL");
        let _gone = self.sshd.kill();
        let _gone = self.sshd.wait();
    }
}

pub(crate) struct Process {
    pub(crate) id: u32,
    pub(crate) parent: u32,
    pub(crate) state: char,
    pub(crate) command: String,
}

/// All processes that are there now.
pub(crate) fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut words = rest.split(' ');
        let state = words.next()?.chars().next()?;
        let parent = words.next()?.parse().ok()?;
        let command =
            fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default().replace('\0', " ");
        Some(Process { id, parent, state, command })
    })
    .collect()
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn keygen(file: &Path, kind: &str, passphrase: &str) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-C", "test", "-N", passphrase, "-f"])
        .arg(file)
        .status()
        .expect("ssh-keygen (Debian: openssh-client) is needed for these tests");
    assert!(status.success());
}

pub(crate) fn am_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout == b"0\n"
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Fills a guest's folder; the user to log in as.
fn furnish(dir: &Path, kind: &Kind<'_>) -> String {
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(dir, 0o755);
    for key in ["ed25519", "ecdsa"].into_iter().chain(kind.rsa.then_some("rsa")) {
        keygen(&dir.join(format!("host_{key}")), key, "");
    }
    keygen(&dir.join("id"), "ed25519", "");
    fs::copy(dir.join("id.pub"), dir.join("authorized_keys")).unwrap();
    fs::create_dir(dir.join("bin")).unwrap();
    fs::create_dir(dir.join("units")).unwrap();
    open(&dir.join("units"), 0o777);
    for file in ["mode", "log"] {
        fs::write(dir.join("units").join(file), "").unwrap();
        open(&dir.join("units").join(file), 0o666);
    }
    let place = dir.to_str().unwrap();
    script(&dir.join("bin/systemctl"), &SYSTEMCTL.replace("DIR", place));
    script(&dir.join("bin/sudo"), &SUDO.replace("DIR", place));
    for command in kind.only_commands.unwrap_or_default() {
        let found = ["/usr/bin", "/bin"]
            .map(|folder| Path::new(folder).join(command))
            .into_iter()
            .find(|path| path.exists());
        std::os::unix::fs::symlink(found.unwrap(), dir.join("bin").join(command)).unwrap();
    }
    if !am_root() {
        let output = Command::new("id").arg("-un").output().unwrap();
        return String::from_utf8(output.stdout).unwrap().trim().to_owned();
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    fs::write(dir.join("passwd"), format!("{users}\ndped:x:65534:65534::{place}:/bin/sh\n")).unwrap();
    // sshd's own, otherwise made by its systemd unit.
    fs::create_dir_all("/run/sshd").unwrap();
    "dped".to_owned()
}

/// Starts sshd; none where the port was taken meanwhile.
fn start(dir: &Path, port: u16, kind: &Kind<'_>) -> Option<Child> {
    let place = dir.to_str().unwrap();
    let path = if kind.only_commands.is_some() {
        format!("{place}/bin")
    } else {
        format!("{place}/bin:/usr/bin:/bin")
    };
    let rsa = if kind.rsa { format!("HostKey {place}/host_rsa\n") } else { String::new() };
    // The first value of a keyword counts: what a test says comes first.
    let config = format!(
        "{}\nPort {port}\nListenAddress 127.0.0.1\nHostKey {place}/host_ed25519\nHostKey {place}/host_ecdsa\n{rsa}PidFile none\n\
         UsePAM no\nStrictModes no\nAuthorizedKeysFile {place}/authorized_keys\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nSetEnv PATH={path}\nMaxStartups 100\n",
        kind.config.replace("DIR", place)
    );
    let mut listeners = config.matches("ListenAddress").count();
    fs::write(dir.join("sshd_config"), config).unwrap();
    let shell = kind
        .shell
        .map(|shell| format!("mount --bind {shell} \"$(readlink -f /bin/sh)\" && "))
        .unwrap_or_default();
    // Init scripts of its own, where a test has made some.
    let scripts = dir.join("init.d").exists();
    let shell = if scripts { format!("{shell}mount --bind {place}/init.d /etc/init.d && ") } else { shell };
    let inside = format!(
        "mount --bind {place}/passwd /etc/passwd && {shell}exec /usr/sbin/sshd -D -e -f {place}/sshd_config"
    );
    let mut command = if am_root() {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "/bin/sh", "-c", &inside]);
        command
    } else {
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", &format!("{place}/sshd_config")]);
        command
    };
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut sshd = started.expect("sshd (Debian: openssh-server) is needed for these tests");
    let stderr = BufReader::new(sshd.stderr.take().unwrap());
    let (say, said) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            if std::env::var_os("SSHD_LOG").is_some() {
                println!("sshd: {line}");
            }
            let _nobody_waits_any_more = say.send(line);
        }
    });
    let mut up = false;
    while listeners > 0 {
        match said.recv_timeout(PATIENCE) {
            Ok(line) if line.starts_with("Server listening") => {
                listeners -= 1;
                up = listeners == 0;
            }
            Ok(line) if line.contains("Cannot bind") => break,
            Ok(_) => {}
            Err(error) => panic!("sshd did not start: {error}; run with SSHD_LOG=1 to see what it said"),
        }
    }
    if up {
        return Some(sshd);
    }
    // One address may be served and another not: it is of no use.
    let _ended_by_itself = sshd.kill();
    let _status = sshd.wait();
    None
}
