//! The model of the truth: every action is held against what is true at that moment, which no record of the product can know. Independent of
//! the engine and the guard: it knows definitions, orders and the world, and never asks either why.
//!
//! "Well" is: it runs, it is reached, nothing lies about it. What has been well for longer than evidence may be old is not acted upon.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use cpe_proto::decision::{ChannelFact, Verdict};
use cpe_proto::definition::{Data, Deployable, Mode, OnOrder, ProbeSettings};
use cpe_proto::id::{ActionId, AssemblyIndex, Name, ServiceIndex};
use cpe_proto::infrastructure::Owner;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::time::Timestamp;
use dped::{Act, Action, Desired, GuardSettings, IncidentKey, Request, Switch};

use super::World;
use super::desk::WARNED_AGAIN;
use super::grounds::Once;
use super::happening::Place;
use super::machine::{Power, Unit, Who};
use super::pace::Pace;
use super::windows::Kept;

/// Beyond the age that evidence may have: for what was under way when it changed.
const SLACK: Duration = Duration::from_secs(6);

/// An order to recover is taken up or refused by then.
const BY_HAND_WITHIN: Duration = Duration::from_secs(20);

/// A word that a machine is down holds for its incident, which is over by then.
const VOUCHED_FOR: Duration = Duration::from_secs(4 * 3600);

/// What was asked for and admitted.
#[derive(Clone, Debug)]
struct Admitted {
    request: Request,
    /// It rests on a person's word. A recovery of a deployable as a whole begins only when its parts are stopped.
    by_hand: bool,
}

impl Admitted {
    /// It is of the deployable, and is prepared before it is begun.
    fn is_prepared(&self) -> bool {
        self.request.rung >= Some(Rung::RestartDeployable)
    }
}

/// An admitted action that is not over.
#[derive(Clone, Debug)]
struct Open {
    assembly: Name,
    infrastructure: Option<Name>,
    domains: Vec<Name>,
    /// Its engine gives back what it was granted by then.
    until: Timestamp,
    /// What nobody saw end by then is given up.
    give_up: Timestamp,
    /// Nobody carries it on.
    astray: bool,
    /// A step of a recovery of the whole deployable, which has the place for it.
    part: bool,
}

impl Open {
    fn goes_astray(&mut self) {
        self.astray = true;
        self.until = self.until.min(self.give_up);
    }
}

#[derive(Debug, Default)]
pub(super) struct Truth {
    breaches: Vec<String>,
    /// What was asked for and admitted.
    requests: BTreeMap<(usize, ActionId), Admitted>,
    open: BTreeMap<(usize, ActionId), Open>,
    begun: BTreeSet<(usize, ActionId, bool)>,
    /// What was under way when an engine panicked.
    interrupted: BTreeSet<(usize, ActionId)>,
    machine_rungs: BTreeMap<Name, VecDeque<Timestamp>>,
    maintained: BTreeSet<(Name, Option<Name>)>,
    paused: BTreeSet<Option<Name>>,
    paused_parts: BTreeSet<Place>,
    /// When a warning was told last.
    warned: BTreeMap<String, Timestamp>,
    /// What is done, and its engine was told.
    done: BTreeSet<(usize, ActionId)>,
    /// Incidents that a person knows of.
    acknowledged: BTreeSet<IncidentKey>,
    /// Machines of which the newest look said that they are another controller's.
    foreign: BTreeSet<(usize, Name)>,
    /// What a person ordered to be recovered, and when.
    by_hand: BTreeMap<(usize, AssemblyIndex), Timestamp>,
    /// What was evacuated in the hold that goes on.
    evacuated: BTreeSet<Name>,
    /// Since when nothing is reached at all.
    cut_since: Option<Timestamp>,
    /// What is done once in an incident, and where it was done (`grounds.rs`).
    pub(super) once: Once,
    /// How often what is done (`pace.rs`).
    pub(super) pace: Pace,
    /// What the judge of maintenance remembers (`windows.rs`).
    pub(super) windows: Kept,
    /// Since when no canary answers, where there are some.
    pub(super) canaries_since: Option<Timestamp>,
}

impl Truth {
    pub(super) fn broken(&mut self, what: String) {
        self.breaches.push(what);
    }

    pub(super) fn breaches(&self) -> &[String] {
        &self.breaches
    }

    pub(super) fn note_network(&mut self, cut: bool, canaries_cut: bool, now: Timestamp) {
        for (since, cut) in [(&mut self.cut_since, cut), (&mut self.canaries_since, canaries_cut)] {
            *since = cut.then(|| since.unwrap_or(now));
        }
    }

    pub(super) fn admitted(&mut self, member: usize, request: Request, now: Timestamp) {
        let by_hand = self.is_by_hand(member, request.assembly, now);
        self.requests.insert((member, request.action), Admitted { request, by_hand });
    }

    fn is_by_hand(&self, member: usize, assembly: AssemblyIndex, now: Timestamp) -> bool {
        self.by_hand.get(&(member, assembly)).is_some_and(|at| now.since(*at) < BY_HAND_WITHIN)
    }

    /// A person said that it is down. That holds for its incident.
    pub(super) fn vouched_for(&mut self, member: usize, assembly: AssemblyIndex, now: Timestamp) {
        self.by_hand.insert((member, assembly), now.after(VOUCHED_FOR));
    }

    pub(super) fn ordered_by_hand(&mut self, member: usize, assembly: AssemblyIndex, now: Timestamp) {
        let until = self.by_hand.entry((member, assembly)).or_insert(now);
        *until = now.max(*until);
    }

    /// An action is begun, or the creation that is its second step. False: it was before.
    pub(super) fn begins(&mut self, member: usize, action: ActionId, creation: bool) -> bool {
        self.begun.insert((member, action, creation))
    }

    pub(super) fn released(&mut self, member: usize, action: ActionId) {
        self.open.remove(&(member, action));
        self.requests.remove(&(member, action));
    }

    /// A look says whose a machine is, and its engine hears it.
    pub(super) fn seen_owner(&mut self, member: usize, assembly: Name, owner: &Owner) {
        match owner {
            Owner::NotSaid => {}
            Owner::OursOrNone => _ = self.foreign.remove(&(member, assembly)),
            Owner::Another(_) => _ = self.foreign.insert((member, assembly)),
        }
    }

    /// What was begun goes on, whoever asked for it.
    pub(super) fn member_gone(&mut self, member: usize) {
        self.go_astray(member);
        self.foreign.retain(|(of, _)| *of != member);
        self.requests.retain(|(of, _), _| *of != member);
    }

    fn go_astray(&mut self, member: usize) {
        self.open.iter_mut().filter(|((of, _), _)| *of == member).for_each(|(_, it)| it.goes_astray());
    }

    /// It took effect when nobody waited for it any more.
    pub(super) fn done_unseen(&mut self, member: usize, action: ActionId) {
        if self.open.get(&(member, action)).is_some_and(|it| it.astray) {
            self.open.remove(&(member, action));
        }
    }

    /// What an engine had begun when it panicked.
    pub(super) fn interrupted(&mut self, member: usize, actions: &BTreeSet<ActionId>) {
        self.interrupted.extend(actions.iter().map(|action| (member, *action)));
    }

    /// Of an engine that panicked only what its successor goes on with is still in flight. One that is parked has none.
    pub(super) fn engine_ended(&mut self, member: usize, carried: &BTreeSet<ActionId>, parked: bool) {
        self.warned.clear();
        // What it was told last may not have been written down.
        self.foreign.retain(|(of, _)| *of != member);
        self.open.retain(|(of, action), it| *of != member || it.astray || carried.contains(action));
        if parked {
            self.go_astray(member);
        }
        // As for a process that ended.
        self.requests
            .retain(|(of, action), it| *of != member || carried.contains(action) && it.is_prepared());
    }

    /// What the journal's engines go on with is still in flight, and what is still to take effect although none of them knows of it.
    pub(super) fn process_ended(
        &mut self,
        carried: &BTreeSet<(usize, ActionId)>,
        doing: &BTreeSet<(usize, ActionId)>,
    ) {
        self.open.retain(|key, it| {
            if !carried.contains(key) {
                it.goes_astray();
            }
            carried.contains(key) || doing.contains(key)
        });
        // What was still being prepared goes on with what it was granted.
        self.requests.retain(|key, it| carried.contains(key) && it.is_prepared());
        self.foreign.clear();
        self.warned.clear();
    }

    pub(super) fn maintained(&mut self, key: (Name, Option<Name>)) {
        self.maintained.insert(key);
    }

    pub(super) fn maintained_no_more(&mut self, key: &(Name, Option<Name>)) {
        self.maintained.remove(key);
    }

    /// A warning is told; true: it was just before, by the same process.
    pub(super) fn warned(&mut self, message: &str, now: Timestamp) -> bool {
        let before = self.warned.insert(message.to_owned(), now);
        before.is_some_and(|at| now.since(at) < WARNED_AGAIN)
    }

    pub(super) fn told_done(&mut self, member: usize, action: ActionId) {
        self.done.insert((member, action));
    }

    pub(super) fn was_told_done(&self, member: usize, action: ActionId) -> bool {
        self.done.contains(&(member, action))
    }

    pub(super) fn acknowledged(&mut self, incident: IncidentKey) {
        self.acknowledged.insert(incident);
    }

    /// Whether a person knows of an incident, for ever: no other ever has its number.
    pub(super) fn knows(&self, incident: &IncidentKey) -> bool {
        self.acknowledged.contains(incident)
    }

    /// A domain is evacuated. False: it was before, in this hold.
    pub(super) fn evacuates(&mut self, domain: &Name) -> bool {
        self.evacuated.insert(domain.clone())
    }

    pub(super) fn hold_over(&mut self, domain: &Name) {
        self.evacuated.remove(domain);
    }

    /// Whether a recovery is in flight there.
    pub(super) fn acts_on(&self, member: usize, assembly: &Name, now: Timestamp) -> bool {
        self.open.iter().any(|((of, _), it)| *of == member && it.assembly == *assembly && now < it.until)
    }

    /// Whether an operator has said that nothing is to be done there.
    pub(super) fn is_left_alone(&self, name: &Name, assembly: &Name) -> bool {
        self.paused.contains(&None)
            || self.paused.contains(&Some(name.clone()))
            || self.is_part_paused(&Place {
                deployable: name.clone(),
                assembly: assembly.clone(),
                service: None,
            })
            || self.maintained.contains(&(name.clone(), None))
            || self.maintained.contains(&(name.clone(), Some(assembly.clone())))
    }

    pub(super) fn pause_part(&mut self, place: &Place, on: bool) {
        if on {
            self.paused_parts.insert(place.clone());
        } else {
            self.paused_parts.remove(place);
        }
    }

    pub(super) fn is_part_paused(&self, place: &Place) -> bool {
        self.paused_parts.contains(place)
    }

    pub(super) fn paused(&mut self, name: Option<Name>) {
        self.paused.insert(name);
    }

    pub(super) fn paused_no_more(&mut self, name: &Option<Name>) {
        self.paused.remove(name);
    }
}

impl World {
    /// What the journal's engines would go on with.
    pub(super) fn carried_on(&self) -> BTreeSet<(usize, ActionId)> {
        let mut carried = BTreeSet::new();
        for (member, (name, _)) in self.files.iter().enumerate() {
            let Some((_, snapshot)) = self.journal.snapshots.get(name) else { continue };
            let (actions, _) = snapshot.carried_on();
            carried.extend(actions.into_iter().map(|action| (member, action)));
        }
        carried
    }

    /// An action is given out: whether that may be.
    pub(super) fn judge(&mut self, member: usize, action: &Action) {
        let Some(it) = self.member(member) else { return };
        let definition = std::sync::Arc::clone(it.engine.definition());
        let assembly = definition.assembly(action.assembly);
        let label = format!("{:?} of {}/{} (!{})", action.act, definition.name, assembly.name, action.action);
        let mut wrong: Vec<String> = Vec::new();
        let key = (member, action.action);
        let Some(Admitted { request, by_hand }) = self.truth.requests.get(&key).cloned() else {
            return self.broken(format!("{label}: begun and never admitted"));
        };
        // A person's word stands in place of evidence.
        let by_hand = by_hand || self.truth.is_by_hand(member, action.assembly, self.now);
        // A step of what was admitted before is not stranded half way.
        match action.part_of {
            Some(whole) if !self.truth.requests.contains_key(&(member, whole)) => {
                wrong.push(format!("it is a step of !{whole}, which nobody admitted"));
            }
            Some(_) => {}
            None => {
                self.judge_orders(&definition, action, &mut wrong);
                self.judge_windows(&definition, action, by_hand, &mut wrong);
            }
        }
        if self.truth.foreign.contains(&(member, assembly.name.clone())) {
            wrong.push("on a machine that is another controller's".to_owned());
        }
        self.judge_alone(member, action, &mut wrong);
        self.judge_budgets(member, &definition, action, &mut wrong);
        match action.act {
            _ if by_hand => {}
            Act::RestartService(service) | Act::StartService(service) => {
                self.judge_service(member, &definition, service, &mut wrong);
                if matches!(action.act, Act::RestartService(_)) {
                    self.judge_confirmed_service(member, &definition, service, &mut wrong);
                    self.judge_dependencies(member, &definition, service, &mut wrong);
                    self.judge_unanswered(member, &definition, service, &mut wrong);
                }
            }
            Act::StopService(_) | Act::Reconfigure(_) => {}
            Act::Power(switch) => self.judge_power(member, &definition, action.assembly, switch, &mut wrong),
            Act::Fence(rung) | Act::Machine(rung) => {
                self.judge_machine(member, &definition, action.assembly, rung, &request, &mut wrong);
                self.judge_grounds(member, &definition, action, rung, &request, &mut wrong);
            }
        }
        self.note_rebuild(member, action);
        for wrong in wrong {
            self.broken(format!("{label}: {wrong}"));
        }
    }

    fn judge_orders(&self, definition: &Deployable, action: &Action, wrong: &mut Vec<String>) {
        let name = &definition.name;
        let assembly = &definition.assembly(action.assembly).name;
        if definition.mode == Mode::Observe {
            wrong.push("in observe mode".to_owned());
        }
        let maintained = &self.truth.maintained;
        if maintained.contains(&(name.clone(), None))
            || maintained.contains(&(name.clone(), Some(assembly.clone())))
        {
            wrong.push("in maintenance".to_owned());
        }
        if self.truth.paused.contains(&None) || self.truth.paused.contains(&Some(name.clone())) {
            wrong.push("while paused".to_owned());
        }
        self.judge_parts(definition, action, wrong);
        let desired = self.journal.desired.get(name).copied().unwrap_or_default();
        let fits = match action.act {
            Act::StopService(_) => !desired.runs(),
            Act::Power(Switch::Off) => desired == Desired::PoweredOff,
            _ => desired.runs(),
        };
        if !fits {
            wrong.push(format!("although it is to be {desired:?}"));
        }
    }

    /// Nothing else of a deployable is recovered while it recovers as a whole.
    fn judge_alone(&self, member: usize, action: &Action, wrong: &mut Vec<String>) {
        let whole = self.truth.requests.iter().find(|((of, id), it)| {
            let other = *of == member && *id != action.action && Some(*id) != action.part_of;
            other && it.is_prepared()
        });
        let own = |it: &Admitted| it.request.assembly == action.assembly;
        if let Some(((_, id), _)) = whole.filter(|(_, it)| !own(it)) {
            wrong.push(format!("while its deployable recovers as a whole, by !{id}"));
        }
    }

    /// Counts what is in flight by itself, from what was begun and what was let go.
    fn judge_budgets(
        &mut self,
        member: usize,
        definition: &Deployable,
        action: &Action,
        wrong: &mut Vec<String>,
    ) {
        let settings = GuardSettings::default();
        let (assembly, give_up) = (definition.assembly(action.assembly), definition.timing.action_give_up);
        let open = Open {
            assembly: assembly.name.clone(),
            infrastructure: definition.infrastructure.clone(),
            domains: assembly.failure_domains.clone(),
            until: self.now.after(settings.lease.max(give_up * 2)),
            give_up: self.now.after(give_up),
            astray: false,
            part: action.part_of.is_some(),
        };
        let step = matches!(action.act, Act::StartService(_) | Act::StopService(_) | Act::Reconfigure(_));
        let now = self.now;
        let same = |(of, _): &(usize, ActionId), it: &Open| {
            *of == member && it.assembly == open.assembly && now < it.until
        };
        if !step && self.truth.open.iter().any(|(key, it)| same(key, it)) {
            wrong.push("while another is in flight on the same assembly".to_owned());
        }
        self.truth.open.insert((member, action.action), open.clone());
        // A start step of a machine that is being recovered is part of that recovery.
        let counts = |it: &Open| !it.part && now < it.until;
        let places = |of: &dyn Fn(&(usize, ActionId), &Open) -> bool| {
            let all = self.truth.open.iter().filter(|(key, it)| counts(it) && of(key, it));
            all.map(|((member, _), it)| (*member, &it.assembly)).collect::<BTreeSet<_>>().len()
        };
        let mut limit = |what: String, is: usize, most: usize| {
            if is > most {
                wrong.push(format!("{is} are in flight in {what}, at most {most} may be"));
            }
        };
        limit(
            "its deployable".to_owned(),
            places(&|(of, _), _| *of == member),
            settings.in_flight_deployable,
        );
        for domain in &open.domains {
            let is = places(&|_, it| it.domains.contains(domain));
            limit(format!("domain {domain}"), is, settings.in_flight_domain);
        }
        if let Some(name) = &open.infrastructure {
            let is = places(&|_, it| it.infrastructure.as_ref() == Some(name));
            limit(format!("infrastructure {name}"), is, settings.in_flight_infrastructure);
        }
        limit("the fleet".to_owned(), places(&|_, _| true), settings.in_flight_fleet);
        // What is prepared first was counted when it was admitted.
        if let (Act::Fence(rung) | Act::Machine(rung), Some(name)) = (action.act, open.infrastructure)
            && rung < Rung::RestartDeployable
        {
            let times = self.truth.machine_rungs.entry(name.clone()).or_default();
            times.push_back(now);
            while times.front().is_some_and(|at| now.since(*at) >= settings.machine_rungs_within) {
                times.pop_front();
            }
            if times.len() > settings.machine_rungs {
                let is = times.len();
                wrong.push(format!("{is} machine rungs in 10 min on infrastructure {name}"));
            }
        }
    }

    /// The unit that a service truly is.
    pub(super) fn unit_of(&self, member: usize, service: ServiceIndex) -> Option<&Unit> {
        let (machine, unit) = *self.member(member)?.units.get(usize::from(service.0))?;
        self.machines[machine].units.get(unit)
    }

    fn judge_service(
        &self,
        member: usize,
        definition: &Deployable,
        service: ServiceIndex,
        wrong: &mut Vec<String>,
    ) {
        let Some(unit) = self.unit_of(member, service) else { return };
        let settings = definition.service(service).probe;
        let patience = self.patience(&settings);
        let well = unit.well_since.map(|since| self.now.since(since));
        if let Some(well) = well.filter(|well| *well > patience) {
            wrong.push(format!("it has been well for {:.1} s", well.as_secs_f64()));
        }
        if definition.service(service).restart.is_none() {
            wrong.push("nothing restarts it".to_owned());
        }
    }

    /// How old evidence may be.
    pub(super) fn patience(&self, probe: &ProbeSettings) -> Duration {
        probe.interval * 2 + probe.timeout + self.slack()
    }

    pub(super) fn slack(&self) -> Duration {
        // What is late with everything is late with this, too.
        SLACK + self.process.lag_at(self.now)
    }

    fn judge_machine(
        &self,
        member: usize,
        definition: &Deployable,
        index: AssemblyIndex,
        rung: Rung,
        request: &Request,
        wrong: &mut Vec<String>,
    ) {
        let Some(it) = self.member(member) else { return };
        let place = it.machines[usize::from(index.0)];
        let (assembly, machine, now) = (definition.assembly(index), &self.machines[place], self.now);
        let patience = self.patience(&assembly.probe);
        let cap = if rung == Rung::RestartDeployable { Rung::RebootHard } else { rung };
        if rung == Rung::RestartDeployable && definition.escalation.deployable.is_none() {
            wrong.push("its definition does not give it".to_owned());
        }
        if rung == Rung::Relocate && definition.escalation.relocate.is_none() {
            wrong.push("its definition does not say where else it may live".to_owned());
        }
        if cap > assembly.max_rung && rung != Rung::Start {
            wrong.push(format!("above max_rung {}", assembly.max_rung));
        }
        if matches!(rung, Rung::Rebuild | Rung::Recreate | Rung::Relocate) && assembly.data == Data::Local {
            wrong.push("it would lose local data".to_owned());
        }
        let lied =
            machine.lied_at.is_some_and(|at| now.since(at) <= patience) || machine.claims_at(now).is_some();
        self.judge_purpose(definition, place, patience, lied, wrong);
        let boots = machine.booted_by.filter(|_| machine.power == Power::Booting);
        if let Some((_, action)) = boots.filter(|by| self.truth.interrupted.contains(by)) {
            wrong.push(format!(
                "it still comes up from !{action}, which was under way when an engine panicked"
            ));
        }
        if request.facts.channel == ChannelFact::Healthy {
            return self.judge_escalation(definition, index, place, wrong);
        }
        let for_long =
            |since: Option<Timestamp>| since.map(|at| now.since(at)).filter(|well| *well > patience);
        if let Some(well) = for_long(machine.well_since) {
            return wrong.push(format!("it works and was reached for {:.1} s", well.as_secs_f64()));
        }
        let silent = self.truth.canaries_since.map(|since| now.since(since));
        if let Some(silent) =
            silent.filter(|silent| *silent > GuardSettings::default().canary_fresh + patience)
        {
            wrong.push(format!("it rests on absence; no canary answered for {:.1} s", silent.as_secs_f64()));
        }
        let Some(works) = for_long(machine.works_since) else { return };
        // It works and is not reached: cut off alone, or refused, or too slow. What the policy says of that is literal.
        let cut = self.truth.cut_since.map(|since| now.since(since));
        if let Some(cut) = cut.filter(|cut| *cut > patience) {
            return wrong.push(format!("it works; nothing was reached for {:.1} s", cut.as_secs_f64()));
        }
        let key = matches!(
            machine.door_at(now),
            Some(ChannelFailure::HostKey | ChannelFailure::AuthenticationFailed)
        );
        // One that is too slow says nothing in time.
        let reached = self.path_open(place)
            && now.since(machine.cut_until) > patience
            && machine.slow.is_none_or(|(_, until)| now.since(until) > patience);
        let refuses = key && reached && machine.fell.is_some_and(|fell| now.since(fell.at) > patience);
        let ordered = match request.verdict {
            // What says that the key is another one is not silent.
            Verdict::Hung => !refuses,
            Verdict::ChannelFault => definition.timing.on_channel_refused == OnOrder::Recover,
            Verdict::Off | Verdict::Gone | Verdict::Down => lied,
            _ => false,
        };
        if !ordered {
            let works = works.as_secs_f64();
            wrong.push(format!("it has worked for {works:.1} s, and {} is no reason", request.verdict));
        }
    }

    /// Nothing is recovered that somebody stopped on purpose, where that is known or to be left.
    fn judge_purpose(
        &self,
        definition: &Deployable,
        place: usize,
        patience: Duration,
        lied: bool,
        wrong: &mut Vec<String>,
    ) {
        let machine = &self.machines[place];
        let down = matches!(machine.power, Power::Off | Power::Gone);
        let long = machine.stopped_at.is_some_and(|at| self.now.since(at) > patience);
        let Some(who) = self.is_stopped_on_purpose(place).filter(|_| down && long && !lied) else { return };
        let left = who == Who::Known || definition.timing.on_unexpected_stop == OnOrder::Report;
        if left {
            wrong.push("somebody stopped it on purpose".to_owned());
        }
    }

    /// A machine that answers is acted upon for a service of it, which must be in trouble.
    fn judge_escalation(
        &self,
        definition: &Deployable,
        index: AssemblyIndex,
        place: usize,
        wrong: &mut Vec<String>,
    ) {
        let machine = &self.machines[place];
        let trouble = definition.services_of(index).any(|service| {
            let part = definition.service(service);
            let patience = self.patience(&part.probe);
            let unit = machine.units.iter().find(|unit| unit.name == part.name);
            unit.is_none_or(|unit| unit.well_since.is_none_or(|since| self.now.since(since) <= patience))
        });
        if !trouble {
            wrong.push("its services are all well".to_owned());
        }
    }
}
