//! One call of an agent, and what came of it.

use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::metadata::Action;
use super::options::Options;
use crate::process::{self, Call, Complaint, Ended, clause, spawn_detail};

/// The exit status of `status`, and of `monitor` of a device with one outlet, for a machine that is off.
pub(super) const OFF: i32 = 2;

/// A call that ended with exit status 0.
pub(super) struct Said {
    /// What it wrote to standard output.
    pub(super) output: Vec<u8>,
}

/// A call that did not.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It could not be called: there is no effect.
    NotBegun(String),
    /// It was killed after that time.
    Late {
        /// The time that it had.
        after: Duration,
        /// What it said, as the end of a sentence.
        said: String,
    },
    /// It ended with another exit status, or by a signal, which has no code.
    Exit {
        /// The exit status.
        code: Option<i32>,
        /// That or the signal as text.
        status: String,
        /// What it said, as the end of a sentence.
        said: String,
    },
    /// It says one thing and its device another, or too much to be read.
    Doubt(String),
}

impl Shared {
    /// Calls the agent, for as long as one call may take and not beyond the deadline.
    pub(super) async fn call(
        &self,
        action: Action,
        options: &Options,
        deadline: Instant,
    ) -> Result<Said, Trouble> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Trouble::NotBegun("there was no time left for it".to_owned()));
        }
        let timeout = self.settings.timeout.min(left);
        let call = Call {
            program: self.settings.agent.clone(),
            arguments: Vec::new(),
            environment: Vec::new(),
            input: options.input(action),
            timeout,
        };
        let said = |said: Complaint| clause(&options.scrub(&said.text, said.cut));
        match process::run(call).await {
            Err(error) => Err(Trouble::NotBegun(spawn_detail(&error, "agent"))),
            Ok(Ended::Well { stdout }) => Ok(Said { output: stdout }),
            Ok(Ended::TooLong) => {
                let most = process::STDOUT_MAX;
                Err(Trouble::Doubt(format!("more than {most} bytes of output")))
            }
            Ok(Ended::Badly { code, status, said: complaint }) => {
                Err(Trouble::Exit { code, status, said: said(complaint) })
            }
            Ok(Ended::Late { said: complaint }) => {
                Err(Trouble::Late { after: timeout, said: said(complaint) })
            }
        }
    }
}
