//! What a world is made of: definitions, infrastructures, canaries. And an infrastructure as the world has it, with what ails it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::definition::Deployable;
use cpe_proto::id::Name;
use cpe_proto::infrastructure::{Capabilities, Operation};
use cpe_proto::time::Timestamp;

use super::happening::Fate;

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// What is managed.
    pub definitions: Vec<Arc<Deployable>>,
    /// The infrastructures that they name.
    pub infrastructures: BTreeMap<Name, InfrastructureKind>,
    /// Failure domains that are evacuated when they are dead, and by which infrastructure.
    pub shared_points: BTreeMap<Name, Name>,
    /// How many canaries there are.
    pub canaries: usize,
    /// How long a machine boots.
    pub boot: Duration,
    /// What the wall clock shows at the beginning, in milliseconds since 1970-01-01T00:00:00Z.
    pub wall: u64,
}

/// What it shows where nobody says: some Wednesday of 2026, 11:23 in UTC.
pub(super) const WALL: u64 = 1_795_001_000_000;

/// What an infrastructure is like.
#[derive(Clone, Debug)]
pub struct InfrastructureKind {
    /// What it can do.
    pub capabilities: Capabilities,
    /// It knows who stopped or deleted an instance, as OpenStack does.
    pub knows_who: bool,
    /// How long an operation takes.
    pub takes: Duration,
}

impl Default for InfrastructureKind {
    fn default() -> Self {
        let all: BTreeSet<Operation> = Operation::ALL.into_iter().collect();
        Self { capabilities: Capabilities(all), knows_who: true, takes: Duration::from_secs(2) }
    }
}

impl Fleet {
    /// These definitions, with infrastructures that can do everything, two canaries and machines that boot in 20 s.
    #[must_use]
    pub fn of(definitions: Vec<Arc<Deployable>>) -> Self {
        let named = definitions.iter().filter_map(|definition| definition.infrastructure.clone());
        let infrastructures = named.map(|name| (name, InfrastructureKind::default())).collect();
        Self {
            definitions,
            infrastructures,
            shared_points: BTreeMap::new(),
            canaries: 2,
            boot: Duration::from_secs(20),
            wall: WALL,
        }
    }
}

/// An infrastructure, and what ails it until when.
#[derive(Clone, Debug)]
pub(super) struct Infrastructure {
    pub(super) kind: InfrastructureKind,
    pub(super) down_until: Timestamp,
    pub(super) silent_until: Timestamp,
    pub(super) errors_until: Timestamp,
    pub(super) slow: Option<(Duration, Timestamp)>,
    /// What becomes of the next operations.
    pub(super) fates: VecDeque<Fate>,
}

impl Infrastructure {
    pub(super) const fn new(kind: InfrastructureKind) -> Self {
        Self {
            kind,
            down_until: Timestamp::ZERO,
            silent_until: Timestamp::ZERO,
            errors_until: Timestamp::ZERO,
            slow: None,
            fates: VecDeque::new(),
        }
    }

    pub(super) fn takes(&self, now: Timestamp) -> Duration {
        let slow = self.slow.filter(|(_, until)| now < *until).map_or(Duration::ZERO, |(takes, _)| takes);
        self.kind.takes + slow
    }

    /// Nothing ails it any more.
    pub(super) fn mend(&mut self) {
        *self = Self::new(self.kind.clone());
    }
}
