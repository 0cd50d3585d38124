//! One systemd unit of an imitated guest: what it does by itself, and what `systemctl` does to it and says of it.
//! Pure: time comes in. `machine.rs` holds the units, `systemctl.rs` reads the command lines.

use std::time::{Duration, Instant};

/// A unit as a guest is built with it.
#[derive(Clone, Debug)]
pub struct UnitSpec {
    /// Its whole name, as `nginx.service`.
    pub name: String,
    /// Whether a boot starts it. A fleet's guests start booted, so it also says whether the unit runs at first.
    pub enabled: bool,
    /// What it does once it was started.
    pub behaviour: Behaviour,
    /// The TCP port that accepts connections while it is active.
    pub port: Option<u16>,
    /// The name of its process (`/proc/PID/comm`); none: the unit's name up to its first dot, cut to 15 bytes.
    pub process: Option<String>,
}

impl UnitSpec {
    /// An enabled unit that runs until something is done to it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), enabled: true, behaviour: Behaviour::Runs, port: None, process: None }
    }

    /// The same with a port that is open while it runs.
    #[must_use]
    pub fn listening(self, port: u16) -> Self {
        Self { port: Some(port), ..self }
    }
}

/// What a unit does once it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// It runs until something is done to it.
    Runs,
    /// It starts well and dies after that time, each time: a crash loop. `systemctl start` exits 0.
    DiesAfter(Duration),
    /// Its start fails: `systemctl start` exits 1 and the unit is failed.
    FailsToStart,
    /// Its start never ends: `systemctl start` gives no answer and the unit stays activating.
    HangsInStart,
}

/// Whether systemd can load the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    Loaded,
    Masked,
    NotFound,
}

/// What the unit is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    Running { since: Instant },
    Starting,
    Stopped,
    Failed,
}

/// What became of an order to a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ordered {
    Done,
    StartFailed,
    NoAnswer,
    Masked,
    NotFound,
}

/// A unit of a guest.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) spec: UnitSpec,
    pub(super) load: Load,
    pub(super) activity: Activity,
}

impl Unit {
    /// The unit of a guest that is switched off.
    pub(super) fn new(spec: UnitSpec) -> Self {
        Self { spec, load: Load::Loaded, activity: Activity::Stopped }
    }

    pub(super) fn start(&mut self, now: Instant) -> Ordered {
        match self.load {
            Load::Masked => return Ordered::Masked,
            Load::NotFound => return Ordered::NotFound,
            Load::Loaded => {}
        }
        if matches!(self.activity, Activity::Running { .. }) {
            return Ordered::Done;
        }
        match self.spec.behaviour {
            Behaviour::Runs | Behaviour::DiesAfter(_) => {
                self.activity = Activity::Running { since: now };
                Ordered::Done
            }
            Behaviour::FailsToStart => {
                self.activity = Activity::Failed;
                Ordered::StartFailed
            }
            Behaviour::HangsInStart => {
                self.activity = Activity::Starting;
                Ordered::NoAnswer
            }
        }
    }

    pub(super) fn stop(&mut self) -> Ordered {
        if self.load == Load::NotFound {
            return Ordered::NotFound;
        }
        if self.activity != Activity::Failed {
            self.activity = Activity::Stopped;
        }
        Ordered::Done
    }

    pub(super) fn restart(&mut self, now: Instant) -> Ordered {
        if self.load == Load::Loaded {
            self.activity = Activity::Stopped;
        }
        self.start(now)
    }

    pub(super) fn reset_failed(&mut self) -> Ordered {
        if self.load == Load::NotFound {
            return Ordered::NotFound;
        }
        if self.activity == Activity::Failed {
            self.activity = Activity::Stopped;
        }
        Ordered::Done
    }

    /// The guest went down: nothing runs any more.
    pub(super) fn power_lost(&mut self) {
        self.activity = Activity::Stopped;
    }

    /// When it will die by itself.
    pub(super) fn dies_at(&self) -> Option<Instant> {
        match (self.activity, self.spec.behaviour) {
            (Activity::Running { since }, Behaviour::DiesAfter(after)) => Some(since + after),
            _ => None,
        }
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.activity, Activity::Running { .. })
    }

    /// The values of `LoadState`, `ActiveState` and `SubState`.
    pub(super) fn states(&self) -> [&'static str; 3] {
        let load = match self.load {
            Load::Loaded => "loaded",
            Load::Masked => "masked",
            Load::NotFound => "not-found",
        };
        let [active, sub] = match self.activity {
            Activity::Running { .. } => ["active", "running"],
            Activity::Starting => ["activating", "start"],
            Activity::Stopped => ["inactive", "dead"],
            Activity::Failed => ["failed", "failed"],
        };
        [load, active, sub]
    }

    /// The name of its process.
    pub(super) fn process(&self) -> &str {
        if let Some(process) = &self.spec.process {
            return process;
        }
        let name = self.spec.name.split('.').next().unwrap_or_default();
        // TASK_COMM_LEN of Linux: 16 with its NUL.
        name.get(..15).unwrap_or(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_in_a_crash_loop_starts_well_and_names_the_time_of_its_death() {
        let now = Instant::now();
        let after = Duration::from_secs(10);
        let mut unit =
            Unit::new(UnitSpec { behaviour: Behaviour::DiesAfter(after), ..UnitSpec::new("web.service") });
        assert_eq!(unit.dies_at(), None);
        assert_eq!(unit.restart(now), Ordered::Done);
        assert_eq!(unit.dies_at(), Some(now + after));
        assert_eq!(unit.states(), ["loaded", "active", "running"]);
    }

    #[test]
    fn a_masked_unit_cannot_be_started_and_says_so() {
        let mut unit = Unit::new(UnitSpec::new("web.service"));
        unit.load = Load::Masked;
        assert_eq!(unit.restart(Instant::now()), Ordered::Masked);
        assert_eq!(unit.states(), ["masked", "inactive", "dead"]);
    }

    #[test]
    fn a_failed_unit_stays_failed_over_a_stop_and_is_cleared_by_reset_failed() {
        let mut unit =
            Unit::new(UnitSpec { behaviour: Behaviour::FailsToStart, ..UnitSpec::new("web.service") });
        assert_eq!(unit.start(Instant::now()), Ordered::StartFailed);
        unit.stop();
        assert_eq!(unit.states(), ["loaded", "failed", "failed"]);
        unit.reset_failed();
        assert_eq!(unit.states(), ["loaded", "inactive", "dead"]);
    }

    #[test]
    fn a_process_has_the_unit_name_as_the_kernel_cuts_it() {
        assert_eq!(Unit::new(UnitSpec::new("nginx.service")).process(), "nginx");
        assert_eq!(Unit::new(UnitSpec::new("a-very-long-unit-name.service")).process(), "a-very-long-uni");
    }
}
