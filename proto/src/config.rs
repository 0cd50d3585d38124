//! cpe.toml, the controller's configuration (design.md section 7), parsed with the same diagnostics as definitions. An empty file
//! is valid: every key has a default. `config/infrastructures.rs` beside this reads what can recover machines.

mod controller;
mod guard;
mod infrastructures;
mod listen;
mod notify;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use controller::{Controller, ControllerId};
pub use guard::{Holds, Threshold};
pub use infrastructures::{CommandSettings, FenceSettings, Infrastructure, InfrastructureKind};
pub use listen::{ApiAddress, Listen};
pub use notify::{Email, MailAddress, MailServer, Notify, Privacy, Webhook};

use crate::definition::{Window, name, ssh_user};
use crate::document::{Diagnostic, HostPort, Report, Schema, Table, parse_size};
use crate::id::Name;
use crate::secret;
use crate::ssh::{self, JumpHost, Passphrase, read_passphrase};

/// The controller's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The folder of definitions.
    pub deployables: PathBuf,
    /// Where the journal and the lock are.
    pub state_dir: PathBuf,
    /// Whose mark it puts on machines; none: the id in state_dir, made at the first start.
    pub controller: Option<Controller>,
    /// Where it is reached.
    pub listen: Listen,
    /// How it logs in to assemblies.
    pub ssh: Ssh,
    /// How much is remembered.
    pub journal: JournalLimits,
    /// How a person is told.
    pub notify: Notify,
    /// What answers when our own network works. Kept for the fleet guard.
    pub canaries: Vec<Canary>,
    /// Failure domains whose members share something that an infrastructure can act upon. Kept for the fleet guard.
    pub domains: Vec<SharedPoint>,
    /// What can recover machines.
    pub infrastructures: BTreeMap<Name, Infrastructure>,
    /// How much may be done at a time.
    pub budgets: Budgets,
    /// When a common cause is suspected.
    pub holds: Holds,
    /// Above this our own lag makes a late result void (250 ms).
    pub lag_budget: Duration,
    /// What is allowed but suspicious in the file.
    pub warnings: Vec<Diagnostic>,
}

/// How the controller logs in to assemblies, where a definition does not say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// The user (dped).
    pub user: String,
    /// The port (22).
    pub port: u16,
    /// What proves who we are.
    pub login: Login,
    /// Where the passphrase of that private key is; none: it is not encrypted.
    pub passphrase: Option<Passphrase>,
    /// The jump host that assemblies are reached through (none).
    pub jump: Option<JumpHost>,
    /// Files of known hosts (/etc/ssh/ssh_known_hosts). They are read, never written.
    pub known_hosts: Vec<PathBuf>,
    /// The most connections that are being set up at a time (64).
    pub connecting: u32,
    /// The most connection attempts in a second (100).
    pub connects_per_second: u32,
}

/// What proves who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// A private key's file (/etc/cpe/id_ed25519).
    Identity(PathBuf),
    /// The agent at SSH_AUTH_SOCK.
    Agent,
}

/// How much is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLimits {
    /// How long (90 days).
    pub keep: Duration,
    /// How much, in bytes (2 GiB).
    pub max_size: u64,
}

/// Something outside of what is watched that answers as long as our own network works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// The network path that it proves.
    pub path: Name,
    /// Where it accepts connections.
    pub tcp: HostPort,
}

/// A failure domain that an infrastructure can evacuate when it is dead, as a hypervisor (policy.md section 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPoint {
    /// The failure domain.
    pub domain: Name,
    /// The infrastructure; its program can `evacuate`.
    pub infrastructure: Name,
}

/// How many recoveries may be under way (policy.md section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// In one deployable (1).
    pub per_deployable: u32,
    /// In one failure domain (5).
    pub per_domain: u32,
    /// Through one infrastructure (10).
    pub per_infrastructure: u32,
    /// In all (50).
    pub fleet: u32,
    /// Recoveries of machines through one infrastructure, begun within that time (10 in 10 min).
    pub machine_rungs: Window,
}

impl Default for Budgets {
    fn default() -> Self {
        let machine_rungs =
            Window { failures: NonZeroU32::MIN.saturating_add(9), within: Duration::from_secs(600) };
        Self { per_deployable: 1, per_domain: 5, per_infrastructure: 10, fleet: 50, machine_rungs }
    }
}

const CONFIG: Schema = Schema {
    title: "the configuration",
    keys: &[
        "deployables",
        "state_dir",
        "controller",
        "listen",
        "ssh",
        "journal",
        "notify",
        "canaries",
        "domains",
        "infrastructures",
        "budgets",
        "guard",
        "lag_budget",
    ],
    later: &[],
};
const SSH: Schema = Schema {
    title: "[ssh]",
    keys: &[
        "user",
        "port",
        "identity",
        "passphrase",
        "agent",
        "jump",
        "known_hosts",
        "connecting",
        "connects_per_second",
    ],
    later: &[],
};
const JOURNAL: Schema = Schema { title: "[journal]", keys: &["keep", "max_size"], later: &[] };
const CANARY: Schema = Schema { title: "[[canaries]]", keys: &["path", "tcp"], later: &[] };
const DOMAIN: Schema = Schema { title: "[[domains]]", keys: &["name", "infrastructure"], later: &[] };
const BUDGETS: Schema = Schema { title: "[budgets]", keys: &["in_flight", "machine_rungs"], later: &[] };
const IN_FLIGHT: Schema = Schema {
    title: "in_flight",
    keys: &["per_deployable", "per_domain", "per_infrastructure", "fleet"],
    later: &[],
};
const MACHINE_RUNGS: Schema = Schema { title: "machine_rungs", keys: &["count", "within"], later: &[] };

/// Every kind of table of cpe.toml with its keys, for documents and editors.
pub const SCHEMAS: [&Schema; 19] = [
    &CONFIG,
    &controller::CONTROLLER,
    &listen::LISTEN,
    &secret::SECRET,
    &SSH,
    &ssh::PASSPHRASE,
    &JOURNAL,
    &notify::NOTIFY,
    &notify::EMAIL,
    &CANARY,
    &DOMAIN,
    &BUDGETS,
    &IN_FLIGHT,
    &MACHINE_RUNGS,
    &guard::GUARD,
    &guard::THRESHOLD,
    &infrastructures::COMMAND,
    &infrastructures::FENCE,
    &crate::fence::VALUE,
];

const DAY: Duration = Duration::from_secs(24 * 3600);

/// As humantime has it: years of 365.25 days.
const TEN_YEARS: Duration = Duration::from_secs(10 * 31_557_600);

impl Config {
    /// Parses cpe.toml. `file` is its path: for messages, and because relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// Everything that is wrong with it, sorted by place.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let text = Report::text_of(file, text.as_bytes()).map_err(|error| vec![error])?;
        let (report, document) = Report::read(file, text);
        let folder = Path::new(file).parent().unwrap_or(Path::new(""));
        let config = read(&Table::root(&report, &document, &CONFIG), folder);
        if report.failed() {
            return Err(report.finish());
        }
        Ok(Self { warnings: report.finish(), ..config })
    }

    /// The secrets that the file itself holds, as the paths of their keys. Only cpe should be able to read such a file.
    pub fn written_secrets(&self) -> impl Iterator<Item = String> {
        let webhook = self.notify.webhook.iter().map(|_| "notify.webhook".to_owned());
        let options = self.infrastructures.iter().flat_map(|(name, infrastructure)| {
            let written = infrastructure.written_secrets();
            written.map(move |key| format!("infrastructures.{name}.{key}"))
        });
        webhook.chain(options)
    }

    /// Parses a file's bytes.
    ///
    /// # Errors
    /// As [`Config::parse`], and where the file is larger than 1 MiB or not UTF-8.
    pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let text = Report::text_of(file, bytes).map_err(|error| vec![error])?;
        Self::parse(file, text)
    }
}

fn read(root: &Table<'_>, folder: &Path) -> Config {
    let path = |key: &str, default: &str| path_of(root, key, folder).unwrap_or_else(|| default.into());
    let infrastructures = infrastructures::read(root, folder);
    let lag = root.duration("lag_budget", Duration::from_millis(10), Duration::from_secs(60));
    Config {
        deployables: path("deployables", "/etc/cpe/deployables"),
        state_dir: path("state_dir", "/var/lib/cpe"),
        controller: controller::read(root),
        listen: listen::read(root, folder),
        ssh: read_ssh(root, folder),
        journal: read_journal(root),
        notify: notify::read(root, folder),
        canaries: read_canaries(root),
        domains: read_domains(root, &infrastructures),
        infrastructures,
        budgets: root.table("budgets", &BUDGETS).map(|table| read_budgets(&table)).unwrap_or_default(),
        holds: guard::read(root),
        lag_budget: lag.unwrap_or(Duration::from_millis(250)),
        warnings: Vec::new(),
    }
}

/// A path, from the file's folder where it is relative.
fn path_of(table: &Table<'_>, key: &str, folder: &Path) -> Option<PathBuf> {
    table.parse(key, |text| path(text, folder))
}

fn path(text: &str, folder: &Path) -> Result<PathBuf, &'static str> {
    if text.is_empty() || text.len() > 4096 || text.chars().any(char::is_control) {
        return Err("a path");
    }
    Ok(folder.join(text))
}

fn read_ssh(root: &Table<'_>, folder: &Path) -> Ssh {
    let mut ssh = Ssh {
        user: "dped".to_owned(),
        port: 22,
        login: Login::Identity("/etc/cpe/id_ed25519".into()),
        passphrase: None,
        jump: None,
        known_hosts: vec!["/etc/ssh/ssh_known_hosts".into()],
        connecting: 64,
        connects_per_second: 100,
    };
    let Some(table) = root.table("ssh", &SSH) else { return ssh };
    ssh.user = table.parse("user", ssh_user).unwrap_or(ssh.user);
    ssh.port = table.number("port", 1, 65535).and_then(|port| u16::try_from(port).ok()).unwrap_or(ssh.port);
    ssh.known_hosts = table.list("known_hosts", |text| path(text, folder)).unwrap_or(ssh.known_hosts);
    ssh.connecting = table.number("connecting", 1, 10_000).unwrap_or(ssh.connecting);
    ssh.connects_per_second =
        table.number("connects_per_second", 1, 10_000).unwrap_or(ssh.connects_per_second);
    let agent = table.flag("agent").unwrap_or(false);
    if agent && table.has("identity") {
        table.report().error(
            table.at_key("agent"),
            "both `identity` and `agent = true` in [ssh], expected one of them",
        );
    }
    if let Some(identity) = path_of(&table, "identity", folder) {
        ssh.login = Login::Identity(identity);
    } else if agent {
        ssh.login = Login::Agent;
    }
    ssh.passphrase = read_passphrase(&table, |text| path(text, folder));
    if agent && table.has("passphrase") {
        let message =
            "both `passphrase` and `agent = true` in [ssh], but an agent's keys are unlocked already";
        table.report().error(table.at_key("passphrase"), message);
    }
    ssh.jump = table.parse("jump", JumpHost::parse);
    if ssh.known_hosts.is_empty() {
        let message = "`known_hosts` is empty: no machine is known, so none is logged in to";
        table.report().warning(table.at_key("known_hosts"), message);
    }
    ssh
}

fn read_journal(root: &Table<'_>) -> JournalLimits {
    let default = JournalLimits { keep: 90 * DAY, max_size: 2 << 30 };
    let Some(table) = root.table("journal", &JOURNAL) else { return default };
    let size = |text: &str| match parse_size(text) {
        Ok(size) if size < 16 << 20 => Err("at least 16MiB"),
        other => other,
    };
    JournalLimits {
        keep: table.duration("keep", DAY / 24, TEN_YEARS).unwrap_or(default.keep),
        max_size: table.parse("max_size", size).unwrap_or(default.max_size),
    }
}

fn read_canaries(root: &Table<'_>) -> Vec<Canary> {
    let tables = root.table_list("canaries", &CANARY);
    let canary = |table: &Table<'_>| {
        table.require("path", "path = \"default\"");
        table.require("tcp", "tcp = \"HOST:PORT\"");
        let (path, tcp) = (table.parse("path", name), table.parse("tcp", HostPort::parse));
        Some(Canary { path: path?, tcp: tcp? })
    };
    let canaries: Vec<Canary> = tables.iter().filter_map(canary).collect();
    for (table, canary) in tables.iter().zip(&canaries).filter(|_| tables.len() == canaries.len()) {
        if canaries.iter().filter(|other| other.path == canary.path).count() == 1 {
            let message = format!(
                "one canary of path {}: a lone one that fails is its own fault, so give it two or more",
                canary.path
            );
            table.report().warning(table.at(), message);
        }
    }
    canaries
}

fn read_domains(root: &Table<'_>, known: &BTreeMap<Name, Infrastructure>) -> Vec<SharedPoint> {
    let mut domains: Vec<SharedPoint> = Vec::new();
    for table in root.table_list("domains", &DOMAIN) {
        table.require("name", "name = \"hv7\"");
        table.require("infrastructure", "infrastructure = \"prod\"");
        let (domain, infrastructure) = (table.parse("name", name), table.parse("infrastructure", name));
        let (Some(domain), Some(infrastructure)) = (domain, infrastructure) else { continue };
        let wrong = match known.get(&infrastructure).map(|it| &it.kind) {
            Some(InfrastructureKind::Command(_)) => None,
            Some(InfrastructureKind::Fence(_)) => {
                Some("is a fence agent, which switches power and nothing else".to_owned())
            }
            None => Some("is not among the infrastructures of this file".to_owned()),
        };
        if let Some(wrong) = wrong {
            let message =
                format!("`infrastructure` {infrastructure} {wrong}, expected one of kind \"command\"");
            table.report().error(table.at_key("infrastructure"), message);
        }
        if domains.iter().any(|other| other.domain == domain) {
            table.report().error(table.at_key("name"), format!("domain {domain} comes twice, expected once"));
        }
        domains.push(SharedPoint { domain, infrastructure });
    }
    domains
}

fn read_budgets(table: &Table<'_>) -> Budgets {
    let mut budgets = Budgets::default();
    if let Some(flight) = table.table("in_flight", &IN_FLIGHT) {
        let number = |key: &str, default| flight.number(key, 1, 10_000).unwrap_or(default);
        budgets.per_deployable = number("per_deployable", budgets.per_deployable);
        budgets.per_domain = number("per_domain", budgets.per_domain);
        budgets.per_infrastructure = number("per_infrastructure", budgets.per_infrastructure);
        budgets.fleet = number("fleet", budgets.fleet);
    }
    if let Some(rungs) = table.table("machine_rungs", &MACHINE_RUNGS) {
        let window = &mut budgets.machine_rungs;
        window.failures =
            rungs.number("count", 1, 10_000).and_then(NonZeroU32::new).unwrap_or(window.failures);
        window.within = rungs.duration("within", Duration::from_secs(1), DAY).unwrap_or(window.within);
    }
    budgets
}
