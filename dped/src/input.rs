//! What comes into the engine. Everything from outside has a number or a time by which an old message is told from a new one.
//! The other direction is `output.rs`; the calling contract is on [`Engine`](crate::Engine).

use std::collections::BTreeSet;
use std::sync::Arc;

use cpe_proto::decision::{Answer, Refusal, Value};
use cpe_proto::definition::Deployable;
use cpe_proto::id::{ActionId, AssemblyIndex, Name, ProbeId, ServiceIndex};
use cpe_proto::infrastructure::{InstanceState, Owner};
use cpe_proto::observation::Observation;
use cpe_proto::rung::Rung;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A probe ended.
    Probed {
        /// The probe, as [`Output::Probe`](crate::Output::Probe) named it.
        probe: ProbeId,
        /// What it saw.
        observation: Observation,
        /// We were late ourselves, above `lag_budget`: the result is void.
        void: bool,
    },
    /// The infrastructure's view of an assembly, asked for or not.
    Instance {
        /// Which.
        assembly: AssemblyIndex,
        /// Its state.
        state: InstanceState,
        /// Its address, if the infrastructure knows it.
        address: Option<Arc<str>>,
        /// Somebody other than us is known to have ordered that state.
        ordered: bool,
        /// Whose mark it bears.
        owner: Owner,
    },
    /// What the fleet guard knows around an assembly: the answer to [`Output::AskSurroundings`](crate::Output::AskSurroundings).
    Surroundings {
        /// Which.
        assembly: AssemblyIndex,
        /// What.
        surroundings: Surroundings,
    },
    /// The gate's answer to [`Output::AskAdmission`](crate::Output::AskAdmission).
    Admission {
        /// The action.
        action: ActionId,
        /// Admitted (a lease that must be released) or refused.
        answer: Answer,
        /// What the gate looked at, in its order.
        gates: Vec<Value>,
    },
    /// An action that was given out by [`Output::Act`](crate::Output::Act) ended.
    Acted {
        /// The action.
        action: ActionId,
        /// How.
        outcome: ActionOutcome,
    },
    /// The old instance of an assembly was stopped, as [`Act::Fence`](crate::Act::Fence) wants it: done means that it is down for certain.
    Fenced {
        /// The action that it belongs to.
        action: ActionId,
        /// How it ended.
        outcome: ActionOutcome,
    },
    /// An operator's order.
    Order(Order),
    /// Our own clock had a gap, or the engine was restored: all evidence is void.
    EvidenceVoid {
        /// Why, as a clause.
        reason: Box<str>,
    },
    /// A changed definition of the same deployable.
    Definition(Arc<Deployable>),
}

/// What the fleet guard knows around an assembly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether the controller trusts itself.
    pub self_trusted: bool,
    /// The held failure domain that the assembly is in.
    pub held_domain: Option<Name>,
    /// How long ago a canary or a peer on the same path, other than the assembly itself, answered; none: never, or there is none.
    pub path_answered_ago: Option<std::time::Duration>,
    /// Who answered, for the record.
    pub path_answered_by: Box<str>,
    /// What the adapter can do; none: the deployable has no infrastructure.
    pub capabilities: Option<cpe_proto::infrastructure::Capabilities>,
}

/// How an action ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionOutcome {
    /// The adapter or the guest reports success. Not yet believed: fresh probes decide.
    Done {
        /// One clause for a person.
        detail: Box<str>,
    },
    /// It was refused or failed, and certainly has no effect any more.
    Failed {
        /// One clause for a person.
        detail: Box<str>,
    },
    /// No answer in time: whether it has an effect is not known.
    Unresolved {
        /// One clause for a person.
        detail: Box<str>,
    },
    /// It was not begun, and certainly has no effect.
    NotBegun {
        /// [`Journal`](Refusal::Journal): no durable intent could be written. [`NotStarted`](Refusal::NotStarted): it was intended, and what
        /// carries it out could not begin.
        why: Refusal,
        /// One clause for a person.
        detail: Box<str>,
    },
}

/// An assembly of a deployable, or a service of it, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartName {
    /// The assembly.
    pub assembly: Name,
    /// The service; none: the assembly and everything in it.
    pub service: Option<Name>,
}

impl PartName {
    /// `assembly` or `assembly/service`; none: it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (assembly, service) = match text.split_once('/') {
            None => (text, None),
            Some((assembly, service)) => (assembly, Some(Name::parse(service).ok()?)),
        };
        Some(Self { assembly: Name::parse(assembly).ok()?, service })
    }
}

/// As people write it.
impl std::fmt::Display for PartName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.service {
            Some(service) => write!(out, "{}/{service}", self.assembly),
            None => write!(out, "{}", self.assembly),
        }
    }
}

/// An operator's order, for the whole deployable or one assembly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start what is stopped, in order.
    Start,
    /// Stop services in reverse order; machines stay on.
    Stop,
    /// Stop services in reverse order, and then power the machines off: those of what needs others first.
    PowerOff,
    /// Watch but do not act. The shell ends it when its hour has come.
    Maintenance {
        /// Of one assembly, or of all.
        assembly: Option<AssemblyIndex>,
        /// On or off.
        on: bool,
        /// Why.
        reason: Box<str>,
    },
    /// Recovery is stopped or allowed again.
    Pause {
        /// On or off.
        on: bool,
        /// Why.
        reason: Box<str>,
    },
    /// Recovery of these assemblies and services is stopped or allowed again, by their names: also of what a changed definition has under
    /// them. Of a service: its restarts; its failures are not counted, so that they climb no ladder. The shell says it again to each new
    /// engine, without a reason, and then it is not told.
    PartsPause {
        /// Which.
        parts: BTreeSet<PartName>,
        /// On or off.
        on: bool,
        /// Why; empty: as it was ordered before.
        reason: Box<str>,
    },
    /// Every recovery of the fleet is stopped or allowed again. The guard admits nothing meanwhile; the engine counts nothing.
    FleetPause {
        /// On or off.
        on: bool,
    },
    /// Every recovery of assemblies of these failure domains is stopped or allowed again, whatever assemblies a changed definition has in
    /// them. The guard admits nothing there meanwhile; the engine counts nothing. The shell says it again to each new engine.
    DomainPause {
        /// Which.
        domains: BTreeSet<Name>,
        /// On or off.
        on: bool,
    },
    /// Forget the counts of what is exhausted and begin anew.
    Retry {
        /// Of one assembly, or of all.
        assembly: Option<AssemblyIndex>,
    },
    /// A recovery by hand. It is answered by [`Output::Answer`](crate::Output::Answer).
    Recover(ByHand),
    /// A person confirms that the machine of an assembly is down, where that cannot be verified. It holds for the present incident and
    /// the present instance, and is answered by [`Output::Answer`](crate::Output::Answer).
    ConfirmFenced {
        /// Comes back with the answer.
        order: u64,
        /// Which.
        assembly: AssemblyIndex,
        /// Who, and why.
        by: Box<str>,
    },
    /// Connect anew and probe now: what the channel rests on has changed.
    Look {
        /// Which.
        assembly: AssemblyIndex,
    },
}

/// A recovery that a person orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByHand {
    /// Comes back with the answer.
    pub order: u64,
    /// Where.
    pub assembly: AssemblyIndex,
    /// The service, for the service scope.
    pub service: Option<ServiceIndex>,
    /// The rung; none: the next of the ladder.
    pub rung: Option<Rung>,
    /// Who, and why.
    pub by: Box<str>,
}
