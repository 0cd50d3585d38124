//! `[notify] webhook`: each notification is one POST of one JSON object. What may pass is tried again with a growing wait; an address may
//! hold a secret, so messages name its host only.

use std::path::PathBuf;
use std::time::Duration;

use cpe_proto::config::Webhook;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::Retry;
use super::tls::{self, TlsError};

/// One attempt.
const TIMEOUT: Duration = Duration::from_secs(10);
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("it cannot be asked: {0}")]
    Unmade(#[from] tokio::task::JoinError),
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
            Self::Tls(_) | Self::Unmade(_) | Self::Address => false,
        }
    }
}

type Https = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The way to one address.
#[derive(Clone, Debug)]
pub(super) struct Poster {
    webhook: Webhook,
    ca: Option<PathBuf>,
    retry: Retry,
    /// Made when it is needed.
    client: Option<Https>,
}

impl Poster {
    pub(super) fn new(webhook: Webhook, ca: Option<PathBuf>, retry: Retry) -> Self {
        Self { webhook, ca, retry, client: None }
    }

    /// Posts until it was taken, refused for good or given up. `id` is the same in each attempt, so that a receiver can tell.
    pub(super) async fn post(&mut self, id: &str, body: &[u8]) -> Result<(), PostError> {
        let mut attempts = self.retry.attempts();
        loop {
            let Err(error) = self.once(id, body).await else { return Ok(()) };
            let Some(wait) = attempts.next().filter(|_| error.passes()) else { return Err(error) };
            tracing::warn!(%error, "a notification is tried again");
            tokio::time::sleep(wait).await;
        }
    }

    async fn client(&mut self) -> Result<Https, PostError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let ca = self.ca.clone();
        let config = tokio::task::spawn_blocking(move || tls::client(ca.as_deref())).await??;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        Ok(self.client.insert(Client::builder(TokioExecutor::new()).build(connector)).clone())
    }

    async fn once(&mut self, id: &str, body: &[u8]) -> Result<(), PostError> {
        let client = self.client().await?;
        let request = Request::post(self.webhook.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("cpe/", env!("CARGO_PKG_VERSION")))
            .header("Idempotency-Key", id)
            .body(Full::from(body.to_vec()))
            .map_err(|_| PostError::Address)?;
        let host = || self.webhook.host().to_owned();
        let answer = tokio::time::timeout(TIMEOUT, client.request(request)).await;
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
