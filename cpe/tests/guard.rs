//! Common causes against a live fleet on loopback: 20 machines of two failure domains. What is feared most of automatic recovery is the
//! recovery, so what these stories count is what was done.

mod site;

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use site::Site;

const UNIT: &str = "nginx.service";

/// Each machine is a deployable of its own, as budgets allow one action at a time in each.
struct Fleet20 {
    site: Site,
    names: Vec<String>,
    _alone: MutexGuard<'static, ()>,
}

/// One fleet at a time: three of them on a small machine would only measure that machine.
static ALONE: Mutex<()> = Mutex::new(());

impl Fleet20 {
    fn start() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<String> = ["a", "b"]
            .iter()
            .flat_map(|domain| (0..10).map(move |index| format!("{domain}{index}")))
            .collect();
        let files: Vec<(String, String)> =
            names.iter().map(|name| (format!("{name}.toml"), definition(name))).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(file, text)| (&**file, &**text)).collect();
        let machines: Vec<&str> = names.iter().map(String::as_str).collect();
        let fleet = Self { site: Site::start(&files, &machines, &[UNIT]), names, _alone: alone };
        fleet.until_all(|state| state == "healthy");
        fleet
    }

    /// Waits until each machine is in such a state.
    fn until_all(&self, wanted: impl Fn(&str) -> bool) {
        self.until(&self.names, wanted);
    }

    fn until(&self, names: &[String], wanted: impl Fn(&str) -> bool) {
        self.site.wait("the states of the fleet", || {
            let status = self.site.status();
            let all = status["deployables"].as_array()?.iter();
            let mut states = all.filter(|it| names.iter().any(|name| it["name"] == **name));
            states.all(|it| wanted(it["assemblies"][0]["state"].as_str().unwrap_or(""))).then_some(())
        });
    }

    /// Reboots and restarts that reached these machines.
    fn done_to(&self, names: &[String]) -> u64 {
        let counts = names.iter().map(|name| self.site.machine(name).counts());
        counts.map(|counts| counts.boots + counts.unit_starts).sum()
    }

    fn events(&self, kind: &str) -> Vec<Value> {
        let said = self.site.cpe(&["events", "--json", "--since", "1h"]).done();
        let events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["kind"] == kind).collect()
    }
}

fn definition(name: &str) -> String {
    let domain = &name[..1];
    format!(
        "name = \"{name}\"\ninfrastructure = \"demo\"\n\
         [probe]\ninterval = \"1s\"\ntimeout = \"1s\"\nconfirm_interval = \"200ms\"\nstable_for = \"300ms\"\n\
         [escalation]\nassembly = {{ failures = 3, within = \"1h\" }}\n\
         [assemblies.vm]\naddress = \"{{{name}}}\"\nfailure_domains = [\"az-{domain}\"]\n\
         [assemblies.vm.services.nginx]\nsystemd = \"{UNIT}\"\n"
    )
}

fn held(event: &Value, domain: &str) -> bool {
    event["kind"] == "breaker_changed"
        && event["reason"].as_str().unwrap_or("").starts_with(&format!("failure domain {domain} is held: "))
}

#[test]
fn the_management_side_was_cut_off_and_nothing_is_done_neither_then_nor_when_it_is_healed() {
    let fleet = Fleet20::start();
    for name in &fleet.names {
        fleet.site.now(fleet.site.machine(name).cut_off());
    }
    fleet.until_all(|state| matches!(state, "unreachable" | "held"));
    for name in &fleet.names {
        // Concluded, not only suspected.
        fleet.site.wait_for_event(|event| event["kind"] == "fault_isolated" && event["deployable"] == **name);
    }
    for name in &fleet.names {
        fleet.site.now(fleet.site.machine(name).heal());
    }
    fleet.until_all(|state| state == "healthy");
    assert_eq!(fleet.done_to(&fleet.names), 0);
    assert_eq!(fleet.events("recovery_started"), Vec::<Value>::new());
}

#[test]
fn a_third_of_the_fleet_is_frozen_at_once_and_it_is_no_storm() {
    let fleet = Fleet20::start();
    let frozen: Vec<String> = fleet.names.iter().step_by(3).cloned().collect();
    for name in &frozen {
        fleet.site.now(fleet.site.machine(name).freeze());
    }
    for domain in ["az-a", "az-b"] {
        fleet.site.wait_for_event(|event| held(event, domain));
    }
    let whole = fleet.site.wait_for_event(|event| {
        event["kind"] == "breaker_changed"
            && event["reason"].as_str().unwrap_or("").starts_with("the fleet is held")
    });
    assert_eq!(whole["deployable"], Value::Null);
    fleet.until(&frozen, |state| matches!(state, "held" | "recovering" | "healthy"));
    // Those that were confirmed before the third of their domain.
    let begun = fleet.events("recovery_started").len();
    assert!(begun <= 4, "{begun}");
    for name in &frozen {
        fleet.site.now(fleet.site.machine(name).thaw());
    }
    fleet.until_all(|state| state == "healthy");
    assert_eq!(fleet.events("recovery_started").len(), begun, "nothing more is done");
}

#[test]
fn cpe_is_killed_while_a_domain_is_held_and_the_hold_goes_on_after_its_start() {
    let mut fleet = Fleet20::start();
    let (dark, lit) = fleet.names.split_at(10);
    let (dark, lit) = (dark.to_vec(), lit.to_vec());
    for name in &dark {
        fleet.site.now(fleet.site.machine(name).power_off());
    }
    fleet.site.wait_for_event(|event| held(event, "az-a"));
    fleet.site.kill_controller();
    fleet.site.start_controller();
    fleet.site.wait_for_event(|event| {
        event["reason"]
            .as_str()
            .unwrap_or("")
            .starts_with("failure domain az-a is held on after a restart of cpe: nothing is done there for ")
    });
    fleet.until(&lit, |state| state == "healthy");
    fleet.until(&dark, |state| matches!(state, "held" | "recovering" | "healthy"));
    let begun = fleet.done_to(&dark);
    assert!(begun <= 2, "those that were confirmed before the third: {begun}");
    let anew = fleet.events("breaker_changed").into_iter().filter(|event| held(event, "az-a"));
    assert_eq!(anew.count(), 1, "it is the same hold, not one that began anew");
}

#[test]
fn one_domain_is_powered_off_while_another_loses_one_machine_which_is_recovered() {
    let fleet = Fleet20::start();
    let (dark, lit) = fleet.names.split_at(10);
    for name in dark {
        fleet.site.now(fleet.site.machine(name).power_off());
    }
    fleet.site.wait_for_event(|event| held(event, "az-a"));
    fleet.site.now(fleet.site.machine("b0").power_off());
    fleet.site.wait_for_event(|event| event["kind"] == "recovery_finished" && event["deployable"] == "b0");
    fleet.until(lit, |state| state == "healthy");
    assert_eq!(fleet.site.machine("b0").counts().boots, 1);
    let begun = fleet.done_to(dark);
    assert!(begun <= 2, "those that were confirmed before the third: {begun}");
    fleet.until(dark, |state| matches!(state, "held" | "recovering" | "healthy"));
    let said = fleet.site.cpe(&["events"]).done();
    assert!(
        said.contains("failure domain az-a is held: 3 of 10 assemblies left health within 2 min"),
        "{said}"
    );
    assert!(!said.contains("the fleet is held"), "{said}");
}
