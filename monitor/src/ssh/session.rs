//! The handle on one assembly's session; `task.rs` is what it speaks to.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cpe_proto::observation::{ChannelFailure, Observation, detail};
use tokio::sync::{mpsc, oneshot};

use super::monitor::Shared;
use super::settings::{Act, ActError, Answer, Answers, Endpoint, Probe, ProbeRequest};
use super::task;

/// A session to one assembly. Dropping it closes it.
///
/// # When it connects
/// With a channel probe, and only with one: where the session is not connected, each channel probe is an attempt to connect (one that
/// is under way already serves all that wait), and what the attempt meets is the probe's answer. There is no back-off of its own: the
/// engine's probing interval is the pace, and the monitor's limits on connecting protect the fleet from all engines together. An
/// attempt that these limits kept from being made in time is `NotTried`, which says nothing of the assembly. Probes of services
/// that come while the session is neither connected nor connecting are `NotObserved`.
///
/// A session that its server ended is connected anew at once where a channel probe waits, once within its deadline.
pub struct Session {
    commands: mpsc::Sender<Command>,
    answers: Arc<Answers>,
}

/// What a session's task is asked.
pub(super) enum Command {
    Probe(Vec<ProbeRequest>, Instant),
    Act(Box<(Act, oneshot::Sender<Result<String, ActError>>)>),
    Reconnect,
}

impl Session {
    pub(super) fn start(shared: Arc<Shared>, endpoint: Endpoint, answers: Answers) -> Self {
        let answers = Arc::new(answers);
        let (commands, inbox) = mpsc::channel(shared.settings.queue_max);
        tokio::spawn(task::run(shared, endpoint, Arc::clone(&answers), inbox));
        Self { commands, answers }
    }

    /// Asks for probes, in one round trip where the session is connected. Returns at once. Each probe is answered exactly once, by
    /// its deadline; where too many batches wait already, at once and from within this call.
    pub fn submit(&self, batch: Vec<ProbeRequest>) {
        let asked = Instant::now();
        let refused = match self.commands.try_send(Command::Probe(batch, asked)) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(command) | mpsc::error::TrySendError::Closed(command)) => {
                command
            }
        };
        if let Command::Probe(batch, asked) = refused {
            refuse(&self.answers, &batch, asked);
        }
    }

    /// Whether its task has ended, which it does by a panic only: nothing is probed over it any more, and a new one is needed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// Does something to a service, over a channel of its own, so that probes go on. It needs a connected session: it never connects.
    ///
    /// # Errors
    /// Why it did not succeed; see [`ActError`].
    pub fn act(&self, act: Act) -> impl Future<Output = Result<String, ActError>> + Send + use<> {
        let (reply, outcome) = oneshot::channel();
        let sent = self.commands.try_send(Command::Act(Box::new((act, reply))));
        async move {
            if sent.is_err() {
                return Err(ActError::NoChannel(
                    "too many requests to this assembly wait already".to_owned(),
                ));
            }
            outcome.await.unwrap_or_else(|_| Err(ActError::NoChannel("the session was closed".to_owned())))
        }
    }

    /// Drops the connection. A channel probe that waits now, or else the next one, connects anew.
    pub fn reconnect(&self) {
        // A full queue means that probes wait; those decide soon whether the connection lives.
        let _full = self.commands.try_send(Command::Reconnect);
    }
}

/// Answers a batch that is not taken on.
pub(super) fn refuse(answers: &Answers, batch: &[ProbeRequest], asked: Instant) {
    for request in batch {
        let observation = match request.what {
            Probe::Channel => Observation::Channel(
                ChannelFailure::NotTried,
                detail("too many probes of this assembly wait already"),
            ),
            _ => Observation::NotObserved,
        };
        let finished = Instant::now();
        answers(Answer {
            probe: request.probe,
            observation,
            measures: Vec::new(),
            dropped: 0,
            asked,
            finished,
            lag: Duration::ZERO,
        });
    }
}
