//! Where a definition says what: what is found wrong with its numbers, or with it beside others, is told with a line and a column.
//! Only keys that are written have a place; what is inherited is looked up where it was written.

use std::collections::BTreeMap;

use crate::document::{Position, Report, Table};
use crate::id::{AssemblyIndex, ServiceIndex};

use super::Deployable;

/// Where a definition says what is compared with other files, or with other keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The deployable's name.
    pub name: Position,
    /// The infrastructure.
    pub infrastructure: Position,
    /// Each maintenance window.
    pub maintenance: Vec<Position>,
    /// The machine of each assembly.
    pub machines: Vec<Position>,
    /// The keys of `[probe]`, `[timing]`, `[escalation]` and `max_rung` that are written.
    pub keys: BTreeMap<(Part, &'static str), Position>,
}

/// A part of a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The whole.
    Deployable,
    /// One machine.
    Assembly(AssemblyIndex),
    /// One service.
    Service(ServiceIndex),
}

impl Places {
    /// Where that key of a part is written: on the part itself, or where it has it from; else where the deployable is named.
    #[must_use]
    pub fn of(&self, deployable: &Deployable, part: Part, key: &'static str) -> Position {
        let above = match part {
            Part::Service(index) => Some(Part::Assembly(deployable.service(index).assembly)),
            Part::Assembly(_) | Part::Deployable => None,
        };
        let parts = [Some(part), above, Some(Part::Deployable)];
        parts.into_iter().flatten().find_map(|part| self.keys.get(&(part, key))).copied().unwrap_or(self.name)
    }
}

/// The places of keys before `count` makes several assemblies of a template, as bytes of the text.
pub(super) type KeyPlaces = Vec<(&'static str, usize)>;

/// Those of these keys that the table has.
pub(super) fn written(table: Option<&Table<'_>>, keys: &[&'static str]) -> KeyPlaces {
    let Some(table) = table else { return Vec::new() };
    keys.iter().filter(|key| table.has(key)).map(|key| (*key, table.at_key(key))).collect()
}

/// Gives each part its own.
pub(super) fn place<'a>(
    parts: impl Iterator<Item = (Part, &'a KeyPlaces)>,
    report: &Report<'_>,
) -> BTreeMap<(Part, &'static str), Position> {
    parts
        .flat_map(|(part, keys)| keys.iter().map(move |(key, at)| ((part, *key), report.position(*at))))
        .collect()
}
