//! The other end of the API: what the command line uses to ask a running cpe. One connection for each question, over the unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cpe_proto::api::{Command, CommandAnswer, ErrorAnswer, HostKey, Status, StreamEnd, Why, WhyNot};
use cpe_proto::event::EventRecord;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Until the controller has taken the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until its answer has come; it gives up by itself after 10 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// The largest answer, in bytes: the status of 10,000 deployables is about 20 MB.
const ANSWER_MAX: usize = 256 << 20;
/// The longest line of events, in bytes.
const LINE_MAX: usize = 1 << 20;
/// While following, the controller sends something every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error(
        "cannot reach cpe on {socket}: {source}; is it running (systemctl status cpe), is that the socket of its cpe.toml \
         ([listen] api), and may you use it (its group)?"
    )]
    Unreachable {
        /// The socket that was tried.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It stopped answering, or does not speak as we do.
    #[error(
        "cpe on {socket} did not answer as expected: {what}; it may be another version: compare `cpe --version` with `systemctl status cpe`"
    )]
    Answer {
        /// The socket.
        socket: PathBuf,
        /// What was wrong.
        what: String,
    },
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

/// A controller at a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Which events.
#[derive(Clone, Debug, Default)]
pub struct EventsRequest {
    /// Of whom.
    pub name: Option<String>,
    /// From then on, in milliseconds since 1970-01-01T00:00:00Z.
    pub since_ms: Option<u64>,
    /// With a higher number.
    pub after_seq: Option<u64>,
    /// The newest so many of those that there are.
    pub limit: Option<u32>,
    /// And then what happens.
    pub follow: bool,
}

impl Client {
    /// The controller that listens there; not contacted yet.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// What is going on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self, name: Option<&str>) -> Result<Status, ClientError> {
        self.get(&path("/v1/status", &[("name", name)])).await
    }

    /// The incidents of a name or with a number (`shop#3`).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn why(&self, name_or_incident: &str) -> Result<Why, ClientError> {
        let key = if name_or_incident.contains('#') { "incident" } else { "name" };
        self.get(&path("/v1/why", &[(key, Some(name_or_incident))])).await
    }

    /// Why nothing is done about what is not healthy.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn why_not(&self, name: &str) -> Result<WhyNot, ClientError> {
        self.get(&path("/v1/why-not", &[("name", Some(name))])).await
    }

    /// The key that the host of an assembly shows, or that of its jump host.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn host_key(&self, name: &str, jump: bool) -> Result<HostKey, ClientError> {
        self.get(&path("/v1/host-key", &[("name", Some(name)), ("jump", jump.then_some("1"))])).await
    }

    /// Orders something.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn command(&self, command: &Command) -> Result<CommandAnswer, ClientError> {
        let body = serde_json::to_vec(command).map_err(|error| self.broken(&error))?;
        let response = self.send(Method::POST, "/v1/command", body.into()).await?;
        self.json(response).await
    }

    /// Opens a stream of events.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn events(&self, request: &EventsRequest) -> Result<EventStream, ClientError> {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let (since, after, limit) =
            (number(request.since_ms), number(request.after_seq), number(request.limit.map(u64::from)));
        let query = [
            ("name", request.name.as_deref()),
            ("since_ms", since.as_deref()),
            ("after_seq", after.as_deref()),
            ("limit", limit.as_deref()),
            ("follow", request.follow.then_some("1")),
        ];
        let response = self.send(Method::GET, &path("/v1/events", &query), Bytes::new()).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        Ok(EventStream { client: self.clone(), body: response.into_body(), buffer: Vec::new() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        self.json(response).await
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let unreachable = |source| ClientError::Unreachable { socket: self.socket.clone(), source };
        let connected = timeout(CONNECT_TIMEOUT, UnixStream::connect(&self.socket)).await;
        let stream =
            connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unreachable)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // Its errors are those of the request.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "cpe")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(&error))?;
        let answered = timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        answered.map_err(|_| self.answer("no answer within 20 s"))?.map_err(|error| self.broken(&error))
    }

    async fn json<T: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<T, ClientError> {
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|error| self.broken(&error))
    }

    async fn refusal(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        match self.body(response).await {
            Ok(body) => match serde_json::from_slice::<ErrorAnswer>(&body) {
                Ok(answer) => ClientError::Refused(answer.error),
                Err(_) => self.answer(&format!("HTTP status {status}")),
            },
            Err(error) => error,
        }
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = timeout(ANSWER_TIMEOUT, Limited::new(response.into_body(), ANSWER_MAX).collect()).await;
        let body = body.map_err(|_| self.answer("its answer did not end within 20 s"))?;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| self.answer(&error.to_string()))
    }

    fn broken(&self, error: &dyn std::error::Error) -> ClientError {
        self.answer(&error.to_string())
    }

    fn answer(&self, what: &str) -> ClientError {
        ClientError::Answer { socket: self.socket.clone(), what: what.to_owned() }
    }
}

/// Events, one after the other, as the controller sends them.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    body: Incoming,
    buffer: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Event(Box<EventRecord>),
    End(StreamEnd),
}

impl EventStream {
    /// The next event; none: that was the last.
    ///
    /// # Errors
    /// [`ClientError`]: the stream was cut off; the message says after which number to go on.
    pub async fn next(&mut self) -> Result<Option<EventRecord>, ClientError> {
        loop {
            let Some(line) = self.line().await? else { return Ok(None) };
            // An empty line only says that the controller is alive.
            if line.is_empty() {
                continue;
            }
            return match serde_json::from_slice(&line).map_err(|error| self.client.broken(&error))? {
                Line::Event(record) => Ok(Some(*record)),
                Line::End(StreamEnd { error, after_seq }) => {
                    Err(self.client.answer(&format!("{error} (after event {after_seq})")))
                }
            };
        }
    }

    async fn line(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.buffer.len() > LINE_MAX {
                return Err(self.client.answer("a line of events is longer than 1 MiB"));
            }
            let frame = timeout(SILENCE_MAX, self.body.frame()).await;
            match frame.map_err(|_| self.client.answer("it was silent for 60 s"))? {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(self.client.answer("the stream ended in the middle of a line")),
                Some(Err(error)) => return Err(self.client.broken(&error)),
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().unwrap_or_default()),
            }
        }
    }
}

/// A path with a query; what is not plain is percent-encoded (RFC 3986).
fn path(path: &str, query: &[(&str, Option<&str>)]) -> String {
    let mut out = path.to_owned();
    let mut lead = '?';
    for (key, value) in query {
        let Some(value) = value else { continue };
        out.push(lead);
        out.push_str(key);
        out.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
        lead = '&';
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_carries_any_name() {
        assert_eq!(path("/v1/why", &[("incident", Some("shop#3"))]), "/v1/why?incident=shop%233");
        let query = [("name", Some("shop/*/n?")), ("limit", None), ("follow", Some("1"))];
        assert_eq!(path("/v1/events", &query), "/v1/events?name=shop/%2A/n%3F&follow=1");
    }
}
