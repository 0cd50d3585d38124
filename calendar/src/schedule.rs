//! All windows of all definitions, and which of their occurrences have begun: each is ordered once, whatever the wall clock does. An occurrence
//! that has begun is a maintenance like one by hand, with the occurrence's end as its end: it is kept by whoever orders it, and lasts
//! to its end also if its definition changes. One that a person has ended is over. When an occurrence is, `window.rs` says.

use std::collections::BTreeMap;
use std::fmt;

use cpe_proto::definition::Deployable;
use cpe_proto::id::{AssemblyIndex, Name};

use crate::{Calendar, Occurrence};

/// No window is longer (`cpe_proto::definition`), in milliseconds: what was ended before that is of no occurrence that lasts.
const WINDOW_MAX: u64 = 7 * 24 * 3600 * 1000;

/// What a maintenance is of: a deployable, or one assembly of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The deployable.
    pub deployable: Name,
    /// The assembly; none: the whole deployable.
    pub assembly: Option<Name>,
}

impl Place {
    /// `deployable` or `deployable/assembly`; none: it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (deployable, assembly) = match text.split_once('/') {
            None => (text, None),
            Some((deployable, assembly)) => (deployable, Some(Name::parse(assembly).ok()?)),
        };
        Some(Self { deployable: Name::parse(deployable).ok()?, assembly })
    }
}

/// As people write it.
impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.assembly {
            Some(assembly) => write!(out, "{}/{assembly}", self.deployable),
            None => write!(out, "{}", self.deployable),
        }
    }
}

/// An occurrence that has begun and is to be ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Of what.
    pub place: Place,
    /// When it is over, in milliseconds since 1970-01-01T00:00:00Z.
    pub until: u64,
    /// Why, as the definition says.
    pub reason: String,
}

/// The windows of all deployables. All times are wall times in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    of: BTreeMap<Name, Scheduled>,
    /// The ends of the occurrences that were ordered.
    begun: BTreeMap<Place, u64>,
    /// The ends of those of which an engine knows from its start, and which were not ordered yet.
    known: BTreeMap<Place, u64>,
    /// When a person ended a maintenance.
    ended: BTreeMap<Place, u64>,
    /// When it was last looked.
    looked: u64,
}

#[derive(Clone, Debug)]
struct Scheduled {
    windows: Vec<Window>,
    /// Nothing begins or ends before that.
    due: u64,
}

#[derive(Clone, Debug)]
struct Window {
    calendar: Calendar,
    places: Vec<(Place, Option<AssemblyIndex>)>,
    reason: String,
}

impl Schedule {
    /// No windows yet; `ended` is when a person last ended the maintenance of a place.
    #[must_use]
    pub fn new(ended: BTreeMap<Place, u64>) -> Self {
        Self { ended, ..Self::default() }
    }

    /// The windows of a deployable, in place of those that it had. Those that have a [`Flaw`](crate::Flaw) are left out.
    pub fn set(&mut self, definition: &Deployable, now: u64) {
        let name = &definition.name;
        let place = |assembly| Place { deployable: name.clone(), assembly };
        let windows = definition.maintenance.iter().filter_map(|window| {
            let calendar = Calendar::of(window, now).ok()?;
            let places = match window.assemblies.as_slice() {
                [] => vec![(place(None), None)],
                some => some
                    .iter()
                    .map(|index| (place(Some(definition.assembly(*index).name.clone())), Some(*index)))
                    .collect(),
            };
            Some(Window { calendar, places, reason: window.reason.clone() })
        });
        let windows: Vec<Window> = windows.collect();
        if windows.is_empty() {
            self.of.remove(name);
        } else {
            self.of.insert(name.clone(), Scheduled { windows, due: 0 });
        }
    }

    /// A deployable is managed no more.
    pub fn remove(&mut self, name: &Name) {
        self.of.remove(name);
        self.begun.retain(|place, _| place.deployable != *name);
        self.known.retain(|place, _| place.deployable != *name);
    }

    /// What an engine that begins now is to know: what of it is in an occurrence that was not ordered yet. What was, is known to
    /// whoever ordered it.
    pub fn now(&mut self, name: &Name, now: u64) -> Vec<Option<AssemblyIndex>> {
        let Some(scheduled) = self.of.get(name) else { return Vec::new() };
        let mut found = Vec::new();
        for Window { calendar, places, .. } in &scheduled.windows {
            let Some(occurrence) = calendar.at(now) else { continue };
            for (place, index) in places {
                if !is_over(&self.ended, place, occurrence)
                    && !is_ordered(&self.begun, &self.ended, place, occurrence)
                {
                    let until = self.known.entry(place.clone()).or_default();
                    *until = occurrence.to.max(*until);
                    found.push(*index);
                }
            }
        }
        found
    }

    /// Occurrences that have begun and were not ordered yet, each place once, with the latest end.
    pub fn due(&mut self, now: u64) -> Vec<Begun> {
        let set_back = now < self.looked;
        self.looked = now;
        self.begun.retain(|_, until| *until > now);
        let mut found: BTreeMap<Place, (Occurrence, &str)> = BTreeMap::new();
        for scheduled in self.of.values_mut().filter(|it| set_back || it.due <= now) {
            scheduled.due = u64::MAX;
            for Window { calendar, places, reason } in &scheduled.windows {
                let Some(next) = calendar.after(now).next() else { continue };
                scheduled.due = scheduled.due.min(if next.from <= now { next.to } else { next.from });
                if next.from > now {
                    continue;
                }
                for (place, _) in places.iter().filter(|(place, _)| !is_over(&self.ended, place, next)) {
                    let last = found.entry(place.clone()).or_insert((next, reason));
                    if last.0.to < next.to {
                        *last = (next, reason);
                    }
                }
            }
        }
        found.retain(|place, (it, _)| !is_ordered(&self.begun, &self.ended, place, *it));
        let begun = |(place, (it, reason)): (Place, (Occurrence, &str))| Begun {
            place,
            until: it.to,
            reason: reason.to_owned(),
        };
        found.into_iter().map(begun).collect()
    }

    /// An occurrence was ordered, and is not ordered once more. Where it could not be, it is due again.
    pub fn done(&mut self, begun: &Begun, ordered: bool) {
        if ordered {
            self.known.remove(&begun.place);
            self.begun.insert(begun.place.clone(), begun.until);
        } else if let Some(scheduled) = self.of.get_mut(&begun.place.deployable) {
            scheduled.due = 0;
        }
    }

    /// The occurrence of a place that lasts now and that no person has ended, the one that ends last: another maintenance that ends within it
    /// goes on until then.
    #[must_use]
    pub fn lasts(&self, place: &Place, now: u64) -> Option<Begun> {
        let windows = &self.of.get(&place.deployable)?.windows;
        let ended = self.ended.get(place).copied();
        let of = windows.iter().filter(|it| it.places.iter().any(|(known, _)| known == place));
        let lasts = of.filter_map(|it| Some((it.calendar.at(now)?, &it.reason)));
        let goes_on = lasts.filter(|(it, _)| ended.is_none_or(|at| at < it.from || at >= it.to));
        let (last, reason) = goes_on.max_by_key(|(it, _)| it.to)?;
        Some(Begun { place: place.clone(), until: last.to, reason: reason.clone() })
    }

    /// What engines know from their start and is over, although it was never ordered: they are to be told.
    #[must_use]
    pub fn over(&self, now: u64) -> Vec<Place> {
        let over = self.known.iter().filter(|(_, until)| **until <= now);
        over.map(|(place, _)| place.clone()).collect()
    }

    /// The maintenance of a place was ended; by a person: what of its windows lasts then is not begun once more.
    pub fn ended(&mut self, place: &Place, by_person: bool, now: u64) {
        self.known.remove(place);
        if !by_person {
            // What its definition took away in the meantime, and gives back while it lasts, begins once more.
            self.begun.remove(place);
            return;
        }
        self.ended.retain(|_, at| at.saturating_add(WINDOW_MAX) > now);
        self.ended.insert(place.clone(), now);
    }
}

/// Whether it is part of what was ordered. One that begins after a person has ended a longer one is not.
fn is_ordered(
    begun: &BTreeMap<Place, u64>,
    ended: &BTreeMap<Place, u64>,
    place: &Place,
    occurrence: Occurrence,
) -> bool {
    let Some(until) = begun.get(place) else { return false };
    let after = ended.get(place).is_some_and(|at| *at < occurrence.from);
    *until == occurrence.to || *until > occurrence.to && !after
}

/// Whether a person has ended the maintenance of a place within this.
fn is_over(ended: &BTreeMap<Place, u64>, place: &Place, occurrence: Occurrence) -> bool {
    ended.get(place).is_some_and(|at| (occurrence.from..occurrence.to).contains(at))
}

#[cfg(test)]
mod tests {
    use crate::moment;

    use super::*;

    const SHOP: &str = r#"
        name = "shop"
        [[maintenance]]
        from = "02:00"
        for = "2h"
        [[maintenance]]
        from = "03:00"
        for = "2h"
        assemblies = ["web*"]
        reason = "patches"
        [assemblies.web-1]
        address = "192.0.2.1"
        [assemblies.web-2]
        address = "192.0.2.2"
        [assemblies.db]
        address = "192.0.2.3"
    "#;

    const DAY: u64 = 24 * 3_600_000;

    fn at(time: &str) -> u64 {
        moment(&format!("2026-11-22T{time}"), "UTC").unwrap().unwrap()
    }

    fn schedule(now: u64) -> (Schedule, Deployable) {
        let (mut schedule, shop) = (Schedule::default(), Deployable::parse("shop.toml", SHOP).unwrap());
        schedule.set(&shop, now);
        (schedule, shop)
    }

    /// What is ordered at that time.
    fn ordered(schedule: &mut Schedule, time: &str) -> Vec<String> {
        let due = schedule.due(at(time));
        for begun in &due {
            schedule.done(begun, true);
        }
        due.into_iter().map(|it| it.place.to_string()).collect()
    }

    #[test]
    fn an_occurrence_is_ordered_once_whatever_the_clock_does() {
        let (mut schedule, _) = schedule(at("01:00:00"));
        assert_eq!(ordered(&mut schedule, "01:59:59"), Vec::<String>::new());
        assert_eq!(ordered(&mut schedule, "02:00:00"), ["shop"]);
        assert_eq!(ordered(&mut schedule, "02:00:01"), Vec::<String>::new());
        assert_eq!(ordered(&mut schedule, "03:00:01"), ["shop/web-1", "shop/web-2"]);
        assert_eq!(ordered(&mut schedule, "02:30:00"), Vec::<String>::new(), "the clock was set back");
        assert_eq!(ordered(&mut schedule, "03:30:00"), Vec::<String>::new());
        assert_eq!(ordered(&mut schedule, "06:00:00"), Vec::<String>::new());
        assert_eq!(schedule.due(at("02:00:00") + DAY).len(), 1);
    }

    #[test]
    fn what_could_not_be_ordered_is_tried_again() {
        let (mut schedule, _) = schedule(at("01:00:00"));
        let due = schedule.due(at("02:10:00"));
        schedule.done(&due[0], false);
        assert_eq!(ordered(&mut schedule, "02:10:01"), ["shop"]);
    }

    #[test]
    fn an_engine_that_begins_within_a_window_knows_it_from_the_first_probe() {
        let (mut schedule, shop) = schedule(at("01:00:00"));
        assert_eq!(schedule.now(&shop.name, at("01:59:59")), []);
        assert_eq!(schedule.now(&shop.name, at("02:59:59")), [None]);
        let web = [Some(AssemblyIndex(0)), Some(AssemblyIndex(1))];
        assert_eq!(schedule.now(&shop.name, at("04:30:00")), web);
        schedule.remove(&shop.name);
        assert_eq!(schedule.now(&shop.name, at("04:30:00")), []);
    }

    #[test]
    fn what_an_engine_knew_from_its_start_ends_also_if_the_journal_never_took_it() {
        let (mut schedule, shop) = schedule(at("01:00:00"));
        assert_eq!(schedule.now(&shop.name, at("02:30:00")), [None]);
        let due = schedule.due(at("02:30:00"));
        schedule.done(&due[0], false);
        assert_eq!(schedule.over(at("03:59:59")), []);
        let place = Place::parse("shop").unwrap();
        assert_eq!(schedule.over(at("04:00:00")), std::slice::from_ref(&place));
        schedule.ended(&place, false, at("04:00:00"));
        assert_eq!(schedule.over(at("04:00:01")), []);
    }

    #[test]
    fn what_a_person_ended_does_not_come_back_before_its_next_time() {
        let (mut schedule, shop) = schedule(at("01:00:00"));
        assert_eq!(ordered(&mut schedule, "02:00:00"), ["shop"]);
        schedule.ended(&Place::parse("shop").unwrap(), true, at("02:30:00"));
        assert_eq!(schedule.now(&shop.name, at("02:40:00")), [], "an engine that panicked is made anew");
        schedule.remove(&shop.name);
        schedule.set(&shop, at("02:45:00"));
        assert_eq!(ordered(&mut schedule, "02:45:00"), Vec::<String>::new(), "nor is a file that was away");
        assert_eq!(schedule.due(at("02:00:00") + DAY).len(), 1);
    }

    #[test]
    fn one_that_begins_after_a_person_has_ended_a_longer_one_is_a_window_of_its_own() {
        let nested = SHOP.replace(
            "        from = \"03:00\"\n        for = \"2h\"\n        assemblies = [\"web*\"]\n",
            "        from = \"03:00\"\n        for = \"30m\"\n",
        );
        let shop = Deployable::parse("shop.toml", &nested).unwrap();
        let mut schedule = Schedule::default();
        schedule.set(&shop, at("01:00:00"));
        assert_eq!(ordered(&mut schedule, "02:00:00"), ["shop"]);
        let place = Place::parse("shop").unwrap();
        schedule.ended(&place, true, at("02:30:00"));
        assert_eq!(ordered(&mut schedule, "02:59:59"), Vec::<String>::new());
        assert_eq!(schedule.lasts(&place, at("03:00:00")).map(|it| it.until), Some(at("03:30:00")));
        assert_eq!(ordered(&mut schedule, "03:00:00"), ["shop"]);
        assert_eq!(ordered(&mut schedule, "03:00:01"), Vec::<String>::new());
        schedule.ended(&place, false, at("03:30:00"));
        assert_eq!(ordered(&mut schedule, "03:30:00"), Vec::<String>::new(), "the longer one stays ended");
    }

    #[test]
    fn a_shorter_maintenance_by_hand_does_not_end_the_one_of_a_window() {
        let (mut schedule, _) = schedule(at("01:00:00"));
        assert_eq!(ordered(&mut schedule, "02:00:00"), ["shop"]);
        let shop = Place::parse("shop").unwrap();
        let until = |schedule: &Schedule, time| schedule.lasts(&shop, at(time)).map(|it| it.until);
        assert_eq!(until(&schedule, "02:31:00"), Some(at("04:00:00")));
        assert_eq!(until(&schedule, "04:00:00"), None);
        schedule.ended(&shop, true, at("02:32:00"));
        assert_eq!(until(&schedule, "02:33:00"), None, "a person said so");
    }

    #[test]
    fn a_window_that_a_definition_loses_and_gets_back_while_it_lasts_begins_once_more() {
        let (mut schedule, shop) = schedule(at("01:00:00"));
        assert_eq!(ordered(&mut schedule, "02:00:00"), ["shop"]);
        let without = SHOP.replace("from = \"02:00\"", "from = \"12:00\"");
        schedule.set(&Deployable::parse("shop.toml", &without).unwrap(), at("02:10:00"));
        // A shorter maintenance by hand was over, and no window went on.
        schedule.ended(&Place::parse("shop").unwrap(), false, at("02:20:00"));
        assert_eq!(ordered(&mut schedule, "02:20:01"), Vec::<String>::new());
        schedule.set(&shop, at("02:30:00"));
        assert_eq!(ordered(&mut schedule, "02:30:00"), ["shop"]);
    }

    #[test]
    fn nor_does_it_after_a_restart() {
        let shop = Deployable::parse("shop.toml", SHOP).unwrap();
        let place = Place::parse("shop").unwrap();
        let mut schedule = Schedule::new(BTreeMap::from([(place, at("02:30:00"))]));
        schedule.set(&shop, at("02:40:00"));
        assert_eq!(schedule.now(&shop.name, at("02:40:00")), []);
        assert_eq!(ordered(&mut schedule, "02:40:01"), Vec::<String>::new());
        assert_eq!(ordered(&mut schedule, "03:00:01"), ["shop/web-1", "shop/web-2"], "another window");
    }
}
