//! What the definitions of one directory may not share: a name, or a machine. Of two that do, the later is refused (policy.md
//! section 7), so that no machine has two masters.

use std::collections::BTreeMap;

use super::{Assembly, Definition, Deployable, Machine};
use crate::document::{Diagnostic, Position, Report};
use crate::fence::{FenceOptions, FenceValue};
use crate::id::Name;

/// What makes a machine the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    /// An address and a port; none: the one of cpe.toml.
    Address(String, Option<u16>),
    /// An infrastructure and an id.
    Instance(Option<Name>, String),
    /// An infrastructure and a tag.
    Tag(Option<Name>, String),
    /// An infrastructure and the options of an outlet of it.
    Outlet(Option<Name>, FenceOptions),
}

impl Identity {
    fn of(deployable: &Deployable, assembly: &Assembly) -> impl Iterator<Item = Self> {
        let infrastructure = || deployable.infrastructure.clone();
        let machine = match &assembly.machine {
            Machine::Address(address) => Some(Self::Address(address.clone(), assembly.ssh.port)),
            Machine::Instance(id) => Some(Self::Instance(infrastructure(), id.clone())),
            Machine::Adopt { tag } => Some(Self::Tag(infrastructure(), tag.clone())),
            Machine::Image { .. } => None,
        };
        let fenced = !assembly.fence.is_empty();
        let outlet = fenced.then(|| Self::Outlet(infrastructure(), outlet(&assembly.fence)));
        machine.into_iter().chain(outlet)
    }

    /// The same with the port of cpe.toml where the definition has none.
    fn with_port(self, default: u16) -> Self {
        match self {
            Self::Address(address, port) => Self::Address(address, port.or(Some(default))),
            other => other,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Address(address, Some(port)) => format!("address {address} port {port}"),
            Self::Address(address, None) => format!("address {address}"),
            Self::Instance(_, id) => format!("instance {id:?}"),
            Self::Tag(_, tag) => format!("tag {tag:?}"),
            Self::Outlet(_, options) => format!("fence {{ {} }}", describe(options)),
        }
    }
}

/// The options by which outlets are compared: `port` is the old name of `plug`.
fn outlet(options: &FenceOptions) -> FenceOptions {
    let mut options = options.clone();
    if !options.contains_key("plug")
        && let Some(port) = options.remove("port")
    {
        options.insert("plug".to_owned(), port);
    }
    options
}

/// A definition holds no secret among them.
fn describe(options: &FenceOptions) -> String {
    let one = |(key, value): (&String, &FenceValue)| match value {
        FenceValue::Text(text) => format!("{key} = {:?}", text.expose()),
        FenceValue::File(file) => format!("{key} = {{ file = {file:?} }}"),
    };
    options.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Reports machines that one definition names twice.
pub(super) fn one_machine_once(deployable: &Deployable, places: &[usize], report: &Report<'_>) {
    let mut seen = BTreeMap::new();
    for (assembly, at) in deployable.assemblies.iter().zip(places) {
        for identity in Identity::of(deployable, assembly) {
            if let Some((other, line)) = seen.get(&identity) {
                let what = identity.describe();
                let message =
                    format!("{what} is also that of assembly \"{other}\" in line {line}, expected one each");
                report.error(*at, message);
                continue;
            }
            seen.insert(identity, (assembly.name.clone(), report.position(*at).line));
        }
    }
}

/// What is wrong with these definitions together: names of deployables that are there twice, machines that two of them name.
/// The later one, by file name, is refused: the diagnostics name its file, and the other place in the message.
/// `default_port` is the port of cpe.toml's `[ssh]`.
#[must_use]
pub fn check_set(definitions: &[Definition], default_port: u16) -> Vec<Diagnostic> {
    let mut order: Vec<&Definition> = definitions.iter().collect();
    order.sort_by(|one, other| one.file.cmp(&other.file));
    let mut found = Vec::new();
    let mut names: BTreeMap<&Name, &Definition> = BTreeMap::new();
    let mut machines: BTreeMap<Identity, (&Definition, &Assembly, Position)> = BTreeMap::new();
    for definition in order {
        let before = found.len();
        if let Some(other) = names.get(&definition.deployable.name) {
            let (file, line) = (&other.file, other.places.name.line);
            let message = format!(
                "deployable \"{}\" is also in {file}:{line}, expected a name of its own: this one is refused",
                definition.deployable.name
            );
            found.push(Diagnostic::error(&definition.file, definition.places.name, message));
        }
        let own = machines_of(definition, default_port);
        for (identity, (_, assembly, at)) in &own {
            let Some((other, other_assembly, other_at)) = machines.get(identity) else { continue };
            let message = format!(
                "{} of {}/{} is also that of {}/{} in {}:{}, expected one each: this definition is refused",
                identity.describe(),
                definition.deployable.name,
                assembly.name,
                other.deployable.name,
                other_assembly.name,
                other.file,
                other_at.line
            );
            found.push(Diagnostic::error(&definition.file, *at, message));
        }
        // A refused definition takes nothing from a third.
        if found.len() == before {
            names.insert(&definition.deployable.name, definition);
            machines.extend(own);
        }
    }
    found
}

type Machines<'d> = Vec<(Identity, (&'d Definition, &'d Assembly, Position))>;

fn machines_of(definition: &Definition, default_port: u16) -> Machines<'_> {
    let mut machines = Vec::new();
    for (assembly, at) in definition.deployable.assemblies.iter().zip(&definition.places.machines) {
        for identity in Identity::of(&definition.deployable, assembly) {
            machines.push((identity.with_port(default_port), (definition, assembly, *at)));
        }
    }
    machines
}
