//! What the auditor needs, read from a journal's file: by a connection that cannot write, in one transaction, also while a cpe writes.
//! Its times are the journal's own (`axis.rs`): a wall clock that was set puts nothing out of order.

use std::path::Path;
use std::time::Duration;

use cpe_proto::api::IntentRecord;
use cpe_proto::id::{IncidentId, Name};
use dped::audit::{DecisionRecord, Hold, HoldKind, IncidentRecord, Notified, Records};
use rusqlite::{Connection, OpenFlags, Row};

use super::read::event;
use super::store::{from_json, meta, name, uint};
use super::{LOST_AT, RETAINED_AFTER, axis, schema};
use crate::clock;

/// Why a journal cannot be audited.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// SQLite's own reason.
    #[error("cannot read the journal {path}: {source}; give a state_dir or the file journal.sqlite in it")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: rusqlite::Error,
    },
    /// Another version of cpe wrote it.
    #[error(
        "the journal {path} has schema {found}, this cpe audits {known}: use the cpe that wrote it, or, if it is older, start this \
         version once on a copy"
    )]
    Version {
        /// The file.
        path: String,
        /// Its version.
        found: i64,
        /// What is known here.
        known: i64,
    },
}

/// All that the auditor looks at.
///
/// # Errors
/// [`AuditError`]: there is no journal, it is damaged, or of another version.
pub fn records(path: &Path, open_max: Duration) -> Result<Records, AuditError> {
    let failed = |source| AuditError::Read { path: path.display().to_string(), source };
    let mut connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
    let found = schema::version(&connection).map_err(failed)?;
    if found != schema::VERSION {
        let path = path.display().to_string();
        return Err(AuditError::Version { path, found, known: schema::VERSION });
    }
    read(&mut connection, open_max).map_err(failed)
}

fn read(connection: &mut Connection, open_max: Duration) -> rusqlite::Result<Records> {
    let transaction = connection.transaction()?;
    let kept = meta(&transaction, RETAINED_AFTER)?.max(meta(&transaction, LOST_AT)?).unwrap_or(0);
    Ok(Records {
        now: axis::now(&transaction, &clock::Boot::this())?,
        complete_since: kept,
        open_max: u64::try_from(open_max.as_millis()).unwrap_or(u64::MAX),
        decisions: all(
            &transaction,
            "SELECT id, coalesce(steady, time), deployable, body FROM decisions ORDER BY id",
            decision,
        )?,
        intents: all(
            &transaction,
            "SELECT coalesce(steady, time), body, outcome, coalesce(resolved_steady, resolved),
                    coalesce(created_steady, created)
             FROM intents ORDER BY 1, deployable, action",
            intent,
        )?,
        // Only the kinds that a rule looks at: most events are of states.
        events: all(
            &transaction,
            "SELECT seq, coalesce(steady, time), deployable, body FROM events
             WHERE kind IN ('recovery_finished', 'recovery_refused', 'maintenance_changed', 'breaker_changed', 'ordered', 'fenced')
                OR (kind = 'state_changed' AND body ->> 'to' = 'exhausted') ORDER BY seq",
            event,
        )?,
        incidents: all(
            &transaction,
            "SELECT deployable, incident, assembly, service, coalesce(steady, opened), coalesce(closed_steady, closed)
             FROM incidents",
            incident,
        )?,
        // Who acknowledges an incident knows of it, whether or not anything was sent.
        notifications: all(
            &transaction,
            "SELECT coalesce(steady, time), deployable, incident FROM notifications WHERE deployable IS NOT NULL
             UNION ALL SELECT coalesce(steady, time), deployable, incident FROM acknowledged ORDER BY 1",
            notified,
        )?,
        holds: all(&transaction, "SELECT coalesce(steady, time), kind, name, began FROM holds ORDER BY 1, id", hold)?,
    })
}

fn all<T>(
    connection: &Connection,
    sql: &str,
    row: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(sql)?.query_map([], row)?.collect()
}

fn decision(row: &Row<'_>) -> rusqlite::Result<DecisionRecord> {
    Ok(DecisionRecord {
        number: uint(row.get(0)?),
        time: uint(row.get(1)?),
        deployable: name(row.get(2)?)?,
        decision: from_json(3, &row.get::<_, String>(3)?)?,
    })
}

/// An intent with its outcome.
pub(super) fn intent(row: &Row<'_>) -> rusqlite::Result<IntentRecord> {
    Ok(IntentRecord {
        time: uint(row.get(0)?),
        intent: from_json(1, &row.get::<_, String>(1)?)?,
        created: row.get::<_, Option<i64>>(4)?.map(uint),
        outcome: row.get(2)?,
        resolved: row.get::<_, Option<i64>>(3)?.map(uint),
    })
}

fn incident(row: &Row<'_>) -> rusqlite::Result<IncidentRecord> {
    let part = |text: Option<String>| text.map(name).transpose();
    Ok(IncidentRecord {
        deployable: name(row.get(0)?)?,
        incident: IncidentId(uint(row.get(1)?)),
        assembly: part(row.get(2)?)?,
        service: part(row.get(3)?)?,
        opened: uint(row.get(4)?),
        closed: row.get::<_, Option<i64>>(5)?.map(uint),
    })
}

fn notified(row: &Row<'_>) -> rusqlite::Result<Notified> {
    let deployable: Name = name(row.get(1)?)?;
    let incident = row.get::<_, Option<i64>>(2)?.map(|incident| IncidentId(uint(incident)));
    Ok(Notified { time: uint(row.get(0)?), deployable, incident })
}

fn hold(row: &Row<'_>) -> rusqlite::Result<Hold> {
    let kind: String = row.get(1)?;
    let kind = if kind == "pause" { HoldKind::Pause } else { HoldKind::Maintenance };
    Ok(Hold { time: uint(row.get(0)?), kind, name: row.get(2)?, began: row.get(3)? })
}
