//! Events that the controller itself makes; those of a policy engine come from `dped`.

use cpe_proto::event::{Event, EventKind};

use crate::clock;

/// An event without an incident, an action or states.
#[must_use]
pub fn plain(kind: EventKind, reason: &str) -> Event {
    Event {
        at: clock::now(),
        kind,
        assembly: None,
        service: None,
        from: None,
        to: None,
        reason: reason.into(),
        incident: None,
        action: None,
        rung: None,
    }
}
