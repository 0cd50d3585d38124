//! What occurred in worlds, counted: fault kinds, rungs, refusal reasons, isolation rows. A run in which something never occurs shows
//! nothing of it.

use std::collections::BTreeMap;

use cpe_proto::decision::{Answer, Decision, Refusal};
use cpe_proto::event::{Event, EventKind};
use dped::isolate::isolate;

use super::World;

/// How often what occurred, by class and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<(&'static str, String), u64>);

impl Coverage {
    pub(super) fn count(&mut self, class: &'static str, name: &str) {
        if let Some(times) = self.0.get_mut(&(class, name.to_owned())) {
            *times += 1;
        } else {
            self.0.insert((class, name.to_owned()), 1);
        }
    }

    /// Adds another world's.
    pub fn add(&mut self, other: &Self) {
        for (key, times) in &other.0 {
            *self.0.entry(key.clone()).or_default() += times;
        }
    }

    /// How often.
    #[must_use]
    pub fn times(&self, class: &'static str, name: &str) -> u64 {
        self.0.get(&(class, name.to_owned())).copied().unwrap_or(0)
    }

    /// Everything that occurred: class, name, how often.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &str, u64)> {
        self.0.iter().map(|((class, name), times)| (*class, name.as_str(), *times))
    }
}

impl World {
    pub(super) fn cover_event(&mut self, member: usize, event: &Event) {
        match event.kind {
            EventKind::RecoveryRefused => {
                let said = |refusal: &&Refusal| {
                    let reason = event.reason.trim_start_matches("start: ").trim_start_matches("stop: ");
                    reason.split(':').next() == Some(refusal.as_str())
                };
                if let Some(refusal) = Refusal::ALL.iter().find(said) {
                    self.coverage.count("refusal", refusal.as_str());
                }
            }
            EventKind::FaultIsolated if event.service.is_some() => self.coverage.count("row", "13"),
            EventKind::FaultIsolated => {
                let Some(name) = &event.assembly else { return };
                let Some(it) = self.member(member) else { return };
                let definition = it.engine.definition();
                let Some(index) = definition.assembly_named(name.as_str()) else { return };
                let row = it.engine.isolated(index).map(|(_, row)| row);
                if let Some(row) = row {
                    self.coverage.count("row", &row.to_string());
                }
            }
            _ => {}
        }
    }

    pub(super) fn cover_decision(&mut self, decision: &Decision) {
        let (_, row) = isolate(&decision.facts);
        self.coverage.count("decided on row", &row.to_string());
        if let Answer::Refused(refusal) = decision.answer {
            self.coverage.count("refused", refusal.as_str());
        }
    }
}
