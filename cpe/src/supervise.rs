//! What a panic in one policy engine costs: that engine, for a moment. It is told with its text, what the engine had begun is waited for,
//! and a new engine goes on from the last snapshot; it looks at what was in flight and repeats nothing (`past.rs`). The third panic within a
//! minute parks the deployable: nothing is probed or recovered there until an operator or a new definition says so, also by the next cpe. No
//! other engine notices.

use std::sync::Arc;
use std::time::Duration;

use cpe_proto::api::Parked;
use cpe_proto::definition::Deployable;
use cpe_proto::event::EventKind;
use cpe_proto::id::Name;
use cpe_proto::time::Timestamp;
use dped::Order;
use tokio::sync::mpsc;

use crate::api::Refused;
use crate::clock;
use crate::driver::{Driver, Message, say_goodbye};
use crate::event::plain;
use crate::fleet::{Fleet, Member};
use crate::journal::Park;
use crate::metrics::Tally;
use crate::past::{Kept, Past};
use crate::view;
use crate::vital::caught;

/// So many panics ...
const PANICS_MAX: usize = 3;
/// ... within this are no accident.
const WITHIN: Duration = Duration::from_secs(60);

/// When an engine panicked of late.
#[derive(Clone, Debug, Default)]
pub struct Panics(Vec<Timestamp>);

impl Panics {
    /// Counts one; true: no accident.
    fn count(&mut self, now: Timestamp) -> bool {
        self.0.retain(|at| now.since(*at) < WITHIN);
        self.0.push(now);
        self.0.len() >= PANICS_MAX
    }
}

/// Whether a deployable has an engine.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It has, and this is the way to it.
    Runs(mpsc::Sender<Message>),
    /// Its engine panicked.
    Down(Arc<Down>),
}

/// An engine that panicked.
#[derive(Debug)]
pub struct Down {
    /// In milliseconds of wall time.
    since: u64,
    /// The panic's text.
    said: Box<str>,
    stage: Stage,
    /// What the gauges have of it.
    tally: Tally,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A new one is started as soon as what it had begun has ended.
    Restoring,
    /// Nobody starts one until an operator or a new definition says so.
    Parked,
}

impl Down {
    /// For the status.
    #[must_use]
    pub fn parked(&self, name: &Name) -> Parked {
        let said = &self.said;
        let reason = match self.stage {
            Stage::Restoring => format!("its policy engine panicked and is being restored: {said}"),
            Stage::Parked => {
                format!(
                    "parked: its policy engine panicked again and again: {said}; `cpe retry {name}` starts it anew"
                )
            }
        };
        Parked { since: self.since, reason }
    }

    /// What an order to such an engine comes to. All but a retry are kept, and the next engine begins with them.
    ///
    /// # Errors
    /// Why it has no effect now.
    pub fn order(&self, name: &Name, order: &Order) -> Result<(), Refused> {
        match (self.stage, order) {
            (Stage::Restoring, Order::Retry { .. }) => Err(self.refusal(name)),
            (Stage::Restoring, _) => Ok(()),
            (Stage::Parked, _) => {
                let Refused { status, message } = self.refusal(name);
                Err(Refused { status, message: format!("{message}. What was ordered is kept until then") })
            }
        }
    }

    /// Why nothing can be done there now.
    #[must_use]
    pub fn refusal(&self, name: &Name) -> Refused {
        let Parked { reason, .. } = self.parked(name);
        match self.stage {
            Stage::Restoring => Refused::unavailable(format!("{name}: {reason}; try again in a moment")),
            Stage::Parked => Refused::conflict(format!("{name}: {reason}")),
        }
    }
}

impl Fleet {
    /// Runs an engine until it is told to close, or panics.
    pub(crate) async fn supervise(self: Arc<Self>, name: Name, mut driver: Driver) {
        let Err(said) = caught(driver.run()).await else { return };
        let down = self.fallen(&name, &said, |standing| match standing {
            Standing::Runs(mailbox) => driver.is_behind(mailbox),
            Standing::Down(_) => false,
        });
        let wreck = driver.wreck();
        self.shared().metrics.unloaded(&wreck.tally);
        // Each action holds a way to answer. Only one that is not under way any more can be looked at.
        let mut mailbox = wreck.mailbox;
        while mailbox.recv().await.is_some() {}
        self.go_on(&name, down.as_ref(), wreck.past);
    }

    /// An engine that panicked before it ran.
    pub(crate) fn stillborn(
        self: &Arc<Self>,
        definition: Arc<Deployable>,
        panics: Panics,
        taken_up: Option<Kept>,
        said: &str,
    ) {
        let name = definition.name.clone();
        let open = taken_up.as_ref().map(Kept::incidents).unwrap_or_default();
        let down = self.down(&definition, "", Stage::Restoring, clock::wall_ms());
        let standing = Standing::Down(Arc::clone(&down));
        self.enter(&name, Member { definition, standing, panics });
        let is_it = |standing: &Standing| is_down(standing, &down);
        let down = self.fallen(&name, said, is_it);
        self.go_on(&name, down.as_ref(), Past::of_panicked(taken_up, open));
    }

    /// Starts the engine of a parked deployable. False: it is not parked.
    pub(crate) fn unpark(&self, name: &Name, why: &str) -> bool {
        let Some(fleet) = self.myself() else { return false };
        let parked = self.members().get(name).and_then(|member| match &member.standing {
            Standing::Down(down) if down.stage == Stage::Parked => {
                Some((Arc::clone(&member.definition), Arc::clone(down)))
            }
            Standing::Down(_) | Standing::Runs(_) => None,
        });
        // Not before what the last one had begun has ended: until then there is no past to go on from.
        let parked = parked.filter(|_| self.past().contains_key(name));
        let Some((definition, down)) = parked else { return false };
        self.shared().journal.unpark(name.clone());
        let reason = format!("its policy engine is started again from its last snapshot: {why}");
        self.shared().report(Some(name), plain(EventKind::BreakerChanged, &reason));
        fleet.begin(definition, Panics::default(), Some(&down));
        true
    }

    /// At the start: whether an earlier cpe had parked it, and nothing has changed since. True: it has its place, without an engine.
    pub(crate) fn stays_parked(&self, definition: &Arc<Deployable>) -> bool {
        let (name, shared) = (&definition.name, self.shared());
        let Some(park) = self.past().get_mut(name).and_then(Past::take_park) else { return false };
        if park.ran != running(definition) {
            shared.journal.unpark(name.clone());
            let reason = "it was parked; its definition or cpe has changed since: its policy engine goes on from its last snapshot";
            shared.report(Some(name), plain(EventKind::BreakerChanged, reason));
            return false;
        }
        let down = self.down(definition, &park.said, Stage::Parked, park.since);
        let reason = down.parked(name).reason;
        tracing::error!(deployable = %name, panic = %park.said, "an earlier cpe had parked it, and it stays so");
        let standing = Standing::Down(down);
        self.enter(name, Member { definition: Arc::clone(definition), standing, panics: Panics::default() });
        shared.guard().part(name);
        shared.report(Some(name), plain(EventKind::BreakerChanged, &reason));
        shared.notify(name, None, &reason);
        true
    }

    /// The definition of a deployable whose engine panicked was removed.
    pub(crate) fn bury(&self, name: &Name, past: Option<Past>) {
        self.shared().journal.unpark(name.clone());
        let open = past.map(|past| past.open().to_vec()).unwrap_or_default();
        say_goodbye(self.shared(), name, open);
    }

    /// Puts a member in its place.
    fn enter(&self, name: &Name, member: Member) {
        let before = self.members().insert(name.clone(), member);
        self.replaced(before.as_ref());
    }

    /// Another member has its place now.
    pub(crate) fn replaced(&self, before: Option<&Member>) {
        if let Some(Standing::Down(down)) = before.map(|before| &before.standing) {
            self.uncount(down);
        }
    }

    /// Takes it out of the gauges.
    pub(crate) fn uncount(&self, down: &Down) {
        let metrics = &self.shared().metrics;
        metrics.unloaded(&down.tally);
        if down.stage == Stage::Parked {
            metrics.engines_parked.dec();
        }
    }

    /// Tells of a panic. None: the deployable is managed no more.
    fn fallen(&self, name: &Name, said: &str, is_it: impl Fn(&Standing) -> bool) -> Option<Arc<Down>> {
        let shared = self.shared();
        shared.metrics.engine_panics.inc();
        let fallen = self.members().get_mut(name).filter(|member| is_it(&member.standing)).map(|member| {
            let stage = if member.panics.count(clock::now()) { Stage::Parked } else { Stage::Restoring };
            let down = self.down(&member.definition, said, stage, clock::wall_ms());
            if stage == Stage::Parked {
                let park =
                    Park { since: down.since, said: said.to_owned(), ran: running(&member.definition) };
                self.shared().journal.park(name.clone(), park);
            }
            (std::mem::replace(&mut member.standing, Standing::Down(Arc::clone(&down))), down)
        });
        let down = fallen.map(|(before, down)| {
            if let Standing::Down(before) = before {
                self.uncount(&before);
            }
            down
        });
        tracing::error!(deployable = %name, panic = %said, "a policy engine panicked");
        let text = format!(
            "the policy engine panicked: {said}; nothing is probed or recovered there until it goes on"
        );
        shared.report(Some(name), plain(EventKind::BreakerChanged, &text));
        let parked =
            down.as_ref().filter(|down| down.stage == Stage::Parked).map(|down| down.parked(name).reason);
        if let Some(reason) = &parked {
            shared.report(Some(name), plain(EventKind::BreakerChanged, reason));
        }
        let told = format!(
            "its policy engine panicked and goes on from its last snapshot: {said}; please report it"
        );
        shared.notify(name, None, &parked.unwrap_or(told));
        down
    }

    /// Everything that the engine had begun has ended: the next one goes on, or nobody.
    fn go_on(self: &Arc<Self>, name: &Name, down: Option<&Arc<Down>>, past: Past) {
        let member = down.and_then(|down| {
            let members = self.members();
            members.get(name).filter(|member| is_down(&member.standing, down)).cloned()
        });
        let goes_on = past.actions();
        self.shared().guard().revoke(name, |action| goes_on.contains(&action), clock::now());
        let Some(member) = member else { return self.bury(name, Some(past)) };
        self.past().insert(name.clone(), past);
        if down.is_some_and(|down| down.stage == Stage::Restoring) {
            let reason = "its policy engine goes on from its last snapshot";
            self.shared().report(Some(name), plain(EventKind::BreakerChanged, reason));
            self.begin(member.definition, member.panics, down);
        } else {
            // Parked: nobody knows its health. What the next engine would go on with is in flight until it is given up: one that is started
            // in time must find it counted.
            self.shared().guard().part(name);
        }
    }

    fn down(&self, definition: &Deployable, said: &str, stage: Stage, since: u64) -> Arc<Down> {
        let mut down = Down { since, said: said.into(), stage, tally: Tally::default() };
        let status = view::unwatched(definition, down.parked(&definition.name));
        let metrics = &self.shared().metrics;
        down.tally = metrics.loaded(&status);
        if stage == Stage::Parked {
            metrics.engines_parked.inc();
        }
        Arc::new(down)
    }
}

/// What an engine runs, for the next cpe to compare: a definition, by this version. Either may be what ends its panics.
fn running(definition: &Deployable) -> String {
    let spelled = format!("{definition:?}");
    let digest = ring::digest::digest(&ring::digest::SHA256, spelled.as_bytes());
    let digest = data_encoding::HEXLOWER.encode(&digest.as_ref()[..16]);
    format!("{digest} by cpe {}", env!("CARGO_PKG_VERSION"))
}

pub(crate) fn is_down(standing: &Standing, wanted: &Arc<Down>) -> bool {
    matches!(standing, Standing::Down(down) if Arc::ptr_eq(down, wanted))
}

#[cfg(test)]
mod tests;
