//! Why something was done or not done: the facts, the verdict, the gate's answer. A decision holds all that it rests on, so that it
//! can be computed again (design.md section 4, rule 7). `cpe why` and `cpe why-not` print them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{ActionId, IncidentId, Name};
use crate::infrastructure::InstanceState;
use crate::observation::ChannelFailure;
use crate::rung::Rung;
use crate::time::Timestamp;

/// The facts that isolation looks at for one assembly, and nothing else (policy.md section 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Whether the guard trusts this controller.
    pub self_trusted: bool,
    /// The held failure domain that the assembly is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_domain: Option<Name>,
    /// The infrastructure's view; none: there is no infrastructure, or it was not asked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceState>,
    /// Whether somebody is known to have ordered that state.
    pub ordered: bool,
    /// The channel.
    pub channel: ChannelFact,
    /// A live witness other than the channel (an agent's heartbeat, a passed http probe).
    pub live_witness: bool,
    /// A canary or a peer on the same path answered within two intervals.
    pub path_proven: bool,
}

/// The channel, as isolation sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelFact {
    /// It answers.
    Healthy,
    /// It did not answer last time, and that is not yet confirmed.
    Suspected,
    /// Confirmed dead, and how.
    Dead(ChannelFailure),
    /// Not known yet: no fresh probe.
    Unknown,
}

/// What isolation concludes; one for each row of its table, by the name in the policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Row 1.
    Untrusted,
    /// Row 2, with the domain.
    CommonCause(Name),
    /// Row 3.
    Disagreement,
    /// Row 4.
    InTransition,
    /// Row 5.
    MisconfiguredChannel,
    /// Row 6.
    Gone,
    /// Row 7.
    Off,
    /// Row 8.
    Down,
    /// Rows 9 and 10.
    ChannelFault,
    /// Row 11.
    Hung,
    /// Rows 12 and 14.
    Unreachable,
    /// Row 13: the channel is healthy, so each service is judged for itself.
    PerService,
}

impl Verdict {
    /// The word of the policy, of events and of metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::CommonCause(_) => "common_cause",
            Self::Disagreement => "disagreement",
            Self::InTransition => "in_transition",
            Self::MisconfiguredChannel => "misconfigured_channel",
            Self::Gone => "gone",
            Self::Off => "off",
            Self::Down => "down",
            Self::ChannelFault => "channel_fault",
            Self::Hung => "hung",
            Self::Unreachable => "unreachable",
            Self::PerService => "per_service",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// Why the gate refused. In the order in which the gate looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The deployable is in `observe` mode: decided and recorded, not done.
    ObserveMode,
    /// In maintenance.
    Maintenance,
    /// An operator stopped recovery.
    Paused,
    /// The controller does not trust itself.
    Untrusted,
    /// This controller does not own the deployable.
    NotOwner,
    /// Another recovery of that assembly, or of its whole deployable, is under way.
    InFlight,
    /// The evidence is not fresh, or not enough for that rung.
    Evidence,
    /// The failure domain is held.
    DomainHeld,
    /// The fleet breaker is open.
    BreakerOpen,
    /// A budget is spent; it is tried again.
    Budget,
    /// Nothing can be written to the journal, so nothing is done.
    Journal,
    /// It was admitted, and what carries it out could not begin it: there was no effect, and it is tried again.
    NotStarted,
}

impl Refusal {
    /// All reasons, in the gate's order.
    pub const ALL: [Self; 12] = [
        Self::ObserveMode,
        Self::Maintenance,
        Self::Paused,
        Self::Untrusted,
        Self::NotOwner,
        Self::InFlight,
        Self::Evidence,
        Self::DomainHeld,
        Self::BreakerOpen,
        Self::Budget,
        Self::Journal,
        Self::NotStarted,
    ];

    /// The word of events and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ObserveMode => "observe_mode",
            Self::Maintenance => "maintenance",
            Self::Paused => "paused",
            Self::Untrusted => "untrusted",
            Self::NotOwner => "not_owner",
            Self::InFlight => "in_flight",
            Self::Evidence => "evidence",
            Self::DomainHeld => "domain_held",
            Self::BreakerOpen => "breaker_open",
            Self::Budget => "budget",
            Self::Journal => "journal",
            Self::NotStarted => "not_started",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// The gate's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It may be done.
    Admitted,
    /// It may not, and why.
    Refused(Refusal),
}

/// One value that the gate or the engine looked at: "failure" "1 of 5 in 1 h", "in flight, infrastructure prod" "3 of 10".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// What was looked at.
    pub name: Box<str>,
    /// What it was, with its limit where it has one.
    pub value: Box<str>,
}

/// One decision: an action that was asked for, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When, in engine time.
    pub at: Timestamp,
    /// The incident.
    pub incident: IncidentId,
    /// The action that was asked for.
    pub action: ActionId,
    /// The assembly.
    pub assembly: Name,
    /// The service, for the service scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// The rung that was asked for.
    pub rung: Rung,
    /// What isolation concluded, from `facts`.
    pub verdict: Verdict,
    /// What isolation looked at.
    pub facts: Facts,
    /// The last observations, counts and skipped rungs, each as a line of evidence with its age.
    pub evidence: Vec<Value>,
    /// The gate's checks with their values, in its order.
    pub gates: Vec<Value>,
    /// The gate's answer.
    pub answer: Answer,
}
