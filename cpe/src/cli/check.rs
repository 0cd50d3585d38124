//! `cpe check`: definitions are parsed as `run` would, without a controller. Every error of every file, each with its place.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cpe_calendar::Calendar;
use cpe_proto::definition::Deployable;
use cpe_proto::document::{Diagnostic, Position};
use serde::Serialize;

use super::bounds::{self, Bounds};
use super::{Check, Exit, Failure};
use crate::clock;
use crate::load::{self, Context, Definitions};
use crate::owner;

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
    /// The next occurrences of maintenance windows.
    maintenance: Vec<Window>,
}

/// One maintenance window.
#[derive(Debug, Serialize)]
struct Window {
    /// `deployable`, or `deployable/assembly` of each.
    of: Vec<String>,
    /// From and to, in milliseconds since 1970-01-01T00:00:00Z.
    next: Vec<(u64, u64)>,
    /// The same on the clocks of its zone.
    #[serde(skip)]
    shown: Vec<String>,
}

/// So many occurrences of each window are told.
const OCCURRENCES: usize = 3;

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
        for Window { of, shown, .. } in &report.maintenance {
            writeln!(out, "maintenance of {}: {}", of.join(", "), shown.join("; "))?;
        }
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
                report.warnings.extend(owner::check(&path.display().to_string(), &config));
                report.warnings.extend(config.warnings);
            }
            Err(errors) => report.errors.extend(errors),
        }
    }
    let mut definitions = Definitions::new(context);
    let changes = definitions.look(&files);
    let broken = |file: &PathBuf| changes.rejected.iter().any(|(path, _)| path == file);
    report.valid += definitions.in_force();
    report.valid += files.iter().filter(|file| load::holds_templates(file) && !broken(file)).count();
    report.errors.extend(changes.rejected.into_iter().flat_map(|(_, errors)| errors));
    report.warnings.extend(changes.warnings);
    report.bounds = bounds::of(&definitions);
    report.maintenance = definitions.used().flat_map(|it| windows(&it.deployable)).collect();
    report
}

fn windows(definition: &Deployable) -> Vec<Window> {
    let now = clock::wall_ms();
    let name = &definition.name;
    let windows = definition.maintenance.iter().filter_map(|window| {
        let calendar = Calendar::of(window, now).ok()?;
        let next: Vec<_> = calendar.after(now).take(OCCURRENCES).collect();
        let of = match window.assemblies.as_slice() {
            [] => vec![name.to_string()],
            some => some.iter().map(|it| format!("{name}/{}", definition.assembly(*it).name)).collect(),
        };
        let shown = next.iter().map(|it| cpe_calendar::shown(&calendar, *it)).collect();
        Some(Window { of, next: next.iter().map(|it| (it.from, it.to)).collect(), shown })
    });
    windows.collect()
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
