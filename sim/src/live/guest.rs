//! What the guest of an imitated machine answers to command lines. **An imitation**: no program runs, no shell interprets; the
//! command lines that cpe-monitor sends are recognised and answered as Debian 12 with systemd 252 and sudo would answer.
//! What is not recognised is "not found" (127). How a line arrives (exec, resident shell) is `session.rs`'s.

use std::time::{Duration, Instant};

use super::line::{self, When};
use super::machine::{Command, Machine};
use super::observer::What;
use super::unit::Ordered;

/// How a command line ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It prints and exits.
    Exits { status: u8, out: String, err: String, after: Duration },
    /// It prints that many bytes and exits 0.
    Floods { bytes: u64 },
    /// It never ends by itself.
    Hangs,
}

impl Answer {
    pub(super) fn status(status: u8) -> Self {
        Self::Exits { status, out: String::new(), err: String::new(), after: Duration::ZERO }
    }

    fn prints(out: String) -> Self {
        Self::Exits { status: 0, out, err: String::new(), after: Duration::ZERO }
    }

    fn fails(status: u8, err: String) -> Self {
        Self::Exits { status, out: String::new(), err, after: Duration::ZERO }
    }
}

/// What a `command` probe of that line does.
pub(super) fn command(machine: &Machine, line: &str) -> Answer {
    let known = machine.lock().commands.get(line).cloned();
    match known {
        Some(Command::Exits { status, output, after }) => {
            Answer::Exits { status, out: output, err: String::new(), after }
        }
        Some(Command::Hangs) => Answer::Hangs,
        Some(Command::Floods { bytes }) => Answer::Floods { bytes },
        None => shell(machine, line),
    }
}

/// What a shell does with a line: its statements one after the other.
pub(super) fn shell(machine: &Machine, line: &str) -> Answer {
    let (mut last, mut output, mut errors) = (0, String::new(), String::new());
    for statement in line::statements(line) {
        match (statement.when, last) {
            (When::Succeeded, 1..) | (When::Failed, 0) => continue,
            _ => {}
        }
        match program(machine, &statement.words) {
            Answer::Exits { status, out, err, .. } => {
                last = status;
                if !statement.quiet {
                    output += &out;
                    errors += &err;
                }
            }
            other => return other,
        }
    }
    Answer::Exits { status: last, out: output, err: errors, after: Duration::ZERO }
}

/// What a program with its arguments does, of those that every guest has.
fn program(machine: &Machine, words: &[String]) -> Answer {
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .skip_while(|word| *word == "exec" || word.contains('='))
        .filter(|word| *word != "--")
        .collect();
    match words.as_slice() {
        [] | ["true" | ":", ..] => Answer::status(0),
        ["false", ..] => Answer::status(1),
        ["export", ..] => Answer::status(0),
        ["echo", rest @ ..] => Answer::prints(rest.join(" ") + "\n"),
        // cpe-monitor's script that looks for a process by its name.
        ["/bin/sh", "-c", script, _, name] if script.starts_with("for d in /proc/[0-9]*;") => {
            Answer::status(u8::from(!process_runs(machine, name)))
        }
        ["sh" | "/bin/sh", "-c", line, ..] => command(machine, line),
        ["sudo", "-n", rest @ ..] => sudo(machine, rest),
        ["systemctl", "show", rest @ ..] => show(machine, rest),
        // Without rights, polkit is asked and has nobody to ask.
        ["systemctl", verb, unit] => {
            Answer::fails(1, format!("Failed to {verb} {unit}: Interactive authentication required.\n"))
        }
        [first, ..] => Answer::fails(127, format!("sh: 1: {first}: not found\n")),
    }
}

/// The verbs that the sudoers line of cpe-monitor's documentation allows.
fn sudo(machine: &Machine, words: &[&str]) -> Answer {
    match words {
        [
            "systemctl" | "/usr/bin/systemctl",
            verb @ ("start" | "stop" | "restart" | "reset-failed"),
            unit,
        ] if machine.lock().sudo => order(machine, verb, unit),
        _ => Answer::fails(1, "sudo: a password is required\n".to_owned()),
    }
}

/// An order to a unit: `start`, `stop`, `restart`, `reset-failed`.
pub(super) fn order(machine: &Machine, verb: &str, name: &str) -> Answer {
    let now = Instant::now();
    let ordered = {
        let mut state = machine.lock();
        if !state.systemctl_answers {
            return Answer::Hangs;
        }
        let unit = state.unit(name);
        match (verb, unit) {
            ("start" | "stop" | "restart" | "reset-failed", None) => Ordered::NotFound,
            ("start", Some(unit)) => unit.start(now),
            ("restart", Some(unit)) => unit.restart(now),
            ("stop", Some(unit)) => unit.stop(),
            ("reset-failed", Some(unit)) => unit.reset_failed(),
            _ => return Answer::fails(1, format!("Unknown command verb {verb}.\n")),
        }
    };
    match verb {
        "start" | "restart" => {
            machine.counters.unit_starts.add(1);
            let started = ordered == Ordered::Done;
            machine.tell(if started {
                What::UnitStarted(name.into())
            } else {
                What::UnitStartFailed(name.into())
            });
            machine.units_changed();
        }
        "stop" => {
            machine.counters.unit_stops.add(1);
            machine.tell(What::UnitStopped(name.into()));
        }
        _ => {}
    }
    // The exit statuses are systemctl(1)'s: 5 for a unit that is not found by start and stop, 1 else.
    match ordered {
        Ordered::Done => Answer::status(0),
        Ordered::NoAnswer => Answer::Hangs,
        Ordered::StartFailed => Answer::fails(1, format!("Job for {name} failed.\n")),
        Ordered::Masked => Answer::fails(1, format!("Failed to {verb} {name}: Unit {name} is masked.\n")),
        Ordered::NotFound if verb == "reset-failed" => Answer::fails(
            1,
            format!("Failed to reset failed state of unit {name}: Unit {name} not loaded.\n"),
        ),
        Ordered::NotFound => Answer::fails(5, format!("Failed to {verb} {name}: Unit {name} not found.\n")),
    }
}

/// The values of `LoadState`, `ActiveState` and `SubState`; none: systemctl gives no answer.
pub(super) fn unit_states(machine: &Machine, name: &str) -> Option<[&'static str; 3]> {
    let mut state = machine.lock();
    if !state.systemctl_answers {
        return None;
    }
    Some(state.unit(name).map_or(["not-found", "inactive", "dead"], |unit| unit.states()))
}

/// `systemctl show --property=... UNIT ...`: the properties in systemd's order, whatever the order asked; an empty line between units.
fn show(machine: &Machine, words: &[&str]) -> Answer {
    let asked = |property: &str| {
        let lists =
            words.iter().filter_map(|word| word.strip_prefix("--property=").or(word.strip_prefix("-p")));
        lists.flat_map(|list| list.split(',')).any(|name| name == property)
    };
    let mut shown = Vec::new();
    for unit in words.iter().filter(|word| !word.starts_with('-')) {
        let Some([load, active, sub]) = unit_states(machine, unit) else { return Answer::Hangs };
        let all = [("Id", *unit), ("LoadState", load), ("ActiveState", active), ("SubState", sub)];
        let lines = all.iter().filter(|(name, _)| asked(name));
        shown.push(lines.map(|(name, value)| format!("{name}={value}\n")).collect::<String>());
    }
    Answer::prints(shown.join("\n"))
}

/// Whether a process of that name runs.
pub(super) fn process_runs(machine: &Machine, name: &str) -> bool {
    let state = machine.lock();
    state.processes.contains(name)
        || state.units.iter().any(|unit| unit.is_active() && unit.process() == name)
}

/// Whether something in the guest listens on that port.
pub(super) fn port_open(machine: &Machine, port: u32) -> bool {
    let state = machine.lock();
    state.units.iter().any(|unit| unit.is_active() && unit.spec.port.map(u32::from) == Some(port))
}
