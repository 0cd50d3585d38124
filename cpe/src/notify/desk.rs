//! The one task that decides who is told what: nothing twice for the same state of an incident (kept in the journal before it is sent, so
//! that a restart does not tell it again), nothing of what an operator knows, at most so many in a time, the rest as a digest; and that an
//! incident of which a person was told is over. What is not known to be sent when cpe ends is sent by the next one (`outbox.rs`). One more
//! task for each channel, so that a slow one delays no other.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::config::Notify;
use cpe_proto::event::{EventKind, EventRecord};
use cpe_proto::id::{IncidentId, Name};
use dped::{IncidentKey as Key, Notices};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Notification, Pace, Phase, command, mail, outbox, webhook};
use crate::clock;
use crate::journal::{Journal, JournalError, Notified, Outgoing, WhyQuery};
use crate::metrics::Metrics;
use crate::vital::Vital;

/// Notifications that wait for one channel; what is above goes into a digest.
const CHANNEL_QUEUE: usize = 64;
/// Messages that a digest spells out; the others are counted.
const DIGEST_MESSAGES: usize = 50;
/// States and incidents that are remembered of each kind.
const REMEMBERED: usize = 10_000;
/// A journal that is slower is not waited for: a person is told first.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(2);
/// The state of an incident that is over, in the journal.
pub(super) const CLOSED: &str = "closed";

/// What the desk is told.
#[derive(Debug)]
pub(super) enum Order {
    Tell { time: u64, deployable: Name, incident: Option<IncidentId>, message: String },
    Acknowledge(Name, IncidentId),
}

pub(super) struct Desk {
    journal: Journal,
    metrics: Arc<Metrics>,
    pace: Pace,
    channels: Vec<Channel>,
    /// What an earlier cpe did not send.
    left: Vec<(Notification, Vec<String>)>,
    notices: Notices,
    /// Those of which something was sent by itself: the next is an answer to it.
    begun: BTreeSet<Key>,
    /// What was told while the journal could not be written.
    unwritten: BTreeSet<(Key, String)>,
    tokens: u32,
    refilled: Instant,
    overflow: Vec<String>,
    overflowed: usize,
    /// The ids of what is in it.
    gathered: Vec<String>,
}

struct Channel {
    word: &'static str,
    queue: mpsc::Sender<(Notification, Option<Notified>)>,
}

impl Channel {
    fn is_full(&self) -> bool {
        self.queue.capacity() == 0 && !self.queue.is_closed()
    }
}

impl Desk {
    pub(super) fn new(
        notify: Notify,
        metrics: Arc<Metrics>,
        journal: Journal,
        pace: Pace,
        vital: &Vital,
    ) -> Self {
        let mut channels = Vec::new();
        let start = journal.start_state();
        let (told, acknowledged) = (start.told.clone(), start.acknowledged.clone());
        let left = outbox::left(&start.outbox);
        let mut add = |way: Way| {
            let word = way.word();
            let (queue, receive) = mpsc::channel(CHANNEL_QUEUE);
            vital.spawn(
                "sender of notifications",
                deliver(way, receive, Arc::clone(&metrics), journal.clone()),
            );
            channels.push(Channel { word, queue });
        };
        if let Some(program) = notify.command {
            add(Way::Command(program, pace.program));
        }
        if let Some(address) = notify.webhook {
            add(Way::Webhook(webhook::Poster::new(address, notify.ca.clone(), pace.retry)));
        }
        if let Some(email) = notify.email {
            add(Way::Email(Box::new(mail::Mailer::new(email, notify.ca, pace.retry))));
        }
        Self {
            journal,
            metrics,
            pace,
            channels,
            left,
            begun: told.clone(),
            notices: Notices::taken_up(told, acknowledged),
            unwritten: BTreeSet::new(),
            tokens: pace.burst,
            refilled: Instant::now(),
            overflow: Vec::new(),
            overflowed: 0,
            gathered: Vec::new(),
        }
    }

    /// Until the last notifier is gone.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut live = self.journal.subscribe();
        let mut follows = true;
        self.send_left();
        loop {
            let due = self.refilled + self.pace.every;
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Tell { time, deployable, incident, message }) => {
                        self.tell(time, deployable, incident, message).await;
                    }
                    Some(Order::Acknowledge(deployable, incident)) => {
                        self.notices.acknowledge((deployable, incident));
                    }
                    None => return,
                },
                event = live.recv(), if follows => match event {
                    Ok(record) => self.seen(&record).await,
                    Err(RecvError::Lagged(_)) => self.look_for_closed().await,
                    Err(RecvError::Closed) => follows = false,
                },
                () = tokio::time::sleep_until(due), if self.tokens < self.pace.burst => {
                    self.tokens += 1;
                    self.refilled = Instant::now();
                    self.digest().await;
                }
            }
        }
    }

    async fn tell(&mut self, time: u64, deployable: Name, incident: Option<IncidentId>, message: String) {
        if incident.is_some_and(|incident| !self.notices.tell((deployable.clone(), incident))) {
            return;
        }
        let state = state_of(&message);
        self.send(Notified { time, deployable, incident, state, message }, Phase::Open).await;
    }

    async fn seen(&mut self, record: &EventRecord) {
        if record.event.kind != EventKind::IncidentClosed {
            return;
        }
        let (Some(deployable), Some(incident)) = (&record.deployable, record.event.incident) else { return };
        let message = format!("{}: over: {}", record.subject(), record.event.reason);
        self.closed((deployable.clone(), incident), record.time, message).await;
    }

    async fn closed(&mut self, key: Key, time: u64, message: String) {
        if !self.notices.close(&key) {
            return;
        }
        let (deployable, incident) = key;
        let state = CLOSED.to_owned();
        self.send(Notified { time, deployable, incident: Some(incident), state, message }, Phase::Closed)
            .await;
    }

    /// Events were missed: the journal says which incidents are over.
    async fn look_for_closed(&mut self) {
        let everything = WhyQuery::Name(crate::glob::Glob::everything());
        let Ok(open) = self.journal.open_incidents(everything).await else { return };
        let open: BTreeSet<Key> = open.into_iter().collect();
        for key in self.notices.told().difference(&open).cloned().collect::<Vec<_>>() {
            let message = format!("{}#{}: over", key.0, key.1);
            self.closed(key, clock::wall_ms(), message).await;
        }
    }

    /// Sends it unless that state of that incident was told before.
    async fn send(&mut self, notified: Notified, state: Phase) {
        let key = notified.incident.map(|incident| (notified.deployable.clone(), incident));
        let thread = notified.incident.map(|incident| format!("{}#{incident}", notified.deployable));
        let of = thread.clone().unwrap_or_else(|| notified.deployable.to_string());
        let notification = Notification {
            // Two states may be told in one millisecond.
            id: format!("{of}-{}-{:08x}", notified.time, mail::fingerprint(&notified.state) >> 32),
            time: notified.time,
            state,
            deployable: Some(notified.deployable.clone()),
            incident: thread,
            first: key.as_ref().is_some_and(|key| !self.begun.contains(key)),
            message: notified.message.clone(),
            messages: Vec::new(),
        };
        let kept = self.journal.notified(notified.clone(), self.outgoing(&notification));
        match tokio::time::timeout(JOURNAL_TIMEOUT, kept).await {
            Ok(Ok(())) => {}
            Ok(Err(JournalError::Told)) => return,
            // Telling goes on without a journal; then it is this process that knows what was told.
            Ok(Err(_)) | Err(_) => {
                if let Some(incident) = notified.incident {
                    let key = ((notified.deployable.clone(), incident), notified.state.clone());
                    if self.unwritten.len() >= REMEMBERED {
                        self.unwritten.clear();
                    }
                    if !self.unwritten.insert(key) {
                        return;
                    }
                }
            }
        }
        if self.channels.is_empty() {
            self.journal.notified_outcome(notified, "nobody is configured to be told");
            return;
        }
        self.give(notification, Some(notified), |_| true);
    }

    /// What an earlier cpe did not send, over those channels over which it did not.
    fn send_left(&mut self) {
        for (notification, words) in std::mem::take(&mut self.left) {
            let (to, gone): (Vec<String>, Vec<String>) =
                words.into_iter().partition(|word| self.channels.iter().any(|channel| channel.word == *word));
            for word in gone {
                self.journal.delivered(notification.id.clone(), &word);
            }
            let kept = outbox::notified(&notification);
            let known = |key: &Key| self.notices.is_acknowledged(key);
            if key_of(kept.as_ref()).as_ref().is_some_and(known) {
                to.iter().for_each(|word| self.journal.delivered(notification.id.clone(), word));
            } else if !to.is_empty() {
                tracing::warn!(
                    id = notification.id,
                    "an earlier cpe ended before it was known that this was told: told again"
                );
                self.give(notification, kept, |word| to.iter().any(|it| it == word));
            }
        }
    }

    /// Gives it to these channels, or keeps it for the digest.
    fn give(&mut self, notification: Notification, kept: Option<Notified>, to: impl Fn(&str) -> bool) {
        if self.tokens == 0 || self.channels.iter().any(Channel::is_full) {
            if self.overflow.len() < DIGEST_MESSAGES {
                self.overflow.push(notification.message);
            }
            self.overflowed += 1;
            // Beyond that, the outbox has forgotten the oldest itself.
            if self.gathered.len() < REMEMBERED {
                self.gathered.push(notification.id);
            }
            if let Some(kept) = kept {
                self.journal.notified_outcome(kept, "told in a digest");
            }
            return;
        }
        let (key, state) = (key_of(kept.as_ref()), notification.state);
        self.post(&notification, kept.as_ref(), to);
        if let Some(key) = key {
            match state {
                Phase::Closed => _ = self.begun.remove(&key),
                Phase::Open | Phase::Digest => remember(&mut self.begun, key),
            }
        }
        if self.tokens == self.pace.burst {
            self.refilled = Instant::now();
        }
        self.tokens -= 1;
    }

    /// What was too much, as one.
    async fn digest(&mut self) {
        if self.overflowed == 0 || self.tokens == 0 || self.channels.iter().any(Channel::is_full) {
            return;
        }
        let time = clock::wall_ms();
        let digest = Notification {
            id: format!("digest-{time}"),
            time,
            state: Phase::Digest,
            deployable: None,
            incident: None,
            first: false,
            message: format!("{} more notifications; `cpe status` shows what is wrong", self.overflowed),
            messages: std::mem::take(&mut self.overflow),
        };
        self.overflowed = 0;
        let ids = std::mem::take(&mut self.gathered);
        let gathered = self.journal.gathered(ids, self.outgoing(&digest));
        // Without a journal it is told all the same.
        let _ = tokio::time::timeout(JOURNAL_TIMEOUT, gathered).await;
        self.post(&digest, None, |_| true);
        self.tokens -= 1;
    }

    fn outgoing(&self, notification: &Notification) -> Vec<Outgoing> {
        outbox::outgoing(notification, self.channels.iter().map(|channel| channel.word))
    }

    fn post(&self, notification: &Notification, kept: Option<&Notified>, to: impl Fn(&str) -> bool) {
        for channel in self.channels.iter().filter(|channel| to(channel.word)) {
            if channel.queue.try_send((notification.clone(), kept.cloned())).is_err() {
                self.metrics.notifications.dropped.inc();
            }
        }
    }
}

fn key_of(notified: Option<&Notified>) -> Option<Key> {
    notified.and_then(|it| Some((it.deployable.clone(), it.incident?)))
}

/// What a message says of its incident, without how long and how often: the same state is told once.
pub(super) fn state_of(message: &str) -> String {
    message.chars().filter(|character| !character.is_ascii_digit()).take(300).collect()
}

fn remember(set: &mut BTreeSet<Key>, key: Key) {
    set.insert(key);
    if set.len() > REMEMBERED {
        set.pop_first();
    }
}

/// How one channel tells.
enum Way {
    Command(PathBuf, Duration),
    Webhook(webhook::Poster),
    Email(Box<mail::Mailer>),
}

impl Way {
    const fn word(&self) -> &'static str {
        match self {
            Self::Command(..) => "command",
            Self::Webhook(_) => "webhook",
            Self::Email(_) => "email",
        }
    }
}

async fn deliver(
    mut way: Way,
    mut queue: mpsc::Receiver<(Notification, Option<Notified>)>,
    metrics: Arc<Metrics>,
    journal: Journal,
) {
    let word = way.word();
    while let Some((notification, kept)) = queue.recv().await {
        // Names and texts only: it cannot fail.
        let body = serde_json::to_vec(&notification).unwrap_or_default();
        let done = match &mut way {
            Way::Command(program, timeout) => {
                let called = command::call(program, body, *timeout).await;
                called.map_err(|error| format!("{}: {error}", program.display()))
            }
            Way::Webhook(poster) => {
                let posted = poster.post(&notification.id, &body).await;
                posted.map_err(|error| error.to_string())
            }
            Way::Email(mailer) => {
                let sent = mailer.send(&notification).await;
                sent.map_err(|error| error.to_string())
            }
        };
        // Before it is counted: who sees the count may end cpe.
        journal.delivered(notification.id.clone(), word);
        let outcome = match done {
            Ok(()) => {
                metrics.notifications.sent.inc();
                format!("told by {word}")
            }
            Err(error) => {
                metrics.notifications.failed.inc();
                let message = &notification.message;
                tracing::error!(%error, message, "a person could not be notified");
                format!("not told by {word}: {error}")
            }
        };
        if let Some(kept) = kept {
            journal.notified_outcome(kept, &outcome);
        }
    }
}
