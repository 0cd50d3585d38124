//! A simulated world: real policy engines and the real fleet guard, carried as `cpe` carries them, in virtual time. Machines, units, networks
//! and infrastructures are imitated; one number ([`Fleet`] and seed) gives one world, and the same one each time.
//!
//! [`World::new`] has everything running and cpe just started. [`World::schedule`] a [`Happening`] at a time since the beginning,
//! [`World::run_until`] a time, read [`World::transcript`] (the product's own events, [`What::Event`], among what nobody in the world
//! can see), [`World::breaches`] of the rules, [`World::unwell`]. [`draw`] makes a fleet and a plan from a seed, [`live`] lives it to its
//! healing, [`shrink`] makes a failing plan small.
//!
//! Files, the shell: `process.rs` life and death of cpe and orders to it, `supervision.rs` those of its engines; `driver.rs` the loop around one engine; `deeds.rs` actions;
//! `desk.rs` who is told; `journal.rs`; `windows.rs` maintenance by schedule, and its judge. The world: `machine.rs` what is true; `faults.rs` what changes it; `look.rs` who sees what; `setup.rs` what services are set up with. The judges: `truth.rs` every
//! action against what is true, `grounds.rs` what must have come before it, `pace.rs` how soon and how often, `checks.rs` the auditor and what must be so in the end, `coverage.rs` what occurred.

mod checks;
mod coverage;
mod deeds;
mod desk;
mod dice;
mod draw;
mod driver;
mod evacuation;
mod faults;
mod fleet;
mod grounds;
mod happening;
mod journal;
mod lived;
mod look;
mod machine;
mod more;
mod pace;
mod pauses;
mod power;
mod process;
mod queue;
mod setup;
mod shrink;
mod supervision;
mod transcript;
mod truth;
mod windows;
mod windows_drawn;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::definition::Deployable;
use cpe_proto::id::Name;
use cpe_proto::time::Timestamp;

pub use checks::Unwell;
pub use coverage::Coverage;
pub use dice::Dice;
pub use draw::{Planned, draw};
pub use faults::Left;
pub use fleet::{Fleet, InfrastructureKind};
pub use happening::{
    ControllerFault, Fate, Happening, InfrastructureFault, MachineFault, Operator, Place, ServiceFault, Side,
};
pub use lived::{Lived, live};
pub use machine::{Installed, Lie, Machine, Power, Running, Unit, Who};
pub use shrink::shrink;
pub use transcript::{Entry, What};

use fleet::Infrastructure;
use journal::Journal;
use process::Process;
use queue::{Item, Queue};
use truth::Truth;

/// Engine time at the beginning of a world: a management node that has been up for a while.
fn began() -> Timestamp {
    Timestamp::from_boot(Duration::from_secs(1000))
}

/// A world that goes on this often at one moment never ends it.
const STEPS_AT_ONCE_MAX: u32 = 200_000;

/// A simulated world.
#[derive(Debug)]
pub struct World {
    now: Timestamp,
    steps_at_once: u32,
    machines: Vec<Machine>,
    places: BTreeMap<(Name, Name), usize>,
    boot: Duration,
    /// When the management node's clock since its boot began.
    booted: Timestamp,
    infrastructures: BTreeMap<Name, Infrastructure>,
    /// Failure domains, and which infrastructure evacuates them.
    shared_points: BTreeMap<Name, Name>,
    /// Nothing passes between cpe and any machine before that; the same for canaries, and for the infrastructures.
    machines_cut: Timestamp,
    canaries_cut: Timestamp,
    infrastructures_cut: Timestamp,
    canaries: usize,
    /// The files, by the place that each deployable has here; none: removed.
    files: Vec<(Name, Option<Arc<Deployable>>)>,
    process: Process,
    journal: Journal,
    queue: Queue,
    truth: Truth,
    dice: Dice,
    transcript: Vec<Entry>,
    coverage: Coverage,
}

impl World {
    /// A world in which everything runs, and cpe has just been started.
    #[must_use]
    pub fn new(fleet: &Fleet, seed: u64) -> Self {
        let infrastructures = fleet.infrastructures.iter();
        let mut world = Self {
            now: began(),
            steps_at_once: 0,
            machines: Vec::new(),
            places: BTreeMap::new(),
            boot: fleet.boot,
            booted: Timestamp::ZERO,
            infrastructures: infrastructures
                .map(|(name, kind)| (name.clone(), Infrastructure::new(kind.clone())))
                .collect(),
            shared_points: fleet.shared_points.clone(),
            machines_cut: Timestamp::ZERO,
            canaries_cut: Timestamp::ZERO,
            infrastructures_cut: Timestamp::ZERO,
            canaries: fleet.canaries,
            files: Vec::new(),
            process: Process::down(),
            journal: Journal::new(),
            queue: Queue::default(),
            truth: Truth::default(),
            dice: Dice::new(seed),
            transcript: Vec::new(),
            coverage: Coverage::default(),
        };
        for definition in &fleet.definitions {
            world.settle_machines(definition);
            world.settle_set_up(definition);
            world.files.push((definition.name.clone(), Some(Arc::clone(definition))));
        }
        world.journal.set_wall(fleet.wall, began());
        world.note();
        world.start();
        world
    }

    /// Orders that something happens at a time since the beginning; what lies in the past happens now.
    pub fn schedule(&mut self, at: Duration, happening: Happening) {
        self.queue.push(began().after(at).max(self.now), Item::Happen(Box::new(happening)));
    }

    /// Time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.now.since(began())
    }

    /// Lets the next thing happen, if it happens by then. False: nothing does, and nothing was changed.
    pub fn step(&mut self, by: Duration) -> bool {
        let end = began().after(by);
        let queued = self.queue.next();
        let (woken, member) = match self.next_wake() {
            Some((at, member)) => (Some(at), Some(member)),
            None => (None, None),
        };
        let Some(next) = [queued, woken].into_iter().flatten().min().filter(|at| *at <= end) else {
            return false;
        };
        self.steps_at_once = if next > self.now { 0 } else { self.steps_at_once + 1 };
        if self.steps_at_once > STEPS_AT_ONCE_MAX {
            let what = format!("it never ends: {queued:?}, {woken:?} at {}", self.now);
            self.broken(what);
            return false;
        }
        self.now = self.now.max(next);
        match member {
            Some(member) if queued.is_none_or(|at| next < at) => self.wake(member),
            _ => {
                if let Some(item) = self.queue.pop() {
                    self.due(item);
                }
            }
        }
        self.audit_step();
        true
    }

    /// Lets everything happen that happens by then. False: it was stopped, because a world that stood still never would have.
    pub fn run_until(&mut self, by: Duration) -> bool {
        while self.step(by) {}
        if self.steps_at_once > STEPS_AT_ONCE_MAX {
            return false;
        }
        self.now = self.now.max(began().after(by));
        true
    }

    /// What happened so far.
    #[must_use]
    pub fn transcript(&self) -> &[Entry] {
        &self.transcript
    }

    /// What occurred so far, by kind.
    #[must_use]
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// What may never happen and did, as far as it was found so far.
    #[must_use]
    pub fn breaches(&self) -> &[String] {
        self.truth.breaches()
    }

    /// All machines, as they truly are.
    #[must_use]
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    fn due(&mut self, item: Item) {
        match item {
            Item::Happen(happening) => self.happen(*happening),
            Item::Look => self.note(),
            Item::Found(crash) => self.must_be_found(&crash),
            Item::Boots(machine, boot) => self.boots(machine, boot),
            Item::Dies(machine, unit, life) => self.dies(machine, unit, life),
            Item::Flaps(machine, unit) => self.flaps(machine, unit),
            Item::Probe { life, member, probe } => self.probe_arrives(life, member, probe),
            Item::Silence { life, member, probe } => self.probe_unanswered(life, member, probe),
            Item::Commit(life) => self.commit(life),
            Item::OnUnit(act) => self.on_unit(&act),
            Item::Operate(operation) => self.operate(&operation),
            Item::Evacuate { life, evacuate, until } => self.begin_evacuation(life, &evacuate, until),
            Item::Evacuates { life, evacuate, until, fate } => self.evacuates(life, &evacuate, until, fate),
            Item::Tell { life, natural, message } => self.tell(life, natural, *message),
            Item::Tick { life, due } => self.tick(life, due),
            Item::Canary { life, index } => self.canary(life, index),
            Item::Noticed { life, member } => self.noticed(life, member),
            Item::EndMaintenance { life } => self.end_maintenance(life),
            Item::GoOn { life, member } => self.go_on(life, member),
            Item::Start => self.start(),
        }
    }

    pub(super) fn say(&mut self, what: What) {
        self.transcript.push(Entry { at: self.now(), what });
    }

    pub(super) fn broken(&mut self, what: String) {
        self.truth.broken(what.clone());
        self.say(What::Broken(what));
    }
}
