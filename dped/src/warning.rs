//! Warnings: what passes, and says that a person should look at it (a plugin's WARNING, a degraded resource). No recovery is tried for
//! one. It is told once, as an event and to a person, and again only after it was gone for as long as closes an incident.

use cpe_proto::event::EventKind;
use cpe_proto::id::ServiceIndex;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::engine::{About, Engine};
use crate::incident::SETTLE_FACTOR;
use crate::output::Output;

/// A warning that stands, or was there a moment ago.
#[derive(Clone, Debug)]
pub(crate) struct Warning {
    /// What it says, newest.
    clause: Box<str>,
    /// A person was told.
    told: bool,
    /// Since when probes pass without it.
    gone_since: Option<Timestamp>,
}

impl Engine {
    /// A probe passed, with or without a warning.
    pub(crate) fn note_warning(&mut self, index: ServiceIndex, clause: Option<&str>, now: Timestamp) {
        let settled = self.definition().service(index).probe.stable_for * SETTLE_FACTOR;
        let part = self.service_mut(index);
        let healthy = part.state == State::Healthy;
        let Some(clause) = clause else {
            let Some(warning) = &mut part.warning else { return };
            let gone_since = *warning.gone_since.get_or_insert(now);
            if now.since(gone_since) >= settled {
                let told = warning.told;
                part.warning = None;
                if told && healthy {
                    self.restate(index, "the warning is gone", now);
                }
            }
            return;
        };
        let told = part.warning.as_ref().is_some_and(|warning| warning.told);
        let warning = Warning { clause: clause.into(), told: told || healthy, gone_since: None };
        part.warning = Some(Box::new(warning));
        if healthy && !told {
            self.restate(index, clause, now);
            let message = format!("{} passes with a {clause}", self.name_of(About::Service(index)));
            self.output(Output::Notify { incident: None, message: message.into() });
        }
    }

    /// The warning that stands, as a clause.
    pub(crate) fn warning(&self, index: ServiceIndex) -> Option<&str> {
        let warning = self.service(index).warning.as_ref()?;
        warning.gone_since.is_none().then_some(&*warning.clause)
    }

    /// The state is as it was, and there is something new to say of it.
    fn restate(&mut self, index: ServiceIndex, reason: &str, now: Timestamp) {
        let state = self.service(index).state;
        self.report(About::Service(index), EventKind::StateChanged, now, |it| {
            (it.from, it.to, it.reason) = (Some(state), Some(state), reason.into());
        });
    }
}
