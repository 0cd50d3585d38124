//! What operators order: start, stop, maintenance, pause, retry; and a changed definition.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use cpe_proto::definition::{Assembly, Deployable, Machine};
use cpe_proto::event::EventKind;
use cpe_proto::id::{AssemblyIndex, ServiceIndex};
use cpe_proto::snapshot::MadeOf;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::engine::{About, Desired, Engine, fresh_service};
use crate::health::{ChannelHealth, HealthEvent};
use crate::input::PartName;
use crate::output::{Act, Output};
use crate::parts::{Cause, Demand, Phase, Start};
use crate::setup::written;

impl Engine {
    pub(crate) fn order_start(&mut self, now: Timestamp) {
        if self.desired.runs() {
            return;
        }
        let from = std::mem::replace(&mut self.desired, Desired::Running);
        for index in self.definition().assembly_indices() {
            self.call_off_step(index);
            self.drop_evidence(index, now);
            if let Some(trouble) = &mut self.assembly_mut(index).trouble {
                // What was concluded before the stop is concluded anew, and told.
                (trouble.verdict, trouble.told, trouble.say_at) = (None, None, None);
                trouble.untried = None;
            }
            self.begin_assembly(index, now);
            self.power_on(index, from);
            for service in self.definition().services_of(index) {
                self.change(service, HealthEvent::Started, "started by an order", now);
            }
        }
    }

    /// What is told of a recovery that a stop ends. One of the whole deployable may have done nothing to its machine.
    fn stopped_because(&self, index: AssemblyIndex) -> Cow<'static, str> {
        let recovery = self.assembly(index).recovery.as_ref();
        match recovery.map(|it| (it.phase, &it.ending)) {
            Some((Phase::Preparing { .. }, _)) => "not begun: stopped by an order".into(),
            Some((_, Some(ending))) => format!("{}; stopped by an order", ending.reason).into(),
            _ => "stopped by an order".into(),
        }
    }

    /// Ordered again it is tried at once, and of machines that were added meanwhile, too. After a plain stop, what answers is stopped once
    /// more: somebody may have started a service since, and a reload may have added one.
    pub(crate) fn order_power_off(&mut self, now: Timestamp) {
        let before = self.desired;
        let say_at = now.after(self.definition().timing.unreachable_notify);
        for index in self.definition().assembly_indices() {
            let part = self.assembly(index);
            let answers = part.channel == ChannelHealth::Healthy && part.foreign.is_none();
            let again = before == Desired::Stopped && answers;
            if !again && !self.is_left_on(index) {
                continue;
            }
            self.stop_afresh(index, now);
            // What a person holds back himself is not told to him.
            if self.held_back(index).is_none() {
                self.assembly_trouble(index).say_at = Some(say_at);
            }
        }
        match before {
            Desired::PoweredOff => self.power_off(Desired::PoweredOff),
            Desired::Running | Desired::Stopped => self.order_stop(Desired::PoweredOff, now),
        }
    }

    /// `to`: stopped, or powered off after it.
    pub(crate) fn order_stop(&mut self, to: Desired, now: Timestamp) {
        let from = std::mem::replace(&mut self.desired, to);
        if from != to {
            self.power_off(to);
        }
        if !from.runs() {
            return;
        }
        for index in self.definition().assembly_indices() {
            self.call_off_step(index);
            self.refuse_by_hand(index, "it was stopped meanwhile", now);
            let phase = self.assembly(index).recovery.as_ref().map(|it| (it.action, it.phase));
            let reason = self.stopped_because(index);
            match phase {
                Some((action, Phase::Asked { .. })) => {
                    self.assembly_mut(index).recovery = None;
                    self.output(Output::Release(action));
                }
                Some((
                    _,
                    Phase::Verifying { .. }
                    | Phase::Unresolved { .. }
                    | Phase::Preparing { .. }
                    | Phase::GivingBack { .. },
                )) => {
                    self.end_recovery(index, None, &reason, now);
                }
                Some((_, Phase::Acting { .. })) | None => {}
            }
            let say_at = now.after(self.definition().timing.unreachable_notify);
            let trouble = self.assembly_trouble(index);
            (trouble.demand, trouble.wait_until, trouble.drift) = (Demand::Nothing, None, false);
            (trouble.waits, trouble.say_at) = (None, Some(say_at));
            for service in self.definition().services_of(index) {
                if let Some(trouble) = &mut self.service_mut(service).trouble {
                    (trouble.demand, trouble.wait_until) = (Demand::Nothing, None);
                    (trouble.start, trouble.refused, trouble.waits) = (Start::No, None, None);
                }
            }
        }
    }

    /// A step that was only asked for is not wanted any more; one that was given out finishes.
    fn call_off_step(&mut self, index: AssemblyIndex) {
        if let Some(step) = &self.assembly(index).step
            && matches!(step.phase, Phase::Asked { .. })
        {
            let action = step.action;
            self.assembly_mut(index).step = None;
            self.output(Output::Release(action));
        }
    }

    pub(crate) fn order_maintenance(
        &mut self,
        assembly: Option<AssemblyIndex>,
        on: bool,
        reason: &str,
        now: Timestamp,
    ) {
        if assembly.is_some_and(|index| !self.knows(index)) {
            return;
        }
        let flag = match assembly {
            None => &mut self.maintenance,
            Some(index) => &mut self.assembly_mut(index).maintenance,
        };
        if std::mem::replace(flag, on) == on {
            return;
        }
        let word = if on { "on" } else { "off" };
        let about = assembly.map_or(About::Deployable, About::Assembly);
        let reason = if reason.is_empty() { word.to_owned() } else { format!("{word}: {reason}") };
        self.report(about, EventKind::MaintenanceChanged, now, |it| it.reason = reason.into());
        if on || !self.desired.runs() {
            return;
        }
        for index in self.definition().assembly_indices() {
            // Also while paused: what came in maintenance is concluded anew and told.
            if assembly.is_none_or(|only| only == index) && !self.in_maintenance(index) {
                self.after_maintenance(index, now);
            }
        }
    }

    /// policy.md section 7: evidence dropped, `startup_grace`, fresh probes.
    pub(crate) fn after_maintenance(&mut self, index: AssemblyIndex, now: Timestamp) {
        if let Some(recovery) = &mut self.assembly_mut(index).recovery {
            // An admitted action finishes its steps; where it worked, its verification was the fresh look.
            recovery.freed = true;
            return;
        }
        // So does what is restarted with another one.
        if self.definition().services_of(index).any(|it| self.part_of(it).is_some()) {
            return;
        }
        self.drop_evidence(index, now);
        let grace = self.definition().assembly(index).probe.startup_grace;
        self.assembly_mut(index).grace_until = now.after(grace);
        if let Some(trouble) = &mut self.assembly_mut(index).trouble {
            (trouble.demand, trouble.verdict, trouble.wait_until) = (Demand::Nothing, None, None);
            trouble.untried = None;
            if trouble.drift {
                // Found missing in maintenance it is told now.
                trouble.reason = "the infrastructure has not said yet whether it has an instance".into();
            }
            (trouble.refused, trouble.waits, trouble.say_at, trouble.cause) =
                (None, None, None, Cause::Channel);
        }
        for service in self.definition().services_of(index) {
            self.change(service, HealthEvent::Started, "watched anew after maintenance", now);
            self.begin_grace(service, now);
            let trouble = self.service_trouble(service);
            (trouble.demand, trouble.wait_until, trouble.refused) = (Demand::Nothing, None, None);
            trouble.waits = None;
        }
    }

    pub(crate) fn order_pause(&mut self, on: bool, reason: &str, now: Timestamp) {
        if std::mem::replace(&mut self.paused, on) == on {
            return;
        }
        let word = if on { "paused" } else { "resumed" };
        let reason = if reason.is_empty() { word.to_owned() } else { format!("{word}: {reason}") };
        self.report(About::Deployable, EventKind::BreakerChanged, now, |it| it.reason = reason.into());
    }

    pub(crate) fn order_parts_pause(
        &mut self,
        parts: BTreeSet<PartName>,
        on: bool,
        reason: &str,
        now: Timestamp,
    ) {
        for part in parts {
            let about = self.about_part(&part);
            let changed = if on { self.paused_parts.insert(part) } else { self.paused_parts.remove(&part) };
            // What is not defined now has nobody who could tell; nor is told what was told before.
            if let Some(about) = about.filter(|_| changed && !reason.is_empty()) {
                let reason = format!("{}: {reason}", if on { "paused" } else { "resumed" });
                self.report(about, EventKind::BreakerChanged, now, |it| it.reason = reason.into());
            }
        }
    }

    fn about_part(&self, part: &PartName) -> Option<About> {
        let index = self.definition().assembly_named(part.assembly.as_str())?;
        match &part.service {
            None => Some(About::Assembly(index)),
            Some(service) => self.definition().service_named(index, service.as_str()).map(About::Service),
        }
    }

    pub(crate) fn order_retry(&mut self, assembly: Option<AssemblyIndex>) {
        self.failures.clear();
        for index in self.definition().assembly_indices() {
            if assembly.is_some_and(|only| only != index) {
                continue;
            }
            if let Some(trouble) = &mut self.assembly_mut(index).trouble {
                trouble.ladder = Default::default();
                trouble.told_ended = false;
                trouble.wait_until = None;
                if trouble.demand == Demand::Attempt {
                    trouble.demand = Demand::Fault;
                }
            }
            for service in self.definition().services_of(index) {
                if let Some(trouble) = &mut self.service_mut(service).trouble {
                    trouble.ladder = Default::default();
                    trouble.wait_until = None;
                    if trouble.demand == Demand::Attempt {
                        trouble.demand = Demand::Fault;
                    }
                }
                self.retry_setup(service, None);
            }
        }
    }

    /// A changed definition: what did not change in name, machine and check keeps its state; the rest begins anew. An action on what is
    /// gone is let go: its outcome is then a late one.
    pub(crate) fn redefine(&mut self, new: &Arc<Deployable>, now: Timestamp) {
        let old = Arc::clone(self.definition());
        let kept_service = |index: ServiceIndex| -> Option<ServiceIndex> {
            let service = old.service(index);
            let assembly = new.assembly_named(old.assembly(service.assembly).name.as_str())?;
            let found = new.service_named(assembly, service.name.as_str())?;
            old.probes_alike(index, new, found).then_some(found)
        };
        let mut services: Vec<_> = new.services.iter().map(|_| None).collect();
        let mut assemblies: Vec<_> = new.assemblies.iter().map(|_| None).collect();
        for index in old.assembly_indices() {
            let found = new.assembly_named(old.assembly(index).name.as_str());
            let found = found.filter(|it| {
                same_instance(&old.assembly(index).machine, &new.assembly(*it).machine)
                    && old.reached_alike(index, new, *it)
            });
            let Some(found) = found else {
                self.let_go(index, now);
                continue;
            };
            self.follow_indices(index, &kept_service, now);
            let mut part = self.assembly(index).clone();
            if new.assembly(found).ssh != old.assembly(index).ssh {
                self.output(Output::Reconnect(found));
            }
            part.since = part.since.min(now);
            part.made_of = made_of(&old.assembly(index).machine, part.made_of, &new.assembly(found).machine);
            assemblies[usize::from(found.0)] = Some(part);
            for service in old.services_of(index) {
                if let Some(kept) = kept_service(service) {
                    let mut part = self.service(service).clone();
                    if written(&old, old.service(service)) != written(new, new.service(kept)) {
                        // What it runs with is not compared with what somebody wrote: a changed file restarts nothing.
                        part.setup = None;
                    }
                    services[usize::from(kept.0)] = Some(part);
                }
            }
        }
        let fresh_state = if !self.desired.runs() { State::Stopped } else { State::Starting };
        let fresh_assemblies: Vec<bool> = assemblies.iter().map(Option::is_none).collect();
        let fresh_services: Vec<bool> = services.iter().map(Option::is_none).collect();
        let assemblies = new
            .assembly_indices()
            .zip(assemblies)
            .map(|(index, part)| part.unwrap_or_else(|| self.fresh_assembly(new, index, now)));
        let assemblies = assemblies.collect();
        let services = services
            .into_iter()
            .map(|part| part.unwrap_or_else(|| fresh_service(fresh_state, now)))
            .collect();
        self.replace_parts(Arc::clone(new), assemblies, services);
        self.begin_setups();
        self.report(About::Deployable, EventKind::DefinitionLoaded, now, |it| it.reason = "changed".into());
        for index in new.assembly_indices() {
            self.report_drift(&old, index, now);
            if fresh_assemblies[usize::from(index.0)] {
                self.begin_assembly(index, now);
                self.tell_left_on(index, now);
            }
            for service in new.services_of(index) {
                if !fresh_services[usize::from(service.0)] {
                    continue;
                }
                self.stop_before_off(service);
                if self.desired.runs() {
                    self.service_trouble(service).start = Start::Wanted;
                }
            }
        }
    }

    /// What a changed definition says and nothing is done about: another image, another name.
    fn report_drift(&mut self, old: &Deployable, index: AssemblyIndex, now: Timestamp) {
        let definition = Arc::clone(self.definition());
        let assembly = definition.assembly(index);
        let before = old.assembly_named(assembly.name.as_str()).map(|it| old.assembly(it));
        let same = |was: &&Assembly| {
            was.machine == assembly.machine && definition.assembly_named(was.name.as_str()).is_none()
        };
        let drift = match before {
            Some(before) if before.machine != assembly.machine => self.drift(index),
            Some(_) => None,
            None => old.assemblies.iter().find(same).map(|was| {
                format!("it was called {}; it is watched anew, and its counts are not kept", was.name)
            }),
        };
        let Some(drift) = drift else { return };
        let message = format!("{}: drift: {drift}", self.name_of(About::Assembly(index)));
        self.report(About::Assembly(index), EventKind::DefinitionLoaded, now, |it| {
            it.reason = format!("drift: {drift}").into();
        });
        if !self.in_maintenance(index) {
            self.output(Output::Notify { incident: None, message: message.into() });
        }
    }

    /// How an instance differs from what the definition says by now, as a clause.
    pub(crate) fn drift(&self, index: AssemblyIndex) -> Option<String> {
        let was = self.assembly(index).made_of.as_ref()?;
        let Machine::Image { image, flavor } = &self.definition().assembly(index).machine else {
            return None;
        };
        let shown = |image: &str, flavor: &Option<String>| match flavor {
            Some(flavor) => format!("{image} ({flavor})"),
            None => image.to_owned(),
        };
        Some(format!(
            "its instance was made of {}, the definition says {}; nothing is done about it before it is recreated",
            shown(&was.image, &was.flavor),
            shown(image, flavor)
        ))
    }

    fn let_go(&mut self, index: AssemblyIndex, now: Timestamp) {
        self.refuse_by_hand(index, "the definition has changed meanwhile", now);
        self.close_all(index, "no longer managed", now);
        if self.assembly(index).foreign.is_some() {
            self.tell_ours(index, "this machine is managed no more", now);
        }
        let recovery = self.assembly_mut(index).recovery.take().map(|it| it.action);
        let step = self.assembly_mut(index).step.take().map(|it| it.action);
        let power = self.assembly_mut(index).power.take().and_then(|it| it.flight).map(|it| it.action);
        for action in [recovery, step, power].into_iter().flatten() {
            self.output(Output::Release(action));
        }
    }

    /// Makes what an assembly remembers of its services follow their new indices, or forget them.
    fn follow_indices(
        &mut self,
        index: AssemblyIndex,
        kept: &impl Fn(ServiceIndex) -> Option<ServiceIndex>,
        now: Timestamp,
    ) {
        self.refuse_by_hand(index, "the definition has changed meanwhile", now);
        let part = self.assembly_mut(index);
        let mut released = Vec::new();
        if let Some(recovery) = &mut part.recovery
            && let Some(service) = recovery.service
        {
            match kept(service) {
                Some(found) => recovery.service = Some(found),
                None => released.extend(part.recovery.take().map(|it| it.action)),
            }
        }
        if let Some(step) = &mut part.step {
            match kept(step.service) {
                Some(found) => {
                    step.service = found;
                    step.act = match step.act {
                        Act::StopService(_) => Act::StopService(found),
                        Act::Reconfigure(_) => Act::Reconfigure(found),
                        _ => Act::StartService(found),
                    };
                }
                None => released.extend(part.step.take().map(|it| it.action)),
            }
        }
        if let Some(trouble) = &mut part.trouble
            && let Cause::Escalated(service) = trouble.cause
        {
            match kept(service) {
                Some(found) => trouble.cause = Cause::Escalated(found),
                None => (trouble.cause, trouble.demand) = (Cause::Channel, Demand::Nothing),
            }
        }
        for action in released {
            self.output(Output::Release(action));
        }
    }
}

/// Whether it is the same machine after a change of its definition. An instance is not another one because it would be made otherwise now.
fn same_instance(old: &Machine, new: &Machine) -> bool {
    old == new || matches!((old, new), (Machine::Image { .. }, Machine::Image { .. }))
}

/// What an instance was made of, as far as that is not what the definition says now.
fn made_of(old: &Machine, known: Option<Box<MadeOf>>, new: &Machine) -> Option<Box<MadeOf>> {
    let (Machine::Image { image, flavor }, Machine::Image { image: now, flavor: size }) = (old, new) else {
        return None;
    };
    let was = known.unwrap_or_else(|| Box::new(MadeOf { image: image.clone(), flavor: flavor.clone() }));
    (was.image != *now || was.flavor != *size).then_some(was)
}
