//! The direct probes of one deployable: which host each is made to now, and what is kept between two of them. Beside the sessions
//! (`sessions.rs`), which carry all other probes, those with `from = "guest"` included.

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

    /// What is asked at that host. What is the same as before keeps its connection.
    pub fn at(&mut self, target: Target, what: &Arc<Direct>, host: &Arc<str>) -> Arc<direct::Target> {
        // One whose path refers to something is made anew each time.
        let same = |known: &&Known| known.what == *what && known.at.host() == host;
        if let Some(known) = self.targets.get(&target).filter(same) {
            return Arc::clone(&known.at);
        }
        let at = self.prober.target(Arc::clone(what), Arc::clone(host));
        self.targets.insert(target, Known { what: Arc::clone(what), at: Arc::clone(&at) });
        at
    }

    /// Asks at that host, from here.
    pub fn submit(
        &mut self,
        probe: ProbeId,
        target: Target,
        what: &Arc<Direct>,
        host: &Arc<str>,
        timeout: Duration,
    ) {
        let purpose = match target {
            Target::Channel(_) => Purpose::Channel,
            Target::Service(_) => Purpose::Service,
        };
        let results = self.results.clone();
        // There is room for all that can be in flight; an answer that finds none is one that the engine has given up.
        let answer = move |answer| drop(results.try_send(answer));
        self.at(target, what, host).submit(probe, purpose, timeout, answer);
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
