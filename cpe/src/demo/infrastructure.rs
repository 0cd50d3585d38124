//! `cpe demo-infra SOCKET ACTION`: the program that the demo's `command` infrastructure runs. It joins that contract (one JSON object
//! on standard input, one on standard output) to the demo's machines, which live in the demo's process.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use cpe_sim::live::control::{self, Request};

/// More than any request of the contract.
const INPUT_MAX_BYTES: u64 = 64 * 1024;

/// Does one action.
///
/// # Errors
/// What went wrong: the program then ends with a status that is not 0, and the controller takes the state as unknown.
pub fn perform(socket: &Path, action: &str) -> anyhow::Result<()> {
    let mut input = String::new();
    std::io::stdin().take(INPUT_MAX_BYTES).read_to_string(&mut input)?;
    let request: Request = match input.trim() {
        "" => Request::default(),
        text => serde_json::from_value(with_action(text, action)?).context("the object on standard input")?,
    };
    let request = Request { action: action.to_owned(), ..request };
    let answer = control::call(socket, &request)?;
    let mut out = std::io::stdout();
    serde_json::to_writer(&mut out, &answer)?;
    out.write_all(b"\n")?;
    match answer.error {
        Some(error) => anyhow::bail!(error),
        None => Ok(()),
    }
}

fn with_action(text: &str, action: &str) -> anyhow::Result<serde_json::Value> {
    let mut value: serde_json::Value = serde_json::from_str(text).context("standard input is not JSON")?;
    let object = value.as_object_mut().context("standard input is not a JSON object")?;
    object.insert("action".to_owned(), action.into());
    Ok(value)
}
