//! What is true of machines and the units on them, whatever anybody believes of it. Faults and recoveries change it (`faults.rs`,
//! `deeds.rs`), probes and the infrastructure look at it (`look.rs`), and `truth.rs` holds every action against it.

use std::sync::Arc;
use std::time::Duration;

use cpe_proto::id::{ActionId, Name};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::time::Timestamp;

use super::setup::SetUp;

/// Whether a machine has power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It runs, or hangs.
    On,
    /// On its way up.
    Booting,
    /// Off.
    Off,
    /// Its instance does not exist any more.
    Gone,
    /// The infrastructure failed it.
    Error,
}

/// A machine, or what stands in for one.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The deployable that it belongs to.
    pub deployable: Name,
    /// The assembly that it is.
    pub assembly: Name,
    /// What it fails together with.
    pub domains: Vec<Name>,
    /// Whether it has power.
    pub power: Power,
    /// Its kernel hangs.
    pub frozen: bool,
    /// It hangs again after each boot: its disk is broken.
    pub never_boots: bool,
    /// It was stopped or deleted on purpose.
    pub stopped_by: Option<Who>,
    /// What it runs on is dead until then: it boots nowhere, but elsewhere.
    pub(super) host_dead_until: Timestamp,
    /// Counts its boots, so that the end of an earlier one is known for what it is.
    pub boot: u32,
    /// Counts its instances.
    pub instance: u32,
    /// Its units, in the order of the definition that made it.
    pub units: Vec<Unit>,
    /// How its SSH server fails until then.
    pub(super) door: Option<(ChannelFailure, Timestamp)>,
    /// Nothing reaches it before that.
    pub(super) cut_until: Timestamp,
    /// Its answers take so long before that.
    pub(super) slow: Option<(Duration, Timestamp)>,
    /// What the infrastructure says of it instead of the truth, until then.
    pub(super) claims: Option<(InstanceState, Timestamp)>,
    /// Another controller's mark is on it until then.
    pub(super) taken_until: Timestamp,
    /// The action that boots it, if its own deployable waits for one.
    pub(super) booted_by: Option<(usize, ActionId)>,
    /// Reachable, running and quick without a break since.
    pub(super) well_since: Option<Timestamp>,
    /// When it was well last.
    pub(super) fell: Option<Fell>,
    /// Running, whether or not anything reaches it, without a break since.
    pub(super) works_since: Option<Timestamp>,
    /// When a person stopped or deleted it last.
    pub(super) stopped_at: Option<Timestamp>,
    /// When it was last lied about.
    pub(super) lied_at: Option<Timestamp>,
}

/// The last time that something was well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fell {
    /// When that ended.
    pub(super) at: Timestamp,
    /// How long it had been so.
    pub(super) after: Duration,
}

/// Who stopped a machine on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A person, through an infrastructure that knows it.
    Known,
    /// A person, and nobody could know.
    Unknown,
}

impl Machine {
    pub(super) fn new(deployable: Name, assembly: Name, domains: Vec<Name>, units: Vec<Unit>) -> Self {
        Self {
            deployable,
            assembly,
            domains,
            power: Power::On,
            frozen: false,
            never_boots: false,
            stopped_by: None,
            host_dead_until: Timestamp::ZERO,
            boot: 0,
            instance: 1,
            units,
            door: None,
            cut_until: Timestamp::ZERO,
            slow: None,
            claims: None,
            taken_until: Timestamp::ZERO,
            booted_by: None,
            well_since: None,
            fell: None,
            works_since: None,
            stopped_at: None,
            lied_at: None,
        }
    }

    /// `deployable/assembly`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}/{}", self.deployable, self.assembly)
    }

    /// Programs run on it.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.power == Power::On && !self.frozen
    }

    pub(super) fn door_at(&self, now: Timestamp) -> Option<ChannelFailure> {
        self.door.filter(|(_, until)| now < *until).map(|(how, _)| how)
    }

    pub(super) fn slow_at(&self, now: Timestamp) -> Option<Duration> {
        self.slow.filter(|(_, until)| now < *until).map(|(takes, _)| takes)
    }

    pub(super) fn claims_at(&self, now: Timestamp) -> Option<InstanceState> {
        self.claims.filter(|(_, until)| now < *until).map(|(state, _)| state)
    }

    /// What the infrastructure would say if it knew and told all.
    #[must_use]
    pub fn instance_state(&self) -> InstanceState {
        match self.power {
            Power::On | Power::Booting => InstanceState::Active,
            Power::Off => InstanceState::Off,
            Power::Gone => InstanceState::Gone,
            Power::Error => InstanceState::Error,
        }
    }

    pub(super) fn address(&self, number: usize) -> Arc<str> {
        let (high, low) = (number / 250, number % 250 + 1);
        Arc::from(format!("10.{high}.{}.{low}", self.instance % 250))
    }

    /// It lost its power, whatever it did.
    pub(super) fn power_down(&mut self, power: Power) {
        (self.power, self.frozen) = (power, false);
        self.booted_by = None;
        self.boot += 1;
        self.stop_units();
    }

    pub(super) fn stop_units(&mut self) {
        for unit in &mut self.units {
            unit.end(Running::Stopped);
        }
    }

    /// What a disk from the image mends.
    pub(super) fn renew_disk(&mut self) {
        self.never_boots = false;
        for unit in &mut self.units {
            (unit.broken, unit.dies_after, unit.installed, unit.enabled) =
                (false, None, Installed::Loaded, true);
            unit.set_up.fresh = true;
        }
    }
}

/// What a unit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// It works.
    Active,
    /// Stuck on its way up: systemd calls it activating.
    Activating,
    /// It ended, and nobody wanted it to.
    Failed,
    /// It does not run.
    Stopped,
}

/// Whether a unit can be had at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// As it should be.
    Loaded,
    /// Masked by somebody.
    Masked,
    /// Its file is not there.
    NotFound,
}

/// A unit on a machine.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The service that it is.
    pub name: Name,
    /// What it does.
    pub running: Running,
    /// Whether it can be had at all.
    pub installed: Installed,
    /// A start does not help.
    pub broken: bool,
    /// It dies so long after each start.
    pub dies_after: Option<Duration>,
    /// It starts with its machine.
    pub enabled: bool,
    /// Counts its starts and ends, so that an earlier death is known for what it is.
    pub life: u32,
    /// Machines and units that it needs, by their places.
    pub needs: Vec<(usize, usize)>,
    /// It comes and goes by itself, in this rhythm until then.
    pub(super) flaps: Option<(Duration, Timestamp)>,
    /// Its probes do not end before that.
    pub(super) hangs_until: Timestamp,
    /// Its probes take so long until then.
    pub(super) slow: Option<(Duration, Timestamp)>,
    /// Its probes say this instead of the truth, until then.
    pub(super) lie: Option<(Lie, Timestamp)>,
    /// It works, and says until then that a person should look at it.
    pub(super) warns_until: Timestamp,
    /// What started it last.
    pub(super) started: Option<Started>,
    /// What it is set up with.
    pub(super) set_up: SetUp,
    /// The life that a person began by hand.
    pub(super) by_hand: Option<u32>,
    /// Healthy, seen truly and reachable without a break since.
    pub(super) well_since: Option<Timestamp>,
    /// When it was well last.
    pub(super) fell: Option<Fell>,
}

/// A start of a unit by cpe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started {
    /// The life of cpe, its member, and the action.
    pub(super) by: (u32, usize, ActionId),
    pub(super) at: Timestamp,
    /// The life of the unit that it began.
    pub(super) life: u32,
}

/// How a probe lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It passes while the unit is broken.
    Passes,
    /// It fails while the unit works.
    Fails,
}

impl Unit {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            running: Running::Active,
            installed: Installed::Loaded,
            broken: false,
            dies_after: None,
            enabled: true,
            life: 0,
            needs: Vec::new(),
            flaps: None,
            hangs_until: Timestamp::ZERO,
            slow: None,
            lie: None,
            warns_until: Timestamp::ZERO,
            started: None,
            set_up: SetUp::default(),
            by_hand: None,
            well_since: None,
            fell: None,
        }
    }

    pub(super) fn end(&mut self, how: Running) {
        self.life += 1;
        self.running = how;
    }

    /// Whether a start has it running now.
    pub(super) fn start(&mut self) -> bool {
        if self.broken || self.installed != Installed::Loaded {
            return false;
        }
        if self.running != Running::Active {
            self.life += 1;
        }
        self.running = Running::Active;
        true
    }

    /// Its probes say what is so, and in time.
    pub(super) fn truly_seen(&self, now: Timestamp) -> bool {
        let lied = self.lie.is_some_and(|(_, until)| now < until);
        !lied && self.flaps_at(now).is_none() && self.slow_at(now).is_none()
    }

    pub(super) fn lie_at(&self, now: Timestamp) -> Option<Lie> {
        self.lie.filter(|(_, until)| now < *until).map(|(lie, _)| lie)
    }

    pub(super) fn flaps_at(&self, now: Timestamp) -> Option<Duration> {
        self.flaps.filter(|(_, until)| now < *until).map(|(every, _)| every)
    }

    pub(super) fn slow_at(&self, now: Timestamp) -> Option<Duration> {
        self.slow.filter(|(_, until)| now < *until).map(|(takes, _)| takes)
    }
}
