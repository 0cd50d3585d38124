//! A network of guests for one story: bridge, keys, known hosts, a `command` infrastructure, and a folder for all of it.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::guest::{Guest, machine, tail};
use crate::reservation::{Leave, Number};
use crate::{program, wait};

/// The first build of the image downloads a Debian; all others take no time.
const IMAGE: Duration = Duration::from_secs(1200);
const KEYGEN: Duration = Duration::from_secs(30);

/// A bridge with guests. Removed with everything in it on drop; if even that fails, by the next site's sweep.
#[derive(Debug)]
pub struct Site {
    dir: PathBuf,
    guests: Vec<Guest>,
    // Dropped last: the guests are gone when others may have their place.
    number: Number,
    _leave: Leave,
}

/// Tells one story: makes a site with these guests, powered off, and runs `tell` with it. When that fails, everything
/// that the site has logged is printed. With `CPE_NO_GUESTS=1` in the environment nothing is run, and that is said.
///
/// # Errors
/// When there can be no guests here, with what is missing; and those of `tell`.
pub fn story(guests: &[&str], tell: impl FnOnce(&Site) -> Result<()>) -> Result<()> {
    if env::var_os("CPE_NO_GUESTS").is_some_and(|value| value == "1") {
        let name = thread::current().name().unwrap_or("a story").to_owned();
        // Past the capture of the test runner: what did not run must not look like a success.
        // In one write, for other tests do the same at the same time.
        io::stderr().write_all(format!("{name}: NOT RUN, because CPE_NO_GUESTS=1\n").as_bytes())?;
        return Ok(());
    }
    let site = Site::with_guests(guests)?;
    let told = tell(&site);
    if told.is_err() {
        site.report();
    }
    told
}

impl Site {
    /// A site with these guests, powered off.
    ///
    /// # Errors
    /// When this is not root, the image cannot be built, or something of a guest cannot be made.
    pub fn with_guests(names: &[&str]) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!(
                "guests need root (network namespaces, mounts, containers): run as root, or set CPE_NO_GUESTS=1"
            );
        }
        let image =
            program::demand(BUILD_IMAGE, [""; 0], IMAGE).context("building the image of the guests")?;
        let leave = Leave::take(names.len())?;
        machine(["sweep"]).context("removing what dead test runs left")?;
        let mut number = Number::take()?;
        let cache = Path::new(image.trim_end()).parent().context("the image is in a folder")?;
        let dir = cache.join("sites").join(number.value.to_string());
        number.write_down(&dir)?;
        // From here on, drop removes what was made.
        let mut site = Self { dir, guests: Vec::new(), number, _leave: leave };
        site.furnish(image.trim_end())?;
        for name in names {
            site.add(name)?;
        }
        Ok(site)
    }

    fn furnish(&self, image: &str) -> Result<()> {
        // Only a reboot of this machine forgets locks and leaves folders.
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir).context("removing a site of before the last reboot")?;
        }
        fs::create_dir_all(&self.dir)?;
        fs::write(self.path("image"), image)?;
        fs::write(self.path("known_hosts"), "")?;
        let key = self.path("id_ed25519").display().to_string();
        program::demand("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "dped", "-f", &key], KEYGEN)?;
        self.write_program("infra", &format!("CPE_SITE='{}' exec '{INFRA}' \"$@\"\n", self.dir.display()))?;
        // One write for each, so that two at once do not mix.
        let pager = format!("message=$(cat); printf '%s\\n' \"$message\" >>'{}/told'\n", self.dir.display());
        self.write_program("page", &pager)?;
        machine(["site-up", &self.dir.display().to_string()])?;
        Ok(())
    }

    fn add(&mut self, name: &str) -> Result<()> {
        let index = u8::try_from(self.guests.len())?;
        let guest = Guest::create(&self.dir, self.number.value, index, name)?;
        let host_key = self.path("guests").join(name).join("root/etc/ssh/ssh_host_ed25519_key.pub");
        let host_key = fs::read_to_string(host_key).context("reading the guest's host key")?;
        let mut known_hosts = fs::OpenOptions::new().append(true).open(self.path("known_hosts"))?;
        write!(known_hosts, "{} {host_key}", guest.address())?;
        self.guests.push(guest);
        Ok(())
    }

    /// A file or folder of this site.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The guest of that name.
    ///
    /// # Errors
    /// When the story has no such guest.
    pub fn guest(&self, name: &str) -> Result<&Guest> {
        let found = self.guests.iter().find(|guest| guest.name() == name);
        found.ok_or_else(|| anyhow!("this story has no guest {name}"))
    }

    /// All guests, in the order they were named.
    #[must_use]
    pub fn guests(&self) -> &[Guest] {
        &self.guests
    }

    /// Boots all guests at once.
    ///
    /// # Errors
    /// That of the first that does not come up.
    pub fn boot_all(&self) -> Result<()> {
        self.each(&self.guests, Guest::boot)
    }

    /// Cuts whoever manages these guests off from all of them, at once: silence, and they go on.
    ///
    /// # Errors
    /// When a link cannot be changed.
    pub fn cut_all(&self) -> Result<()> {
        machine(["cut-all", &self.dir.display().to_string()]).map(drop)
    }

    /// Ends [`Self::cut_all`].
    ///
    /// # Errors
    /// When a link cannot be changed.
    pub fn heal_all(&self) -> Result<()> {
        machine(["heal-all", &self.dir.display().to_string()]).map(drop)
    }

    /// Does the same to some guests, all at once.
    ///
    /// # Errors
    /// That of the first where it fails.
    pub fn each<'g>(
        &self,
        guests: impl IntoIterator<Item = &'g Guest>,
        what: impl Fn(&Guest) -> Result<()> + Sync,
    ) -> Result<()> {
        let what = &what;
        thread::scope(|scope| {
            let all: Vec<_> = guests.into_iter().map(|guest| scope.spawn(move || what(guest))).collect();
            all.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?)
        })
    }

    /// Writes a shell program into the site's folder, for stories that need one, and returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_program(&self, name: &str, script: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{script}"))?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// The text of a cpe.toml that suits this site; its infrastructure is called `guests`. A story may append tables.
    #[must_use]
    pub fn cpe_toml(&self) -> String {
        let dir = self.dir.display();
        let metrics = self.metrics();
        format!(
            r#"deployables = "{dir}/cpe/deployables"
state_dir = "{dir}/cpe/state"
[listen]
api = "unix:{dir}/cpe/api.sock"
metrics = "{metrics}"
[notify]
command = "{dir}/page"
[ssh]
user = "dped"
identity = "{dir}/id_ed25519"
known_hosts = ["{dir}/known_hosts"]
[infrastructures.guests]
kind = "command"
program = "{dir}/infra"
"#
        )
    }

    /// Where the metrics of this site's cpe are: on the site's own address, so that stories can run at once.
    #[must_use]
    pub fn metrics(&self) -> SocketAddr {
        SocketAddr::from(([10, 213, self.number.value, 1], 9464))
    }

    /// What a person was told so far: the messages, in their order.
    ///
    /// # Errors
    /// When what the pager got is no notification.
    pub fn told(&self) -> Result<Vec<String>> {
        let told = fs::read_to_string(self.path("told")).unwrap_or_default();
        let message = |line: &str| {
            let notification: Value =
                serde_json::from_str(line).with_context(|| format!("the pager got {line:?}"))?;
            Ok(notification["message"].as_str().context("no message")?.to_owned())
        };
        told.lines().map(message).collect()
    }

    /// Waits until a person was told something that contains these words.
    ///
    /// # Errors
    /// When nobody was by the deadline; the message shows what was told.
    pub fn wait_until_told(&self, words: &str, deadline: Duration) -> Result<String> {
        let what = format!("a person to be told of {words:?}");
        let told = wait::until(&what, deadline, || {
            Ok(self.told()?.into_iter().find(|message| message.contains(words)))
        });
        wait::explained(told, || format!("told was: {:#?}", self.told().unwrap_or_default()))
    }

    /// Prints the end of everything that was logged in this site: the test runner shows it with the failure.
    #[expect(
        clippy::print_stderr,
        reason = "only this way the test runner puts it beside the test that failed"
    )]
    fn report(&self) {
        for guest in &self.guests {
            eprintln!("--- console of {} at {}\n{}", guest.name(), guest.address(), guest.console_tail());
        }
        for log in ["infra.log", "told", "cpe/stderr"] {
            eprintln!("--- {log}\n{}", tail(&self.path(log)));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if thread::panicking() {
            self.report();
        }
        // What cannot be removed now is removed by the next sweep, which says why if it cannot either.
        drop(machine(["site-down", &self.dir.display().to_string()]).and_then(|_| self.number.wipe()));
    }
}

const BUILD_IMAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/build-image");
const INFRA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/infra");
