//! Collects what is wrong with one file. What follows only from a syntax error (a key that is missing because its line could
//! not be read) is left out, so that each line of the answer is something to mend.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::DeTable;

use super::{DIAGNOSTICS_MAX, Diagnostic, FILE_MAX_BYTES, Severity};

/// More findings than this are only counted, so that a hostile file costs little.
const FINDINGS_MAX: usize = 10 * DIAGNOSTICS_MAX;

/// The longest message, in bytes; names may be as long as the file.
const MESSAGE_MAX_BYTES: usize = 1900;

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl Position {
    /// The beginning of a file.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// A file's text that others include, with its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    file: String,
    text: String,
    lines: Vec<usize>,
}

impl Source {
    /// A file.
    #[must_use]
    pub fn new(file: &str, text: &str) -> Self {
        Self { file: file.to_owned(), text: text.to_owned(), lines: lines_of(text) }
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A file whose entries stand in this one's tables: from the byte `base` on, for what says so at the byte `at`.
#[derive(Debug)]
struct Included<'t> {
    base: usize,
    at: usize,
    source: &'t Source,
}

/// What was found in one file so far. Shared by everything that reads parts of it.
#[derive(Debug)]
pub struct Report<'t> {
    file: &'t str,
    text: &'t str,
    lines: Vec<usize>,
    findings: RefCell<Vec<(usize, Severity, String)>>,
    left_out: Cell<usize>,
    failed: Cell<bool>,
    broken: BTreeSet<usize>,
    included: Vec<Included<'t>>,
}

impl<'t> Report<'t> {
    /// Parses the text as TOML and starts the report with its syntax errors. What could be read is returned beside it.
    #[must_use]
    pub fn read(file: &'t str, text: &'t str) -> (Self, Spanned<DeTable<'t>>) {
        let mut report = Self {
            file,
            text,
            lines: lines_of(text),
            findings: RefCell::default(),
            left_out: Cell::new(0),
            failed: Cell::new(false),
            broken: BTreeSet::new(),
            included: Vec::new(),
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            let at = span.start;
            report.error(at, syntax_message(error.message(), text.get(span).unwrap_or_default()));
        }
        report.broken = errors.iter().filter_map(|error| Some(report.line_of(error.span()?.start))).collect();
        (report, table)
    }

    /// The text of a file's bytes.
    ///
    /// # Errors
    /// A diagnostic where it is larger than [`FILE_MAX_BYTES`] or is not UTF-8.
    pub fn text_of<'b>(file: &str, bytes: &'b [u8]) -> Result<&'b str, Diagnostic> {
        if bytes.len() > FILE_MAX_BYTES {
            let message = format!("{} bytes, expected at most {FILE_MAX_BYTES} (1 MiB)", bytes.len());
            return Err(Diagnostic::error(file, Position::START, message));
        }
        std::str::from_utf8(bytes).map_err(|error| {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let line = 1 + good.matches('\n').count();
            let column = 1 + good.rsplit('\n').next().unwrap_or_default().chars().count();
            let at = Position { line: small(line), column: small(column) };
            Diagnostic::error(file, at, "not UTF-8, expected a text file in UTF-8".to_owned())
        })
    }

    /// Entries of another file are read as if they stood at that byte of this one. What to add to their places, so that they are told apart.
    pub fn include(&mut self, at: usize, source: &'t Source) -> usize {
        let last = self.included.last().map(|last| last.base + last.source.text.len());
        let base = 1 + last.unwrap_or(self.text.len());
        self.included.push(Included { base, at, source });
        base
    }

    /// The file that a place beyond the text is of.
    fn included_at(&self, at: usize) -> Option<&Included<'t>> {
        let after = self.included.partition_point(|it| it.base <= at);
        self.included.get(after.checked_sub(1)?)
    }

    /// An error at that byte of the text.
    pub fn error(&self, at: usize, message: impl Into<String>) {
        self.failed.set(true);
        self.add(at, Severity::Error, message.into());
    }

    /// An error that says that something is not there. Left out in a file with syntax errors: there it may only be unreadable.
    pub fn absent(&self, at: usize, message: impl Into<String>) {
        self.failed.set(true);
        if self.broken.is_empty() {
            self.error(at, message);
        }
    }

    /// A warning at that byte of the text. Left out in a file with syntax errors.
    pub fn warning(&self, at: usize, message: impl Into<String>) {
        if self.broken.is_empty() {
            self.add(at, Severity::Warning, message.into());
        }
    }

    /// Whether there was an error so far.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed.get()
    }

    /// Whether so much was found that the rest is only counted, so that nothing costly need be done for it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.findings.borrow().len() >= FINDINGS_MAX
    }

    /// The file's name.
    #[must_use]
    pub fn file(&self) -> &'t str {
        self.file
    }

    /// The place of that byte of the text.
    #[must_use]
    pub fn position(&self, at: usize) -> Position {
        let at = self.included_at(at).map_or(at, |it| it.at);
        position_in(self.text, &self.lines, at)
    }

    /// Everything that was found, by place; at most [`DIAGNOSTICS_MAX`] and a last one that says how many more there are.
    #[must_use]
    pub fn finish(self) -> Vec<Diagnostic> {
        let mut findings = self.findings.take();
        findings.sort();
        findings.dedup();
        let more = findings.len().saturating_sub(DIAGNOSTICS_MAX) + self.left_out.get();
        findings.truncate(DIAGNOSTICS_MAX);
        let last = findings.last().map_or(0, |(at, _, _)| *at);
        if more > 0 {
            let severity = if self.failed.get() { Severity::Error } else { Severity::Warning };
            findings.push((last, severity, format!("and {more} more")));
        }
        let place = |(at, severity, message)| {
            let at = self.position(at);
            Diagnostic { file: self.file.to_owned(), line: at.line, column: at.column, severity, message }
        };
        findings.into_iter().map(place).collect()
    }

    fn add(&self, at: usize, severity: Severity, message: String) {
        let included = self.included_at(at);
        let here = included.map_or(at, |it| it.at);
        // What is said of a line that could not be read says nothing new. (While the syntax errors come in, none is broken yet.)
        // A value that could not be read has no place: the library puts it at the file's first byte.
        if self.broken.contains(&self.line_of(here)) || (!self.broken.is_empty() && here == 0) {
            return;
        }
        if self.is_full() {
            self.left_out.set(self.left_out.get() + 1);
            return;
        }
        let message = match included {
            None => message,
            Some(Included { base, source, .. }) => {
                let place = position_in(&source.text, &source.lines, at - base);
                let of = format!("{}:{}:{}", source.file, place.line, place.column);
                format!("{message} (in {of}, which is included here)")
            }
        };
        self.findings.borrow_mut().push((here, severity, printable(message)));
    }

    fn line_of(&self, at: usize) -> usize {
        line_of(&self.lines, at)
    }
}

/// Where each line begins.
fn lines_of(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

fn line_of(lines: &[usize], at: usize) -> usize {
    lines.partition_point(|start| *start <= at).saturating_sub(1)
}

fn position_in(text: &str, lines: &[usize], at: usize) -> Position {
    let at = text.floor_char_boundary(at);
    let line = line_of(lines, at);
    let start = lines.get(line).copied().unwrap_or(0);
    let before = text.get(start..at).unwrap_or_default().trim_start_matches('\u{feff}');
    Position { line: small(line + 1), column: small(before.chars().count() + 1) }
}

/// On one line and not too long, whatever of the file is in it.
fn printable(message: String) -> String {
    if message.len() <= MESSAGE_MAX_BYTES && !message.contains(char::is_control) {
        return message;
    }
    let mut line = String::new();
    for character in message.chars() {
        if character.is_control() {
            line.extend(character.escape_debug());
        } else {
            line.push(character);
        }
        if line.len() > MESSAGE_MAX_BYTES {
            line.truncate(line.floor_char_boundary(MESSAGE_MAX_BYTES));
            line.push_str("...");
            break;
        }
    }
    line
}

/// The TOML library's message, with the words that it points at where that helps.
fn syntax_message(message: &str, words: &str) -> String {
    if message == "duplicate key" {
        return format!("duplicate key `{}`, expected each key once in a table", super::words::shown(words));
    }
    format!("not TOML: {message}")
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
