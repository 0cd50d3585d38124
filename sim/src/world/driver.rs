//! The loop around one engine, as `cpe/src/driver.rs` is around a real one: what it decides goes to the probes, the deeds, the guard and the
//! journal, and what happens comes back. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::decision::Answer;
use cpe_proto::definition::{Deployable, Machine};
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{ActionId, AssemblyIndex, Name, ProbeId};
use cpe_proto::observation::{ChannelFailure, Observation};
use cpe_proto::time::Timestamp;
use dped::guard::DEFAULT_PATH;
use dped::{
    Action, ActionOutcome, Engine, HealthClass, Input, Output, Parameters, Place, Prover, Request,
    Surroundings, Target,
};

use super::journal::Record;
use super::process::LAG_BUDGET;
use super::queue::{Item, Message};
use super::{What, World};

/// Probes that fall due within one tick are sent together, as in cpe.
const TICK: Duration = Duration::from_millis(16);

/// An engine that asks for so much at once never ends asking.
const OUTPUTS_MAX: u32 = 10_000;

/// The journal writes what waits after this.
const COMMIT_AFTER: Duration = Duration::from_millis(10);

/// One engine and what is around it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) engine: Engine,
    /// When it wants to be woken.
    pub(super) wake: Option<Timestamp>,
    /// The machine of each assembly, and the machine and unit of each service, by their places in the world.
    pub(super) machines: Vec<usize>,
    pub(super) units: Vec<(usize, usize)>,
    /// Whether the address of each assembly is known.
    pub(super) addressed: Vec<bool>,
    /// The instance at whose address it is reached, where an address can change.
    pub(super) instances: Vec<Option<u32>>,
    pub(super) flights: BTreeMap<ProbeId, Flight>,
    /// The actions that were given out and have not ended.
    pub(super) acting: BTreeSet<ActionId>,
    /// When the last answer comes of an infrastructure that was asked.
    pub(super) looks_until: Timestamp,
    /// It panics at what it is told after so many more things; 0: it has.
    pub(super) panics_after: Option<u32>,
    /// Actions that wait for their intents.
    pub(super) acts: BTreeMap<ActionId, (Action, Option<Parameters>)>,
    classes: Vec<Option<HealthClass>>,
    restated: bool,
    /// The engine was told something since it was last asked whether it is to be written down.
    touched: bool,
}

/// A probe that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) aim: Aim,
    /// At the address of that instance; none: at one that does not change.
    pub(super) instance: Option<u32>,
    pub(super) sent: Timestamp,
    /// Nothing comes of it before that.
    pub(super) due: Timestamp,
    pub(super) timeout: Duration,
}

/// What a probe is aimed at, in the world.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aim {
    Channel(usize),
    Service { machine: usize, unit: usize, how: How },
}

/// How a service is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// systemd is asked.
    Systemd,
    /// A port is connected to.
    Port,
    /// A program is run.
    Program,
    /// A monitoring plugin is run.
    Plugin,
    /// A resource agent is asked.
    Resource,
    /// An init script is asked.
    Script,
    /// cpe looks itself, from outside, whatever becomes of the session.
    Outside,
}

impl Member {
    pub(super) fn new(engine: Engine, machines: Vec<usize>, units: Vec<(usize, usize)>) -> Self {
        let definition = Arc::clone(engine.definition());
        let known = |machine: &Machine| matches!(machine, Machine::Address(_));
        Self {
            wake: None,
            addressed: definition.assemblies.iter().map(|it| known(&it.machine)).collect(),
            instances: vec![None; machines.len()],
            classes: vec![None; machines.len()],
            machines,
            units,
            flights: BTreeMap::new(),
            acting: BTreeSet::new(),
            looks_until: Timestamp::ZERO,
            panics_after: None,
            acts: BTreeMap::new(),
            restated: true,
            touched: true,
            engine,
        }
    }

    fn tell(&mut self, input: Input, now: Timestamp) {
        if self.hears() {
            self.engine.handle_input(input, now);
        }
    }

    /// Whether the engine takes what comes now, or panics at it: then that is lost, and everything that waits in it.
    fn hears(&mut self) -> bool {
        self.touched = true;
        match &mut self.panics_after {
            None => true,
            Some(left) => {
                *left = left.saturating_sub(1);
                *left > 0
            }
        }
    }

    /// What it is told now is lost with it.
    fn panics_next(&self) -> bool {
        self.panics_after.is_some_and(|left| left <= 1)
    }

    fn has_panicked(&self) -> bool {
        self.panics_after == Some(0)
    }
}

impl World {
    pub(super) fn member(&self, member: usize) -> Option<&Member> {
        self.process.members.get(member)?.as_ref()
    }

    pub(super) fn member_mut(&mut self, member: usize) -> Option<&mut Member> {
        self.process.members.get_mut(member)?.as_mut()
    }

    /// When the next engine is woken, and which.
    pub(super) fn next_wake(&self) -> Option<(Timestamp, usize)> {
        let members = self.process.members.iter().enumerate();
        let wakes = members.filter_map(|(index, member)| Some((member.as_ref()?.wake?, index)));
        let (wake, member) = wakes.min()?;
        let wake = wake.after(self.process.lag_at(wake));
        let still = self.process.still_until;
        // Those that waited are woken one after another.
        Some(if wake < still {
            (still.after(Duration::from_micros(member as u64)), member)
        } else {
            (wake, member)
        })
    }

    pub(super) fn wake(&mut self, member: usize) {
        let (now, engine_now) = (self.now, self.boot_time());
        let Some(it) = self.member_mut(member) else { return };
        let due = it.wake.take().unwrap_or(now);
        if it.hears() {
            it.engine.handle_timeout(engine_now);
        }
        let again = it.engine.poll_timeout().filter(|(at, _)| *at <= engine_now && !it.has_panicked());
        self.process.observe_lag(due, now);
        if let Some((at, wake)) = again {
            let what =
                format!("{} is woken for nothing: {wake:?} at {at}, now {engine_now}", self.files[member].0);
            self.broken(what);
        }
        self.carry_out(member);
    }

    pub(super) fn input(&mut self, member: usize, input: Input) {
        let now = self.boot_time();
        let Some(it) = self.member_mut(member) else { return };
        it.tell(input, now);
        self.carry_out(member);
    }

    /// Something reaches the process, if that is still the one that it was meant for; when it stands still or is late, later.
    pub(super) fn tell(&mut self, life: u32, natural: Timestamp, message: Message) {
        let now = self.now;
        if life != self.process.life {
            return;
        }
        if self.process.stands_still(now) {
            let wait = self.dice.between(Duration::ZERO, Duration::from_millis(10));
            let at = self.process.still_until.after(wait);
            return self.queue.push(at, Item::Tell { life, natural, message: Box::new(message) });
        }
        let late = natural.after(self.process.lag_at(now));
        if now < late {
            return self.queue.push(late, Item::Tell { life, natural, message: Box::new(message) });
        }
        if self.orphaned(&message) {
            return;
        }
        match message {
            Message::Probed { member, probe, observation } => {
                self.landed(member, probe, observation, natural);
            }
            Message::Seen { member, assembly, state, address, instance, ordered, owner } => {
                let Some(it) = self.member_mut(member) else { return };
                let Some(assembly) = it.engine.definition().assembly_named(assembly.as_str()) else { return };
                it.addressed[usize::from(assembly.0)] |= address.is_some();
                if address.is_some() {
                    it.instances[usize::from(assembly.0)] = Some(instance);
                }
                let name = it.engine.definition().assembly(assembly).name.clone();
                let hears = !it.panics_next();
                if hears {
                    self.truth.seen_owner(member, name, &owner);
                }
                self.input(member, Input::Instance { assembly, state, address, ordered, owner });
            }
            Message::Fenced { member, action, outcome } => {
                if !matches!(outcome, ActionOutcome::Done { .. }) {
                    let name = self.files[member].0.clone();
                    self.keep(Record::Outcome(name, action, now));
                }
                // What an engine that panicked would have heard, nobody hears.
                let heard = !self.process.fallen.contains_key(&member);
                self.acted_for_fallen(member, action);
                if heard {
                    self.input(member, Input::Fenced { action, outcome });
                }
            }
            Message::Evacuated { domain, number, outcome } => {
                self.process.guard.evacuated(&domain, number, &outcome, now);
                self.keep_guard();
                self.hear_guard();
            }
            Message::Acted { member, action, outcome } => {
                let name = self.files[member].0.clone();
                self.keep(Record::Outcome(name, action, now));
                if matches!(outcome, ActionOutcome::Done { .. }) && self.member(member).is_some() {
                    self.truth.told_done(member, action);
                }
                self.input(member, Input::Acted { action, outcome });
                self.acted_for_fallen(member, action);
            }
        }
    }

    /// What came of an action whose definition was removed meanwhile. True: it was one, and its task in cpe has said all that it will.
    fn orphaned(&mut self, message: &Message) -> bool {
        let (Message::Acted { member, action, outcome } | Message::Fenced { member, action, outcome }) =
            message
        else {
            return false;
        };
        if !self.process.orphans.remove(&(*member, *action)) {
            return false;
        }
        let (name, now) = (self.files[*member].0.clone(), self.boot_time());
        if !matches!(outcome, ActionOutcome::Unresolved { .. }) {
            self.process.guard.release(&name, *action, now);
            self.truth.released(*member, *action);
        }
        let fenced = matches!((message, outcome), (Message::Fenced { .. }, ActionOutcome::Done { .. }));
        if !fenced {
            self.keep(Record::Outcome(name, *action, self.now));
        }
        true
    }

    fn landed(&mut self, member: usize, probe: ProbeId, observation: Observation, natural: Timestamp) {
        let (now, at) = (self.now, self.boot_time());
        let name = self.files[member].0.clone();
        let Some(it) = self.member_mut(member) else { return };
        // One of the same number may be of an engine before this one.
        if it.flights.get(&probe).is_some_and(|flight| natural < flight.sent) {
            return;
        }
        let Some(flight) = it.flights.remove(&probe) else { return };
        let machine = match flight.aim {
            Aim::Channel(machine) | Aim::Service { machine, .. } => machine,
        };
        let assembly = it.machines.iter().position(|known| *known == machine);
        let alive = proves_life(&observation);
        if let (true, Some(assembly)) = (alive, assembly) {
            let assembly = AssemblyIndex(u16::try_from(assembly).unwrap_or(u16::MAX));
            self.process.guard.answered(DEFAULT_PATH, &name, assembly, at);
        }
        let late = now.since(natural) > LAG_BUDGET || self.process.late_since(flight.sent);
        self.input(member, Input::Probed { probe, observation, void: !alive && late });
    }

    /// A changed definition reaches its engine.
    pub(super) fn redefine(&mut self, member: usize, definition: &Arc<Deployable>) {
        let (machines, units) = self.bodies_of(definition);
        let name = definition.name.clone();
        let Some(it) = self.member_mut(member) else { return };
        let before = Arc::clone(it.engine.definition());
        self.truth.pace.redefined(&before, definition);
        let Some(it) = self.member_mut(member) else { return };
        let kept = before.assembly_indices().filter(|index| {
            let found = definition.assembly_named(before.assembly(*index).name.as_str());
            found == Some(*index) && definition.assembly(*index).machine == before.assembly(*index).machine
        });
        let same = kept.count() == before.assemblies.len() && before.assemblies.len() == machines.len();
        let known: Vec<usize> =
            it.machines.iter().zip(&it.addressed).filter(|(_, known)| **known).map(|(it, _)| *it).collect();
        let reached: BTreeMap<usize, Option<u32>> =
            it.machines.iter().copied().zip(it.instances.iter().copied()).collect();
        it.instances = machines.iter().map(|it| reached.get(it).copied().flatten()).collect();
        let fixed = definition.assemblies.iter().map(|it| matches!(it.machine, Machine::Address(_)));
        it.addressed =
            fixed.zip(&machines).map(|(fixed, machine)| fixed || known.contains(machine)).collect();
        it.flights.retain(|_, flight| match flight.aim {
            Aim::Channel(machine) => machines.contains(&machine),
            Aim::Service { machine, unit, .. } => units.contains(&(machine, unit)),
        });
        (it.machines, it.units) = (machines, units);
        (it.classes, it.restated) = (vec![None; it.machines.len()], true);
        if !same {
            self.process.guard.forget(&name);
        }
        self.input(member, Input::Definition(Arc::clone(definition)));
    }

    /// Does what an engine wants until it wants nothing more, or until the process ends.
    pub(super) fn carry_out(&mut self, member: usize) {
        let life = self.process.life;
        for round in 0.. {
            if self.member(member).is_some_and(Member::has_panicked) {
                return self.panics(member);
            }
            self.write_down(member);
            let wanted = self.member_mut(member).map(|it| it.engine.poll_outputs()).unwrap_or_default();
            if wanted.is_empty() {
                break;
            }
            if round > OUTPUTS_MAX {
                let what = format!("{} never ends asking: {wanted:?}", self.files[member].0);
                return self.broken(what);
            }
            for output in wanted {
                if let Some((left, down)) = self.process.dies {
                    if left == 0 {
                        return self.crash(down);
                    }
                    self.process.dies = Some((left - 1, down));
                }
                self.obey(member, output);
                if life != self.process.life {
                    return;
                }
                if self.member(member).is_some_and(Member::has_panicked) {
                    return self.panics(member);
                }
            }
        }
        self.tell_health(member);
        let wake = self.member(member).and_then(|it| it.engine.poll_timeout());
        let wake = wake.map(|(at, _)| self.world_time(tick_after(at)));
        if let Some(it) = self.member_mut(member) {
            it.wake = wake;
        }
    }

    /// What is begun must be known to whoever comes after us, so this goes before the outputs of each input.
    fn write_down(&mut self, member: usize) {
        let at = self.boot_time();
        let written = self.written();
        let Some(it) = self.member_mut(member) else { return };
        if std::mem::take(&mut it.touched) && it.engine.take_persist() {
            let snapshot = Box::new(it.engine.snapshot(at));
            let name = self.files[member].0.clone();
            self.keep(Record::Snapshot(name, written, snapshot));
        }
    }

    fn obey(&mut self, member: usize, output: Output) {
        match output {
            Output::Probe { probe, target, timeout } => self.send_probe(member, probe, target, timeout),
            Output::AskInstance(assembly) => self.ask_instance(member, assembly),
            Output::AskSurroundings(assembly) => self.tell_surroundings(member, assembly),
            Output::AskAdmission(request) => self.ask_admission(member, request),
            Output::Act(action) => self.act(member, action),
            Output::Release(action) => {
                let now = self.boot_time();
                self.process.guard.release(&self.files[member].0, action, now);
                self.truth.released(member, action);
            }
            Output::Reconnect(_) => {}
            Output::Report(event) => {
                let of_assembly = event.assembly.is_some() && event.service.is_none();
                let restates = event.kind == EventKind::MaintenanceChanged
                    || of_assembly && event.kind == EventKind::StateChanged;
                if let Some(it) = self.member_mut(member) {
                    it.restated |= restates;
                }
                self.cover_event(member, &event);
                self.pace_event(member, &event);
                self.judge_conclusion(member, &event);
                self.report(member, event);
            }
            Output::Record(decision) => {
                self.cover_decision(&decision);
                let name = self.files[member].0.clone();
                self.keep(Record::Decision(name, decision, self.now));
            }
            Output::Answer { answer, .. } => {
                let (word, said) = match &answer {
                    Ok(said) => ("done", said),
                    Err(said) => ("refused", said),
                };
                let name = &self.files[member].0;
                self.say(What::Happened(format!("{name}: the order is {word}: {said}")));
            }
            Output::Notify { incident, message } => {
                let name = self.files[member].0.clone();
                self.notify(&name, incident, message);
            }
        }
    }

    fn send_probe(&mut self, member: usize, probe: ProbeId, target: Target, timeout: Duration) {
        let (now, at, life) = (self.now, self.boot_time(), self.process.life);
        let Some(it) = self.member_mut(member) else { return };
        let (assembly, aim) = match target {
            Target::Channel(index) => (index, Aim::Channel(it.machines[usize::from(index.0)])),
            Target::Service(index) => {
                let service = it.engine.definition().service(index);
                let (machine, unit) = it.units[usize::from(index.0)];
                let how = match service.check.kind() {
                    _ if service.check.direct().is_some() => How::Outside,
                    _ if service.check.from_guest().is_some() => How::Port,
                    "systemd" => How::Systemd,
                    "tcp" => How::Port,
                    "nagios" => How::Plugin,
                    "ocf" => How::Resource,
                    "lsb" => How::Script,
                    _ => How::Program,
                };
                (service.assembly, Aim::Service { machine, unit, how })
            }
        };
        if !it.addressed[usize::from(assembly.0)] {
            let observation = match target {
                Target::Channel(_) => {
                    Observation::Channel(ChannelFailure::NotTried, "no address is known yet".into())
                }
                Target::Service(_) => Observation::NotObserved,
            };
            return it.tell(Input::Probed { probe, observation, void: false }, at);
        }
        let takes = self.latency(aim);
        let Some(it) = self.member_mut(member) else { return };
        let due = now.after(takes.min(timeout));
        it.flights.insert(
            probe,
            Flight { aim, instance: it.instances[usize::from(assembly.0)], sent: now, due, timeout },
        );
        let item = if takes >= timeout {
            Item::Silence { life, member, probe }
        } else {
            Item::Probe { life, member, probe }
        };
        self.queue.push(due, item);
    }

    fn tell_surroundings(&mut self, member: usize, assembly: AssemblyIndex) {
        let now = self.boot_time();
        let name = self.files[member].0.clone();
        let Some(it) = self.member(member) else { return };
        let definition = Arc::clone(it.engine.definition());
        let domains = it.engine.domains(assembly).into_owned();
        let guard = &self.process.guard;
        let answered = guard.path_proof(DEFAULT_PATH, (&name, assembly), now);
        let by = answered.as_ref().map_or(String::new(), |(_, prover)| match prover {
            Prover::Peer(peer, index) => self.label(peer, *index),
            Prover::Canary(index) => format!("canary {}", index + 1),
        });
        let surroundings = Surroundings {
            self_trusted: guard.self_trusted(DEFAULT_PATH, now),
            held_domain: guard.held_domain(&domains),
            path_answered_ago: answered.map(|(ago, _)| ago),
            path_answered_by: by.into(),
            capabilities: definition.infrastructure.as_ref().map(|name| {
                self.infrastructures.get(name).map(|it| it.kind.capabilities.clone()).unwrap_or_default()
            }),
        };
        if let Some(it) = self.member_mut(member) {
            it.tell(Input::Surroundings { assembly, surroundings }, now);
        }
    }

    fn label(&self, deployable: &Name, assembly: AssemblyIndex) -> String {
        let definition =
            self.files.iter().find(|(name, _)| name == deployable).and_then(|(_, it)| it.as_ref());
        let assembly = definition.and_then(|it| it.assemblies.get(usize::from(assembly.0)));
        assembly.map_or_else(|| deployable.to_string(), |it| format!("{deployable}/{}", it.name))
    }

    /// Tells the guard whose health has changed.
    fn tell_health(&mut self, member: usize) {
        let now = self.boot_time();
        let Some(it) = self.process.members.get_mut(member).and_then(Option::as_mut) else { return };
        if !std::mem::take(&mut it.restated) {
            return;
        }
        let (view, definition) = (it.engine.view(), Arc::clone(it.engine.definition()));
        for (index, seen) in definition.assembly_indices().zip(&view.assemblies) {
            let class = HealthClass::of(seen.state, view.maintenance || seen.maintenance);
            let told = &mut it.classes[usize::from(index.0)];
            let Some(class) = class.filter(|class| *told != Some(*class)) else { continue };
            *told = Some(class);
            let domains = it.engine.domains(index);
            self.process.guard.health(&definition.name, index, &domains, class, now);
        }
        self.hear_guard();
    }

    fn ask_admission(&mut self, member: usize, request: Request) {
        // The guard decides on what is known now, the loss of this one included.
        self.tell_health(member);
        let now = self.boot_time();
        let Some(it) = self.member(member) else { return };
        let definition = Arc::clone(it.engine.definition());
        let domains = it.engine.domains(request.assembly).into_owned();
        let place = Place { infrastructure: definition.infrastructure.clone(), domains: &domains };
        let (answer, gates) = self.process.guard.ask(&definition.name, &request, &place, now);
        let action = request.action;
        if answer == Answer::Admitted {
            self.keep_guard();
            self.truth.admitted(member, request, self.now);
        }
        if let Some(it) = self.member_mut(member) {
            it.tell(Input::Admission { action, answer, gates }, now);
        }
    }

    // ---- what is kept and told

    pub(super) fn keep(&mut self, record: Record) {
        if self.journal.append(record) {
            let item = Item::Commit(self.process.life);
            self.queue.push(self.now.after(COMMIT_AFTER), item);
        }
    }

    pub(super) fn forget_snapshot(&mut self, name: Name) {
        self.keep(Record::ForgetSnapshot(name));
    }

    pub(super) fn report(&mut self, member: usize, event: Event) {
        let name = self.files[member].0.clone();
        if let (EventKind::IncidentClosed, Some(incident)) = (event.kind, event.incident) {
            self.process.notices.close(&(name.clone(), incident));
        }
        let record = self.journal.event(Some(name), event, self.now);
        self.say(What::Event(Box::new(record.clone())));
        self.keep(Record::Event(Box::new(record)));
    }

    /// An event of the controller itself.
    pub(super) fn report_own(&mut self, reason: &str) {
        let event = Event::new(EventKind::BreakerChanged, reason, self.boot_time());
        let record = self.journal.event(None, event, self.now);
        self.coverage.count("guard", guard_phase(reason));
        self.say(What::Event(Box::new(record.clone())));
        self.keep(Record::Event(Box::new(record)));
    }
}

/// What the guard does, in a word.
fn guard_phase(reason: &str) -> &'static str {
    let words = [
        ("is held:", "held"),
        ("is held no more", "held no more"),
        ("are evacuated by", "evacuation"),
        ("is not evacuated", "no evacuation"),
        ("evacuation (!", "outcome of an evacuation"),
        ("are still down after the evacuation", "evacuation helped in part"),
        ("slow start goes on", "slow start goes on"),
        ("slow start stopped", "slow start stopped"),
        ("slow start", "slow start"),
        ("does not trust itself", "distrusts itself"),
        ("trusts itself again", "trusts itself again"),
    ];
    words.into_iter().find(|(word, _)| reason.contains(word)).map_or("pause or resume", |(_, name)| name)
}

/// Whether an observation can only come from a living guest, over its session.
/// As in cpe: a service may be looked at anywhere from outside, so that its answer proves no path.
fn proves_life(observation: &Observation) -> bool {
    matches!(
        observation,
        Observation::Alive | Observation::Unit(_) | Observation::Exited(..) | Observation::NotRunnable(_)
    )
}

/// The end of the tick in which `at` lies.
fn tick_after(at: Timestamp) -> Timestamp {
    let tick = TICK.as_micros();
    let micros = u64::try_from(at.since_boot().as_micros().div_ceil(tick) * tick).unwrap_or(u64::MAX);
    Timestamp::from_boot(Duration::from_micros(micros))
}
