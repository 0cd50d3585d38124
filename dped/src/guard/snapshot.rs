//! What of the guard outlives a restart (policy.md section 6: "its budgets and breakers are journaled"): leases, the times of machine
//! rungs, holds with their slow start, who is down. The data is `cpe_proto::snapshot::guard`'s; when it is to be written says
//! [`Guard::take_persist`]. What it thinks of itself and of paths begins anew.

use std::time::Duration;

use cpe_proto::id::{ActionId, AssemblyIndex, Name};
use cpe_proto::snapshot::guard::{
    DownSnapshot, EvacuationPhase, GUARD_SNAPSHOT_VERSION, GuardSnapshot, HoldPhase, HoldSnapshot,
    LeaseSnapshot, Member, TrialSnapshot,
};
use cpe_proto::time::Timestamp;

use super::breaker::{Breaker, Phase, SlowStart, Trial};
use super::evacuation::{self, Evacuation};
use super::lease::{Carried, Lease};
use super::population::Key;
use super::{Guard, GuardSettings, Scope};
use crate::describe::span;

impl Guard {
    /// Whether what must outlive this process has changed since this was asked last.
    pub fn take_persist(&mut self) -> bool {
        let of_holds = self.holds.take_changed();
        std::mem::take(&mut self.changed) || of_holds
    }

    /// What must outlive this process.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> GuardSnapshot {
        let lease = |((deployable, action), lease): (&(Name, ActionId), &Lease)| LeaseSnapshot {
            member: member(&(deployable.clone(), lease.assembly)),
            action: *action,
            infrastructure: lease.infrastructure.clone(),
            domains: lease.domains.to_vec(),
            left: lease.until.since(now).into(),
            give_up: Some(lease.give_up.since(now).into()),
            astray: lease.astray,
        };
        let rungs = self.leases.machine_rungs.iter();
        let rungs =
            rungs.map(|(name, times)| (name.clone(), times.iter().map(|at| now.since(*at).into()).collect()));
        let hold = |(scope, breaker): (&Scope, &Breaker)| HoldSnapshot {
            domain: match scope {
                Scope::Domain(name) => Some(name.clone()),
                Scope::Fleet | Scope::Itself => None,
            },
            phase: phase(&breaker.phase, now),
            evacuation: evacuation::phase(breaker),
        };
        let down = self.holds.population.losses().map(|(key, domains, at)| DownSnapshot {
            member: member(key),
            domains: domains.to_vec(),
            ago: now.since(at).into(),
        });
        GuardSnapshot {
            version: GUARD_SNAPSHOT_VERSION,
            leases: self.leases.granted.iter().map(lease).collect(),
            machine_rungs: rungs.collect(),
            holds: self.holds.breakers.iter().map(hold).collect(),
            down: down.collect(),
            evacuations: self.holds.evacuations.begun,
            distrust_told: self.distrust.is_some_and(|(_, told)| told),
        }
    }

    /// Takes up what another process has written down `elapsed` ago: time spent down counts as elapsed. A snapshot of another version is
    /// not taken up; what is still down is then held anew when it is seen.
    #[must_use]
    pub fn restore(
        settings: GuardSettings,
        snapshot: &GuardSnapshot,
        elapsed: Duration,
        now: Timestamp,
    ) -> Self {
        let mut guard = Self::new(settings);
        if snapshot.version != GUARD_SNAPSHOT_VERSION {
            return guard;
        }
        let left = |left: Duration| now.after(left.saturating_sub(elapsed));
        let ago = |age: Duration| now.before(age.saturating_add(elapsed));
        for lease in &snapshot.leases {
            let restored = Lease {
                assembly: lease.member.assembly,
                infrastructure: lease.infrastructure.clone(),
                domains: lease.domains.as_slice().into(),
                until: left(lease.left.into()),
                give_up: left(lease.give_up.unwrap_or(lease.left).into()),
                astray: lease.astray,
            };
            guard.leases.add(&lease.member.deployable, lease.action, restored);
        }
        for (name, ages) in &snapshot.machine_rungs {
            for age in ages {
                guard.leases.note_machine_rung(name, ago((*age).into()));
            }
        }
        for down in &snapshot.down {
            guard.holds.population.lost_before(&key(&down.member), &down.domains, ago(down.ago.into()));
        }
        guard.holds.evacuations.begun = snapshot.evacuations;
        for hold in &snapshot.holds {
            guard.take_up(hold, elapsed, now);
        }
        guard.distrust = snapshot.distrust_told.then_some((now, true));
        guard
    }

    fn take_up(&mut self, hold: &HoldSnapshot, elapsed: Duration, now: Timestamp) {
        let scope = hold.domain.clone().map_or(Scope::Fleet, Scope::Domain);
        let left = |left: Duration| now.after(left.saturating_sub(elapsed));
        let ago = |age: Duration| now.before(age.saturating_add(elapsed));
        let (phase, goes_on) = match &hold.phase {
            HoldPhase::Hold(wait) if hold.evacuation.is_some_and(|it| it != EvacuationPhase::Over) => {
                let evacuation = hold.evacuation.unwrap_or(EvacuationPhase::Verified);
                Evacuation::restored(evacuation, left((*wait).into()))
            }
            HoldPhase::Hold(wait) => {
                let until = left((*wait).into());
                (Phase::Hold { until }, format!("nothing is done there for {} more", span(until.since(now))))
            }
            HoldPhase::Exhausted(wait) => {
                let until = left((*wait).into());
                (Phase::Exhausted { until }, format!("exhausted, tried again in {}", span(until.since(now))))
            }
            HoldPhase::SlowStart { width, verified, asked, trials } => {
                let trial = |trial: &TrialSnapshot| {
                    let restored = Trial {
                        action: trial.action,
                        admitted: ago(trial.admitted.into()),
                        released: trial.released.map(|age| ago(age.into())),
                    };
                    (key(&trial.member), restored)
                };
                let start = SlowStart {
                    width: (*width).max(1),
                    verified: *verified,
                    trials: trials.iter().map(trial).collect(),
                    asked: ago((*asked).into()),
                };
                (Phase::SlowStart(start), format!("slow start, {width} at a time"))
            }
        };
        let considered = hold.evacuation.is_some_and(|it| it != EvacuationPhase::Considered);
        self.holds.breakers.insert(scope.clone(), Breaker { phase, considered });
        self.holds.tell(
            scope.clone(),
            format!("{scope} is held on after a restart of cpe: {goes_on}"),
            false,
        );
    }

    /// After a restart, before any engine runs: a lease ends with its action; what nobody saw end is in flight until it is given up. What an
    /// engine goes on with is in flight however long cpe was down, or its clock was set meanwhile: the engine looks at it first.
    pub fn retain_leases(&mut self, carried: impl Fn(&Name, ActionId) -> Carried, now: Timestamp) {
        self.leases.carry_on(carried, now.after(self.settings.lease));
        self.changed = true;
    }

    /// After a restart: the health of what is not managed any more is forgotten. What was begun there goes on in the world, and an engine
    /// goes on with it where the definition comes back, so leases stay.
    pub fn retain(&mut self, managed: impl Fn(&Name, AssemblyIndex) -> bool) {
        self.holds.retain(managed);
        self.changed = true;
    }
}

fn member(key: &Key) -> Member {
    Member { deployable: key.0.clone(), assembly: key.1 }
}

fn key(member: &Member) -> Key {
    (member.deployable.clone(), member.assembly)
}

fn phase(phase: &Phase, now: Timestamp) -> HoldPhase {
    match phase {
        Phase::Hold { until } | Phase::Evacuation(Evacuation { until, .. }) => {
            HoldPhase::Hold(until.since(now).into())
        }
        Phase::Exhausted { until } => HoldPhase::Exhausted(until.since(now).into()),
        Phase::SlowStart(start) => {
            let trial = |(key, trial): (&Key, &Trial)| TrialSnapshot {
                member: member(key),
                action: trial.action,
                admitted: now.since(trial.admitted).into(),
                released: trial.released.map(|at| now.since(at).into()),
            };
            HoldPhase::SlowStart {
                width: start.width,
                verified: start.verified,
                asked: now.since(start.asked).into(),
                trials: start.trials.iter().map(trial).collect(),
            }
        }
    }
}
