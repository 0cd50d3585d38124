//! The status as a table, in the order of the definitions: state, since when, and why where it is not healthy.

use std::fmt::Write;

use cpe_proto::api::{AssemblyStatus, DeployableStatus, Paused, ServiceStatus, Status};
use cpe_proto::state::State;

use super::{Reader, plain, word};

/// Whether a script may go on: everything is healthy, or stopped because somebody ordered it.
#[must_use]
pub fn is_healthy(status: &Status) -> bool {
    let good = |state: State| matches!(state, State::Healthy | State::Stopped);
    status.deployables.iter().all(|deployable| {
        let assemblies = &deployable.assemblies;
        let services = assemblies.iter().flat_map(|assembly| &assembly.services);
        good(deployable.state)
            && assemblies.iter().all(|assembly| good(assembly.state))
            && services.into_iter().all(|service| good(service.state))
    })
}

/// One line of the table.
struct Row {
    name: String,
    state: State,
    since: String,
    about: String,
}

/// The table, and a line that sums it up.
#[must_use]
pub fn status(status: &Status, reader: &Reader) -> String {
    let rows: Vec<Row> = status.deployables.iter().flat_map(|deployable| rows(deployable, reader)).collect();
    let names = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let states = rows.iter().map(|row| word(row.state).len()).max().unwrap_or(0);
    let sinces = rows.iter().map(|row| row.since.len()).max().unwrap_or(0);
    let mut out = String::new();
    for row in &rows {
        let rest = format!("{:sinces$}  {}", row.since, row.about);
        let rest = rest.trim_end();
        // Nothing follows: no spaces at the end of the line, not even coloured ones.
        let width = if rest.is_empty() { 0 } else { states };
        let state = reader.paint(row.state, &format!("{:width$}", word(row.state)));
        let line = format!("{:names$}  {state}  {rest}", row.name);
        let _ = writeln!(out, "{}", line.trim_end());
    }
    if let Some(everything) = &status.paused {
        let line = format!("all recovery is {}, since {}", paused(everything), reader.time(everything.since));
        let _ = writeln!(out, "{}; `cpe resume` ends it", plain(&line));
    }
    for (domain, pause) in &status.paused_domains {
        let since = reader.time(pause.since);
        let line = format!("all recovery in domain:{domain} is {}, since {since}", paused(pause));
        let _ = writeln!(out, "{}; `cpe resume domain:{domain}` ends it", plain(&line));
    }
    let _ = writeln!(out, "{}", summary(status));
    out
}

fn rows(deployable: &DeployableStatus, reader: &Reader) -> Vec<Row> {
    let mut rows = vec![Row {
        name: deployable.name.to_string(),
        state: deployable.state,
        since: String::new(),
        about: about([
            if deployable.mode == "act" { "" } else { &deployable.mode },
            if deployable.maintenance { "in maintenance" } else { "" },
            &deployable.paused.as_ref().map(paused).unwrap_or_default(),
            deployable.parked.as_ref().map_or("", |parked| &parked.reason),
        ]),
    }];
    for assembly in &deployable.assemblies {
        rows.push(assembly_row(assembly, reader));
        rows.extend(assembly.services.iter().map(|service| service_row(service, reader)));
    }
    rows
}

/// "paused: migration (by uid 0 (root))".
fn paused(paused: &Paused) -> String {
    format!("paused: {} (by {})", paused.reason, paused.by)
}

fn assembly_row(assembly: &AssemblyStatus, reader: &Reader) -> Row {
    let way =
        format!("{} over {}", assembly.address.as_deref().unwrap_or("no address yet"), assembly.monitor);
    Row {
        name: format!("  {}", assembly.name),
        state: assembly.state,
        since: since(assembly.since, reader),
        about: about([
            &way,
            if assembly.maintenance { "in maintenance" } else { "" },
            &assembly.paused.as_ref().map(paused).unwrap_or_default(),
            &assembly.reason,
        ]),
    }
}

fn service_row(service: &ServiceStatus, reader: &Reader) -> Row {
    Row {
        name: format!("    {}", service.name),
        state: service.state,
        since: since(service.since, reader),
        about: about([&service.paused.as_ref().map(paused).unwrap_or_default(), &service.reason]),
    }
}

fn since(milliseconds: u64, reader: &Reader) -> String {
    if milliseconds == 0 { String::new() } else { reader.time(milliseconds) }
}

fn about<const N: usize>(parts: [&str; N]) -> String {
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).map(plain).collect();
    parts.join("; ")
}

fn summary(status: &Status) -> String {
    let assemblies = status.deployables.iter().flat_map(|deployable| &deployable.assemblies);
    let services = assemblies.clone().flat_map(|assembly| &assembly.services);
    let mut by_state: Vec<String> = Vec::new();
    for state in State::ALL {
        let count = services.clone().filter(|service| service.state == state).count();
        if count > 0 {
            by_state.push(format!("{count} {}", word(state)));
        }
    }
    let of = if by_state.is_empty() { String::new() } else { format!(": {}", by_state.join(", ")) };
    let (deployables, assemblies) = (status.deployables.len(), assemblies.count());
    format!(
        "{}, {}, {}{of}",
        count(deployables, "deployable", "deployables"),
        count(assemblies, "assembly", "assemblies"),
        count(services.count(), "service", "services"),
    )
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
