//! Machines that are switched by an order, and what may never be switched.

use super::*;

impl Site {
    /// Nothing is powered off under a service that runs, and nothing switched that nobody ordered.
    pub(super) fn check_power(&self, index: AssemblyIndex, switch: Switch) {
        let wanted = if switch == Switch::Off { Desired::PoweredOff } else { Desired::Running };
        assert_eq!(self.desired, wanted, "{switch:?} against what was ordered\n{}", self.transcript());
        if switch == Switch::On {
            return;
        }
        for service in self.engine.definition().services_of(index) {
            let restartable = self.engine.definition().service(service).restart.is_some();
            let runs = self.guests[usize::from(service.0)].unit == Unit::Running;
            let name = self.service_name(service);
            assert!(!restartable || !runs, "{name} runs and is powered off\n{}", self.transcript());
        }
    }

    /// Whether it is as it was to be.
    pub(super) fn turn(&mut self, index: AssemblyIndex, switch: Switch) -> bool {
        let host = &mut self.hosts[usize::from(index.0)];
        match (switch, host.machine) {
            (Switch::On, Machine::Off) => {
                host.machine = Machine::Booting { until: self.now.after(host.boot) }
            }
            (Switch::Off, Machine::Gone) | (Switch::On, _) => {}
            (Switch::Off, _) => {
                host.machine = Machine::Off;
                for service in self.engine.definition().services_of(index) {
                    let guest = &mut self.guests[usize::from(service.0)];
                    (guest.unit, guest.dies_at) = (Unit::Stopped, None);
                }
            }
        }
        switch == Switch::Off || self.hosts[usize::from(index.0)].machine != Machine::Gone
    }
}
