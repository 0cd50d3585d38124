//! A small world with virtual time around the real engine and the real guard: machines, units, an infrastructure that can lie, lose and
//! delay. Tests say what happens (`kill`, `freeze`, `cut`) and what must follow. What an engine may never do is checked at each output.
#![allow(dead_code)] // each test uses its part of the vocabulary

mod asked;
mod power;
pub(crate) mod words;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::decision::{Answer, Decision, Refusal};
use cpe_proto::definition::{Deployable, Mode};
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{ActionId, AssemblyIndex, IncidentId, Name, ProbeId, ServiceIndex};
use cpe_proto::infrastructure::{Capabilities, InstanceState, Operation, Owner};
use cpe_proto::observation::{ChannelFailure, Observation, UnitState};
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::Snapshot;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;
use dped::{
    Act, Action, ActionOutcome, ByHand, Desired, Engine, Guard, GuardSettings, Input, Order, Output, Place,
    Seed, Surroundings, Switch, Target,
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
    /// A plugin passes and warns.
    Warns,
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
    /// No network reaches it, so that whoever looks from outside sees nothing either.
    pub(crate) dark: bool,
    /// What the infrastructure says, if it lies or cannot say.
    pub(crate) claims: Option<InstanceState>,
    pub(crate) ordered: bool,
    /// Whose mark it bears.
    pub(crate) owner: Owner,
    pub(crate) boot: Duration,
    /// Where the infrastructure says that it is reached.
    pub(crate) address: Option<Arc<str>>,
    /// Where it is reached once it was recreated, if not there.
    pub(crate) moves_to: Option<Arc<str>>,
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
    Answer {
        probe: ProbeId,
        target: Target,
        began: Timestamp,
    },
    Silence {
        probe: ProbeId,
        target: Target,
    },
    Ended {
        action: Action,
    },
    Outcome {
        action: ActionId,
        outcome: ActionOutcome,
    },
    /// A fence ended.
    Fenced {
        action: ActionId,
        outcome: ActionOutcome,
    },
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
    /// How long an answer of the gate is under way.
    pub(crate) gate_takes: Duration,
    /// What a failing channel has to say besides how it fails.
    pub(crate) details: Box<str>,
    /// What becomes of the next actions' outcomes.
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) acts: Vec<(Timestamp, Action)>,
    pub(crate) events: Vec<Event>,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) notices: Vec<(Timestamp, Option<IncidentId>, String)>,
    pub(crate) probes: Vec<(Timestamp, Target)>,
    pub(crate) lines: Vec<String>,
    pub(crate) reconnects: usize,
    /// How often the infrastructure was asked for its view.
    pub(crate) asked: usize,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    sequence: u64,
    /// What the gate admitted and has not back.
    pub(crate) leases: BTreeSet<ActionId>,
    open_acts: BTreeMap<AssemblyIndex, (ActionId, Timestamp)>,
    flights: BTreeMap<Target, ProbeId>,
    last_seen: BTreeMap<Target, (Timestamp, Seen)>,
    pending: BTreeMap<Target, Timestamp>,
    /// Since when each host, and each unit on it, has been well in truth.
    well: BTreeMap<Target, Timestamp>,
    /// Since when a program of each service that is probed from outside has answered there, in truth.
    speaks: BTreeMap<ServiceIndex, Timestamp>,
    pub(crate) maintained: BTreeSet<Option<AssemblyIndex>>,
    pub(crate) paused: bool,
    pub(crate) fleet_paused: bool,
    /// What became of orders, by their numbers.
    pub(crate) answers: BTreeMap<u64, Result<String, String>>,
    pub(crate) desired: Desired,
    /// Probe results are lost now and then.
    pub(crate) lossy: Option<u64>,
    /// One was.
    lost: bool,
    /// What the engine last asked to be written down, and when.
    pub(crate) written: Option<(Snapshot, Timestamp)>,
    /// What each service was set up with in truth, by `assembly/service`.
    pub(crate) set_up: BTreeMap<String, Option<dped::Parameters>>,
    /// Of whom the engine cannot know it, because an outcome went astray.
    uncertain: BTreeSet<String>,
    /// What the steps that were begun give to whom.
    giving: BTreeMap<ActionId, (String, Option<dped::Parameters>)>,
    /// How often it asked.
    pub(crate) writes: usize,
    /// Actions that were begun and were not in what was last written.
    pub(crate) unwritten: Vec<ActionId>,
    /// Actions of earlier processes: whether their outcomes come is a matter of luck.
    orphans: BTreeSet<ActionId>,
    /// Whose creation was begun, durably.
    created: Vec<ActionId>,
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
        let host = Host {
            machine: Machine::Up,
            way: None,
            dark: false,
            claims: None,
            ordered: false,
            owner: Owner::OursOrNone,
            boot: seconds(20.0),
            address: None,
            moves_to: None,
        };
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
            gate_takes: Duration::ZERO,
            details: "".into(),
            outcomes: Vec::new(),
            acts: Vec::new(),
            events: Vec::new(),
            decisions: Vec::new(),
            notices: Vec::new(),
            probes: Vec::new(),
            lines: Vec::new(),
            reconnects: 0,
            asked: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            leases: BTreeSet::new(),
            open_acts: BTreeMap::new(),
            flights: BTreeMap::new(),
            last_seen: BTreeMap::new(),
            pending: BTreeMap::new(),
            well: BTreeMap::new(),
            speaks: BTreeMap::new(),
            maintained: BTreeSet::new(),
            paused: false,
            fleet_paused: false,
            answers: BTreeMap::new(),
            desired,
            lossy: None,
            lost: false,
            written: None,
            set_up: BTreeMap::new(),
            uncertain: BTreeSet::new(),
            giving: BTreeMap::new(),
            writes: 0,
            unwritten: Vec::new(),
            orphans: BTreeSet::new(),
            created: Vec::new(),
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

    /// That the newest act, a creation, is begun was not durable yet: nothing came of it.
    pub(crate) fn lose_creation(&mut self) {
        self.created.pop();
        self.acts.pop();
        self.queue.retain(|_, it| !matches!(it, Happening::Ended { .. }));
    }

    /// cpe ends without warning and is started so many seconds later, with what was written down.
    pub(crate) fn restart(&mut self, down: f64) {
        self.end_process(seconds(down));
        let definition = Arc::clone(self.engine.definition());
        let seed = Seed {
            first_action: ActionId(self.acts.last().map_or(1, |(_, action)| action.action.0 + 1)),
            first_incident: IncidentId(1),
            random: self.sequence,
            desired: self.desired,
            maintenance: self.maintained.iter().copied().collect(),
        };
        self.line("", &format!("cpe is started again after {down:.0} s"));
        self.engine = match &self.written {
            Some((snapshot, at)) => {
                Engine::restore(definition, seed, snapshot, self.now.since(*at), self.now)
            }
            None => Engine::new(definition, seed, self.now),
        };
        if self.fleet_paused {
            self.engine.handle_input(Input::Order(Order::FleetPause { on: true }), self.now);
        }
        self.carry_out();
    }

    /// The definition is changed; what it still has stays as it is, what is new runs.
    pub(crate) fn redefine(&mut self, text: &str) {
        let Ok(new) = Deployable::parse("site.toml", text) else { panic!("not a definition: {text}") };
        let old = Arc::clone(self.engine.definition());
        let fresh = Host {
            machine: Machine::Up,
            way: None,
            dark: false,
            claims: None,
            ordered: false,
            owner: Owner::OursOrNone,
            boot: seconds(20.0),
            address: None,
            moves_to: None,
        };
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
        self.maintained.retain(|it| it.is_none_or(|index| usize::from(index.0) < hosts));
        self.speaks.clear();
        self.input(Input::Definition(Arc::new(new)));
    }

    pub(crate) fn order(&mut self, order: Order) {
        match &order {
            Order::Start => self.desired = Desired::Running,
            Order::Stop => self.desired = Desired::Stopped,
            Order::PowerOff => self.desired = Desired::PoweredOff,
            Order::Maintenance { assembly, on: true, .. } => drop(self.maintained.insert(*assembly)),
            Order::Maintenance { assembly, on: false, .. } => drop(self.maintained.remove(assembly)),
            Order::Pause { on, .. } => self.paused = *on,
            Order::FleetPause { on } => self.fleet_paused = *on,
            Order::DomainPause { .. }
            | Order::PartsPause { .. }
            | Order::Retry { .. }
            | Order::Recover(_)
            | Order::ConfirmFenced { .. }
            | Order::Look { .. } => {}
        }
        self.input(Input::Order(order));
    }

    pub(crate) fn maintenance(&mut self, on: bool) {
        self.order(Order::Maintenance { assembly: None, on, reason: "upgrade".into() });
    }

    pub(crate) fn pause(&mut self, on: bool) {
        self.order(Order::Pause { on, reason: "looking".into() });
    }

    /// A person orders a recovery; the answer is in `answers`.
    pub(crate) fn recover(&mut self, name: &str, rung: Option<Rung>) -> u64 {
        let order = 100 + self.sequence;
        let (assembly, service) = match name.contains('/') {
            true => {
                let service = self.service_index(name);
                (self.engine.definition().service(service).assembly, Some(service))
            }
            false => (self.assembly_index(name), None),
        };
        self.order(Order::Recover(ByHand { order, assembly, service, rung, by: "ann".into() }));
        self.run(0.1);
        order
    }

    pub(crate) fn confirm_fenced(&mut self, name: &str) -> Result<String, String> {
        let (order, assembly) = (100 + self.sequence, self.assembly_index(name));
        self.order(Order::ConfirmFenced { order, assembly, by: "ann: the rack is dark".into() });
        self.answer(order)
    }

    #[track_caller]
    pub(crate) fn answer(&self, order: u64) -> Result<String, String> {
        match self.answers.get(&order) {
            Some(answer) => answer.clone(),
            None => panic!("order {order} is not answered\n{}", self.transcript()),
        }
    }

    pub(crate) fn kill(&mut self, name: &str) {
        self.guest(name).unit = Unit::Stopped;
    }

    pub(crate) fn crash_loop(&mut self, name: &str, dies_after: f64) {
        let guest = self.guest(name);
        (guest.unit, guest.dies_after, guest.dies_at) = (Unit::Failed, Some(seconds(dies_after)), None);
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

    /// The whole network of a machine is gone, not only its sshd.
    pub(crate) fn darken(&mut self, name: &str) {
        let host = self.host(name);
        (host.way, host.dark) = (Some(ChannelFailure::TimedOut), true);
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
