//! How the engine of a deployable begins: made from what the journal or its predecessor left of it, then put in its place. Until it has
//! its place nobody can order it anything; so what of orders is kept (pauses, maintenance, start and stop, the definition) is read once
//! more while it gets it, and is the first that it is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use cpe_proto::definition::Deployable;
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{AssemblyIndex, Name};
use dped::{Desired, Input, Order, PartName, Seed};
use tokio::sync::mpsc;

use super::maintenance::assembly_of;
use super::{Fleet, Member};
use crate::clock;
use crate::driver::{Driver, Message};
use crate::event::plain;
use crate::journal;
use crate::past::Kept;
use crate::supervise::{Down, Panics, Standing, is_down};
use crate::vital::catch;

/// Why an engine is told something at its beginning that it was not made with.
const MEANWHILE: &str = "ordered while its policy engine was started";

/// An engine that has no place yet.
pub(crate) struct Made {
    definition: Arc<Deployable>,
    panics: Panics,
    driver: Driver,
    mailbox: mpsc::Sender<Message>,
    /// What it took up.
    taken_up: Option<Kept>,
    /// The orders that it was made with.
    maintenance: Vec<Option<AssemblyIndex>>,
    desired: Desired,
    parts: BTreeSet<PartName>,
}

impl Fleet {
    /// Starts the engine of a deployable, as the journal or its predecessor knows it. `down`: whose place it takes, if anybody's.
    pub(crate) fn begin(
        self: &Arc<Self>,
        definition: Arc<Deployable>,
        panics: Panics,
        down: Option<&Arc<Down>>,
    ) {
        if let Some(made) = self.make(definition, panics) {
            self.launch(made, down);
        }
    }

    /// Makes an engine. None: it panicked, and was told so.
    pub(crate) fn make(self: &Arc<Self>, definition: Arc<Deployable>, panics: Panics) -> Option<Made> {
        let name = definition.name.clone();
        // Taken once: a definition that comes back after its removal has no past.
        let past = self.past().remove(&name);
        let taken_up = past.and_then(|past| past.settle(self.shared(), &name));
        let (maintenance, desired) = (self.maintained(&definition), self.wished(&name));
        let parts = self.pauses.parts(&name);
        let seed = self.seed(&name, maintenance.clone(), desired);
        let shared = Arc::clone(self.shared());
        let made = catch(|| Driver::new(Arc::clone(&definition), seed, taken_up.clone(), shared));
        match made {
            Ok((driver, mailbox)) => {
                Some(Made { definition, panics, driver, mailbox, taken_up, maintenance, desired, parts })
            }
            Err(said) => {
                self.stillborn(definition, panics, taken_up, &said);
                None
            }
        }
    }

    /// Gives it its place and lets it run, unless its place is there no more.
    pub(crate) fn launch(self: &Arc<Self>, mut made: Made, down: Option<&Arc<Down>>) {
        let name = made.definition.name.clone();
        let mut members = self.members();
        let before = members.get(&name);
        if down.is_some_and(|down| before.is_none_or(|before| !is_down(&before.standing, down))) {
            drop(members);
            return self.unwanted(&name, made.taken_up.as_ref());
        }
        // It may have changed just now.
        let definition = Arc::clone(before.map_or(&made.definition, |before| &before.definition));
        // Whoever orders something keeps it first and looks for the engine then: from here on he finds this one.
        made.driver.begin_with(self.first_words(&made, &definition));
        let Made { panics, driver, mailbox, .. } = made;
        let standing = Standing::Runs(mailbox);
        let before = members.insert(name.clone(), Member { definition, standing, panics });
        drop(members);
        self.replaced(before.as_ref());
        tokio::spawn(Arc::clone(self).supervise(name, driver));
    }

    /// Its definition was removed while it was made: that was told, without what it would have gone on with.
    fn unwanted(&self, name: &Name, taken_up: Option<&Kept>) {
        for incident in taken_up.map(Kept::incidents).unwrap_or_default() {
            let event = plain(EventKind::IncidentClosed, "managed no more: its definition was removed");
            self.shared().report(Some(name), Event { incident: Some(incident), ..event });
        }
    }

    /// What a new engine is told before anything else, of what is ordered now.
    fn first_words(&self, made: &Made, definition: &Arc<Deployable>) -> Vec<Message> {
        let name = &definition.name;
        let mut first = Vec::new();
        if !Arc::ptr_eq(definition, &made.definition) {
            first.push(Input::Definition(Arc::clone(definition)));
        }
        if self.pauses.of_everything() {
            first.push(Input::Order(Order::FleetPause { on: true }));
        }
        let domains = self.pauses.domains();
        if !domains.is_empty() {
            first.push(Input::Order(Order::DomainPause { domains, on: true }));
        }
        // What was ordered before was told then.
        let (before, anew) = self.pauses.parts(name).into_iter().partition(|it| made.parts.contains(it));
        for (parts, reason) in [(before, ""), (anew, MEANWHILE)] {
            let order = Order::PartsPause { parts, on: true, reason: reason.into() };
            first.push(Input::Order(order));
        }
        // What it took up may have been paused when it was written down.
        let unpause = || Input::Order(Order::Pause { on: false, reason: "not paused".into() });
        first.extend(self.pauses.order(name).or_else(|| made.taken_up.as_ref().map(|_| unpause())));
        first.extend(self.turned(made, definition).into_iter().map(Input::Order));
        first.into_iter().map(Message::Input).collect()
    }

    /// Maintenance, start and stop that were ordered while it was made. What it knows already tells it nothing.
    fn turned(&self, made: &Made, definition: &Deployable) -> Vec<Order> {
        let maintained = self.maintained(definition);
        let now_at = |index: &Option<AssemblyIndex>| match index {
            None => Some(None),
            Some(index) => {
                definition.assembly_named(made.definition.assembly(*index).name.as_str()).map(Some)
            }
        };
        let over = made.maintenance.iter().filter_map(now_at).filter(|it| !maintained.contains(it));
        let turn = |assembly, on| Order::Maintenance { assembly, on, reason: MEANWHILE.into() };
        let mut orders: Vec<Order> = over.map(|it| turn(it, false)).collect();
        orders.extend(maintained.iter().map(|it| turn(*it, true)));
        match self.wished(&definition.name) {
            same if same == made.desired => {}
            Desired::Stopped => orders.push(Order::Stop),
            Desired::PoweredOff => orders.push(Order::PowerOff),
            Desired::Running => orders.push(Order::Start),
        }
        orders
    }

    /// What of it is in maintenance: None is the whole deployable.
    fn maintained(&self, definition: &Deployable) -> Vec<Option<AssemblyIndex>> {
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
        maintenance
    }

    fn wished(&self, name: &Name) -> Desired {
        match self.wishes().get(name) {
            Some(journal::Desired::Stopped) => Desired::Stopped,
            Some(journal::Desired::PoweredOff) => Desired::PoweredOff,
            Some(journal::Desired::Started) | None => Desired::Running,
        }
    }

    fn seed(&self, name: &Name, maintenance: Vec<Option<AssemblyIndex>>, desired: Desired) -> Seed {
        let ids = self.shared.journal.next_ids(name);
        let random = u64::from(clock::now().since_boot().subsec_nanos());
        Seed { first_action: ids.action, first_incident: ids.incident, random, desired, maintenance }
    }
}
