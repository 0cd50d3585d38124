//! `GET /v1/events`: one JSON object a line, the journal's first and then, with `follow`, each as it is written. Nothing is buffered for a
//! slow reader: it is served from the journal at its own pace, and cut off with a last line that says how to go on if it stops reading.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use cpe_proto::api::StreamEnd;
use cpe_proto::event::EventRecord;
use cpe_proto::id::Name;
use hyper::body::{Body as HttpBody, Frame};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use crate::glob::Glob;
use crate::journal::{EventQuery, Journal, JournalError};

/// Chunks between the journal and the socket.
const CHUNKS: usize = 8;
/// A reader that takes nothing for this long is cut off.
const STALL: Duration = Duration::from_secs(30);
/// A line without an event, so that a reader and we notice when the other end is gone.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) name: Option<Glob>,
    /// Only of these assemblies, and what is in them.
    pub(super) only: Option<BTreeSet<(Name, Name)>>,
    pub(super) since: u64,
    pub(super) after_seq: u64,
    pub(super) follow: bool,
}

/// The events as a body.
pub(super) fn events(journal: Journal, wanted: Wanted) -> Body {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    tokio::spawn(async move {
        // The last line has its place from the beginning, for it is needed when there is no other.
        let Ok(last) = sender.clone().reserve_owned().await else { return };
        let mut feed = Feed { journal, wanted, sender };
        if let Err(end @ (End::Stalled | End::Journal(_))) = feed.run().await {
            let line = StreamEnd { error: end.to_string(), after_seq: feed.wanted.after_seq };
            last.send(lines([line].iter()));
        }
    });
    Body::new(Chunks(chunks))
}

#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the reader left")]
    Left,
    #[error("cut off: nothing was read for 30 s; go on with after_seq")]
    Stalled,
    #[error("{0}")]
    Journal(#[from] JournalError),
    #[error("cpe is ending")]
    Closed,
}

struct Feed {
    journal: Journal,
    wanted: Wanted,
    sender: mpsc::Sender<Bytes>,
}

impl Feed {
    async fn run(&mut self) -> Result<(), End> {
        // Before the journal is read, so that nothing falls between the two.
        let mut live = self.journal.subscribe();
        self.kept().await?;
        if !self.wanted.follow {
            return Ok(());
        }
        loop {
            match tokio::time::timeout(KEEPALIVE, live.recv()).await {
                Err(_) => self.send(Bytes::from_static(b"\n")).await?,
                Ok(Ok(record)) => self.live(&record, &mut live).await?,
                // What was missed is in the journal.
                Ok(Err(RecvError::Lagged(_))) => self.kept().await?,
                Ok(Err(RecvError::Closed)) => return Err(End::Closed),
            }
        }
    }

    /// All that is in the journal by now.
    async fn kept(&mut self) -> Result<(), End> {
        loop {
            let Wanted { name, since, after_seq, .. } = self.wanted.clone();
            let page = self.journal.events(EventQuery { name, after_seq, since }).await?;
            let Some(last) = page.last() else { return Ok(()) };
            let after_seq = last.seq;
            let meant: Vec<_> = page.iter().filter(|record| self.inside(record)).collect();
            if !meant.is_empty() {
                self.send(lines(meant.into_iter())).await?;
            }
            self.wanted.after_seq = after_seq;
            if page.len() < EventQuery::PAGE {
                return Ok(());
            }
        }
    }

    /// One that was just written, and what else is there already, as one chunk.
    async fn live(
        &mut self,
        first: &EventRecord,
        live: &mut broadcast::Receiver<Arc<EventRecord>>,
    ) -> Result<(), End> {
        let mut records = Vec::new();
        self.take(first, &mut records);
        while records.len() < EventQuery::PAGE {
            let Ok(record) = live.try_recv() else { break };
            self.take(&record, &mut records);
        }
        if records.is_empty() {
            return Ok(());
        }
        self.send(lines(records.iter())).await
    }

    fn take(&mut self, record: &EventRecord, records: &mut Vec<EventRecord>) {
        if record.seq <= self.wanted.after_seq {
            return;
        }
        self.wanted.after_seq = record.seq;
        if record.time >= self.wanted.since && self.meant(record) {
            records.push(record.clone());
        }
    }

    fn inside(&self, record: &EventRecord) -> bool {
        let Some(only) = &self.wanted.only else { return true };
        let place = record.deployable.clone().zip(record.event.assembly.clone());
        place.is_some_and(|place| only.contains(&place))
    }

    fn meant(&self, record: &EventRecord) -> bool {
        if !self.inside(record) {
            return false;
        }
        let Some(name) = &self.wanted.name else { return true };
        let parts = [&record.deployable, &record.event.assembly, &record.event.service];
        let parts: Vec<&str> =
            parts.into_iter().map_while(|part| part.as_ref().map(|name| name.as_str())).collect();
        name.matches(&parts)
    }

    async fn send(&self, chunk: Bytes) -> Result<(), End> {
        match tokio::time::timeout(STALL, self.sender.send(chunk)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Left),
            Err(_) => Err(End::Stalled),
        }
    }
}

fn lines<'a, T: Serialize + 'a>(values: impl Iterator<Item = &'a T>) -> Bytes {
    let mut text = Vec::new();
    for value in values {
        // These types have no map with other keys than text, and a Vec takes all: it cannot fail.
        if serde_json::to_writer(&mut text, value).is_ok() {
            text.push(b'\n');
        }
    }
    text.into()
}

/// A body that is fed by a task.
struct Chunks(mpsc::Receiver<Bytes>);

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}
