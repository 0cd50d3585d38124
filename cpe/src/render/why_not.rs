//! Why nothing is done: each part that is not healthy, what was concluded of it, and all that stands in the way.

use std::fmt::Write;

use cpe_proto::api::{Stuck, WhyNot};

use super::{Reader, plain, word};

/// The parts that are not healthy, or that nothing is wrong.
#[must_use]
pub fn why_not(answer: &WhyNot, reader: &Reader) -> String {
    if answer.parts.is_empty() {
        return format!("nothing is wrong: all {} parts are healthy\n", answer.healthy);
    }
    let told: Vec<String> = answer.parts.iter().map(|stuck| part(stuck, reader)).collect();
    told.join("\n")
}

fn part(stuck: &Stuck, reader: &Reader) -> String {
    let state = reader.paint(stuck.state, word(stuck.state));
    let since = if stuck.since == 0 { String::new() } else { format!(" since {}", reader.time(stuck.since)) };
    let reason = if stuck.reason.is_empty() { String::new() } else { format!(": {}", plain(&stuck.reason)) };
    let mut out = format!("{}  is {state}{since}{reason}\n", stuck.name);
    if let Some(concluded) = &stuck.concluded {
        let of = stuck.incident.as_deref().unwrap_or_default();
        let _ = writeln!(out, "  concluded  {} ({of})", plain(concluded));
    }
    for because in &stuck.because {
        let until = because.until.map(|until| format!(", until {}", reader.time(until)));
        let _ = writeln!(out, "  because    {}{}", plain(&because.detail), until.unwrap_or_default());
    }
    out
}
