//! What a simulated world told, as text and as JSON: what happened to it (`*`), what cpe concluded, what it did (`+`), what a person was told
//! (`!`); then what it all came to.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use cpe_proto::event::{EventKind, EventRecord};
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use cpe_sim::world::{Entry, What, World};
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::render::{Colour, Follow, Reader};

/// A scenario that was lived.
#[derive(Debug, Serialize)]
pub struct Told {
    transcript: Vec<Line>,
    /// How long it was, in milliseconds.
    span_ms: u64,
    /// Recoveries that were begun, by rung.
    did: BTreeMap<Rung, u64>,
    /// Refusals that were told, by rung; a standing one is told once.
    refused: BTreeMap<Rung, u64>,
    /// How often a person was told something.
    told: usize,
    /// What is not healthy in the end.
    unwell: Vec<Left>,
    /// Rules of design.md that were broken.
    broken: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    /// Since the beginning, in milliseconds.
    at_ms: u64,
    #[serde(flatten)]
    what: Kind,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// To the world, as one clause.
    Happened(String),
    /// An event, as `cpe events --json` has it.
    Event(Box<EventRecord>),
    /// What was begun.
    Did(String),
    /// What a person was told.
    Told(String),
    /// What a person was not told, because the incident is acknowledged.
    Withheld(String),
    /// A rule.
    Broken(String),
}

#[derive(Debug, Serialize)]
struct Left {
    name: String,
    state: State,
    reason: String,
    /// Whether a person was told.
    told: bool,
}

impl Told {
    /// What that world told so far.
    pub(super) fn of(world: &World) -> Self {
        let mut told = Self {
            transcript: world.transcript().iter().map(line).collect(),
            span_ms: millis(world.now()),
            did: BTreeMap::new(),
            refused: BTreeMap::new(),
            told: 0,
            unwell: Vec::new(),
            broken: world.breaches().to_vec(),
        };
        for entry in world.transcript() {
            match &entry.what {
                What::Event(record) => told.count(record),
                What::Told(..) => told.told += 1,
                _ => {}
            }
        }
        let left = world.unwell().into_iter();
        let left = left.map(|it| Left { name: it.name, state: it.state, reason: it.reason, told: it.told });
        told.unwell = left.collect();
        told
    }

    fn count(&mut self, record: &EventRecord) {
        let Some(rung) = record.event.rung else { return };
        match record.event.kind {
            EventKind::RecoveryStarted => *self.did.entry(rung).or_default() += 1,
            EventKind::RecoveryRefused => *self.refused.entry(rung).or_default() += 1,
            _ => {}
        }
    }

    /// Whether a rule was broken: then the product has a fault, whatever the scenario.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    /// As one JSON document.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    /// For a person.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        // Times are the scenario's own; the reader's are not used.
        let mut follow = Follow::new(Reader::new(TimeZone::UTC, 0, Colour::Off));
        for line in alike(self.transcript.iter().filter_map(|line| said(line, &mut follow))) {
            let Said { at, mark, text, .. } = &line.0;
            let others = match line.1 {
                0 => String::new(),
                others => format!("  [and {others} others]"),
            };
            writeln!(out, "{at:>10}  {mark} {text}{others}")?;
        }
        self.write_end(out)
    }

    fn write_end(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\nafter {}:", time(self.span_ms).trim_start())?;
        if self.unwell.is_empty() {
            writeln!(out, "  everything is healthy")?;
        }
        for left in &self.unwell {
            let why = if left.reason.is_empty() { String::new() } else { format!(" ({})", left.reason) };
            let told = if left.told { "" } else { "; nobody was told yet" };
            writeln!(out, "  {} is {}{why}{told}", left.name, left.state)?;
        }
        writeln!(out, "  done: {}", counted(&self.did))?;
        writeln!(out, "  refused: {}", counted(&self.refused))?;
        writeln!(out, "  a person was told {} times", self.told)?;
        match self.broken.len() {
            0 => writeln!(out, "  no rule was broken"),
            broken => writeln!(out, "  RULES WERE BROKEN: {broken}; please report this scenario"),
        }
    }
}

/// A line for a person.
struct Said {
    at: String,
    mark: char,
    text: String,
    /// The same of every member of a fleet.
    common: String,
}

fn said(line: &Line, follow: &mut Follow) -> Option<Said> {
    let (mark, text, deployable) = match &line.what {
        Kind::Happened(what) => ('*', what.clone(), None),
        Kind::Did(what) => ('+', what.clone(), None),
        Kind::Told(what) => ('!', what.clone(), what.split(['#', ':']).next()),
        Kind::Withheld(what) => {
            ('-', format!("not told, it is acknowledged: {what}"), what.split('#').next())
        }
        Kind::Broken(what) => ('#', format!("BROKEN {what}"), None),
        Kind::Event(record) => {
            let sentence = follow.sentence(record)?;
            let deployable = record.deployable.as_ref().map(|name| name.as_str());
            (' ', format!("{}  {sentence}", record.subject()), deployable)
        }
    };
    let common = deployable.map_or_else(|| text.clone(), |name| text.replace(name, "~"));
    Some(Said { at: time(line.at_ms), mark, text, common })
}

/// What was said at one moment of three or more in the same words is one line, at the place of the first; `--json` has all of them.
fn alike(lines: impl Iterator<Item = Said>) -> Vec<(Said, usize)> {
    let mut all: Vec<(Said, usize)> = Vec::new();
    let mut moment = 0;
    for said in lines {
        if all.get(moment).is_some_and(|(first, _)| first.at != said.at) {
            moment = all.len();
        }
        let known = |(it, _): &(Said, usize)| it.mark == said.mark && it.common == said.common;
        let found = all.iter().skip(moment).filter(|it| known(it)).count();
        match all.iter_mut().skip(moment).rev().find(|it| known(it)) {
            Some((_, others)) if found >= 2 => *others += 1,
            _ => all.push((said, 0)),
        }
    }
    all
}

fn line(entry: &Entry) -> Line {
    let what = match &entry.what {
        What::Happened(what) => Kind::Happened(what.clone()),
        What::Event(record) => Kind::Event(record.clone()),
        What::Did(what) => Kind::Did(what.clone()),
        What::Told(name, Some(incident), message) => Kind::Told(format!("{name}#{incident}: {message}")),
        What::Told(name, None, message) => Kind::Told(format!("{name}: {message}")),
        What::Withheld(name, incident, message) => Kind::Withheld(format!("{name}#{incident}: {message}")),
        What::Broken(what) => Kind::Broken(what.clone()),
    };
    Line { at_ms: millis(entry.at), what }
}

fn counted(rungs: &BTreeMap<Rung, u64>) -> String {
    if rungs.is_empty() {
        return "nothing".to_owned();
    }
    rungs.iter().map(|(rung, times)| format!("{times} {rung}")).collect::<Vec<_>>().join(", ")
}

/// `0:02:04.1`.
fn time(millis: u64) -> String {
    let (seconds, tenths) = (millis / 1000, millis % 1000 / 100);
    format!("{}:{:02}:{:02}.{tenths}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
