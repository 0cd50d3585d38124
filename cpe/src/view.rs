//! From what an engine knows to the API's status of its deployable.

use cpe_proto::api::{AssemblyStatus, DeployableStatus, Parked, ServiceStatus};
use cpe_proto::definition::{Deployable, Mode};
use cpe_proto::id::AssemblyIndex;
use cpe_proto::state::State;
use dped::{Engine, View};

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
        }
    });
    AssemblyStatus {
        name: definition.assembly(index).name.clone(),
        state: seen.state,
        since: clock::wall_of(seen.since),
        reason: seen.reason.clone(),
        address: sessions.address(index).map(|address| address.to_string()),
        monitor: "ssh".to_owned(),
        maintenance: seen.maintenance,
        services: services.collect(),
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
    };
    let assembly = |index| AssemblyStatus {
        name: definition.assembly(index).name.clone(),
        state: State::Unknown,
        since: parked.since,
        reason: "nobody watches it".into(),
        address: None,
        monitor: "ssh".to_owned(),
        maintenance: false,
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
