//! Doors for the fuzz targets of `fuzz/`, with the feature `fuzzing` only: the readers of what programs of an infrastructure say.

use cpe_proto::infrastructure::Capabilities;

use crate::InstanceAnswer;
use crate::command::answer;
use crate::fence::metadata::Metadata;
use crate::secrets::Secrets;

/// A program's answer to an operation.
///
/// # Errors
/// What is wrong with it.
pub fn instance(output: &[u8]) -> Result<InstanceAnswer, String> {
    answer::instance(output)
}

/// A program's answer to `capabilities`.
///
/// # Errors
/// What is wrong with it.
pub fn capabilities(output: &[u8]) -> Result<Capabilities, String> {
    answer::capabilities(output)
}

/// The names of the options in a fence agent's metadata.
///
/// # Errors
/// What is wrong with it.
pub fn options(metadata: &[u8]) -> Result<Vec<String>, String> {
    Ok(Metadata::parse(metadata)?.parameters.into_keys().collect())
}

/// What is repeated of a text of an agent that knows these secrets. `cut`: its beginning is missing.
#[must_use]
pub fn repeated(text: &str, cut: bool, secrets: &[&str]) -> String {
    Secrets::new(secrets.iter().map(|secret| (*secret).to_owned())).scrub(text, cut)
}
