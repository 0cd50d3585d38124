//! Rule 1, its second half: while a deployable recovers as a whole, nothing else of it is recovered. It does from when that is said to have
//! begun until its end is told, its incident is closed, or the deployable is defined anew (then nobody goes on with it, or tells its end).

use std::collections::BTreeMap;

use cpe_proto::event::{EventKind, EventRecord};
use cpe_proto::id::{ActionId, IncidentId, Name};
use cpe_proto::rung::Rung;

use super::{ActionKey, Auditor, Finding, SAME_TIME, of_event, of_intent};

/// The newest recovery of each deployable as a whole.
#[derive(Debug, Default)]
pub(super) struct Wholes(BTreeMap<Name, Whole>);

#[derive(Debug)]
struct Whole {
    action: ActionId,
    incident: Option<IncidentId>,
    seq: u64,
    began: u64,
    ended: Option<u64>,
}

impl Wholes {
    pub(super) fn told(&mut self, deployable: &Name, record: &EventRecord) {
        let event = &record.event;
        match (event.kind, event.action) {
            (EventKind::RecoveryStarted, Some(action)) if event.rung >= Some(Rung::RestartDeployable) => {
                let (seq, began) = (record.seq, record.time);
                let whole = Whole { action, incident: event.incident, seq, began, ended: None };
                self.0.insert(deployable.clone(), whole);
            }
            (EventKind::RecoveryFinished, Some(action)) => {
                self.end(deployable, record.time, |it| it.action == action);
            }
            (EventKind::DefinitionLoaded, _) => self.end(deployable, record.time, |_| true),
            _ => {}
        }
    }

    pub(super) fn closed(&mut self, deployable: &Name, incident: IncidentId, time: u64) {
        self.end(deployable, time, |it| it.incident == Some(incident));
    }

    fn end(&mut self, deployable: &Name, time: u64, which: impl Fn(&Whole) -> bool) {
        if let Some(whole) = self.0.get_mut(deployable).filter(|it| it.ended.is_none() && which(it)) {
            whole.ended = Some(time);
        }
    }
}

impl Auditor {
    /// A recovery that was begun at that time, and is not the whole's own.
    pub(super) fn while_whole(&self, key: &ActionKey, began: u64, what: &str) -> Option<Finding> {
        let whole = self.wholes.0.get(&key.0).filter(|it| it.action != key.1)?;
        let after = whole.began + SAME_TIME < began;
        let before = whole.ended.is_none_or(|ended| began + SAME_TIME < ended);
        if !after || !before {
            return None;
        }
        let what = format!("{what} of {} was begun while it recovered as a whole", key.0);
        Some(Finding::new(1, what, vec![of_event(whole.seq), of_intent(key)]))
    }
}
