//! A connection that can be ended from outside of whoever reads and writes it: over TCP, or through a jump host. The SSH library's task
//! ends only when its socket does; without this a server that hangs in the key exchange would keep a socket and a task for ever.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tunnel::{Stop, Tunnel};

/// Ends the connection when dropped.
pub(super) struct Line {
    tcp: Option<Arc<TcpStream>>,
    _tunnel: Option<Stop>,
}

/// The end that is read and written.
pub(super) enum Socket {
    /// Over TCP.
    Tcp(Arc<TcpStream>),
    /// Through a jump host.
    Tunnel(Box<Tunnel>),
}

/// Splits a connection into who ends it and who uses it.
pub(super) fn split(stream: TcpStream) -> (Line, Socket) {
    let stream = Arc::new(stream);
    (Line { tcp: Some(Arc::clone(&stream)), _tunnel: None }, Socket::Tcp(stream))
}

/// The same for a tunnel.
pub(super) fn of_tunnel((stop, tunnel): (Stop, Tunnel)) -> (Line, Socket) {
    (Line { tcp: None, _tunnel: Some(stop) }, Socket::Tunnel(Box::new(tunnel)))
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(tcp) = &self.tcp {
            // An error means that it has ended already.
            let _ended = rustix::net::shutdown(&**tcp, rustix::net::Shutdown::Both);
        }
    }
}

fn poll_read_tcp(
    tcp: &TcpStream,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    loop {
        ready!(tcp.poll_read_ready(context))?;
        match tcp.try_read(buffer.initialize_unfilled()) {
            Ok(count) => {
                buffer.advance(count);
                return Poll::Ready(Ok(()));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

fn poll_write_tcp(tcp: &TcpStream, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_write_ready(context))?;
        match tcp.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => poll_read_tcp(tcp, context, buffer),
            Self::Tunnel(tunnel) => Pin::new(&mut **tunnel).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => poll_write_tcp(tcp, context, bytes),
            Self::Tunnel(tunnel) => Pin::new(&mut **tunnel).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Tunnel(tunnel) => Pin::new(&mut **tunnel).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Poll::Ready(
                rustix::net::shutdown(&**tcp, rustix::net::Shutdown::Write).map_err(io::Error::from),
            ),
            Self::Tunnel(tunnel) => Pin::new(&mut **tunnel).poll_shutdown(context),
        }
    }
}
