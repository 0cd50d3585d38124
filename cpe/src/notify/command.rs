//! `[notify] command`: the operator's own program gets one JSON object on its standard input. It may be slow, hang or fail: it has a
//! deadline, and then it and all that it started are killed.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cpe_proto::observation::detail;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, Command};

/// How much of what it complains is read, in bytes.
const COMPLAINT_MAX: u64 = 4_096;

#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("it cannot be started: {0}")]
    Start(std::io::Error),
    #[error("it did not end within {0:?} and was killed")]
    TimedOut(Duration),
    #[error("it ended with {status}: {complaint}")]
    Failed { status: std::process::ExitStatus, complaint: Box<str> },
    #[error("waiting for it failed: {0}")]
    Wait(std::io::Error),
}

/// Gives it one notification and waits for its end.
pub(super) async fn call(program: &Path, input: Vec<u8>, timeout: Duration) -> Result<(), CallError> {
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(CallError::Start)?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let ended = tokio::time::timeout(timeout, converse(&mut child, input)).await;
    let Ok(ended) = ended else {
        if let Some(group) = group {
            // Its children too: a shell's sleep would outlive the shell.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait().await;
        return Err(CallError::TimedOut(timeout));
    };
    let (status, complaint) = ended?;
    if status.success() { Ok(()) } else { Err(CallError::Failed { status, complaint }) }
}

/// Gives it its input and waits for its end.
async fn converse(
    child: &mut Child,
    input: Vec<u8>,
) -> Result<(std::process::ExitStatus, Box<str>), CallError> {
    let stdin = child.stdin.take();
    let complaint = tokio::spawn(complaint(child.stderr.take()));
    if let Some(mut stdin) = stdin {
        // A program that does not read its input is no error.
        let _ = stdin.write_all(&input).await;
    }
    let status = child.wait().await.map_err(CallError::Wait)?;
    let said = complaint.await.unwrap_or_default();
    Ok((status, detail(&String::from_utf8_lossy(&said))))
}

async fn complaint(stderr: Option<ChildStderr>) -> Vec<u8> {
    let Some(mut stderr) = stderr else { return Vec::new() };
    let mut said = Vec::new();
    // What cannot be read is not said.
    let _ = (&mut stderr).take(COMPLAINT_MAX).read_to_end(&mut said).await;
    // The rest is read away, so that the program does not block on it.
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    said
}
