//! Common causes (policy.md section 6): which failure domains are held, whether the fleet breaker is open, and what of them is told.
//! The counts are `population.rs`'s, the life of one hold is `breaker.rs`'s.
//!
//! A loss in a held domain is explained by it, so it opens the fleet breaker only together with a second held domain: one domain that is
//! down never holds the others. What is in no named domain counts as a domain of its own.

use std::collections::{BTreeMap, VecDeque};

use cpe_proto::id::{ActionId, AssemblyIndex, Name};
use cpe_proto::time::Timestamp;

use super::GuardSettings;
use super::breaker::{Breaker, Phase};
use super::evacuation::{Evacuate, Evacuations};
use super::population::{HealthClass, Key, Population, Share};
use crate::describe::span;

/// Most outputs that wait to be taken; each is a change of one hold, and those are minutes apart.
const OUTPUTS_MAX: usize = 4096;

/// What is held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything: the fleet breaker.
    Fleet,
    /// One failure domain.
    Domain(Name),
    /// Everything that rests on absence: the controller does not trust itself.
    Itself,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fleet => out.write_str("the fleet"),
            Self::Domain(name) => write!(out, "failure domain {name}"),
            Self::Itself => out.write_str("cpe itself"),
        }
    }
}

/// What the guard says by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardOutput {
    /// A hold began, went on to its next phase, or ended: keep it, show it.
    BreakerChanged {
        /// What is held.
        scope: Scope,
        /// One sentence that names the scope.
        reason: Box<str>,
    },
    /// One action at what a domain's members share.
    Evacuate(Evacuate),
    /// A person must be told now.
    Notify {
        /// One sentence.
        message: Box<str>,
    },
}

#[derive(Debug, Default)]
pub(super) struct Holds {
    pub(super) population: Population,
    pub(super) breakers: BTreeMap<Scope, Breaker>,
    pub(super) evacuations: Evacuations,
    pub(super) outputs: VecDeque<GuardOutput>,
    /// A hold is not what it was.
    pub(super) changed: bool,
}

impl Holds {
    /// Whether a hold, or who is down, has changed since this was asked last.
    pub(super) fn take_changed(&mut self) -> bool {
        let of_population = self.population.take_changed();
        std::mem::take(&mut self.changed) || of_population
    }

    pub(super) fn poll_output(&mut self) -> Option<GuardOutput> {
        self.outputs.pop_front()
    }

    pub(super) fn tell(&mut self, scope: Scope, reason: String, person: bool) {
        self.changed = true;
        if self.outputs.len() + 2 > OUTPUTS_MAX {
            return;
        }
        if person {
            self.outputs.push_back(GuardOutput::Notify { message: reason.as_str().into() });
        }
        self.outputs.push_back(GuardOutput::BreakerChanged { scope, reason: reason.into() });
    }

    pub(super) fn health(
        &mut self,
        key: &Key,
        domains: &[Name],
        class: HealthClass,
        settings: &GuardSettings,
        now: Timestamp,
    ) {
        let lost = self.population.health(key, domains, class, settings.window, now);
        match class {
            HealthClass::Healthy => self.verified(key),
            HealthClass::Excluded => self.given_up(key, settings, now),
            HealthClass::Left if lost => self.lost(domains, settings, now),
            HealthClass::Left => {}
        }
    }

    fn verified(&mut self, key: &Key) {
        self.changed |= self.breakers.values().any(|breaker| breaker.has_trial(key));
        let grown = self
            .breakers
            .iter_mut()
            .filter_map(|(scope, breaker)| Some((scope.clone(), breaker.verified(key)?)));
        for (scope, width) in grown.collect::<Vec<_>>() {
            let reason = format!("{scope}: repairs are verified, slow start goes on with {width} at a time");
            self.tell(scope, reason, false);
        }
    }

    /// A member under repair is counted no more: its own ladder ended, or somebody took it out. Either way that repair did not work.
    fn given_up(&mut self, key: &Key, settings: &GuardSettings, now: Timestamp) {
        let failed: Vec<_> = self
            .breakers
            .iter()
            .filter(|(_, it)| it.has_trial(key))
            .map(|(scope, _)| scope.clone())
            .collect();
        for scope in failed {
            self.exhaust(&scope, key, settings, now);
        }
    }

    /// The domains first: what a held domain explains is no case for the fleet breaker.
    fn lost(&mut self, domains: &[Name], settings: &GuardSettings, now: Timestamp) {
        let start = now.before(settings.window);
        for domain in domains {
            let scope = Scope::Domain(domain.clone());
            if self.breakers.contains_key(&scope) {
                continue;
            }
            let share = self.population.share_of(domain, start);
            if share.reaches(settings.domain_count, settings.domain_percent) {
                self.open(scope, share, "", settings, now);
            }
        }
        if self.breakers.contains_key(&Scope::Fleet) {
            return;
        }
        let (share, losses) = self.population.share_of_fleet(start);
        let (explained, other): (Vec<&Key>, Vec<&Key>) =
            losses.iter().partition(|key| self.held_domains_of(key).next().is_some());
        let outside = Share { left: other.len(), of: share.of.saturating_sub(explained.len()) };
        let reaches = |share: Share| share.reaches(settings.fleet_count, settings.fleet_percent);
        let spread = reaches(outside) && self.common_domain(&other, false).is_none();
        let several =
            reaches(share) && !explained.is_empty() && self.common_domain(&explained, true).is_none();
        if spread || several {
            self.open(Scope::Fleet, share, " in 2 or more failure domains", settings, now);
        }
    }

    fn held_domains_of<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a Name> {
        let held = |domain: &&Name| self.breakers.contains_key(&Scope::Domain((*domain).clone()));
        self.population.domains_of(key).iter().filter(held)
    }

    /// The one domain that all these are in, if there is one.
    fn common_domain(&self, keys: &[&Key], held: bool) -> Option<&Name> {
        let (first, others) = keys.split_first()?;
        let in_all = |domain: &&Name| {
            others.iter().all(|key| self.population.domains_of(key).contains(domain))
                && (!held || self.breakers.contains_key(&Scope::Domain((*domain).clone())))
        };
        self.population.domains_of(first).iter().find(in_all)
    }

    fn open(&mut self, scope: Scope, share: Share, more: &str, settings: &GuardSettings, now: Timestamp) {
        let reason = format!(
            "{scope} is held: {} of {} assemblies left health within {}{more}; nothing is done there for {}, then slow start",
            share.left,
            share.of,
            span(settings.window),
            span(settings.hold)
        );
        self.breakers.insert(scope.clone(), Breaker::open(now, settings));
        self.tell(scope, reason, true);
    }

    fn exhaust(&mut self, scope: &Scope, failed: &Key, settings: &GuardSettings, now: Timestamp) {
        let Some(breaker) = self.breakers.get_mut(scope) else { return };
        breaker.exhaust(now, settings);
        let reason = format!(
            "{scope} is exhausted: a repair in {} did not work, so slow start stopped; tried again in {}",
            failed.0,
            span(settings.retry_after)
        );
        self.tell(scope.clone(), reason, true);
    }

    /// Goes on with what time brings.
    pub(super) fn advance(&mut self, trusted: bool, settings: &GuardSettings, now: Timestamp) {
        let scopes: Vec<Scope> = self.breakers.keys().cloned().collect();
        for scope in scopes {
            self.advance_one(&scope, trusted, settings, now);
        }
    }

    fn advance_one(&mut self, scope: &Scope, trusted: bool, settings: &GuardSettings, now: Timestamp) {
        let domain = match scope {
            Scope::Domain(name) => Some(name),
            Scope::Fleet | Scope::Itself => None,
        };
        let down = self.population.down(domain);
        let Some(breaker) = self.breakers.get_mut(scope) else { return };
        if let Some(failed) = breaker.overdue(now, settings).cloned() {
            return self.exhaust(scope, &failed, settings, now);
        }
        if matches!(breaker.phase, Phase::Evacuation(_)) {
            return;
        }
        let hold = matches!(breaker.phase, Phase::Hold { .. });
        let over = breaker.until().is_none_or(|until| now >= until);
        if down == 0 && (over || !hold) {
            return self.close(scope, "all that left health are back or taken out");
        }
        if breaker.quiet(now, settings) {
            let why = format!("nothing was to be done for {}; {down} are still down", span(settings.quiet));
            return self.close(scope, &why);
        }
        if !over || breaker.until().is_none() || !trusted {
            return;
        }
        if let Some(domain) = domain.filter(|_| hold)
            && self.evacuations.consider(domain, breaker, settings, now)
        {
            self.changed = true;
            return;
        }
        self.slow_start(scope, down, now);
    }

    pub(super) fn slow_start(&mut self, scope: &Scope, down: usize, now: Timestamp) {
        let Some(breaker) = self.breakers.get_mut(scope) else { return };
        breaker.slow_start(now);
        let reason = format!("{scope}: slow start, 1 repair at a time until it is verified; {down} are down");
        self.tell(scope.clone(), reason, false);
    }

    pub(super) fn close(&mut self, scope: &Scope, why: &str) {
        self.breakers.remove(scope);
        match scope {
            Scope::Domain(name) => self.population.settle(Some(name)),
            Scope::Fleet | Scope::Itself => self.population.settle(None),
        }
        self.tell(scope.clone(), format!("{scope} is held no more: {why}"), false);
    }

    /// The first of these domains whose members are not even judged.
    pub(super) fn held<'a>(&self, domains: &'a [Name]) -> Option<&'a Name> {
        let holds =
            |domain: &&Name| self.breakers.get(&Scope::Domain((*domain).clone())).is_some_and(Breaker::holds);
        domains.iter().find(holds)
    }

    /// The breakers over an assembly in these domains: the fleet's first.
    pub(super) fn over<'a>(&'a self, domains: &'a [Name]) -> impl Iterator<Item = (Scope, &'a Breaker)> {
        let scopes = std::iter::once(Scope::Fleet).chain(domains.iter().cloned().map(Scope::Domain));
        scopes.filter_map(|scope| Some((scope.clone(), self.breakers.get(&scope)?)))
    }

    /// A repair is wanted: one that was admitted before and is not verified has failed.
    pub(super) fn wants(&mut self, key: &Key, domains: &[Name], settings: &GuardSettings, now: Timestamp) {
        let failed = self.breakers.iter_mut().filter(|(scope, _)| covers(scope, domains));
        let failed: Vec<_> =
            failed.filter_map(|(scope, it)| it.wants(key, now).then(|| scope.clone())).collect();
        for scope in failed {
            self.exhaust(&scope, key, settings, now);
        }
    }

    pub(super) fn admit(&mut self, key: &Key, domains: &[Name], action: ActionId, now: Timestamp) {
        for (scope, breaker) in &mut self.breakers {
            if covers(scope, domains) {
                breaker.admit(key, action, now);
            }
        }
    }

    pub(super) fn release(&mut self, deployable: &Name, action: ActionId, now: Timestamp) {
        for breaker in self.breakers.values_mut() {
            breaker.release(deployable, action, now);
        }
    }

    pub(super) fn forget(&mut self, deployable: &Name) {
        for key in self.population.of_deployable(deployable) {
            self.population.forget(&key);
            for breaker in self.breakers.values_mut() {
                breaker.forget(&key);
            }
        }
    }

    /// Forgets those that are not managed any more.
    pub(super) fn retain(&mut self, managed: impl Fn(&Name, AssemblyIndex) -> bool) {
        let gone = self.population.keys().filter(|(name, index)| !managed(name, *index)).cloned();
        for key in gone.collect::<Vec<_>>() {
            self.population.forget(&key);
        }
        for breaker in self.breakers.values_mut() {
            if let Phase::SlowStart(start) = &mut breaker.phase {
                start.trials.retain(|(name, index), _| managed(name, *index));
            }
        }
    }

    pub(super) fn scopes(&self) -> impl Iterator<Item = &Scope> {
        self.breakers.keys()
    }
}

fn covers(scope: &Scope, domains: &[Name]) -> bool {
    match scope {
        Scope::Fleet => true,
        Scope::Domain(name) => domains.contains(name),
        Scope::Itself => false,
    }
}
