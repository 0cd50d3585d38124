//! Options of a fence agent: in an `[infrastructures.NAME]` table of cpe.toml and, for the outlet of one machine, in an assembly's
//! `fence`. A value is a text or the name of a file that holds it. `infra/fence` gives them to the agent.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::document::{Schema, Table, Text, TextOrTable};

/// The most options of one table, and the longest value in bytes.
const OPTIONS_MAX: (usize, usize) = (64, 1024);

/// The longest name of an option, in bytes.
const KEY_MAX: usize = 64;

/// A value that is a table.
pub(crate) const VALUE: Schema = Schema { title: "an option", keys: &["file"], later: &[] };

/// Options by their names.
pub type FenceOptions = BTreeMap<String, FenceValue>;

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FenceValue {
    /// The value itself.
    Text(Secret),
    /// The file that holds it; read each time that the agent is called, without the newline at its end.
    File(PathBuf),
}

/// A text that is shown to nobody by accident: neither `Debug` nor `Display` has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(String);

impl Secret {
    /// Keeps that text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one who needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(hidden)")
    }
}

/// Whether an option of that name holds what nobody else may know. The words are those of the options of fence-agents; an option
/// that names a file or a program holds no secret itself.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    const WORDS: [&str; 7] = ["passw", "passphrase", "secret", "token", "community", "apikey", "accesskey"];
    let key = key.to_ascii_lowercase().replace(['-', '_'], "");
    let named = key.ends_with("script") || key.ends_with("file");
    !named && WORDS.iter().any(|word| key.contains(word))
}

/// How a table's file values and secrets are taken.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'f> {
    /// What is expected of a file's name.
    pub(crate) file: &'f dyn Fn(&str) -> Result<PathBuf, &'static str>,
    /// What becomes of a secret that is written down.
    pub(crate) written: Written,
}

/// What becomes of a secret that is written down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is used, and warned of.
    Warned,
    /// It is refused.
    Refused,
}

/// The options at that key of a table; what is wrong with them is reported.
pub(crate) fn read(table: &Table<'_>, key: &str, how: Reading<'_>) -> FenceOptions {
    let mut options = FenceOptions::new();
    let entries = table.texts_or_tables(key, &VALUE).unwrap_or_default();
    let (most, longest) = OPTIONS_MAX;
    if entries.len() > most {
        let message = format!("`{key}` has {} options, expected at most {most}", entries.len());
        table.report().error(table.at_key(key), message);
    }
    for (name, value) in entries {
        if !check_key(table, name) {
            continue;
        }
        let value = match value {
            TextOrTable::Text(text) => read_text(table, name, text, longest, how.written),
            TextOrTable::Table(inner) => read_file(&inner, how),
        };
        if let Some(value) = value {
            options.insert(name.text.to_owned(), value);
        }
    }
    options
}

fn check_key(table: &Table<'_>, name: Text<'_>) -> bool {
    let error = |message: String| table.report().error(name.at, message);
    let plain = name.text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if !plain || name.text.is_empty() || name.text.len() > KEY_MAX {
        error(format!("not the name of an option, expected 1 to {KEY_MAX} of a-z, A-Z, 0-9, _ and -"));
        return false;
    }
    if matches!(name.text, "action" | "option") {
        error(format!("`{}` is given to the agent by cpe, expected it not to be here", name.text));
        return false;
    }
    true
}

fn read_text(
    table: &Table<'_>,
    name: Text<'_>,
    text: Text<'_>,
    longest: usize,
    written: Written,
) -> Option<FenceValue> {
    // The value is in no message: it may be a secret, whatever the option is called.
    if text.text.is_empty() || text.text.len() > longest || text.text.chars().any(char::is_control) {
        let message = format!("`{}` is not a value, expected 1 to {longest} bytes on one line", name.text);
        table.report().error(text.at, message);
        return None;
    }
    if is_secret(name.text) {
        let file = "{ file = \"/path\" } with a file that only cpe can read";
        match written {
            Written::Warned => table
                .report()
                .warning(text.at, format!("`{}` is written in this file, better is {file}", name.text)),
            Written::Refused => table
                .report()
                .error(text.at, format!("`{}` is written in a definition, expected {file}", name.text)),
        }
    }
    Some(FenceValue::Text(Secret::new(text.text.to_owned())))
}

fn read_file(inner: &Table<'_>, how: Reading<'_>) -> Option<FenceValue> {
    inner.require("file", "file = \"/path\"");
    inner.parse("file", how.file).map(FenceValue::File)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_no_debug_output() {
        let options = FenceOptions::from([("x".to_owned(), FenceValue::Text(Secret::new("hunter2".into())))]);
        assert_eq!(format!("{options:?}"), "{\"x\": Text((hidden))}");
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        for key in ["password", "passwd", "snmp_priv_passwd", "SNMP-Auth-Password", "secret_key", "token"] {
            assert!(is_secret(key), "{key}");
        }
        for key in ["passwd_script", "token_file", "plug", "identity_file", "ip", "username", "key"] {
            assert!(!is_secret(key), "{key}");
        }
    }
}
