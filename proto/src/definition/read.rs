//! The first half of reading a definition: each table by itself, into templates whose references are still words.
//! `resolve.rs` has the second half.

use std::num::NonZeroU32;
use std::time::Duration;

use super::schema::{ADOPT, ASSEMBLY, ESCALATION, MACHINE_KEYS, PROBE, SSH, TIMING, WINDOW};
use super::service::{ServiceTemplate, read_service};
use super::{Data, Escalation, Machine, Mode, OnOrder, ProbeSettings, SshOverride, Timing, Window};
use crate::document::{Host, Table, Text, plain_text};
use crate::id::{Name, NameError};
use crate::rung::Rung;

/// The most assemblies of one deployable.
pub const ASSEMBLIES_MAX: usize = 1000;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A definition with words for references.
pub(super) struct Template<'t> {
    pub(super) name: Option<Name>,
    pub(super) name_at: usize,
    pub(super) infrastructure: Option<Name>,
    pub(super) infrastructure_at: usize,
    pub(super) mode: Mode,
    pub(super) escalation: Escalation,
    pub(super) timing: Timing,
    pub(super) assemblies: Vec<AssemblyTemplate<'t>>,
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
    pub(super) ssh: SshOverride,
    pub(super) after: Vec<Text<'t>>,
    pub(super) parameters: Vec<(Text<'t>, Text<'t>)>,
    pub(super) services: Vec<ServiceTemplate<'t>>,
}

pub(super) fn read<'t>(root: &Table<'t>) -> Template<'t> {
    root.require("name", "name = \"...\" of a-z, 0-9 and -");
    let probe = ProbeKeys::default().or_read(root.table("probe", &PROBE).as_ref());
    let infrastructure = root.parse("infrastructure", name);
    let named = root.has("infrastructure");
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
        escalation: root
            .table("escalation", &ESCALATION)
            .map(|table| read_escalation(&table))
            .unwrap_or_default(),
        timing: root.table("timing", &TIMING).map(|table| read_timing(&table)).unwrap_or_default(),
        assemblies,
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
    let probe = defaults.or_read(table.table("probe", &PROBE).as_ref());
    let machine = read_machine(table, has_infrastructure);
    let data = read_data(table);
    read_monitor(table);
    let services = table.tables("services", &super::schema::SERVICE);
    AssemblyTemplate {
        name,
        count: read_count(table),
        machine,
        machine_at: MACHINE_KEYS
            .iter()
            .find(|key| table.has(key))
            .map_or(table.at(), |key| table.at_key(key)),
        failure_domains: table.list("failure_domains", self::name).unwrap_or_default(),
        data,
        max_rung: read_max_rung(table, data, has_infrastructure),
        probe: probe.over(ProbeSettings::channel()),
        ssh: table.table("ssh", &SSH).map(|table| read_ssh(&table)).unwrap_or_default(),
        after: table.texts("after").unwrap_or_default(),
        parameters: read_parameters(table),
        services: services.iter().map(|(name, service)| read_service(*name, service, probe)).collect(),
    }
}

fn read_monitor(table: &Table<'_>) {
    let Some(text) = table.text("monitor") else { return };
    if matches!(text.text, "agent" | "direct") {
        let message = format!("`monitor` \"{}\" is not supported yet, expected \"ssh\"", text.text);
        table.report().error(text.at, message);
        return;
    }
    table.word("monitor", &[("ssh", ())]);
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
    const RUNGS: [Rung; 5] =
        [Rung::RestartService, Rung::RebootSoft, Rung::RebootHard, Rung::Rebuild, Rung::Recreate];
    if let Some(text) = table.text("max_rung")
        && text.text == Rung::Relocate.as_str()
    {
        table
            .report()
            .error(text.at, "`max_rung` \"relocate\" is not supported yet, the highest is \"recreate\"");
        return Rung::Recreate;
    }
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
    }
}

/// A user to log in as.
pub(crate) fn ssh_user(text: &str) -> Result<String, &'static str> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@\\".contains(&byte));
    if !plain || text.is_empty() || text.len() > 64 || text.starts_with('-') {
        return Err("a user's name");
    }
    Ok(text.to_owned())
}

fn read_parameters<'t>(table: &Table<'t>) -> Vec<(Text<'t>, Text<'t>)> {
    let parameters = table.text_table("parameters").unwrap_or_default();
    for (_, value) in &parameters {
        refuse_reference(table, *value);
    }
    parameters
}

/// A text that asks for another assembly's attribute would otherwise be taken as it is.
pub(super) fn refuse_reference(table: &Table<'_>, text: Text<'_>) {
    let found =
        text.text.split('{').skip(1).filter_map(|rest| rest.split_once('}')).find_map(|(inside, _)| {
            let (assembly, attribute) = inside.split_once('.')?;
            (Name::parse(assembly).is_ok() && matches!(attribute, "address" | "name")).then_some(inside)
        });
    if let Some(inside) = found {
        let message = format!("`{{{inside}}}` is not supported yet, expected the value itself");
        table.report().error(text.at, message);
    }
}

fn read_escalation(table: &Table<'_>) -> Escalation {
    let window = |key: &str| {
        let window = table.table(key, &WINDOW)?;
        window.require("failures", "failures = N, within = \"...\"");
        window.require("within", "failures = N, within = \"...\"");
        let failures = window.number("failures", 1, 100).and_then(NonZeroU32::new);
        let within = window.duration("within", Duration::from_secs(1), 30 * DAY);
        Some(Window { failures: failures?, within: within? })
    };
    Escalation { service: window("service"), assembly: window("assembly") }
}

fn read_timing(table: &Table<'_>) -> Timing {
    let default = Timing::default();
    let wait = |key: &str, default| table.duration(key, Duration::from_secs(1), DAY).unwrap_or(default);
    let order = |key: &str, default| {
        table.word(key, &[("recover", OnOrder::Recover), ("report", OnOrder::Report)]).unwrap_or(default)
    };
    let timing = Timing {
        dependency_wait: wait("dependency_wait", default.dependency_wait),
        unreachable_notify: wait("unreachable_notify", default.unreachable_notify),
        transition_wait: wait("transition_wait", default.transition_wait),
        retry_after: wait("retry_after", default.retry_after),
        service_action_timeout: wait("service_action_timeout", default.service_action_timeout),
        machine_action_timeout: wait("machine_action_timeout", default.machine_action_timeout),
        action_give_up: wait("action_give_up", default.action_give_up),
        on_channel_refused: order("on_channel_refused", default.on_channel_refused),
        on_unexpected_stop: order("on_unexpected_stop", default.on_unexpected_stop),
    };
    if timing.action_give_up < timing.machine_action_timeout.max(timing.service_action_timeout) {
        let message =
            "`action_give_up` is shorter than an action's time-out: it is given up before it is late";
        table.report().warning(table.at_key("action_give_up"), message);
    }
    timing
}

/// The `probe` tables above a service or a channel, the nearest last: what none of them says has its default.
#[derive(Clone, Copy, Default)]
pub(super) struct ProbeKeys {
    interval: Option<Duration>,
    timeout: Option<Duration>,
    confirm_interval: Option<Duration>,
    failure_threshold: Option<NonZeroU32>,
    startup_grace: Option<Duration>,
    stable_for: Option<Duration>,
}

impl ProbeKeys {
    /// With what that table says in place of what those above it say.
    pub(super) fn or_read(self, table: Option<&Table<'_>>) -> Self {
        let Some(table) = table else { return self };
        let millis = Duration::from_millis;
        let keys = Self {
            interval: table.duration("interval", millis(100), HOUR).or(self.interval),
            timeout: table.duration("timeout", millis(100), 5 * MINUTE).or(self.timeout),
            confirm_interval: table
                .duration("confirm_interval", millis(50), 5 * MINUTE)
                .or(self.confirm_interval),
            failure_threshold: table
                .number("failure_threshold", 1, 20)
                .and_then(NonZeroU32::new)
                .or(self.failure_threshold),
            startup_grace: table.duration("startup_grace", millis(100), HOUR).or(self.startup_grace),
            stable_for: table.duration("stable_for", millis(100), HOUR).or(self.stable_for),
        };
        keys.warn(table);
        keys
    }

    /// The settings, with those for what is not said.
    pub(super) fn over(self, default: ProbeSettings) -> ProbeSettings {
        ProbeSettings {
            interval: self.interval.unwrap_or(default.interval),
            timeout: self.timeout.unwrap_or(default.timeout),
            confirm_interval: self.confirm_interval.unwrap_or(default.confirm_interval),
            failure_threshold: self.failure_threshold.unwrap_or(default.failure_threshold),
            startup_grace: self.startup_grace.unwrap_or(default.startup_grace),
            stable_for: self.stable_for.unwrap_or(default.stable_for),
        }
    }

    fn warn(self, table: &Table<'_>) {
        let settings = self.over(ProbeSettings::service());
        let suspect = |one: &str, other: &str, shorter: bool, because: &str| {
            if shorter && (table.has(one) || table.has(other)) {
                let at = if table.has(one) { one } else { other };
                table
                    .report()
                    .warning(table.at_key(at), format!("`{one}` is shorter than `{other}`: {because}"));
            }
        };
        let because = "a start is judged before it can have worked";
        suspect("startup_grace", "stable_for", settings.startup_grace < settings.stable_for, because);
        let because = "confirming a fault is slower than probing again";
        suspect("interval", "confirm_interval", settings.interval < settings.confirm_interval, because);
    }
}
