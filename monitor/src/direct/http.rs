//! HTTP: one request over a kept connection or a new one, redirects, and what is expected of the answer. A kept connection that turns
//! out to be closed is no answer: the request is sent once more over a new one, which GET and HEAD allow.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use cpe_proto::definition::{Http, Method};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;

use super::ask::Target;
use super::connect::Context;
use super::redirect::Location;
use super::trouble::{Answer, Outcome, Stage, Trouble};
use super::{secret, tls};

/// The most of an answer's header, in bytes.
const HEADER_MAX: usize = 64 * 1024;

/// A connection that is open between two probes of one target.
pub(super) struct Kept {
    connection: Connection,
    since: Instant,
    permit: OwnedSemaphorePermit,
}

type Connection = SendRequest<Empty<Bytes>>;

/// An answer, as far as it was read.
struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Asks, follows redirects as far as wanted, and judges the last answer.
pub(super) async fn probe(context: &Context<'_>, target: &Target, http: &Http) -> Outcome {
    let headers = secret::headers(&http.headers).await?;
    let first = Location {
        secure: http.url.secure,
        host: target.host.to_string(),
        port: http.url.port,
        path: http.url.path.to_string(),
    };
    let mut at = first.clone();
    for hop in 0..=http.redirects {
        let answered = ask(context, target, http, &first, &at, &headers).await?;
        let Some(next) = redirected(&answered, &at).filter(|_| http.redirects > 0) else {
            return judge(http, &at, &answered);
        };
        if hop == http.redirects {
            break;
        }
        at = next;
    }
    Err(Trouble::Unexpected(format!("redirected more often than {} times", http.redirects)))
}

fn redirected(answered: &Answered, at: &Location) -> Option<Location> {
    if !matches!(answered.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    at.follow(answered.headers.get(header::LOCATION)?.to_str().ok()?)
}

/// One request. What is meant for the first server is not told to another.
async fn ask(
    context: &Context<'_>,
    target: &Target,
    http: &Http,
    first: &Location,
    at: &Location,
    headers: &HeaderMap,
) -> Result<Answered, Trouble> {
    let own = at.same_origin(first);
    let name = http.host.as_ref().map(|host| host.as_str()).filter(|_| own);
    let request = request(http.method, at, name, headers.clone(), own)?;
    // One that is kept would be of a session that may end meanwhile.
    if !own || context.guest.is_some() {
        let connection = open(context, http, at, name).await?;
        return Ok(exchange(context, connection, request).await.map_err(Lost::told)?.0);
    }
    if let Some(Kept { connection, since, permit }) = take_kept(target).await {
        match exchange(context, connection, request.clone()).await {
            Ok((answered, connection)) => {
                context.shared.reused.fetch_add(1, Relaxed);
                keep(target, connection, since, Some(permit));
                return Ok(answered);
            }
            // Whatever was answered was answered by this request's server.
            Err(Lost { answered: true, trouble }) => return Err(trouble),
            Err(Lost { answered: false, .. }) => {}
        }
    }
    let connection = open(context, http, at, name).await?;
    let (answered, connection) = exchange(context, connection, request).await.map_err(Lost::told)?;
    let permit = Arc::clone(&context.shared.kept).try_acquire_owned().ok();
    keep(target, connection, Instant::now(), permit);
    Ok(answered)
}

fn request(
    method: Method,
    at: &Location,
    name: Option<&str>,
    headers: HeaderMap,
    own: bool,
) -> Result<Request<Empty<Bytes>>, Trouble> {
    let method = match method {
        Method::Get => hyper::Method::GET,
        Method::Head => hyper::Method::HEAD,
    };
    let unfit = || Trouble::Unfit(format!("{} cannot be asked for", shown(at)));
    let mut request = Request::builder().method(method).uri(at.path.as_str());
    if let Some(all) = request.headers_mut() {
        if own {
            *all = headers;
        }
        let host = HeaderValue::from_str(&at.authority(name)).map_err(|_| unfit())?;
        all.insert(header::HOST, host);
        let agent = HeaderValue::from_static(concat!("cpe/", env!("CARGO_PKG_VERSION")));
        all.entry(header::USER_AGENT).or_insert(agent);
        all.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    }
    request.body(Empty::new()).map_err(|_| unfit())
}

async fn open(
    context: &Context<'_>,
    http: &Http,
    at: &Location,
    name: Option<&str>,
) -> Result<Connection, Trouble> {
    let stream = context.connect(&at.host, at.port).await?;
    if !at.secure {
        return speak(stream).await;
    }
    let name = name.unwrap_or(&at.host);
    speak(tls::greet(context, stream, name, http.ca.as_deref()).await?).await
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Connection, Trouble> {
    let mut builder = Builder::new();
    builder.max_buf_size(HEADER_MAX);
    let spoken = builder.handshake(TokioIo::new(stream)).await;
    let (connection, driver) = spoken.map_err(|error| Trouble::Refused(format!("http: {error}")))?;
    // It ends when the connection is dropped, or when the server ends it.
    tokio::spawn(driver);
    Ok(connection)
}

/// A request without a whole answer.
struct Lost {
    /// Some of the answer had come.
    answered: bool,
    trouble: Trouble,
}

impl Lost {
    fn told(self) -> Trouble {
        self.trouble
    }
}

/// Sends a request and reads its answer. The connection comes back where it can be used again.
async fn exchange(
    context: &Context<'_>,
    mut connection: Connection,
    request: Request<Empty<Bytes>>,
) -> Result<(Answered, Option<Connection>), Lost> {
    context.progress.reach(Stage::Asked);
    let sent = connection.send_request(request).await;
    let response = sent.map_err(|error| Lost { answered: error.is_parse(), trouble: failed(&error) })?;
    context.progress.reach(Stage::Reading);
    let (answered, whole) = read(response, context.shared.settings.body_max)
        .await
        .map_err(|error| Lost { answered: true, trouble: failed(&error) })?;
    Ok((answered, whole.then_some(connection)))
}

/// An answer's first part, and whether that is all of it.
async fn read(response: Response<Incoming>, most: usize) -> hyper::Result<(Answered, bool)> {
    let (parts, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    let mut whole = true;
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = most - body.len();
        body.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            whole = false;
            break;
        }
    }
    Ok((Answered { status: parts.status, headers: parts.headers, body }, whole))
}

fn failed(error: &hyper::Error) -> Trouble {
    let cause = std::error::Error::source(error).and_then(|inner| inner.downcast_ref::<std::io::Error>());
    match cause {
        Some(cause) => Trouble::of("http", cause),
        None if error.is_parse() => Trouble::Unexpected(format!("the answer is not HTTP: {error}")),
        None => Trouble::Refused("the server ended the connection without a whole answer".to_owned()),
    }
}

/// The connection of the probe before, if it may be used again.
async fn take_kept(target: &Target) -> Option<Kept> {
    let kept = target.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut kept = kept.filter(|kept| kept.since.elapsed() < target.shared.settings.kept_for)?;
    kept.connection.ready().await.ok()?;
    Some(kept)
}

fn keep(
    target: &Target,
    connection: Option<Connection>,
    since: Instant,
    permit: Option<OwnedSemaphorePermit>,
) {
    let kept = connection.filter(|it| !it.is_closed()).zip(permit);
    let kept = kept.map(|(connection, permit)| Kept { connection, since, permit });
    *target.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
}

/// An address as messages have it: without the query, which may hold a secret.
fn shown(at: &Location) -> &str {
    at.path.split('?').next().unwrap_or("/")
}

fn judge(http: &Http, at: &Location, answered: &Answered) -> Outcome {
    let (path, status) = (shown(at), answered.status.as_u16());
    let unexpected = |why: String| Err(Trouble::Unexpected(format!("{path}: {why}")));
    if !http.status.contains(status) {
        return unexpected(format!("status {status}, expected {}", http.status));
    }
    for (name, text) in http.answer_headers.iter() {
        let mut values = answered.headers.get_all(&**name).iter();
        if !values.any(|value| String::from_utf8_lossy(value.as_bytes()).contains(&**text)) {
            return unexpected(format!("no header {name} with {text:?}"));
        }
    }
    if http.contains.is_none() && http.matches.is_none() {
        return Ok(Answer::Program(format!("status {status}")));
    }
    let body = String::from_utf8_lossy(&answered.body);
    if let Some(text) = http.contains.as_ref().filter(|text| !body.contains(&***text)) {
        return unexpected(format!("status {status}, and {text:?} is not in the body"));
    }
    if let Some(pattern) = http.matches.as_ref().filter(|pattern| !pattern.matches(&body)) {
        return unexpected(format!("status {status}, and {:?} does not match the body", pattern.as_str()));
    }
    Ok(Answer::Program(format!("status {status}")))
}
