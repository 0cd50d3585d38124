//! The HTTP API on a unix socket and over TCP: what is asked (`routes.rs`), how events are streamed (`stream.rs`), who may connect and how
//! many (`accept.rs`, `socket.rs`, `token.rs`). What answers is behind [`Controller`]; the types of what is said are in `cpe_proto::api`.

mod accept;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod patience;
mod peer;
mod routes;
mod socket;
mod stream;
mod token;
mod why_not;

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use cpe_proto::api::{Command, CommandAnswer, HostKey, Status};
use tokio::net::TcpListener;

pub(crate) use accept::{Limits, accept};
pub use socket::ServeError;
pub use token::{TokenError, Tokens};

use crate::glob::Glob;
use crate::journal::Journal;
use crate::vital::Vital;

/// Operators and their programs at a time; `--follow` holds one for as long as it lasts.
const LIMITS: Limits = Limits { connections: 128, header_timeout: Duration::from_secs(10) };

/// What answers the API. Implemented by the fleet.
pub trait Controller: Send + Sync + 'static {
    /// What is going on. May hold more than what is wanted: the API removes the rest.
    fn status(&self, wanted: &Glob) -> impl Future<Output = Status> + Send;

    /// Does what an operator orders; `by` says who that is: "uid 0 (root)".
    fn command(
        &self,
        command: Command,
        by: String,
    ) -> impl Future<Output = Result<CommandAnswer, Refused>> + Send;

    /// The key that the host of an assembly shows now, or that of its jump host.
    fn host_key(&self, name: &str, jump: bool) -> impl Future<Output = Result<HostKey, Refused>> + Send;

    /// How many deployables, assemblies and services are managed.
    fn size(&self) -> (usize, usize, usize);
}

/// Why an order was not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The HTTP status: 4xx for what is asked, 5xx for what we cannot do now.
    pub status: StatusCode,
    /// What was asked, what is wrong, what to do.
    pub message: String,
}

impl Refused {
    /// The order makes no sense.
    #[must_use]
    pub fn bad(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// There is nothing of that name.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.into() }
    }

    /// It cannot be done as things are.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, message: message.into() }
    }

    /// It cannot be done now; the same order may work later.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: message.into() }
    }
}

/// Binds the socket (mode 0660) and serves for as long as the process lives.
///
/// # Errors
/// [`ServeError`]: the socket is in use by a living cpe, or cannot be made.
pub async fn serve<C: Controller>(
    socket: &Path,
    controller: Arc<C>,
    journal: Journal,
    vital: &Vital,
) -> Result<(), ServeError> {
    let listener = socket::bind(socket).await?;
    tracing::info!(socket = %socket.display(), "API listens");
    vital.spawn("API", accept(listener, routes::router(controller, journal), LIMITS));
    Ok(())
}

/// Serves the same over TCP, to who has a token; the answer is the address that was bound.
///
/// # Errors
/// [`ServeError`]: the address cannot be bound.
pub async fn serve_tcp<C: Controller>(
    address: SocketAddr,
    tokens: Arc<Tokens>,
    controller: Arc<C>,
    journal: Journal,
    vital: &Vital,
) -> Result<SocketAddr, ServeError> {
    let failed = |source| ServeError::Address { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tracing::info!(address = %bound, "API listens");
    let router = token::guarded(routes::router(controller, journal), tokens);
    vital.spawn("API over TCP", accept(token::RemoteListener(listener), router, LIMITS));
    Ok(bound)
}

#[cfg(test)]
mod remote_tests;
#[cfg(test)]
mod tests;
