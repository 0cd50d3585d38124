//! `[notify] webhook`: each notification is one POST of one JSON object. What may pass is tried again with a growing wait; an address may
//! hold a secret, so messages name its host only.

use std::time::Duration;

use cpe_proto::config::Webhook;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// One attempt.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// After that a notification is given up: about nine minutes with the waits.
const ATTEMPTS: u32 = 14;

#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("no trusted certificates on this host: {0}; install ca-certificates")]
    Roots(std::io::Error),
    #[error("{host} does not answer: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("{host} did not answer within 10 s")]
    TimedOut { host: String },
    #[error("{host} answered {status}")]
    Answered { host: String, status: StatusCode },
    #[error("[notify] webhook is no address that can be asked")]
    Address,
}

impl PostError {
    /// Whether the same may work later.
    fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Answered { status, .. } => {
                let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT];
                status.is_server_error() || busy.contains(status)
            }
            Self::Roots(_) | Self::Address => false,
        }
    }
}

/// The way to one address.
#[derive(Clone, Debug)]
pub(super) struct Poster {
    webhook: Webhook,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    first_wait: Duration,
}

impl Poster {
    pub(super) fn new(webhook: Webhook, first_wait: Duration) -> Result<Self, PostError> {
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(PostError::Roots)?
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { webhook, client, first_wait })
    }

    /// Posts until it was taken, refused for good or given up. `id` is the same in each attempt, so that a receiver can tell.
    pub(super) async fn post(&self, id: &str, body: &[u8]) -> Result<(), PostError> {
        let mut wait = self.first_wait;
        let mut attempt = 1;
        loop {
            let Err(error) = self.once(id, body).await else { return Ok(()) };
            if !error.passes() || attempt >= ATTEMPTS {
                return Err(error);
            }
            tracing::warn!(%error, attempt, "a notification is tried again");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
            attempt += 1;
        }
    }

    async fn once(&self, id: &str, body: &[u8]) -> Result<(), PostError> {
        let request = Request::post(self.webhook.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("cpe/", env!("CARGO_PKG_VERSION")))
            .header("Idempotency-Key", id)
            .body(Full::from(body.to_vec()))
            .map_err(|_| PostError::Address)?;
        let host = || self.webhook.host().to_owned();
        let answer = tokio::time::timeout(TIMEOUT, self.client.request(request)).await;
        let answer = answer.map_err(|_| PostError::TimedOut { host: host() })?;
        let answer = answer.map_err(|error| {
            // Its source has the cause; neither names the path.
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            PostError::Unreachable { host: host(), reason: cause.unwrap_or_else(|| error.to_string()) }
        })?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(PostError::Answered { host: host(), status }) }
    }
}
