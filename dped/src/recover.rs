//! From a fault that asks for something to an action: dependencies, what holds recovery back, counting, the rung, the gate, and what
//! comes back. One recovery in flight per assembly holds by construction: there is one place for it.

use std::time::Duration;

use cpe_proto::decision::{Answer, Decision, Facts, Refusal, Value, Verdict};
use cpe_proto::definition::Mode;
use cpe_proto::event::EventKind;
use cpe_proto::id::{ActionId, AssemblyIndex, IncidentId, ServiceIndex};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::backoff;
use crate::describe::{self, value};
use crate::engine::{About, Desired, Engine, Part};
use crate::health::{ChannelHealth, HealthEvent};
use crate::input::ActionOutcome;
use crate::isolate::isolate;
use crate::ladder::{self, Choice};
use crate::output::{Act, Action, Output, Request};
use crate::parts::{Cause, Demand, Phase, Recovery, Standing, Start};

/// The gate answers at once; after that its answer counts as lost, and it is asked again.
pub const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);

/// An outcome that is this much later than its action's timeout will not come: the action is unresolved.
pub const OUTCOME_LOST_AFTER: Duration = Duration::from_secs(10);

/// What is asked of the gate, and what will be recorded of it.
struct Plea {
    rung: Rung,
    service: Option<ServiceIndex>,
    incident: IncidentId,
    verdict: Verdict,
    facts: Facts,
    evidence: Vec<Value>,
    gates: Vec<Value>,
    age: Duration,
    age_max: Duration,
}

impl Engine {
    /// Tries what is asked for, the assembly's own first.
    pub(crate) fn recover(&mut self, index: AssemblyIndex, now: Timestamp) {
        if self.desired == Desired::Stopped {
            return;
        }
        self.recover_assembly(index, now);
        for service in self.definition().services_of(index) {
            self.recover_service(service, now);
        }
    }

    pub(crate) fn busy(&self, index: AssemblyIndex) -> bool {
        self.assembly(index).recovery.is_some() || self.assembly(index).step.is_some()
    }

    /// How long a refusal stands before the gate is asked again: an interval, at least a second.
    pub(crate) fn pace(&self, index: AssemblyIndex) -> Duration {
        self.definition().interval(index).max(Duration::from_secs(1))
    }

    // ---- the service scope

    fn recover_service(&mut self, index: ServiceIndex, now: Timestamp) {
        let assembly = self.definition().service(index).assembly;
        let part = self.service(index);
        let Some(trouble) = &part.trouble else { return };
        let above =
            self.assembly(assembly).trouble.as_ref().is_some_and(|above| above.demand != Demand::Nothing);
        let wants = matches!(part.state, State::Failed | State::Exhausted);
        let waits = trouble.wait_until.is_some_and(|until| now < until);
        if !wants
            || waits
            || above
            || self.assembly(assembly).channel != ChannelHealth::Healthy
            || self.busy(assembly)
        {
            self.drop_passed_wait(index, now);
            return;
        }
        let fresh_for = self.definition().service(index).probe.interval * 2;
        let fresh = trouble.last_failed.is_some_and(|at| now.since(at) <= fresh_for);
        let since = trouble.first_failed.unwrap_or(now);
        self.service_trouble(index).wait_until = None;
        if !fresh || self.waits_for_dependency(index, since, now) {
            return;
        }
        if self.service_trouble(index).demand == Demand::Nothing {
            // Its assembly's recovery was called off; the fault is still there.
            self.service_trouble(index).demand = Demand::Fault;
        }
        if let Some(refusal) = self.held_back(assembly) {
            return self.refuse_service(index, refusal, now);
        }
        if self.service_trouble(index).demand == Demand::Fault && !self.count_service(index, now) {
            return;
        }
        if self.definition().service(index).restart.is_none() {
            return;
        }
        let trouble = self.service_trouble(index);
        if trouble.ladder.given_up && now < trouble.ladder.retry_at {
            trouble.wait_until = Some(trouble.ladder.retry_at);
            return;
        }
        if self.definition().mode == Mode::Observe {
            return self.refuse_service(index, Refusal::ObserveMode, now);
        }
        let plea = self.plea_of_service(index, now);
        self.ask_gate(assembly, plea, now);
    }

    fn drop_passed_wait(&mut self, index: ServiceIndex, now: Timestamp) {
        let Some(trouble) = &mut self.service_mut(index).trouble else { return };
        if trouble.wait_until.is_some_and(|until| until <= now) {
            trouble.wait_until = None;
        }
    }

    /// Counts a failure. True: the current rung is due now.
    fn count_service(&mut self, index: ServiceIndex, now: Timestamp) -> bool {
        let window = self.service_window();
        let restartable = self.definition().service(index).restart.is_some();
        let trouble = self.service_trouble(index);
        let count = trouble.ladder.failures.add(window, now);
        trouble.counted = describe::count(count, window).into();
        trouble.demand = Demand::Attempt;
        if count.full || !restartable {
            let mut why = trouble.counted.to_string();
            if !restartable {
                trouble.ladder.failures.clear();
                why.push_str("; there is nothing to restart");
            }
            self.climb_from_service(index, &why, now);
            return false;
        }
        let attempts = trouble.ladder.attempts_of(Rung::RestartService);
        let mut random = self.random.fork(now.since_boot().as_nanos() as u64 ^ u64::from(index.0));
        let wait = backoff::wait(Rung::RestartService, attempts, &mut random);
        if wait.is_zero() {
            return true;
        }
        self.service_trouble(index).wait_until = Some(now.after(wait));
        false
    }

    fn plea_of_service(&mut self, index: ServiceIndex, now: Timestamp) -> Plea {
        let assembly = self.definition().service(index).assembly;
        let incident = self.open_service_incident(index, now);
        let facts = self.facts_of_service(assembly, now);
        let interval = self.definition().service(index).probe.interval;
        let trouble = self.service_trouble(index);
        let age = trouble.last_failed.map_or(Duration::MAX, |at| now.since(at));
        let evidence = vec![
            value("probe", describe::confirmed(&trouble.reason, trouble.confirmed_by)),
            value(
                "age of the evidence",
                format!("{}, at most {}", describe::span(age), describe::span(interval * 2)),
            ),
            value("count", trouble.counted.clone()),
        ];
        let (verdict, _) = isolate(&facts);
        Plea {
            rung: Rung::RestartService,
            service: Some(index),
            incident,
            verdict,
            facts,
            evidence,
            gates: self.own_gates(assembly),
            age,
            age_max: interval * 2,
        }
    }

    fn refuse_service(&mut self, index: ServiceIndex, refusal: Refusal, now: Timestamp) {
        let assembly = self.definition().service(index).assembly;
        let plea = self.plea_of_service(index, now);
        self.refuse_plea(assembly, plea, refusal, now);
    }

    // ---- the assembly scope

    fn recover_assembly(&mut self, index: AssemblyIndex, now: Timestamp) {
        let busy = self.busy(index);
        let Some(trouble) = &mut self.assembly_mut(index).trouble else { return };
        if trouble.wait_until.is_some_and(|until| now < until) {
            return;
        }
        trouble.wait_until = None;
        if trouble.demand == Demand::Nothing || busy {
            return;
        }
        let Some(facts) = self.facts(index, now) else { return };
        let (verdict, _) = isolate(&facts);
        if !self.assembly_wants(index, &verdict, &facts, now) {
            return;
        }
        if let Some(refusal) = self.held_back(index) {
            let rung = self.likely_rung(index);
            let plea = self.plea_of_assembly(index, rung, verdict, facts, &[], now);
            return self.refuse_plea(index, plea, refusal, now);
        }
        let before = self.assembly_trouble(index).ladder.climbed;
        if self.assembly_trouble(index).demand == Demand::Fault {
            self.count_assembly(index, now);
        }
        let choice = self.choose(index, &verdict);
        let Some(rung) = choice.rung else { return self.no_rung(index, &choice, now) };
        let trouble = self.assembly_trouble(index);
        if trouble.ladder.climbed && !before {
            let (reason, incident) = (format!("{}: escalates to {rung}", trouble.counted), trouble.incident);
            let about = About::Assembly(index);
            self.report(about, EventKind::Escalated, now, |it| {
                (it.reason, it.incident) = (reason.into(), incident);
            });
        }
        if self.backs_off(index, rung, now) {
            return;
        }
        let plea = self.plea_of_assembly(index, rung, verdict, facts, &choice.skipped, now);
        if self.definition().mode == Mode::Observe {
            return self.refuse_plea(index, plea, Refusal::ObserveMode, now);
        }
        if !enough_evidence(rung, &plea.verdict, &plea.facts) {
            if self.confirms_on_path(index) {
                return;
            }
            return self.refuse_plea(index, plea, Refusal::Evidence, now);
        }
        self.ask_gate(index, plea, now);
    }

    /// Whether what asked for the assembly's ladder still does, on fresh evidence.
    fn assembly_wants(
        &mut self,
        index: AssemblyIndex,
        verdict: &Verdict,
        facts: &Facts,
        now: Timestamp,
    ) -> bool {
        let fresh_for = self.fresh_for(index);
        let trouble = self.assembly_trouble(index);
        let (cause, first_failed, last_failed) = (trouble.cause, trouble.first_failed, trouble.last_failed);
        match cause {
            Cause::Channel => {
                let fresh = last_failed.is_some_and(|at| now.since(at) <= fresh_for);
                let dead = self.assembly(index).channel == ChannelHealth::Dead;
                dead && fresh
                    && self.acts_on(verdict, facts)
                    && !self.assembly_waits_for_dependency(index, first_failed.unwrap_or(now), now)
            }
            Cause::Escalated(service) => {
                let fresh_for = self.definition().service(service).probe.interval * 2;
                let part = self.service(service);
                let seen = part.trouble.as_ref().and_then(|trouble| trouble.last_failed);
                let failed = matches!(part.state, State::Failed | State::Exhausted);
                if !failed && self.assembly(index).channel == ChannelHealth::Healthy {
                    // Its fault is over or not certain any more: each service is judged for itself again.
                    let trouble = self.assembly_trouble(index);
                    (trouble.demand, trouble.refused, trouble.waits) = (Demand::Nothing, None, None);
                    self.changed = true;
                    return false;
                }
                let fresh = seen.is_some_and(|at| now.since(at) <= fresh_for);
                failed && fresh && matches!(verdict, Verdict::PerService | Verdict::Disagreement)
            }
        }
    }

    fn count_assembly(&mut self, index: AssemblyIndex, now: Timestamp) {
        let window = self.assembly_window();
        let trouble = self.assembly_trouble(index);
        trouble.demand = Demand::Attempt;
        if trouble.ladder.given_up {
            return;
        }
        let count = trouble.ladder.failures.add(window, now);
        trouble.counted = describe::count(count, window).into();
        trouble.first = count.failure == 1;
        trouble.ladder.climbed |= count.full;
        trouble.backed_off = false;
    }

    fn choose(&self, index: AssemblyIndex, verdict: &Verdict) -> Choice {
        let Some(trouble) = &self.assembly(index).trouble else {
            return Choice { rung: None, skipped: Vec::new() };
        };
        if trouble.ladder.given_up {
            return ladder::lowest(verdict, self.bounds(index));
        }
        ladder::choose(verdict, trouble.first, &trouble.ladder, self.bounds(index))
    }

    fn no_rung(&mut self, index: AssemblyIndex, choice: &Choice, now: Timestamp) {
        let trouble = self.assembly_trouble(index);
        if trouble.ladder.given_up && trouble.cause == Cause::Channel {
            return;
        }
        let mut why = trouble.counted.to_string();
        for (rung, skip) in &choice.skipped {
            why.push_str(&format!("; {rung} skipped: {skip}"));
        }
        self.give_up_assembly(index, &why, now);
    }

    /// Whether this attempt of the rung waits after the one before it.
    fn backs_off(&mut self, index: AssemblyIndex, rung: Rung, now: Timestamp) -> bool {
        let mut random = self.random.fork(now.since_boot().as_nanos() as u64 ^ u64::from(index.0) << 16);
        let trouble = self.assembly_trouble(index);
        if trouble.ladder.given_up {
            let waits = now < trouble.ladder.retry_at;
            trouble.wait_until = waits.then_some(trouble.ladder.retry_at);
            return waits;
        }
        if std::mem::replace(&mut trouble.backed_off, true) {
            return false;
        }
        let wait = backoff::wait(rung, trouble.ladder.attempts_of(rung), &mut random);
        if wait.is_zero() {
            return false;
        }
        trouble.wait_until = Some(now.after(wait));
        true
    }

    fn plea_of_assembly(
        &mut self,
        index: AssemblyIndex,
        rung: Rung,
        verdict: Verdict,
        facts: Facts,
        skipped: &[(Rung, ladder::Skip)],
        now: Timestamp,
    ) -> Plea {
        let opened = self.open_assembly_incident(index, now);
        let fresh_for = self.fresh_for(index);
        let trouble = self.assembly_trouble(index);
        let incident = opened.unwrap_or(IncidentId(0));
        let (seen, at, age_max) = match trouble.cause {
            Cause::Channel => (trouble.reason.to_string(), trouble.last_failed, fresh_for),
            Cause::Escalated(service) => {
                let name = self.definition().service(service).name.clone();
                let age_max = self.definition().service(service).probe.interval * 2;
                let trouble = self.service_trouble(service);
                (format!("{name}: {}", trouble.reason), trouble.last_failed, age_max)
            }
        };
        let age = at.map_or(Duration::MAX, |at| now.since(at));
        let mut evidence = vec![
            value("probe", seen),
            value(
                "age of the evidence",
                format!("{}, at most {}", describe::span(age), describe::span(age_max)),
            ),
        ];
        if let Some(instance) = facts.instance {
            evidence.push(value("infrastructure", instance.as_str()));
        }
        let path = self
            .assembly_trouble(index)
            .surroundings
            .as_ref()
            .map(|(around, _)| around.path_answered_by.clone());
        evidence.push(value(
            "path",
            if facts.path_proven { path.unwrap_or_default() } else { "not proven".into() },
        ));
        evidence.push(value("count", self.assembly_trouble(index).counted.clone()));
        for (rung, why) in skipped {
            evidence.push(value(&format!("skipped {rung}"), why.to_string()));
        }
        Plea {
            rung,
            service: None,
            incident,
            verdict,
            facts,
            evidence,
            gates: self.own_gates(index),
            age,
            age_max,
        }
    }

    // ---- the gate

    /// What the engine checks before it asks the guard, as values.
    fn own_gates(&self, index: AssemblyIndex) -> Vec<Value> {
        let word = |on: bool| if on { "yes" } else { "no" };
        let mode = if self.definition().mode == Mode::Observe { "observe" } else { "act" };
        vec![
            value("mode", mode),
            value("maintenance", word(self.maintenance || self.assembly(index).maintenance)),
            value("paused", word(self.paused)),
            value("in flight, assembly", if self.busy(index) { "1 of 1" } else { "0 of 1" }),
        ]
    }

    fn decision(
        &self,
        index: AssemblyIndex,
        action: ActionId,
        plea: &Plea,
        answer: Answer,
        now: Timestamp,
    ) -> Decision {
        Decision {
            at: now,
            incident: plea.incident,
            action,
            assembly: self.definition().assembly(index).name.clone(),
            service: plea.service.map(|service| self.definition().service(service).name.clone()),
            rung: plea.rung,
            verdict: plea.verdict.clone(),
            facts: plea.facts.clone(),
            evidence: plea.evidence.clone(),
            gates: plea.gates.clone(),
            answer,
        }
    }

    fn ask_gate(&mut self, index: AssemblyIndex, plea: Plea, now: Timestamp) {
        let action = self.action_id();
        let decision = self.decision(index, action, &plea, Answer::Admitted, now);
        let phase = Phase::Asked { until: now.after(ADMISSION_TIMEOUT) };
        let Plea { rung, service, incident, verdict, facts, age, age_max, .. } = plea;
        let recovery = Recovery {
            action,
            rung,
            service,
            incident,
            phase,
            began: now,
            decision: Some(Box::new(decision)),
        };
        self.assembly_mut(index).recovery = Some(Box::new(recovery));
        self.output(Output::AskAdmission(Request {
            action,
            rung: Some(rung),
            assembly: index,
            service,
            verdict,
            facts,
            evidence_age: age,
            evidence_age_max: age_max,
        }));
    }

    /// Refused by the engine itself.
    fn refuse_plea(&mut self, index: AssemblyIndex, plea: Plea, refusal: Refusal, now: Timestamp) {
        let part = plea.service.map_or(Part::Assembly(index), Part::Service);
        if !self.stands(part, refusal, now) {
            let action = self.action_id();
            let decision = self.decision(index, action, &plea, Answer::Refused(refusal), now);
            self.tell_refusal(part, Box::new(decision), refusal, now);
        }
    }

    /// A refusal that stands already is only counted. Either way it is asked again with a pace.
    fn stands(&mut self, part: Part, refusal: Refusal, now: Timestamp) -> bool {
        let index = match part {
            Part::Assembly(index) => index,
            Part::Service(service) => self.definition().service(service).assembly,
        };
        let again = Some(now.after(self.pace(index)));
        let refused = match part {
            Part::Assembly(index) => {
                let trouble = self.assembly_trouble(index);
                trouble.wait_until = again;
                &mut trouble.refused
            }
            Part::Service(service) => {
                let trouble = self.service_trouble(service);
                trouble.wait_until = again;
                &mut trouble.refused
            }
        };
        match refused {
            Some(standing) if standing.refusal == refusal => {
                standing.times = standing.times.saturating_add(1);
                true
            }
            refused => {
                *refused = Some(Standing { refusal, times: 1 });
                false
            }
        }
    }

    fn tell_refusal(&mut self, part: Part, decision: Box<Decision>, refusal: Refusal, now: Timestamp) {
        let (rung, incident, action) = (decision.rung, decision.incident, decision.action);
        let deciding =
            decision.gates.last().map_or(String::new(), |gate| format!(": {} {}", gate.name, gate.value));
        let deciding = if matches!(
            refusal,
            Refusal::Maintenance | Refusal::Paused | Refusal::ObserveMode | Refusal::Evidence
        ) {
            String::new()
        } else {
            deciding
        };
        self.output(Output::Record(decision));
        self.report(part.into(), EventKind::RecoveryRefused, now, |it| {
            it.reason = format!("{refusal}{deciding}").into();
            (it.incident, it.action, it.rung) = (Some(incident), Some(action), Some(rung));
        });
    }

    /// The gate answered.
    pub(crate) fn admission(&mut self, action: ActionId, answer: Answer, gates: Vec<Value>, now: Timestamp) {
        let asked = |phase: Phase| matches!(phase, Phase::Asked { .. });
        for index in self.definition().clone().assembly_indices() {
            if self.assembly(index).step.as_ref().is_some_and(|it| it.action == action && asked(it.phase)) {
                return self.step_admission(index, answer, &gates, now);
            }
            if self.assembly(index).recovery.as_ref().is_some_and(|it| it.action == action && asked(it.phase))
            {
                return self.recovery_admission(index, answer, gates, now);
            }
        }
        if answer == Answer::Admitted {
            // Not wanted any more, or asked for twice: the lease ends.
            self.output(Output::Release(action));
        }
    }

    fn recovery_admission(
        &mut self,
        index: AssemblyIndex,
        answer: Answer,
        gates: Vec<Value>,
        now: Timestamp,
    ) {
        let Some(mut recovery) = self.assembly_mut(index).recovery.take() else { return };
        let part = recovery.service.map_or(Part::Assembly(index), Part::Service);
        let Some(mut decision) = recovery.decision.take() else { return };
        decision.gates.extend(gates);
        decision.answer = answer;
        match answer {
            Answer::Refused(refusal) => {
                if !self.stands(part, refusal, now) {
                    self.tell_refusal(part, decision, refusal, now);
                }
            }
            Answer::Admitted if self.still_wanted(index, &recovery) => {
                self.output(Output::Record(decision));
                self.begin(index, recovery, now);
            }
            Answer::Admitted => self.output(Output::Release(recovery.action)),
        }
    }

    fn still_wanted(&self, index: AssemblyIndex, recovery: &Recovery) -> bool {
        if self.desired == Desired::Stopped || self.held_back(index).is_some() {
            return false;
        }
        match recovery.service {
            Some(service) => {
                let healthy = self.assembly(index).channel == ChannelHealth::Healthy;
                healthy && matches!(self.service(service).state, State::Failed | State::Exhausted)
            }
            None => {
                let channel = self.assembly(index).channel;
                self.assembly(index).trouble.as_ref().is_some_and(|trouble| match trouble.cause {
                    _ if trouble.demand == Demand::Nothing => false,
                    Cause::Channel => channel == ChannelHealth::Dead,
                    Cause::Escalated(service) => {
                        let failed = matches!(self.service(service).state, State::Failed | State::Exhausted);
                        failed && channel == ChannelHealth::Healthy
                    }
                })
            }
        }
    }

    // ---- the action

    fn begin(&mut self, index: AssemblyIndex, mut recovery: Box<Recovery>, now: Timestamp) {
        let timing = self.definition().timing;
        let Recovery { action, rung, service, incident, .. } = *recovery;
        let (act, timeout) = match service {
            Some(service) => (Act::RestartService(service), timing.service_action_timeout),
            None => (Act::Machine(rung), timing.machine_action_timeout),
        };
        recovery.began = now;
        let retry_at = now.after(timing.retry_after);
        match service {
            Some(service) => self.service_trouble(service).ladder.retry_at = retry_at,
            None => self.assembly_trouble(index).ladder.retry_at = retry_at,
        }
        recovery.phase = Phase::Acting { until: now.after(timeout).after(OUTCOME_LOST_AFTER) };
        let reason = self.reason_of_start(index, service);
        self.assembly_mut(index).recovery = Some(recovery);
        let about = service.map_or(About::Assembly(index), About::Service);
        self.report(about, EventKind::RecoveryStarted, now, |it| {
            it.reason = reason.into();
            (it.incident, it.action, it.rung) = (Some(incident), Some(action), Some(rung));
        });
        self.output(Output::Act(Action { action, incident: Some(incident), assembly: index, act, timeout }));
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
        for index in self.definition().clone().assembly_indices() {
            if self.assembly(index).step.as_ref().is_some_and(|it| it.action == action && open(it.phase)) {
                return self.step_acted(index, outcome, now);
            }
            if self.assembly(index).recovery.as_ref().is_some_and(|it| it.action == action && open(it.phase))
            {
                return self.recovery_acted(index, outcome, now);
            }
        }
        let detail = match outcome {
            ActionOutcome::Done { detail } => format!("done: {detail}"),
            ActionOutcome::Failed { detail } => format!("failed: {detail}"),
            ActionOutcome::Unresolved { detail } => format!("unresolved: {detail}"),
            ActionOutcome::NotBegun { detail } => format!("not begun: {detail}"),
        };
        self.report(About::Deployable, EventKind::RecoveryFinished, now, |it| {
            (it.action, it.reason) = (Some(action), format!("late outcome, not believed: {detail}").into());
        });
    }

    fn recovery_acted(&mut self, index: AssemblyIndex, outcome: ActionOutcome, now: Timestamp) {
        let Some(recovery) = &self.assembly(index).recovery else { return };
        let (rung, service) = (recovery.rung, recovery.service);
        if !matches!(outcome, ActionOutcome::NotBegun { .. }) {
            self.attempted(index, service, rung);
        }
        if self.desired == Desired::Stopped {
            return self.end_recovery(index, None, "stopped by an order", now);
        }
        match outcome {
            ActionOutcome::Done { .. } => {
                if service.is_none() {
                    self.output(Output::Reconnect(index));
                }
                self.begin_verifying(index, now);
            }
            ActionOutcome::Failed { detail } => {
                self.recovery_failed(index, &format!("{rung} failed: {detail}"), now);
            }
            ActionOutcome::Unresolved { detail } => self.unresolved(index, &detail, now),
            ActionOutcome::NotBegun { detail } => self.not_begun(index, &detail, now),
        }
    }

    /// Counts the attempt, once.
    fn attempted(&mut self, index: AssemblyIndex, service: Option<ServiceIndex>, rung: Rung) {
        let unresolved = self
            .assembly(index)
            .recovery
            .as_ref()
            .is_some_and(|it| matches!(it.phase, Phase::Unresolved { .. }));
        if unresolved {
            return;
        }
        match service {
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
        let service = recovery.service;
        self.drop_evidence(index, now);
        let reason: Box<str> = format!("unresolved: {detail}; looked at").into();
        match service {
            Some(service) => self.service_trouble(service).reason = reason,
            None => self.assembly_trouble(index).reason = reason,
        }
    }

    /// No durable intent could be written, so nothing was done: asked again, not counted.
    fn not_begun(&mut self, index: AssemblyIndex, detail: &str, now: Timestamp) {
        let Some(recovery) = &self.assembly(index).recovery else { return };
        let (service, rung) = (recovery.service, recovery.rung);
        let part = service.map_or(Part::Assembly(index), Part::Service);
        match service {
            Some(service) => self.service_trouble(service).demand = Demand::Attempt,
            None => self.assembly_trouble(index).demand = Demand::Attempt,
        }
        self.end_recovery(index, None, &format!("not begun: {detail}"), now);
        if !self.stands(part, Refusal::Journal, now) {
            let reason = format!("{}: {detail}", Refusal::Journal).into();
            self.report(part.into(), EventKind::RecoveryRefused, now, |it| {
                (it.reason, it.rung) = (reason, Some(rung));
            });
        }
    }

    /// Looks at actions whose time has come.
    pub(crate) fn expire_actions(&mut self, index: AssemblyIndex, now: Timestamp) {
        self.expire_step(index, now);
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
            Phase::Unresolved { .. } if self.looked_at(index, service) => self.begin_verifying(index, now),
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
        self.end_recovery(index, None, &why, now);
        match service {
            Some(service) => self.give_up_service(service, &why, now),
            None => {
                self.assembly_trouble(index).cause = Cause::Channel;
                self.give_up_assembly(index, &why, now);
            }
        }
    }
}

/// policy.md section 7, the evidence that each rung needs beyond what the verdict already implies.
fn enough_evidence(rung: Rung, verdict: &Verdict, facts: &Facts) -> bool {
    // An answering channel is itself on the path.
    let path = facts.path_proven || facts.channel == cpe_proto::decision::ChannelFact::Healthy;
    let infrastructure_answers = facts.instance.is_some_and(|state| state != InstanceState::Unknown);
    match rung {
        Rung::Start | Rung::RebootSoft | Rung::RebootHard => path,
        Rung::Rebuild | Rung::Recreate => path && infrastructure_answers && *verdict != Verdict::ChannelFault,
        Rung::RestartService => true,
        Rung::RestartDeployable | Rung::Relocate => false,
    }
}
