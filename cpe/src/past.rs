//! What an earlier cpe left in the journal: each engine as it was last written down, actions without an outcome, open incidents. What the
//! snapshot knows is carried on by the new engine, which looks at an action in flight and never repeats it (design.md section 4, rule 4);
//! what it does not know is ended here, and told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cpe_proto::api::Intent;
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::snapshot::{AssemblySnapshot, Snapshot};

use crate::clock;
use crate::event::plain;
use crate::journal::StartState;
use crate::shared::Shared;

/// What one deployable left.
#[derive(Clone, Debug, Default)]
pub struct Past {
    snapshot: Option<(u64, Snapshot)>,
    unresolved: Vec<Intent>,
    incidents: Vec<IncidentId>,
}

/// What all deployables left.
#[must_use]
pub fn of(start: &StartState) -> BTreeMap<Name, Past> {
    let mut all: BTreeMap<Name, Past> = BTreeMap::new();
    for (name, snapshot) in &start.snapshots {
        all.entry(name.clone()).or_default().snapshot = Some(snapshot.clone());
    }
    for (_, intent) in &start.unresolved {
        all.entry(intent.deployable.clone()).or_default().unresolved.push(intent.clone());
    }
    for (name, incident) in &start.open_incidents {
        all.entry(name.clone()).or_default().incidents.push(*incident);
    }
    all
}

impl Past {
    /// Ends in the journal what nobody carries on, and returns what the new engine takes up, with how long ago it was written.
    pub fn settle(self, shared: &Shared, deployable: &Name) -> Option<(Snapshot, Duration)> {
        let known = self.snapshot.as_ref().map(|(_, snapshot)| carried_on(snapshot)).unwrap_or_default();
        for intent in self.unresolved {
            let outcome = "not known: cpe ended before it was told; fresh probes show what came of it";
            shared.journal.resolve(deployable, intent.action, outcome);
            if !known.0.contains(&intent.action) {
                let event = Event {
                    assembly: Some(intent.assembly),
                    service: intent.service,
                    incident: intent.incident,
                    action: Some(intent.action),
                    rung: intent.rung,
                    ..plain(EventKind::RecoveryFinished, outcome)
                };
                shared.report(Some(deployable), event);
            }
        }
        for incident in self.incidents.into_iter().filter(|incident| !known.1.contains(incident)) {
            let reason = "cpe was started anew; what is still broken opens an incident of its own";
            let event = Event { incident: Some(incident), ..plain(EventKind::IncidentClosed, reason) };
            shared.report(Some(deployable), event);
        }
        let written = |(at, snapshot)| (snapshot, Duration::from_millis(clock::wall_ms().saturating_sub(at)));
        self.snapshot.map(written)
    }
}

/// The actions and incidents that a snapshot's engine goes on with.
fn carried_on(snapshot: &Snapshot) -> (BTreeSet<ActionId>, BTreeSet<IncidentId>) {
    let (mut actions, mut incidents) = (BTreeSet::new(), BTreeSet::new());
    for AssemblySnapshot { past, recovery, step, services, .. } in &snapshot.assemblies {
        let pasts = past.iter().chain(services.iter().filter_map(|service| service.past.as_ref()));
        incidents.extend(pasts.filter_map(|past| past.incident));
        actions.extend(step.iter().map(|step| step.action));
        actions.extend(recovery.iter().map(|recovery| recovery.action));
        incidents.extend(recovery.iter().map(|recovery| recovery.incident));
    }
    (actions, incidents)
}
