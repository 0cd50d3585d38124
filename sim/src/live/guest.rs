//! What the guest of an imitated machine answers to command lines. **An imitation**: no program runs, no shell interprets; the
//! command lines that cpe-monitor sends are recognised and answered as Debian 12 with systemd 252 and sudo would answer.
//! What is not recognised is "not found" (127). How a line arrives (exec, resident shell) is `session.rs`'s.

use std::time::{Duration, Instant};

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
        None => program(machine, line),
    }
}

/// What a program with its arguments does, of those that every guest has.
pub(super) fn program(machine: &Machine, line: &str) -> Answer {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["true" | ":"] => Answer::status(0),
        ["false"] => Answer::status(1),
        ["sudo", "-n", rest @ ..] => {
            if machine.lock().sudo {
                systemctl(machine, rest)
            } else {
                Answer::fails(1, "sudo: a password is required\n".to_owned())
            }
        }
        [first, ..] => Answer::fails(127, format!("sh: 1: {first}: not found\n")),
        [] => Answer::status(0),
    }
}

fn systemctl(machine: &Machine, words: &[&str]) -> Answer {
    let words: Vec<&str> = words.iter().copied().filter(|word| *word != "--").collect();
    match words.as_slice() {
        ["systemctl" | "/usr/bin/systemctl" | "/bin/systemctl", verb, unit] => order(machine, verb, unit),
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

/// `systemctl show --property=LoadState,ActiveState,SubState UNIT`.
pub(super) fn show(machine: &Machine, name: &str) -> Answer {
    match unit_states(machine, name) {
        Some([load, active, sub]) => {
            Answer::prints(format!("LoadState={load}\nActiveState={active}\nSubState={sub}\n"))
        }
        None => Answer::Hangs,
    }
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

/// What an exec request's line does.
pub(super) fn exec(machine: &Machine, line: &str) -> Answer {
    command(machine, line)
}
