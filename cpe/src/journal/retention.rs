//! What is deleted: what is older than `keep`, and the oldest while the file is above `max_size`. Never what an open incident or an
//! unresolved action needs. Bounded work in each pass, for the same thread makes intents durable.

use rusqlite::{Connection, OptionalExtension, params};

use super::store::{int, set_meta, uint};
use super::{RETAINED_AFTER, Settings, axis};

/// The most rows of each table that one pass deletes.
const PASS_ROWS: i64 = 2_000;
/// The most pages that one pass gives back to the file system: 8 MiB at SQLite's 4 KiB.
const PASS_PAGES: i64 = 2_048;

/// Whether there is more to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    More,
}

/// One pass.
pub(super) fn pass(connection: &mut Connection, settings: &Settings, now: u64) -> rusqlite::Result<Progress> {
    let keep = u64::try_from(settings.keep.as_millis()).unwrap_or(u64::MAX);
    let mut before = now.saturating_sub(keep);
    if size(connection)? > settings.max_size {
        before = before.max(age_of_the_oldest(connection)?);
    }
    let deleted = delete(connection, before)?;
    give_back(connection)?;
    let above = size(connection)? > settings.max_size;
    Ok(if deleted >= PASS_ROWS || (above && deleted > 0) { Progress::More } else { Progress::Done })
}

/// The file's size in bytes, without the pages that are free.
fn size(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map(uint);
    Ok(pragma("page_count")?.saturating_sub(pragma("freelist_count")?) * pragma("page_size")?)
}

/// Gives free pages back to the file system. SQLite does one page for each row that is asked for.
fn give_back(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({PASS_PAGES})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// The time before which about one pass of events lies.
fn age_of_the_oldest(connection: &Connection) -> rusqlite::Result<u64> {
    let edge: Option<i64> = connection
        .query_row("SELECT time FROM events ORDER BY time LIMIT 1 OFFSET ?1", [PASS_ROWS], |row| row.get(0))
        .optional()?;
    let newest: Option<i64> = connection.query_row("SELECT max(time) FROM events", [], |row| row.get(0))?;
    Ok(edge.or(newest).map_or(0, |time| uint(time) + 1))
}

fn delete(connection: &mut Connection, before: u64) -> rusqlite::Result<i64> {
    let transaction = connection.transaction()?;
    let retained_after = axis::of_wall(&transaction, before)?;
    let mut most = 0;
    for sql in [
        "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE time < ?1 AND NOT EXISTS (
            SELECT 1 FROM incidents WHERE incidents.deployable = events.deployable
            AND incidents.incident = events.incident AND closed IS NULL) ORDER BY time LIMIT ?2)",
        "DELETE FROM decisions WHERE id IN (SELECT id FROM decisions WHERE time < ?1 AND NOT EXISTS (
            SELECT 1 FROM incidents WHERE incidents.deployable = decisions.deployable
            AND incidents.incident = decisions.incident AND closed IS NULL) ORDER BY time LIMIT ?2)",
        "DELETE FROM intents WHERE (deployable, action) IN (
            SELECT deployable, action FROM intents WHERE time < ?1 AND resolved IS NOT NULL LIMIT ?2)",
        "DELETE FROM incidents WHERE (deployable, incident) IN (
            SELECT deployable, incident FROM incidents WHERE opened < ?1 AND closed < ?1 ORDER BY opened LIMIT ?2)",
        "DELETE FROM notifications WHERE id IN (SELECT id FROM notifications WHERE time < ?1 AND NOT EXISTS (
            SELECT 1 FROM incidents WHERE incidents.deployable = notifications.deployable
            AND incidents.incident = notifications.incident AND closed IS NULL) ORDER BY time LIMIT ?2)",
        // The newest of each name says what holds now.
        "DELETE FROM holds WHERE id IN (SELECT id FROM holds WHERE time < ?1 AND id NOT IN (
            SELECT max(id) FROM holds GROUP BY kind, name) ORDER BY time LIMIT ?2)",
        "DELETE FROM acknowledged WHERE (deployable, incident) IN (
            SELECT deployable, incident FROM acknowledged WHERE time < ?1 AND NOT EXISTS (
            SELECT 1 FROM incidents WHERE incidents.deployable = acknowledged.deployable
            AND incidents.incident = acknowledged.incident AND closed IS NULL) LIMIT ?2)",
        "DELETE FROM commands WHERE id IN (SELECT id FROM commands WHERE time < ?1 ORDER BY id LIMIT ?2)",
    ] {
        let rows = transaction.prepare_cached(sql)?.execute(params![int(before), PASS_ROWS])?;
        most = most.max(i64::try_from(rows).unwrap_or(i64::MAX));
    }
    if most > 0 {
        set_meta(&transaction, RETAINED_AFTER, retained_after)?;
    }
    transaction.commit()?;
    Ok(most)
}
