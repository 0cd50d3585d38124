//! From what a guest said to what was observed.

use cpe_proto::definition::UnitName;
use cpe_proto::observation::{Observation, UnitState, detail};

use super::act::sudo_refused;
use super::pending::Seen;
use crate::perfdata;

/// A command that ended.
pub(super) fn ended(status: i32, output: &str) -> Observation {
    let text = detail(output);
    match status {
        // POSIX sh: found and not executable, not found.
        126 | 127 => Observation::NotRunnable(or(text, "not found, or not executable")),
        _ if status != 0 && sudo_refused(&text) => Observation::NotRunnable(text),
        _ => Observation::Exited(status, text),
    }
}

/// What stands for the end of a line in what the resident shell says of a plugin.
pub(super) const LINE_END: char = '\u{1f}';

/// A plugin that ended.
pub(super) fn plugin(status: i32, output: &str, cut: bool) -> Seen {
    let printed = perfdata::read(&output.replace(LINE_END, "\n"), cut);
    // A plugin's own words are its first line; a shell's, of one that is not there, as well.
    Seen { observation: ended(status, &printed.line), measures: printed.measures, dropped: printed.dropped }
}

/// A look for a process.
pub(super) fn process(seen: Option<bool>) -> Observation {
    match seen {
        Some(true) => Observation::Exited(0, "".into()),
        Some(false) => Observation::Exited(1, "no such process".into()),
        None => Observation::NotRunnable(
            "other users' processes are hidden (/proc is mounted with hidepid): allow this user's group by its gid= option".into(),
        ),
    }
}

fn or(text: Box<str>, otherwise: &str) -> Box<str> {
    if text.is_empty() { otherwise.into() } else { text }
}

const KEYS: [&str; 4] = ["Id=", "LoadState=", "ActiveState=", "SubState="];

/// What `systemctl show` printed, as words, for the units asked, in their order.
pub(super) fn units<'a>(
    words: &str,
    status: i32,
    asked: impl ExactSizeIterator<Item = &'a UnitName>,
) -> Vec<Observation> {
    let (blocks, rest) = blocks(words);
    let in_order = blocks.len() == asked.len();
    let fault = unreadable(status, &rest);
    asked
        .enumerate()
        .map(|(index, name)| {
            let block = if in_order {
                blocks.get(index)
            } else {
                blocks.iter().find(|block| block.0 == name.as_str())
            };
            block.map_or_else(|| fault.clone(), |(_, state)| Observation::Unit(state.clone()))
        })
        .collect()
}

/// A unit for which nothing was printed. Where systemd itself cannot be asked, that is a matter for a person; anything else may pass,
/// and is told in words that no table takes for a verdict.
fn unreadable(status: i32, text: &str) -> Observation {
    if status == 127 {
        return Observation::NotRunnable("systemctl is not there: this guest does not run systemd".into());
    }
    if text.contains("not been booted with systemd") {
        return Observation::NotRunnable(detail(text));
    }
    let sub = or(detail(text), "systemctl said nothing of it");
    Observation::Unit(UnitState { load: "unreadable".into(), active: "unknown".into(), sub })
}

/// Cuts the words into units: a key that comes again begins the next one. What is no such word is an error's text.
fn blocks(words: &str) -> (Vec<(String, UnitState)>, String) {
    let mut blocks = Vec::new();
    let mut values: [Option<&str>; 4] = [None; 4];
    let mut rest = String::new();
    for word in words.split_ascii_whitespace() {
        let known =
            KEYS.iter().zip(0..).find_map(|(key, index)| word.strip_prefix(key).map(|value| (index, value)));
        let Some((index, value)) = known else {
            rest.push_str(word);
            rest.push(' ');
            continue;
        };
        let index: usize = index;
        if values[index].is_some() {
            close(&mut values, &mut blocks);
        }
        values[index] = Some(value);
    }
    close(&mut values, &mut blocks);
    (blocks, rest)
}

fn close(values: &mut [Option<&str>; 4], blocks: &mut Vec<(String, UnitState)>) {
    let [id, load, active, sub] = std::mem::take(values);
    if let (Some(load), Some(active), Some(sub)) = (load, active, sub) {
        let state = UnitState { load: detail(load), active: detail(active), sub: detail(sub) };
        blocks.push((id.unwrap_or_default().to_owned(), state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(load: &str, active: &str, sub: &str) -> Observation {
        Observation::Unit(UnitState { load: load.into(), active: active.into(), sub: sub.into() })
    }

    fn names(names: &[&str]) -> Vec<UnitName> {
        names.iter().map(|name| UnitName::parse(name).unwrap()).collect()
    }

    #[test]
    fn units_are_told_by_their_order_because_an_alias_shows_its_real_name() {
        let words = "Id=ssh.service LoadState=loaded ActiveState=active SubState=running \
                     Id=nope.service LoadState=not-found ActiveState=inactive SubState=dead";
        let asked = names(&["sshd.service", "nope.service"]);
        let seen = units(words, 0, asked.iter());
        assert_eq!(seen, vec![unit("loaded", "active", "running"), unit("not-found", "inactive", "dead")]);
    }

    #[test]
    fn the_order_of_properties_is_of_no_matter() {
        let words = "SubState=dead Id=a.service ActiveState=inactive LoadState=loaded SubState=x ActiveState=y LoadState=z Id=b.service";
        let asked = names(&["a.service", "b.service"]);
        assert_eq!(
            units(words, 0, asked.iter()),
            vec![unit("loaded", "inactive", "dead"), unit("z", "y", "x")]
        );
    }

    #[test]
    fn where_one_unit_is_missing_the_others_are_told_by_name() {
        let words = "Id=b.service LoadState=loaded ActiveState=active SubState=running Failed to get properties: timed out";
        let asked = names(&["a.service", "b.service"]);
        let seen = units(words, 1, asked.iter());
        assert_eq!(seen[0], unit("unreadable", "unknown", "Failed to get properties: timed out"));
        assert_eq!(seen[1], unit("loaded", "active", "running"));
    }

    #[test]
    fn a_guest_without_systemd_is_a_matter_for_a_person() {
        let asked = names(&["a.service"]);
        let booted = "System has not been booted with systemd as init system (PID 1). Can't operate.";
        assert!(matches!(units(booted, 1, asked.iter())[0], Observation::NotRunnable(_)));
        assert!(matches!(units("", 127, asked.iter())[0], Observation::NotRunnable(_)));
    }

    #[test]
    fn what_cannot_be_run_is_told_from_what_fails() {
        assert_eq!(ended(0, "fine\n"), Observation::Exited(0, "fine".into()));
        assert_eq!(ended(2, ""), Observation::Exited(2, "".into()));
        assert!(matches!(ended(127, "sh: 1: nope: not found"), Observation::NotRunnable(_)));
        assert!(matches!(ended(126, ""), Observation::NotRunnable(_)));
        assert!(matches!(ended(1, "sudo: a password is required"), Observation::NotRunnable(_)));
    }
}
