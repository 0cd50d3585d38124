//! What a definition can come to at worst, before anything happens: how long until a fault is found and repaired or given up
//! (`bounds/times.rs`), how long after the last fault everything is healthy or told (`bounds/healing.rs`, `bounds/turns.rs`), how much may be done in ten
//! minutes (`bounds/rates.rs`), and which of its timers contradict each other (`bounds/conflicts.rs`). `cpe check` prints them; tests hold the engine to them.
//!
//! But for that of healing, a bound holds while cpe is trusted and on time, the gate admits at once (no budget is spent, nothing is held, nobody paused it), and
//! what is asked answers within its own time-out. Refusals take as long as what they wait for; `cpe why-not` says what that is.

mod conflicts;
mod healing;
mod rates;
mod times;
mod turns;

use std::time::Duration;

use cpe_proto::definition::{Assembly, Data, Deployable, ProbeSettings};
use cpe_proto::infrastructure::{Capabilities, Operation};
use cpe_proto::rung::Rung;

use crate::ladder::on_machine;

pub use conflicts::{Conflict, Weight, conflicts};
pub use healing::{Healing, Managed, healed};
pub use rates::{RATE_WINDOW, Rates, rates, together};
pub use times::{FaultBounds, RungBound, hung_machine, service};

/// What bounds rest on besides the definition.
#[derive(Clone, Debug)]
pub struct Assumptions {
    /// What the deployable's infrastructure can do; none: there is none, so that only services are restarted.
    pub capabilities: Option<Capabilities>,
    /// The longest between two answers of a canary or another assembly on the same path; none: nothing proves the path, and a hung
    /// machine is only reported (policy.md section 6).
    pub path_answers: Option<Duration>,
    /// The infrastructure says a state within this: its time-out for `status`.
    pub infrastructure_answers: Duration,
}

impl Assumptions {
    /// What is assumed without a cpe.toml: an infrastructure that can do everything, where the definition names one, and that
    /// answers within 30 s; peers that answer as often as `path_answers` says.
    #[must_use]
    pub fn of(definition: &Deployable, path_answers: Option<Duration>) -> Self {
        let all = || Capabilities(Operation::ALL.into_iter().collect());
        Self {
            capabilities: definition.infrastructure.as_ref().map(|_| all()),
            path_answers,
            infrastructure_answers: Duration::from_secs(30),
        }
    }

    /// Whether a machine's rung can be chosen at all (policy.md section 3: `max_rung`, `data`, what the adapter can do).
    fn permits(&self, assembly: &Assembly, rung: Rung) -> bool {
        let replaces = rung.makes_disk();
        on_machine(rung) <= assembly.max_rung
            && !(replaces && assembly.data == Data::Local)
            && self.capabilities.as_ref().is_some_and(|can| can.can(rung))
    }
}

/// From the start of one probe to the start of the next, at most (policy.md section 1: "next due at max(start + interval, end)").
fn turn(probe: &ProbeSettings) -> Duration {
    probe.interval.max(probe.timeout)
}

/// How often an assembly that is well proves its path at least: the longest between two of its answers.
#[must_use]
pub fn answers_every(probe: &ProbeSettings) -> Duration {
    turn(probe) + probe.timeout
}

/// Between two probes that confirm a failure, at most (policy.md section 1: every `confirm_interval`, one in flight).
fn confirmation(probe: &ProbeSettings) -> Duration {
    probe.confirm_interval.max(probe.timeout)
}

/// From a fault to its confirmation: the next probe begins within a turn and ends within its time-out, and `failure_threshold` - 1
/// others confirm it (policy.md section 1).
#[must_use]
pub fn detection(probe: &ProbeSettings) -> Duration {
    turn(probe) + probe.timeout + confirmation(probe) * (probe.failure_threshold.get() - 1)
}

/// From the beginning of a start that hangs (a unit that stays `activating`) to its confirmation: the first probe that sees it, then
/// `startup_grace`, then the next probe (policy.md section 1, the table of units).
#[must_use]
pub fn hung_start(probe: &ProbeSettings) -> Duration {
    (turn(probe) + probe.timeout) * 2 + probe.startup_grace
}
