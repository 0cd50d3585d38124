//! What is still to happen, in the order of its time; what is due at one moment, in the order in which it was put here.

use std::collections::{BTreeMap, BTreeSet};

use cpe_proto::id::{ActionId, Name, ProbeId};
use cpe_proto::infrastructure::{InstanceState, Operation, Owner};
use cpe_proto::observation::Observation;
use cpe_proto::time::Timestamp;
use dped::{ActionOutcome, Evacuate, Parameters};

use super::happening::{Fate, Happening};
use super::pace::Crash;

/// Something that is due. What belongs to a process of cpe has the number of its life, and is nothing to a later one.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Happen(Box<Happening>),
    /// A condition ends: what is true is looked at.
    Look,
    /// By then a crash is found.
    Found(Box<Crash>),
    /// A machine is up, if that boot still goes on.
    Boots(usize, u32),
    /// A unit dies, if that life of it still goes on.
    Dies(usize, usize, u32),
    /// A unit comes or goes by itself.
    Flaps(usize, usize),
    /// A probe reaches its target.
    Probe {
        life: u32,
        member: usize,
        probe: ProbeId,
    },
    /// A probe has had no answer.
    Silence {
        life: u32,
        member: usize,
        probe: ProbeId,
    },
    /// The journal writes.
    Commit(u32),
    /// An act on a unit takes effect.
    OnUnit(Box<OnUnit>),
    /// An operation of an infrastructure takes effect.
    Operate(Box<Operate>),
    /// The guard's own action is begun, if it is durable.
    Evacuate {
        life: u32,
        evacuate: Box<Evacuate>,
        until: Timestamp,
    },
    /// It takes effect.
    Evacuates {
        life: u32,
        evacuate: Box<Evacuate>,
        until: Timestamp,
        fate: Option<Fate>,
    },
    /// Something reaches cpe.
    Tell {
        life: u32,
        natural: Timestamp,
        message: Box<Message>,
    },
    /// The guard's clock.
    Tick {
        life: u32,
        due: Timestamp,
    },
    /// A canary was tried.
    Canary {
        life: u32,
        index: usize,
    },
    /// An engine's loop notices that cpe stood still.
    Noticed {
        life: u32,
        member: usize,
    },
    /// Maintenance whose hour has come is ended.
    EndMaintenance {
        life: u32,
    },
    /// A new engine goes on where another one panicked, if all has ended that it had begun.
    GoOn {
        life: u32,
        member: usize,
    },
    /// cpe is started.
    Start,
}

/// What reaches cpe.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Probed {
        member: usize,
        probe: ProbeId,
        observation: Observation,
    },
    Seen {
        member: usize,
        assembly: Name,
        state: InstanceState,
        address: Option<std::sync::Arc<str>>,
        /// The instance that has it.
        instance: u32,
        ordered: bool,
        owner: Owner,
    },
    Fenced {
        member: usize,
        action: ActionId,
        outcome: ActionOutcome,
    },
    Evacuated {
        domain: Name,
        number: ActionId,
        outcome: ActionOutcome,
    },
    Acted {
        member: usize,
        action: ActionId,
        outcome: ActionOutcome,
    },
}

/// What is done to a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Start,
    Stop,
    Restart,
    /// It is set up, and restarted with that.
    Reconfigure,
}

/// An act on a unit.
#[derive(Clone, Debug)]
pub(super) struct OnUnit {
    pub(super) life: u32,
    pub(super) member: usize,
    pub(super) action: ActionId,
    pub(super) machine: usize,
    pub(super) unit: usize,
    pub(super) deed: Deed,
    /// What it is set up with before that.
    pub(super) with: Option<Parameters>,
    /// When the shell gives it up.
    pub(super) until: Timestamp,
}

/// An operation of an infrastructure.
#[derive(Clone, Debug)]
pub(super) struct Operate {
    pub(super) life: u32,
    pub(super) member: usize,
    pub(super) action: ActionId,
    pub(super) machine: usize,
    pub(super) operation: Operation,
    /// When the shell gives it up.
    pub(super) until: Timestamp,
    pub(super) fate: Option<Fate>,
    /// A person confirmed that the old instance is down.
    pub(super) fenced: bool,
    /// The zone that it is made in, if it is one that its definition does not say.
    pub(super) zone: Option<Name>,
    /// It is the first step of what makes a new instance, and is answered by itself.
    pub(super) fences: bool,
    /// Once it is verified off it is started: a restart of the deployable.
    pub(super) then_starts: bool,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    items: BTreeMap<(Timestamp, u64), Item>,
    pushed: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: Timestamp, item: Item) {
        self.pushed += 1;
        self.items.insert((at, self.pushed), item);
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.items.first_key_value().map(|((at, _), _)| *at)
    }

    /// The actions that are still to take effect, whoever waits for them.
    pub(super) fn deeds(&self) -> BTreeSet<(usize, ActionId)> {
        let of = |item: &Item| match item {
            Item::OnUnit(it) => Some((it.member, it.action)),
            Item::Operate(it) => Some((it.member, it.action)),
            _ => None,
        };
        self.items.values().filter_map(of).collect()
    }

    pub(super) fn pop(&mut self) -> Option<Item> {
        self.items.pop_first().map(|(_, item)| item)
    }
}
