//! Events that the controller itself makes; those of a policy engine come from `dped`.

use cpe_proto::event::{Event, EventKind};

use crate::clock;

/// An event of this moment, without an incident, an action or states.
#[must_use]
pub fn plain(kind: EventKind, reason: &str) -> Event {
    Event::new(kind, reason, clock::now())
}
