//! Maintenance in a world, ordered by hand and by the windows of definitions, as `cpe/src/windows.rs` and `cpe/src/fleet/maintenance.rs` keep it
//! with the same `cpe_calendar::Schedule`. And its judge, which knows definitions, the wall clock and what persons did, and never asks
//! that schedule: nothing is acted on within a window, nor within the grace after a maintenance.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cpe_calendar::{Begun, Calendar, Occurrence, Place};
use cpe_proto::definition::{Deployable, MaintenanceWindow};
use cpe_proto::id::{AssemblyIndex, Name};
use cpe_proto::time::Timestamp;
use dped::audit::HoldKind;
use dped::{Act, Action, Input, Order};

use super::World;
use super::machine::Unit;
use super::queue::Item;

/// A deployable, or one assembly of it.
type Key = (Name, Option<Name>);

/// How a maintenance ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    ByOrder,
    ItsTime,
}

/// What the judge remembers of windows and of what may excuse an action within one.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// When persons ended a maintenance, by the wall clock.
    ended: BTreeMap<Key, Vec<u64>>,
    /// When a maintenance was over last.
    over: BTreeMap<Key, Timestamp>,
    /// What is in maintenance by a window.
    scheduled: BTreeSet<Key>,
    /// When a definition was last there anew.
    defined: BTreeMap<Name, Timestamp>,
    clock_set: Timestamp,
}

impl Kept {
    /// An engine is made anew: what it makes of a maintenance that ended without it is its own beginning.
    pub(super) fn begins_anew(&mut self, deployable: &Name, now: Timestamp) {
        self.defined.insert(deployable.clone(), now);
    }
}

impl World {
    /// Somebody orders a maintenance.
    pub(super) fn maintain(&mut self, name: &Name, assembly: Option<&Name>, lasts: Duration) {
        if self.find(name, assembly).is_none() {
            return;
        }
        let until = self.journal.wall(self.now) + u64::try_from(lasts.as_millis()).unwrap_or(0);
        self.begin_maintenance((name.clone(), assembly.cloned()), until, "work");
    }

    fn begin_maintenance(&mut self, key: Key, until: u64, reason: &str) {
        let Some((member, assembly)) = self.find(&key.0, key.1.as_ref()) else { return };
        self.journal.hold(HoldKind::Maintenance, place(&key).to_string(), true, self.now);
        self.journal.maintenance.insert(key.clone(), until);
        self.truth.maintained(key);
        self.input(member, Input::Order(Order::Maintenance { assembly, on: true, reason: reason.into() }));
    }

    pub(super) fn maintain_no_more(&mut self, name: &Name, assembly: Option<&Name>, how: Ends) {
        let key = (name.clone(), assembly.cloned());
        let wall = self.journal.wall(self.now);
        self.journal.hold(HoldKind::Maintenance, place(&key).to_string(), false, self.now);
        let until = self.journal.maintenance.remove(&key);
        let was = until.is_some();
        self.process.windows.ended(&place(&key), how == Ends::ByOrder, wall);
        if how == Ends::ByOrder {
            self.journal.maintenance_ended.insert(place(&key), wall);
            // Also the occurrence that is to come again, where the clock was set back.
            let last = until.map(|until| until.saturating_sub(1));
            self.truth.windows.ended.entry(key.clone()).or_default().extend(last.into_iter().chain([wall]));
            if was && self.truth.windows.scheduled.contains(&key) {
                self.coverage.count("window", "ended by a person");
            }
        }
        self.truth.windows.scheduled.remove(&key);
        self.truth.maintained_no_more(&key);
        if was {
            self.truth.windows.over.insert(key, self.now);
        }
        let Some((member, assembly)) = self.find(name, assembly) else { return };
        let reason = if how == Ends::ByOrder { "by order" } else { "its time is over" };
        self.input(member, Input::Order(Order::Maintenance { assembly, on: false, reason: reason.into() }));
    }

    /// Once a second: maintenance whose hour has come is over, and windows begin.
    pub(super) fn end_maintenance(&mut self, life: u32) {
        if life != self.process.life || !self.process.up {
            return;
        }
        self.queue.push(self.now.after(Duration::from_secs(1)), Item::EndMaintenance { life });
        if self.process.stands_still(self.now) {
            return;
        }
        let (wall, writable) = (self.journal.wall(self.now), self.journal.writable(self.now));
        let over = self.journal.maintenance.iter().filter(|(_, until)| writable && **until <= wall);
        for (name, assembly) in over.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.end_overdue(&(name, assembly), wall);
        }
        for begun in self.process.windows.due(wall) {
            let key = (begun.place.deployable.clone(), begun.place.assembly.clone());
            let longer = self.journal.maintenance.get(&key).is_some_and(|until| *until >= begun.until);
            if !longer && writable {
                self.begin_window(&begun);
            }
            self.process.windows.done(&begun, longer || writable);
        }
        for place in self.process.windows.over(wall).into_iter().filter(|_| writable) {
            let key = (place.deployable.clone(), place.assembly.clone());
            if self.journal.maintenance.contains_key(&key) {
                self.process.windows.ended(&place, false, wall);
            } else {
                self.end_overdue(&key, wall);
            }
        }
    }

    fn end_overdue(&mut self, key: &Key, wall: u64) {
        match self.process.windows.lasts(&place(key), wall) {
            Some(begun) => self.begin_window(&begun),
            None => self.maintain_no_more(&key.0, key.1.as_ref(), Ends::ItsTime),
        }
    }

    fn begin_window(&mut self, begun: &Begun) {
        let key = (begun.place.deployable.clone(), begun.place.assembly.clone());
        let kind = if key.1.is_none() { "of a deployable" } else { "of an assembly" };
        self.coverage.count("window", kind);
        self.coverage.count("fault", "maintenance window");
        if self.find(&key.0, key.1.as_ref()).is_some() {
            self.truth.windows.scheduled.insert(key.clone());
        }
        self.begin_maintenance(key, begun.until, &format!("{} (by its schedule)", begun.reason));
    }

    /// What an engine that begins now knows of windows.
    pub(super) fn windows_known(&mut self, name: &Name) -> Vec<Option<AssemblyIndex>> {
        let known = self.process.windows.now(name, self.journal.wall(self.now));
        if !known.is_empty() {
            self.coverage.count("window", "known to an engine from its start");
        }
        known
    }

    // ---- the judge

    /// Something that may excuse an action within a window has happened.
    pub(super) fn note_clock_set(&mut self) {
        self.truth.windows.clock_set = self.now;
        if !self.truth.windows.scheduled.is_empty() {
            self.coverage.count("window", "the clock is set within one");
        }
    }

    pub(super) fn note_defined(&mut self, before: Option<&Deployable>, definition: Option<&Deployable>) {
        let Some(name) = before.or(definition).map(|it| it.name.clone()) else { return };
        self.truth.windows.defined.insert(name, self.now);
        let wall = self.journal.wall(self.now);
        let within = |it: Option<&Deployable>| it.is_some_and(|it| windows(it, wall).next().is_some());
        match (within(before), within(definition)) {
            (true, false) => self.coverage.count("window", "removed within it by a reload"),
            (false, true) => self.coverage.count("window", "added within it by a reload"),
            _ => {}
        }
    }

    /// Nothing is acted on within a window that cpe could know of, and nothing within the grace after a maintenance.
    pub(super) fn judge_windows(
        &self,
        definition: &Deployable,
        action: &Action,
        by_hand: bool,
        wrong: &mut Vec<String>,
    ) {
        let kept = &self.truth.windows;
        let (now, wall) = (self.now, self.journal.wall(self.now));
        let defined = kept.defined.get(&definition.name).copied().unwrap_or_default();
        // cpe looks once a second, where it can look and write down what it sees.
        let known = [defined, kept.clock_set, self.process.still_until, self.journal.unwritable_until];
        let knows = known.into_iter().all(|at| now > at.after(self.slack()));
        for (window, occurrence) in windows(definition, wall).filter(|_| knows) {
            let long = occurrence.from + u64::try_from(self.slack().as_millis()).unwrap_or(0) < wall;
            let mut keys = keys_of(definition, window);
            let is_of = keys.any(|key| {
                let by_person = kept.ended.get(&key).into_iter().flatten();
                let ended = by_person.into_iter().any(|at| (occurrence.from..occurrence.to).contains(at));
                !ended && is_in(definition, action.assembly, &key)
            });
            if long && is_of {
                wrong.push(format!("within a maintenance window that began at {}", occurrence.from));
            }
        }
        let last =
            kept.over.iter().filter(|(key, _)| is_in(definition, action.assembly, key)).max_by_key(|it| it.1);
        if let Some((key, at)) = last.filter(|(_, at)| **at > defined && **at > self.process.began) {
            let grace = definition.assembly(action.assembly).probe.startup_grace;
            if !by_hand && now.since(*at) < grace && self.ill_since(definition, action, *at) {
                let since = now.since(*at).as_secs_f64();
                wrong.push(format!("{since:.1} s after the maintenance of {} was over", place(key)));
            }
        }
    }

    /// Whether nothing that this is done for can have been seen to be well since then.
    fn ill_since(&self, definition: &Deployable, action: &Action, at: Timestamp) -> bool {
        let name = (definition.name.clone(), definition.assembly(action.assembly).name.clone());
        let Some(machine) = self.places.get(&name).map(|place| &self.machines[*place]) else { return false };
        let slow = machine.slow.is_some_and(|(_, until)| until > at);
        let ill = |unit: &Unit| {
            let shown = slow
                || unit.lie.is_some_and(|(_, until)| until > at)
                || unit.flaps.is_some_and(|(_, until)| until > at)
                || unit.slow.is_some_and(|(_, until)| until > at);
            unit.well_since.is_none() && unit.fell.is_some_and(|fell| fell.at <= at) && !shown
        };
        match action.act {
            Act::RestartService(service) => {
                let name = &definition.service(service).name;
                machine.units.iter().any(|unit| unit.name == *name && ill(unit))
            }
            Act::Machine(_) | Act::Fence(_) => {
                let ill_machine =
                    machine.well_since.is_none() && machine.fell.is_some_and(|fell| fell.at <= at);
                ill_machine && machine.units.iter().all(ill)
            }
            Act::StartService(_) | Act::StopService(_) | Act::Reconfigure(_) | Act::Power(_) => false,
        }
    }

    /// How long until the last window is over that lasts or begins within that time.
    pub(super) fn windows_last(&self, within: Duration) -> Duration {
        let wall = self.journal.wall(self.now);
        let end = wall + u64::try_from(within.as_millis()).unwrap_or(0);
        let definitions = self.files.iter().filter_map(|(_, it)| it.as_deref());
        let calendars = definitions.flat_map(|it| &it.maintenance);
        let calendars = calendars.filter_map(|window| Calendar::of(window, wall).ok());
        let next = calendars.filter_map(|it| it.after(wall).next()).filter(|it| it.from < end);
        Duration::from_millis(next.map(|it| it.to - wall).max().unwrap_or(0))
    }
}

fn place((deployable, assembly): &Key) -> Place {
    Place { deployable: deployable.clone(), assembly: assembly.clone() }
}

/// The windows that last then.
fn windows(definition: &Deployable, wall: u64) -> impl Iterator<Item = (&MaintenanceWindow, Occurrence)> {
    let all = definition.maintenance.iter();
    all.filter_map(move |window| Some((window, Calendar::of(window, wall).ok()?.at(wall)?)))
}

fn keys_of<'a>(definition: &'a Deployable, window: &'a MaintenanceWindow) -> impl Iterator<Item = Key> + 'a {
    let whole = window.assemblies.is_empty().then_some(None);
    let some = window.assemblies.iter().map(|index| Some(definition.assembly(*index).name.clone()));
    whole.into_iter().chain(some).map(|assembly| (definition.name.clone(), assembly))
}

fn is_in(definition: &Deployable, assembly: AssemblyIndex, (name, part): &Key) -> bool {
    let own = &definition.assembly(assembly).name;
    definition.name == *name && part.as_ref().is_none_or(|part| part == own)
}
