//! Verification (policy.md sections 1 and 3): a recovery has worked only when fresh probes, begun after it was done, have passed for
//! `stable_for`. A reboot has worked when the channel answers and all services that should run have.

use cpe_proto::event::EventKind;
use cpe_proto::id::{AssemblyIndex, ServiceIndex};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::Beyond;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::describe;
use crate::engine::{About, Engine};
use crate::health::{ChannelHealth, HealthEvent};
use crate::output::Output;
use crate::parts::{Cause, Demand, Phase, Recovery, Start};

impl Engine {
    /// The action is done, or was looked at: what was seen before says nothing any more.
    pub(crate) fn begin_verifying(&mut self, index: AssemblyIndex, now: Timestamp) {
        let Some(recovery) = &self.assembly(index).recovery else { return };
        let service = recovery.service;
        let settings = match service {
            Some(service) => self.definition().service(service).probe,
            None => self.definition().assembly(index).probe,
        };
        let until = now.after(settings.startup_grace).after(settings.stable_for);
        if recovery.is_whole() {
            let looked_at = matches!(recovery.phase, Phase::Unresolved { .. });
            let seen = self.assembly(index).trouble.as_ref().and_then(|trouble| trouble.instance);
            let restarted = recovery.rung == Rung::RestartDeployable;
            if restarted && looked_at && seen.is_some_and(|seen| seen.state == InstanceState::Off) {
                self.assembly_trouble(index).ladder.beyond = Beyond::LeftOff;
            }
            self.come_back(index, now);
        }
        if let Some(recovery) = &mut self.assembly_mut(index).recovery {
            recovery.phase = Phase::Verifying { done: now, until };
        }
        match service {
            None => self.drop_evidence(index, now),
            Some(service) => self.look_afresh(service, now),
        }
    }

    /// What was seen of a service before its restart ended says nothing of it any more.
    pub(crate) fn look_afresh(&mut self, service: ServiceIndex, now: Timestamp) {
        let index = self.definition().service(service).assembly;
        self.assembly_mut(index).void_before = now;
        let part = self.service_mut(service);
        (part.misses, part.deadlines, part.passed) = (0, 0, Timestamp::ZERO);
        part.poll.hasten(now);
        let trouble = self.service_trouble(service);
        (trouble.first_failed, trouble.last_failed, trouble.pending_since, trouble.passing_since) =
            (None, None, None, None);
        (trouble.confirmed, trouble.confirmed_by) = (false, 0);
    }

    /// Whether a verification watches this service.
    pub(crate) fn verifies(&self, service: ServiceIndex) -> bool {
        let index = self.definition().service(service).assembly;
        let recovery = self.assembly(index).recovery.as_ref();
        let own = recovery.is_some_and(|it| {
            matches!(it.phase, Phase::Verifying { .. }) && it.service.is_none_or(|only| only == service)
        });
        own || self.comes_back(service)
    }

    pub(crate) fn verify(&mut self, index: AssemblyIndex, now: Timestamp) {
        let Some(recovery) = &self.assembly(index).recovery else { return };
        let Phase::Verifying { until, .. } = recovery.phase else { return };
        let (service, began) = (recovery.service, recovery.began);
        let stable = match service {
            Some(service) => self.service_stable(service),
            None => self.machine_stable(index) && self.all_came_back(index),
        };
        if stable {
            let reason = format!("healthy after {}", describe::span(now.since(began)));
            return self.end_recovery(index, Some(true), &reason, now);
        }
        if let Some(service) = service {
            let state = self.service(service).state;
            if state == State::Misconfigured {
                let reason = self.service_trouble(service).reason.clone();
                return self.end_recovery(index, None, &format!("misconfigured: {reason}"), now);
            }
            let part = self.service(service);
            let threshold = self.definition().service(service).probe.failure_threshold.get();
            if u32::from(part.misses) >= threshold || u32::from(part.deadlines) >= threshold {
                let reason = self.service_trouble(service).reason.clone();
                return self.recovery_failed(index, &reason, now);
            }
        }
        if now >= until {
            self.verification_over(index, service, now);
        }
    }

    pub(crate) fn service_stable(&self, service: ServiceIndex) -> bool {
        let part = self.service(service);
        let stable_for = self.definition().service(service).probe.stable_for;
        let passing = part.trouble.as_ref().and_then(|trouble| trouble.passing_since);
        passing.is_some_and(|since| part.passed >= since.after(stable_for))
    }

    /// Its newest probe, of those that began after the action, passed.
    pub(crate) fn service_passes(&self, service: ServiceIndex) -> bool {
        let part = self.service(service);
        let passing = part.trouble.as_ref().and_then(|trouble| trouble.passing_since);
        passing.is_some_and(|since| part.passed >= since)
    }

    /// What is misconfigured, and what waits for a dependency elsewhere, no reboot of this machine could mend; what is paused is nobody's
    /// to mend.
    fn machine_stable(&self, index: AssemblyIndex) -> bool {
        let part = self.assembly(index);
        if part.channel != ChannelHealth::Healthy {
            return false;
        }
        let stable_for = self.definition().assembly(index).probe.stable_for;
        let answering = part.trouble.as_ref().and_then(|trouble| trouble.answering_since);
        let answers = answering.is_some_and(|since| part.answered >= since.after(stable_for));
        let excused = |service| {
            self.service(service).state == State::Misconfigured
                || self.dependency_elsewhere(service)
                || self.is_service_paused(service)
        };
        answers
            && self
                .definition()
                .services_of(index)
                .all(|service| self.service_stable(service) || excused(service))
    }

    /// Its time is over. Only what was seen failing has failed: without an answer nothing is counted, and fresh probes judge it anew.
    fn verification_over(&mut self, index: AssemblyIndex, service: Option<ServiceIndex>, now: Timestamp) {
        if service.is_none() && self.machine_stable(index) {
            if self.waits_for_others(index, now) {
                return;
            }
            // What was restarted with it and is not well is judged for itself.
            return self.end_recovery(
                index,
                Some(true),
                "healthy; not all that was restarted with it is",
                now,
            );
        }
        let part = self.assembly(index);
        let failed = match (service, part.channel) {
            (Some(service), ChannelHealth::Healthy) => self.fails(service),
            (None, ChannelHealth::Healthy) => {
                self.definition().services_of(index).any(|it| self.fails(it) && !self.is_service_paused(it))
            }
            (None, _) => part.misses > 0,
            (Some(_), _) => false,
        };
        let reason = match service {
            _ if !failed => "no answer says whether it worked".to_owned(),
            Some(service) => format!("not healthy in time: {}", self.service_trouble(service).reason),
            None => self.machine_unwell(index),
        };
        if failed {
            self.recovery_failed(index, &reason, now);
        } else {
            self.end_recovery(index, None, &reason, now);
        }
    }

    fn fails(&self, service: ServiceIndex) -> bool {
        self.service(service).trouble.as_ref().is_some_and(|it| it.last_failed.is_some())
    }

    fn machine_unwell(&self, index: AssemblyIndex) -> String {
        if self.assembly(index).channel != ChannelHealth::Healthy {
            return format!("its channel does not answer in time: {}", self.assembly(index).failure);
        }
        let fails = |service: &ServiceIndex| self.fails(*service) && !self.is_service_paused(*service);
        let unwell = self.definition().services_of(index).find(fails);
        let Some(service) = unwell else { return "not stable in time".to_owned() };
        let reason = self.service(service).trouble.as_ref().map_or("", |trouble| &*trouble.reason);
        format!("{} is not healthy in time: {reason}", self.definition().service(service).name)
    }

    /// A recovery that did not work is a failure of its scope.
    pub(crate) fn recovery_failed(&mut self, index: AssemblyIndex, reason: &str, now: Timestamp) {
        let Some(recovery) = &self.assembly(index).recovery else { return };
        let incident = recovery.incident;
        if let Some(service) = recovery.service {
            self.service_trouble(service).reason = reason.into();
            self.end_recovery(index, Some(false), reason, now);
            return self.count_failed_restart(service, now);
        }
        let healthy = self.assembly(index).channel == ChannelHealth::Healthy;
        let fails = |service: &ServiceIndex| self.fails(*service) && !self.is_service_paused(*service);
        let unwell = self.definition().services_of(index).find(fails).filter(|_| healthy);
        if let Some(service) = unwell {
            self.service_trouble(service).incident.get_or_insert(incident);
        }
        let trouble = self.assembly_trouble(index);
        trouble.demand = Demand::Fault;
        trouble.cause = unwell.map_or(Cause::Channel, Cause::Escalated);
        trouble.reason = reason.into();
        self.end_recovery(index, Some(false), reason, now);
    }

    /// A restart that itself failed is a failure now, whatever the next probe says: that one only decides whether it is tried again.
    fn count_failed_restart(&mut self, service: ServiceIndex, now: Timestamp) {
        let trouble = self.service_trouble(service);
        let counts = trouble.last_failed.is_none() && trouble.demand == Demand::Fault;
        if counts && self.service_held_back(service).is_none() && self.dependency_down(service).is_none() {
            self.count_service(service, now);
        }
    }

    /// The recovery is over: it worked, it did not, or that cannot be said.
    pub(crate) fn end_recovery(
        &mut self,
        index: AssemblyIndex,
        worked: Option<bool>,
        reason: &str,
        now: Timestamp,
    ) {
        if self.gives_back(index, worked, reason, now) {
            return;
        }
        let Some(recovery) = self.assembly_mut(index).recovery.take() else { return };
        let Recovery { action, rung, service, incident, freed, .. } = *recovery;
        self.changed = true;
        if let (None, Some(trouble)) = (service, &mut self.assembly_mut(index).trouble) {
            // What cannot be tried is told from here on.
            trouble.untried = None;
        }
        let about = service.map_or(About::Assembly(index), About::Service);
        self.report(about, EventKind::RecoveryFinished, now, |it| {
            it.reason = reason.into();
            it.to = Some(match worked {
                Some(true) => State::Healthy,
                Some(false) => State::Failed,
                None => State::Unknown,
            });
            (it.incident, it.action, it.rung) = (Some(incident), Some(action), Some(rung));
        });
        self.output(Output::Release(action));
        if rung >= Rung::RestartDeployable {
            self.end_of_touched(index, reason, now);
        }
        match service {
            Some(service) => self.end_of_service(service, worked, reason, now),
            None => {
                for service in self.definition().services_of(index) {
                    // What ran on, ran: whatever became of the machine. A service that waits for a dependency elsewhere is judged for
                    // itself once the machine is well.
                    let mine = match worked {
                        _ if self.service_passes(service) => Some(true),
                        Some(false) if self.fails(service) => Some(false),
                        _ => None,
                    };
                    self.end_of_service(service, mine, reason, now);
                }
            }
        }
        if worked == Some(true)
            && service.is_none()
            && let Some(trouble) = &mut self.assembly_mut(index).trouble
        {
            trouble.reason = "".into();
            trouble.ladder.beyond = Beyond::Own;
        }
        if freed && worked != Some(true) && !self.in_maintenance(index) {
            self.after_maintenance(index, now);
        }
        if service.is_none() && !self.desired.runs() {
            // What was stopped on it may run again since its boot.
            self.stop_afresh(index, now);
        }
    }

    pub(crate) fn end_of_service(
        &mut self,
        service: ServiceIndex,
        worked: Option<bool>,
        reason: &str,
        now: Timestamp,
    ) {
        if let Some(trouble) = &mut self.service_mut(service).trouble {
            (trouble.start, trouble.grace_until) = (Start::No, None);
        }
        if self.service(service).state != State::Recovering {
            return;
        }
        match worked {
            Some(true) => {
                self.change(service, HealthEvent::RecoveryWorked, "", now);
                self.calm_service(service);
            }
            Some(false) => {
                let seen = self.service_trouble(service).reason.clone();
                self.change(service, HealthEvent::RecoveryFailed, &seen, now);
            }
            None => self.change(service, HealthEvent::RecoveryUnclear, reason, now),
        }
    }
}
