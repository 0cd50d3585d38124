//! More that happens in a drawn world, each kind from a stream of its own: what is added here leaves the rest of a seed's world as it was.

use std::time::Duration;

use super::Planned;
use super::dice::Dice;
use super::fleet::Fleet;
use super::happening::{ControllerFault, Happening, MachineFault, Operator, Place, ServiceFault};

/// What happens besides, within so long.
pub(super) fn more(fleet: &Fleet, dice: &mut Dice, lasts: Duration) -> Vec<Planned> {
    let mut more = More { fleet, lasts, plan: Vec::new() };
    more.acknowledged(&mut dice.fork(1));
    more.panics(&mut dice.fork(2));
    more.node_reboots(&mut dice.fork(3));
    more.plan
}

struct More<'a> {
    fleet: &'a Fleet,
    lasts: Duration,
    plan: Vec<Planned>,
}

impl More<'_> {
    fn add(&mut self, at: Duration, happening: Happening) {
        self.plan.push(Planned { at, happening });
    }

    fn machine(&self, dice: &mut Dice) -> Place {
        let definition = dice.of(&self.fleet.definitions);
        let assembly = dice.of(&definition.assemblies).name;
        Place { deployable: definition.name.clone(), assembly, service: None }
    }

    /// Engines panic, most of them while something is being recovered; some again and again.
    fn panics(&mut self, dice: &mut Dice) {
        if !dice.one_in(4) {
            return;
        }
        for _ in 0..=dice.roll(2) {
            let mut at = dice.between(Duration::from_secs(60), self.lasts);
            let place = self.machine(dice);
            let name = place.deployable.clone();
            if !dice.one_in(4) {
                let fault = dice.of(&[MachineFault::PowerLoss, MachineFault::Hang, MachineFault::Fails]);
                self.add(at, Happening::Machine(place, fault));
                at += dice.between(Duration::ZERO, Duration::from_secs(25));
            }
            let within = |dice: &mut Dice| if dice.one_in(2) { 0 } else { 1 + dice.roll(30) as u32 };
            self.add(at, Happening::Panic(name.clone(), within(dice)));
            if dice.one_in(3) {
                for _ in 0..2 {
                    at += dice.seconds(1, 20);
                    self.add(at, Happening::Panic(name.clone(), 0));
                }
                let at = at + dice.seconds(30, 600);
                self.add(at, Happening::Operator(Operator::Retry(name, None)));
            }
        }
    }

    /// The management node reboots.
    fn node_reboots(&mut self, dice: &mut Dice) {
        if dice.one_in(5) {
            let at = dice.between(Duration::from_secs(30), self.lasts);
            let down = dice.seconds(20, 300);
            self.add(at, Happening::Controller(ControllerFault::NodeReboot(down)));
        }
    }

    /// Something that does not end by itself, and a person who says that they know.
    fn acknowledged(&mut self, dice: &mut Dice) {
        if !dice.one_in(3) {
            return;
        }
        let at = dice.between(Duration::from_secs(60), self.lasts / 2);
        let place = self.machine(dice);
        let definition = self.fleet.definitions.iter().find(|it| it.name == place.deployable);
        let services = definition.into_iter().flat_map(|it| {
            let index = it.assembly_named(place.assembly.as_str());
            index.into_iter().flat_map(|index| it.services_of(index)).map(|service| it.service(service))
        });
        let services: Vec<_> = services.map(|service| service.name.clone()).collect();
        let happening = match services.first() {
            Some(_) if dice.one_in(2) => {
                let service = Some(dice.of(&services));
                Happening::Service(Place { service, ..place.clone() }, ServiceFault::Broken)
            }
            _ => Happening::Machine(place.clone(), MachineFault::NeverBoots),
        };
        self.add(at, happening);
        for _ in 0..=dice.roll(2) {
            let known = at + dice.seconds(1, 600);
            let assembly = (!dice.one_in(3)).then(|| place.assembly.clone());
            self.add(known, Happening::Operator(Operator::Ack(place.deployable.clone(), assembly)));
        }
    }
}
