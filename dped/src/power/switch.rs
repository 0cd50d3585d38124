//! One machine that is switched by an order (`power.rs` says when): through the gate, and what came of it. What is not known to have had an
//! effect is looked at before anything else is done to it.

use std::time::Duration;

use cpe_proto::decision::{Answer, Facts, Refusal, Value};
use cpe_proto::definition::Mode;
use cpe_proto::event::EventKind;
use cpe_proto::id::{ActionId, AssemblyIndex};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::{PowerGoal, Switch};
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use super::Flight;
use crate::action::OUTCOME_LOST_AFTER;
use crate::audit::power_word;
use crate::backoff;
use crate::describe::span;
use crate::engine::{About, Desired, Engine};
use crate::gate::ADMISSION_TIMEOUT;
use crate::health::{ChannelHealth, HealthEvent};
use crate::input::ActionOutcome;
use crate::isolate::isolate;
use crate::output::{Act, Action, Output, Request};
use crate::parts::Phase;

/// After so many failed attempts on one machine a person is told; it is tried on.
const TOLD_AFTER: u32 = 3;

impl Engine {
    // ---- through the gate

    pub(super) fn switch(&mut self, index: AssemblyIndex, switch: Switch, now: Timestamp) {
        let waits = |until: Timestamp| now < until;
        let Some(power) = &self.assembly(index).power else { return };
        if power.wait_until.is_some_and(waits) {
            return self.say_power(index, now);
        }
        if self.busy(index) {
            return self.power_waits(index, "another action of it is under way".to_owned(), now);
        }
        let refusal = match self.definition().mode {
            Mode::Observe => Some(Refusal::ObserveMode),
            Mode::Act => self.held_back(index),
        };
        if let Some(refusal) = refusal {
            return self.refuse_power(index, switch, refusal, &[], now);
        }
        let instance = self.power_seen(index, now);
        let action = self.action_id();
        let flight = Flight {
            action,
            switch,
            phase: Phase::Asked { until: now.after(ADMISSION_TIMEOUT) },
            began: now,
        };
        if let Some(power) = &mut self.assembly_mut(index).power {
            power.flight = Some(flight);
        }
        let known = self.facts_of_service(index, now);
        let facts = Facts { instance: instance.or(known.instance), ..known };
        self.output(Output::AskAdmission(Request {
            action,
            rung: None,
            assembly: index,
            service: None,
            verdict: isolate(&facts).0,
            facts,
            // The order itself is what it rests on.
            evidence_age: Duration::ZERO,
            evidence_age_max: self.fresh_for(index),
            give_up: self.definition().timing.action_give_up,
            part_of: None,
            dated_retry: false,
        }));
    }

    pub(crate) fn power_admission(
        &mut self,
        index: AssemblyIndex,
        answer: Answer,
        gates: &[Value],
        now: Timestamp,
    ) {
        let timeout = self.definition().timing.machine_action_timeout;
        let Some(mut flight) = self.take_flight(index) else { return };
        let (action, switch) = (flight.action, flight.switch);
        if let Answer::Refused(refusal) = answer {
            return self.refuse_power(index, switch, refusal, gates, now);
        }
        if !self.still_to_switch(index, switch) {
            return self.output(Output::Release(action));
        }
        let Some(power) = &mut self.assembly_mut(index).power else { return };
        (flight.phase, flight.began) =
            (Phase::Acting { until: now.after(timeout).after(OUTCOME_LOST_AFTER) }, now);
        (power.flight, power.refused, power.seen) = (Some(flight), None, None);
        power.why = match switch {
            Switch::Off => "it is being powered off".into(),
            Switch::On => "it is being powered on".into(),
        };
        self.sends(index, action, false, now);
        let act = Act::Power(switch);
        self.output(Output::Act(Action {
            action,
            incident: None,
            assembly: index,
            act,
            timeout,
            fenced: false,
            part_of: None,
        }));
    }

    fn still_to_switch(&self, index: AssemblyIndex, switch: Switch) -> bool {
        let goal = self.assembly(index).power.as_ref().map(|power| power.goal);
        let wanted = match switch {
            Switch::Off => {
                goal == Some(PowerGoal::ToOff)
                    && self.desired == Desired::PoweredOff
                    && self.all_stopped(index)
            }
            Switch::On => goal == Some(PowerGoal::ToOn) && self.desired.runs(),
        };
        wanted && !self.busy(index) && self.held_back(index).is_none()
    }

    fn refuse_power(
        &mut self,
        index: AssemblyIndex,
        switch: Switch,
        refusal: Refusal,
        gates: &[Value],
        now: Timestamp,
    ) {
        let again = now.after(self.pace(index));
        let Some(power) = &mut self.assembly_mut(index).power else { return };
        power.wait_until = Some(again);
        let stands = power.refused.replace(refusal) == Some(refusal);
        let deciding = gates.last().map_or(String::new(), |gate| format!(": {} {}", gate.name, gate.value));
        if !stands {
            let reason = format!("{}: {refusal}{deciding}", power_word(switch));
            self.report(About::Assembly(index), EventKind::RecoveryRefused, now, |it| {
                it.reason = reason.into();
            });
        }
        self.power_waits(index, format!("{refusal}{deciding}"), now);
    }

    // ---- what came of it

    fn take_flight(&mut self, index: AssemblyIndex) -> Option<Flight> {
        self.assembly_mut(index).power.as_mut()?.flight.take()
    }

    fn end_flight(&mut self, index: AssemblyIndex) {
        if let Some(flight) = self.take_flight(index) {
            self.output(Output::Release(flight.action));
        }
        self.changed = true;
    }

    pub(crate) fn power_acted(&mut self, index: AssemblyIndex, outcome: ActionOutcome, now: Timestamp) {
        let Some(Flight { action, switch, .. }) = self.power_flight(index).copied() else { return };
        match (switch, outcome) {
            (_, ActionOutcome::Unresolved { .. }) => self.unresolved_power(index, now),
            (_, ActionOutcome::NotBegun { why, .. }) => {
                self.end_flight(index);
                self.refuse_power(index, switch, why, &[], now);
            }
            (_, ActionOutcome::Failed { detail }) => self.power_failed(index, &detail, now),
            (Switch::Off, ActionOutcome::Done { .. }) => {
                let seen = self.power_seen(index, now).unwrap_or(InstanceState::Off);
                self.end_flight(index);
                self.is_off(index, seen, Some(action), now);
            }
            (Switch::On, ActionOutcome::Done { .. }) => {
                self.end_flight(index);
                self.was_switched_on(index, action, now);
            }
        }
    }

    /// Whether it had an effect is not known: it is looked at, and the machine is held meanwhile.
    fn unresolved_power(&mut self, index: AssemblyIndex, now: Timestamp) {
        let give_up = self.definition().timing.action_give_up;
        let Some(power) = &mut self.assembly_mut(index).power else { return };
        let Some(flight) = &mut power.flight else { return };
        if matches!(flight.phase, Phase::Unresolved { .. }) {
            return;
        }
        flight.phase = Phase::Unresolved { until: flight.began.after(give_up).max(now) };
        power.why = "what came of an action on it is not known; looked at".into();
        (power.seen, power.ask_at) = (None, None);
    }

    pub(super) fn look_at_flight(&mut self, index: AssemblyIndex, flight: Flight, now: Timestamp) {
        self.look_at_power(index, now);
        let is_off = match self.power_seen(index, now) {
            Some(InstanceState::Off | InstanceState::Gone) => true,
            Some(InstanceState::Active | InstanceState::Error) => false,
            Some(InstanceState::Changing | InstanceState::Unknown) | None => return,
        };
        match (flight.switch, is_off) {
            (Switch::Off, true) => {
                let seen = self.power_seen(index, now).unwrap_or(InstanceState::Off);
                self.end_flight(index);
                self.is_off(index, seen, Some(flight.action), now);
            }
            (Switch::On, false) => {
                self.end_flight(index);
                self.was_switched_on(index, flight.action, now);
            }
            (Switch::Off, false) => {
                self.power_failed(index, "its infrastructure says that it is still on", now);
            }
            (Switch::On, true) => {
                self.power_failed(index, "its infrastructure says that it is still off", now);
            }
        }
    }

    pub(crate) fn expire_power(&mut self, index: AssemblyIndex, now: Timestamp) {
        let Some(flight) = self.power_flight(index).copied() else { return };
        match flight.phase {
            Phase::Asked { until } if now >= until => {
                self.end_flight(index);
                let again = now.after(self.pace(index));
                if let Some(power) = &mut self.assembly_mut(index).power {
                    power.wait_until = Some(again);
                }
            }
            Phase::Acting { until } if now >= until => self.unresolved_power(index, now),
            Phase::Unresolved { until } if now >= until => {
                let why = format!("unresolved for {}", span(self.definition().timing.action_give_up));
                self.power_failed(index, &why, now);
            }
            _ => {}
        }
    }

    fn power_failed(&mut self, index: AssemblyIndex, detail: &str, now: Timestamp) {
        let switch = self.power_flight(index).map(|it| it.switch);
        self.end_flight(index);
        let mut random = self.random.fork(u64::from(index.0));
        let (Some(power), Some(switch)) = (&mut self.assembly_mut(index).power, switch) else { return };
        power.failed = power.failed.saturating_add(1);
        power.wait_until = Some(now.after(backoff::wait(Rung::RebootHard, power.failed, &mut random)));
        power.why = format!("{} failed: {detail}", power_word(switch)).into();
        power.seen = None;
        if power.failed >= TOLD_AFTER {
            power.say_at = Some(now);
        }
        let reason = power.why.clone();
        self.report(About::Assembly(index), EventKind::Ordered, now, |it| it.reason = reason);
    }

    /// What counts as stopped there is stopped once more, because nobody has looked at it since.
    pub(crate) fn stop_afresh(&mut self, index: AssemblyIndex, now: Timestamp) {
        for service in self.definition().services_of(index) {
            if self.service(service).state == State::Stopped {
                self.change(service, HealthEvent::Started, "to be stopped by an order", now);
            }
        }
    }

    /// It is off, whoever did it.
    pub(super) fn is_off(
        &mut self,
        index: AssemblyIndex,
        seen: InstanceState,
        action: Option<ActionId>,
        now: Timestamp,
    ) {
        let said = match (seen, action) {
            (InstanceState::Gone, _) => {
                "there is no instance of it any more: nothing is powered on by a start"
            }
            (_, Some(_)) => "powered off",
            (_, None) => "it was off already",
        };
        self.report(About::Assembly(index), EventKind::Ordered, now, |it| {
            (it.reason, it.action) = (said.into(), action);
        });
        if seen == InstanceState::Gone && !self.in_maintenance(index) {
            let message = format!("{}: {said}", self.name_of(About::Assembly(index)));
            self.output(Output::Notify { incident: None, message: message.into() });
        }
        let runs = self.desired.runs();
        if let Some(power) = &mut self.assembly_mut(index).power {
            let to_on = power.goal == PowerGoal::ToOn && runs;
            power.turn(if to_on { PowerGoal::ToOn } else { PowerGoal::Off });
        }
        self.drop_evidence(index, now);
        if !self.desired.runs() {
            // What ran on it does not any more.
            for service in self.definition().services_of(index) {
                if self.service(service).state != State::Stopped {
                    self.stopped(service, now);
                }
            }
        }
        self.changed = true;
    }

    fn was_switched_on(&mut self, index: AssemblyIndex, action: ActionId, now: Timestamp) {
        self.report(About::Assembly(index), EventKind::Ordered, now, |it| {
            (it.reason, it.action) = ("powered on".into(), Some(action));
        });
        self.output(Output::Reconnect(index));
        match &mut self.assembly_mut(index).power {
            // Another stop was ordered meanwhile.
            Some(power) if power.goal != PowerGoal::ToOn => {
                power.turn(PowerGoal::ToOff);
                self.drop_evidence(index, now);
            }
            _ => self.is_on(index, now),
        }
    }

    /// As far as the order goes it is on; it is judged as ever once it answers, or its grace is over.
    pub(super) fn is_on(&mut self, index: AssemblyIndex, now: Timestamp) {
        self.changed = true;
        if self.assembly(index).channel == ChannelHealth::Healthy {
            self.assembly_mut(index).power = None;
            return;
        }
        let grace = now.after(self.definition().assembly(index).probe.startup_grace);
        self.assembly_mut(index).grace_until = grace;
        self.drop_evidence(index, now);
        if let Some(power) = &mut self.assembly_mut(index).power {
            power.turn(PowerGoal::On);
            power.wait_until = Some(grace);
        }
    }

    pub(super) fn await_answer(&mut self, index: AssemblyIndex, now: Timestamp) {
        let part = self.assembly(index);
        let (channel, failure) = (part.channel, part.failure);
        if channel != ChannelHealth::Healthy && now < part.grace_until {
            return;
        }
        self.assembly_mut(index).power = None;
        self.changed = true;
        if channel == ChannelHealth::Dead {
            self.channel_lost(index, failure, now);
        }
    }
}
