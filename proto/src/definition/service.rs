//! Reads one service's table: which kind it is of, what restarts it.

use super::numbers::ProbeKeys;
use super::places::{KeyPlaces, written};
use super::read::{check_name, read_after, refuse_reference};
use super::schema::{PROBE, RESTART, SERVICE_KINDS};
use super::{Check, CommandLine, ProbeSettings, ProcessName, UnitName};
use crate::document::{HostPort, Table, Text};

/// A service whose references are still words.
pub(super) struct ServiceTemplate<'t> {
    pub(super) name: Text<'t>,
    pub(super) check: Option<Check>,
    pub(super) restart: Option<UnitName>,
    pub(super) probe: ProbeSettings,
    pub(super) after: Vec<Text<'t>>,
    pub(super) keys: KeyPlaces,
}

pub(super) fn read_service<'t>(
    name: Text<'t>,
    table: &Table<'t>,
    defaults: ProbeKeys,
) -> ServiceTemplate<'t> {
    check_name(table, name, "a service");
    let check = read_check(table);
    read_from(table);
    let given = table.table("restart", &RESTART).and_then(|restart| {
        restart.require("systemd", "systemd = \"NAME.service\"");
        restart.parse("systemd", UnitName::parse)
    });
    let own = match &check {
        Some(Check::Systemd(unit)) => Some(unit.clone()),
        _ => None,
    };
    if own.is_none() && check.is_some() && !table.has("restart") {
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
        restart: given.or(own),
        probe: defaults.or_read(probes.as_ref()).over(ProbeSettings::service()),
        after: read_after(table),
        keys: written(probes.as_ref(), PROBE.keys),
    }
}

fn read_check(table: &Table<'_>) -> Option<Check> {
    let given: Vec<&str> = SERVICE_KINDS.into_iter().filter(|key| table.has(key)).collect();
    if given.is_empty() && !table.has_later() {
        let message =
            format!("no kind in {}, expected `systemd`, `process`, `tcp` or `command`", table.title());
        table.report().absent(table.at(), message);
    }
    if let [first, second, ..] = given.as_slice() {
        let message = format!("two kinds in {}, `{first}` and `{second}`, expected one", table.title());
        table.report().error(table.at_key(second), message);
    }
    match *given.first()? {
        "systemd" => table.parse("systemd", UnitName::parse).map(Check::Systemd),
        "process" => table.parse("process", ProcessName::parse).map(Check::Process),
        "tcp" => read_tcp(table),
        _ => {
            let text = table.text("command")?;
            refuse_reference(table, text);
            table.parse("command", CommandLine::parse).map(Check::Command)
        }
    }
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

fn read_from(table: &Table<'_>) {
    let Some(text) = table.text("from") else { return };
    if text.text == "controller" {
        table
            .report()
            .error(text.at, "`from` \"controller\" is not supported yet, probes are made in the \"guest\"");
        return;
    }
    table.word("from", &[("guest", ())]);
}
