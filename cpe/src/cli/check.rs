//! `cpe check`: definitions are parsed as `run` would, without a controller. Every error of every file, each with its place.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cpe_proto::document::{Diagnostic, Position};
use serde::Serialize;

use super::bounds::{self, Bounds};
use super::{Check, Exit, Failure};
use crate::load::{self, Context, Definitions};

/// What `--json` prints.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Files that were read.
    files: usize,
    /// Files that can be used.
    valid: usize,
    /// In the order of the files.
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// What the files that can be used come to at worst.
    bounds: Bounds,
}

pub(super) fn check(check: &Check) -> Result<Exit, Failure> {
    let report = read(&check.paths);
    let mut out = io::stdout().lock();
    if check.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        for diagnostic in report.errors.iter().chain(&report.warnings) {
            writeln!(out, "{diagnostic}")?;
        }
        bounds::print(&report.bounds, &mut out)?;
        writeln!(out, "{}", summary(&report))?;
    }
    Ok(if report.errors.is_empty() { Exit::Done } else { Exit::No })
}

fn read(paths: &[PathBuf]) -> Report {
    let mut report = Report::default();
    let (configs, files): (Vec<_>, Vec<_>) =
        files(paths, &mut report).into_iter().partition(|path| is_config(path));
    report.files = configs.len() + files.len();
    let mut context = None;
    for path in &configs {
        match load::config(path) {
            Ok(config) => {
                context = Some(Context::of(&config));
                report.valid += 1;
                report.warnings.extend(config.warnings);
            }
            Err(errors) => report.errors.extend(errors),
        }
    }
    let mut definitions = Definitions::new(context);
    let changes = definitions.look(&files);
    report.valid += definitions.in_force();
    report.errors.extend(changes.rejected.into_iter().flat_map(|(_, errors)| errors));
    report.warnings.extend(changes.warnings);
    report.bounds = bounds::of(&definitions);
    report
}

fn is_config(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "cpe.toml")
}

/// The files themselves, and those of directories; none twice.
fn files(paths: &[PathBuf], report: &mut Report) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for path in paths {
        let found = if path.is_dir() { load::files(path) } else { Ok(vec![path.clone()]) };
        let problem = match found {
            Ok(found) if found.is_empty() => "holds no *.toml".to_owned(),
            Ok(found) => {
                files.extend(found.into_iter().filter(|file| seen.insert(file.clone())));
                continue;
            }
            Err(error) => format!("cannot be read: {error}"),
        };
        report.errors.push(Diagnostic::error(&path.display().to_string(), Position::START, problem));
    }
    files
}

fn summary(report: &Report) -> String {
    let Report { files, valid, errors, warnings, .. } = report;
    let count = |number: usize, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    format!(
        "{}, {valid} valid, {}, {}",
        count(*files, "file"),
        count(errors.len(), "error"),
        count(warnings.len(), "warning")
    )
}
