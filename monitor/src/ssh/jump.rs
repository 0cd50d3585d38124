//! Jump hosts: one session to each, shared by all assemblies behind it, and the connections through it (direct-tcpip).
//!
//! What is wrong with a jump host proves nothing of the assemblies behind it. So its silence, refusal or death is `NotTried` for them,
//! and an assembly's own silence is believed only where the jump host answered meanwhile. A jump host whose key is not the known one, or
//! that does not let us in, is told as just that: both are never acted upon, and a person has to look. No agent is ever forwarded.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use cpe_proto::observation::{ChannelFailure, detail};
use russh::client::Msg;
use russh::{ChannelOpenFailure, ChannelStream};
use tokio::sync::{Semaphore, oneshot, watch};

use super::connect::{self, Failure, Link, Peer, Progress};
use super::monitor::Shared;
use super::settings::Jump;

/// Connecting to a jump host takes at most this long; it is for many, so no single deadline ends it.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// After a failed attempt the next is made no sooner: meanwhile all behind the jump host are told of the last.
const PAUSE: Duration = Duration::from_secs(1);

/// A jump host that does not answer a ping for this long gets a new session.
const PING_MAX: Duration = Duration::from_secs(10);

/// Connections to one assembly that the jump host may be trying at a time. Each of them lasts as long as its kernel tries.
const OPENING_MAX: usize = 8;

/// Refused connections after which the session is renewed: the library keeps a record of each until the session ends.
const REFUSALS_MAX: usize = 4096;

/// The jump hosts in use.
#[derive(Default)]
pub(super) struct Jumps(Mutex<HashMap<Jump, Weak<Hop>>>);

impl Jumps {
    /// The way through a jump host for one assembly.
    pub(super) fn way(&self, jump: &Jump) -> Way {
        let mut hops = lock(&self.0);
        hops.retain(|_, hop| hop.strong_count() > 0);
        let hop = hops.get(jump).and_then(Weak::upgrade).unwrap_or_else(|| {
            let hop = Arc::new(Hop::new(jump.clone()));
            hops.insert(jump.clone(), Arc::downgrade(&hop));
            hop
        });
        Way { hop, opening: Arc::new(Semaphore::new(OPENING_MAX)) }
    }
}

/// One jump host. Its session is there for as long as there are sessions that go through it.
struct Hop {
    jump: Jump,
    state: Mutex<State>,
    /// When it was last known to answer.
    heard: Mutex<Option<Instant>>,
    pinging: AtomicBool,
    /// Connections that it refused over the present session.
    refusals: AtomicUsize,
    /// What was last wrong with it: said once.
    fault: Mutex<Option<Box<str>>>,
}

enum State {
    Idle,
    Connecting(watch::Receiver<Option<Outcome>>),
    Up(Arc<Link>),
    Failed(Instant, Failure),
}

type Outcome = Result<Arc<Link>, Failure>;

/// One assembly's way through a jump host.
#[derive(Clone)]
pub(super) struct Way {
    hop: Arc<Hop>,
    opening: Arc<Semaphore>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Way {
    /// How messages name it.
    pub(super) fn name(&self) -> String {
        self.hop.name()
    }

    /// Asks the jump host whether it lives, if there is a session to it.
    pub(super) fn ask(&self) {
        let State::Up(link) = &*lock(&self.hop.state) else { return };
        if !self.hop.pinging.swap(true, Relaxed) {
            tokio::spawn(Arc::clone(&self.hop).ping(Arc::clone(link)));
        }
    }

    /// What the silence of an assembly means, that was asked then: nothing, unless the jump host has answered since.
    pub(super) fn silence(&self, silence: Failure, asked: Instant) -> Failure {
        let heard = lock(&self.hop.heard).is_some_and(|heard| heard >= asked);
        match silence.cause {
            ChannelFailure::TimedOut if !heard => self.fault("it gave no answer itself"),
            ChannelFailure::NotTried if &*silence.detail == connect::NO_JUMP => self.fault(connect::NO_JUMP),
            _ => silence,
        }
    }

    /// The session to the jump host; connects where there is none.
    pub(super) async fn link(&self, shared: &Arc<Shared>) -> Outcome {
        let mut outcome = match self.hop.state(shared) {
            Ok(done) => return done,
            Err(connecting) => connecting,
        };
        let said = outcome.wait_for(Option::is_some).await;
        let said = said.ok().and_then(|outcome| outcome.clone());
        said.unwrap_or_else(|| Err(self.fault("the attempt to connect was ended")))
    }

    /// Has the jump host connect to an assembly. An open cannot be taken back: one that nobody waits for any more is closed
    /// when it comes.
    pub(super) async fn open(&self, link: Arc<Link>, host: &str, port: u16) -> Result<Through, Failure> {
        let Ok(permit) = Arc::clone(&self.opening).acquire_owned().await else {
            return Err(self.fault("too many connections"));
        };
        let (tell, told) = oneshot::channel();
        let (way, host) = (self.clone(), host.to_owned());
        tokio::spawn(async move {
            let _permit = permit;
            // Dropped without a receiver, it closes its channel.
            let _nobody_waits = tell.send(Box::pin(way.opened(link, host, port)).await);
        });
        told.await.unwrap_or_else(|_| Err(self.fault("the session to it was lost")))
    }

    async fn opened(&self, link: Arc<Link>, host: String, port: u16) -> Result<Through, Failure> {
        let opened = link.handle.channel_open_direct_tcpip(&*host, port.into(), "127.0.0.1", 0).await;
        let reason = match opened {
            Ok(channel) => {
                self.hop.heard_now();
                return Ok(Through { stream: Box::new(channel.into_stream()), link });
            }
            Err(russh::Error::ChannelOpenFailure(reason)) => reason,
            Err(_) => return Err(self.fault("the session to it was lost")),
        };
        self.hop.heard_now();
        self.hop.refusals.fetch_add(1, Relaxed);
        let text = link.notes.refusal().await;
        Err(match reason {
            ChannelOpenFailure::ConnectFailed => {
                let (cause, what) = connect_failed(text.as_deref());
                let said = format!("{host} port {port}: {what} (as the jump host {} says)", self.name());
                Failure::new(cause, &said)
            }
            ChannelOpenFailure::ResourceShortage => self.fault("it is short of resources"),
            _ => self.fault(&format!(
                "it does not connect to {host} port {port}: set AllowTcpForwarding local (and PermitOpen, if used) in its sshd_config for this user"
            )),
        })
    }

    /// The jump host's trouble, which is not the assembly's.
    fn fault(&self, what: &str) -> Failure {
        self.hop.fault(ChannelFailure::NotTried, what)
    }
}

/// A connection through a jump host, and the session that carries it.
pub(super) struct Through {
    pub(super) stream: Box<ChannelStream<Msg>>,
    pub(super) link: Arc<Link>,
}

/// What sshd's words mean for why it could not connect: strerror(3) in the C locale. Where it cannot be said for whom they were, or
/// they are others, nothing is concluded.
fn connect_failed(text: Option<&str>) -> (ChannelFailure, &str) {
    let cause = match text.unwrap_or_default() {
        "Connection refused" => ChannelFailure::Refused,
        "Connection timed out" | "No route to host" | "Network is unreachable" => ChannelFailure::TimedOut,
        _ => ChannelFailure::NotTried,
    };
    (cause, text.filter(|text| !text.is_empty()).unwrap_or("not connected"))
}

impl Hop {
    fn new(jump: Jump) -> Self {
        Self {
            jump,
            state: Mutex::new(State::Idle),
            heard: Mutex::default(),
            pinging: AtomicBool::new(false),
            refusals: AtomicUsize::new(0),
            fault: Mutex::default(),
        }
    }

    fn name(&self) -> String {
        self.jump.to_string()
    }

    fn heard_now(&self) {
        *lock(&self.heard) = Some(Instant::now());
    }

    /// What is known now, or what to wait for.
    fn state(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<Outcome, watch::Receiver<Option<Outcome>>> {
        let mut state = lock(&self.state);
        match &*state {
            State::Up(link) if !link.handle.is_closed() && self.refusals.load(Relaxed) < REFUSALS_MAX => {
                return Ok(Ok(Arc::clone(link)));
            }
            State::Connecting(outcome) => return Err(outcome.clone()),
            State::Failed(when, failure) if when.elapsed() < PAUSE => return Ok(Err(failure.clone())),
            _ => {}
        }
        let (say, said) = watch::channel(None);
        *state = State::Connecting(said.clone());
        tokio::spawn(Arc::clone(self).dial(Arc::clone(shared), say));
        Err(said)
    }

    /// Connects to it and tells all that wait. Boxed, since connecting may itself go through a jump host, to the compiler's eye.
    fn dial(
        self: Arc<Self>,
        shared: Arc<Shared>,
        say: watch::Sender<Option<Outcome>>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let progress = Arc::new(Progress::default());
            let peer = Peer::of_jump(&self.jump, &shared.settings);
            let connecting = connect::connect(shared, peer, None, Arc::clone(&progress));
            let connected = tokio::time::timeout(CONNECT_MAX, connecting).await;
            let outcome = connected.unwrap_or_else(|_| Err(progress.silence()));
            let outcome = outcome.map(Arc::new).map_err(|failure| {
                let cause = match failure.cause {
                    ChannelFailure::HostKey | ChannelFailure::AuthenticationFailed => failure.cause,
                    _ => ChannelFailure::NotTried,
                };
                self.fault(cause, &failure.detail)
            });
            self.note(&outcome);
            *lock(&self.state) = match &outcome {
                Ok(link) => State::Up(Arc::clone(link)),
                Err(failure) => State::Failed(Instant::now(), failure.clone()),
            };
            let _nobody_waits = say.send(Some(outcome));
        })
    }

    /// Says what changed about it.
    fn note(&self, outcome: &Outcome) {
        let (mut last, name) = (lock(&self.fault), self.name());
        match outcome {
            Ok(_) => {
                self.refusals.store(0, Relaxed);
                self.heard_now();
                if last.take().is_some() {
                    tracing::info!("jump host {name} is reached again");
                }
            }
            Err(failure) if last.as_ref() != Some(&failure.detail) => {
                tracing::warn!("{}: nothing is known of the assemblies behind it", failure.detail);
                *last = Some(failure.detail.clone());
            }
            Err(_) => {}
        }
    }

    fn fault(&self, cause: ChannelFailure, what: &str) -> Failure {
        Failure { cause, detail: detail(&format!("jump host {}: {what}", self.name())) }
    }

    async fn ping(self: Arc<Self>, link: Arc<Link>) {
        let lives = tokio::time::timeout(PING_MAX, link.handle.send_ping()).await;
        self.pinging.store(false, Relaxed);
        if matches!(lives, Ok(Ok(()))) && !link.ended() {
            return self.heard_now();
        }
        let mut state = lock(&self.state);
        if matches!(&*state, State::Up(present) if Arc::ptr_eq(present, &link)) {
            *state = State::Idle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sshds_words_for_a_failed_connection_are_told_apart_and_others_prove_nothing() {
        for (text, cause) in [
            (Some("Connection refused"), ChannelFailure::Refused),
            (Some("Connection timed out"), ChannelFailure::TimedOut),
            (Some("No route to host"), ChannelFailure::TimedOut),
            (Some("Name or service not known"), ChannelFailure::NotTried),
            (Some(""), ChannelFailure::NotTried),
            (None, ChannelFailure::NotTried),
        ] {
            assert_eq!(connect_failed(text).0, cause, "{text:?}");
        }
    }

    #[test]
    fn a_jump_host_is_shared_for_as_long_as_it_is_used() {
        let jumps = Jumps::default();
        let jump = |host: &str| Jump { user: None, address: host.to_owned(), port: None };
        let first = jumps.way(&jump("a"));
        assert!(Arc::ptr_eq(&first.hop, &jumps.way(&jump("a")).hop));
        assert!(!Arc::ptr_eq(&first.hop, &jumps.way(&jump("b")).hop));
        drop(first);
        drop(jumps.way(&jump("c")));
        assert!(lock(&jumps.0).values().all(|hop| hop.strong_count() == 0), "nothing is kept");
    }
}
