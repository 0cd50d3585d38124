//! The `[infrastructures.NAME]` tables: what can recover machines, and how it is called.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::path_of;
use crate::definition::check_name;
use crate::document::{Schema, Table};
use crate::id::Name;
use crate::infrastructure::{Capabilities, Operation};

/// One infrastructure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Infrastructure {
    /// Its kind, with what that kind needs.
    pub kind: InfrastructureKind,
}

/// The kinds of infrastructures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InfrastructureKind {
    /// The operator's own program.
    Command(CommandSettings),
}

/// The operator's own program, called as `PROGRAM ACTION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSettings {
    /// The program.
    pub program: PathBuf,
    /// Given with each request; an assembly's parameters go over them.
    pub parameters: BTreeMap<String, String>,
    /// A question (status, capabilities) without an answer by then has none (30 s). Actions have the definition's time-outs.
    pub timeout: Duration,
    /// What it can do; none: it is asked.
    pub capabilities: Option<Capabilities>,
    /// The most of its processes at a time (10); questions and actions are counted apart.
    pub in_flight: u32,
}

pub(super) const INFRASTRUCTURE: Schema = Schema {
    title: "an infrastructure",
    keys: &["kind", "program", "parameters", "timeout", "capabilities", "in_flight"],
    later: &[],
};

/// Keys of kinds that are planned; they are not reported beside the kind itself.
const PLANNED: Schema = Schema {
    title: "an infrastructure",
    keys: &[
        "kind",
        "cloud",
        "region",
        "url",
        "agent",
        "options",
        "user",
        "password",
        "timeout",
        "parameters",
    ],
    later: &[],
};

/// Kinds that are planned.
const KINDS_LATER: [&str; 3] = ["openstack", "deltacloud", "fence"];

pub(super) fn read(root: &Table<'_>, folder: &Path) -> BTreeMap<Name, Infrastructure> {
    let mut infrastructures = BTreeMap::new();
    for (name, table) in root.tables_by("infrastructures", schema_of) {
        check_name(&table, name, "an infrastructure");
        let infrastructure = read_one(&table, folder);
        if let (Ok(name), Some(infrastructure)) = (Name::parse(name.text), infrastructure) {
            infrastructures.insert(name, infrastructure);
        }
    }
    infrastructures
}

fn schema_of(kind: Option<&str>) -> &'static Schema {
    if kind.is_some_and(|kind| KINDS_LATER.contains(&kind)) { &PLANNED } else { &INFRASTRUCTURE }
}

fn read_one(table: &Table<'_>, folder: &Path) -> Option<Infrastructure> {
    table.require("kind", "kind = \"command\"");
    let kind = table.text("kind")?;
    if KINDS_LATER.contains(&kind.text) {
        let message = format!("`kind` \"{}\" is not supported yet, expected \"command\"", kind.text);
        table.report().error(kind.at, message);
        return None;
    }
    table.word("kind", &[("command", ())])?;
    table.require("program", "program = \"/path/of/it\"");
    let parameters = table.text_table("parameters").unwrap_or_default();
    let timeout = table.duration("timeout", Duration::from_millis(100), Duration::from_secs(600));
    let capabilities =
        table.list("capabilities", capability).map(|list| Capabilities(BTreeSet::from_iter(list)));
    let in_flight = table.number("in_flight", 1, 1000);
    let program = path_of(table, "program", folder)?;
    let kind = InfrastructureKind::Command(CommandSettings {
        program,
        parameters: parameters.into_iter().map(|(key, value)| (key.text.into(), value.text.into())).collect(),
        timeout: timeout.unwrap_or(Duration::from_secs(30)),
        capabilities,
        in_flight: in_flight.unwrap_or(10),
    });
    Some(Infrastructure { kind })
}

fn capability(text: &str) -> Result<Operation, &'static str> {
    Operation::parse(text)
        .ok_or("`status`, `create`, `start`, `stop`, `reboot-soft`, `reboot-hard`, `rebuild`, `destroy` or `capabilities`")
}
