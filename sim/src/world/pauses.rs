//! Pauses of single assemblies and services, as `cpe/src/pauses.rs` keeps them and tells each new engine.

use std::collections::BTreeSet;

use cpe_proto::definition::Deployable;
use cpe_proto::id::Name;
use dped::audit::HoldKind;
use dped::{Act, Action, Input, Order, PartName};

use super::World;
use super::happening::Place;

impl World {
    pub(super) fn pause_part(&mut self, place: &Place, on: bool) {
        let changed = if on {
            let known = self.files.iter().any(|(name, it)| *name == place.deployable && it.is_some());
            known && self.journal.paused_parts.insert(place.clone())
        } else {
            self.journal.paused_parts.remove(place)
        };
        if !changed {
            return;
        }
        self.journal.hold(HoldKind::Pause, place.to_string(), on, self.now);
        self.truth.pause_part(place, on);
        let Some((member, _)) = self.find(&place.deployable, None) else { return };
        let parts = BTreeSet::from([part(place)]);
        let reason = if on { "looking" } else { "looked" }.into();
        self.input(member, Input::Order(Order::PartsPause { parts, on, reason }));
    }

    /// What an engine that begins now is to be told.
    pub(super) fn parts_paused(&self, name: &Name) -> BTreeSet<PartName> {
        self.journal.paused_parts.iter().filter(|it| it.deployable == *name).map(part).collect()
    }

    /// All that is paused by its own name.
    pub(super) fn all_paused_parts(&self) -> Vec<Place> {
        self.journal.paused_parts.iter().cloned().collect()
    }

    /// Whether an operator has stopped the recovery of what is acted on.
    pub(super) fn judge_parts(&self, definition: &Deployable, action: &Action, wrong: &mut Vec<String>) {
        let service = match action.act {
            Act::RestartService(it) | Act::StartService(it) | Act::StopService(it) | Act::Reconfigure(it) => {
                Some(definition.service(it).name.clone())
            }
            Act::Fence(_) | Act::Machine(_) | Act::Power(_) => None,
        };
        let assembly = definition.assembly(action.assembly).name.clone();
        let whole = Place { deployable: definition.name.clone(), assembly, service: None };
        let own = Place { service, ..whole.clone() };
        for place in [whole, own] {
            if self.truth.is_part_paused(&place) {
                wrong.push(format!("while {place} is paused"));
                return;
            }
        }
    }
}

fn part(place: &Place) -> PartName {
    PartName { assembly: place.assembly.clone(), service: place.service.clone() }
}
