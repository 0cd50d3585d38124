//! Who is healthy, who left health within the window, and in which failure domains: what a hold is decided from (`breaker.rs`).
//! Kept as counts, so that one change costs no walk over the fleet.

use std::collections::BTreeMap;
use std::time::Duration;

use cpe_proto::id::{AssemblyIndex, Name};
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

/// An assembly of the fleet.
pub(super) type Key = (Name, AssemblyIndex);

/// An assembly's health, as far as common causes are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthClass {
    /// Fresh probes pass.
    Healthy,
    /// It is not what it was: unreachable, failed, held.
    Left,
    /// Not counted: exhausted, stopped, misconfigured, in maintenance.
    Excluded,
}

impl HealthClass {
    /// The class of an assembly's state; none where nothing is concluded yet, and the class before stays: a first failure, a recovery
    /// under way, void evidence. A misconfiguration is no failure (policy.md section 3).
    #[must_use]
    pub const fn of(state: State, maintenance: bool) -> Option<Self> {
        if maintenance {
            return Some(Self::Excluded);
        }
        match state {
            State::Healthy => Some(Self::Healthy),
            State::Unreachable | State::Failed | State::Held | State::InTransition => Some(Self::Left),
            State::Exhausted | State::Stopped | State::Misconfigured => Some(Self::Excluded),
            State::Starting | State::Suspected | State::Unknown | State::Degraded | State::Recovering => None,
        }
    }
}

#[derive(Debug)]
struct Member {
    domains: Box<[Name]>,
    class: HealthClass,
}

/// One that left health.
#[derive(Clone, Copy, Debug)]
struct Loss {
    at: Timestamp,
    back: bool,
}

/// The counts of one domain, or of the fleet.
#[derive(Debug, Default)]
pub(super) struct Tally {
    members: usize,
    healthy: usize,
    losses: BTreeMap<Key, Loss>,
}

/// So many of so many left health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) left: usize,
    pub(super) of: usize,
}

impl Share {
    pub(super) const fn reaches(self, count: usize, percent: usize) -> bool {
        self.left >= count && self.left * 100 >= percent * self.of
    }
}

impl Tally {
    /// Over what was healthy in the window, also if only since its middle: what is healthy for a minute and leaves did leave. What is
    /// back is no loss: single faults that were repaired one after another have no common cause.
    fn share(&self) -> Share {
        let left = self.down().count();
        Share { left, of: self.healthy + left }
    }

    fn down(&self) -> impl Iterator<Item = &Key> {
        self.losses.iter().filter(|(_, loss)| !loss.back).map(|(key, _)| key)
    }

    fn forget_before(&mut self, start: Timestamp) {
        self.losses.retain(|_, loss| loss.at > start);
    }

    fn step(
        &mut self,
        key: &Key,
        before: Option<HealthClass>,
        after: HealthClass,
        lost: bool,
        now: Timestamp,
    ) {
        use HealthClass as H;
        self.members += usize::from(before.is_none());
        self.healthy += usize::from(after == H::Healthy && before != Some(H::Healthy));
        self.healthy -= usize::from(before == Some(H::Healthy) && after != H::Healthy);
        match after {
            H::Healthy => {
                if let Some(loss) = self.losses.get_mut(key) {
                    loss.back = true;
                }
            }
            H::Left if lost => {
                self.losses.insert(key.clone(), Loss { at: now, back: false });
            }
            H::Left => {}
            H::Excluded => {
                self.losses.remove(key);
            }
        }
    }

    fn remove(&mut self, key: &Key, class: HealthClass) {
        self.members = self.members.saturating_sub(1);
        self.healthy -= usize::from(class == HealthClass::Healthy);
        self.losses.remove(key);
    }
}

/// The whole fleet.
#[derive(Debug, Default)]
pub(super) struct Population {
    /// The first thing it was told.
    began: Option<Timestamp>,
    members: BTreeMap<Key, Member>,
    domains: BTreeMap<Name, Tally>,
    fleet: Tally,
    /// Who is down is not what it was.
    changed: bool,
}

impl Population {
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Who is down, in which domains, and since when.
    pub(super) fn losses(&self) -> impl Iterator<Item = (&Key, &[Name], Timestamp)> {
        // A domain that is held remembers longer than the fleet's window.
        let tallies = self.domains.values().chain([&self.fleet]);
        let down = tallies.flat_map(|tally| tally.losses.iter()).filter(|(_, loss)| !loss.back);
        let down: BTreeMap<&Key, Timestamp> = down.map(|(key, loss)| (key, loss.at)).collect();
        down.into_iter().map(|(key, at)| (key, self.domains_of(key), at))
    }

    /// One that an earlier process saw leaving health.
    pub(super) fn lost_before(&mut self, key: &Key, domains: &[Name], at: Timestamp) {
        let class = HealthClass::Left;
        self.members.insert(key.clone(), Member { domains: domains.into(), class });
        self.fleet.step(key, None, class, true, at);
        for domain in domains {
            self.domains.entry(domain.clone()).or_default().step(key, None, class, true, at);
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.members.keys()
    }

    /// Takes a change; true: that assembly left health just now.
    ///
    /// What is first seen down within a window of our own start counts as having left: what was before that is not known, and a
    /// controller that restarts in the middle of an outage must not take it for quiet.
    pub(super) fn health(
        &mut self,
        key: &Key,
        domains: &[Name],
        class: HealthClass,
        window: Duration,
        now: Timestamp,
    ) -> bool {
        let began = *self.began.get_or_insert(now);
        if self.members.get(key).is_some_and(|member| *member.domains != *domains) {
            self.forget(key);
        }
        let before = self.members.get(key).map(|member| member.class);
        if before == Some(class) {
            return false;
        }
        let lost = class == HealthClass::Left
            && match before {
                Some(before) => before == HealthClass::Healthy,
                None => now.since(began) < window,
            };
        self.changed |= lost || before == Some(HealthClass::Left);
        self.members.insert(key.clone(), Member { domains: domains.into(), class });
        self.fleet.step(key, before, class, lost, now);
        for domain in domains {
            self.domains.entry(domain.clone()).or_default().step(key, before, class, lost, now);
        }
        lost
    }

    pub(super) fn domains_of(&self, key: &Key) -> &[Name] {
        self.members.get(key).map_or(&[], |member| &member.domains)
    }

    pub(super) fn forget(&mut self, key: &Key) {
        let Some(member) = self.members.remove(key) else { return };
        self.changed = true;
        self.fleet.remove(key, member.class);
        for domain in &member.domains {
            let Some(tally) = self.domains.get_mut(domain) else { continue };
            tally.remove(key, member.class);
            if tally.members == 0 {
                self.domains.remove(domain);
            }
        }
    }

    /// Of a domain: each with its class.
    pub(super) fn of_domain(&self, domain: &Name) -> impl Iterator<Item = (&Key, HealthClass)> {
        let inside = |(_, member): &(&Key, &Member)| member.domains.contains(domain);
        self.members.iter().filter(inside).map(|(key, member)| (key, member.class))
    }

    pub(super) fn of_deployable(&self, deployable: &Name) -> Vec<Key> {
        let (first, last) = (AssemblyIndex(0), AssemblyIndex(u16::MAX));
        let range = (deployable.clone(), first)..=(deployable.clone(), last);
        self.members.range(range).map(|(key, _)| key.clone()).collect()
    }

    /// Of a domain, since the window began.
    pub(super) fn share_of(&mut self, domain: &Name, start: Timestamp) -> Share {
        let Some(tally) = self.domains.get_mut(domain) else { return Share { left: 0, of: 0 } };
        tally.forget_before(start);
        tally.share()
    }

    /// Of the fleet, since the window began, and who left.
    pub(super) fn share_of_fleet(&mut self, start: Timestamp) -> (Share, Vec<Key>) {
        self.fleet.forget_before(start);
        (self.fleet.share(), self.fleet.down().cloned().collect())
    }

    /// How many of those that left are not back.
    pub(super) fn down(&self, domain: Option<&Name>) -> usize {
        let tally = domain.map_or(Some(&self.fleet), |domain| self.domains.get(domain));
        tally.map_or(0, |tally| tally.down().count())
    }

    /// A hold is over: what it was for counts for no other.
    pub(super) fn settle(&mut self, domain: Option<&Name>) {
        let Some(domain) = domain else {
            self.fleet.losses.clear();
            for tally in self.domains.values_mut() {
                tally.losses.retain(|_, loss| !loss.back);
            }
            return;
        };
        let Some(tally) = self.domains.get_mut(domain) else { return };
        for key in std::mem::take(&mut tally.losses).into_keys() {
            self.fleet.losses.remove(&key);
        }
    }
}
