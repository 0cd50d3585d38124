//! One SSH session of an imitated machine: russh speaks the real protocol, this file says who may log in and hands command lines
//! to the imitated guest (`guest.rs`, `resident.rs`).

use std::sync::{Arc, Weak};
use std::time::Duration;

use russh::server::{Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Error};
use tokio::net::TcpStream;

use super::guest::{self, Answer};
use super::keys::ClientKey;
use super::machine::Machine;
use super::observer::What;
use super::resident::{self, Resident};

/// sshd's default for MaxSessions (sshd_config(5)).
const SESSIONS_MAX: usize = 10;
/// Answers that wait at a time in one session; a guest has no such limit, a process of thousands of guests needs one.
const WAITING_MAX: usize = 64;
/// A flood is written in pieces of this many bytes: a packet of SSH.
const FLOOD_PIECE_BYTES: usize = 32 * 1024;

/// The session of one connection.
pub(super) struct Session {
    machine: Arc<Machine>,
    client_key: Arc<ClientKey>,
    channels: Vec<(ChannelId, Use)>,
    waiting: tokio::task::JoinSet<()>,
}

/// What a channel is used for.
enum Use {
    /// Opened, nothing asked yet.
    Opened(Box<ChannelWriteHalf<Msg>>),
    /// A command was begun on it and never ends.
    Spent,
    /// A command runs on it until nobody holds this any more. (russh says nothing to the handler of a channel that we closed first.
    /// It also keeps some hundred bytes of each until the session ends: a limit of long runs with exec.)
    Running(Weak<()>),
    /// The resident shell.
    Resident(Box<Resident>),
    /// A connection through the guest.
    Tunnel,
}

impl Session {
    pub(super) fn new(machine: Arc<Machine>, client_key: Arc<ClientKey>) -> Self {
        Self { machine, client_key, channels: Vec::new(), waiting: tokio::task::JoinSet::new() }
    }

    fn may_log_in(&self, user: &str, key: &russh::keys::PublicKey) -> bool {
        user == &*self.machine.user
            && key.key_data() == self.client_key.public().key_data()
            && self.machine.lock().accepts_key
    }

    fn channel(&mut self, id: ChannelId) -> Option<&mut Use> {
        self.channels.iter_mut().find(|(channel, _)| *channel == id).map(|(_, used)| used)
    }

    /// A real server that somebody runs at the machine's own address.
    async fn reach(&self, host: &str, port: u32) -> Option<TcpStream> {
        let (address, port) = (self.machine.address().ip(), u16::try_from(port).ok()?);
        if host.parse() != Ok(address) {
            return None;
        }
        TcpStream::connect((address, port)).await.ok()
    }

    /// Does something later, if not too much waits already.
    fn later(&mut self, after: Duration, task: impl Future<Output = ()> + Send + 'static) {
        while self.waiting.try_join_next().is_some() {}
        if self.waiting.len() < WAITING_MAX {
            self.waiting.spawn(async move {
                tokio::time::sleep(after).await;
                task.await;
            });
        }
    }

    fn answer(
        &mut self,
        id: ChannelId,
        write: ChannelWriteHalf<Msg>,
        answer: Answer,
        session: &mut russh::server::Session,
    ) -> Result<(), Error> {
        let running = Arc::new(());
        if let (Some(used), Answer::Exits { .. } | Answer::Floods { .. }) = (self.channel(id), &answer) {
            *used = Use::Running(Arc::downgrade(&running));
        }
        match answer {
            Answer::Exits { status, out, err, after } if after.is_zero() => {
                if !out.is_empty() {
                    session.data(id, out)?;
                }
                if !err.is_empty() {
                    session.extended_data(id, 1, err)?;
                }
                session.exit_status_request(id, u32::from(status))?;
                session.eof(id)?;
                session.close(id)?;
            }
            Answer::Exits { status, out, err, after } => {
                let handle = session.handle();
                self.later(after, async move {
                    // An error says that the session is gone.
                    let _ = exit(&handle, id, status, out, err).await;
                    drop(running);
                });
            }
            Answer::Floods { bytes } => self.later(Duration::ZERO, async move {
                flood(write, bytes).await;
                drop(running);
            }),
            Answer::Hangs => {}
        }
        Ok(())
    }
}

async fn exit(handle: &Handle, id: ChannelId, status: u8, out: String, err: String) -> Result<(), ()> {
    handle.data(id, out).await.map_err(drop)?;
    handle.extended_data(id, 1, err).await.map_err(drop)?;
    handle.exit_status_request(id, u32::from(status)).await?;
    handle.eof(id).await?;
    handle.close(id).await
}

/// Prints that many bytes as fast as the client takes them.
async fn flood(write: ChannelWriteHalf<Msg>, bytes: u64) {
    let piece = vec![b'x'; FLOOD_PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        if write.data(&piece[..count]).await.is_err() {
            return;
        }
        left -= count as u64;
    }
    // Errors say that the client has gone, as it may.
    let _ = write.exit_status(0).await;
    let _ = write.eof().await;
    let _ = write.close().await;
}

impl Handler for Session {
    type Error = Error;

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Error> {
        if self.may_log_in(user, offer.public_key) {
            return Ok(Auth::Accept);
        }
        self.machine.counters.refused_logins.add(1);
        Ok(Auth::reject())
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        if self.may_log_in(user, key.public_key) {
            self.machine.counters.logins.add(1);
            self.machine.tell(What::LoggedIn);
            return Ok(Auth::Accept);
        }
        self.machine.counters.refused_logins.add(1);
        Ok(Auth::reject())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut russh::server::Session,
    ) -> Result<(), Error> {
        self.channels
            .retain(|(_, used)| !matches!(used, Use::Running(running) if running.strong_count() == 0));
        if self.channels.len() >= SESSIONS_MAX {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        }
        let id = channel.id();
        // The reading half is dropped: what comes is handled by `data`.
        let (_, write) = channel.split();
        self.channels.push((id, Use::Opened(Box::new(write))));
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut russh::server::Session,
    ) -> Result<(), Error> {
        self.machine.counters.tunnels.add(1);
        if guest::port_open(&self.machine, port) {
            self.channels.push((channel.id(), Use::Tunnel));
            reply.accept().await;
        } else if let Some(mut server) = self.reach(host, port).await {
            self.channels.push((channel.id(), Use::Tunnel));
            reply.accept().await;
            self.later(Duration::ZERO, async move {
                // Either end may go at any time.
                let _ = tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut server).await;
            });
        } else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut russh::server::Session,
    ) -> Result<(), Error> {
        self.machine.counters.execs.add(1);
        let Some(used) = self.channel(id) else { return session.channel_failure(id) };
        let Use::Opened(write) = std::mem::replace(used, Use::Spent) else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        let line = String::from_utf8_lossy(line);
        if line.starts_with(resident::COMMAND_OPENS) && self.machine.lock().resident {
            if let Some(used) = self.channel(id) {
                *used = Use::Resident(Box::default());
            }
            return Ok(());
        }
        let answer = guest::command(&self.machine, &line);
        self.answer(id, *write, answer, session)
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut russh::server::Session,
    ) -> Result<(), Error> {
        let machine = Arc::clone(&self.machine);
        let Some(Use::Resident(resident)) = self.channel(id) else { return Ok(()) };
        let answers = resident.take(&machine, data);
        machine.counters.resident_rounds.add(1);
        machine.counters.resident_probes.add(answers.probes);
        if !answers.now.is_empty() {
            session.data(id, answers.now)?;
        }
        for (after, line) in answers.later {
            let handle = session.handle();
            self.later(after, async move {
                // An error says that the session is gone.
                let _ = handle.data(id, line).await;
            });
        }
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        id: ChannelId,
        session: &mut russh::server::Session,
    ) -> Result<(), Error> {
        if matches!(self.channel(id), Some(Use::Resident(_))) {
            session.exit_status_request(id, 0)?;
            session.eof(id)?;
            session.close(id)?;
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut russh::server::Session) -> Result<(), Error> {
        self.channels.retain(|(channel, _)| *channel != id);
        Ok(())
    }
}
