//! The journal's own time, in milliseconds: engine time of this boot, set on after the newest record of the boot before. It never goes back
//! and nobody can set it, so an audit orders by it; wall time beside it is for people. It begins near wall time, so that records of older
//! versions, which have only that, lie before it.

use std::time::Duration;

use cpe_proto::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::store::{int, uint};
use crate::clock::Boot;

/// What engine time zero of one boot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    base: u64,
    /// What was written in this boot is not before that.
    begins: u64,
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
        let sql = "INSERT INTO boots (boot, base, begins) VALUES (?1, ?2, ?3)";
        connection.execute(sql, params![boot.id, int(base), int(begins)])?;
        Ok(Self { base, begins })
    }

    /// What the journal remembers of this boot.
    fn known(connection: &Connection, boot: &Boot) -> rusqlite::Result<Option<Self>> {
        let sql = "SELECT base, coalesce(begins, base) FROM boots WHERE boot = ?1";
        let found = |row: &Row<'_>| Ok(Self { base: uint(row.get(0)?), begins: uint(row.get(1)?) });
        connection.query_row(sql, [&boot.id], found).optional()
    }

    /// How old is what was written at those times. Within one boot its clock says so, whatever the wall clock was set to; of an earlier boot
    /// the wall clock does, and it is at least as old as this one (policy.md section 8).
    pub(super) fn age(self, wall: u64, steady: Option<u64>, boot: &Boot) -> Duration {
        let by_wall = boot.wall_ms.saturating_sub(wall);
        Duration::from_millis(match steady {
            Some(steady) if steady >= self.begins => self.at(boot.now).saturating_sub(steady),
            Some(_) => by_wall.max(millis(boot.now)),
            None => by_wall,
        })
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
            UNION ALL SELECT max(steady) FROM snapshots UNION ALL SELECT steady FROM guard
            UNION ALL SELECT max(steady) FROM intents UNION ALL SELECT max(resolved_steady) FROM intents)",
        [],
        |row| row.get(0),
    )?;
    Ok(newest.map_or(0, uint))
}

fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.since_boot().as_millis()).unwrap_or(u64::MAX)
}
