//! The loop around one engine: the only caller of its four methods. It carries what the engine decides to the sessions
//! (`sessions.rs`), the infrastructures and guests (`actions.rs`), the guard and the journal, and what happens back to the engine.
//! It decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cpe_monitor::ssh::{Answer as Landed, Probe};
use cpe_proto::decision::{Answer, Refusal};
use cpe_proto::definition::{Check, Deployable, Mode};
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{ActionId, AssemblyIndex, IncidentId, Name, ProbeId};
use cpe_proto::infrastructure::{InstanceState, Owner};
use cpe_proto::observation::Observation;
use cpe_proto::time::Timestamp;
use dped::{Engine, HealthClass, Input, Order, Output, Place, Prover, Request, Seed, Surroundings, Target};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Sleep};

use crate::actions::{self, Work};
use crate::clock;
use crate::direct;
use crate::event::plain;
use crate::metrics::Tally;
use crate::past::{Kept, Past};
use crate::services::{self, Given};
use crate::sessions::{Sessions, same_machines};
use crate::shared::Shared;
use crate::view;
use cpe_proto::api::DeployableStatus;

/// All assemblies are reached over one network path until jump hosts come.
pub const PATH: &str = "default";

/// How many messages a driver takes from a queue before it lets its engine speak.
const BATCH: usize = 64;

/// An infrastructure that has not said yet what it can do is waited for in such steps.
const OWNERS_ASKED_AFTER: Duration = Duration::from_secs(1);

/// What became of an order: what is done, or why nothing is.
pub type OrderAnswer = Result<Box<str>, Box<str>>;

/// Where that goes.
pub type Reply = oneshot::Sender<OrderAnswer>;

/// What a driver is told.
#[derive(Debug)]
pub enum Message {
    /// Something happened.
    Input(Input),
    /// An infrastructure said what it knows of an assembly.
    Seen(Seen),
    /// A person's order, and who waits for what becomes of it.
    Ordered(Order, Reply),
    /// The infrastructure keeps marks: whose the machines are is to be asked.
    AskOwners,
    /// A person takes over a machine that bears another controller's mark.
    Claim(AssemblyIndex, oneshot::Sender<Result<(), String>>),
    /// Somebody wants to know.
    Status(oneshot::Sender<DeployableStatus>),
    /// The loop ends, and the engine is to be found again in the journal.
    Close,
    /// The loop ends: the deployable is managed no more.
    Forget,
    /// The engine panics.
    #[cfg(test)]
    Panic(&'static str),
}

/// What an infrastructure said of an assembly.
#[derive(Debug)]
pub struct Seen {
    /// As it was when the infrastructure was asked.
    pub definition: Arc<Deployable>,
    /// Which.
    pub assembly: AssemblyIndex,
    /// Its state.
    pub state: InstanceState,
    /// Its id, where the infrastructure has one.
    pub instance: Option<Arc<str>>,
    /// Where it is reached, where the infrastructure knows.
    pub address: Option<Arc<str>>,
    /// Whose mark it bears.
    pub owner: Owner,
}

/// One engine and all that is around it.
pub struct Driver {
    name: Name,
    engine: Engine,
    sessions: Sessions,
    shared: Arc<Shared>,
    mailbox: mpsc::Receiver<Message>,
    /// Before anything of the mailbox.
    first: Vec<Message>,
    /// For what is spawned to answer to.
    sender: mpsc::Sender<Message>,
    results: mpsc::Receiver<Landed>,
    gaps: watch::Receiver<u64>,
    /// Instance ids by assembly, as far as the infrastructure told them.
    instances: Vec<Option<Arc<str>>>,
    /// Our mark was put on these, or tried to be: once is enough.
    marked: Vec<bool>,
    /// What the guard was told of each assembly's health.
    classes: Vec<Option<HealthClass>>,
    /// A state has changed since then.
    restated: bool,
    /// Who waits for what becomes of an order, by its number.
    waiting: BTreeMap<u64, Reply>,
    next_order: u64,
    /// The engine was told something since it was last asked whether it is to be written down.
    touched: bool,
    /// What outlives its panic: the last snapshot, ...
    kept: Option<Kept>,
    /// ... the incidents that were told to be open, ...
    open: BTreeSet<IncidentId>,
    /// ... and the states that were told.
    tally: Tally,
}

/// What is left of a driver whose engine panicked.
#[derive(Debug)]
pub struct Wreck {
    /// What the next engine takes up.
    pub past: Past,
    /// The states that its parts have in the gauges.
    pub tally: Tally,
    /// Ends when everything that was begun has ended: each holds a way to answer.
    pub mailbox: mpsc::Receiver<Message>,
}

impl Driver {
    /// A driver for a new engine, and the way to it.
    #[must_use]
    pub fn new(
        definition: Arc<Deployable>,
        seed: Seed,
        taken_up: Option<Kept>,
        shared: Arc<Shared>,
    ) -> (Self, mpsc::Sender<Message>) {
        let (sender, mailbox) = mpsc::channel(BATCH);
        // One probe is in flight for each target, and one more may be on its way that the engine has given up.
        let targets = definition.assemblies.len() + definition.services.len();
        let (results_sender, results) = mpsc::channel(2 * targets.max(1));
        let sessions = Sessions::new(&definition, Arc::clone(&shared), results_sender);
        let (name, now) = (definition.name.clone(), clock::now());
        let mut driver = Self {
            name,
            instances: vec![None; definition.assemblies.len()],
            marked: vec![false; definition.assemblies.len()],
            classes: vec![None; definition.assemblies.len()],
            restated: false,
            waiting: BTreeMap::new(),
            next_order: 1,
            touched: true,
            tally: Tally::default(),
            gaps: shared.lag.gaps(),
            open: taken_up.as_ref().map(Kept::incidents).unwrap_or_default(),
            engine: match &taken_up {
                Some(kept) => Engine::restore(definition, seed, kept.snapshot(), kept.elapsed(now), now),
                None => Engine::new(definition, seed, now),
            },
            kept: taken_up,
            sessions,
            shared,
            mailbox,
            first: Vec::new(),
            sender: sender.clone(),
            results,
        };
        driver.follow_moves();
        (driver, sender)
    }

    /// What its engine is to know before any probe has answered, so before anything is admitted.
    pub fn begin_with(&mut self, first: Vec<Message>) {
        self.first = first;
    }

    /// A machine that came back elsewhere is reached there, whatever its definition says.
    fn follow_moves(&mut self) {
        let definition = Arc::clone(self.engine.definition());
        for index in definition.assembly_indices() {
            if let Some(address) = self.engine.moved_to(index).cloned() {
                self.sessions.set_address(&definition, index, &address);
            }
        }
    }

    /// Runs until it is told to close. After a panic the driver is good for nothing but [`Self::wreck`].
    pub async fn run(&mut self) {
        self.tally = self.shared.metrics.loaded(&view::deployable(&self.engine, &self.sessions));
        for message in std::mem::take(&mut self.first) {
            self.take(message);
        }
        self.ask_owners();
        let mut messages = Vec::with_capacity(BATCH);
        let mut results = Vec::with_capacity(BATCH);
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        loop {
            self.carry_out();
            let wake = self.engine.poll_timeout().map(|(at, _)| clock::tick_after(at));
            reset(sleep.as_mut(), wake);
            tokio::select! {
                _ = self.mailbox.recv_many(&mut messages, BATCH) => {
                    for message in messages.drain(..) {
                        if self.take(message) {
                            self.shared.metrics.unloaded(&self.tally);
                            return;
                        }
                    }
                }
                _ = self.results.recv_many(&mut results, BATCH) => {
                    for result in results.drain(..) {
                        self.landed(result);
                    }
                }
                () = sleep.as_mut(), if wake.is_some() => self.wake(wake),
                Ok(()) = self.gaps.changed() => {
                    let reason = "this process stood still".into();
                    self.tell(Input::EvidenceVoid { reason }, clock::now());
                }
            }
        }
    }

    /// Whether that is the way to it.
    #[must_use]
    pub fn is_behind(&self, mailbox: &mpsc::Sender<Message>) -> bool {
        self.sender.same_channel(mailbox)
    }

    /// What is left after a panic.
    #[must_use]
    pub fn wreck(self) -> Wreck {
        Wreck { past: Past::of_panicked(self.kept, self.open), tally: self.tally, mailbox: self.mailbox }
    }

    fn tell(&mut self, input: Input, now: Timestamp) {
        self.touched = true;
        self.engine.handle_input(input, now);
    }

    fn wake(&mut self, due: Option<Timestamp>) {
        let now = clock::now();
        if let Some(due) = due {
            self.shared.lag.observe(due, now);
            self.shared.metrics.lateness(now.since(due));
        }
        self.touched = true;
        self.engine.handle_timeout(now);
    }

    /// Whether the loop ends.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Input(Input::Definition(definition)) => self.define(definition),
            Message::Input(input) => self.tell(input, clock::now()),
            Message::Seen(seen) => self.seen(seen),
            Message::Ordered(order, reply) => self.ordered(order, reply),
            Message::AskOwners => {
                let definition = Arc::clone(self.engine.definition());
                definition.assembly_indices().for_each(|index| self.ask_instance(index));
            }
            Message::Claim(assembly, reply) => self.claim(assembly, reply),
            Message::Status(reply) => {
                let mut status = view::deployable(&self.engine, &self.sessions);
                view::add_guard_waits(&mut status, self.engine.definition(), &self.shared.guard());
                let _ = reply.send(status);
            }
            Message::Close => return true,
            Message::Forget => {
                say_goodbye(&self.shared, &self.name, self.open.iter().copied());
                return true;
            }
            #[cfg(test)]
            Message::Panic(text) => panic!("{text}"),
        }
        false
    }

    fn claim(&mut self, assembly: AssemblyIndex, reply: oneshot::Sender<Result<(), String>>) {
        if usize::from(assembly.0) >= self.marked.len() {
            let _ = reply.send(Err("there is no such assembly any more".to_owned()));
            return;
        }
        self.marked[usize::from(assembly.0)] = true;
        let work = self.work(assembly);
        tokio::spawn(async move {
            // Who asked may have gone.
            let _ = reply.send(actions::claim(work).await);
        });
    }

    /// Orders are numbered here, where their answers come back.
    fn ordered(&mut self, mut order: Order, reply: Reply) {
        let number = self.next_order;
        match &mut order {
            Order::Recover(wanted) => wanted.order = number,
            Order::ConfirmFenced { order, .. } => *order = number,
            _ => {}
        }
        self.next_order += 1;
        self.waiting.insert(number, reply);
        self.tell(Input::Order(order), clock::now());
    }

    fn define(&mut self, definition: Arc<Deployable>) {
        let before = Arc::clone(self.engine.definition());
        self.sessions.follow(&before, &definition);
        let mut instances = vec![None; definition.assemblies.len()];
        for (index, same) in same_machines(&before, &definition) {
            instances[usize::from(same.0)] = self.instances[usize::from(index.0)].take();
        }
        self.instances = instances;
        self.marked = vec![false; definition.assemblies.len()];
        if !same_places(&before, &definition) {
            self.shared.guard().forget(&self.name);
        }
        self.classes = vec![None; definition.assemblies.len()];
        self.restated = true;
        self.shared.metrics.unmeasured(&self.name);
        self.shared.metrics.unloaded(&self.tally);
        self.tell(Input::Definition(definition), clock::now());
        self.follow_moves();
        self.tally = self.shared.metrics.loaded(&view::deployable(&self.engine, &self.sessions));
    }

    fn seen(&mut self, seen: Seen) {
        let Seen { definition, assembly, state, instance, address, owner } = seen;
        // The definition may have changed since it was asked.
        let name = &definition.assembly(assembly).name;
        let Some(assembly) = self.engine.definition().assembly_named(name.as_str()) else { return };
        if matches!(owner, Owner::Another(_)) {
            // Given back without a mark it gets ours again.
            self.marked[usize::from(assembly.0)] = false;
        }
        if let Some(instance) = instance {
            self.instances[usize::from(assembly.0)] = Some(instance);
        }
        if let Some(address) = &address {
            let definition = Arc::clone(self.engine.definition());
            self.sessions.set_address(&definition, assembly, address);
        }
        // Who ordered a state is known to no adapter yet: to the `command` contract nobody is.
        let input = Input::Instance { assembly, state, address, ordered: false, owner };
        self.tell(input, clock::now());
    }

    fn landed(&mut self, result: Landed) {
        let now = clock::now();
        let Some(flight) = self.sessions.landed(result.probe) else { return };
        let definition = self.engine.definition();
        let check = match flight.target {
            Target::Channel(_) => None,
            Target::Service(service) => Some(&definition.service(service).check),
        };
        self.shared.metrics.probed(check, &result.observation, now.since(flight.sent));
        if let (Some(Check::Nagios(_)), Target::Service(service)) = (check, flight.target) {
            let names =
                (definition.assembly(flight.assembly).name.clone(), definition.service(service).name.clone());
            let place = (self.name.clone(), names.0, names.1);
            self.shared.metrics.measured(place, result.measures, result.dropped);
        }
        let direct = direct::of(definition, flight.target).is_some();
        let alive = if direct { was_answered(&result.observation) } else { proves_life(&result.observation) };
        // A service may be looked at anywhere; an assembly that is reached directly proves the path as others do.
        if alive && (!direct || matches!(flight.target, Target::Channel(_))) {
            self.shared.guard().answered(PATH, &self.name, flight.assembly, now);
        }
        // What passed while we were late did pass; only what did not answer may be our own fault.
        let void = !alive && (self.shared.lag.exceeds(result.lag) || self.shared.lag.late_since(flight.sent));
        let input = Input::Probed { probe: result.probe, observation: result.observation, void };
        self.tell(input, now);
    }

    /// Does what the engine wants until it wants nothing more.
    fn carry_out(&mut self) {
        loop {
            self.write_down();
            let wanted = self.engine.poll_outputs();
            if wanted.is_empty() {
                break;
            }
            wanted.into_iter().for_each(|output| self.obey(output));
        }
        self.tell_health();
        self.sessions.flush();
    }

    /// What is begun must be known to whoever comes after us, so this goes before the outputs of each input.
    fn write_down(&mut self) {
        if std::mem::take(&mut self.touched) && self.engine.take_persist() {
            let now = clock::now();
            let snapshot = self.engine.snapshot(now);
            self.shared.journal.snapshot(self.name.clone(), Box::new(snapshot.clone()));
            self.kept = Some(Kept::new(snapshot, now));
        }
    }

    fn obey(&mut self, output: Output) {
        match output {
            Output::Probe { probe, target, timeout } => self.probe(probe, target, timeout),
            Output::AskInstance(assembly) => self.ask_instance(assembly),
            Output::AskSurroundings(assembly) => self.tell_surroundings(assembly),
            Output::AskAdmission(request) => self.ask_admission(&request),
            Output::Act(action) => {
                let give_up = self.engine.definition().timing.action_give_up;
                self.shared.guard().begins(&self.name, action.action, give_up, clock::now());
                let given = Given::of(&self.engine, action.act);
                let work = Work { given, ..self.work(action.assembly) };
                let session = self.sessions.session(action.assembly).cloned();
                tokio::spawn(actions::perform(work, session, action));
            }
            Output::Release(action) => self.release(action),
            Output::Reconnect(assembly) => self.sessions.reconnect(assembly),
            Output::Report(event) => {
                self.restated |= restates_health(&event);
                self.note(&event);
                self.shared.report(Some(&self.name), event);
            }
            Output::Record(decision) => self.shared.record(&self.name, decision),
            Output::Answer { order, answer } => {
                if let Some(waiting) = self.waiting.remove(&order) {
                    // Who asked may have gone.
                    let _ = waiting.send(answer);
                }
            }
            Output::Notify { incident, message } => self.shared.notify(&self.name, incident, &message),
        }
    }

    /// Keeps what a panic must not take along.
    fn note(&mut self, event: &Event) {
        self.tally.moved(event);
        match (event.kind, event.incident) {
            (EventKind::IncidentOpened, Some(incident)) => _ = self.open.insert(incident),
            (EventKind::IncidentClosed, Some(incident)) => _ = self.open.remove(&incident),
            _ => {}
        }
    }

    fn probe(&mut self, probe: ProbeId, target: Target, timeout: Duration) {
        let now = clock::now();
        let definition = Arc::clone(self.engine.definition());
        let what = match target {
            Target::Channel(_) => Ok(Probe::Channel),
            Target::Service(service) => services::probe(&self.engine, service),
        };
        let unsent = self.sessions.add(&definition, (probe, target, what), timeout, now);
        if let Some(observation) = unsent {
            self.tell(Input::Probed { probe, observation, void: false }, now);
        }
    }

    fn ask_instance(&mut self, assembly: AssemblyIndex) {
        let mut work = self.work(assembly);
        if self.engine.definition().mode == Mode::Act && work.adapter.as_ref().is_some_and(|it| it.claims()) {
            work.marks = !std::mem::replace(&mut self.marked[usize::from(assembly.0)], true);
        }
        tokio::spawn(actions::look(work));
    }

    /// Whose the machines are is looked at once, also while nothing ails them, where the infrastructure keeps marks.
    fn ask_owners(&self) {
        let Some(adapter) = self.adapter().cloned() else { return };
        let mailbox = self.sender.downgrade();
        tokio::spawn(async move {
            while !adapter.has_answered() {
                tokio::time::sleep(OWNERS_ASKED_AFTER).await;
                if mailbox.strong_count() == 0 {
                    return;
                }
            }
            // Nobody is there any more who wants to know.
            if let Some(mailbox) = mailbox.upgrade().filter(|_| adapter.claims()) {
                let _ = mailbox.send(Message::AskOwners).await;
            }
        });
    }

    fn tell_surroundings(&mut self, assembly: AssemblyIndex) {
        let now = clock::now();
        let domains = self.engine.domains(assembly);
        let (answered, self_trusted, held_domain) = {
            let guard = self.shared.guard();
            let answered = guard.path_proof(PATH, (&self.name, assembly), now);
            (answered, guard.self_trusted(PATH, now), guard.held_domain(&domains))
        };
        let by = answered.as_ref().map_or(String::new(), |(_, prover)| match prover {
            Prover::Peer(peer, index) => self.shared.label(peer, *index),
            Prover::Canary(index) => format!("canary {}", index + 1),
        });
        let adapter = self.adapter();
        let surroundings = Surroundings {
            self_trusted,
            held_domain,
            path_answered_ago: answered.map(|(ago, _)| ago),
            path_answered_by: by.into(),
            capabilities: adapter.map(|adapter| adapter.capabilities()),
        };
        self.tell(Input::Surroundings { assembly, surroundings }, now);
    }

    /// Tells the guard whose health has changed.
    fn tell_health(&mut self) {
        if !std::mem::take(&mut self.restated) {
            return;
        }
        let now = clock::now();
        let (view, definition) = (self.engine.view(), Arc::clone(self.engine.definition()));
        for (index, seen) in definition.assembly_indices().zip(&view.assemblies) {
            let class = HealthClass::of(seen.state, view.maintenance || seen.maintenance);
            let told = &mut self.classes[usize::from(index.0)];
            let Some(class) = class.filter(|class| *told != Some(*class)) else { continue };
            *told = Some(class);
            let domains = self.engine.domains(index);
            self.shared.guard().health(&self.name, index, &domains, class, now);
        }
        self.shared.hear_guard();
    }

    fn ask_admission(&mut self, request: &Request) {
        // The guard decides on what is known now, the loss of this one included.
        self.tell_health();
        let now = clock::now();
        let definition = Arc::clone(self.engine.definition());
        let domains = self.engine.domains(request.assembly).into_owned();
        let place = Place { infrastructure: definition.infrastructure.clone(), domains: &domains };
        let (answer, gates) = if self.shared.draining() {
            (Answer::Refused(Refusal::Paused), Vec::new())
        } else {
            let mut guard = self.shared.guard();
            let asked = guard.ask(&self.name, request, &place, now);
            if asked.0 == Answer::Admitted {
                self.shared.keep_guard(&mut guard, now);
            }
            asked
        };
        if let Answer::Refused(reason) = answer {
            self.shared.metrics.refused(reason);
        }
        self.tell(Input::Admission { action: request.action, answer, gates }, now);
    }

    fn release(&self, action: ActionId) {
        self.shared.guard().release(&self.name, action, clock::now());
    }

    fn adapter(&self) -> Option<&Arc<crate::adapter::Adapter>> {
        let name = self.engine.definition().infrastructure.as_ref()?;
        self.shared.infrastructures.get(name)
    }

    fn work(&self, assembly: AssemblyIndex) -> Work {
        Work {
            shared: Arc::clone(&self.shared),
            definition: Arc::clone(self.engine.definition()),
            adapter: self.adapter().cloned(),
            assembly,
            instance: self.instances[usize::from(assembly.0)].clone(),
            address: self.sessions.address(assembly).cloned(),
            zone: self.engine.zone(assembly).cloned(),
            given: Given::default(),
            made_with: self.engine.made_with(assembly),
            marks: false,
            reply: self.sender.clone(),
        }
    }
}

/// Closes in the journal what is open of a deployable, and says that nobody watches it any more.
pub fn say_goodbye(shared: &Shared, name: &Name, open: impl IntoIterator<Item = IncidentId>) {
    shared.guard().part(name);
    shared.metrics.unmeasured(name);
    for incident in open {
        let event = plain(EventKind::IncidentClosed, "managed no more: its definition was removed");
        shared.report(Some(name), Event { incident: Some(incident), ..event });
    }
    shared.journal.forget_snapshot(name.clone());
    let reason = "removed: managed no more, its machines are left as they are";
    shared.report(Some(name), plain(EventKind::DefinitionLoaded, reason));
}

/// Whether an event changes what the guard knows of an assembly's health.
fn restates_health(event: &Event) -> bool {
    let of_assembly = event.assembly.is_some() && event.service.is_none();
    event.kind == EventKind::MaintenanceChanged || of_assembly && event.kind == EventKind::StateChanged
}

/// Whether each assembly is the same machine in the same place.
fn same_places(before: &Deployable, after: &Deployable) -> bool {
    let kept = same_machines(before, after).filter(|(was, is)| was == is).count();
    kept == before.assemblies.len() && kept == after.assemblies.len()
}

/// Whether an observation can only come from a living guest.
fn proves_life(observation: &Observation) -> bool {
    matches!(
        observation,
        Observation::Alive | Observation::Unit(_) | Observation::Exited(..) | Observation::NotRunnable(_)
    )
}

/// Whether something answered a direct probe.
fn was_answered(observation: &Observation) -> bool {
    matches!(
        observation,
        Observation::Alive
            | Observation::Connected
            | Observation::Expected(_)
            | Observation::Warned(_)
            | Observation::Unexpected(_)
    )
}

fn reset(sleep: std::pin::Pin<&mut Sleep>, wake: Option<Timestamp>) {
    if let Some(wake) = wake {
        sleep.reset(Instant::now() + wake.since(clock::now()));
    }
}
