//! What an engine remembers of each assembly and service. What is healthy is small; whatever only trouble needs is boxed and goes
//! away with it, because thousands of engines share one process and nearly all of them are healthy.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::decision::{Decision, Refusal, Verdict};
use cpe_proto::definition::ProbeSettings;
use cpe_proto::id::{ActionId, IncidentId, Name, ProbeId, ServiceIndex};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::{MadeOf, Stage};
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::astray::Astray;
use crate::health::ChannelHealth;
use crate::input::{ByHand, Surroundings};
use crate::ladder::Ladder;
use crate::output::Act;
use crate::power::Power;
use crate::setup::Setup;
use crate::warning::Warning;

/// One target's probes: at most one in flight.
#[derive(Clone, Debug)]
pub(crate) struct Poll {
    /// When the next one is due.
    pub(crate) due: Timestamp,
    /// When the last one began.
    pub(crate) began: Timestamp,
    /// The one in flight.
    pub(crate) flight: Option<NonZeroU64>,
}

impl Poll {
    pub(crate) const fn due_at(due: Timestamp) -> Self {
        Self { due, began: Timestamp::ZERO, flight: None }
    }

    /// The one in flight ended: next due at max(start + interval, end), or before that when its assembly's next turn is: what has one
    /// interval is then due together, and is asked in one round trip. Intervals that are multiples of each other meet.
    pub(crate) fn ended(&mut self, now: Timestamp, interval: Duration, phase: Timestamp) {
        self.flight = None;
        let latest = self.began.after(interval);
        self.due = latest.before(beyond_turn(latest, interval, phase)).max(now);
    }

    /// A recovery is verified at the pace of confirmations, not in turns.
    pub(crate) fn confirms(&mut self, settings: &ProbeSettings, now: Timestamp) {
        self.due = self.began.after(settings.confirm_interval.min(settings.interval)).max(now);
    }

    /// Not later than now, as soon as none is in flight.
    pub(crate) fn hasten(&mut self, now: Timestamp) {
        self.due = self.due.min(now);
    }
}

/// How far a time lies beyond the newest turn: turns lie whole intervals away from the phase, before it and after it.
fn beyond_turn(at: Timestamp, interval: Duration, phase: Timestamp) -> Duration {
    let step = interval.as_micros().max(1);
    let beyond = if at >= phase {
        at.since(phase).as_micros() % step
    } else {
        (step - phase.since(at).as_micros() % step) % step
    };
    Duration::from_micros(u64::try_from(beyond).unwrap_or(0))
}

pub(crate) fn probe_id(number: NonZeroU64) -> ProbeId {
    ProbeId(number.get())
}

/// One service.
#[derive(Clone, Debug)]
pub(crate) struct ServicePart {
    pub(crate) state: State,
    /// Failed probes in a row.
    pub(crate) misses: u8,
    /// Probes in a row that did not end by their deadline, over a healthy channel.
    pub(crate) deadlines: u8,
    pub(crate) since: Timestamp,
    /// When the newest probe that passed began; zero: none since evidence was dropped.
    pub(crate) passed: Timestamp,
    pub(crate) poll: Poll,
    /// What it was set up with, where that can change.
    pub(crate) setup: Option<Box<Setup>>,
    /// It passes, and says that a person should look at it.
    pub(crate) warning: Option<Box<Warning>>,
    /// All that a healthy service without a past does not need.
    pub(crate) trouble: Option<Box<ServiceTrouble>>,
}

/// Where a service stands in an ordered start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Start {
    /// Not being started.
    #[default]
    No,
    /// To be probed, and started if it does not run.
    Wanted,
    /// Started, or nothing more can be done for it: within its grace not having been healthy is no fault.
    Begun,
    /// To be stopped, while its deployable recovers as a whole.
    ToStop,
    /// Stopped, until its deployable has recovered as a whole.
    Held,
    /// Stopped for a recovery that came to nothing: to be started again, whatever it depends on.
    Again,
}

/// A service that is not healthy, or was not for as long as its counts have not decayed.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceTrouble {
    /// One clause: what the newest evidence says.
    pub(crate) reason: Box<str>,
    pub(crate) waits: Option<Waits>,
    pub(crate) incident: Option<IncidentId>,
    /// The first failed probe of this fault.
    pub(crate) first_failed: Option<Timestamp>,
    /// The newest failed probe.
    pub(crate) last_failed: Option<Timestamp>,
    /// When the newest probe that ended without a pass began.
    pub(crate) heard: Option<Timestamp>,
    pub(crate) pending_since: Option<Timestamp>,
    /// The newest failed probe had this to say; how many confirmed it.
    pub(crate) confirmed_by: u8,
    /// As many failed as are enough.
    pub(crate) confirmed: bool,
    pub(crate) demand: Demand,
    /// Do not try before.
    pub(crate) wait_until: Option<Timestamp>,
    pub(crate) ladder: Ladder,
    pub(crate) refused: Option<Standing>,
    /// Passed without a break since.
    pub(crate) passing_since: Option<Timestamp>,
    pub(crate) start: Start,
    /// Not having been healthy is no fault before that.
    pub(crate) grace_until: Option<Timestamp>,
    /// Attempts of a stop that failed.
    pub(crate) stops_failed: u8,
    /// "failure 1 of 5 in 1 h" of the failure that the demand is for.
    pub(crate) counted: Box<str>,
    /// The misconfiguration that a person was told of.
    pub(crate) told: Option<Box<str>>,
}

/// What a fault asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Demand {
    /// Nothing.
    #[default]
    Nothing,
    /// A confirmed fault that is not counted yet: it is when recovery is allowed.
    Fault,
    /// Counted: an attempt of the current rung.
    Attempt,
}

/// What is refused on and on, be it for one reason or for several in turn: each is told once, then counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// The refusals that were given, as bits by their order.
    given: u16,
    /// How often it was refused.
    pub(crate) times: u32,
    since: Timestamp,
    /// A person was told.
    told: bool,
}

impl Standing {
    pub(crate) const fn new(now: Timestamp) -> Self {
        Self { given: 0, times: 0, since: now, told: false }
    }

    /// It is refused once more. Whether it was for this reason before, and, once, whether a person must know of it by now. What an
    /// operator ordered himself is not told to him, nor that a dated retry waits: that it is exhausted was told.
    pub(crate) fn again(
        &mut self,
        refusal: Refusal,
        exhausted: bool,
        patience: Duration,
        now: Timestamp,
    ) -> (bool, bool) {
        self.times = self.times.saturating_add(1);
        let bit = 1 << refusal as u16;
        let known = self.given & bit != 0;
        self.given |= bit;
        let ordered = matches!(refusal, Refusal::Maintenance | Refusal::Paused | Refusal::ObserveMode);
        let no_news = ordered || exhausted;
        if no_news {
            (self.since, self.told) = (now, false);
        }
        let tells = !no_news && now.since(self.since) >= patience && !self.told;
        self.told |= tells;
        (known, tells)
    }
}

/// One assembly.
#[derive(Clone, Debug)]
pub(crate) struct AssemblyPart {
    pub(crate) state: State,
    pub(crate) maintenance: bool,
    pub(crate) channel: ChannelHealth,
    /// How the newest probe of the channel failed.
    pub(crate) failure: ChannelFailure,
    pub(crate) misses: u8,
    pub(crate) since: Timestamp,
    /// When the newest channel probe that was answered began; zero: none since evidence was dropped.
    pub(crate) answered: Timestamp,
    /// Probes that began before are void: they saw the machine before its recovery.
    pub(crate) void_before: Timestamp,
    /// Not having been healthy is no fault before that.
    pub(crate) grace_until: Timestamp,
    pub(crate) poll: Poll,
    /// Its turns lie whole intervals away from this.
    pub(crate) phase: Timestamp,
    /// Where the infrastructure says that it is reached.
    pub(crate) address: Option<Arc<str>>,
    /// The infrastructure has said another address before.
    pub(crate) moved: bool,
    /// The other controller whose mark it bears, as the newest look that said something of that has it.
    pub(crate) foreign: Option<Arc<str>>,
    /// It has borne another's mark, and does not any more.
    pub(crate) given_back: bool,
    /// The zone that its newest instance was made in, if that is another than its definition's.
    pub(crate) zone: Option<Name>,
    pub(crate) trouble: Option<Box<AssemblyTrouble>>,
    pub(crate) recovery: Option<Box<Recovery>>,
    pub(crate) step: Option<Box<Step>>,
    /// Actions on its machine that may still be done, oldest first.
    pub(crate) astray: Vec<Astray>,
    /// Where its power stands, since it was ordered off and until it is on again.
    pub(crate) power: Option<Box<Power>>,
    /// What its instance was made of, where the definition says otherwise by now.
    pub(crate) made_of: Option<Box<MadeOf>>,
    /// A recovery by hand that is not answered yet.
    pub(crate) by_hand: Option<Box<Ordered>>,
}

/// A recovery by hand, until it is answered.
#[derive(Clone, Debug)]
pub(crate) struct Ordered {
    pub(crate) wanted: ByHand,
    /// Without fresh answers about the machine by then it is refused.
    pub(crate) until: Timestamp,
    /// The gate was asked.
    pub(crate) action: Option<ActionId>,
    /// Its incident was opened by it, and not by a fault.
    pub(crate) opened: bool,
}

/// Why the assembly scope has a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// Its channel is dead.
    #[default]
    Channel,
    /// The ladder of one of its services ended.
    Escalated(ServiceIndex),
}

/// An assembly that is not healthy, or was not for as long as its counts have not decayed.
/// A wait for something else, which no action here could mend.
#[derive(Clone, Debug)]
pub(crate) struct Waits {
    /// For what, as a clause.
    pub(crate) why: Box<str>,
    /// When a person is told of it; none: they were, or it is told by something else.
    pub(crate) say_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct AssemblyTrouble {
    pub(crate) reason: Box<str>,
    pub(crate) waits: Option<Waits>,
    pub(crate) incident: Option<IncidentId>,
    pub(crate) first_failed: Option<Timestamp>,
    pub(crate) last_failed: Option<Timestamp>,
    pub(crate) verdict: Option<(Verdict, u8)>,
    pub(crate) verdict_since: Timestamp,
    /// The verdict asked for the ladder.
    pub(crate) wanted: bool,
    /// When the first failed probe of the channel ended.
    pub(crate) first_ended: Option<Timestamp>,
    /// Another one on the path answered then, after this channel's first failed probe had ended.
    pub(crate) path_answered: Option<Timestamp>,
    /// Probes of this channel that began after that and failed.
    pub(crate) failed_on_path: u8,
    /// When the channel was confirmed dead.
    pub(crate) dead_since: Option<Timestamp>,
    pub(crate) instance: Option<Instance>,
    pub(crate) surroundings: Option<(Surroundings, Timestamp)>,
    /// When to ask for both again.
    pub(crate) ask_at: Option<Timestamp>,
    pub(crate) demand: Demand,
    pub(crate) cause: Cause,
    pub(crate) wait_until: Option<Timestamp>,
    pub(crate) ladder: Ladder,
    pub(crate) refused: Option<Standing>,
    /// The channel answered without a break since.
    pub(crate) answering_since: Option<Timestamp>,
    /// It and all its services were healthy without a break since.
    pub(crate) healthy_since: Option<Timestamp>,
    pub(crate) say_at: Option<Timestamp>,
    pub(crate) counted: Box<str>,
    /// A person was told that its own ladder ended, not only that of a service of it.
    pub(crate) told_ended: bool,
    /// The wait before this attempt was set already.
    pub(crate) backed_off: bool,
    /// It is the first failure that counts.
    pub(crate) first: bool,
    /// Made from an image and there is no instance: drift, reported.
    pub(crate) drift: bool,
    /// Who confirmed that the machine is down, and why.
    pub(crate) fenced: Option<Box<str>>,
    /// Its channel's newest probes were not tried.
    pub(crate) untried: Option<Untried>,
    /// The verdict that a person was told of.
    pub(crate) told: Option<Verdict>,
}

/// Probes of a channel in a row that we did not try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Untried {
    pub(crate) since: Timestamp,
    pub(crate) probes: u8,
    /// What was known before is too old.
    pub(crate) lost: bool,
}

impl AssemblyTrouble {
    /// Its incident, which it is no part of any more. Reboots of that one are no reason to replace the machine in the next, also while it
    /// stays open for a service of it.
    pub(crate) fn leave_incident(&mut self) -> Option<IncidentId> {
        self.ladder.rebooted = false;
        self.incident.take()
    }

    /// Nothing is known, because nothing could be tried.
    pub(crate) fn is_lost(&self) -> bool {
        self.untried.is_some_and(|untried| untried.lost)
    }

    /// A probe of the channel was tried again, whatever it saw.
    pub(crate) fn tried(&mut self) {
        if self.untried.take().is_some_and(|untried| untried.lost) && self.verdict.is_none() {
            self.say_at = None;
        }
    }

    pub(crate) const fn forget_path(&mut self) {
        (self.first_ended, self.path_answered, self.failed_on_path) = (None, None, 0);
    }
}

/// The infrastructure's view and when it was given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instance {
    pub(crate) state: InstanceState,
    pub(crate) ordered: bool,
    pub(crate) at: Timestamp,
}

/// The one recovery of an assembly.
#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    pub(crate) action: ActionId,
    pub(crate) rung: Rung,
    /// The service, for the service scope.
    pub(crate) service: Option<ServiceIndex>,
    pub(crate) incident: IncidentId,
    pub(crate) phase: Phase,
    /// Where it stands, if it makes a new instance.
    pub(crate) stage: Option<Stage>,
    /// Its attempt was counted.
    pub(crate) counted: bool,
    /// Maintenance ended while it was under way.
    pub(crate) freed: bool,
    /// When it was given out.
    pub(crate) began: Timestamp,
    /// What will be recorded with the gate's answer.
    pub(crate) decision: Option<Box<Decision>>,
    /// Who ordered it, and why; none: the engine by itself.
    pub(crate) by: Option<Box<str>>,
    /// What it came to, while what was stopped for it is being started again.
    pub(crate) ending: Option<Box<Ending>>,
}

impl Recovery {
    /// Whether it is one of the whole deployable.
    pub(crate) const fn is_whole(&self) -> bool {
        matches!(self.rung, Rung::RestartDeployable | Rung::Relocate)
    }
}

/// What a recovery of the whole deployable came to.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) failed: bool,
    pub(crate) reason: Box<str>,
}

/// Where an admitted or asked-for action stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The gate was asked; asked again after that.
    Asked { until: Timestamp },
    /// Admitted; services elsewhere are stopped for it, at most until that. Nothing was done to its machine.
    Preparing { until: Timestamp },
    /// Given out; unresolved after that.
    Acting { until: Timestamp },
    /// Whether it had an effect is not known: looked at until that.
    Unresolved { until: Timestamp },
    /// Done, and judged by fresh probes until that.
    Verifying { done: Timestamp, until: Timestamp },
    /// It came to nothing, and what was stopped for it is started again, at most until that.
    GivingBack { until: Timestamp },
}

/// One step of an ordered start or stop.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) action: ActionId,
    pub(crate) act: Act,
    pub(crate) service: ServiceIndex,
    pub(crate) phase: Phase,
    /// The recovery of the whole deployable that it belongs to.
    pub(crate) part_of: Option<ActionId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_lie_whole_intervals_away_from_the_phase_before_it_and_after_it() {
        let at = |seconds| Timestamp::from_boot(Duration::from_secs(seconds));
        let beyond = [30, 29, 27, 26, 25, 22, 31, 33, 34, 37]
            .map(|it| beyond_turn(at(it), Duration::from_secs(4), at(30)).as_secs());
        assert_eq!(beyond, [0, 3, 1, 0, 3, 0, 1, 3, 0, 3]);
    }
}
