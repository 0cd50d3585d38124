//! Scenarios: a short text that says what a world is made of and what happens in it when, one thing a line. [`uses`] finds the definitions
//! that it names, [`Script::parse`] reads it against them, with everything that is wrong at once; [`World`] lives it.
//! `verbs.rs` has what can happen, `names.rs` to whom, `line.rs` the words.

mod line;
mod names;
mod verbs;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cpe_calendar::moment;
use cpe_proto::definition::Deployable;
use cpe_proto::document::{DIAGNOSTICS_MAX, Diagnostic, Position};
use cpe_proto::infrastructure::{Capabilities, Operation};

use crate::world::{ControllerFault, Fleet, Happening, World};
use line::{Line, Wrong, near, shown};
use names::Names;
pub use verbs::{GRAMMAR, Usage};

/// The most lines of a script.
const LINES_MAX: usize = 10_000;

/// How long a world goes on after the last thing that was ordered, when the script does not say.
const GOES_ON: Duration = Duration::from_secs(600);

/// A scenario that can be lived.
#[derive(Clone, Debug)]
pub struct Script {
    /// What its world is made of.
    pub fleet: Fleet,
    /// What happens when, in the order of the file.
    pub steps: Vec<(Duration, Happening)>,
    /// When it is over.
    pub ends: Duration,
    /// Decides what is left to chance: jitter, latencies.
    pub seed: u64,
}

/// A file that a script names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// As it is written, relative to the script's folder.
    pub path: PathBuf,
    /// Where.
    pub at: Position,
}

/// The definitions, or folders of them, that the lines `use PATH` of a script name.
#[must_use]
pub fn uses(text: &str) -> Vec<Use> {
    let lines = (1..).zip(text.lines().take(LINES_MAX));
    let of_line = |(number, text): (u32, &str)| {
        let mut line = Line::of(text);
        let uses = line.takes("use");
        let at = Position { line: number, column: line.at() };
        let path = line.peek().filter(|_| uses)?;
        Some(Use { path: path.into(), at })
    };
    lines.filter_map(of_line).collect()
}

/// Reads a definition that a script has to have changed: `define PATH`.
pub type Reader<'r> = &'r dyn Fn(&str) -> Result<Arc<Deployable>, String>;

impl Script {
    /// Reads a script about these definitions. `file` is its name for messages.
    ///
    /// # Errors
    /// Everything that is wrong with it, by line.
    pub fn parse(
        file: &str,
        text: &str,
        definitions: &[Arc<Deployable>],
        reader: Reader<'_>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut parsing = Parsing {
            script: Self {
                fleet: Fleet::of(definitions.to_vec()),
                steps: Vec::new(),
                ends: Duration::ZERO,
                seed: 1,
            },
            names: Names { definitions },
            reader,
            ends: None,
        };
        let mut errors = Vec::new();
        for (number, text) in (1_u32..).zip(text.lines()) {
            if usize::try_from(number).unwrap_or(usize::MAX) > LINES_MAX {
                let at = Position { line: number, column: 1 };
                errors.push(Diagnostic::error(
                    file,
                    at,
                    format!("more than {LINES_MAX} lines, expected fewer"),
                ));
                break;
            }
            if let Err((column, message)) = parsing.line(Line::of(text)) {
                errors.push(Diagnostic::error(file, Position { line: number, column }, message));
            }
            if errors.len() >= DIAGNOSTICS_MAX {
                break;
            }
        }
        if definitions.is_empty() && errors.is_empty() {
            let message =
                "no definition, expected `use FILE` in the script, or one beside it on the command line";
            errors.push(Diagnostic::error(file, Position::START, message.to_owned()));
        }
        let Parsing { mut script, ends, .. } = parsing;
        let last =
            script.steps.iter().map(|(at, happening)| *at + lasts(happening)).max().unwrap_or_default();
        script.ends = ends.unwrap_or(last + GOES_ON);
        if errors.is_empty() { Ok(script) } else { Err(errors) }
    }

    /// Its world, with everything that will happen.
    #[must_use]
    pub fn world(&self) -> World {
        let mut world = World::new(&self.fleet, self.seed);
        for (at, happening) in &self.steps {
            world.schedule(*at, happening.clone());
        }
        world
    }
}

/// How long something goes on that has an end.
const fn lasts(happening: &Happening) -> Duration {
    match happening {
        Happening::Cut(_, lasts)
        | Happening::Infrastructure(_, _, lasts)
        | Happening::Controller(
            ControllerFault::Gap(lasts)
            | ControllerFault::Lag(_, lasts)
            | ControllerFault::JournalUnwritable(lasts)
            | ControllerFault::NodeReboot(lasts)
            | ControllerFault::Crash { down: lasts, .. },
        ) => *lasts,
        _ => Duration::ZERO,
    }
}

struct Parsing<'p> {
    script: Script,
    names: Names<'p>,
    reader: Reader<'p>,
    ends: Option<Duration>,
}

/// What a line can begin with.
const FIRST: [&str; 9] =
    ["at", "use", "canaries", "boot", "clock", "infrastructure", "domain", "seed", "end"];

impl Parsing<'_> {
    fn line(&mut self, mut line: Line<'_>) -> Result<(), Wrong> {
        if line.is_empty() {
            return Ok(());
        }
        let at = line.at();
        match line.word("a word")? {
            "at" => {
                let when = line.span()?;
                let happenings = verbs::happenings(&mut line, self.names, self.reader)?;
                self.script.steps.extend(happenings.into_iter().map(|it| (when, it)));
            }
            "use" => drop(line.word("a definition's file, or a folder of them")?),
            "canaries" => self.script.fleet.canaries = usize::try_from(line.number(64)?).unwrap_or(0),
            "boot" => self.script.fleet.boot = line.span()?,
            "clock" => self.script.fleet.wall = clock(&mut line)?,
            "infrastructure" => self.infrastructure(&mut line)?,
            "domain" => {
                let domain = self.names.domain(&mut line)?;
                line.must("evacuated")?;
                line.must("by")?;
                let infrastructure = self.names.infrastructure(&mut line)?;
                self.script.fleet.shared_points.insert(domain, infrastructure);
            }
            "seed" => self.script.seed = u64::from(line.number(u32::MAX)?),
            "end" => {
                line.must("at")?;
                self.ends = Some(line.span()?);
            }
            word => {
                let list = FIRST.map(|word| format!("`{word}`")).join(", ");
                let near = near(word, FIRST);
                return Err((at, format!("`{}`, expected {list}{near}", shown(word))));
            }
        }
        line.ends()
    }

    /// `infrastructure NAME takes SPAN`, `infrastructure NAME can OPERATION...`, `infrastructure NAME knows nobody`.
    fn infrastructure(&mut self, line: &mut Line<'_>) -> Result<(), Wrong> {
        let name = self.names.infrastructure(line)?;
        let Some(kind) = self.script.fleet.infrastructures.get_mut(&name) else { return Ok(()) };
        match line.one_of(&[("takes", 0), ("can", 1), ("knows", 2)])? {
            0 => kind.takes = line.span()?,
            1 => {
                let known = Operation::ALL.map(|operation| (operation.as_str(), operation));
                let mut can = Capabilities::default();
                can.0.insert(line.one_of(&known)?);
                while line.peek().is_some() {
                    can.0.insert(line.one_of(&known)?);
                }
                kind.capabilities = can;
            }
            _ => {
                line.must("nobody")?;
                kind.knows_who = false;
            }
        }
        Ok(())
    }
}

/// `clock 2026-10-25T01:30 Europe/Berlin`: what the wall clock shows at the beginning; without a zone in UTC.
fn clock(line: &mut Line<'_>) -> Result<u64, Wrong> {
    let at = line.at();
    let text = line.word("a time, as `2026-10-25T01:30`")?;
    let zone_at = line.at();
    let zone = if line.peek().is_some() { line.word("a time zone")? } else { "UTC" };
    let found = moment(text, zone).map_err(|flaw| (zone_at, flaw.to_string()))?;
    found.ok_or_else(|| (at, format!("`{}`, expected a time after 1970, as `2026-10-25T01:30`", shown(text))))
}
