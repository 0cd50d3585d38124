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

    /// True: it was there.
    pub(super) fn remove(&mut self, key: &Name, action: ActionId) -> bool {
        self.granted.remove(&(key.clone(), action)).is_some()
    }

    pub(super) fn retain(&mut self, keeps: impl Fn(&Name, ActionId, &Lease) -> bool) {
        self.granted.retain(|(name, action), lease| keeps(name, *action, lease));
    }

    /// Whether something is in flight there.
    pub(super) fn touch(&self, (key, assembly): &(Name, AssemblyIndex)) -> bool {
        self.granted.iter().any(|((name, _), lease)| name == key && lease.assembly == *assembly)
    }

    pub(super) fn of(&self, key: &Name) -> Vec<ActionId> {
        self.granted.keys().filter(|(name, _)| name == key).map(|(_, action)| *action).collect()
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
        own.filter(|(_, lease)| Some(lease.assembly) != without).count()
    }

    pub(super) fn of_domain(&self, domain: &Name) -> usize {
        self.granted.values().filter(|lease| lease.domains.contains(domain)).count()
    }

    pub(super) fn of_infrastructure(&self, name: &Name) -> usize {
        self.granted.values().filter(|lease| lease.infrastructure.as_ref() == Some(name)).count()
    }

    /// The oldest that counts, if as many as that are spent.
    pub(super) fn oldest_machine_rung(&self, infrastructure: &Name, limit: usize) -> Option<Timestamp> {
        let times = self.machine_rungs.get(infrastructure).filter(|times| times.len() >= limit)?;
        times.front().copied()
    }

    pub(super) fn machine_rungs(&self, infrastructure: &Name) -> usize {
        self.machine_rungs.get(infrastructure).map_or(0, VecDeque::len)
    }
}
