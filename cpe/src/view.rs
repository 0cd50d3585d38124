//! From what an engine knows to the API's status of its deployable.

use cpe_proto::api::{AssemblyStatus, DeployableStatus, Parked, ServiceStatus, Waiting};
use cpe_proto::definition::{Deployable, Mode};
use cpe_proto::id::AssemblyIndex;
use cpe_proto::state::State;
use dped::{Engine, Guard, Place, View, Wait};

use crate::clock;
use crate::sessions::Sessions;

/// The status of a deployable.
#[must_use]
pub fn deployable(engine: &Engine, sessions: &Sessions) -> DeployableStatus {
    let definition = engine.definition();
    let view = engine.view();
    DeployableStatus {
        name: definition.name.clone(),
        state: view.state,
        mode: mode(definition),
        maintenance: view.maintenance,
        // Who paused it and why is the fleet's to say.
        paused: None,
        parked: None,
        assemblies: definition
            .assembly_indices()
            .map(|index| assembly(definition, &view, sessions, index))
            .collect(),
    }
}

fn assembly(
    definition: &Deployable,
    view: &View,
    sessions: &Sessions,
    index: AssemblyIndex,
) -> AssemblyStatus {
    let seen = &view.assemblies[usize::from(index.0)];
    let services = definition.services_of(index).map(|service| {
        let seen = &view.services[usize::from(service.0)];
        ServiceStatus {
            name: definition.service(service).name.clone(),
            state: seen.state,
            since: clock::wall_of(seen.since),
            reason: seen.reason.clone(),
            paused: None,
            waits: seen.waits.iter().map(waiting).collect(),
        }
    });
    AssemblyStatus {
        name: definition.assembly(index).name.clone(),
        state: seen.state,
        since: clock::wall_of(seen.since),
        reason: seen.reason.clone(),
        address: sessions.address(index).map(|address| address.to_string()),
        monitor: definition.assembly(index).monitor.as_str().to_owned(),
        maintenance: seen.maintenance,
        paused: None,
        drift: seen.drift.clone(),
        domains: definition.assembly(index).failure_domains.clone(),
        waits: seen.waits.iter().map(waiting).collect(),
        services: services.collect(),
    }
}

fn waiting(waiting: &dped::Waiting) -> Waiting {
    let what = match waiting.what {
        Wait::BackOff => "the wait between two attempts",
        Wait::Retry => "the next attempt of what is exhausted (retry_after)",
        Wait::Gate => "the gate is asked again",
        Wait::Grace => "not being healthy yet is no fault (startup_grace)",
        Wait::Dependency => "a dependency is waited for, and that is told then (dependency_wait)",
        Wait::Telling => "a person is told then, if it lasts",
        Wait::Outcome => "an action's outcome",
        Wait::Steps => "services are stopped or started for a recovery of the whole deployable",
        Wait::Look => "what became of an action is looked at (action_give_up)",
        Wait::Verification => "fresh probes verify a recovery",
    };
    Waiting { what: what.into(), until: clock::wall_of(waiting.until) }
}

/// What the fleet guard's limits add for what is not healthy.
pub fn add_guard_waits(status: &mut DeployableStatus, definition: &Deployable, guard: &Guard) {
    for (assembly, told) in definition.assemblies.iter().zip(&mut status.assemblies) {
        if told.state == State::Healthy {
            continue;
        }
        let place =
            Place { infrastructure: definition.infrastructure.clone(), domains: &assembly.failure_domains };
        let waits = guard.waits(&place, told.state == State::Exhausted).into_iter();
        told.waits
            .extend(waits.map(|(what, until)| Waiting { what: what.into(), until: clock::wall_of(until) }));
    }
}

/// The status of a deployable that no engine watches, and why.
#[must_use]
pub fn unwatched(definition: &Deployable, parked: Parked) -> DeployableStatus {
    let service = |index| ServiceStatus {
        name: definition.service(index).name.clone(),
        state: State::Unknown,
        since: parked.since,
        reason: "".into(),
        paused: None,
        waits: Vec::new(),
    };
    let assembly = |index| AssemblyStatus {
        name: definition.assembly(index).name.clone(),
        state: State::Unknown,
        since: parked.since,
        reason: "nobody watches it".into(),
        address: None,
        monitor: definition.assembly(index).monitor.as_str().to_owned(),
        maintenance: false,
        paused: None,
        drift: None,
        domains: definition.assembly(index).failure_domains.clone(),
        waits: Vec::new(),
        services: definition.services_of(index).map(service).collect(),
    };
    DeployableStatus {
        name: definition.name.clone(),
        state: State::Unknown,
        mode: mode(definition),
        maintenance: false,
        paused: None,
        assemblies: definition.assembly_indices().map(assembly).collect(),
        parked: Some(parked),
    }
}

fn mode(definition: &Deployable) -> String {
    match definition.mode {
        Mode::Act => "act".to_owned(),
        Mode::Observe => "observe".to_owned(),
    }
}
