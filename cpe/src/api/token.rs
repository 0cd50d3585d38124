//! The API over TCP: who asks has a token, and no browser asks for somebody else. What is served behind it is what the socket serves;
//! `socket.rs` has its counterpart.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use cpe_proto::config::Listen;
use cpe_proto::secret::SecretSource;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::net::{TcpListener, TcpStream};

use super::Refused;
use super::peer::Peer;
use crate::clock;
use cpe_monitor::secret::{self, SecretError};

/// What is shorter could be guessed, in bytes; `openssl rand -hex 16` has 32.
const LENGTH_MIN: usize = 20;
/// Between two lines of the log about who had no token.
const SAY_EVERY_MS: u64 = 10_000;
/// After a failed accept (too many open files), before the next.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// What a token permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// To look and to order.
    Operator,
    /// To look.
    Reader,
}

impl Role {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "token",
            Self::Reader => "read_token",
        }
    }
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("[listen] {0}: {1}")]
    Unread(&'static str, SecretError),
    /// It is none.
    #[error(
        "[listen] {0} has fewer than {LENGTH_MIN} bytes, or others than letters, digits and -._~+/=: make one with `openssl rand -hex 32`"
    )]
    Weak(&'static str),
    /// No key could be made to compare them with.
    #[error("this machine has no random numbers")]
    Random,
}

/// The tokens, as what they are compared with: they themselves are not kept.
pub struct Tokens {
    key: hmac::Key,
    known: Vec<(Role, hmac::Tag)>,
    said_at: AtomicU64,
}

impl Tokens {
    /// Reads the tokens of `[listen]`. Blocks.
    ///
    /// # Errors
    /// [`TokenError`]: which cannot be used, and why.
    pub fn read(listen: &Listen) -> Result<Self, TokenError> {
        let key =
            hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| TokenError::Random)?;
        let mut tokens = Self { key, known: Vec::new(), said_at: AtomicU64::new(0) };
        for (role, source) in [(Role::Operator, &listen.token), (Role::Reader, &listen.read_token)] {
            if let Some(source) = source {
                tokens.add(role, source)?;
            }
        }
        Ok(tokens)
    }

    fn add(&mut self, role: Role, source: &SecretSource) -> Result<(), TokenError> {
        let token = secret::read(source).map_err(|error| TokenError::Unread(role.as_str(), error))?;
        let token = token.expose().as_bytes();
        // What RFC 6750 section 2.1 takes after "Bearer".
        let plain = token.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte));
        if token.len() < LENGTH_MIN || !plain {
            return Err(TokenError::Weak(role.as_str()));
        }
        self.known.push((role, hmac::sign(&self.key, token)));
        Ok(())
    }

    /// What a token permits. Takes as long for a wrong one as for a right one.
    fn role(&self, token: &[u8]) -> Option<Role> {
        let mut found = None;
        for (role, tag) in &self.known {
            if hmac::verify(&self.key, token, tag.as_ref()).is_ok() {
                found = found.or(Some(*role));
            }
        }
        found
    }

    fn say(&self, address: SocketAddr, what: &str) {
        let now = clock::wall_ms();
        let before = self.said_at.load(Ordering::Relaxed);
        if now.abs_diff(before) >= SAY_EVERY_MS {
            self.said_at.store(now, Ordering::Relaxed);
            tracing::warn!(%address, "the API refused somebody: {what}");
        }
    }
}

/// The address of the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote(pub(super) SocketAddr);

/// Puts the check before everything that is served.
pub(super) fn guarded(router: Router, tokens: Arc<Tokens>) -> Router {
    router.layer(middleware::from_fn_with_state(tokens, check))
}

async fn check(
    State(tokens): State<Arc<Tokens>>,
    Extension(Remote(address)): Extension<Remote>,
    mut request: Request,
    next: Next,
) -> Response {
    match admitted(&tokens, request.method(), request.headers()) {
        Ok(role) => {
            request.extensions_mut().insert(Peer::Token { role, address });
            next.run(request).await
        }
        Err(refused) => {
            tokens.say(address, &refused.message);
            let challenge = refused.status == StatusCode::UNAUTHORIZED;
            let mut response = refused.into_response();
            if challenge {
                let bearer = HeaderValue::from_static("Bearer realm=\"cpe\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
            }
            response
        }
    }
}

fn admitted(tokens: &Tokens, method: &Method, headers: &HeaderMap) -> Result<Role, Refused> {
    let forbidden = |message: &str| Refused { status: StatusCode::FORBIDDEN, message: message.to_owned() };
    // A page that somebody's browser has open must reach nothing, whatever name it made up for this address.
    if headers.contains_key(header::ORIGIN) {
        return Err(forbidden("a request with `Origin` comes from a web page, and those are not answered"));
    }
    if !headers.get(header::HOST).is_some_and(is_address) {
        return Err(forbidden(
            "`Host` is not this machine's address: ask by IP address or as localhost; a proxy has to set it so",
        ));
    }
    let given = headers.get(header::AUTHORIZATION).and_then(bearer);
    let role = given.and_then(|token| tokens.role(token)).ok_or_else(|| Refused {
        status: StatusCode::UNAUTHORIZED,
        message: "no token, or one that is not known: give the one of [listen] token in that cpe.toml, with --token-file FILE or \
                  CPE_TOKEN_FILE, or as `Authorization: Bearer ...`"
            .to_owned(),
    })?;
    if role == Role::Reader && method != Method::GET {
        return Err(forbidden(
            "that is the read_token: it may look and not order; orders need [listen] token",
        ));
    }
    Ok(role)
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// `localhost` or an IP address, with or without a port: what DNS cannot make mean this machine.
fn is_address(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    };
    let bare = bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']')).unwrap_or(bare);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// Accepts connections and says where they come from.
#[derive(Debug)]
pub(super) struct RemoteListener(pub(super) TcpListener);

impl Listener for RemoteListener {
    type Io = TcpStream;
    type Addr = Remote;

    async fn accept(&mut self) -> (TcpStream, Remote) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => return (stream, Remote(address)),
                Err(error) => {
                    tracing::error!(%error, "no connection can be accepted for the API; tried again");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Remote> {
        self.0.local_addr().map(Remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_dns_could_point_here_is_no_address() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:7070",
            "[::1]:7070",
            "[::1]",
            "localhost:7070",
            "LocalHost",
            "192.0.2.1:80",
        ] {
            assert!(is_address(&HeaderValue::from_str(host).unwrap()), "{host}");
        }
        for host in [
            "",
            "evil.example.org",
            "evil.example.org:7070",
            "127.0.0.1.evil.example.org",
            "localhost.evil.example.org",
        ] {
            assert!(!is_address(&HeaderValue::from_str(host).unwrap()), "{host}");
        }
    }
}
