//! `sim/seeds/kept.txt`: seeds whose worlds failed once, each a line with its number and what it found. A run that finds another adds it,
//! so that the next run lives it first; who mends it commits the file, with better words.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// So many are kept by themselves; above it a run only says what failed.
const MOST: usize = 200;

/// The longest that is kept of what a seed found, in characters.
const WORDS_MAX: usize = 160;

/// In the tree that this was built from; elsewhere there may be none.
pub(crate) fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/kept.txt")
}

/// The seeds of a file, in its order, none twice. Without a file none.
pub(crate) fn read(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut seen = BTreeSet::new();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let seeds = lines.filter_map(|line| line.split_whitespace().next()?.parse().ok());
    seeds.filter(|seed| seen.insert(*seed)).collect()
}

/// Adds a seed with what it found, unless it is there, there are too many, or there is no such file.
pub(crate) fn add(path: &Path, seed: u64, found: &str) -> io::Result<bool> {
    let known = read(path);
    if !path.exists() || known.len() >= MOST || known.contains(&seed) {
        return Ok(false);
    }
    let ends = std::fs::read(path)?.last().is_none_or(|last| *last == b'\n');
    let words: String = found.chars().filter(|it| !it.is_control()).take(WORDS_MAX).collect();
    let line = format!("{}{seed} {}\n", if ends { "" } else { "\n" }, words.trim());
    std::fs::OpenOptions::new().append(true).open(path)?.write_all(line.as_bytes())?;
    Ok(true)
}

#[test]
fn a_seed_that_failed_is_kept_once_and_lived_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kept.txt");
    assert!(!add(&path, 7, "rule 1").unwrap(), "without a source tree nothing is written");
    assert!(read(&path).is_empty());
    std::fs::write(&path, "# What failed.\n61 an old one\n61 again\n\nwords").unwrap();
    assert!(add(&path, 7, "rule 1: two at once\n(intent a/1, intent a/2)").unwrap());
    assert!(!add(&path, 7, "rule 1: two at once").unwrap(), "once");
    assert!(!add(&path, 61, "rule 2").unwrap(), "what a person wrote of it stays");
    assert_eq!(read(&path), [61, 7]);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.ends_with("\nwords\n7 rule 1: two at once(intent a/1, intent a/2)\n"), "{text}");
}

#[test]
fn a_run_in_which_everything_fails_keeps_a_bounded_number_of_seeds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kept.txt");
    std::fs::write(&path, "").unwrap();
    let kept = (0..300).filter(|seed| add(&path, *seed, &"long ".repeat(1000)).unwrap()).count();
    assert_eq!((kept, read(&path).len()), (MOST, MOST));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.lines().all(|line| line.len() < 200), "{text}");
}
