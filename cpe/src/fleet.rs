//! All deployables of this process: which there are, the way to each engine, orders to them, their maintenance. One task for each
//! (`driver.rs`), begun in `fleet/begin.rs`; what a panic in one costs is in `supervise.rs`. Definitions are read by `load.rs`.
//! `fleet/orders.rs` is what the API orders, `fleet/select.rs` what its names mean.

mod begin;
mod maintenance;
mod orders;
mod select;

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use cpe_proto::api::DeployableStatus;
use cpe_proto::definition::Deployable;
use cpe_proto::document::Diagnostic;
use cpe_proto::event::EventKind;
use cpe_proto::id::{AssemblyIndex, Name};
use dped::{Input, Order};
use tokio::sync::{mpsc, oneshot};

use crate::api::Refused;
use crate::clock;
use crate::driver::Message;
use crate::event::plain;
use crate::glob::Glob;
use crate::journal;
use crate::past::{self, Past};
use crate::pauses::Pauses;
use crate::shared::Shared;
use crate::supervise::{Panics, Standing};
use crate::view;
use crate::windows::Windows;
#[cfg(test)]
pub(crate) use begin::Made;
pub(crate) use select::unknown;

/// An engine that does not say its status by then is busy or ended, and is left out of the answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// All deployables.
pub struct Fleet {
    /// For the tasks of engines.
    myself: Weak<Self>,
    shared: Arc<Shared>,
    members: Mutex<BTreeMap<Name, Member>>,
    /// Ends of maintenance by `deployable` or `deployable/assembly`, in milliseconds of wall time.
    maintenance: Mutex<BTreeMap<String, u64>>,
    windows: Windows,
    pauses: Pauses,
    /// What operators want of deployables, where they ever said.
    desired: Mutex<BTreeMap<Name, journal::Desired>>,
    /// What an earlier cpe, or an engine that panicked, left, until each deployable's next engine has taken it up.
    past: Mutex<BTreeMap<Name, Past>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) definition: Arc<Deployable>,
    pub(crate) standing: Standing,
    pub(crate) panics: Panics,
}

impl Member {
    fn mailbox(&self) -> Option<&mpsc::Sender<Message>> {
        match &self.standing {
            Standing::Runs(mailbox) => Some(mailbox),
            Standing::Down(_) => None,
        }
    }
}

impl Fleet {
    /// A fleet of none.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Arc<Self> {
        let pauses = Pauses::restored(&shared);
        let start = shared.journal.start_state();
        let past = Mutex::new(past::of(start));
        let windows = Windows::restored(start);
        let desired = Mutex::new(start.desired.clone());
        let maintenance = start.maintenance.iter().map(|kept| (kept.name.clone(), kept.until)).collect();
        let maintenance = Mutex::new(maintenance);
        Arc::new_cyclic(|myself| Self {
            myself: myself.clone(),
            shared,
            members: Mutex::default(),
            maintenance,
            windows,
            pauses,
            desired,
            past,
        })
    }

    /// What the drivers share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn myself(&self) -> Option<Arc<Self>> {
        self.myself.upgrade()
    }

    fn count(&self) -> (usize, usize, usize) {
        let members = self.members();
        let definitions = members.values().map(|member| &member.definition);
        definitions.fold((0, 0, 0), |(deployables, assemblies, services), definition| {
            (deployables + 1, assemblies + definition.assemblies.len(), services + definition.services.len())
        })
    }

    /// A definition that is new or has changed. An engine that runs keeps its state, as far as what it watches is the same.
    pub async fn define(self: &Arc<Self>, definition: Arc<Deployable>) {
        let name = definition.name.clone();
        self.windows.set(&definition, clock::wall_ms());
        let known = self.members().get_mut(&name).map(|member| {
            member.definition = Arc::clone(&definition);
            member.standing.clone()
        });
        let Some(standing) = known else { return self.add(definition) };
        self.shared.define(Arc::clone(&definition));
        match standing {
            // An engine that panics just now takes the definition up when it is restored.
            Standing::Runs(mailbox) => {
                let _ = mailbox.send(Message::Input(Input::Definition(definition))).await;
                self.remind_of_maintenance(&name).await;
            }
            Standing::Down(_) => _ = self.unpark(&name, "its definition changed"),
        }
    }

    /// A definition that is there no more: its machines are left as they are.
    pub async fn remove(&self, name: &Name) {
        let Some(member) = self.members().remove(name) else { return };
        self.windows.remove(name);
        self.shared.forget(name);
        match member.standing {
            Standing::Runs(mailbox) => _ = mailbox.send(Message::Forget).await,
            Standing::Down(down) => {
                self.uncount(&down);
                let past = self.past().remove(name);
                self.bury(name, past);
            }
        }
    }

    /// After a restart: the guard forgets what is not defined any more.
    pub fn forget_strangers(&self) {
        let members = self.members();
        let managed = |name: &Name, index: AssemblyIndex| {
            members.get(name).is_some_and(|member| usize::from(index.0) < member.definition.assemblies.len())
        };
        self.shared.guard().retain(managed);
    }

    /// A file that cannot be used; what was in force stays.
    pub fn reject(&self, file: &Path, errors: &[Diagnostic]) {
        for error in errors {
            tracing::error!("{error}");
        }
        let count = counted(errors.len(), "error", "errors");
        let first = errors.first().map(ToString::to_string).unwrap_or_default();
        let reason = format!(
            "{} has {count} and is not used; what was in force before stays; the first: {first}",
            file.display()
        );
        self.shared.report(None, plain(EventKind::DefinitionRejected, &reason));
    }

    fn add(self: &Arc<Self>, definition: Arc<Deployable>) {
        let name = definition.name.clone();
        self.shared.define(Arc::clone(&definition));
        let size = format!(
            "{}, {}",
            counted(definition.assemblies.len(), "assembly", "assemblies"),
            counted(definition.services.len(), "service", "services")
        );
        if !self.stays_parked(&definition) {
            self.begin(definition, Panics::default(), None);
        }
        self.shared.report(Some(&name), plain(EventKind::DefinitionLoaded, &size));
    }

    /// Asks the next engine in turn whether it lives: true if it answers, or if there is none. `after` is the one that was asked before.
    pub async fn answers(&self, after: &mut Option<Name>) -> bool {
        let next = {
            let members = self.members();
            let lives = |(name, member): (&Name, &Member)| Some((name.clone(), member.mailbox()?.clone()));
            let next =
                after.as_ref().and_then(|name| members.range((Excluded(name), Unbounded)).find_map(lives));
            next.or_else(|| members.iter().find_map(lives))
        };
        let Some((name, mailbox)) = next else { return true };
        *after = Some(name);
        let (sender, reply) = oneshot::channel();
        let asked = async {
            let sent = mailbox.send(Message::Status(sender)).await;
            sent.is_ok() && reply.await.is_ok()
        };
        tokio::time::timeout(STATUS_TIMEOUT, asked).await.unwrap_or(false)
    }

    /// Ends all engines.
    pub async fn close(&self) {
        let members: Vec<Member> = self.members().values().cloned().collect();
        for mailbox in members.iter().filter_map(Member::mailbox) {
            let _ = mailbox.send(Message::Close).await;
        }
    }

    pub(crate) async fn statuses(&self, wanted: &Glob) -> Vec<DeployableStatus> {
        let members: Vec<Member> = {
            let members = self.members();
            members
                .iter()
                .filter(|(name, _)| wanted.may_match(name.as_str()))
                .map(|(_, member)| member.clone())
                .collect()
        };
        let deadline = tokio::time::Instant::now() + STATUS_TIMEOUT;
        let mut replies = Vec::with_capacity(members.len());
        for member in members {
            let (sender, reply) = oneshot::channel();
            match &member.standing {
                Standing::Down(down) => {
                    let parked = down.parked(&member.definition.name);
                    let _ = sender.send(view::unwatched(&member.definition, parked));
                }
                Standing::Runs(mailbox) => {
                    let sent = tokio::time::timeout_at(deadline, mailbox.send(Message::Status(sender)));
                    // One that takes no more is left out, as one that does not answer.
                    let _ = sent.await;
                }
            }
            replies.push(reply);
        }
        let mut statuses = Vec::with_capacity(replies.len());
        for reply in replies {
            if let Ok(Ok(status)) = tokio::time::timeout_at(deadline, reply).await {
                statuses.push(status);
            }
        }
        statuses
    }

    pub(crate) async fn order(&self, name: &Name, order: Order) -> Result<(), Refused> {
        let Some(member) = self.members().get(name).cloned() else { return Err(unknown(name.as_str())) };
        let mailbox = match member.standing {
            Standing::Runs(mailbox) => mailbox,
            Standing::Down(down) => return down.order(name, &order),
        };
        let gone = || {
            Refused::unavailable(format!("the engine of {name} has just ended; `cpe status {name}` says why"))
        };
        mailbox.send(Message::Input(Input::Order(order))).await.map_err(|_| gone())
    }

    /// An engine that has ended needs no order.
    async fn order_all(&self, order: &Order) {
        let mailboxes: Vec<_> =
            self.members().values().filter_map(|member| member.mailbox().cloned()).collect();
        for mailbox in mailboxes {
            let _ = mailbox.send(Message::Input(Input::Order(order.clone()))).await;
        }
    }

    pub(crate) const fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Orders something whose outcome is waited for.
    pub(crate) async fn order_and_wait(&self, name: &Name, order: Order) -> Result<Box<str>, Refused> {
        let gone = || Refused::unavailable(format!("the engine of {name} has ended; `cpe status` shows it"));
        let mailbox = self.mailbox_of(name)?;
        let (sender, reply) = oneshot::channel();
        mailbox.send(Message::Ordered(order, sender)).await.map_err(|_| gone())?;
        let answer = reply.await.map_err(|_| gone())?;
        answer.map_err(|why| Refused::conflict(format!("{name}: refused: {why}")))
    }

    /// The way to an engine that runs.
    pub(crate) fn mailbox_of(&self, name: &Name) -> Result<mpsc::Sender<Message>, Refused> {
        let Some(member) = self.members().get(name).cloned() else { return Err(unknown(name.as_str())) };
        match member.standing {
            Standing::Runs(mailbox) => Ok(mailbox),
            Standing::Down(down) => Err(down.refusal(name)),
        }
    }

    pub(crate) fn members(&self) -> std::sync::MutexGuard<'_, BTreeMap<Name, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn past(&self) -> std::sync::MutexGuard<'_, BTreeMap<Name, Past>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wishes(&self) -> std::sync::MutexGuard<'_, BTreeMap<Name, journal::Desired>> {
        self.desired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.maintenance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}
