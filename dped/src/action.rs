//! An admitted action, from its beginning to its end or until it is given up. One recovery in flight per assembly holds by
//! construction: there is one place for it. Whether it worked is `verify.rs`'s.

use std::time::Duration;

use cpe_proto::decision::Refusal;
use cpe_proto::event::EventKind;
use cpe_proto::id::{ActionId, AssemblyIndex, ServiceIndex};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::{Beyond, Stage};
use cpe_proto::time::Timestamp;

use crate::describe;
use crate::engine::{About, Engine, Part};
use crate::health::{ChannelHealth, HealthEvent};
use crate::input::ActionOutcome;
use crate::output::{Act, Action, Output};
use crate::parts::{Cause, Demand, Phase, Recovery, Start};

/// An outcome that is this much later than its action's timeout will not come: the action is unresolved.
pub const OUTCOME_LOST_AFTER: Duration = Duration::from_secs(10);

impl Engine {
    pub(crate) fn begin(&mut self, index: AssemblyIndex, recovery: Box<Recovery>, now: Timestamp) {
        let Recovery { action, rung, service, incident, .. } = *recovery;
        let retry_at = now.after(self.definition().timing.retry_after);
        match service {
            Some(service) => self.service_trouble(service).ladder.retry_at = retry_at,
            None => self.assembly_trouble(index).ladder.retry_at = retry_at,
        }
        let reason = match &recovery.by {
            Some(by) => format!("ordered by {by}"),
            None => self.reason_of_start(index, service),
        };
        let about = service.map_or(About::Assembly(index), About::Service);
        self.report(about, EventKind::RecoveryStarted, now, |it| {
            it.reason = reason.into();
            (it.incident, it.action, it.rung) = (Some(incident), Some(action), Some(rung));
        });
        if recovery.is_whole() {
            self.prepare(index, recovery, now);
        } else {
            self.give_out(index, recovery, now);
        }
    }

    /// The action itself.
    pub(crate) fn give_out(&mut self, index: AssemblyIndex, mut recovery: Box<Recovery>, now: Timestamp) {
        let timing = self.definition().timing;
        let Recovery { action, rung, service, incident, .. } = *recovery;
        let fenced = service.is_none() && self.is_fenced(index);
        if service.is_none() {
            self.sends(index, action, false, now);
        }
        let (act, timeout) = match service {
            Some(service) => (Act::RestartService(service), timing.service_action_timeout),
            None if recovery.stage.is_some() => (Act::Fence(rung), timing.machine_action_timeout),
            None => (Act::Machine(rung), timing.machine_action_timeout),
        };
        recovery.began = now;
        recovery.phase = Phase::Acting { until: now.after(timeout).after(OUTCOME_LOST_AFTER) };
        self.assembly_mut(index).recovery = Some(recovery);
        let (incident, part_of) = (Some(incident), None);
        self.output(Output::Act(Action { action, incident, assembly: index, act, timeout, fenced, part_of }));
        match service {
            Some(service) => self.begin_service(service, now),
            None => self.begin_machine(index, now),
        }
    }

    fn begin_service(&mut self, service: ServiceIndex, now: Timestamp) {
        let trouble = self.service_trouble(service);
        (trouble.demand, trouble.refused, trouble.waits) = (Demand::Nothing, None, None);
        (trouble.passing_since, trouble.first_failed, trouble.last_failed) = (None, None, None);
        self.change(service, HealthEvent::RecoveryBegan, "", now);
    }

    fn begin_machine(&mut self, index: AssemblyIndex, now: Timestamp) {
        if let Cause::Escalated(service) = self.assembly_trouble(index).cause {
            // Only now: an escalation that came to nothing does not begin its back-off anew.
            let ladder = &mut self.service_trouble(service).ladder;
            (ladder.rung, ladder.attempts) = (None, 0);
        }
        let trouble = self.assembly_trouble(index);
        (trouble.demand, trouble.refused, trouble.waits) = (Demand::Nothing, None, None);
        (trouble.verdict, trouble.say_at) = (None, None);
        self.drop_evidence(index, now);
        for service in self.definition().services_of(index) {
            self.change(service, HealthEvent::RecoveryBegan, "", now);
            let trouble = self.service_trouble(service);
            (trouble.demand, trouble.wait_until, trouble.refused, trouble.start) =
                (Demand::Nothing, None, None, Start::Wanted);
        }
    }

    fn reason_of_start(&mut self, index: AssemblyIndex, service: Option<ServiceIndex>) -> String {
        match service {
            Some(service) => {
                let trouble = self.service_trouble(service);
                let counted = if trouble.ladder.given_up { "a dated retry" } else { &*trouble.counted };
                format!("{}; {counted}", describe::confirmed(&trouble.reason, trouble.confirmed_by))
            }
            None => {
                let misses = self.assembly(index).misses;
                let trouble = self.assembly_trouble(index);
                let counted =
                    if trouble.ladder.given_up { "a dated retry".into() } else { trouble.counted.clone() };
                match (trouble.cause, &trouble.verdict) {
                    (Cause::Escalated(service), _) => {
                        let seen = self.service_trouble(service).reason.clone();
                        format!("{}: {seen}; {counted}", self.definition().service(service).name)
                    }
                    (Cause::Channel, verdict) => {
                        let verdict = verdict.as_ref().map_or("", |(verdict, _)| verdict.as_str());
                        format!("{verdict}: {}; {counted}", describe::confirmed(&trouble.reason, misses))
                    }
                }
            }
        }
    }

    /// An action ended, or somebody says so.
    pub(crate) fn acted(&mut self, action: ActionId, outcome: ActionOutcome, now: Timestamp) {
        let open = |phase: Phase| matches!(phase, Phase::Acting { .. } | Phase::Unresolved { .. });
        self.arrives(action, &outcome);
        for index in self.definition().assembly_indices() {
            if self.assembly(index).step.as_ref().is_some_and(|it| it.action == action && open(it.phase)) {
                return self.step_acted(index, outcome, now);
            }
            if self.power_flight(index).is_some_and(|it| it.action == action && open(it.phase)) {
                return self.power_acted(index, outcome, now);
            }
            let mine = |it: &Recovery| {
                it.action == action && open(it.phase) && matches!(it.stage, None | Some(Stage::Creating))
            };
            if self.assembly(index).recovery.as_deref().is_some_and(mine) {
                return self.recovery_acted(index, outcome, now);
            }
        }
        self.came_late(action, &outcome, now);
    }

    pub(crate) fn came_late(&mut self, action: ActionId, outcome: &ActionOutcome, now: Timestamp) {
        let detail = match outcome {
            ActionOutcome::Done { detail } => format!("done: {detail}"),
            ActionOutcome::Failed { detail } => format!("failed: {detail}"),
            ActionOutcome::Unresolved { detail } => format!("unresolved: {detail}"),
            ActionOutcome::NotBegun { detail, .. } => format!("not begun: {detail}"),
        };
        self.report(About::Deployable, EventKind::RecoveryFinished, now, |it| {
            (it.action, it.reason) = (Some(action), format!("late outcome, not believed: {detail}").into());
        });
    }

    pub(crate) fn recovery_acted(&mut self, index: AssemblyIndex, outcome: ActionOutcome, now: Timestamp) {
        let Some(recovery) = &self.assembly(index).recovery else { return };
        let (rung, service, incident) = (recovery.rung, recovery.service, recovery.incident);
        if !matches!(outcome, ActionOutcome::NotBegun { .. }) {
            self.attempted(index, service, rung);
        }
        if !self.desired.runs() {
            return self.end_recovery(index, None, "stopped by an order", now);
        }
        match outcome {
            ActionOutcome::Done { .. } => {
                if service.is_none() {
                    self.output(Output::Reconnect(index));
                }
                if rung.makes_disk() {
                    self.machine_made_anew(index, incident);
                }
                self.begin_verifying(index, now);
            }
            ActionOutcome::Failed { detail } => {
                if let Some(service) = service {
                    self.look_afresh(service, now);
                }
                if rung == Rung::RestartDeployable {
                    self.assembly_trouble(index).ladder.beyond = Beyond::LeftOff;
                }
                self.recovery_failed(index, &format!("{rung} failed: {detail}"), now);
            }
            ActionOutcome::Unresolved { detail } => self.unresolved(index, &detail, now),
            ActionOutcome::NotBegun { why, detail } => self.not_begun(index, why, &detail, now),
        }
    }

    /// Counts the attempt, once.
    fn attempted(&mut self, index: AssemblyIndex, service: Option<ServiceIndex>, rung: Rung) {
        let Some(recovery) = &mut self.assembly_mut(index).recovery else { return };
        let created = recovery.stage == Some(Stage::Creating);
        let counted = std::mem::replace(&mut recovery.counted, true);
        if created {
            // Whatever it came to, the instance that a person vouched for may have been replaced.
            self.assembly_mut(index).made_of = None;
            self.assembly_trouble(index).fenced = None;
        }
        match service {
            _ if counted => {}
            Some(service) => self.service_trouble(service).ladder.attempted(rung),
            None => self.assembly_trouble(index).ladder.attempted(rung),
        }
    }

    fn unresolved(&mut self, index: AssemblyIndex, detail: &str, now: Timestamp) {
        let give_up = self.definition().timing.action_give_up;
        let Some(recovery) = &mut self.assembly_mut(index).recovery else { return };
        if matches!(recovery.phase, Phase::Unresolved { .. }) {
            return;
        }
        recovery.phase = Phase::Unresolved { until: recovery.began.after(give_up).max(now) };
        let (service, rung, incident) = (recovery.service, recovery.rung, recovery.incident);
        // It may have a new disk, and to be set up twice harms nothing. Of a replacement `adopt` says so.
        if rung == Rung::Rebuild {
            self.machine_made_anew(index, incident);
        }
        self.drop_evidence(index, now);
        let reason: Box<str> = format!("unresolved: {detail}; looked at").into();
        match service {
            Some(service) => self.service_trouble(service).reason = reason,
            None => self.assembly_trouble(index).reason = reason,
        }
    }

    /// Nothing was done, because no durable intent could be written or it could not be begun: asked again, not counted.
    fn not_begun(&mut self, index: AssemblyIndex, why: Refusal, detail: &str, now: Timestamp) {
        let Some(recovery) = &self.assembly(index).recovery else { return };
        let (service, rung) = (recovery.service, recovery.rung);
        let part = service.map_or(Part::Assembly(index), Part::Service);
        match service {
            Some(service) => self.service_trouble(service).demand = Demand::Attempt,
            None => self.assembly_trouble(index).demand = Demand::Attempt,
        }
        self.end_recovery(index, None, &format!("not begun: {detail}"), now);
        if !self.stands(part, why, now) {
            let reason = format!("{why}: {detail}").into();
            self.report(part.into(), EventKind::RecoveryRefused, now, |it| {
                (it.reason, it.rung) = (reason, Some(rung));
            });
        }
    }

    /// Looks at actions whose time has come.
    pub(crate) fn expire_actions(&mut self, index: AssemblyIndex, now: Timestamp) {
        self.expire_step(index, now);
        self.expire_power(index, now);
        let Some(recovery) = &self.assembly(index).recovery else { return };
        let (action, phase, service, rung) =
            (recovery.action, recovery.phase, recovery.service, recovery.rung);
        match phase {
            Phase::Asked { until } if now >= until => {
                self.assembly_mut(index).recovery = None;
                self.output(Output::Release(action));
                let again = Some(now.after(self.pace(index)));
                match service {
                    Some(service) => self.service_trouble(service).wait_until = again,
                    None => self.assembly_trouble(index).wait_until = again,
                }
            }
            Phase::Acting { until } if now >= until => {
                self.attempted(index, service, rung);
                self.unresolved(index, "no outcome by its timeout", now);
            }
            Phase::Unresolved { .. } if self.may_create(index) => self.create(index, "looked at", now),
            Phase::Unresolved { .. } if self.looked_at(index, service) => {
                self.adopt(index);
                self.begin_verifying(index, now);
            }
            Phase::Unresolved { until } if now >= until => self.give_up_action(index, service, now),
            _ => {}
        }
    }

    /// A fresh answer says what the machine is like now, whatever the action did. (Evidence was dropped when it became unresolved.)
    fn looked_at(&self, index: AssemblyIndex, service: Option<ServiceIndex>) -> bool {
        let part = self.assembly(index);
        if part.channel == ChannelHealth::Healthy {
            return true;
        }
        let seen = part.trouble.as_ref().and_then(|trouble| trouble.instance);
        service.is_none()
            && seen
                .is_some_and(|seen| !matches!(seen.state, InstanceState::Unknown | InstanceState::Changing))
    }

    fn give_up_action(&mut self, index: AssemblyIndex, service: Option<ServiceIndex>, now: Timestamp) {
        let why = format!("unresolved for {}", describe::span(self.definition().timing.action_give_up));
        let recovery = self.assembly_mut(index).recovery.as_mut();
        let freed = recovery.is_some_and(|it| std::mem::take(&mut it.freed));
        self.end_recovery(index, None, &why, now);
        match service {
            Some(service) => self.give_up_service(service, &why, now),
            None => {
                self.assembly_trouble(index).cause = Cause::Channel;
                self.give_up_assembly(index, &why, now);
            }
        }
        if freed && !self.in_maintenance(index) {
            self.after_maintenance(index, now);
        }
    }
}
