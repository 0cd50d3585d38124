//! The life of the cpe process: how it starts from what its journal has, how it ends without warning, how it stands still, and the orders
//! and definitions that reach it. As `cpe/src/fleet.rs`, `past.rs`, `pauses.rs` and `canary.rs` do it for the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cpe_calendar::Schedule;
use cpe_proto::definition::Deployable;
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{ActionId, AssemblyIndex, Name};
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::Snapshot;
use cpe_proto::time::Timestamp;
use dped::audit::HoldKind;
use dped::guard::DEFAULT_PATH;
use dped::{
    ByHand, Carried, Desired, Engine, Guard, GuardOutput, GuardSettings, Input, Notices, Order, Seed,
};

use super::driver::Member;
use super::happening::{Operator, Place};
use super::journal::{Record, Written};
use super::queue::Item;
use super::supervision::Fallen;
use super::windows::Ends;
use super::{What, World};

/// As in cpe: between two ticks of the guard, and between two looks at one canary.
const TICK: Duration = Duration::from_millis(500);
const CANARY_EVERY: Duration = Duration::from_secs(2);

/// cpe's default `lag_budget`.
pub(super) const LAG_BUDGET: Duration = Duration::from_millis(250);

/// The process.
#[derive(Debug)]
pub(super) struct Process {
    /// Each process has another number; what is on its way to an earlier one is nothing to a later one.
    pub(super) life: u32,
    pub(super) began: Timestamp,
    pub(super) up: bool,
    pub(super) guard: Guard,
    pub(super) notices: Notices,
    /// By the place of the deployable's file.
    pub(super) members: Vec<Option<Member>>,
    /// Those whose engines panicked, and when each did of late.
    pub(super) fallen: BTreeMap<usize, Fallen>,
    pub(super) panics: BTreeMap<usize, Vec<Timestamp>>,
    /// Actions under way whose engine is gone with its definition.
    pub(super) orphans: BTreeSet<(usize, ActionId)>,
    /// It stands still until then.
    pub(super) still_until: Timestamp,
    /// It is late by so much until then.
    pub(super) lag: Option<(Duration, Timestamp)>,
    /// When it was last late above its budget.
    pub(super) late_at: Option<Timestamp>,
    /// It ends after so many more outputs, and is down for so long.
    pub(super) dies: Option<(u32, Duration)>,
    pub(super) windows: Schedule,
}

impl Process {
    pub(super) fn down() -> Self {
        Self {
            life: 0,
            began: Timestamp::ZERO,
            up: false,
            guard: Guard::new(GuardSettings::default()),
            notices: Notices::default(),
            members: Vec::new(),
            fallen: BTreeMap::new(),
            panics: BTreeMap::new(),
            orphans: BTreeSet::new(),
            still_until: Timestamp::ZERO,
            lag: None,
            late_at: None,
            dies: None,
            windows: Schedule::default(),
        }
    }

    pub(super) fn lag_at(&self, now: Timestamp) -> Duration {
        self.lag.filter(|(_, until)| now < *until).map_or(Duration::ZERO, |(lag, _)| lag)
    }

    pub(super) fn stands_still(&self, now: Timestamp) -> bool {
        now < self.still_until
    }

    /// Something that was due at one time is begun at another.
    pub(super) fn observe_lag(&mut self, due: Timestamp, now: Timestamp) {
        if now.since(due) > LAG_BUDGET {
            self.late_at = Some(now);
        }
    }

    pub(super) fn late_since(&self, since: Timestamp) -> bool {
        self.late_at.is_some_and(|at| at >= since)
    }
}

impl World {
    /// cpe is started, and takes up what its journal has.
    pub(super) fn start(&mut self) {
        let life = self.process.life + 1;
        self.process = Process { life, began: self.now, up: true, ..Process::down() };
        self.process.members.resize_with(self.files.len(), || None);
        self.process.notices = self.notices();
        self.process.windows = Schedule::new(self.journal.maintenance_ended.clone());
        let (now, at) = (self.now, self.boot_time());
        let carried = self.carried_on();
        if let Some((written, snapshot)) = &self.journal.guard {
            let elapsed = self.elapsed(*written);
            let mut guard = Guard::restore(GuardSettings::default(), snapshot, elapsed, at);
            let carried_on = |name: &Name, action| {
                let member = self.files.iter().position(|(known, _)| known == name);
                if member.is_some_and(|member| carried.contains(&(member, action))) {
                    Carried::On
                } else if self.journal.is_unresolved(name, action) {
                    Carried::Unseen
                } else {
                    Carried::Not
                }
            };
            guard.retain_leases(carried_on, at);
            if carried.iter().any(|(member, _)| self.files[*member].1.is_none()) {
                self.coverage.count("lease", "its definition was removed while cpe was down");
            }
            self.process.guard = guard;
        }
        let guard = &mut self.process.guard;
        guard.expect_canaries(DEFAULT_PATH, self.canaries);
        for (domain, infrastructure) in &self.shared_points {
            guard.shared_point(domain.clone(), infrastructure.clone());
        }
        guard.set_journal_writable(self.journal.writable(now));
        guard.set_paused(self.journal.pauses.contains(&None));
        self.queue.push(now, Item::Tick { life, due: now });
        for index in 0..self.canaries {
            self.queue.push(now, Item::Canary { life, index });
        }
        self.queue.push(now.after(Duration::from_secs(1)), Item::EndMaintenance { life });
        for member in 0..self.files.len() {
            if let Some(definition) = self.files[member].1.clone() {
                self.add(member, &definition);
            }
        }
        let files: Vec<_> = self.files.iter().filter_map(|(_, it)| it.clone()).collect();
        self.process.guard.retain(|name, index| {
            let of = files.iter().find(|it| it.name == *name);
            of.is_some_and(|it| usize::from(index.0) < it.assemblies.len())
        });
    }

    /// The process ends without warning. What it had begun goes on in the world; nobody waits for it.
    pub(super) fn crash(&mut self, down: Duration) {
        if !self.process.up {
            return;
        }
        self.process.up = false;
        self.process.life += 1;
        self.process.members.clear();
        self.process.fallen.clear();
        self.journal.lose(self.now);
        let carried = self.carried_on();
        self.truth.process_ended(&carried, &self.queue.deeds());
        self.queue.push(self.now.after(down), Item::Start);
        self.say(What::Happened("cpe is dead".to_owned()));
    }

    /// The engine of a deployable is started, as the journal knows it.
    fn add(&mut self, member: usize, definition: &Arc<Deployable>) {
        let (name, now, at) = (definition.name.clone(), self.now, self.boot_time());
        let (ended, closed) = self.journal.settle(&name, now);
        for intent in ended {
            self.report(
                member,
                Event {
                    assembly: Some(intent.assembly),
                    service: intent.service,
                    incident: intent.incident,
                    action: Some(intent.action),
                    rung: intent.rung,
                    ..Event::new(EventKind::RecoveryFinished, "not known: cpe ended before it was told", at)
                },
            );
        }
        for incident in closed {
            let event = Event::new(EventKind::IncidentClosed, "cpe was started anew", at);
            self.report(member, Event { incident: Some(incident), ..event });
        }
        let taken_up = self.journal.snapshots.get(&name);
        let taken_up = taken_up.map(|(written, snapshot)| (self.elapsed(*written), snapshot.clone()));
        self.process.windows.set(definition, self.journal.wall(now));
        self.engage(member, definition, taken_up.as_ref());
        self.say_loaded(member, "loaded");
    }

    /// An engine is started, anew or from what one before it has left so long ago.
    pub(super) fn engage(
        &mut self,
        member: usize,
        definition: &Arc<Deployable>,
        taken_up: Option<&(Duration, Snapshot)>,
    ) {
        let (name, at) = (definition.name.clone(), self.boot_time());
        let seed = self.seed_of(definition);
        let engine = match taken_up {
            Some((elapsed, snapshot)) => {
                Engine::restore(Arc::clone(definition), seed, snapshot, *elapsed, at)
            }
            None => Engine::new(Arc::clone(definition), seed, at),
        };
        let (machines, units) = self.bodies_of(definition);
        self.process.members[member] = Some(Member::new(engine, machines, units));
        let paused = self.journal.pauses.contains(&Some(name));
        if paused || taken_up.is_some() {
            let order = Order::Pause { on: paused, reason: "as ordered before".into() };
            self.input(member, Input::Order(order));
        }
        if self.journal.pauses.contains(&None) {
            self.input(member, Input::Order(Order::FleetPause { on: true }));
        }
        let parts = self.parts_paused(&definition.name);
        if !parts.is_empty() {
            self.input(member, Input::Order(Order::PartsPause { parts, on: true, reason: "".into() }));
        }
        self.carry_out(member);
    }

    /// How old is what was written then, as cpe finds it: a wall clock that was set counts only over a reboot.
    fn elapsed(&self, written: Written) -> Duration {
        if written.at >= self.booted {
            return self.now.since(written.at);
        }
        let wall = self.journal.wall(self.now).saturating_sub(written.wall);
        Duration::from_millis(wall).max(self.boot_time().since_boot())
    }

    pub(super) fn written(&self) -> Written {
        Written { wall: self.journal.wall(self.now), at: self.now }
    }

    fn say_loaded(&mut self, member: usize, reason: &str) {
        let event = Event::new(EventKind::DefinitionLoaded, reason, self.boot_time());
        self.report(member, event);
    }

    fn seed_of(&mut self, definition: &Deployable) -> Seed {
        let name = &definition.name;
        let of = self.journal.maintenance.keys().filter(|(deployable, _)| deployable == name);
        let maintenance = of.filter_map(|(_, assembly)| match assembly {
            None => Some(None),
            Some(assembly) => definition.assembly_named(assembly.as_str()).map(Some),
        });
        let mut maintenance: Vec<_> = maintenance.collect();
        maintenance.extend(self.windows_known(name));
        let (first_action, first_incident) = self.journal.next_numbers(name);
        Seed {
            first_action,
            first_incident,
            random: self.dice.fork(u64::from(self.process.life)).roll(u64::MAX),
            desired: self.journal.desired.get(name).copied().unwrap_or(Desired::Running),
            maintenance,
        }
    }

    // ---- definitions

    pub(super) fn define(&mut self, definition: &Arc<Deployable>) {
        self.settle_machines(definition);
        let known = self.files.iter().position(|(name, _)| *name == definition.name);
        let before = known.and_then(|member| self.files[member].1.clone());
        self.note_defined(before.as_deref(), Some(definition));
        let member = known.unwrap_or(self.files.len());
        match known {
            Some(member) => self.files[member].1 = Some(Arc::clone(definition)),
            None => self.files.push((definition.name.clone(), Some(Arc::clone(definition)))),
        }
        if !self.process.up {
            return;
        }
        self.process.members.resize_with(self.files.len(), || None);
        self.process.windows.set(definition, self.journal.wall(self.now));
        if self.process.fallen.contains_key(&member) {
            // Where one is being restored, the next engine begins with it.
            self.unpark(member);
            return;
        }
        if self.process.members[member].is_none() {
            return self.add(member, definition);
        }
        self.redefine(member, definition);
        // What it has anew is in the maintenance that its name is in.
        let kept: Vec<_> =
            self.journal.maintenance.keys().filter(|(name, _)| *name == definition.name).cloned().collect();
        for (name, assembly) in kept {
            let Some((member, assembly)) = self.find(&name, assembly.as_ref()) else { continue };
            let reason = "it is in maintenance".into();
            self.input(member, Input::Order(Order::Maintenance { assembly, on: true, reason }));
        }
    }

    pub(super) fn remove(&mut self, name: &Name) {
        let Some(member) = self.files.iter().position(|(known, _)| known == name) else { return };
        if let Some(definition) = self.files[member].1.take() {
            self.note_defined(Some(&definition), None);
            self.forget_set_up(&definition);
            self.truth.pace.forget(name);
        }
        if !self.process.up {
            return;
        }
        let gone = self.process.members[member].take();
        self.process.windows.remove(name);
        self.process.guard.part(name);
        let acting = gone.iter().flat_map(|it| it.acting.iter().map(|action| (member, *action)));
        let before = self.process.orphans.len();
        self.process.orphans.extend(acting);
        if self.process.orphans.len() > before {
            self.coverage.count("lease", "its definition is removed meanwhile");
        }
        self.bury(member);
        for incident in gone.map(|it| it.engine.view().incidents).unwrap_or_default() {
            let event = Event::new(EventKind::IncidentClosed, "managed no more", self.boot_time());
            self.report(member, Event { incident: Some(incident), ..event });
        }
        let reason = "removed: managed no more, its machines are left as they are";
        self.report(member, Event::new(EventKind::DefinitionLoaded, reason, self.boot_time()));
        self.forget_snapshot(name.clone());
        self.truth.member_gone(member);
    }

    // ---- orders

    /// What a person orders. Without a journal, and without a process, nothing is ordered.
    pub(super) fn order(&mut self, order: &Operator) {
        if !self.process.up || !self.journal.writable(self.now) {
            return self.say(What::Happened("the order is refused: cpe cannot take it".to_owned()));
        }
        match order {
            Operator::Stop(name) => {
                self.truth.pace.forget(name);
                self.set_desired(name, Desired::Stopped);
            }
            Operator::PowerOff(name) => self.power_off_by_order(name),
            Operator::Start(name) => self.set_desired(name, Desired::Running),
            Operator::Maintenance(name, assembly, lasts) => self.maintain(name, assembly.as_ref(), *lasts),
            Operator::MaintenanceOff(name, assembly) => {
                self.maintain_no_more(name, assembly.as_ref(), Ends::ByOrder);
            }
            Operator::Pause(name) => self.pause(name.as_ref()),
            Operator::Resume(name) => self.resume(name.as_ref()),
            Operator::PausePart(place) => self.pause_part(place, true),
            Operator::ResumePart(place) => self.pause_part(place, false),
            Operator::Retry(name, assembly) => {
                self.truth.once.again(name);
                self.truth.pace.forget(name);
                let Some((member, assembly)) = self.find(name, assembly.as_ref()) else { return };
                if !self.unpark(member) {
                    self.input(member, Input::Order(Order::Retry { assembly }));
                }
            }
            Operator::Ack(name, assembly) => self.acknowledge(name, assembly.as_ref()),
            Operator::Recover(place, rung) => self.recover_by_hand(place, *rung),
            Operator::ConfirmFenced(place) => {
                if let Some((member, Some(assembly))) = self.find(&place.deployable, Some(&place.assembly)) {
                    self.truth.vouched_for(member, assembly, self.now);
                    let order = Order::ConfirmFenced { order: 1, assembly, by: "somebody".into() };
                    self.input(member, Input::Order(order));
                }
            }
        }
    }

    fn recover_by_hand(&mut self, place: &Place, rung: Option<Rung>) {
        let Some((member, Some(assembly))) = self.find(&place.deployable, Some(&place.assembly)) else {
            return;
        };
        let Some(it) = self.member(member) else { return };
        let definition = it.engine.definition();
        let service = place.service.as_ref().map(|name| definition.service_named(assembly, name.as_str()));
        let Some(service) = service.map_or(Some(None), |found| found.map(Some)) else { return };
        let (order, by) = (1, "somebody".into());
        self.truth.ordered_by_hand(member, assembly, self.now);
        self.input(member, Input::Order(Order::Recover(ByHand { order, assembly, service, rung, by })));
    }

    /// The member and the assembly of these names; none where there is no such thing.
    pub(super) fn find(
        &self,
        name: &Name,
        assembly: Option<&Name>,
    ) -> Option<(usize, Option<AssemblyIndex>)> {
        let member = self.files.iter().position(|(known, _)| known == name)?;
        let definition = self.files[member].1.as_ref()?;
        match assembly {
            None => Some((member, None)),
            Some(assembly) => Some((member, Some(definition.assembly_named(assembly.as_str())?))),
        }
    }

    pub(super) fn set_desired(&mut self, name: &Name, desired: Desired) {
        let Some((member, _)) = self.find(name, None) else { return };
        self.journal.desired.insert(name.clone(), desired);
        let order = match desired {
            Desired::Running => Order::Start,
            Desired::Stopped => Order::Stop,
            Desired::PoweredOff => Order::PowerOff,
        };
        self.input(member, Input::Order(order));
    }

    fn pause(&mut self, name: Option<&Name>) {
        if name.is_some_and(|name| self.find(name, None).is_none()) {
            return;
        }
        if !self.journal.pauses.insert(name.cloned()) {
            return;
        }
        let held = name.map_or(String::new(), ToString::to_string);
        self.journal.hold(HoldKind::Pause, held, true, self.now);
        self.truth.paused(name.cloned());
        match name.and_then(|name| self.find(name, None)) {
            Some((member, _)) => {
                self.input(member, Input::Order(Order::Pause { on: true, reason: "looking".into() }));
            }
            None => {
                self.process.guard.set_paused(true);
                self.report_own("paused: looking");
                self.order_all(&Order::FleetPause { on: true });
            }
        }
    }

    fn resume(&mut self, name: Option<&Name>) {
        if !self.journal.pauses.remove(&name.cloned()) {
            return;
        }
        let held = name.map_or(String::new(), ToString::to_string);
        self.journal.hold(HoldKind::Pause, held, false, self.now);
        self.truth.paused_no_more(&name.cloned());
        match name {
            Some(name) => {
                let Some((member, _)) = self.find(name, None) else { return };
                self.input(member, Input::Order(Order::Pause { on: false, reason: "looked".into() }));
            }
            None => {
                self.report_own("resumed: looked");
                self.process.guard.set_paused(false);
                self.order_all(&Order::FleetPause { on: false });
            }
        }
    }

    fn order_all(&mut self, order: &Order) {
        for member in 0..self.files.len() {
            self.input(member, Input::Order(order.clone()));
        }
    }

    // ---- its own clocks

    pub(super) fn tick(&mut self, life: u32, due: Timestamp) {
        if life != self.process.life {
            return;
        }
        let (now, at) = (self.now, self.boot_time());
        if self.process.stands_still(now) {
            let wait = self.dice.between(Duration::ZERO, Duration::from_millis(10));
            return self.queue.push(self.process.still_until.after(wait), Item::Tick { life, due });
        }
        let lag = self.process.lag_at(now);
        if now < due.after(lag) {
            return self.queue.push(due.after(lag), Item::Tick { life, due });
        }
        // The lag is measured all the time, not only where something is late.
        if lag > LAG_BUDGET {
            self.process.late_at = Some(now);
        }
        let late = self.process.late_since(now.before(TICK));
        self.process.guard.lag(at, late);
        self.process.guard.handle_timeout(at);
        self.keep_guard();
        self.hear_guard();
        let due = now.after(TICK);
        self.queue.push(due, Item::Tick { life, due });
    }

    pub(super) fn canary(&mut self, life: u32, index: usize) {
        if life != self.process.life {
            return;
        }
        let now = self.now;
        if self.process.stands_still(now) {
            return self.queue.push(self.process.still_until, Item::Canary { life, index });
        }
        let answers = now >= self.canaries_cut;
        let at = self.boot_time();
        self.process.guard.canary(DEFAULT_PATH, index, answers, at);
        // A canary that does not accept takes its deadline, which is as long as the pause between two looks.
        let next = if answers { CANARY_EVERY } else { CANARY_EVERY * 2 };
        self.queue.push(now.after(next), Item::Canary { life, index });
    }

    /// One engine's loop notices that the process stood still.
    pub(super) fn noticed(&mut self, life: u32, member: usize) {
        if life != self.process.life {
            return;
        }
        if self.process.stands_still(self.now) {
            return self.queue.push(self.process.still_until, Item::Noticed { life, member });
        }
        self.process.late_at = Some(self.now);
        self.input(member, Input::EvidenceVoid { reason: "this process stood still".into() });
    }

    /// Writes the guard down if that is needed, before what follows from it.
    pub(super) fn keep_guard(&mut self) {
        if self.process.guard.take_persist() {
            let snapshot = Box::new(self.process.guard.snapshot(self.boot_time()));
            self.keep(Record::Guard(self.written(), snapshot));
        }
    }

    pub(super) fn hear_guard(&mut self) {
        // What is told is kept.
        self.keep_guard();
        while let Some(output) = self.process.guard.poll_output() {
            match output {
                GuardOutput::BreakerChanged { scope, reason } => {
                    self.judge_hold(&scope, &reason);
                    self.note_hold(&scope);
                    self.report_own(&reason);
                }
                GuardOutput::Evacuate(evacuate) => self.evacuate(evacuate),
                GuardOutput::Notify { message } => {
                    if let Ok(name) = Name::parse("cpe") {
                        self.notify(&name, None, message);
                    }
                }
            }
        }
    }
}
