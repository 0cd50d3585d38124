//! `cpe completions`, `cpe man` and `cpe schema`: what shells, `man` and editors want to know, each from its one definition. For packages,
//! which run them at build time.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Exit, Failure};
use crate::schema::{self, Of};

/// The script of a shell, on standard output.
pub(super) fn completions(shell: Shell) -> Result<Exit, Failure> {
    // Into memory first: the generator takes a reader that leaves for a reason to panic.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cpe", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Exit::Done)
}

/// cpe.1, and one page for each command.
pub(super) fn man(directory: &Path) -> Result<Exit, Failure> {
    let failed = |error: io::Error| {
        Failure::Config(format!("cannot write the manual pages to {}: {error}", directory.display()))
    };
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    Ok(Exit::Done)
}

/// A schema for editors, on standard output.
pub(super) fn schema(of: Of) -> Result<Exit, Failure> {
    io::stdout().write_all(schema::text(of).as_bytes())?;
    Ok(Exit::Done)
}
