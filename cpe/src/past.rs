//! What an earlier cpe left in the journal and did not end: actions without an outcome, open incidents. Nothing is repeated: the new
//! engine looks afresh, and what is still broken opens an incident of its own (design.md section 4, rule 4).

use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::Name;

use crate::fleet::plain;
use crate::shared::Shared;

/// Ends in the journal what the deployable's earlier engine could not end.
pub fn settle(shared: &Shared, deployable: &Name) {
    let start = shared.journal.start_state();
    for (_, intent) in start.unresolved.iter().filter(|(_, intent)| intent.deployable == *deployable) {
        let outcome = "not known: cpe ended before it was told; fresh probes show what came of it";
        shared.journal.resolve(deployable, intent.action, outcome);
        let event = Event {
            assembly: Some(intent.assembly.clone()),
            service: intent.service.clone(),
            incident: intent.incident,
            action: Some(intent.action),
            rung: intent.rung,
            ..plain(EventKind::RecoveryFinished, outcome)
        };
        shared.report(Some(deployable), event);
    }
    for (_, incident) in start.open_incidents.iter().filter(|(name, _)| name == deployable) {
        let reason = "cpe was started anew; what is still broken opens an incident of its own";
        let event = Event { incident: Some(*incident), ..plain(EventKind::IncidentClosed, reason) };
        shared.report(Some(deployable), event);
    }
}
