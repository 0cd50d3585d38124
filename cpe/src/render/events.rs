//! Events as sentences, one line each: `10:42:07  shop/web/nginx  restarted (unit inactive, ...), healthy after 5.2 s`. In a listing the start
//! and the end of a recovery are one sentence ([`Joined`]); while following, each is told when it happens ([`Follow`]). What another event
//! tells better has no line of its own (`quiet.rs`); `--json` has everything.

use std::collections::VecDeque;

use cpe_proto::event::{EventKind, EventRecord};
use cpe_proto::id::{ActionId, Name};
use cpe_proto::rung::Rung;
use cpe_proto::state::State;

use super::quiet::Quiet;
use super::{Reader, plain, word};

/// Lines that wait for the end of a recovery that began before them. When there are more, the first is told without its end.
const WAIT_MAX: usize = 2_000;

/// Each event by itself, at once.
#[derive(Clone, Debug)]
pub struct Follow {
    reader: Reader,
    quiet: Quiet,
}

impl Follow {
    /// For that reader.
    #[must_use]
    pub fn new(reader: Reader) -> Self {
        Self { reader, quiet: Quiet::default() }
    }

    /// The event as a sentence without its time and subject; none where another event says it.
    #[must_use]
    pub fn sentence(&mut self, record: &EventRecord) -> Option<String> {
        (!self.quiet.hides(record)).then(|| plain(&sentence(record)))
    }

    /// The event's line, without a line end; none where another event says it.
    #[must_use]
    pub fn line(&mut self, record: &EventRecord) -> Option<String> {
        (!self.quiet.hides(record)).then(|| line(&self.reader, record, &sentence(record)))
    }
}

/// Events of which a recovery's start and end are joined to one sentence, at the place of the start.
#[derive(Debug)]
pub struct Joined {
    reader: Reader,
    quiet: Quiet,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    record: EventRecord,
    end: Option<EventRecord>,
}

impl Waiting {
    fn key(&self) -> Option<(&Name, ActionId)> {
        if self.record.event.kind != EventKind::RecoveryStarted || self.end.is_some() {
            return None;
        }
        key(&self.record)
    }
}

impl Joined {
    /// For that reader.
    #[must_use]
    pub fn new(reader: Reader) -> Self {
        Self { reader, quiet: Quiet::default(), waiting: VecDeque::new() }
    }

    /// Takes the next event; the answer is the lines that are complete by now, in order.
    pub fn push(&mut self, record: EventRecord) -> Vec<String> {
        if self.quiet.hides(&record) {
            return Vec::new();
        }
        // A late outcome of an old action has no state: it is told by itself.
        let begun = (record.event.kind == EventKind::RecoveryFinished && record.event.to.is_some())
            .then(|| {
                self.waiting
                    .iter_mut()
                    .find(|waiting| waiting.key().is_some() && waiting.key() == key(&record))
            })
            .flatten();
        match begun {
            Some(begun) => begun.end = Some(record),
            None => self.waiting.push_back(Waiting { record, end: None }),
        }
        let mut lines = Vec::new();
        while self.waiting.front().is_some_and(|first| first.key().is_none()) || self.waiting.len() > WAIT_MAX
        {
            lines.extend(self.pop());
        }
        lines
    }

    /// What is left: recoveries that have not ended, and what came after them.
    pub fn finish(mut self) -> Vec<String> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    fn pop(&mut self) -> Option<String> {
        let Waiting { record, end } = self.waiting.pop_front()?;
        let said = end.map_or_else(|| sentence(&record), |end| joined(&record, &end));
        Some(line(&self.reader, &record, &said))
    }
}

fn key(record: &EventRecord) -> Option<(&Name, ActionId)> {
    record.deployable.as_ref().zip(record.event.action)
}

fn line(reader: &Reader, record: &EventRecord, sentence: &str) -> String {
    format!("{}  {}  {}", reader.time(record.time), record.subject(), plain(sentence))
}

/// One event as a sentence without its subject.
pub(super) fn sentence(record: &EventRecord) -> String {
    let event = &record.event;
    let reason = &*event.reason;
    // As `cpe why` takes it: incident shop#3.
    let incident = match (&record.deployable, event.incident) {
        (Some(deployable), Some(number)) => format!("incident {deployable}#{number}"),
        _ => "incident".to_owned(),
    };
    match event.kind {
        EventKind::StateChanged => match event.to {
            Some(to) => aside(&format!("is {}", word(to)), reason),
            None => aside("changed", reason),
        },
        EventKind::FaultIsolated => colon("fault isolated", reason),
        // A step without a rung says itself what it is.
        EventKind::RecoveryStarted if event.rung.is_none() && !reason.is_empty() => reason.to_owned(),
        EventKind::RecoveryStarted => aside(event.rung.map_or("recovering", doing), reason),
        EventKind::RecoveryFinished => match event.to {
            Some(State::Starting) => comma("reconfigured", reason),
            Some(State::Healthy) => comma(event.rung.map_or("recovered", Rung::past), reason),
            Some(to) => colon(&format!("{} {}", attempt(event.rung), effect(to)), reason),
            None => colon(&format!("{} ended", attempt(event.rung)), reason),
        },
        EventKind::RecoveryRefused => colon(&format!("{} refused", attempt(event.rung)), reason),
        EventKind::Escalated if event.rung.is_some() => {
            colon(&format!("escalated to {}", attempt(event.rung)), reason)
        }
        EventKind::Escalated if reason.is_empty() => "escalated".to_owned(),
        // The reason says where to.
        EventKind::Escalated => reason.to_owned(),
        // Of an assembly the isolation of its fault follows, with the reason.
        EventKind::IncidentOpened if event.service.is_none() => format!("{incident} opened"),
        EventKind::IncidentOpened => colon(&format!("{incident} opened"), reason),
        EventKind::IncidentClosed => colon(&format!("{incident} closed"), reason),
        EventKind::DefinitionLoaded => aside("definition loaded", reason),
        EventKind::DefinitionRejected => colon("definition rejected", reason),
        EventKind::MaintenanceChanged if reason.is_empty() => "maintenance changed".to_owned(),
        EventKind::MaintenanceChanged => format!("maintenance {reason}"),
        EventKind::BreakerChanged if reason.is_empty() => "recovery was held or released".to_owned(),
        EventKind::BreakerChanged => reason.to_owned(),
        EventKind::Ordered => colon("ordered", reason),
        EventKind::Fenced => colon("fenced", reason),
        EventKind::OwnerChanged => reason.to_owned(),
    }
}

/// A recovery's start and end as one sentence.
fn joined(start: &EventRecord, end: &EventRecord) -> String {
    let rung = end.event.rung.or(start.event.rung);
    let (began, ended) = (&start.event.reason, &end.event.reason);
    match end.event.to {
        Some(State::Starting) => comma(began, ended),
        Some(_) if rung.is_none() && !began.is_empty() => {
            colon(&format!("{began}, {}", effect(State::Failed)), ended)
        }
        Some(State::Healthy) => comma(&aside(rung.map_or("recovered", Rung::past), began), ended),
        to => {
            colon(&format!("{} {}", aside(attempt(rung), began), effect(to.unwrap_or(State::Unknown))), ended)
        }
    }
}

/// What a recovery did that did not end in healthy.
fn effect(to: State) -> &'static str {
    match to {
        State::Unknown => "had an effect that is not known",
        _ => "did not work",
    }
}

fn aside(said: &str, reason: &str) -> String {
    if reason.is_empty() { said.to_owned() } else { format!("{said} ({reason})") }
}

fn comma(said: &str, reason: &str) -> String {
    if reason.is_empty() { said.to_owned() } else { format!("{said}, {reason}") }
}

fn colon(said: &str, reason: &str) -> String {
    if reason.is_empty() { said.to_owned() } else { format!("{said}: {reason}") }
}

/// What is being done.
const fn doing(rung: Rung) -> &'static str {
    match rung {
        Rung::RestartService => "restarting",
        Rung::Start => "starting",
        Rung::RebootSoft => "rebooting (soft)",
        Rung::RebootHard => "rebooting (hard)",
        Rung::Rebuild => "rebuilding",
        Rung::Recreate => "recreating",
        Rung::RestartDeployable => "restarting as a whole",
        Rung::Relocate => "relocating",
    }
}

/// What it is called.
const fn attempt(rung: Option<Rung>) -> &'static str {
    match rung {
        None => "recovery",
        Some(Rung::RestartService) => "restart",
        Some(Rung::Start) => "start",
        Some(Rung::RebootSoft) => "reboot (soft)",
        Some(Rung::RebootHard) => "reboot (hard)",
        Some(Rung::Rebuild) => "rebuild",
        Some(Rung::Recreate) => "recreate",
        Some(Rung::RestartDeployable) => "restart as a whole",
        Some(Rung::Relocate) => "relocation",
    }
}
