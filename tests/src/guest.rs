//! One machine of a story. Its methods are what happens to machines; `guests/machine` does it.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::contact::{Contact, contact};
use crate::program::{self, Output};
use crate::wait;

/// The hypervisor's own actions take well under a second; this is for a machine that is overloaded.
const POWER: Duration = Duration::from_secs(60);
/// A command in a guest.
const COMMAND: Duration = Duration::from_secs(30);
/// From power to the last unit: one second, when nobody else boots.
const BOOT: Duration = Duration::from_secs(90);
/// How long a guest may keep a witness waiting before that is an answer, too.
const GREETING: Duration = Duration::from_millis(1500);

/// What the hypervisor knows of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It has power.
    Active,
    /// It has none.
    Off,
    /// It is being powered off.
    Changing,
}

/// A guest of a [`crate::Site`], which removes it in the end.
#[derive(Clone, Debug)]
pub struct Guest {
    site: PathBuf,
    name: String,
    address: Ipv4Addr,
}

impl Guest {
    pub(crate) fn create(site: &Path, number: u8, index: u8, name: &str) -> Result<Self> {
        let guest = Self {
            site: site.to_owned(),
            name: name.to_owned(),
            address: Ipv4Addr::new(10, 213, number, 10 + index),
        };
        machine(["create", &guest.site(), name, &index.to_string()])?;
        Ok(guest)
    }

    /// Its name in the site, and its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the host reaches it.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    // --- power

    /// Gives it power and waits until it has started everything and greets.
    ///
    /// # Errors
    /// When it is not up by the deadline; the message ends with its console.
    pub fn boot(&self) -> Result<()> {
        self.power_on()?;
        self.wait_until_up()
    }

    /// Gives it power. Does nothing when it has.
    ///
    /// # Errors
    /// When the hypervisor cannot.
    pub fn power_on(&self) -> Result<()> {
        self.machine("on").map(drop)
    }

    /// Cuts its power: it notices nothing, and its peers get no goodbye. Its disk stays.
    ///
    /// # Errors
    /// When the hypervisor cannot.
    pub fn power_off(&self) -> Result<()> {
        self.machine("off").map(drop)
    }

    /// Presses its power button: it shuts down in good order, if it listens.
    ///
    /// # Errors
    /// When it is not running.
    pub fn shut_down(&self) -> Result<()> {
        self.machine("shutdown").map(drop)
    }

    /// Stops all its processes. Its kernel lives: it accepts TCP and answers ICMP.
    ///
    /// # Errors
    /// When it is not running.
    pub fn freeze(&self) -> Result<()> {
        self.machine("freeze").map(drop)
    }

    /// Stops all its processes and its network, as a kernel that hangs. A reboot ends it.
    ///
    /// # Errors
    /// When it is not running.
    pub fn hang(&self) -> Result<()> {
        self.machine("hang").map(drop)
    }

    /// Ends [`Self::freeze`] and [`Self::hang`].
    ///
    /// # Errors
    /// When it is not running.
    pub fn thaw(&self) -> Result<()> {
        self.machine("thaw").map(drop)
    }

    /// What the hypervisor says of it.
    ///
    /// # Errors
    /// When the hypervisor cannot be asked.
    pub fn state(&self) -> Result<Power> {
        match self.machine("state")?.as_str() {
            "active" => Ok(Power::Active),
            "off" => Ok(Power::Off),
            "changing" => Ok(Power::Changing),
            other => bail!("the hypervisor called the state of {} {other:?}", self.name),
        }
    }

    /// How often it was started since it was made: reboots count.
    ///
    /// # Errors
    /// When the hypervisor cannot be asked.
    pub fn boots(&self) -> Result<u32> {
        self.machine("boots")?.parse().context("the hypervisor's count of boots")
    }

    /// Lets its image have this file, too, so that a rebuild brings it back; only another instance is without it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn spoil_image(&self, path: &str, content: &str) -> Result<()> {
        let folder = self.site.join("spoiled").join(&self.name);
        let file = folder.join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().unwrap_or(&folder))?;
        fs::write(file, content)?;
        machine(["spoil", &self.site(), &self.name, &folder.display().to_string()]).map(drop)
    }

    // --- network

    /// Takes it off the network: a partition. Neither side is told, and a reboot does not heal it.
    ///
    /// # Errors
    /// When the link cannot be changed.
    pub fn cut_link(&self) -> Result<()> {
        self.machine("cut").map(drop)
    }

    /// Ends [`Self::cut_link`].
    ///
    /// # Errors
    /// When the link cannot be changed.
    pub fn heal_link(&self) -> Result<()> {
        self.machine("heal").map(drop)
    }

    /// What a stranger learns from this port.
    ///
    /// # Errors
    /// When the attempt ended in a way that no guest should show.
    pub fn contact(&self, port: u16) -> Result<Contact> {
        contact(SocketAddr::from((self.address, port)), GREETING)
    }

    // --- inside

    /// Runs a shell command in it as root, past its network and its sshd.
    ///
    /// # Errors
    /// When the guest is not running, or the command does not end.
    pub fn run(&self, command: &str) -> Result<Output> {
        let output = program::run(MACHINE, ["run", &self.site(), &self.name, "sh", "-c", command], COMMAND);
        output.with_context(|| format!("running `{command}` in {}", self.name))
    }

    /// As [`Self::run`], for commands that must succeed; returns what was printed, trimmed.
    ///
    /// # Errors
    /// As [`Self::run`], and when the command fails.
    pub fn demand(&self, command: &str) -> Result<String> {
        let output = self.run(command)?;
        if !output.succeeded() {
            bail!("`{command}` in {} exited with {:?}: {}", self.name, output.status, output.stderr);
        }
        Ok(output.stdout.trim_end().to_owned())
    }

    /// Puts a file into it, owned by root. It need not run.
    ///
    /// # Errors
    /// When the file, or a folder on the way to it, cannot be made.
    pub fn put(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let file = self.site.join("guests").join(&self.name).join("root").join(path.trim_start_matches('/'));
        let put = || {
            fs::create_dir_all(file.parent().unwrap_or(&self.site))?;
            fs::write(&file, content)?;
            fs::set_permissions(&file, Permissions::from_mode(mode))
        };
        put().with_context(|| format!("writing {path} of {}", self.name))
    }

    /// Runs a command over SSH as the user that cpe logs in as, with the site's key and its known hosts, strictly.
    ///
    /// # Errors
    /// When ssh does not end; that it cannot log in is its exit status 255 and its words.
    pub fn ssh(&self, command: &str) -> Result<Output> {
        let identity = self.site.join("id_ed25519").display().to_string();
        let known_hosts = format!("UserKnownHostsFile={}", self.site.join("known_hosts").display());
        let target = format!("dped@{}", self.address);
        let options =
            ["BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes", "ConnectTimeout=5"];
        let mut arguments = vec!["-F", "none", "-i", &identity, "-o", &known_hosts];
        arguments.extend(["-o", "GlobalKnownHostsFile=/dev/null"]);
        arguments.extend(options.iter().flat_map(|option| ["-o", option]));
        arguments.extend([target.as_str(), command]);
        program::run("ssh", arguments, COMMAND)
    }

    /// Stops a unit as an administrator would.
    ///
    /// # Errors
    /// When systemd refuses.
    pub fn stop_unit(&self, unit: &str) -> Result<()> {
        self.demand(&format!("systemctl stop {unit}")).map(drop)
    }

    /// Starts a unit as an administrator would.
    ///
    /// # Errors
    /// When systemd refuses.
    pub fn start_unit(&self, unit: &str) -> Result<()> {
        self.demand(&format!("systemctl start {unit}")).map(drop)
    }

    /// Kills all processes of a unit, so that it fails.
    ///
    /// # Errors
    /// When systemd refuses.
    pub fn kill_unit(&self, unit: &str) -> Result<()> {
        self.demand(&format!("systemctl kill --signal=KILL {unit}")).map(drop)
    }

    /// systemd's word for a unit: `active`, `inactive`, `failed`, ...
    ///
    /// # Errors
    /// When systemd cannot be asked.
    pub fn unit_state(&self, unit: &str) -> Result<String> {
        self.demand(&format!("systemctl show --value --property=ActiveState {unit}"))
    }

    /// The number of a unit's main process: it changes with each start of the unit.
    ///
    /// # Errors
    /// When systemd cannot be asked.
    pub fn main_pid(&self, unit: &str) -> Result<u32> {
        self.demand(&format!("systemctl show --value --property=MainPID {unit}"))?.parse().context("MainPID")
    }

    /// Stops its sshd and ends the sessions that stand, which systemd alone would leave.
    ///
    /// # Errors
    /// When a command in it fails.
    pub fn stop_sshd(&self) -> Result<()> {
        self.demand(&format!("systemctl stop ssh && {END_SESSIONS}")).map(drop)
    }

    /// Gives it a new host key, as somebody in the middle would have. What is known of it stays as it was.
    ///
    /// # Errors
    /// When a command in it fails.
    pub fn replace_host_key(&self) -> Result<()> {
        let key = "/etc/ssh/ssh_host_ed25519_key";
        let make = format!("rm {key} && ssh-keygen -q -t ed25519 -N '' -f {key}");
        // Sessions that stand belong to the old key: they end, too.
        self.demand(&format!("{make} && systemctl restart ssh && {END_SESSIONS}")).map(drop)
    }

    /// Lets nobody in any more: every key is refused, and sessions that stand are ended.
    ///
    /// # Errors
    /// When a command in it fails.
    pub fn refuse_keys(&self) -> Result<()> {
        let file = "/home/dped/.ssh/authorized_keys";
        self.demand(&format!("mv {file} {file}.kept && {END_SESSIONS}")).map(drop)
    }

    /// Ends [`Self::refuse_keys`].
    ///
    /// # Errors
    /// When a command in it fails.
    pub fn accept_keys(&self) -> Result<()> {
        let file = "/home/dped/.ssh/authorized_keys";
        self.demand(&format!("mv {file}.kept {file}")).map(drop)
    }

    // --- waiting

    /// Waits until it greets over the network and systemd has nothing left to start.
    ///
    /// # Errors
    /// When that is not so by the deadline; the message ends with its console.
    pub fn wait_until_up(&self) -> Result<()> {
        self.wait_until("it is up", BOOT, || {
            let running = self.run("systemctl is-system-running")?.stdout;
            let started = matches!(running.trim_end(), "running" | "degraded");
            Ok(started && matches!(self.contact(22)?, Contact::Greeted(_)))
        })
    }

    /// Looks until a condition holds.
    ///
    /// # Errors
    /// When looking fails, or the deadline has passed; the message ends with the guest's console.
    pub fn wait_until(
        &self,
        what: &str,
        deadline: Duration,
        mut holds: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let held = wait::until(what, deadline, || Ok(holds()?.then_some(())));
        wait::explained(held, || {
            format!("guest {} at {}; its console ends:\n{}", self.name, self.address, self.console_tail())
        })
    }

    /// The last lines of its console.
    #[must_use]
    pub fn console_tail(&self) -> String {
        tail(&self.site.join("guests").join(&self.name).join("console"))
    }

    fn machine(&self, action: &str) -> Result<String> {
        machine([action, &self.site(), &self.name])
    }

    fn site(&self) -> String {
        self.site.display().to_string()
    }
}

/// The hypervisor.
const MACHINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/machine");
/// sshd's processes that serve one session carry the user's name in their title. None there is fine.
const END_SESSIONS: &str = "{ pkill -KILL -f '^sshd: dped' || test $? = 1; }";
/// How much of a log helps somebody who reads a failure.
const TAIL_LINES: usize = 40;

pub(crate) fn machine<const N: usize>(arguments: [&str; N]) -> Result<String> {
    program::demand(MACHINE, arguments, POWER).map(|printed| printed.trim_end().to_owned())
}

pub(crate) fn tail(file: &Path) -> String {
    let Ok(bytes) = fs::read(file) else {
        return format!("(there is no {})", file.display());
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
