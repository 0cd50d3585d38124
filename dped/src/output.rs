//! What goes out of the engine, in one queue, in order. The other direction is `input.rs`.

use std::time::Duration;

use cpe_proto::api::Intent;
use cpe_proto::decision::{Decision, Facts, Verdict};
use cpe_proto::definition::Deployable;
use cpe_proto::event::Event;
use cpe_proto::id::{ActionId, AssemblyIndex, IncidentId, ProbeId, ServiceIndex};
use cpe_proto::rung::Rung;
pub use cpe_proto::snapshot::Switch;

use crate::audit::{RECONFIGURE, power_word};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Probe this and answer with [`Input::Probed`](crate::Input::Probed) by its deadline.
    Probe {
        /// Its number.
        probe: ProbeId,
        /// What to probe.
        target: Target,
        /// No answer after that is an answer of its own.
        timeout: Duration,
    },
    /// Ask the infrastructure for its view and answer with [`Input::Instance`](crate::Input::Instance).
    AskInstance(AssemblyIndex),
    /// Ask the fleet guard and answer with [`Input::Surroundings`](crate::Input::Surroundings).
    AskSurroundings(AssemblyIndex),
    /// Ask the gate and answer with [`Input::Admission`](crate::Input::Admission).
    AskAdmission(Request),
    /// Do this, after a durable intent, and answer with [`Input::Acted`](crate::Input::Acted), or [`Input::Fenced`](crate::Input::Fenced).
    /// A recovery that makes a new instance is given out twice under one number: [`Act::Fence`], then [`Act::Machine`], which is begun only
    /// after a durable record that is made once for each number. Where that was made before, it is
    /// [`Unresolved`](crate::ActionOutcome::Unresolved).
    Act(Action),
    /// An admitted action is over, or is not wanted any more: its lease ends.
    Release(ActionId),
    /// Drop the session to an assembly and connect anew: it was rebooted, or has a new address.
    Reconnect(AssemblyIndex),
    /// Something happened: keep it, show it.
    Report(Event),
    /// Why something was done or not: keep it.
    Record(Box<Decision>),
    /// What became of an order that somebody waits for.
    Answer {
        /// The order's number.
        order: u64,
        /// One sentence: what is done, or why nothing is.
        answer: Result<Box<str>, Box<str>>,
    },
    /// A person must be told now: the ladder ended, or something needs a person.
    Notify {
        /// The incident that it belongs to.
        incident: Option<IncidentId>,
        /// One sentence.
        message: Box<str>,
    },
}

impl Output {
    /// Whether it only tells what is so already, and nothing is answered to it.
    pub(crate) const fn only_tells(&self) -> bool {
        matches!(self, Self::Report(_) | Self::Record(_) | Self::Answer { .. } | Self::Notify { .. })
    }
}

/// What a probe is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The way to an assembly.
    Channel(AssemblyIndex),
    /// A service.
    Service(ServiceIndex),
}

/// An action that wants admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The action.
    pub action: ActionId,
    /// Its rung; none for the steps of an ordered start or stop.
    pub rung: Option<Rung>,
    /// The assembly that it touches.
    pub assembly: AssemblyIndex,
    /// The service, for the service scope.
    pub service: Option<ServiceIndex>,
    /// What isolation concluded.
    pub verdict: Verdict,
    /// From what.
    pub facts: Facts,
    /// How old the newest evidence for it is.
    pub evidence_age: Duration,
    /// Fresh means: not older than this (two intervals).
    pub evidence_age_max: Duration,
    /// What nobody sees end may still be done for so long after it was begun (`action_give_up`).
    pub give_up: Duration,
    /// The recovery of the whole deployable that it is a step of: with that one's lease it is admitted, too.
    pub part_of: Option<ActionId>,
    /// What is exhausted is tried once more (`retry_after`): others' first attempts go before it.
    pub dated_retry: bool,
}

/// An admitted action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its number.
    pub action: ActionId,
    /// Its incident; none for the steps of an ordered start or stop.
    pub incident: Option<IncidentId>,
    /// The assembly.
    pub assembly: AssemblyIndex,
    /// What to do.
    pub act: Act,
    /// After that it is [`Unresolved`](crate::ActionOutcome::Unresolved).
    pub timeout: Duration,
    /// A person confirmed that the old instance is down: a replacement does not wait for the infrastructure to say so.
    pub fenced: bool,
    /// The recovery of the whole deployable that it is a step of.
    pub part_of: Option<ActionId>,
}

impl Action {
    /// What the journal has of it before it is begun. A recovery that makes a new instance has one, for both of its steps.
    #[must_use]
    pub fn intent(&self, definition: &Deployable) -> Intent {
        let (service, act, rung) = match self.act {
            Act::RestartService(service) => {
                (Some(service), Rung::RestartService.as_str(), Some(Rung::RestartService))
            }
            Act::StartService(service) => (Some(service), "start-service", None),
            Act::StopService(service) => (Some(service), "stop-service", None),
            Act::Reconfigure(service) => (Some(service), RECONFIGURE, None),
            Act::Power(switch) => (None, power_word(switch), None),
            Act::Fence(rung) | Act::Machine(rung) => (None, rung.as_str(), Some(rung)),
        };
        Intent {
            deployable: definition.name.clone(),
            action: self.action,
            incident: self.incident,
            assembly: definition.assembly(self.assembly).name.clone(),
            service: service.map(|service| definition.service(service).name.clone()),
            act: act.to_owned(),
            rung,
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// `reset-failed`, then `restart`.
    RestartService(ServiceIndex),
    /// Configure and start a service that is not running, as part of a start.
    StartService(ServiceIndex),
    /// Stop a unit, as part of a stop.
    StopService(ServiceIndex),
    /// Run its configure script with what its parameters are now, and restart it: what was given to it before has changed. It is done
    /// once it has them, whether or not it then starts: fresh probes judge that.
    Reconfigure(ServiceIndex),
    /// Stop the old instance and verify that it is down, as the first step of this rung. Doing it twice does no harm.
    Fence(Rung),
    /// Power its machine off and verify that it is off, or power it on, as part of an ordered stop or start. Doing it twice does no harm.
    Power(Switch),
    /// An operation of the infrastructure; of a rung that makes a new instance, only its making.
    Machine(Rung),
}
