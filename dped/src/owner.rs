//! Whose a machine is (policy.md section 7): one that bears another controller's mark is watched and reported, and never acted upon. That
//! nothing is done is `held_back`'s (`fault.rs`), for the engine's own actions, steps and a person's orders alike; here it is learned.

use cpe_proto::event::EventKind;
use cpe_proto::id::AssemblyIndex;
use cpe_proto::infrastructure::Owner;
use cpe_proto::time::Timestamp;

use crate::engine::{About, Engine};
use crate::output::Output;

impl Engine {
    /// A look says whose mark a machine bears. Said once to a person, and as an event at each change.
    pub(crate) fn owned(&mut self, index: AssemblyIndex, owner: Owner, now: Timestamp) {
        let foreign = match owner {
            Owner::NotSaid => return,
            Owner::OursOrNone => None,
            Owner::Another(controller) => Some(controller),
        };
        if !self.knows(index) || self.assembly(index).foreign == foreign {
            return;
        }
        self.assembly_mut(index).foreign.clone_from(&foreign);
        let Some(controller) = foreign else {
            self.assembly_mut(index).given_back = true;
            return self.tell_ours(index, "it bears no other controller's mark any more", now);
        };
        self.report(About::Assembly(index), EventKind::OwnerChanged, now, |it| {
            it.reason = format!("foreign: it bears the mark of controller {controller}").into();
        });
        if let Some(said) = self.foreign_said(index).filter(|_| !self.in_maintenance(index)) {
            let message = format!("{}: {said}", self.name_of(About::Assembly(index)));
            self.output(Output::Notify { incident: None, message: message.into() });
        }
    }

    /// Told again after a restart: the event may have been lost with the process that told it.
    pub(crate) fn tell_ours(&mut self, index: AssemblyIndex, why: &str, now: Timestamp) {
        self.report(About::Assembly(index), EventKind::OwnerChanged, now, |it| {
            it.reason = format!("ours: {why}").into();
        });
    }

    /// That it is another controller's, as a clause for a person.
    pub(crate) fn foreign_said(&self, index: AssemblyIndex) -> Option<String> {
        let controller = self.foreign(index)?;
        let name = self.name_of(About::Assembly(index));
        Some(format!(
            "it bears the mark of another controller, {controller}: it is watched and never acted upon; `cpe claim {name}` takes it over"
        ))
    }

    /// The other controller that a machine belongs to.
    #[must_use]
    pub fn foreign(&self, index: AssemblyIndex) -> Option<&str> {
        self.assembly(index).foreign.as_deref()
    }
}
