//! What services are truly set up with: the address that a dependency has, or one that it had. The engine's own view of it is
//! `dped/src/setup.rs`; here it is held against what is so (policy.md section 4): each change is given to a service once, and in the end
//! everything has what it refers to.

use std::sync::Arc;

use cpe_proto::definition::{Attribute, Deployable, Machine, Mode};
use cpe_proto::id::{ActionId, ServiceIndex};
use dped::{Act, Action, Parameters};

use super::World;
use super::driver::Member;

/// What a unit is set up with.
#[derive(Clone, Debug, Default)]
pub(super) struct SetUp {
    /// None: nothing that could change, or nobody knows.
    with: Option<Parameters>,
    /// Its disk was made anew since.
    pub(super) fresh: bool,
    /// The life of cpe and the action that did it, while it can rely on that.
    pub(super) by: Option<(u32, usize, ActionId)>,
}

/// Whether a service is set up with something that can change.
fn is_set_up(definition: &Deployable, service: ServiceIndex) -> bool {
    let service = definition.service(service);
    service.refers() || service.configure.is_some()
}

/// What an action sets its service up with.
pub(super) fn wanted(member: &Member, action: &Action) -> Option<Parameters> {
    match action.act {
        Act::StartService(service) | Act::Reconfigure(service) => {
            is_set_up(member.engine.definition(), service).then(|| member.engine.rendered(service)).flatten()
        }
        _ => None,
    }
}

impl World {
    /// What a service should be set up with, as things are.
    fn true_parameters(&self, definition: &Deployable, service: ServiceIndex) -> Option<Parameters> {
        let (machines, _) = self.bodies_of(definition);
        let one = |(name, value): &(_, cpe_proto::definition::Referring)| {
            let value = value.render(|reference| {
                let assembly = definition.assembly(reference.assembly);
                let place = machines[usize::from(reference.assembly.0)];
                Some(match (reference.attribute, &assembly.machine) {
                    (Attribute::Name, _) => Arc::from(assembly.name.as_str()),
                    (Attribute::Address, Machine::Address(address)) => Arc::from(address.as_str()),
                    (Attribute::Address, _) => self.machines[place].address(place),
                })
            });
            Some((cpe_proto::definition::ParameterName::clone(name), value.ok()?))
        };
        definition.service(service).parameters.iter().map(one).collect()
    }

    /// Whoever runs in the beginning was set up by somebody.
    pub(super) fn settle_set_up(&mut self, definition: &Deployable) {
        let (_, units) = self.bodies_of(definition);
        for service in definition.assembly_indices().flat_map(|index| definition.services_of(index)) {
            let (machine, unit) = units[usize::from(service.0)];
            let known = self.machines[machine].units[unit].set_up.with.is_some();
            if !known && is_set_up(definition, service) {
                self.machines[machine].units[unit].set_up.with = self.true_parameters(definition, service);
            }
        }
    }

    /// A definition is removed: nobody remembers what its services were set up with.
    pub(super) fn forget_set_up(&mut self, definition: &Deployable) {
        for (machine, unit) in self.bodies_of(definition).1 {
            self.machines[machine].units[unit].set_up = SetUp::default();
        }
    }

    /// A unit is set up.
    pub(super) fn sets_up(
        &mut self,
        (machine, unit): (usize, usize),
        (member, action): (usize, ActionId),
        with: Option<Parameters>,
        again: bool,
    ) {
        let Some(with) = with else { return };
        let life = self.process.life;
        let it = &self.machines[machine].units[unit].set_up;
        let was_told =
            it.by.is_some_and(|(of, member, action)| of == life && self.truth.was_told_done(member, action));
        if again && was_told && !it.fresh && it.with.as_ref() == Some(&with) {
            let name = &self.machines[machine].units[unit].name;
            let what =
                format!("{}/{name} is configured twice for one change", self.machines[machine].label());
            self.broken(what);
        }
        if again {
            self.coverage.count("set up", "configured anew");
        }
        let by = Some((life, member, action));
        self.machines[machine].units[unit].set_up = SetUp { with: Some(with), fresh: false, by };
    }

    /// What runs with something else than what it refers to.
    pub(super) fn ill_set_up(&self) -> Vec<String> {
        let mut ill = Vec::new();
        for member in self.process.members.iter().flatten() {
            let definition = member.engine.definition();
            if !member.engine.view().desired.runs() || definition.mode == Mode::Observe {
                continue;
            }
            for service in definition.assembly_indices().flat_map(|index| definition.services_of(index)) {
                let (machine, unit) = member.units[usize::from(service.0)];
                let it = &self.machines[machine].units[unit];
                if it.set_up.with.is_none() {
                    continue;
                }
                let fresh = it.set_up.fresh && definition.service(service).configure.is_some();
                if fresh || it.set_up.with != self.true_parameters(definition, service) {
                    let why =
                        if fresh { "is not set up on its new disk" } else { "is set up for what is no more" };
                    ill.push(format!("{}/{} {why}", self.machines[machine].label(), it.name));
                }
            }
        }
        ill
    }
}
