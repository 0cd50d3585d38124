//! What happens when machines are fenced: through an agent of our own that acts on real processes and misbehaves as it is told
//! (`machine.rs`, `../programs/fence_machine`), and through agents of Debian's fence-agents (`agents.rs`).

#![cfg(feature = "fence")]

mod agents;
mod machine;
#[path = "../processes/mod.rs"]
mod processes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use cpe_infra::fence::Fence;
use cpe_infra::{Infrastructure, InstanceRequest};
use cpe_proto::config::FenceSettings;
use cpe_proto::fence::{FenceOptions, FenceValue, Secret};

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn text(value: &str) -> FenceValue {
    FenceValue::Text(Secret::new(value.to_owned()))
}

fn options(pairs: &[(&str, &str)]) -> FenceOptions {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect()
}

fn settings(agent: impl Into<PathBuf>, common: &[(&str, &str)]) -> FenceSettings {
    FenceSettings { agent: agent.into(), options: options(common), timeout: LONG, in_flight: 1 }
}

fn infrastructure(settings: &FenceSettings) -> Infrastructure {
    Infrastructure::Fence(Fence::new(settings))
}

fn request(own: FenceOptions) -> InstanceRequest {
    InstanceRequest {
        action_id: "shop-1".to_owned(),
        controller: "here".to_owned(),
        deployable: "shop".to_owned(),
        assembly: "web-1".to_owned(),
        instance: None,
        address: Some("192.0.2.1".to_owned()),
        zone: None,
        parameters: BTreeMap::new(),
        fence: own,
    }
}
