//! Random worlds for an hour each: faults, lost, late and doubled outcomes, refusals, operators, restarts of cpe. What may never happen is checked at
//! each output (`rules/site/mod.rs`); then the faults stop, and everything must be healthy again within a bound. `CPE_SEEDS=N` sets how many
//! worlds; `CPE_SEED=N` runs one and prints its story.

#[path = "rules/site/mod.rs"]
mod site;

use cpe_proto::decision::Refusal;
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::{Desired, Order};
use site::{Machine, Outcome, Site, Unit, seconds};

/// How many worlds a plain `cargo test` runs.
const SEEDS: u64 = 60;

/// From the end of all faults until everything is healthy: `retry_after` of the definitions below, twice, since an attempt may be under
/// way that cannot work any more, and what a machine's recovery with all its waits takes.
const HEALED_WITHIN: f64 = 2.0 * 300.0 + 1500.0;

#[test]
#[allow(clippy::disallowed_methods)] // the number of seeds is the only thing that a test takes from outside
fn no_world_makes_the_engine_break_a_rule_and_every_world_heals() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("CPE_SEED") {
        panic!("{}", live(seed));
    }
    let seeds = number("CPE_SEEDS").unwrap_or(SEEDS);
    let mut acts = 0;
    for seed in 0..seeds {
        let story = std::panic::catch_unwind(|| live(seed));
        let Ok(story) = story else { panic!("seed {seed} failed; CPE_SEED={seed} runs it alone") };
        acts += story.lines().filter(|line| line.contains("  do  ")).count();
    }
    assert!(
        acts as u64 > seeds * 5,
        "only {acts} actions in {seeds} worlds: they are too quiet to show anything"
    );
}

/// One world from its first fault to its healing; its whole story.
fn live(seed: u64) -> String {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..8 {
        dice.roll(2);
    }
    let mut set_ups = Dice(seed.wrapping_mul(0xd134_2543_de82_ef95) | 1);
    let definition = set_ups.with_set_ups(&dice.definition());
    let mut site = Site::seeded(&definition, seed, Desired::Running);
    if dice.one_in(3) {
        site.lossy = Some(seed | 1);
    }
    site.canary = !dice.one_in(4);
    let more = format!(
        "{definition}\n[assemblies.zz]\naddress = \"192.0.2.99\"\nservices.z.systemd = \"z.service\"\n"
    );
    while site.now.since_boot() < seconds(1000.0 + 3600.0) {
        if dice.one_in(40) {
            site.redefine(if dice.one_in(2) { &more } else { &definition });
        }
        if dice.one_in(25) {
            let down = dice.within(120.0);
            site.restart(down);
        }
        dice.fault(&mut site);
        set_ups.move_hosts(&mut site);
        site.run(dice.within(60.0));
    }
    assert_eq!(site.unwritten, [], "actions that no snapshot knew\n{}", site.transcript());
    heal(&mut site);
    if definition.contains("observe") {
        return site.transcript();
    }
    site.until("everything is healthy after the faults", HEALED_WITHIN, |site| {
        site.view().services.iter().all(|service| service.state == State::Healthy)
            && site.view().assemblies.iter().all(|assembly| assembly.state == State::Healthy)
    });
    site.until("everybody knows the addresses that there are", HEALED_WITHIN, |site| {
        let definition = site.engine.definition();
        let all = definition.assembly_indices().flat_map(|index| definition.services_of(index));
        all.into_iter().all(|service| {
            let known = site.set_up.get(&site.service_name(service)).cloned().flatten();
            known.is_none()
                || definition.service(service).configure.is_none()
                || known == site.engine.rendered(service)
        })
    });
    for event in site.events.iter().filter(|event| event.to == Some(State::Exhausted)) {
        let Some(assembly) = &event.assembly else { continue };
        let told = |(_, _, message): &(_, _, String)| {
            message.contains("exhausted") && message.contains(assembly.as_str())
        };
        assert!(site.notices.iter().any(told), "{assembly} was exhausted in silence\n{}", site.transcript());
    }
    site.transcript()
}

/// Faults stop: nothing is broken any more, but what is down stays down until somebody starts it.
fn heal(site: &mut Site) {
    site.lossy = None;
    site.lagging = false;
    site.canary = true;
    site.self_trusted = true;
    (site.held, site.deaf, site.refuses) = (None, false, None);
    site.guard.set_journal_writable(true);
    site.outcomes.clear();
    site.pause(false);
    site.order(Order::FleetPause { on: false });
    for index in 0..site.hosts.len() {
        let index = cpe_proto::id::AssemblyIndex(index as u16);
        site.order(Order::Maintenance { assembly: Some(index), on: false, reason: "".into() });
    }
    site.maintenance(false);
    site.order(Order::Start);
    let infrastructure = site.capabilities.is_some();
    let definition = site.engine.definition().clone();
    for (host, assembly) in site.hosts.iter_mut().zip(&definition.assemblies) {
        (host.way, host.dark, host.claims, host.ordered) = (None, false, None, false);
        // Without an infrastructure, and for what may not be recreated, a person sees to the machine.
        let capped = assembly.max_rung < Rung::RebootHard && host.machine == Machine::Frozen;
        if !infrastructure || capped || host.machine == Machine::Gone {
            host.machine = Machine::Up;
        }
    }
    for (guest, service) in site.guests.iter_mut().zip(&definition.services) {
        (guest.broken, guest.dies_after, guest.dies_at, guest.enabled) = (false, None, None, true);
        if service.restart.is_none() || !matches!(guest.unit, Unit::Running | Unit::Stopped | Unit::Failed) {
            guest.unit = Unit::Running;
        }
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.roll(chances) == 0
    }

    fn within(&mut self, span: f64) -> f64 {
        span * self.roll(1000) as f64 / 1000.0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len() as u64) as usize]
    }

    fn definition(&mut self) -> String {
        let infrastructure = if self.one_in(4) { "" } else { "infrastructure = \"prod\"" };
        let mode = if self.one_in(12) { "mode = \"observe\"" } else { "" };
        let escalation = match self.roll(4) {
            0 => "",
            1 => "[escalation]\nservice = { failures = 3, within = \"10m\" }",
            _ => {
                "[escalation]\nservice = { failures = 3, within = \"10m\" }\nassembly = { failures = 2, within = \"1h\" }"
            }
        };
        let interval = self.of(&["1s", "2s", "5s", "10s"]);
        let mut text = format!(
            "name = \"shop\"\n{infrastructure}\n{mode}\nprobe = {{ interval = \"{interval}\", startup_grace = \"45s\" }}\n\
             timing = {{ retry_after = \"5m\", action_give_up = \"8m\", machine_action_timeout = \"1m\", service_action_timeout = \"20s\" }}\n{escalation}\n"
        );
        let assemblies = 1 + self.roll(4);
        for index in 0..assemblies {
            let data = self.of(&["local", "volume", "none"]);
            let max_rung = self.of(&["reboot-soft", "reboot-hard", "rebuild", "recreate"]);
            let max_rung = if data == "local" { "reboot-hard" } else { max_rung };
            let after = if index > 0 && self.one_in(2) {
                format!("after = [\"a{}\"]", self.roll(index))
            } else {
                String::new()
            };
            text.push_str(&format!(
                "[assemblies.a{index}]\naddress = \"192.0.2.{}\"\ndata = \"{data}\"\nmax_rung = \"{max_rung}\"\n{after}\n",
                index + 1
            ));
            for service in 0..self.roll(3) {
                let kind = match self.roll(3) {
                    0 => {
                        format!("process = \"p{service}\"\nrestart = {{ systemd = \"s{service}.service\" }}")
                    }
                    1 if self.one_in(3) => format!("process = \"p{service}\""),
                    1 if self.one_in(2) => {
                        let kind = self.of(&[
                            "http = \"http://{OWN.address}/\"",
                            "tls = 443",
                            "tcp = 80\nfrom = \"controller\"",
                        ]);
                        let kind = kind.replace("OWN", &format!("a{index}"));
                        format!("{kind}\nrestart = {{ systemd = \"s{service}.service\" }}")
                    }
                    _ => format!("systemd = \"s{service}.service\""),
                };
                let after = if service > 0 { format!("after = [\"a{index}/s0\"]") } else { String::new() };
                text.push_str(&format!("[assemblies.a{index}.services.s{service}]\n{kind}\n{after}\n"));
            }
        }
        text
    }

    /// Some services are set up with the address of an earlier assembly.
    fn with_set_ups(&mut self, definition: &str) -> String {
        let mut text = String::new();
        for line in definition.lines() {
            text.push_str(line);
            text.push('\n');
            let index = line.strip_prefix("[assemblies.a").and_then(|rest| rest.split_once(".services."));
            let index = index.and_then(|(index, _)| index.parse::<u64>().ok()).filter(|index| *index > 0);
            if let Some(index) = index.filter(|_| self.one_in(3)) {
                let peer = self.roll(index);
                text.push_str(&format!(
                    "configure = \"/usr/sbin/set-up\"\nparameters = {{ peer = \"{{a{peer}.address}}\" }}\n"
                ));
            }
        }
        text
    }

    /// Machines come back elsewhere.
    fn move_hosts(&mut self, site: &mut Site) {
        let number = self.roll(250);
        let address = Some(format!("10.0.0.{number}").into());
        let host = self.roll(site.hosts.len() as u64) as usize;
        match self.roll(12) {
            0 => site.hosts[host].moves_to = address,
            1 => site.hosts[host].address = address,
            _ => {}
        }
    }

    fn fault(&mut self, site: &mut Site) {
        let hosts = site.hosts.len() as u64;
        let host = self.roll(hosts) as usize;
        match self.roll(20) {
            0..=5 => self.service_fault(site),
            6..=8 => self.machine_fault(site, host),
            9 => {
                site.hosts[host].way = self.of(&[
                    Some(ChannelFailure::TimedOut),
                    Some(ChannelFailure::Refused),
                    Some(ChannelFailure::AuthenticationFailed),
                    Some(ChannelFailure::HostKey),
                    Some(ChannelFailure::Protocol),
                    Some(ChannelFailure::NotTried),
                ]);
                site.hosts[host].dark =
                    site.hosts[host].way == Some(ChannelFailure::TimedOut) && self.one_in(2);
            }
            10 | 11 => {
                let well = &mut site.hosts[host];
                (well.way, well.dark, well.claims, well.ordered) = (None, false, None, false);
            }
            12 => {
                let claim = self.of(&[
                    InstanceState::Unknown,
                    InstanceState::Changing,
                    InstanceState::Error,
                    InstanceState::Off,
                ]);
                site.hosts[host].claims = Some(claim);
                site.hosts[host].ordered = self.one_in(2);
            }
            13 | 14 => {
                let wait = seconds(self.within(400.0));
                let outcome = self.of(&[
                    Outcome::Fails,
                    Outcome::Lost,
                    Outcome::Unresolved,
                    Outcome::NotBegun,
                    Outcome::Twice,
                    Outcome::Late(wait),
                ]);
                site.outcomes.push(outcome);
            }
            15 => {
                site.refuses = self.of(&[
                    None,
                    None,
                    Some(Refusal::Budget),
                    Some(Refusal::Journal),
                    Some(Refusal::BreakerOpen),
                ]);
            }
            16 => self.operator(site, host),
            17 => {
                (site.deaf, site.self_trusted, site.canary) =
                    (self.one_in(4), !self.one_in(4), !self.one_in(4));
            }
            18 => site.lagging = self.one_in(3),
            _ => {
                for guest in &mut site.guests {
                    if self.one_in(3) {
                        (guest.broken, guest.dies_after) = (false, None);
                    }
                }
            }
        }
    }

    fn service_fault(&mut self, site: &mut Site) {
        if site.guests.is_empty() {
            return;
        }
        let guests = site.guests.len() as u64;
        let guest = self.roll(guests) as usize;
        let dies = seconds(self.within(30.0));
        let guest = &mut site.guests[guest];
        match self.roll(6) {
            0 | 1 => guest.unit = self.of(&[Unit::Stopped, Unit::Failed]),
            2 => (guest.unit, guest.dies_after) = (Unit::Failed, Some(dies)),
            3 => (guest.unit, guest.broken) = (Unit::Failed, true),
            4 => {
                guest.unit =
                    self.of(&[Unit::Masked, Unit::NotFound, Unit::Activating, Unit::Odd, Unit::Hangs]);
            }
            _ => (guest.unit, guest.broken, guest.enabled) = (Unit::Running, false, self.one_in(2)),
        }
    }

    fn machine_fault(&mut self, site: &mut Site, host: usize) {
        let gone = site.capabilities.is_some() && self.one_in(3);
        let worst = if gone { Machine::Gone } else { Machine::Broken };
        let machine = self.of(&[Machine::Frozen, Machine::Frozen, Machine::Off, worst, Machine::Up]);
        site.hosts[host].machine = machine;
    }

    fn operator(&mut self, site: &mut Site, host: usize) {
        let assembly = (!self.one_in(3)).then_some(cpe_proto::id::AssemblyIndex(host as u16));
        let number = site.answers.len() as u64 + 1;
        let order = match self.roll(11) {
            0 => Order::Stop,
            1 | 2 => Order::Start,
            3 => Order::Maintenance { assembly, on: self.one_in(2), reason: "work".into() },
            4 => Order::Pause { on: self.one_in(3), reason: "looking".into() },
            5 => Order::Retry { assembly },
            6 => Order::FleetPause { on: self.one_in(3) },
            7 | 8 => {
                let assembly = cpe_proto::id::AssemblyIndex(host as u16);
                let services: Vec<_> = site.engine.definition().services_of(assembly).collect();
                let service =
                    if services.is_empty() || self.one_in(2) { None } else { Some(self.of(&services)) };
                let rung = self.of(&[
                    None,
                    Some(Rung::RebootSoft),
                    Some(Rung::RebootHard),
                    Some(Rung::Rebuild),
                    Some(Rung::Recreate),
                ]);
                let rung = rung.filter(|_| service.is_none());
                Order::Recover(dped::ByHand { order: number, assembly, service, rung, by: "ann".into() })
            }
            9 => {
                let assembly = cpe_proto::id::AssemblyIndex(host as u16);
                Order::ConfirmFenced { order: number, assembly, by: "ann".into() }
            }
            _ => {
                site.input(dped::Input::EvidenceVoid { reason: "a gap of 5 s".into() });
                return;
            }
        };
        site.order(order);
    }
}
