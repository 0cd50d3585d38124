//! What a unit's LoadState and ActiveState mean (policy.md section 1). We never race systemd's own `Restart=`: a unit between two
//! states is pending, and only becomes a failure when it stays so.

use cpe_proto::observation::UnitState;

use crate::judge::Judgement;

/// The judgement of a unit's state.
#[must_use]
pub fn judge(unit: &UnitState) -> Judgement {
    match (&*unit.load, &*unit.active) {
        ("loaded", "active") => Judgement::Passed,
        ("loaded", "activating" | "reloading" | "deactivating") => Judgement::Pending(describe(unit)),
        ("loaded", "inactive" | "failed") => Judgement::Failed(format!("unit {}", unit.active).into()),
        ("masked" | "not-found" | "bad-setting" | "error", _) => {
            Judgement::Misconfigured(format!("unit {}", unit.load).into())
        }
        _ => Judgement::Unknown(format!("unit {}, {}", word(&unit.load), describe_active(unit)).into()),
    }
}

fn describe(unit: &UnitState) -> Box<str> {
    format!("unit {}", describe_active(unit)).into()
}

fn describe_active(unit: &UnitState) -> String {
    if unit.sub.is_empty() || unit.sub == unit.active {
        return word(&unit.active).to_owned();
    }
    format!("{} ({})", word(&unit.active), unit.sub)
}

fn word(text: &str) -> &str {
    if text.is_empty() { "in no state" } else { text }
}
