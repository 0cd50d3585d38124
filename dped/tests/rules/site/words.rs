//! What tests of several rules say and read in words: what was done, and pauses by name.

use cpe_proto::id::ServiceIndex;
use dped::PartName;

use super::*;

/// What was done, in order: "stop web/nginx", "fence db", "restart-deployable db".
pub(crate) fn deeds(site: &Site) -> Vec<String> {
    let service = |index: ServiceIndex| site.service_name(index);
    let name = |action: &Action| {
        let assembly = &site.engine.definition().assembly(action.assembly).name;
        match action.act {
            Act::RestartService(index) => format!("restart {}", service(index)),
            Act::StartService(index) => format!("start {}", service(index)),
            Act::StopService(index) => format!("stop {}", service(index)),
            Act::Reconfigure(index) => format!("reconfigure {}", service(index)),
            Act::Power(switch) => format!("power {switch:?}"),
            Act::Fence(_) => format!("fence {assembly}"),
            Act::Machine(rung) => format!("{rung} {assembly}"),
        }
    };
    site.acts.iter().map(|(_, action)| name(action)).collect()
}

pub(crate) fn part(name: &str) -> BTreeSet<PartName> {
    BTreeSet::from([PartName::parse(name).expect("a name")])
}

pub(crate) fn pause_of(name: &str, on: bool) -> Order {
    Order::PartsPause { parts: part(name), on, reason: "looking (by ann)".into() }
}

/// An order by hand that is refused says this.
#[track_caller]
pub(crate) fn refused(site: &Site, order: u64, words: &str) {
    let said = site.answer(order).expect_err("it is refused");
    assert!(said.contains(words), "{said}");
}
