//! What must hold of every parser of outside input, whatever comes in. Each target is a function that panics where something does not
//! hold; `fuzz/run` looks for inputs that make it, guided by coverage, and `tests/corpus.rs` replays those that were kept.

mod files;
mod network;
mod programs;
mod words;

/// A parser, and what must hold of it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Panics where something does not hold.
    pub holds: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 15] = [
    Target { name: "definition", holds: files::definition },
    Target { name: "config", holds: files::config },
    Target { name: "known_hosts", holds: files::known_hosts },
    Target { name: "resident", holds: programs::resident },
    Target { name: "units", holds: programs::units },
    Target { name: "perfdata", holds: programs::perfdata },
    Target { name: "answer", holds: programs::answer },
    Target { name: "metadata", holds: programs::metadata },
    Target { name: "scrub", holds: programs::scrub },
    Target { name: "http", holds: network::http },
    Target { name: "mail", holds: network::mail },
    Target { name: "dns", holds: network::dns },
    Target { name: "web", holds: network::web },
    Target { name: "command", holds: words::command },
    Target { name: "words", holds: words::words },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// A text that goes to a person: so long at most, and nothing in it that a terminal or a log would take for more than text.
fn printable(text: &str, most_bytes: usize) {
    assert!(text.len() <= most_bytes, "{} bytes, at most {most_bytes}: {text:?}", text.len());
    let control = text.chars().find(|character| character.is_control());
    assert_eq!(control, None, "a control character in {text:?}");
}
