//! Who sees what: probes, the infrastructure's view. What is true is in `machine.rs`; between that and an observation lie the network, the
//! time that things take, and lies.

use std::sync::Arc;
use std::time::Duration;

use cpe_proto::definition::{Deployable, Machine as Named};
use cpe_proto::id::{AssemblyIndex, ProbeId};
use cpe_proto::infrastructure::{InstanceState, Owner};
use cpe_proto::observation::{ChannelFailure, Observation, UnitState};
use cpe_proto::time::Timestamp;

use super::World;
use super::driver::{Aim, Flight, How};
use super::machine::{Fell, Installed, Lie, Machine, Power, Running, Unit, Who};
use super::queue::{Item, Message};

/// As in cpe: an infrastructure that does not say its state by then is not waited for.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

impl World {
    // ---- bodies

    /// The machines that a definition speaks of exist from the first time that it does.
    pub(super) fn settle_machines(&mut self, definition: &Deployable) {
        for index in definition.assembly_indices() {
            let assembly = definition.assembly(index);
            let key = (definition.name.clone(), assembly.name.clone());
            let known = self.places.get(&key).copied();
            let machine = known.unwrap_or_else(|| {
                let (deployable, name) = key.clone();
                self.machines.push(Machine::new(
                    deployable,
                    name,
                    assembly.failure_domains.clone(),
                    Vec::new(),
                ));
                self.machines.len() - 1
            });
            self.places.insert(key, machine);
            for service in definition.services_of(index) {
                let name = &definition.service(service).name;
                let units = &mut self.machines[machine].units;
                if units.iter().all(|unit| unit.name != *name) {
                    units.push(Unit::new(name.clone()));
                }
            }
        }
        let (machines, units) = self.bodies_of(definition);
        for (service, (machine, unit)) in definition.services.iter().zip(&units) {
            let mut needs: Vec<(usize, usize)> =
                service.after.iter().map(|it| units[usize::from(it.0)]).collect();
            for other in &definition.assembly(service.assembly).after {
                needs.extend(definition.services_of(*other).map(|it| units[usize::from(it.0)]));
            }
            self.machines[*machine].units[*unit].needs = needs;
        }
        drop(machines);
    }

    /// The machine of each assembly, and the machine and unit of each service.
    pub(super) fn bodies_of(&self, definition: &Deployable) -> (Vec<usize>, Vec<(usize, usize)>) {
        let place = |index: AssemblyIndex| {
            let key = (definition.name.clone(), definition.assembly(index).name.clone());
            self.places.get(&key).copied().unwrap_or(0)
        };
        let machines: Vec<usize> = definition.assembly_indices().map(place).collect();
        let units = definition.services.iter().map(|service| {
            let machine = machines[usize::from(service.assembly.0)];
            let unit = self.machines[machine].units.iter().position(|unit| unit.name == service.name);
            (machine, unit.unwrap_or(0))
        });
        let units = units.collect();
        (machines, units)
    }

    // ---- what is true

    /// Whether packets pass between cpe and a machine.
    pub(super) fn path_open(&self, machine: usize) -> bool {
        self.now >= self.machines_cut && self.now >= self.machines[machine].cut_until
    }

    /// Whether a session to it works.
    pub(super) fn answers(&self, machine: usize) -> bool {
        let it = &self.machines[machine];
        self.path_open(machine) && it.runs() && it.door_at(self.now).is_none()
    }

    /// Whether what a unit needs runs.
    pub(super) fn needs_run(&self, machine: usize, unit: usize) -> bool {
        let needs = &self.machines[machine].units[unit].needs;
        needs.iter().all(|(machine, unit)| {
            let on = &self.machines[*machine];
            on.runs() && on.units[*unit].running == Running::Active
        })
    }

    /// Keeps since when each machine and unit has been well, which no record of the product can know.
    pub(super) fn note(&mut self) {
        let now = self.now;
        for machine in 0..self.machines.len() {
            let answers = self.answers(machine);
            let it = &mut self.machines[machine];
            let well = answers && it.slow_at(now).is_none();
            fell(&mut it.fell, it.well_since.filter(|_| !well), now);
            since(&mut it.well_since, well, now);
            let works = it.runs();
            since(&mut it.works_since, works, now);
            if let Some((_, until)) = it.claims {
                it.lied_at = Some(now.min(until));
            }
            for unit in &mut it.units {
                let true_to_see = unit.lie_at(now).is_none()
                    && unit.slow_at(now).is_none()
                    && unit.flaps_at(now).is_none()
                    && now >= unit.hangs_until;
                let runs = unit.running == Running::Active && unit.installed == Installed::Loaded;
                let well = well && true_to_see && runs;
                fell(&mut unit.fell, unit.well_since.filter(|_| !well), now);
                since(&mut unit.well_since, well, now);
            }
        }
        // What a canary proves is proven; where there is none, or none answers, nothing is.
        let proven = self.canaries > 0 && now >= self.canaries_cut;
        // One canary alone disproves nothing.
        let silent = self.canaries > 1 && now < self.canaries_cut;
        self.truth.note_network(self.machines_cut > now && !proven, silent, now);
    }

    /// Something lasts until then: what is true changes now and then.
    pub(super) fn until(&mut self, lasts: Duration) -> Timestamp {
        let until = self.now.after(lasts);
        self.queue.push(until, Item::Look);
        until
    }

    // ---- probes

    /// How long an answer of what a probe is aimed at takes.
    pub(super) fn latency(&mut self, aim: Aim) -> Duration {
        let now = self.now;
        let usual = Duration::from_millis(5 + self.dice.roll(20));
        let (machine, unit) = match aim {
            Aim::Channel(machine) => (machine, None),
            Aim::Service { machine, unit, .. } => (machine, Some(unit)),
        };
        let it = &self.machines[machine];
        let slow = it.slow_at(now).into_iter().chain(unit.and_then(|unit| it.units[unit].slow_at(now)));
        usual + slow.sum::<Duration>()
    }

    pub(super) fn probe_arrives(&mut self, life: u32, member: usize, probe: ProbeId) {
        if life != self.process.life {
            return;
        }
        let Some(flight) = self.flight_due(member, probe) else { return };
        let deadline = flight.sent.after(flight.timeout);
        if self.process.stands_still(self.now) && self.process.still_until >= deadline {
            // Whoever stood still for so long finds its own deadline over before it reads what came.
            let observation = self.unanswered(flight);
            return self.tell(life, deadline, Message::Probed { member, probe, observation });
        }
        match self.observe(flight) {
            Some(observation) => {
                self.tell(life, self.now, Message::Probed { member, probe, observation });
            }
            None => {
                let at = flight.sent.after(flight.timeout).max(self.now);
                self.queue.push(at, Item::Silence { life, member, probe });
            }
        }
    }

    /// A probe of which something can have come by now: one of the same number may be of an engine before this one.
    fn flight_due(&self, member: usize, probe: ProbeId) -> Option<Flight> {
        let flight = self.member(member)?.flights.get(&probe)?;
        Some(*flight).filter(|flight| flight.due <= self.now)
    }

    pub(super) fn probe_unanswered(&mut self, life: u32, member: usize, probe: ProbeId) {
        if life != self.process.life {
            return;
        }
        let Some(flight) = self.flight_due(member, probe) else { return };
        let observation = self.unanswered(flight);
        self.tell(life, self.now, Message::Probed { member, probe, observation });
    }

    /// What is said of a probe that had no answer by its deadline.
    fn unanswered(&self, flight: Flight) -> Observation {
        match flight.aim {
            Aim::Channel(_) => Observation::Channel(ChannelFailure::TimedOut, "".into()),
            Aim::Service { how: How::Outside, .. } => Observation::Silent("no answer by the deadline".into()),
            Aim::Service { machine, .. } if self.answers(machine) => Observation::DeadlinePassed,
            Aim::Service { .. } => Observation::NotObserved,
        }
    }

    /// What a probe that arrives now is answered; none: nothing by its deadline.
    fn observe(&self, flight: Flight) -> Option<Observation> {
        let (now, aim) = (self.now, flight.aim);
        let machine = match aim {
            Aim::Channel(machine) | Aim::Service { machine, .. } => machine,
        };
        let it = &self.machines[machine];
        // Nobody is at the address of an instance that is no more.
        let elsewhere = flight.instance.is_some_and(|instance| instance != it.instance);
        if !self.path_open(machine) || !it.runs() || elsewhere {
            return None;
        }
        let outside = matches!(aim, Aim::Service { how: How::Outside, .. });
        if let Some(how) = it.door_at(now).filter(|_| !outside) {
            return Some(match aim {
                Aim::Channel(_) if how == ChannelFailure::TimedOut => return None,
                Aim::Channel(_) => Observation::Channel(how, "".into()),
                Aim::Service { .. } => Observation::NotObserved,
            });
        }
        match aim {
            Aim::Channel(_) => Some(Observation::Alive),
            Aim::Service { unit, how, .. } => seen(&it.units[unit], how, now),
        }
    }

    // ---- the infrastructure's view

    pub(super) fn ask_instance(&mut self, member: usize, index: AssemblyIndex) {
        let (now, life) = (self.now, self.process.life);
        let Some(it) = self.member(member) else { return };
        let definition = Arc::clone(it.engine.definition());
        let Some(name) = &definition.infrastructure else { return };
        let machine = it.machines[usize::from(index.0)];
        let usual = Duration::from_millis(100 + self.dice.roll(300));
        let Some(infrastructure) = self.infrastructures.get(name) else { return };
        let reachable = now >= self.infrastructures_cut;
        let silent = now < infrastructure.silent_until || !reachable;
        let (takes, known) = match now < infrastructure.down_until {
            _ if silent => (LOOK_TIMEOUT, false),
            true => (Duration::from_secs(1), false),
            false => (usual, true),
        };
        let it = &self.machines[machine];
        let ordered = infrastructure.kind.knows_who && it.stopped_by == Some(Who::Known);
        let state =
            if known { it.claims_at(now).unwrap_or(it.instance_state()) } else { InstanceState::Unknown };
        let assembly = definition.assembly(index);
        let addressed = known && !matches!(assembly.machine, Named::Address(_)) && it.power != Power::Gone;
        let message = Message::Seen {
            member,
            assembly: assembly.name.clone(),
            state,
            address: addressed.then(|| it.address(machine)),
            instance: it.instance,
            ordered: known && ordered,
            owner: match known {
                false => Owner::NotSaid,
                true if now < it.taken_until => Owner::Another("elsewhere".into()),
                true => Owner::OursOrNone,
            },
        };
        let at = now.after(takes);
        if let Some(it) = self.member_mut(member) {
            it.looks_until = it.looks_until.max(at);
        }
        self.queue.push(at, Item::Tell { life, natural: at, message: Box::new(message) });
    }
}

fn since(mark: &mut Option<Timestamp>, is_so: bool, now: Timestamp) {
    if is_so {
        mark.get_or_insert(now);
    } else {
        *mark = None;
    }
}

fn fell(mark: &mut Option<Fell>, was_well: Option<Timestamp>, now: Timestamp) {
    if let Some(since) = was_well {
        *mark = Some(Fell { at: now, after: now.since(since) });
    }
}

/// What a probe of a unit sees; none: nothing by its deadline.
fn seen(unit: &Unit, how: How, now: Timestamp) -> Option<Observation> {
    if now < unit.hangs_until {
        return None;
    }
    let (running, installed) = match unit.lie_at(now) {
        Some(Lie::Passes) => (Running::Active, Installed::Loaded),
        Some(Lie::Fails) => (Running::Failed, Installed::Loaded),
        None => (unit.running, unit.installed),
    };
    let systemd = |load: &str, active: &str, sub: &str| {
        Observation::Unit(UnitState { load: load.into(), active: active.into(), sub: sub.into() })
    };
    let (runs, warns) = (running == Running::Active, now < unit.warns_until);
    Some(match (how, installed, running) {
        (How::Systemd, Installed::Masked, _) => systemd("masked", "inactive", "dead"),
        (How::Systemd, Installed::NotFound, _) => systemd("not-found", "inactive", "dead"),
        (How::Systemd, _, Running::Active) => systemd("loaded", "active", "running"),
        (How::Systemd, _, Running::Activating) => systemd("loaded", "activating", "auto-restart"),
        (How::Systemd, _, Running::Failed) => systemd("loaded", "failed", "failed"),
        (How::Systemd, _, Running::Stopped) => systemd("loaded", "inactive", "dead"),
        (How::Port, ..) if runs => Observation::Connected,
        (How::Port, ..) => Observation::NotConnected("connection refused".into()),
        (How::Outside, ..) if runs => Observation::Expected("".into()),
        (How::Outside, ..) => Observation::NotConnected("connection refused".into()),
        (How::Program | How::Plugin | How::Script, Installed::NotFound, _) => {
            Observation::Exited(127, "not found".into())
        }
        (How::Program, ..) => Observation::Exited(i32::from(!runs), "".into()),
        // The Monitoring Plugins: 1 is a warning, 2 is critical.
        (How::Plugin, ..) if runs && warns => Observation::Exited(1, "DISK WARNING".into()),
        (How::Plugin, ..) => Observation::Exited(if runs { 0 } else { 2 }, "".into()),
        // OCF: 5 is not installed, 7 is not running, 190 is running and degraded.
        (How::Resource, Installed::NotFound, _) => Observation::Exited(5, "".into()),
        (How::Resource, ..) if runs && warns => Observation::Exited(190, "".into()),
        (How::Resource, ..) => Observation::Exited(if runs { 0 } else { 7 }, "".into()),
        // LSB: 1 is dead and its pid file is there, 3 is not running.
        (How::Script, _, Running::Active) => Observation::Exited(0, "".into()),
        (How::Script, _, Running::Failed) => Observation::Exited(1, "".into()),
        (How::Script, ..) => Observation::Exited(3, "".into()),
    })
}
