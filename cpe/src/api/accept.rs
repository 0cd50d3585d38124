//! The loop that takes connections, with the limits that keep one client from taking all: how many, and how long a request's head may
//! take. Shared by the API and the metrics listener.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

/// The largest head of a request, in bytes.
const HEAD_MAX: usize = 64 << 10;

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
        let service = TowerToHyperService::new(router.clone().layer(Extension(address)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(HEAD_MAX)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            let _permit = permit;
            // A client that leaves in the middle is its own affair.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}
