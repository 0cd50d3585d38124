//! The kept inputs, replayed: those that once broke something, and those that reach far into a parser.

use std::fs;
use std::path::Path;

use cpe_fuzz::TARGETS;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");

#[test]
fn what_must_hold_holds_of_every_kept_input() {
    for target in TARGETS {
        let folder = Path::new(CORPUS).join(target.name);
        let kept = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for file in kept {
            let path = file.unwrap().path();
            let data = fs::read(&path).unwrap();
            let held = std::panic::catch_unwind(|| (target.holds)(&data));
            assert!(held.is_ok(), "{}", path.display());
            count += 1;
        }
        assert!(count > 0, "nothing is kept for {}", target.name);
    }
}

/// Each is cut in two at some places, and each half is doubled: cheap, the same each time, and no parser may mind.
#[test]
fn what_must_hold_holds_of_halves_and_doubles() {
    for target in TARGETS {
        for file in fs::read_dir(Path::new(CORPUS).join(target.name)).unwrap() {
            let data = fs::read(file.unwrap().path()).unwrap();
            for cut in [data.len() / 3, data.len() / 2, data.len().saturating_sub(1)] {
                let (head, tail) = data.split_at(cut);
                for mutant in
                    [head.to_vec(), tail.to_vec(), [tail, head].concat(), [head, head, tail].concat()]
                {
                    (target.holds)(&mutant);
                }
            }
        }
    }
}

/// Much of what costs most, for each parser: what takes quadratic time would take minutes.
#[test]
fn a_file_of_brackets_is_read_in_time() {
    for target in TARGETS {
        for piece in
            ["[", "{", "[[a]]\n", "a=\"", "<a>", "&a;", "\\", "a.", "{a.address}", "|1|", ",", "\n", "\u{1} "]
        {
            let most = 1 << 17;
            (target.holds)(piece.repeat(most / piece.len()).as_bytes());
        }
    }
}
