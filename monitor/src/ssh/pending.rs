//! The probes that were asked and not yet answered. Each leaves this list with its answer: that is what makes it exactly one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cpe_proto::id::ProbeId;
use cpe_proto::observation::Observation;

use super::settings::{Answer, Answers, Probe, ProbeRequest};
use crate::perfdata::Measure;

/// Probes of one session that wait at one time; what comes on top is refused.
pub(super) const PENDING_MAX: usize = 1024;

/// One probe that waits.
pub(super) struct Pending {
    /// Its number in this session: the caller's own need not be unique.
    pub(super) key: u32,
    probe: ProbeId,
    pub(super) what: Probe,
    asked: Instant,
    pub(super) deadline: Instant,
    pub(super) stage: Stage,
    /// Whether it was sent over a session that was then lost. A channel probe is sent anew once.
    pub(super) resent: bool,
}

/// Where a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits for the session.
    Waiting,
    /// It is the `slot`-th thing asked by the line `line` of the resident shell, in the batch that `batch` opened.
    Asked {
        /// The line's ID.
        line: u32,
        /// Which of the line's things.
        slot: u16,
        /// The ID of the `a` line before it.
        batch: u32,
    },
    /// It goes over a channel of its own; `batch` as above, 0 without a resident shell.
    Alone {
        /// The ID of the `a` line before it.
        batch: u32,
    },
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) observation: Observation,
    pub(super) measures: Vec<Measure>,
    pub(super) dropped: u32,
}

impl From<Observation> for Seen {
    fn from(observation: Observation) -> Self {
        Self { observation, measures: Vec::new(), dropped: 0 }
    }
}

/// All that wait, and where the answers go.
pub(super) struct Waiting {
    list: Vec<Pending>,
    answers: Arc<Answers>,
    next_key: u32,
}

impl Waiting {
    pub(super) fn new(answers: Arc<Answers>) -> Self {
        Self { list: Vec::new(), answers, next_key: 0 }
    }

    /// Takes a batch on; gives back what is too much.
    pub(super) fn add(&mut self, mut batch: Vec<ProbeRequest>, asked: Instant) -> Vec<ProbeRequest> {
        let room = PENDING_MAX.saturating_sub(self.list.len()).min(batch.len());
        let too_much = batch.split_off(room);
        for request in batch {
            self.next_key = self.next_key.wrapping_add(1);
            let deadline = asked + request.timeout.min(Duration::from_secs(3600));
            let (probe, what) = (request.probe, request.what);
            let key = self.next_key;
            self.list.push(Pending {
                key,
                probe,
                what,
                asked,
                deadline,
                stage: Stage::Waiting,
                resent: false,
            });
        }
        too_much
    }

    /// The earliest deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.list.iter().map(|pending| pending.deadline).min()
    }

    /// Those that wait, to be changed in place.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.list.iter_mut()
    }

    /// Whether a channel probe waits: the only reason to connect.
    pub(super) fn wants_channel(&self) -> bool {
        self.list.iter().any(|pending| pending.what == Probe::Channel)
    }

    /// When the latest of the channel probes that are due was asked.
    pub(super) fn channel_due(&self, now: Instant) -> Option<Instant> {
        let due =
            self.list.iter().filter(|pending| pending.what == Probe::Channel && pending.deadline <= now);
        due.map(|pending| pending.asked).max()
    }

    /// Answers each for which `verdict` has something to say.
    pub(super) fn answer(&mut self, mut verdict: impl FnMut(&Pending) -> Option<Observation>) {
        self.answer_measured(|pending| Some(Seen::from(verdict(pending)?)));
    }

    /// The same, with what was measured.
    pub(super) fn answer_measured(&mut self, mut verdict: impl FnMut(&Pending) -> Option<Seen>) {
        let answers = &self.answers;
        let now = Instant::now();
        self.list.retain(|pending| {
            let Some(Seen { observation, measures, dropped }) = verdict(pending) else { return true };
            let lag = match observation {
                Observation::DeadlinePassed | Observation::NotObserved | Observation::Channel(..) => {
                    now.saturating_duration_since(pending.deadline)
                }
                _ => Duration::ZERO,
            };
            let Pending { probe, asked, .. } = *pending;
            answers(Answer { probe, observation, measures, dropped, asked, finished: now, lag });
            false
        });
        if self.list.is_empty() && self.list.capacity() > 16 {
            self.list = Vec::new();
        }
    }
}
