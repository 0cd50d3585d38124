//! `cpe simulate`: what would happen, without a controller and without a machine.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use cpe_sim::script::GRAMMAR;

use super::{Exit, Failure, Simulate};
use crate::simulate;

pub(super) fn run(wanted: &Simulate) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    let told = match simulate::simulate(&wanted.scenario, &wanted.paths) {
        Ok(told) => told,
        Err(errors) => {
            let mut complaints = io::stderr().lock();
            for error in errors {
                writeln!(complaints, "{error}")?;
            }
            return Ok(Exit::No);
        }
    };
    if wanted.json {
        told.write_json(&mut out)?;
    } else {
        told.write_text(&mut out)?;
    }
    Ok(if told.is_broken() { Exit::No } else { Exit::Done })
}

/// What `cpe simulate --help` says of scripts.
pub(super) fn help() -> String {
    let mut text = String::from(
        "A scenario is a text, one thing a line; # begins a comment:\n\n\
         \x20   use shop.toml                          definitions, or a folder of them, from the script's own folder\n\
         \x20   canaries 0                             how many canaries there are (2)\n\
         \x20   boot 40s                               how long a machine boots (20s)\n\
         \x20   infrastructure prod takes 5s           how long its operations take (2s)\n\
         \x20   infrastructure prod can status start   what it can do (everything)\n\
         \x20   infrastructure prod knows nobody       it does not know who stopped an instance (it does)\n\
         \x20   seed 7                                 decides what is left to chance (1)\n\
         \x20   end at 30m                             when it is over (10 min after the last thing)\n\
         \x20   at 30s kill shop/web/nginx             something happens then\n\n\
         SERVICE is a name as shop/web/nginx, MACHINE one as shop/web; * is any part of a name. What can happen:\n\n",
    );
    for usage in GRAMMAR {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "  {}\n      {}", usage.usage, usage.about);
    }
    text.push_str(
        "\nIn the transcript * is what happens to the world, + what cpe does, ! what a person is told; the rest is what cpe concludes. \
         Exit 1: the scenario cannot be read, or a rule was broken.",
    );
    text
}
