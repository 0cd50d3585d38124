//! Power by order (policy.md section 5): `cpe stop --power-off` stops services in reverse order and then powers the machines off, those of
//! what needs others first; the next start powers on what is off, what others need first, and then starts services as ever (`plan.rs`). Each
//! is a step through the gate without a rung, and is not counted. Nothing is powered off whose services are not stopped: what cannot be
//! powered off is told, and tried on. What is off by order is neither probed nor judged. How one machine is switched: `power/switch.rs`.

mod switch;

use std::time::Duration;

use cpe_proto::decision::Refusal;
use cpe_proto::event::EventKind;
use cpe_proto::id::{ActionId, AssemblyIndex, ServiceIndex};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::snapshot::{PowerFlight, PowerGoal, PowerSnapshot, Switch};
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::engine::{About, Desired, Engine};
use crate::health::ChannelHealth;
use crate::output::Output;
use crate::parts::{Instance, Phase};

/// Where the power of a machine stands, since it was ordered off and until it is on again.
#[derive(Clone, Debug)]
pub(crate) struct Power {
    pub(crate) goal: PowerGoal,
    pub(crate) flight: Option<Flight>,
    /// What its infrastructure said last, since evidence was dropped.
    pub(crate) seen: Option<Instance>,
    /// When to ask it again.
    pub(crate) ask_at: Option<Timestamp>,
    /// Do not try before.
    pub(crate) wait_until: Option<Timestamp>,
    /// When a person is told that it is not done yet.
    pub(crate) say_at: Option<Timestamp>,
    /// They were.
    pub(crate) told: bool,
    /// Attempts that failed.
    pub(crate) failed: u32,
    /// The refusal that stands.
    refused: Option<Refusal>,
    /// What it waits for, as a clause.
    why: Box<str>,
}

/// An action on it that has not ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub(crate) action: ActionId,
    switch: Switch,
    pub(crate) phase: Phase,
    began: Timestamp,
}

impl Power {
    fn new(goal: PowerGoal) -> Self {
        Self {
            goal,
            flight: None,
            seen: None,
            ask_at: None,
            wait_until: None,
            say_at: None,
            told: false,
            failed: 0,
            refused: None,
            why: "".into(),
        }
    }

    /// Another end is wanted: what was waited for before is over. What was given out goes on.
    fn turn(&mut self, goal: PowerGoal) {
        let flight = self.flight.take();
        *self = Self { flight, ..Self::new(goal) };
    }

    pub(crate) fn snapshot(&self, now: Timestamp) -> PowerSnapshot {
        let given_out = |it: &&Flight| !matches!(it.phase, Phase::Asked { .. });
        let flight = self.flight.as_ref().filter(given_out).map(|it| PowerFlight {
            action: it.action,
            switch: it.switch,
            age: now.since(it.began).into(),
        });
        PowerSnapshot { goal: self.goal, failed: self.failed, told: self.told, flight }
    }
}

impl Engine {
    // ---- what is ordered

    /// A stop was ordered that is another one than before.
    pub(crate) fn power_off(&mut self, to: Desired) {
        for index in self.definition().assembly_indices() {
            self.call_off_power(index);
            let power = &mut self.assembly_mut(index).power;
            match (to, power) {
                (Desired::PoweredOff, None) => {
                    self.assembly_mut(index).power = Some(Box::new(Power::new(PowerGoal::ToOff)));
                }
                (Desired::PoweredOff, Some(power)) if power.goal != PowerGoal::Off => {
                    power.turn(PowerGoal::ToOff);
                }
                _ => {}
            }
        }
    }

    /// It came to what was powered off: nobody was asked about it, so that nothing is done to it.
    pub(crate) fn is_left_on(&self, index: AssemblyIndex) -> bool {
        self.desired == Desired::PoweredOff && self.assembly(index).power.is_none()
    }

    /// A new assembly that is left as it is is told.
    pub(crate) fn tell_left_on(&mut self, index: AssemblyIndex, now: Timestamp) {
        if !self.is_left_on(index) {
            return;
        }
        let shop = &self.definition().name;
        let reason = format!(
            "came to what is powered off, and is left as it is; `cpe stop --power-off {shop}` powers it off, too"
        );
        if !self.in_maintenance(index) {
            let message = format!("{} {reason}", self.name_of(About::Assembly(index)));
            self.output(Output::Notify { incident: None, message: message.into() });
        }
        self.report(About::Assembly(index), EventKind::DefinitionLoaded, now, |it| it.reason = reason.into());
    }

    /// A service of a machine that is still to be powered off is not known to be stopped: it is stopped before.
    pub(crate) fn stop_before_off(&mut self, service: ServiceIndex) {
        let power = &self.assembly(self.definition().service(service).assembly).power;
        if self.desired == Desired::PoweredOff
            && power.as_ref().is_some_and(|power| power.goal != PowerGoal::Off)
        {
            self.service_mut(service).state = State::Unknown;
        }
    }

    /// A start was ordered. What may have been powered off since is looked at.
    pub(crate) fn power_on(&mut self, index: AssemblyIndex, from: Desired) {
        self.call_off_power(index);
        let power = &mut self.assembly_mut(index).power;
        match power {
            Some(power) => power.turn(PowerGoal::ToOn),
            None if from == Desired::PoweredOff => *power = Some(Box::new(Power::new(PowerGoal::ToOn))),
            None => {}
        }
    }

    /// What was only asked for is not wanted any more.
    fn call_off_power(&mut self, index: AssemblyIndex) {
        let Some(power) = &mut self.assembly_mut(index).power else { return };
        let asked = |it: &mut Flight| matches!(it.phase, Phase::Asked { .. });
        if let Some(flight) = power.flight.take_if(asked) {
            self.output(Output::Release(flight.action));
        }
    }

    // ---- what is known

    pub(crate) fn power_flight(&self, index: AssemblyIndex) -> Option<&Flight> {
        self.assembly(index).power.as_ref()?.flight.as_ref()
    }

    /// An action on its power was asked for or given out, and has not ended.
    pub(crate) fn power_acts(&self, index: AssemblyIndex) -> bool {
        self.power_flight(index).is_some()
    }

    /// One was given out, and its outcome is awaited.
    pub(crate) fn is_switching(&self, index: AssemblyIndex) -> bool {
        self.power_flight(index).is_some_and(|it| matches!(it.phase, Phase::Acting { .. }))
    }

    /// It is off, as was ordered.
    pub(crate) fn is_powered_off(&self, index: AssemblyIndex) -> bool {
        self.assembly(index).power.as_ref().is_some_and(|power| power.goal == PowerGoal::Off)
    }

    /// It is to run, and what it does not do yet is no fault.
    pub(crate) fn is_powering_on(&self, index: AssemblyIndex) -> bool {
        self.desired.runs() && self.assembly(index).power.is_some()
    }

    /// Where its power stands, as a clause for a person.
    pub(crate) fn power_said(&self, index: AssemblyIndex) -> Option<String> {
        let power = self.assembly(index).power.as_ref()?;
        let waits = if power.why.is_empty() { String::new() } else { format!(": {}", power.why) };
        match power.goal {
            PowerGoal::Off => Some("powered off".to_owned()),
            PowerGoal::ToOff if self.desired == Desired::PoweredOff => {
                Some(format!("is to be powered off{waits}"))
            }
            PowerGoal::ToOn if self.desired.runs() => Some(format!("is to be powered on{waits}")),
            PowerGoal::On if self.desired.runs() => Some("was powered on".to_owned()),
            _ => None,
        }
    }

    /// What its infrastructure says of it now, as far as that is definite.
    fn power_seen(&self, index: AssemblyIndex, now: Timestamp) -> Option<InstanceState> {
        let seen = self.assembly(index).power.as_ref()?.seen?;
        (seen.state != InstanceState::Unknown && now.since(seen.at) <= self.fresh_for(index))
            .then_some(seen.state)
    }

    fn stopped_by_another(&self, index: AssemblyIndex) -> bool {
        let seen = self.assembly(index).power.as_ref().and_then(|power| power.seen);
        seen.is_some_and(|seen| seen.ordered)
    }

    fn look_at_power(&mut self, index: AssemblyIndex, now: Timestamp) {
        let pace = self.definition().interval(index);
        let Some(power) = &mut self.assembly_mut(index).power else { return };
        if power.ask_at.is_some_and(|at| now < at) {
            return;
        }
        power.ask_at = Some(now.after(pace));
        self.output(Output::AskInstance(index));
    }

    // ---- what is next

    /// Takes the next step of its power, if one is due.
    pub(crate) fn plan_power(&mut self, index: AssemblyIndex, now: Timestamp) {
        let Some(power) = &self.assembly(index).power else { return };
        if let Some(flight) = power.flight {
            if matches!(flight.phase, Phase::Unresolved { .. }) {
                self.look_at_flight(index, flight, now);
            }
            return self.say_power(index, now);
        }
        match (power.goal, self.desired) {
            (PowerGoal::ToOn, Desired::Running) => self.plan_on(index, now),
            (PowerGoal::On, Desired::Running) => self.await_answer(index, now),
            (PowerGoal::ToOff | PowerGoal::ToOn | PowerGoal::On, Desired::Stopped | Desired::PoweredOff) => {
                self.plan_off(index, now);
            }
            _ => {}
        }
    }

    fn plan_off(&mut self, index: AssemblyIndex, now: Timestamp) {
        let wanted = self.desired == Desired::PoweredOff;
        let answers = self.assembly(index).channel == ChannelHealth::Healthy;
        let stopped = self.all_stopped(index);
        if !answers && (wanted || !stopped) {
            self.look_at_power(index, now);
            let seen = self.power_seen(index, now).filter(|_| self.is_silent(index, stopped));
            if let Some(state @ (InstanceState::Off | InstanceState::Gone)) = seen {
                return self.is_off(index, state, None, now);
            }
        }
        // That a service is not stopped is told with the stop.
        if !wanted || !stopped {
            return;
        }
        if let Some(other) = self.needed_on(index) {
            return self.power_follows(index, other, "off");
        }
        match self.not_yet_off(index, answers, now) {
            Some(why) => self.power_waits(index, why, now),
            None => self.switch(index, Switch::Off, now),
        }
    }

    /// Whether its infrastructure may be believed that it is off: nothing else says that it is on.
    fn is_silent(&self, index: AssemblyIndex, stopped: bool) -> bool {
        let part = self.assembly(index);
        match part.channel {
            ChannelHealth::Dead => true,
            ChannelHealth::Unknown => {
                stopped || part.trouble.as_ref().is_some_and(|trouble| trouble.untried.is_some())
            }
            ChannelHealth::Healthy | ChannelHealth::Suspected => false,
        }
    }

    /// What keeps a machine on whose services are stopped.
    fn not_yet_off(&self, index: AssemblyIndex, answers: bool, now: Timestamp) -> Option<String> {
        match self.power_seen(index, now) {
            _ if answers => None,
            None => Some("waits for its infrastructure to say whether it is on".to_owned()),
            Some(InstanceState::Changing) => Some("its infrastructure is changing it".to_owned()),
            Some(_) => None,
        }
    }

    fn all_stopped(&self, index: AssemblyIndex) -> bool {
        self.definition().services_of(index).all(|it| self.service(it).state == State::Stopped)
    }

    fn plan_on(&mut self, index: AssemblyIndex, now: Timestamp) {
        if self.assembly(index).channel == ChannelHealth::Healthy
            || self.definition().infrastructure.is_none()
        {
            return self.is_on(index, now);
        }
        self.look_at_power(index, now);
        match self.power_seen(index, now) {
            None => {
                let why = "waits for its infrastructure to say whether it is on";
                self.power_waits(index, why.to_owned(), now);
            }
            // What somebody else stopped meanwhile is left so, and told as ever.
            Some(InstanceState::Off) if self.stopped_by_another(index) => self.is_on(index, now),
            Some(InstanceState::Off) => match self.needs_on(index) {
                Some(other) => self.power_follows(index, other, "on"),
                None if self.making_until(index, now).is_some() => {
                    let why = "a new instance of it, whose making nobody saw end, may still come up";
                    self.power_waits(index, why.to_owned(), now);
                }
                None => self.switch(index, Switch::On, now),
            },
            // What is the matter with it, if something is, is concluded as ever.
            Some(_) => self.is_on(index, now),
        }
    }

    /// The machine that still needs this one: it is to be powered off before. One that cannot be is not waited for, once that was told:
    /// its services are stopped.
    fn needed_on(&self, index: AssemblyIndex) -> Option<AssemblyIndex> {
        let definition = self.definition();
        definition.assembly_indices().find(|other| {
            let needs = definition.assembly(*other).after.contains(&index)
                || definition.services_of(*other).any(|it| {
                    let after = &definition.service(it).after;
                    after.iter().any(|it| definition.service(*it).assembly == index)
                });
            *other != index && needs && self.is_pending(*other, PowerGoal::ToOff)
        })
    }

    /// The machine that this one needs and that is to be powered on before.
    fn needs_on(&self, index: AssemblyIndex) -> Option<AssemblyIndex> {
        let definition = self.definition();
        let services = definition.services_of(index).flat_map(|it| &definition.service(it).after);
        let machines = services.map(|it| definition.service(*it).assembly);
        definition
            .assembly(index)
            .after
            .iter()
            .copied()
            .chain(machines)
            .find(|other| *other != index && self.is_pending(*other, PowerGoal::ToOn))
    }

    fn is_pending(&self, index: AssemblyIndex, goal: PowerGoal) -> bool {
        self.assembly(index).power.as_ref().is_some_and(|power| power.goal == goal && !power.told)
    }

    // ---- what a person is told

    fn power_waits(&mut self, index: AssemblyIndex, why: String, now: Timestamp) {
        if let Some(power) = &mut self.assembly_mut(index).power {
            power.why = why.into();
        }
        self.say_power(index, now);
    }

    /// Its turn comes after another one's, of which is told what keeps it.
    fn power_follows(&mut self, index: AssemblyIndex, other: AssemblyIndex, end: &str) {
        let why = format!("waits until {} is {end}", self.definition().assembly(other).name);
        if let Some(power) = &mut self.assembly_mut(index).power {
            power.why = why.into();
        }
    }

    /// What is not done in time is told, once. What a person ordered himself, as maintenance, is not told to him.
    fn say_power(&mut self, index: AssemblyIndex, now: Timestamp) {
        let patience = self.definition().timing.unreachable_notify;
        let name = self.name_of(About::Assembly(index));
        let Some(power) = &mut self.assembly_mut(index).power else { return };
        let ordered =
            matches!(power.refused, Some(Refusal::Maintenance | Refusal::Paused | Refusal::ObserveMode));
        if power.told {
            return;
        }
        let say_at = *power.say_at.get_or_insert(now.after(patience));
        if now < say_at {
            return;
        }
        power.say_at = None;
        if ordered {
            return;
        }
        power.told = true;
        let end = if power.goal == PowerGoal::ToOn { "on" } else { "off" };
        let message = format!("{name} is not powered {end} yet: {}; it is tried on", power.why);
        self.changed = true;
        self.output(Output::Notify { incident: None, message: message.into() });
    }

    // ---- after a restart

    pub(crate) fn restore_power(
        &mut self,
        index: AssemblyIndex,
        kept: &PowerSnapshot,
        age: Duration,
        now: Timestamp,
    ) {
        let give_up = self.definition().timing.action_give_up;
        let look = self.definition().assembly(index).probe.startup_grace;
        let flight = kept.flight.as_ref().map(|it| Flight {
            action: it.action,
            switch: it.switch,
            // It is looked at, and never repeated before.
            phase: Phase::Unresolved { until: now.after(give_up.saturating_sub(age).max(look)) },
            began: now.before(age),
        });
        let power = Power { flight, failed: kept.failed, told: kept.told, ..Power::new(kept.goal) };
        self.assembly_mut(index).power = Some(Box::new(power));
    }
}
