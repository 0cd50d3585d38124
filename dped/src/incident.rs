//! Incidents: opened at a confirmed fault, kept while the ladder is climbed, closed when what failed has been healthy for a while or
//! was stopped. Here too: how counts decay, and the states that follow from others'.

use std::time::Duration;

use cpe_proto::event::EventKind;
use cpe_proto::id::{AssemblyIndex, IncidentId, ServiceIndex};
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::describe;
use crate::engine::{About, Engine};
use crate::health::ChannelHealth;
use crate::ladder::Ladder;
use crate::parts::{Cause, Demand, Phase, Start};

/// An incident is closed after this many times `stable_for` without a failure. A recovery has worked after one `stable_for`; what dies
/// again soon after that is the same incident, so that a crash loop is one thread for a person and not one for each restart.
pub const SETTLE_FACTOR: u32 = 3;

impl Engine {
    pub(crate) fn open_service_incident(&mut self, index: ServiceIndex, now: Timestamp) -> IncidentId {
        if let Some(open) = self.service_trouble(index).incident {
            return open;
        }
        let incident = self.incident_id();
        let trouble = self.service_trouble(index);
        trouble.incident = Some(incident);
        let reason = describe::confirmed(&trouble.reason, trouble.confirmed_by);
        self.report(About::Service(index), EventKind::IncidentOpened, now, |it| {
            (it.reason, it.incident) = (reason.into(), Some(incident));
        });
        incident
    }

    pub(crate) fn open_assembly_incident(
        &mut self,
        index: AssemblyIndex,
        now: Timestamp,
    ) -> Option<IncidentId> {
        if let Some(open) = self.assembly_trouble(index).incident {
            return Some(open);
        }
        let incident = self.incident_id();
        let misses = self.assembly(index).misses;
        let trouble = self.assembly_trouble(index);
        trouble.incident = Some(incident);
        let reason = describe::confirmed(&trouble.reason, misses);
        self.report(About::Assembly(index), EventKind::IncidentOpened, now, |it| {
            (it.reason, it.incident) = (reason.into(), Some(incident));
        });
        Some(incident)
    }

    /// What a person orders is part of the incident that is open, so that it stays open until the order is answered.
    fn may_settle(&self, index: AssemblyIndex) -> bool {
        self.desired.runs() && self.assembly(index).by_hand.is_none()
    }

    /// When a healthy service's incident closes or its counts decay.
    pub(crate) fn service_settles(&self, index: ServiceIndex) -> Option<Timestamp> {
        let part = self.service(index);
        let trouble =
            part.trouble.as_ref().filter(|_| self.may_settle(self.definition().service(index).assembly))?;
        let since = trouble.passing_since.filter(|_| part.state == State::Healthy)?;
        let settled = self.definition().service(index).probe.stable_for * SETTLE_FACTOR;
        Some(since.after(span(
            trouble.incident.is_some(),
            &trouble.ladder,
            settled,
            self.service_window().within,
        )))
    }

    /// When a healthy assembly's incident closes or its counts decay.
    pub(crate) fn assembly_settles(&self, index: AssemblyIndex) -> Option<Timestamp> {
        let trouble = self.assembly(index).trouble.as_ref().filter(|_| self.may_settle(index))?;
        if trouble.incident.is_none() && self.assembly(index).foreign.is_some() {
            // It is looked at on.
            return None;
        }
        let since = trouble.healthy_since?;
        let settled = self.definition().assembly(index).probe.stable_for * SETTLE_FACTOR;
        Some(since.after(span(
            trouble.incident.is_some(),
            &trouble.ladder,
            settled,
            self.assembly_window().within,
        )))
    }

    /// Closes incidents and forgets counts, as far as their time has come.
    pub(crate) fn settle(&mut self, index: AssemblyIndex, now: Timestamp) {
        if !self.desired.runs() {
            return;
        }
        for service in self.definition().services_of(index) {
            let Some(at) = self.service_settles(service) else { continue };
            if now < at {
                continue;
            }
            let trouble = self.service_trouble(service);
            let healthy_for = now.since(trouble.passing_since.unwrap_or(now));
            match trouble.incident.take() {
                Some(incident) => {
                    self.close_incident(About::Service(service), index, incident, healthy_for, now);
                }
                None => self.service_mut(service).trouble = None,
            }
        }
        self.note_assembly_health(index, now);
        let Some(at) = self.assembly_settles(index) else { return };
        if now < at {
            return;
        }
        let trouble = self.assembly_trouble(index);
        let healthy_for = now.since(trouble.healthy_since.unwrap_or(now));
        match trouble.leave_incident() {
            Some(incident) => {
                let trouble = self.assembly_trouble(index);
                // What the next one is, is news.
                (trouble.fenced, trouble.told) = (None, None);
                self.close_incident(About::Assembly(index), index, incident, healthy_for, now);
            }
            None => self.assembly_mut(index).trouble = None,
        }
    }

    fn note_assembly_health(&mut self, index: AssemblyIndex, now: Timestamp) {
        let healthy = self.assembly(index).channel == ChannelHealth::Healthy
            && self.assembly(index).recovery.is_none()
            && self
                .definition()
                .services_of(index)
                .all(|service| matches!(self.service(service).state, State::Healthy | State::Misconfigured));
        let Some(trouble) = &mut self.assembly_mut(index).trouble else { return };
        // What is not tried is not proven.
        if !healthy || trouble.untried.is_some() {
            trouble.healthy_since = None;
            return;
        }
        trouble.healthy_since.get_or_insert(now);
        if let (Cause::Escalated(_), Demand::Fault | Demand::Attempt) = (trouble.cause, trouble.demand) {
            (trouble.demand, trouble.wait_until, trouble.refused) = (Demand::Nothing, None, None);
        }
    }

    /// Lets go of an incident; it ends with the last part of its assembly that holds it.
    fn close_incident(
        &mut self,
        about: About,
        index: AssemblyIndex,
        incident: IncidentId,
        healthy_for: Duration,
        now: Timestamp,
    ) {
        self.changed = true;
        if self.incident_held(index, incident) {
            return;
        }
        let reason = format!("healthy for {}", describe::span(healthy_for));
        self.report(about, EventKind::IncidentClosed, now, |it| {
            (it.reason, it.incident) = (reason.into(), Some(incident));
        });
    }

    fn incident_held(&self, index: AssemblyIndex, incident: IncidentId) -> bool {
        let of_assembly = self.assembly(index).trouble.as_ref().and_then(|trouble| trouble.incident);
        let mut of_services =
            self.definition().services_of(index).filter_map(|it| self.service(it).trouble.as_ref()?.incident);
        of_assembly == Some(incident) || of_services.any(|open| open == incident)
    }

    pub(crate) fn is_open(&self, incident: IncidentId) -> bool {
        self.definition().assembly_indices().any(|index| self.incident_held(index, incident))
    }

    /// Closes every incident of an assembly because of an order.
    pub(crate) fn close_all(&mut self, index: AssemblyIndex, reason: &str, now: Timestamp) {
        let mut open: Vec<(About, IncidentId)> = Vec::new();
        if let Some(incident) =
            self.assembly_mut(index).trouble.as_mut().and_then(|trouble| trouble.leave_incident())
        {
            open.push((About::Assembly(index), incident));
        }
        for service in self.definition().services_of(index) {
            if let Some(incident) =
                self.service_mut(service).trouble.as_mut().and_then(|trouble| trouble.incident.take())
                && open.iter().all(|(_, known)| *known != incident)
            {
                open.push((About::Service(service), incident));
            }
        }
        for (about, incident) in open {
            self.report(about, EventKind::IncidentClosed, now, |it| {
                (it.reason, it.incident) = (reason.into(), Some(incident));
            });
        }
    }

    // ---- states that follow from others'

    fn assembly_state(&self, index: AssemblyIndex) -> State {
        let part = self.assembly(index);
        let acting = |phase: Phase| !matches!(phase, Phase::Asked { .. });
        if part.recovery.as_ref().is_some_and(|it| it.service.is_none() && acting(it.phase)) {
            return State::Recovering;
        }
        let worst = worst(self.definition().services_of(index).map(|service| self.service(service).state));
        if !self.desired.runs() {
            return worst.unwrap_or(State::Stopped);
        }
        match part.channel {
            ChannelHealth::Dead => self.dead_state(index),
            ChannelHealth::Suspected => State::Suspected,
            ChannelHealth::Unknown
                if part.trouble.as_ref().is_some_and(|trouble| trouble.drift || trouble.is_lost()) =>
            {
                State::Unknown
            }
            ChannelHealth::Unknown if part.recovery.as_ref().is_some_and(|it| acting(it.phase)) => {
                State::Recovering
            }
            ChannelHealth::Unknown => match &part.trouble {
                Some(trouble) if trouble.incident.is_some() && trouble.ladder.given_up => State::Exhausted,
                Some(trouble) if trouble.demand != Demand::Nothing => State::Failed,
                _ => State::Starting,
            },
            ChannelHealth::Healthy => worst.unwrap_or(State::Healthy),
        }
    }

    /// After a restore: what follows from what is known is no change.
    pub(crate) fn assume_state(&mut self, index: AssemblyIndex) {
        self.assembly_mut(index).state = self.assembly_state(index);
    }

    pub(crate) fn assume_deployable_state(&mut self) {
        self.state = self.deployable_state();
    }

    /// Tells when an assembly's state has changed.
    pub(crate) fn derive_assembly(&mut self, index: AssemblyIndex, now: Timestamp) {
        let (from, to) = (self.assembly(index).state, self.assembly_state(index));
        if from == to {
            return;
        }
        let part = self.assembly_mut(index);
        (part.state, part.since) = (to, now);
        let incident = part.trouble.as_ref().and_then(|trouble| trouble.incident);
        let reason = match part.channel {
            // One word; the detail is told with the incident and the verdict.
            ChannelHealth::Dead | ChannelHealth::Suspected if part.misses > 0 => {
                format!("channel {}", part.failure)
            }
            _ => self.assembly_reason(index),
        };
        self.report(About::Assembly(index), EventKind::StateChanged, now, |it| {
            (it.from, it.to, it.reason, it.incident) = (Some(from), Some(to), reason.into(), incident);
        });
    }

    /// Why an assembly is not healthy, as a clause.
    pub(crate) fn assembly_reason(&self, index: AssemblyIndex) -> String {
        let part = self.assembly(index);
        let own = part.trouble.as_ref().map_or("", |trouble| &*trouble.reason);
        if let Some(said) = self.power_said(index) {
            return said;
        }
        if self.is_left_on(index) {
            return "left as it is: it was added after the power-off, which can be ordered again".to_owned();
        }
        if part.state == State::Healthy || part.state == State::Stopped {
            return String::new();
        }
        if part.channel != ChannelHealth::Healthy && !own.is_empty() {
            return own.to_owned();
        }
        let worst =
            self.definition().services_of(index).filter(|it| self.service(*it).state == part.state).min();
        let Some(worst) = worst else { return String::new() };
        format!("{} is {}", self.definition().service(worst).name, part.state)
    }

    /// The worst of its parts; degraded while some still serve.
    fn deployable_state(&self) -> State {
        let states = || self.definition().assembly_indices().map(|index| self.assembly(index).state);
        let worst = worst(states()).unwrap_or(State::Healthy);
        let serves = || {
            self.definition().assembly_indices().any(|index| {
                let mut services = self.definition().services_of(index);
                let healthy = services.any(|service| self.service(service).state == State::Healthy);
                healthy || self.assembly(index).state == State::Healthy
            })
        };
        // A machine that somebody stopped is missing where the others serve.
        let missing = self.desired.runs() && states().any(|state| state == State::Stopped);
        if (worst > State::Degraded || missing) && serves() { State::Degraded } else { worst }
    }

    /// Tells when the deployable's state has changed.
    pub(crate) fn derive_deployable(&mut self, now: Timestamp) {
        let (from, to) = (self.state, self.deployable_state());
        if from == to {
            return;
        }
        (self.state, self.since) = (to, now);
        self.report(About::Deployable, EventKind::StateChanged, now, |it| {
            (it.from, it.to) = (Some(from), Some(to));
        });
    }

    /// Not being healthy is no fault for a while, and nothing is started for it: after maintenance.
    pub(crate) fn begin_grace(&mut self, service: ServiceIndex, now: Timestamp) {
        let grace = self.definition().service(service).probe.startup_grace;
        let trouble = self.service_trouble(service);
        (trouble.start, trouble.grace_until) = (Start::Begun, Some(now.after(grace)));
    }
}

/// The worst of some states. What is stopped is not worse than what runs: it only counts when all are.
fn worst(states: impl Iterator<Item = State>) -> Option<State> {
    let (mut any, mut worst) = (None, None);
    for state in states {
        any = Some(state);
        if state != State::Stopped {
            worst = worst.max(Some(state));
        }
    }
    worst.or(any)
}

fn span(open: bool, ladder: &Ladder, settled: Duration, within: Duration) -> Duration {
    match (open, ladder) {
        // What was exhausted stays open until it is proven healthy; so does what has climbed over reboots: the next failure is the same
        // fault again, and finds the reboot that did not help it in its own incident. After a recreate there is no rung for it to find.
        (true, ladder) if ladder.given_up || ladder.climbed && !ladder.recreated => within.max(settled),
        (true, _) => settled,
        (false, ladder) if *ladder == Ladder::default() => Duration::ZERO,
        (false, _) => within.max(settled),
    }
}
