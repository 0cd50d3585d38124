//! The journal's tables, and how an older file becomes a newer one. The version is SQLite's `user_version`.

use rusqlite::Connection;

/// Each step from one version to the next; a step that was ever released is never changed.
const STEPS: [&str; 10] = [FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH, SEVENTH, EIGHTH, NINTH, TENTH];

/// The newest version that is known here.
pub(super) const VERSION: i64 = STEPS.len() as i64;

pub(super) const FIRST: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, time INTEGER NOT NULL,
    deployable TEXT, assembly TEXT, service TEXT, kind TEXT NOT NULL, incident INTEGER, body TEXT NOT NULL);
CREATE INDEX events_by_time ON events (time);
CREATE INDEX events_by_deployable ON events (deployable, seq);
CREATE INDEX events_by_incident ON events (deployable, incident, seq) WHERE incident IS NOT NULL;
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY, time INTEGER NOT NULL,
    deployable TEXT NOT NULL, incident INTEGER NOT NULL, action INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX decisions_by_time ON decisions (time);
CREATE INDEX decisions_by_incident ON decisions (deployable, incident, id);
CREATE TABLE intents (
    deployable TEXT NOT NULL, action INTEGER NOT NULL, incident INTEGER, time INTEGER NOT NULL, body TEXT NOT NULL,
    outcome TEXT, resolved INTEGER, PRIMARY KEY (deployable, action)) WITHOUT ROWID;
CREATE INDEX intents_unresolved ON intents (time) WHERE resolved IS NULL;
CREATE INDEX intents_by_incident ON intents (deployable, incident, action) WHERE incident IS NOT NULL;
CREATE TABLE incidents (
    deployable TEXT NOT NULL, incident INTEGER NOT NULL, assembly TEXT, service TEXT,
    opened INTEGER NOT NULL, closed INTEGER, PRIMARY KEY (deployable, incident)) WITHOUT ROWID;
CREATE INDEX incidents_by_time ON incidents (opened);
CREATE INDEX incidents_open ON incidents (opened) WHERE closed IS NULL;
CREATE TABLE counters (
    deployable TEXT PRIMARY KEY, action INTEGER NOT NULL, incident INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE maintenance (
    name TEXT PRIMARY KEY, until INTEGER NOT NULL, reason TEXT NOT NULL, ordered_by TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE desired (deployable TEXT PRIMARY KEY, state TEXT NOT NULL, time INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE commands (
    id INTEGER PRIMARY KEY, time INTEGER NOT NULL, ordered_by TEXT NOT NULL, body TEXT NOT NULL, answer TEXT NOT NULL);
";

/// Pauses, acknowledgements, who was told what, and when maintenance and pauses began and ended: what `cpe audit` needs to know of the past.
/// The pause of everything has the empty name.
const SECOND: &str = "
CREATE TABLE pauses (
    name TEXT PRIMARY KEY, since INTEGER NOT NULL, reason TEXT NOT NULL, ordered_by TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE holds (
    id INTEGER PRIMARY KEY, time INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, began INTEGER NOT NULL,
    ordered_by TEXT NOT NULL);
CREATE INDEX holds_by_time ON holds (time);
INSERT INTO holds (time, kind, name, began, ordered_by)
    SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000, 'maintenance', name, 1, ordered_by FROM maintenance;
CREATE TABLE acknowledged (
    deployable TEXT NOT NULL, incident INTEGER NOT NULL, time INTEGER NOT NULL, ordered_by TEXT NOT NULL,
    PRIMARY KEY (deployable, incident)) WITHOUT ROWID;
CREATE TABLE notifications (
    id INTEGER PRIMARY KEY, time INTEGER NOT NULL, deployable TEXT, incident INTEGER, state TEXT NOT NULL,
    message TEXT NOT NULL, outcome TEXT);
CREATE UNIQUE INDEX notifications_once ON notifications (deployable, incident, state) WHERE incident IS NOT NULL;
CREATE INDEX notifications_by_time ON notifications (time);
";

/// What each engine was written down as (`cpe_proto::snapshot`), the newest only.
const THIRD: &str = "
CREATE TABLE snapshots (deployable TEXT PRIMARY KEY, time INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
";

/// What the fleet guard was written down as (`cpe_proto::snapshot::guard`), the newest only.
const FOURTH: &str = "
CREATE TABLE guard (one INTEGER PRIMARY KEY CHECK (one = 1), time INTEGER NOT NULL, body TEXT NOT NULL);
";

/// Deployables whose engine panicked again and again.
const FIFTH: &str = "
CREATE TABLE parked (deployable TEXT PRIMARY KEY, since INTEGER NOT NULL, said TEXT NOT NULL, ran TEXT NOT NULL) WITHOUT ROWID;
";

/// Notifications that are to be sent, for each channel.
const SIXTH: &str = "
CREATE TABLE outbox (number INTEGER PRIMARY KEY, id TEXT NOT NULL, channel TEXT NOT NULL, body TEXT NOT NULL);
CREATE UNIQUE INDEX outbox_once ON outbox (id, channel);
";

/// The journal's own time (`axis.rs`), beside the wall time that people read; records of older versions have none.
const SEVENTH: &str = "
CREATE TABLE boots (boot TEXT PRIMARY KEY, base INTEGER NOT NULL) WITHOUT ROWID;
ALTER TABLE events ADD COLUMN steady INTEGER;
ALTER TABLE decisions ADD COLUMN steady INTEGER;
ALTER TABLE intents ADD COLUMN steady INTEGER;
ALTER TABLE intents ADD COLUMN resolved_steady INTEGER;
ALTER TABLE incidents ADD COLUMN steady INTEGER;
ALTER TABLE incidents ADD COLUMN closed_steady INTEGER;
ALTER TABLE notifications ADD COLUMN steady INTEGER;
ALTER TABLE acknowledged ADD COLUMN steady INTEGER;
ALTER TABLE holds ADD COLUMN steady INTEGER;
";

/// When the creation of a new instance was begun, which is once for each action.
const EIGHTH: &str = "
ALTER TABLE intents ADD COLUMN created INTEGER;
ALTER TABLE intents ADD COLUMN created_steady INTEGER;
";

/// The journal's own time of what is taken up at the start, so that a wall clock that was set makes nothing older.
const NINTH: &str = "
ALTER TABLE snapshots ADD COLUMN steady INTEGER;
ALTER TABLE guard ADD COLUMN steady INTEGER;
ALTER TABLE boots ADD COLUMN begins INTEGER;
";

/// No other tables: an order may be `powered_off` from here on, which an older cpe would take for a start.
const TENTH: &str = "";

/// The version of a file; 0 for a new one.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings a file to [`VERSION`], each step in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let found = usize::try_from(version(connection)?).unwrap_or(0);
    for (version, step) in (1_i64..).zip(STEPS).skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}
