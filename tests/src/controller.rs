//! The `cpe` under test: started beside a site, asked by its own command line, stopped as systemd would.
//! It is used from outside only: what a story asserts is what an operator sees.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{env, iter, thread};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::guest::tail;
use crate::program::{self, Output};
use crate::site::Site;
use crate::wait;

/// From its start to an answer on its socket.
const READY: Duration = Duration::from_secs(30);
/// One command of the command line.
const COMMAND: Duration = Duration::from_secs(30);
/// A drain is promised to take 5 s; the rest is for a loaded machine.
const DRAIN: Duration = Duration::from_secs(20);
/// Events that a failure shows.
const EVENTS_SHOWN: usize = 30;

/// A running `cpe run`. Killed on drop, if it was not stopped.
#[derive(Debug)]
pub struct Controller {
    binary: PathBuf,
    dir: PathBuf,
    metrics: SocketAddr,
    child: Child,
}

/// One event as `cpe events --json` prints it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event(pub Value);

impl Event {
    /// A field that is a word: `kind`, `assembly`, `service`, `from`, `to`, `reason`, `rung`, ... Empty when absent.
    #[must_use]
    pub fn word(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// Whether it is of this kind.
    #[must_use]
    pub fn is(&self, kind: &str) -> bool {
        self.word("kind") == kind
    }

    /// What it is about within its deployable: `assembly/service`, `assembly`, or nothing for the deployable itself.
    #[must_use]
    pub fn subject(&self) -> String {
        [self.word("assembly"), self.word("service")].join("/").trim_end_matches('/').to_owned()
    }

    /// When it happened, since 1970.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_millis(self.0["time"].as_u64().unwrap_or_default())
    }

    /// Whether a service or assembly came into this state.
    #[must_use]
    pub fn became(&self, state: &str) -> bool {
        self.is("state_changed") && self.word("to") == state
    }
}

impl Controller {
    /// Writes a definition and a cpe.toml into the site's folder, starts `cpe run` on them, and waits until its API
    /// answers. [`Site::cpe_toml`] is a cpe.toml that suits; another one must keep its folders and its socket.
    ///
    /// # Errors
    /// When the binary is missing, ends, or does not answer by the deadline; the message shows what it said.
    pub fn start(site: &Site, definition: &str, cpe_toml: &str) -> Result<Self> {
        Self::start_with(site, definition, cpe_toml, &[])
    }

    /// As [`Self::start`], with these variables in its environment, too.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        site: &Site,
        definition: &str,
        cpe_toml: &str,
        environment: &[(&str, String)],
    ) -> Result<Self> {
        let dir = site.path("cpe");
        fs::create_dir_all(dir.join("deployables"))?;
        fs::create_dir_all(dir.join("state"))?;
        fs::write(dir.join("cpe.toml"), cpe_toml)?;
        fs::write(dir.join("deployables/story.toml"), definition)?;
        Self::run(site, environment)
    }

    /// Starts `cpe run` on what an earlier one left.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn resume(site: &Site) -> Result<Self> {
        Self::run(site, &[])
    }

    fn run(site: &Site, environment: &[(&str, String)]) -> Result<Self> {
        let binary = binary()?;
        let dir = site.path("cpe");
        let stderr = File::options().create(true).append(true).open(dir.join("stderr"))?;
        let mut command = Command::new(&binary);
        command.arg("--config").arg(dir.join("cpe.toml")).arg("run");
        command.envs(environment.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(stderr.try_clone()?).stderr(stderr);
        let child = command.spawn().with_context(|| format!("starting {}", binary.display()))?;
        let mut controller = Self { binary, dir, metrics: site.metrics(), child };
        controller.wait_until_ready()?;
        Ok(controller)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let socket = self.dir.join("api.sock");
        let ready = wait::until("cpe to answer on its API socket", READY, || {
            if let Some(status) = self.child.try_wait()? {
                bail!("cpe run ended at once, with {status}");
            }
            Ok(UnixStream::connect(&socket).ok().map(drop))
        });
        wait::explained(ready, || format!("cpe said:\n{}", self.stderr_tail()))
    }

    /// The folder that is watched for definitions.
    #[must_use]
    pub fn deployables(&self) -> PathBuf {
        self.dir.join("deployables")
    }

    /// Runs `cpe` with these arguments against this controller.
    ///
    /// # Errors
    /// When it does not end. Its exit status is for the story to judge.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        let config = self.dir.join("cpe.toml").display().to_string();
        let arguments = ["--config", &config].into_iter().chain(arguments.iter().copied());
        program::run(&self.binary, arguments, COMMAND)
    }

    /// As [`Self::cli`], for commands that must exit with 0; returns what was printed.
    ///
    /// # Errors
    /// As [`Self::cli`], and when the command fails.
    pub fn demand(&self, arguments: &[&str]) -> Result<String> {
        let output = self.cli(arguments)?;
        if !output.succeeded() {
            bail!("cpe {} exited with {:?}: {}", arguments.join(" "), output.status, output.stderr);
        }
        Ok(output.stdout)
    }

    /// `cpe status --json`, parsed. Its exit status is 0 or, when something is not healthy, 1.
    ///
    /// # Errors
    /// When the command fails, or what it prints is no JSON.
    pub fn status(&self) -> Result<Value> {
        let output = self.cli(&["status", "--json"])?;
        if !matches!(output.status, Some(0 | 1)) {
            bail!("cpe status --json exited with {:?}: {}", output.status, output.stderr);
        }
        serde_json::from_str(&output.stdout).context("cpe status --json is no JSON")
    }

    /// The state that `cpe status` gives for `deployable`, `deployable/assembly` or `deployable/assembly/service`.
    ///
    /// # Errors
    /// When the command fails, or there is nothing of that name.
    pub fn state_of(&self, name: &str) -> Result<String> {
        self.field_of(name, "state")
    }

    /// Why it is not healthy, as `cpe status` says it; empty when there is nothing to say.
    ///
    /// # Errors
    /// As [`Self::state_of`].
    pub fn reason_of(&self, name: &str) -> Result<String> {
        self.field_of(name, "reason")
    }

    fn field_of(&self, name: &str, field: &str) -> Result<String> {
        let status = self.status()?;
        let mut found = &status;
        for (list, part) in ["deployables", "assemblies", "services"].into_iter().zip(name.split('/')) {
            let members = found[list].as_array().map(Vec::as_slice).unwrap_or_default();
            let member = members.iter().find(|member| member["name"] == part);
            found = member.ok_or_else(|| anyhow!("cpe status knows no {name}: {status}"))?;
        }
        Ok(found[field].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until `cpe status` gives this state, and its events tell of it: they are durable a moment later.
    ///
    /// # Errors
    /// When the command fails, or the deadline has passed; the message shows the last events.
    pub fn wait_for_state(&self, name: &str, state: &str, deadline: Duration) -> Result<()> {
        self.wait_until_it_is(name, state, deadline, || self.is_told(name, state))
    }

    /// The same of `cpe status` alone, where no event can be durable.
    ///
    /// # Errors
    /// As [`Self::wait_for_state`].
    pub fn wait_for_status(&self, name: &str, state: &str, deadline: Duration) -> Result<()> {
        self.wait_until_it_is(name, state, deadline, || Ok(true))
    }

    fn wait_until_it_is(
        &self,
        name: &str,
        state: &str,
        deadline: Duration,
        also: impl Fn() -> Result<bool>,
    ) -> Result<()> {
        let what = format!("{name} to be {state}");
        let found =
            wait::until(&what, deadline, || Ok((self.state_of(name)? == state && also()?).then_some(())));
        wait::explained(found, || self.last_events())
    }

    /// Whether the newest change of its state that is told of, if any, is one into this.
    fn is_told(&self, name: &str, state: &str) -> Result<bool> {
        let (deployable, part) = name.split_once('/').unwrap_or((name, ""));
        let of = |event: &&Event| {
            event.is("state_changed") && event.word("deployable") == deployable && event.subject() == part
        };
        Ok(self.events()?.iter().rfind(of).is_none_or(|event| event.became(state)))
    }

    /// All events so far, oldest first.
    ///
    /// # Errors
    /// When the command fails, or a line is no JSON.
    pub fn events(&self) -> Result<Vec<Event>> {
        let printed = self.demand(&["events", "--json"])?;
        let parse = |line: &str| {
            let event = serde_json::from_str(line).with_context(|| format!("cpe events printed {line:?}"));
            event.map(Event)
        };
        printed.lines().map(parse).collect()
    }

    /// Waits for the first event that matches, among all since the journal began.
    ///
    /// # Errors
    /// When the command fails, or the deadline has passed; the message shows the last events.
    pub fn wait_for_event(
        &self,
        what: &str,
        deadline: Duration,
        matches: impl Fn(&Event) -> bool,
    ) -> Result<Event> {
        let found = wait::until(what, deadline, || Ok(self.events()?.into_iter().find(&matches)));
        wait::explained(found, || self.last_events())
    }

    /// Waits until there is a change of state into `state` of `assembly` or `assembly/service`, however short it was.
    ///
    /// # Errors
    /// As [`Self::wait_for_event`].
    pub fn wait_until_became(&self, name: &str, state: &str, deadline: Duration) -> Result<Event> {
        self.wait_for_event(&format!("{name} to become {state}"), deadline, |event| {
            event.became(state) && event.subject() == name
        })
    }

    /// The actions that were begun, in their order, as `restart-service web/app` or `reboot-hard web`.
    ///
    /// # Errors
    /// As [`Self::events`].
    pub fn recoveries(&self) -> Result<Vec<String>> {
        let events = self.events()?;
        let begun = events.iter().filter(|event| event.is("recovery_started"));
        Ok(begun.map(|event| format!("{} {}", event.word("rung"), event.subject())).collect())
    }

    /// Its metrics, as Prometheus would read them.
    ///
    /// # Errors
    /// When they are not served.
    pub fn metrics(&self) -> Result<String> {
        let mut stream = TcpStream::connect(self.metrics).context("connecting to the metrics")?;
        stream.set_read_timeout(Some(COMMAND))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: cpe\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("reading the metrics")?;
        Ok(answer)
    }

    /// Its process, for stories that do something to it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn last_events(&self) -> String {
        let events = match self.events() {
            Ok(events) => events,
            Err(error) => return format!("and the events could not be read: {error:#}"),
        };
        let last =
            events[events.len().saturating_sub(EVENTS_SHOWN)..].iter().map(|event| event.0.to_string());
        iter::once("the last events were:".to_owned()).chain(last).collect::<Vec<_>>().join("\n")
    }

    /// Asks it to end, as systemd does, and waits until it has.
    ///
    /// # Errors
    /// When it does not end by the deadline.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).context("sending SIGTERM to cpe")?;
        let ended = wait::until("cpe to end after SIGTERM", DRAIN, || Ok(self.child.try_wait()?));
        wait::explained(ended, || format!("cpe said:\n{}", self.stderr_tail()))
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn crash(mut self) -> Result<()> {
        self.child.kill().context("killing cpe")?;
        self.child.wait().map(drop).context("burying cpe")
    }

    /// Lets it have no time at all, as a suspended host or a SIGSTOP does, until [`Self::thaw`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::STOP).context("stopping cpe")
    }

    /// Ends [`Self::freeze`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn thaw(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::CONT).context("continuing cpe")
    }

    /// Holds the rules that may not be broken against its journal: `cpe audit`.
    fn audit(&self) -> Result<()> {
        let audit = self.cli(&["audit"])?;
        ensure!(audit.succeeded(), "cpe audit found: {}{}", audit.stdout, audit.stderr);
        Ok(())
    }

    /// The end of what it logged.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        tail(&self.dir.join("stderr"))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        // Every story ends with an audit of its journal.
        if !thread::panicking()
            && let Err(error) = self.audit()
        {
            panic!("{error:#}");
        }
    }
}

/// `CPE_BIN`, else the binary that was built into the same target folder as this test.
///
/// # Errors
/// When there is none; the message says how to build it.
pub fn binary() -> Result<PathBuf> {
    let path = match env::var_os("CPE_BIN") {
        Some(path) => PathBuf::from(path),
        // target/debug/deps/story-0123 -> target/debug/cpe
        None => env::current_exe()?.ancestors().nth(2).context("the test is in a target folder")?.join("cpe"),
    };
    if !path.is_file() {
        bail!("there is no cpe at {}: run `cargo build -p cpe`, or set CPE_BIN", path.display());
    }
    Ok(path)
}
