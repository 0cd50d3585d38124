//! Which events have no line of their own for a person, because another event tells the same thing better. One incident would otherwise be
//! ten lines: the states of the service, of its assembly and of its deployable all change. `--json` has everything.

use std::collections::BTreeSet;

use cpe_proto::event::{Event, EventKind, EventRecord};
use cpe_proto::state::State;

/// Subjects that are remembered; beyond that their return to healthy has no line.
const SUBJECTS_MAX: usize = 10_000;

/// Remembers of whom something bad was shown, so that its end is shown too.
#[derive(Clone, Debug, Default)]
pub(super) struct Quiet {
    shown: BTreeSet<String>,
}

impl Quiet {
    /// Whether this event has no line.
    pub(super) fn hides(&mut self, record: &EventRecord) -> bool {
        let event = &record.event;
        match event.kind {
            // Its incident's opening says the same; of an assembly it says which row of isolation.
            EventKind::FaultIsolated => event.service.is_some() && event.incident.is_some(),
            EventKind::StateChanged => self.hides_state(record),
            _ => false,
        }
    }

    fn hides_state(&mut self, record: &EventRecord) -> bool {
        let event = &record.event;
        let Some(to) = event.to else { return false };
        if event.from == event.to {
            // A warning came or went: nothing else says so.
            return false;
        }
        match to {
            // The recovery's start says it.
            State::Recovering => true,
            State::Healthy => !self.ends(record),
            // The incident's opening says it, and of an assembly the fault's isolation.
            State::Failed if event.service.is_some() => true,
            State::Failed | State::Unreachable | State::Misconfigured | State::Suspected
                if event.service.is_none() && event.incident.is_some() =>
            {
                true
            }
            State::Starting | State::Suspected | State::Unknown if is_whole(event) => true,
            _ if follows_from_a_part(event, to) || follows_from_the_channel(event, to) => true,
            _ => {
                if self.shown.len() < SUBJECTS_MAX {
                    self.shown.insert(record.subject());
                }
                false
            }
        }
    }

    /// Whether becoming healthy ends something that was shown and that no other event ends.
    fn ends(&mut self, record: &EventRecord) -> bool {
        let event = &record.event;
        let shown = self.shown.remove(&record.subject());
        // The end of the recovery, or of the incident, says it.
        event.incident.is_none() && (shown || is_whole(event))
    }
}

/// Of a whole deployable.
fn is_whole(event: &Event) -> bool {
    event.assembly.is_none() && event.service.is_none()
}

/// An assembly that is what its worst service is: "nginx is suspected".
fn follows_from_a_part(event: &Event, to: State) -> bool {
    event.service.is_none() && event.assembly.is_some() && event.reason.ends_with(&format!(" is {to}"))
}

/// A service that cannot be seen because of its assembly's channel: "channel timed out".
fn follows_from_the_channel(event: &Event, to: State) -> bool {
    event.service.is_some() && to == State::Unknown && event.reason.starts_with("channel ")
}
