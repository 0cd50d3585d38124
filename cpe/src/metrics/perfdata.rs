//! What monitoring plugins measure, as one metric. Its labels are the only ones with names of users, so their number is bounded: for
//! each service by the reader (`cpe_monitor::perfdata`), in all here. What does not fit is counted, and what grows old is dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cpe_monitor::perfdata::Measure;
use cpe_proto::id::Name;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// The most series of one controller.
const SERIES_MAX: usize = 10_000;

/// Figures that were not measured again for this long are none any more: the longest interval of a probe is an hour, the usual one seconds.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// Which service: deployable, assembly, service.
pub type Place = (Name, Name, Name);

/// The newest figures of each service that has some.
#[derive(Debug, Default)]
pub(super) struct Perfdata(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    services: BTreeMap<Place, (Instant, Vec<Measure>)>,
    series: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    deployable: String,
    assembly: String,
    service: String,
    label: String,
    unit: String,
}

impl Perfdata {
    /// Takes what a service's plugin measured, in place of what it measured before. How many figures found no room.
    #[must_use]
    pub(super) fn record(&self, place: Place, mut measures: Vec<Measure>, now: Instant) -> usize {
        let mut book = self.book();
        if measures.is_empty() && !book.services.contains_key(&place) {
            return 0;
        }
        if book.series.saturating_add(measures.len()) > SERIES_MAX {
            book.forget(|_, measured| now.saturating_duration_since(measured) > KEPT);
        }
        book.forget(|known, _| *known == place);
        let room = SERIES_MAX.saturating_sub(book.series).min(measures.len());
        let dropped = measures.len() - room;
        measures.truncate(room);
        if !measures.is_empty() {
            book.series += room;
            book.services.insert(place, (now, measures));
        }
        dropped
    }

    /// A deployable is not managed any more, or not as it was.
    pub(super) fn forget(&self, deployable: &Name) {
        self.book().forget(|(known, ..), _| known == deployable);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn forget(&mut self, goes: impl Fn(&Place, Instant) -> bool) {
        self.services.retain(|place, (measured, _)| !goes(place, *measured));
        self.series = self.services.values().map(|(_, measures)| measures.len()).sum();
    }
}

impl Collector for Perfdata {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let now = Instant::now();
        let mut book = self.book();
        book.forget(|_, measured| now.saturating_duration_since(measured) > KEPT);
        let help = "What monitoring plugins measured last, in their own units";
        let mut family = encoder.encode_descriptor("cpe_perfdata", help, None, MetricType::Gauge)?;
        for ((deployable, assembly, service), (_, measures)) in &book.services {
            for measure in measures {
                let labels = Labels {
                    deployable: deployable.to_string(),
                    assembly: assembly.to_string(),
                    service: service.to_string(),
                    label: measure.label.clone(),
                    unit: measure.unit.clone(),
                };
                ConstGauge::new(measure.value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(service: &str) -> Place {
        let name = |text| Name::parse(text).unwrap();
        (name("shop"), name("web"), name(service))
    }

    fn measures(count: usize) -> Vec<Measure> {
        let one = |number| Measure { label: format!("a{number}"), value: 1.0, unit: String::new() };
        (0..count).map(one).collect()
    }

    #[test]
    fn series_are_bounded_in_all_and_come_back_when_there_is_room() {
        let (book, now) = (Perfdata::default(), Instant::now());
        assert_eq!(book.record(place("a"), measures(SERIES_MAX), now), 0);
        assert_eq!(book.record(place("b"), measures(3), now), 3);
        assert_eq!(book.record(place("a"), measures(SERIES_MAX - 2), now), 0, "in place of those before");
        assert_eq!(book.record(place("b"), measures(3), now), 1);
        assert_eq!(book.record(place("c"), measures(1), now + KEPT * 2), 0, "what is old makes room");
        book.forget(&Name::parse("shop").unwrap());
        assert_eq!(book.book().series, 0);
    }

    #[test]
    fn a_plugin_that_measures_nothing_any_more_leaves_nothing() {
        let (book, now) = (Perfdata::default(), Instant::now());
        assert_eq!(book.record(place("a"), measures(3), now), 0);
        assert_eq!(book.record(place("a"), Vec::new(), now), 0);
        assert!(book.book().services.is_empty());
        assert_eq!(book.book().series, 0);
    }
}
