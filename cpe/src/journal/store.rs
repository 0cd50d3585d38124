//! The SQL of writing. One batch is one transaction: either all of it is in the file or nothing. Called by `writer.rs` only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use cpe_proto::api::Intent;
use cpe_proto::event::{EventKind, EventRecord};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::snapshot::Snapshot;
use cpe_proto::snapshot::guard::GuardSnapshot;
use cpe_proto::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::axis::Axis;
use super::record::{
    CPE, Desired, Maintenance, NextIds, Notified, Outgoing, Park, Pause, Record, StartState,
};
use super::{OpenError, schema};
use crate::clock;

/// Numbers of events that are set aside durably, so that one that was shown but not yet written is never used again.
pub(super) const SEQ_RESERVE: u64 = 65_536;

/// The most notifications that wait to be sent, over all channels.
const OUTBOX_MAX: i64 = 3_000;

/// Whether a commit must be on disk before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// fsync: somebody waits for it.
    Synced,
    /// Survives a crash of cpe, not a power cut of the next seconds.
    Written,
}

/// How old a row is, by its `time` and `steady`.
type Age<'a> = dyn Fn(&Row<'_>) -> rusqlite::Result<Duration> + 'a;

/// The one connection that writes.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) connection: Connection,
    durability: Option<Durability>,
    reserved: u64,
    pub(super) axis: Axis,
}

impl Store {
    /// Opens or makes the file and brings it to the newest schema.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Database { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(failed)?;
        let found = schema::version(&connection).map_err(failed)?;
        if found > schema::VERSION {
            return Err(OpenError::Newer { path: path.to_owned(), found, known: schema::VERSION });
        }
        prepare(&mut connection).map_err(failed)?;
        let reserved = meta(&connection, "seq_reserved").map_err(failed)?.unwrap_or(0);
        let axis = Axis::open(&connection, &clock::Boot::this()).map_err(failed)?;
        Ok(Self { connection, durability: None, reserved, axis })
    }

    /// What was kept over the restart.
    pub(super) fn start_state(&mut self) -> rusqlite::Result<StartState> {
        let axis = self.axis;
        let transaction = self.connection.transaction()?;
        let boot = clock::Boot::this();
        let age = |row: &Row<'_>| -> rusqlite::Result<Duration> {
            let steady: Option<i64> = row.get("steady")?;
            Ok(axis.age(uint(row.get("time")?), steady.map(uint), &boot))
        };
        let last: Option<i64> = transaction.query_row("SELECT max(seq) FROM events", [], |row| row.get(0))?;
        let last = last.map_or(0, i64::unsigned_abs);
        Ok(StartState {
            ids: ids(&transaction)?,
            maintenance: maintenance(&transaction)?,
            maintenance_ended: maintenance_ended(&transaction)?,
            outbox: outbox(&transaction)?,
            parked: parked(&transaction)?,
            pauses: pauses(&transaction)?,
            acknowledged: marked(&transaction, "acknowledged")?,
            told: marked(&transaction, "notifications")?,
            desired: desired(&transaction)?,
            snapshots: snapshots(&transaction, &age)?,
            guard: guard(&transaction, &age)?,
            unresolved: unresolved(&transaction)?,
            open_incidents: open_incidents(&transaction)?,
            next_seq: last.max(self.reserved) + 1,
        })
    }

    /// The last number that may be shown without being written.
    pub(super) const fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Writes a batch. `last_seq` is the highest number that its events have; the answers say which intents were new.
    pub(super) fn write(
        &mut self,
        batch: &[(Timestamp, Entry<'_>)],
        last_seq: u64,
        durability: Durability,
    ) -> rusqlite::Result<Vec<Written>> {
        self.set_durability(durability)?;
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut reserved = self.reserved;
        if last_seq + SEQ_RESERVE / 2 > reserved {
            reserved = last_seq + SEQ_RESERVE;
            set_meta(&transaction, "seq_reserved", reserved)?;
        }
        let mut ids = BTreeMap::new();
        let mut written = Vec::with_capacity(batch.len());
        for (at, entry) in batch {
            written.push(apply(&transaction, entry, int(self.axis.at(*at)), &mut ids)?);
        }
        keep_ids(&transaction, &ids)?;
        transaction.commit()?;
        self.reserved = reserved;
        Ok(written)
    }

    /// Gives unused numbers back: the last write of a clean end.
    pub(super) fn end(&mut self, last_seq: u64) -> rusqlite::Result<()> {
        set_meta(&self.connection, "seq_reserved", last_seq)?;
        self.reserved = last_seq;
        self.connection.pragma_update(None, "wal_checkpoint", "TRUNCATE").or(Ok(()))
    }

    fn set_durability(&mut self, durability: Durability) -> rusqlite::Result<()> {
        if self.durability == Some(durability) {
            return Ok(());
        }
        let value = match durability {
            Durability::Synced => "FULL",
            Durability::Written => "NORMAL",
        };
        self.connection.pragma_update(None, "synchronous", value)?;
        self.durability = Some(durability);
        Ok(())
    }
}

/// One record of a batch; an event has its number by now.
#[derive(Debug)]
pub(super) enum Entry<'a> {
    Event(&'a EventRecord),
    Other(&'a Record),
}

/// What became of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    New,
    /// An intent with a number that was used before, a creation that was begun before, or a notification that was given before.
    Duplicate,
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Bounds the file beside the database after a burst: 16 MiB.
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    connection.set_prepared_statement_cache_capacity(32);
    schema::migrate(connection)
}

fn apply(
    transaction: &Transaction<'_>,
    entry: &Entry<'_>,
    steady: i64,
    ids: &mut BTreeMap<Name, NextIds>,
) -> rusqlite::Result<Written> {
    match entry {
        Entry::Event(event) => {
            if let Some(deployable) = &event.deployable {
                raise(ids, deployable, event.event.action, event.event.incident);
            }
            insert_event(transaction, event, steady)?;
        }
        Entry::Other(record) => return apply_record(transaction, record, steady, ids),
    }
    Ok(Written::New)
}

fn apply_record(
    transaction: &Transaction<'_>,
    record: &Record,
    steady: i64,
    ids: &mut BTreeMap<Name, NextIds>,
) -> rusqlite::Result<Written> {
    match record {
        Record::Event { .. } | Record::Beat | Record::Close => {}
        #[cfg(test)]
        Record::Panic => {}
        Record::Decision { time, deployable, decision } => {
            raise(ids, deployable, Some(decision.action), Some(decision.incident));
            let body = json(decision)?;
            transaction
                .prepare_cached("INSERT INTO decisions (time, deployable, incident, action, body, steady) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![int(*time), deployable.as_str(), int(decision.incident.0), int(decision.action.0), body, steady])?;
        }
        Record::Command { time, by, command, answer } => {
            transaction
                .prepare_cached(
                    "INSERT INTO commands (time, ordered_by, body, answer) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![int(*time), by, json(command)?, answer])?;
        }
        Record::Intent { time, intent } => {
            raise(ids, &intent.deployable, Some(intent.action), intent.incident);
            return insert_intent(transaction, *time, intent, steady);
        }
        Record::Creation { time, deployable, action } => {
            let changed = transaction
                .prepare_cached(
                    "UPDATE intents SET created = ?3, created_steady = ?4, outcome = NULL, resolved = NULL,
                     resolved_steady = NULL WHERE deployable = ?1 AND action = ?2 AND created IS NULL",
                )?
                .execute(params![deployable.as_str(), int(action.0), int(*time), steady])?;
            return Ok(if changed == 0 { Written::Duplicate } else { Written::New });
        }
        Record::Outcome { time, deployable, action, outcome } => {
            transaction
                .prepare_cached(
                    "UPDATE intents SET outcome = ?3, resolved = ?4, resolved_steady = ?5 WHERE deployable = ?1 AND action = ?2",
                )?
                .execute(params![deployable.as_str(), int(action.0), outcome, int(*time), steady])?;
        }
        Record::Maintenance { time, maintenance: Maintenance { name, until, reason, by } } => {
            hold(transaction, (*time, steady), "maintenance", name, true, by)?;
            transaction
                .prepare_cached("INSERT OR REPLACE INTO maintenance (name, until, reason, ordered_by) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![name, int(*until), reason, by])?;
        }
        Record::MaintenanceOver { time, name, by } => {
            hold(transaction, (*time, steady), "maintenance", name, false, by)?;
            transaction.prepare_cached("DELETE FROM maintenance WHERE name = ?1")?.execute([name])?;
        }
        Record::Pause(Pause { name, since, reason, by }) => {
            hold(transaction, (*since, steady), "pause", name, true, by)?;
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO pauses (name, since, reason, ordered_by) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![name, int(*since), reason, by])?;
        }
        Record::PauseOver { time, name, by } => {
            hold(transaction, (*time, steady), "pause", name, false, by)?;
            transaction.prepare_cached("DELETE FROM pauses WHERE name = ?1")?.execute([name])?;
        }
        Record::Acknowledged { time, deployable, incident, by } => {
            transaction
                .prepare_cached(
                    "INSERT OR IGNORE INTO acknowledged (deployable, incident, time, ordered_by, steady) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![deployable.as_str(), int(incident.0), int(*time), by, steady])?;
        }
        Record::Notified { notified, outgoing } => {
            let written = insert_notified(transaction, notified, steady)?;
            if written == Written::New {
                insert_outgoing(transaction, outgoing)?;
            }
            return Ok(written);
        }
        Record::Gathered { ids, outgoing } => {
            for id in ids {
                transaction.prepare_cached("DELETE FROM outbox WHERE id = ?1")?.execute([id])?;
            }
            insert_outgoing(transaction, outgoing)?;
        }
        Record::Delivered { id, channel } => {
            transaction
                .prepare_cached("DELETE FROM outbox WHERE id = ?1 AND channel = ?2")?
                .execute([id, channel])?;
        }
        Record::NotifiedOutcome { notified, outcome } => {
            transaction
                .prepare_cached(
                    "UPDATE notifications SET outcome = ?4 WHERE id = (SELECT max(id) FROM notifications
                     WHERE deployable = ?1 AND incident IS ?2 AND state = ?3)",
                )?
                .execute(params![
                    notified.deployable.as_str(),
                    notified.incident.map(|incident| int(incident.0)),
                    notified.state,
                    outcome
                ])?;
        }
        Record::Snapshot { time, deployable, snapshot } => {
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO snapshots (deployable, time, body, steady) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![deployable.as_str(), int(*time), json(snapshot)?, steady])?;
        }
        Record::NoSnapshot(deployable) => {
            transaction
                .prepare_cached("DELETE FROM snapshots WHERE deployable = ?1")?
                .execute(params![deployable.as_str()])?;
        }
        Record::Parked { deployable, park: Park { since, said, ran } } => {
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO parked (deployable, since, said, ran) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![deployable.as_str(), int(*since), said, ran])?;
        }
        Record::Unparked(deployable) => {
            transaction
                .prepare_cached("DELETE FROM parked WHERE deployable = ?1")?
                .execute(params![deployable.as_str()])?;
        }
        Record::Guard { time, snapshot } => {
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO guard (one, time, body, steady) VALUES (1, ?1, ?2, ?3)",
                )?
                .execute(params![int(*time), json(snapshot)?, steady])?;
        }
        Record::Desired { time, deployable, desired } => {
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO desired (deployable, state, time) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![deployable.as_str(), desired.as_str(), int(*time)])?;
        }
    }
    Ok(Written::New)
}

fn insert_event(transaction: &Transaction<'_>, record: &EventRecord, steady: i64) -> rusqlite::Result<()> {
    let event = &record.event;
    let deployable = record.deployable.as_ref().map(Name::as_str);
    let (assembly, service) =
        (event.assembly.as_ref().map(Name::as_str), event.service.as_ref().map(Name::as_str));
    let incident = event.incident.map(|incident| int(incident.0));
    let (seq, time) = (int(record.seq), int(record.time));
    transaction
        .prepare_cached(
            "INSERT INTO events (seq, time, deployable, assembly, service, kind, incident, body, steady)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            seq,
            time,
            deployable,
            assembly,
            service,
            event.kind.as_str(),
            incident,
            json(event)?,
            steady
        ])?;
    match event.kind {
        EventKind::IncidentOpened => transaction
            .prepare_cached(
                "INSERT OR IGNORE INTO incidents (deployable, incident, assembly, service, opened, steady)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![deployable, incident, assembly, service, time, steady])?,
        EventKind::IncidentClosed => transaction
            .prepare_cached("UPDATE incidents SET closed = ?3, closed_steady = ?4 WHERE deployable = ?1 AND incident = ?2 AND closed IS NULL")?
            .execute(params![deployable, incident, time, steady])?,
        _ => 0,
    };
    Ok(())
}

fn insert_intent(
    transaction: &Transaction<'_>,
    time: u64,
    intent: &Intent,
    steady: i64,
) -> rusqlite::Result<Written> {
    let incident = intent.incident.map(|incident| int(incident.0));
    let changed = transaction
        .prepare_cached("INSERT OR IGNORE INTO intents (deployable, action, incident, time, body, steady) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![intent.deployable.as_str(), int(intent.action.0), incident, int(time), json(intent)?, steady])?;
    Ok(if changed == 0 { Written::Duplicate } else { Written::New })
}

fn insert_notified(
    transaction: &Transaction<'_>,
    notified: &Notified,
    steady: i64,
) -> rusqlite::Result<Written> {
    let Notified { time, deployable, incident, state, message } = notified;
    let incident = incident.map(|incident| int(incident.0));
    let changed = transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO notifications (time, deployable, incident, state, message, steady) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![int(*time), deployable.as_str(), incident, state, message, steady])?;
    Ok(if changed == 0 { Written::Duplicate } else { Written::New })
}

fn insert_outgoing(transaction: &Transaction<'_>, outgoing: &[Outgoing]) -> rusqlite::Result<()> {
    for Outgoing { id, channel, body } in outgoing {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO outbox (id, channel, body) VALUES (?1, ?2, ?3)")?
            .execute([id, channel, body])?;
    }
    // The newest are kept: a person is told of what is, before what was.
    transaction
        .prepare_cached("DELETE FROM outbox WHERE number <= (SELECT max(number) FROM outbox) - ?1")?
        .execute([OUTBOX_MAX])?;
    Ok(())
}

fn outbox(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<Outgoing>> {
    let mut statement = transaction.prepare("SELECT id, channel, body FROM outbox ORDER BY number")?;
    let rows = statement
        .query_map([], |row| Ok(Outgoing { id: row.get(0)?, channel: row.get(1)?, body: row.get(2)? }))?;
    rows.collect()
}

fn hold(
    transaction: &Transaction<'_>,
    (time, steady): (u64, i64),
    kind: &str,
    name: &str,
    began: bool,
    by: &str,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO holds (time, kind, name, began, ordered_by, steady) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![int(time), kind, name, began, by, steady])?;
    Ok(())
}

fn raise(
    ids: &mut BTreeMap<Name, NextIds>,
    deployable: &Name,
    action: Option<ActionId>,
    incident: Option<IncidentId>,
) {
    if action.is_none() && incident.is_none() {
        return;
    }
    ids.entry(deployable.clone()).or_default().raise(action, incident);
}

fn keep_ids(transaction: &Transaction<'_>, ids: &BTreeMap<Name, NextIds>) -> rusqlite::Result<()> {
    for (deployable, next) in ids {
        transaction
            .prepare_cached(
                "INSERT INTO counters (deployable, action, incident) VALUES (?1, ?2, ?3)
                 ON CONFLICT (deployable) DO UPDATE SET action = max(action, ?2), incident = max(incident, ?3)",
            )?
            .execute(params![deployable.as_str(), int(next.action.0), int(next.incident.0)])?;
    }
    Ok(())
}

fn ids(transaction: &Transaction<'_>) -> rusqlite::Result<BTreeMap<Name, NextIds>> {
    let mut statement = transaction.prepare("SELECT deployable, action, incident FROM counters")?;
    let rows = statement.query_map([], |row| {
        let next = NextIds { action: ActionId(uint(row.get(1)?)), incident: IncidentId(uint(row.get(2)?)) };
        Ok((name(row.get(0)?)?, next))
    })?;
    rows.collect()
}

/// The newest end of each name that a person ordered.
fn maintenance_ended(connection: &Connection) -> rusqlite::Result<BTreeMap<String, u64>> {
    let mut statement = connection.prepare(
        "SELECT name, max(time) FROM holds WHERE kind = 'maintenance' AND began = 0 AND ordered_by <> ?1 GROUP BY name",
    )?;
    let rows = statement.query_map([CPE], |row| Ok((row.get(0)?, uint(row.get(1)?))))?;
    rows.collect()
}

pub(super) fn maintenance(connection: &Connection) -> rusqlite::Result<Vec<Maintenance>> {
    let mut statement =
        connection.prepare("SELECT name, until, reason, ordered_by FROM maintenance ORDER BY name")?;
    let rows = statement.query_map([], |row| {
        Ok(Maintenance { name: row.get(0)?, until: uint(row.get(1)?), reason: row.get(2)?, by: row.get(3)? })
    })?;
    rows.collect()
}

fn parked(transaction: &Transaction<'_>) -> rusqlite::Result<BTreeMap<Name, Park>> {
    let mut statement = transaction.prepare("SELECT deployable, since, said, ran FROM parked")?;
    let rows = statement.query_map([], |row| {
        Ok((name(row.get(0)?)?, Park { since: uint(row.get(1)?), said: row.get(2)?, ran: row.get(3)? }))
    })?;
    rows.collect()
}

fn pauses(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<Pause>> {
    let mut statement =
        transaction.prepare("SELECT name, since, reason, ordered_by FROM pauses ORDER BY name")?;
    let rows = statement.query_map([], |row| {
        Ok(Pause { name: row.get(0)?, since: uint(row.get(1)?), reason: row.get(2)?, by: row.get(3)? })
    })?;
    rows.collect()
}

/// The open incidents that have a row in that table.
fn marked(
    transaction: &Transaction<'_>,
    table: &'static str,
) -> rusqlite::Result<BTreeSet<(Name, IncidentId)>> {
    let mut statement = transaction.prepare(&format!(
        "SELECT DISTINCT deployable, incident FROM {table} JOIN incidents USING (deployable, incident) WHERE closed IS NULL"
    ))?;
    let rows = statement.query_map([], |row| Ok((name(row.get(0)?)?, IncidentId(uint(row.get(1)?)))))?;
    rows.collect()
}

fn desired(transaction: &Transaction<'_>) -> rusqlite::Result<BTreeMap<Name, Desired>> {
    let mut statement = transaction.prepare("SELECT deployable, state FROM desired")?;
    let rows = statement.query_map([], |row| Ok((name(row.get(0)?)?, wanted(&row.get::<_, String>(1)?)?)))?;
    rows.collect()
}

/// What nobody knows is not taken for a start: what was meant may have been the opposite.
fn wanted(word: &str) -> rusqlite::Result<Desired> {
    let what =
        || std::io::Error::other(format!("an order of which this cpe does not know the word: {word:?}"));
    Desired::of(word).ok_or_else(|| unreadable(1, what()))
}

fn guard(
    transaction: &Transaction<'_>,
    age: &Age<'_>,
) -> rusqlite::Result<Option<(Duration, GuardSnapshot)>> {
    let mut statement = transaction.prepare("SELECT time, steady, body FROM guard")?;
    let mut rows = statement
        .query_map([], |row| Ok((age(row)?, serde_json::from_str(&row.get::<_, String>("body")?))))?;
    let Some((age, snapshot)) = rows.next().transpose()? else { return Ok(None) };
    match snapshot {
        Ok(snapshot) => Ok(Some((age, snapshot))),
        // A newer cpe wrote it: what is still down is held anew when it is seen.
        Err(error) => {
            tracing::warn!(%error, "the guard's snapshot cannot be read: budgets and holds start anew");
            Ok(None)
        }
    }
}

fn snapshots(
    transaction: &Transaction<'_>,
    age: &Age<'_>,
) -> rusqlite::Result<BTreeMap<Name, (Duration, Snapshot)>> {
    let mut statement = transaction.prepare("SELECT deployable, time, steady, body FROM snapshots")?;
    let rows = statement.query_map([], |row| {
        Ok((name(row.get(0)?)?, age(row)?, serde_json::from_str(&row.get::<_, String>("body")?)))
    })?;
    let mut snapshots = BTreeMap::new();
    for row in rows {
        let (deployable, age, snapshot) = row?;
        match snapshot {
            Ok(snapshot) => drop(snapshots.insert(deployable, (age, snapshot))),
            // A newer cpe wrote it: that engine begins anew, as after its first start.
            Err(error) => {
                tracing::warn!(%deployable, %error, "the engine's snapshot cannot be read: its counts start anew");
            }
        }
    }
    Ok(snapshots)
}

fn unresolved(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<(u64, Intent)>> {
    let mut statement = transaction
        .prepare("SELECT time, body FROM intents WHERE resolved IS NULL ORDER BY time, deployable, action")?;
    let rows =
        statement.query_map([], |row| Ok((uint(row.get(0)?), from_json(1, &row.get::<_, String>(1)?)?)))?;
    rows.collect()
}

fn open_incidents(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<(Name, IncidentId)>> {
    let mut statement = transaction.prepare(
        "SELECT deployable, incident FROM incidents WHERE closed IS NULL ORDER BY deployable, incident",
    )?;
    let rows = statement.query_map([], |row| Ok((name(row.get(0)?)?, IncidentId(uint(row.get(1)?)))))?;
    rows.collect()
}

pub(super) fn meta(connection: &Connection, key: &str) -> rusqlite::Result<Option<u64>> {
    let value: Option<i64> =
        connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()?;
    Ok(value.map(uint))
}

pub(super) fn set_meta(connection: &Connection, key: &str, value: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute(params![key, int(value)])?;
    Ok(())
}

/// SQLite's integers are signed; ours stay far below 2^63.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The other way.
pub(super) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn name(text: String) -> rusqlite::Result<Name> {
    Name::try_from(text).map_err(|error| unreadable(0, error))
}

pub(super) fn from_json<T: serde::de::DeserializeOwned>(column: usize, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| unreadable(column, error))
}

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

fn json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
