//! From a fault that asks for something to a plea before the gate: dependencies, what holds recovery back, counting, the rung and its
//! wait. The gate is `gate.rs`, the action itself `action.rs`.

use std::time::Duration;

use cpe_proto::decision::{Facts, Refusal, Verdict};
use cpe_proto::definition::Mode;
use cpe_proto::event::EventKind;
use cpe_proto::id::{AssemblyIndex, IncidentId, ServiceIndex};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::Beyond;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::backoff;
use crate::describe::{self, value};
use crate::engine::{About, Engine};
use crate::gate::Plea;
use crate::health::ChannelHealth;
use crate::isolate::isolate;
use crate::ladder::{self, Choice};
use crate::parts::{Cause, Demand, Waits};

/// Why a service that is probed from outside and has failed is not restarted.
pub(crate) const CUT_OFF: &str = "waits for its channel: a restart goes over it";

impl Engine {
    /// Tries what is asked for, the assembly's own first.
    pub(crate) fn recover(&mut self, index: AssemblyIndex, now: Timestamp) {
        // Nothing else is recovered while the deployable recovers as a whole (design.md section 4, rule 1).
        if !self.desired.runs() || self.whole().is_some() {
            return;
        }
        self.recover_assembly(index, now);
        for service in self.definition().services_of(index) {
            self.recover_service(service, now);
        }
    }

    pub(crate) fn busy(&self, index: AssemblyIndex) -> bool {
        let part = self.assembly(index);
        part.recovery.is_some() || part.step.is_some() || self.power_acts(index)
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
            let cut_off =
                wants && self.is_direct(index) && self.assembly(assembly).channel != ChannelHealth::Healthy;
            if cut_off {
                self.service_trouble(index).waits = Some(Waits { why: CUT_OFF.into(), say_at: None });
            }
            self.drop_passed_wait(index, now);
            return;
        }
        let fresh_for = self.definition().service(index).probe.interval * 2;
        let fresh = trouble.confirmed && trouble.last_failed.is_some_and(|at| now.since(at) <= fresh_for);
        let since = trouble.first_failed.unwrap_or(now);
        self.service_trouble(index).wait_until = None;
        if !fresh || self.waits_for_dependency(index, since, now) {
            return;
        }
        if self.service_trouble(index).demand == Demand::Nothing {
            // Its assembly's recovery was called off; the fault is still there.
            self.service_trouble(index).demand = Demand::Fault;
        }
        if let Some(refusal) = self.service_held_back(index) {
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
    pub(crate) fn count_service(&mut self, index: ServiceIndex, now: Timestamp) -> bool {
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
        let dated_retry = trouble.ladder.given_up;
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
            gates: self.own_gates(assembly, Some(index)),
            age,
            age_max: interval * 2,
            dated_retry,
        }
    }

    fn refuse_service(&mut self, index: ServiceIndex, refusal: Refusal, now: Timestamp) {
        let assembly = self.definition().service(index).assembly;
        let plea = self.plea_of_service(index, now);
        self.refuse_plea(assembly, &plea, refusal, now);
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
            return self.refuse_plea(index, &plea, refusal, now);
        }
        let before = self.assembly_trouble(index).ladder.climbed;
        if self.assembly_trouble(index).demand == Demand::Fault {
            self.count_assembly(index, now);
        }
        let mut choice = self.choose(index, &verdict);
        if choice.rung.is_none() {
            choice = self.beyond(index, choice, now);
        }
        let Some(rung) = choice.rung else { return self.no_rung(index, &choice, now) };
        let trouble = self.assembly_trouble(index);
        if trouble.ladder.climbed && !before && rung < Rung::RestartDeployable {
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
            return self.refuse_plea(index, &plea, Refusal::ObserveMode, now);
        }
        let fenced = self.assembly_trouble(index).fenced.is_some();
        if !fenced && !enough_evidence(rung, &plea.verdict, &plea.facts) {
            if self.confirms_on_path(index) {
                return;
            }
            return self.refuse_plea(index, &plea, Refusal::Evidence, now);
        }
        if rung >= Rung::RestartDeployable && self.busy_elsewhere(index) {
            return self.refuse_plea(index, &plea, Refusal::InFlight, now);
        }
        self.ask_gate(index, plea, now);
    }

    /// Whether what asked for the assembly's ladder still does, on fresh evidence.
    pub(crate) fn assembly_wants(
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
                let unheard = matches!(verdict, Verdict::Hung | Verdict::ChannelFault)
                    && self.witness_pends(index, now);
                // What it depends on may have let go for it.
                let prepared = self.whole().is_some();
                dead && fresh
                    && !unheard
                    && self.acts_on(index, verdict, facts)
                    && (prepared
                        || !self.assembly_waits_for_dependency(index, first_failed.unwrap_or(now), now))
            }
            Cause::Escalated(service) => {
                let fresh_for = self.definition().service(service).probe.interval * 2;
                let part = self.service(service);
                let seen = part.trouble.as_ref().filter(|it| it.confirmed).and_then(|it| it.last_failed);
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
        if trouble.ladder.given_up || trouble.ladder.beyond != Beyond::Own {
            return;
        }
        let count = trouble.ladder.failures.add(window, now);
        trouble.counted = describe::count(count, window).into();
        trouble.first = count.failure == 1;
        if count.full {
            trouble.ladder.climb();
        }
        trouble.backed_off = false;
    }

    fn choose(&self, index: AssemblyIndex, verdict: &Verdict) -> Choice {
        let Some(trouble) = &self.assembly(index).trouble else {
            return Choice { rung: None, skipped: Vec::new() };
        };
        if trouble.ladder.given_up {
            return ladder::lowest(verdict, self.bounds(index));
        }
        if trouble.ladder.beyond != Beyond::Own && !ladder::left_off(verdict, &trouble.ladder) {
            return Choice { rung: None, skipped: Vec::new() };
        }
        ladder::choose(verdict, trouble.first, &trouble.ladder, self.bounds(index))
    }

    fn no_rung(&mut self, index: AssemblyIndex, choice: &Choice, now: Timestamp) {
        let trouble = self.assembly_trouble(index);
        if trouble.fenced.take().is_some() {
            // The replacement that it was confirmed for cannot be had: what can is looked for without it.
            (trouble.verdict, self.changed) = (None, true);
            return;
        }
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
        if let Some(until) = self.astray_until(index, rung, now) {
            self.assembly_trouble(index).wait_until = Some(until);
            return true;
        }
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
        let (incident, dated_retry) = (opened.unwrap_or(IncidentId(0)), trouble.ladder.given_up);
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
        if let Some(by) = &self.assembly_trouble(index).fenced {
            evidence.push(value("fenced", format!("confirmed by {by}")));
        } else if let Some(instance) = facts.instance {
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
            gates: self.own_gates(index, None),
            age,
            age_max,
            dated_retry,
        }
    }
}

/// policy.md section 7, the evidence that each rung needs beyond what the verdict already implies.
pub(crate) fn enough_evidence(rung: Rung, verdict: &Verdict, facts: &Facts) -> bool {
    // An answering channel is itself on the path.
    let path = facts.path_proven || facts.channel == cpe_proto::decision::ChannelFact::Healthy;
    let infrastructure_answers = facts.instance.is_some_and(|state| state != InstanceState::Unknown);
    match rung {
        Rung::Start | Rung::RebootSoft | Rung::RebootHard => path,
        Rung::Rebuild | Rung::Recreate | Rung::RestartDeployable | Rung::Relocate => {
            path && infrastructure_answers && *verdict != Verdict::ChannelFault
        }
        Rung::RestartService => true,
    }
}
