//! Ports probed from within the guest, through a channel of the session (direct-tcpip): sshd connects, nothing is forked. A direct
//! probe that is made from within the guest (`direct/`) connects by a [`Guest`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use cpe_proto::observation::{Observation, detail};
use russh::client::{Handle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::connect::{Client, Link, Notes};
use super::tunnel::{self, Stop, Tunnel};

/// Ports of one session that are being connected to, or asked something, at one time. One that hangs stays so for as long as the
/// guest's kernel tries.
const OPENING_MAX: usize = 32;

/// What may have come of an answer and not be read, in bytes: more than a direct probe reads of one.
const UNREAD_MAX: usize = 256 * 1024;

/// What goes on with the ports of one session.
#[derive(Clone, Default)]
pub(super) struct Ports {
    opening: Arc<AtomicUsize>,
    refusals: Arc<AtomicUsize>,
}

impl Ports {
    /// Room for one more, if there is.
    pub(super) fn open(&self, host: &Arc<str>, port: u16) -> Option<Port> {
        if self.opening.load(Relaxed) >= OPENING_MAX {
            return None;
        }
        self.opening.fetch_add(1, Relaxed);
        let (opening, refusals) = (Arc::clone(&self.opening), Arc::clone(&self.refusals));
        Some(Port { host: Arc::clone(host), port, opening, refusals })
    }

    /// The way to them for a direct probe, over that session.
    pub(super) fn within(&self, link: &Link) -> Guest {
        Guest { handle: Arc::clone(&link.handle), notes: Arc::clone(&link.notes), ports: self.clone() }
    }

    /// How many were not opened.
    pub(super) fn refusals(&self) -> usize {
        self.refusals.load(Relaxed)
    }
}

/// A port to connect to, from within the guest.
pub(super) struct Port {
    host: Arc<str>,
    port: u16,
    opening: Arc<AtomicUsize>,
    refusals: Arc<AtomicUsize>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.opening.fetch_sub(1, Relaxed);
    }
}

/// Why sshd has not connected to a port.
pub(crate) enum Closed {
    /// The guest's kernel could not connect.
    Unreached(String),
    /// Too much goes on there, or here, at a time.
    NoRoom,
    /// It may not, until somebody allows it.
    Forbidden(&'static str),
    /// There is no session any more.
    Lost,
}

impl Port {
    /// Has sshd connect to it. It takes as long as the guest's kernel tries: whoever asked has been answered by its deadline, but the
    /// channel that opens after it must be closed.
    pub(super) async fn probe(&self, handle: &Handle<Client>) -> Observation {
        match self.open(handle).await {
            Ok(channel) => {
                let _lost = channel.close().await;
                Observation::Connected
            }
            Err(Closed::Unreached(why)) => Observation::NotConnected(detail(&why)),
            Err(Closed::Forbidden(why)) => Observation::NotRunnable(why.into()),
            Err(Closed::NoRoom | Closed::Lost) => Observation::NotObserved,
        }
    }

    async fn open(&self, handle: &Handle<Client>) -> Result<Channel<Msg>, Closed> {
        let opened = handle.channel_open_direct_tcpip(&*self.host, self.port.into(), "127.0.0.1", 0).await;
        let reason = match opened {
            Ok(channel) => return Ok(channel),
            Err(russh::Error::ChannelOpenFailure(reason)) => reason,
            Err(_) => return Err(Closed::Lost),
        };
        self.refusals.fetch_add(1, Relaxed);
        Err(match reason {
            ChannelOpenFailure::ConnectFailed => {
                Closed::Unreached(format!("{} port {}: refused or unreachable", self.host, self.port))
            }
            ChannelOpenFailure::ResourceShortage => Closed::NoRoom,
            _ => Closed::Forbidden(
                "sshd does not allow it: set AllowTcpForwarding local (or PermitOpen) in its sshd_config for this user, and port-forwarding for a key with `restrict`",
            ),
        })
    }
}

/// A guest that connects for a direct probe.
pub(crate) struct Guest {
    handle: Arc<Handle<Client>>,
    notes: Arc<Notes>,
    ports: Ports,
}

impl Guest {
    /// Has its sshd connect. The guest resolves the name.
    ///
    /// # Errors
    /// Why it has not.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> Result<Passage, Closed> {
        let port = self.ports.open(&host.into(), port).ok_or(Closed::NoRoom)?;
        let (reply, opened) = oneshot::channel();
        let handle = Arc::clone(&self.handle);
        // By a task of its own, for it may open when nobody waits any more. A stream that is dropped closes its channel.
        tokio::spawn(async move {
            let outcome = Box::pin(port.open(&handle)).await;
            drop(reply.send(outcome.map(|channel| (channel.into_stream(), port))));
        });
        let (stream, port) = opened.await.unwrap_or(Err(Closed::Lost))?;
        let (stop, tunnel) = tunnel::at_once(stream, UNREAD_MAX);
        Ok(Passage { tunnel, _stop: stop, _port: port })
    }

    /// Whether the session lives: it answers now. What seems to have failed in the guest may have been the session.
    pub(crate) async fn lives(&self) -> bool {
        self.handle.send_ping().await.is_ok() && !self.handle.is_closed() && self.notes.farewell().is_none()
    }
}

/// A connection that a guest has made for us.
pub(crate) struct Passage {
    tunnel: Tunnel,
    _stop: Stop,
    _port: Port,
}

impl AsyncRead for Passage {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_read(context, buffer)
    }
}

impl AsyncWrite for Passage {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tunnel).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_shutdown(context)
    }
}
