//! What a person reads: events as sentences (`events.rs`), the status as a table (`status.rs`), an incident as a timeline (`why.rs`).
//! Pure: from the API's types to text, so that each rendering is a snapshot in a test.

mod events;
mod quiet;
mod status;
mod why;
mod why_not;

use cpe_proto::state::State;
use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use events::{Follow, Joined};
pub use status::{is_healthy, status};
pub use why::why;
pub use why_not::why_not;

/// Where and when the reader is, and what the terminal can do.
#[derive(Clone, Debug)]
pub struct Reader {
    zone: TimeZone,
    now: Timestamp,
    colour: Colour,
}

/// Whether states are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// On a terminal.
    On,
    /// In a file or a pipe, or with `NO_COLOR`.
    Off,
}

impl Reader {
    /// A reader in a zone, at a wall time in milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn new(zone: TimeZone, now: u64, colour: Colour) -> Self {
        Self { zone, now: instant(now), colour }
    }

    /// A wall time: the time of day today, with the date on another day.
    fn time(&self, milliseconds: u64) -> String {
        let at = instant(milliseconds).to_zoned(self.zone.clone());
        let today = self.now.to_zoned(self.zone.clone()).date();
        let format = if at.date() == today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
        at.strftime(format).to_string()
    }

    /// A wall time of day to the millisecond, for a timeline.
    fn exact_time(&self, milliseconds: u64) -> String {
        instant(milliseconds).to_zoned(self.zone.clone()).strftime("%H:%M:%S%.3f").to_string()
    }

    /// A wall time as RFC 3339, with the offset from UTC.
    fn date_time(&self, milliseconds: u64) -> String {
        instant(milliseconds).to_zoned(self.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }

    /// Text in the colour of a state.
    fn paint(&self, state: State, text: &str) -> String {
        if self.colour == Colour::Off {
            return text.to_owned();
        }
        let code = match state {
            State::Healthy => "32",
            State::Failed | State::Unreachable | State::Exhausted | State::Misconfigured => "31",
            State::Stopped => "2",
            _ => "33",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

fn instant(milliseconds: u64) -> Timestamp {
    i64::try_from(milliseconds)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX)
}

/// A state as a word of a sentence.
fn word(state: State) -> &'static str {
    match state {
        State::InTransition => "in transition",
        other => other.as_str(),
    }
}

/// How long something took, from milliseconds: "5.2 s", "12 min", "3 h 5 min".
fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0..60 => format!("{}.{} s", seconds, milliseconds % 1000 / 100),
        60..600 => format!("{} min {} s", seconds / 60, seconds % 60),
        600..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Text from outside, without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests;
