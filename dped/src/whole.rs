//! The deployable scope (policy.md section 3): when the ladder of an assembly has ended, its machine is powered off, verified off and
//! started, and what depends on it lets go before and comes back after it, in order. Only the machine that has failed is touched; the
//! others lose services for that time, each over its own healthy channel, and get them back whatever the recovery comes to.
//!
//! It is a recovery of the failed assembly like others, with a stage before its action (services are stopped) and, when it comes to
//! nothing, one after it (they are started again). Which rung is due: `ladder.rs`. Its steps are `plan.rs`'s.

use std::time::Duration;

use cpe_proto::decision::Verdict;
use cpe_proto::definition::{Affected, Deployable, Mode};
use cpe_proto::event::EventKind;
use cpe_proto::id::{ActionId, AssemblyIndex, ServiceIndex};
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::Beyond;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::action::OUTCOME_LOST_AFTER;
use crate::describe;
use crate::engine::{About, Engine};
use crate::health::{ChannelHealth, HealthEvent};
use crate::isolate::isolate;
use crate::ladder::{self, Choice};
use crate::output::Act;
use crate::parts::{Demand, Ending, Phase, Recovery, Start};
use crate::recover::enough_evidence;

impl Engine {
    // ---- whether

    /// The deployable's rung for an assembly whose own ladder has ended, counted once.
    pub(crate) fn beyond(&mut self, index: AssemblyIndex, mut choice: Choice, now: Timestamp) -> Choice {
        let Some(trouble) = &self.assembly(index).trouble else { return choice };
        let (due, relocated) = (trouble.ladder.beyond, trouble.ladder.relocated);
        if trouble.ladder.given_up {
            return choice;
        }
        if due != Beyond::Due(Rung::Relocate) && !relocated {
            choice = self.restart_as_whole(index, choice, now);
        }
        if choice.rung.is_none() && self.definition().escalation.relocate.is_some() {
            choice = self.elsewhere(index, choice, now);
        }
        choice
    }

    /// All but the N-th failure are answered by a restart of what is affected.
    fn restart_as_whole(&mut self, index: AssemblyIndex, mut choice: Choice, now: Timestamp) -> Choice {
        let Some(scope) = self.definition().escalation.deployable else { return choice };
        let rung = Rung::RestartDeployable;
        let Some(trouble) = &self.assembly(index).trouble else { return choice };
        let verdict = trouble.verdict.as_ref().map(|(verdict, _)| verdict);
        if let Some(skip) = ladder::forbidden_as_whole(verdict, self.bounds(index)) {
            choice.skipped.push((rung, skip));
            return choice;
        }
        if trouble.ladder.beyond == Beyond::Due(rung) {
            choice.rung = Some(rung);
            return choice;
        }
        let count = self.failures.add(scope.window, now);
        let counted: Box<str> = format!("{} of the deployable", describe::count(count, scope.window)).into();
        let trouble = self.assembly_trouble(index);
        trouble.counted = counted;
        trouble.backed_off = false;
        if !count.full {
            self.goes_beyond(index, rung, now);
            choice.rung = Some(rung);
        }
        choice
    }

    /// The last rung: once, in the other place.
    fn elsewhere(&mut self, index: AssemblyIndex, mut choice: Choice, now: Timestamp) -> Choice {
        let Some(trouble) = &self.assembly(index).trouble else { return choice };
        let verdict = trouble.verdict.as_ref().map_or(&Verdict::PerService, |(verdict, _)| verdict);
        if let Some(skip) = ladder::forbidden_elsewhere(verdict, &trouble.ladder, self.bounds(index)) {
            choice.skipped.push((Rung::Relocate, skip));
            return choice;
        }
        if trouble.ladder.beyond != Beyond::Due(Rung::Relocate) {
            self.assembly_trouble(index).backed_off = false;
            self.goes_beyond(index, Rung::Relocate, now);
        }
        choice.rung = Some(Rung::Relocate);
        choice
    }

    fn goes_beyond(&mut self, index: AssemblyIndex, rung: Rung, now: Timestamp) {
        let trouble = self.assembly_trouble(index);
        trouble.ladder.beyond = Beyond::Due(rung);
        let incident = trouble.incident;
        let reason = format!("{}: its own ladder has ended; escalates to {rung}", trouble.counted);
        self.report(About::Assembly(index), EventKind::Escalated, now, |it| {
            (it.reason, it.incident) = (reason.into(), incident);
        });
    }

    /// The assembly for which the deployable recovers as a whole now, and by which action.
    pub(crate) fn whole(&self) -> Option<(AssemblyIndex, ActionId)> {
        self.definition().assembly_indices().find_map(|index| {
            let recovery = self.assembly(index).recovery.as_ref()?;
            let begun = recovery.is_whole() && !matches!(recovery.phase, Phase::Asked { .. });
            begun.then_some((index, recovery.action))
        })
    }

    /// Whether something is done elsewhere in the deployable, so that it cannot recover as a whole now.
    pub(crate) fn busy_elsewhere(&self, index: AssemblyIndex) -> bool {
        self.definition().assembly_indices().any(|other| other != index && self.busy(other))
    }

    // ---- what it touches

    /// Of these what can be stopped and started again: it is reached, may be touched, and there is a way to start it.
    fn can_let_go(&self, service: ServiceIndex) -> bool {
        let index = self.definition().service(service).assembly;
        self.definition().service(service).restart.is_some()
            && self.assembly(index).channel == ChannelHealth::Healthy
            && !self.in_maintenance(index)
            && !self.is_paused(index)
            && !self.is_service_paused(service)
            && self.foreign(index).is_none()
            && self.address_missing(service).is_none()
            && !matches!(self.service(service).state, State::Stopped | State::Misconfigured)
    }

    /// What lets go for that assembly: nothing on which something rests that we could not start again, should it end with it.
    fn lets_go_for(&self, lead: AssemblyIndex) -> Vec<ServiceIndex> {
        let comes_back = |other: ServiceIndex| {
            let service = self.definition().service(other);
            service.restart.is_some()
                || service.assembly == lead
                || self.service(other).state == State::Stopped
        };
        let affected = affected(self.definition(), lead);
        let mut stays: Vec<ServiceIndex> = Vec::new();
        loop {
            let before = stays.len();
            for it in &affected {
                let free = |other| comes_back(other) && !stays.contains(&other);
                if !stays.contains(it) && !self.each_dependent(*it, free) {
                    stays.push(*it);
                }
            }
            if before == stays.len() {
                let lets_go = |it: &ServiceIndex| self.can_let_go(*it) && !stays.contains(it);
                return affected.into_iter().filter(lets_go).collect();
            }
        }
    }

    /// What is restarted with that assembly's machine now. Nothing else elsewhere can be recovering meanwhile.
    fn touched(&self, lead: AssemblyIndex) -> Vec<ServiceIndex> {
        let elsewhere = self.definition().assembly_indices().filter(|index| *index != lead);
        let services = elsewhere.flat_map(|index| self.definition().services_of(index));
        services.filter(|service| self.service(*service).state == State::Recovering).collect()
    }

    pub(crate) fn start_of(&self, service: ServiceIndex) -> Start {
        self.service(service).trouble.as_ref().map_or(Start::No, |trouble| trouble.start)
    }

    /// The recovery of the whole deployable that a step for that service belongs to.
    pub(crate) fn part_of(&self, service: ServiceIndex) -> Option<ActionId> {
        let (lead, action) = self.whole()?;
        let elsewhere = self.definition().service(service).assembly != lead;
        (elsewhere && self.service(service).state == State::Recovering).then_some(action)
    }

    // ---- before its action

    /// It was admitted: what is affected lets go first.
    pub(crate) fn prepare(&mut self, index: AssemblyIndex, mut recovery: Box<Recovery>, now: Timestamp) {
        let affected = self.lets_go_for(index);
        recovery.phase = Phase::Preparing { until: now.after(self.steps_take(affected.len(), index)) };
        self.assembly_mut(index).recovery = Some(recovery);
        for service in affected {
            self.change(service, HealthEvent::RecoveryBegan, "", now);
            let trouble = self.service_trouble(service);
            (trouble.demand, trouble.wait_until, trouble.refused, trouble.waits) =
                (Demand::Nothing, None, None, None);
            (trouble.start, trouble.stops_failed) = (Start::ToStop, 0);
        }
        self.changed = true;
    }

    /// So many steps, one after the other, and a fresh look at the machine.
    fn steps_take(&self, steps: usize, index: AssemblyIndex) -> Duration {
        let each = self.definition().timing.service_action_timeout + OUTCOME_LOST_AFTER;
        let probe = &self.definition().assembly(index).probe;
        each * u32::try_from(steps).unwrap_or(u32::MAX) + (probe.interval + probe.timeout) * 4
    }

    /// The next services to be stopped, dependents first; and once all of them are, the action itself.
    pub(crate) fn advance_whole(&mut self, index: AssemblyIndex, now: Timestamp) {
        let Some(recovery) = &self.assembly(index).recovery else { return };
        match recovery.phase {
            Phase::Preparing { until } => self.advance_preparing(index, until, now),
            Phase::GivingBack { until } => {
                let waits = |service: &ServiceIndex| {
                    self.start_of(*service) == Start::Again && !self.service_passes(*service)
                };
                let letting_go = self.touched(index).into_iter().any(|it| self.is_letting_go(it));
                if now >= until || !letting_go && !self.touched(index).iter().any(waits) {
                    self.given_back(index, now);
                }
            }
            _ => {}
        }
    }

    fn advance_preparing(&mut self, index: AssemblyIndex, until: Timestamp, now: Timestamp) {
        let by_hand = self.assembly(index).recovery.as_ref().is_some_and(|it| it.by.is_some());
        if !by_hand && self.assembly(index).trouble.as_ref().is_none_or(|it| it.demand == Demand::Nothing) {
            let reason = "not begun: what it was for is over";
            return self.end_recovery(index, None, reason, now);
        }
        if let Some(refusal) = self.held_back(index) {
            // Nothing was done to its machine yet, and nothing is begun while that holds.
            return self.end_recovery(index, None, &format!("not begun: {refusal}"), now);
        }
        for service in self.touched(index) {
            let lost =
                self.assembly(self.definition().service(service).assembly).channel == ChannelHealth::Dead;
            if (lost || now >= until) && self.start_of(service) == Start::ToStop {
                // What cannot be reached cannot let go; it is looked at, and started if it does not run, like the others.
                self.service_trouble(service).start = Start::Held;
            }
        }
        let stopping = self.definition().assembly_indices().any(|it| {
            self.assembly(it).step.is_some()
                || self.definition().services_of(it).any(|it| self.start_of(it) == Start::ToStop)
        });
        if stopping {
            if now >= until {
                // The step in flight ends by its own time.
                let until = now.after(self.pace(index));
                if let Some(recovery) = &mut self.assembly_mut(index).recovery {
                    recovery.phase = Phase::Preparing { until };
                }
            }
            return;
        }
        let rung = self.assembly(index).recovery.as_ref().map_or(Rung::RestartDeployable, |it| it.rung);
        if by_hand || self.still_needed(index, rung, now) {
            let Some(recovery) = self.assembly_mut(index).recovery.take() else { return };
            return self.give_out(index, recovery, now);
        }
        if now >= until {
            // It counts as tried: others do not let go for it again and again.
            self.assembly_trouble(index).ladder.beyond = Beyond::Tried;
            let reason = "not begun: no fresh evidence asks for it any more";
            self.end_recovery(index, None, reason, now);
        }
    }

    /// Stopping took its time, and cpe may have been restarted meanwhile: what it was admitted for must be so still, on fresh evidence.
    fn still_needed(&mut self, index: AssemblyIndex, rung: Rung, now: Timestamp) -> bool {
        let Some(facts) = self.facts(index, now) else { return false };
        let (verdict, _) = isolate(&facts);
        // A person's word stands for what the infrastructure cannot say.
        let fenced = self.assembly_trouble(index).fenced.is_some();
        self.assembly_wants(index, &verdict, &facts, now)
            && (fenced || enough_evidence(rung, &verdict, &facts))
    }

    /// Asks for the next stop in an assembly, dependents before what they depend on.
    pub(crate) fn plan_letting_go(&mut self, index: AssemblyIndex, now: Timestamp) {
        let foreign = self.foreign(index).is_some();
        if self.definition().mode == Mode::Observe || foreign || !self.step_allowed(index) {
            return;
        }
        for service in self.definition().services_of(index).rev() {
            let waits = self.service(service).trouble.as_ref().and_then(|trouble| trouble.wait_until);
            let waits = waits.is_some_and(|until| now < until);
            let goes = |other| self.start_of(other) != Start::ToStop;
            if self.start_of(service) == Start::ToStop && !waits && self.each_dependent(service, goes) {
                return self.ask_step(index, service, Act::StopService(service), now);
            }
        }
    }

    /// A stop ended. After a few that failed it is not waited for: what is broken is worse than what holds on to it.
    pub(crate) fn let_go_of(&mut self, service: ServiceIndex, failed: Option<&str>, now: Timestamp) {
        if let Some(detail) = failed {
            self.stop_failed(service, detail, now);
            if self.service_trouble(service).stops_failed < STOPS_TRIED {
                return;
            }
        }
        let part = self.service_mut(service);
        (part.misses, part.deadlines, part.passed) = (0, 0, Timestamp::ZERO);
        let trouble = self.service_trouble(service);
        (trouble.start, trouble.wait_until) = (Start::Held, None);
    }

    /// Its stop was given out and has not ended.
    fn is_letting_go(&self, service: ServiceIndex) -> bool {
        let step = &self.assembly(self.definition().service(service).assembly).step;
        step.as_ref().is_some_and(|step| {
            step.act == Act::StopService(service) && matches!(step.phase, Phase::Acting { .. })
        })
    }

    // ---- after its action

    /// Its machine was started, or may have been: what let go is looked at, and started if it does not run.
    pub(crate) fn come_back(&mut self, index: AssemblyIndex, now: Timestamp) {
        for service in self.touched(index) {
            self.look_afresh(service, now);
            let trouble = self.service_trouble(service);
            (trouble.start, trouble.wait_until) = (Start::Wanted, None);
        }
    }

    /// Its machine is well: what let go for it has its time, one after the other. False: it had it.
    pub(crate) fn waits_for_others(&mut self, index: AssemblyIndex, now: Timestamp) -> bool {
        let Some(recovery) = self.assembly(index).recovery.as_ref().filter(|it| it.is_whole()) else {
            return false;
        };
        let Phase::Verifying { done, .. } = recovery.phase else { return false };
        let each = |service: &ServiceIndex| {
            let probe = self.definition().service(*service).probe;
            self.definition().timing.service_action_timeout + probe.startup_grace + probe.stable_for
        };
        let takes: Duration = self.touched(index).iter().map(each).sum();
        let probe = &self.definition().assembly(index).probe;
        let until = done.after(probe.startup_grace).after(probe.stable_for).after(takes);
        if now >= until || self.all_came_back(index) {
            return false;
        }
        if let Some(recovery) = &mut self.assembly_mut(index).recovery {
            recovery.phase = Phase::Verifying { done, until };
        }
        true
    }

    /// Whether all that let go for it is well, as far as it is reached.
    pub(crate) fn all_came_back(&self, index: AssemblyIndex) -> bool {
        self.touched(index).into_iter().all(|service| {
            let reached = self.assembly(self.definition().service(service).assembly).channel;
            reached == ChannelHealth::Dead || self.service_stable(service)
        })
    }

    /// Whether a probe of that service is one of a verification elsewhere.
    pub(crate) fn comes_back(&self, service: ServiceIndex) -> bool {
        self.part_of(service).is_some() && !matches!(self.start_of(service), Start::ToStop | Start::Held)
    }

    /// It came to nothing. What let go for it and does not run is started first, whatever it depends on: it ran before. True: it waits
    /// for that.
    pub(crate) fn gives_back(
        &mut self,
        index: AssemblyIndex,
        worked: Option<bool>,
        reason: &str,
        now: Timestamp,
    ) -> bool {
        let whole = self.assembly(index).recovery.as_ref().is_some_and(|it| {
            it.is_whole() && !matches!(it.phase, Phase::Asked { .. } | Phase::GivingBack { .. })
        });
        if !whole || worked == Some(true) || !self.desired.runs() {
            return false;
        }
        let away = |service: &ServiceIndex| {
            let stopped = matches!(self.start_of(*service), Start::ToStop | Start::Held | Start::Wanted);
            stopped && !self.service_passes(*service) || self.is_letting_go(*service)
        };
        let away: Vec<_> = self.touched(index).into_iter().filter(away).collect();
        if away.is_empty() {
            return false;
        }
        let until = now.after(self.steps_take(away.len() * 2, index));
        for service in away {
            self.look_afresh(service, now);
            let trouble = self.service_trouble(service);
            (trouble.start, trouble.wait_until, trouble.waits) = (Start::Again, None, None);
        }
        if let Some(recovery) = &mut self.assembly_mut(index).recovery {
            recovery.phase = Phase::GivingBack { until };
            recovery.ending = Some(Box::new(Ending { failed: worked == Some(false), reason: reason.into() }));
        }
        self.changed = true;
        true
    }

    fn given_back(&mut self, index: AssemblyIndex, now: Timestamp) {
        let ending = self.assembly_mut(index).recovery.as_mut().and_then(|it| it.ending.take());
        let Some(ending) = ending else { return };
        self.end_recovery(index, ending.failed.then_some(false), &ending.reason, now);
    }

    /// It is over: each of the others is judged for itself again.
    pub(crate) fn end_of_touched(&mut self, index: AssemblyIndex, reason: &str, now: Timestamp) {
        for service in self.touched(index) {
            let start = self.start_of(service);
            let passes = self.service_passes(service);
            self.end_of_service(service, passes.then_some(true), reason, now);
            if !passes && !matches!(start, Start::No | Start::Begun) {
                self.change(
                    service,
                    HealthEvent::Started,
                    "stopped for its deployable; to be started again",
                    now,
                );
                self.service_trouble(service).start = Start::Again;
            }
        }
    }

    /// What was stopped for a recovery that nobody goes on with, its assembly being defined no more, is started again.
    pub(crate) fn forgotten(&mut self, index: AssemblyIndex, now: Timestamp) {
        for service in self.definition().services_of(index) {
            if !matches!(self.start_of(service), Start::ToStop | Start::Held) || self.whole().is_some() {
                continue;
            }
            self.change(
                service,
                HealthEvent::Started,
                "stopped for its deployable; to be started again",
                now,
            );
            self.look_afresh(service, now);
            self.service_trouble(service).start = Start::Again;
        }
    }
}

/// So many failed attempts to stop one service are enough.
const STOPS_TRIED: u8 = 3;

/// The services of other assemblies that are restarted with one: what depends on it, one through another, or all.
pub(crate) fn affected(definition: &Deployable, lead: AssemblyIndex) -> Vec<ServiceIndex> {
    let all = definition.escalation.deployable.is_some_and(|scope| scope.scope == Affected::All);
    let (mut machines, mut services) = (vec![lead], Vec::new());
    loop {
        let before = (machines.len(), services.len());
        for index in definition.assembly_indices().filter(|index| *index != lead) {
            let whole = all || definition.assembly(index).after.iter().any(|it| machines.contains(it));
            for service in definition.services_of(index) {
                let after = &definition.service(service).after;
                let depends =
                    after.iter().any(|it| services.contains(it) || definition.service(*it).assembly == lead);
                if (whole || depends) && !services.contains(&service) {
                    services.push(service);
                }
            }
            let touched = whole || services.iter().any(|it| definition.service(*it).assembly == index);
            if touched && !machines.contains(&index) {
                machines.push(index);
            }
        }
        if before == (machines.len(), services.len()) {
            return services;
        }
    }
}
