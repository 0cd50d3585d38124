//! The journal: everything that happened, why, and what is about to be done, in one SQLite file under state_dir. Answers one question
//! before each action: is the intent durable? `writer.rs` is the only thread that writes; `store.rs` holds the SQL of writing,
//! `read.rs` that of reading, `schema.rs` the tables, `retention.rs` what is deleted, `lock.rs` that there is one cpe per state_dir.

mod audit;
mod axis;
mod lock;
mod read;
mod record;
mod retention;
mod schema;
mod store;
mod writer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use cpe_proto::api::{Command, Incident, Intent, JournalHealth};
use cpe_proto::decision::Decision;
use cpe_proto::event::{Event, EventRecord};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::snapshot::Snapshot;
use cpe_proto::snapshot::guard::GuardSnapshot;
use tokio::sync::{Semaphore, broadcast, oneshot, watch};

pub use audit::{AuditError, records};
pub use lock::LockError;
pub use read::{EventQuery, Latest, WhyQuery};
pub use record::{CPE, Desired, Maintenance, NextIds, Notified, Outgoing, Park, Pause, StartState};

use crate::clock;
use crate::glob::Glob;
use crate::metrics::Metrics;
use record::{Message, Record};

/// Records that wait or could not be written yet; above it they are dropped and counted. About 16 MB at 1 kB each.
const ROOM_RECORDS: usize = 16_384;
/// Callers that wait for durability at once. Their own room, so that a flood of events never holds an action up.
const ROOM_URGENT: usize = 1_024;
/// Events that a subscriber may lag behind before it has to read the journal again.
const LIVE_EVENTS: usize = 4_096;

/// The key of the time up to which retention has deleted, in `meta`.
const RETAINED_AFTER: &str = "retained_after";
/// The key of the time at which records were lost last, in `meta`.
const LOST_AT: &str = "lost_at";

/// Where the journal is and how much of it is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the journal and of the lock; made if it is missing.
    pub state_dir: PathBuf,
    /// What is older and closed is deleted.
    pub keep: Duration,
    /// Above this, in bytes, the oldest is deleted.
    pub max_size: u64,
}

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another cpe has it, or the folder is not ours.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// SQLite's own reason.
    #[error(
        "cannot open the journal {path}: {source}; if the file is damaged, move it away (a copy helps us to find out why): counts, \
         maintenance and desired states then start anew"
    )]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A newer cpe wrote it.
    #[error(
        "the journal {path} has schema {found}, this cpe knows up to {known}: run the newer cpe, or give another state_dir"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// The thread could not be started.
    #[error("cannot start the journal's thread: {0}")]
    Thread(std::io::Error),
}

/// Why something is not durable, or could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The write failed; it is tried again every second, but this intent is not: ask anew.
    #[error("the journal cannot be written: {0}")]
    NotWritable(Arc<str>),
    /// That action was begun before.
    #[error("action {action} of {deployable} was begun before: an action's number is used once")]
    Duplicate {
        /// Of which deployable.
        deployable: Name,
        /// Which action.
        action: ActionId,
    },
    /// The creation of that action was begun before, or its intent is not known.
    #[error("the creation of action {action} of {deployable} was begun before, or never intended")]
    Created {
        /// Of which deployable.
        deployable: Name,
        /// Which action.
        action: ActionId,
    },
    /// A person was told of that state of that incident before.
    #[error("told before")]
    Told,
    /// The query failed.
    #[error("the journal cannot be read: {0}")]
    Read(Arc<str>),
    /// The journal was closed.
    #[error("the journal is closed: this cpe is ending")]
    Closed,
}

/// Whether actions are possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writable {
    /// The last write worked.
    Yes,
    /// It did not, and why. Nothing is done until it does.
    No(Arc<str>),
}

/// A handle on the journal; all handles are of the same one.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    work: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    urgent: Arc<Semaphore>,
    dropped: Arc<AtomicU64>,
    ids: Mutex<BTreeMap<Name, NextIds>>,
    live: broadcast::Sender<Arc<EventRecord>>,
    writable: watch::Receiver<Writable>,
    reader: read::Reader,
    start: StartState,
    metrics: Arc<Metrics>,
    // Held for as long as a handle lives: the lock goes with it.
    _lock: lock::StateLock,
}

impl Journal {
    /// Locks state_dir, opens or makes the journal and starts its thread. Blocks: for the start of the process.
    ///
    /// # Errors
    /// [`OpenError`]: locked by another cpe, not readable, damaged, or written by a newer cpe.
    pub fn open(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Self, OpenError> {
        let lock = lock::StateLock::take(&settings.state_dir)?;
        let path = settings.state_dir.join("journal.sqlite");
        let mut store = store::Store::open(&path)?;
        let failed = |source| OpenError::Database { path: path.clone(), source };
        let start = store.start_state().map_err(failed)?;
        let (work, receive) = mpsc::channel();
        let live = broadcast::Sender::new(LIVE_EVENTS);
        let (writable, watched) = watch::channel(Writable::Yes);
        let dropped = Arc::new(AtomicU64::new(0));
        let parts = writer::Parts {
            receive,
            live: live.clone(),
            writable,
            dropped: Arc::clone(&dropped),
            metrics: Arc::clone(metrics),
            settings: settings.clone(),
            path: path.clone(),
        };
        writer::spawn(store, parts)?;
        Ok(Self(Arc::new(Inner {
            work,
            room: Arc::new(Semaphore::new(ROOM_RECORDS)),
            urgent: Arc::new(Semaphore::new(ROOM_URGENT)),
            dropped,
            ids: Mutex::new(start.ids.clone()),
            live,
            writable: watched,
            reader: read::Reader::new(path),
            start,
            metrics: Arc::clone(metrics),
            _lock: lock,
        })))
    }

    /// What was kept over the restart, as it was when the journal was opened.
    #[must_use]
    pub fn start_state(&self) -> &StartState {
        &self.0.start
    }

    /// The first numbers of a deployable that were never used.
    #[must_use]
    pub fn next_ids(&self, deployable: &Name) -> NextIds {
        self.ids().get(deployable).copied().unwrap_or_default()
    }

    /// Keeps an event, and tells subscribers. Not awaited: written with the next batch, at the latest after 50 ms.
    pub fn event(&self, deployable: Option<Name>, event: Event) {
        if let Some(deployable) = &deployable {
            self.used(deployable, event.action, event.incident);
        }
        let time = clock::wall_of(event.at);
        self.append(Record::Event { time, deployable, event });
    }

    /// Keeps a decision. Not awaited.
    pub fn decision(&self, deployable: Name, decision: Box<Decision>) {
        self.used(&deployable, Some(decision.action), Some(decision.incident));
        let time = clock::wall_of(decision.at);
        self.append(Record::Decision { time, deployable, decision });
    }

    /// Keeps who ordered what, and what was answered. Not awaited.
    pub fn command(&self, by: &str, command: &Command, answer: &str) {
        let (by, answer) = (by.to_owned(), answer.to_owned());
        self.append(Record::Command { time: clock::wall_ms(), by, command: command.clone(), answer });
    }

    /// Makes an intent durable: resolves when it and everything appended before it are on disk. No action before that.
    ///
    /// # Errors
    /// [`JournalError`]: the intent is not durable and the action must not be begun.
    pub async fn intend(&self, intent: Intent) -> Result<(), JournalError> {
        let started = Instant::now();
        self.used(&intent.deployable, Some(intent.action), intent.incident);
        self.durable(Record::Intent { time: clock::wall_ms(), intent: Box::new(intent) }).await?;
        self.0.metrics.journal_durable.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Makes durable that the creation of an action is begun, once: its intent is open again until it has ended.
    ///
    /// # Errors
    /// [`JournalError::Created`]: it was begun before. Others: it is not durable. Nothing may be created.
    pub async fn create(&self, deployable: &Name, action: ActionId) -> Result<(), JournalError> {
        self.durable(Record::Creation { time: clock::wall_ms(), deployable: deployable.clone(), action })
            .await
    }

    /// Keeps how an action ended, as one clause. Not awaited; kept in memory while the journal cannot be written.
    pub fn resolve(&self, deployable: &Name, action: ActionId, outcome: &str) {
        let (deployable, outcome) = (deployable.clone(), outcome.to_owned());
        self.append(Record::Outcome { time: clock::wall_ms(), deployable, action, outcome });
    }

    /// Keeps a maintenance, durably; replaces one of the same name.
    ///
    /// # Errors
    /// [`JournalError`]: it would not survive a restart.
    pub async fn set_maintenance(&self, maintenance: Maintenance) -> Result<(), JournalError> {
        self.durable(Record::Maintenance { time: clock::wall_ms(), maintenance }).await
    }

    /// Ends the maintenance of a deployable or assembly, durably; without one it is done already.
    ///
    /// # Errors
    /// [`JournalError`]: it would come back with a restart.
    pub async fn end_maintenance(&self, name: &str, by: &str) -> Result<(), JournalError> {
        let (name, by) = (name.to_owned(), by.to_owned());
        self.durable(Record::MaintenanceOver { time: clock::wall_ms(), name, by }).await
    }

    /// Keeps a pause, durably; replaces one of the same name.
    ///
    /// # Errors
    /// [`JournalError`]: it would not survive a restart.
    pub async fn set_pause(&self, pause: Pause) -> Result<(), JournalError> {
        self.durable(Record::Pause(pause)).await
    }

    /// Ends the pause of a deployable, or of everything (the empty name), durably; without one it is done already.
    ///
    /// # Errors
    /// [`JournalError`]: it would come back with a restart.
    pub async fn end_pause(&self, name: &str, by: &str) -> Result<(), JournalError> {
        let (name, by) = (name.to_owned(), by.to_owned());
        self.durable(Record::PauseOver { time: clock::wall_ms(), name, by }).await
    }

    /// Keeps that an operator knows of an incident, durably.
    ///
    /// # Errors
    /// [`JournalError`]: it would not survive a restart.
    pub async fn acknowledge(
        &self,
        deployable: Name,
        incident: IncidentId,
        by: &str,
    ) -> Result<(), JournalError> {
        let by = by.to_owned();
        self.durable(Record::Acknowledged { time: clock::wall_ms(), deployable, incident, by }).await
    }

    /// Keeps what an engine was written down as. Not awaited, but on disk before any intent that is made after it.
    pub fn snapshot(&self, deployable: Name, snapshot: Box<Snapshot>) {
        self.append(Record::Snapshot { time: clock::wall_ms(), deployable, snapshot });
    }

    /// Forgets it: the deployable is managed no more.
    pub fn forget_snapshot(&self, deployable: Name) {
        self.append(Record::NoSnapshot(deployable));
    }

    /// Keeps that the engine of a deployable is not to be started. Not awaited.
    pub fn park(&self, deployable: Name, park: Park) {
        self.append(Record::Parked { deployable, park });
    }

    /// Forgets it. Not awaited.
    pub fn unpark(&self, deployable: Name) {
        self.append(Record::Unparked(deployable));
    }

    /// Keeps what the fleet guard was written down as. Not awaited, but on disk before any intent that is made after it.
    pub fn guard(&self, snapshot: Box<GuardSnapshot>) {
        self.append(Record::Guard { time: clock::wall_ms(), snapshot });
    }

    /// Keeps what the fleet guard was written down as, durably: what it has begun by itself is never begun again.
    ///
    /// # Errors
    /// [`JournalError`]: it must not be begun.
    pub async fn guard_durably(&self, snapshot: Box<GuardSnapshot>) -> Result<(), JournalError> {
        self.durable(Record::Guard { time: clock::wall_ms(), snapshot }).await
    }

    /// Keeps what an operator wants of a deployable, durably.
    ///
    /// # Errors
    /// [`JournalError`]: it would not survive a restart.
    pub async fn set_desired(&self, deployable: Name, desired: Desired) -> Result<(), JournalError> {
        self.durable(Record::Desired { time: clock::wall_ms(), deployable, desired }).await
    }

    /// Keeps that a person is about to be told, durably, and what is to be sent for it.
    ///
    /// # Errors
    /// [`JournalError::Told`]: that state of that incident was told before. Others: it would not survive a restart.
    pub async fn notified(&self, notified: Notified, outgoing: Vec<Outgoing>) -> Result<(), JournalError> {
        self.durable(Record::Notified { notified, outgoing }).await
    }

    /// Keeps that what was to be sent under these ids is sent as one, durably.
    ///
    /// # Errors
    /// [`JournalError`]: after a restart each would be sent for itself.
    pub async fn gathered(&self, ids: Vec<String>, outgoing: Vec<Outgoing>) -> Result<(), JournalError> {
        self.durable(Record::Gathered { ids, outgoing }).await
    }

    /// Keeps that a notification was sent over a channel, or given up. Not awaited.
    pub fn delivered(&self, id: String, channel: &str) {
        self.append(Record::Delivered { id, channel: channel.to_owned() });
    }

    /// Keeps what became of a notification, as one clause. Not awaited.
    pub fn notified_outcome(&self, notified: Notified, outcome: &str) {
        self.append(Record::NotifiedOutcome { notified, outcome: outcome.to_owned() });
    }

    /// Events as they are written, in order. One that lags behind is told so and reads the rest with [`Self::events`].
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<EventRecord>> {
        self.0.live.subscribe()
    }

    /// Whether the last write worked, and a way to wait until that changes.
    #[must_use]
    pub fn writable(&self) -> watch::Receiver<Writable> {
        self.0.writable.clone()
    }

    /// For `GET /v1/health`.
    #[must_use]
    pub fn health(&self) -> JournalHealth {
        let queue = ROOM_RECORDS.saturating_sub(self.0.room.available_permits());
        let reason = match &*self.0.writable.borrow() {
            Writable::Yes => None,
            Writable::No(reason) => Some(reason.as_ref().into()),
        };
        JournalHealth {
            writable: reason.is_none(),
            reason: reason.unwrap_or_default(),
            queue: u64::try_from(queue).unwrap_or(u64::MAX),
            dropped: self.0.dropped.load(Ordering::Relaxed),
        }
    }

    /// One page of events, oldest first: at most [`EventQuery::PAGE`] of them.
    ///
    /// # Errors
    /// [`JournalError::Read`].
    pub async fn events(&self, query: EventQuery) -> Result<Vec<EventRecord>, JournalError> {
        self.0.reader.events(query).await
    }

    /// The number after which the newest `count` events that match begin.
    ///
    /// # Errors
    /// [`JournalError::Read`].
    pub async fn tail(&self, pattern: Option<Glob>, count: u32) -> Result<u64, JournalError> {
        self.0.reader.tail(pattern, count).await
    }

    /// Incidents with their timelines, newest first, at most 20.
    ///
    /// # Errors
    /// [`JournalError::Read`].
    pub async fn why(&self, query: WhyQuery) -> Result<Vec<Incident>, JournalError> {
        self.0.reader.why(query).await
    }

    /// The open incidents of a name and of what is in it, or the one of that number.
    ///
    /// # Errors
    /// [`JournalError::Read`].
    pub async fn open_incidents(&self, query: WhyQuery) -> Result<Vec<(Name, IncidentId)>, JournalError> {
        self.0.reader.open(query).await
    }

    /// The newest records of each open incident of a name, of what is in it and what it is in; and every maintenance.
    ///
    /// # Errors
    /// [`JournalError::Read`].
    pub async fn latest(&self, wanted: Glob) -> Result<(Vec<Latest>, Vec<Maintenance>), JournalError> {
        self.0.reader.latest(wanted).await
    }

    /// Resolves when the thread takes up what it is given: it lives, whether it can write or not.
    ///
    /// # Errors
    /// [`JournalError::Closed`]: it has ended.
    pub async fn beat(&self) -> Result<(), JournalError> {
        self.durable(Record::Beat).await
    }

    /// Ends its thread by a panic.
    #[cfg(test)]
    pub(crate) fn panic(&self) {
        self.append(Record::Panic);
    }

    /// Writes all that was appended and ends the thread. What is appended later is dropped.
    ///
    /// # Errors
    /// [`JournalError`]: the last records could not be written.
    pub async fn close(&self) -> Result<(), JournalError> {
        self.durable(Record::Close).await
    }

    fn append(&self, record: Record) {
        let room = Arc::clone(&self.0.room).try_acquire_owned();
        let sent = room
            .map(|permit| self.0.work.send(Message { record, at: clock::now(), permit, done: None }).is_ok());
        if !sent.unwrap_or(false) {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            self.0.metrics.journal_dropped.inc();
        }
    }

    async fn durable(&self, record: Record) -> Result<(), JournalError> {
        let permit = Arc::clone(&self.0.urgent).acquire_owned().await.map_err(|_| JournalError::Closed)?;
        let (done, answer) = oneshot::channel();
        let message = Message { record, at: clock::now(), permit, done: Some(done) };
        self.0.work.send(message).map_err(|_| JournalError::Closed)?;
        answer.await.map_err(|_| JournalError::Closed)?
    }

    fn used(&self, deployable: &Name, action: Option<ActionId>, incident: Option<IncidentId>) {
        let mut ids = self.ids();
        match ids.get_mut(deployable) {
            Some(next) => next.raise(action, incident),
            None => ids.entry(deployable.clone()).or_default().raise(action, incident),
        }
    }

    fn ids(&self) -> std::sync::MutexGuard<'_, BTreeMap<Name, NextIds>> {
        self.0.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
