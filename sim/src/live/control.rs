//! The infrastructure of a live fleet: what a hypervisor would do for its machines, asked over a unix socket. One JSON object a
//! line in, one out. The words are those of the `command` infrastructure (design.md section 7), so that a program of a few lines
//! (`cpe demo-infra`) joins the two: it puts its ACTION into cpe's object, calls, and prints the answer.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::infrastructure::{InstanceState, Operation};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::Machines;
use super::machine::Machine;
use super::state::Power;

/// The longest request or answer, in bytes.
const LINE_MAX_BYTES: u64 = 64 * 1024;
/// How long a client waits for an answer: nothing that the fleet does takes longer than a port takes to turn.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// After an error of accept (no file descriptor left) it is tried again this much later.
const RETRY: Duration = Duration::from_millis(50);

/// What these machines' infrastructure can do: no image, so nothing that creates or destroys.
pub const OPERATIONS: [Operation; 6] = [
    Operation::Status,
    Operation::Start,
    Operation::Stop,
    Operation::RebootSoft,
    Operation::RebootHard,
    Operation::Capabilities,
];

/// What is asked. Fields that the fleet does not need are ignored, so cpe's own object may be passed with `action` added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// An operation's word: `status`, `start`, `stop`, `reboot-soft`, `reboot-hard`, `capabilities`.
    pub action: String,
    /// The machine's name in the fleet; the first choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Its IP address, with or without a port; the second choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The machine's state as its infrastructure sees it: a frozen guest is active.
    pub state: InstanceState,
    /// The machine's name in the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Its IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// One clause for a person.
    #[serde(default)]
    pub detail: String,
    /// The words of all operations there are; only in the answer to `capabilities`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Operation>,
    /// Why nothing was done; then the asking program exits with a status that is not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Answer {
    fn error(text: String) -> Self {
        Self { error: Some(text), ..Self::of(InstanceState::Unknown, "") }
    }

    fn of(state: InstanceState, detail: &str) -> Self {
        let detail = detail.to_owned();
        Self { state, instance: None, address: None, detail, capabilities: Vec::new(), error: None }
    }
}

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The fleet does not answer.
    #[error(
        "cannot ask the live fleet at {path}: {source}: is the demo or the test that owns it still running?"
    )]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It answers with something else than an answer.
    #[error("the live fleet at {path} answered what is no answer: {source}")]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Asks a fleet. Blocks for up to 10 s: for a program of its own, not for a task of an async runtime.
///
/// # Errors
/// [`CallError`].
pub fn call(path: &Path, request: &Request) -> Result<Answer, CallError> {
    let io = |source| CallError::Io { path: path.to_owned(), source };
    let no_answer = |source| CallError::NoAnswer { path: path.to_owned(), source };
    let mut stream = BlockingStream::connect(path).map_err(io)?;
    stream.set_read_timeout(Some(CALL_TIMEOUT)).map_err(io)?;
    stream.set_write_timeout(Some(CALL_TIMEOUT)).map_err(io)?;
    let mut line = serde_json::to_vec(request).map_err(no_answer)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(io)?;
    let mut answer = String::new();
    io::BufReader::new(stream.take(LINE_MAX_BYTES)).read_line(&mut answer).map_err(io)?;
    serde_json::from_str(&answer).map_err(no_answer)
}

/// Opens the socket and returns the task that serves it.
pub(super) async fn serve(
    path: &Path,
    machines: Arc<Machines>,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    Ok(async move {
        let mut clients = tokio::task::JoinSet::new();
        loop {
            while clients.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) => {
                    let machines = Arc::clone(&machines);
                    // A client that sends nothing is dropped; one that goes away is of no interest.
                    clients.spawn(async move {
                        tokio::time::timeout(CALL_TIMEOUT, client(stream, &machines)).await
                    });
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    })
}

async fn client(mut stream: UnixStream, machines: &Machines) -> io::Result<()> {
    let mut line = String::new();
    let (read, mut write) = stream.split();
    BufReader::new(read.take(LINE_MAX_BYTES)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => answer(machines, &request).await,
        Err(error) => Answer::error(format!("the request is not one JSON object with an action: {error}")),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await
}

async fn answer(machines: &Machines, request: &Request) -> Answer {
    let operation = Operation::parse(&request.action).filter(|operation| OPERATIONS.contains(operation));
    let Some(operation) = operation else {
        let words = OPERATIONS.map(Operation::as_str).join(", ");
        return Answer::error(format!("the live fleet cannot {:?}: it can {words}", request.action));
    };
    if operation == Operation::Capabilities {
        return Answer {
            capabilities: OPERATIONS.into(),
            ..Answer::of(InstanceState::Unknown, "a live fleet")
        };
    }
    let Some(machine) = find(machines, request) else {
        return Answer::error(format!(
            "the live fleet has no machine {} at {}",
            request.instance.as_deref().unwrap_or("(no name given)"),
            request.address.as_deref().unwrap_or("(no address given)"),
        ));
    };
    let detail = operate(machine, operation).await;
    let state = match machine.power() {
        Power::Off => InstanceState::Off,
        // A hypervisor knows nothing of what a guest does.
        Power::Booting | Power::On => InstanceState::Active,
    };
    Answer {
        instance: Some(machine.name().to_owned()),
        address: Some(machine.address().ip().to_string()),
        ..Answer::of(state, detail)
    }
}

fn find<'a>(machines: &'a Machines, request: &Request) -> Option<&'a Arc<Machine>> {
    if let Some(machine) = request.instance.as_deref().and_then(|name| machines.named(name)) {
        return Some(machine);
    }
    let address = request.address.as_deref()?;
    let ip: IpAddr = match address.parse() {
        Ok(ip) => ip,
        Err(_) => address.parse::<std::net::SocketAddr>().ok()?.ip(),
    };
    machines.at(ip)
}

async fn operate(machine: &Machine, operation: Operation) -> &'static str {
    match operation {
        Operation::Start => {
            machine.power_on().await;
            "powered on"
        }
        Operation::Stop => {
            machine.power_off().await;
            "powered off"
        }
        Operation::RebootSoft => match machine.reboot_soft().await {
            true => "the guest was asked to reboot",
            // As with ACPI: nobody says that it was not heard.
            false => "the guest was asked to reboot and did not react",
        },
        Operation::RebootHard => {
            machine.reboot_hard().await;
            "power cut and given back"
        }
        _ => match machine.power() {
            Power::Off => "off",
            Power::Booting => "booting",
            Power::On => "running",
        },
    }
}
