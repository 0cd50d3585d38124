//! What of an engine outlives its process: counts, ladders, open incidents, what is in flight. Never evidence: after a restart everything
//! is looked at anew. Times are kept as ages and as what is left of a wait, because the clock of the next process may be another one
//! (policy.md section 8). What these mean and how they are taken up again is dped's.

pub mod guard;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{ActionId, IncidentId, Name};
use crate::rung::Rung;

/// The version that is written, and the only one that is read.
pub const SNAPSHOT_VERSION: u32 = 1;

/// A span in whole milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl From<Duration> for Millis {
    fn from(span: Duration) -> Self {
        Self(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<Millis> for Duration {
    fn from(span: Millis) -> Self {
        Self::from_millis(span.0)
    }
}

/// What was ordered of a deployable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It should run.
    #[default]
    Running,
    /// Its services should be stopped.
    Stopped,
    /// Its services should be stopped, and then its machines powered off.
    PoweredOff,
}

impl Desired {
    /// Whether it should run.
    #[must_use]
    pub const fn runs(self) -> bool {
        matches!(self, Self::Running)
    }
}

/// One engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`SNAPSHOT_VERSION`].
    pub version: u32,
    /// The first action number that was never used.
    pub next_action: ActionId,
    /// The first incident number that was never used.
    pub next_incident: IncidentId,
    /// What the engine was carrying out.
    pub desired: Desired,
    /// An operator stopped its recoveries.
    pub paused: bool,
    /// The ages of the failures of the deployable's scope that may still count, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Millis>,
    /// All of them, by name.
    pub assemblies: Vec<AssemblySnapshot>,
}

impl Snapshot {
    /// The actions and incidents that its engine goes on with.
    #[must_use]
    pub fn carried_on(&self) -> (BTreeSet<ActionId>, BTreeSet<IncidentId>) {
        let (mut actions, mut incidents) = (BTreeSet::new(), BTreeSet::new());
        for AssemblySnapshot { past, recovery, step, power, services, .. } in &self.assemblies {
            let pasts = past.iter().chain(services.iter().filter_map(|service| service.past.as_ref()));
            incidents.extend(pasts.filter_map(|past| past.incident));
            actions.extend(step.iter().map(|step| step.action));
            actions
                .extend(power.iter().filter_map(|power| power.flight.as_ref()).map(|flight| flight.action));
            actions.extend(recovery.iter().map(|recovery| recovery.action));
            incidents.extend(recovery.iter().map(|recovery| recovery.incident));
        }
        (actions, incidents)
    }
}

/// One assembly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssemblySnapshot {
    /// Its name.
    pub name: Name,
    /// Stands for the machine that all this is said of: another machine of the same name begins anew.
    pub subject: u64,
    /// Where the infrastructure says that it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Box<str>>,
    /// The infrastructure had said another address before.
    #[serde(default, skip_serializing_if = "is_default")]
    pub moved: bool,
    /// The other controller whose mark it bears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Box<str>>,
    /// It has borne another's mark, and does not any more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub given_back: bool,
    /// The zone that it was made in, if that is another than its definition's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Name>,
    /// It was not known to exist.
    #[serde(default, skip_serializing_if = "is_default")]
    pub drift: bool,
    /// What its instance was made of, where the definition says otherwise by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_of: Option<MadeOf>,
    /// What is left of the time in which not having been healthy is no fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Millis>,
    /// Its past, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub past: Option<Past>,
    /// Its recovery, or one of its services', that was given out and has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoverySnapshot>,
    /// Actions on its machine whose outcome is not known and that may still be done, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub astray: Vec<AstraySnapshot>,
    /// A step of an ordered start or stop that was given out and has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepSnapshot>,
    /// Where its power stands, since it was ordered off and until it is on again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerSnapshot>,
    /// All of them, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceSnapshot>,
}

/// What an instance was made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MadeOf {
    /// The image.
    pub image: String,
    /// The flavor, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSnapshot {
    /// Its name.
    pub name: Name,
    /// Stands for the check that all this rests on.
    pub subject: u64,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "is_default")]
    pub standing: Standing,
    /// What is left of the time in which not having been healthy is no fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Millis>,
    /// What it was set up with, where that can change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<SetupSnapshot>,
    /// Its past, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub past: Option<Past>,
}

/// What a service was set up with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupSnapshot {
    /// Stands for its parameters as the definition has them: with others, what it runs with is not known.
    pub subject: u64,
    /// Its parameters by name, as they were given to it; none: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Vec<(String, String)>>,
    /// Its machine was made anew since.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fresh: bool,
    /// The incident of what made it due to be set up anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
}

/// Where a service stands, as far as that is no evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Supposed to run, and judged for that.
    #[default]
    Watched,
    /// To be probed, and started if it does not run.
    ToStart,
    /// Started; within its grace not having been healthy is no fault.
    Started,
    /// Stopped by an order.
    Stopped,
    /// Its fault was confirmed; nothing is done before it is confirmed anew.
    Failed,
    /// No recovery could help it.
    Misconfigured,
    /// Its ladder ended.
    Exhausted,
    /// To be stopped, while its deployable recovers as a whole.
    ToStop,
    /// Stopped, until its deployable has recovered as a whole.
    Held,
    /// Stopped for a recovery of its deployable that came to nothing: to be started again, whatever it depends on.
    ToStartAgain,
}

/// What a service or an assembly carries on from one process to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Its open incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    /// How far it has climbed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ladder: LadderSnapshot,
    /// A failure that is counted already and waits for its attempt: "failure 1 of 5 in 1 h".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Box<str>>,
    /// What is left of the wait before that attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Millis>,
    /// The wait before that attempt was set already.
    #[serde(default, skip_serializing_if = "is_default")]
    pub backed_off: bool,
    /// That failure is the first that counts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub first: bool,
    /// A person was told that its own ladder ended.
    #[serde(default, skip_serializing_if = "is_default")]
    pub told_ended: bool,
    /// The service whose ladder ended in this one, which has a failure to count or to act on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalated: Option<Name>,
    /// Who confirmed that the machine is down, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<Box<str>>,
}

/// How far a scope has climbed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LadderSnapshot {
    /// The ages of the failures that may still count, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Millis>,
    /// The rung of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rung: Option<Rung>,
    /// How many attempts of it there were.
    #[serde(skip_serializing_if = "is_default")]
    pub attempts: u32,
    /// The window was full: reboots are over.
    #[serde(skip_serializing_if = "is_default")]
    pub climbed: bool,
    /// It was full once more after that.
    #[serde(skip_serializing_if = "is_default")]
    pub climbed_again: bool,
    /// A reboot was done.
    #[serde(skip_serializing_if = "is_default")]
    pub rebooted: bool,
    /// A rebuild was done.
    #[serde(skip_serializing_if = "is_default")]
    pub rebuilt: bool,
    /// A recreate was done.
    #[serde(skip_serializing_if = "is_default")]
    pub recreated: bool,
    /// A relocation was done.
    #[serde(skip_serializing_if = "is_default")]
    pub relocated: bool,
    /// The deployable's scope has its turn.
    #[serde(skip_serializing_if = "is_default")]
    pub beyond: Beyond,
    /// The ladder ended.
    #[serde(skip_serializing_if = "is_default")]
    pub given_up: bool,
    /// What is left until the next attempt of a ladder that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_in: Option<Millis>,
}

/// Whether the rungs of an assembly have ended, so that those of its deployable have their turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beyond {
    /// Its own rungs.
    #[default]
    Own,
    /// They have ended, and that was counted: this rung is due.
    Due(Rung),
    /// A rung of the deployable was tried and has not been seen to work: the next failure is one of the deployable.
    Tried,
    /// The same, and its machine was powered off by it and may not have been started again.
    LeftOff,
}

/// A recovery that was given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverySnapshot {
    /// Its number.
    pub action: ActionId,
    /// Its rung.
    pub rung: Rung,
    /// The service, for the service scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// Its incident.
    pub incident: IncidentId,
    /// How long ago it was given out.
    pub age: Millis,
    /// Where it stands, if it makes a new instance; none: not known, so that nothing is created again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Which step of a recovery of the whole deployable it is at.
    #[serde(default, skip_serializing_if = "is_default")]
    pub whole: WholeStage,
}

/// An action on a machine that was given out and whose outcome is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AstraySnapshot {
    /// Its number.
    pub action: ActionId,
    /// It makes a new instance.
    #[serde(default, skip_serializing_if = "is_default")]
    pub makes: bool,
    /// For how long it may still be done.
    pub left: Millis,
}

/// Where a recovery that makes a new instance stands. One that was written down as fenced or creating has been given out up to there at
/// most: whether its creation was begun is the journal's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The old instance is stopped, and that it is off is not verified yet.
    Fencing,
    /// The old instance is verified off or gone.
    Fenced,
    /// The new instance is made.
    Creating,
}

/// Where a recovery of the whole deployable stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WholeStage {
    /// The action on its machine was given out.
    #[default]
    Machine,
    /// Services are being stopped for it; nothing was done to its machine.
    Preparing {
        /// A person ordered it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Box<str>>,
        /// What is left of its time.
        left: Millis,
    },
    /// It came to nothing, and what was stopped for it is being started again.
    GivingBack {
        /// Whether it failed.
        failed: bool,
        /// Why it came to nothing.
        reason: Box<str>,
        /// What is left of its time.
        left: Millis,
    },
}

/// A step of an ordered start or stop that was given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSnapshot {
    /// Its number.
    pub action: ActionId,
    /// The service.
    pub service: Name,
    /// Started or stopped.
    pub towards: Desired,
    /// What is left of its time.
    pub left: Millis,
}

/// Where the power of a machine stands that was ordered off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerSnapshot {
    /// What is to become of it.
    pub goal: PowerGoal,
    /// Attempts that failed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failed: u32,
    /// A person was told that it is not done yet.
    #[serde(default, skip_serializing_if = "is_default")]
    pub told: bool,
    /// The action that was given out for it and has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flight: Option<PowerFlight>,
}

/// What is to become of the power of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerGoal {
    /// It is powered off once its services are stopped.
    ToOff,
    /// It is off, as was ordered.
    Off,
    /// It is powered on if it is off.
    ToOn,
    /// It is on, as was ordered, and has its grace to answer.
    On,
}

/// An action on the power of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// Power it off, and verify that it is.
    Off,
    /// Power it on.
    On,
}

/// One that was given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerFlight {
    /// Its number.
    pub action: ActionId,
    /// What.
    pub switch: Switch,
    /// How long ago it was given out.
    pub age: Millis,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_healthy_is_small_and_all_of_it_reads_back() {
        let name = |text: &str| Name::parse(text).unwrap();
        let service = |text: &str, past| ServiceSnapshot {
            name: name(text),
            subject: 7,
            standing: Standing::Watched,
            grace: None,
            setup: None,
            past,
        };
        let ladder = LadderSnapshot {
            failures: vec![Millis(90_000), Millis(30_000)],
            rung: Some(Rung::RestartService),
            attempts: 2,
            ..LadderSnapshot::default()
        };
        let past = Past { incident: Some(IncidentId(4)), ladder, ..Past::default() };
        let assembly = AssemblySnapshot {
            name: name("web"),
            subject: 7,
            address: None,
            moved: false,
            foreign: None,
            given_back: false,
            zone: None,
            drift: false,
            made_of: None,
            grace: None,
            past: None,
            recovery: None,
            astray: Vec::new(),
            step: None,
            power: None,
            services: vec![service("nginx", Some(past)), service("php", None)],
        };
        let snapshot = Snapshot {
            version: SNAPSHOT_VERSION,
            next_action: ActionId(9),
            next_incident: IncidentId(5),
            desired: Desired::Running,
            paused: false,
            failures: Vec::new(),
            assemblies: vec![assembly],
        };
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"next_action":9,"next_incident":5,"desired":"running","paused":false,"assemblies":[{"name":"web","subject":7,"services":[{"name":"nginx","subject":7,"past":{"incident":4,"ladder":{"failures":[90000,30000],"rung":"restart-service","attempts":2}}},{"name":"php","subject":7}]}]}"#
        );
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
    }
}
