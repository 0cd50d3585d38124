//! `cpe simulate`: a scenario is lived in virtual time, with the real policy engines and the real fleet guard (`cpe_sim::world`), and told
//! like `cpe events` tells. The same each time. The script's words are `cpe_sim::script`'s.

mod told;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cpe_proto::definition::Deployable;
use cpe_proto::document::{Diagnostic, FILE_MAX_BYTES, Position};
use cpe_sim::script::{Script, uses};

use crate::load::{self, Definitions};
pub use told::Told;

/// Lives a scenario. `paths` are definitions, or folders of them, beside those that the script names.
///
/// # Errors
/// Everything that is wrong with the script or a definition.
pub fn simulate(scenario: &Path, paths: &[PathBuf]) -> Result<Told, Vec<Diagnostic>> {
    let (file, text) = read(scenario)?;
    let folder = scenario.parent().unwrap_or(Path::new(""));
    let definitions = definitions(&file, &text, folder, paths)?;
    let reader = |path: &str| changed(&folder.join(path));
    let script = Script::parse(&file, &text, &definitions, &reader)?;
    let mut world = script.world();
    world.run_until(script.ends);
    world.audit();
    Ok(Told::of(&world))
}

fn read(scenario: &Path) -> Result<(String, String), Vec<Diagnostic>> {
    let file = scenario.display().to_string();
    let wrong = |message: String| vec![Diagnostic::error(&file, Position::START, message)];
    let text = load::read(scenario).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if text.len() > FILE_MAX_BYTES {
        return Err(wrong(format!("more than {FILE_MAX_BYTES} bytes (1 MiB), expected a script")));
    }
    let text = String::from_utf8(text).map_err(|_| wrong("not UTF-8, expected text".to_owned()))?;
    Ok((file, text))
}

fn definitions(
    file: &str,
    text: &str,
    folder: &Path,
    paths: &[PathBuf],
) -> Result<Vec<Arc<Deployable>>, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let named = uses(text).into_iter().map(|it| (it.at, folder.join(it.path)));
    let given = paths.iter().map(|path| (Position::START, path.clone()));
    let mut files = Vec::new();
    for (at, path) in named.chain(given) {
        match if path.is_dir() { load::files(&path) } else { Ok(vec![path.clone()]) } {
            Ok(found) if !found.is_empty() && path.exists() => files.extend(found),
            Ok(found) => {
                let what = if found.is_empty() { "holds no *.toml" } else { "is not there" };
                errors.push(Diagnostic::error(file, at, format!("{} {what}", path.display())));
            }
            Err(error) => {
                errors.push(Diagnostic::error(
                    file,
                    at,
                    format!("{} cannot be read: {error}", path.display()),
                ));
            }
        }
    }
    files.sort();
    files.dedup();
    let mut loaded = Definitions::new(None);
    let changes = loaded.look(&files);
    errors.extend(changes.rejected.into_iter().flat_map(|(_, errors)| errors));
    if errors.is_empty() {
        Ok(loaded.used().map(|definition| Arc::clone(&definition.deployable)).collect())
    } else {
        Err(errors)
    }
}

/// A definition that the script has changed.
fn changed(path: &Path) -> Result<Arc<Deployable>, String> {
    let mut loaded = Definitions::new(None);
    let rejected = loaded.look(&[path.to_owned()]).rejected;
    let first = rejected.into_iter().flat_map(|(_, errors)| errors).next();
    match (first, loaded.used().next()) {
        (Some(error), _) => Err(error.to_string()),
        (None, Some(definition)) => Ok(Arc::clone(&definition.deployable)),
        (None, None) => Err(format!("{} has no definition", path.display())),
    }
}
