//! Witnesses beside the channel: services that the controller probes itself, at the address of their assembly, and that a program there
//! must answer. A passed probe of one is newer than the channel's first failure, or it says nothing. A port or an echo proves a kernel.

use std::time::Duration;

use cpe_proto::id::{AssemblyIndex, ServiceIndex};
use cpe_proto::time::Timestamp;

use crate::engine::Engine;

impl Engine {
    /// The service whose fresh passed probe shows that an assembly lives, though its channel has failed.
    pub(crate) fn live_witness(&self, index: AssemblyIndex, now: Timestamp) -> Option<ServiceIndex> {
        let first_failed = self.assembly(index).trouble.as_ref()?.first_failed?;
        self.witnesses(index).find(|service| {
            let passed = self.service(*service).passed;
            passed > first_failed && now.since(passed) <= self.speaks_for(*service)
        })
    }

    /// A channel failed for the first time: what its witnesses say now decides what that means.
    pub(crate) fn hasten_witnesses(&mut self, index: AssemblyIndex, now: Timestamp) {
        for service in self.witnesses(index).collect::<Vec<_>>() {
            self.service_mut(service).poll.hasten(now);
        }
    }

    /// Whether a witness has still to be heard since the channel failed: nothing is done to a machine before.
    pub(crate) fn witness_pends(&self, index: AssemblyIndex, now: Timestamp) -> bool {
        let first_failed = self.assembly(index).trouble.as_ref().and_then(|trouble| trouble.first_failed);
        let Some(first_failed) = first_failed else { return false };
        self.witnesses(index).any(|service| {
            let part = self.service(service);
            let unwell = part.trouble.as_ref().and_then(|trouble| trouble.heard);
            let heard = unwell.map_or(part.passed, |at| at.max(part.passed));
            let old = now.since(heard) > self.speaks_for(service);
            self.probes_service(service) && (heard <= first_failed || old)
        })
    }

    /// How long a witness's word is fresh: two intervals, and what the probe takes that is under way. What is heard of it counts from the
    /// beginning of its probe, and a word that is not a pass ends it at once.
    fn speaks_for(&self, service: ServiceIndex) -> Duration {
        let settings = self.definition().service(service).probe;
        settings.interval * 2 + settings.timeout
    }

    fn witnesses(&self, index: AssemblyIndex) -> impl Iterator<Item = ServiceIndex> {
        self.definition().services_of(index).filter(|service| self.definition().is_witness(*service))
    }
}
