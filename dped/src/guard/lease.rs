//! What was granted and not given back. There are never more leases than the fleet's budget, so they are counted by looking at each.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cpe_proto::id::{ActionId, AssemblyIndex, Name};
use cpe_proto::time::Timestamp;

/// One admitted action.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) assembly: AssemblyIndex,
    pub(super) infrastructure: Option<Name>,
    pub(super) domains: Box<[Name]>,
    pub(super) until: Timestamp,
    /// What nobody saw end by then is given up.
    pub(super) give_up: Timestamp,
    /// No engine carries it on: it ends when the action is seen to end, or given up.
    pub(super) astray: bool,
}

/// When one ends that nobody gives back: not before twice the time in which its action is given up.
pub(super) fn ends(lease: Duration, give_up: Duration, now: Timestamp) -> Timestamp {
    now.after(lease.max(give_up * 2))
}

/// What becomes of a lease over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// An engine goes on with the action, and gives the lease back.
    On,
    /// No engine knows of the action, and nobody saw it end.
    Unseen,
    /// The action has ended, or was never begun.
    Not,
}

impl Lease {
    fn goes_astray(&mut self) {
        self.astray = true;
        self.until = self.until.min(self.give_up);
    }
}

/// All of them, and when machine rungs were granted.
#[derive(Debug, Default)]
pub(super) struct Leases {
    pub(super) granted: BTreeMap<(Name, ActionId), Lease>,
    pub(super) machine_rungs: BTreeMap<Name, VecDeque<Timestamp>>,
}

impl Leases {
    /// True: a lease has expired.
    pub(super) fn expire(&mut self, now: Timestamp, within: Duration) -> bool {
        let before = self.granted.len();
        self.granted.retain(|_, lease| now < lease.until);
        for times in self.machine_rungs.values_mut() {
            while times.front().is_some_and(|at| now.since(*at) >= within) {
                times.pop_front();
            }
        }
        self.machine_rungs.retain(|_, times| !times.is_empty());
        self.granted.len() < before
    }

    pub(super) fn add(&mut self, key: &Name, action: ActionId, lease: Lease) {
        self.granted.insert((key.clone(), action), lease);
    }

    /// True: it is one of these.
    pub(super) fn begin(
        &mut self,
        key: &Name,
        action: ActionId,
        (lease, give_up): (Duration, Duration),
        now: Timestamp,
    ) -> bool {
        let Some(granted) = self.granted.get_mut(&(key.clone(), action)) else { return false };
        granted.until = granted.until.max(ends(lease, give_up, now));
        granted.give_up = now.after(give_up);
        true
    }

    /// True: it was there.
    pub(super) fn remove(&mut self, key: &Name, action: ActionId) -> bool {
        self.granted.remove(&(key.clone(), action)).is_some()
    }

    /// After a restart. What went astray before is still looked out for.
    pub(super) fn carry_on(&mut self, carried: impl Fn(&Name, ActionId) -> Carried, at_least: Timestamp) {
        self.granted.retain(|(name, action), lease| {
            match carried(name, *action) {
                Carried::On => lease.until = lease.until.max(at_least),
                Carried::Not if !lease.astray => return false,
                Carried::Unseen | Carried::Not => lease.goes_astray(),
            }
            true
        });
    }

    /// Those of a deployable that nobody carries on.
    pub(super) fn go_astray(&mut self, key: &Name) {
        let own = self.granted.iter_mut().filter(|((name, _), _)| name == key);
        own.for_each(|(_, lease)| lease.goes_astray());
    }

    /// Whether something is in flight there.
    pub(super) fn touch(&self, (key, assembly): &(Name, AssemblyIndex)) -> bool {
        self.granted.iter().any(|((name, _), lease)| name == key && lease.assembly == *assembly)
    }

    /// Those that an engine is to give back.
    pub(super) fn of(&self, key: &Name) -> Vec<ActionId> {
        let own = self.granted.iter().filter(|((name, _), lease)| name == key && !lease.astray);
        own.map(|((_, action), _)| *action).collect()
    }

    pub(super) fn holds(&self, key: &Name, action: ActionId) -> bool {
        self.granted.contains_key(&(key.clone(), action))
    }

    pub(super) fn note_machine_rung(&mut self, infrastructure: &Name, now: Timestamp) {
        self.machine_rungs.entry(infrastructure.clone()).or_default().push_back(now);
    }

    pub(super) fn len(&self) -> usize {
        self.granted.len()
    }

    /// Of one deployable, without those of one assembly.
    pub(super) fn of_deployable(&self, key: &Name, without: Option<AssemblyIndex>) -> usize {
        let own = self.granted.iter().filter(|((name, _), _)| name == key);
        own.filter(|(_, lease)| lease.astray || Some(lease.assembly) != without).count()
    }

    pub(super) fn of_domain(&self, domain: &Name) -> usize {
        self.granted.values().filter(|lease| lease.domains.contains(domain)).count()
    }

    pub(super) fn of_infrastructure(&self, name: &Name) -> usize {
        self.granted.values().filter(|lease| lease.infrastructure.as_ref() == Some(name)).count()
    }

    /// The one after which fewer than that many count, if as many are spent.
    pub(super) fn machine_rung_that_frees(&self, infrastructure: &Name, limit: usize) -> Option<Timestamp> {
        let times = self.machine_rungs.get(infrastructure)?;
        times.get(times.len().checked_sub(limit)?).copied()
    }

    pub(super) fn machine_rungs(&self, infrastructure: &Name) -> usize {
        self.machine_rungs.get(infrastructure).map_or(0, VecDeque::len)
    }
}
