//! The guest's end of cpe-monitor's resident shell, imitated: request lines in, answer lines out. The protocol is specified by the
//! head of `monitor/src/ssh/resident.rs`; `tests/` run the real client against this one, so that both ends stay in step.

use std::fmt::Write as _;
use std::time::Duration;

use super::guest::{self, Answer};
use super::machine::Machine;

/// How the exec request that starts it opens. The version is the protocol's.
pub(super) const COMMAND_OPENS: &str = "exec /bin/sh -c ': cpe-resident 1;";

/// Longer lines are no requests: a command is at most 1 KiB, and a batch names few units.
const LINE_MAX_BYTES: usize = 64 * 1024;
/// A command's output is cut to its first and its last bytes, this many each.
const OUTPUT_END_BYTES: usize = 256;

/// A running resident shell.
#[derive(Debug, Default)]
pub(super) struct Resident {
    nonce: Option<String>,
    partial: Vec<u8>,
}

/// What comes of a batch of lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// To be sent at once.
    pub(super) now: String,
    /// To be sent later: whole lines.
    pub(super) later: Vec<(Duration, String)>,
    /// Probes among them.
    pub(super) probes: u64,
}

impl Resident {
    /// Takes what came on the channel and answers the whole lines in it.
    pub(super) fn take(&mut self, machine: &Machine, bytes: &[u8]) -> Answers {
        let mut answers = Answers::default();
        self.partial.extend_from_slice(bytes);
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            if self.partial.len() > LINE_MAX_BYTES {
                self.partial.clear();
            }
            return answers;
        };
        let rest = self.partial.split_off(end + 1);
        let lines = std::mem::replace(&mut self.partial, rest);
        for line in String::from_utf8_lossy(&lines).lines() {
            match &self.nonce {
                None => {
                    self.nonce = Some(line.to_owned());
                    say(&mut answers.now, line, "r 1");
                }
                Some(nonce) => request(machine, nonce, line, &mut answers),
            }
        }
        answers
    }
}

/// Answers one request line. What is no request is ignored, as the shell does.
fn request(machine: &Machine, nonce: &str, line: &str, answers: &mut Answers) {
    let mut words = line.splitn(4, ' ');
    let (Some(kind), Some(id)) = (words.next(), words.next()) else { return };
    let rest = || line.splitn(3, ' ').nth(2).unwrap_or_default();
    match kind {
        "a" => say(&mut answers.now, nonce, &format!("a {id}")),
        "p" => say(&mut answers.now, nonce, &format!("p {id}{}", processes(machine, rest()))),
        "s" | "c" => {
            let seconds = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
            let deadline = Duration::from_secs(seconds);
            let asked = words.next().unwrap_or_default();
            match kind {
                "s" => units(machine, nonce, id, deadline, asked, answers),
                _ => command(machine, nonce, id, deadline, asked, answers),
            }
        }
        _ => return,
    }
    answers.probes += 1;
}

fn processes(machine: &Machine, names: &str) -> String {
    let mut body = String::new();
    for name in names.split(' ').filter(|name| !name.is_empty()) {
        body.push_str(if guest::process_runs(machine, name) { " 1" } else { " 0" });
    }
    body
}

fn units(machine: &Machine, nonce: &str, id: &str, deadline: Duration, names: &str, answers: &mut Answers) {
    let mut lines = String::new();
    for name in names.split(' ').filter(|name| !name.is_empty()) {
        let Some([load, active, sub]) = guest::unit_states(machine, name) else {
            return answers.later.push((deadline, line(nonce, &format!("t {id}"))));
        };
        let body = format!("u {id} Id={name} LoadState={load} ActiveState={active} SubState={sub}");
        say(&mut lines, nonce, &body);
    }
    // The space is the shell's: it prints the words that remained, which are none.
    say(&mut lines, nonce, &format!("s {id} 0 "));
    answers.now.push_str(&lines);
}

fn command(machine: &Machine, nonce: &str, id: &str, deadline: Duration, asked: &str, answers: &mut Answers) {
    let (status, text, after) = match guest::command(machine, asked) {
        Answer::Exits { status, out, err, after } => (status, out + &err, after),
        Answer::Floods { bytes } => {
            let kept = usize::try_from(bytes).unwrap_or(usize::MAX).min(2 * OUTPUT_END_BYTES);
            (0, "x".repeat(kept), Duration::ZERO)
        }
        Answer::Hangs => (0, String::new(), Duration::MAX),
    };
    if after >= deadline {
        return answers.later.push((deadline, line(nonce, &format!("t {id}"))));
    }
    let body = format!("c {id} {status} {}", cut(&text).replace('\n', " "));
    if after.is_zero() {
        say(&mut answers.now, nonce, &body);
    } else {
        answers.later.push((after, line(nonce, &body)));
    }
}

/// The first and the last bytes of a text.
fn cut(text: &str) -> String {
    if text.len() <= 2 * OUTPUT_END_BYTES {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let ends = [&bytes[..OUTPUT_END_BYTES], &bytes[bytes.len() - OUTPUT_END_BYTES..]].concat();
    String::from_utf8_lossy(&ends).into_owned()
}

fn say(out: &mut String, nonce: &str, body: &str) {
    let _infallible = writeln!(out, "{nonce} {body} {nonce}");
}

fn line(nonce: &str, body: &str) -> String {
    let mut out = String::new();
    say(&mut out, nonce, body);
    out
}
