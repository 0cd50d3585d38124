//! Which rung comes next (policy.md section 3): from the verdict, the counts and what may be done, with every skipped rung and why.
//! Pure. The deployable scope and relocation come only where a definition gives them; no definition can yet, so the ladder of an
//! assembly ends with recreate.

use std::fmt;

use cpe_proto::decision::Verdict;
use cpe_proto::definition::Data;
use cpe_proto::infrastructure::Capabilities;
use cpe_proto::rung::Rung;
use cpe_proto::time::Timestamp;

use crate::replace::makes_disk;
use crate::window::Failures;

/// How far one scope has climbed. Decays only with proven-healthy time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ladder {
    /// The failures that may still count.
    pub failures: Failures,
    /// The rung of the last attempt.
    pub rung: Option<Rung>,
    /// How many attempts of it there were.
    pub attempts: u32,
    /// The window was full: reboots are over.
    pub climbed: bool,
    /// It was full once more after that: what is above reboots had its time.
    pub climbed_again: bool,
    /// A reboot of this incident was done, so that a failure now is one of that reboot.
    pub rebooted: bool,
    /// A rebuild was done.
    pub rebuilt: bool,
    /// A recreate was done.
    pub recreated: bool,
    /// The ladder ended: one lowest-rung attempt every `retry_after`.
    pub given_up: bool,
    /// When the next of these attempts is due.
    pub retry_at: Timestamp,
}

impl Ladder {
    /// How many attempts of that rung there were since another one was taken.
    #[must_use]
    pub fn attempts_of(&self, rung: Rung) -> u32 {
        if self.rung == Some(rung) { self.attempts } else { 0 }
    }

    /// The window was full.
    pub fn climb(&mut self) {
        self.climbed_again |= self.climbed;
        self.climbed = true;
    }

    /// An attempt was begun.
    pub fn attempted(&mut self, rung: Rung) {
        self.attempts = self.attempts_of(rung).saturating_add(1);
        self.rung = Some(rung);
        match rung {
            Rung::RebootSoft | Rung::RebootHard | Rung::Start => self.rebooted = true,
            Rung::Rebuild => self.rebuilt = true,
            Rung::Recreate => self.recreated = true,
            Rung::RestartService | Rung::RestartDeployable | Rung::Relocate => {}
        }
    }
}

/// What bounds the ladder of an assembly.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// The highest rung allowed.
    pub max_rung: Rung,
    /// What its disks hold.
    pub data: Data,
    /// What the adapter can do; none: there is no infrastructure.
    pub capabilities: Option<&'a Capabilities>,
    /// `[escalation]` has a window for the assembly, so that it may climb over reboots.
    pub climbs: bool,
}

/// Why a rung was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Above `max_rung`.
    AboveCap,
    /// Without an infrastructure there is nobody to do it.
    NoInfrastructure,
    /// The adapter cannot do it.
    CannotDo,
    /// It would lose local data.
    LocalData,
    /// A rebuild needs a reboot of this incident that failed.
    NothingMilderFailed,
    /// Once each.
    AlreadyTried,
    /// Without `[escalation]` a scope never climbs.
    NeverClimbs,
}

impl fmt::Display for Skip {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::AboveCap => "above max_rung",
            Self::NoInfrastructure => "no infrastructure",
            Self::CannotDo => "the infrastructure cannot do it",
            Self::LocalData => "would lose local data",
            Self::NothingMilderFailed => "no reboot of this incident failed",
            Self::AlreadyTried => "already tried, once each",
            Self::NeverClimbs => "no [escalation] for the assembly",
        })
    }
}

/// The next rung of an assembly, and what was skipped on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// None: the ladder ends here.
    pub rung: Option<Rung>,
    /// In the ladder's order.
    pub skipped: Vec<(Rung, Skip)>,
}

/// The rung for a failure of the assembly scope. `first` says whether it is the first failure that counts.
#[must_use]
pub fn choose(verdict: &Verdict, first: bool, ladder: &Ladder, bounds: Bounds<'_>) -> Choice {
    let rungs: &[Rung] = match (verdict, ladder.climbed, first) {
        (Verdict::Gone, ..) => &[Rung::Recreate],
        // A rebuild needs a reboot of this incident that failed, so that one comes first also where the count is full already.
        // Where it never came to that, since the fault was over each time before the reboot was due, the ladder ends: a person has to know.
        (_, true, _) if ladder.rebooted || ladder.climbed_again => &[Rung::Rebuild, Rung::Recreate],
        (Verdict::Off, ..) => &[Rung::Start, Rung::RebootHard, Rung::Rebuild, Rung::Recreate],
        (Verdict::Hung, ..) | (_, true, _) | (_, _, false) => {
            &[Rung::RebootHard, Rung::Rebuild, Rung::Recreate]
        }
        _ => &[Rung::RebootSoft, Rung::RebootHard, Rung::Rebuild, Rung::Recreate],
    };
    let mut skipped = Vec::new();
    for rung in rungs {
        match skip(*rung, verdict, ladder, bounds) {
            None => return Choice { rung: Some(*rung), skipped },
            Some(why) => skipped.push((*rung, why)),
        }
    }
    Choice { rung: None, skipped }
}

/// The lowest rung that could help: what an exhausted assembly is retried with. Rebuild and recreate are once each and never retried.
#[must_use]
pub fn lowest(verdict: &Verdict, bounds: Bounds<'_>) -> Choice {
    let fresh = Ladder::default();
    let mut choice = choose(verdict, true, &fresh, bounds);
    choice.rung = choice.rung.filter(|rung| *rung <= Rung::RebootHard);
    choice
}

/// Why a rung that a person orders cannot be done. A person's word stands for evidence and for milder attempts, not for what the
/// definition forbids or nobody can do.
#[must_use]
pub fn forbidden(rung: Rung, bounds: Bounds<'_>) -> Option<Skip> {
    let tried = Ladder { rebooted: true, ..Ladder::default() };
    skip(rung, &Verdict::PerService, &tried, bounds)
}

fn skip(rung: Rung, verdict: &Verdict, ladder: &Ladder, bounds: Bounds<'_>) -> Option<Skip> {
    let replaces = makes_disk(rung);
    let Some(capabilities) = bounds.capabilities else { return Some(Skip::NoInfrastructure) };
    if rung > bounds.max_rung {
        return Some(Skip::AboveCap);
    }
    if replaces && bounds.data == Data::Local {
        return Some(Skip::LocalData);
    }
    if !capabilities.can(rung) {
        return Some(Skip::CannotDo);
    }
    if replaces && ladder.climbed && !bounds.climbs {
        return Some(Skip::NeverClimbs);
    }
    if replaces && !ladder.rebooted && *verdict != Verdict::Gone {
        return Some(Skip::NothingMilderFailed);
    }
    let tried = rung == Rung::Rebuild && ladder.rebuilt || rung == Rung::Recreate && ladder.recreated;
    tried.then_some(Skip::AlreadyTried)
}
