//! Runs one process to its end or to its time-out, for the adapters that call programs (`command`, `fence`). It leads a process group of its own, so that what it started can be ended with
//! it. What it writes is read all the time, kept up to a limit and thrown away above, so that it never waits for us.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

use crate::secrets::is_gap;

/// The longest answer, in bytes.
pub(crate) const STDOUT_MAX: usize = 64 * 1024;

/// How much of the end of standard error is kept, in bytes.
const STDERR_MAX: usize = 4 * 1024;

/// Where a program finds others: that of Debian's login, with nothing of a user's.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// A program that has ended may have left a child that holds its output open: what is not read by then is not waited for.
const PIPE_GRACE: Duration = Duration::from_millis(500);

/// What is to be run.
pub(crate) struct Call {
    /// The program: a path, or a name that is looked for in [`PATH`].
    pub(crate) program: PathBuf,
    /// Its arguments. Everybody on this machine can read them.
    pub(crate) arguments: Vec<&'static str>,
    /// Its environment, beside PATH and LANG.
    pub(crate) environment: Vec<(&'static str, &'static str)>,
    /// What is written to its standard input.
    pub(crate) input: Vec<u8>,
    /// How long it may take.
    pub(crate) timeout: Duration,
}

/// How it ended.
pub(crate) enum Ended {
    /// With exit status 0.
    Well { stdout: Vec<u8> },
    /// With exit status 0, and too much output to be an answer.
    TooLong,
    /// With another exit status, or by a signal, which has no code.
    #[cfg_attr(not(feature = "fence"), allow(dead_code, reason = "only agents answer by their exit status"))]
    Badly { code: Option<i32>, status: String, said: Complaint },
    /// Not in time; it was killed with everything in its process group.
    Late { said: Complaint },
}

/// The end of what it wrote to standard error.
pub(crate) struct Complaint {
    /// The text, with its lines.
    pub(crate) text: String,
    /// Whether more was before it.
    pub(crate) cut: bool,
}

impl Complaint {
    fn of(kept: &Kept) -> Self {
        Self { text: String::from_utf8_lossy(&kept.bytes).into_owned(), cut: kept.lost }
    }
}

/// What a program said as the end of a sentence; nothing where that is nothing.
pub(crate) fn clause(text: &str) -> String {
    let line = one_line(text, STDERR_MAX);
    if line.is_empty() { line } else { format!("; it said: {line}") }
}

/// Why a program could not be started and what to do; `key` is the one of cpe.toml that names it.
pub(crate) fn spawn_detail(error: &io::Error, key: &str) -> String {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => {
            format!("; check `{key}` in cpe.toml, and the interpreter in its first line")
        }
        io::ErrorKind::PermissionDenied => {
            "; it has to be executable for the user that cpe runs as".to_owned()
        }
        io::ErrorKind::ExecutableFileBusy => "; somebody is writing to it".to_owned(),
        _ => String::new(),
    };
    format!("{error}{advice}")
}

/// A text on one line without control characters, cut.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    let words = text.split(is_gap).filter(|word| !word.is_empty());
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > 4 * most {
            break;
        }
    }
    line.chars().take(most).collect()
}

/// Runs it. The error is that of starting it: then there was no effect.
pub(crate) async fn run(call: Call) -> io::Result<Ended> {
    let mut child = spawn(&call)?;
    let answer = Arc::new(Mutex::new(Kept::first(STDOUT_MAX)));
    let complaint = Arc::new(Mutex::new(Kept::last(STDERR_MAX)));
    let feeding = tokio::spawn(feed(child.stdin.take(), call.input));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut reading = tokio::spawn({
        let (answer, complaint) = (Arc::clone(&answer), Arc::clone(&complaint));
        async move { tokio::join!(read(stdout, &answer), read(stderr, &complaint)) }
    });

    let status = match tokio::time::timeout(call.timeout, child.wait()).await {
        Ok(status) => Some(status?),
        Err(_) => {
            end_group(&mut child, &mut reading).await;
            None
        }
    };
    finish(&mut reading, PIPE_GRACE).await;
    feeding.abort();
    reading.abort();
    let said = || Complaint::of(&take(&complaint));
    Ok(match status {
        None => Ended::Late { said: said() },
        Some(status) if !status.success() => {
            Ended::Badly { code: status.code(), status: describe(status), said: said() }
        }
        Some(_) => {
            let answer = take(&answer);
            if answer.lost { Ended::TooLong } else { Ended::Well { stdout: answer.bytes } }
        }
    })
}

fn spawn(call: &Call) -> io::Result<Child> {
    // Nothing else of ours is inherited: every descriptor that Rust opens is closed on exec.
    Command::new(&call.program)
        .args(&call.arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C")
        .envs(call.environment.iter().copied())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// A program that does not read its input, or not all of it, is within its rights.
async fn feed(stdin: Option<ChildStdin>, input: Vec<u8>) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(&input).await;
    }
}

/// SIGTERM to the whole group, SIGKILL to what is left of it after the grace, or once nobody holds its output any more.
async fn end_group(child: &mut Child, reading: &mut JoinHandle<((), ())>) {
    // Until the child is waited for, its number cannot become another group's: no signal can go astray.
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let signal = |signal| group.map(|group| kill_process_group(group, signal));
    signal(Signal::TERM);
    finish(reading, TERM_GRACE).await;
    signal(Signal::KILL);
    // A process that hangs in the kernel is left to the runtime to reap.
    let _ = tokio::time::timeout(TERM_GRACE, child.wait()).await;
}

async fn finish(reading: &mut JoinHandle<((), ())>, grace: Duration) {
    if !reading.is_finished() {
        let _ = tokio::time::timeout(grace, reading).await;
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>, to: &Mutex<Kept>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 8 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => lock(to).add(&buffer[..count]),
        }
    }
}

/// What is kept of an output: its beginning or its end.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    most: usize,
    /// Whether it is the end that is kept.
    last: bool,
    /// Whether something was thrown away.
    lost: bool,
}

impl Kept {
    fn first(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    fn last(most: usize) -> Self {
        Self { most, last: true, ..Self::default() }
    }

    fn add(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
        let over = self.bytes.len().saturating_sub(self.most);
        if over == 0 {
            return;
        }
        self.lost = true;
        if self.last {
            self.bytes.drain(..over);
        } else {
            self.bytes.truncate(self.most);
        }
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(kept: &Mutex<Kept>) -> Kept {
    std::mem::take(&mut *lock(kept))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::Kept;

    #[test]
    fn the_beginning_of_an_answer_and_the_end_of_a_complaint_are_kept() {
        let (mut first, mut last) = (Kept::first(4), Kept::last(4));
        for part in [b"ab", b"cd", b"ef"] {
            first.add(part);
            last.add(part);
        }
        assert_eq!((first.bytes.as_slice(), last.bytes.as_slice()), (b"abcd".as_slice(), b"cdef".as_slice()));
        assert!(first.lost && last.lost);
        let mut just = Kept::first(4);
        just.add(b"abcd");
        assert!(!just.lost);
    }
}
