//! Where a secret is: never in cpe.toml itself, but in a file, in a credential of the unit that cpe runs as, or in the environment.
//! `cpe` reads it; here is only what the configuration says.

use std::path::PathBuf;

use crate::document::{Schema, Table};
use crate::ssh::credential;

/// A secret's table.
pub(crate) const SECRET: Schema =
    Schema { title: "a secret", keys: &["file", "credential", "env"], later: &[] };

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file that not everybody may read; a newline at its end is no part of it.
    File(PathBuf),
    /// In a credential (systemd.exec(5), `LoadCredential=`), by its name.
    Credential(String),
    /// In a variable of cpe's environment.
    Env(String),
}

/// Reads `key = { file = "..." }`, `{ credential = "..." }` or `{ env = "..." }`.
pub(crate) fn read_secret(
    table: &Table<'_>,
    key: &str,
    file: impl FnOnce(&str) -> Result<PathBuf, &'static str>,
) -> Option<SecretSource> {
    let inner = table.table(key, &SECRET)?;
    let given = SECRET.keys.iter().filter(|key| inner.has(key)).count();
    if given != 1 {
        let message = format!("{} has to have exactly one of `file`, `credential` and `env`", inner.title());
        inner.report().error(table.at_key(key), message);
        return None;
    }
    let file = inner.parse("file", file).map(SecretSource::File);
    let file = file.or_else(|| inner.parse("credential", credential).map(SecretSource::Credential));
    file.or_else(|| inner.parse("env", variable).map(SecretSource::Env))
}

fn variable(text: &str) -> Result<String, &'static str> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !plain || text.is_empty() || text.len() > 255 || text.as_bytes()[0].is_ascii_digit() {
        return Err("the name of a variable: letters, digits and _");
    }
    Ok(text.to_owned())
}
