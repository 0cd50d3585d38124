//! The paths of the API. Each handler parses what was asked into types, asks the controller or the journal, and answers in JSON;
//! errors are an `ErrorAnswer` with what to do.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Extension, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cpe_proto::api::{Command, CommandAnswer, ErrorAnswer, Health, HostKey, Status, Why, WhyNot};
use serde::Deserialize;

use super::peer::Peer;
use super::stream::{self, Wanted};
use super::{Controller, Refused, why_not};
use crate::clock;
use crate::glob::Glob;
use crate::journal::{Journal, JournalError, WhyQuery};

/// A command is far below this, in bytes.
const BODY_MAX: usize = 16 << 10;
/// Until the answer begins; a stream may go on for longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest maintenance, in seconds: a year.
const MAINTENANCE_MAX: u64 = 366 * 24 * 3600;
/// The longest reason of an order, in bytes.
const REASON_MAX: usize = 500;

/// What the handlers share.
struct Context<C> {
    controller: Arc<C>,
    journal: Journal,
    started: u64,
}

impl<C> Clone for Context<C> {
    fn clone(&self) -> Self {
        Self {
            controller: Arc::clone(&self.controller),
            journal: self.journal.clone(),
            started: self.started,
        }
    }
}

/// All paths.
pub(super) fn router<C: Controller>(controller: Arc<C>, journal: Journal) -> Router {
    Router::new()
        .route("/v1/status", get(status::<C>))
        .route("/v1/events", get(events::<C>))
        .route("/v1/why", get(why::<C>))
        .route("/v1/why-not", get(why_not::<C>))
        .route("/v1/host-key", get(host_key::<C>))
        .route("/v1/command", post(command::<C>))
        .route("/v1/health", get(health::<C>))
        .fallback(unknown)
        .with_state(Context { controller, journal, started: clock::wall_ms() })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(limited))
}

async fn limited(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refused::unavailable("no answer within 10 s: cpe is busy; try again").into_response(),
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorAnswer { error: self.message })).into_response()
    }
}

impl From<JournalError> for Refused {
    fn from(error: JournalError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<QueryRejection> for Refused {
    fn from(error: QueryRejection) -> Self {
        Self::bad(error.body_text())
    }
}

async fn unknown(request: Request) -> Refused {
    let (method, path) = (request.method(), request.uri().path());
    Refused::not_found(format!(
        "there is no {method} {path}; there are GET /v1/status, /v1/events, /v1/why, /v1/why-not, /v1/host-key, /v1/health and POST /v1/command"
    ))
}

/// A name or a glob in a query; without one: everything.
fn glob(name: Option<&str>) -> Result<Option<Glob>, Refused> {
    name.map(str::parse).transpose().map_err(|error: crate::glob::GlobError| Refused::bad(error.to_string()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    name: Option<String>,
}

async fn status<C: Controller>(
    State(context): State<Context<C>>,
    query: Result<Query<StatusQuery>, QueryRejection>,
) -> Result<Json<Status>, Refused> {
    let Query(query) = query?;
    let wanted = glob(query.name.as_deref())?.unwrap_or_else(Glob::everything);
    let mut status = context.controller.status(&wanted).await;
    wanted.prune(&mut status);
    if status.deployables.is_empty()
        && let Some(name) = query.name
    {
        return Err(Refused::not_found(format!(
            "nothing here is called {name}; `cpe status` lists what there is"
        )));
    }
    Ok(Json(status))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    name: Option<String>,
    #[serde(default)]
    since_ms: u64,
    #[serde(default)]
    after_seq: u64,
    #[serde(default)]
    follow: u8,
    limit: Option<u32>,
}

async fn events<C: Controller>(
    State(context): State<Context<C>>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(query) = query?;
    let name = glob(query.name.as_deref())?;
    let after_seq = match query.limit {
        Some(limit) => query.after_seq.max(context.journal.tail(name.clone(), limit).await?),
        None => query.after_seq,
    };
    let (name, only) = match name {
        Some(wanted) if wanted.domain().is_some() => {
            let mut status = context.controller.status(&wanted).await;
            wanted.prune(&mut status);
            let places = status.deployables.into_iter().flat_map(|it| {
                let of = it.name;
                it.assemblies.into_iter().map(move |assembly| (of.clone(), assembly.name))
            });
            (None, Some(places.collect()))
        }
        name => (name, None),
    };
    let wanted = Wanted { name, only, since: query.since_ms, after_seq, follow: query.follow != 0 };
    let body = stream::events(context.journal, wanted);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhyArguments {
    name: Option<String>,
    incident: Option<String>,
}

async fn why<C: Controller>(
    State(context): State<Context<C>>,
    query: Result<Query<WhyArguments>, QueryRejection>,
) -> Result<Json<Why>, Refused> {
    let Query(query) = query?;
    let wanted = match (query.name.as_deref(), query.incident.as_deref()) {
        (Some(name), None) => match glob(Some(name))?.unwrap_or_else(Glob::everything) {
            wanted if wanted.domain().is_some() => {
                return Err(Refused::bad(
                    "incidents are asked for by name: `cpe events domain:NAME` lists them",
                ));
            }
            wanted => WhyQuery::Name(wanted),
        },
        (None, Some(incident)) => match WhyQuery::parse(incident).map_err(Refused::bad)? {
            WhyQuery::Name(_) => {
                return Err(Refused::bad(format!("{incident:?} is no incident: deployable#N")));
            }
            incident => incident,
        },
        _ => return Err(Refused::bad("give either name=NAME or incident=deployable#N")),
    };
    Ok(Json(Why { incidents: context.journal.why(wanted).await? }))
}

async fn why_not<C: Controller>(
    State(context): State<Context<C>>,
    query: Result<Query<StatusQuery>, QueryRejection>,
) -> Result<Json<WhyNot>, Refused> {
    let wanted = query.as_ref().ok().and_then(|query| query.name.clone());
    let wanted = glob(wanted.as_deref())?.unwrap_or_else(Glob::everything);
    let Json(status) = status(State(context.clone()), query).await?;
    let (latest, maintenance) = context.journal.latest(wanted).await?;
    let health = context.journal.health();
    let journal = (!health.writable).then(|| health.reason.to_string());
    Ok(Json(why_not::why_not(&status, &why_not::Known { latest, maintenance, journal })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostKeyQuery {
    name: String,
    #[serde(default)]
    jump: u8,
}

async fn host_key<C: Controller>(
    State(context): State<Context<C>>,
    query: Result<Query<HostKeyQuery>, QueryRejection>,
) -> Result<Json<HostKey>, Refused> {
    let Query(query) = query?;
    context.controller.host_key(&query.name, query.jump != 0).await.map(Json)
}

async fn command<C: Controller>(
    State(context): State<Context<C>>,
    Extension(peer): Extension<Peer>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<CommandAnswer>, Refused> {
    let body = body.map_err(|error| Refused { status: error.status(), message: error.body_text() })?;
    let command: Command = serde_json::from_slice(&body)
        .map_err(|error| Refused::bad(format!("the body is no command: {error}")))?;
    check(&command)?;
    let by = peer.to_string();
    let answer = context.controller.command(command.clone(), by.clone()).await;
    let said = match &answer {
        Ok(answer) => answer.message.clone(),
        Err(refused) => format!("refused: {refused}"),
    };
    tracing::info!(by, ?command, answer = said, "command");
    context.journal.command(&by, &command, &said);
    answer.map(Json)
}

fn check(command: &Command) -> Result<(), Refused> {
    let (what, reason) = match command {
        Command::MaintenanceOn { for_seconds, .. } if *for_seconds == 0 || *for_seconds > MAINTENANCE_MAX => {
            return Err(Refused::bad("a maintenance lasts from one second to 366 days"));
        }
        Command::MaintenanceOn { reason, .. } => ("maintenance", reason),
        Command::Pause { reason, .. } => ("pause", reason),
        Command::ConfirmFenced { reason, .. } => ("confirmation", reason),
        Command::Claim { reason, .. } => ("claim", reason),
        Command::Resume { reason, .. } if !reason.is_empty() => ("resume", reason),
        Command::Recover { reason, .. } if !reason.is_empty() => ("recovery", reason),
        _ => return Ok(()),
    };
    if reason.trim().is_empty() || reason.len() > REASON_MAX || reason.chars().any(char::is_control) {
        return Err(Refused::bad(format!("a {what} has a reason: one line of at most 500 bytes")));
    }
    Ok(())
}

async fn health<C: Controller>(State(context): State<Context<C>>) -> Response {
    let (deployables, assemblies, _) = context.controller.size();
    let health = Health {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: context.started,
        deployables: u64::try_from(deployables).unwrap_or(u64::MAX),
        assemblies: u64::try_from(assemblies).unwrap_or(u64::MAX),
        journal: context.journal.health(),
    };
    let status = if health.journal.writable { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}
