//! `cpe audit`: the rules of design.md section 4 against a journal, offline. The rules are in `dped::audit`, the reading in `journal/audit.rs`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dped::audit::{Finding, Records, audit as judge};
use serde_json::{Value, json};

use super::{Audit, Exit, Failure};
use crate::{journal, load};

pub(super) fn audit(wanted: &Audit, config: &Path) -> Result<Exit, Failure> {
    let path = path(wanted, config)?;
    let records =
        journal::records(&path, wanted.open_for).map_err(|error| Failure::Config(error.to_string()))?;
    let findings = judge(&records);
    let mut out = io::stdout().lock();
    if wanted.json {
        serde_json::to_writer_pretty(&mut out, &document(&records, &findings)).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        out.write_all(text(&records, &findings).as_bytes())?;
    }
    Ok(if findings.is_empty() { Exit::Done } else { Exit::No })
}

/// The journal that is meant: a file, the one in a state_dir, or that of the configuration.
fn path(wanted: &Audit, config: &Path) -> Result<PathBuf, Failure> {
    let given = wanted.state_dir.as_ref().or(wanted.journal.as_ref());
    let place = match given {
        Some(place) => place.clone(),
        None => {
            load::config(config)
                .map_err(|errors| {
                    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                    Failure::Config(lines.join("\n"))
                })?
                .state_dir
        }
    };
    Ok(if place.is_dir() { place.join("journal.sqlite") } else { place })
}

fn text(records: &Records, findings: &[Finding]) -> String {
    let mut lines: Vec<String> = findings
        .iter()
        .map(|finding| format!("rule {}: {} ({})", finding.rule, finding.what, finding.records.join(", ")))
        .collect();
    lines.push(format!(
        "{} decisions, {} actions, {} incidents: {}",
        records.decisions.len(),
        records.intents.len(),
        records.incidents.len(),
        match findings.len() {
            0 => "no rule was broken".to_owned(),
            1 => "1 finding".to_owned(),
            many => format!("{many} findings"),
        }
    ));
    lines.into_iter().map(|line| line + "\n").collect()
}

fn document(records: &Records, findings: &[Finding]) -> Value {
    let finding =
        |finding: &Finding| json!({ "rule": finding.rule, "what": finding.what, "records": finding.records });
    json!({
        "decisions": records.decisions.len(),
        "actions": records.intents.len(),
        "incidents": records.incidents.len(),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}
