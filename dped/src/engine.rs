//! The engine of one deployable: its four methods, the calling contract, bookkeeping. Policy lies beside it: `observe.rs` (what probes
//! mean), `fault.rs` (scopes and counting), `recover.rs` (the gate and actions), `verify.rs`, `plan.rs` (ordered start and stop).

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::definition::Deployable;
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{ActionId, AssemblyIndex, IncidentId, Name, ServiceIndex};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::observation::ChannelFailure;
pub use cpe_proto::snapshot::Desired;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::health::ChannelHealth;
use crate::input::{Input, Order, PartName};
use crate::output::{Output, Target};
use crate::parts::{AssemblyPart, AssemblyTrouble, Instance, Poll, ServicePart, ServiceTrouble};
use crate::random::Random;
use crate::window::Failures;

/// What an engine begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The first action number that was never used.
    pub first_action: ActionId,
    /// The first incident number that was never used.
    pub first_incident: IncidentId,
    /// For jitter only.
    pub random: u64,
    /// What was last ordered.
    pub desired: Desired,
    /// What is in maintenance: assemblies, or with `None` the whole deployable.
    pub maintenance: Vec<Option<AssemblyIndex>>,
}

/// The policy engine of one deployable.
///
/// # The calling contract
/// * Give it what happened with [`handle_input`](Self::handle_input), in the order in which it happened.
/// * After each input, and when the time of [`poll_timeout`](Self::poll_timeout) has come, call
///   [`handle_timeout`](Self::handle_timeout) (at that time or later, never earlier).
/// * After either, ask [`take_persist`](Self::take_persist), and write down the snapshot if it says so; then take outputs with
///   [`poll_output`](Self::poll_output) until there is none, in order, and carry each out.
/// * `now` never runs backwards. It is the only clock the engine has.
///
/// The shell answers each [`Output::Probe`] once by its timeout, and each [`Output::Act`] once by its own. Answers may be late, lost or
/// doubled: each carries a number, and what does not fit any more is void or reported, never believed.
#[derive(Debug)]
pub struct Engine {
    definition: Arc<Deployable>,
    assemblies: Vec<AssemblyPart>,
    services: Vec<ServicePart>,
    outputs: VecDeque<Output>,
    pub(crate) next_action: u64,
    pub(crate) next_incident: u64,
    next_probe: u64,
    pub(crate) random: Random,
    pub(crate) desired: Desired,
    pub(crate) paused: bool,
    /// Every recovery of the fleet is stopped.
    pub(crate) fleet_paused: bool,
    /// Every recovery in these failure domains is stopped.
    pub(crate) paused_domains: BTreeSet<Name>,
    pub(crate) paused_parts: BTreeSet<PartName>,
    pub(crate) maintenance: bool,
    /// The failures of the deployable's scope that may still count.
    pub(crate) failures: Failures,
    pub(crate) state: State,
    pub(crate) since: Timestamp,
    /// Something changed that another assembly may wait for.
    pub(crate) changed: bool,
    /// What the last snapshot holds, as a digest.
    persisted: Option<u64>,
}

impl Engine {
    /// An engine that begins to watch: everything is `starting` (or `stopped`), and the first probes are spread over the interval.
    #[must_use]
    pub fn new(definition: Arc<Deployable>, seed: Seed, now: Timestamp) -> Self {
        let mut engine = Self::bare(definition, seed, now);
        engine.begin_setups();
        for index in engine.definition.assembly_indices() {
            engine.begin_assembly(index, now);
        }
        engine.advance(now);
        engine
    }

    /// An engine that has not begun anything yet.
    pub(crate) fn bare(definition: Arc<Deployable>, seed: Seed, now: Timestamp) -> Self {
        let state = if seed.desired.runs() { State::Starting } else { State::Stopped };
        let mut engine = Self {
            assemblies: Vec::new(),
            services: Vec::new(),
            outputs: VecDeque::new(),
            next_action: seed.first_action.0,
            next_incident: seed.first_incident.0,
            next_probe: 0,
            random: Random::new(seed.random),
            desired: seed.desired,
            paused: false,
            fleet_paused: false,
            paused_domains: BTreeSet::new(),
            paused_parts: BTreeSet::new(),
            maintenance: seed.maintenance.contains(&None),
            failures: Failures::default(),
            state,
            since: now,
            changed: false,
            persisted: None,
            definition,
        };
        let definition = Arc::clone(&engine.definition);
        engine.assemblies = definition
            .assembly_indices()
            .map(|index| engine.fresh_assembly(&definition, index, now))
            .collect();
        engine.services = definition.services.iter().map(|_| fresh_service(state, now)).collect();
        for index in seed
            .maintenance
            .into_iter()
            .flatten()
            .filter(|index| usize::from(index.0) < definition.assemblies.len())
        {
            engine.assembly_mut(index).maintenance = true;
        }
        engine
    }

    /// What happened.
    pub fn handle_input(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Probed { probe, observation, void } => self.probed(probe, &observation, void, now),
            Input::Instance { assembly, state, address, ordered, owner } => {
                self.owned(assembly, owner, now);
                self.instance(assembly, state, address, ordered, now);
            }
            Input::Surroundings { assembly, surroundings } => {
                if self.knows(assembly) && self.assembly(assembly).trouble.is_some() {
                    self.surrounded(assembly, surroundings, now);
                }
            }
            Input::Admission { action, answer, gates } => self.admission(action, answer, gates, now),
            Input::Acted { action, outcome } => self.acted(action, outcome, now),
            Input::Fenced { action, outcome } => self.fenced(action, outcome, now),
            Input::Order(order) => self.order(order, now),
            Input::EvidenceVoid { reason } => self.void_evidence(&reason, now),
            Input::Definition(definition) => self.redefine(&definition, now),
        }
        self.advance(now);
    }

    /// A deadline passed, or nothing: calling it too often is harmless.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.advance(now);
    }

    /// Whether that changed which must outlive this process since it was last asked. If so, write down [`snapshot`](Self::snapshot) before
    /// outputs are carried out: what is begun must be known to whoever comes after us.
    #[must_use]
    pub fn take_persist(&mut self) -> bool {
        let digest = self.digest();
        self.persisted.replace(digest) != Some(digest)
    }

    /// After a restore: nothing is told of states that are only assumed.
    pub(crate) fn first_look(&mut self, now: Timestamp) {
        self.assume_deployable_state();
        self.advance(now);
    }

    /// What to do next, in order; none: nothing until the next input or timeout.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() && self.outputs.capacity() > 0 {
            // An idle engine keeps no queue.
            self.outputs = VecDeque::new();
        }
        output
    }

    /// All that there is to do next. What it tells goes first: some of what it asks is answered at once, and a panic at that answer must
    /// not take along what is written down already, as that an incident was opened.
    pub fn poll_outputs(&mut self) -> Vec<Output> {
        let all: Vec<Output> = std::iter::from_fn(|| self.poll_output()).collect();
        let (mut wanted, asked): (Vec<_>, Vec<_>) = all.into_iter().partition(Output::only_tells);
        wanted.extend(asked);
        wanted
    }

    /// What it watches.
    #[must_use]
    pub fn definition(&self) -> &Arc<Deployable> {
        &self.definition
    }

    /// Brings everything up to `now`. Level-triggered: it looks at what is, so a lost or doubled message cannot leave it stuck.
    fn advance(&mut self, now: Timestamp) {
        // What one assembly's change allows in another is found by a further round; the bound only guards against a defect.
        for _ in 0..4 {
            self.changed = false;
            for index in self.definition.assembly_indices() {
                self.lose_probes(index, now);
                if self.is_calm(index) {
                    continue;
                }
                self.expire_actions(index, now);
                self.verify(index, now);
                self.isolate(index, now);
                self.plan(index, now);
                self.by_hand(index, now);
                self.recover(index, now);
                self.advance_whole(index, now);
                self.settle(index, now);
            }
            if !self.changed {
                break;
            }
        }
        for index in self.definition.assembly_indices() {
            self.send_probes(index, now);
            self.derive_assembly(index, now);
            self.sweep(index, now);
        }
        self.derive_deployable(now);
    }

    /// Nothing is the matter with an assembly and nothing was: it is only probed. Nearly all are, nearly always.
    fn is_calm(&self, index: AssemblyIndex) -> bool {
        let part = self.assembly(index);
        let own = part.trouble.is_none()
            && part.recovery.is_none()
            && part.step.is_none()
            && part.power.is_none()
            && part.by_hand.is_none();
        let well = self.desired.runs() && part.channel != ChannelHealth::Dead;
        own && well
            && part.foreign.is_none()
            && self
                .definition
                .services_of(index)
                .all(|service| self.service(service).trouble.is_none() && !self.setup_due(service))
    }

    /// A wait that is over was looked at in this round; it must not wake anybody again.
    fn sweep(&mut self, index: AssemblyIndex, now: Timestamp) {
        let over = |wait: &mut Option<Timestamp>| {
            if wait.is_some_and(|at| at <= now) {
                *wait = None;
            }
        };
        self.say_waits(Part::Assembly(index), now);
        if let Some(power) = &mut self.assembly_mut(index).power {
            [&mut power.wait_until, &mut power.ask_at, &mut power.say_at].into_iter().for_each(over);
        }
        if let Some(trouble) = &mut self.assembly_mut(index).trouble {
            over(&mut trouble.wait_until);
            over(&mut trouble.say_at);
        }
        for service in self.definition.services_of(index) {
            self.say_waits(Part::Service(service), now);
            let part = self.service_mut(service);
            if let Some(trouble) = &mut part.trouble {
                over(&mut trouble.wait_until);
            }
            if let Some(setup) = &mut part.setup {
                over(&mut setup.wait_until);
            }
        }
    }

    fn order(&mut self, order: Order, now: Timestamp) {
        match order {
            Order::Start => self.order_start(now),
            Order::Stop => self.order_stop(Desired::Stopped, now),
            Order::PowerOff => self.order_power_off(now),
            Order::Maintenance { assembly, on, reason } => self.order_maintenance(assembly, on, &reason, now),
            Order::Pause { on, reason } => self.order_pause(on, &reason, now),
            Order::PartsPause { parts, on, reason } => self.order_parts_pause(parts, on, &reason, now),
            Order::FleetPause { on } => self.fleet_paused = on,
            Order::DomainPause { domains, on: true } => self.paused_domains.extend(domains),
            Order::DomainPause { domains, on: false } => {
                self.paused_domains.retain(|it| !domains.contains(it));
            }
            Order::Retry { assembly } => self.order_retry(assembly),
            Order::Recover(wanted) => self.order_recover(wanted, now),
            Order::ConfirmFenced { order, assembly, by } => self.confirm_fenced(order, assembly, &by, now),
            Order::Look { assembly } => self.order_look(assembly, now),
        }
    }

    fn instance(
        &mut self,
        index: AssemblyIndex,
        state: InstanceState,
        address: Option<Arc<str>>,
        ordered: bool,
        now: Timestamp,
    ) {
        if !self.knows(index) {
            return;
        }
        if let Some(address) = address
            && self.assembly(index).address.as_ref() != Some(&address)
        {
            let part = self.assembly_mut(index);
            let moved = part.address.replace(address).is_some();
            part.moved |= moved;
            let incident = part.trouble.as_ref().and_then(|trouble| trouble.incident);
            if moved {
                self.output(Output::Reconnect(index));
                // What was seen, or not, where it was says nothing of where it is.
                if self.assembly(index).channel != ChannelHealth::Healthy {
                    self.drop_evidence(index, now);
                }
            }
            self.look_at_setups(incident);
        }
        if let Some(power) = &mut self.assembly_mut(index).power {
            power.seen = Some(Instance { state, ordered, at: now });
        }
        let healthy = self.assembly(index).channel == ChannelHealth::Healthy;
        let normal = matches!(state, InstanceState::Active | InstanceState::Unknown);
        // Somebody's view of a machine that is well is not kept.
        if self.assembly(index).trouble.is_some() || !(healthy && normal) {
            self.assembly_trouble(index).instance = Some(Instance { state, ordered, at: now });
        }
    }

    pub(crate) fn fresh_assembly(
        &self,
        definition: &Deployable,
        index: AssemblyIndex,
        now: Timestamp,
    ) -> AssemblyPart {
        let settings = &definition.assembly(index).probe;
        // Assemblies are spread, what belongs to one is not: over the longest of its intervals, so that those of many do not meet.
        let services =
            definition.services_of(index).map(|service| definition.service(service).probe.interval);
        let longest = services.fold(settings.interval, Duration::max);
        let spread = self.random.fork(u64::from(index.0)).within(longest);
        let phase = now.after(spread);
        let first = Duration::from_micros(
            u64::try_from(spread.as_micros() % settings.interval.as_micros().max(1)).unwrap_or(0),
        );
        AssemblyPart {
            state: if self.desired.runs() { State::Starting } else { State::Stopped },
            maintenance: false,
            channel: ChannelHealth::Unknown,
            failure: ChannelFailure::NotTried,
            misses: 0,
            since: now,
            answered: Timestamp::ZERO,
            void_before: Timestamp::ZERO,
            grace_until: now.after(settings.startup_grace),
            poll: Poll::due_at(now.after(first)),
            phase,
            address: None,
            moved: false,
            foreign: None,
            given_back: false,
            zone: None,
            trouble: None,
            recovery: None,
            step: None,
            astray: Vec::new(),
            power: None,
            made_of: None,
            by_hand: None,
        }
    }

    // ---- small things that all parts use

    pub(crate) fn knows(&self, index: AssemblyIndex) -> bool {
        usize::from(index.0) < self.assemblies.len()
    }

    pub(crate) fn assembly(&self, index: AssemblyIndex) -> &AssemblyPart {
        &self.assemblies[usize::from(index.0)]
    }

    pub(crate) fn assembly_mut(&mut self, index: AssemblyIndex) -> &mut AssemblyPart {
        &mut self.assemblies[usize::from(index.0)]
    }

    pub(crate) fn service(&self, index: ServiceIndex) -> &ServicePart {
        &self.services[usize::from(index.0)]
    }

    pub(crate) fn service_mut(&mut self, index: ServiceIndex) -> &mut ServicePart {
        &mut self.services[usize::from(index.0)]
    }

    pub(crate) fn assembly_trouble(&mut self, index: AssemblyIndex) -> &mut AssemblyTrouble {
        self.assembly_mut(index).trouble.get_or_insert_default()
    }

    pub(crate) fn service_trouble(&mut self, index: ServiceIndex) -> &mut ServiceTrouble {
        self.service_mut(index).trouble.get_or_insert_default()
    }

    pub(crate) fn replace_parts(
        &mut self,
        definition: Arc<Deployable>,
        assemblies: Vec<AssemblyPart>,
        services: Vec<ServicePart>,
    ) {
        self.definition = definition;
        self.assemblies = assemblies;
        self.services = services;
    }

    pub(crate) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn action_id(&mut self) -> ActionId {
        let id = ActionId(self.next_action);
        self.next_action += 1;
        id
    }

    pub(crate) fn incident_id(&mut self) -> IncidentId {
        let id = IncidentId(self.next_incident);
        self.next_incident += 1;
        id
    }

    /// A number that no other probe of this engine has, and that says which target it is for.
    pub(crate) fn probe_number(&mut self, target: Target) -> NonZeroU64 {
        let place = match target {
            Target::Channel(index) => u64::from(index.0),
            Target::Service(index) => u64::from(index.0) | 1 << 16,
        };
        self.next_probe += 1;
        NonZeroU64::MIN.saturating_add(self.next_probe << 17 | place)
    }

    /// Reports an event of an assembly, a service or, with neither, of the deployable.
    pub(crate) fn report(
        &mut self,
        about: About,
        kind: EventKind,
        now: Timestamp,
        fill: impl FnOnce(&mut Event),
    ) {
        let (assembly, service) = match about {
            About::Deployable => (None, None),
            About::Assembly(index) => (Some(self.definition.assembly(index).name.clone()), None),
            About::Service(index) => {
                let service = self.definition.service(index);
                (Some(self.definition.assembly(service.assembly).name.clone()), Some(service.name.clone()))
            }
        };
        let mut event = Event { assembly, service, ..Event::new(kind, "", now) };
        fill(&mut event);
        self.output(Output::Report(event));
    }

    /// `deployable/assembly/service`, for a sentence.
    pub(crate) fn name_of(&self, about: About) -> String {
        let deployable = &self.definition.name;
        match about {
            About::Deployable => deployable.to_string(),
            About::Assembly(index) => format!("{deployable}/{}", self.definition.assembly(index).name),
            About::Service(index) => {
                let service = self.definition.service(index);
                format!("{deployable}/{}/{}", self.definition.assembly(service.assembly).name, service.name)
            }
        }
    }
}

/// What something is said of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    Deployable,
    Assembly(AssemblyIndex),
    Service(ServiceIndex),
}

/// What a recovery is for, or what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Assembly(AssemblyIndex),
    Service(ServiceIndex),
}

impl From<Part> for About {
    fn from(part: Part) -> Self {
        match part {
            Part::Assembly(index) => Self::Assembly(index),
            Part::Service(index) => Self::Service(index),
        }
    }
}

pub(crate) fn fresh_service(state: State, now: Timestamp) -> ServicePart {
    ServicePart {
        state,
        misses: 0,
        deadlines: 0,
        since: now,
        passed: Timestamp::ZERO,
        poll: Poll::due_at(now),
        setup: None,
        warning: None,
        trouble: None,
    }
}
