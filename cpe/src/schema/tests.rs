//! The schemas against the parser's own tables, against every example, and against examples that are broken.

use std::path::{Path, PathBuf};

use expect_test::expect_file;

use super::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

fn document(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).unwrap();
    serde_json::to_value(toml::from_str::<toml::Table>(&text).unwrap()).unwrap()
}

fn wrong(of: Of, document: &Value) -> Vec<String> {
    let validator = jsonschema::draft7::new(&schema(of)).unwrap();
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn what_is_committed_is_what_is_generated() {
    expect_file!["../../../packaging/definition.schema.json"].assert_eq(&text(Of::Definition));
    expect_file!["../../../packaging/cpe.schema.json"].assert_eq(&text(Of::Config));
}

#[test]
fn each_key_that_the_parser_knows_has_its_shape_and_no_other_has() {
    for (tables, known) in [(DEFINITION, &definition::SCHEMAS[..]), (CONFIGURATION, &config::SCHEMAS[..])] {
        let shapes = tables.iter().flat_map(|(name, keys)| keys.iter().map(move |(key, _)| (*name, *key)));
        let mut shapes: Vec<_> = shapes.collect();
        let parsed = known.iter().flat_map(|it| it.keys.iter().map(move |key| (shapes::name_of(it), *key)));
        let mut parsed: Vec<_> = parsed.collect();
        shapes.sort_unstable();
        parsed.sort_unstable();
        let missing: Vec<_> = parsed.iter().filter(|it| !shapes.contains(it)).collect();
        let stale: Vec<_> = shapes.iter().filter(|it| !parsed.contains(it)).collect();
        assert!(
            missing.is_empty() && stale.is_empty(),
            "add to schema/shapes.rs {missing:?}, remove {stale:?}"
        );
    }
}

#[test]
fn every_example_is_valid() {
    let mut examples = files("deployables");
    examples.extend(files("cpe/src/demo/deployables"));
    assert!(examples.len() > 4);
    for file in examples {
        assert_eq!(wrong(Of::Definition, &document(&file)), Vec::<String>::new(), "{}", file.display());
    }
    let config = root().join("proto/tests/config/reference.toml");
    assert_eq!(wrong(Of::Config, &document(&config)), Vec::<String>::new());
}

#[test]
fn what_is_broken_in_its_structure_is_not_valid() {
    for name in ["unknown-keys", "wrong-types", "words", "nothing", "many"] {
        let file = root().join(format!("proto/tests/broken/{name}.toml"));
        assert!(!wrong(Of::Definition, &document(&file)).is_empty(), "{name}");
    }
    for name in ["broken-keys", "broken-kinds"] {
        let file = root().join(format!("proto/tests/config/{name}.toml"));
        assert!(!wrong(Of::Config, &document(&file)).is_empty(), "{name}");
    }
}
