//! All deployables of this process: which there are, the way to each engine, orders to them, their maintenance. One task for each
//! (`driver.rs`); what a panic in one costs is in `supervise.rs`. Definitions are read by `load.rs`.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use cpe_proto::api::{Command, CommandAnswer, DeployableStatus, HostKey, Status};
use cpe_proto::definition::{Assembly, Deployable};
use cpe_proto::document::Diagnostic;
use cpe_proto::event::EventKind;
use cpe_proto::id::{AssemblyIndex, Name};
use dped::{Desired, Input, Order, Seed};
use tokio::sync::{mpsc, oneshot};

use crate::api::{Controller, Refused};
use crate::clock;
use crate::driver::{Driver, Message};
use crate::event::plain;
use crate::glob::{Glob, GlobError};
use crate::journal::{self, JournalError, Maintenance, WhyQuery};
use crate::past::{self, Past};
use crate::pauses::{self, Pauses};
use crate::shared::Shared;
use crate::supervise::{Panics, Standing};
use crate::view;
use crate::vital::catch;
use crate::windows::Windows;

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
        let desired = Mutex::new(start.desired.clone());
        let maintenance = start.maintenance.iter().map(|kept| (kept.name.clone(), kept.until)).collect();
        let maintenance = Mutex::new(maintenance);
        Arc::new_cyclic(|myself| Self {
            myself: myself.clone(),
            shared,
            members: Mutex::default(),
            maintenance,
            windows: Windows::default(),
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
            self.begin(definition, Panics::default());
        }
        self.shared.report(Some(&name), plain(EventKind::DefinitionLoaded, &size));
    }

    /// Starts the engine of a deployable, as the journal or its predecessor knows it.
    pub(crate) fn begin(self: &Arc<Self>, definition: Arc<Deployable>, panics: Panics) {
        let name = definition.name.clone();
        // Taken once: a definition that comes back after its removal has no past.
        let past = self.past().remove(&name);
        let taken_up = past.and_then(|past| past.settle(&self.shared, &name));
        let unpause = || Input::Order(Order::Pause { on: false, reason: "not paused".into() });
        let order = self.pauses.order(&name).or_else(|| taken_up.as_ref().map(|_| unpause()));
        let seed = self.seed(&definition);
        let shared = Arc::clone(&self.shared);
        let made = catch(|| Driver::new(Arc::clone(&definition), seed, taken_up.clone(), shared));
        let (driver, mailbox) = match made {
            Ok(made) => made,
            Err(said) => return self.stillborn(definition, panics, taken_up, &said),
        };
        if self.pauses.of_everything() {
            let _ = mailbox.try_send(Message::Input(Input::Order(Order::FleetPause { on: true })));
        }
        if let Some(order) = order {
            // The first message of an empty queue: taken before any probe has answered, so before anything is admitted.
            let _ = mailbox.try_send(Message::Input(order));
        }
        let standing = Standing::Runs(mailbox.clone());
        let before = self.enter(&name, Member { definition: Arc::clone(&definition), standing, panics });
        // It may have changed just now.
        let newer = before.filter(|before| !Arc::ptr_eq(&before.definition, &definition));
        if let Some(Member { definition, .. }) = newer {
            if let Some(member) = self.members().get_mut(&name) {
                member.definition = Arc::clone(&definition);
            }
            let _ = mailbox.try_send(Message::Input(Input::Definition(definition)));
        }
        tokio::spawn(Arc::clone(self).supervise(name, driver));
    }

    fn seed(&self, definition: &Deployable) -> Seed {
        let name = definition.name.as_str();
        let mut maintenance = Vec::new();
        for kept in self.ends().keys() {
            let Some(assembly) = assembly_of(kept, name) else { continue };
            let index = assembly.map(|assembly| definition.assembly_named(assembly));
            // An assembly that is not defined any more has no maintenance to keep.
            let Some(index) = index.map_or(Some(None), |index| index.map(Some)) else { continue };
            maintenance.push(index);
        }
        maintenance.extend(self.windows.now(&definition.name, clock::wall_ms()));
        let desired = match self.wishes().get(&definition.name) {
            Some(journal::Desired::Stopped) => Desired::Stopped,
            Some(journal::Desired::Started) | None => Desired::Running,
        };
        let ids = self.shared.journal.next_ids(&definition.name);
        let random = u64::from(clock::now().since_boot().subsec_nanos());
        Seed { first_action: ids.action, first_incident: ids.incident, random, desired, maintenance }
    }

    /// Ends maintenance whose hour has come.
    pub async fn end_maintenance(&self) {
        let now = clock::wall_ms();
        let over = |(name, until): (&String, &u64)| (*until <= now).then(|| name.clone());
        let over: Vec<String> = self.ends().iter().filter_map(over).collect();
        for name in over {
            if let Err(error) = self.maintenance_off(&name, "its time is over", "cpe").await {
                tracing::warn!(name, %error, "maintenance could not be ended; tried again");
            }
        }
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

    async fn set_desired(&self, name: &str, desired: journal::Desired) -> Result<CommandAnswer, Refused> {
        let name = self.deployable(name)?;
        self.shared.journal.set_desired(name.clone(), desired).await.map_err(|error| unwritable(&error))?;
        self.wishes().insert(name.clone(), desired);
        let (order, word) = match desired {
            journal::Desired::Started => (Order::Start, "start"),
            journal::Desired::Stopped => (Order::Stop, "stop"),
        };
        self.order(&name, order).await?;
        Ok(CommandAnswer {
            message: format!("{name}: {word} ordered; `cpe events {name} --follow` shows it"),
        })
    }

    async fn maintenance_on(
        &self,
        name: String,
        seconds: u64,
        reason: String,
        by: String,
    ) -> Result<CommandAnswer, Refused> {
        let until = clock::wall_ms().saturating_add(seconds.saturating_mul(1000));
        let meant = self.places(&name)?;
        let message =
            format!("{}: in maintenance for {seconds} s: watched, not acted upon", meant.join(", "));
        for place in meant {
            self.begin_maintenance(place, until, reason.clone(), by.clone()).await?;
        }
        Ok(CommandAnswer { message })
    }

    /// Maintenance until then, in milliseconds of wall time.
    pub(crate) async fn begin_maintenance(
        &self,
        name: String,
        until: u64,
        reason: String,
        by: String,
    ) -> Result<(), Refused> {
        let (deployable, assembly) = self.place(&name)?;
        let said = format!("{reason} (by {by})").into();
        let kept = Maintenance { name: name.clone(), until, reason, by };
        self.shared.journal.set_maintenance(kept).await.map_err(|error| unwritable(&error))?;
        self.ends().insert(name, until);
        self.order(&deployable, Order::Maintenance { assembly, on: true, reason: said }).await
    }

    /// When the maintenance of that name is over, if it is in one.
    pub(crate) fn maintenance_until(&self, name: &str) -> Option<u64> {
        self.ends().get(name).copied()
    }

    pub(crate) const fn windows(&self) -> &Windows {
        &self.windows
    }

    /// What a changed definition has anew is in the maintenance that its name is in; what knows it already is told nothing new.
    async fn remind_of_maintenance(&self, name: &Name) {
        let kept: Vec<String> = self.ends().keys().cloned().collect();
        for place in kept.iter().filter(|place| assembly_of(place, name.as_str()).is_some()) {
            let Ok((deployable, assembly)) = self.place(place) else { continue };
            let reason = "it is in maintenance".into();
            let _ = self.order(&deployable, Order::Maintenance { assembly, on: true, reason }).await;
        }
    }

    async fn maintenance_off(&self, name: &str, why: &str, by: &str) -> Result<CommandAnswer, Refused> {
        self.shared.journal.end_maintenance(name, by).await.map_err(|error| unwritable(&error))?;
        let known = self.ends().remove(name).is_some();
        let (deployable, assembly) = self.place(name)?;
        self.order(&deployable, Order::Maintenance { assembly, on: false, reason: why.into() }).await?;
        let message = if known {
            format!("{name}: maintenance ended")
        } else {
            format!("{name}: was not in maintenance")
        };
        Ok(CommandAnswer { message })
    }

    async fn pause(&self, name: Option<String>, reason: &str, by: &str) -> Result<CommandAnswer, Refused> {
        let deployable = name.map(|name| self.deployable(&name)).transpose()?;
        let begun = self.pauses.begin(&self.shared, deployable.as_ref(), reason, by).await;
        begun.map_err(|error| unwritable(&error))?;
        match &deployable {
            Some(name) => {
                let reason = pauses::said(reason, by).into();
                self.order(name, Order::Pause { on: true, reason }).await?;
            }
            None => self.order_all(&Order::FleetPause { on: true }).await,
        }
        let what = deployable.as_ref().map_or("everything", Name::as_str);
        let again = deployable.as_ref().map_or(String::new(), |name| format!(" {name}"));
        Ok(CommandAnswer {
            message: format!(
                "{what}: recovery is paused; what was begun finishes; `cpe resume{again}` ends it"
            ),
        })
    }

    async fn resume(&self, name: Option<String>, reason: &str, by: &str) -> Result<CommandAnswer, Refused> {
        let deployable = match name {
            // What is not defined any more may still be paused.
            Some(name) if self.pauses.contains(&name) => {
                Some(Name::parse(&name).map_err(|error| Refused::bad(error.to_string()))?)
            }
            name => name.map(|name| self.deployable(&name)).transpose()?,
        };
        let ended = self.pauses.end(&self.shared, deployable.as_ref(), reason, by).await;
        let was = ended.map_err(|error| unwritable(&error))?;
        if let Some(name) = deployable.as_ref().filter(|name| was && self.members().contains_key(*name)) {
            self.order(name, Order::Pause { on: false, reason: pauses::said(reason, by).into() }).await?;
        }
        if deployable.is_none() && was {
            self.order_all(&Order::FleetPause { on: false }).await;
        }
        let what = deployable.as_ref().map_or("everything", Name::as_str);
        let message = if was {
            format!("{what}: recovery goes on")
        } else {
            format!("{what}: was not paused; `cpe status` shows what is")
        };
        Ok(CommandAnswer { message })
    }

    async fn retry(&self, name: &str, by: &str) -> Result<CommandAnswer, Refused> {
        // The counts of a service and of its machine are one ladder.
        let machine: Vec<&str> = name.splitn(3, '/').take(2).collect();
        let (deployable, assembly) = self.place(&machine.join("/"))?;
        if let (Some(service), Some(index)) = (name.splitn(3, '/').nth(2), assembly) {
            let members = self.members();
            let definition = members.get(&deployable).map(|member| Arc::clone(&member.definition));
            drop(members);
            definition
                .and_then(|definition| definition.service_named(index, service))
                .ok_or_else(|| unknown(name))?;
        }
        if self.unpark(&deployable, &format!("ordered by {by}")) {
            let message = format!("{deployable}: its policy engine goes on from its last snapshot");
            return Ok(CommandAnswer { message });
        }
        self.order(&deployable, Order::Retry { assembly }).await?;
        Ok(CommandAnswer {
            message: format!("{}: counts are forgotten, tried anew from the first rung", machine.join("/")),
        })
    }

    async fn acknowledge(&self, name: &str, by: &str) -> Result<CommandAnswer, Refused> {
        let wanted = WhyQuery::parse(name).map_err(Refused::bad)?;
        let open = self.shared.journal.open_incidents(wanted).await.map_err(|error| unwritable(&error))?;
        if open.is_empty() {
            return Err(Refused::not_found(format!(
                "{name}: no incident is open; `cpe status` shows what is"
            )));
        }
        let mut told = Vec::with_capacity(open.len());
        for (deployable, incident) in open {
            let kept = self.shared.journal.acknowledge(deployable.clone(), incident, by).await;
            kept.map_err(|error| unwritable(&error))?;
            self.shared.notifier.acknowledge(&deployable, incident);
            told.push(format!("{deployable}#{incident}"));
        }
        Ok(CommandAnswer {
            message: format!("{}: acknowledged by {by}; no more notifications of it", told.join(", ")),
        })
    }

    fn deployable(&self, name: &str) -> Result<Name, Refused> {
        let parsed = Name::parse(name).map_err(|error| Refused::bad(error.to_string()))?;
        if self.members().contains_key(&parsed) { Ok(parsed) } else { Err(unknown(name)) }
    }

    /// What a glob, or the name of a failure domain, stands for among deployables and assemblies. A name stands for itself.
    fn places(&self, name: &str) -> Result<Vec<String>, Refused> {
        let wanted: Glob = name.parse().map_err(|error: GlobError| Refused::bad(error.to_string()))?;
        if wanted.is_literal() {
            return Ok(vec![name.to_owned()]);
        }
        let members = self.members();
        let assemblies = || {
            let all =
                members.values().flat_map(|it| it.definition.assemblies.iter().map(move |part| (it, part)));
            all.map(|(it, part)| (format!("{}/{}", it.definition.name, part.name), it, part))
        };
        let found: Vec<String> = match (wanted.domain(), wanted.segments().len()) {
            (Some(domain), _) => {
                let inside =
                    |part: &Assembly| part.failure_domains.iter().any(|it| domain.matches(it.as_str()));
                assemblies().filter(|(_, _, part)| inside(part)).map(|(place, ..)| place).collect()
            }
            (None, 1) => {
                members.keys().filter(|it| wanted.may_match(it.as_str())).map(ToString::to_string).collect()
            }
            (None, 2) => {
                let meant = |it: &Member, part: &Assembly| {
                    wanted.matches(&[it.definition.name.as_str(), part.name.as_str()])
                };
                assemblies().filter(|(_, it, part)| meant(it, part)).map(|(place, ..)| place).collect()
            }
            _ => return Err(Refused::bad(format!("{name} means services; name deployables or assemblies"))),
        };
        if found.is_empty() { Err(unknown(name)) } else { Ok(found) }
    }

    /// Deployables that a glob stands for, or everything.
    fn paused_by(&self, name: Option<String>) -> Result<Vec<Option<String>>, Refused> {
        let Some(name) = name else { return Ok(vec![None]) };
        if name.starts_with("domain:") {
            let text = format!(
                "a pause is of deployables or of everything; `cpe maintenance on {name}` holds a failure domain back"
            );
            return Err(Refused::bad(text));
        }
        if !name.contains(['*', '?']) {
            return Ok(vec![Some(name)]);
        }
        let places = self.places(&name)?;
        if places.iter().any(|place| place.contains('/')) {
            return Err(Refused::bad(format!(
                "{name} means assemblies; a pause is of deployables or of everything"
            )));
        }
        Ok(places.into_iter().map(Some).collect())
    }

    /// `deployable` or `deployable/assembly`, as far as there is such.
    pub(crate) fn place(&self, name: &str) -> Result<(Name, Option<AssemblyIndex>), Refused> {
        let Some((deployable, assembly)) = name.split_once('/') else {
            return Ok((self.deployable(name)?, None));
        };
        let deployable = self.deployable(deployable)?;
        let members = self.members();
        let index = members.get(&deployable).and_then(|member| member.definition.assembly_named(assembly));
        index.map(|index| (deployable, Some(index))).ok_or_else(|| unknown(name))
    }

    /// What runs under that name.
    pub(crate) fn definition_of(&self, name: &Name) -> Option<Arc<Deployable>> {
        self.members().get(name).map(|member| Arc::clone(&member.definition))
    }

    /// Orders something whose outcome is waited for.
    pub(crate) async fn order_and_wait(&self, name: &Name, order: Order) -> Result<Box<str>, Refused> {
        let Some(member) = self.members().get(name).cloned() else { return Err(unknown(name.as_str())) };
        let gone = || Refused::unavailable(format!("the engine of {name} has ended; `cpe status` shows it"));
        let mailbox = match member.standing {
            Standing::Runs(mailbox) => mailbox,
            Standing::Down(down) => return Err(down.refusal(name)),
        };
        let (sender, reply) = oneshot::channel();
        mailbox.send(Message::Ordered(order, sender)).await.map_err(|_| gone())?;
        let answer = reply.await.map_err(|_| gone())?;
        answer.map_err(|why| Refused::conflict(format!("{name}: refused: {why}")))
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

impl Controller for Fleet {
    fn size(&self) -> (usize, usize, usize) {
        self.count()
    }

    async fn status(&self, wanted: &Glob) -> Status {
        let mut status = Status { deployables: self.statuses(wanted).await, paused: None };
        self.pauses.tell(&mut status);
        status
    }

    async fn host_key(&self, name: &str, jump: bool) -> Result<HostKey, Refused> {
        self.look_at_key(name, jump).await
    }

    async fn command(&self, command: Command, by: String) -> Result<CommandAnswer, Refused> {
        match command {
            Command::Start { name } => self.set_desired(&name, journal::Desired::Started).await,
            Command::Stop { name } => self.set_desired(&name, journal::Desired::Stopped).await,
            Command::MaintenanceOn { name, for_seconds, reason } => {
                self.maintenance_on(name, for_seconds, reason, by).await
            }
            Command::MaintenanceOff { name } => {
                let mut said = Vec::new();
                for place in self.places(&name)? {
                    said.push(self.maintenance_off(&place, "switched off", &by).await?.message);
                }
                Ok(CommandAnswer { message: said.join("; ") })
            }
            Command::Pause { name, reason } => {
                let mut said = Vec::new();
                for name in self.paused_by(name)? {
                    said.push(self.pause(name, &reason, &by).await?.message);
                }
                Ok(CommandAnswer { message: said.join("; ") })
            }
            Command::Resume { name, reason } => {
                let mut said = Vec::new();
                for name in self.paused_by(name)? {
                    said.push(self.resume(name, &reason, &by).await?.message);
                }
                Ok(CommandAnswer { message: said.join("; ") })
            }
            Command::Recover { name, rung, reason } => self.recover(&name, rung, &reason, &by).await,
            Command::ConfirmFenced { name, reason } => self.confirm_fenced(&name, &reason, &by).await,
            Command::Trust { name, fingerprint, jump } => self.trust(&name, &fingerprint, jump, &by).await,
            Command::Retry { name } => self.retry(&name, &by).await,
            Command::Ack { name } => self.acknowledge(&name, &by).await,
        }
    }
}

/// The assembly's part of `deployable` or `deployable/assembly`, if the first part is that deployable.
fn assembly_of<'a>(name: &'a str, deployable: &str) -> Option<Option<&'a str>> {
    match name.split_once('/') {
        None => (name == deployable).then_some(None),
        Some((first, assembly)) => (first == deployable).then_some(Some(assembly)),
    }
}

fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

pub(crate) fn unknown(name: &str) -> Refused {
    Refused::not_found(format!("there is no {name:?} here; `cpe status` lists what there is"))
}

fn unwritable(error: &JournalError) -> Refused {
    Refused::unavailable(format!("{error}; without a journal nothing is ordered"))
}
