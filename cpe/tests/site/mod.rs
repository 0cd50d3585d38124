//! A live fleet, the files of a management node, and the real `cpe` program beside them, for tests. Everything ends with it.
#![allow(dead_code, reason = "each file of stories uses its own part")]
#![allow(clippy::unwrap_used, reason = "what fails here is a test's failure")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cpe::demo::world::World;
use cpe_sim::live::{Behaviour, Fleet, Machine, MachineSpec, UnitSpec};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// More than anything here takes on a slow machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Site {
    controller: Option<Child>,
    world: World,
    runtime: Runtime,
    _directory: TempDir,
}

/// What a command printed, and its exit status.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// Its output; it must have ended with 0.
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }
}

impl Site {
    /// Machines of these names, each with these units, and a controller that watches them.
    pub(crate) fn start(definitions: &[(&str, &str)], machines: &[&str], units: &[&str]) -> Self {
        Self::configured(definitions, machines, units, "")
    }

    /// The same with more in cpe.toml.
    pub(crate) fn configured(
        definitions: &[(&str, &str)],
        machines: &[&str],
        units: &[&str],
        more: &str,
    ) -> Self {
        let runtime = Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let spec =
            |name: &&str| MachineSpec::new(name, units.iter().map(|unit| UnitSpec::new(unit)).collect());
        let machines = machines.iter().map(spec).collect();
        let cpe = env!("CARGO_BIN_EXE_cpe").as_ref();
        let world = runtime
            .block_on(World::build(directory.path().join("world"), machines, definitions, cpe))
            .unwrap();
        let config = std::fs::read_to_string(world.config_file()).unwrap();
        std::fs::write(world.config_file(), config + more).unwrap();
        let mut site = Self { controller: None, world, runtime, _directory: directory };
        site.start_controller();
        site
    }

    pub(crate) fn start_controller(&mut self) {
        let mut command = self.command(&["run"]);
        self.controller = Some(command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap());
        self.wait("the controller answers", || (self.cpe(&["status", "--json"]).code != 3).then_some(()));
    }

    /// As a power cut of the management node: nothing is written any more.
    pub(crate) fn kill_controller(&mut self) {
        let mut controller = self.controller.take().unwrap();
        controller.kill().unwrap();
        controller.wait().unwrap();
    }

    /// The controller gets no time at all for so long: a stopped process, a suspended host. That time is the story, not a wait.
    pub(crate) fn stand_still(&self, span: Duration) {
        let id = i32::try_from(self.controller.as_ref().unwrap().id()).unwrap();
        let process = Pid::from_raw(id).unwrap();
        kill_process(process, Signal::STOP).unwrap();
        std::thread::sleep(span);
        kill_process(process, Signal::CONT).unwrap();
    }

    /// The unit's next start never ends.
    pub(crate) fn hang_in_start(&self, machine: &str, unit: &str) {
        self.runtime.block_on(self.machine(machine).behave(unit, Behaviour::HangsInStart)).unwrap();
    }

    /// A start that hung ends well after all.
    pub(crate) fn come_up(&self, machine: &str, unit: &str) {
        self.runtime.block_on(self.machine(machine).behave(unit, Behaviour::Runs)).unwrap();
    }

    pub(crate) fn wait_for_active(&self, machine: &str, unit: &str) {
        self.wait("the unit runs", || self.machine(machine).is_active(unit).unwrap().then_some(()));
    }

    /// Waits until the guest was asked so often to start a unit.
    pub(crate) fn wait_for_starts(&self, machine: &str, count: u64) {
        self.wait("a start", || (self.machine(machine).counts().unit_starts >= count).then_some(()));
    }

    /// Waits until that machine was asked so often more.
    pub(crate) fn wait_for_rounds(&self, machine: &str, more: u64) {
        let rounds = || self.machine(machine).counts().resident_rounds;
        let before = rounds();
        self.wait("rounds of probes", || (rounds() >= before + more).then_some(()));
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.world.config_file().with_file_name("state")
    }

    pub(crate) fn fleet(&self) -> &Fleet {
        &self.world.fleet
    }

    /// Does that to the world, now.
    pub(crate) fn now<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    pub(crate) fn machine(&self, name: &str) -> &Arc<Machine> {
        let _context = self.runtime.enter();
        self.world.fleet.machine(name).unwrap()
    }

    /// Writes a definition, as an operator would.
    pub(crate) fn define(&self, file: &str, text: &str) {
        self.world.define(file, text).unwrap();
    }

    pub(crate) fn undefine(&self, file: &str) {
        let folder = self.world.config_file().with_file_name("deployables");
        std::fs::remove_file(folder.join(file)).unwrap();
    }

    pub(crate) fn cpe(&self, arguments: &[&str]) -> Said {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.cpe(&["status", "--json"]).stdout).unwrap()
    }

    /// Waits until `deployable/assembly/service` is in that state.
    pub(crate) fn wait_for(&self, name: &str, state: &str) {
        let (_, service) = name.rsplit_once('/').unwrap();
        self.wait(&format!("{name} is {state}"), || {
            let said = self.cpe(&["status", name, "--json"]).stdout;
            let status: Value = serde_json::from_str(&said).ok()?;
            let services = status["deployables"][0]["assemblies"][0]["services"].as_array()?;
            let found = services.iter().find(|it| it["name"] == service)?;
            (found["state"] == state).then_some(())
        });
    }

    /// Waits for an event and returns it.
    pub(crate) fn wait_for_event(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait("an event", || {
            let said = self.cpe(&["events", "--json", "--since", "1h"]).stdout;
            said.lines().filter_map(|line| serde_json::from_str(line).ok()).find(|event| wanted(event))
        })
    }

    pub(crate) fn wait<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "not within {DEADLINE:?}: {what}\n{}",
                self.cpe(&["events", "--since", "1h"]).stdout
            );
            std::thread::sleep(LOOK);
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cpe"));
        command.arg("--config").arg(self.world.config_file()).args(arguments).env("RUST_LOG", "warn");
        command
    }
}

impl Drop for Site {
    /// Every story ends with an audit of its journal.
    fn drop(&mut self) {
        if let Some(mut controller) = self.controller.take() {
            // It may have ended by itself: then there is nothing to end.
            let _ = controller.kill();
            let _ = controller.wait();
        }
        if !std::thread::panicking() {
            let audit = self.cpe(&["audit"]);
            assert_eq!(audit.code, 0, "{}{}", audit.stdout, audit.stderr);
        }
    }
}
