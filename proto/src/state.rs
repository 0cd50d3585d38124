//! What is concluded of a service, an assembly or a deployable. One set of words for all three (design.md section 6).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A state, best first: the worst state of its parts is a deployable's, so the order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Fresh probes pass.
    Healthy,
    /// Stopped because somebody ordered it.
    Stopped,
    /// Not yet known to be healthy since its start; its first probes are under way.
    Starting,
    /// The infrastructure is changing it (resize, migration, an action that is not ours). Assemblies only.
    InTransition,
    /// Its failure domain is held. Assemblies only.
    Held,
    /// A first probe failed and is being confirmed.
    Suspected,
    /// Cannot be observed: neither passed nor failed.
    Unknown,
    /// The unit, the plugin or the credentials are wrong: no recovery helps, a person is told.
    Misconfigured,
    /// Some parts still serve. Deployables only.
    Degraded,
    /// A recovery is under way or being verified.
    Recovering,
    /// Does not answer, and nothing proves that it is down. Assemblies only.
    Unreachable,
    /// A confirmed fault.
    Failed,
    /// Every rung that is allowed was tried; a person was told and a retry is dated.
    Exhausted,
}

impl State {
    /// All states, best first.
    pub const ALL: [Self; 13] = [
        Self::Healthy,
        Self::Stopped,
        Self::Starting,
        Self::InTransition,
        Self::Held,
        Self::Suspected,
        Self::Unknown,
        Self::Misconfigured,
        Self::Degraded,
        Self::Recovering,
        Self::Unreachable,
        Self::Failed,
        Self::Exhausted,
    ];

    /// The word of the API, of events and of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::InTransition => "in_transition",
            Self::Held => "held",
            Self::Suspected => "suspected",
            Self::Unknown => "unknown",
            Self::Misconfigured => "misconfigured",
            Self::Degraded => "degraded",
            Self::Recovering => "recovering",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
            Self::Exhausted => "exhausted",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}
