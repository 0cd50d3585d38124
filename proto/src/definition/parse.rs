//! From a file's text to a [`Deployable`], with everything that is wrong with it at once: `read.rs` and `service.rs` read each
//! table, `resolve.rs` joins them, `set.rs` compares the definitions of a directory.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::read::{self, Template};
use super::resolve::Plan;
use super::schema::DEFINITION;
use super::{Assembly, Deployable, Machine, Places, Templates, places, set, template};
use crate::document::{DIAGNOSTICS_MAX, Diagnostic, Report, Table, nearest};
use crate::id::Name;

/// A definition as it was loaded: what it says, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The file's name, for messages.
    pub file: String,
    /// What it says.
    pub deployable: Arc<Deployable>,
    /// What is allowed but suspicious.
    pub warnings: Vec<Diagnostic>,
    /// Where it says the rest of what is compared with other files.
    pub places: Places,
    /// Whether an assembly of it names a template, so that it may have to be read again when those change.
    pub templated: bool,
}

impl Definition {
    /// Parses a definition. `file` is its name for messages.
    ///
    /// # Errors
    /// Everything that is wrong with it, sorted by place, with the warnings; see [`Report::finish`] for the limit.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        Self::parse_with(file, text.as_bytes(), None)
    }

    /// Parses a file's bytes, with the templates that are shared by the definitions of its directory.
    ///
    /// # Errors
    /// As [`Definition::parse_bytes`]. What is wrong in a template is told where it is used.
    pub fn parse_with(
        file: &str,
        bytes: &[u8],
        shared: Option<&Templates<'_>>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let text = Report::text_of(file, bytes).map_err(|error| vec![error])?;
        let (mut report, mut document) = Report::read(file, text);
        let templated = template::inherit(&mut document, &mut report, shared);
        let parsed = {
            let template = read::read(&Table::root(&report, &document, &DEFINITION));
            build(&template, &report)
        };
        match parsed {
            None => Err(report.finish()),
            Some((deployable, places)) => {
                let deployable = Arc::new(deployable);
                Ok(Self { file: file.to_owned(), deployable, places, warnings: report.finish(), templated })
            }
        }
    }

    /// Parses a file's bytes.
    ///
    /// # Errors
    /// As [`Definition::parse`], and where the file is larger than 1 MiB or not UTF-8.
    pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        Self::parse_with(file, bytes, None)
    }

    /// An error where the definition names an infrastructure that is not one of these, the entries of cpe.toml.
    #[must_use]
    pub fn check_infrastructure(&self, known: &BTreeSet<Name>) -> Option<Diagnostic> {
        let named = self.deployable.infrastructure.as_ref().filter(|named| !known.contains(*named))?;
        let near = nearest(named.as_str(), known.iter().map(Name::as_str));
        let near = near.map(|near| format!(", nearest is \"{near}\"")).unwrap_or_default();
        let message = format!(
            "no infrastructure \"{named}\" in cpe.toml{near}, expected [infrastructures.{named}] there"
        );
        Some(Diagnostic::error(&self.file, self.places.infrastructure, message))
    }

    /// Errors where the infrastructure is one of these, those that are fence agents, and a machine has no outlet or is not one that
    /// an agent can switch; and where it is none of them and a machine has one.
    #[must_use]
    pub fn check_outlets(&self, agents: &BTreeSet<Name>) -> Vec<Diagnostic> {
        let Some(named) = &self.deployable.infrastructure else { return Vec::new() };
        let is_agent = agents.contains(named);
        let wrong = |assembly: &Assembly| {
            let (name, known) = (&assembly.name, matches!(assembly.machine, Machine::Address(_)));
            match (is_agent, assembly.fence.is_empty()) {
                (true, true) => Some(format!(
                    "no `fence` in assembly \"{name}\", expected its outlet, as {{ plug = \"7\" }}: [infrastructures.{named}] is a fence agent"
                )),
                (true, false) if !known => Some(format!(
                    "assembly \"{name}\" has no `address`, expected one: [infrastructures.{named}] is a fence agent, which switches machines and knows nothing else of them"
                )),
                (false, false) => Some(format!(
                    "`fence` in assembly \"{name}\", but [infrastructures.{named}] is not a fence agent, expected one, or no `fence`"
                )),
                (true, false) | (false, true) => None,
            }
        };
        let each = self.deployable.assemblies.iter().zip(&self.places.machines);
        let found =
            each.filter_map(|(assembly, at)| Some(Diagnostic::error(&self.file, *at, wrong(assembly)?)));
        found.take(DIAGNOSTICS_MAX).collect()
    }
}

impl Deployable {
    /// Parses a definition; its warnings and places are dropped. [`Definition::parse`] keeps them.
    ///
    /// # Errors
    /// As [`Definition::parse`].
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        Definition::parse(file, text).map(|definition| Arc::unwrap_or_clone(definition.deployable))
    }

    /// Parses a file's bytes.
    ///
    /// # Errors
    /// As [`Definition::parse_bytes`].
    pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        Definition::parse_bytes(file, bytes).map(|definition| Arc::unwrap_or_clone(definition.deployable))
    }
}

fn build<'t>(template: &Template<'t>, report: &Report<'t>) -> Option<(Deployable, Places)> {
    let plan = Plan::new(template, report)?;
    let machines = plan.machine_places();
    let windows = plan.window_places();
    let keys = places::place(plan.key_places(), report);
    let deployable = plan.build()?;
    let places = Places {
        name: report.position(template.name_at),
        infrastructure: report.position(template.infrastructure_at),
        maintenance: windows.iter().map(|at| report.position(*at)).collect(),
        machines: machines.iter().map(|at| report.position(*at)).collect(),
        keys,
    };
    set::one_machine_once(&deployable, &machines, report);
    (!report.failed()).then_some((deployable, places))
}
