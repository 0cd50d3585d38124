//! `[listen] metrics`: one path, `/metrics`, on its own listener, so that a scraper never shares a limit with an operator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::{Metrics, text};
use crate::api::{Limits, accept};
use crate::vital::Vital;

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for metrics: {source}; choose another [listen] metrics, or end what uses it"
)]
pub struct ServeError {
    /// The address of the configuration.
    pub address: SocketAddr,
    /// Why.
    pub source: std::io::Error,
}

/// Scrapers at a time, and how long one may take.
const LIMITS: Limits = Limits { connections: 16, header_timeout: Duration::from_secs(10) };

/// Serves for as long as the process lives; the answer is the address that was bound.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    vital: &Vital,
) -> Result<SocketAddr, ServeError> {
    let failed = |source| ServeError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let router = Router::new().route("/metrics", get(expose)).with_state(metrics);
    tracing::info!("metrics are served at http://{bound}/metrics");
    vital.spawn("listener for metrics", accept(listener, router, LIMITS));
    Ok(bound)
}

async fn expose(State(metrics): State<Arc<Metrics>>) -> Response {
    let text = tokio::task::spawn_blocking(move || metrics.exposition()).await;
    match text {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, text::MEDIA_TYPE)], text).into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
