//! Pauses that operators ordered, of everything or of one deployable: kept in the journal, so they outlive the controller. The pause of
//! everything works through the guard, at once for all engines; that of one deployable through its engine. `fleet.rs` takes the orders.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cpe_proto::api::{Paused, Status};
use cpe_proto::event::EventKind;
use cpe_proto::id::Name;
use dped::{Input, Order};

use crate::clock;
use crate::event::plain;
use crate::journal::{JournalError, Pause};
use crate::shared::Shared;

/// The journal's name for everything.
const EVERYTHING: &str = "";

/// What is paused now, by deployable; the empty name is everything.
#[derive(Debug, Default)]
pub struct Pauses(Mutex<BTreeMap<String, Pause>>);

impl Pauses {
    /// Those of the journal. Before any engine is added: from here on the guard admits nothing if everything is paused.
    #[must_use]
    pub fn restored(shared: &Shared) -> Self {
        let kept = &shared.journal.start_state().pauses;
        let pauses: BTreeMap<String, Pause> =
            kept.iter().map(|pause| (pause.name.clone(), pause.clone())).collect();
        shared.guard().set_paused(pauses.contains_key(EVERYTHING));
        if let Some(pause) = pauses.get(EVERYTHING) {
            tracing::warn!(reason = pause.reason, by = pause.by, "all recovery is paused, as it was ordered");
        }
        Self(Mutex::new(pauses))
    }

    /// What an engine must be told before anything else.
    #[must_use]
    pub fn order(&self, deployable: &Name) -> Option<Input> {
        let pauses = self.lock();
        let pause = pauses.get(deployable.as_str())?;
        Some(Input::Order(Order::Pause { on: true, reason: said(&pause.reason, &pause.by).into() }))
    }

    /// Whether everything is paused.
    #[must_use]
    pub fn of_everything(&self) -> bool {
        self.contains(EVERYTHING)
    }

    /// Whether that was paused by its own name.
    #[must_use]
    pub fn contains(&self, deployable: &str) -> bool {
        self.lock().contains_key(deployable)
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
        for deployable in &mut status.deployables {
            deployable.paused = paused(deployable.name.as_str());
        }
    }

    /// Pauses; durable when it returns. The pause of everything holds at once, that of a deployable when its engine is told.
    ///
    /// # Errors
    /// [`JournalError`]: it would not outlive the controller, so nothing was done.
    pub async fn begin(
        &self,
        shared: &Shared,
        deployable: Option<&Name>,
        reason: &str,
        by: &str,
    ) -> Result<(), JournalError> {
        let name = deployable.map_or(EVERYTHING, Name::as_str);
        if deployable.is_none() {
            // In a storm what counts is that it stops now; whether that outlives us comes after.
            shared.guard().set_paused(true);
            // Before the pause itself: what is made durable takes with it what came before.
            let reason = format!("paused: {}", said(reason, by));
            shared.report(None, plain(EventKind::BreakerChanged, &reason));
        }
        let (reason, by) = (reason.to_owned(), by.to_owned());
        let pause = Pause { name: name.to_owned(), since: clock::wall_ms(), reason, by };
        if let Err(error) = shared.journal.set_pause(pause.clone()).await {
            if deployable.is_none() && !self.contains(EVERYTHING) {
                let reason = "resumed: the pause cannot be kept in the journal";
                shared.report(None, plain(EventKind::BreakerChanged, reason));
                shared.guard().set_paused(false);
            }
            return Err(error);
        }
        self.lock().insert(name.to_owned(), pause);
        Ok(())
    }

    /// Ends a pause; durable when it returns. False: there was none.
    ///
    /// # Errors
    /// [`JournalError`]: it would come back with the next start, so it still holds.
    pub async fn end(
        &self,
        shared: &Shared,
        deployable: Option<&Name>,
        reason: &str,
        by: &str,
    ) -> Result<bool, JournalError> {
        let name = deployable.map_or(EVERYTHING, Name::as_str);
        if !self.contains(name) {
            return Ok(false);
        }
        shared.journal.end_pause(name, by).await?;
        if deployable.is_none() {
            // Told first: what is admitted from here on is later than the event.
            let reason = format!("resumed: {}", said(reason, by));
            shared.report(None, plain(EventKind::BreakerChanged, &reason));
            shared.guard().set_paused(false);
        }
        self.lock().remove(name);
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Pause>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// "migration (by uid 0 (root))".
#[must_use]
pub fn said(reason: &str, by: &str) -> String {
    let reason = if reason.is_empty() { "no reason given" } else { reason };
    format!("{reason} (by {by})")
}
