//! The direct probes of one deployable: which host each is made to now, and what is kept between two of them. Beside the sessions
//! (`sessions.rs`), which carry all other probes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cpe_monitor::direct::{self, Prober, Purpose};
use cpe_monitor::ssh::Answer;
use cpe_proto::definition::{Deployable, Direct, Monitor};
use cpe_proto::id::ProbeId;
use dped::Target;
use tokio::sync::mpsc;

/// What is probed directly.
pub struct DirectProbes {
    prober: Prober,
    results: mpsc::Sender<Answer>,
    targets: BTreeMap<Target, Known>,
}

/// What was asked last.
struct Known {
    what: Arc<Direct>,
    at: Arc<direct::Target>,
}

impl DirectProbes {
    /// None yet.
    #[must_use]
    pub fn new(prober: Prober, results: mpsc::Sender<Answer>) -> Self {
        Self { prober, results, targets: BTreeMap::new() }
    }

    /// Asks at that host. What is the same as before keeps its connection.
    pub fn submit(
        &mut self,
        probe: ProbeId,
        target: Target,
        what: &Arc<Direct>,
        host: &Arc<str>,
        timeout: Duration,
    ) {
        let same = |known: &Known| Arc::ptr_eq(&known.what, what) && known.at.host() == host;
        if !self.targets.get(&target).is_some_and(same) {
            let at = self.prober.target(Arc::clone(what), Arc::clone(host));
            self.targets.insert(target, Known { what: Arc::clone(what), at });
        }
        let Some(known) = self.targets.get(&target) else { return };
        let purpose = match target {
            Target::Channel(_) => Purpose::Channel,
            Target::Service(_) => Purpose::Service,
        };
        let results = self.results.clone();
        // There is room for all that can be in flight; an answer that finds none is one that the engine has given up.
        known.at.submit(probe, purpose, timeout, move |answer| drop(results.try_send(answer)));
    }

    /// What was kept is let go: the definition has changed.
    pub fn forget(&mut self) {
        self.targets.clear();
    }
}

/// The direct probe of a target; none: it is made over a session.
#[must_use]
pub fn of(definition: &Deployable, target: Target) -> Option<&Arc<Direct>> {
    match target {
        Target::Channel(assembly) => match &definition.assembly(assembly).monitor {
            Monitor::Direct(what) => Some(what),
            Monitor::Ssh => None,
        },
        Target::Service(service) => definition.service(service).check.direct(),
    }
}
