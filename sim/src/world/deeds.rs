//! Actions, as `cpe/src/actions.rs` does them: the intent is durable first, then the deed, then what came of it. Operations of an
//! infrastructure take time, and their answers can be lost, late or doubled. What they do to machines is here too.

use std::sync::Arc;
use std::time::Duration;

use cpe_proto::decision::Refusal;
use cpe_proto::id::{ActionId, Name};
use cpe_proto::infrastructure::{InstanceState, Operation, Owner};
use cpe_proto::rung::Rung;
use cpe_proto::time::Timestamp;
use dped::audit::power_word;
use dped::{Act, Action, ActionOutcome, Switch};

use super::happening::Fate;
use super::journal::{Begin, Record};
use super::machine::{Power, Running, Started, Who};
use super::queue::{Deed, Item, Message, OnUnit, Operate};
use super::setup::wanted;
use super::{What, World};

/// What rests on a lie is done this soon after it.
const LIE_LASTS: Duration = Duration::from_secs(600);

/// An intent is durable, and what it says is sent, this soon after it was decided.
const SENT_WITHIN: Duration = Duration::from_secs(5);

impl World {
    pub(super) fn act(&mut self, member: usize, action: Action) {
        self.guard_hears(member, &action);
        if matches!(action.act, Act::Machine(Rung::Recreate | Rung::Relocate)) {
            return self.act_create(member, action);
        }
        let Some(it) = self.member(member) else { return };
        let intent = action.intent(it.engine.definition());
        self.judge(member, &action);
        let word = match &intent.service {
            Some(service) => format!("{} {}/{}/{service}", intent.act, intent.deployable, intent.assembly),
            None => format!("{} {}/{}", intent.act, intent.deployable, intent.assembly),
        };
        self.say(What::Did(format!("{word} !{}", action.action)));
        if let Some(rung) = intent.rung {
            self.coverage.count("rung", rung.as_str());
        }
        if let Act::Power(switch) = action.act {
            self.coverage.count("power", power_word(switch));
        }
        if let (Act::RestartService(service), Some(it)) = (action.act, self.member(member)) {
            let kind = it.engine.definition().service(service).check.kind();
            self.coverage.count("restart of", kind);
        }
        if let Some(it) = self.member_mut(member) {
            it.acting.insert(action.action);
            let with = wanted(it, &action);
            it.acts.insert(action.action, (action, with));
        }
        let record = Record::Intent(intent, self.now);
        self.keep(record);
    }

    /// The second step of what was admitted: nothing strands it half way, so that it is held against nothing but the machine itself.
    fn act_create(&mut self, member: usize, action: Action) {
        let name = self.files[member].0.clone();
        let Some(it) = self.member(member) else { return };
        let assembly = it.engine.definition().assembly(action.assembly).name.clone();
        self.say(What::Did(format!("create {name}/{assembly} !{}", action.action)));
        let id = action.action;
        if let Some(it) = self.member_mut(member) {
            it.acting.insert(id);
            it.acts.insert(id, (action, None));
        }
        self.keep(Record::Creation(name, id, self.now));
    }

    /// The journal writes what waits. What is durable now is begun, what cannot be written is not.
    pub(super) fn commit(&mut self, life: u32) {
        if life != self.process.life {
            return;
        }
        if self.process.stands_still(self.now) {
            return self.queue.push(self.process.still_until, Item::Commit(life));
        }
        let writable = self.journal.writable(self.now);
        self.process.guard.set_journal_writable(writable);
        if !writable {
            for (name, action, begin) in self.journal.fail() {
                let (why, detail) = (Refusal::Journal, "the journal cannot be written".into());
                self.answer(life, &name, (action, begin), ActionOutcome::NotBegun { why, detail });
            }
            return self.queue.push(self.now.after(Duration::from_secs(1)), Item::Commit(life));
        }
        for (name, action, begin) in self.journal.commit() {
            if begin == Begin::Refused {
                let detail = "its creation was begun before cpe ended".into();
                self.answer(life, &name, (action, begin), ActionOutcome::Unresolved { detail });
                continue;
            }
            let member = self.files.iter().position(|(known, _)| *known == name);
            if let Some(member) = member {
                self.begin(member, action, begin);
            }
        }
    }

    fn answer(&mut self, life: u32, name: &Name, (action, begin): (ActionId, Begin), outcome: ActionOutcome) {
        let Some(member) = self.files.iter().position(|(known, _)| known == name) else { return };
        match begin {
            Begin::Fence => self.answer_fence_at(self.now, life, member, action, outcome),
            _ => self.answer_at(self.now, life, member, action, outcome),
        }
    }

    fn answer_fence_at(
        &mut self,
        at: Timestamp,
        life: u32,
        member: usize,
        action: ActionId,
        outcome: ActionOutcome,
    ) {
        let message = Box::new(Message::Fenced { member, action, outcome });
        self.queue.push(at, Item::Tell { life, natural: at, message });
    }

    /// The outcome of an operation, as the act that it belongs to is answered.
    fn answer_operation(&mut self, at: Timestamp, operate: &Operate, outcome: ActionOutcome) {
        let (life, member, action) = (operate.life, operate.member, operate.action);
        let makes_disk =
            matches!(operate.operation, Operation::Rebuild | Operation::Create | Operation::Relocate);
        if makes_disk && matches!(outcome, ActionOutcome::Unresolved { .. }) {
            // Who hears this cannot know which disk it has.
            self.machines[operate.machine].units.iter_mut().for_each(|unit| unit.set_up.by = None);
        }
        match operate.operation {
            Operation::Stop if operate.fences => {
                self.answer_fence_at(at, life, member, action, outcome);
            }
            _ => self.answer_at(at, life, member, action, outcome),
        }
    }

    fn answer_at(
        &mut self,
        at: Timestamp,
        life: u32,
        member: usize,
        action: ActionId,
        outcome: ActionOutcome,
    ) {
        if matches!(outcome, ActionOutcome::NotBegun { .. }) {
            self.truth.once.not_begun(&self.files[member].0, action);
        }
        let message = Box::new(Message::Acted { member, action, outcome });
        self.queue.push(at, Item::Tell { life, natural: at, message });
    }

    fn begin(&mut self, member: usize, id: ActionId, begin: Begin) {
        let life = self.process.life;
        if !self.truth.begins(member, id, begin == Begin::Creation) {
            self.broken(format!("{} !{id}: begun twice", self.files[member].0));
        }
        self.pace_restart(member, id);
        let taken = self.body_mut(member).and_then(|it| it.acts.remove(&id));
        let Some((action, with)) = taken else { return };
        let until = self.now.after(action.timeout);
        let Some(it) = self.body(member) else { return };
        let Some(machine) = it.machines.get(usize::from(action.assembly.0)).copied() else {
            let detail = "it is not defined any more".into();
            let name = self.files[member].0.clone();
            return self.answer(
                life,
                &name,
                (id, begin),
                ActionOutcome::NotBegun { why: Refusal::NotStarted, detail },
            );
        };
        let (service, deed) = match action.act {
            Act::Fence(_) | Act::Machine(_) | Act::Power(_) => {
                let operation = match action.act {
                    Act::Machine(Rung::Start) => Operation::Start,
                    Act::Machine(Rung::RebootSoft) => Operation::RebootSoft,
                    Act::Machine(Rung::RebootHard) => Operation::RebootHard,
                    Act::Machine(Rung::Rebuild) => Operation::Rebuild,
                    // What is started again, and what is replaced, is confirmed off first.
                    Act::Machine(Rung::RestartDeployable) => Operation::Stop,
                    Act::Machine(Rung::Relocate) => Operation::Relocate,
                    Act::Machine(_) => Operation::Create,
                    Act::Power(Switch::On) => Operation::Start,
                    _ => Operation::Stop,
                };
                let then = matches!(action.act, Act::Machine(Rung::RestartDeployable));
                let zone = it.engine.zone(action.assembly).cloned();
                let operate = Operate {
                    zone,
                    fences: matches!(action.act, Act::Fence(_)),
                    then_starts: then,
                    life,
                    member,
                    action: id,
                    machine,
                    operation,
                    until,
                    fate: None,
                    fenced: action.fenced,
                };
                return self.send_operation(operate);
            }
            Act::RestartService(service) => (service, Deed::Restart),
            Act::StartService(service) => (service, Deed::Start),
            Act::Reconfigure(service) => (service, Deed::Reconfigure),
            Act::StopService(service) => (service, Deed::Stop),
        };
        let Some((machine, unit)) = it.units.get(usize::from(service.0)).copied() else {
            let detail = "it is not defined any more".into();
            return self.answer_at(
                self.now,
                life,
                member,
                id,
                ActionOutcome::NotBegun { why: Refusal::NotStarted, detail },
            );
        };
        let takes = Duration::from_millis(100 + self.dice.roll(900));
        let act = OnUnit { life, member, action: id, machine, unit, deed, with, until };
        self.queue.push(self.now.after(takes), Item::OnUnit(Box::new(act)));
    }

    /// An act on a unit takes effect, if its machine can still be reached.
    pub(super) fn on_unit(&mut self, act: &OnUnit) {
        let OnUnit { life, member, action, machine, unit, deed, until, .. } = *act;
        if life != self.process.life {
            self.truth.done_unseen(member, action);
        }
        if !self.answers(machine) || self.machines[machine].units.len() <= unit {
            let detail = "the session was lost".into();
            return self.answer_at(
                until.max(self.now),
                life,
                member,
                action,
                ActionOutcome::Unresolved { detail },
            );
        }
        let worked = if deed == Deed::Stop {
            // One that does not run is stopped.
            self.machines[machine].units[unit].end(Running::Stopped);
            self.units_fall(machine, unit);
            self.note();
            true
        } else {
            self.sets_up((machine, unit), (member, action), act.with.clone(), deed == Deed::Reconfigure);
            // What is configured has what it is to run with; whether it runs, probes say.
            self.start_unit(machine, unit) || deed == Deed::Reconfigure
        };
        let it = &mut self.machines[machine].units[unit];
        it.started = Some(Started { by: (life, member, action), at: self.now, life: it.life });
        let outcome = if worked {
            ActionOutcome::Done { detail: "".into() }
        } else {
            ActionOutcome::Failed { detail: "exit status 1".into() }
        };
        self.answer_at(self.now, life, member, action, outcome);
    }

    /// A start or restart of a unit; whether it runs then.
    pub(super) fn start_unit(&mut self, machine: usize, unit: usize) -> bool {
        let needs_run = self.needs_run(machine, unit);
        let it = &mut self.machines[machine].units[unit];
        let started = needs_run && it.start();
        if started {
            it.hangs_until = Timestamp::ZERO;
            let (life, dies_after) = (it.life, it.dies_after);
            if let Some(after) = dies_after {
                self.queue.push(self.now.after(after), Item::Dies(machine, unit, life));
            }
        } else if it.running == Running::Active {
            it.end(Running::Failed);
        }
        self.note();
        started
    }

    // ---- operations of an infrastructure

    fn send_operation(&mut self, mut operate: Operate) {
        let now = self.now;
        let name = self.infrastructure_of(operate.member);
        let reachable = now >= self.infrastructures_cut;
        let latest = self.latest(&operate);
        let Some(infrastructure) = name.and_then(|name| self.infrastructures.get_mut(&name)) else {
            let detail = "the deployable has no infrastructure".into();
            return self.answer_operation(now, &operate, ActionOutcome::Failed { detail });
        };
        operate.fate = infrastructure.fates.pop_front();
        let until = operate.until;
        let soon = now.after(Duration::from_secs(1));
        if now < infrastructure.silent_until || !reachable {
            let detail = "no answer in time".into();
            return self.answer_operation(until, &operate, ActionOutcome::Unresolved { detail });
        }
        if now < infrastructure.down_until {
            // Its program cannot even be started, or its API refuses the connection.
            let detail: Box<str> = "it does not answer".into();
            let outcome = match operate.action.0 % 2 {
                0 => ActionOutcome::NotBegun { why: Refusal::NotStarted, detail },
                _ => ActionOutcome::Unresolved { detail },
            };
            return self.answer_operation(soon, &operate, outcome);
        }
        if operate.fate == Some(Fate::Refused) && operate.action.0.is_multiple_of(2) {
            // As many of its program run as may run at once.
            let outcome =
                ActionOutcome::NotBegun { why: Refusal::NotStarted, detail: "it is too busy".into() };
            return self.answer_operation(soon, &operate, outcome);
        }
        if now < infrastructure.errors_until || operate.fate == Some(Fate::Refused) {
            let detail = "infrastructure: error refused".into();
            return self.answer_operation(soon, &operate, ActionOutcome::Failed { detail });
        }
        let late = match operate.fate {
            Some(Fate::DoneLate(late)) => late,
            _ => Duration::ZERO,
        };
        let done = now.after(infrastructure.takes(now)).after(late).min(latest);
        if done > until {
            let detail = "no answer in time".into();
            self.answer_operation(until, &operate, ActionOutcome::Unresolved { detail });
        }
        self.queue.push(done, Item::Operate(Box::new(operate)));
    }

    /// Nothing is done later than its definition says that it may be: the operator knows the slowest of his infrastructure.
    fn latest(&self, operate: &Operate) -> Timestamp {
        let timing = self.files[operate.member].1.as_ref().map(|it| it.timing).unwrap_or_default();
        let after = timing.action_give_up.saturating_sub(timing.machine_action_timeout + SENT_WITHIN);
        operate.until.after(after)
    }

    /// As cpe: the guard hears when what it admitted is begun.
    fn guard_hears(&mut self, member: usize, action: &Action) {
        let now = self.boot_time();
        let Some(it) = self.member(member) else { return };
        let definition = Arc::clone(it.engine.definition());
        let give_up = definition.timing.action_give_up;
        self.process.guard.begins(&definition.name, action.action, give_up, now);
    }

    fn infrastructure_of(&self, member: usize) -> Option<Name> {
        self.files[member].1.as_ref().and_then(|definition| definition.infrastructure.clone())
    }

    /// An operation takes effect, whoever still waits for it.
    pub(super) fn operate(&mut self, operate: &Operate) {
        let state = self.take_effect(operate.machine, operate.operation, operate.fenced);
        if let (Operation::Create | Operation::Relocate, Some(zone)) = (operate.operation, &operate.zone) {
            // What it still shares with its first place nobody knows.
            let domains = &mut self.machines[operate.machine].domains;
            if !domains.contains(zone) {
                domains.push(zone.clone());
            }
        }
        let waits = operate.life == self.process.life && self.now <= operate.until;
        if !waits {
            self.truth.done_unseen(operate.member, operate.action);
            // Of a disk that is made anew when nobody waits for it any more nothing tells, and it may be set up to be sure.
            for unit in &mut self.machines[operate.machine].units {
                (unit.set_up.fresh, unit.set_up.by) = (false, None);
            }
            return;
        }
        self.machines[operate.machine].booted_by = Some((operate.member, operate.action));
        let off = matches!(state, InstanceState::Off | InstanceState::Gone);
        if operate.then_starts && operate.operation == Operation::Stop && off {
            return self.send_operation(Operate { operation: Operation::Start, ..operate.clone() });
        }
        let detail: Box<str> = format!("infrastructure: {state}").into();
        let outcome = match (operate.operation, state) {
            (Operation::Stop, InstanceState::Off | InstanceState::Gone) => ActionOutcome::Done { detail },
            (Operation::Stop, _) if operate.fenced && !operate.then_starts => ActionOutcome::Done { detail },
            (Operation::Stop, _) => {
                let detail = format!("its instance is {state} after its stop, so nothing more was done");
                ActionOutcome::Failed { detail: detail.into() }
            }
            (_, InstanceState::Active | InstanceState::Changing) => ActionOutcome::Done { detail },
            (_, InstanceState::Off | InstanceState::Error | InstanceState::Gone) => {
                ActionOutcome::Failed { detail }
            }
            (_, InstanceState::Unknown) => ActionOutcome::Unresolved { detail },
        };
        let lost = || ActionOutcome::Unresolved { detail: "no answer in time".into() };
        match operate.fate {
            Some(Fate::AnswerLost) => self.answer_operation(operate.until, operate, lost()),
            Some(Fate::AnsweredTwice) => {
                self.answer_operation(self.now, operate, outcome.clone());
                self.answer_operation(self.now.after(Duration::from_secs(1)), operate, outcome);
            }
            Some(Fate::AnsweredLate(late)) => {
                let at = self.now.after(late);
                if at > operate.until {
                    self.answer_operation(operate.until, operate, lost());
                }
                self.answer_operation(at, operate, outcome);
            }
            _ if operate.operation == Operation::Stop => self.answer_operation(self.now, operate, outcome),
            _ => self.conclude(operate, state, outcome),
        }
    }

    /// As cpe: the state that the answer has is told before the outcome.
    fn conclude(&mut self, operate: &Operate, state: InstanceState, outcome: ActionOutcome) {
        let (now, life, member) = (self.now, operate.life, operate.member);
        let machine = &self.machines[operate.machine];
        let assembly = machine.assembly.clone();
        let named = self.body(member).and_then(|it| {
            let definition = it.engine.definition();
            let index = definition.assembly_named(assembly.as_str())?;
            Some(matches!(definition.assembly(index).machine, cpe_proto::definition::Machine::Address(_)))
        });
        let address = (named == Some(false)).then(|| machine.address(operate.machine));
        let instance = machine.instance;
        let owner = Owner::NotSaid;
        let message =
            Box::new(Message::Seen { member, assembly, state, address, instance, ordered: false, owner });
        self.queue.push(now, Item::Tell { life, natural: now, message });
        self.answer_at(now, life, member, operate.action, outcome);
    }

    /// What an operation does to a machine, and the state that the infrastructure answers.
    fn take_effect(&mut self, machine: usize, operation: Operation, fenced: bool) -> InstanceState {
        let it = &mut self.machines[machine];
        let (power, frozen) = (it.power, it.frozen);
        // What an infrastructure says of itself that is off or gone cannot be known better.
        let down = |(state, until)| {
            matches!(state, InstanceState::Off | InstanceState::Gone) && self.now.since(until) <= LIE_LASTS
        };
        let lied = it.claims.is_some_and(down);
        match (operation, power) {
            // A person's word is believed.
            (Operation::Create | Operation::Relocate, Power::On | Power::Booting) if !fenced && !lied => {
                let what = format!("a second instance of {} was made while the first one runs", it.label());
                self.broken(what);
                return InstanceState::Error;
            }
            (Operation::Create | Operation::Relocate, _) => {
                it.instance += 1;
                it.renew_disk();
                self.boot(machine);
            }
            (Operation::Stop, Power::Gone) => return InstanceState::Gone,
            (Operation::Stop, _) => {
                it.power_down(Power::Off);
                it.stopped_by = None;
            }
            (_, Power::Gone) => return InstanceState::Gone,
            (Operation::Start, Power::Off) => self.boot(machine),
            (Operation::Start, _) => {}
            // Nobody is there who could hear it.
            (Operation::RebootSoft, Power::Off) => return InstanceState::Off,
            (Operation::RebootSoft, _) if frozen => return InstanceState::Active,
            (Operation::RebootSoft | Operation::RebootHard, _) => self.boot(machine),
            (Operation::Rebuild, _) => {
                it.renew_disk();
                self.boot(machine);
            }
            _ => {}
        }
        self.note();
        self.machines[machine].instance_state()
    }

    /// A machine comes up, after a while.
    pub(super) fn boot(&mut self, machine: usize) {
        let takes = self.boot + Duration::from_millis(self.dice.roll(5_000));
        let it = &mut self.machines[machine];
        if self.now < it.host_dead_until {
            return it.power_down(Power::Off);
        }
        it.power_down(Power::Booting);
        it.stopped_by = None;
        let boot = it.boot;
        self.queue.push(self.now.after(takes), Item::Boots(machine, boot));
    }

    pub(super) fn boots(&mut self, machine: usize, boot: u32) {
        let it = &mut self.machines[machine];
        if it.boot != boot || it.power != Power::Booting {
            return;
        }
        (it.power, it.frozen) = (Power::On, it.never_boots);
        if it.frozen {
            return self.note();
        }
        for unit in 0..self.machines[machine].units.len() {
            if self.machines[machine].units[unit].enabled {
                self.start_unit(machine, unit);
            }
        }
        self.note();
    }

    /// Whether a machine is down because somebody wanted it so.
    pub(super) fn is_stopped_on_purpose(&self, machine: usize) -> Option<Who> {
        self.machines[machine].stopped_by
    }
}
