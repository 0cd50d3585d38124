//! Ordered start and stop (design.md section 3). A start probes each service first and starts only what does not run, dependencies
//! before dependents; a stop is the reverse. Their steps go through the gate without a rung, one at a time per assembly, and are not
//! counted. What machines are powered off and on for: `power.rs`.

use std::time::Duration;

use cpe_proto::decision::{Answer, Refusal, Value, Verdict};
use cpe_proto::definition::{Machine, Mode};
use cpe_proto::event::EventKind;
use cpe_proto::id::{ActionId, AssemblyIndex, IncidentId, ServiceIndex};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::action::OUTCOME_LOST_AFTER;
use crate::backoff;
use crate::engine::{About, Engine, Part};
use crate::gate::ADMISSION_TIMEOUT;
use crate::health::{ChannelHealth, HealthEvent};
use crate::input::ActionOutcome;
use crate::ladder::Ladder;
use crate::output::{Act, Action, Output, Request};
use crate::parts::{Phase, Start, Step};

/// After so many failed attempts to stop one service a person is told; it is tried on.
const STOPS_TOLD_AFTER: u8 = 3;

impl Engine {
    /// A new assembly, or one that is started again.
    pub(crate) fn begin_assembly(&mut self, index: AssemblyIndex, now: Timestamp) {
        if !self.desired.runs() {
            return;
        }
        let grace = self.definition().assembly(index).probe.startup_grace;
        self.assembly_mut(index).grace_until = now.after(grace);
        for service in self.definition().services_of(index) {
            self.service_trouble(service).start = Start::Wanted;
        }
        match self.definition().assembly(index).machine {
            Machine::Address(_) => {}
            Machine::Image { .. } => {
                // Whether it exists is asked before anything else.
                let trouble = self.assembly_trouble(index);
                (trouble.drift, trouble.reason) =
                    (true, "the infrastructure has not said yet whether it has an instance".into());
            }
            Machine::Instance(_) | Machine::Adopt { .. } => self.output(Output::AskInstance(index)),
        }
    }

    /// Takes the next step of a start or stop, if one is due.
    pub(crate) fn plan(&mut self, index: AssemblyIndex, now: Timestamp) {
        if self.desired.runs() {
            self.look_for_instance(index, now);
            self.forgotten(index, now);
            self.plan_letting_go(index, now);
            self.plan_start(index, now);
            if self.whole().is_none() {
                self.plan_setup(index, now);
            }
        } else {
            self.plan_stop(index, now);
        }
        self.plan_power(index, now);
    }

    /// An assembly that is made from an image exists only when the infrastructure says so. Creating it is not ours: drift is reported.
    fn look_for_instance(&mut self, index: AssemblyIndex, now: Timestamp) {
        let Some(trouble) = &mut self.assembly_mut(index).trouble else { return };
        let Some(seen) = trouble.instance.filter(|_| trouble.drift) else { return };
        match seen.state {
            InstanceState::Unknown => {}
            InstanceState::Gone => {
                let reason = "no instance of it exists, and one is only made by an order";
                if &*trouble.reason != reason {
                    trouble.reason = reason.into();
                    let message = format!("{}: {reason}", self.name_of(About::Assembly(index)));
                    self.report(About::Assembly(index), EventKind::FaultIsolated, now, |it| {
                        it.reason = format!("drift: {reason}").into();
                    });
                    if !self.in_maintenance(index) {
                        self.output(Output::Notify { incident: None, message: message.into() });
                    }
                }
            }
            _ => {
                (trouble.drift, trouble.reason) = (false, "".into());
                self.assembly_mut(index).poll.hasten(now);
            }
        }
    }

    pub(crate) fn step_allowed(&self, index: AssemblyIndex) -> bool {
        let part = self.assembly(index);
        let free = part
            .recovery
            .as_ref()
            .is_none_or(|it| it.service.is_none() && matches!(it.phase, Phase::Verifying { .. }));
        free && part.step.is_none() && !self.power_acts(index) && part.channel == ChannelHealth::Healthy
    }

    fn plan_start(&mut self, index: AssemblyIndex, now: Timestamp) {
        if !self.step_allowed(index) {
            return;
        }
        for service in self.definition().services_of(index) {
            let settings = self.definition().service(service).probe;
            let part = self.service(service);
            let Some(trouble) = &part.trouble else { continue };
            let waits = trouble.wait_until.is_some_and(|until| now < until);
            if !matches!(trouble.start, Start::Wanted | Start::Again)
                || trouble.last_failed.is_none()
                || u32::from(part.misses.max(part.deadlines)) < settings.failure_threshold.get()
                || waits
            {
                continue;
            }
            let (again, part) = (trouble.start == Start::Again, self.part_of(service).is_some());
            let held = self.service_held_back(service).is_some() && !part || self.foreign(index).is_some();
            let nothing_to_do = self.definition().service(service).restart.is_none()
                || self.definition().mode == Mode::Observe
                || held && !again;
            if nothing_to_do {
                self.begin_grace(service, now);
                continue;
            }
            // What ran before it was stopped for its deployable ran as its dependencies were.
            let waits =
                if again { self.waits_for_address(service, now) } else { self.waits_to_start(service, now) };
            if held || waits {
                continue;
            }
            return self.ask_step(index, service, Act::StartService(service), now);
        }
    }

    /// What its dependencies changed for a service is given to it, once they are well again.
    fn plan_setup(&mut self, index: AssemblyIndex, now: Timestamp) {
        if !self.step_allowed(index) {
            return;
        }
        match self.next_setup(index, now) {
            None => {}
            Some((service, None)) => self.ask_step(index, service, Act::Reconfigure(service), now),
            Some((service, Some(refusal))) => self.refuse_setup(service, refusal, &[], now),
        }
    }

    fn plan_stop(&mut self, index: AssemblyIndex, now: Timestamp) {
        let services = self.definition().services_of(index);
        for service in services.rev() {
            if self.service(service).state == State::Stopped
                || !self.each_dependent(service, |other| self.service(other).state == State::Stopped)
            {
                continue;
            }
            if self.definition().service(service).restart.is_none() {
                self.stopped(service, now);
                continue;
            }
            let waits = self
                .service(service)
                .trouble
                .as_ref()
                .and_then(|trouble| trouble.wait_until)
                .is_some_and(|until| now < until);
            if waits || !self.step_allowed(index) {
                continue;
            }
            let refusal = match self.definition().mode {
                Mode::Observe => Some(Refusal::ObserveMode),
                Mode::Act => self.service_held_back(service),
            };
            match refusal {
                Some(refusal) => self.refuse_step("stop", service, refusal, &[], now),
                None => self.ask_step(index, service, Act::StopService(service), now),
            }
        }
        let running = |service: &ServiceIndex| self.service(*service).state != State::Stopped;
        match self.definition().services_of(index).find(running) {
            // What is another controller's is looked at on.
            None if self.assembly(index).foreign.is_some() => {}
            None if self.assembly(index).trouble.is_some() && self.assembly(index).recovery.is_none() => {
                self.close_all(index, "stopped by an order", now);
                self.assembly_mut(index).trouble = None;
            }
            None => {}
            Some(service) => self.say_not_stopped(index, service, now),
        }
    }

    /// A stop that cannot be had, because its machine does not answer or it is refused, is not silent either.
    fn say_not_stopped(&mut self, index: AssemblyIndex, service: ServiceIndex, now: Timestamp) {
        let Some(trouble) = &mut self.assembly_mut(index).trouble else { return };
        if trouble.say_at.is_none_or(|at| now < at) {
            return;
        }
        trouble.say_at = None;
        let why = match self.assembly(index).channel {
            ChannelHealth::Healthy => "something else is in the way".to_owned(),
            _ => format!("its channel does not answer: {}", self.assembly(index).failure),
        };
        let message =
            format!("{} is not stopped yet: {why}; it is tried on", self.name_of(About::Service(service)));
        self.output(Output::Notify { incident: None, message: message.into() });
    }

    pub(crate) fn stopped(&mut self, service: ServiceIndex, now: Timestamp) {
        let index = self.definition().service(service).assembly;
        self.change(service, HealthEvent::Stopped, "stopped by an order", now);
        let part = self.service_mut(service);
        (part.misses, part.deadlines, part.passed) = (0, 0, Timestamp::ZERO);
        // What it was in is over; the assembly may still hold the incident.
        if self.definition().services_of(index).all(|it| self.service(it).state == State::Stopped) {
            self.close_all(index, "stopped by an order", now);
            if let Some(trouble) = &mut self.assembly_mut(index).trouble {
                // It may be kept, for what it knows of its machine.
                (trouble.ladder, trouble.told_ended) = (Ladder::default(), false);
            }
            for service in self.definition().services_of(index) {
                self.service_mut(service).trouble = None;
            }
        }
    }

    // ---- one step

    pub(crate) fn ask_step(&mut self, index: AssemblyIndex, service: ServiceIndex, act: Act, now: Timestamp) {
        let action = self.action_id();
        let phase = Phase::Asked { until: now.after(ADMISSION_TIMEOUT) };
        let part_of = self.part_of(service);
        self.assembly_mut(index).step = Some(Box::new(Step { action, act, service, phase, part_of }));
        let facts = self.facts_of_service(index, now);
        let seen = match act {
            // What asks for it is no failure: that its machine answers is what it rests on.
            Act::Reconfigure(_) => Some(self.assembly(index).answered),
            // That it is to let go is no failure of it either.
            Act::StopService(_) if part_of.is_some() => Some(self.assembly(index).answered),
            _ => self.service(service).trouble.as_ref().and_then(|trouble| trouble.last_failed),
        };
        self.output(Output::AskAdmission(Request {
            action,
            rung: None,
            assembly: index,
            service: Some(service),
            verdict: Verdict::PerService,
            facts,
            evidence_age: seen.map_or(Duration::ZERO, |at| now.since(at)),
            evidence_age_max: self.fresh_for(index),
            give_up: self.definition().timing.action_give_up,
            part_of,
            dated_retry: false,
        }));
    }

    fn refuse_step(
        &mut self,
        word: &str,
        service: ServiceIndex,
        refusal: Refusal,
        gates: &[Value],
        now: Timestamp,
    ) {
        if self.stands(Part::Service(service), refusal, now) {
            return;
        }
        let deciding = gates.last().map_or(String::new(), |gate| format!(": {} {}", gate.name, gate.value));
        let reason = format!("{word}: {refusal}{deciding}");
        self.report(About::Service(service), EventKind::RecoveryRefused, now, |it| it.reason = reason.into());
    }

    pub(crate) fn step_admission(
        &mut self,
        index: AssemblyIndex,
        answer: Answer,
        gates: &[Value],
        now: Timestamp,
    ) {
        let Some(mut step) = self.assembly_mut(index).step.take() else { return };
        let (action, act, service) = (step.action, step.act, step.service);
        if let Answer::Refused(refusal) = answer {
            return match act {
                Act::Reconfigure(_) => self.refuse_setup(service, refusal, gates, now),
                Act::StopService(_) => self.refuse_step("stop", service, refusal, gates, now),
                _ => self.refuse_step("start", service, refusal, gates, now),
            };
        }
        let wanted = match act {
            Act::StopService(_) if self.desired.runs() => {
                self.start_of(service) == Start::ToStop && self.whole().is_some()
            }
            Act::StopService(_) => true,
            Act::Reconfigure(_) => self.desired.runs() && self.setup_due(service),
            _ => {
                let wanted = matches!(self.start_of(service), Start::Wanted | Start::Again);
                self.desired.runs() && wanted
            }
        };
        let part_of = step.part_of;
        // What it is a step of may be over by now: then it is asked for again, for itself.
        let stale = part_of.is_some() && self.part_of(service) != part_of;
        if !wanted
            || stale
            || self.service_held_back(service).is_some() && part_of.is_none()
            || self.foreign(index).is_some()
            || self.assembly(index).channel != ChannelHealth::Healthy
        {
            return self.output(Output::Release(action));
        }
        let timeout = self.definition().timing.service_action_timeout;
        step.phase = Phase::Acting { until: now.after(timeout).after(OUTCOME_LOST_AFTER) };
        self.assembly_mut(index).step = Some(step);
        self.service_trouble(service).refused = None;
        let mut incident = self.assembly(index).recovery.as_ref().map(|it| it.incident);
        match act {
            Act::Reconfigure(_) => {
                incident = self.service(service).setup.as_ref().and_then(|setup| setup.incident).or(incident);
                self.reconfiguration_begins(service, action, now);
            }
            Act::StartService(_) => {
                self.setup_begins(service);
                if part_of.is_none() {
                    self.say_started(service, action, incident, now);
                }
            }
            _ => {}
        }
        if let (Some(whole), Some((lead, action))) = (part_of, self.whole())
            && whole == action
        {
            incident = self.assembly(lead).recovery.as_ref().map(|it| it.incident);
        }
        let fenced = false;
        self.output(Output::Act(Action { action, incident, assembly: index, act, timeout, fenced, part_of }));
    }

    /// A start for which nobody gave an order at that moment says why it is done. One for a recovery of the whole is told with that.
    fn say_started(
        &mut self,
        service: ServiceIndex,
        action: ActionId,
        incident: Option<IncidentId>,
        now: Timestamp,
    ) {
        let seen = &self.service_trouble(service).reason;
        let seen = if seen.is_empty() { String::new() } else { format!(": {seen}") };
        let reason = format!("start, as it does not run{seen}");
        self.report(About::Service(service), EventKind::Ordered, now, |it| {
            (it.reason, it.action, it.incident) = (reason.into(), Some(action), incident);
        });
    }

    pub(crate) fn step_acted(&mut self, index: AssemblyIndex, outcome: ActionOutcome, now: Timestamp) {
        let Some(step) = self.assembly_mut(index).step.take() else { return };
        self.output(Output::Release(step.action));
        self.changed = true;
        match (step.act, outcome) {
            (Act::Reconfigure(service), outcome) => {
                self.reconfiguration_acted(service, step.action, outcome, now);
                self.step_over(index, service, now);
            }
            (act, ActionOutcome::NotBegun { why, .. }) => {
                let word = if matches!(act, Act::StopService(_)) { "stop" } else { "start" };
                self.setup_ends(step.service, false);
                self.refuse_step(word, step.service, why, &[], now);
            }
            (Act::StopService(service), outcome)
                if self.desired.runs() && self.start_of(service) == Start::ToStop =>
            {
                let failed = match outcome {
                    ActionOutcome::Failed { detail } | ActionOutcome::Unresolved { detail } => Some(detail),
                    _ => None,
                };
                self.let_go_of(service, failed.as_deref(), now);
            }
            (Act::StopService(service), _) if self.start_of(service) == Start::Again => {
                self.look_afresh(service, now);
            }
            (Act::StopService(_), _) if self.desired.runs() => {
                self.stop_overtaken(index, step.service, now);
            }
            (Act::StopService(_), ActionOutcome::Done { .. }) => self.stopped(step.service, now),
            (
                Act::StopService(_),
                ActionOutcome::Failed { detail } | ActionOutcome::Unresolved { detail },
            ) => {
                self.stop_failed(step.service, &detail, now);
            }
            (_, ActionOutcome::Done { .. }) => {
                self.setup_ends(step.service, true);
                self.step_over(index, step.service, now);
            }
            (_, ActionOutcome::Failed { detail } | ActionOutcome::Unresolved { detail }) => {
                self.setup_ends(step.service, false);
                self.service_trouble(step.service).reason = format!("start failed: {detail}").into();
                self.step_over(index, step.service, now);
            }
        }
    }

    fn reconfiguration_acted(
        &mut self,
        service: ServiceIndex,
        action: ActionId,
        outcome: ActionOutcome,
        now: Timestamp,
    ) {
        match outcome {
            ActionOutcome::Done { .. } => self.reconfiguration_ends(service, action, None, now),
            ActionOutcome::Failed { detail } | ActionOutcome::Unresolved { detail } => {
                self.reconfiguration_ends(service, action, Some(&detail), now);
            }
            ActionOutcome::NotBegun { why, detail } => {
                self.reconfiguration_ends(service, action, Some(&format!("not begun: {detail}")), now);
                // It was not tried.
                self.retry_setup(service, None);
                self.refuse_setup(service, why, &[], now);
            }
        }
    }

    /// A start was ordered while it was being stopped: whatever that came to, it is to be probed, and started if it does not run.
    fn stop_overtaken(&mut self, index: AssemblyIndex, service: ServiceIndex, now: Timestamp) {
        self.assembly_mut(index).void_before = now;
        self.service_trouble(service).start = Start::Wanted;
        self.change(service, HealthEvent::Started, "started by an order", now);
        let part = self.service_mut(service);
        (part.misses, part.deadlines, part.passed) = (0, 0, Timestamp::ZERO);
        part.poll.hasten(now);
    }

    /// A start was tried: within its grace fresh probes decide, after it a fault is one like another.
    fn step_over(&mut self, index: AssemblyIndex, service: ServiceIndex, now: Timestamp) {
        self.assembly_mut(index).void_before = now;
        self.begin_grace(service, now);
        let part = self.service_mut(service);
        (part.misses, part.deadlines) = (0, 0);
        part.poll.hasten(now);
        let trouble = self.service_trouble(service);
        (trouble.first_failed, trouble.last_failed, trouble.pending_since) = (None, None, None);
    }

    pub(crate) fn stop_failed(&mut self, service: ServiceIndex, detail: &str, now: Timestamp) {
        let mut random = self.random.fork(u64::from(service.0));
        let trouble = self.service_trouble(service);
        trouble.stops_failed = trouble.stops_failed.saturating_add(1);
        trouble.reason = format!("could not be stopped: {detail}").into();
        let failed = trouble.stops_failed;
        trouble.wait_until =
            Some(now.after(backoff::wait(Rung::RestartService, u32::from(failed), &mut random)));
        if failed == STOPS_TOLD_AFTER {
            let message = format!(
                "{} could not be stopped: {detail}; it is tried on",
                self.name_of(About::Service(service))
            );
            self.output(Output::Notify { incident: None, message: message.into() });
        }
    }

    pub(crate) fn expire_step(&mut self, index: AssemblyIndex, now: Timestamp) {
        let Some(step) = &self.assembly(index).step else { return };
        let (action, service, phase) = (step.action, step.service, step.phase);
        match phase {
            Phase::Asked { until } if now >= until => {
                self.assembly_mut(index).step = None;
                self.output(Output::Release(action));
                let again = now.after(self.pace(index));
                self.service_trouble(service).wait_until = Some(again);
            }
            Phase::Acting { until } if now >= until => {
                // Whatever it did: a fresh probe looks, and a further step is harmless, since both start and stop may be repeated.
                self.step_acted(
                    index,
                    ActionOutcome::Unresolved { detail: "no outcome by its timeout".into() },
                    now,
                );
            }
            _ => {}
        }
    }
}
