//! The first half of reading a definition: each table by itself, into templates whose references are still words.
//! `service.rs` reads services, `numbers.rs` the tables of numbers; `resolve.rs` has the second half.

use std::path::PathBuf;

use super::direct_read::{self, read_channel};
use super::maintenance::{WindowTemplate, read_maintenance};
use super::numbers::{ProbeKeys, read_escalation, read_timing};
use super::places::{KeyPlaces, written};
use super::schema::{ADOPT, ASSEMBLY, ESCALATION, MACHINE_KEYS, PROBE, SSH, TEMPLATE, TIMING};
use super::service::{Home, ReferringTemplate, ServiceTemplate, read_referring, read_service};
use super::{Data, Escalation, Machine, Mode, ProbeSettings, SshOverride, Timing};
use crate::document::{Host, Table, Text, plain_text};
use crate::fence::{self, FenceOptions};
use crate::id::{Name, NameError};
use crate::rung::Rung;
use crate::ssh::{Passphrase, Route, read_passphrase};

/// The most assemblies of one deployable.
pub const ASSEMBLIES_MAX: usize = 1000;

/// The most entries of one `after`: what `count` multiplies has to be small.
const AFTER_MAX: usize = 200;

/// The most failure domains of one assembly.
const FAILURE_DOMAINS_MAX: usize = 16;

/// The most parameters of one assembly, and the longest value in bytes.
const PARAMETERS_MAX: (usize, usize) = (64, 1024);

/// A definition with words for references.
pub(super) struct Template<'t> {
    pub(super) name: Option<Name>,
    pub(super) name_at: usize,
    pub(super) infrastructure: Option<Name>,
    pub(super) infrastructure_at: usize,
    pub(super) mode: Mode,
    pub(super) escalation: Escalation,
    pub(super) timing: Timing,
    pub(super) maintenance: Vec<WindowTemplate<'t>>,
    pub(super) assemblies: Vec<AssemblyTemplate<'t>>,
    pub(super) keys: KeyPlaces,
}

/// An assembly before `count` makes several of it.
pub(super) struct AssemblyTemplate<'t> {
    pub(super) name: Text<'t>,
    pub(super) count: Option<u16>,
    pub(super) machine: Option<Machine>,
    pub(super) machine_at: usize,
    pub(super) failure_domains: Vec<Name>,
    pub(super) data: Data,
    pub(super) max_rung: Rung,
    pub(super) probe: ProbeSettings,
    pub(super) monitor: MonitorTemplate,
    pub(super) ssh: SshOverride,
    pub(super) after: Vec<Text<'t>>,
    pub(super) parameters: Vec<(Text<'t>, ReferringTemplate<'t>)>,
    pub(super) fence: FenceOptions,
    pub(super) services: Vec<ServiceTemplate<'t>>,
    pub(super) keys: KeyPlaces,
}

/// The way probes reach an assembly, whose reference is still a word.
pub(super) enum MonitorTemplate {
    Ssh,
    /// None where its probe is wrong.
    Direct(Option<direct_read::Template>),
}

pub(super) fn read<'t>(root: &Table<'t>) -> Template<'t> {
    root.require("name", "name = \"...\" of a-z, 0-9 and -");
    let probes = root.table("probe", &PROBE);
    let (windows, waits) = (root.table("escalation", &ESCALATION), root.table("timing", &TIMING));
    let probe = ProbeKeys::default().or_read(probes.as_ref());
    let keys = [
        written(probes.as_ref(), PROBE.keys),
        written(windows.as_ref(), ESCALATION.keys),
        written(waits.as_ref(), TIMING.keys),
    ];
    let infrastructure = root.parse("infrastructure", name);
    let named = root.has("infrastructure");
    for (template, table) in root.tables("templates", &TEMPLATE) {
        check_name(&table, template, "a template");
    }
    let tables = root.tables("assemblies", &ASSEMBLY);
    if root.is_empty("assemblies") {
        root.report()
            .absent(root.at(), "no assemblies in the definition, expected at least one [assemblies.NAME]");
    }
    let assemblies = tables.iter().map(|(name, table)| read_assembly(*name, table, probe, named)).collect();
    Template {
        name: root.parse("name", name),
        name_at: root.at_key("name"),
        infrastructure,
        infrastructure_at: root.at_key("infrastructure"),
        mode: root.word("mode", &[("act", Mode::Act), ("observe", Mode::Observe)]).unwrap_or_default(),
        escalation: windows.map(|table| read_escalation(&table)).unwrap_or_default(),
        maintenance: read_maintenance(root),
        timing: waits.map(|table| read_timing(&table)).unwrap_or_default(),
        assemblies,
        keys: keys.concat(),
    }
}

/// A name, with what is expected of one as the error.
pub(crate) fn name(text: &str) -> Result<Name, &'static str> {
    let expected = "1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit";
    Name::parse(text).map_err(|NameError(_)| expected)
}

fn read_assembly<'t>(
    name: Text<'t>,
    table: &Table<'t>,
    defaults: ProbeKeys,
    has_infrastructure: bool,
) -> AssemblyTemplate<'t> {
    check_name(table, name, "an assembly");
    let probes = table.table("probe", &PROBE);
    let probe = defaults.or_read(probes.as_ref());
    let keys = [written(probes.as_ref(), PROBE.keys), written(Some(table), &["max_rung"])];
    let machine = read_machine(table, has_infrastructure);
    let data = read_data(table);
    let monitor = read_monitor(table, name);
    let home = Home { name, guest: matches!(monitor, MonitorTemplate::Ssh), probe };
    let services = table.tables("services", &super::schema::SERVICE);
    AssemblyTemplate {
        name,
        count: read_count(table),
        machine,
        machine_at: MACHINE_KEYS
            .iter()
            .find(|key| table.has(key))
            .map_or(table.at(), |key| table.at_key(key)),
        failure_domains: read_failure_domains(table),
        data,
        max_rung: read_max_rung(table, data, has_infrastructure),
        probe: probe.over(ProbeSettings::channel()),
        monitor,
        ssh: table.table("ssh", &SSH).map(|table| read_ssh(&table)).unwrap_or_default(),
        after: read_after(table),
        parameters: read_parameters(table),
        fence: read_fence(table, has_infrastructure),
        services: services.iter().map(|(name, service)| read_service(*name, service, home)).collect(),
        keys: keys.concat(),
    }
}

fn read_monitor(table: &Table<'_>, own: Text<'_>) -> MonitorTemplate {
    if let Some(text) = table.text("monitor").filter(|text| text.text == "agent") {
        let message = "`monitor` \"agent\" is not supported yet, expected \"ssh\" or \"direct\"";
        table.report().error(text.at, message);
        return MonitorTemplate::Ssh;
    }
    if table.word("monitor", &[("ssh", false), ("direct", true)]) != Some(true) {
        if table.has("channel") {
            let message = "`channel` without `monitor = \"direct\"`, expected both";
            table.report().error(table.at_key("channel"), message);
        }
        return MonitorTemplate::Ssh;
    }
    table.require(
        "channel",
        "channel = { icmp = true }, or one of `http`, `tls` and `tcp`: what shows that it can be reached",
    );
    if table.has("ssh") {
        table.report().error(table.at_key("ssh"), "`ssh` with `monitor = \"direct\"`, expected one of them");
    }
    MonitorTemplate::Direct(read_channel(table, own))
}

/// Reports a table's name that is not one.
pub(crate) fn check_name(table: &Table<'_>, text: Text<'_>, what: &str) {
    if let Err(expected) = name(text.text) {
        let shown: String = text.text.chars().take(64).flat_map(char::escape_debug).collect();
        table.report().error(text.at, format!("\"{shown}\" is not a name of {what}, expected {expected}"));
    }
}

fn read_machine(table: &Table<'_>, has_infrastructure: bool) -> Option<Machine> {
    let given: Vec<&str> = MACHINE_KEYS.into_iter().filter(|key| table.has(key)).collect();
    if given.is_empty() {
        let message =
            format!("no machine in {}, expected `address`, `image`, `instance` or `adopt`", table.title());
        table.report().absent(table.at(), message);
    }
    if let [first, second, ..] = given.as_slice() {
        let message = format!("both `{first}` and `{second}` in {}, expected one of them", table.title());
        table.report().error(table.at_key(second), message);
    }
    if table.has("flavor") && !table.has("image") {
        table.report().absent(table.at_key("flavor"), "`flavor` without `image`, expected both");
    }
    let key = *given.first()?;
    if key != "address" && !has_infrastructure {
        let message = format!(
            "`{key}` without an infrastructure, expected `infrastructure = \"...\"` at the top, or `address`"
        );
        table.report().absent(table.at_key(key), message);
    }
    match key {
        "address" => {
            table.parse("address", Host::parse).map(|host| Machine::Address(host.as_str().to_owned()))
        }
        "instance" => table.parse("instance", plain_text).map(Machine::Instance),
        "adopt" => read_adopt(table),
        _ => {
            let flavor = table.parse("flavor", plain_text);
            table.parse("image", plain_text).map(|image| Machine::Image { image, flavor })
        }
    }
}

fn read_adopt(table: &Table<'_>) -> Option<Machine> {
    let adopt = table.table("adopt", &ADOPT)?;
    adopt.require("tag", "tag = \"...\"");
    adopt.parse("tag", plain_text).map(|tag| Machine::Adopt { tag })
}

fn read_count(table: &Table<'_>) -> Option<u16> {
    let most = u32::try_from(ASSEMBLIES_MAX).unwrap_or(u32::MAX);
    let count = table.number("count", 1, most)?;
    if count > 1 && table.has("address") | table.has("instance") | table.has("adopt") {
        let message = format!(
            "`count` is {count} but {} names one machine, expected `image`, or an assembly each",
            table.title()
        );
        table.report().error(table.at_key("count"), message);
    }
    u16::try_from(count).ok()
}

fn read_data(table: &Table<'_>) -> Data {
    let words = [("local", Data::Local), ("volume", Data::Volume), ("none", Data::None)];
    table.word("data", &words).unwrap_or_default()
}

fn read_max_rung(table: &Table<'_>, data: Data, has_infrastructure: bool) -> Rung {
    const RUNGS: [Rung; 6] = [
        Rung::RestartService,
        Rung::RebootSoft,
        Rung::RebootHard,
        Rung::Rebuild,
        Rung::Recreate,
        Rung::Relocate,
    ];
    let Some(rung) = table.word("max_rung", &RUNGS.map(|rung| (rung.as_str(), rung))) else {
        return Rung::RebootHard;
    };
    let at = table.at_key("max_rung");
    if rung > Rung::RestartService && !has_infrastructure {
        let message =
            format!("`max_rung` is \"{rung}\" without an infrastructure: only services are restarted");
        table.report().warning(at, message);
    }
    if rung > Rung::RebootHard && data == Data::Local {
        let message =
            format!("`max_rung` is \"{rung}\" but `data` is \"local\": nothing above reboot-hard is tried");
        table.report().warning(at, message);
    }
    rung
}

fn read_ssh(table: &Table<'_>) -> SshOverride {
    SshOverride {
        user: table.parse("user", ssh_user),
        port: table.number("port", 1, 65535).and_then(|port| u16::try_from(port).ok()),
        identity: table.parse("identity", |text| match text.starts_with('/') {
            true => plain_text(text),
            false => Err("an absolute path"),
        }),
        passphrase: read_ssh_passphrase(table),
        route: table.parse("jump", Route::parse),
    }
}

fn read_ssh_passphrase(table: &Table<'_>) -> Option<Passphrase> {
    let passphrase = read_passphrase(table, |text| match text.starts_with('/') {
        true => plain_text(text).map(PathBuf::from),
        false => Err("an absolute path"),
    });
    if table.has("passphrase") && !table.has("identity") {
        let message = format!("`passphrase` without `identity` in {}, whose key is it?", table.title());
        table.report().error(table.at_key("passphrase"), message);
    }
    passphrase
}

/// A user to log in as.
pub(crate) fn ssh_user(text: &str) -> Result<String, &'static str> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@\\".contains(&byte));
    if !plain || text.is_empty() || text.len() > 64 || text.starts_with('-') {
        return Err("a user's name");
    }
    Ok(text.to_owned())
}

/// `after` of an assembly or a service.
pub(super) fn read_after<'t>(table: &Table<'t>) -> Vec<Text<'t>> {
    let mut after = table.texts("after").unwrap_or_default();
    limit(table, "after", after.len(), AFTER_MAX);
    after.truncate(AFTER_MAX);
    after
}

fn read_failure_domains(table: &Table<'_>) -> Vec<Name> {
    let domains = table.list("failure_domains", name).unwrap_or_default();
    limit(table, "failure_domains", domains.len(), FAILURE_DOMAINS_MAX);
    domains
}

fn read_parameters<'t>(table: &Table<'t>) -> Vec<(Text<'t>, ReferringTemplate<'t>)> {
    let parameters = table.text_table("parameters").unwrap_or_default();
    let (most, longest) = PARAMETERS_MAX;
    limit(table, "parameters", parameters.len(), most);
    for (key, value) in &parameters {
        if key.text.len() > longest || value.text.len() > longest {
            let message = format!("a parameter of {} bytes, expected at most {longest}", value.text.len());
            table.report().error(key.at, message);
        }
    }
    let read = |(key, value)| read_referring(table, value).map(|value| (key, value));
    parameters.into_iter().filter_map(read).collect()
}

/// The options of the machine's outlet. One outlet has one machine, so that `count` cannot be beside it.
fn read_fence(table: &Table<'_>, has_infrastructure: bool) -> FenceOptions {
    let file = |text: &str| match text.starts_with('/') {
        true => plain_text(text).map(PathBuf::from),
        false => Err("an absolute path"),
    };
    let reading = fence::Reading { file: &file, written: fence::Written::Refused };
    let options = fence::read(table, "fence", reading);
    let at = table.at_key("fence");
    if table.has("fence") && table.is_empty("fence") {
        table
            .report()
            .absent(at, "`fence` has nothing in it, expected the machine's outlet, as { plug = \"7\" }");
    }
    if table.has("fence") && table.has("count") {
        let message =
            "both `count` and `fence`, expected an assembly for each machine, for each has its own outlet";
        table.report().error(at, message);
    }
    if table.has("fence") && !has_infrastructure {
        let message = "`fence` without an infrastructure, expected `infrastructure = \"...\"` at the top";
        table.report().absent(at, message);
    }
    options
}

pub(super) fn limit(table: &Table<'_>, key: &str, is: usize, most: usize) {
    if is > most {
        table.report().error(table.at_key(key), format!("`{key}` has {is} entries, expected at most {most}"));
    }
}
