//! What of the fleet guard outlives its process: what was granted, what is held and how far its slow start is, who is down. Never what
//! it thinks of itself or of a path: that is looked at anew. Times are ages, or what is left of a wait.

use serde::{Deserialize, Serialize};

use super::Millis;
use crate::id::{ActionId, AssemblyIndex, Name};

/// The version that is written, and the only one that is read.
pub const GUARD_SNAPSHOT_VERSION: u32 = 1;

/// The guard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardSnapshot {
    /// [`GUARD_SNAPSHOT_VERSION`].
    pub version: u32,
    /// Actions that were admitted and not given back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<LeaseSnapshot>,
    /// How long ago machine rungs were granted, oldest first, by infrastructure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machine_rungs: Vec<(Name, Vec<Millis>)>,
    /// What is held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<HoldSnapshot>,
    /// Who left health and is not back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub down: Vec<DownSnapshot>,
    /// How many failure domains were evacuated, so that a number is used once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub evacuations: u64,
    /// A person was told that the controller does not trust itself, and not yet that it does again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub distrust_told: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One assembly, by its place in its definition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Its deployable.
    pub deployable: Name,
    /// Its place there.
    pub assembly: AssemblyIndex,
}

/// One admitted action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseSnapshot {
    /// Whose.
    #[serde(flatten)]
    pub member: Member,
    /// Which.
    pub action: ActionId,
    /// The deployable's infrastructure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infrastructure: Option<Name>,
    /// The assembly's failure domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<Name>,
    /// What is left of it.
    pub left: Millis,
    /// What is left until the action is given up, if nobody sees it end; none: as long as the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give_up: Option<Millis>,
    /// No engine carries the action on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub astray: bool,
}

/// One hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldSnapshot {
    /// The failure domain; none: the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Name>,
    /// How far it is; while its domain is evacuated: a hold until that is over.
    pub phase: HoldPhase,
    /// How far the one action at its shared point is; none: it was not considered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evacuation: Option<EvacuationPhase>,
}

/// How far the evacuation of a failure domain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvacuationPhase {
    /// Its members' engines are heard.
    Considered,
    /// It may have been begun, under this number.
    Begun(u64),
    /// What came of it is looked at.
    Verified,
    /// It is over, or was not to be done: there is no other in this hold.
    Over,
}

/// How far a hold is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldPhase {
    /// Nothing is done for so long.
    Hold(Millis),
    /// Slow start.
    SlowStart {
        /// So many at a time.
        width: usize,
        /// So many of them are verified.
        verified: usize,
        /// When somebody asked last.
        asked: Millis,
        /// Repairs that were admitted and are not verified.
        trials: Vec<TrialSnapshot>,
    },
    /// A repair failed; the next slow start is after so long.
    Exhausted(Millis),
}

/// A repair of a slow start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialSnapshot {
    /// Of whom.
    #[serde(flatten)]
    pub member: Member,
    /// Which action.
    pub action: ActionId,
    /// How long ago it was admitted.
    pub admitted: Millis,
    /// How long ago it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Millis>,
}

/// One that left health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownSnapshot {
    /// Who.
    #[serde(flatten)]
    pub member: Member,
    /// Its failure domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<Name>,
    /// How long ago.
    pub ago: Millis,
}
