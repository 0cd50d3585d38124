//! Timers that contradict each other: a ladder that can never be climbed, a wait that is over before what it waits for can be. Each says
//! which key of which part, and why. An error is refused when the definition is loaded; a warning is only told.

use std::time::Duration;

use cpe_proto::definition::{Deployable, Part, Window};
use cpe_proto::id::{AssemblyIndex, Name, ServiceIndex};
use cpe_proto::rung::Rung;

use super::times::{machine_action, restart};
use super::{Assumptions, detection};
use crate::backoff;
use crate::describe::span;

/// Two numbers of a definition that do not go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Whose.
    pub part: Part,
    /// The key to change: of `[probe]`, `[timing]` or `[escalation]`.
    pub key: &'static str,
    /// Whether it can be lived with.
    pub weight: Weight,
    /// What contradicts what, and what is expected.
    pub message: String,
}

/// Whether a conflict can be lived with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The ladder cannot do what it says: the definition is refused.
    Error,
    /// For some faults it does not do what it says.
    Warning,
}

/// All of them, those of the whole first.
#[must_use]
pub fn conflicts(definition: &Deployable, assumed: &Assumptions) -> Vec<Conflict> {
    let mut found = Vec::new();
    if let Some(window) = definition.escalation.service {
        window_of_services(definition, window, &mut found);
    }
    if let Some(window) = definition.escalation.assembly {
        window_of_machines(definition, window, assumed, &mut found);
    }
    if let Some(scope) = definition.escalation.deployable {
        window_of_the_whole(definition, scope.window, assumed, &mut found);
    }
    if let Some(relocate) = &definition.escalation.relocate {
        the_other_place(definition, &relocate.zone, assumed, &mut found);
    }
    retries(definition, &mut found);
    found
}

/// The shortest time in which a scope can come to N failures: each action fails at once, and its back-off is the shortest
/// (policy.md section 3). The first attempt of a rung waits for nothing.
fn fastest(rung: Rung, failures: u32) -> Duration {
    (0..failures.saturating_sub(1)).map(|attempts| backoff::shortest(rung, attempts)).sum()
}

/// The longest: each action takes all its time, and each failure is confirmed anew.
fn slowest(rung: Rung, failures: u32, each: Duration) -> Duration {
    let waits: Duration = (0..failures.saturating_sub(1)).map(|it| backoff::longest(rung, it)).sum();
    waits + each * failures.saturating_sub(1)
}

fn window_of_services(definition: &Deployable, window: Window, found: &mut Vec<Conflict>) {
    let Window { failures, within } = window;
    let failures = failures.get();
    let least = fastest(Rung::RestartService, failures);
    if within < least {
        return found.push(never(Part::Deployable, "service", window, least, "restarts"));
    }
    let restarted =
        (0..definition.services.len()).filter_map(|index| u16::try_from(index).ok().map(ServiceIndex));
    let restarted = restarted.filter(|index| definition.service(*index).restart.is_some() && failures > 1);
    let mut longest: Option<(Duration, ServiceIndex)> = None;
    for index in restarted {
        let part = definition.service(index);
        for (key, outlasts) in
            [("startup_grace", part.probe.startup_grace), ("stable_for", part.probe.stable_for)]
        {
            if outlasts >= within {
                found.push(outlasting(Part::Service(index), key, outlasts, "service", window));
            }
        }
        let verified = part.probe.startup_grace + part.probe.stable_for;
        let each = restart(&definition.timing, definition.assembly(part.assembly), verified);
        longest = longest.max(Some((each + detection(&part.probe), index)));
    }
    let Some((each, index)) = longest else { return };
    let most = slowest(Rung::RestartService, failures, each);
    if most > within && !found.iter().any(|it| it.weight == Weight::Error) {
        let who = name_of(definition, index);
        found.push(slow(Part::Deployable, "service", window, most, &format!("restarts of {who}")));
    }
}

fn window_of_machines(
    definition: &Deployable,
    window: Window,
    assumed: &Assumptions,
    found: &mut Vec<Conflict>,
) {
    let acted_on = |index: &AssemblyIndex| {
        let assembly = definition.assembly(*index);
        [Rung::RebootSoft, Rung::RebootHard].into_iter().any(|rung| assumed.permits(assembly, rung))
    };
    let acted_on: Vec<AssemblyIndex> = definition.assembly_indices().filter(acted_on).collect();
    let Window { failures, within } = window;
    let failures = failures.get();
    // A soft reboot and the first hard one wait for nothing; each later one follows one that was hard.
    let hard = failures.saturating_sub(1);
    let least = fastest(Rung::RebootHard, hard);
    if acted_on.is_empty() || failures == 1 {
        return;
    }
    if within < least {
        return found.push(never(Part::Deployable, "assembly", window, least, "reboots"));
    }
    let before = found.len();
    let mut longest: Option<(Duration, AssemblyIndex)> = None;
    for index in acted_on {
        let assembly = definition.assembly(index);
        for (key, outlasts) in
            [("startup_grace", assembly.probe.startup_grace), ("stable_for", assembly.probe.stable_for)]
        {
            if outlasts >= within {
                found.push(outlasting(Part::Assembly(index), key, outlasts, "assembly", window));
            }
        }
        let each = machine_action(&definition.timing, Rung::RebootHard, assembly, assumed)
            + detection(&assembly.probe);
        longest = longest.max(Some((each, index)));
    }
    let Some((each, index)) = longest.filter(|_| found.len() == before) else { return };
    let most = slowest(Rung::RebootHard, failures, each);
    if most > within {
        let who = format!("reboots of {}", definition.assembly(index).name);
        found.push(slow(Part::Deployable, "assembly", window, most, &who));
    }
}

/// A restart of what is affected that nobody may or can do, or whose failures are too far apart to be counted together.
fn window_of_the_whole(
    definition: &Deployable,
    window: Window,
    assumed: &Assumptions,
    found: &mut Vec<Conflict>,
) {
    let permits =
        |index: &AssemblyIndex| assumed.permits(definition.assembly(*index), Rung::RestartDeployable);
    let Some(index) = definition.assembly_indices().find(permits) else {
        return found.push(Conflict {
            part: Part::Deployable,
            key: "deployable",
            weight: Weight::Warning,
            message: "`deployable` is never done: no assembly has an infrastructure that can stop and start it and a `max_rung` of reboot-hard or more".to_owned(),
        });
    };
    let assembly = definition.assembly(index);
    let failures = window.failures.get();
    let each = machine_action(&definition.timing, Rung::RestartDeployable, assembly, assumed)
        + detection(&assembly.probe);
    let most = slowest(Rung::RestartDeployable, failures, each);
    if failures > 1 && most > window.within {
        found.push(slow(Part::Deployable, "deployable", window, most, "restarts of what is affected"));
    }
}

/// A relocation that nobody may or can do, or that leads where a machine is already.
fn the_other_place(definition: &Deployable, zone: &Name, assumed: &Assumptions, found: &mut Vec<Conflict>) {
    let permits = |index: &AssemblyIndex| assumed.permits(definition.assembly(*index), Rung::Relocate);
    let mut warn = |message: String| {
        found.push(Conflict { part: Part::Deployable, key: "relocate", weight: Weight::Warning, message });
    };
    if definition.assembly_indices().all(|index| !permits(&index)) {
        return warn("`relocate` is never done: no assembly has `max_rung` = \"relocate\", `data` that may be lost or follows it, and an infrastructure that can stop and relocate it".to_owned());
    }
    for index in definition.assembly_indices().filter(permits) {
        let assembly = definition.assembly(index);
        if assembly.failure_domains.contains(zone) {
            warn(format!(
                "`relocate` leads to {zone}, where {} is already: it is in its `failure_domains`",
                assembly.name
            ));
        }
    }
}

/// policy.md section 3: what is exhausted is tried every `retry_after`, which is to be less often than before.
fn retries(definition: &Deployable, found: &mut Vec<Conflict>) {
    let retry_after = definition.timing.retry_after;
    let services = (0..definition.services.len()).filter_map(|it| u16::try_from(it).ok().map(ServiceIndex));
    let unverified = services
        .filter(|index| definition.service(*index).restart.is_some())
        .find(|index| definition.service(*index).probe.stable_for >= retry_after);
    if let Some(index) = unverified {
        let stable_for = definition.service(index).probe.stable_for;
        return found.push(Conflict {
            part: Part::Deployable,
            key: "retry_after",
            weight: Weight::Error,
            message: format!(
                "`retry_after` is {} but `stable_for` of {} is {}: the next attempt is due before the one before it can have worked, expected more than that",
                span(retry_after),
                name_of(definition, index),
                span(stable_for)
            ),
        });
    }
    let restarts = super::times::restarts(definition);
    let last = backoff::longest(Rung::RestartService, restarts.saturating_sub(1));
    if retry_after < last {
        found.push(Conflict {
            part: Part::Deployable,
            key: "retry_after",
            weight: Weight::Warning,
            message: format!(
                "`retry_after` is {} but the last restart of the ladder waits {}: what is exhausted would be tried more often than before",
                span(retry_after),
                span(last)
            ),
        });
    }
}

fn never(part: Part, key: &'static str, window: Window, least: Duration, of: &str) -> Conflict {
    let Window { failures, within } = window;
    Conflict {
        part,
        key,
        weight: Weight::Error,
        message: format!(
            "`{key}` never escalates: {failures} failures take {} at least, with the back-off of the {of} between them, and `within` is {}; expected a longer `within` or fewer `failures`",
            span(least),
            span(within)
        ),
    }
}

fn slow(part: Part, key: &'static str, window: Window, most: Duration, of: &str) -> Conflict {
    let Window { failures, within } = window;
    Conflict {
        part,
        key,
        weight: Weight::Warning,
        message: format!(
            "`{key}` does not always escalate: {failures} failures can take {} when the {of} use all their time, and `within` is {}; such a fault would be tried for ever",
            span(most),
            span(within)
        ),
    }
}

fn outlasting(part: Part, key: &'static str, outlasts: Duration, of: &str, window: Window) -> Conflict {
    Conflict {
        part,
        key,
        weight: Weight::Error,
        message: format!(
            "`{key}` is {} and `within` of [escalation] {of} is {}: one verification can outlast the window, so that failures which it finds are never counted together; expected less than `within`",
            span(outlasts),
            span(window.within)
        ),
    }
}

fn name_of(definition: &Deployable, index: ServiceIndex) -> String {
    let service = definition.service(index);
    format!("{}/{}", definition.assembly(service.assembly).name, service.name)
}
