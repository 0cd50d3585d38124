//! The journal's own time, in milliseconds: engine time of this boot, set on after the newest record of the boot before. It never goes back
//! and nobody can set it, so an audit orders by it; wall time beside it is for people. It begins near wall time, so that records of older
//! versions, which have only that, lie before it.

use cpe_proto::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::store::{int, uint};
use crate::clock::Boot;

/// What engine time zero of one boot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    base: u64,
}

impl Axis {
    /// For a writer: the axis of this boot, which is remembered.
    pub(super) fn open(connection: &Connection, boot: &Boot) -> rusqlite::Result<Self> {
        if let Some(known) = Self::known(connection, boot)? {
            return Ok(known);
        }
        let begins = boot.wall_ms.max(newest(connection)?.saturating_add(1));
        let base = begins.saturating_sub(millis(boot.now));
        // That of an earlier boot is of no more use.
        connection.execute("DELETE FROM boots", [])?;
        connection.execute("INSERT INTO boots (boot, base) VALUES (?1, ?2)", params![boot.id, int(base)])?;
        Ok(Self { base })
    }

    /// What the journal remembers of this boot.
    fn known(connection: &Connection, boot: &Boot) -> rusqlite::Result<Option<Self>> {
        let sql = "SELECT base FROM boots WHERE boot = ?1";
        let base: Option<i64> = connection.query_row(sql, [&boot.id], |row| row.get(0)).optional()?;
        Ok(base.map(|base| Self { base: uint(base) }))
    }

    /// A point of engine time.
    pub(super) fn at(self, at: Timestamp) -> u64 {
        self.base.saturating_add(millis(at))
    }
}

/// For a reader: what time it is. On another machine, or after a reboot, not before the newest record.
pub(super) fn now(connection: &Connection, boot: &Boot) -> rusqlite::Result<u64> {
    let known = Axis::known(connection, boot)?;
    known.map_or_else(|| Ok(boot.wall_ms.max(newest(connection)?)), |axis| Ok(axis.at(boot.now)))
}

/// The time here of a wall time: as far from it as the record is that is nearest before it, or else after it.
pub(super) fn of_wall(connection: &Connection, wall: u64) -> rusqlite::Result<u64> {
    let near = |sql| -> rusqlite::Result<Option<(i64, i64)>> {
        connection.query_row(sql, [int(wall)], |row| Ok((row.get(0)?, row.get(1)?))).optional()
    };
    let before =
        near("SELECT time, coalesce(steady, time) FROM events WHERE time < ?1 ORDER BY time DESC LIMIT 1")?;
    let found = match before {
        None => {
            near("SELECT time, coalesce(steady, time) FROM events WHERE time >= ?1 ORDER BY time LIMIT 1")?
        }
        found => found,
    };
    Ok(found.map_or(wall, |(time, steady)| uint(int(wall).saturating_add(steady - time))))
}

fn newest(connection: &Connection) -> rusqlite::Result<u64> {
    let newest: Option<i64> = connection.query_row(
        "SELECT max(steady) FROM (
            SELECT (SELECT steady FROM events ORDER BY seq DESC LIMIT 1) AS steady
            UNION ALL SELECT (SELECT steady FROM decisions ORDER BY id DESC LIMIT 1)
            UNION ALL SELECT (SELECT steady FROM holds ORDER BY id DESC LIMIT 1)
            UNION ALL SELECT (SELECT steady FROM notifications ORDER BY id DESC LIMIT 1)
            UNION ALL SELECT max(steady) FROM intents UNION ALL SELECT max(resolved_steady) FROM intents)",
        [],
        |row| row.get(0),
    )?;
    Ok(newest.map_or(0, uint))
}

fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.since_boot().as_millis()).unwrap_or(u64::MAX)
}
