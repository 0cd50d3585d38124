//! What was begun on a machine and not seen to end may still be done, for `action_give_up` after it was begun: until then nothing is
//! replaced, and while it may be a creation nothing starts the old instance beside it. An outcome ends that, also one that comes late. Who
//! asks: the ladder (`recover.rs`), a person's order (`hand.rs`), an ordered start (`power.rs`).

use cpe_proto::id::{ActionId, AssemblyIndex};
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::AstraySnapshot;
use cpe_proto::time::Timestamp;

use crate::engine::Engine;
use crate::input::ActionOutcome;

/// An action on a machine that was given out and whose outcome is not known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Astray {
    pub(crate) action: ActionId,
    /// It is not done any more after this.
    pub(crate) until: Timestamp,
    /// It makes a new instance.
    pub(crate) makes: bool,
}

/// So many of one machine are kept in mind. While a new instance may come up nothing is done that could push it out.
const KEPT: usize = 8;

impl Astray {
    pub(crate) fn snapshot(&self, now: Timestamp) -> Option<AstraySnapshot> {
        let left = self.until.since(now);
        (!left.is_zero()).then(|| AstraySnapshot {
            action: self.action,
            makes: self.makes,
            left: left.into(),
        })
    }
}

impl Engine {
    /// An action on a machine is given out.
    pub(crate) fn sends(&mut self, index: AssemblyIndex, action: ActionId, makes: bool, now: Timestamp) {
        let until = now.after(self.definition().timing.action_give_up);
        let astray = &mut self.assembly_mut(index).astray;
        // The two steps of one recovery have one number.
        astray.retain(|it| now < it.until && it.action != action);
        if astray.len() == KEPT {
            astray.remove(0);
        }
        astray.push(Astray { action, until, makes });
    }

    /// What came of an action is known.
    pub(crate) fn arrives(&mut self, action: ActionId, outcome: &ActionOutcome) {
        if matches!(outcome, ActionOutcome::Unresolved { .. }) {
            return;
        }
        let is_it = |it: &Astray| it.action == action;
        let of = |index: &AssemblyIndex| self.assembly(*index).astray.iter().any(is_it);
        if let Some(index) = self.definition().assembly_indices().find(of) {
            self.assembly_mut(index).astray.retain(|it| !is_it(it));
            self.changed = true;
        }
    }

    /// A rung may not be tried before that: what it does and what may still be done would come to two instances, or to none.
    pub(crate) fn astray_until(&self, index: AssemblyIndex, rung: Rung, now: Timestamp) -> Option<Timestamp> {
        self.latest(index, now, |it| rung.replaces() || it.makes)
    }

    /// A new instance may still come up until then.
    pub(crate) fn making_until(&self, index: AssemblyIndex, now: Timestamp) -> Option<Timestamp> {
        self.latest(index, now, |it| it.makes)
    }

    fn latest(
        &self,
        index: AssemblyIndex,
        now: Timestamp,
        of: impl Fn(&Astray) -> bool,
    ) -> Option<Timestamp> {
        self.assembly(index).astray.iter().filter(|it| now < it.until && of(it)).map(|it| it.until).max()
    }
}
