//! The patches of `tests/mutations` still apply: they are proof that the checks can fail, and run for most of an hour
//! (`tests/mutations/run`), so that only this is looked at with each change.

use std::process::Command;

use anyhow::{Context, Result, ensure};

#[test]
fn what_is_broken_on_purpose_is_still_there_to_be_broken() -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/mutations/run");
    let looked = Command::new(script).arg("--apply").output().context(script)?;
    let said = [looked.stdout, looked.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    ensure!(looked.status.success(), "{}", said.concat());
    Ok(())
}
