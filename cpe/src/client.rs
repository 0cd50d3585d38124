//! The other end of the API: what the command line uses to ask a running cpe. One connection for each question, over the unix socket, or
//! over TCP with a token.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use cpe_proto::api::{Command, CommandAnswer, ErrorAnswer, HostKey, Status, StreamEnd, Why, WhyNot};
use cpe_proto::document::HostPort;
use cpe_proto::event::EventRecord;
use cpe_proto::fence::Secret;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
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
        "cannot reach cpe on {place}: {source}; is it running (systemctl status cpe), is that the place of its cpe.toml \
         ([listen] api), and may you use it (the socket's group)?"
    )]
    Unreachable {
        /// The place that was tried.
        place: Place,
        /// Why.
        source: io::Error,
    },
    /// It stopped answering, or does not speak as we do.
    #[error(
        "cpe on {place} did not answer as expected: {what}; it may be another version: compare `cpe --version` with `systemctl status cpe`"
    )]
    Answer {
        /// The place.
        place: Place,
        /// What was wrong.
        what: String,
    },
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

/// Where a controller is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A unix socket.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(HostPort),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(socket) => write!(out, "{}", socket.display()),
            Self::Tcp(HostPort { host, port }) if host.as_str().contains(':') => {
                write!(out, "[{}]:{port}", host.as_str())
            }
            Self::Tcp(HostPort { host, port }) => write!(out, "{}:{port}", host.as_str()),
        }
    }
}

impl FromStr for Place {
    type Err = &'static str;

    /// Parses `unix:/path` or `HOST:PORT`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(socket) if !socket.is_empty() => Ok(Self::Unix(socket.into())),
            Some(_) => Err("unix: and a path, as unix:/run/cpe/api.sock"),
            None => HostPort::parse(text).map(Self::Tcp),
        }
    }
}

/// A controller at a place.
#[derive(Clone, Debug)]
pub struct Client {
    place: Place,
    /// Proves who asks, over TCP.
    token: Option<Secret>,
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
    pub fn new(place: Place, token: Option<Secret>) -> Self {
        Self { place, token }
    }

    /// Where it is asked.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
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
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(&error))?;
        let mut sender = match &self.place {
            Place::Unix(socket) => {
                let stream = self.reached(UnixStream::connect(socket)).await?;
                request.headers_mut().insert(header::HOST, HeaderValue::from_static("cpe"));
                self.handshake(stream).await?
            }
            Place::Tcp(HostPort { host, port }) => {
                let stream = self.reached(TcpStream::connect((host.as_str(), *port))).await?;
                // By address: the controller answers to no name.
                let peer = stream.peer_addr().map_err(|error| self.broken(&error))?;
                let host = SocketAddr::new(peer.ip(), peer.port()).to_string();
                let host = HeaderValue::try_from(host).map_err(|error| self.broken(&error))?;
                request.headers_mut().insert(header::HOST, host);
                self.prove(request.headers_mut())?;
                self.handshake(stream).await?
            }
        };
        let answered = timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        answered.map_err(|_| self.answer("no answer within 20 s"))?.map_err(|error| self.broken(&error))
    }

    async fn reached<S>(&self, connect: impl Future<Output = io::Result<S>>) -> Result<S, ClientError> {
        let connected = timeout(CONNECT_TIMEOUT, connect).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        connected.map_err(|source| ClientError::Unreachable { place: self.place.clone(), source })
    }

    async fn handshake<S>(&self, stream: S) -> Result<http1::SendRequest<Full<Bytes>>, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // Its errors are those of the request.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn prove(&self, headers: &mut HeaderMap) -> Result<(), ClientError> {
        let Some(token) = &self.token else { return Ok(()) };
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .map_err(|_| ClientError::Refused("the token has characters that no token has".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
        Ok(())
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
        ClientError::Answer { place: self.place.clone(), what: what.to_owned() }
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
