//! The SQL of reading: pages of events, and incidents with their timelines. On connections of their own that cannot write, a few at a
//! time, on threads that may block.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cpe_proto::api::{Acknowledged, Incident};
use cpe_proto::decision::Decision;
use cpe_proto::event::EventRecord;
use cpe_proto::id::{IncidentId, Name};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params, params_from_iter, types::Value};
use tokio::sync::Semaphore;

use super::JournalError;
use super::audit::intent;
use super::record::Maintenance;
use super::store::{from_json, int, maintenance, name, uint};
use crate::glob::{Glob, GlobError};

/// Queries at a time.
const READERS: usize = 3;
/// Open incidents that are looked at for one `why-not`.
const LATEST_INCIDENTS: i64 = 1_000;
/// Incidents of one answer.
const WHY_INCIDENTS: i64 = 20;
/// Events, decisions and intents that are shown of one incident, the first ones.
const WHY_ROWS: i64 = 1_000;

/// Which events.
#[derive(Clone, Debug)]
pub struct EventQuery {
    /// Of whom; none: of all, the controller included.
    pub name: Option<Glob>,
    /// Only those with a higher number.
    pub after_seq: u64,
    /// Only those from then on, in milliseconds since 1970-01-01T00:00:00Z.
    pub since: u64,
}

impl EventQuery {
    /// The most events of one answer.
    pub const PAGE: usize = 500;
}

/// The newest records of an open incident.
#[derive(Clone, Debug)]
pub struct Latest {
    /// The deployable.
    pub deployable: Name,
    /// Its number.
    pub incident: IncidentId,
    /// What it is about.
    pub assembly: Option<Name>,
    /// What it is about, for the service scope.
    pub service: Option<Name>,
    /// What isolation concluded last, as one clause.
    pub isolated: Option<Box<str>>,
    /// The newest decision, with its wall time in milliseconds.
    pub decision: Option<(u64, Decision)>,
}

/// Which incidents.
#[derive(Clone, Debug)]
pub enum WhyQuery {
    /// Those of a name, of what it contains and of what it is in.
    Name(Glob),
    /// That one.
    Incident(Name, IncidentId),
}

impl WhyQuery {
    /// `shop#3`, or a name or glob.
    ///
    /// # Errors
    /// What is wrong with the text, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((name, number)) = text.split_once('#') else {
            return text.parse().map(Self::Name).map_err(|error: GlobError| error.to_string());
        };
        let wrong = || format!("{text:?} is no incident: deployable#N, as in shop#12");
        let name = Name::parse(name).map_err(|_| wrong())?;
        Ok(Self::Incident(name, IncidentId(number.parse().map_err(|_| wrong())?)))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Reader {
    path: PathBuf,
    turns: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Reader {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, turns: Arc::new(Semaphore::new(READERS)), idle: Arc::default() }
    }

    pub(super) async fn events(&self, query: EventQuery) -> Result<Vec<EventRecord>, JournalError> {
        self.run(move |connection| events(connection, &query)).await
    }

    pub(super) async fn tail(&self, pattern: Option<Glob>, count: u32) -> Result<u64, JournalError> {
        self.run(move |connection| tail(connection, pattern.as_ref(), count)).await
    }

    pub(super) async fn why(&self, query: WhyQuery) -> Result<Vec<Incident>, JournalError> {
        self.run(move |connection| why(connection, &query)).await
    }

    /// Those that are open, of that name and of what is in it.
    pub(super) async fn open(&self, query: WhyQuery) -> Result<Vec<(Name, IncidentId)>, JournalError> {
        self.run(move |connection| open(connection, &query)).await
    }

    /// The newest records of the open incidents around that name, and every maintenance.
    pub(super) async fn latest(&self, wanted: Glob) -> Result<(Vec<Latest>, Vec<Maintenance>), JournalError> {
        self.run(move |connection| Ok((latest(connection, &wanted)?, maintenance(connection)?))).await
    }

    async fn run<T, F>(&self, query: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| JournalError::Closed)?;
        let reader = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let connection = reader.connection()?;
            let answer = query(&connection)?;
            reader.idle().push(connection);
            Ok(answer)
        });
        let answer: rusqlite::Result<T> = work.await.map_err(|_| JournalError::Closed)?;
        answer.map_err(|error| JournalError::Read(error.to_string().into()))
    }

    fn connection(&self) -> rusqlite::Result<Connection> {
        if let Some(connection) = self.idle().pop() {
            return Ok(connection);
        }
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(2))?;
        Ok(connection)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A condition on the columns of a name, and its values.
struct Condition {
    sql: String,
    values: Vec<Value>,
}

impl Condition {
    fn new() -> Self {
        Self { sql: String::from("1"), values: Vec::new() }
    }

    fn and(&mut self, sql: &str, value: impl Into<Value>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
        self.values.push(value.into());
    }

    /// Everything of `pattern` and what is in it. With `around` also what it is in.
    fn name(&mut self, pattern: &Glob, around: bool) {
        for (column, segment) in ["deployable", "assembly", "service"].into_iter().zip(pattern.segments()) {
            let operator = if segment.is_literal() { "=" } else { "GLOB" };
            let or_above = if around && column != "deployable" {
                format!(" OR {column} IS NULL")
            } else {
                String::new()
            };
            self.and(&format!("({column} {operator} ?{or_above})"), segment.as_str().to_owned());
        }
    }
}

fn events(connection: &Connection, query: &EventQuery) -> rusqlite::Result<Vec<EventRecord>> {
    let mut condition = Condition::new();
    condition.and("seq > ?", int(query.after_seq));
    condition.and("time >= ?", int(query.since));
    if let Some(pattern) = &query.name {
        condition.name(pattern, false);
    }
    let sql = format!(
        "SELECT seq, time, deployable, body FROM events WHERE {} ORDER BY seq LIMIT {}",
        condition.sql,
        EventQuery::PAGE
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(condition.values), event)?;
    rows.collect()
}

/// An event with its number, time and deployable.
pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<EventRecord> {
    let deployable: Option<String> = row.get(2)?;
    Ok(EventRecord {
        seq: uint(row.get(0)?),
        time: uint(row.get(1)?),
        deployable: deployable.map(name).transpose()?,
        event: from_json(3, &row.get::<_, String>(3)?)?,
    })
}

fn tail(connection: &Connection, pattern: Option<&Glob>, count: u32) -> rusqlite::Result<u64> {
    let mut condition = Condition::new();
    if let Some(pattern) = pattern {
        condition.name(pattern, false);
    }
    let sql = format!(
        "SELECT min(seq) FROM (SELECT seq FROM events WHERE {} ORDER BY seq DESC LIMIT {count})",
        condition.sql
    );
    let first: Option<i64> =
        connection.prepare(&sql)?.query_row(params_from_iter(condition.values), |row| row.get(0))?;
    match first {
        Some(first) => Ok(uint(first).saturating_sub(1)),
        None => {
            connection.query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| row.get(0)).map(uint)
        }
    }
}

fn why(connection: &Connection, query: &WhyQuery) -> rusqlite::Result<Vec<Incident>> {
    let mut condition = Condition::new();
    match query {
        WhyQuery::Name(pattern) => condition.name(pattern, true),
        WhyQuery::Incident(deployable, incident) => {
            condition.and("deployable = ?", deployable.as_str().to_owned());
            condition.and("incident = ?", int(incident.0));
        }
    }
    let sql = format!(
        "SELECT deployable, incident, opened, closed FROM incidents WHERE {}
         ORDER BY opened DESC, incident DESC LIMIT {WHY_INCIDENTS}",
        condition.sql
    );
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(condition.values), |row| {
        Ok(Incident {
            deployable: name(row.get(0)?)?,
            incident: IncidentId(uint(row.get(1)?)),
            opened: uint(row.get(2)?),
            closed: row.get::<_, Option<i64>>(3)?.map(uint),
            events: Vec::new(),
            decisions: Vec::new(),
            intents: Vec::new(),
            acknowledged: None,
        })
    })?;
    let mut incidents = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    for incident in &mut incidents {
        fill(connection, incident)?;
    }
    Ok(incidents)
}

fn open(connection: &Connection, query: &WhyQuery) -> rusqlite::Result<Vec<(Name, IncidentId)>> {
    let mut condition = Condition::new();
    match query {
        WhyQuery::Name(pattern) => condition.name(pattern, false),
        WhyQuery::Incident(deployable, incident) => {
            condition.and("deployable = ?", deployable.as_str().to_owned());
            condition.and("incident = ?", int(incident.0));
        }
    }
    let sql = format!(
        "SELECT deployable, incident FROM incidents WHERE closed IS NULL AND {} ORDER BY deployable, incident",
        condition.sql
    );
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(condition.values), |row| {
        Ok((name(row.get(0)?)?, IncidentId(uint(row.get(1)?))))
    })?;
    rows.collect()
}

fn latest(connection: &Connection, wanted: &Glob) -> rusqlite::Result<Vec<Latest>> {
    let mut condition = Condition::new();
    condition.name(wanted, true);
    let sql = format!(
        "SELECT deployable, incident, assembly, service FROM incidents WHERE closed IS NULL AND {}
         ORDER BY incident LIMIT {LATEST_INCIDENTS}",
        condition.sql
    );
    let mut statement = connection.prepare(&sql)?;
    let part = |text: Option<String>| text.map(name).transpose();
    let rows = statement.query_map(params_from_iter(condition.values), |row| {
        Ok(Latest {
            deployable: name(row.get(0)?)?,
            incident: IncidentId(uint(row.get(1)?)),
            assembly: part(row.get(2)?)?,
            service: part(row.get(3)?)?,
            isolated: None,
            decision: None,
        })
    })?;
    let mut found = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    for latest in &mut found {
        let of = params![latest.deployable.as_str(), int(latest.incident.0)];
        let isolated: Option<EventRecord> = connection
            .prepare_cached(
                "SELECT seq, time, deployable, body FROM events WHERE deployable = ?1 AND incident = ?2
                 AND kind = 'fault_isolated' ORDER BY seq DESC LIMIT 1",
            )?
            .query_row(of, event)
            .optional()?;
        latest.isolated = isolated.map(|record| record.event.reason);
        latest.decision = connection
            .prepare_cached(
                "SELECT time, body FROM decisions WHERE deployable = ?1 AND incident = ?2 ORDER BY id DESC LIMIT 1",
            )?
            .query_row(of, |row| Ok((uint(row.get(0)?), from_json(1, &row.get::<_, String>(1)?)?)))
            .optional()?;
    }
    Ok(found)
}

fn fill(connection: &Connection, incident: &mut Incident) -> rusqlite::Result<()> {
    let of = params![incident.deployable.as_str(), int(incident.incident.0), WHY_ROWS];
    incident.events = connection
        .prepare_cached(
            "SELECT seq, time, deployable, body FROM events WHERE deployable = ?1 AND incident = ?2 ORDER BY seq LIMIT ?3",
        )?
        .query_map(of, event)?
        .collect::<rusqlite::Result<_>>()?;
    incident.decisions = connection
        .prepare_cached(
            "SELECT time, body FROM decisions WHERE deployable = ?1 AND incident = ?2 ORDER BY id LIMIT ?3",
        )?
        .query_map(of, |row| Ok((uint(row.get(0)?), from_json::<Decision>(1, &row.get::<_, String>(1)?)?)))?
        .collect::<rusqlite::Result<_>>()?;
    incident.intents = connection
        .prepare_cached(
            "SELECT time, body, outcome, resolved, created FROM intents WHERE deployable = ?1 AND incident = ?2 ORDER BY action LIMIT ?3",
        )?
        .query_map(of, intent)?
        .collect::<rusqlite::Result<_>>()?;
    incident.acknowledged = connection
        .prepare_cached("SELECT time, ordered_by FROM acknowledged WHERE deployable = ?1 AND incident = ?2")?
        .query_row(params![incident.deployable.as_str(), int(incident.incident.0)], |row| {
            Ok(Acknowledged { time: uint(row.get(0)?), by: row.get(1)? })
        })
        .optional()?;
    Ok(())
}
