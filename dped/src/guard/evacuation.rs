//! The one action at what the members of a failure domain share (policy.md section 6): what ran on a dead hypervisor is started elsewhere.
//!
//! Only for a domain that the configuration gives to an infrastructure. After its hold the members' engines are heard: each that wants its
//! machine recovered says so with evidence of its own, so whatever is paused, observed, in maintenance or ordered to be off says nothing.
//! Then once, if every member of the domain is down, enough of them spoke, and nothing is in flight on any. Whatever comes of it, the
//! slow start follows for those that are still down, and there is no second time in one hold: an outcome that is lost stays lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cpe_proto::id::{ActionId, AssemblyIndex, Name};
use cpe_proto::snapshot::guard::EvacuationPhase;
use cpe_proto::time::Timestamp;

use super::breaker::{Breaker, Phase, Room};
use super::holds::{GuardOutput, Holds, Scope};
use super::lease::Leases;
use super::population::{HealthClass, Key};
use super::{Guard, GuardSettings};
use crate::describe::span;
use crate::input::ActionOutcome;

/// One failure domain is to be evacuated: keep the guard durably, ask once, and tell [`Guard::evacuated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evacuate {
    /// Its number, used once.
    pub number: ActionId,
    /// What is dead.
    pub domain: Name,
    /// Who can.
    pub infrastructure: Name,
    /// Whom for.
    pub members: Vec<(Name, AssemblyIndex)>,
    /// An outcome that comes later is not believed.
    pub timeout: Duration,
}

/// Who can evacuate what, and how often it was done.
#[derive(Debug, Default)]
pub(super) struct Evacuations {
    points: BTreeMap<Name, Name>,
    pub(super) begun: u64,
}

impl Evacuations {
    /// After the hold of a domain: true if its shared point comes first.
    pub(super) fn consider(
        &self,
        domain: &Name,
        breaker: &mut Breaker,
        settings: &GuardSettings,
        now: Timestamp,
    ) -> bool {
        if breaker.considered || !self.points.contains_key(domain) {
            return false;
        }
        let until = now.after(settings.evacuation_heard);
        breaker.phase = Phase::Evacuation(Evacuation { stage: Stage::Heard(BTreeSet::new()), until });
        true
    }
}

/// A hold whose shared point is at work.
#[derive(Debug)]
pub(super) struct Evacuation {
    stage: Stage,
    pub(super) until: Timestamp,
}

#[derive(Debug)]
enum Stage {
    /// The engines of these want them recovered.
    Heard(BTreeSet<Key>),
    Begun(ActionId),
    Verified,
}

impl Evacuation {
    /// Whether the members are not even judged.
    pub(super) const fn holds(&self) -> bool {
        !matches!(self.stage, Stage::Heard(_))
    }

    /// As an earlier process left it, and what is said of it.
    pub(super) fn restored(phase: EvacuationPhase, until: Timestamp) -> (Phase, String) {
        let (stage, said) = match phase {
            EvacuationPhase::Considered => {
                (Stage::Heard(BTreeSet::new()), "before its evacuation".to_owned())
            }
            EvacuationPhase::Begun(number) => {
                let said = format!(
                    "its evacuation (!{number}) may have been begun, and is not repeated; what came of it is looked at"
                );
                (Stage::Begun(ActionId(number)), said)
            }
            EvacuationPhase::Verified | EvacuationPhase::Over => {
                (Stage::Verified, "what came of its evacuation is looked at".to_owned())
            }
        };
        (Phase::Evacuation(Self { stage, until }), said)
    }
}

/// How far it is, for the snapshot.
pub(super) fn phase(breaker: &Breaker) -> Option<EvacuationPhase> {
    match &breaker.phase {
        Phase::Evacuation(Evacuation { stage: Stage::Heard(_), .. }) => Some(EvacuationPhase::Considered),
        Phase::Evacuation(Evacuation { stage: Stage::Begun(number), .. }) => {
            Some(EvacuationPhase::Begun(number.0))
        }
        Phase::Evacuation(Evacuation { stage: Stage::Verified, .. }) => Some(EvacuationPhase::Verified),
        _ => breaker.considered.then_some(EvacuationPhase::Over),
    }
}

/// What is done next.
enum Next {
    Wait,
    Begin(Vec<Key>),
    Close,
    SlowStart(String),
    Look(String),
}

impl Guard {
    /// What the members of that failure domain share can be evacuated by that infrastructure.
    pub fn shared_point(&mut self, domain: Name, infrastructure: Name) {
        self.holds.evacuations.points.insert(domain, infrastructure);
    }

    /// What came of an evacuation. One that is not waited for any more changes nothing.
    pub fn evacuated(&mut self, domain: &Name, number: ActionId, outcome: &ActionOutcome, now: Timestamp) {
        self.holds.evacuated(domain, number, outcome, &self.settings, now);
    }
}

impl Holds {
    /// A member's engine wants its machine recovered, and nothing but the hold of this domain stands against it.
    pub(super) fn hears(&mut self, key: &Key, domains: &[Name], now: Timestamp) {
        let mut closed = self.over(domains).filter(|(_, breaker)| !matches!(breaker.room(), Room::Yes(..)));
        let (Some((scope, _)), None) = (closed.next(), closed.next()) else { return };
        drop(closed);
        let Some(Breaker { phase: Phase::Evacuation(evacuation), .. }) = self.breakers.get_mut(&scope) else {
            return;
        };
        if let Stage::Heard(heard) = &mut evacuation.stage
            && now < evacuation.until
        {
            heard.insert(key.clone());
        }
    }

    /// Goes on with what time brings. `ready`: we trust ourselves, nothing is paused, and it could be written down.
    pub(super) fn advance_evacuations(
        &mut self,
        ready: bool,
        leases: &Leases,
        settings: &GuardSettings,
        now: Timestamp,
    ) {
        let of = |(scope, breaker): (&Scope, &Breaker)| match (scope, &breaker.phase) {
            (Scope::Domain(domain), Phase::Evacuation(_)) => Some(domain.clone()),
            _ => None,
        };
        for domain in self.breakers.iter().filter_map(of).collect::<Vec<_>>() {
            let next = self.next(&domain, ready, leases, settings, now);
            let scope = Scope::Domain(domain.clone());
            match next {
                Next::Wait => {}
                Next::Begin(members) => self.begin(&domain, members, settings, now),
                Next::Close => self.close(&scope, "all that left health are back or taken out"),
                Next::SlowStart(why) => self.over_with(&scope, &why, now),
                Next::Look(why) => self.look(&scope, &why, settings, now),
            }
        }
    }

    fn next(
        &mut self,
        domain: &Name,
        ready: bool,
        leases: &Leases,
        settings: &GuardSettings,
        now: Timestamp,
    ) -> Next {
        let down = self.population.down(Some(domain));
        let members: Vec<(&Key, HealthClass)> = self.population.of_domain(domain).collect();
        let scope = Scope::Domain(domain.clone());
        let Some(Breaker { phase: Phase::Evacuation(it), .. }) = self.breakers.get_mut(&scope) else {
            return Next::Wait;
        };
        let late = now >= it.until;
        match &mut it.stage {
            Stage::Begun(number) if late => {
                Next::Look(format!("the evacuation (!{number}) has no outcome; it is not repeated"))
            }
            Stage::Begun(_) => Next::Wait,
            _ if down == 0 => Next::Close,
            Stage::Verified if late => Next::SlowStart(format!("{down} are still down after the evacuation")),
            Stage::Verified => Next::Wait,
            Stage::Heard(heard) => {
                if !ready || members.iter().any(|(key, _)| leases.touch(key)) {
                    // What was heard is old by then.
                    heard.clear();
                    it.until = now.after(settings.evacuation_heard);
                    return Next::Wait;
                }
                let others = members.iter().filter(|(_, class)| *class != HealthClass::Left).count();
                if others > 0 {
                    let of = members.len();
                    return Next::SlowStart(format!(
                        "it is not evacuated: {others} of its {of} assemblies are healthy, in maintenance or given up"
                    ));
                }
                if heard.len() == members.len() || (late && heard.len() >= settings.domain_count) {
                    return Next::Begin(heard.iter().cloned().collect());
                }
                if late {
                    let (heard, of) = (heard.len(), members.len());
                    return Next::SlowStart(format!(
                        "it is not evacuated: the engines of {heard} of its {of} assemblies want them recovered"
                    ));
                }
                Next::Wait
            }
        }
    }

    fn begin(&mut self, domain: &Name, members: Vec<Key>, settings: &GuardSettings, now: Timestamp) {
        let scope = Scope::Domain(domain.clone());
        let Some(infrastructure) = self.evacuations.points.get(domain).cloned() else {
            return self.over_with(&scope, "it is not evacuated: nobody can any more", now);
        };
        self.evacuations.begun += 1;
        let number = ActionId(self.evacuations.begun);
        let Some(breaker) = self.breakers.get_mut(&scope) else { return };
        let until = now.after(settings.evacuation);
        breaker.phase = Phase::Evacuation(Evacuation { stage: Stage::Begun(number), until });
        breaker.considered = true;
        let reason = format!(
            "{scope}: nothing of it answers; the {} assemblies that are to be recovered are evacuated by infrastructure {infrastructure}, once (!{number})",
            members.len()
        );
        self.tell(scope, reason, true);
        let (domain, timeout) = (domain.clone(), settings.evacuation);
        self.outputs.push_back(GuardOutput::Evacuate(Evacuate {
            number,
            domain,
            infrastructure,
            members,
            timeout,
        }));
    }

    fn evacuated(
        &mut self,
        domain: &Name,
        number: ActionId,
        outcome: &ActionOutcome,
        settings: &GuardSettings,
        now: Timestamp,
    ) {
        let scope = Scope::Domain(domain.clone());
        let Some(Breaker { phase: Phase::Evacuation(it), .. }) = self.breakers.get(&scope) else { return };
        if !matches!(it.stage, Stage::Begun(begun) if begun == number) {
            return;
        }
        match outcome {
            ActionOutcome::Done { detail } => {
                self.look(&scope, &format!("the evacuation (!{number}) is done: {detail}"), settings, now);
            }
            ActionOutcome::Unresolved { detail } => {
                let said = format!(
                    "what came of the evacuation (!{number}) is not known: {detail}; it is not repeated"
                );
                self.look(&scope, &said, settings, now);
            }
            ActionOutcome::Failed { detail } => {
                self.over_with(&scope, &format!("the evacuation (!{number}) failed: {detail}"), now);
            }
            ActionOutcome::NotBegun { detail, .. } => {
                self.over_with(&scope, &format!("the evacuation (!{number}) was not begun: {detail}"), now);
            }
        }
    }

    /// Its members' probes say whether it helped.
    fn look(&mut self, scope: &Scope, why: &str, settings: &GuardSettings, now: Timestamp) {
        let Some(breaker) = self.breakers.get_mut(scope) else { return };
        let until = now.after(settings.evacuation_verified);
        breaker.phase = Phase::Evacuation(Evacuation { stage: Stage::Verified, until });
        let within = span(settings.evacuation_verified);
        self.tell(
            scope.clone(),
            format!("{scope}: {why}; its probes say within {within} whether it helped"),
            false,
        );
    }

    fn over_with(&mut self, scope: &Scope, why: &str, now: Timestamp) {
        let Some(breaker) = self.breakers.get_mut(scope) else { return };
        breaker.considered = true;
        let Scope::Domain(domain) = scope else { return };
        let down = self.population.down(Some(domain));
        self.tell(scope.clone(), format!("{scope}: {why}"), false);
        self.slow_start(scope, down, now);
    }
}
