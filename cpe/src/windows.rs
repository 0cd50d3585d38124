//! Maintenance windows of definitions as orders: an occurrence that has begun is a maintenance like one by hand, ordered by the schedule,
//! with the occurrence's end as its end. So it is kept in the journal, outlives a restart, and a person can end it before its time. By wall
//! time, looked at once a second: a clock that is set forth or back begins what is due then, and repeats nothing. When an occurrence is,
//! `calendar.rs` says.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cpe_proto::definition::Deployable;
use cpe_proto::id::{AssemblyIndex, Name};

use crate::calendar::Calendar;
use crate::clock;
use crate::fleet::Fleet;

/// Who ordered it, in records.
const SCHEDULE: &str = "its schedule";

/// The windows of all deployables.
#[derive(Debug, Default)]
pub struct Windows(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    of: BTreeMap<Name, Scheduled>,
    /// The ends of the occurrences that have begun, by `deployable` or `deployable/assembly`.
    begun: BTreeMap<String, u64>,
    /// When it was last looked.
    looked: u64,
}

#[derive(Debug)]
struct Scheduled {
    windows: Vec<(Calendar, Vec<Place>, String)>,
    /// Nothing begins or ends before that.
    due: u64,
}

/// What a window is for: its name, and its index in the definition.
type Place = (String, Option<AssemblyIndex>);

/// An occurrence that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Begun {
    place: String,
    until: u64,
    reason: String,
}

impl Windows {
    /// The windows of a deployable, in place of those that it had. What cannot be kept was an error when it was loaded.
    pub fn set(&self, definition: &Deployable, now: u64) {
        let name = &definition.name;
        let places = |assemblies: &[AssemblyIndex]| match assemblies {
            [] => vec![(name.to_string(), None)],
            some => {
                let named = |index: &AssemblyIndex| {
                    (format!("{name}/{}", definition.assembly(*index).name), Some(*index))
                };
                some.iter().map(named).collect()
            }
        };
        let windows = definition.maintenance.iter().filter_map(|window| {
            let calendar = Calendar::of(window, now).ok()?;
            Some((calendar, places(&window.assemblies), window.reason.clone()))
        });
        let windows: Vec<_> = windows.collect();
        let mut inner = self.lock();
        if windows.is_empty() {
            inner.of.remove(name);
        } else {
            inner.of.insert(name.clone(), Scheduled { windows, due: 0 });
        }
    }

    /// A deployable is managed no more.
    pub fn remove(&self, name: &Name) {
        let mut inner = self.lock();
        inner.of.remove(name);
        let inside = format!("{name}/");
        inner.begun.retain(|place, _| place != name.as_str() && !place.starts_with(&inside));
    }

    /// What an engine that begins now is to know: what of it is in a window.
    #[must_use]
    pub fn now(&self, name: &Name, now: u64) -> Vec<Option<AssemblyIndex>> {
        let inner = self.lock();
        let Some(scheduled) = inner.of.get(name) else { return Vec::new() };
        let lasts = scheduled.windows.iter().filter(|(calendar, ..)| calendar.at(now).is_some());
        lasts.flat_map(|(_, places, _)| places.iter().map(|(_, index)| *index)).collect()
    }

    /// Occurrences that have begun and were not told yet, each place once, with the latest end.
    fn due(&self, now: u64) -> Vec<Begun> {
        let mut inner = self.lock();
        let set_back = now < inner.looked;
        inner.looked = now;
        inner.begun.retain(|_, until| *until > now);
        let mut found: BTreeMap<String, Begun> = BTreeMap::new();
        for scheduled in inner.of.values_mut().filter(|it| set_back || it.due <= now) {
            scheduled.due = u64::MAX;
            for (calendar, places, reason) in &scheduled.windows {
                let Some(next) = calendar.after(now).next() else { continue };
                scheduled.due = scheduled.due.min(if next.from <= now { next.to } else { next.from });
                if next.from > now {
                    continue;
                }
                for (place, _) in places {
                    let begun = Begun { place: place.clone(), until: next.to, reason: reason.clone() };
                    found
                        .entry(place.clone())
                        .and_modify(|known| {
                            if known.until < next.to {
                                *known = begun.clone();
                            }
                        })
                        .or_insert(begun);
                }
            }
        }
        found.retain(|place, begun| inner.begun.get(place).is_none_or(|until| *until < begun.until));
        found.into_values().collect()
    }

    /// An occurrence was ordered, and is not ordered once more. Without a journal it was not: it is tried again.
    fn done(&self, begun: &Begun, ordered: bool) {
        let mut inner = self.lock();
        if ordered {
            inner.begun.insert(begun.place.clone(), begun.until);
        } else if let Some((_, scheduled)) =
            inner.of.iter_mut().find(|(name, _)| begun.place.split('/').next() == Some(name.as_str()))
        {
            scheduled.due = 0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fleet {
    /// Orders what has begun.
    pub async fn keep_windows(&self) {
        for begun in self.windows().due(clock::wall_ms()) {
            let Begun { place, until, reason } = begun.clone();
            // One by hand that lasts longer stays as it is.
            let longer = self.maintenance_until(&place).is_some_and(|end| end >= until);
            let ordered = longer
                || match self.begin_maintenance(place, until, reason, SCHEDULE.to_owned()).await {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::warn!(name = begun.place, %error, "a maintenance window could not be begun; tried again");
                        false
                    }
                };
            self.windows().done(&begun, ordered);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

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

    fn at(time: &str) -> u64 {
        let text = format!("2026-11-22T{time}Z");
        u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    fn windows(now: u64) -> (Windows, Deployable) {
        let (windows, shop) = (Windows::default(), Deployable::parse("shop.toml", SHOP).unwrap());
        windows.set(&shop, now);
        (windows, shop)
    }

    /// What is ordered at that time.
    fn ordered(windows: &Windows, time: &str) -> Vec<String> {
        let due = windows.due(at(time));
        for begun in &due {
            windows.done(begun, true);
        }
        due.into_iter().map(|it| it.place).collect()
    }

    #[test]
    fn an_occurrence_is_ordered_once_whatever_the_clock_does() {
        let (windows, _) = windows(at("01:00:00"));
        assert_eq!(ordered(&windows, "01:59:59"), Vec::<String>::new());
        assert_eq!(ordered(&windows, "02:00:00"), ["shop"]);
        assert_eq!(ordered(&windows, "02:00:01"), Vec::<String>::new());
        assert_eq!(ordered(&windows, "03:00:01"), ["shop/web-1", "shop/web-2"]);
        assert_eq!(ordered(&windows, "02:30:00"), Vec::<String>::new(), "the clock was set back");
        assert_eq!(ordered(&windows, "03:30:00"), Vec::<String>::new());
        assert_eq!(ordered(&windows, "06:00:00"), Vec::<String>::new());
        let tomorrow = at("02:00:00") + 24 * 3_600_000;
        assert_eq!(windows.due(tomorrow).len(), 1);
    }

    #[test]
    fn what_the_journal_did_not_take_is_tried_again() {
        let (windows, _) = windows(at("01:00:00"));
        let due = windows.due(at("02:10:00"));
        windows.done(&due[0], false);
        assert_eq!(ordered(&windows, "02:10:01"), ["shop"]);
    }

    #[test]
    fn an_engine_that_begins_within_a_window_knows_it_from_the_first_probe() {
        let (windows, shop) = windows(at("01:00:00"));
        assert_eq!(windows.now(&shop.name, at("01:59:59")), []);
        assert_eq!(windows.now(&shop.name, at("02:59:59")), [None]);
        let web = [Some(AssemblyIndex(0)), Some(AssemblyIndex(1))];
        assert_eq!(windows.now(&shop.name, at("04:30:00")), web);
        windows.remove(&shop.name);
        assert_eq!(windows.now(&shop.name, at("04:30:00")), []);
    }
}
