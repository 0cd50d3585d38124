//! Runs other programs to their end, by a deadline, and says what they said.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; none when a signal ended it.
    pub status: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Output {
    /// Whether it exited with 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.status == Some(0)
    }
}

/// Status of coreutils' `timeout` when the deadline ended the program.
const TIMED_OUT: i32 = 124;

/// Runs a program with empty standard input, and ends it when the deadline has passed.
///
/// # Errors
/// When it cannot be started, or did not end by itself.
pub fn run<I>(program: impl AsRef<OsStr>, arguments: I, deadline: Duration) -> Result<Output>
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let program = program.as_ref();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=2", &deadline.as_secs_f64().to_string()]).arg(program).args(arguments);
    let done =
        command.stdin(Stdio::null()).output().with_context(|| format!("starting {}", program.display()))?;
    let output = Output {
        status: done.status.code(),
        stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
    };
    if matches!(output.status, Some(TIMED_OUT) | None) {
        bail!("{command:?} did not end in {deadline:?}; it said: {}{}", output.stdout, output.stderr);
    }
    Ok(output)
}

/// As [`run`], for programs that must exit with 0; returns what was printed.
///
/// # Errors
/// As [`run`], and when the program exits with another status.
pub fn demand<I>(program: impl AsRef<OsStr>, arguments: I, deadline: Duration) -> Result<String>
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let arguments: Vec<_> = arguments.into_iter().collect();
    let output = run(&program, &arguments, deadline)?;
    if output.succeeded() {
        return Ok(output.stdout);
    }
    let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    bail!(
        "{} {} exited with {:?}: {}{}",
        program.as_ref().display(),
        words.join(" "),
        output.status,
        output.stdout,
        output.stderr
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_never_ends_is_ended_and_named() {
        let error = run("sleep", ["60"], Duration::from_millis(50)).unwrap_err().to_string();
        assert!(error.contains("sleep") && error.contains("did not end"), "{error}");
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let error = demand("sh", ["-c", "echo no disk >&2; exit 3"], Duration::from_secs(10)).unwrap_err();
        assert!(error.to_string().contains("exited with Some(3): no disk"), "{error}");
    }
}
