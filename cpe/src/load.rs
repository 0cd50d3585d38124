//! Reads files of definitions and the configuration. One broken file costs only itself: it is reported with all its errors and
//! left out, and so is the later of two that claim one name or one machine (design.md section 4, rule 8).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cpe_proto::config::Config;
use cpe_proto::definition::{Definition, check_set};
use cpe_proto::document::{Diagnostic, FILE_MAX_BYTES, Position};
use cpe_proto::id::Name;

/// What the files hold.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The valid ones, in the order of the files' names.
    pub definitions: Vec<Definition>,
    /// Each file that was left out, with its errors.
    pub rejected: Vec<(String, Vec<Diagnostic>)>,
    /// What is valid and suspicious.
    pub warnings: Vec<Diagnostic>,
}

/// The configuration in that file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn config(path: &Path) -> Result<Config, Vec<Diagnostic>> {
    let file = path.display().to_string();
    let text = read(path).map_err(|error| vec![unreadable(&file, &error)])?;
    let text = String::from_utf8(text).map_err(|_| {
        vec![Diagnostic::error(&file, Position::START, "not UTF-8, expected TOML".to_owned())]
    })?;
    Config::parse(&file, &text)
}

/// All `*.toml` files of a directory, in the order of their names.
///
/// # Errors
/// When the directory cannot be read.
pub fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What is compared with the configuration, where there is one.
#[derive(Debug)]
pub struct Context {
    /// The names of its infrastructures.
    pub infrastructures: BTreeSet<Name>,
    /// The port of its `[ssh]`.
    pub port: u16,
}

/// Reads and parses these files.
#[must_use]
pub fn definitions(files: &[PathBuf], context: Option<&Context>) -> Loaded {
    let mut loaded = Loaded::default();
    for path in files {
        let file = path.display().to_string();
        match definition(path, &file, context) {
            Ok(definition) => loaded.definitions.push(definition),
            Err(errors) => loaded.rejected.push((file, errors)),
        }
    }
    reject_claimed_twice(&mut loaded, context.map_or(22, |context| context.port));
    loaded
        .warnings
        .extend(loaded.definitions.iter().flat_map(|definition| definition.warnings.iter().cloned()));
    loaded
}

fn definition(path: &Path, file: &str, context: Option<&Context>) -> Result<Definition, Vec<Diagnostic>> {
    let bytes = read(path).map_err(|error| vec![unreadable(file, &error)])?;
    let definition = Definition::parse_bytes(file, &bytes)?;
    let unknown = context.and_then(|context| definition.check_infrastructure(&context.infrastructures));
    unknown.map_or(Ok(definition), |error| Err(vec![error]))
}

/// At most one byte more than is allowed, so that the parser can say that it is too much.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(FILE_MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(file: &str, error: &io::Error) -> Diagnostic {
    Diagnostic::error(file, Position::START, format!("cannot be read: {error}"))
}

fn reject_claimed_twice(loaded: &mut Loaded, port: u16) {
    for problem in check_set(&loaded.definitions, port) {
        if !problem.is_error() {
            loaded.warnings.push(problem);
            continue;
        }
        loaded.definitions.retain(|definition| definition.file != problem.file);
        match loaded.rejected.iter_mut().find(|(file, _)| *file == problem.file) {
            Some((_, errors)) => errors.push(problem),
            None => loaded.rejected.push((problem.file.clone(), vec![problem])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, file: &str, text: &str) -> PathBuf {
        let path = directory.join(file);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn one_machine(name: &str, address: &str) -> String {
        format!(
            "name = \"{name}\"\n[assemblies.a]\naddress = \"{address}\"\n[assemblies.a.services.s]\nsystemd = \"s.service\"\n"
        )
    }

    #[test]
    fn one_broken_definition_costs_only_itself() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(root, "1-good.toml", &one_machine("good", "192.0.2.1"));
        write(root, "2-broken.toml", "name = \"broken\"\nasemblies = 1\n");
        write(root, "3-good.toml", &one_machine("other", "192.0.2.2"));
        write(root, "4-not-read.txt", "neither TOML nor ours");
        let loaded = definitions(&files(root).unwrap(), None);
        let names: Vec<&str> = loaded.definitions.iter().map(|it| it.deployable.name.as_str()).collect();
        assert_eq!(names, ["good", "other"]);
        assert_eq!(loaded.rejected.len(), 1);
        let broken = &loaded.rejected[0].1;
        assert!(broken.iter().any(|error| error.to_string().contains("2-broken.toml:2:1: ")), "{broken:?}");
    }

    #[test]
    fn of_two_that_claim_one_machine_the_later_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(root, "a.toml", &one_machine("first", "192.0.2.1"));
        write(root, "b.toml", &one_machine("second", "192.0.2.1"));
        let loaded = definitions(&files(root).unwrap(), None);
        assert_eq!(loaded.definitions.len(), 1);
        assert_eq!(loaded.definitions[0].deployable.name.as_str(), "first");
        assert!(loaded.rejected[0].0.ends_with("b.toml"));
    }
}
