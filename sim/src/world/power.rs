//! An operator who powers a deployable off: what is refused to him, and what must be true of each machine that is switched by his order.
//! The engine's side is `dped/src/power.rs`.

use cpe_proto::definition::Deployable;
use cpe_proto::id::{AssemblyIndex, Name};
use cpe_proto::infrastructure::Operation;
use dped::{Desired, Switch};

use super::{What, World};

impl World {
    /// `cpe stop --power-off`. What cannot be powered off, or not on again, is not ordered.
    pub(super) fn power_off_by_order(&mut self, name: &Name) {
        let definition = self.files.iter().find(|(known, _)| known == name).and_then(|(_, it)| it.as_ref());
        let infrastructure = definition.and_then(|it| it.infrastructure.as_ref());
        let can =
            infrastructure.and_then(|it| self.infrastructures.get(it)).map(|it| &it.kind.capabilities.0);
        let switches = |can: &std::collections::BTreeSet<Operation>| {
            can.contains(&Operation::Stop) && can.contains(&Operation::Start)
        };
        if !can.is_some_and(switches) {
            return self
                .say(What::Happened("the order is refused: nothing can power its machines off".to_owned()));
        }
        self.truth.pace.forget(name);
        self.set_desired(name, Desired::PoweredOff);
    }

    /// Nothing is powered off under a service that it was to stop and that runs since the machine's last boot. What a person starts by hand on
    /// a machine that is ordered off is his.
    pub(super) fn judge_power(
        &self,
        member: usize,
        definition: &Deployable,
        assembly: AssemblyIndex,
        switch: Switch,
        wrong: &mut Vec<String>,
    ) {
        if switch == Switch::On {
            return;
        }
        for service in definition.services_of(assembly) {
            let part = definition.service(service);
            let runs = self
                .unit_of(member, service)
                .is_some_and(|unit| unit.well_since.is_some() && unit.by_hand != Some(unit.life));
            if runs && part.restart.is_some() {
                wrong.push(format!("{} runs on it", part.name));
            }
        }
    }
}
