//! Whether the controller may trust itself (policy.md section 6): its own lag, gaps between its ticks, and for each network path a
//! majority of the path's canaries. What is not known is not trusted: before the first answers, and after a gap, there is none to rest on.

use std::collections::BTreeMap;
use std::time::Duration;

use cpe_proto::time::Timestamp;

use super::GuardSettings;
use crate::describe::span;

/// Most canaries of a path; more would prove no more.
const CANARIES_MAX: usize = 64;

/// Most paths with canaries: each is an entry of the configuration, and there are few.
const PATHS_MAX: usize = 1024;

/// The newest result of one canary: whether it answered, and when.
type Result = Option<(bool, Timestamp)>;

#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Of the latest tick; none: nobody ticks yet.
    ticked: Option<Timestamp>,
    /// Not trusted until then, and why.
    settles: Option<(Timestamp, &'static str)>,
    canaries: BTreeMap<Box<str>, Vec<Result>>,
}

impl Trust {
    pub(super) fn expect(&mut self, path: &str, canaries: usize) {
        if self.canaries.len() < PATHS_MAX || self.canaries.contains_key(path) {
            self.canaries.insert(path.into(), vec![None; canaries.min(CANARIES_MAX)]);
        }
    }

    /// Results of canaries that nobody announced say nothing.
    pub(super) fn canary(&mut self, path: &str, index: usize, answered: bool, now: Timestamp) {
        if let Some(result) = self.canaries.get_mut(path).and_then(|canaries| canaries.get_mut(index)) {
            *result = Some((answered, now));
        }
    }

    pub(super) fn late(&mut self, now: Timestamp, settings: &GuardSettings) {
        self.settle(now.after(settings.late_settle), "late above the budget");
    }

    /// A tick. After a gap everything that was known of ourselves is void.
    pub(super) fn tick(&mut self, now: Timestamp, settings: &GuardSettings) {
        if self.stands_still(now, settings) {
            for result in self.canaries.values_mut().flatten() {
                *result = None;
            }
            self.settle(now.after(settings.gap), "stood still");
        }
        self.ticked = Some(now);
    }

    fn settle(&mut self, until: Timestamp, why: &'static str) {
        if self.settles.is_none_or(|(known, _)| known < until) {
            self.settles = Some((until, why));
        }
    }

    fn stands_still(&self, now: Timestamp, settings: &GuardSettings) -> bool {
        self.ticked.is_some_and(|ticked| now.since(ticked) > settings.gap)
    }

    /// Whether it trusts itself whatever the path, with why as a clause.
    pub(super) fn own(&self, now: Timestamp, settings: &GuardSettings) -> std::result::Result<(), String> {
        if self.stands_still(now, settings) {
            return Err(format!("no tick for more than {}", span(settings.gap)));
        }
        match self.settles {
            Some((until, why)) if now < until => {
                Err(format!("{why}, trusted again in {}", span(until.since(now))))
            }
            _ => Ok(()),
        }
    }

    /// Whether it trusts itself on that path, with why as a clause.
    ///
    /// A lone failing canary is its own fault, so one alone can prove a path but never disprove it.
    pub(super) fn on_path(
        &self,
        path: &str,
        now: Timestamp,
        settings: &GuardSettings,
    ) -> std::result::Result<String, String> {
        self.own(now, settings)?;
        let Some(canaries) = self.canaries.get(path).filter(|canaries| !canaries.is_empty()) else {
            return Ok("trusted, no canaries: peers prove the path".to_owned());
        };
        let (all, answer) = (canaries.len(), canaries.iter().filter(|it| answers(it, now, settings)).count());
        let said = format!("{answer} of {all} canaries of path {path} answer");
        if all - answer <= 1 || 2 * answer > all { Ok(format!("trusted, {said}")) } else { Err(said) }
    }

    /// How long ago a canary of that path answered last, and which.
    pub(super) fn answered(
        &self,
        path: &str,
        now: Timestamp,
        settings: &GuardSettings,
    ) -> Option<(Duration, usize)> {
        let canaries = self.canaries.get(path)?.iter().enumerate();
        let fresh = canaries.filter(|(_, result)| answers(result, now, settings));
        fresh.filter_map(|(index, result)| result.map(|(_, at)| (now.since(at), index))).min()
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.canaries.keys().map(|path| &**path)
    }
}

fn answers(result: &Result, now: Timestamp, settings: &GuardSettings) -> bool {
    result.is_some_and(|(answered, at)| answered && now.since(at) <= settings.canary_fresh)
}
