//! What became of each fault: read from the controller's events alone, as an operator would, and printed as a plain table.

use std::fmt::Write as _;

use cpe_proto::event::{EventKind, EventRecord};
use cpe_proto::rung::Rung;
use cpe_proto::state::State;

use super::script::Step;

/// One fault and what the events said of it. Times in milliseconds of wall time.
#[derive(Clone, Debug)]
struct Row {
    step: Step,
    happened: u64,
    detected: Option<u64>,
    isolated: Option<String>,
    done: Vec<Rung>,
    healthy: Option<u64>,
    worst: Option<State>,
}

/// All faults so far.
#[derive(Debug, Default)]
pub(super) struct Tally(Vec<Row>);

impl Tally {
    /// A fault that has just happened.
    pub(super) fn add(&mut self, step: Step, happened: u64) {
        let row = Row {
            step,
            happened,
            detected: None,
            isolated: None,
            done: Vec::new(),
            healthy: None,
            worst: None,
        };
        self.0.push(row);
    }

    /// Takes note of an event.
    pub(super) fn note(&mut self, record: &EventRecord) {
        let subject = record.subject();
        for row in &mut self.0 {
            if concerns(row.step.subject, &subject) && record.time >= row.happened {
                row.note(record);
            }
        }
    }

    /// Whether each fault was detected and is either repaired or known to need a person.
    pub(super) fn complete(&self) -> bool {
        self.0.iter().all(|row| row.detected.is_some() && (row.healthy.is_some() || row.needs_a_person()))
    }

    /// The table.
    pub(super) fn table(&self) -> String {
        let mut out = String::new();
        let _infallible =
            writeln!(out, "{:<22} {:>9}  {:<44} {:>13}", "fault of", "seen after", "done", "healthy after");
        for row in &self.0 {
            let _infallible = writeln!(
                out,
                "{:<22} {:>10}  {:<44} {:>13}",
                row.step.subject,
                row.after(row.detected),
                row.deeds(),
                if row.needs_a_person() { "a person".to_owned() } else { row.after(row.healthy) },
            );
            if let Some(isolated) = &row.isolated {
                let _infallible = writeln!(out, "{:<22} {:>10}  as: {isolated}", "", "");
            }
        }
        out
    }
}

impl Row {
    fn note(&mut self, record: &EventRecord) {
        let event = &record.event;
        match event.kind {
            EventKind::StateChanged => match event.to {
                Some(State::Healthy) => self.healthy = Some(record.time),
                Some(state) => {
                    self.detected = self.detected.or(Some(record.time));
                    self.healthy = None;
                    self.worst = Some(state);
                }
                None => {}
            },
            EventKind::FaultIsolated if self.isolated.is_none() => {
                self.isolated = Some(event.reason.to_string());
            }
            EventKind::RecoveryStarted => self.done.extend(event.rung),
            _ => {}
        }
    }

    /// It ended in a state that no recovery leaves.
    fn needs_a_person(&self) -> bool {
        self.healthy.is_none() && matches!(self.worst, Some(State::Misconfigured | State::Exhausted))
    }

    fn deeds(&self) -> String {
        if self.done.is_empty() {
            return "nothing".to_owned();
        }
        let words: Vec<&str> = self.done.iter().map(|rung| rung.as_str()).collect();
        words.join(", ")
    }

    fn after(&self, time: Option<u64>) -> String {
        let Some(time) = time else { return "-".to_owned() };
        let millis = time.saturating_sub(self.happened);
        format!("{}.{} s", millis / 1000, millis % 1000 / 100)
    }
}

/// Whether an event's subject is the fault's, or a part of it.
fn concerns(fault: &str, subject: &str) -> bool {
    subject.strip_prefix(fault).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::concerns;

    #[test]
    fn a_fault_of_a_machine_concerns_its_services_and_no_other_machine() {
        assert!(concerns("batch/worker-1", "batch/worker-1"));
        assert!(concerns("batch/worker-1", "batch/worker-1/job"));
        assert!(!concerns("batch/worker-1", "batch/worker-10/job"));
        assert!(!concerns("batch/worker-1", "batch"));
    }
}
