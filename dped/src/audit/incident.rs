//! Rule 5: an incident is closed, or a person was told, or it is young; what is exhausted was told.

use std::collections::{BTreeMap, BTreeSet};

use cpe_proto::event::EventRecord;
use cpe_proto::id::{IncidentId, Name};
use cpe_proto::state::State;

use super::record::{IncidentRecord, Notified};
use super::{Auditor, Check, Finding, IncidentKey, SAME_TIME, TOLD_WITHIN, of_event};

/// What an incident is about, with its deployable.
type Place = (Name, Option<Name>, Option<Name>);

#[derive(Debug, Default)]
pub(super) struct Incidents {
    all: BTreeMap<IncidentKey, Incident>,
    of_place: BTreeMap<Place, Vec<IncidentId>>,
    /// When a person was told; with no incident it is of the whole deployable.
    told: BTreeMap<(Name, Option<IncidentId>), BTreeSet<u64>>,
    /// The services of an assembly that were exhausted first, by their incidents.
    exhausted_services: BTreeMap<(Name, Option<Name>), BTreeMap<IncidentId, u64>>,
}

#[derive(Debug)]
struct Incident {
    place: Place,
    opened: u64,
    closed: Option<u64>,
    /// The event that first said so.
    exhausted: Option<Exhausted>,
}

#[derive(Clone, Copy, Debug)]
struct Exhausted {
    seq: u64,
    time: u64,
}

impl Incident {
    fn open_at(&self, time: u64) -> bool {
        self.closed.is_none_or(|closed| closed >= time)
    }
}

impl Incidents {
    pub(super) fn closed(&mut self, key: &IncidentKey, time: u64) {
        if let Some(incident) = self.all.get_mut(key) {
            incident.closed.get_or_insert(time);
        }
    }

    pub(super) fn notified(&mut self, notified: &Notified) {
        let key = (notified.deployable.clone(), notified.incident);
        self.told.entry(key).or_default().insert(notified.time);
    }

    /// Whether an incident was opened by then.
    pub(super) fn opened_by(&self, key: &IncidentKey, time: u64) -> bool {
        self.all.get(key).is_some_and(|incident| incident.opened <= time + SAME_TIME)
    }

    fn was_told(&self, (deployable, incident): &IncidentKey, from: u64, to: u64) -> bool {
        [None, Some(*incident)].into_iter().any(|incident| {
            let told = self.told.get(&(deployable.clone(), incident));
            told.is_some_and(|told| told.range(from..=to).next().is_some())
        })
    }

    /// Whether a service's incident waits for that of its machine, which is open and of which a person was told.
    fn waits_for_its_machine(&self, incident: &Incident, to: u64) -> bool {
        let (deployable, assembly, service) = &incident.place;
        let of = self.of_place.get(&(deployable.clone(), assembly.clone(), None));
        service.is_some()
            && of.into_iter().flatten().any(|machine| {
                let key = (deployable.clone(), *machine);
                let open = self.all.get(&key).filter(|it| it.opened <= to && it.open_at(to));
                open.is_some_and(|it| self.was_told(&key, it.opened.saturating_sub(SAME_TIME), to))
            })
    }

    /// Whether an assembly is exhausted because a service of it is: that is told with the service's incident, which is still open.
    fn follows_a_service(&self, (deployable, assembly, service): &Place, exhausted: Exhausted) -> bool {
        let of = self.exhausted_services.get(&(deployable.clone(), assembly.clone()));
        service.is_none()
            && of.into_iter().flatten().any(|(incident, time)| {
                let incident = self.all.get(&(deployable.clone(), *incident));
                *time <= exhausted.time + SAME_TIME && incident.is_some_and(|it| it.open_at(exhausted.time))
            })
    }
}

impl Auditor {
    pub(super) fn opened(&mut self, record: &IncidentRecord) {
        let key = (record.deployable.clone(), record.incident);
        let place = (record.deployable.clone(), record.assembly.clone(), record.service.clone());
        if self.incidents.all.contains_key(&key) {
            return;
        }
        self.incidents.of_place.entry(place.clone()).or_default().push(record.incident);
        let due = record.opened.saturating_add(self.open_max).saturating_add(1);
        self.due.insert((due, Check::Open(key.clone())));
        let incident = Incident { place, opened: record.opened, closed: None, exhausted: None };
        self.incidents.all.insert(key, incident);
    }

    /// What is exhausted has to be told.
    pub(super) fn state_changed(&mut self, deployable: &Name, record: &EventRecord) {
        let event = &record.event;
        if event.to != Some(State::Exhausted) {
            return;
        }
        let place = (deployable.clone(), event.assembly.clone(), event.service.clone());
        if let (Some(incident), Some(_)) = (event.incident, &event.service) {
            let of = (deployable.clone(), event.assembly.clone());
            self.incidents.exhausted_services.entry(of).or_default().entry(incident).or_insert(record.time);
        }
        let of = match event.incident {
            Some(incident) => vec![incident],
            None => self.incidents.of_place.get(&place).cloned().unwrap_or_default(),
        };
        for incident in of {
            let key = (deployable.clone(), incident);
            let Some(incident) = self.incidents.all.get_mut(&key) else { continue };
            let during =
                incident.place == place && record.time >= incident.opened && incident.open_at(record.time);
            if during && incident.exhausted.is_none() {
                incident.exhausted = Some(Exhausted { seq: record.seq, time: record.time });
                self.due.insert((record.time + TOLD_WITHIN, Check::Exhausted(key)));
            }
        }
    }

    pub(super) fn judge_exhausted(&self, key: &IncidentKey) -> Option<Finding> {
        let incident = self.incidents.all.get(key)?;
        let exhausted = incident.exhausted?;
        let until = exhausted.time + TOLD_WITHIN;
        // A crash may have come between the two; then a restart closed the incident.
        let cut_off = !incident.open_at(until) || !self.complete(exhausted.time);
        let from = incident.opened.saturating_sub(SAME_TIME);
        if cut_off
            || self.incidents.follows_a_service(&incident.place, exhausted)
            || self.incidents.was_told(key, from, until)
        {
            return None;
        }
        let of = of_incident(key);
        let what = format!("{of} is exhausted and nobody was told");
        Some(Finding::new(5, what, vec![of, of_event(exhausted.seq)]))
    }

    pub(super) fn judge_open(&mut self, key: &IncidentKey, due: u64) -> Option<Finding> {
        let incident = self.incidents.all.get(key)?;
        let assembly = incident.place.1.as_ref();
        if assembly.is_some_and(|assembly| {
            self.holds.over(&key.0, assembly, incident.place.2.as_ref(), due).is_some()
        }) || self.incidents.waits_for_its_machine(incident, due)
        {
            // Nobody is told in maintenance: by order.
            self.due.insert((due.saturating_add(self.open_max.max(1)), Check::Open(key.clone())));
            return None;
        }
        let from = incident.opened.saturating_sub(SAME_TIME);
        if !incident.open_at(due) || self.incidents.was_told(key, from, due) {
            return None;
        }
        let of = of_incident(key);
        let what = format!("{of} is open for {} h and nobody was told", self.open_max / 3_600_000);
        Some(Finding::new(5, what, vec![of]))
    }
}

fn of_incident((deployable, incident): &IncidentKey) -> String {
    format!("incident {deployable}#{incident}")
}
