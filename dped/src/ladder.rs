//! Which rung comes next (policy.md section 3): from the verdict, the counts and what may be done, with every skipped rung and why.
//! Pure. The ladder of an assembly ends with recreate; the scope of its deployable comes after it, where the definition gives it
//! (`whole.rs` counts it).

use std::fmt;

use cpe_proto::decision::Verdict;
use cpe_proto::definition::Data;
use cpe_proto::infrastructure::Capabilities;
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::Beyond;
use cpe_proto::time::Timestamp;

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
    /// A relocation was done.
    pub relocated: bool,
    /// Whether the deployable's scope has its turn.
    pub beyond: Beyond,
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

    /// It was started, or is seen to be something else than off.
    pub fn not_left_off(&mut self) {
        if self.beyond == Beyond::LeftOff {
            self.beyond = Beyond::Tried;
        }
    }

    /// An attempt was begun.
    pub fn attempted(&mut self, rung: Rung) {
        self.attempts = self.attempts_of(rung).saturating_add(1);
        self.rung = Some(rung);
        self.not_left_off();
        match rung {
            Rung::RebootSoft | Rung::RebootHard | Rung::Start => self.rebooted = true,
            Rung::Rebuild => self.rebuilt = true,
            Rung::Recreate => self.recreated = true,
            // An escalation is one failure of the next scope, and the count of this one starts anew. Rebuild and recreate stay once each.
            Rung::RestartDeployable | Rung::Relocate => {
                self.failures.clear();
                (self.climbed, self.climbed_again) = (false, false);
                // A machine that was powered off and started was rebooted.
                self.rebooted = rung == Rung::RestartDeployable;
                self.relocated |= rung == Rung::Relocate;
                self.beyond = Beyond::Tried;
            }
            Rung::RestartService => {}
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
    /// `[escalation]` has a scope for the deployable.
    pub deployable: bool,
    /// Whether `[escalation]` says where else it may be made.
    pub relocate: Elsewhere,
}

/// Whether a machine may be made in another place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Elsewhere {
    /// The definition does not say where.
    #[default]
    NotGiven,
    /// It may.
    Given,
    /// It was made there before.
    ThereAlready,
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
    /// The definition does not ask for it.
    NotGiven,
    /// There is no machine that it could restart.
    NoMachine,
    /// It lives there.
    ThereAlready,
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
            Self::NotGiven => "[escalation] does not give it",
            Self::NoMachine => "there is no machine to restart",
            Self::ThereAlready => "it was made there before",
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
        _ if left_off(verdict, ladder) => &[Rung::Start],
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

/// A machine that we powered off to start it again, and that is off: nothing but its start is missing.
#[must_use]
pub fn left_off(verdict: &Verdict, ladder: &Ladder) -> bool {
    *verdict == Verdict::Off && ladder.beyond == Beyond::LeftOff
}

/// Why the deployable of an assembly cannot be restarted as a whole for it.
#[must_use]
pub fn forbidden_as_whole(verdict: Option<&Verdict>, bounds: Bounds<'_>) -> Option<Skip> {
    if verdict == Some(&Verdict::Gone) {
        return Some(Skip::NoMachine);
    }
    forbidden(Rung::RestartDeployable, bounds)
}

/// Why a machine cannot be made elsewhere. It needs a reboot of this incident that failed, as a recreate does.
#[must_use]
pub fn forbidden_elsewhere(verdict: &Verdict, ladder: &Ladder, bounds: Bounds<'_>) -> Option<Skip> {
    // Whether this scope may climb is asked of it by the definition itself.
    let ladder = Ladder { climbed: false, ..ladder.clone() };
    skip(Rung::Relocate, verdict, &ladder, bounds)
}

/// What a rung does to a machine, as a rung of the machine: `max_rung` caps that. The definition that gives the deployable's scope asks
/// for it, and a machine that is powered off and started keeps all that a hard reboot leaves it.
#[must_use]
pub const fn on_machine(rung: Rung) -> Rung {
    match rung {
        Rung::RestartDeployable => Rung::RebootHard,
        other => other,
    }
}

/// Why a rung that a person orders cannot be done. A person's word stands for evidence and for milder attempts, not for what the
/// definition forbids or nobody can do.
#[must_use]
pub fn forbidden(rung: Rung, bounds: Bounds<'_>) -> Option<Skip> {
    let tried = Ladder { rebooted: true, ..Ladder::default() };
    skip(rung, &Verdict::PerService, &tried, bounds)
}

fn skip(rung: Rung, verdict: &Verdict, ladder: &Ladder, bounds: Bounds<'_>) -> Option<Skip> {
    let replaces = rung.makes_disk();
    let Some(capabilities) = bounds.capabilities else { return Some(Skip::NoInfrastructure) };
    if on_machine(rung) > bounds.max_rung {
        return Some(Skip::AboveCap);
    }
    if rung == Rung::RestartDeployable && !bounds.deployable {
        return Some(Skip::NotGiven);
    }
    match bounds.relocate {
        _ if rung != Rung::Relocate => {}
        Elsewhere::Given => {}
        Elsewhere::NotGiven => return Some(Skip::NotGiven),
        Elsewhere::ThereAlready => return Some(Skip::ThereAlready),
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
    let tried = match rung {
        Rung::Rebuild => ladder.rebuilt,
        Rung::Recreate => ladder.recreated,
        Rung::Relocate => ladder.relocated,
        _ => false,
    };
    tried.then_some(Skip::AlreadyTried)
}
