//! The loop that takes connections, with the limits that keep one client from taking all: how many, how long a request's head may take,
//! and how long an answer may wait to be read (`patience.rs`). Shared by the API and the metrics listener.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::patience::Patient;

/// The largest head of a request, in bytes.
const HEAD_MAX: usize = 64 << 10;

/// A client that reads nothing of its answer for so long has left, whatever its kernel says.
const READER_STALL: Duration = Duration::from_secs(45);

/// Limits of one listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// At a time; more wait in the kernel's queue.
    pub(crate) connections: usize,
    /// For the head of each request; a connection that is idle for longer is closed.
    pub(crate) header_timeout: Duration,
}

/// Takes connections until the runtime ends. Handlers find the listener's address of the peer as an [`Extension`].
pub(crate) async fn accept<L>(mut listener: L, router: Router, limits: Limits)
where
    L: Listener,
    L::Addr: Clone + Sync + 'static,
{
    let room = Arc::new(Semaphore::new(limits.connections));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (stream, address) = listener.accept().await;
        let connection = converse(stream, router.clone().layer(Extension(address)), limits);
        tokio::spawn(async move {
            let _permit = permit;
            // A client that leaves in the middle is its own affair.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

/// One connection, until either end closes it or a limit does.
pub(crate) async fn converse<S>(stream: S, router: Router, limits: Limits) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream, READER_STALL)), TowerToHyperService::new(router))
        .await
}
