//! When recovery was held back, in maintenance, by a pause or by another controller: from the event (then its engine knew) to its event or order, whichever is
//! first.

use std::collections::{BTreeMap, BTreeSet};

use cpe_proto::event::{EventKind, EventRecord};
use cpe_proto::id::Name;

use super::SAME_TIME;
use super::record::{Hold, HoldKind};

type Key = (HoldKind, String);

#[derive(Debug, Default)]
pub(super) struct Holds {
    /// In the order of their times; they do not overlap.
    spans: BTreeMap<Key, Vec<Span>>,
    /// When an end was ordered.
    ends: BTreeMap<Key, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Span {
    from: u64,
    to: Option<u64>,
    /// Its end was told.
    over: bool,
}

impl Holds {
    /// An operator ordered it, or the end of it.
    pub(super) fn ordered(&mut self, hold: &Hold) {
        if hold.began {
            return;
        }
        let key = (hold.kind, hold.name.clone());
        if let Some(span) = self.spans.get_mut(&key).and_then(|all| all.last_mut())
            && !span.over
            && span.from <= hold.time
        {
            span.to = Some(span.to.map_or(hold.time, |to| to.min(hold.time)));
        }
        self.ends.entry(key).or_default().insert(hold.time);
    }

    /// An event, which may tell that a hold began or ended.
    pub(super) fn told(&mut self, record: &EventRecord) {
        if let (EventKind::DefinitionLoaded, Some(deployable)) = (record.event.kind, &record.deployable)
            && record.event.reason.starts_with("removed")
        {
            return self.forget_owners(deployable, record.time);
        }
        let Some((kind, began)) = hold_of(record) else { return };
        let name = if record.deployable.is_some() { record.subject() } else { String::new() };
        let key = (kind, name);
        let ends = self.ends.get(&key);
        let open = self.spans.entry(key.clone()).or_default();
        let last = open.last_mut().filter(|span| !span.over);
        match last {
            Some(span) if !began => {
                span.to = Some(span.to.map_or(record.time, |to| to.min(record.time)));
                span.over = true;
            }
            // Told again, as after a restart: it goes on, unless its end was ordered and only not told.
            Some(span) if span.to.is_none_or(|to| to >= record.time) => {}
            _ if began => {
                let to = ends.and_then(|ends| ends.range(record.time..).next().copied());
                open.push(Span { from: record.time, to, over: false });
            }
            _ => {}
        }
    }

    /// Nobody looks any more at what is managed no more.
    fn forget_owners(&mut self, deployable: &Name, time: u64) {
        let of = format!("{deployable}/");
        let foreign = self
            .spans
            .iter_mut()
            .filter(|((kind, name), _)| *kind == HoldKind::Foreign && name.starts_with(&of));
        for span in foreign.filter_map(|(_, all)| all.last_mut()).filter(|span| !span.over) {
            (span.to, span.over) = (Some(time), true);
        }
    }

    /// What held an assembly, or a service of it, back at that time, beyond doubt: the name that was held, empty for everything.
    pub(super) fn over(
        &self,
        deployable: &Name,
        assembly: &Name,
        service: Option<&Name>,
        time: u64,
    ) -> Option<(HoldKind, String)> {
        let names = [String::new(), deployable.to_string(), format!("{deployable}/{assembly}")];
        let service = service.map(|service| format!("{deployable}/{assembly}/{service}"));
        let kinds = [HoldKind::Maintenance, HoldKind::Pause, HoldKind::Foreign];
        let keys = names.into_iter().chain(service).flat_map(|name| kinds.map(|kind| (kind, name.clone())));
        keys.into_iter().find(|key| {
            let spans = self.spans.get(key).map_or(&[][..], |it| it);
            let before = spans.partition_point(|span| span.from + SAME_TIME < time);
            let span = before.checked_sub(1).and_then(|last| spans.get(last));
            span.is_some_and(|span| span.to.is_none_or(|to| time + SAME_TIME < to))
        })
    }
}

/// Whether an event begins (true) or ends (false) a hold, in the words of the engines and of the controller.
fn hold_of(record: &EventRecord) -> Option<(HoldKind, bool)> {
    let reason = &*record.event.reason;
    let word = reason.split(':').next().unwrap_or_default();
    match (record.event.kind, word) {
        (EventKind::MaintenanceChanged, "on") => Some((HoldKind::Maintenance, true)),
        (EventKind::MaintenanceChanged, "off") => Some((HoldKind::Maintenance, false)),
        (EventKind::BreakerChanged, "paused") => Some((HoldKind::Pause, true)),
        (EventKind::BreakerChanged, "resumed") => Some((HoldKind::Pause, false)),
        (EventKind::OwnerChanged, "foreign") => Some((HoldKind::Foreign, true)),
        (EventKind::OwnerChanged, "ours") => Some((HoldKind::Foreign, false)),
        _ => None,
    }
}
