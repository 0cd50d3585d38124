//! More of a drawn world: kinds of services, and what happens, each kind from a stream of its own: what is added here leaves the rest of a seed's world as it was.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::rung::Rung;

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
    more.warnings(&mut dice.fork(4));
    more.moves(&mut dice.fork(5));
    more.pauses(&mut dice.fork(6));
    more.forgotten(&mut dice.fork(7));
    more.taken(&mut dice.fork(8));
    more.impatient(&mut dice.fork(9));
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
        if !dice.one_in(3) {
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

    /// Plugins and resources say that a person should look at them.
    fn warnings(&mut self, dice: &mut Dice) {
        let all =
            self.fleet.definitions.iter().flat_map(|it| it.services.iter().map(move |service| (it, service)));
        let warn = all.filter(|(_, service)| matches!(service.check.kind(), "nagios" | "ocf"));
        let places: Vec<Place> = warn
            .map(|(it, service)| Place {
                deployable: it.name.clone(),
                assembly: it.assembly(service.assembly).name.clone(),
                service: Some(service.name.clone()),
            })
            .collect();
        if places.is_empty() || !dice.one_in(3) {
            return;
        }
        let at = dice.between(Duration::from_secs(30), self.lasts);
        let lasts = dice.seconds(20, 900);
        self.add(at, Happening::Service(dice.of(&places), ServiceFault::Warns(lasts)));
    }

    /// Recovery of a machine or of a service is stopped by its name, mostly for a while, and something happens to it meanwhile.
    fn pauses(&mut self, dice: &mut Dice) {
        if !dice.one_in(4) {
            return;
        }
        let machine = self.machine(dice);
        let definition = self.fleet.definitions.iter().find(|it| it.name == machine.deployable);
        let services = definition.into_iter().flat_map(|it| {
            let index = it.assembly_named(machine.assembly.as_str());
            index
                .into_iter()
                .flat_map(|index| it.services_of(index))
                .map(|service| it.service(service).name.clone())
        });
        let services: Vec<_> = services.collect();
        let service = (!services.is_empty() && !dice.one_in(3)).then(|| dice.of(&services));
        let place = Place { service, ..machine.clone() };
        let at = dice.between(Duration::from_secs(30), self.lasts);
        let lasts = dice.seconds(30, 1200);
        self.add(at, Happening::Operator(Operator::PausePart(place.clone())));
        let within = at + dice.between(Duration::ZERO, lasts);
        let happening = if place.service.is_some() && !dice.one_in(3) {
            Happening::Service(place.clone(), dice.of(&[ServiceFault::Crash, ServiceFault::Broken]))
        } else {
            Happening::Machine(machine, dice.of(&[MachineFault::PowerLoss, MachineFault::Hang]))
        };
        self.add(within, happening);
        if !dice.one_in(4) {
            self.add(at + lasts, Happening::Operator(Operator::ResumePart(place)));
        }
    }

    /// A definition is removed while something is being recovered there, half of the time with cpe down, and comes back soon; or its engine
    /// is parked, and cpe killed.
    fn forgotten(&mut self, dice: &mut Dice) {
        if !dice.one_in(4) {
            return;
        }
        let at = dice.between(Duration::from_secs(60), self.lasts);
        let definition = Arc::clone(&dice.of(&self.fleet.definitions));
        let assembly = dice.of(&definition.assemblies).name;
        let place = Place { deployable: definition.name.clone(), assembly, service: None };
        let fault = dice.of(&[MachineFault::PowerLoss, MachineFault::Hang, MachineFault::Fails]);
        self.add(at, Happening::Machine(place, fault));
        let mut at = at + dice.seconds(10, 80);
        let name = definition.name.clone();
        if dice.one_in(4) {
            (0..3).for_each(|_| self.add(at, Happening::Panic(name.clone(), 0)));
            at += dice.seconds(1, 120);
            let down = dice.seconds(1, 60);
            self.add(at, Happening::Controller(ControllerFault::Crash { after: 0, down }));
            let at = at + down + dice.seconds(1, 240);
            return self.add(at, Happening::Operator(Operator::Retry(name, None)));
        }
        if dice.one_in(2) {
            self.add(
                at,
                Happening::Controller(ControllerFault::Crash { after: 0, down: dice.seconds(2, 60) }),
            );
            at += Duration::from_secs(1);
        }
        self.add(at, Happening::Remove(name));
        self.add(at + dice.seconds(1, 300), Happening::Define(definition));
    }

    /// Machines to which others refer are lost, and come back elsewhere.
    fn moves(&mut self, dice: &mut Dice) {
        let all =
            self.fleet.definitions.iter().flat_map(|it| it.services.iter().map(move |service| (it, service)));
        let referred = all.flat_map(|(it, service)| {
            let others = service.referred().filter(|other| *other != service.assembly);
            others.map(|other| (it.name.clone(), it.assembly(other).name.clone())).collect::<Vec<_>>()
        });
        let places: Vec<_> = referred.collect();
        if places.is_empty() || dice.one_in(3) {
            return;
        }
        for _ in 0..=dice.roll(2) {
            let (deployable, assembly) = dice.of(&places);
            let at = dice.between(Duration::from_secs(30), self.lasts);
            let place = Place { deployable, assembly, service: None };
            self.add(at, Happening::Machine(place, MachineFault::Vanishes));
        }
    }

    /// Another controller takes a machine that is in trouble, or soon will be, and gives it back.
    fn taken(&mut self, dice: &mut Dice) {
        let managed = self.fleet.definitions.iter().filter(|it| it.infrastructure.is_some());
        let managed: Vec<_> = managed.cloned().collect();
        if managed.is_empty() || !dice.one_in(3) {
            return;
        }
        let definition = dice.of(&managed);
        let index = dice.place(definition.assemblies.len());
        let assembly = &definition.assemblies[index];
        let place =
            Place { deployable: definition.name.clone(), assembly: assembly.name.clone(), service: None };
        let at = dice.between(Duration::from_secs(30), self.lasts * 3 / 4);
        self.add(at, Happening::Machine(place.clone(), MachineFault::Taken(dice.seconds(60, 900))));
        let fault = dice.of(&[MachineFault::PowerLoss, MachineFault::Hang, MachineFault::Reboots]);
        let near = |dice: &mut Dice| at - Duration::from_secs(20) + dice.seconds(0, 60);
        self.add(near(dice), Happening::Machine(place.clone(), fault));
        let services = definition.services.iter().filter(|it| usize::from(it.assembly.0) == index);
        let services: Vec<_> = services.map(|it| it.name.clone()).collect();
        if !services.is_empty() && dice.one_in(2) {
            let service = Some(dice.of(&services));
            let at = at + dice.seconds(30, 200);
            self.add(at, Happening::Service(Place { service, ..place.clone() }, ServiceFault::Crash));
        }
        if dice.one_in(3) {
            self.add(at + dice.seconds(20, 120), Happening::Operator(Operator::Recover(place, None)));
        }
    }

    /// A person orders what is under way already.
    fn impatient(&mut self, dice: &mut Dice) {
        if !dice.one_in(3) {
            return;
        }
        let place = self.machine(dice);
        let at = dice.between(Duration::from_secs(30), self.lasts);
        let fault = dice.of(&[MachineFault::PowerLoss, MachineFault::Fails, MachineFault::Vanishes]);
        self.add(at, Happening::Machine(place.clone(), fault));
        let mut at = at;
        for _ in 0..3 {
            at += dice.seconds(8, 30);
            let rung = dice.of(&[None, Some(Rung::RebootHard)]);
            self.add(at, Happening::Operator(Operator::Recover(place.clone(), rung)));
        }
        self.add(at, Happening::Operator(Operator::Retry(place.deployable, Some(place.assembly))));
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

/// A drawn definition with some of its units as services of other kinds, and some services set up with what others are.
pub(super) fn decorated(text: &str, dice: &mut Dice) -> String {
    let mut movable: Vec<u64> = Vec::new();
    let (mut machine, mut out) = (0, String::with_capacity(text.len()));
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("[assemblies.m") {
            machine = name.split([']', '.']).next().and_then(|number| number.parse().ok()).unwrap_or(machine);
        }
        if line.starts_with("image = ") || line.starts_with("instance = ") {
            movable.push(machine);
        }
        let unit = line.strip_prefix("systemd = \"s").and_then(|rest| rest.strip_suffix(".service\""));
        let Some(unit) = unit else {
            let _ = writeln!(out, "{line}");
            continue;
        };
        let earlier: Vec<u64> = movable.iter().copied().filter(|it| *it < machine).collect();
        let refers = (!earlier.is_empty() && dice.one_in(2)).then(|| dice.of(&earlier));
        let parameters = refers.map(|it| {
            format!("parameters = {{ peer = \"{{m{it}.address}}\", me = \"{{m{machine}.name}}\" }}")
        });
        let kind = dice.roll(8);
        let _ = match kind {
            0 => writeln!(out, "nagios = \"check_s{unit}\"\nrestart = {{ lsb = \"s{unit}\" }}"),
            1 => writeln!(out, "ocf = \"ocf:heartbeat:s{unit}\""),
            2 => writeln!(out, "lsb = \"s{unit}\""),
            _ => writeln!(out, "{line}"),
        };
        if kind != 1 && (parameters.is_some() || dice.one_in(8)) {
            out.push_str("configure = \"/usr/local/sbin/set-up\"\n");
        }
        if let Some(parameters) = parameters {
            let _ = writeln!(out, "{parameters}");
        }
    }
    out
}
