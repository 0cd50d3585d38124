//! A door for the fuzz target of the API's framing, with the feature `fuzzing` only: one connection with the limits of the real listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Extension;
use tokio::io::{AsyncRead, AsyncWrite};

use super::peer::Accounts;
use super::{Controller, LIMITS, Tokens, accept, routes, token};
use crate::journal::Journal;

/// What is served to one client.
pub struct Api(Router);

impl Api {
    /// As on the unix socket.
    pub fn local<C: Controller>(controller: Arc<C>, journal: Journal) -> Self {
        let peer = Accounts::default().peer(Some(0));
        Self(routes::router(controller, journal).layer(Extension(peer)))
    }

    /// As over TCP, to somebody at that address.
    pub fn remote<C: Controller>(
        controller: Arc<C>,
        journal: Journal,
        tokens: Arc<Tokens>,
        from: SocketAddr,
    ) -> Self {
        let router = token::guarded(routes::router(controller, journal), tokens);
        Self(router.layer(Extension(token::Remote(from))))
    }

    /// Serves one connection to its end.
    pub async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&self, stream: S) {
        // A client that leaves in the middle is its own affair.
        let _ = accept::converse(stream, self.0.clone(), LIMITS).await;
    }
}
