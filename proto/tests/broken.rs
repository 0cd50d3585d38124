//! What is said of definitions that are wrong: each file in `broken/` has its answer beside it. `UPDATE_EXPECT=1 cargo test`
//! rewrites the answers; read the difference.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cpe_proto::config::Config;
use cpe_proto::definition::{Definition, check_set};
use cpe_proto::document::Diagnostic;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken")
}

fn lines(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().fold(String::new(), |mut text, diagnostic| {
        let _ = writeln!(text, "{diagnostic}");
        text
    })
}

fn answer(file: &str, text: &str) -> String {
    match Definition::parse(file, text) {
        Ok(definition) => lines(&definition.warnings),
        Err(errors) => {
            assert!(errors.iter().any(Diagnostic::is_error), "{file} is refused without an error");
            lines(&errors)
        }
    }
}

#[test]
fn every_broken_definition_is_answered_as_written_beside_it() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() >= 28, "{} files", files.len());
    for file in files {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a plain name");
        let text = std::fs::read_to_string(&file).expect("it can be read");
        let answer = answer(name, &text);
        assert!(!answer.is_empty(), "{name} is in broken/ and nothing is wrong with it");
        expect_test::expect_file![file.with_extension("txt")].assert_eq(&answer);
    }
}

#[test]
fn a_file_that_is_too_large_or_not_text_is_refused_by_its_bytes() {
    let large = vec![b'#'; 1024 * 1024 + 1];
    let errors = Definition::parse_bytes("large.toml", &large).expect_err("too large");
    expect_test::expect!["large.toml:1:1: 1048577 bytes, expected at most 1048576 (1 MiB)\n"]
        .assert_eq(&lines(&errors));

    let errors =
        Definition::parse_bytes("latin1.toml", b"name = \"shop\"\n# caf\xe9\n").expect_err("not UTF-8");
    expect_test::expect!["latin1.toml:2:6: not UTF-8, expected a text file in UTF-8\n"]
        .assert_eq(&lines(&errors));

    let just = format!(
        "name = \"shop\"\n[assemblies.a]\naddress = \"192.0.2.1\"\n#{}",
        "x".repeat(1024 * 1024 - 53)
    );
    assert!(Definition::parse("just.toml", &just).is_ok());
}

#[test]
fn places_are_right_in_files_of_other_editors() {
    let windows = "\u{feff}nam = \"shop\"\r\n[assemblies.web]\r\n\taddres = \"192.0.2.1\"\r\n";
    let said = answer("windows.toml", windows);
    assert!(said.contains("windows.toml:1:1: unknown key `nam`"), "{said}");
    assert!(said.contains("windows.toml:3:2: unknown key `addres`"), "{said}");
    let said = answer("no-end-of-line.toml", "name = \"shop\"\n[assemblies.web]\naddress = ");
    assert!(said.contains("no-end-of-line.toml:3:11: not TOML"), "{said}");
}

fn right(file: &str, text: &str) -> Definition {
    Definition::parse(file, text).expect("it is right by itself")
}

#[test]
fn of_two_definitions_with_one_name_or_one_machine_the_later_file_is_refused() {
    let set = [
        right(
            "c.toml",
            "name = \"three\"\n[assemblies.a]\naddress = \"db.example.com\"\n[assemblies.b]\naddress = \"192.0.2.3\"\n",
        ),
        right("a.toml", "name = \"one\"\n[assemblies.a]\naddress = \"DB.example.com\"\n"),
        right("b.toml", "name = \"one\"\n[assemblies.a]\naddress = \"192.0.2.3\"\n"),
        right("d.toml", "name = \"four\"\n[assemblies.a]\naddress = \"db.example.com\"\nssh.port = 2222\n"),
        right("e.toml", "name = \"five\"\n[assemblies.a]\naddress = \"db.example.com\"\nssh.port = 22\n"),
        right("f.toml", "name = \"six\"\ninfrastructure = \"x\"\n[assemblies.a]\ninstance = \"7\"\n"),
        right("g.toml", "name = \"seven\"\ninfrastructure = \"y\"\n[assemblies.a]\ninstance = \"7\"\n"),
        right("h.toml", "name = \"eight\"\ninfrastructure = \"x\"\n[assemblies.a]\ninstance = \"7\"\n"),
    ];
    expect_test::expect![[r#"
        b.toml:1:1: deployable "one" is also in a.toml:1, expected a name of its own: this one is refused
        c.toml:3:1: address db.example.com port 22 of three/a is also that of one/a in a.toml:3, expected one each: this definition is refused
        e.toml:3:1: address db.example.com port 22 of five/a is also that of one/a in a.toml:3, expected one each: this definition is refused
        h.toml:4:1: instance "7" of eight/a is also that of six/a in f.toml:4, expected one each: this definition is refused
    "#]]
    .assert_eq(&lines(&check_set(&set, 22)));
}

#[test]
fn ten_thousand_small_definitions_are_read_in_one_go() {
    let text = |number: usize| {
        let (high, low) = (number / 250, number % 250);
        format!(
            "name = \"shop-{number}\"\n[assemblies.web]\naddress = \"10.0.{high}.{low}\"\n\
             [assemblies.web.services.nginx]\nsystemd = \"nginx.service\"\n"
        )
    };
    let set: Vec<Definition> =
        (0..10_000).map(|number| right(&format!("{number:05}.toml"), &text(number))).collect();
    assert_eq!(check_set(&set, 22), []);
    assert_eq!(set[9_999].deployable.name.as_str(), "shop-9999");
}

/// splitmix64 (Steele, Lea, Flood 2014): the same examples in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).expect("below a usize")
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const PIECES: [&[u8]; 16] = [
            b"\"",
            b"[",
            b"]",
            b"=",
            b"{",
            b"}",
            b"\n",
            b".",
            b"'''",
            b"\xff",
            b"\"\\u",
            b"count = 999\n",
            b"after = [\"web\"]\n",
            b"[[a]]",
            b"[assemblies.",
            "\u{20ac}".as_bytes(),
        ];
        let at = self.below(bytes.len().max(1));
        match self.below(5) {
            0 if !bytes.is_empty() => bytes[at] = u8::try_from(self.below(256)).expect("below 256"),
            1 => bytes.truncate(at),
            2 if bytes.len() > 40 => drop(bytes.drain(at..(at + self.below(40)).min(bytes.len()))),
            3 => {
                let from = bytes[at..(at + 60).min(bytes.len())].to_vec();
                let to = self.below(bytes.len().max(1));
                bytes.splice(to..to, from);
            }
            _ => drop(bytes.splice(at..at, PIECES[self.below(PIECES.len())].iter().copied())),
        }
    }
}

#[test]
fn no_damage_to_a_file_makes_the_reader_panic_or_point_outside_of_it() {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    let base = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in [folder(), base.join("../deployables"), base.join("tests/config")] {
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        let toml = files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "toml"));
        seeds.extend(
            toml.map(|file| std::fs::read(file).expect("it can be read")).filter(|text| text.len() < 8000),
        );
    }
    let mut draw = Draw(2026);
    let mut refused = 0;
    for _ in 0..4_000 {
        let mut bytes = seeds[draw.below(seeds.len())].clone();
        for _ in 0..=draw.below(6) {
            draw.mutate(&mut bytes);
        }
        let errors = if draw.below(4) == 0 {
            Config::parse_bytes("mutant.toml", &bytes).err()
        } else {
            Definition::parse_bytes("mutant.toml", &bytes).err()
        };
        let Some(errors) = errors else { continue };
        refused += 1;
        assert!(errors.len() <= 101 && errors.iter().any(Diagnostic::is_error), "{errors:?}");
        let lines = 1 + bytes.iter().filter(|byte| **byte == b'\n').count();
        for error in errors {
            assert!((1..=lines).contains(&(error.line as usize)) && error.column >= 1, "{error}");
        }
    }
    assert!(refused > 1000, "{refused} of the mutants were refused: they are not damaged enough");
}
