//! How soon and how often, in truth: a crash is found within what `cpe check` prints, what is exhausted is tried again when it was said,
//! a service is restarted no more often than its window allows, and what stands is told no more often than it takes to stand. Beside
//! `grounds.rs`, which looks at what came before one action.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cpe_proto::definition::{Deployable, Service, Window};
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{ActionId, Name, ServiceIndex};
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;
use dped::{Wait, bounds};

use super::World;
use super::machine::Running;
use super::queue::Item;

/// A deployable's assembly and its service.
type Key = (Name, Name, Name);

/// What was done and told, and when.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Restarts that answered a counted failure, since the last one that escalated.
    restarts: BTreeMap<Key, VecDeque<Timestamp>>,
    /// Restarts that answer a counted failure and are not begun yet.
    asked: BTreeMap<(usize, ActionId), Key>,
    /// When what stands was told last.
    told: BTreeMap<String, Timestamp>,
}

/// A crash of a unit that is to be found by then.
#[derive(Clone, Debug)]
pub(super) struct Crash {
    /// The process that finds it.
    pub(super) life: u32,
    member: usize,
    machine: usize,
    unit: usize,
    /// The end that is meant: it was not started since.
    ended: u32,
    at: Timestamp,
}

impl Pace {
    /// Nothing is known of its restarts any more.
    pub(super) fn forget(&mut self, deployable: &Name) {
        self.restarts.retain(|(name, ..), _| name != deployable);
    }

    /// A service that is another one now begins to count anew.
    pub(super) fn redefined(&mut self, old: &Deployable, new: &Deployable) {
        let same = |it: &Service, was: &Service| it.check == was.check && it.line == was.line;
        self.restarts.retain(|(name, assembly, service), _| {
            let find = |definition: &Deployable| {
                let index = definition.assembly_named(assembly.as_str())?;
                let service = definition.service_named(index, service.as_str())?;
                Some((definition.assembly(index).machine.clone(), definition.service(service).clone()))
            };
            *name != new.name
                || matches!((find(old), find(new)), (Some(was), Some(is)) if was.0 == is.0 && same(&is.1, &was.1))
        });
    }
}

impl World {
    /// What an engine tells of itself.
    pub(super) fn pace_event(&mut self, member: usize, event: &Event) {
        let Some(definition) = self.member(member).map(|it| it.engine.definition().clone()) else { return };
        match event.kind {
            EventKind::RecoveryStarted if event.rung == Some(Rung::RestartService) => {
                let names = (event.assembly.clone(), event.service.clone());
                if let ((Some(assembly), Some(service)), Some(action)) = (names, event.action)
                    && event.reason.contains("; failure ")
                {
                    let key = (definition.name.clone(), assembly, service);
                    self.truth.pace.asked.insert((member, action), key);
                }
            }
            EventKind::Escalated => {
                let meant = |(name, assembly, service): &Key| {
                    *name == definition.name
                        && event.assembly.as_ref() == Some(assembly)
                        && event.service.as_ref().is_none_or(|it| it == service)
                };
                self.truth.pace.restarts.retain(|key, _| !meant(key));
            }
            _ => {}
        }
    }

    /// A restart is begun. The N-th failure escalates instead; one may have waited so long for its turn that its failure counts no more.
    pub(super) fn pace_restart(&mut self, member: usize, action: ActionId) {
        let Some(key) = self.truth.pace.asked.remove(&(member, action)) else { return };
        let Some(it) = self.member(member) else { return };
        let window = it.engine.definition().escalation.service.unwrap_or(Window::DEFAULT);
        let (now, (deployable, assembly, service)) = (self.now, &key);
        let name = format!("{deployable}/{assembly}/{service}");
        let times = self.truth.pace.restarts.entry(key).or_default();
        times.push_back(now);
        while times.front().is_some_and(|at| now.since(*at) >= window.within) {
            times.pop_front();
        }
        let (is, failures) = (times.len(), window.failures.get());
        if is > failures as usize {
            let within = window.within.as_secs();
            self.broken(format!(
                "{name} is restarted {is} times within {within} s; failure {failures} escalates"
            ));
        }
    }

    /// What it needs is down, and was when somebody could have known.
    pub(super) fn judge_dependencies(
        &self,
        member: usize,
        definition: &Deployable,
        service: ServiceIndex,
        wrong: &mut Vec<String>,
    ) {
        for needed in &definition.service(service).after {
            let Some(unit) = self.unit_of(member, *needed) else { return };
            let probe = definition.service(*needed).probe;
            let patience = self.patience(&probe);
            let lied = unit.lie.is_some_and(|(_, until)| until.after(patience) >= self.now)
                || unit.flaps_at(self.now).is_some();
            let ill = unit.fell.map(|fell| self.now.since(fell.at)).filter(|_| unit.well_since.is_none());
            if unit.running != Running::Active && !lied && ill.is_some_and(|ill| ill > patience) {
                wrong.push(format!("{}, which it needs, does not run", unit.name));
            }
        }
    }

    /// A person is told of something.
    pub(super) fn pace_told(&mut self, name: &Name, message: &str) {
        let member = self.files.iter().position(|(known, _)| known == name);
        let Some(it) = member.and_then(|member| self.member(member)) else { return };
        let timing = it.engine.definition().timing;
        if message.contains("; tried again every ") {
            let latest = self.boot_time().after(timing.retry_after * 2);
            let view = it.engine.view();
            let services = view.services.iter().flat_map(|it| &it.waits);
            let mut waits = view.assemblies.iter().flat_map(|it| &it.waits).chain(services);
            if waits.any(|it| it.what == Wait::Retry && it.until > latest) {
                self.broken(format!("{name}: what is exhausted is not tried again in its time: {message}"));
            }
        }
        // What is told of something that stands is not told again before that has stood as long again.
        let stands = match message {
            _ if message.contains(" is refused for ") => timing.unreachable_notify,
            _ if message.contains(" has waited for ") => timing.dependency_wait,
            _ => return,
        };
        let before = self.truth.pace.told.insert(format!("{name}: {message}"), self.now);
        if before.is_some_and(|at| self.now.since(at) < stands) {
            self.broken(format!("{name}: told twice within {} s: {message}", stands.as_secs()));
        }
    }

    /// A unit has crashed. Where it was seen well before, its death is found in time.
    pub(super) fn note_crash(&mut self, machine: usize, unit: usize) {
        let (deployable, assembly) = (&self.machines[machine].deployable, &self.machines[machine].assembly);
        let Some(member) = self.files.iter().position(|(name, _)| name == deployable) else { return };
        let Some(it) = self.member(member) else { return };
        let definition = it.engine.definition();
        let place = it.units.iter().position(|place| *place == (machine, unit));
        let service = place.and_then(|place| Some(ServiceIndex(u16::try_from(place).ok()?)));
        let found = service.map(|it| (it, definition.service(it).probe));
        let Some((index, probe)) = found.filter(|(it, _)| definition.service(*it).check.direct().is_none())
        else {
            return;
        };
        let ended = &self.machines[machine].units[unit];
        let view = it.engine.view();
        let was_healthy = view.services[usize::from(index.0)].state == State::Healthy;
        let quick = ended.slow_at(self.now).is_none() && ended.lie_at(self.now).is_none();
        if ended.running != Running::Failed
            || !was_healthy
            || !view.desired.runs()
            || !quick
            || ended.hangs_until > self.now
        {
            return;
        }
        if self.truth.acts_on(member, assembly, self.now) {
            return;
        }
        let (life, at) = (self.process.life, self.now);
        let crash = Crash { life, member, machine, unit, ended: ended.life, at };
        self.queue.push(at.after(bounds::detection(&probe)).after(FOUND_LATE), Item::Found(Box::new(crash)));
    }

    /// By now it is known to have crashed, where nothing kept cpe from looking.
    pub(super) fn must_be_found(&mut self, crash: &Crash) {
        let Crash { life, member, machine, unit, ended, at } = *crash;
        let process = &self.process;
        if life != process.life || process.late_since(at) || process.stands_still(self.now) {
            return;
        }
        let body = &self.machines[machine];
        let Some(it) = body.units.get(unit).filter(|it| it.life == ended) else { return };
        let reached = body.well_since.is_some_and(|since| since <= at);
        let truly = it.slow_at(self.now).is_none() && it.lie_at(self.now).is_none();
        if !reached
            || !truly
            || process.lag_at(self.now) > Duration::ZERO
            || self.truth.acts_on(member, &body.assembly, self.now)
        {
            return;
        }
        let Some(engine) = self.member(member) else { return };
        let Some(place) = engine.units.iter().position(|place| *place == (machine, unit)) else { return };
        let view = engine.engine.view();
        // With an incident it was found, and is looked at anew after an action on it.
        let Some((seen, None)) = view.services.get(place).map(|it| (it.state, it.incident)) else { return };
        if view.desired.runs() && matches!(seen, State::Healthy | State::Suspected) {
            let after = self.now.since(at).as_secs_f64();
            let what = format!("{}/{} died {after:.1} s ago, and is {seen}", body.label(), it.name);
            self.broken(what);
        }
    }
}

/// What a probe that is under way, and the moment in which its answer is carried, add to a bound.
const FOUND_LATE: Duration = Duration::from_secs(1);
