//! A small world with virtual time around the real engine and the real guard: machines, units, an infrastructure that can lie, lose and
//! delay. Tests say what happens (`kill`, `freeze`, `cut`) and what must follow. What an engine may never do is checked at each output.
#![allow(dead_code)] // each test uses its part of the vocabulary

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::decision::{Answer, Decision, Refusal};
use cpe_proto::definition::{Deployable, Mode};
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{ActionId, AssemblyIndex, IncidentId, Name, ProbeId, ServiceIndex};
use cpe_proto::infrastructure::{Capabilities, InstanceState, Operation};
use cpe_proto::observation::{ChannelFailure, Observation, UnitState};
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;
use dped::{
    Act, Action, ActionOutcome, Desired, Engine, Guard, GuardSettings, Input, Order, Output, Place, Seed,
    Surroundings, Target,
};

/// What a unit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Running,
    Stopped,
    Failed,
    Masked,
    NotFound,
    Activating,
    /// systemd says something that nobody knows.
    Odd,
    /// The probe does not end.
    Hangs,
}

/// What a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    Up,
    Booting {
        until: Timestamp,
    },
    Off,
    Gone,
    Broken,
    /// The kernel answers, nothing else.
    Frozen,
}

/// How the way to a machine fails, if it does.
pub(crate) type Way = Option<ChannelFailure>;

#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) machine: Machine,
    pub(crate) way: Way,
    /// What the infrastructure says, if it lies or cannot say.
    pub(crate) claims: Option<InstanceState>,
    pub(crate) ordered: bool,
    pub(crate) boot: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) unit: Unit,
    /// It dies so long after each start.
    pub(crate) dies_after: Option<Duration>,
    pub(crate) dies_at: Option<Timestamp>,
    /// A start does not help.
    pub(crate) broken: bool,
    /// It starts with its machine.
    pub(crate) enabled: bool,
}

/// What becomes of the outcome of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Fails,
    Lost,
    Unresolved,
    NotBegun,
    Late(Duration),
    Twice,
}

#[derive(Clone, Debug)]
enum Happening {
    Answer { probe: ProbeId, target: Target, began: Timestamp },
    Silence { probe: ProbeId, target: Target },
    Ended { action: Action },
    Outcome { action: ActionId, outcome: ActionOutcome },
    AskedInstance(AssemblyIndex),
    Input(Input),
}

/// A site: one deployable, watched.
pub(crate) struct Site {
    pub(crate) engine: Engine,
    pub(crate) guard: Guard,
    pub(crate) now: Timestamp,
    pub(crate) hosts: Vec<Host>,
    pub(crate) guests: Vec<Guest>,
    pub(crate) capabilities: Option<Capabilities>,
    /// Another peer on the same path answers.
    pub(crate) canary: bool,
    pub(crate) self_trusted: bool,
    pub(crate) held: Option<Name>,
    /// Nobody answers what is asked around an assembly.
    pub(crate) deaf: bool,
    /// The guard's answers are replaced.
    pub(crate) refuses: Option<Refusal>,
    /// The next probe results are void.
    pub(crate) lagging: bool,
    pub(crate) latency: Duration,
    /// What becomes of the next actions' outcomes.
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) acts: Vec<(Timestamp, Action)>,
    pub(crate) events: Vec<Event>,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) notices: Vec<(Timestamp, Option<IncidentId>, String)>,
    pub(crate) probes: Vec<(Timestamp, Target)>,
    pub(crate) lines: Vec<String>,
    pub(crate) reconnects: usize,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    sequence: u64,
    leases: BTreeSet<ActionId>,
    open_acts: BTreeMap<AssemblyIndex, (ActionId, Timestamp)>,
    flights: BTreeMap<Target, ProbeId>,
    last_seen: BTreeMap<Target, (Timestamp, Seen)>,
    pending: BTreeMap<Target, Timestamp>,
    /// Since when each host, and each unit on it, has been well in truth.
    well: BTreeMap<Target, Timestamp>,
    pub(crate) maintained: BTreeSet<Option<AssemblyIndex>>,
    pub(crate) paused: bool,
    pub(crate) desired: Desired,
    /// Probe results are lost now and then.
    pub(crate) lossy: Option<u64>,
    /// One was.
    lost: bool,
}

/// What the world last told the engine of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Well,
    Bad,
    Unclear,
}

pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::from_micros((seconds * 1e6).round() as u64)
}

impl Site {
    /// A site where everything runs, watched until it is known to be healthy.
    pub(crate) fn with(definition: &str) -> Self {
        let mut site = Self::cold(definition);
        site.until("everything is healthy", 60.0, |site| site.view().state == State::Healthy);
        site.forget();
        site
    }

    /// A site where everything runs and the engine knows nothing yet.
    pub(crate) fn cold(definition: &str) -> Self {
        Self::seeded(definition, 1, Desired::Running)
    }

    pub(crate) fn seeded(definition: &str, random: u64, desired: Desired) -> Self {
        let definition = match Deployable::parse("site.toml", definition) {
            Ok(definition) => Arc::new(definition),
            Err(errors) => {
                panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
            }
        };
        let now = Timestamp::from_boot(Duration::from_secs(1000));
        let seed = Seed {
            first_action: ActionId(1),
            first_incident: IncidentId(1),
            random,
            desired,
            maintenance: Vec::new(),
        };
        let host =
            Host { machine: Machine::Up, way: None, claims: None, ordered: false, boot: seconds(20.0) };
        let unit = if desired == Desired::Running { Unit::Running } else { Unit::Stopped };
        let guest = Guest { unit, dies_after: None, dies_at: None, broken: false, enabled: true };
        let capabilities =
            definition.infrastructure.as_ref().map(|_| Capabilities(Operation::ALL.into_iter().collect()));
        let mut site = Self {
            engine: Engine::new(Arc::clone(&definition), seed, now),
            guard: Guard::new(GuardSettings::default()),
            now,
            hosts: vec![host; definition.assemblies.len()],
            guests: vec![guest; definition.services.len()],
            capabilities,
            canary: true,
            self_trusted: true,
            held: None,
            deaf: false,
            refuses: None,
            lagging: false,
            latency: seconds(0.01),
            outcomes: Vec::new(),
            acts: Vec::new(),
            events: Vec::new(),
            decisions: Vec::new(),
            notices: Vec::new(),
            probes: Vec::new(),
            lines: Vec::new(),
            reconnects: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            leases: BTreeSet::new(),
            open_acts: BTreeMap::new(),
            flights: BTreeMap::new(),
            last_seen: BTreeMap::new(),
            pending: BTreeMap::new(),
            well: BTreeMap::new(),
            maintained: BTreeSet::new(),
            paused: false,
            desired,
            lossy: None,
            lost: false,
        };
        site.carry_out();
        site
    }

    // ---- what a test says

    /// Lets so many seconds pass.
    pub(crate) fn run(&mut self, span: f64) {
        let end = self.now.after(seconds(span));
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until that is so.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, limit: f64, is_so: impl Fn(&Self) -> bool) -> Duration {
        let begun = self.now;
        let end = begun.after(seconds(limit));
        while !is_so(self) {
            assert!(self.step(end), "not within {limit} s: {what}\n{}{}", self.transcript(), self.standing());
        }
        self.now.since(begun)
    }

    /// Forgets what was seen so far, so that a test tells its own part only.
    pub(crate) fn forget(&mut self) {
        self.acts.clear();
        self.events.clear();
        self.decisions.clear();
        self.notices.clear();
        self.probes.clear();
        self.lines.clear();
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.engine.handle_input(input, self.now);
        self.carry_out();
    }

    /// The definition is changed; what it still has stays as it is, what is new runs.
    pub(crate) fn redefine(&mut self, text: &str) {
        let Ok(new) = Deployable::parse("site.toml", text) else { panic!("not a definition: {text}") };
        let old = Arc::clone(self.engine.definition());
        let fresh =
            Host { machine: Machine::Up, way: None, claims: None, ordered: false, boot: seconds(20.0) };
        let hosts = new.assemblies.iter().map(|assembly| {
            old.assembly_named(assembly.name.as_str())
                .map_or(fresh.clone(), |index| self.hosts[usize::from(index.0)].clone())
        });
        let hosts = hosts.collect();
        let fresh =
            Guest { unit: Unit::Running, dies_after: None, dies_at: None, broken: false, enabled: true };
        let guests = new.services.iter().map(|service| {
            let index = old.assembly_named(new.assembly(service.assembly).name.as_str());
            let index = index.and_then(|index| old.service_named(index, service.name.as_str()));
            index.map_or(fresh.clone(), |index| self.guests[usize::from(index.0)].clone())
        });
        let guests = guests.collect();
        (self.hosts, self.guests) = (hosts, guests);
        // What is gone and comes again is another one.
        let (hosts, guests) = (self.hosts.len(), self.guests.len());
        let still = |target: &Target| match target {
            Target::Channel(index) => usize::from(index.0) < hosts,
            Target::Service(index) => usize::from(index.0) < guests,
        };
        self.flights.retain(|target, _| still(target));
        self.last_seen.retain(|target, _| still(target));
        self.pending.retain(|target, _| still(target));
        self.well.retain(|target, _| still(target));
        self.input(Input::Definition(Arc::new(new)));
    }

    pub(crate) fn order(&mut self, order: Order) {
        match &order {
            Order::Start => self.desired = Desired::Running,
            Order::Stop => self.desired = Desired::Stopped,
            Order::Maintenance { assembly, on: true, .. } => drop(self.maintained.insert(*assembly)),
            Order::Maintenance { assembly, on: false, .. } => drop(self.maintained.remove(assembly)),
            Order::Pause { on, .. } => self.paused = *on,
            Order::Retry { .. } => {}
        }
        self.input(Input::Order(order));
    }

    pub(crate) fn maintenance(&mut self, on: bool) {
        self.order(Order::Maintenance { assembly: None, on, reason: "upgrade".into() });
    }

    pub(crate) fn pause(&mut self, on: bool) {
        self.order(Order::Pause { on, reason: "looking".into() });
    }

    pub(crate) fn kill(&mut self, name: &str) {
        self.guest(name).unit = Unit::Stopped;
    }

    pub(crate) fn crash_loop(&mut self, name: &str, dies_after: f64) {
        let now = self.now;
        let guest = self.guest(name);
        (guest.unit, guest.dies_after, guest.dies_at) = (Unit::Failed, Some(seconds(dies_after)), None);
        let _ = now;
    }

    pub(crate) fn break_for_good(&mut self, name: &str) {
        let guest = self.guest(name);
        (guest.unit, guest.broken) = (Unit::Failed, true);
    }

    pub(crate) fn mend(&mut self, name: &str) {
        let guest = self.guest(name);
        (guest.unit, guest.broken, guest.dies_after, guest.dies_at) = (Unit::Running, false, None, None);
    }

    pub(crate) fn unit(&mut self, name: &str, unit: Unit) {
        self.guest(name).unit = unit;
    }

    pub(crate) fn machine(&mut self, name: &str, machine: Machine) {
        self.host(name).machine = machine;
    }

    pub(crate) fn freeze(&mut self, name: &str) {
        self.host(name).machine = Machine::Frozen;
    }

    pub(crate) fn cut(&mut self, name: &str, way: Way) {
        self.host(name).way = way;
    }

    pub(crate) fn claims(&mut self, name: &str, state: InstanceState) {
        self.host(name).claims = Some(state);
    }

    pub(crate) fn guest(&mut self, name: &str) -> &mut Guest {
        let index = self.service_index(name);
        &mut self.guests[usize::from(index.0)]
    }

    pub(crate) fn host(&mut self, name: &str) -> &mut Host {
        let index = self.assembly_index(name);
        &mut self.hosts[usize::from(index.0)]
    }

    pub(crate) fn assembly_index(&self, name: &str) -> AssemblyIndex {
        self.engine.definition().assembly_named(name).unwrap_or_else(|| panic!("no assembly {name}"))
    }

    pub(crate) fn service_index(&self, name: &str) -> ServiceIndex {
        let (assembly, service) =
            name.split_once('/').unwrap_or_else(|| panic!("{name} is not assembly/service"));
        let assembly = self.assembly_index(assembly);
        self.engine
            .definition()
            .service_named(assembly, service)
            .unwrap_or_else(|| panic!("no service {name}"))
    }

    // ---- what a test expects

    pub(crate) fn view(&self) -> dped::View {
        self.engine.view()
    }

    /// The state of an assembly or a service.
    pub(crate) fn state(&self, name: &str) -> State {
        if name.contains('/') {
            return self.view().services[usize::from(self.service_index(name).0)].state;
        }
        self.view().assemblies[usize::from(self.assembly_index(name).0)].state
    }

    pub(crate) fn reason(&self, name: &str) -> String {
        if name.contains('/') {
            return self.view().services[usize::from(self.service_index(name).0)].reason.to_string();
        }
        self.view().assemblies[usize::from(self.assembly_index(name).0)].reason.to_string()
    }

    /// The rungs that were begun, in order.
    pub(crate) fn rungs(&self) -> Vec<Rung> {
        let rung = |event: &Event| event.rung.filter(|_| event.kind == EventKind::RecoveryStarted);
        self.events.iter().filter_map(rung).collect()
    }

    pub(crate) fn kinds(&self, kind: EventKind) -> Vec<&Event> {
        self.events.iter().filter(|event| event.kind == kind).collect()
    }

    pub(crate) fn reasons(&self, kind: EventKind) -> Vec<String> {
        self.kinds(kind).into_iter().map(|event| event.reason.to_string()).collect()
    }

    pub(crate) fn notified(&self) -> Vec<&str> {
        self.notices.iter().map(|(_, _, message)| message.as_str()).collect()
    }

    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        let refused = |decision: &Decision| match decision.answer {
            Answer::Refused(refusal) => Some(refusal),
            Answer::Admitted => None,
        };
        self.decisions.iter().filter_map(refused).collect()
    }

    pub(crate) fn transcript(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// What stands where, when a test has to explain itself.
    fn standing(&self) -> String {
        let view = self.view();
        let definition = self.engine.definition();
        let mut text =
            format!("{:#?}\n{:#?}\n{:#?}\n{:#?}\n", self.engine, self.guard, self.hosts, self.guests);
        for (assembly, part) in definition.assemblies.iter().zip(&view.assemblies) {
            text.push_str(&format!("{}: {} ({})\n", assembly.name, part.state, part.reason));
        }
        for (index, part) in view.services.iter().enumerate() {
            let name = self.service_name(ServiceIndex(index as u16));
            text.push_str(&format!("{name}: {} ({})\n", part.state, part.reason));
        }
        text
    }

    pub(crate) fn in_flight(&self) -> bool {
        !self.open_acts.is_empty()
    }

    // ---- how the world goes on

    /// To the next thing that happens, not beyond `end`. False: nothing happens before it.
    pub(crate) fn step(&mut self, end: Timestamp) -> bool {
        let timeout = self.engine.poll_timeout().map(|(at, _)| at.max(self.now));
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = [timeout, queued].into_iter().flatten().min().filter(|at| *at <= end) else {
            return false;
        };
        self.now = next;
        self.age_world();
        self.note_truth();
        if queued == Some(next) {
            if let Some((_, happening)) = self.queue.pop_first() {
                self.happen(happening);
            }
        } else {
            self.engine.handle_timeout(next);
            let after = self.engine.poll_timeout();
            assert!(
                after.is_none_or(|(at, _)| at > next),
                "woken for nothing at {next}: {after:?}\n{}",
                self.transcript()
            );
        }
        self.carry_out();
        true
    }

    /// Machines boot and units die by themselves.
    fn age_world(&mut self) {
        let now = self.now;
        for (index, host) in self.hosts.iter_mut().enumerate() {
            if let Machine::Booting { until } = host.machine
                && until <= now
            {
                host.machine = Machine::Up;
                let services = self.engine.definition().services_of(AssemblyIndex(index as u16));
                for service in services {
                    let guest = &mut self.guests[usize::from(service.0)];
                    if guest.enabled {
                        guest.start(now);
                    }
                }
            }
        }
        for guest in &mut self.guests {
            if guest.dies_at.is_some_and(|at| at <= now) {
                guest.dies_at = None;
                guest.unit = Unit::Failed;
            }
        }
    }

    /// Keeps the truth: what no record of the engine can know.
    fn note_truth(&mut self) {
        let definition = Arc::clone(self.engine.definition());
        for index in definition.assembly_indices() {
            let answers = self.answers(index);
            let mut all = answers;
            for service in definition.services_of(index) {
                let well = answers && self.guests[usize::from(service.0)].unit == Unit::Running;
                all &= well;
                self.note_well(Target::Service(service), well);
            }
            self.note_well(Target::Channel(index), all);
        }
    }

    fn note_well(&mut self, target: Target, well: bool) {
        if well {
            self.well.entry(target).or_insert(self.now);
        } else {
            self.well.remove(&target);
        }
    }

    /// Whether what happens is about something that a changed definition does not have any more.
    fn is_history(&self, happening: &Happening) -> bool {
        let (hosts, guests) = (self.hosts.len(), self.guests.len());
        let gone = |index: AssemblyIndex| usize::from(index.0) >= hosts;
        match happening {
            Happening::Answer { target: Target::Service(index), .. }
            | Happening::Silence { target: Target::Service(index), .. } => usize::from(index.0) >= guests,
            Happening::Answer { target: Target::Channel(index), .. }
            | Happening::Silence { target: Target::Channel(index), .. }
            | Happening::AskedInstance(index) => gone(*index),
            Happening::Ended { action } => match action.act {
                Act::RestartService(index) | Act::StartService(index) | Act::StopService(index) => {
                    gone(action.assembly) || usize::from(index.0) >= guests
                }
                Act::Machine(_) => gone(action.assembly),
            },
            Happening::Outcome { .. } | Happening::Input(_) => false,
        }
    }

    fn happen(&mut self, happening: Happening) {
        if self.is_history(&happening) {
            return;
        }
        match happening {
            Happening::Answer { probe, target, began } => {
                let observation = self.observe(target);
                if observation == Observation::NotObserved && matches!(target, Target::Channel(_)) {
                    // It went away while the probe was under way.
                    let at = began.after(seconds(5.0)).max(self.now);
                    self.push(at, Happening::Silence { probe, target });
                    return;
                }
                self.tell_probe(probe, target, observation);
            }
            Happening::Silence { probe, target } => {
                let observation = match target {
                    Target::Channel(index) => {
                        let failure =
                            self.hosts[usize::from(index.0)].way.unwrap_or(ChannelFailure::TimedOut);
                        Observation::Channel(failure, "".into())
                    }
                    Target::Service(service) => {
                        let assembly = self.engine.definition().service(service).assembly;
                        if self.answers(assembly) {
                            Observation::DeadlinePassed
                        } else {
                            Observation::NotObserved
                        }
                    }
                };
                self.tell_probe(probe, target, observation);
            }
            Happening::Ended { action } => self.end_act(&action),
            Happening::Outcome { action, outcome } => {
                self.open_acts.retain(|_, (open, _)| *open != action);
                self.engine.handle_input(Input::Acted { action, outcome }, self.now);
            }
            Happening::AskedInstance(_) if self.deaf => {}
            Happening::AskedInstance(index) => self.engine.handle_input(self.instance(index), self.now),
            Happening::Input(input) => self.engine.handle_input(input, self.now),
        }
    }

    fn tell_probe(&mut self, probe: ProbeId, target: Target, observation: Observation) {
        if self.flights.get(&target) == Some(&probe) {
            self.flights.remove(&target);
        }
        let void = self.lagging;
        // What was not tried, or not carried, says nothing and takes nothing back.
        let nothing = matches!(
            observation,
            Observation::NotObserved | Observation::Channel(ChannelFailure::NotTried, _)
        );
        if !void && !nothing {
            let seen = match &observation {
                Observation::Alive | Observation::Connected | Observation::Exited(0, _) => Seen::Well,
                Observation::Unit(unit) if &*unit.active == "active" => Seen::Well,
                Observation::Unit(unit)
                    if &*unit.load == "loaded" && matches!(&*unit.active, "inactive" | "failed") =>
                {
                    Seen::Bad
                }
                Observation::Channel(failure, _) if *failure != ChannelFailure::NotTried => Seen::Bad,
                Observation::NotConnected(_) | Observation::Exited(..) | Observation::DeadlinePassed => {
                    Seen::Bad
                }
                _ => Seen::Unclear,
            };
            let activating = matches!(&observation, Observation::Unit(unit) if &*unit.active == "activating");
            if !activating {
                self.pending.remove(&target);
            }
            let since = *self.pending.entry(target).or_insert(self.now);
            let grace = match target {
                Target::Service(service) => self.engine.definition().service(service).probe.startup_grace,
                Target::Channel(_) => Duration::MAX,
            };
            // A unit that is still activating after its grace has failed.
            let late = activating && self.now.since(since) + seconds(1.0) >= grace;
            let seen = if late { Seen::Bad } else { seen };
            self.last_seen.insert(target, (self.now, seen));
        }
        if let (Target::Channel(index), Observation::Alive) = (target, &observation) {
            let name = self.engine.definition().name.clone();
            self.guard.answered("default", &name, index, self.now);
        }
        self.engine.handle_input(Input::Probed { probe, observation, void }, self.now);
    }

    fn answers(&self, index: AssemblyIndex) -> bool {
        let host = &self.hosts[usize::from(index.0)];
        host.machine == Machine::Up && host.way.is_none()
    }

    fn observe(&self, target: Target) -> Observation {
        let assembly = match target {
            Target::Channel(index) => index,
            Target::Service(service) => self.engine.definition().service(service).assembly,
        };
        if !self.answers(assembly) {
            return Observation::NotObserved;
        }
        let Target::Service(service) = target else { return Observation::Alive };
        let unit = |load: &str, active: &str, sub: &str| {
            Observation::Unit(UnitState { load: load.into(), active: active.into(), sub: sub.into() })
        };
        let systemd = self.engine.definition().service(service).check.kind() == "systemd";
        match (self.guests[usize::from(service.0)].unit, systemd) {
            (Unit::Running, true) => unit("loaded", "active", "running"),
            (Unit::Stopped, true) => unit("loaded", "inactive", "dead"),
            (Unit::Failed, true) => unit("loaded", "failed", "failed"),
            (Unit::Masked, _) => unit("masked", "inactive", "dead"),
            (Unit::NotFound, _) => unit("not-found", "inactive", "dead"),
            (Unit::Activating, _) => unit("loaded", "activating", "auto-restart"),
            (Unit::Odd, _) => unit("loaded", "pondering", ""),
            (Unit::Hangs, _) => Observation::DeadlinePassed,
            (Unit::Running, false) => Observation::Exited(0, "".into()),
            (_, false) => Observation::Exited(1, "".into()),
        }
    }

    fn push(&mut self, at: Timestamp, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    /// Something that the world will tell the engine later.
    pub(crate) fn later(&mut self, wait: Duration, input: Input) {
        self.push(self.now.after(wait), Happening::Input(input));
    }

    /// Carries out what the engine asks for.
    fn carry_out(&mut self) {
        let mut rounds = 0;
        while let Some(output) = self.engine.poll_output() {
            rounds += 1;
            assert!(rounds < 10_000, "the engine never ends asking at {}\n{}", self.now, self.transcript());
            match output {
                Output::Probe { probe, target, timeout } => self.send_probe(probe, target, timeout),
                Output::AskInstance(index) => {
                    self.push(self.now.after(self.latency), Happening::AskedInstance(index));
                }
                Output::AskSurroundings(index) => self.answer_surroundings(index),
                Output::AskAdmission(request) => self.answer_admission(&request),
                Output::Act(action) => self.act(action),
                Output::Release(action) => {
                    self.leases.remove(&action);
                    self.open_acts.retain(|_, (open, _)| *open != action);
                    let name = self.engine.definition().name.clone();
                    self.guard.release(&name, action, self.now);
                }
                Output::Reconnect(_) => self.reconnects += 1,
                Output::Report(event) => self.report(event),
                Output::Record(decision) => self.decisions.push(*decision),
                Output::Notify { incident, message } => {
                    self.line("notify", &message);
                    self.notices.push((self.now, incident, message.into()));
                }
            }
        }
    }

    fn send_probe(&mut self, probe: ProbeId, target: Target, timeout: Duration) {
        if let Some(open) = self.flights.insert(target, probe) {
            assert!(self.lost, "{target:?} is probed while probe {open} of it is in flight");
        }
        self.probes.push((self.now, target));
        let (at, silent) = match (self.observe(target), target) {
            (Observation::NotObserved, Target::Channel(index)) => {
                match self.hosts[usize::from(index.0)].way {
                    Some(ChannelFailure::TimedOut) | None => (self.now.after(timeout), true),
                    Some(_) => (self.now.after(self.latency), true),
                }
            }
            (Observation::NotObserved | Observation::DeadlinePassed, Target::Service(_)) => {
                (self.now.after(timeout), true)
            }
            _ => (self.now.after(self.latency), false),
        };
        let began = self.now;
        if self.drops() {
            return;
        }
        self.push(
            at,
            if silent {
                Happening::Silence { probe, target }
            } else {
                Happening::Answer { probe, target, began }
            },
        );
    }

    /// What the infrastructure says once it has been asked.
    fn instance(&self, index: AssemblyIndex) -> Input {
        let host = &self.hosts[usize::from(index.0)];
        let truth = match host.machine {
            Machine::Up | Machine::Frozen | Machine::Booting { .. } => InstanceState::Active,
            Machine::Off => InstanceState::Off,
            Machine::Gone => InstanceState::Gone,
            Machine::Broken => InstanceState::Error,
        };
        Input::Instance {
            assembly: index,
            state: host.claims.unwrap_or(truth),
            address: None,
            ordered: host.ordered,
        }
    }

    fn answer_surroundings(&mut self, index: AssemblyIndex) {
        if self.deaf {
            return;
        }
        let name = self.engine.definition().name.clone();
        let peer = self.guard.path_answered("default", (&name, index), self.now);
        let (ago, by) = match (self.canary, peer) {
            (true, _) => (Some(seconds(1.0)), "canary".to_owned()),
            (false, Some((ago, (name, index)))) => {
                let peer = self.engine.definition().assemblies.get(usize::from(index.0));
                (Some(ago), peer.map_or(name.to_string(), |peer| format!("{name}/{}", peer.name)))
            }
            (false, None) => (None, String::new()),
        };
        let surroundings = Surroundings {
            self_trusted: self.self_trusted,
            held_domain: self.held.clone(),
            path_answered_ago: ago,
            path_answered_by: by.into(),
            capabilities: self.capabilities.clone(),
        };
        self.push(self.now, Happening::Input(Input::Surroundings { assembly: index, surroundings }));
    }

    fn answer_admission(&mut self, request: &dped::Request) {
        let definition = Arc::clone(self.engine.definition());
        let domains = &definition.assembly(request.assembly).failure_domains;
        let place = Place { infrastructure: definition.infrastructure.clone(), domains };
        let (answer, gates) = match self.refuses {
            Some(refusal) => (Answer::Refused(refusal), Vec::new()),
            None => self.guard.ask(&definition.name, request, &place, self.now),
        };
        if answer == Answer::Admitted {
            self.leases.insert(request.action);
        }
        self.push(self.now, Happening::Input(Input::Admission { action: request.action, answer, gates }));
    }

    fn act(&mut self, action: Action) {
        self.check_act(&action);
        // Without an outcome it is over, for the engine, when it must count as unresolved.
        let over = self.now.after(action.timeout).after(dped::OUTCOME_LOST_AFTER);
        self.open_acts.insert(action.assembly, (action.action, over));
        let word = match action.act {
            Act::RestartService(service) => format!("restart {}", self.service_name(service)),
            Act::StartService(service) => format!("start {}", self.service_name(service)),
            Act::StopService(service) => format!("stop {}", self.service_name(service)),
            Act::Machine(rung) => {
                format!("{rung} {}", self.engine.definition().assembly(action.assembly).name)
            }
        };
        self.line("do", &word);
        self.acts.push((self.now, action.clone()));
        let takes = match action.act {
            Act::Machine(_) => seconds(2.0),
            _ => seconds(0.2),
        };
        self.push(self.now.after(takes), Happening::Ended { action });
    }

    /// What must hold whatever the definition and the faults are.
    fn check_act(&self, action: &Action) {
        let story = || self.transcript();
        let index = action.assembly;
        let definition = self.engine.definition();
        if let Act::RestartService(service) | Act::StartService(service) = action.act {
            let state = self.view().services[usize::from(service.0)].state;
            let seen = self.last_seen.get(&Target::Service(service));
            assert!(definition.service(service).restart.is_some(), "{action:?} on a {state}, seen {seen:?}");
        }
        assert!(self.leases.contains(&action.action), "{action:?} was begun without a lease\n{}", story());
        let other = self.open_acts.get(&index).filter(|(_, over)| self.now < *over);
        assert_eq!(other, None, "{action:?} is begun while another is in flight\n{}", story());
        assert_eq!(self.engine.definition().mode, Mode::Act, "{action:?} in observe mode\n{}", story());
        assert!(!self.paused, "{action:?} while paused\n{}", story());
        let maintained = self.maintained.contains(&None) || self.maintained.contains(&Some(index));
        assert!(!maintained, "{action:?} in maintenance\n{}", story());
        let stop = matches!(action.act, Act::StopService(_));
        assert_eq!(
            stop,
            self.desired == Desired::Stopped,
            "{action:?} against what was ordered\n{}",
            story()
        );
        let target = match action.act {
            Act::RestartService(service) | Act::StartService(service) => Some(Target::Service(service)),
            Act::Machine(_) => Some(Target::Channel(index)),
            Act::StopService(_) => None,
        };
        let well = target.and_then(|target| self.well.get(&target)).map(|since| self.now.since(*since));
        let patience = definition.interval(index) * 2 + seconds(30.0);
        assert!(
            well.is_none_or(|well| well < patience),
            "{action:?} on what has been well for {well:?}\n{}",
            story()
        );
        let newest = |target: Target| self.last_seen.get(&target).map(|(_, seen)| *seen);
        let bad = |target| newest(target) == Some(Seen::Bad);
        match action.act {
            Act::RestartService(service) | Act::StartService(service) => {
                assert!(
                    bad(Target::Service(service)) || self.lossy(),
                    "{action:?} on what was not seen failing\n{}",
                    story()
                );
            }
            Act::Machine(_) => {
                let definition = self.engine.definition();
                let any = bad(Target::Channel(index))
                    || definition.services_of(index).any(|service| bad(Target::Service(service)));
                assert!(any, "{action:?} on what was not seen failing\n{}", story());
            }
            Act::StopService(_) => {}
        }
    }

    fn end_act(&mut self, action: &Action) {
        let fate = if self.outcomes.is_empty() { None } else { Some(self.outcomes.remove(0)) };
        let done = ActionOutcome::Done { detail: "done".into() };
        let effective = !matches!(fate, Some(Outcome::Fails | Outcome::NotBegun));
        let worked = effective && self.take_effect(action);
        let outcome =
            if worked { done.clone() } else { ActionOutcome::Failed { detail: "exit status 1".into() } };
        let tell = |site: &mut Self, wait: Duration, outcome: ActionOutcome| {
            let at = site.now.after(wait);
            site.push(at, Happening::Outcome { action: action.action, outcome });
        };
        match fate {
            None => tell(self, Duration::ZERO, outcome),
            Some(Outcome::Fails) => tell(
                self,
                Duration::ZERO,
                ActionOutcome::Failed { detail: "refused by the infrastructure".into() },
            ),
            Some(Outcome::NotBegun) => tell(
                self,
                Duration::ZERO,
                ActionOutcome::NotBegun { detail: "the journal cannot be written".into() },
            ),
            Some(Outcome::Unresolved) => {
                tell(self, action.timeout, ActionOutcome::Unresolved { detail: "no answer".into() });
            }
            Some(Outcome::Late(wait)) => tell(self, wait, outcome),
            Some(Outcome::Twice) => {
                tell(self, Duration::ZERO, outcome.clone());
                tell(self, seconds(1.0), outcome);
            }
            Some(Outcome::Lost) => {}
        }
    }

    fn take_effect(&mut self, action: &Action) -> bool {
        let now = self.now;
        let index = action.assembly;
        match action.act {
            Act::RestartService(service) | Act::StartService(service) => {
                let answers = self.answers(index);
                let guest = &mut self.guests[usize::from(service.0)];
                answers && guest.start(now)
            }
            Act::StopService(service) => {
                let guest = &mut self.guests[usize::from(service.0)];
                (guest.unit, guest.dies_at) = (Unit::Stopped, None);
                true
            }
            Act::Machine(rung) => {
                let host = &mut self.hosts[usize::from(index.0)];
                let until = now.after(host.boot);
                let possible = match (rung, host.machine) {
                    (Rung::Start, Machine::Off) | (Rung::RebootHard, Machine::Off) => true,
                    (Rung::RebootSoft, Machine::Frozen) => false,
                    (Rung::Rebuild, machine) => machine != Machine::Gone,
                    (Rung::Recreate, _) => true,
                    (_, machine) => !matches!(machine, Machine::Gone | Machine::Off),
                };
                if possible {
                    host.machine = Machine::Booting { until };
                    for service in self.engine.definition().services_of(index) {
                        let guest = &mut self.guests[usize::from(service.0)];
                        if guest.unit != Unit::Masked {
                            (guest.unit, guest.dies_at) = (Unit::Stopped, None);
                        }
                    }
                }
                possible
            }
        }
    }

    // ---- randomly bad shells, for seeds

    fn lossy(&self) -> bool {
        self.lossy.is_some()
    }

    fn drops(&mut self) -> bool {
        match &mut self.lossy {
            Some(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                let lost = *state % 97 == 0;
                self.lost |= lost;
                lost
            }
            None => false,
        }
    }

    // ---- the transcript

    fn service_name(&self, service: ServiceIndex) -> String {
        let definition = self.engine.definition();
        let part = definition.service(service);
        format!("{}/{}", definition.assembly(part.assembly).name, part.name)
    }

    fn line(&mut self, word: &str, text: &str) {
        let at = self.now.since(Timestamp::from_boot(Duration::from_secs(1000)));
        self.lines.push(format!("{:>9.2}  {word:<18} {text}", at.as_secs_f64()));
    }

    fn report(&mut self, event: Event) {
        let mut subject = self.engine.definition().name.to_string();
        for part in [&event.assembly, &event.service].into_iter().flatten() {
            subject.push('/');
            subject.push_str(part.as_str());
        }
        let mut text = subject;
        match (event.from, event.to) {
            (Some(from), Some(to)) => text.push_str(&format!(": {from} -> {to}")),
            (_, Some(to)) => text.push_str(&format!(": {to}")),
            _ => {}
        }
        if let Some(rung) = event.rung {
            text.push_str(&format!(" [{rung}]"));
        }
        if let Some(incident) = event.incident {
            text.push_str(&format!(" #{incident}"));
        }
        if !event.reason.is_empty() {
            text.push_str(&format!(" ({})", event.reason));
        }
        self.line(event.kind.as_str(), &text);
        self.events.push(event);
    }
}

impl Guest {
    fn start(&mut self, now: Timestamp) -> bool {
        if self.broken || matches!(self.unit, Unit::Masked | Unit::NotFound) {
            return false;
        }
        self.unit = Unit::Running;
        self.dies_at = self.dies_after.map(|after| now.after(after));
        true
    }
}
