//! A deployable's definition, parsed: a [`Deployable`] in hand is a valid one. Names are unique, references are resolved to
//! indices, the order has no cycle. `parse.rs` beside this makes them from text, with all errors of a file at once.

mod check;
mod cycle;
mod direct;
mod direct_read;
mod http;
mod maintenance;
mod numbers;
mod parse;
mod places;
mod read;
mod reference;
mod resolve;
mod resource;
mod schema;
mod service;
mod set;
mod settings;
mod template;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use check::{Check, CommandLine, ProcessName, UnitName};
pub use direct::{DNS_PORT, Direct, Dns, HostOf, PortOf, Record, Tls};
pub use http::{HeaderValue, Http, Method, Pattern, Statuses, Url};
pub use maintenance::{MaintenanceWindow, MonthDay, Nth, WeekDay};
pub use parse::Definition;
pub use places::{Part, Places};
pub use read::ASSEMBLIES_MAX;
pub(crate) use read::{check_name, name, ssh_user};
pub use reference::{Attribute, Reference, Referring};
pub use resolve::{ORDER_MAX, SERVICES_MAX};
pub use resource::{OcfAgent, ParameterName, ProgramPath, Restart, ScriptName};
pub use schema::SCHEMAS;
pub use set::check_set;
pub use settings::{
    Affected, DeployableScope, Escalation, OnOrder, ProbeSettings, Relocation, Timing, Window,
};
pub use template::{TEMPLATES_FILE, Templates, TemplatesFile};

use crate::fence::FenceOptions;
use crate::id::{AssemblyIndex, Name, ServiceIndex};
use crate::rung::Rung;
use crate::ssh::{Passphrase, Route};

/// An application: a named set of assemblies and the order between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployable {
    /// Its name, unique in one controller.
    pub name: Name,
    /// An entry of cpe.toml; none: watch and restart services only.
    pub infrastructure: Option<Name>,
    /// Whether recoveries are done or only decided and recorded.
    pub mode: Mode,
    /// When a scope is escalated.
    pub escalation: Escalation,
    /// Waits and limits that are not of a single probe.
    pub timing: Timing,
    /// Maintenance that comes again.
    pub maintenance: Vec<MaintenanceWindow>,
    /// The machines, in the file's order.
    pub assemblies: Vec<Assembly>,
    /// The services of all assemblies, grouped by assembly, in the file's order.
    pub services: Vec<Service>,
}

/// Whether recoveries are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Decide and do.
    #[default]
    Act,
    /// Decide and record, do nothing.
    Observe,
}

/// One machine of a deployable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembly {
    /// Its name, unique in the deployable.
    pub name: Name,
    /// Which machine it is.
    pub machine: Machine,
    /// What it can fail together with; the names are shared over all deployables.
    pub failure_domains: Vec<Name>,
    /// What its disks hold, which decides whether it may be rebuilt.
    pub data: Data,
    /// The highest rung that may be used on it.
    pub max_rung: Rung,
    /// How its channel is probed. `startup_grace` is also its boot time.
    pub probe: ProbeSettings,
    /// How probes reach it.
    pub monitor: Monitor,
    /// Where its SSH differs from cpe.toml.
    pub ssh: SshOverride,
    /// The assemblies that must be healthy before this one starts.
    pub after: Vec<AssemblyIndex>,
    /// Its services in [`Deployable::services`]: first and one past the last.
    pub services: (ServiceIndex, ServiceIndex),
    /// Given to the infrastructure.
    pub parameters: BTreeMap<String, Referring>,
    /// The options that tell its outlet from others, for an infrastructure that is a fence agent.
    pub fence: FenceOptions,
}

/// Which machine an assembly is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Machine {
    /// An existing host, by IP address or host name.
    Address(String),
    /// An existing instance, by the infrastructure's id; the infrastructure knows its address.
    Instance(String),
    /// An existing instance, by its tag.
    Adopt {
        /// The infrastructure's tag.
        tag: String,
    },
    /// Made by `cpe start` from an image.
    Image {
        /// The image's name.
        image: String,
        /// The flavor's name, if the infrastructure has such.
        flavor: Option<String>,
    },
}

/// The way probes reach an assembly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Monitor {
    /// A session to the guest.
    #[default]
    Ssh,
    /// From outside only. Its channel is this probe, whatever is answered; nothing can be restarted in the guest.
    Direct(Arc<Direct>),
}

impl Monitor {
    /// The word of definitions.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Direct(_) => "direct",
        }
    }
}

/// What the disks of an assembly hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Data {
    /// Data on its own disk: rebuild, recreate and relocate would lose it and are never tried.
    #[default]
    Local,
    /// Data on a volume that outlives it.
    Volume,
    /// Nothing of worth.
    None,
}

/// Where an assembly's SSH differs from cpe.toml.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshOverride {
    /// The user to log in as.
    pub user: Option<String>,
    /// The port (22).
    pub port: Option<u16>,
    /// The private key's file.
    pub identity: Option<String>,
    /// Where the passphrase of that key is; none: it is not encrypted.
    pub passphrase: Option<Passphrase>,
    /// How it is reached.
    pub route: Option<Route>,
}

/// Something that must run in an assembly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, unique in its assembly.
    pub name: Name,
    /// Where it runs.
    pub assembly: AssemblyIndex,
    /// How it is probed.
    pub check: Check,
    /// The line of a `command` or a `nagios` that refers to something, for `check` has it as it is written. None: that is all of it.
    pub line: Option<Referring>,
    /// What to restart. For a unit, a resource and an init script that itself; none: there is no service rung.
    pub restart: Option<Restart>,
    /// What it is set up with: for a resource its agent's parameters, for others its configure script's. By name, sorted.
    pub parameters: Vec<(ParameterName, Referring)>,
    /// Run in the guest before a start, and when what the parameters refer to has changed.
    pub configure: Option<ProgramPath>,
    /// When it is probed and believed.
    pub probe: ProbeSettings,
    /// The services that must be healthy before this one starts, and whose faults explain its own.
    pub after: Vec<ServiceIndex>,
}

impl Service {
    /// Whether its parameters can change by themselves.
    #[must_use]
    pub fn refers(&self) -> bool {
        self.parameters.iter().any(|(_, value)| value.references().next().is_some())
    }

    /// The assemblies that its parameters refer to, as often as they do.
    pub fn referred(&self) -> impl Iterator<Item = AssemblyIndex> {
        self.parameters.iter().flat_map(|(_, value)| value.references()).map(|reference| reference.assembly)
    }
}

impl Deployable {
    /// The assembly of that index.
    ///
    /// # Panics
    /// If the index is of another definition.
    #[must_use]
    pub fn assembly(&self, index: AssemblyIndex) -> &Assembly {
        &self.assemblies[usize::from(index.0)]
    }

    /// The service of that index.
    ///
    /// # Panics
    /// If the index is of another definition.
    #[must_use]
    pub fn service(&self, index: ServiceIndex) -> &Service {
        &self.services[usize::from(index.0)]
    }

    /// The indices of all assemblies, in the file's order.
    pub fn assembly_indices(&self) -> impl DoubleEndedIterator<Item = AssemblyIndex> + use<> {
        (0..u16::try_from(self.assemblies.len()).unwrap_or(u16::MAX)).map(AssemblyIndex)
    }

    /// The indices of the services of one assembly, in the file's order.
    pub fn services_of(
        &self,
        assembly: AssemblyIndex,
    ) -> impl DoubleEndedIterator<Item = ServiceIndex> + use<> {
        let (first, end) = self.assembly(assembly).services;
        (first.0..end.0).map(ServiceIndex)
    }

    /// Whether a passed probe of that service proves that its assembly lives, whatever its channel says: the controller itself was
    /// answered, by a program, from the address of the assembly.
    #[must_use]
    pub fn is_witness(&self, service: ServiceIndex) -> bool {
        let service = self.service(service);
        let Some(direct) = service.check.direct() else { return false };
        let own = match (direct.target(), &self.assembly(service.assembly).machine) {
            (HostOf::Assembly(index), _) => *index == service.assembly,
            (HostOf::Host(host), Machine::Address(address)) => host.as_str() == address,
            (HostOf::Host(_), _) => false,
        };
        own && direct.speaks_of_programs()
    }

    /// Whether a service is probed as that one of another definition is. A reference means the assembly of that name.
    #[must_use]
    pub fn probes_alike(&self, service: ServiceIndex, other: &Self, found: ServiceIndex) -> bool {
        let (one, two) = (&self.service(service).check, &other.service(found).check);
        match (one, two) {
            (Check::Direct(one), Check::Direct(two)) | (Check::FromGuest(one), Check::FromGuest(two)) => {
                self.named(one) == other.named(two)
            }
            _ => one == two,
        }
    }

    /// Whether an assembly is reached as that one of another definition is.
    #[must_use]
    pub fn reached_alike(&self, assembly: AssemblyIndex, other: &Self, found: AssemblyIndex) -> bool {
        match (&self.assembly(assembly).monitor, &other.assembly(found).monitor) {
            (Monitor::Direct(one), Monitor::Direct(two)) => self.named(one) == other.named(two),
            (one, two) => one == two,
        }
    }

    fn named(&self, direct: &Direct) -> Option<Direct<Name>> {
        direct.resolve(|index| Some(self.assembly(*index).name.clone()))
    }

    /// The assembly of that name.
    #[must_use]
    pub fn assembly_named(&self, name: &str) -> Option<AssemblyIndex> {
        self.assembly_indices().find(|index| self.assembly(*index).name.as_str() == name)
    }

    /// The service of that name in that assembly.
    #[must_use]
    pub fn service_named(&self, assembly: AssemblyIndex, name: &str) -> Option<ServiceIndex> {
        self.services_of(assembly).find(|index| self.service(*index).name.as_str() == name)
    }

    /// The shortest interval of an assembly's probes: how fresh its evidence can be.
    #[must_use]
    pub fn interval(&self, assembly: AssemblyIndex) -> Duration {
        self.assembly(assembly).probe.interval
    }
}
