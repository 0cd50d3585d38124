//! The fleet guard: the one gate above all engines (policy.md section 6). Called in the process, synchronously, with its own state only:
//! self-trust (`guard/trust.rs`), common causes and their holds (`guard/holds.rs`), the one action at a shared
//! point (`guard/evacuation.rs`), budgets as leases that expire (`guard/lease.rs`),
//! and which paths were proven by whom (`guard/path.rs`). What it cannot know it does not admit.

mod breaker;
mod evacuation;
mod holds;
mod lease;
mod path;
mod population;
mod snapshot;
mod trust;

use std::collections::BTreeSet;
use std::time::Duration;

use cpe_proto::decision::{Answer, ChannelFact, Refusal, Value};
use cpe_proto::id::{ActionId, AssemblyIndex, Name};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::rung::Rung;
use cpe_proto::time::Timestamp;

use crate::describe::{span, value};
use crate::output::Request;
use breaker::Room;
pub use evacuation::Evacuate;
use holds::Holds;
pub use holds::{GuardOutput, Scope};
pub use lease::Carried;
use lease::{Lease, Leases};
use path::Paths;
pub use population::HealthClass;
use trust::Trust;

/// The network path of all assemblies that name no other.
pub const DEFAULT_PATH: &str = "default";

/// When the controller has not trusted itself for so long, that is told.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// Its numbers, with policy.md section 6's values as the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardSettings {
    /// In flight in one deployable (1).
    pub in_flight_deployable: usize,
    /// In flight in one failure domain (5).
    pub in_flight_domain: usize,
    /// In flight on one infrastructure (10).
    pub in_flight_infrastructure: usize,
    /// In flight in all (50).
    pub in_flight_fleet: usize,
    /// Machine rungs on one infrastructure (10) ...
    pub machine_rungs: usize,
    /// ... within this (10 min).
    pub machine_rungs_within: Duration,
    /// A lease that was not released ends after this (30 min), and not before twice `action_give_up`: longer than that and a verification.
    pub lease: Duration,
    /// What left health within this counts together (2 min).
    pub window: Duration,
    /// A domain is held at so many (3) ...
    pub domain_count: usize,
    /// ... that are so much of it, in percent (20).
    pub domain_percent: usize,
    /// The fleet breaker opens at so many (5) ...
    pub fleet_count: usize,
    /// ... that are so much of the fleet, in percent (30).
    pub fleet_percent: usize,
    /// A hold lasts (2 min).
    pub hold: Duration,
    /// After a failed repair in a slow start, the next is (30 min) later.
    pub retry_after: Duration,
    /// A repair that is over has worked when its assembly is healthy within this (30 s).
    pub verified_within: Duration,
    /// A slow start in which nobody wanted anything for this (10 min) is over.
    pub quiet: Duration,
    /// Before a domain is evacuated, its members' engines are heard for this (30 s).
    pub evacuation_heard: Duration,
    /// An evacuation may take this (10 min).
    pub evacuation: Duration,
    /// After it, what it was for has this (5 min) to be healthy.
    pub evacuation_verified: Duration,
    /// Between two ticks, above this all evidence is void (3 s).
    pub gap: Duration,
    /// After a lag above its budget, trust returns when there was none for this (1 s).
    pub late_settle: Duration,
    /// A canary's answer counts for this (10 s).
    pub canary_fresh: Duration,
}

impl Default for GuardSettings {
    fn default() -> Self {
        Self {
            in_flight_deployable: 1,
            in_flight_domain: 5,
            in_flight_infrastructure: 10,
            in_flight_fleet: 50,
            machine_rungs: 10,
            machine_rungs_within: Duration::from_secs(600),
            lease: Duration::from_secs(1800),
            window: Duration::from_secs(120),
            domain_count: 3,
            domain_percent: 20,
            fleet_count: 5,
            fleet_percent: 30,
            hold: Duration::from_secs(120),
            retry_after: Duration::from_secs(1800),
            verified_within: Duration::from_secs(30),
            quiet: Duration::from_secs(600),
            evacuation_heard: Duration::from_secs(30),
            evacuation: Duration::from_secs(600),
            evacuation_verified: Duration::from_secs(300),
            gap: Duration::from_secs(3),
            late_settle: Duration::from_secs(1),
            canary_fresh: Duration::from_secs(10),
        }
    }
}

impl GuardSettings {
    /// How many machine rungs may be spent when another begins. Dated retries leave half to first attempts: however much is exhausted, what
    /// has just failed does not wait for it. Where first attempts wait, each place that comes free is theirs.
    pub(crate) const fn machine_rungs_for(&self, dated_retry: bool) -> usize {
        if dated_retry { self.machine_rungs.div_ceil(2) } else { self.machine_rungs }
    }
}

/// Where an action would be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The deployable's infrastructure.
    pub infrastructure: Option<Name>,
    /// The assembly's failure domains.
    pub domains: &'a [Name],
}

/// The fleet guard.
#[derive(Debug)]
pub struct Guard {
    settings: GuardSettings,
    leases: Leases,
    paths: Paths,
    trust: Trust,
    holds: Holds,
    /// Since when it does not trust itself, and whether that was told.
    distrust: Option<(Timestamp, bool)>,
    journal_writable: bool,
    paused: bool,
    paused_domains: BTreeSet<Name>,
    /// What must outlive this process has changed.
    changed: bool,
}

/// Who proved a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prover {
    /// An assembly of that deployable.
    Peer(Name, AssemblyIndex),
    /// A canary, by its place among those of its path.
    Canary(usize),
}

impl Guard {
    /// A guard that has granted nothing yet and may write its journal.
    #[must_use]
    pub fn new(settings: GuardSettings) -> Self {
        Self {
            settings,
            leases: Leases::default(),
            paths: Paths::default(),
            trust: Trust::default(),
            holds: Holds::default(),
            distrust: None,
            journal_writable: true,
            paused: false,
            paused_domains: BTreeSet::new(),
            changed: false,
        }
    }

    /// Whether the journal can be written. Without it nothing is admitted, whatever the rung.
    pub const fn set_journal_writable(&mut self, writable: bool) {
        self.journal_writable = writable;
    }

    /// An operator stopped, or allowed again, every recovery of the fleet.
    pub const fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// An operator stopped, or allowed again, every recovery in a failure domain.
    pub fn set_domain_paused(&mut self, domain: &Name, paused: bool) {
        if paused {
            self.paused_domains.insert(domain.clone());
        } else {
            self.paused_domains.remove(domain);
        }
    }

    /// Whether every recovery of the fleet is stopped.
    #[must_use]
    pub const fn paused(&self) -> bool {
        self.paused
    }

    /// A path has so many canaries. Until they answer it is not trusted.
    pub fn expect_canaries(&mut self, path: &str, canaries: usize) {
        self.trust.expect(path, canaries);
    }

    /// A canary answered or did not.
    pub fn canary(&mut self, path: &str, index: usize, answered: bool, now: Timestamp) {
        self.trust.canary(path, index, answered, now);
    }

    /// Our own lag was measured; `late`: above its budget.
    pub fn lag(&mut self, now: Timestamp, late: bool) {
        if late {
            self.trust.late(now, &self.settings);
        }
    }

    /// A tick, about once a second: what time brings. A gap between two of them voids what was known of ourselves.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.trust.tick(now, &self.settings);
        self.changed |= self.leases.expire(now, self.settings.machine_rungs_within);
        let trusted = self.trusted(now);
        self.holds.advance(trusted.is_ok(), &self.settings, now);
        let ready = trusted.is_ok() && !self.paused && self.journal_writable;
        self.holds.advance_evacuations(ready, &self.leases, &self.settings, now);
        self.tell_trust(trusted, now);
    }

    /// What it says by itself; none: nothing more for now.
    pub fn poll_output(&mut self) -> Option<GuardOutput> {
        self.holds.poll_output()
    }

    /// Trust on all paths that have canaries.
    fn trusted(&self, now: Timestamp) -> Result<(), String> {
        self.trust.own(now, &self.settings)?;
        self.trust.paths().try_for_each(|path| self.trust.on_path(path, now, &self.settings).map(drop))
    }

    fn tell_trust(&mut self, trusted: Result<(), String>, now: Timestamp) {
        match (trusted, self.distrust) {
            (Ok(()), None) => {}
            (Ok(()), Some((_, told))) => {
                self.distrust = None;
                self.changed |= told;
                if told {
                    self.holds.tell(Scope::Itself, "cpe trusts itself again".to_owned(), false);
                }
            }
            (Err(_), None) => self.distrust = Some((now, false)),
            (Err(why), Some((since, false))) if now.since(since) >= TOLD_AFTER => {
                self.distrust = Some((since, true));
                self.changed = true;
                let said = format!("cpe does not trust itself: {why}; nothing that rests on absence is done");
                self.holds.tell(Scope::Itself, said, true);
            }
            (Err(_), Some(_)) => {}
        }
    }

    /// Whether the controller trusts itself on that path: isolation row 1.
    #[must_use]
    pub fn self_trusted(&self, path: &str, now: Timestamp) -> bool {
        self.trust.on_path(path, now, &self.settings).is_ok()
    }

    /// Whether the controller trusts itself on all paths that have canaries.
    #[must_use]
    pub fn trusts_itself(&self, now: Timestamp) -> bool {
        self.trusted(now).is_ok()
    }

    /// The held domain among these: isolation row 2. A domain in slow start is not: its members are judged, and admitted a few at a time.
    #[must_use]
    pub fn held_domain(&self, domains: &[Name]) -> Option<Name> {
        self.holds.held(domains).cloned()
    }

    /// What of its limits stands against a machine rung there now, or against the dated retry of one, and ends by itself: each as a clause,
    /// with when that is at the latest.
    #[must_use]
    pub fn waits(&self, place: &Place<'_>, dated_retry: bool) -> Vec<(String, Timestamp)> {
        let closed = self.holds.over(place.domains).filter_map(|(scope, breaker)| match breaker.room() {
            Room::Closed(until) => Some((format!("{scope} is held"), until)),
            Room::Yes(..) | Room::Full(..) => None,
        });
        let mut waits: Vec<_> = closed.collect();
        let spent = place.infrastructure.as_ref().and_then(|name| {
            let (settings, within) = (&self.settings, self.settings.machine_rungs_within);
            let limit = settings.machine_rungs_for(dated_retry);
            let frees = self.leases.machine_rung_that_frees(name, limit)?;
            let mut what =
                format!("{limit} machine actions in {} on infrastructure {name} are spent", span(within));
            if limit < settings.machine_rungs {
                what.push_str(", the others are for first attempts");
            }
            Some((what, frees.after(within)))
        });
        waits.extend(spent);
        waits
    }

    /// What is held or in slow start now.
    pub fn holds(&self) -> impl Iterator<Item = &Scope> {
        self.holds.scopes()
    }

    /// An assembly's health changed, or is seen for the first time.
    pub fn health(
        &mut self,
        deployable: &Name,
        assembly: AssemblyIndex,
        domains: &[Name],
        class: HealthClass,
        now: Timestamp,
    ) {
        self.holds.health(&(deployable.clone(), assembly), domains, class, &self.settings, now);
    }

    /// A deployable's assemblies are others: what was known of their health is void. Leases stay.
    pub fn forget(&mut self, deployable: &Name) {
        self.holds.forget(deployable);
    }

    /// A deployable is managed no more, or its engine is parked: nobody carries on what it had begun. That is in flight until it is seen to
    /// end ([`release`](Self::release)), or given up: the definition may come back meanwhile.
    pub fn part(&mut self, deployable: &Name) {
        self.forget(deployable);
        self.leases.go_astray(deployable);
        self.changed = true;
    }

    /// Admits or refuses, with everything that was looked at, in order; the last value decided a refusal. An admission is a lease:
    /// [`release`](Self::release) it.
    pub fn ask(
        &mut self,
        key: &Name,
        request: &Request,
        place: &Place<'_>,
        now: Timestamp,
    ) -> (Answer, Vec<Value>) {
        self.changed |= self.leases.expire(now, self.settings.machine_rungs_within);
        if is_ramped(request) {
            self.holds.wants(&(key.clone(), request.assembly), place.domains, &self.settings, now);
        }
        let mut gates = Vec::with_capacity(8);
        let answer = match self.refusal(key, request, place, now, &mut gates) {
            Some(refusal) => {
                if refusal == Refusal::DomainHeld && rests_on_silence(request) {
                    self.holds.hears(&(key.clone(), request.assembly), place.domains, now);
                }
                Answer::Refused(refusal)
            }
            None => {
                self.grant(key, request, place, now);
                Answer::Admitted
            }
        };
        (answer, gates)
    }

    fn refusal(
        &self,
        key: &Name,
        request: &Request,
        place: &Place<'_>,
        now: Timestamp,
        gates: &mut Vec<Value>,
    ) -> Option<Refusal> {
        let domain = place.domains.iter().find(|it| self.paused_domains.contains(*it));
        let paused = match domain {
            _ if self.paused => "paused".to_owned(),
            Some(domain) => format!("paused in {domain}"),
            None => "not paused".to_owned(),
        };
        gates.push(value("fleet", paused));
        // A step of what was admitted is not stranded half way (policy.md section 7).
        if (self.paused || domain.is_some()) && !self.is_part(key, request) {
            return Some(Refusal::Paused);
        }
        if self.untrusted(request, now, gates) {
            return Some(Refusal::Untrusted);
        }
        let (age, limit) = (span(request.evidence_age), span(request.evidence_age_max));
        gates.push(value("age of the evidence", format!("{age}, at most {limit}")));
        if request.evidence_age > request.evidence_age_max {
            return Some(Refusal::Evidence);
        }
        if let Some(refusal) = self.held(request, place, now, gates) {
            return Some(refusal);
        }
        if self.over_budget(key, request, place, gates) {
            return Some(Refusal::Budget);
        }
        gates.push(value("journal", if self.journal_writable { "writable" } else { "not writable" }));
        (!self.journal_writable).then_some(Refusal::Journal)
    }

    /// What rests on absence needs our trust in ourselves; what was concluded without it is not acted upon at all.
    fn untrusted(&self, request: &Request, now: Timestamp, gates: &mut Vec<Value>) -> bool {
        let trusted = self.trust.on_path(DEFAULT_PATH, now, &self.settings);
        let (said, distrusted) = match trusted {
            _ if !request.facts.self_trusted => ("not trusted when it was concluded".to_owned(), true),
            Ok(said) => (said, false),
            Err(why) if only_budgets(request) => (format!("not trusted ({why}), not needed"), false),
            Err(why) => (format!("not trusted: {why}"), true),
        };
        gates.push(value("self", said));
        distrusted
    }

    /// Whether a common cause holds it back: the fleet's, then those of its domains.
    fn held(
        &self,
        request: &Request,
        place: &Place<'_>,
        now: Timestamp,
        gates: &mut Vec<Value>,
    ) -> Option<Refusal> {
        if only_budgets(request) {
            return None;
        }
        for (scope, breaker) in self.holds.over(place.domains) {
            let refusal = if scope == Scope::Fleet { Refusal::BreakerOpen } else { Refusal::DomainHeld };
            let (said, closed) = match breaker.room() {
                Room::Yes(used, width) => (format!("slow start, {used} of {width}"), false),
                Room::Full(used, width) => (format!("slow start, {used} of {width}"), true),
                Room::Closed(until) => (format!("for {} more", span(until.since(now))), true),
            };
            gates.push(value(&format!("hold, {scope}"), said));
            if closed {
                return Some(refusal);
            }
            if scope == Scope::Fleet && request.facts.instance.is_none_or(|it| it == InstanceState::Unknown) {
                gates.push(value("infrastructure", "does not answer"));
                return Some(refusal);
            }
        }
        None
    }

    /// Whether it is a step of a recovery of the whole deployable that holds its lease.
    fn is_part(&self, key: &Name, request: &Request) -> bool {
        let whole = request.part_of.filter(|_| request.rung.is_none());
        whole.is_some_and(|whole| self.leases.holds(key, whole))
    }

    /// Whether a budget is spent; it stops at the first that is.
    fn over_budget(&self, key: &Name, request: &Request, place: &Place<'_>, gates: &mut Vec<Value>) -> bool {
        let mut spent = |what: String, used: usize, limit: usize| {
            gates.push(value(&what, format!("{used} of {limit}")));
            used >= limit
        };
        // A start step on a machine whose recovery holds the lease is part of that recovery.
        let step_of = request.rung.is_none().then_some(request.assembly);
        let settings = &self.settings;
        // So is a step of a recovery of the whole deployable, which has the deployable's place.
        if !self.is_part(key, request)
            && spent(
                "in flight, deployable".to_owned(),
                self.leases.of_deployable(key, step_of),
                settings.in_flight_deployable,
            )
        {
            return true;
        }
        for domain in place.domains {
            if spent(
                format!("in flight, domain {domain}"),
                self.leases.of_domain(domain),
                settings.in_flight_domain,
            ) {
                return true;
            }
        }
        if let Some(name) = &place.infrastructure {
            if spent(
                format!("in flight, infrastructure {name}"),
                self.leases.of_infrastructure(name),
                settings.in_flight_infrastructure,
            ) {
                return true;
            }
            let machine = request.rung.is_some_and(|rung| rung > Rung::RestartService);
            let within = span(settings.machine_rungs_within);
            let of = if request.dated_retry { " of dated retries" } else { "" };
            if machine
                && spent(
                    format!("machine rungs{of} in {within}, infrastructure {name}"),
                    self.leases.machine_rungs(name),
                    settings.machine_rungs_for(request.dated_retry),
                )
            {
                return true;
            }
        }
        spent("in flight, fleet".to_owned(), self.leases.len(), settings.in_flight_fleet)
    }

    fn grant(&mut self, key: &Name, request: &Request, place: &Place<'_>, now: Timestamp) {
        let machine = request.rung.is_some_and(|rung| rung > Rung::RestartService);
        if let Some(name) = place.infrastructure.as_ref().filter(|_| machine) {
            self.leases.note_machine_rung(name, now);
        }
        let lease = Lease {
            assembly: request.assembly,
            infrastructure: place.infrastructure.clone(),
            domains: place.domains.into(),
            until: lease::ends(self.settings.lease, request.give_up, now),
            give_up: now.after(request.give_up),
            astray: false,
        };
        self.leases.add(key, request.action, lease);
        self.changed = true;
        if is_ramped(request) {
            self.holds.admit(&(key.clone(), request.assembly), place.domains, request.action, now);
        }
    }

    /// What was admitted is begun now, or a second step of it: what nobody sees end is given up `give_up` after this.
    pub fn begins(&mut self, key: &Name, action: ActionId, give_up: Duration, now: Timestamp) {
        self.changed |= self.leases.begin(key, action, (self.settings.lease, give_up), now);
    }

    /// A lease ends. One that is not there is no error: it expired, or was never granted.
    pub fn release(&mut self, key: &Name, action: ActionId, now: Timestamp) {
        self.changed |= self.leases.remove(key, action);
        self.holds.release(key, action, now);
    }

    /// The engine of a deployable is gone, and all that it had begun has ended: so do its leases, but for those of the actions that its
    /// successor goes on with.
    pub fn revoke(&mut self, key: &Name, goes_on: impl Fn(ActionId) -> bool, now: Timestamp) {
        for action in self.leases.of(key).into_iter().filter(|action| !goes_on(*action)) {
            self.release(key, action, now);
        }
    }

    /// How many leases are out.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.leases.len()
    }

    /// A channel over that path answered.
    pub fn answered(&mut self, path: &str, deployable: &Name, assembly: AssemblyIndex, now: Timestamp) {
        self.paths.answered(path, deployable, assembly, now);
    }

    /// How long ago another one on that path answered, and who: the deployable's name and its assembly's place.
    #[must_use]
    pub fn path_answered(
        &self,
        path: &str,
        except: (&Name, AssemblyIndex),
        now: Timestamp,
    ) -> Option<(Duration, (Name, AssemblyIndex))> {
        self.paths.answered_by_another(path, except, now)
    }

    /// How long ago a canary of that path or another assembly on it answered, whichever is newer, and who.
    #[must_use]
    pub fn path_proof(
        &self,
        path: &str,
        except: (&Name, AssemblyIndex),
        now: Timestamp,
    ) -> Option<(Duration, Prover)> {
        let canary = self.trust.answered(path, now, &self.settings);
        let canary = canary.map(|(ago, index)| (ago, Prover::Canary(index)));
        let peer = self.path_answered(path, except, now);
        let peer = peer.map(|(ago, (name, index))| (ago, Prover::Peer(name, index)));
        [canary, peer].into_iter().flatten().min_by_key(|(ago, _)| *ago)
    }
}

/// A machine is to be recovered that does not answer.
fn rests_on_silence(request: &Request) -> bool {
    request.rung.is_some_and(|rung| rung > Rung::RestartService)
        && request.facts.channel != ChannelFact::Healthy
}

/// It repairs what a hold is about: a slow start counts it. A machine that is powered off or on by an order waits for a hold, too, and says
/// nothing of what became of it.
fn is_ramped(request: &Request) -> bool {
    !only_budgets(request) && request.rung.is_some()
}

/// A restart or a step of a start or stop, on positive evidence over a healthy channel: neither the domain's nor the fleet's breaker
/// matters to it, nor what we think of our network.
fn only_budgets(request: &Request) -> bool {
    request.rung.is_none_or(|rung| rung == Rung::RestartService)
        && request.facts.channel == ChannelFact::Healthy
}
