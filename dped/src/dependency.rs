//! Dependencies (policy.md section 4): a dependent that fails is acted on only after a passed probe of each dependency that is newer
//! than its own first failure. Until then it is a consequence: it waits, uncounted, and after `dependency_wait` says so.

use cpe_proto::id::{AssemblyIndex, ServiceIndex};
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::engine::{About, Engine, Part};
use crate::health::ChannelHealth;
use crate::output::{Output, Target};
use crate::parts::Waits;

/// What a wait reads like; the name of what is waited for follows.
const WAITS: &str = "consequence: waits for ";

impl Engine {
    /// The first dependency of a service that has no passed probe newer than that.
    fn dependency_of(&self, index: ServiceIndex, newer_than: Timestamp) -> Option<Target> {
        let definition = self.definition();
        let service = definition.service(index);
        let behind = service.after.iter().find(|it| !self.passed_since(**it, newer_than));
        behind
            .map(|it| Target::Service(*it))
            .or_else(|| self.dependency_of_assembly(service.assembly, newer_than))
    }

    fn dependency_of_assembly(&self, index: AssemblyIndex, newer_than: Timestamp) -> Option<Target> {
        self.definition().assembly(index).after.iter().find_map(|it| self.unproven(*it, newer_than))
    }

    /// What of an assembly has no passed probe newer than that.
    pub(crate) fn unproven(&self, index: AssemblyIndex, newer_than: Timestamp) -> Option<Target> {
        let part = self.assembly(index);
        if part.channel != ChannelHealth::Healthy || part.answered <= newer_than {
            return Some(Target::Channel(index));
        }
        self.definition()
            .services_of(index)
            .find(|it| !self.passed_since(*it, newer_than))
            .map(Target::Service)
    }

    /// What is being recovered counts as soon as a fresh probe of it passed: its dependents need it to run, not to be verified.
    fn passed_since(&self, index: ServiceIndex, newer_than: Timestamp) -> bool {
        let part = self.service(index);
        matches!(part.state, State::Healthy | State::Recovering) && part.passed > newer_than
    }

    /// The dependency that is failed or unknown now, by name: what makes a fault of this service a consequence (isolation row 13).
    pub(crate) fn dependency_down(&self, index: ServiceIndex) -> Option<String> {
        self.dependency_of(index, Timestamp::ZERO).map(|target| self.target_name(target))
    }

    fn target_name(&self, target: Target) -> String {
        match target {
            Target::Channel(index) => self.definition().assembly(index).name.to_string(),
            Target::Service(service) => {
                let part = self.definition().service(service);
                format!("{}/{}", self.definition().assembly(part.assembly).name, part.name)
            }
        }
    }

    /// Whether that is so of all that needs a service.
    pub(crate) fn each_dependent(&self, index: ServiceIndex, is_so: impl Fn(ServiceIndex) -> bool) -> bool {
        let definition = self.definition();
        let own = definition.service(index).assembly;
        definition.assembly_indices().flat_map(|it| definition.services_of(it)).all(|other| {
            let service = definition.service(other);
            let depends =
                service.after.contains(&index) || definition.assembly(service.assembly).after.contains(&own);
            !depends || is_so(other)
        })
    }

    /// Whether a service waits for one in another assembly, which nothing done to this machine could mend.
    pub(crate) fn dependency_elsewhere(&self, index: ServiceIndex) -> bool {
        let own = self.definition().service(index).assembly;
        match self.dependency_of(index, Timestamp::ZERO) {
            Some(Target::Service(service)) => self.definition().service(service).assembly != own,
            Some(Target::Channel(_)) => true,
            None => false,
        }
    }

    /// Whether a service must wait before it may be started: each dependency is healthy, and what it is set up with is known.
    pub(crate) fn waits_to_start(&mut self, index: ServiceIndex, now: Timestamp) -> bool {
        let missing = self.dependency_of(index, Timestamp::ZERO);
        let missing = missing.or_else(|| self.address_missing(index).map(Target::Channel));
        self.note_wait(Part::Service(index), missing, now)
    }

    /// Whether what a service is set up with is not known yet.
    pub(crate) fn waits_for_address(&mut self, index: ServiceIndex, now: Timestamp) -> bool {
        let missing = self.address_missing(index).map(Target::Channel);
        self.note_wait(Part::Service(index), missing, now)
    }

    /// Whether a failed service is a consequence so far.
    pub(crate) fn waits_for_dependency(
        &mut self,
        index: ServiceIndex,
        first_failed: Timestamp,
        now: Timestamp,
    ) -> bool {
        let missing = self.dependency_of(index, first_failed);
        self.note_wait(Part::Service(index), missing, now)
    }

    /// Whether a failed assembly is a consequence so far.
    pub(crate) fn assembly_waits_for_dependency(
        &mut self,
        index: AssemblyIndex,
        first_failed: Timestamp,
        now: Timestamp,
    ) -> bool {
        let missing = self.dependency_of_assembly(index, first_failed);
        self.note_wait(Part::Assembly(index), missing, now)
    }

    fn note_wait(&mut self, about: Part, missing: Option<Target>, now: Timestamp) -> bool {
        let Some(target) = missing else {
            *self.waits_of(about) = None;
            return false;
        };
        // A look at it now, so that nobody waits for its next turn. What is not healthy is looked at by its own pace.
        match target {
            Target::Channel(index) if self.assembly(index).channel == ChannelHealth::Healthy => {
                self.assembly_mut(index).poll.hasten(now);
            }
            Target::Service(service) if self.service(service).state == State::Healthy => {
                self.service_mut(service).poll.hasten(now);
            }
            _ => {}
        }
        let name = self.target_name(target);
        let wait = self.definition().timing.dependency_wait;
        let why = format!("{WAITS}{name}").into();
        match self.waits_of(about) {
            Some(waits) if waits.why.starts_with(WAITS) => waits.why = why,
            waits => *waits = Some(Waits { why, say_at: Some(now.after(wait)) }),
        }
        true
    }

    /// What waits is said in its time, whatever else keeps it from being looked at then; the sweep after each round asks for it.
    pub(crate) fn say_waits(&mut self, about: Part, now: Timestamp) {
        let (assembly, waiting) = match about {
            Part::Service(index) => {
                let trouble = self.service(index).trouble.as_ref();
                let waiting = trouble.map(|it| (&it.waits, it.incident));
                (self.definition().service(index).assembly, waiting)
            }
            Part::Assembly(index) => {
                let trouble = self.assembly(index).trouble.as_ref();
                (index, trouble.map(|it| (&it.waits, it.incident)))
            }
        };
        let Some((Some(waits), incident)) = waiting else { return };
        if waits.say_at.is_none_or(|at| now < at) {
            return;
        }
        let name = waits.why.strip_prefix(WAITS).map(str::to_owned);
        if let Some(waits) = self.waits_of(about) {
            waits.say_at = None;
        }
        let Some(name) = name.filter(|_| !self.in_maintenance(assembly)) else { return };
        let (subject, wait) = (self.name_of(About::from(about)), self.definition().timing.dependency_wait);
        let message = format!("{subject} has waited for {name} for {}", crate::describe::span(wait));
        self.output(Output::Notify { incident, message: message.into() });
    }

    fn waits_of(&mut self, about: Part) -> &mut Option<Waits> {
        match about {
            Part::Service(index) => &mut self.service_trouble(index).waits,
            Part::Assembly(index) => &mut self.assembly_trouble(index).waits,
        }
    }
}
