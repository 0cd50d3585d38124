//! A connection that can be ended from outside of whoever reads and writes it: over TCP, or through a jump host. The SSH library's task
//! ends only when its socket does; without this a server that hangs in the key exchange would keep a socket and a task for ever.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use russh::ChannelStream;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Ends the connection when dropped.
pub(super) struct Line {
    tcp: Option<Arc<TcpStream>>,
    _through: Option<oneshot::Sender<Infallible>>,
}

/// The end that is read and written.
pub(super) enum Socket {
    /// Over TCP.
    Tcp(Arc<TcpStream>),
    /// Through a jump host.
    Through(Through),
}

/// A channel of a session to a jump host.
pub(super) struct Through {
    stream: Box<ChannelStream<Msg>>,
    /// What was read before it was handed on.
    first: Vec<u8>,
    /// Ends it; gone when it has.
    end: Option<oneshot::Receiver<Infallible>>,
}

/// Splits a connection into who ends it and who uses it.
pub(super) fn split(stream: TcpStream) -> (Line, Socket) {
    let stream = Arc::new(stream);
    (Line { tcp: Some(Arc::clone(&stream)), _through: None }, Socket::Tcp(stream))
}

/// The same for a channel, once its first bytes have come. None where it ends without any.
pub(super) async fn split_channel(mut stream: Box<ChannelStream<Msg>>) -> io::Result<(Line, Socket)> {
    let mut first = Vec::with_capacity(256);
    if stream.read_buf(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let (line, end) = oneshot::channel();
    let through = Through { stream, first, end: Some(end) };
    Ok((Line { tcp: None, _through: Some(line) }, Socket::Through(through)))
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(tcp) = &self.tcp {
            // An error means that it has ended already.
            let _ended = rustix::net::shutdown(&**tcp, rustix::net::Shutdown::Both);
        }
    }
}

impl Through {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(end) = &mut self.end else { return Poll::Ready(Ok(())) };
        if Pin::new(end).poll(context).is_ready() {
            self.end = None;
            return Poll::Ready(Ok(()));
        }
        if self.first.is_empty() {
            return Pin::new(&mut *self.stream).poll_read(context, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(self.first.get(..count).unwrap_or_default());
        self.first.drain(..count);
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.end.is_none() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut *self.stream).poll_write(context, bytes)
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
            Self::Through(through) => through.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => poll_write_tcp(tcp, context, bytes),
            Self::Through(through) => through.poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Through(through) => Pin::new(&mut *through.stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Poll::Ready(
                rustix::net::shutdown(&**tcp, rustix::net::Shutdown::Write).map_err(io::Error::from),
            ),
            Self::Through(through) => Pin::new(&mut *through.stream).poll_shutdown(context),
        }
    }
}
