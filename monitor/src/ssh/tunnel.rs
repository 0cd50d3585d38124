//! A channel of a session as a socket: of one to a jump host, for the session within; of one to a guest, for a probe (`port.rs`).
//!
//! All tunnels of one session share it, and its task waits for whoever does not take what came. So what comes is taken at
//! once, by a task of the tunnel's own: a session that is busy writing must not keep that task, and with it its own write, waiting.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use russh::ChannelStream;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::oneshot;

/// What may have come for a session and not be read, in bytes: more than its channels may send unasked. One that sends more is ended.
const UNREAD_MAX: usize = 4 * 1024 * 1024;

/// The end that is read and written.
pub(super) struct Tunnel {
    write: WriteHalf<ChannelStream<Msg>>,
    pipe: Arc<Pipe>,
}

/// Ends the tunnel when dropped.
pub(super) struct Stop(#[expect(dead_code, reason = "its drop is what counts")] oneshot::Sender<Infallible>);

struct Pipe {
    state: Mutex<State>,
    unread_max: usize,
}

#[derive(Default)]
struct State {
    unread: VecDeque<u8>,
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what came; says whether there is room for more.
    fn add(&self, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        state.unread.extend(bytes);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
        state.unread.len() <= self.unread_max
    }

    fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// Waits for the first bytes, and gives the two ends.
///
/// # Errors
/// It ended without any.
pub(super) async fn open(stream: ChannelStream<Msg>) -> io::Result<(Stop, Tunnel)> {
    let (mut read, write) = tokio::io::split(stream);
    let mut first = Vec::with_capacity(256);
    if read.read_buf(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(start(read, write, &first, UNREAD_MAX))
}

/// Gives the two ends of one that may stay silent until it is asked. It is ended when more than that came and was not read, in bytes.
pub(super) fn at_once(stream: ChannelStream<Msg>, unread_max: usize) -> (Stop, Tunnel) {
    let (read, write) = tokio::io::split(stream);
    start(read, write, &[], unread_max)
}

fn start(
    read: ReadHalf<ChannelStream<Msg>>,
    write: WriteHalf<ChannelStream<Msg>>,
    first: &[u8],
    unread_max: usize,
) -> (Stop, Tunnel) {
    let pipe = Arc::new(Pipe { state: Mutex::default(), unread_max });
    pipe.add(first);
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(take(read, Arc::clone(&pipe), stopped));
    (Stop(stop), Tunnel { write, pipe })
}

/// Takes what comes until it is stopped or nothing comes any more.
async fn take(
    mut read: ReadHalf<ChannelStream<Msg>>,
    pipe: Arc<Pipe>,
    mut stopped: oneshot::Receiver<Infallible>,
) {
    let mut chunk = Vec::with_capacity(4096);
    loop {
        chunk.clear();
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            count = read.read_buf(&mut chunk) => match count {
                Ok(1..) if pipe.add(&chunk) => {}
                _ => break,
            },
        }
    }
    pipe.end();
}

impl AsyncRead for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.pipe.lock();
        if state.unread.is_empty() && !state.ended {
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = state.unread.read(buffer.initialize_unfilled())?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        {
            let mut state = this.pipe.lock();
            if state.ended {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            state.writer = Some(context.waker().clone());
        }
        Pin::new(&mut this.write).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().write).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.pipe.lock().ended {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.write).poll_shutdown(context)
    }
}
