//! What happens, done to the world.

use std::time::Duration;

use cpe_proto::id::Name;
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::time::Timestamp;

use super::happening::{
    ControllerFault, Happening, InfrastructureFault, MachineFault, Place, ServiceFault, Side,
};
use super::machine::{Installed, Lie, Power, Running, Who};
use super::queue::Item;
use super::{What, World};

/// What is left when the faults end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing: every attempt works from then on.
    Nothing,
    /// Units that are broken for good: their ladders have to end in exhausted and a notification.
    Broken,
}

impl World {
    pub(super) fn happen(&mut self, happening: Happening) {
        if let (Happening::Operator(_) | Happening::Define(_) | Happening::Remove(_), true) =
            (&happening, self.process.up && self.process.stands_still(self.now))
        {
            // Somebody waits for an answer.
            let at = self.process.still_until.after(Duration::from_millis(20));
            return self.queue.push(at, Item::Happen(Box::new(happening)));
        }
        self.say(What::Happened(happening.to_string()));
        self.coverage.count("fault", happening.kind());
        match happening {
            Happening::Service(place, fault) => {
                if let Some((machine, unit)) = self.unit_at(&place) {
                    self.service_fault(machine, unit, fault);
                    if matches!(fault, ServiceFault::Crash | ServiceFault::Broken) {
                        self.note_crash(machine, unit);
                    }
                }
            }
            Happening::Machine(place, fault) => {
                if let Some(machine) = self.machine_at(&place) {
                    self.machine_fault(machine, fault);
                }
            }
            Happening::Domain(domain, fault) => {
                for machine in self.machines_in(&domain) {
                    self.machine_fault(machine, fault);
                }
            }
            Happening::Cut(side, lasts) => self.cut(&side, lasts),
            Happening::Infrastructure(name, fault, lasts) => self.infrastructure_fault(&name, fault, lasts),
            Happening::Operation(name, fate) => {
                if let Some(it) = self.infrastructures.get_mut(&name) {
                    it.fates.push_back(fate);
                }
            }
            Happening::Controller(fault) => self.controller_fault(fault),
            Happening::Panic(name, after) => self.will_panic(&name, after),
            Happening::Operator(order) => self.order(&order),
            Happening::Define(definition) => self.define(&definition),
            Happening::Remove(name) => self.remove(&name),
        }
        self.note();
    }

    pub(super) fn machine_at(&self, place: &Place) -> Option<usize> {
        self.places.get(&(place.deployable.clone(), place.assembly.clone())).copied()
    }

    fn unit_at(&self, place: &Place) -> Option<(usize, usize)> {
        let machine = self.machine_at(place)?;
        let unit = self.machines[machine]
            .units
            .iter()
            .position(|unit| Some(&unit.name) == place.service.as_ref())?;
        Some((machine, unit))
    }

    fn machines_in(&self, domain: &Name) -> Vec<usize> {
        let all = self.machines.iter().enumerate();
        all.filter(|(_, it)| it.domains.contains(domain)).map(|(index, _)| index).collect()
    }

    fn service_fault(&mut self, machine: usize, unit: usize, fault: ServiceFault) {
        let runs = self.machines[machine].runs();
        let until = |world: &mut Self, lasts| world.until(lasts);
        match fault {
            ServiceFault::Crash => self.unit_dies(machine, unit, Running::Failed),
            ServiceFault::CrashLoop(after) => {
                self.unit_dies(machine, unit, Running::Failed);
                self.machines[machine].units[unit].dies_after = Some(after);
            }
            ServiceFault::Broken => {
                self.unit_dies(machine, unit, Running::Failed);
                self.machines[machine].units[unit].broken = true;
            }
            ServiceFault::Hang(lasts) => {
                let until = until(self, lasts);
                self.machines[machine].units[unit].hangs_until = until;
            }
            ServiceFault::Slow(takes, lasts) => {
                let until = until(self, lasts);
                self.machines[machine].units[unit].slow = Some((takes, until));
            }
            ServiceFault::Flap(every, lasts) => {
                let until = until(self, lasts);
                self.machines[machine].units[unit].flaps = Some((every, until));
                self.queue.push(self.now, Item::Flaps(machine, unit));
            }
            ServiceFault::Lie(lie, lasts) => {
                let until = until(self, lasts);
                if lie == Lie::Passes {
                    self.unit_dies(machine, unit, Running::Failed);
                }
                self.machines[machine].units[unit].lie = Some((lie, until));
            }
            ServiceFault::Warns(lasts) => {
                let until = until(self, lasts);
                self.machines[machine].units[unit].warns_until = until;
            }
            ServiceFault::Masked => {
                self.unit_dies(machine, unit, Running::Stopped);
                self.machines[machine].units[unit].installed = Installed::Masked;
            }
            ServiceFault::NotFound => {
                self.unit_dies(machine, unit, Running::Stopped);
                self.machines[machine].units[unit].installed = Installed::NotFound;
            }
            ServiceFault::Activating if runs => {
                self.unit_dies(machine, unit, Running::Activating);
            }
            ServiceFault::Activating => {}
            ServiceFault::Mended => self.mend_unit(machine, unit),
        }
    }

    pub(super) fn mend_unit(&mut self, machine: usize, unit: usize) {
        let runs = self.machines[machine].runs();
        let it = &mut self.machines[machine].units[unit];
        (it.broken, it.dies_after, it.flaps, it.slow, it.lie) = (false, None, None, None, None);
        (it.installed, it.hangs_until, it.enabled) = (Installed::Loaded, Timestamp::ZERO, true);
        let life = it.life;
        if runs && it.start() && it.life != life {
            it.by_hand = Some(it.life);
        }
    }

    pub(super) fn unit_dies(&mut self, machine: usize, unit: usize, how: Running) {
        if self.machines[machine].runs() {
            self.machines[machine].units[unit].end(how);
            self.units_fall(machine, unit);
        }
    }

    /// What needs a unit that ended ends with it.
    pub(super) fn units_fall(&mut self, machine: usize, unit: usize) {
        let needs = |other: &super::machine::Unit| other.needs.contains(&(machine, unit));
        for place in 0..self.machines.len() {
            for other in 0..self.machines[place].units.len() {
                let it = &self.machines[place].units[other];
                if needs(it) && it.running == Running::Active && self.machines[place].runs() {
                    self.machines[place].units[other].end(Running::Failed);
                    self.units_fall(place, other);
                }
            }
        }
    }

    pub(super) fn dies(&mut self, machine: usize, unit: usize, life: u32) {
        let it = &self.machines[machine].units[unit];
        if it.life == life && it.running == Running::Active && it.dies_after.is_some() {
            self.unit_dies(machine, unit, Running::Failed);
            self.note();
        }
    }

    pub(super) fn flaps(&mut self, machine: usize, unit: usize) {
        let Some(every) = self.machines[machine].units[unit].flaps_at(self.now) else { return };
        if self.machines[machine].units[unit].running == Running::Active {
            self.unit_dies(machine, unit, Running::Failed);
        } else if self.machines[machine].runs() {
            self.start_unit(machine, unit);
        }
        self.queue.push(self.now.after(every), Item::Flaps(machine, unit));
        self.note();
    }

    fn machine_fault(&mut self, machine: usize, fault: MachineFault) {
        let exists = self.machines[machine].power != Power::Gone;
        match fault {
            MachineFault::PowerLoss if exists => self.machines[machine].power_down(Power::Off),
            MachineFault::HostDies(lasts) if exists => {
                self.machines[machine].host_dead_until = self.until(lasts);
                self.machines[machine].power_down(Power::Off);
            }
            MachineFault::Hang if self.machines[machine].power == Power::On => {
                self.machines[machine].frozen = true;
            }
            MachineFault::Reboots if self.machines[machine].power == Power::On => self.boot(machine),
            MachineFault::NeverBoots if self.machines[machine].power == Power::On => {
                (self.machines[machine].frozen, self.machines[machine].never_boots) = (true, true);
            }
            MachineFault::Vanishes => self.machines[machine].power_down(Power::Gone),
            MachineFault::Fails if exists => self.machines[machine].power_down(Power::Error),
            MachineFault::Slow(takes, lasts) => {
                self.machines[machine].slow = Some((takes, self.until(lasts)));
            }
            MachineFault::Door(how, lasts) => self.machines[machine].door = Some((how, self.until(lasts))),
            MachineFault::Cut(lasts) => {
                let until = self.until(lasts);
                let cut = &mut self.machines[machine].cut_until;
                *cut = until.max(*cut);
            }
            MachineFault::Claimed(state, lasts) => {
                self.machines[machine].claims = Some((state, self.until(lasts)));
            }
            MachineFault::Taken(lasts) => self.machines[machine].taken_until = self.until(lasts),
            MachineFault::StoppedByPerson if exists => self.stopped_by_person(machine, Power::Off),
            MachineFault::DeletedByPerson if exists => self.stopped_by_person(machine, Power::Gone),
            MachineFault::Mended => self.mend_unless_made(machine),
            _ => {}
        }
    }

    fn stopped_by_person(&mut self, machine: usize, power: Power) {
        let deployable = self.machines[machine].deployable.clone();
        let file = self.files.iter().find(|(name, _)| *name == deployable);
        let named = file.and_then(|(_, it)| it.as_ref()).and_then(|it| it.infrastructure.clone());
        let knows =
            named.and_then(|name| self.infrastructures.get(&name)).is_some_and(|it| it.kind.knows_who);
        let it = &mut self.machines[machine];
        it.power_down(power);
        it.stopped_by = Some(if knows { Who::Known } else { Who::Unknown });
        it.stopped_at = Some(self.now);
    }

    /// Nobody makes by hand what is being made, or starts what is being started.
    fn mend_unless_made(&mut self, machine: usize) {
        let down = matches!(self.machines[machine].power, Power::Off | Power::Gone);
        if down && self.is_acted_on(machine) {
            self.machines[machine].never_boots = false;
        } else {
            self.mend_machine(machine);
        }
    }

    /// Somebody sees to a machine.
    pub(super) fn mend_machine(&mut self, machine: usize) {
        let it = &mut self.machines[machine];
        (it.never_boots, it.door, it.cut_until, it.slow, it.claims) =
            (false, None, Timestamp::ZERO, None, None);
        it.host_dead_until = Timestamp::ZERO;
        it.stopped_by = None;
        if !it.runs() {
            if it.power == Power::Gone {
                it.instance += 1;
            }
            it.boot += 1;
            (it.power, it.frozen) = (Power::On, false);
            for unit in &mut it.units {
                if unit.enabled {
                    unit.start();
                }
            }
        }
    }

    fn cut(&mut self, side: &Side, lasts: Duration) {
        let until = self.until(lasts);
        match side {
            Side::Machine(place) => {
                if let Some(machine) = self.machine_at(place) {
                    let cut = &mut self.machines[machine].cut_until;
                    *cut = until.max(*cut);
                }
            }
            Side::Domain(domain) => {
                for machine in self.machines_in(domain) {
                    let cut = &mut self.machines[machine].cut_until;
                    *cut = until.max(*cut);
                }
            }
            Side::Monitor => {
                (self.machines_cut, self.canaries_cut, self.infrastructures_cut) = (until, until, until);
            }
            Side::AllMachines => self.machines_cut = until,
            Side::Canaries => self.canaries_cut = until,
        }
    }

    fn infrastructure_fault(&mut self, name: &Name, fault: InfrastructureFault, lasts: Duration) {
        let until = self.until(lasts);
        let Some(it) = self.infrastructures.get_mut(name) else { return };
        match fault {
            InfrastructureFault::Down => it.down_until = until,
            InfrastructureFault::Silent => it.silent_until = until,
            InfrastructureFault::Slow(takes) => it.slow = Some((takes, until)),
            InfrastructureFault::Errors => it.errors_until = until,
        }
    }

    fn controller_fault(&mut self, fault: ControllerFault) {
        let now = self.now;
        match fault {
            ControllerFault::Crash { after: 0, down } => self.crash(down),
            ControllerFault::Crash { after, down } => self.process.dies = Some((after, down)),
            ControllerFault::NodeReboot(down) => self.node_reboots(down),
            ControllerFault::JournalUnwritable(lasts) => {
                let until = self.until(lasts);
                self.journal.unwritable_until = until;
            }
            ControllerFault::Gap(lasts) => {
                let until = now.after(lasts).max(self.process.still_until);
                self.process.still_until = until;
                let life = self.process.life;
                for member in 0..self.files.len() {
                    let wait = self.dice.between(Duration::ZERO, Duration::from_millis(10));
                    self.queue.push(until.after(wait), Item::Noticed { life, member });
                }
            }
            ControllerFault::Lag(lag, lasts) => self.process.lag = Some((lag, now.after(lasts))),
            ControllerFault::ClockSet(seconds) => {
                self.journal.wall_set += seconds * 1000;
                self.note_clock_set();
            }
        }
    }

    /// All faults end, or all but those of units that no restart mends. What is down stays down, and what cpe could not mend is left to it.
    pub fn calm(&mut self, left: Left) {
        self.say(What::Happened("all faults end".to_owned()));
        let (zero, now) = (Timestamp::ZERO, self.now);
        (self.machines_cut, self.canaries_cut, self.infrastructures_cut) = (zero, zero, zero);
        (self.journal.unwritable_until, self.process.lag, self.process.dies) = (zero, None, None);
        for member in self.process.members.iter_mut().flatten() {
            member.panics_after = None;
        }
        for infrastructure in self.infrastructures.values_mut() {
            infrastructure.mend();
        }
        for machine in &mut self.machines {
            (machine.door, machine.cut_until, machine.slow, machine.claims) = (None, zero, None, None);
            machine.host_dead_until = zero;
            machine.taken_until = zero;
            for unit in &mut machine.units {
                // What ended only now was not seen truly before.
                let over = |until: Timestamp| until.min(now);
                unit.dies_after = None;
                unit.flaps = unit.flaps.map(|(every, until)| (every, over(until)));
                unit.slow = unit.slow.map(|(by, until)| (by, over(until)));
                unit.lie = unit.lie.map(|(lie, until)| (lie, over(until)));
                unit.broken &= left == Left::Broken;
                (unit.hangs_until, unit.warns_until) = (zero, zero);
            }
        }
        self.note();
    }

    fn is_acted_on(&self, machine: usize) -> bool {
        let it = &self.machines[machine];
        let member = self.files.iter().position(|(name, _)| *name == it.deployable);
        member.is_some_and(|member| self.truth.acts_on(member, &it.assembly, self.now))
    }

    /// Somebody sees to all that is not well.
    pub fn mend(&mut self) {
        self.say(What::Happened("somebody sees to all that is not well".to_owned()));
        for machine in 0..self.machines.len() {
            self.mend_unless_made(machine);
            for unit in 0..self.machines[machine].units.len() {
                self.mend_unit(machine, unit);
            }
        }
        self.note();
    }

    /// What the infrastructure would say, for a reader of a transcript.
    #[must_use]
    pub fn instance_state(&self, place: &Place) -> Option<InstanceState> {
        self.machine_at(place).map(|machine| self.machines[machine].instance_state())
    }
}
