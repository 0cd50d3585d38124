//! What infrastructures are asked and answer: the words that all adapters share (design.md section 7).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::rung::Rung;

/// The infrastructure's own view of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// It runs, as far as the infrastructure knows. Neutral for a hung guest.
    Active,
    /// It is powered off.
    Off,
    /// The infrastructure failed it.
    Error,
    /// It does not exist any more.
    Gone,
    /// Something is being done with it: resize, migration, reboot.
    Changing,
    /// The infrastructure could not be asked, or did not know.
    Unknown,
}

impl InstanceState {
    /// The word of the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Off => "off",
            Self::Error => "error",
            Self::Gone => "gone",
            Self::Changing => "changing",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// Whose mark an instance bears, as far as an answer of its infrastructure says. Infrastructures without marks know no other controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// It was not said: what was known before still holds.
    #[default]
    NotSaid,
    /// Ours, or it bears none: we may act on it.
    OursOrNone,
    /// That controller's: it is reported, and never acted upon.
    Another(Arc<str>),
}

/// What an adapter can be asked to do with one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Say the instance's state.
    Status,
    /// Make a new instance.
    Create,
    /// Make a new instance in another place than its definition says, or than it was made in before.
    Relocate,
    /// Power it on.
    Start,
    /// Power it off, and confirm that it is off.
    Stop,
    /// Ask the guest to reboot.
    RebootSoft,
    /// Cut its power and start it again.
    RebootHard,
    /// Same instance id, disk from the image.
    Rebuild,
    /// Delete it.
    Destroy,
    /// Put our mark on it, over any other.
    Claim,
    /// Start the instances of a failure domain that is dead elsewhere: the one action at what they share.
    Evacuate,
    /// Say which operations there are.
    Capabilities,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 12] = [
        Self::Status,
        Self::Create,
        Self::Relocate,
        Self::Start,
        Self::Stop,
        Self::RebootSoft,
        Self::RebootHard,
        Self::Rebuild,
        Self::Destroy,
        Self::Claim,
        Self::Evacuate,
        Self::Capabilities,
    ];

    /// The word of the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Create => "create",
            Self::Relocate => "relocate",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::RebootSoft => "reboot-soft",
            Self::RebootHard => "reboot-hard",
            Self::Rebuild => "rebuild",
            Self::Destroy => "destroy",
            Self::Claim => "claim",
            Self::Evacuate => "evacuate",
            Self::Capabilities => "capabilities",
        }
    }

    /// The operation of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == word)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// Which operations an adapter can do. Empty: none, so that only services are restarted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(pub BTreeSet<Operation>);

impl Capabilities {
    /// Whether every step of this rung can be done.
    #[must_use]
    pub fn can(&self, rung: Rung) -> bool {
        let needs: &[Operation] = match rung {
            Rung::RestartService => &[],
            // Its machine is verified off before it is started again.
            Rung::RestartDeployable => &[Operation::Stop, Operation::Start],
            Rung::Start => &[Operation::Start],
            Rung::RebootSoft => &[Operation::RebootSoft],
            Rung::RebootHard => &[Operation::RebootHard],
            Rung::Rebuild => &[Operation::Rebuild],
            Rung::Recreate => &[Operation::Stop, Operation::Create],
            Rung::Relocate => &[Operation::Stop, Operation::Relocate],
        };
        needs.iter().all(|operation| self.0.contains(operation))
    }
}
