//! The thread that writes. It collects what comes within a moment into one transaction, so that a hundred intents cost one fsync, and
//! decides what happens when a write fails: who waits is told at once, the rest is kept up to a bound and tried again every second.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use cpe_proto::event::{Event, EventKind, EventRecord};
use cpe_proto::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, broadcast, oneshot, watch};

use super::record::{Message, Record};
use super::store::{Durability, Entry, Store, Written, set_meta};
use super::{JournalError, LOST_AT, OpenError, Settings, Writable, retention};
use crate::clock;
use crate::event::plain;
use crate::metrics::Metrics;

/// Records that nobody waits for are collected for this long.
const GATHER: Duration = Duration::from_millis(50);
/// The most records of one transaction.
const BATCH_RECORDS: usize = 1_024;
/// Between two attempts while writing fails.
const RETRY: Duration = Duration::from_secs(1);
/// Records that could not be written and are kept for later; above it they are dropped and counted.
const BACKLOG_RECORDS: usize = 8_192;
/// Between two passes of retention.
const RETENTION_EVERY: Duration = Duration::from_secs(30);

/// What the thread needs.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) receive: Receiver<Message>,
    pub(super) live: broadcast::Sender<Arc<EventRecord>>,
    pub(super) writable: watch::Sender<Writable>,
    pub(super) dropped: Arc<AtomicU64>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) settings: Settings,
    pub(super) path: PathBuf,
}

/// Starts the thread; it ends with [`Record::Close`] or when the last handle is gone.
pub(super) fn spawn(mut store: Store, parts: Parts) -> Result<(), OpenError> {
    let failed = |source| OpenError::Database { path: parts.path.clone(), source };
    let next_seq = store.start_state().map_err(failed)?.next_seq;
    let writer = Writer {
        store,
        parts,
        next_seq,
        backlog: VecDeque::new(),
        failing: None,
        dropped_told: 0,
        retention_due: Instant::now() + RETENTION_EVERY,
        steady: clock::Steady::new(clock::now(), clock::wall_ms()),
    };
    std::thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || writer.run())
        .map(|_| ())
        .map_err(OpenError::Thread)
}

#[derive(Debug)]
struct Writer {
    store: Store,
    parts: Parts,
    next_seq: u64,
    backlog: VecDeque<Kept>,
    failing: Option<Arc<str>>,
    dropped_told: u64,
    retention_due: Instant,
    steady: clock::Steady,
}

/// A record that nobody waits for, until it is written.
#[derive(Debug)]
struct Kept {
    what: What,
    at: Timestamp,
    // Its room in the queue is taken until it is written or dropped.
    _permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum What {
    Event { record: Arc<EventRecord>, shown: bool },
    Other(Record),
}

/// Records that somebody waits for.
#[derive(Debug)]
struct Waiting {
    record: Record,
    at: Timestamp,
    done: oneshot::Sender<Result<(), JournalError>>,
    _permit: OwnedSemaphorePermit,
}

enum Gathered {
    Batch(Vec<Waiting>),
    Ended(Vec<Waiting>),
}

impl Writer {
    fn run(mut self) {
        loop {
            match self.gather() {
                Gathered::Batch(waiting) => self.write(waiting),
                Gathered::Ended(waiting) => {
                    self.write(waiting);
                    if let Err(error) = self.store.end(self.next_seq - 1) {
                        tracing::warn!(%error, "the journal was not ended cleanly; nothing of it is lost");
                    }
                    return;
                }
            }
            self.retain();
        }
    }

    /// Waits for records and takes what comes within a moment. Those that nobody waits for go to the backlog.
    fn gather(&mut self) -> Gathered {
        let mut waiting = Vec::new();
        let idle = if self.failing.is_some() { RETRY } else { RETENTION_EVERY };
        let mut until = Instant::now() + idle;
        let mut count = 0;
        loop {
            let message =
                match self.parts.receive.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(message) => message,
                    Err(RecvTimeoutError::Timeout) => return Gathered::Batch(waiting),
                    Err(RecvTimeoutError::Disconnected) => return Gathered::Ended(waiting),
                };
            count += 1;
            let closes = matches!(message.record, Record::Close);
            let urgent = self.take(message, &mut waiting);
            if closes {
                return Gathered::Ended(waiting);
            }
            if count >= BATCH_RECORDS {
                return Gathered::Batch(waiting);
            }
            if urgent {
                // Whatever is in the queue by now shares this fsync; nobody is waited for.
                until = Instant::now();
            } else if count == 1 && self.failing.is_none() {
                until = Instant::now() + GATHER;
            }
        }
    }

    fn take(&mut self, message: Message, waiting: &mut Vec<Waiting>) -> bool {
        let Message { record, at, permit, done } = message;
        #[cfg(test)]
        assert!(!matches!(record, Record::Panic), "told to panic");
        if let Some(done) = done {
            if matches!(record, Record::Beat) {
                // Who waits may have given up.
                let _ = done.send(Ok(()));
                return false;
            }
            waiting.push(Waiting { record, at, done, _permit: permit });
            return true;
        }
        self.keep(record, at, Some(permit));
        false
    }

    fn keep(&mut self, record: Record, at: Timestamp, permit: Option<OwnedSemaphorePermit>) {
        let mut what = match record {
            Record::Event { time, deployable, event } => self.number(time, deployable, event),
            other => What::Other(other),
        };
        if self.failing.is_some() {
            self.show(&mut what);
        }
        if self.backlog.len() >= BACKLOG_RECORDS {
            self.parts.dropped.fetch_add(1, Ordering::Relaxed);
            self.parts.metrics.journal_dropped.inc();
            return;
        }
        self.backlog.push_back(Kept { what, at, _permit: permit });
    }

    fn number(&mut self, time: u64, deployable: Option<cpe_proto::id::Name>, event: Event) -> What {
        let seq = self.next_seq;
        self.next_seq += 1;
        What::Event { record: Arc::new(EventRecord { seq, time, deployable, event }), shown: false }
    }

    /// Tells subscribers, once. While writing fails: at once, as long as the number is set aside durably.
    fn show(&self, what: &mut What) {
        let What::Event { record, shown } = what else { return };
        if *shown || (self.failing.is_some() && record.seq > self.store.reserved()) {
            return;
        }
        *shown = true;
        // No subscriber is no error.
        let _ = self.parts.live.send(Arc::clone(record));
    }

    fn write(&mut self, waiting: Vec<Waiting>) {
        if waiting.is_empty() && self.backlog.is_empty() && self.failing.is_none() {
            return;
        }
        match self.attempt(&waiting) {
            Ok(written) => self.succeeded(waiting, &written),
            Err(error) => self.failed(waiting, &error),
        }
    }

    /// One transaction. A file that failed is opened anew first: after an I/O error SQLite's own state may be stale.
    fn attempt(&mut self, waiting: &[Waiting]) -> Result<Vec<Written>, String> {
        if self.failing.is_some() {
            let reserved = self.store.reserved();
            self.store = Store::open(&self.parts.path).map_err(|error| error.to_string())?;
            if self.store.reserved() < reserved {
                tracing::error!("the journal was replaced while cpe ran: what it held before is gone");
            }
        }
        let durability = if waiting.is_empty() { Durability::Written } else { Durability::Synced };
        let mut batch: Vec<(Timestamp, Entry<'_>)> = Vec::with_capacity(self.backlog.len() + waiting.len());
        batch.extend(self.backlog.iter().map(|kept| match &kept.what {
            What::Event { record, .. } => (kept.at, Entry::Event(record)),
            What::Other(record) => (kept.at, Entry::Other(record)),
        }));
        batch.extend(waiting.iter().map(|waiting| (waiting.at, Entry::Other(&waiting.record))));
        self.store.write(&batch, self.next_seq - 1, durability).map_err(|error| error.to_string())
    }

    fn succeeded(&mut self, waiting: Vec<Waiting>, written: &[Written]) {
        let was_failing = self.failing.take();
        let first = self.backlog.len();
        for mut kept in std::mem::take(&mut self.backlog) {
            self.show(&mut kept.what);
        }
        for (index, waiting) in waiting.into_iter().enumerate() {
            let answer = match (written.get(first + index), &waiting.record) {
                (Some(Written::Duplicate), Record::Intent { intent, .. }) => Err(JournalError::Duplicate {
                    deployable: intent.deployable.clone(),
                    action: intent.action,
                }),
                (Some(Written::Duplicate), Record::Creation { deployable, action, .. }) => {
                    Err(JournalError::Created { deployable: deployable.clone(), action: *action })
                }
                (Some(Written::Duplicate), Record::Notified { .. }) => Err(JournalError::Told),
                _ => Ok(()),
            };
            // Who waits may have given up.
            let _ = waiting.done.send(answer);
        }
        self.parts.metrics.journal_queue.set(0);
        if was_failing.is_some() {
            tracing::warn!("the journal can be written again");
            self.parts.metrics.journal_writable.set(1);
            self.parts.writable.send_replace(Writable::Yes);
            self.tell("the journal can be written again: recovery goes on");
        }
        self.tell_dropped();
    }

    fn failed(&mut self, waiting: Vec<Waiting>, error: &str) {
        let reason: Arc<str> = error.into();
        let news = self.failing.replace(Arc::clone(&reason)).is_none();
        for waiting in waiting {
            let _ = waiting.done.send(Err(JournalError::NotWritable(Arc::clone(&reason))));
        }
        let mut backlog = std::mem::take(&mut self.backlog);
        for kept in &mut backlog {
            self.show(&mut kept.what);
        }
        self.backlog = backlog;
        self.parts.metrics.journal_queue.set(i64::try_from(self.backlog.len()).unwrap_or(i64::MAX));
        if news {
            tracing::error!(
                path = %self.parts.path.display(), %error,
                "the journal cannot be written: nothing is recovered until it can; check the disk"
            );
            self.parts.metrics.journal_writable.set(0);
            self.parts.writable.send_replace(Writable::No(reason));
            self.tell(&format!(
                "the journal cannot be written ({error}): probing goes on, nothing is recovered"
            ));
        }
    }

    /// An event of the journal's own.
    fn tell(&mut self, reason: &str) {
        let event = plain(EventKind::BreakerChanged, reason);
        self.keep(Record::Event { time: clock::wall_ms(), deployable: None, event }, clock::now(), None);
    }

    fn tell_dropped(&mut self) {
        let dropped = self.parts.dropped.load(Ordering::Relaxed);
        let news = dropped - self.dropped_told;
        if news == 0 {
            return;
        }
        self.dropped_told = dropped;
        // An audit must not take what was lost for what was never recorded.
        if let Err(error) = set_meta(&self.store.connection, LOST_AT, self.store.axis.at(clock::now())) {
            tracing::warn!(%error, "that records were lost could not be kept");
        }
        tracing::error!(records = news, "the journal was too slow or not writable: records were lost");
        self.tell(&format!(
            "{news} records were lost while the journal was too slow or could not be written"
        ));
    }

    fn retain(&mut self) {
        if self.failing.is_some() || Instant::now() < self.retention_due {
            return;
        }
        let wall = self.steady.wall_ms(clock::now(), clock::wall_ms());
        match retention::pass(&mut self.store.connection, &self.parts.settings, wall) {
            Ok(retention::Progress::Done) => self.retention_due = Instant::now() + RETENTION_EVERY,
            // Bounded work, then whoever waits is served first.
            Ok(retention::Progress::More) => self.retention_due = Instant::now() + RETRY,
            Err(error) => {
                tracing::warn!(%error, "old records could not be deleted from the journal");
                self.retention_due = Instant::now() + RETENTION_EVERY;
            }
        }
    }
}
