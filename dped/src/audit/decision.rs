//! What one decision shows by itself: its verdict follows from its facts, and no gate that it shows should have refused. Rules 1, 2, 4,
//! 6 and 7.

use cpe_proto::decision::{Answer, Verdict};

use super::record::DecisionRecord;
use super::{Auditor, Finding};
use crate::isolate::isolate;

impl Auditor {
    pub(super) fn decision_holds(&mut self, record: &DecisionRecord) {
        let decision = &record.decision;
        let shows = vec![format!("decision {}", record.number)];
        let (again, row) = isolate(&decision.facts);
        if again != decision.verdict {
            let what =
                format!("the recorded facts give {again} (row {row}), the record says {}", decision.verdict);
            self.lie(Finding::new(7, what, shows.clone()));
        }
        if decision.answer != Answer::Admitted {
            return;
        }
        if forbids(&decision.verdict) {
            let what = format!("{} was admitted on the verdict {}", decision.rung, decision.verdict);
            self.lie(Finding::new(6, what, shows.clone()));
        }
        for gate in decision.gates.iter().chain(&decision.evidence) {
            if let Some(rule) = should_have_refused(&gate.name, &gate.value) {
                let what =
                    format!("{} was admitted although {} was {}", decision.rung, gate.name, gate.value);
                self.lie(Finding::new(rule, what, shows.clone()));
            }
        }
    }
}

/// The rule that an admission breaks which shows this value.
fn should_have_refused(name: &str, value: &str) -> Option<u8> {
    match name {
        "mode" if value != "act" => Some(2),
        "maintenance" | "paused" if value != "no" => Some(2),
        "fleet" if value != "not paused" => Some(2),
        "journal" if value != "writable" => Some(4),
        "age of the evidence" if !fresh(value) => Some(6),
        _ if name.starts_with("in flight") && spent(value) => Some(1),
        _ => None,
    }
}

/// Verdicts on which nothing is ever done.
const fn forbids(verdict: &Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Untrusted | Verdict::CommonCause(_) | Verdict::InTransition | Verdict::MisconfiguredChannel
    )
}

/// "1.2 s, at most 4 s": whether the first is not more than the second. What cannot be read is not fresh.
fn fresh(value: &str) -> bool {
    let Some((age, limit)) = value.split_once(", at most ") else { return false };
    match (millis(age), millis(limit)) {
        (Some(age), Some(limit)) => age <= limit,
        _ => false,
    }
}

/// "3 of 3": whether nothing is left. What is no such count is none.
fn spent(value: &str) -> bool {
    let Some((used, limit)) = value.split_once(" of ") else { return false };
    match (used.parse::<u64>(), limit.parse::<u64>()) {
        (Ok(used), Ok(limit)) => used >= limit,
        _ => false,
    }
}

/// A span as `describe` writes it, in milliseconds.
fn millis(span: &str) -> Option<u64> {
    let (number, unit) = span.trim().split_once(' ')?;
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let (whole, tenths): (u64, u64) = (whole.parse().ok()?, tenths.parse().ok()?);
    whole.checked_mul(unit)?.checked_add(tenths.checked_mul(unit)? / 10)
}
