//! Reads one service's table: which kind it is of, what restarts it.

use super::direct_read::{self, read_direct};
use super::numbers::ProbeKeys;
use super::places::{KeyPlaces, written};
use super::read::{check_name, read_after, refuse_reference};
use super::schema::{PROBE, RESTART, SERVICE_KINDS};
use super::{Check, CommandLine, ProbeSettings, ProcessName, UnitName};
use crate::document::{HostPort, Table, Text, joined};

/// A service whose references are still words.
pub(super) struct ServiceTemplate<'t> {
    pub(super) name: Text<'t>,
    pub(super) check: Option<CheckTemplate>,
    pub(super) check_at: usize,
    pub(super) restart: Option<UnitName>,
    pub(super) probe: ProbeSettings,
    pub(super) after: Vec<Text<'t>>,
    pub(super) keys: KeyPlaces,
}

/// A check whose reference is still a word.
pub(super) enum CheckTemplate {
    Guest(Check),
    Direct(direct_read::Template),
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
    let check = kind.and_then(|kind| read_check(table, kind, home));
    let given = table.table("restart", &RESTART).and_then(|restart| {
        restart.require("systemd", "systemd = \"NAME.service\"");
        restart.parse("systemd", UnitName::parse)
    });
    if !home.guest && table.has("restart") {
        let message =
            "`restart` without a session to the guest, expected `monitor = \"ssh\"` in its assembly";
        table.report().error(table.at_key("restart"), message);
    }
    let own = match &check {
        Some(CheckTemplate::Guest(Check::Systemd(unit))) => Some(unit.clone()),
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
    ServiceTemplate {
        name,
        check,
        check_at: kind.map_or(table.at(), |kind| table.at_key(kind)),
        restart: given.or(own),
        probe: home.probe.or_read(probes.as_ref()).over(ProbeSettings::service()),
        after: read_after(table),
        keys: written(probes.as_ref(), PROBE.keys),
    }
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
        return read_direct(table, kind, home.name).map(CheckTemplate::Direct);
    }
    let check = match kind {
        "systemd" => table.parse("systemd", UnitName::parse).map(Check::Systemd),
        "process" => table.parse("process", ProcessName::parse).map(Check::Process),
        "tcp" => read_tcp(table),
        _ => {
            let text = table.text("command")?;
            refuse_reference(table, text);
            table.parse("command", CommandLine::parse).map(Check::Command)
        }
    };
    check.map(CheckTemplate::Guest)
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
        "systemd" | "process" | "command" => (From::Guest, None),
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
            From::Controller => format!(
                "`{kind}` is probed from the controller, expected \"controller\"; a `command` probes in the guest"
            ),
        };
        table.report().error(table.text("from").map_or(table.at(), |text| text.at), message);
        return None;
    }
    Some(from)
}
