//! The gate, from the engine's side: what is asked, what is recorded of it, and refusals that stand. The engine's own checks come first
//! (mode, maintenance, pause, in flight, evidence); the fleet guard has the last word (`guard.rs`).

use std::time::Duration;

use cpe_proto::decision::{Answer, Decision, Facts, Refusal, Value, Verdict};
use cpe_proto::definition::Mode;
use cpe_proto::event::EventKind;
use cpe_proto::id::{ActionId, AssemblyIndex, IncidentId, ServiceIndex};
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::Stage;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::describe::{span, value};
use crate::engine::{Engine, Part};
use crate::health::ChannelHealth;
use crate::output::{Output, Request};
use crate::parts::{Cause, Demand, Phase, Recovery, Standing};

/// The gate answers at once; after that its answer counts as lost, and it is asked again.
pub const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked of the gate, and what will be recorded of it.
pub(crate) struct Plea {
    pub(crate) rung: Rung,
    pub(crate) service: Option<ServiceIndex>,
    pub(crate) incident: IncidentId,
    pub(crate) verdict: Verdict,
    pub(crate) facts: Facts,
    pub(crate) evidence: Vec<Value>,
    pub(crate) gates: Vec<Value>,
    pub(crate) age: Duration,
    pub(crate) age_max: Duration,
    /// It is one of the attempts every `retry_after`.
    pub(crate) dated_retry: bool,
}

impl Engine {
    /// What the engine checks before it asks the guard, as values.
    pub(crate) fn own_gates(&self, index: AssemblyIndex, service: Option<ServiceIndex>) -> Vec<Value> {
        let word = |on: bool| if on { "yes" } else { "no" };
        let mode = if self.definition().mode == Mode::Observe { "observe" } else { "act" };
        let paused = self.is_paused(index) || service.is_some_and(|it| self.is_service_paused(it));
        let mut gates = vec![
            value("mode", mode),
            value("maintenance", word(self.in_maintenance(index))),
            value("paused", word(paused)),
            value("in flight, assembly", if self.busy(index) { "1 of 1" } else { "0 of 1" }),
        ];
        gates
            .extend(self.foreign(index).map(|controller| value("owner", format!("controller {controller}"))));
        gates
    }

    pub(crate) fn decision(
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

    pub(crate) fn ask_gate(&mut self, index: AssemblyIndex, plea: Plea, now: Timestamp) {
        let action = self.action_id();
        let decision = self.decision(index, action, &plea, Answer::Admitted, now);
        let phase = Phase::Asked { until: now.after(ADMISSION_TIMEOUT) };
        let Plea { rung, service, incident, verdict, facts, age, age_max, dated_retry, .. } = plea;
        let recovery = Recovery {
            action,
            rung,
            service,
            incident,
            phase,
            stage: rung.replaces().then_some(Stage::Fencing),
            counted: false,
            freed: false,
            began: now,
            decision: Some(Box::new(decision)),
            by: None,
            ending: None,
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
            give_up: self.definition().timing.action_give_up,
            part_of: None,
            dated_retry,
        }));
    }

    /// Refused by the engine itself.
    pub(crate) fn refuse_plea(
        &mut self,
        index: AssemblyIndex,
        plea: &Plea,
        refusal: Refusal,
        now: Timestamp,
    ) {
        let part = plea.service.map_or(Part::Assembly(index), Part::Service);
        if !self.stands(part, refusal, now) {
            let action = self.action_id();
            let decision = self.decision(index, action, plea, Answer::Refused(refusal), now);
            self.tell_refusal(part, Box::new(decision), refusal, now);
        }
    }

    /// A refusal that stands already is only counted, and told to a person when it has stood for `unreachable_notify`: a fault that nothing
    /// is done about is never silent. Either way it is asked again with a pace.
    pub(crate) fn stands(&mut self, part: Part, refusal: Refusal, now: Timestamp) -> bool {
        let index = match part {
            Part::Assembly(index) => index,
            Part::Service(service) => self.definition().service(service).assembly,
        };
        let again = Some(now.after(self.pace(index)));
        let patience = self.definition().timing.unreachable_notify;
        let (refused, exhausted) = match part {
            Part::Assembly(index) => {
                let trouble = self.assembly_trouble(index);
                trouble.wait_until = again;
                (&mut trouble.refused, trouble.ladder.given_up)
            }
            Part::Service(service) => {
                let trouble = self.service_trouble(service);
                trouble.wait_until = again;
                (&mut trouble.refused, trouble.ladder.given_up)
            }
        };
        let (known, tells) =
            refused.get_or_insert(Standing::new(now)).again(refusal, exhausted, patience, now);
        if tells {
            let message = format!(
                "{}: recovery is refused for {}: {refusal}",
                self.name_of(part.into()),
                span(patience)
            );
            let incident = match part {
                Part::Assembly(index) => self.assembly_trouble(index).incident,
                Part::Service(service) => self.service_trouble(service).incident,
            };
            self.output(Output::Notify { incident, message: message.into() });
        }
        known
    }

    pub(crate) fn tell_refusal(
        &mut self,
        part: Part,
        decision: Box<Decision>,
        refusal: Refusal,
        now: Timestamp,
    ) {
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
        for index in self.definition().assembly_indices() {
            if self.assembly(index).step.as_ref().is_some_and(|it| it.action == action && asked(it.phase)) {
                return self.step_admission(index, answer, &gates, now);
            }
            if self.power_flight(index).is_some_and(|it| it.action == action && asked(it.phase)) {
                return self.power_admission(index, answer, &gates, now);
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
        let ordered = self.answered_by_gate(index, &recovery, answer, &decision);
        match answer {
            Answer::Refused(refusal) if recovery.by.is_some() => {
                self.tell_refusal(part, decision, refusal, now);
                ordered.iter().for_each(|ordered| self.close_refused(ordered, now));
            }
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

    pub(crate) fn still_wanted(&self, index: AssemblyIndex, recovery: &Recovery) -> bool {
        let paused = recovery.service.is_some_and(|it| self.is_service_paused(it));
        if !self.desired.runs() || self.held_back(index).is_some() || paused {
            return false;
        }
        // policy.md section 6: one of them in flight, or the whole.
        if self.whole().is_some() || recovery.is_whole() && self.busy_elsewhere(index) {
            return false;
        }
        match recovery.service {
            Some(_) if recovery.by.is_some() => self.assembly(index).channel == ChannelHealth::Healthy,
            None if recovery.by.is_some() => true,
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
}
