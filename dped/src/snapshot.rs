//! What outlives a restart (policy.md section 8): an engine written down, and taken up again. Counts, ladders, incidents and what is in
//! flight stay; evidence begins anew. The data is `cpe_proto::snapshot`'s; when it is to be written says [`Engine::take_persist`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::definition::{Deployable, Machine, ParameterName};
use cpe_proto::id::{ActionId, AssemblyIndex, IncidentId, ServiceIndex};
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::{
    AssemblySnapshot, AstraySnapshot, LadderSnapshot, Past, RecoverySnapshot, SNAPSHOT_VERSION,
    ServiceSnapshot, SetupSnapshot, Snapshot, Stage, Standing, StepSnapshot, WholeStage,
};
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::astray::Astray;
use crate::engine::{Desired, Engine, Seed};
use crate::ladder::Ladder;
use crate::output::{Act, Output};
use crate::parts::{Cause, Demand, Ending, Phase, Recovery, Start, Step};
use crate::setup::{Setup, written};
use crate::window::Failures;

/// From what was written down to the clock of this process.
#[derive(Clone, Copy)]
struct Resumed {
    /// Since it was written: time spent down counts as elapsed.
    elapsed: Duration,
    now: Timestamp,
}

impl Resumed {
    fn left(self, left: impl Into<Duration>) -> Timestamp {
        self.now.after(left.into().saturating_sub(self.elapsed))
    }

    fn age(self, age: impl Into<Duration>) -> Duration {
        age.into().saturating_add(self.elapsed)
    }
}

impl Engine {
    /// What must outlive this process. Small, and free of evidence.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> Snapshot {
        let (next_action, next_incident) = self.next_numbers();
        Snapshot {
            version: SNAPSHOT_VERSION,
            next_action,
            next_incident,
            desired: self.desired,
            paused: self.paused,
            failures: self.failures.ages(now).map(Into::into).collect(),
            assemblies: self
                .definition()
                .assembly_indices()
                .map(|index| self.assembly_snapshot(index, now))
                .collect(),
        }
    }

    /// Takes up what another process has written down `elapsed` ago. What was ordered and what is in maintenance is the seed's: orders are
    /// kept by the shell before they are answered. An action that was in flight is unresolved: it is looked at, never repeated.
    ///
    /// A snapshot of another version says nothing: everything begins anew, as with [`Engine::new`].
    #[must_use]
    pub fn restore(
        definition: Arc<Deployable>,
        seed: Seed,
        snapshot: &Snapshot,
        elapsed: Duration,
        now: Timestamp,
    ) -> Self {
        if snapshot.version != SNAPSHOT_VERSION {
            return Self::new(definition, seed, now);
        }
        let ordered = seed.desired;
        let seed = Seed {
            first_action: seed.first_action.max(snapshot.next_action),
            first_incident: seed.first_incident.max(snapshot.next_incident),
            desired: snapshot.desired,
            ..seed
        };
        let mut engine = Self::bare(Arc::clone(&definition), seed, now);
        engine.paused = snapshot.paused;
        let resumed = Resumed { elapsed, now };
        engine.failures = Failures::from_ages(snapshot.failures.iter().map(|age| resumed.age(*age)), now);
        for index in definition.assembly_indices() {
            let assembly = definition.assembly(index);
            let subject = subject(&assembly.machine);
            let kept =
                snapshot.assemblies.iter().find(|it| it.name == assembly.name && it.subject == subject);
            match kept {
                Some(kept) => engine.restore_assembly(index, kept, resumed),
                None => {
                    let named = snapshot.assemblies.iter().find(|it| it.name == assembly.name);
                    if named.is_some_and(|it| it.foreign.is_some() || it.given_back) {
                        engine.tell_ours(index, "it is another machine now", now);
                    }
                    engine.begin_assembly(index, now);
                    if ordered == Desired::PoweredOff {
                        engine.tell_left_on(index, now);
                    }
                }
            }
        }
        engine.restore_whole();
        engine.begin_setups();
        for index in definition.assembly_indices() {
            // A rebuild that was in flight may have made a new disk.
            let recovery = engine.assembly(index).recovery.as_ref();
            if let Some(incident) = recovery.filter(|it| it.rung == Rung::Rebuild).map(|it| it.incident) {
                engine.machine_made_anew(index, incident);
            }
        }
        match ordered {
            // Each does nothing where that is what was being carried out.
            Desired::Running => engine.order_start(now),
            Desired::Stopped | Desired::PoweredOff => engine.order_stop(ordered, now),
        }
        engine.first_look(now);
        engine
    }

    /// Stands for all that a snapshot holds, but for the time that passes.
    pub(crate) fn digest(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        (self.desired, self.paused, self.next_numbers().1, &self.failures).hash(&mut hash);
        for index in self.definition().assembly_indices() {
            let part = self.assembly(index);
            part.made_of.hash(&mut hash);
            if let Some(it) = &part.trouble {
                (it.incident, &it.ladder, it.demand, it.cause, it.first, it.backed_off, it.drift, &it.fenced)
                    .hash(&mut hash);
                it.told_ended.hash(&mut hash);
            }
            (&part.address, part.moved, &part.foreign, part.given_back, &part.zone).hash(&mut hash);
            if let Some(it) = part.recovery.as_ref().filter(|it| given_out(it.phase)) {
                let prepares = matches!(it.phase, Phase::Preparing { .. } | Phase::GivingBack { .. });
                (it.action, matches!(it.phase, Phase::Acting { .. }), it.stage, prepares).hash(&mut hash);
            }
            if let Some(it) = part.step.as_ref().filter(|it| given_out(it.phase)) {
                it.action.hash(&mut hash);
            }
            part.astray.iter().for_each(|it| (it.action, it.makes).hash(&mut hash));
            if let Some(it) = &part.power {
                let flight = it.flight.as_ref().filter(|it| given_out(it.phase)).map(|it| it.action);
                (it.goal, it.failed, it.told, flight).hash(&mut hash);
            }
            for service in self.definition().services_of(index) {
                self.standing(service).hash(&mut hash);
                if let Some(it) = &self.service(service).setup {
                    (&it.applied, it.fresh, it.incident).hash(&mut hash);
                }
                if let Some(it) = &self.service(service).trouble {
                    (it.incident, &it.ladder, it.demand == Demand::Attempt).hash(&mut hash);
                }
            }
        }
        hash.finish()
    }

    // ---- written down

    fn assembly_snapshot(&self, index: AssemblyIndex, now: Timestamp) -> AssemblySnapshot {
        let assembly = self.definition().assembly(index);
        let part = self.assembly(index);
        let given_out_recovery = part.recovery.as_ref().filter(|it| given_out(it.phase));
        // A fence that a crash cuts short is no attempt: nothing was made anew.
        let unended = given_out_recovery.filter(|it| {
            matches!(it.phase, Phase::Acting { .. }) && !it.counted && it.stage != Some(Stage::Fencing)
        });
        let past = part.trouble.as_ref().map(|trouble| {
            let mut ladder = trouble.ladder.clone();
            if let Some(recovery) = unended.filter(|it| it.service.is_none()) {
                ladder.attempted(recovery.rung);
            }
            let escalated = match trouble.cause {
                Cause::Escalated(_) if trouble.demand == Demand::Nothing => None,
                Cause::Channel => None,
                Cause::Escalated(service) => Some(self.definition().service(service).name.clone()),
            };
            Past {
                incident: trouble.incident,
                ladder: ladder_snapshot(&ladder, now),
                attempt: (trouble.demand == Demand::Attempt).then(|| trouble.counted.clone()),
                wait: trouble.wait_until.map(|until| until.since(now).into()),
                backed_off: trouble.backed_off,
                first: trouble.first,
                told_ended: trouble.told_ended,
                escalated,
                fenced: trouble.fenced.clone(),
            }
        });
        AssemblySnapshot {
            name: assembly.name.clone(),
            subject: subject(&assembly.machine),
            address: part.address.as_deref().map(Into::into),
            moved: part.moved,
            foreign: part.foreign.as_deref().map(Into::into),
            given_back: part.given_back,
            zone: part.zone.clone(),
            made_of: part.made_of.as_deref().cloned(),
            drift: part.trouble.as_ref().is_some_and(|trouble| trouble.drift),
            grace: (part.grace_until > now).then(|| part.grace_until.since(now).into()),
            past: past.filter(|past| *past != Past::default()),
            recovery: given_out_recovery.map(|it| RecoverySnapshot {
                action: it.action,
                rung: it.rung,
                service: it.service.map(|service| self.definition().service(service).name.clone()),
                incident: it.incident,
                age: now.since(it.began).into(),
                stage: it.stage,
                whole: whole_stage(it, now),
            }),
            astray: part.astray.iter().filter_map(|astray| astray.snapshot(now)).collect(),
            step: part.step.as_ref().and_then(|step| self.step_snapshot(step, now)),
            power: part.power.as_ref().map(|power| power.snapshot(now)),
            services: self
                .definition()
                .services_of(index)
                .map(|service| {
                    let unended = unended.filter(|it| it.service == Some(service));
                    self.service_snapshot(service, unended.map(|it| &**it), now)
                })
                .collect(),
        }
    }

    fn step_snapshot(&self, step: &Step, now: Timestamp) -> Option<StepSnapshot> {
        let Phase::Acting { until } = step.phase else { return None };
        let towards = match step.act {
            Act::StopService(_) => Desired::Stopped,
            _ => Desired::Running,
        };
        Some(StepSnapshot {
            action: step.action,
            service: self.definition().service(step.service).name.clone(),
            towards,
            left: until.since(now).into(),
        })
    }

    fn service_snapshot(
        &self,
        index: ServiceIndex,
        unended: Option<&Recovery>,
        now: Timestamp,
    ) -> ServiceSnapshot {
        let service = self.definition().service(index);
        let trouble = self.service(index).trouble.as_ref();
        let past = trouble.map(|trouble| {
            let mut ladder = trouble.ladder.clone();
            if let Some(recovery) = unended {
                ladder.attempted(recovery.rung);
            }
            Past {
                incident: trouble.incident,
                ladder: ladder_snapshot(&ladder, now),
                attempt: (trouble.demand == Demand::Attempt).then(|| trouble.counted.clone()),
                wait: trouble.wait_until.map(|until| until.since(now).into()),
                ..Past::default()
            }
        });
        let grace = trouble.and_then(|trouble| trouble.grace_until).filter(|until| *until > now);
        ServiceSnapshot {
            name: service.name.clone(),
            subject: subject(&service.check),
            standing: self.standing(index),
            grace: grace.map(|until| until.since(now).into()),
            setup: self.service(index).setup.as_ref().map(|setup| SetupSnapshot {
                subject: subject(&written(self.definition(), service)),
                applied: setup.applied.as_ref().map(|applied| {
                    applied.iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
                }),
                fresh: setup.fresh,
                incident: setup.incident,
            }),
            past: past.filter(|past| *past != Past::default()),
        }
    }

    fn standing(&self, index: ServiceIndex) -> Standing {
        let part = self.service(index);
        let start = part.trouble.as_ref().map_or(Start::No, |trouble| trouble.start);
        match (part.state, start) {
            (State::Stopped, _) => Standing::Stopped,
            (State::Misconfigured, _) => Standing::Misconfigured,
            (State::Exhausted, _) => Standing::Exhausted,
            (State::Failed, _) => Standing::Failed,
            (_, Start::ToStop) => Standing::ToStop,
            (_, Start::Held) => Standing::Held,
            (_, Start::Again) => Standing::ToStartAgain,
            (_, Start::Wanted) => Standing::ToStart,
            (_, Start::Begun) => Standing::Started,
            (_, Start::No) => Standing::Watched,
        }
    }

    // ---- taken up again

    fn restore_assembly(&mut self, index: AssemblyIndex, kept: &AssemblySnapshot, resumed: Resumed) {
        let definition = Arc::clone(self.definition());
        let part = self.assembly_mut(index);
        (part.address, part.moved) = (kept.address.as_deref().map(Into::into), kept.moved);
        part.zone = kept.zone.clone();
        (part.foreign, part.given_back) = (kept.foreign.as_deref().map(Into::into), kept.given_back);
        if kept.given_back && kept.foreign.is_none() {
            self.tell_ours(index, "it bears no other controller's mark", resumed.now);
        }
        self.assembly_mut(index).grace_until = kept.grace.map_or(Timestamp::ZERO, |left| resumed.left(left));
        if !matches!(definition.assembly(index).machine, Machine::Address(_)) {
            self.output(Output::AskInstance(index));
        }
        self.assembly_mut(index).made_of = kept.made_of.clone().map(Box::new);
        if kept.drift {
            let trouble = self.assembly_trouble(index);
            (trouble.drift, trouble.reason) =
                (true, "the infrastructure has not said yet whether it has an instance".into());
        }
        if let Some(power) = &kept.power {
            let age = power.flight.as_ref().map_or(Duration::ZERO, |it| resumed.age(it.age));
            self.restore_power(index, power, age, resumed.now);
        }
        for service in definition.services_of(index) {
            let part = definition.service(service);
            let subject = subject(&part.check);
            let kept = kept.services.iter().find(|it| it.name == part.name && it.subject == subject);
            match kept {
                Some(kept) => self.restore_service(service, kept, resumed),
                None if self.desired.runs() => {
                    self.service_trouble(service).start = Start::Wanted;
                }
                None => self.stop_before_off(service),
            }
        }
        if let Some(past) = &kept.past {
            self.restore_assembly_past(index, past, resumed);
        }
        self.restore_astray(index, kept, resumed);
        if let Some(recovery) = &kept.recovery {
            self.restore_recovery(index, recovery, resumed);
        }
        if let Some(step) = &kept.step {
            self.restore_step(index, step, resumed);
        }
        self.assume_state(index);
    }

    fn restore_assembly_past(&mut self, index: AssemblyIndex, past: &Past, resumed: Resumed) {
        let within = self.assembly_window().within;
        let service =
            past.escalated.as_ref().map(|name| self.definition().service_named(index, name.as_str()));
        let trouble = self.assembly_trouble(index);
        trouble.incident = past.incident;
        trouble.fenced = past.fenced.clone();
        trouble.ladder = ladder_of(&past.ladder, within, resumed);
        (trouble.first, trouble.backed_off, trouble.told_ended) =
            (past.first, past.backed_off, past.told_ended);
        let (cause, still) = match service {
            None => (Cause::Channel, true),
            Some(Some(service)) => (Cause::Escalated(service), true),
            Some(None) => (Cause::Channel, false),
        };
        trouble.cause = cause;
        match &past.attempt {
            Some(counted) if still => {
                (trouble.demand, trouble.counted) = (Demand::Attempt, counted.clone());
                trouble.wait_until = past.wait.map(|left| resumed.left(left));
            }
            None if still && cause != Cause::Channel => trouble.demand = Demand::Fault,
            _ => {}
        }
    }

    fn restore_service(&mut self, index: ServiceIndex, kept: &ServiceSnapshot, resumed: Resumed) {
        let within = self.service_window().within;
        self.service_mut(index).state = match (kept.standing, self.desired) {
            (Standing::Stopped, _) => State::Stopped,
            (Standing::Misconfigured, _) => State::Misconfigured,
            (Standing::Exhausted, _) => State::Exhausted,
            (Standing::Failed, Desired::Running) => State::Failed,
            (_, Desired::Running) => State::Starting,
            (_, Desired::Stopped | Desired::PoweredOff) => State::Unknown,
        };
        self.restore_setup(index, kept.setup.as_ref());
        let start = match kept.standing {
            Standing::ToStart => Start::Wanted,
            Standing::Started => Start::Begun,
            Standing::ToStop => Start::ToStop,
            Standing::Held => Start::Held,
            Standing::ToStartAgain => Start::Again,
            _ => Start::No,
        };
        if start != Start::No {
            let grace_until = kept.grace.map(|left| resumed.left(left));
            let trouble = self.service_trouble(index);
            (trouble.start, trouble.grace_until) = (start, grace_until);
        }
        let Some(past) = &kept.past else { return };
        let trouble = self.service_trouble(index);
        trouble.incident = past.incident;
        trouble.ladder = ladder_of(&past.ladder, within, resumed);
        if let Some(counted) = &past.attempt {
            (trouble.demand, trouble.counted) = (Demand::Attempt, counted.clone());
            trouble.wait_until = past.wait.map(|left| resumed.left(left));
        }
        if matches!(kept.standing, Standing::Exhausted | Standing::Failed) {
            trouble.reason = "known from before cpe was restarted; not looked at yet".into();
        }
    }

    fn restore_setup(&mut self, index: ServiceIndex, kept: Option<&SetupSnapshot>) {
        let same = subject(&written(self.definition(), self.definition().service(index)));
        let Some(kept) = kept.filter(|kept| kept.subject == same) else { return };
        let named =
            |(name, value): &(String, String)| Some((ParameterName::parse(name).ok()?, value.clone()));
        let applied = kept.applied.as_ref().map(|applied| applied.iter().filter_map(named).collect());
        let (fresh, incident) = (kept.fresh, kept.incident);
        self.service_mut(index).setup =
            Some(Box::new(Setup { applied, fresh, incident, ..Setup::default() }));
    }

    fn restore_astray(&mut self, index: AssemblyIndex, kept: &AssemblySnapshot, resumed: Resumed) {
        let give_up = self.definition().timing.action_give_up;
        // An older cpe wrote down the recovery alone.
        let recovery = kept.recovery.as_ref();
        let unwritten = recovery.filter(|it| {
            let of_machine = it.service.is_none() && it.whole == WholeStage::Machine;
            of_machine && kept.astray.iter().all(|astray| astray.action != it.action)
        });
        let in_flight = unwritten.map(|it| AstraySnapshot {
            action: it.action,
            makes: it.rung.replaces() && it.stage != Some(Stage::Fencing),
            left: give_up.saturating_sub(it.age.into()).into(),
        });
        let all = kept.astray.iter().copied().chain(in_flight);
        self.assembly_mut(index).astray = all
            .map(|it| Astray { action: it.action, makes: it.makes, until: resumed.left(it.left) })
            .collect();
    }

    fn restore_recovery(&mut self, index: AssemblyIndex, kept: &RecoverySnapshot, resumed: Resumed) {
        let service = kept.service.as_ref().map(|name| self.definition().service_named(index, name.as_str()));
        let service = match service {
            // What it was done to is not defined any more: let go.
            Some(None) => return,
            Some(found) => found,
            None => None,
        };
        let age = resumed.age(kept.age);
        let give_up = self.definition().timing.action_give_up;
        let look = self.definition().assembly(index).probe.startup_grace;
        // However long nobody looked: it is looked at before anything is given up.
        let unresolved =
            Phase::Unresolved { until: resumed.now.after(give_up.saturating_sub(age).max(look)) };
        let (phase, by, ending) = match &kept.whole {
            WholeStage::Machine => (unresolved, None, None),
            WholeStage::Preparing { by, left } => (
                Phase::Preparing { until: resumed.left(*left).max(resumed.now.after(look)) },
                by.clone(),
                None,
            ),
            WholeStage::GivingBack { failed, reason, left } => {
                let ending = Ending { failed: *failed, reason: reason.clone() };
                let until = resumed.left(*left).max(resumed.now.after(look));
                (Phase::GivingBack { until }, None, Some(Box::new(ending)))
            }
        };
        let recovery = Recovery {
            action: kept.action,
            rung: kept.rung,
            service,
            incident: kept.incident,
            phase,
            // Whether a creation that was written down was begun says the journal. An older cpe did not write it down: it may have been.
            stage: match kept.stage {
                Some(Stage::Creating) => Some(Stage::Fenced),
                None if kept.rung.replaces() => Some(Stage::Creating),
                stage => stage,
            },
            counted: kept.stage != Some(Stage::Fencing)
                && !matches!(kept.whole, WholeStage::Preparing { .. }),
            freed: false,
            began: resumed.now.before(age),
            decision: None,
            by,
            ending,
        };
        self.assembly_mut(index).recovery = Some(Box::new(recovery));
        if kept.whole != WholeStage::Machine {
            return;
        }
        let reason: Box<str> = "unresolved: in flight when cpe ended; looked at".into();
        let of_machine: Vec<ServiceIndex> = match service {
            Some(service) => {
                self.service_trouble(service).reason = reason;
                vec![service]
            }
            None => {
                self.assembly_trouble(index).reason = reason;
                self.definition().services_of(index).collect()
            }
        };
        for service in of_machine {
            let part = self.service_mut(service);
            if !matches!(part.state, State::Stopped | State::Misconfigured) {
                part.state = State::Recovering;
            }
        }
    }

    /// What was restarted with a machine still is, once all of it is known.
    fn restore_whole(&mut self) {
        let Some((lead, _)) = self.whole() else { return };
        for index in self.definition().assembly_indices().filter(|index| *index != lead) {
            for service in self.definition().services_of(index) {
                let part = self.service_mut(service);
                let start = part.trouble.as_ref().map_or(Start::No, |trouble| trouble.start);
                if start != Start::No && matches!(part.state, State::Starting | State::Unknown) {
                    part.state = State::Recovering;
                }
            }
            self.assume_state(index);
        }
    }

    fn restore_step(&mut self, index: AssemblyIndex, kept: &StepSnapshot, resumed: Resumed) {
        let Some(service) = self.definition().service_named(index, kept.service.as_str()) else { return };
        let act = match kept.towards {
            Desired::Running => Act::StartService(service),
            Desired::Stopped | Desired::PoweredOff => Act::StopService(service),
        };
        let phase = Phase::Acting { until: resumed.left(kept.left) };
        let step = Step { action: kept.action, act, service, phase, part_of: None };
        self.assembly_mut(index).step = Some(Box::new(step));
    }
}

fn whole_stage(recovery: &Recovery, now: Timestamp) -> WholeStage {
    match (recovery.phase, &recovery.ending) {
        (Phase::Preparing { until }, _) => {
            WholeStage::Preparing { by: recovery.by.clone(), left: until.since(now).into() }
        }
        (Phase::GivingBack { until }, Some(ending)) => WholeStage::GivingBack {
            failed: ending.failed,
            reason: ending.reason.clone(),
            left: until.since(now).into(),
        },
        _ => WholeStage::Machine,
    }
}

/// Given out, and not known to have ended.
const fn given_out(phase: Phase) -> bool {
    !matches!(phase, Phase::Asked { .. })
}

fn ladder_snapshot(ladder: &Ladder, now: Timestamp) -> LadderSnapshot {
    LadderSnapshot {
        failures: ladder.failures.ages(now).map(Into::into).collect(),
        rung: ladder.rung,
        attempts: ladder.attempts,
        climbed: ladder.climbed,
        climbed_again: ladder.climbed_again,
        rebooted: ladder.rebooted,
        rebuilt: ladder.rebuilt,
        recreated: ladder.recreated,
        relocated: ladder.relocated,
        beyond: ladder.beyond,
        given_up: ladder.given_up,
        retry_in: (ladder.retry_at > now).then(|| ladder.retry_at.since(now).into()),
    }
}

fn ladder_of(kept: &LadderSnapshot, within: Duration, resumed: Resumed) -> Ladder {
    let ages = kept.failures.iter().map(|age| resumed.age(*age));
    Ladder {
        failures: Failures::from_ages(ages.filter(|age| *age <= within), resumed.now),
        rung: kept.rung,
        attempts: kept.attempts,
        climbed: kept.climbed,
        climbed_again: kept.climbed_again,
        rebooted: kept.rebooted,
        rebuilt: kept.rebuilt,
        recreated: kept.recreated,
        relocated: kept.relocated,
        beyond: kept.beyond,
        given_up: kept.given_up,
        retry_at: kept.retry_in.map_or(Timestamp::ZERO, |left| resumed.left(left)),
    }
}

/// A number that stands for a part of a definition: the FNV-1a hash (Fowler, Noll, Vo; 64 bits) of how it is printed. That another one
/// is taken for the same by chance costs a count, nothing more.
fn subject(part: &impl std::fmt::Debug) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    format!("{part:?}").bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

impl Engine {
    /// The first numbers that were never used.
    fn next_numbers(&self) -> (ActionId, IncidentId) {
        (ActionId(self.next_action), IncidentId(self.next_incident))
    }
}
