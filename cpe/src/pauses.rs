//! Pauses that operators ordered, of everything, of a failure domain, of one deployable or of a part of it: kept in the journal, so they
//! outlive the controller. Those of everything and of a domain work through the guard, at once for all engines; those of one deployable and
//! of its parts through its engine. `fleet/orders.rs` takes the orders.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cpe_proto::api::{Paused, Status};
use cpe_proto::event::EventKind;
use cpe_proto::id::Name;
use dped::{Input, Order, PartName};

use crate::clock;
use crate::event::plain;
use crate::glob::DOMAIN;
use crate::journal::{JournalError, Pause};
use crate::shared::Shared;

/// What is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every recovery.
    Everything,
    /// That of assemblies in this failure domain, whatever deployable they are of.
    Domain(Name),
    /// That of one deployable.
    Deployable(Name),
    /// That of one assembly or service of a deployable.
    Part(Name, PartName),
}

impl Scope {
    /// The journal's name: no deployable has a colon in its own.
    fn key(&self) -> String {
        match self {
            Self::Everything => EVERYTHING.to_owned(),
            Self::Domain(name) => format!("{DOMAIN}{name}"),
            Self::Deployable(name) => name.to_string(),
            Self::Part(name, part) => format!("{name}/{part}"),
        }
    }
}

/// As operators write it.
impl fmt::Display for Scope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => out.write_str("everything"),
            Self::Domain(_) | Self::Deployable(_) | Self::Part(..) => out.write_str(&self.key()),
        }
    }
}

/// The journal's name for everything.
const EVERYTHING: &str = "";

/// What is paused now, by the journal's names.
#[derive(Debug, Default)]
pub struct Pauses(Mutex<BTreeMap<String, Pause>>);

impl Pauses {
    /// Those of the journal. Before any engine is added: from here on the guard admits nothing of what is paused by domain or with
    /// everything.
    #[must_use]
    pub fn restored(shared: &Shared) -> Self {
        let kept = &shared.journal.start_state().pauses;
        let pauses: BTreeMap<String, Pause> =
            kept.iter().map(|pause| (pause.name.clone(), pause.clone())).collect();
        shared.guard().set_paused(pauses.contains_key(EVERYTHING));
        if let Some(pause) = pauses.get(EVERYTHING) {
            tracing::warn!(reason = pause.reason, by = pause.by, "all recovery is paused, as it was ordered");
        }
        let pauses = Self(Mutex::new(pauses));
        for domain in pauses.domains() {
            tracing::warn!(%domain, "all recovery in a failure domain is paused, as it was ordered");
            shared.guard().set_domain_paused(&domain, true);
        }
        pauses
    }

    /// The failure domains that are paused.
    #[must_use]
    pub fn domains(&self) -> BTreeSet<Name> {
        let pauses = self.lock();
        let domains = pauses.keys().filter_map(|key| key.strip_prefix(DOMAIN));
        domains.filter_map(|domain| Name::parse(domain).ok()).collect()
    }

    /// What an engine must be told before anything else.
    #[must_use]
    pub fn order(&self, deployable: &Name) -> Option<Input> {
        let pauses = self.lock();
        let pause = pauses.get(deployable.as_str())?;
        Some(Input::Order(Order::Pause { on: true, reason: said(&pause.reason, &pause.by).into() }))
    }

    /// The parts of a deployable that are paused, also those that it has no more.
    #[must_use]
    pub fn parts(&self, deployable: &Name) -> BTreeSet<PartName> {
        let pauses = self.lock();
        let parts = pauses.keys().filter_map(|key| key.strip_prefix(deployable.as_str())?.strip_prefix('/'));
        parts.filter_map(PartName::parse).collect()
    }

    /// Whether everything is paused.
    #[must_use]
    pub fn of_everything(&self) -> bool {
        self.contains(&Scope::Everything)
    }

    /// Whether that was paused by its own name.
    #[must_use]
    pub fn contains(&self, scope: &Scope) -> bool {
        self.lock().contains_key(&scope.key())
    }

    /// Writes into a status who paused what.
    pub fn tell(&self, status: &mut Status) {
        let pauses = self.lock();
        let paused = |name: &str| {
            pauses.get(name).map(|pause| Paused {
                since: pause.since,
                reason: pause.reason.clone(),
                by: pause.by.clone(),
            })
        };
        status.paused = paused(EVERYTHING);
        let domains = pauses.keys().filter_map(|key| {
            let domain = Name::parse(key.strip_prefix(DOMAIN)?).ok()?;
            Some((domain, paused(key)?))
        });
        status.paused_domains = domains.collect();
        for deployable in &mut status.deployables {
            let name = &deployable.name;
            deployable.paused = paused(name.as_str());
            for assembly in &mut deployable.assemblies {
                let place = format!("{name}/{}", assembly.name);
                assembly.paused = paused(&place);
                for service in &mut assembly.services {
                    service.paused = paused(&format!("{place}/{}", service.name));
                }
            }
        }
    }

    /// Pauses; durable when it returns. That of everything and of a domain holds at once, that of a deployable or of a
    /// part when its engine is told.
    ///
    /// # Errors
    /// [`JournalError`]: it would not outlive the controller, so nothing was done.
    pub async fn begin(
        &self,
        shared: &Shared,
        scope: &Scope,
        reason: &str,
        by: &str,
    ) -> Result<(), JournalError> {
        // In a storm what counts is that it stops now; whether that outlives us comes after. It is told before the pause itself: what is made
        // durable takes with it what came before.
        apply(shared, scope, true, &said(reason, by));
        let (reason, by) = (reason.to_owned(), by.to_owned());
        let pause = Pause { name: scope.key(), since: clock::wall_ms(), reason, by };
        if let Err(error) = shared.journal.set_pause(pause.clone()).await {
            if !self.contains(scope) {
                apply(shared, scope, false, "the pause cannot be kept in the journal");
            }
            return Err(error);
        }
        self.lock().insert(scope.key(), pause);
        Ok(())
    }

    /// Ends a pause; durable when it returns. False: there was none.
    ///
    /// # Errors
    /// [`JournalError`]: it would come back with the next start, so it still holds.
    pub async fn end(
        &self,
        shared: &Shared,
        scope: &Scope,
        reason: &str,
        by: &str,
    ) -> Result<bool, JournalError> {
        if !self.contains(scope) {
            return Ok(false);
        }
        shared.journal.end_pause(&scope.key(), by).await?;
        apply(shared, scope, false, &said(reason, by));
        self.lock().remove(&scope.key());
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Pause>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the guard and the journal. A deployable's own engine tells and holds its pause and those of its parts.
fn apply(shared: &Shared, scope: &Scope, on: bool, why: &str) {
    let word = if on { "paused" } else { "resumed" };
    let reason = match scope {
        Scope::Everything => format!("{word}: {why}"),
        // `cpe audit` reads an event that begins with the word as one of everything.
        Scope::Domain(_) => format!("{scope} {word}: {why}"),
        Scope::Deployable(_) | Scope::Part(..) => return,
    };
    let set = || match scope {
        Scope::Domain(domain) => shared.guard().set_domain_paused(domain, on),
        Scope::Everything | Scope::Deployable(_) | Scope::Part(..) => shared.guard().set_paused(on),
    };
    let tell = || shared.report(None, plain(EventKind::BreakerChanged, &reason));
    // Whatever is admitted is before the event of a pause and after that of its end.
    if on {
        set();
        tell();
    } else {
        tell();
        set();
    }
}

/// "migration (by uid 0 (root))".
#[must_use]
pub fn said(reason: &str, by: &str) -> String {
    let reason = if reason.is_empty() { "no reason given" } else { reason };
    format!("{reason} (by {by})")
}
