//! A world from its beginning to its healing: the plan happens, the faults end, what cpe can mend is mended or told within a bound, then a
//! person sees to the rest and everything is healthy.

use std::time::Duration;

use super::happening::{Happening, Operator};
use super::{Coverage, Entry, Fleet, Left, Planned, World};

/// After somebody has seen to all that was not well: probes at their pace, incidents that settle, a last back-off.
const MENDED_WITHIN: Duration = Duration::from_secs(3600);

/// A window that begins by then is waited for: clocks are set by an hour, and nothing drawn comes again within a week.
const WINDOWS_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// A world that was lived.
#[derive(Debug)]
pub struct Lived {
    /// What was broken: rules, or the promise to heal. Empty: nothing.
    pub breaches: Vec<String>,
    /// What happened.
    pub transcript: Vec<Entry>,
    /// What occurred.
    pub coverage: Coverage,
    /// How long it was, in the world's time.
    pub span: Duration,
    /// How long it took after the last fault until everything was healthy or told, and the bound of that; none: it never came so far.
    pub healed: Option<(Duration, Duration)>,
}

/// Lives a world: a fleet, a plan and the world's seed for small chances; for so long, and then until it is healed.
#[must_use]
pub fn live(fleet: &Fleet, plan: &[Planned], seed: u64, lasts: Duration) -> Lived {
    let mut world = World::new(fleet, seed);
    for planned in plan {
        world.schedule(planned.at, planned.happening.clone());
    }
    while world.breaches().is_empty() && world.step(lasts) {}
    let mut healed = None;
    if world.breaches().is_empty() && world.run_until(lasts) {
        let left = if seed.is_multiple_of(2) { Left::Nothing } else { Left::Broken };
        healed = heal(&mut world, fleet, left);
    }
    world.audit();
    Lived {
        breaches: world.breaches().to_vec(),
        span: world.now(),
        healed,
        coverage: std::mem::take(&mut world.coverage),
        transcript: std::mem::take(&mut world.transcript),
    }
}

/// How long that took, and the bound; none: it was not healed.
fn heal(world: &mut World, fleet: &Fleet, left: Left) -> Option<(Duration, Duration)> {
    world.calm(left);
    let mut at = world.now();
    // A cpe that is down comes back by itself; one that stands still is not asked before it goes on.
    at += Duration::from_secs(700);
    world.run_until(at);
    // What a window still holds back is waited for; its end is the last thing that happens.
    for definition in &fleet.definitions {
        world.schedule(at, Happening::Define(std::sync::Arc::clone(definition)));
    }
    world.run_until(at);
    at += world.windows_last(WINDOWS_WITHIN);
    world.run_until(at);
    let paused = world.all_paused_parts();
    let mut order = |happening| world.schedule(at, happening);
    order(Happening::Operator(Operator::Resume(None)));
    for place in paused {
        order(Happening::Operator(Operator::ResumePart(place)));
    }
    for definition in &fleet.definitions {
        let name = &definition.name;
        order(Happening::Operator(Operator::Resume(Some(name.clone()))));
        order(Happening::Operator(Operator::MaintenanceOff(name.clone(), None)));
        for assembly in &definition.assemblies {
            order(Happening::Operator(Operator::MaintenanceOff(name.clone(), Some(assembly.name.clone()))));
        }
        order(Happening::Operator(Operator::Start(name.clone())));
    }
    let bound = world.bound();
    if !until(world, at + bound, World::is_healthy_or_told) {
        let silent: Vec<String> = world
            .unwell()
            .into_iter()
            .filter(|it| !it.told)
            .map(|it| format!("{} is {} ({})", it.name, it.state, it.reason))
            .collect();
        let minutes = bound.as_secs() / 60;
        let silent = silent.join("; ");
        world.broken(format!("rule 5: {minutes} min after all faults ended, in silence: {silent}"));
        return None;
    }
    let took = world.now().saturating_sub(at);
    world.mend();
    at = world.now();
    let whole = |world: &World| world.is_healthy() && world.ill_set_up().is_empty();
    if !until(world, at + MENDED_WITHIN + bound, whole) {
        let left: Vec<String> = world
            .unwell()
            .into_iter()
            .map(|it| format!("{} is {} ({})", it.name, it.state, it.reason))
            .chain(world.ill_set_up())
            .collect();
        world.broken(format!("rule 5: everything is mended, and not healthy: {}", left.join("; ")));
    }
    Some((took, bound))
}

/// Lets time pass until that is so; false: it is not by then.
fn until(world: &mut World, by: Duration, is_so: impl Fn(&World) -> bool) -> bool {
    let step = Duration::from_secs(10);
    loop {
        let next = world.now() + step;
        if !world.run_until(next) || !world.breaches().is_empty() {
            return true;
        }
        if is_so(world) {
            return true;
        }
        if world.now() > by {
            return false;
        }
    }
}
