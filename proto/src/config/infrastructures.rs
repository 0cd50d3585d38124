//! The `[infrastructures.NAME]` tables: what can recover machines, and how it is called.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::path_of;
use crate::definition::check_name;
use crate::document::{Schema, Table, plain_text};
use crate::fence::{self, FenceOptions, FenceValue};
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
    /// A fence agent.
    Fence(FenceSettings),
}

impl Infrastructure {
    /// The options that hold a secret in the file itself.
    pub(super) fn written_secrets(&self) -> impl Iterator<Item = String> {
        let (options, parameters) = match &self.kind {
            InfrastructureKind::Command(settings) => (None, Some(&settings.parameters)),
            InfrastructureKind::Fence(settings) => (Some(&settings.options), None),
        };
        let written = |(key, value): &(&String, &FenceValue)| {
            matches!(value, FenceValue::Text(_)) && fence::is_secret(key)
        };
        let options = options.into_iter().flatten().filter(written).map(|(key, _)| format!("options.{key}"));
        let secret = |key: &&String| fence::is_secret(key);
        let parameters = parameters.into_iter().flat_map(|parameters| parameters.keys()).filter(secret);
        options.chain(parameters.map(|key| format!("parameters.{key}")))
    }
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

/// A program of fence-agents, or one that speaks as they do, called with its options on standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceSettings {
    /// The program: a path, or a name that is looked for where programs are.
    pub agent: PathBuf,
    /// Its options; those of an assembly's `fence` go over them.
    pub options: FenceOptions,
    /// One call of the agent may take this long (60 s, as Pacemaker's fencer allows).
    pub timeout: Duration,
    /// The most of its calls at a time (1, as Pacemaker's fencer does); the rest wait, questions behind actions.
    pub in_flight: u32,
}

pub(super) const COMMAND: Schema = Schema {
    title: "an infrastructure",
    keys: &["kind", "program", "parameters", "timeout", "capabilities", "in_flight"],
    later: &[],
};

pub(super) const FENCE: Schema = Schema {
    title: "an infrastructure",
    keys: &["kind", "agent", "options", "timeout", "in_flight"],
    later: &[],
};

/// Keys of kinds that are planned; they are not reported beside the kind itself.
const PLANNED: Schema = Schema {
    title: "an infrastructure",
    keys: &["kind", "cloud", "region", "url", "user", "password", "timeout", "parameters"],
    later: &[],
};

/// Kinds that are planned.
const KINDS_LATER: [&str; 2] = ["openstack", "deltacloud"];

#[derive(Clone, Copy)]
enum Kind {
    Command,
    Fence,
}

/// The kinds there are.
const KINDS: [(&str, Kind); 2] = [("command", Kind::Command), ("fence", Kind::Fence)];

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
    match kind {
        Some(kind) if KINDS_LATER.contains(&kind) => &PLANNED,
        Some("fence") => &FENCE,
        _ => &COMMAND,
    }
}

fn read_one(table: &Table<'_>, folder: &Path) -> Option<Infrastructure> {
    table.require("kind", "kind = \"command\" or \"fence\"");
    let kind = table.text("kind")?;
    if KINDS_LATER.contains(&kind.text) {
        let message =
            format!("`kind` \"{}\" is not supported yet, expected \"command\" or \"fence\"", kind.text);
        table.report().error(kind.at, message);
        return None;
    }
    let kind = match table.word("kind", &KINDS)? {
        Kind::Command => InfrastructureKind::Command(read_command(table, folder)?),
        Kind::Fence => InfrastructureKind::Fence(read_fence(table, folder)?),
    };
    Some(Infrastructure { kind })
}

fn read_fence(table: &Table<'_>, folder: &Path) -> Option<FenceSettings> {
    table.require("agent", "agent = \"fence_ipmilan\" or the path of one");
    let file = |text: &str| super::path(text, folder);
    let reading = fence::Reading { file: &file, written: fence::Written::Warned };
    let options = fence::read(table, "options", reading);
    let timeout = table.duration("timeout", Duration::from_secs(1), Duration::from_secs(600));
    let in_flight = table.number("in_flight", 1, 1000);
    // A name alone is not a file beside cpe.toml.
    let agent = table.parse("agent", |text| match plain_text(text)? {
        name if name.contains('/') => Ok(folder.join(name)),
        name => Ok::<_, &str>(PathBuf::from(name)),
    })?;
    Some(FenceSettings {
        agent,
        options,
        timeout: timeout.unwrap_or(Duration::from_secs(60)),
        in_flight: in_flight.unwrap_or(1),
    })
}

fn read_command(table: &Table<'_>, folder: &Path) -> Option<CommandSettings> {
    table.require("program", "program = \"/path/of/it\"");
    let parameters = table.text_table("parameters").unwrap_or_default();
    let timeout = table.duration("timeout", Duration::from_millis(100), Duration::from_secs(600));
    let capabilities =
        table.list("capabilities", capability).map(|list| Capabilities(BTreeSet::from_iter(list)));
    let in_flight = table.number("in_flight", 1, 1000);
    let program = path_of(table, "program", folder)?;
    Some(CommandSettings {
        program,
        parameters: parameters.into_iter().map(|(key, value)| (key.text.into(), value.text.into())).collect(),
        timeout: timeout.unwrap_or(Duration::from_secs(30)),
        capabilities,
        in_flight: in_flight.unwrap_or(10),
    })
}

fn capability(text: &str) -> Result<Operation, &'static str> {
    Operation::parse(text)
        .ok_or("`status`, `create`, `start`, `stop`, `reboot-soft`, `reboot-hard`, `rebuild`, `destroy`, `claim`, `evacuate` or `capabilities`")
}
