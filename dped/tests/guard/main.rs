//! policy.md section 6, rule by rule: self-trust, held domains, the fleet breaker and slow start. Each test names the rule that it holds.
//! Budgets, leases and path evidence are in `rules/guard.rs`.

mod evacuation;
mod exact;
mod holds;
mod restart;
mod small;
mod trust;

use std::time::Duration;

use cpe_proto::decision::{Answer, ChannelFact, Facts, Refusal, Value, Verdict};
use cpe_proto::id::{ActionId, AssemblyIndex, Name};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::time::Timestamp;
use dped::{Evacuate, Guard, GuardOutput, GuardSettings, HealthClass, Place, Request};

/// A guard, and the fleet around it: each machine is a deployable of its own, named `az1-0`, `az1-1` ... after its domain.
struct Yard {
    guard: Guard,
    second: u64,
    actions: u64,
    /// What it said, oldest first.
    said: Vec<String>,
    told: Vec<String>,
    /// What it wanted evacuated.
    evacuated: Vec<Evacuate>,
}

impl Yard {
    /// Domains of so many healthy machines each.
    fn of(domains: &[(&str, usize)]) -> Self {
        let guard = Guard::new(GuardSettings::default());
        let mut yard =
            Self { guard, second: 0, actions: 0, said: Vec::new(), told: Vec::new(), evacuated: Vec::new() };
        for (domain, count) in domains {
            for index in 0..*count {
                yard.is(domain, index, HealthClass::Healthy);
            }
        }
        // What is first seen down within a window of the start counts as lost; here it is long after it.
        yard.pass(300);
        yard
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_boot(Duration::from_secs(10_000 + self.second))
    }

    /// Lets seconds pass, with a tick in each.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second += 1;
            self.guard.handle_timeout(self.now());
            self.listen();
        }
    }

    fn listen(&mut self) {
        while let Some(output) = self.guard.poll_output() {
            match output {
                GuardOutput::BreakerChanged { reason, .. } => self.said.push(reason.into()),
                GuardOutput::Notify { message } => self.told.push(message.into()),
                GuardOutput::Evacuate(evacuate) => self.evacuated.push(evacuate),
            }
        }
    }

    fn is(&mut self, domain: &str, index: usize, class: HealthClass) {
        // A domain called "-" is none.
        let domains = if domain == "-" { vec![] } else { vec![name(domain)] };
        let now = self.now();
        self.guard.health(&machine(domain, index), AssemblyIndex(0), &domains, class, now);
        self.listen();
    }

    fn lose(&mut self, domain: &str, machines: std::ops::Range<usize>) {
        for index in machines {
            self.is(domain, index, HealthClass::Left);
        }
    }

    /// Asks for a reboot of a machine that is silent.
    fn reboot(&mut self, domain: &str, index: usize) -> Answer {
        self.ask(domain, index, silent()).0
    }

    fn ask(&mut self, domain: &str, index: usize, request: Request) -> (Answer, Vec<Value>) {
        self.actions += 1;
        let request = Request { action: ActionId(self.actions), ..request };
        let domains = if domain == "-" { vec![] } else { vec![name(domain)] };
        let place = Place { infrastructure: Some(name("prod")), domains: &domains };
        let now = self.now();
        let answer = self.guard.ask(&machine(domain, index), &request, &place, now);
        self.listen();
        answer
    }

    /// The repair that was admitted last, of that machine, is over; healthy or not.
    fn ends(&mut self, domain: &str, index: usize, healthy: bool) {
        let now = self.now();
        for action in 0..=self.actions {
            self.guard.release(&machine(domain, index), ActionId(action), now);
        }
        if healthy {
            self.is(domain, index, HealthClass::Healthy);
        }
    }

    /// Reboots it, and it is healthy.
    fn repaired(&mut self, domain: &str, index: usize) {
        assert_eq!(self.reboot(domain, index), Answer::Admitted, "{domain}-{index}");
        self.ends(domain, index, true);
    }

    fn held(&self, domain: &str) -> bool {
        self.guard.held_domain(&[name(domain)]).is_some()
    }
}

/// A machine that is hung: everything about it rests on absence.
fn silent() -> Request {
    Request {
        action: ActionId(0),
        rung: Some(Rung::RebootHard),
        assembly: AssemblyIndex(0),
        service: None,
        verdict: Verdict::Hung,
        facts: Facts {
            self_trusted: true,
            held_domain: None,
            instance: Some(InstanceState::Active),
            ordered: false,
            channel: ChannelFact::Dead(ChannelFailure::TimedOut),
            live_witness: false,
            path_proven: true,
        },
        evidence_age: Duration::from_secs(1),
        part_of: None,
        dated_retry: false,
        evidence_age_max: Duration::from_secs(4),
        give_up: Duration::from_secs(900),
    }
}

/// A unit that is down on a machine that answers: positive evidence.
fn unit_down() -> Request {
    let facts = Facts { channel: ChannelFact::Healthy, ..silent().facts };
    Request { rung: Some(Rung::RestartService), verdict: Verdict::PerService, facts, ..silent() }
}

const HELD: Answer = Answer::Refused(Refusal::DomainHeld);
const OPEN: Answer = Answer::Refused(Refusal::BreakerOpen);
const UNTRUSTED: Answer = Answer::Refused(Refusal::Untrusted);

fn machine(domain: &str, index: usize) -> Name {
    if domain == "-" { name(&format!("lone-{index}")) } else { name(&format!("{domain}-{index}")) }
}

fn name(text: &str) -> Name {
    match Name::parse(text) {
        Ok(name) => name,
        Err(error) => panic!("{error}"),
    }
}
