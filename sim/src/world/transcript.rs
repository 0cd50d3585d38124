//! What a world tells of itself, in the order in which it happened: the product's own events, and what nobody in it can see.

use std::fmt;
use std::time::Duration;

use cpe_proto::event::EventRecord;
use cpe_proto::id::{IncidentId, Name};

/// One line of a transcript.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Since the beginning of the world.
    pub at: Duration,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What {
    /// A fault, an order, a change from outside, as one clause.
    Happened(String),
    /// An event of the product, as its journal has it.
    Event(Box<EventRecord>),
    /// Something was begun: "reboot-hard shop/web", "restart shop/web/nginx".
    Did(String),
    /// A person was told.
    Told(Name, Option<IncidentId>, Box<str>),
    /// A person was not told, because somebody has acknowledged the incident.
    Withheld(Name, IncidentId, Box<str>),
    /// A rule was broken: what and why.
    Broken(String),
}

impl fmt::Display for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:>9.2}  ", self.at.as_secs_f64())?;
        match &self.what {
            What::Happened(what) => write!(out, "{:<18} {what}", "*"),
            What::Did(what) => write!(out, "{:<18} {what}", "do"),
            What::Told(name, Some(incident), message) => {
                write!(out, "{:<18} {name}#{incident}: {message}", "notify")
            }
            What::Told(name, None, message) => write!(out, "{:<18} {name}: {message}", "notify"),
            What::Withheld(name, incident, message) => {
                write!(out, "{:<18} {name}#{incident}: {message}", "acknowledged")
            }
            What::Broken(what) => write!(out, "{:<18} {what}", "BROKEN"),
            What::Event(record) => event(record, out),
        }
    }
}

fn event(record: &EventRecord, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let event = &record.event;
    write!(out, "{:<18} {}", event.kind, record.subject())?;
    match (event.from, event.to) {
        (Some(from), Some(to)) => write!(out, ": {from} -> {to}")?,
        (None, Some(to)) => write!(out, ": {to}")?,
        _ => {}
    }
    if let Some(rung) = event.rung {
        write!(out, " [{rung}]")?;
    }
    if let Some(action) = event.action {
        write!(out, " !{action}")?;
    }
    if let Some(incident) = event.incident {
        write!(out, " #{incident}")?;
    }
    if event.reason.is_empty() { Ok(()) } else { write!(out, " ({})", event.reason) }
}
