//! How a person is told: by the operator's own program (`command.rs`), by a POST (`webhook.rs`), by e-mail (`mail.rs`, over `smtp.rs`). What is told once, how often and
//! what goes into a digest is decided in `desk.rs`, what a killed cpe left unsent is in `outbox.rs`. Nothing here reaches an engine: telling never waits.

mod command;
mod desk;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod mail;
mod outbox;
mod smtp;
mod tls;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use cpe_proto::config::Notify;
use cpe_proto::id::{IncidentId, Name};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::clock;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::vital::Vital;
use desk::{Desk, Order};

/// Notifications that wait to be looked at; above it the newest are dropped and counted.
const QUEUE: usize = 256;

/// How fast people are told, and how long a channel may take.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// So many at once ...
    burst: u32,
    /// ... and one more after each of this; what is above goes into a digest.
    every: Duration,
    /// The program's deadline.
    program: Duration,
    /// Of what may pass.
    retry: Retry,
}

/// What may pass is tried again with a growing wait.
#[derive(Clone, Copy, Debug)]
struct Retry {
    /// Between the first two attempts; doubled each time.
    first_wait: Duration,
    /// After so many it is given up.
    attempts: usize,
}

impl Retry {
    /// The longest wait between two attempts.
    const WAIT_MAX: Duration = Duration::from_secs(60);

    /// The waits between the attempts.
    fn attempts(self) -> impl Iterator<Item = Duration> {
        let doubled = |wait: &Duration| Some((*wait * 2).min(Self::WAIT_MAX));
        std::iter::successors(Some(self.first_wait), doubled).take(self.attempts.saturating_sub(1))
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            burst: 10,
            every: Duration::from_secs(15),
            program: Duration::from_secs(30),
            // About nine minutes with the waits.
            retry: Retry { first_wait: Duration::from_secs(1), attempts: 14 },
        }
    }
}

/// Where an incident stands, for who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// Something needs a person.
    Open,
    /// It is over.
    Closed,
    /// Several that were too many to be told one by one.
    Digest,
}

/// What a person is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Notification {
    /// The same for each attempt to send it, also by the next cpe, and for no other.
    id: String,
    /// In milliseconds since 1970-01-01T00:00:00Z.
    time: u64,
    state: Phase,
    /// Absent in a digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    deployable: Option<Name>,
    /// `shop#3`, as `cpe why` takes it: the same from the first notification of an incident to its close.
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<String>,
    /// The first of its incident.
    #[serde(skip)]
    first: bool,
    /// One sentence.
    message: String,
    /// What a digest is of, the first ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    messages: Vec<String>,
}

/// The way to a person. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Notifier {
    orders: mpsc::Sender<Order>,
    metrics: Arc<Metrics>,
}

impl Notifier {
    /// A notifier with tasks of its own; without a way to anybody it only records what would be told. Within a runtime.
    #[must_use]
    pub fn new(notify: Notify, metrics: Arc<Metrics>, journal: Journal, vital: &Vital) -> Self {
        let pace = Pace { burst: notify.burst, every: notify.every, ..Pace::default() };
        Self::with_pace(notify, metrics, journal, pace, vital)
    }

    fn with_pace(notify: Notify, metrics: Arc<Metrics>, journal: Journal, pace: Pace, vital: &Vital) -> Self {
        let (orders, receive) = mpsc::channel(QUEUE);
        let desk = Desk::new(notify, Arc::clone(&metrics), journal, pace, vital);
        vital.spawn("notifier", desk.run(receive));
        Self { orders, metrics }
    }

    /// Tells a person, soon. Never waits.
    pub fn notify(&self, deployable: &Name, incident: Option<IncidentId>, message: &str) {
        let order = Order::Tell {
            time: clock::wall_ms(),
            deployable: deployable.clone(),
            incident,
            message: message.to_owned(),
        };
        if self.orders.try_send(order).is_err() {
            self.metrics.notifications.dropped.inc();
            tracing::error!(%deployable, message, "too many notifications wait: this one is dropped");
        }
    }

    /// An operator knows of an incident: no more of it is told.
    pub fn acknowledge(&self, deployable: &Name, incident: IncidentId) {
        let order = Order::Acknowledge(deployable.clone(), incident);
        if self.orders.try_send(order).is_err() {
            tracing::warn!(%deployable, "too many notifications wait: one more of that incident may be told");
        }
    }
}

#[cfg(test)]
mod tests;
