//! What all drivers of one process share: the guard, the journal, the monitor, the infrastructures, the counters.
//! Made by `run.rs`, used by `driver.rs` and `actions.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cpe_monitor::direct::Prober;
use cpe_monitor::ssh::Monitor;
use cpe_proto::decision::Decision;
use cpe_proto::definition::Deployable;
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{AssemblyIndex, IncidentId, Name};
use dped::{Guard, GuardOutput};

use crate::adapter::Adapter;
use crate::clock;
use crate::evacuation;
use crate::event::plain;
use crate::journal::{Journal, Writable};
use crate::lag::Lag;
use crate::limits;
use crate::metrics::Metrics;
use crate::notify::Notifier;

/// What all drivers share.
pub struct Shared {
    /// The fleet guard: asked synchronously, never across a wait.
    pub guard: Mutex<Guard>,
    /// What is kept.
    pub journal: Journal,
    /// The way to all assemblies.
    pub monitor: Monitor,
    /// What the controller looks at itself.
    pub prober: Prober,
    /// The entries of cpe.toml.
    pub infrastructures: BTreeMap<Name, Arc<Adapter>>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The way to a person.
    pub notifier: Notifier,
    /// Our own lag.
    pub lag: Lag,
    /// What is managed, so that a peer can be named.
    definitions: Mutex<BTreeMap<Name, Arc<Deployable>>>,
    /// We are about to end: nothing new is begun.
    draining: AtomicBool,
    /// Actions under way.
    acting: AtomicUsize,
}

impl Shared {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        guard: Guard,
        journal: Journal,
        monitor: Monitor,
        infrastructures: BTreeMap<Name, Arc<Adapter>>,
        metrics: Arc<Metrics>,
        notifier: Notifier,
        lag: Lag,
    ) -> Self {
        Self {
            guard: Mutex::new(guard),
            journal,
            monitor,
            prober: Prober::new(limits::of_direct_probes(limits::assemblies_max())),
            infrastructures,
            metrics,
            notifier,
            lag,
            definitions: Mutex::default(),
            draining: AtomicBool::new(false),
            acting: AtomicUsize::new(0),
        }
    }

    /// The guard. A panic of another engine while it held the guard leaves the guard's own data whole: each call of it is one
    /// transition, so it is used on.
    pub fn guard(&self) -> MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A deployable is managed from now on.
    pub fn define(&self, definition: Arc<Deployable>) {
        let mut definitions = self.definitions.lock().unwrap_or_else(PoisonError::into_inner);
        definitions.insert(definition.name.clone(), definition);
    }

    /// The definition of a deployable that is managed.
    #[must_use]
    pub fn definition(&self, deployable: &Name) -> Option<Arc<Deployable>> {
        self.definitions.lock().unwrap_or_else(PoisonError::into_inner).get(deployable).cloned()
    }

    /// A deployable is managed no more.
    pub fn forget(&self, deployable: &Name) {
        self.definitions.lock().unwrap_or_else(PoisonError::into_inner).remove(deployable);
    }

    /// An assembly of any deployable, as `deployable/assembly`.
    #[must_use]
    pub fn label(&self, deployable: &Name, assembly: AssemblyIndex) -> String {
        let definitions = self.definitions.lock().unwrap_or_else(PoisonError::into_inner);
        let definition = definitions.get(deployable);
        let name = definition.and_then(|definition| definition.assemblies.get(usize::from(assembly.0)));
        name.map_or_else(|| deployable.to_string(), |assembly| format!("{deployable}/{}", assembly.name))
    }

    /// Keeps an event and counts it.
    pub fn report(&self, deployable: Option<&Name>, event: Event) {
        self.metrics.observe_event(&event);
        self.journal.event(deployable.cloned(), event);
    }

    /// Keeps a decision.
    pub fn record(&self, deployable: &Name, decision: Box<Decision>) {
        self.journal.decision(deployable.clone(), decision);
    }

    /// Tells a person.
    pub fn notify(&self, deployable: &Name, incident: Option<IncidentId>, message: &str) {
        tracing::warn!(%deployable, incident = incident.map(|incident| incident.0), "{message}");
        self.notifier.notify(deployable, incident, message);
    }

    /// Keeps and tells what the guard says by itself.
    pub fn hear_guard(self: &Arc<Self>) {
        let said: Vec<GuardOutput> = {
            let mut guard = self.guard();
            let said: Vec<GuardOutput> = std::iter::from_fn(|| guard.poll_output()).collect();
            if !said.is_empty() {
                // What is told is kept: a hold that a person heard of is not forgotten.
                self.keep_guard(&mut guard, clock::now());
            }
            said
        };
        for output in said {
            match output {
                GuardOutput::BreakerChanged { reason, .. } => {
                    self.report(None, plain(EventKind::BreakerChanged, &reason));
                }
                GuardOutput::Notify { message } => self.notify_of_controller(&message),
                GuardOutput::Evacuate(evacuate) => evacuation::begin(Arc::clone(self), evacuate),
            }
        }
    }

    /// It is about no deployable; the word that events of the controller itself have stands for one.
    fn notify_of_controller(&self, message: &str) {
        match Name::parse("cpe") {
            Ok(name) => self.notify(&name, None, message),
            Err(error) => tracing::error!(%error, "{message}"),
        }
    }

    /// Lets the guard know whether the journal can be written, for as long as the process runs: without it nothing is done. That
    /// nothing is done has to be known to a person.
    pub async fn follow_journal(self: Arc<Self>) {
        let mut writable = self.journal.writable();
        let mut worked = true;
        loop {
            let works = *writable.borrow_and_update() == Writable::Yes;
            self.guard().set_journal_writable(works);
            match (worked, works) {
                (true, false) => self.notify_of_controller(&format!(
                    "the journal cannot be written: {}; nothing is recovered until it can",
                    self.journal.health().reason
                )),
                (false, true) => self.notify_of_controller("the journal can be written again"),
                _ => {}
            }
            worked = works;
            if writable.changed().await.is_err() {
                // Its thread has ended.
                return self.guard().set_journal_writable(false);
            }
        }
    }

    /// From now on nothing new is begun.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether nothing new is begun.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Actions under way.
    #[must_use]
    pub fn acting(&self) -> usize {
        self.acting.load(Ordering::Acquire)
    }

    /// Counts an action for as long as the answer lives.
    #[must_use]
    pub fn begin_action(self: &Arc<Self>) -> Acting {
        self.acting.fetch_add(1, Ordering::AcqRel);
        Acting(Arc::clone(self))
    }
}

/// An action under way.
pub struct Acting(Arc<Shared>);

impl Drop for Acting {
    fn drop(&mut self) {
        self.0.acting.fetch_sub(1, Ordering::AcqRel);
    }
}
