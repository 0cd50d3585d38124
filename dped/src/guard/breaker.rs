//! A hold of one failure domain, or of the fleet, from its opening to its end: hold, perhaps one action at what its
//! members share (`evacuation.rs`), slow start of 1, 2, 4 ... verified repairs, and
//! exhausted when the first of them fails. What opens it is decided in `holds.rs`.

use std::collections::BTreeMap;

use cpe_proto::id::{ActionId, Name};
use cpe_proto::time::Timestamp;

use super::GuardSettings;
use super::evacuation::Evacuation;
use super::population::Key;

/// One admitted repair that is not verified yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    pub(super) action: ActionId,
    pub(super) admitted: Timestamp,
    pub(super) released: Option<Timestamp>,
}

/// How far a hold is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing is done until then.
    Hold { until: Timestamp },
    /// So many at a time.
    SlowStart(SlowStart),
    /// Before the slow start: the one action at what its members share.
    Evacuation(Evacuation),
    /// A repair failed: the next slow start is then.
    Exhausted { until: Timestamp },
}

#[derive(Debug)]
pub(super) struct SlowStart {
    pub(super) width: usize,
    pub(super) verified: usize,
    pub(super) trials: BTreeMap<Key, Trial>,
    /// When somebody asked last.
    pub(super) asked: Timestamp,
}

impl SlowStart {
    fn new(now: Timestamp) -> Self {
        Self { width: 1, verified: 0, trials: BTreeMap::new(), asked: now }
    }
}

/// What a breaker answers who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// There is room: so many are out of so many.
    Yes(usize, usize),
    /// All of this step are out.
    Full(usize, usize),
    /// Nothing is admitted until then.
    Closed(Timestamp),
}

#[derive(Debug)]
pub(super) struct Breaker {
    pub(super) phase: Phase,
    /// The shared point was considered: there is no second time in one hold.
    pub(super) considered: bool,
}

impl Breaker {
    pub(super) fn open(now: Timestamp, settings: &GuardSettings) -> Self {
        Self { phase: Phase::Hold { until: now.after(settings.hold) }, considered: false }
    }

    /// Whether its members are not even judged.
    pub(super) fn holds(&self) -> bool {
        match &self.phase {
            Phase::SlowStart(_) => false,
            Phase::Evacuation(evacuation) => evacuation.holds(),
            Phase::Hold { .. } | Phase::Exhausted { .. } => true,
        }
    }

    pub(super) fn slow_start(&mut self, now: Timestamp) {
        self.phase = Phase::SlowStart(SlowStart::new(now));
    }

    pub(super) fn exhaust(&mut self, now: Timestamp, settings: &GuardSettings) {
        self.phase = Phase::Exhausted { until: now.after(settings.retry_after) };
    }

    /// When a hold or an exhaustion is over.
    pub(super) const fn until(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Hold { until }
            | Phase::Exhausted { until }
            | Phase::Evacuation(Evacuation { until, .. }) => Some(*until),
            Phase::SlowStart(_) => None,
        }
    }

    pub(super) fn room(&self) -> Room {
        match &self.phase {
            Phase::Hold { until }
            | Phase::Exhausted { until }
            | Phase::Evacuation(Evacuation { until, .. }) => Room::Closed(*until),
            Phase::SlowStart(start) => {
                let used = start.trials.len() + start.verified;
                if used < start.width { Room::Yes(used, start.width) } else { Room::Full(used, start.width) }
            }
        }
    }

    /// Somebody wants a repair. True: the same member's repair is still unverified, so that one has failed.
    pub(super) fn wants(&mut self, key: &Key, now: Timestamp) -> bool {
        let Phase::SlowStart(start) = &mut self.phase else { return false };
        start.asked = now;
        start.trials.contains_key(key)
    }

    pub(super) fn admit(&mut self, key: &Key, action: ActionId, now: Timestamp) {
        if let Phase::SlowStart(start) = &mut self.phase {
            start.trials.insert(key.clone(), Trial { action, admitted: now, released: None });
        }
    }

    pub(super) fn release(&mut self, deployable: &Name, action: ActionId, now: Timestamp) {
        let Phase::SlowStart(start) = &mut self.phase else { return };
        let its =
            start.trials.iter_mut().filter(|((name, _), trial)| name == deployable && trial.action == action);
        for (_, trial) in its {
            trial.released.get_or_insert(now);
        }
    }

    /// A member is healthy again. Another size of step when all of this one are verified.
    pub(super) fn verified(&mut self, key: &Key) -> Option<usize> {
        let Phase::SlowStart(start) = &mut self.phase else { return None };
        start.trials.remove(key)?;
        start.verified += 1;
        if start.verified < start.width {
            return None;
        }
        (start.width, start.verified) = (start.width.saturating_mul(2), 0);
        Some(start.width)
    }

    pub(super) fn has_trial(&self, key: &Key) -> bool {
        matches!(&self.phase, Phase::SlowStart(start) if start.trials.contains_key(key))
    }

    pub(super) fn forget(&mut self, key: &Key) {
        if let Phase::SlowStart(start) = &mut self.phase {
            start.trials.remove(key);
        }
    }

    /// A repair whose verification is overdue.
    pub(super) fn overdue(&self, now: Timestamp, settings: &GuardSettings) -> Option<&Key> {
        let Phase::SlowStart(start) = &self.phase else { return None };
        let late = |trial: &Trial| match trial.released {
            Some(released) => now.since(released) > settings.verified_within,
            None => now.since(trial.admitted) > settings.lease,
        };
        start.trials.iter().find(|(_, trial)| late(trial)).map(|(key, _)| key)
    }

    /// Whether nobody has wanted anything for long.
    pub(super) fn quiet(&self, now: Timestamp, settings: &GuardSettings) -> bool {
        let Phase::SlowStart(start) = &self.phase else { return false };
        start.trials.is_empty() && now.since(start.asked) >= settings.quiet
    }
}
