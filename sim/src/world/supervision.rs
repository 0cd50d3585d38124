//! An engine's panic, as `cpe/src/supervise.rs` contains it: what it had begun is waited for, then a new engine goes on from the last snapshot.
//! The third panic within a minute parks the deployable, loudly, until a person retries it or its definition changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::definition::Deployable;
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::time::Timestamp;

use super::driver::Member;
use super::queue::Item;
use super::{What, World};

/// As in cpe: so many panics ...
const PANICS_MAX: usize = 3;
/// ... within this are no accident.
const WITHIN: Duration = Duration::from_secs(60);

/// What is left of a member whose engine panicked.
#[derive(Debug)]
pub(super) struct Fallen {
    /// What it had begun goes on by this.
    pub(super) wreck: Member,
    /// Its open incidents, as they were told.
    open: BTreeSet<IncidentId>,
    parked: bool,
    /// All that it had begun has ended.
    settled: bool,
}

impl World {
    /// A member that runs, or what is left of it.
    pub(super) fn body(&self, member: usize) -> Option<&Member> {
        self.member(member).or_else(|| self.process.fallen.get(&member).map(|it| &it.wreck))
    }

    pub(super) fn body_mut(&mut self, member: usize) -> Option<&mut Member> {
        let process = &mut self.process;
        let runs = process.members.get_mut(member).and_then(Option::as_mut);
        runs.or_else(|| process.fallen.get_mut(&member).map(|it| &mut it.wreck))
    }

    /// The engine of a deployable is to panic, at what it is told after so many more things.
    pub(super) fn will_panic(&mut self, name: &Name, after: u32) {
        let Some(member) = self.files.iter().position(|(known, _)| known == name) else { return };
        match self.member_mut(member) {
            Some(it) if after > 0 => it.panics_after = Some(after),
            Some(_) => self.panics(member),
            None => {}
        }
    }

    pub(super) fn panics(&mut self, member: usize) {
        let Some(wreck) = self.process.members.get_mut(member).and_then(Option::take) else { return };
        let (name, now) = (self.files[member].0.clone(), self.now);
        let times = self.process.panics.entry(member).or_default();
        times.retain(|at| now.since(*at) < WITHIN);
        times.push(now);
        let parked = times.len() >= PANICS_MAX;
        self.coverage.count("panic", if parked { "parked" } else { "goes on from its snapshot" });
        if !wreck.acting.is_empty() {
            self.coverage.count("panic", "an action was in flight");
        }
        let looks_until = wreck.looks_until;
        self.truth.interrupted(member, &wreck.acting);
        let open = self.journal.open_of(&name);
        self.process.fallen.insert(member, Fallen { wreck, open, parked, settled: false });
        self.supervisor(
            member,
            "the policy engine panicked: nothing is probed or recovered there until it goes on",
        );
        let message = if parked {
            let reason = format!(
                "parked: its policy engine panicked again and again; `cpe retry {name}` starts it anew"
            );
            self.supervisor(member, &reason);
            reason
        } else {
            "its policy engine panicked and goes on from its last snapshot; please report it".to_owned()
        };
        self.notify(&name, None, message.into());
        let life = self.process.life;
        self.queue.push(looks_until.max(now), Item::GoOn { life, member });
    }

    fn supervisor(&mut self, member: usize, reason: &str) {
        let event = Event::new(EventKind::BreakerChanged, reason, self.boot_time());
        self.report(member, event);
    }

    /// An action has ended that a fallen engine had begun.
    pub(super) fn acted_for_fallen(&mut self, member: usize, action: ActionId) {
        let Some(it) = self.body_mut(member) else { return };
        it.acting.remove(&action);
        if self.process.fallen.contains_key(&member) {
            self.go_on(self.process.life, member);
        }
    }

    /// If everything that the engine had begun has ended, the next one goes on, or nobody.
    pub(super) fn go_on(&mut self, life: u32, member: usize) {
        if life != self.process.life {
            return;
        }
        if self.process.stands_still(self.now) {
            return self.queue.push(self.process.still_until, Item::GoOn { life, member });
        }
        let now = self.now;
        let Some(it) = self.process.fallen.get_mut(&member) else { return };
        if it.settled || !it.wreck.acting.is_empty() || now < it.wreck.looks_until {
            return;
        }
        it.settled = true;
        let parked = it.parked;
        let name = self.files[member].0.clone();
        let carried = self.journal.snapshot_of(&name).map(|(_, it)| it.carried_on().0);
        let carried = carried.unwrap_or_default();
        let at = self.boot_time();
        self.process.guard.revoke(&name, |action| carried.contains(&action), at);
        self.truth.engine_ended(member, &carried, parked);
        if parked {
            self.process.guard.part(&name);
            if !carried.is_empty() {
                self.coverage.count("lease", "its engine is parked meanwhile");
            }
            return;
        }
        self.supervisor(member, "its policy engine goes on from its last snapshot");
        self.rise(member);
    }

    fn rise(&mut self, member: usize) {
        let Some(fallen) = self.process.fallen.remove(&member) else { return };
        let Some(definition) = self.files[member].1.clone() else { return };
        let name = &definition.name;
        self.truth.windows.begins_anew(name, self.now);
        let taken_up = self.journal.snapshot_of(name).map(|(at, it)| (self.now.since(at), it.clone()));
        let known = taken_up.as_ref().map(|(_, it)| it.carried_on().1).unwrap_or_default();
        for incident in fallen.open.difference(&known).copied().collect::<Vec<_>>() {
            let event =
                Event::new(EventKind::IncidentClosed, "the engine was started anew", self.boot_time());
            self.report(member, Event { incident: Some(incident), ..event });
        }
        self.engage(member, &definition, taken_up.as_ref());
    }

    /// A person retries a parked deployable, or its definition changes. False: it is not parked.
    pub(super) fn unpark(&mut self, member: usize) -> bool {
        if !self.process.fallen.get(&member).is_some_and(|it| it.parked && it.settled) {
            return false;
        }
        self.coverage.count("panic", "started again");
        self.process.panics.remove(&member);
        self.supervisor(member, "its policy engine is started again from its last snapshot");
        self.rise(member);
        true
    }

    /// The definition of a deployable whose engine panicked is removed.
    pub(super) fn bury(&mut self, member: usize) {
        let Some(fallen) = self.process.fallen.remove(&member) else { return };
        for incident in fallen.open {
            let event = Event::new(EventKind::IncidentClosed, "managed no more", self.boot_time());
            self.report(member, Event { incident: Some(incident), ..event });
        }
    }

    /// The deployables that nobody watches, because their engines panicked, and whether a person was told.
    pub(super) fn unwatched(&self) -> impl Iterator<Item = (&Arc<Deployable>, bool)> {
        let told = |name: &Name| {
            self.transcript.iter().any(|entry| {
                matches!(&entry.what, What::Told(of, None, message) if of == name && message.contains("panicked"))
            })
        };
        let fallen = self.process.fallen.keys().filter_map(|member| self.files[*member].1.as_ref());
        fallen.map(move |definition| (definition, told(&definition.name)))
    }
}

/// Engine time, which begins anew with each boot of the management node; the world's does not.
impl World {
    /// Engine time now.
    pub(super) fn boot_time(&self) -> Timestamp {
        Timestamp::from_boot(self.now.since(self.booted))
    }

    /// When that point of engine time is in the world.
    pub(super) fn world_time(&self, at: Timestamp) -> Timestamp {
        self.booted.after(at.since_boot())
    }

    /// The management node goes down with everything on it; its clock since the boot begins anew, its wall clock goes on.
    pub(super) fn node_reboots(&mut self, down: Duration) {
        self.crash(down);
        // cpe is started late in the boot.
        self.booted = self.now.after(down.mul_f64(0.8));
    }
}
