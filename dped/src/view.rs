//! What an engine knows, for `cpe status` and metrics.

use std::sync::Arc;

use cpe_proto::decision::Verdict;
use cpe_proto::id::{AssemblyIndex, IncidentId};
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::engine::{Desired, Engine};
use crate::ladder::Ladder;
use crate::parts::Phase;

/// A deployable at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The worst of its parts; degraded while some still serve.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// What was ordered.
    pub desired: Desired,
    /// The whole of it is in maintenance.
    pub maintenance: bool,
    /// An operator stopped its recoveries.
    pub paused: bool,
    /// In the definition's order.
    pub assemblies: Vec<AssemblyView>,
    /// In the definition's order, over all assemblies.
    pub services: Vec<ServiceView>,
    /// The open incidents, oldest first, each once.
    pub incidents: Vec<IncidentId>,
    /// Admitted recoveries that are not over.
    pub recoveries: usize,
}

/// One assembly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssemblyView {
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// Why it is not healthy, as a clause; empty if it is.
    pub reason: Box<str>,
    /// It is in maintenance by itself.
    pub maintenance: bool,
    /// Where the infrastructure says that it is reached.
    pub address: Option<Arc<str>>,
    /// Its open incident.
    pub incident: Option<IncidentId>,
    /// What it waits for, and until when.
    pub waits: Vec<Waiting>,
    /// How its instance differs from what the definition says, as a clause.
    pub drift: Option<Box<str>>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// Why it is not healthy, as a clause; of one that is, its warning, or empty.
    pub reason: Box<str>,
    /// Its open incident.
    pub incident: Option<IncidentId>,
    /// How often the refusal that stands was given.
    pub refused: u32,
    /// What it waits for, and until when.
    pub waits: Vec<Waiting>,
}

/// Something that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What.
    pub what: Wait,
    /// Until then at the latest.
    pub until: Timestamp,
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// The back-off between two attempts.
    BackOff,
    /// The next attempt of what is exhausted.
    Retry,
    /// The gate is asked again.
    Gate,
    /// Not having been healthy is no fault before that.
    Grace,
    /// A dependency; that it is waited for is told then.
    Dependency,
    /// A person is told then.
    Telling,
    /// An action's outcome.
    Outcome,
    /// Services are stopped, or started again, for a recovery of the whole deployable.
    Steps,
    /// What became of an action is looked at.
    Look,
    /// A recovery is verified.
    Verification,
}

impl Engine {
    /// What it knows now.
    #[must_use]
    pub fn view(&self) -> View {
        let definition = self.definition();
        let assemblies: Vec<_> =
            definition.assembly_indices().map(|index| self.view_assembly(index)).collect();
        let services: Vec<_> = definition
            .assembly_indices()
            .flat_map(|index| definition.services_of(index))
            .map(|index| self.view_service(index))
            .collect();
        let mut incidents: Vec<_> = assemblies
            .iter()
            .map(|it| it.incident)
            .chain(services.iter().map(|it| it.incident))
            .flatten()
            .collect();
        incidents.sort_unstable();
        incidents.dedup();
        let acting = |index| {
            self.assembly(index).recovery.as_ref().is_some_and(|it| !matches!(it.phase, Phase::Asked { .. }))
        };
        View {
            state: self.state,
            since: self.since,
            desired: self.desired,
            maintenance: self.maintenance,
            paused: self.paused,
            recoveries: definition.assembly_indices().filter(|index| acting(*index)).count(),
            assemblies,
            services,
            incidents,
        }
    }

    /// What isolation last concluded of an assembly that is in trouble, and the row of its table (policy.md section 2).
    ///
    /// # Panics
    /// If the index is of another definition.
    #[must_use]
    pub fn isolated(&self, index: AssemblyIndex) -> Option<(&Verdict, u8)> {
        let trouble = self.assembly(index).trouble.as_ref()?;
        trouble.verdict.as_ref().map(|(verdict, row)| (verdict, *row))
    }

    fn view_assembly(&self, index: AssemblyIndex) -> AssemblyView {
        let part = self.assembly(index);
        AssemblyView {
            state: part.state,
            since: part.since,
            reason: self.assembly_reason(index).into(),
            maintenance: part.maintenance,
            address: part.address.clone(),
            incident: part.trouble.as_ref().and_then(|trouble| trouble.incident),
            waits: self.waits_of_assembly(index),
            drift: self.foreign_said(index).or_else(|| self.drift(index)).map(Into::into),
        }
    }

    fn waits_of_assembly(&self, index: AssemblyIndex) -> Vec<Waiting> {
        let part = self.assembly(index);
        let mut waits = Vec::new();
        let mut add = |what, until| waits.push(Waiting { what, until });
        if let Some(recovery) = part.recovery.as_ref().filter(|it| it.service.is_none()) {
            acting(recovery.phase, &mut add);
        }
        if part.state == State::Starting && part.grace_until > Timestamp::ZERO {
            add(Wait::Grace, part.grace_until);
        }
        let Some(trouble) = &part.trouble else { return waits };
        attempts(trouble.wait_until, trouble.refused.is_some(), &trouble.ladder, &mut add);
        if let Some(at) = trouble.waits.as_ref().and_then(|waits| waits.say_at) {
            add(Wait::Dependency, at);
        }
        if let Some(at) = trouble.say_at {
            add(Wait::Telling, at);
        }
        waits
    }

    fn waits_of_service(&self, index: cpe_proto::id::ServiceIndex) -> Vec<Waiting> {
        let part = self.service(index);
        let above = self.assembly(self.definition().service(index).assembly);
        let mut waits = Vec::new();
        let mut add = |what, until| waits.push(Waiting { what, until });
        if let Some(recovery) = above.recovery.as_ref().filter(|it| it.service == Some(index)) {
            acting(recovery.phase, &mut add);
        }
        let Some(trouble) = part.trouble.as_ref().filter(|_| part.state != State::Healthy) else {
            return waits;
        };
        if let Some(at) = trouble.grace_until.filter(|_| part.state == State::Starting) {
            add(Wait::Grace, at);
        }
        attempts(trouble.wait_until, trouble.refused.is_some(), &trouble.ladder, &mut add);
        if let Some(at) = trouble.waits.as_ref().and_then(|waits| waits.say_at) {
            add(Wait::Dependency, at);
        }
        waits
    }

    fn view_service(&self, index: cpe_proto::id::ServiceIndex) -> ServiceView {
        let part = self.service(index);
        let trouble = part.trouble.as_ref();
        let reason = match trouble {
            Some(trouble) if part.state != State::Healthy => match &trouble.waits {
                Some(waits) => format!("{}; {}", trouble.reason, waits.why).into(),
                None => trouble.reason.clone(),
            },
            _ if part.state == State::Healthy => self.warning(index).unwrap_or_default().into(),
            _ => "".into(),
        };
        ServiceView {
            state: part.state,
            since: part.since,
            reason,
            incident: trouble.and_then(|trouble| trouble.incident),
            refused: trouble.and_then(|trouble| trouble.refused).map_or(0, |standing| standing.times),
            waits: self.waits_of_service(index),
        }
    }
}

fn acting(phase: Phase, add: &mut impl FnMut(Wait, Timestamp)) {
    match phase {
        Phase::Asked { .. } => {}
        Phase::Preparing { until } | Phase::GivingBack { until } => add(Wait::Steps, until),
        Phase::Acting { until } => add(Wait::Outcome, until),
        Phase::Unresolved { until } => add(Wait::Look, until),
        Phase::Verifying { until, .. } => add(Wait::Verification, until),
    }
}

fn attempts(
    wait_until: Option<Timestamp>,
    refused: bool,
    ladder: &Ladder,
    add: &mut impl FnMut(Wait, Timestamp),
) {
    if ladder.given_up {
        add(Wait::Retry, ladder.retry_at);
    } else if let Some(at) = wait_until {
        add(if refused { Wait::Gate } else { Wait::BackOff }, at);
    }
}
