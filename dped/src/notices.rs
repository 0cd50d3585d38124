//! Of which incidents a person is told: of none that they know of (`cpe ack`), and that one is over only if they were told of it. Beside
//! the engines, for all of them; what is sent, how often and to whom is the controller's.

use std::collections::BTreeSet;

use cpe_proto::id::{IncidentId, Name};

/// Incidents that are remembered of each kind; the first by name and number are forgotten.
const REMEMBERED: usize = 10_000;

/// An incident of a deployable.
pub type IncidentKey = (Name, IncidentId);

/// What a person knows of open incidents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    acknowledged: BTreeSet<IncidentKey>,
    told: BTreeSet<IncidentKey>,
}

impl Notices {
    /// As an earlier process left them: open incidents of which a person was told, and those that a person acknowledged.
    #[must_use]
    pub const fn taken_up(told: BTreeSet<IncidentKey>, acknowledged: BTreeSet<IncidentKey>) -> Self {
        Self { acknowledged, told }
    }

    /// A person knows: nothing more is told of it.
    pub fn acknowledge(&mut self, incident: IncidentKey) {
        remember(&mut self.acknowledged, incident);
    }

    /// Whether a person has said that they know.
    #[must_use]
    pub fn is_acknowledged(&self, incident: &IncidentKey) -> bool {
        self.acknowledged.contains(incident)
    }

    /// Whether something about an incident is told.
    pub fn tell(&mut self, incident: IncidentKey) -> bool {
        if self.is_acknowledged(&incident) {
            return false;
        }
        remember(&mut self.told, incident);
        true
    }

    /// An incident is over: whether that is told.
    pub fn close(&mut self, incident: &IncidentKey) -> bool {
        let known = self.acknowledged.remove(incident);
        self.told.remove(incident) && !known
    }

    /// The open incidents of which a person was told.
    #[must_use]
    pub const fn told(&self) -> &BTreeSet<IncidentKey> {
        &self.told
    }
}

fn remember(set: &mut BTreeSet<IncidentKey>, incident: IncidentKey) {
    set.insert(incident);
    if set.len() > REMEMBERED {
        set.pop_first();
    }
}
