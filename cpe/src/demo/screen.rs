//! What the demo prints: lines that stay, and on a terminal a strip below them that says what state everything is in.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Stdout, Write as _};
use std::time::Duration;

use cpe_proto::api::Status;
use cpe_proto::event::EventRecord;
use cpe_proto::state::State;

use crate::clock;
use crate::render::{Colour, Follow, Reader};

/// Back to the start of the line, and clear it: ECMA-48 CR and EL.
const CLEAR: &str = "\r\x1b[K";

/// The demo's terminal, file or pipe.
#[derive(Debug)]
pub(super) struct Screen {
    out: Stdout,
    terminal: bool,
    colours: bool,
    follow: Follow,
}

impl Screen {
    pub(super) fn new() -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none();
        let colour = if colours { Colour::On } else { Colour::Off };
        let follow = Follow::new(Reader::new(jiff::tz::TimeZone::system(), clock::wall_ms(), colour));
        Self { out, terminal, colours, follow }
    }

    /// Lines that stay.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        let clear = if self.terminal { CLEAR } else { "" };
        writeln!(self.out, "{clear}{text}")
    }

    /// A fault that happens now.
    pub(super) fn fault(&mut self, after: Duration, told: &str) -> io::Result<()> {
        let (on, off) = if self.colours { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        self.text(&format!("{on}>> {:>5.1} s  {told}{off}", after.as_secs_f64()))
    }

    /// An event of the controller.
    pub(super) fn event(&mut self, record: &EventRecord) -> io::Result<()> {
        match self.follow.line(record) {
            Some(line) => self.text(&format!("   {line}")),
            None => Ok(()),
        }
    }

    /// Whether there is a strip.
    pub(super) fn has_strip(&self) -> bool {
        self.terminal
    }

    /// The strip: how many machines and services are in which state.
    pub(super) fn strip(&mut self, status: &Status) -> io::Result<()> {
        let machines = status.deployables.iter().flat_map(|it| &it.assemblies);
        let services = machines.clone().flat_map(|it| &it.services);
        let machines = counts(machines.map(|it| it.state));
        let services = counts(services.map(|it| it.state));
        write!(self.out, "{CLEAR}   machines: {machines} | services: {services}")?;
        self.out.flush()
    }
}

fn counts(states: impl Iterator<Item = State>) -> String {
    let mut counts: BTreeMap<State, usize> = BTreeMap::new();
    for state in states {
        *counts.entry(state).or_default() += 1;
    }
    let words: Vec<String> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    words.join(", ")
}
