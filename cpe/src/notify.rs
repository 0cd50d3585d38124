//! `[notify] command`: the operator's own program is how a person is told. It gets one JSON object on its standard input, one at a time;
//! it may be slow, hang or fail, and none of that reaches an engine: notifications wait in a bounded queue, and each has a deadline.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cpe_proto::config::Notify;
use cpe_proto::id::{IncidentId, Name};
use cpe_proto::observation::detail;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::mpsc;

use crate::clock;
use crate::metrics::Metrics;

/// Notifications that wait; above it the newest are dropped and counted.
const QUEUE: usize = 256;
/// The program's deadline; then it and all that it started are killed.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How much of what it complains is read, in bytes.
const COMPLAINT_MAX: u64 = 4_096;
/// Acknowledged incidents that are remembered.
const ACKNOWLEDGED_MAX: usize = 10_000;

/// What the program is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Notification {
    /// In milliseconds since 1970-01-01T00:00:00Z.
    time: u64,
    deployable: Name,
    /// `shop#3`, as `cpe why` takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<String>,
    /// One sentence.
    message: String,
}

/// The way to a person. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Notifier {
    queue: Option<mpsc::Sender<Notification>>,
    metrics: Arc<Metrics>,
    acknowledged: Arc<Mutex<BTreeSet<(Name, IncidentId)>>>,
}

impl Notifier {
    /// A notifier with a task of its own; without a command it does nothing. Within a runtime.
    #[must_use]
    pub fn new(notify: Notify, metrics: Arc<Metrics>) -> Self {
        Self::with_timeout(notify, metrics, TIMEOUT)
    }

    fn with_timeout(notify: Notify, metrics: Arc<Metrics>, timeout: Duration) -> Self {
        let queue = notify.command.map(|program| {
            let (queue, receive) = mpsc::channel(QUEUE);
            tokio::spawn(deliver(program, receive, Arc::clone(&metrics), timeout));
            queue
        });
        Self { queue, metrics, acknowledged: Arc::default() }
    }

    /// An operator knows of an incident: no more of it is told.
    pub fn acknowledge(&self, deployable: &Name, incident: IncidentId) {
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        acknowledged.insert((deployable.clone(), incident));
        // Numbers grow: the lowest of a deployable is the oldest, and an incident of long ago tells nothing any more.
        if acknowledged.len() > ACKNOWLEDGED_MAX {
            acknowledged.pop_first();
        }
    }

    /// Tells a person, soon. Never waits.
    pub fn notify(&self, deployable: &Name, incident: Option<IncidentId>, message: &str) {
        let Some(queue) = &self.queue else { return };
        if incident.is_some_and(|incident| self.known(deployable, incident)) {
            return;
        }
        let notification = Notification {
            time: clock::wall_ms(),
            deployable: deployable.clone(),
            incident: incident.map(|incident| format!("{deployable}#{incident}")),
            message: message.to_owned(),
        };
        if queue.try_send(notification).is_err() {
            self.metrics.notifications.dropped.inc();
            tracing::error!(%deployable, message, "too many notifications wait: this one is dropped");
        }
    }
}

impl Notifier {
    fn known(&self, deployable: &Name, incident: IncidentId) -> bool {
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        acknowledged.contains(&(deployable.clone(), incident))
    }
}

async fn deliver(
    program: PathBuf,
    mut queue: mpsc::Receiver<Notification>,
    metrics: Arc<Metrics>,
    timeout: Duration,
) {
    while let Some(notification) = queue.recv().await {
        match call(&program, &notification, timeout).await {
            Ok(()) => {
                metrics.notifications.sent.inc();
            }
            Err(error) => {
                metrics.notifications.failed.inc();
                let message = &notification.message;
                tracing::error!(program = %program.display(), %error, message, "a person could not be notified");
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("it cannot be started: {0}")]
    Start(std::io::Error),
    #[error("it did not end within {0:?} and was killed")]
    TimedOut(Duration),
    #[error("it ended with {status}: {complaint}")]
    Failed { status: std::process::ExitStatus, complaint: Box<str> },
    #[error("waiting for it failed: {0}")]
    Wait(std::io::Error),
}

async fn call(program: &Path, notification: &Notification, timeout: Duration) -> Result<(), CallError> {
    // Names and texts only: it cannot fail.
    let input = serde_json::to_vec(notification).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    /// A program that runs `script` in that folder.
    fn program(dir: &TempDir, script: &str) -> Notify {
        let path = dir.path().join("page");
        std::fs::write(&path, format!("#!/bin/sh\ncd {}\n{script}\n", dir.path().display())).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Notify { command: Some(path) }
    }

    fn shop() -> Name {
        Name::parse("shop").unwrap()
    }

    async fn until(what: &str, mut done: impl FnMut() -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while !done() {
            assert!(tokio::time::Instant::now() < deadline, "not within 30 s: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_person_is_told_as_json_one_at_a_time_in_order() {
        let dir = TempDir::new().unwrap();
        let metrics = Arc::new(Metrics::new());
        let script = "mkdir busy || exit 1; cat >> told; echo >> told; rmdir busy";
        let notifier = Notifier::new(program(&dir, script), Arc::clone(&metrics));
        notifier.notify(&shop(), Some(IncidentId(3)), "web is exhausted");
        notifier.notify(&shop(), None, "second");
        until("both are sent", || metrics.notifications.sent.get() == 2).await;
        let told = std::fs::read_to_string(dir.path().join("told")).unwrap();
        let told: Vec<serde_json::Value> =
            told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(told[0]["incident"], "shop#3");
        assert_eq!(told[0]["message"], "web is exhausted");
        assert_eq!(told[1]["message"], "second");
        assert_eq!(metrics.notifications.failed.get(), 0);
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_all_that_it_started_and_the_next_is_told() {
        let dir = TempDir::new().unwrap();
        let metrics = Arc::new(Metrics::new());
        let script = "[ -e child ] && exit 0; sleep 600 & echo $! > child; wait";
        let notify = program(&dir, script);
        let notifier = Notifier::with_timeout(notify, Arc::clone(&metrics), Duration::from_secs(2));
        notifier.notify(&shop(), None, "first");
        notifier.notify(&shop(), None, "second");
        until("the second is sent", || metrics.notifications.sent.get() == 1).await;
        assert_eq!(metrics.notifications.failed.get(), 1);
        let child = std::fs::read_to_string(dir.path().join("child")).unwrap();
        // Gone, or a zombie that nobody has collected yet.
        let stat = format!("/proc/{}/stat", child.trim());
        until("its child is dead", || {
            !std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z"))
        })
        .await;
    }

    #[tokio::test]
    async fn a_program_that_fails_or_is_missing_is_counted_and_blocks_nobody() {
        let dir = TempDir::new().unwrap();
        let metrics = Arc::new(Metrics::new());
        let notifier =
            Notifier::new(program(&dir, "cat > /dev/null; echo no modem >&2; exit 7"), Arc::clone(&metrics));
        notifier.notify(&shop(), None, "first");
        until("it has failed", || metrics.notifications.failed.get() == 1).await;
        let missing = Notifier::new(Notify { command: Some("/nonexistent".into()) }, Arc::clone(&metrics));
        missing.notify(&shop(), None, "first");
        until("it has failed", || metrics.notifications.failed.get() == 2).await;
        let nobody = Notifier::new(Notify { command: None }, metrics);
        nobody.notify(&shop(), None, "nobody is told, and that is no error");
    }

    #[tokio::test]
    async fn a_flood_is_bounded_and_what_is_dropped_is_counted() {
        let dir = TempDir::new().unwrap();
        let metrics = Arc::new(Metrics::new());
        let notifier = Notifier::new(program(&dir, "cat > /dev/null"), Arc::clone(&metrics));
        // Nothing is taken out of the queue before this task waits.
        for _ in 0..QUEUE + 10 {
            notifier.notify(&shop(), None, "again");
        }
        assert_eq!(metrics.notifications.dropped.get(), 10);
    }
}
