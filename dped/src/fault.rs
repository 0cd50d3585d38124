//! Faults and their scopes: what isolation concludes of an assembly from fresh answers, what a verdict asks for, how a failure is
//! counted, and when a scope escalates or is given up. Actions themselves are `recover.rs`'s.

use std::fmt::Write as _;
use std::time::Duration;

use cpe_proto::decision::{ChannelFact, Facts, Refusal, Verdict};
use cpe_proto::definition::{Machine, OnOrder, Window};
use cpe_proto::event::EventKind;
use cpe_proto::id::{AssemblyIndex, Name, ServiceIndex};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::describe;
use crate::engine::{About, Engine};
use crate::health::{ChannelHealth, HealthEvent};
use crate::input::Surroundings;
use crate::isolate::isolate;
use crate::ladder::{self, Bounds};
use crate::output::Output;
use crate::parts::{Cause, Demand, Instance, Phase};

/// A machine that bears another controller's mark is looked at so often: it may be given back.
const OWNER_LOOKED_AT_EVERY: Duration = Duration::from_secs(30);

impl Engine {
    /// Asks for fresh answers while they are needed, isolates, and turns a verdict into what it asks for.
    pub(crate) fn isolate(&mut self, index: AssemblyIndex, now: Timestamp) {
        self.ask_around(index, now);
        let part = self.assembly(index);
        let asked = |phase: Phase| matches!(phase, Phase::Asked { .. } | Phase::Preparing { .. });
        let recovers = part.recovery.as_ref().is_some_and(|it| it.service.is_none() && !asked(it.phase));
        if !self.desired.runs() || recovers || self.is_powering_on(index) {
            return;
        }
        match part.channel {
            ChannelHealth::Healthy => self.channel_well(index, now),
            ChannelHealth::Dead if now >= part.grace_until => self.channel_dead(index, now),
            ChannelHealth::Unknown => self.say_untried(index, now),
            ChannelHealth::Dead | ChannelHealth::Suspected => {}
        }
    }

    /// Evidence about an assembly is fresh when it is not older than two intervals.
    pub(crate) fn fresh_for(&self, index: AssemblyIndex) -> Duration {
        self.definition().interval(index) * 2
    }

    fn ask_around(&mut self, index: AssemblyIndex, now: Timestamp) {
        if self.assembly(index).foreign.is_some() {
            // Looked at again, until it is given back.
            self.assembly_trouble(index);
        }
        let part = self.assembly(index);
        let Some(trouble) = &part.trouble else { return };
        let unresolved = part
            .recovery
            .as_ref()
            .is_some_and(|it| it.service.is_none() && matches!(it.phase, Phase::Unresolved { .. }));
        let running = self.desired.runs();
        let fault = running && (part.channel == ChannelHealth::Dead || trouble.demand != Demand::Nothing);
        let missed = part.channel == ChannelHealth::Unknown && part.misses > 0;
        let suspected = running && (part.channel == ChannelHealth::Suspected || missed);
        let by_hand = part.by_hand.as_ref().is_some_and(|it| it.wanted.service.is_none());
        // What has no address is not reached before the infrastructure says one.
        let unaddressed = running
            && trouble.untried.is_some()
            && !matches!(self.definition().assembly(index).machine, Machine::Address(_));
        let foreign = part.foreign.is_some() && !self.machine_acting(index);
        let needed = unresolved
            || foreign
            || unaddressed
            || running && trouble.drift
            || (fault || suspected || by_hand) && !self.machine_acting(index);
        if !needed {
            self.assembly_trouble(index).ask_at = None;
            return;
        }
        if trouble.ask_at.is_some_and(|at| now < at) {
            return;
        }
        let only_owner = foreign && !fault && !by_hand && !unresolved;
        let interval = self.definition().interval(index);
        let pace = if only_owner { interval.max(OWNER_LOOKED_AT_EVERY) } else { interval };
        self.assembly_trouble(index).ask_at = Some(now.after(pace));
        // A first failure asks for the path only: the guard answers that at no cost.
        if self.definition().infrastructure.is_some() && (foreign || !suspected) {
            self.output(Output::AskInstance(index));
        }
        self.output(Output::AskSurroundings(index));
    }

    /// The guard's answer. When everything falls silent at once, or comes back at once, the peers' last or first answers lie close to
    /// this channel's failures and prove nothing. So the path counts as proven only by an answer that came after this channel had failed,
    /// and only once this channel has failed again after that answer.
    pub(crate) fn surrounded(&mut self, index: AssemblyIndex, surroundings: Surroundings, now: Timestamp) {
        let fresh_for = self.fresh_for(index);
        let answered =
            surroundings.path_answered_ago.filter(|ago| *ago <= fresh_for).map(|ago| now.before(ago));
        let dead = self.assembly(index).channel == ChannelHealth::Dead;
        let trouble = self.assembly_trouble(index);
        trouble.surroundings = Some((surroundings, now));
        match (answered, trouble.first_ended) {
            (Some(at), Some(first_ended)) if at > first_ended => {
                if trouble.path_answered.is_none() {
                    (trouble.path_answered, trouble.failed_on_path) = (Some(at), 0);
                    if dead {
                        self.assembly_mut(index).poll.hasten(now);
                    }
                }
            }
            (Some(_), _) => {}
            (None, _) => (trouble.path_answered, trouble.failed_on_path) = (None, 0),
        }
    }

    /// The path answered, and this channel is being confirmed anew since.
    pub(crate) fn confirms_on_path(&self, index: AssemblyIndex) -> bool {
        let trouble = self.assembly(index).trouble.as_ref();
        trouble.is_some_and(|it| {
            it.path_answered.is_some() && u32::from(it.failed_on_path) < self.failures_on_path(index)
        })
    }

    /// So many probes must fail after the path's answer: one less than confirm a channel, since its first failure is what came before.
    fn failures_on_path(&self, index: AssemblyIndex) -> u32 {
        self.definition().assembly(index).probe.failure_threshold.get().saturating_sub(1).max(1)
    }

    /// The facts of an assembly, if all answers that they rest on are there and fresh.
    pub(crate) fn facts(&self, index: AssemblyIndex, now: Timestamp) -> Option<Facts> {
        let part = self.assembly(index);
        let trouble = part.trouble.as_ref()?;
        let fresh_for = self.fresh_for(index);
        let (around, at) = trouble.surroundings.as_ref().filter(|(_, at)| now.since(*at) <= fresh_for)?;
        let dead = part.channel == ChannelHealth::Dead;
        let instance = match (&self.definition().infrastructure, trouble.instance) {
            (None, _) => None,
            // A person's word stands for the infrastructure's, which is not to be had; for nothing else.
            (Some(_), _) if dead && trouble.fenced.is_some() => {
                Some(Instance { state: InstanceState::Gone, ordered: false, at: now })
            }
            (Some(_), Some(seen)) if now.since(seen.at) <= fresh_for => Some(seen),
            (Some(_), _) => return None,
        };
        let ago = around.path_answered_ago.map(|ago| ago.saturating_add(now.since(*at)));
        let fresh_path = ago.is_some_and(|ago| ago <= fresh_for);
        let proven = trouble.path_answered.is_some() && !self.confirms_on_path(index);
        Some(Facts {
            self_trusted: around.self_trusted,
            held_domain: around.held_domain.clone(),
            instance: instance.map(|seen| seen.state),
            ordered: instance.is_some_and(|seen| seen.ordered),
            channel: self.channel_fact(index),
            live_witness: self.live_witness(index, now).is_some(),
            path_proven: part.channel == ChannelHealth::Healthy || fresh_path && proven,
        })
    }

    /// What is known without anybody's answer: enough for a service's restart over a healthy channel; the gate has the last word.
    pub(crate) fn facts_of_service(&self, index: AssemblyIndex, now: Timestamp) -> Facts {
        self.facts(index, now).unwrap_or_else(|| Facts {
            self_trusted: true,
            held_domain: None,
            instance: None,
            ordered: false,
            channel: self.channel_fact(index),
            live_witness: self.live_witness(index, now).is_some(),
            path_proven: self.assembly(index).channel == ChannelHealth::Healthy,
        })
    }

    fn channel_fact(&self, index: AssemblyIndex) -> ChannelFact {
        let part = self.assembly(index);
        match part.channel {
            ChannelHealth::Healthy => ChannelFact::Healthy,
            ChannelHealth::Suspected => ChannelFact::Suspected,
            ChannelHealth::Dead => ChannelFact::Dead(part.failure),
            ChannelHealth::Unknown => ChannelFact::Unknown,
        }
    }

    /// What bounds the ladder of an assembly.
    pub(crate) fn bounds(&self, index: AssemblyIndex) -> Bounds<'_> {
        let assembly = self.definition().assembly(index);
        let trouble = self.assembly(index).trouble.as_ref();
        let around = trouble.and_then(|trouble| trouble.surroundings.as_ref());
        Bounds {
            max_rung: assembly.max_rung,
            data: assembly.data,
            capabilities: around.and_then(|(around, _)| around.capabilities.as_ref()),
            climbs: self.definition().escalation.assembly.is_some(),
            deployable: self.definition().escalation.deployable.is_some(),
            relocate: self.may_go_elsewhere(index),
        }
    }

    fn channel_well(&mut self, index: AssemblyIndex, now: Timestamp) {
        let disagrees =
            self.facts(index, now).is_some_and(|facts| isolate(&facts).0 == Verdict::Disagreement);
        let Some(trouble) = &mut self.assembly_mut(index).trouble else { return };
        trouble.drift = false;
        if disagrees && trouble.verdict.as_ref().is_none_or(|(known, _)| *known != Verdict::Disagreement) {
            let state = trouble.instance.map_or(InstanceState::Unknown, |seen| seen.state);
            trouble.verdict = Some((Verdict::Disagreement, 3));
            let reason = format!("disagreement: the infrastructure says {state}, and the channel answers");
            self.report(About::Assembly(index), EventKind::FaultIsolated, now, |it| {
                it.reason = reason.into();
            });
            return;
        }
        if !disagrees && trouble.cause != Cause::Channel {
            // What it was is over; the next one is concluded and told anew.
            (trouble.verdict, trouble.say_at) = (None, None);
        }
        if disagrees
            || trouble.cause != Cause::Channel
            || trouble.verdict.is_none() && trouble.demand == Demand::Nothing
        {
            return;
        }
        (trouble.demand, trouble.verdict, trouble.told) = (Demand::Nothing, None, None);
        (trouble.wait_until, trouble.say_at, trouble.refused, trouble.waits) = (None, None, None, None);
    }

    fn channel_dead(&mut self, index: AssemblyIndex, now: Timestamp) {
        self.open_assembly_incident(index, now);
        let facts = self.facts(index, now);
        let dead_since = *self.assembly_trouble(index).dead_since.get_or_insert(now);
        if facts.is_none() && now.since(dead_since) < self.definition().interval(index) {
            // What was asked at its death may still be answered.
            return;
        }
        // Without fresh answers nothing is known but that the channel is dead.
        let (verdict, row) = facts.as_ref().map_or((Verdict::Unreachable, 14), isolate);
        let could_speak = matches!(verdict, Verdict::Hung | Verdict::ChannelFault);
        let pends = |facts: &Facts| {
            self.verdict_pends(index, &verdict, facts, now) || could_speak && self.witness_pends(index, now)
        };
        if facts.as_ref().is_some_and(pends) {
            return;
        }
        let wanted = facts.as_ref().is_some_and(|facts| self.acts_on(index, &verdict, facts));
        let trouble = self.assembly_trouble(index);
        // What was to be recovered may be left by now, because somebody ordered it meanwhile.
        let left = matches!(verdict, Verdict::Off | Verdict::Gone) && trouble.wanted && !wanted;
        let known = trouble.verdict.as_ref().is_some_and(|(known, _)| *known == verdict);
        trouble.wanted = wanted;
        if !known || left {
            self.conclude(index, &verdict, row, facts.as_ref(), now);
        }
        let trouble = self.assembly_trouble(index);
        if wanted {
            // A dead channel outranks what a service of it had asked for.
            trouble.cause = Cause::Channel;
            if trouble.demand == Demand::Nothing {
                trouble.demand = Demand::Fault;
            }
        }
        self.say_unreachable(index, &verdict, now);
    }

    /// Whether the verdict hangs on the path alone and the path is still being proven: what is certain in a moment is not told as
    /// something else before. A moment: the next answers of the peers, and as many probes as must fail after one.
    fn verdict_pends(&self, index: AssemblyIndex, verdict: &Verdict, facts: &Facts, now: Timestamp) -> bool {
        if facts.path_proven || isolate(&Facts { path_proven: true, ..facts.clone() }).0 == *verdict {
            return false;
        }
        let settings = &self.definition().assembly(index).probe;
        let Some(trouble) = &self.assembly(index).trouble else { return false };
        let dead_for = trouble.dead_since.map_or(Duration::MAX, |at| now.since(at));
        if self.confirms_on_path(index) {
            return dead_for < settings.interval + settings.timeout * self.failures_on_path(index);
        }
        let answered = trouble.surroundings.as_ref().and_then(|(around, _)| around.path_answered_ago);
        answered.is_some_and(|ago| ago <= self.fresh_for(index)) && dead_for < settings.interval
    }

    fn left_off(&self, index: AssemblyIndex) -> bool {
        let trouble = self.assembly(index).trouble.as_ref();
        trouble.is_some_and(|trouble| ladder::left_off(&Verdict::Off, &trouble.ladder))
    }

    /// Whether a verdict asks for the assembly's ladder.
    pub(crate) fn acts_on(&self, index: AssemblyIndex, verdict: &Verdict, facts: &Facts) -> bool {
        let timing = &self.definition().timing;
        match verdict {
            Verdict::Gone if self.is_fenced(index) => true,
            // We powered it off ourselves and did not come to start it.
            Verdict::Off if self.left_off(index) => !facts.ordered,
            Verdict::Gone | Verdict::Off => !facts.ordered && timing.on_unexpected_stop == OnOrder::Recover,
            Verdict::Down | Verdict::Hung => true,
            Verdict::ChannelFault => {
                let refused = facts.channel == ChannelFact::Dead(ChannelFailure::Refused);
                refused && !facts.live_witness && timing.on_channel_refused == OnOrder::Recover
            }
            _ => false,
        }
    }

    /// A verdict that is new: told once, and what it asks for besides recovery is done.
    fn conclude(
        &mut self,
        index: AssemblyIndex,
        verdict: &Verdict,
        row: u8,
        facts: Option<&Facts>,
        now: Timestamp,
    ) {
        let about = About::Assembly(index);
        let opened = self.open_assembly_incident(index, now);
        let wait = self.told_after(verdict);
        let trouble = self.assembly_trouble(index);
        if !matches!(verdict, Verdict::Off | Verdict::Unreachable | Verdict::Untrusted) {
            trouble.ladder.not_left_off();
        }
        trouble.verdict = Some((verdict.clone(), row));
        trouble.verdict_since = now;
        let mut reason = format!("{}: {}", verdict, explain(verdict, facts, &trouble.reason));
        if let Some(witness) = self.live_witness(index, now).filter(|_| row == 9) {
            let _infallible =
                write!(reason, "; but {} passed since", self.definition().service(witness).name);
        }
        let trouble = self.assembly_trouble(index);
        if let Some(wait) = wait {
            trouble.say_at.get_or_insert(now.after(wait));
        }
        self.report(about, EventKind::FaultIsolated, now, |it| {
            (it.reason, it.incident) = (reason.clone().into(), opened);
        });
        // A machine that is off or gone and is left so: somebody ordered it, or the definition says to report it only.
        let left = matches!(verdict, Verdict::Off | Verdict::Gone)
            && facts.is_some_and(|it| !self.acts_on(index, verdict, it));
        let tells = matches!(verdict, Verdict::MisconfiguredChannel | Verdict::ChannelFault) || left;
        // What is not trusted is cpe: the guard says that, once, and not each machine of the fleet.
        if *verdict == Verdict::ChannelFault {
            self.output(Output::Reconnect(index));
        }
        if tells && self.tells(index, verdict) {
            let message = format!("{}: {reason}", self.name_of(about));
            self.output(Output::Notify { incident: opened, message: message.into() });
        }
        if facts.is_some_and(|it| self.acts_on(index, verdict, it)) {
            self.say_ended(index, &reason);
        }
        self.changed = true;
    }

    /// The ladder of a machine may have ended for a service of it, and that was told. That now the machine itself is down is another thing,
    /// and nothing more than a dated retry will be done.
    fn say_ended(&mut self, index: AssemblyIndex, reason: &str) {
        let maintained = self.in_maintenance(index);
        let trouble = self.assembly_trouble(index);
        if maintained || !trouble.ladder.given_up || std::mem::replace(&mut trouble.told_ended, true) {
            return;
        }
        let incident = trouble.incident;
        let message = format!(
            "{} is exhausted: {reason}; every rung was tried before",
            self.name_of(About::Assembly(index))
        );
        self.output(Output::Notify { incident, message: message.into() });
    }

    /// How long such a verdict stands before a person is told of it.
    fn told_after(&self, verdict: &Verdict) -> Option<Duration> {
        let timing = self.definition().timing;
        match verdict {
            Verdict::InTransition => Some(timing.transition_wait),
            Verdict::Unreachable | Verdict::CommonCause(_) => Some(timing.unreachable_notify),
            _ => None,
        }
    }

    fn say_unreachable(&mut self, index: AssemblyIndex, verdict: &Verdict, now: Timestamp) {
        let Some(wait) = self.told_after(verdict) else { return };
        let name = self.name_of(About::Assembly(index));
        let trouble = self.assembly_trouble(index);
        // Its hour may have come while our evidence was void: then it is told now.
        let missed = || trouble.told.as_ref() != Some(verdict) && now.since(trouble.verdict_since) >= wait;
        if !trouble.say_at.map_or_else(missed, |at| now >= at) {
            return;
        }
        // Said once; as long as it lasts there is nothing new to say. Far away rather than gone, so that it is not set again.
        trouble.say_at = None;
        if !self.tells(index, verdict) {
            return;
        }
        let trouble = self.assembly_trouble(index);
        let incident = trouble.incident;
        let since = describe::span(now.since(trouble.verdict_since));
        let message = format!("{name}: {verdict} for {since}: {}; nothing is done", trouble.reason);
        self.output(Output::Notify { incident, message: message.into() });
    }

    /// What cannot be tried for a while is told, once: nothing is known of it, and nothing is done.
    fn say_untried(&mut self, index: AssemblyIndex, now: Timestamp) {
        let name = self.name_of(About::Assembly(index));
        let Some(trouble) = &mut self.assembly_mut(index).trouble else { return };
        let Some(since) = trouble.untried.filter(|it| it.lost).map(|it| it.since) else { return };
        if trouble.say_at.is_none_or(|at| now < at) {
            return;
        }
        trouble.say_at = None;
        let incident = trouble.incident;
        if self.in_maintenance(index) {
            return;
        }
        let Some(trouble) = &self.assembly(index).trouble else { return };
        let span = describe::span(now.since(since));
        let message = format!("{name}: unreachable for {span}: {}; nothing is done", trouble.reason);
        self.output(Output::Notify { incident, message: message.into() });
    }

    // ---- failures of the service scope

    /// A fault of a service is confirmed, or its recovery failed.
    pub(crate) fn service_fault(&mut self, index: ServiceIndex, now: Timestamp) {
        if self.service_trouble(index).demand == Demand::Nothing {
            self.isolate_service(index, now);
        }
        if self.service_trouble(index).ladder.given_up {
            self.service_trouble(index).demand = Demand::Attempt;
            self.change(index, HealthEvent::GaveUp, "failed again; every rung was tried before", now);
        }
    }

    /// A fault that is not known yet.
    fn isolate_service(&mut self, index: ServiceIndex, now: Timestamp) {
        let trouble = self.service_trouble(index);
        trouble.demand = Demand::Fault;
        trouble.passing_since = None;
        let seen = describe::confirmed(&trouble.reason, trouble.confirmed_by);
        let reason = match self.dependency_down(index) {
            Some(dependency) => format!("consequence: {seen}; waits for {dependency}"),
            None => format!("service_fault: {seen}"),
        };
        let opened = self.open_service_incident(index, now);
        self.report(About::Service(index), EventKind::FaultIsolated, now, |it| {
            (it.reason, it.incident) = (reason.into(), Some(opened));
        });
    }

    /// The N-th failure inside T: the next scope, or the end.
    pub(crate) fn climb_from_service(&mut self, index: ServiceIndex, why: &str, now: Timestamp) {
        let assembly = self.definition().service(index).assembly;
        let climbs = self.definition().escalation.service.is_some();
        let incident = self.service_trouble(index).incident;
        if !climbs {
            return self.give_up_service(index, &format!("{why}; no [escalation] for the service"), now);
        }
        if self.assembly_trouble(assembly).ladder.given_up {
            return self.give_up_service(
                index,
                &format!("{why}; the ladder of its assembly ended before"),
                now,
            );
        }
        self.service_trouble(index).demand = Demand::Nothing;
        let trouble = self.assembly_trouble(assembly);
        if trouble.incident.is_none() {
            trouble.incident = incident;
        }
        if trouble.demand == Demand::Nothing {
            (trouble.demand, trouble.cause, trouble.ask_at) =
                (Demand::Fault, Cause::Escalated(index), Some(now));
        }
        self.changed = true;
        let reason = format!("{why}: escalates to the assembly");
        self.report(About::Service(index), EventKind::Escalated, now, |it| {
            (it.reason, it.incident) = (reason.into(), incident);
        });
    }

    /// The ladder ended: one notification, then one lowest-rung attempt every `retry_after`.
    pub(crate) fn give_up_service(&mut self, index: ServiceIndex, why: &str, now: Timestamp) {
        let retry_after = self.definition().timing.retry_after;
        let name = self.name_of(About::Service(index));
        let trouble = self.service_trouble(index);
        let told_before = std::mem::replace(&mut trouble.ladder.given_up, true);
        trouble.ladder.retry_at = now.after(retry_after);
        (trouble.demand, trouble.wait_until) = (Demand::Attempt, None);
        let incident = trouble.incident;
        let seen = trouble.reason.clone();
        self.change(index, HealthEvent::GaveUp, why, now);
        self.service_trouble(index).reason = why.into();
        if !told_before {
            let message = format!(
                "{name} is exhausted: {why}; last seen: {seen}; tried again every {}",
                describe::span(retry_after)
            );
            self.output(Output::Notify { incident, message: message.into() });
        }
    }

    // ---- failures of the assembly scope

    /// The ladder of an assembly ended.
    pub(crate) fn give_up_assembly(&mut self, index: AssemblyIndex, why: &str, now: Timestamp) {
        let trouble = self.assembly_trouble(index);
        let cause = trouble.cause;
        let incident = trouble.incident;
        self.report(About::Assembly(index), EventKind::Escalated, now, |it| {
            (it.reason, it.incident) = (format!("{why}: no rung is left").into(), incident);
        });
        let retry_after = self.definition().timing.retry_after;
        let name = self.name_of(About::Assembly(index));
        let trouble = self.assembly_trouble(index);
        let told_before = std::mem::replace(&mut trouble.ladder.given_up, true);
        trouble.ladder.retry_at = now.after(retry_after);
        if let Cause::Escalated(service) = cause {
            (trouble.demand, trouble.wait_until, trouble.refused, trouble.waits) =
                (Demand::Nothing, None, None, None);
            return self.give_up_service(service, why, now);
        }
        (trouble.demand, trouble.wait_until) = (Demand::Attempt, None);
        trouble.told_ended = true;
        if !told_before {
            let message = format!(
                "{name} is exhausted: {why}; last seen: {}; tried again every {}",
                trouble.reason,
                describe::span(retry_after)
            );
            self.output(Output::Notify { incident, message: message.into() });
        }
        self.changed = true;
    }

    /// Whether a person is told of a verdict now: not in maintenance, and not once more after it. What is new then is told at its end,
    /// when it is concluded anew.
    fn tells(&mut self, index: AssemblyIndex, verdict: &Verdict) -> bool {
        if self.in_maintenance(index) {
            return false;
        }
        let told = self.assembly_trouble(index).told.replace(verdict.clone());
        told.as_ref() != Some(verdict)
    }

    pub(crate) fn in_maintenance(&self, index: AssemblyIndex) -> bool {
        self.maintenance || self.assembly(index).maintenance
    }

    /// What keeps failures from being counted and acted on: maintenance, a pause, another controller.
    pub(crate) fn held_back(&self, index: AssemblyIndex) -> Option<Refusal> {
        if self.in_maintenance(index) {
            return Some(Refusal::Maintenance);
        }
        if self.is_paused(index) {
            return Some(Refusal::Paused);
        }
        self.assembly(index).foreign.is_some().then_some(Refusal::NotOwner)
    }

    /// What keeps those of a service from being counted and acted on: also a pause of it alone.
    pub(crate) fn service_held_back(&self, service: ServiceIndex) -> Option<Refusal> {
        let paused = self.is_service_paused(service).then_some(Refusal::Paused);
        self.held_back(self.definition().service(service).assembly).or(paused)
    }

    /// Whether an operator stopped its recovery: by its name, its deployable, one of its failure domains, or with everything.
    pub(crate) fn is_paused(&self, index: AssemblyIndex) -> bool {
        let assembly = self.definition().assembly(index);
        self.paused
            || self.fleet_paused
            || self.domains(index).iter().any(|it| self.paused_domains.contains(it))
            || self.names_paused(&assembly.name, None)
    }

    /// Whether an operator stopped the recovery of that service alone.
    pub(crate) fn is_service_paused(&self, service: ServiceIndex) -> bool {
        let part = self.definition().service(service);
        self.names_paused(&self.definition().assembly(part.assembly).name, Some(&part.name))
    }

    fn names_paused(&self, assembly: &Name, service: Option<&Name>) -> bool {
        let mut paused = self.paused_parts.iter();
        paused.any(|it| it.assembly == *assembly && it.service.as_ref() == service)
    }

    /// The window of the service scope.
    pub(crate) fn service_window(&self) -> Window {
        self.definition().escalation.service.unwrap_or(Window::DEFAULT)
    }

    /// The window of the assembly scope.
    pub(crate) fn assembly_window(&self) -> Window {
        self.definition().escalation.assembly.unwrap_or(Window::DEFAULT)
    }

    /// The state that a dead channel gives its assembly.
    pub(crate) fn dead_state(&self, index: AssemblyIndex) -> State {
        let Some(trouble) = &self.assembly(index).trouble else { return State::Unreachable };
        let ordered = trouble.instance.is_some_and(|seen| seen.ordered);
        match &trouble.verdict {
            _ if trouble.ladder.given_up => State::Exhausted,
            None if trouble.incident.is_none() => State::Starting,
            // Row 5 needs only what the channel itself said.
            None if cannot_be_recovered(self.assembly(index).failure) => State::Misconfigured,
            None => State::Unreachable,
            Some((Verdict::Off | Verdict::Gone, _)) if ordered => State::Stopped,
            Some((Verdict::Off | Verdict::Gone | Verdict::Down | Verdict::Hung, _)) => State::Failed,
            Some((Verdict::InTransition, _)) => State::InTransition,
            Some((Verdict::CommonCause(_), _)) => State::Held,
            Some((Verdict::MisconfiguredChannel, _)) => State::Misconfigured,
            Some((Verdict::Untrusted, _)) => State::Unknown,
            Some(_) => State::Unreachable,
        }
    }

    /// The rung for a record of something that is not asked for yet.
    pub(crate) fn likely_rung(&self, index: AssemblyIndex) -> Rung {
        match self.assembly(index).trouble.as_ref().and_then(|trouble| trouble.verdict.as_ref()) {
            Some((Verdict::Off, _)) => Rung::Start,
            Some((Verdict::Gone, _)) => Rung::Recreate,
            Some((Verdict::Hung, _)) => Rung::RebootHard,
            _ => Rung::RebootSoft,
        }
    }
}

/// A failure of a channel that only a person can mend.
const fn cannot_be_recovered(failure: ChannelFailure) -> bool {
    matches!(failure, ChannelFailure::AuthenticationFailed | ChannelFailure::HostKey)
}

/// What a verdict rests on, as a clause.
fn explain(verdict: &Verdict, facts: Option<&Facts>, channel: &str) -> String {
    let Some(facts) = facts else {
        return format!("{channel}; no fresh answer about the machine and the path");
    };
    let instance = facts
        .instance
        .map_or("no infrastructure".to_owned(), |state| format!("the infrastructure says {state}"));
    match verdict {
        Verdict::Untrusted => format!("{channel}; cpe does not trust itself, so nothing is confirmed"),
        Verdict::CommonCause(domain) => format!("{channel}; failure domain {domain} is held"),
        Verdict::Hung => format!("{channel}; {instance}; a peer on the same path answers"),
        Verdict::Unreachable if !facts.path_proven => {
            format!("{channel}; {instance}; the path is not proven")
        }
        Verdict::Off | Verdict::Gone if facts.ordered => {
            format!("{channel}; {instance}, as somebody ordered")
        }
        _ => format!("{channel}; {instance}"),
    }
}
