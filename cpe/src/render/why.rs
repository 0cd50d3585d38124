//! An incident as a timeline: what was seen, what isolation concluded from which facts, what was counted, which rung was asked for, what
//! the gate looked at and answered, what was begun, and how it was verified.

use std::fmt::Write;

use cpe_proto::api::{Incident, IntentRecord, Why};
use cpe_proto::decision::{Answer, ChannelFact, Decision, Facts, Value, Verdict};
use cpe_proto::event::{EventKind, EventRecord};
use dped::isolate::isolate;

use super::events::sentence;
use super::{Reader, plain, span};

/// The timelines, newest incident first.
#[must_use]
pub fn why(why: &Why, reader: &Reader) -> String {
    let told: Vec<String> = why.incidents.iter().map(|incident| timeline(incident, reader)).collect();
    told.join("\n")
}

/// In which order things of the same millisecond are told: each is why the next one happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Seen,
    Decided,
    Begun,
    Told,
}

/// One thing of the timeline: when, in which order at the same time, and its lines.
struct Step {
    time: u64,
    rank: Rank,
    lines: Vec<String>,
}

fn timeline(incident: &Incident, reader: &Reader) -> String {
    let opening = incident.events.iter().find(|record| record.event.kind == EventKind::IncidentOpened);
    let subject = opening
        .or(incident.events.first())
        .map_or_else(|| incident.deployable.to_string(), EventRecord::subject);
    let ended = match incident.closed {
        Some(closed) => {
            format!(
                "closed {} after {}",
                reader.exact_time(closed),
                span(closed.saturating_sub(incident.opened))
            )
        }
        None => "still open".to_owned(),
    };
    let opened = reader.date_time(incident.opened);
    let mut out = format!(
        "{subject}  incident {}#{}, opened {opened}, {ended}\n",
        incident.deployable, incident.incident
    );
    if let Some(acknowledged) = &incident.acknowledged {
        let at = reader.exact_time(acknowledged.time);
        let _ = writeln!(out, "  acknowledged {at} by {}: no more notifications", plain(&acknowledged.by));
    }
    let events = incident.events.iter().map(|record| event(record, &subject));
    let decisions = incident.decisions.iter().map(|(time, decision)| decided(*time, decision));
    let intents = incident.intents.iter().flat_map(intent);
    let mut steps: Vec<Step> = events.chain(decisions).chain(intents).collect();
    steps.sort_by_key(|step| (step.time, step.rank));
    for step in &steps {
        for (index, line) in step.lines.iter().enumerate() {
            let lead = if index == 0 { reader.exact_time(step.time) } else { " ".repeat(12) };
            let _ = writeln!(out, "  {lead}  {}", plain(line).trim_end());
        }
    }
    out
}

fn event(record: &EventRecord, subject: &str) -> Step {
    let said = sentence(record);
    let of = record.subject();
    let line = if of == subject { said } else { format!("{of} {said}") };
    let rank = match record.event.kind {
        EventKind::IncidentOpened | EventKind::FaultIsolated | EventKind::Escalated => Rank::Seen,
        _ => Rank::Told,
    };
    Step { time: record.time, rank, lines: vec![line] }
}

fn decided(time: u64, decision: &Decision) -> Step {
    let place = match &decision.service {
        Some(service) => format!("{}/{service}", decision.assembly),
        None => decision.assembly.to_string(),
    };
    let answer = match decision.answer {
        Answer::Admitted => "admitted".to_owned(),
        Answer::Refused(reason) => format!("refused: {reason}"),
    };
    let mut lines = vec![format!("action {}: {} of {place}: {answer}", decision.action, decision.rung)];
    lines.push(format!("  concluded  {}", concluded(decision)));
    lines.push(format!("  from       {}", facts(&decision.facts)));
    lines.extend(values("evidence", &decision.evidence));
    lines.extend(values("gate", &decision.gates));
    Step { time, rank: Rank::Decided, lines }
}

fn values(title: &str, values: &[Value]) -> Vec<String> {
    let line = |(index, Value { name, value }): (usize, &Value)| {
        format!("  {:9}  {name}: {value}", if index == 0 { title } else { "" })
    };
    values.iter().enumerate().map(line).collect()
}

fn intent(record: &IntentRecord) -> Vec<Step> {
    let IntentRecord { time, intent, created, outcome, resolved } = record;
    let mut steps = vec![Step {
        time: *time,
        rank: Rank::Begun,
        lines: vec![format!("action {}: {} recorded, begun", intent.action, intent.act)],
    }];
    steps.extend(created.map(|time| Step {
        time,
        rank: Rank::Begun,
        lines: vec![format!("action {}: its creation recorded, begun", intent.action)],
    }));
    match (outcome, resolved) {
        (Some(outcome), Some(resolved)) => {
            let took = match resolved.saturating_sub(*time) {
                short @ ..1000 => format!("{short} ms"),
                long => span(long),
            };
            steps.push(Step {
                time: *resolved,
                rank: Rank::Told,
                lines: vec![format!("action {}: {outcome}, after {took}", intent.action)],
            });
        }
        _ => steps[0].lines.push("  its outcome is not known".to_owned()),
    }
    steps
}

/// What isolation concluded, and the row of policy.md section 2 that the recorded facts give. That they give another verdict today is said.
fn concluded(decision: &Decision) -> String {
    let (again, row) = isolate(&decision.facts);
    let domain = match &decision.verdict {
        Verdict::CommonCause(domain) => format!(" {domain}"),
        _ => String::new(),
    };
    let said = format!("{}{domain}", decision.verdict);
    if again == decision.verdict {
        format!("{said} (row {row})")
    } else {
        format!("{said} (from these facts this cpe concludes {again}, row {row})")
    }
}

fn facts(facts: &Facts) -> String {
    let channel = match facts.channel {
        ChannelFact::Healthy => "channel healthy".to_owned(),
        ChannelFact::Suspected => "channel suspected".to_owned(),
        ChannelFact::Dead(failure) => format!("channel dead ({failure})"),
        ChannelFact::Unknown => "channel not known".to_owned(),
    };
    let instance = match facts.instance {
        Some(state) if facts.ordered => format!("infrastructure says {state}, as ordered"),
        Some(state) => format!("infrastructure says {state}"),
        None => "no word of an infrastructure".to_owned(),
    };
    let own = if facts.self_trusted { "controller trusted" } else { "controller not trusted" };
    let path = if facts.path_proven { "path proven" } else { "path not proven" };
    let witness = if facts.live_witness { "another witness lives" } else { "no other witness" };
    let held = facts.held_domain.as_ref().map(|domain| format!(", domain {domain} held")).unwrap_or_default();
    format!("{channel}, {instance}, {path}, {witness}, {own}{held}")
}
