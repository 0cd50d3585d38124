//! Reading TOML files written by people: a walk over a parsed file that collects everything that is wrong with it, each with
//! its place, before it gives up. `report.rs` collects and sorts, `table.rs` walks, `words.rs` parses what stands in quotes.
//! The definitions (`definition/`) and cpe.toml (`config.rs`) are read by it.

mod report;
mod table;
mod words;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use report::{Position, Report, Source};
pub(crate) use table::joined;
pub use table::{Schema, Table, Text, TextOrTable};
pub use words::{Host, HostPort, glob, nearest, parse_duration, parse_size, plain_text};
pub(crate) use words::{nearest_clause, shown};

/// The most that is told about one file; the rest is counted.
pub const DIAGNOSTICS_MAX: usize = 100;

/// The largest file that is read, in bytes.
pub const FILE_MAX_BYTES: usize = 1024 * 1024;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The file is not used.
    Error,
    /// The file is used, but probably does not do what was meant.
    Warning,
}

/// One thing that is wrong with a file, and where. Printed as `file:line:column: what, expected what, nearest key`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The file's name, as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, what was expected, and the nearest thing that would be right.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        write!(out, "{}:{}:{}: {word}{}", self.file, self.line, self.column, self.message)
    }
}

impl Diagnostic {
    /// An error at that place.
    #[must_use]
    pub fn error(file: &str, at: Position, message: String) -> Self {
        Self { file: file.to_owned(), line: at.line, column: at.column, severity: Severity::Error, message }
    }

    /// A warning at that place.
    #[must_use]
    pub fn warning(file: &str, at: Position, message: String) -> Self {
        Self { severity: Severity::Warning, ..Self::error(file, at, message) }
    }

    /// Whether the file cannot be used because of it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
