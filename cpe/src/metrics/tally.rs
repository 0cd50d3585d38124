//! The states that one deployable's parts have in the gauges. It outlives a panic of the engine, whose own view is worth nothing then.

use cpe_proto::api::DeployableStatus;
use cpe_proto::event::{Event, EventKind};
use cpe_proto::state::State;

use super::{Metrics, Scope, each_state, scope_of};

/// How many parts are in which state, as it was told.
#[derive(Clone, Debug, Default)]
pub struct Tally([[i32; State::ALL.len()]; 3]);

impl Tally {
    fn entered(&mut self, scope: Scope, state: State) {
        self.0[scope as usize][state as usize] += 1;
    }

    fn left(&mut self, scope: Scope, state: State) {
        self.0[scope as usize][state as usize] -= 1;
    }

    /// As [`Metrics::observe_event`] counts it.
    pub fn moved(&mut self, event: &Event) {
        if event.kind != EventKind::StateChanged {
            return;
        }
        let scope = scope_of(event);
        if let Some(from) = event.from {
            self.left(scope, from);
        }
        if let Some(to) = event.to {
            self.entered(scope, to);
        }
    }
}

impl Metrics {
    /// A deployable is managed from now on; its parts are in these states. Later changes come as events.
    #[must_use]
    pub fn loaded(&self, status: &DeployableStatus) -> Tally {
        let mut tally = Tally::default();
        each_state(status, |scope, state| {
            self.entered(scope, state);
            tally.entered(scope, state);
        });
        tally
    }

    /// A deployable is not managed any more.
    pub fn unloaded(&self, tally: &Tally) {
        for (gauges, counts) in self.states.iter().zip(&tally.0) {
            for (gauge, count) in gauges.iter().zip(counts) {
                gauge.dec_by(i64::from(*count));
            }
        }
    }
}
