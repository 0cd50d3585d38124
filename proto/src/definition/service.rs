//! Reads one service's table: which kind it is of, what restarts it.

use std::sync::Arc;

use super::direct_read::{self, guest_itself, own_host, read_direct};
use super::numbers::ProbeKeys;
use super::places::{KeyPlaces, written};
use super::read::{check_name, limit, read_after};
use super::schema::{PROBE, RESTART, SERVICE_KINDS};
use super::{
    Check, CommandLine, Direct, OcfAgent, ParameterName, ProbeSettings, ProcessName, ProgramPath, Referring,
    Restart, ScriptName, UnitName,
};
use crate::document::{HostPort, Table, Text, joined};

/// The most parameters of one service, and the longest value in bytes.
const PARAMETERS_MAX: (usize, usize) = (64, 1024);

/// A parameter whose references are still words.
pub(super) struct ParameterTemplate<'t> {
    pub(super) name: ParameterName,
    pub(super) value: ReferringTemplate<'t>,
}

/// A text whose references are still words.
pub(super) struct ReferringTemplate<'t> {
    pub(super) text: Text<'t>,
    pub(super) value: Referring<Arc<str>>,
}

/// A service whose references are still words.
pub(super) struct ServiceTemplate<'t> {
    pub(super) name: Text<'t>,
    pub(super) check: Option<CheckTemplate>,
    pub(super) check_at: usize,
    pub(super) line: Option<ReferringTemplate<'t>>,
    pub(super) restart: Option<Restart>,
    pub(super) parameters: Vec<ParameterTemplate<'t>>,
    pub(super) configure: Option<ProgramPath>,
    pub(super) probe: ProbeSettings,
    pub(super) after: Vec<Text<'t>>,
    pub(super) keys: KeyPlaces,
}

/// A check whose reference is still a word.
pub(super) enum CheckTemplate {
    Guest(Check),
    Direct(direct_read::Template),
    FromGuest(direct_read::Template),
}

/// What of its assembly a service needs to know.
#[derive(Clone, Copy)]
pub(super) struct Home<'t> {
    /// The assembly's name, before `count` makes several of it.
    pub(super) name: Text<'t>,
    /// Whether there is a session to the guest.
    pub(super) guest: bool,
    pub(super) probe: ProbeKeys,
}

/// Where a probe is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Guest,
    Controller,
}

pub(super) fn read_service<'t>(name: Text<'t>, table: &Table<'t>, home: Home<'t>) -> ServiceTemplate<'t> {
    check_name(table, name, "a service");
    let kind = find_kind(table);
    let check_at = kind.map_or(table.at(), |kind| table.at_key(kind));
    let check = kind.and_then(|kind| read_check(table, kind, home));
    let given = table.table("restart", &RESTART).and_then(|restart| read_restart(&restart));
    for key in ["restart", "configure"] {
        if !home.guest && table.has(key) {
            let message = format!(
                "`{key}` without a session to the guest, expected `monitor = \"ssh\"` in its assembly"
            );
            table.report().error(table.at_key(key), message);
        }
    }
    let own = match &check {
        Some(CheckTemplate::Guest(Check::Systemd(unit))) => Some(Restart::Systemd(unit.clone())),
        Some(CheckTemplate::Guest(Check::Ocf(agent))) => Some(Restart::Ocf(agent.clone())),
        Some(CheckTemplate::Guest(Check::Lsb(script))) => Some(Restart::Lsb(script.clone())),
        _ => None,
    };
    if own.is_none() && check.is_some() && !table.has("restart") && home.guest {
        let message = format!(
            "nothing restarts {}: it has no service rung; `restart = {{ systemd = \"NAME.service\" }}` gives it one",
            table.title()
        );
        table.report().warning(name.at, message);
    }
    let probes = table.table("probe", &PROBE);
    let configure = table.parse("configure", ProgramPath::parse);
    let parameters = read_parameters(table);
    if table.has("parameters") && !table.has("configure") && kind.is_some_and(|kind| kind != "ocf") {
        let message = format!(
            "nothing reads the `parameters` of {}, expected `configure = \"/a/program\"` beside them, or a service of kind `ocf`",
            table.title()
        );
        table.report().error(table.at_key("parameters"), message);
    }
    ServiceTemplate {
        name,
        line: kind.and_then(|kind| read_line(table, kind)).or_else(|| path_of(check.as_ref()?, check_at)),
        check,
        check_at,
        parameters,
        configure,
        restart: given.or(own),
        probe: home.probe.or_read(probes.as_ref()).over(ProbeSettings::service()),
        after: read_after(table),
        keys: written(probes.as_ref(), PROBE.keys),
    }
}

fn read_parameters<'t>(table: &Table<'t>) -> Vec<ParameterTemplate<'t>> {
    let given = table.text_table("parameters").unwrap_or_default();
    let (most, longest) = PARAMETERS_MAX;
    limit(table, "parameters", given.len(), most);
    let mut parameters = Vec::new();
    for (name, text) in given.into_iter().take(most) {
        let wrong = |at, expected: &str| {
            let message = format!("a parameter in {}, expected {expected}", table.title());
            table.report().error(at, message);
        };
        let parsed = ParameterName::parse(name.text).map_err(|expected| wrong(name.at, expected));
        if text.text.len() > longest || text.text.chars().any(char::is_control) {
            wrong(text.at, &format!("at most {longest} bytes without control characters"));
        }
        let value = Referring::parse(text.text).map_err(|expected| wrong(text.at, &expected));
        if let (Ok(name), Ok(value)) = (parsed, value) {
            parameters.push(ParameterTemplate { name, value: ReferringTemplate { text, value } });
        }
    }
    parameters.sort_by(|one, other| one.name.cmp(&other.name));
    parameters
}

fn read_restart(table: &Table<'_>) -> Option<Restart> {
    if !table.has("lsb") {
        table.require("systemd", "systemd = \"NAME.service\"");
        return table.parse("systemd", UnitName::parse).map(Restart::Systemd);
    }
    if table.has("systemd") {
        let message = format!("both `systemd` and `lsb` in {}, expected one of them", table.title());
        table.report().error(table.at_key("lsb"), message);
    }
    table.parse("lsb", ScriptName::parse).map(Restart::Lsb)
}

fn find_kind(table: &Table<'_>) -> Option<&'static str> {
    let given: Vec<&str> = SERVICE_KINDS.into_iter().filter(|key| table.has(key)).collect();
    if given.is_empty() && !table.has_later() {
        let message = format!("no kind in {}, expected {}", table.title(), joined(&SERVICE_KINDS, '`', "or"));
        table.report().absent(table.at(), message);
    }
    if let [first, second, ..] = given.as_slice() {
        let message = format!("two kinds in {}, `{first}` and `{second}`, expected one", table.title());
        table.report().error(table.at_key(second), message);
    }
    given.first().copied()
}

fn read_check(table: &Table<'_>, kind: &str, home: Home<'_>) -> Option<CheckTemplate> {
    let from = read_from(table, kind, home)?;
    if from == From::Controller {
        return read_direct(table, kind, &own_host(home.name)).map(CheckTemplate::Direct);
    }
    let check = match kind {
        "systemd" => table.parse("systemd", UnitName::parse).map(Check::Systemd),
        "process" => table.parse("process", ProcessName::parse).map(Check::Process),
        "tcp" => read_tcp(table),
        "ocf" => table.parse("ocf", OcfAgent::parse).map(Check::Ocf),
        "lsb" => table.parse("lsb", ScriptName::parse).map(Check::Lsb),
        "nagios" => table.parse("nagios", CommandLine::parse).map(Check::Nagios),
        "http" | "tls" | "dns" => {
            return read_direct(table, kind, &guest_itself()).map(CheckTemplate::FromGuest);
        }
        _ => table.parse("command", CommandLine::parse).map(Check::Command),
    };
    check.map(CheckTemplate::Guest)
}

/// The line of a `command` or a `nagios`, if it refers to something.
fn read_line<'t>(table: &Table<'t>, kind: &str) -> Option<ReferringTemplate<'t>> {
    let text = matches!(kind, "command" | "nagios").then(|| table.text(kind)).flatten()?;
    read_referring(table, text).filter(|line| line.value.may_refer())
}

/// The path of an `http`, if it refers to something.
fn path_of<'t>(check: &CheckTemplate, at: usize) -> Option<ReferringTemplate<'t>> {
    let (CheckTemplate::Direct(Direct::Http(http)) | CheckTemplate::FromGuest(Direct::Http(http))) = check
    else {
        return None;
    };
    http.url.referring().map(|value| ReferringTemplate { text: Text { text: "", at }, value })
}

/// A text that may refer to something. What is wrong with it is reported.
pub(super) fn read_referring<'t>(table: &Table<'t>, text: Text<'t>) -> Option<ReferringTemplate<'t>> {
    let wrong = |expected: String| {
        table.report().error(text.at, format!("a reference in {}, expected {expected}", table.title()));
    };
    Referring::parse(text.text).map_err(wrong).ok().map(|value| ReferringTemplate { text, value })
}

/// `tcp = 5432` is a port of the guest itself; `tcp = "db:5432"` is one that it must reach.
fn read_tcp(table: &Table<'_>) -> Option<Check> {
    if table.is_number("tcp") {
        let port = table.number("tcp", 1, 65535).and_then(|port| u16::try_from(port).ok())?;
        return Some(Check::Tcp { host: "127.0.0.1".into(), port });
    }
    let parsed = table.parse("tcp", HostPort::parse)?;
    Some(Check::Tcp { host: parsed.host.as_str().into(), port: parsed.port })
}

/// Where it is probed from: what may be, by its kind. None where that is wrong.
fn read_from(table: &Table<'_>, kind: &str, home: Home<'_>) -> Option<From> {
    let given = table.word("from", &[("guest", From::Guest), ("controller", From::Controller)]);
    let (usual, other) = match kind {
        "tcp" if home.guest => (From::Guest, Some(From::Controller)),
        "tcp" => (From::Controller, None),
        "systemd" | "process" | "command" | "nagios" | "ocf" | "lsb" => (From::Guest, None),
        "http" | "tls" | "dns" if home.guest => (From::Controller, Some(From::Guest)),
        _ => (From::Controller, None),
    };
    if usual == From::Guest && !home.guest {
        let message = format!(
            "`{kind}` is probed in the guest, expected `monitor = \"ssh\"` in its assembly, or a kind that is probed from outside"
        );
        table.report().error(table.at_key(kind), message);
        return None;
    }
    let from = given.unwrap_or(usual);
    if from != usual && Some(from) != other {
        let message = match usual {
            From::Guest => format!("`{kind}` cannot be probed from the controller, expected \"guest\""),
            From::Controller if home.guest || kind == "icmp" => format!(
                "`{kind}` is probed from the controller, expected \"controller\"; a `command` probes in the guest"
            ),
            From::Controller => format!(
                "`{kind}` from the guest without a session to it, expected \"controller\", or `monitor = \"ssh\"` in its assembly"
            ),
        };
        table.report().error(table.text("from").map_or(table.at(), |text| text.at), message);
        return None;
    }
    Some(from)
}
