//! The rungs of the escalation ladder, in the order of what they cost.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One kind of recovery. The order is the ladder's: a later rung does more damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// `reset-failed`, then `restart` of a unit in the guest.
    RestartService,
    /// Power on an assembly that is off. Not a climb: the answer to verdict 7 of isolation.
    Start,
    /// Ask the guest to reboot.
    RebootSoft,
    /// Cut its power and start it again.
    RebootHard,
    /// Same instance id, disk from the image.
    Rebuild,
    /// New instance id.
    Recreate,
    /// The failed assembly and its dependents, or all, in order.
    RestartDeployable,
    /// Elsewhere.
    Relocate,
}

impl Rung {
    /// All rungs, lowest first.
    pub const ALL: [Self; 8] = [
        Self::RestartService,
        Self::Start,
        Self::RebootSoft,
        Self::RebootHard,
        Self::Rebuild,
        Self::Recreate,
        Self::RestartDeployable,
        Self::Relocate,
    ];

    /// The word of definitions, events, metrics and the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RestartService => "restart-service",
            Self::Start => "start",
            Self::RebootSoft => "reboot-soft",
            Self::RebootHard => "reboot-hard",
            Self::Rebuild => "rebuild",
            Self::Recreate => "recreate",
            Self::RestartDeployable => "restart-deployable",
            Self::Relocate => "relocate",
        }
    }

    /// The rung of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rung| rung.as_str() == word)
    }

    /// Whether it makes a new instance, so that the old one must be down first.
    #[must_use]
    pub const fn replaces(self) -> bool {
        matches!(self, Self::Recreate | Self::Relocate)
    }

    /// Whether a machine has a new disk after it.
    #[must_use]
    pub const fn makes_disk(self) -> bool {
        matches!(self, Self::Rebuild) || self.replaces()
    }

    /// What was done, for a sentence: "restarted", "rebooted (hard)".
    #[must_use]
    pub const fn past(self) -> &'static str {
        match self {
            Self::RestartService => "restarted",
            Self::Start => "started",
            Self::RebootSoft => "rebooted (soft)",
            Self::RebootHard => "rebooted (hard)",
            Self::Rebuild => "rebuilt",
            Self::Recreate => "recreated",
            Self::RestartDeployable => "restarted as a whole",
            Self::Relocate => "relocated",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}
