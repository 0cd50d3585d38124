//! Observing (policy.md section 1): which probes are sent when, and what their results change. A channel is only judged by its own
//! probes: that a service's probe came back proves nothing more, because both travel together anyway.

use std::num::NonZeroU64;

use cpe_proto::event::EventKind;
use cpe_proto::id::{AssemblyIndex, ProbeId, ServiceIndex};
use cpe_proto::observation::{ChannelFailure, Observation};
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::engine::{About, Engine};
use crate::health::{self, ChannelEvent, ChannelHealth, HealthEvent};
use crate::judge::{Judgement, judge};
use crate::output::{Output, Target};
use crate::parts::{AssemblyPart, Demand, Phase, Start, Untried, probe_id};
use crate::recover::CUT_OFF;
use crate::timer::LOST_AFTER;

impl Engine {
    /// Whether the channel of an assembly is probed now. Always, but not while its machine is being recovered or does not exist.
    pub(crate) fn probes_channel(&self, index: AssemblyIndex) -> bool {
        let part = self.assembly(index);
        let drift = part.trouble.as_ref().is_some_and(|trouble| trouble.drift);
        !drift && !self.machine_acting(index) && !self.is_powered_off(index)
    }

    /// Whether a service is probed now: over a healthy channel, or by the controller itself.
    pub(crate) fn probes_service(&self, service: ServiceIndex) -> bool {
        let index = self.definition().service(service).assembly;
        let reached = self.assembly(index).channel == ChannelHealth::Healthy || self.is_direct(service);
        reached && self.desired.runs() && self.probes_channel(index)
    }

    /// Whether the controller probes a service itself, so that it is judged by itself whatever becomes of its assembly's channel.
    pub(crate) fn is_direct(&self, service: ServiceIndex) -> bool {
        self.definition().service(service).check.direct().is_some()
    }

    /// An action on the machine was given out and has not ended.
    pub(crate) fn machine_acting(&self, index: AssemblyIndex) -> bool {
        let recovery = self.assembly(index).recovery.as_ref();
        recovery.is_some_and(|it| it.service.is_none() && matches!(it.phase, Phase::Acting { .. }))
            || self.is_switching(index)
    }

    /// Sends what is due.
    pub(crate) fn send_probes(&mut self, index: AssemblyIndex, now: Timestamp) {
        let due = |poll: &crate::parts::Poll| poll.flight.is_none() && poll.due <= now;
        if self.probes_channel(index) && due(&self.assembly(index).poll) {
            let timeout = self.definition().assembly(index).probe.timeout;
            let number = self.probe_number(Target::Channel(index));
            let poll = &mut self.assembly_mut(index).poll;
            (poll.began, poll.flight) = (now, Some(number));
            self.output(Output::Probe { probe: probe_id(number), target: Target::Channel(index), timeout });
        }
        for service in self.definition().services_of(index) {
            if !due(&self.service(service).poll) || !self.probes_service(service) {
                continue;
            }
            let timeout = self.definition().service(service).probe.timeout;
            let number = self.probe_number(Target::Service(service));
            let poll = &mut self.service_mut(service).poll;
            (poll.began, poll.flight) = (now, Some(number));
            self.output(Output::Probe { probe: probe_id(number), target: Target::Service(service), timeout });
        }
    }

    /// Forgets probes whose results never came, so that they are sent again.
    pub(crate) fn lose_probes(&mut self, index: AssemblyIndex, now: Timestamp) {
        let timeout = self.definition().assembly(index).probe.timeout;
        let poll = &mut self.assembly_mut(index).poll;
        if poll.flight.is_some() && now >= poll.began.after(timeout).after(LOST_AFTER) {
            (poll.flight, poll.due) = (None, now);
        }
        for service in self.definition().services_of(index) {
            let timeout = self.definition().service(service).probe.timeout;
            let poll = &mut self.service_mut(service).poll;
            if poll.flight.is_some() && now >= poll.began.after(timeout).after(LOST_AFTER) {
                (poll.flight, poll.due) = (None, now);
            }
        }
    }

    /// A probe ended. A result whose number is not the one in flight is an old or a doubled one, and changes nothing.
    pub(crate) fn probed(&mut self, probe: ProbeId, observation: &Observation, void: bool, now: Timestamp) {
        let Some(number) = NonZeroU64::new(probe.0) else { return };
        match self.target_of(number) {
            Some(Target::Channel(index)) => self.channel_probed(index, observation, void, now),
            Some(Target::Service(index)) => self.service_probed(index, observation, void, now),
            None => {}
        }
    }

    fn target_of(&self, number: NonZeroU64) -> Option<Target> {
        let place = (number.get() - 1) & 0x1_ffff;
        let low = u16::try_from(place & 0xffff).unwrap_or(u16::MAX);
        let flies = |target: &Target| match target {
            Target::Channel(index) => self.knows(*index) && self.assembly(*index).poll.flight == Some(number),
            Target::Service(index) => {
                usize::from(index.0) < self.definition().services.len()
                    && self.service(*index).poll.flight == Some(number)
            }
        };
        let named = if place >> 16 == 1 {
            Target::Service(ServiceIndex(low))
        } else {
            Target::Channel(AssemblyIndex(low))
        };
        if flies(&named) {
            return Some(named);
        }
        // Indices may have changed with the definition while the probe was in flight.
        let channels = self.definition().assembly_indices().map(Target::Channel);
        let services = self
            .definition()
            .assembly_indices()
            .flat_map(|index| self.definition().services_of(index))
            .map(Target::Service);
        channels.chain(services).find(flies)
    }

    fn channel_probed(
        &mut self,
        index: AssemblyIndex,
        observation: &Observation,
        void: bool,
        now: Timestamp,
    ) {
        let settings = self.definition().assembly(index).probe;
        let part = self.assembly_mut(index);
        let began = part.poll.began;
        part.poll.ended(now, settings.interval, part.phase);
        if void || began < part.void_before {
            if began < part.void_before {
                part.poll.hasten(now);
            }
            return;
        }
        let failure = match observation {
            Observation::Channel(ChannelFailure::NotTried, detail) => {
                return self.channel_not_tried(index, detail, now);
            }
            Observation::NotObserved => return self.channel_not_tried(index, "", now),
            Observation::Channel(failure, detail) => Some((*failure, detail)),
            Observation::DeadlinePassed => None,
            _ => return self.channel_answered(index, began, now),
        };
        let (failure, detail) =
            failure.map_or((ChannelFailure::TimedOut, ""), |(failure, detail)| (failure, detail));
        part.failure = failure;
        part.misses = part.misses.saturating_add(1);
        let misses = part.misses;
        let confirmed = u32::from(misses) >= settings.failure_threshold.get() || misses == u8::MAX;
        if !confirmed {
            part.poll.due = began.after(settings.confirm_interval).max(now);
        }
        let before = part.channel;
        part.channel =
            health::channel(before, if confirmed { ChannelEvent::Confirmed } else { ChannelEvent::Missed });
        let (after, verifying) = (part.channel, part.recovery.is_some());
        if verifying && !confirmed {
            part.poll.due = began.after(settings.confirm_interval).max(now);
        }
        let trouble = self.assembly_trouble(index);
        trouble.tried();
        trouble.first_failed.get_or_insert(began);
        trouble.first_ended.get_or_insert(now);
        trouble.last_failed = Some(now);
        if trouble.path_answered.is_some_and(|at| began >= at) {
            trouble.failed_on_path = trouble.failed_on_path.saturating_add(1);
        }
        // Whether the path is at fault is asked with each failure.
        trouble.ask_at = Some(now);
        (trouble.answering_since, trouble.healthy_since) = (None, None);
        let colon = if detail.is_empty() { "" } else { ": " };
        trouble.reason = format!("channel {failure}{colon}{detail}").into();
        if after == ChannelHealth::Dead && self.confirms_on_path(index) {
            self.assembly_mut(index).poll.due = began.after(settings.confirm_interval).max(now);
        }
        if before == ChannelHealth::Healthy {
            self.hasten_witnesses(index, now);
        }
        if before != after {
            self.changed = true;
            if after == ChannelHealth::Dead {
                self.channel_lost(index, failure, now);
                self.assembly_trouble(index).dead_since = Some(now);
            }
        }
    }

    /// The services behind a channel that carries nothing are unknown; those that the controller probes itself are not behind it. Those of
    /// a machine that is powered on by an order are still to be started.
    pub(crate) fn channel_lost(&mut self, index: AssemblyIndex, failure: ChannelFailure, now: Timestamp) {
        if self.is_powering_on(index) {
            return;
        }
        let reason = format!("channel {failure}");
        for service in
            self.definition().services_of(index).filter(|it| !self.is_direct(*it)).collect::<Vec<_>>()
        {
            let part = self.service_mut(service);
            (part.misses, part.deadlines, part.passed) = (0, 0, Timestamp::ZERO);
            self.change(service, HealthEvent::ChannelLost, &reason, now);
        }
    }

    /// We did not try: it says nothing of the assembly, and is tried again soon. But what was known before gets old by it: after
    /// `failure_threshold` of them, when the newest evidence is not fresh any more, nothing is known, and that is told in its time.
    fn channel_not_tried(&mut self, index: AssemblyIndex, detail: &str, now: Timestamp) {
        let settings = self.definition().assembly(index).probe;
        let notify = self.definition().timing.unreachable_notify;
        let fresh_for = self.fresh_for(index);
        let part = self.assembly_mut(index);
        part.poll.due = now.after(settings.confirm_interval);
        let (began, in_grace) = (part.poll.began, now < part.grace_until);
        let trouble = self.assembly_trouble(index);
        let untried = trouble.untried.get_or_insert(Untried { since: began, probes: 0, lost: false });
        untried.probes = untried.probes.saturating_add(1);
        let old = now.since(untried.since) >= fresh_for;
        if untried.lost || in_grace || !old || u32::from(untried.probes) < settings.failure_threshold.get() {
            return;
        }
        untried.lost = true;
        let since = untried.since;
        // What is dead was told, or will be.
        if trouble.verdict.is_none() {
            trouble.say_at.get_or_insert(since.after(notify).max(now));
        }
        let colon = if detail.is_empty() { "" } else { ": " };
        trouble.reason = format!("channel {}{colon}{detail}", ChannelFailure::NotTried).into();
        (trouble.first_failed, trouble.last_failed, trouble.dead_since) = (None, None, None);
        (trouble.answering_since, trouble.healthy_since) = (None, None);
        trouble.forget_path();
        let part = self.assembly_mut(index);
        (part.misses, part.answered) = (0, Timestamp::ZERO);
        part.channel = health::channel(part.channel, ChannelEvent::Voided);
        self.changed = true;
        self.channel_lost(index, ChannelFailure::NotTried, now);
    }

    fn channel_answered(&mut self, index: AssemblyIndex, began: Timestamp, now: Timestamp) {
        let part = self.assembly_mut(index);
        part.misses = 0;
        part.answered = began;
        let before = part.channel;
        part.channel = health::channel(before, ChannelEvent::Answered);
        part.grace_until = Timestamp::ZERO;
        let recovers = part.recovery.is_some();
        if recovers {
            let settings = self.definition().assembly(index).probe;
            self.assembly_mut(index).poll.confirms(&settings, now);
        }
        if let Some(trouble) = &mut self.assembly_mut(index).trouble {
            trouble.tried();
            (trouble.first_failed, trouble.last_failed, trouble.dead_since) = (None, None, None);
            trouble.forget_path();
            trouble.answering_since.get_or_insert(began);
            // What answers is not down, whoever says so.
            trouble.fenced = None;
        }
        if before == ChannelHealth::Healthy {
            return;
        }
        self.changed = true;
        for service in self.definition().services_of(index) {
            let part = self.service_mut(service);
            // Not seen for a while, or not from within: a fault is confirmed anew.
            (part.misses, part.deadlines) = (0, 0);
            part.poll.hasten(now);
            if let Some(trouble) = &mut part.trouble {
                trouble.confirmed = false;
                let _over = trouble.waits.take_if(|waits| *waits.why == *CUT_OFF);
            }
        }
    }

    fn service_probed(&mut self, index: ServiceIndex, observation: &Observation, void: bool, now: Timestamp) {
        let definition = self.definition().clone();
        let service = definition.service(index);
        let assembly = service.assembly;
        let AssemblyPart { void_before, phase, .. } = *self.assembly(assembly);
        let part = self.service_mut(index);
        let began = part.poll.began;
        part.poll.ended(now, service.probe.interval, phase);
        if void || began < void_before {
            if began < void_before {
                part.poll.hasten(now);
            }
            return;
        }
        if !self.desired.runs() || self.machine_acting(assembly) || self.is_being_set_up(index) {
            return;
        }
        let judgement = judge(&service.check, observation);
        if matches!(judgement, Judgement::Failed(_) | Judgement::Misconfigured(_))
            && let Some(trouble) = &mut self.service_mut(index).trouble
        {
            // The start that was waited for is over: the next one has a grace of its own.
            trouble.pending_since = None;
        }
        if judgement != Judgement::Passed && service.check.direct().is_some() {
            self.service_trouble(index).heard = Some(began);
        }
        match judgement {
            Judgement::Passed => {
                self.service_passed(index, began, now);
                self.note_warning(index, None, now);
            }
            Judgement::Warned(clause) => {
                self.service_passed(index, began, now);
                self.note_warning(index, Some(&clause), now);
            }
            Judgement::Failed(clause) => self.service_failed(index, &clause, began, now),
            Judgement::Misconfigured(clause) => self.service_misconfigured(index, &clause, now),
            Judgement::Pending(clause) => self.service_pending(index, &clause, began, now),
            Judgement::Deadline => {
                let clause =
                    format!("probe did not end within {}", crate::describe::span(service.probe.timeout));
                self.service_deadline(index, &clause, began, now);
            }
            Judgement::Silent(clause) if self.assembly(assembly).channel == ChannelHealth::Healthy => {
                self.service_deadline(index, &clause, began, now);
            }
            Judgement::Silent(clause) => {
                // The machine, or the way to it: the channel's own probes tell.
                let part = self.service_mut(index);
                (part.deadlines, part.passed) = (0, Timestamp::ZERO);
                self.unclear(index, &clause, now);
            }
            Judgement::Unknown(clause) => {
                self.service_mut(index).passed = Timestamp::ZERO;
                self.unclear(index, &clause, now);
            }
            Judgement::NotObserved => {
                // Much of the channel, nothing of the service.
                if service.check.direct().is_none() {
                    self.assembly_mut(assembly).poll.hasten(now);
                }
                let confirm = service.probe.confirm_interval;
                self.service_mut(index).poll.due = now.after(confirm);
            }
        }
        if self.verifies(index) {
            self.service_mut(index).poll.confirms(&service.probe, now);
        }
    }

    fn service_passed(&mut self, index: ServiceIndex, began: Timestamp, now: Timestamp) {
        let part = self.service_mut(index);
        (part.misses, part.deadlines, part.passed) = (0, 0, began);
        let was = part.state;
        if let Some(trouble) = &mut part.trouble {
            trouble.passing_since.get_or_insert(began);
            (trouble.first_failed, trouble.last_failed, trouble.pending_since) = (None, None, None);
        }
        self.change(index, HealthEvent::Passed, "", now);
        if self.service(index).state == State::Healthy && was != State::Healthy {
            self.calm_service(index);
        }
    }

    /// It runs, without or after a recovery: what was asked for is not wanted any more.
    pub(crate) fn calm_service(&mut self, index: ServiceIndex) {
        let Some(trouble) = &mut self.service_mut(index).trouble else { return };
        (trouble.demand, trouble.told) = (Demand::Nothing, None);
        trouble.start = Start::No;
        (trouble.wait_until, trouble.grace_until) = (None, None);
        (trouble.refused, trouble.waits) = (None, None);
        trouble.reason = "".into();
    }

    fn service_failed(&mut self, index: ServiceIndex, clause: &str, began: Timestamp, now: Timestamp) {
        let settings = self.definition().service(index).probe;
        let part = self.service_mut(index);
        part.deadlines = 0;
        part.misses = part.misses.saturating_add(1);
        let misses = part.misses;
        let enough = u32::from(misses) >= settings.failure_threshold.get() || misses == u8::MAX;
        if !enough {
            part.poll.due = began.after(settings.confirm_interval).max(now);
        }
        self.failed(index, clause, enough, misses, began, now);
    }

    /// A failed probe, or as many as are enough.
    fn failed(
        &mut self,
        index: ServiceIndex,
        clause: &str,
        enough: bool,
        probes: u8,
        began: Timestamp,
        now: Timestamp,
    ) {
        let assembly = self.definition().service(index).assembly;
        // What cannot be started, since its channel is dead, waits for no start.
        let startable =
            self.assembly(assembly).channel != ChannelHealth::Dead || self.is_powering_on(assembly);
        let part = self.service_mut(index);
        part.passed = Timestamp::ZERO;
        let starting = part.state == State::Starting;
        let trouble = self.service_trouble(index);
        trouble.reason = clause.into();
        (trouble.passing_since, trouble.last_failed) = (None, Some(now));
        trouble.first_failed.get_or_insert(began);
        (trouble.confirmed, trouble.confirmed_by) = (enough, probes);
        // A channel that was lost meanwhile takes none of the grace away.
        let in_grace = starting && matches!(trouble.start, Start::Wanted | Start::Again) && startable
            || trouble.grace_until.is_some_and(|until| now < until);
        if !enough || in_grace {
            self.change(index, HealthEvent::Missed, clause, now);
            return;
        }
        self.change(index, HealthEvent::Confirmed, clause, now);
    }

    fn service_misconfigured(&mut self, index: ServiceIndex, clause: &str, now: Timestamp) {
        let part = self.service_mut(index);
        (part.misses, part.deadlines, part.passed) = (0, 0, Timestamp::ZERO);
        let was = part.state;
        let trouble = self.service_trouble(index);
        (trouble.passing_since, trouble.demand, trouble.wait_until) = (None, Demand::Nothing, None);
        (trouble.start, trouble.grace_until, trouble.waits, trouble.refused) = (Start::No, None, None, None);
        trouble.reason = clause.into();
        self.change(index, HealthEvent::Misconfigured, clause, now);
        let silent = self.in_maintenance(self.definition().service(index).assembly);
        if self.service(index).state == State::Misconfigured
            && !silent
            && self.new_to_a_person(index, was, clause)
        {
            let message = format!(
                "{} is misconfigured: {clause}; no recovery can help",
                self.name_of(About::Service(index))
            );
            let incident = self.service(index).trouble.as_ref().and_then(|trouble| trouble.incident);
            self.output(Output::Notify { incident, message: message.into() });
        }
    }

    /// A state that was there before maintenance is not told once more after it; one that came with it is told at its end.
    fn new_to_a_person(&mut self, index: ServiceIndex, was: State, clause: &str) -> bool {
        if was == State::Misconfigured {
            return false;
        }
        self.service_trouble(index).told.replace(clause.into()).as_deref() != Some(clause)
    }

    fn service_pending(&mut self, index: ServiceIndex, clause: &str, began: Timestamp, now: Timestamp) {
        let grace = self.definition().service(index).probe.startup_grace;
        let since = *self.service_trouble(index).pending_since.get_or_insert(began);
        if now.since(since) >= grace {
            let clause = format!("{clause} for {}", crate::describe::span(grace));
            let threshold = self.definition().service(index).probe.failure_threshold.get();
            let part = self.service_mut(index);
            // It counts as confirmed for an ordered start, too.
            part.misses = part.misses.max(u8::try_from(threshold).unwrap_or(u8::MAX));
            self.failed(index, &clause, true, 1, began, now);
            return;
        }
        self.service_mut(index).passed = Timestamp::ZERO;
        self.unclear(index, clause, now);
    }

    fn service_deadline(&mut self, index: ServiceIndex, clause: &str, began: Timestamp, now: Timestamp) {
        let settings = self.definition().service(index).probe;
        let part = self.service_mut(index);
        part.deadlines = part.deadlines.saturating_add(1);
        let deadlines = part.deadlines;
        if u32::from(deadlines) >= settings.failure_threshold.get() {
            self.failed(index, clause, true, deadlines, began, now);
            return;
        }
        part.passed = Timestamp::ZERO;
        part.poll.due = began.after(settings.confirm_interval).max(now);
        self.unclear(index, clause, now);
    }

    fn unclear(&mut self, index: ServiceIndex, clause: &str, now: Timestamp) {
        let trouble = self.service_trouble(index);
        // Nothing acts on a failure that the newest answer does not bear out.
        (trouble.passing_since, trouble.last_failed) = (None, None);
        trouble.reason = clause.into();
        self.change(index, HealthEvent::Unclear, clause, now);
    }

    /// The one place where a service changes its state. An event that does not fit changes nothing.
    pub(crate) fn change(&mut self, index: ServiceIndex, event: HealthEvent, reason: &str, now: Timestamp) {
        let from = self.service(index).state;
        let Ok(to) = health::service(from, event) else {
            debug_assert!(
                false,
                "{event:?} cannot happen to {} that is {from}",
                self.name_of(About::Service(index))
            );
            return;
        };
        if to == from {
            return;
        }
        self.changed = true;
        let part = self.service_mut(index);
        (part.state, part.since) = (to, now);
        let incident = part.trouble.as_ref().and_then(|trouble| trouble.incident);
        if to != State::Healthy && !reason.is_empty() {
            self.service_trouble(index).reason = reason.into();
        }
        self.report(About::Service(index), EventKind::StateChanged, now, |it| {
            (it.from, it.to, it.reason, it.incident) = (Some(from), Some(to), reason.into(), incident);
        });
        if to == State::Failed {
            self.service_fault(index, now);
        }
    }

    /// All evidence is void: nothing is acted on before fresh probes.
    pub(crate) fn void_evidence(&mut self, reason: &str, now: Timestamp) {
        for index in self.definition().assembly_indices() {
            self.drop_evidence(index, now);
            for service in self.definition().services_of(index) {
                self.change(service, HealthEvent::Voided, reason, now);
            }
        }
    }

    /// Forgets what probes and the infrastructure said of one assembly and its services. States and counts stay.
    pub(crate) fn drop_evidence(&mut self, index: AssemblyIndex, now: Timestamp) {
        let part = self.assembly_mut(index);
        (part.misses, part.answered, part.void_before) = (0, Timestamp::ZERO, now);
        part.channel = health::channel(part.channel, ChannelEvent::Voided);
        part.poll.hasten(now);
        if let Some(power) = &mut part.power {
            (power.seen, power.ask_at) = (None, None);
        }
        if let Some(trouble) = &mut part.trouble {
            (trouble.instance, trouble.surroundings, trouble.ask_at) = (None, None, None);
            (trouble.first_failed, trouble.last_failed) = (None, None);
            (trouble.answering_since, trouble.healthy_since) = (None, None);
            trouble.forget_path();
        }
        for service in self.definition().services_of(index) {
            let part = self.service_mut(service);
            (part.misses, part.deadlines, part.passed) = (0, 0, Timestamp::ZERO);
            part.poll.hasten(now);
            if let Some(trouble) = &mut part.trouble {
                (trouble.first_failed, trouble.last_failed, trouble.pending_since, trouble.passing_since) =
                    (None, None, None, None);
            }
        }
    }
}
