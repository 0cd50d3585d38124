//! A fleet and a plan of what happens to it, from a seed: small sites and large ones, all kinds of definitions, every kind of fault.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::definition::Deployable;
use cpe_proto::id::Name;
use cpe_proto::infrastructure::{Capabilities, InstanceState, Operation};
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;

use super::dice::Dice;
use super::fleet::{Fleet, InfrastructureKind, WALL};
use super::happening::{
    ControllerFault, Fate, Happening, InfrastructureFault, MachineFault, Operator, Place, ServiceFault, Side,
};
use super::machine::Lie;
use super::more::{decorated, more};
use super::windows_drawn::windows;

/// Something that is to happen at a time since the beginning.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// When.
    pub at: Duration,
    /// What.
    pub happening: Happening,
}

/// A fleet and what happens to it within so long, from a seed.
///
/// # Panics
/// If a drawn definition is none: a defect of this file.
#[must_use]
pub fn draw(seed: u64, lasts: Duration) -> (Fleet, Vec<Planned>) {
    let dice = Dice::new(seed);
    let (mut fleet, mut texts) = fleet(&mut dice.fork(1), &dice.fork(4));
    let windows = windows(&mut fleet, &mut texts, &mut dice.fork(5), lasts);
    let mut planner = Planner::new(&fleet, &texts, dice.fork(2), lasts);
    let mut plan = planner.plan();
    plan.extend(windows);
    plan.extend(more(&fleet, &mut dice.fork(3), lasts));
    plan.retain(|planned| planned.at < lasts);
    plan.sort_by_key(|planned| planned.at);
    (fleet, plan)
}

// ---- the fleet

/// The dice of what else a definition says of other places.
const ELSEWHERE: u64 = 1_000;

const DOMAINS: [&str; 6] = ["az1", "az2", "rack1", "rack2", "rack3", "net1"];

fn fleet(dice: &mut Dice, more: &Dice) -> (Fleet, Vec<String>) {
    // Sites of one to five machines are the most; some are large enough for every breaker.
    let (deployables, machines) = match dice.roll(10) {
        0..=3 => (1, 1 + dice.roll(3)),
        4..=7 => (1 + dice.roll(3), 3 + dice.roll(5)),
        _ => (3 + dice.roll(5), 12 + dice.roll(18)),
    };
    let large = machines >= 12;
    let domains = if dice.one_in(4) { 0 } else { 1 + dice.place(DOMAINS.len()) };
    let mut texts = Vec::new();
    for index in 0..deployables {
        let of = machines / deployables + u64::from(index < machines % deployables);
        let text = definition(dice, index, of.max(1), domains, large);
        texts.push(decorated(&text, &mut more.fork(index)));
    }
    let definitions: Vec<Arc<Deployable>> = texts.iter().map(|text| parse(text)).collect();
    let mut infrastructures = BTreeMap::new();
    for definition in &definitions {
        if let Some(name) = &definition.infrastructure {
            let kind = infrastructure(name.as_str(), dice);
            infrastructures.entry(name.clone()).or_insert(kind);
        }
    }
    let canaries = dice.of(&[0, 0, 1, 2, 2, 3]);
    let boot = dice.seconds(10, 30);
    let shared_points = shared_points(&definitions, &mut dice.fork(3));
    (Fleet { definitions, infrastructures, shared_points, canaries, boot, wall: WALL }, texts)
}

/// Most domains that have machines of an infrastructure are known to it as something that it can evacuate.
fn shared_points(definitions: &[Arc<Deployable>], dice: &mut Dice) -> BTreeMap<Name, Name> {
    let mut points = BTreeMap::new();
    for definition in definitions {
        let Some(infrastructure) = &definition.infrastructure else { continue };
        for domain in definition.assemblies.iter().flat_map(|assembly| &assembly.failure_domains) {
            if !dice.one_in(3) {
                points.entry(domain.clone()).or_insert_with(|| infrastructure.clone());
            }
        }
    }
    points
}

pub(super) fn parse(text: &str) -> Arc<Deployable> {
    match Deployable::parse("drawn.toml", text) {
        Ok(definition) => Arc::new(definition),
        Err(errors) => panic!("a drawn definition is none: {errors:?}\n{text}"),
    }
}

fn infrastructure(name: &str, dice: &mut Dice) -> InfrastructureKind {
    use Operation as O;
    let can: &[O] = match name {
        "prod" => &O::ALL,
        // A fence agent: power, and nothing else.
        "rack" => &[O::Status, O::Start, O::Stop, O::RebootHard, O::Capabilities],
        _ => match dice.roll(3) {
            0 => &[O::Status, O::Start, O::Stop, O::RebootSoft, O::RebootHard],
            1 => &[O::Status, O::RebootHard, O::Rebuild],
            _ => &[],
        },
    };
    let capabilities = Capabilities(can.iter().copied().collect());
    InfrastructureKind { capabilities, knows_who: name == "prod", takes: dice.seconds(1, 8) }
}

fn definition(dice: &mut Dice, index: u64, machines: u64, domains: usize, large: bool) -> String {
    let mut text = format!("name = \"d{index}\"\n");
    let infrastructure = dice.of(&["prod", "prod", "prod", "prod", "rack", "lab", ""]);
    if !infrastructure.is_empty() {
        let _ = writeln!(text, "infrastructure = \"{infrastructure}\"");
    }
    if dice.one_in(15) {
        text.push_str("mode = \"observe\"\n");
    }
    let interval = if large { dice.of(&["5s", "10s"]) } else { dice.of(&["2s", "3s", "5s", "10s"]) };
    let threshold = match dice.roll(5) {
        0 => ", failure_threshold = 1",
        1 => ", failure_threshold = 4",
        _ => "",
    };
    let _ = writeln!(
        text,
        "probe = {{ interval = \"{interval}\", timeout = \"{}\", startup_grace = \"{}\"{threshold} }}",
        dice.of(&["2s", "5s"]),
        dice.of(&["45s", "60s"]),
    );
    let _ = writeln!(
        text,
        "timing = {{ retry_after = \"{}\", action_give_up = \"{}\", machine_action_timeout = \"{}\", service_action_timeout = \"20s\", \
         unreachable_notify = \"{}\", dependency_wait = \"2m\", transition_wait = \"{}\", on_channel_refused = \"{}\", \
         on_unexpected_stop = \"{}\" }}",
        dice.of(&["5m", "10m"]),
        dice.of(&["4m", "8m"]),
        dice.of(&["30s", "1m", "2m"]),
        dice.of(&["1m", "5m"]),
        dice.of(&["2m", "10m"]),
        dice.of(&["report", "recover"]),
        dice.of(&["recover", "recover", "report"]),
    );
    let climbs = dice.roll(5);
    match climbs {
        0 => {}
        1 => text.push_str("[escalation]\nservice = { failures = 3, within = \"10m\" }\n"),
        2 => text.push_str(
            "[escalation]\nservice = { failures = 1, within = \"10m\" }\nassembly = { failures = 1, within = \"1h\" }\n",
        ),
        _ => text.push_str(
            "[escalation]\nservice = { failures = 3, within = \"10m\" }\nassembly = { failures = 2, within = \"1h\" }\n",
        ),
    }
    if climbs > 0 {
        text.push_str(beyond(&mut dice.fork(index)));
        if !infrastructure.is_empty() && !dice.fork(ELSEWHERE + index).one_in(4) {
            text.push_str("relocate = { zone = \"az2\" }\n");
        }
    }
    for machine in 0..machines {
        assembly(dice, &mut text, index, machine, domains, !infrastructure.is_empty());
    }
    text
}

/// What is done when the ladder of an assembly has ended.
fn beyond(dice: &mut Dice) -> &'static str {
    dice.of(&[
        "",
        "deployable = { failures = 2, within = \"1h\" }\n",
        "deployable = { failures = 3, within = \"1h\" }\n",
        "deployable = { failures = 2, within = \"1d\", scope = \"all\" }\n",
    ])
}

fn assembly(
    dice: &mut Dice,
    text: &mut String,
    index: u64,
    machine: u64,
    domains: usize,
    has_infrastructure: bool,
) {
    let data = dice.of(&["local", "volume", "none"]);
    let max_rung = match data {
        "local" => dice.of(&["restart-service", "reboot-soft", "reboot-hard", "reboot-hard"]),
        _ => dice.of(&["reboot-hard", "rebuild", "recreate", "relocate"]),
    };
    let _ = writeln!(text, "[assemblies.m{machine}]");
    match dice.roll(6) {
        0 if has_infrastructure => {
            let _ = writeln!(text, "image = \"debian\"");
        }
        1 if has_infrastructure => {
            let _ = writeln!(text, "instance = \"i-{index}-{machine}\"");
        }
        _ => {
            let _ = writeln!(text, "address = \"192.0.{index}.{}\"", machine + 1);
        }
    }
    let _ = writeln!(text, "data = \"{data}\"\nmax_rung = \"{max_rung}\"");
    if domains > 0 && !dice.one_in(6) {
        let first = DOMAINS[dice.place(domains)];
        let second = DOMAINS[dice.place(domains)];
        let list =
            if first == second { format!("\"{first}\"") } else { format!("\"{first}\", \"{second}\"") };
        let _ = writeln!(text, "failure_domains = [{list}]");
    }
    if machine > 0 && dice.one_in(4) {
        let _ = writeln!(text, "after = [\"m{}\"]", dice.roll(machine));
    }
    for service in 0..dice.of(&[0, 1, 1, 2, 3]) {
        let kind = match dice.roll(10) {
            8 | 9 => format!(
                "http = \"http://{{m{machine}.address}}/{service}\"\nrestart = {{ systemd = \"s{service}.service\" }}"
            ),
            0 => format!("process = \"p{service}\"\nrestart = {{ systemd = \"s{service}.service\" }}"),
            1 => format!("tcp = {}\nrestart = {{ systemd = \"s{service}.service\" }}", 8000 + service),
            2 => format!(
                "command = \"/bin/check {service}\"\nrestart = {{ systemd = \"s{service}.service\" }}"
            ),
            3 => format!("process = \"p{service}\""),
            _ => format!("systemd = \"s{service}.service\""),
        };
        let after = if service > 0 && dice.one_in(2) { "\nafter = [\"s0\"]" } else { "" };
        let _ = writeln!(text, "[assemblies.m{machine}.services.s{service}]\n{kind}{after}");
    }
}

// ---- the plan

struct Planner<'a> {
    fleet: &'a Fleet,
    texts: &'a [String],
    dice: Dice,
    lasts: Duration,
    plan: Vec<Planned>,
}

impl<'a> Planner<'a> {
    fn new(fleet: &'a Fleet, texts: &'a [String], dice: Dice, lasts: Duration) -> Self {
        Self { fleet, texts, dice, lasts, plan: Vec::new() }
    }

    fn plan(&mut self) -> Vec<Planned> {
        let machines: usize = self.fleet.definitions.iter().map(|it| it.assemblies.len()).sum();
        // From a quiet hour to a bad day.
        let events = 3 + self.dice.roll(20 + 2 * machines as u64);
        for _ in 0..events {
            let at = self.dice.between(Duration::from_secs(30), self.lasts);
            self.happens(at);
        }
        // What concerns everything at once is what such a tool is feared for: it has a part of its own.
        if self.dice.one_in(3) {
            let at = self.dice.between(Duration::from_secs(150), self.lasts / 2);
            self.disaster(at);
        }
        self.plan.sort_by_key(|planned| planned.at);
        std::mem::take(&mut self.plan)
    }

    fn add(&mut self, at: Duration, happening: Happening) {
        self.plan.push(Planned { at, happening });
    }

    fn definition(&mut self) -> Arc<Deployable> {
        self.dice.of(&self.fleet.definitions)
    }

    fn machine(&mut self) -> Place {
        let definition = self.definition();
        let assembly = self.dice.of(&definition.assemblies).name;
        Place { deployable: definition.name.clone(), assembly, service: None }
    }

    fn service(&mut self) -> Option<Place> {
        let definition = self.definition();
        let service = definition.services.get(self.dice.place(definition.services.len()))?;
        let assembly = definition.assembly(service.assembly).name.clone();
        Some(Place { deployable: definition.name.clone(), assembly, service: Some(service.name.clone()) })
    }

    fn domain(&mut self) -> Option<Name> {
        let assemblies = self.fleet.definitions.iter().flat_map(|it| &it.assemblies);
        let all: Vec<Name> = assemblies.flat_map(|it| it.failure_domains.clone()).collect();
        (!all.is_empty()).then(|| self.dice.of(&all))
    }

    fn infrastructure(&mut self) -> Option<Name> {
        let all: Vec<Name> = self.fleet.infrastructures.keys().cloned().collect();
        (!all.is_empty()).then(|| self.dice.of(&all))
    }

    fn happens(&mut self, at: Duration) {
        match self.dice.roll(20) {
            0..=6 => self.service_happens(at),
            7..=12 => self.machine_happens(at),
            13 | 14 => self.infrastructure_happens(at),
            15 | 16 => self.controller_happens(at),
            17 | 18 => self.operator_happens(at),
            _ => self.definition_happens(at),
        }
    }

    fn service_happens(&mut self, at: Duration) {
        let Some(place) = self.service() else { return self.machine_happens(at) };
        let lasts = self.dice.seconds(10, 600);
        let takes = self.dice.between(Duration::from_millis(200), Duration::from_secs(8));
        let fault = match self.dice.roll(15) {
            0..=2 => ServiceFault::Crash,
            3 => ServiceFault::CrashLoop(self.dice.seconds(1, 40)),
            4 | 5 => ServiceFault::Broken,
            6 => ServiceFault::Hang(lasts),
            7 => ServiceFault::Slow(takes, lasts),
            8 => ServiceFault::Flap(self.dice.seconds(2, 60), lasts),
            9 => ServiceFault::Lie(Lie::Passes, lasts),
            10 => ServiceFault::Lie(Lie::Fails, lasts),
            11 => ServiceFault::Masked,
            12 => ServiceFault::NotFound,
            13 => ServiceFault::Activating,
            _ => ServiceFault::Mended,
        };
        let ends = matches!(fault, ServiceFault::CrashLoop(_) | ServiceFault::Broken | ServiceFault::Masked);
        self.add(at, Happening::Service(place.clone(), fault));
        if ends && self.dice.one_in(2) {
            self.add(at + lasts, Happening::Service(place, ServiceFault::Mended));
        }
    }

    fn machine_happens(&mut self, at: Duration) {
        let place = self.machine();
        let lasts = self.dice.seconds(5, 600);
        let takes = self.dice.between(Duration::from_millis(200), Duration::from_secs(8));
        let fault = match self.dice.roll(22) {
            0..=2 => MachineFault::PowerLoss,
            3..=5 => MachineFault::Hang,
            6 => MachineFault::Reboots,
            7 | 8 => MachineFault::NeverBoots,
            9 => MachineFault::Vanishes,
            10 | 11 => MachineFault::Fails,
            12 => MachineFault::Slow(takes, lasts),
            13 | 14 => {
                let all = [
                    ChannelFailure::Refused,
                    ChannelFailure::AuthenticationFailed,
                    ChannelFailure::HostKey,
                    ChannelFailure::Protocol,
                ];
                MachineFault::Door(self.dice.of(&all), lasts)
            }
            15 | 16 => MachineFault::Cut(lasts),
            17 => {
                let all =
                    [InstanceState::Off, InstanceState::Error, InstanceState::Gone, InstanceState::Active];
                MachineFault::Claimed(self.dice.of(&all), lasts)
            }
            18 => return self.foreign_change(at, place, lasts),
            19 => MachineFault::StoppedByPerson,
            20 => MachineFault::DeletedByPerson,
            _ => MachineFault::Mended,
        };
        self.add(at, Happening::Machine(place, fault));
    }

    /// A migration: the infrastructure says so, and the machine is away for a while.
    fn foreign_change(&mut self, at: Duration, place: Place, lasts: Duration) {
        self.add(
            at,
            Happening::Machine(place.clone(), MachineFault::Claimed(InstanceState::Changing, lasts)),
        );
        self.add(at, Happening::Machine(place, MachineFault::Cut(lasts.mul_f64(0.9))));
    }

    fn infrastructure_happens(&mut self, at: Duration) {
        let Some(name) = self.infrastructure() else { return self.service_happens(at) };
        let lasts = self.dice.seconds(10, 600);
        let late = self.dice.seconds(1, 300);
        let happening = match self.dice.roll(9) {
            0 => Happening::Infrastructure(name, InfrastructureFault::Down, lasts),
            1 => Happening::Infrastructure(name, InfrastructureFault::Silent, lasts),
            2 => Happening::Infrastructure(name, InfrastructureFault::Slow(late), lasts),
            3 => Happening::Infrastructure(name, InfrastructureFault::Errors, lasts),
            4 => Happening::Operation(name, Fate::AnswerLost),
            5 => Happening::Operation(name, Fate::AnsweredTwice),
            6 => Happening::Operation(name, Fate::AnsweredLate(late)),
            7 => Happening::Operation(name, Fate::DoneLate(late)),
            _ => Happening::Operation(name, Fate::Refused),
        };
        self.add(at, happening);
    }

    fn controller_happens(&mut self, at: Duration) {
        let fault = match self.dice.roll(9) {
            8 => {
                let lasts = self.dice.seconds(20, 400);
                return self.add(at, Happening::Cut(Side::Canaries, lasts));
            }
            0 | 1 => ControllerFault::Crash { after: 0, down: self.dice.seconds(1, 90) },
            2 | 3 => ControllerFault::Crash {
                after: 1 + self.dice.roll(40) as u32,
                down: self.dice.seconds(1, 90),
            },
            4 => ControllerFault::JournalUnwritable(self.dice.seconds(2, 200)),
            5 => ControllerFault::Gap(self.dice.between(Duration::from_secs(1), Duration::from_secs(90))),
            6 => {
                let lag = self.dice.between(Duration::from_millis(100), Duration::from_secs(2));
                ControllerFault::Lag(lag, self.dice.seconds(1, 60))
            }
            _ => ControllerFault::ClockSet(self.dice.roll(7200) as i64 - 3600),
        };
        self.add(at, Happening::Controller(fault));
    }

    fn operator_happens(&mut self, at: Duration) {
        let place = self.machine();
        let (name, assembly) =
            (place.deployable.clone(), (!self.dice.one_in(3)).then_some(place.assembly.clone()));
        let lasts = self.dice.seconds(20, 900);
        let (order, end) = match self.dice.roll(11) {
            // Not another throw: the worlds of before stay what they were.
            0 if lasts.as_millis() % 5 < 2 => (Operator::PowerOff(name.clone()), Some(Operator::Start(name))),
            0 => (Operator::Stop(name.clone()), Some(Operator::Start(name))),
            1 => (Operator::Start(name), None),
            2 | 3 => (Operator::Maintenance(name, assembly, lasts), None),
            4 => {
                let on = Operator::Maintenance(name.clone(), assembly.clone(), lasts * 2);
                (on, Some(Operator::MaintenanceOff(name, assembly)))
            }
            5 => (Operator::Pause(None), Some(Operator::Resume(None))),
            6 => (Operator::Pause(Some(name.clone())), Some(Operator::Resume(Some(name)))),
            7 => (Operator::Recover(place, self.by_hand()), None),
            8 => (Operator::ConfirmFenced(place), None),
            _ => (Operator::Retry(name, assembly), None),
        };
        self.add(at, Happening::Operator(order));
        if let Some(end) = end.filter(|_| !self.dice.one_in(6)) {
            self.add(at + lasts, Happening::Operator(end));
        }
    }

    /// A rung that a person may order.
    fn by_hand(&mut self) -> Option<Rung> {
        self.dice.of(&[
            None,
            Some(Rung::RebootSoft),
            Some(Rung::RebootHard),
            Some(Rung::Rebuild),
            Some(Rung::Recreate),
            Some(Rung::RestartDeployable),
            Some(Rung::Relocate),
        ])
    }

    fn definition_happens(&mut self, at: Duration) {
        let place = self.dice.place(self.texts.len());
        let (text, definition) = (&self.texts[place], Arc::clone(&self.fleet.definitions[place]));
        let changed = match self.dice.roll(4) {
            0 => {
                let more = format!(
                    "{text}\n[assemblies.zz]\naddress = \"192.0.9.{}\"\nservices.z.systemd = \"z.service\"\n",
                    place + 1
                );
                parse(&more)
            }
            1 => parse(&text.replacen("timeout = \"5s\"", "timeout = \"3s\"", 1).replacen(
                "[escalation]\n",
                "[escalation]\n# changed\n",
                1,
            )),
            2 => parse(
                &text
                    .replace("failures = 3", "failures = 2")
                    .replace("retry_after = \"10m\"", "retry_after = \"5m\""),
            ),
            _ => {
                let back = at + self.dice.seconds(5, 600);
                self.add(back, Happening::Define(Arc::clone(&definition)));
                return self.add(at, Happening::Remove(definition.name.clone()));
            }
        };
        self.add(at, Happening::Define(changed));
        if self.dice.one_in(2) {
            let back = at + self.dice.seconds(5, 600);
            self.add(back, Happening::Define(definition));
        }
    }

    fn disaster(&mut self, at: Duration) {
        let lasts = self.dice.seconds(20, 900);
        let Some(domain) = self.domain() else {
            return self.add(at, Happening::Cut(Side::Monitor, lasts));
        };
        let happening = match self.dice.roll(9) {
            0 => Happening::Domain(domain, MachineFault::PowerLoss),
            1 => Happening::Domain(domain, MachineFault::Hang),
            2 => Happening::Cut(Side::Domain(domain), lasts),
            3 => Happening::Cut(Side::Monitor, lasts),
            4 => Happening::Cut(Side::AllMachines, lasts),
            5 => {
                // Something that is broken while cpe does not trust itself.
                let place = self.machine();
                self.add(at + Duration::from_secs(15), Happening::Machine(place, MachineFault::Hang));
                Happening::Cut(Side::Canaries, lasts)
            }
            // Too many at once, and not one domain.
            6 | 7 => {
                for definition in &self.fleet.definitions.clone() {
                    for assembly in &definition.assemblies {
                        if self.dice.one_in(3) {
                            continue;
                        }
                        let (deployable, assembly) = (definition.name.clone(), assembly.name.clone());
                        let place = Place { deployable, assembly, service: None };
                        let spread = self.dice.seconds(0, 40);
                        let fault = self.dice.of(&[MachineFault::PowerLoss, MachineFault::Hang]);
                        self.add(at + spread, Happening::Machine(place, fault));
                    }
                }
                return;
            }
            _ => {
                // One that does not come back breaks a slow start.
                let place = self.machine();
                self.add(at, Happening::Machine(place, MachineFault::NeverBoots));
                Happening::Domain(domain, MachineFault::PowerLoss)
            }
        };
        self.add(at, happening);
    }
}
