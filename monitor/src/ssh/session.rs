//! One assembly's session: the handle that callers hold, and the task behind it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cpe_proto::observation::{ChannelFailure, Observation, detail};
use tokio::sync::{mpsc, oneshot};

use super::monitor::Shared;
use super::settings::{Act, ActError, Answer, Answers, Endpoint, Probe, ProbeRequest};

/// A session to one assembly. Dropping it closes it.
pub struct Session {
    commands: mpsc::Sender<Command>,
    answers: Arc<Answers>,
}

enum Command {
    Probe(Vec<ProbeRequest>, Instant),
    Act(Act, oneshot::Sender<Result<String, ActError>>),
    Reconnect,
}

impl Session {
    pub(super) fn start(shared: Arc<Shared>, endpoint: Endpoint, answers: Answers) -> Self {
        let answers = Arc::new(answers);
        let (commands, inbox) = mpsc::channel(shared.settings.queue_max);
        tokio::spawn(run(shared, endpoint, Arc::clone(&answers), inbox));
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
            refuse(&self.answers, &batch, asked, "too many probes of this assembly wait already");
        }
    }

    /// Does something to a service, over a channel of its own, so that probes go on. It needs a connected session: it never connects.
    ///
    /// # Errors
    /// Why it did not succeed; see [`ActError`].
    pub fn act(&self, act: Act) -> impl Future<Output = Result<String, ActError>> + Send + use<> {
        let (reply, outcome) = oneshot::channel();
        let sent = self.commands.try_send(Command::Act(act, reply));
        async move {
            if sent.is_err() {
                return Err(ActError::NoChannel(
                    "too many requests to this assembly wait already".to_owned(),
                ));
            }
            outcome.await.unwrap_or_else(|_| Err(ActError::NoChannel("the session was closed".to_owned())))
        }
    }

    /// Drops the connection. The next channel probe, or one that waits now, connects anew.
    pub fn reconnect(&self) {
        // A full queue means that probes wait; those decide soon whether the connection lives.
        let _full = self.commands.try_send(Command::Reconnect);
    }
}

fn refuse(answers: &Answers, batch: &[ProbeRequest], asked: Instant, why: &str) {
    for request in batch {
        let observation = match request.what {
            Probe::Channel => Observation::Channel(ChannelFailure::NotTried, detail(why)),
            Probe::Check(_) => Observation::NotObserved,
        };
        let finished = Instant::now();
        answers(Answer { probe: request.probe, observation, asked, finished, lag: Duration::ZERO });
    }
}

async fn run(
    _shared: Arc<Shared>,
    endpoint: Endpoint,
    answers: Arc<Answers>,
    mut inbox: mpsc::Receiver<Command>,
) {
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Probe(batch, asked) => {
                refuse(&answers, &batch, asked, &format!("no transport to {} yet", endpoint.label));
            }
            Command::Act(_, reply) => {
                let _gone = reply.send(Err(ActError::NoChannel("no transport yet".to_owned())));
            }
            Command::Reconnect => {}
        }
    }
}
