//! The port of an imitated machine as the network sees it: it listens, is silent, refuses, or its packets vanish.
//! `machine.rs` says which; nothing above this file knows sockets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How many connections the kernel accepts for us before we do: sshd's own (it calls `listen` with 128).
const BACKLOG: u32 = 128;

/// A connection to our own address on loopback is made within the call; if it is not, the queue was full before.
const FILL_TIMEOUT: Duration = Duration::from_millis(50);

/// What the network sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// sshd accepts.
    Listening,
    /// The kernel accepts and nobody behind it: a frozen guest.
    Silent,
    /// Nobody listens: the kernel refuses.
    Refusing,
    /// Nothing comes back: off, booting, or cut off.
    Vanished,
}

/// The port of one machine.
#[derive(Debug)]
pub(super) struct Port {
    address: SocketAddr,
    link: Link,
    listener: Option<TcpListener>,
    /// Occupies the accept queue while packets vanish; see [`Port::turn`].
    filler: Option<TcpStream>,
    /// Where the last one came from: not a client.
    filled_from: Option<SocketAddr>,
}

impl Port {
    /// Binds it, listening.
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            address,
            link: Link::Listening,
            listener: Some(listen(address)?),
            filler: None,
            filled_from: None,
        })
    }

    /// Makes the network see `link`.
    ///
    /// Loopback has no cable to pull. But the kernel drops the SYN of a connection whose accept queue is full, without a word: so a
    /// queue of length 0 with one connection of our own in it is a black hole, and a client's connect times out as it should.
    pub(super) async fn turn(&mut self, link: Link) -> io::Result<()> {
        if link == self.link {
            return Ok(());
        }
        if link == Link::Refusing {
            self.listener = None;
            self.filler = None;
            self.link = link;
            return Ok(());
        }
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => listen(self.address)?,
        };
        let backlog = if link == Link::Vanished { 0 } else { i32::try_from(BACKLOG).unwrap_or(i32::MAX) };
        // On a socket that listens already, this only changes the queue's length (listen(2) in Linux).
        rustix::net::listen(&listener, backlog)?;
        self.listener = Some(listener);
        self.filler = None;
        if link == Link::Vanished {
            let filled = tokio::time::timeout(FILL_TIMEOUT, TcpStream::connect(self.address)).await;
            self.filler = filled.ok().transpose()?;
            self.filled_from = self.filler.as_ref().and_then(|filler| filler.local_addr().ok());
        }
        self.link = link;
        Ok(())
    }

    /// The next connection; never, unless it is listening.
    pub(super) async fn accept(&self) -> io::Result<TcpStream> {
        let (Some(listener), Link::Listening) = (&self.listener, self.link) else {
            return std::future::pending().await;
        };
        loop {
            let (stream, from) = listener.accept().await?;
            if self.filled_from != Some(from) {
                return Ok(stream);
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Old connections of the same port may still wait for their last packets.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
