//! One accepted TCP connection of an imitated machine: a stream that stands still while the machine is frozen, cut off or off,
//! and that can be ended or broken from outside. russh's session runs on it (`session.rs`) and knows nothing of it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Whether the connections of a machine stand still. Shared by all of them.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicBool);

impl Gate {
    pub(super) fn set_still(&self, still: bool) {
        self.0.store(still, Ordering::Release);
    }

    fn is_still(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

const OPEN: u8 = 0;
const ENDED: u8 = 1;
const BROKEN: u8 = 2;

/// A connection as its machine holds it.
#[derive(Debug)]
pub(super) struct Connection {
    tcp: TcpStream,
    gate: Arc<Gate>,
    fate: AtomicU8,
    /// Who waits in a read, and who in a write: woken when the gate or the fate changes.
    wakers: Mutex<[Option<Waker>; 2]>,
}

impl Connection {
    pub(super) fn new(tcp: TcpStream, gate: Arc<Gate>) -> Arc<Self> {
        // Without this, an answer of two packets waits for the client's delayed acknowledgement. If it cannot be set it is slower.
        let _ = tcp.set_nodelay(true);
        Arc::new(Self { tcp, gate, fate: AtomicU8::new(OPEN), wakers: Mutex::default() })
    }

    /// Ends it in order, as a guest does that shuts down: the client sees the end of the stream.
    pub(super) fn end(&self) {
        self.set_fate(ENDED);
    }

    /// Breaks it, as a guest does that lost all memory of it: the client sees a reset.
    pub(super) fn break_off(&self) {
        // If it cannot be set the client sees an end instead of a reset.
        let _ = self.tcp.set_zero_linger();
        self.set_fate(BROKEN);
    }

    fn set_fate(&self, fate: u8) {
        self.fate.store(fate, Ordering::Release);
        self.wake();
    }

    /// Wakes whoever waits, after the gate has changed.
    pub(super) fn wake(&self) {
        let wakers = std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }

    /// Whether it has to wait, and otherwise how it goes on. Registers the waker first, so that no change is missed.
    fn pass(&self, side: usize, context: &Context<'_>) -> Poll<u8> {
        {
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut wakers[side] {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
        }
        match self.fate.load(Ordering::Acquire) {
            OPEN if self.gate.is_still() => Poll::Pending,
            fate => Poll::Ready(fate),
        }
    }
}

const READ: usize = 0;
const WRITE: usize = 1;

/// The same connection as a stream, for its session.
#[derive(Debug)]
pub(super) struct Stream(pub(super) Arc<Connection>);

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match std::task::ready!(self.0.pass(READ, context)) {
            OPEN => {}
            ENDED => return Poll::Ready(Ok(())),
            _ => return Poll::Ready(Err(reset())),
        }
        loop {
            std::task::ready!(self.0.tcp.poll_read_ready(context))?;
            match self.0.tcp.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if std::task::ready!(self.0.pass(WRITE, context)) != OPEN {
            return Poll::Ready(Err(reset()));
        }
        loop {
            std::task::ready!(self.0.tcp.poll_write_ready(context))?;
            match self.0.tcp.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(&self.0.tcp, rustix::net::Shutdown::Write) {
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(errno) => Poll::Ready(Err(errno.into())),
        }
    }
}
