//! What an earlier cpe left in the journal: each engine as it was last written down, actions without an outcome, open incidents. What the
//! snapshot knows is carried on by the new engine, which looks at an action in flight and never repeats it (design.md section 4, rule 4);
//! what it does not know is ended here, and told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cpe_proto::api::Intent;
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::snapshot::Snapshot;
use cpe_proto::time::Timestamp;

use crate::clock;
use crate::event::plain;
use crate::journal::{Park, StartState};
use crate::shared::Shared;

/// An engine as it was written down, and how long ago.
#[derive(Clone, Debug)]
pub struct Kept {
    snapshot: Snapshot,
    /// How old it was at `at`.
    age: Duration,
    at: Timestamp,
}

impl Kept {
    /// Written down now.
    #[must_use]
    pub fn new(snapshot: Snapshot, now: Timestamp) -> Self {
        Self { snapshot, age: Duration::ZERO, at: now }
    }

    /// What was written down.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// How long ago.
    #[must_use]
    pub fn elapsed(&self, now: Timestamp) -> Duration {
        self.age.saturating_add(now.since(self.at))
    }

    /// The actions that its engine goes on with.
    #[must_use]
    pub fn actions(&self) -> BTreeSet<ActionId> {
        self.snapshot.carried_on().0
    }

    /// The incidents that its engine goes on with.
    #[must_use]
    pub fn incidents(&self) -> BTreeSet<IncidentId> {
        self.snapshot.carried_on().1
    }
}

/// What one deployable left.
#[derive(Clone, Debug, Default)]
pub struct Past {
    snapshot: Option<Kept>,
    unresolved: Vec<Intent>,
    incidents: Vec<IncidentId>,
    parked: Option<Park>,
}

/// What all deployables left.
#[must_use]
pub fn of(start: &StartState) -> BTreeMap<Name, Past> {
    let mut all: BTreeMap<Name, Past> = BTreeMap::new();
    let now = clock::now();
    for (name, (age, snapshot)) in &start.snapshots {
        let kept = Kept { snapshot: snapshot.clone(), age: *age, at: now };
        all.entry(name.clone()).or_default().snapshot = Some(kept);
    }
    for (_, intent) in &start.unresolved {
        all.entry(intent.deployable.clone()).or_default().unresolved.push(intent.clone());
    }
    for (name, incident) in &start.open_incidents {
        all.entry(name.clone()).or_default().incidents.push(*incident);
    }
    for (name, park) in &start.parked {
        all.entry(name.clone()).or_default().parked = Some(park.clone());
    }
    all
}

impl Past {
    /// What an engine of this process left when it panicked; its actions have ended, and their outcomes are in the journal.
    #[must_use]
    pub fn of_panicked(snapshot: Option<Kept>, incidents: impl IntoIterator<Item = IncidentId>) -> Self {
        let incidents = incidents.into_iter().collect();
        Self { snapshot, unresolved: Vec::new(), incidents, parked: None }
    }

    /// Whether an earlier cpe had parked it; told once.
    pub fn take_park(&mut self) -> Option<Park> {
        self.parked.take()
    }

    /// The actions that a new engine goes on with.
    #[must_use]
    pub fn actions(&self) -> BTreeSet<ActionId> {
        self.snapshot.as_ref().map(Kept::actions).unwrap_or_default()
    }

    /// The incidents that were open.
    #[must_use]
    pub fn open(&self) -> &[IncidentId] {
        &self.incidents
    }

    /// Ends in the journal what nobody carries on, and returns what the new engine takes up.
    pub fn settle(self, shared: &Shared, deployable: &Name) -> Option<Kept> {
        let known = self.snapshot.as_ref().map(|kept| kept.snapshot.carried_on()).unwrap_or_default();
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
            let reason = "not known to the engine that was started anew; what is still broken opens an incident of its own";
            let event = Event { incident: Some(incident), ..plain(EventKind::IncidentClosed, reason) };
            shared.report(Some(deployable), event);
        }
        self.snapshot
    }
}

/// All actions that the engines of a snapshot go on with.
#[must_use]
pub fn carried_on_by_all(start: &StartState) -> BTreeSet<(Name, ActionId)> {
    let of_one = |(name, (_, snapshot)): (&Name, &(Duration, Snapshot))| {
        snapshot.carried_on().0.into_iter().map(|action| (name.clone(), action)).collect::<Vec<_>>()
    };
    start.snapshots.iter().flat_map(of_one).collect()
}
