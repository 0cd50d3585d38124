//! The one action of the fleet guard itself: a failure domain that is dead is evacuated by its infrastructure (`dped::guard` decides when, and
//! that it is once). The guard is written down durably first, so that a cpe that is killed meanwhile does not do it again.

use std::sync::Arc;

use cpe_infra::{EvacuationRequest, Evacuee};
use cpe_proto::decision::Refusal;
use cpe_proto::definition::Machine;
use cpe_proto::id::{AssemblyIndex, Name};
use cpe_proto::infrastructure::Operation;
use dped::{ActionOutcome, Evacuate};

use crate::actions::concluded;
use crate::clock;
use crate::shared::Shared;
use crate::vital::caught;

/// Does it, in a task of its own. Within a runtime.
pub(crate) fn begin(shared: Arc<Shared>, evacuate: Evacuate) {
    tokio::spawn(async move {
        let _acting = shared.begin_action();
        let outcome = caught(carry_out(&shared, &evacuate)).await.unwrap_or_else(|said| {
            ActionOutcome::Unresolved { detail: format!("it panicked: {said}").into() }
        });
        let now = clock::now();
        {
            let mut guard = shared.guard();
            guard.evacuated(&evacuate.domain, evacuate.number, &outcome, now);
            shared.keep_guard(&mut guard, now);
        }
        shared.hear_guard();
    });
}

async fn carry_out(shared: &Shared, evacuate: &Evacuate) -> ActionOutcome {
    let not_begun = |detail: String| {
        let why = Refusal::NotStarted;
        ActionOutcome::NotBegun { why, detail: detail.into() }
    };
    let name = &evacuate.infrastructure;
    let Some(adapter) = shared.infrastructures.get(name) else {
        return not_begun(format!("there is no infrastructure {name} in cpe.toml"));
    };
    if !adapter.capabilities().0.contains(&Operation::Evacuate) {
        return not_begun(format!("`evacuate` is not among the capabilities of infrastructure {name}"));
    }
    if shared.draining() {
        return not_begun("cpe is ending".to_owned());
    }
    let snapshot = Box::new(shared.guard().snapshot(clock::now()));
    if let Err(error) = shared.journal.guard_durably(snapshot).await {
        let why = Refusal::Journal;
        return ActionOutcome::NotBegun { why, detail: error.to_string().into() };
    }
    let request = EvacuationRequest {
        action_id: format!("cpe-evacuate-{}", evacuate.number),
        domain: evacuate.domain.to_string(),
        assemblies: evacuate.members.iter().filter_map(|member| evacuee(shared, member)).collect(),
        parameters: std::collections::BTreeMap::new(),
    };
    concluded(&adapter.evacuate(request, evacuate.timeout).await)
}

/// None: it is managed no more.
fn evacuee(shared: &Shared, (deployable, index): &(Name, AssemblyIndex)) -> Option<Evacuee> {
    let definition = shared.definition(deployable)?;
    let assembly = definition.assemblies.get(usize::from(index.0))?;
    let (instance, address) = match &assembly.machine {
        Machine::Instance(id) => (Some(id.clone()), None),
        Machine::Address(address) => (None, Some(address.clone())),
        Machine::Adopt { .. } | Machine::Image { .. } => (None, None),
    };
    let (deployable, assembly) = (deployable.to_string(), assembly.name.to_string());
    Some(Evacuee { deployable, assembly, instance, address })
}
