//! What an engine makes of what comes late, twice, or is about what it does not know; and the order in which it says what is to be done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::definition::Deployable;
use cpe_proto::id::{ActionId, AssemblyIndex, IncidentId, ProbeId, ServiceIndex};
use cpe_proto::infrastructure::{InstanceState, Owner};
use cpe_proto::observation::{ChannelFailure, Observation, UnitState};
use cpe_proto::time::Timestamp;
use dped::{Desired, Engine, Input, Order, Output, Seed, Surroundings, Target};

const PAIR: &str = r#"
    name = "shop"
    [assemblies.db]
    address = "192.0.2.1"
    services.pg.systemd = "pg.service"
    [assemblies.web]
    address = "192.0.2.2"
    services.nginx.systemd = "nginx.service"
"#;

fn at(second: u64) -> Timestamp {
    Timestamp::from_boot(Duration::from_secs(1000 + second))
}

fn engine(maintenance: &[u16]) -> Engine {
    let Ok(definition) = Deployable::parse("site.toml", PAIR) else { panic!("a definition") };
    let seed = Seed {
        first_action: ActionId(1),
        first_incident: IncidentId(1),
        random: 1,
        desired: Desired::Running,
        maintenance: maintenance.iter().map(|index| Some(AssemblyIndex(*index))).collect(),
    };
    Engine::new(Arc::new(definition), seed, at(0))
}

#[test]
fn no_two_probes_have_one_number_so_that_a_late_answer_is_never_taken_for_a_newer_one() {
    let mut engine = engine(&[]);
    let (mut numbers, mut sent) = (BTreeSet::new(), 0);
    for second in 0..300 {
        // Nobody answers: each is given up, and sent again.
        engine.handle_timeout(at(second));
        while let Some(output) = engine.poll_output() {
            if let Output::Probe { probe, .. } = output {
                sent += 1;
                numbers.insert(probe);
            }
        }
    }
    assert!(sent > 10, "{sent}");
    assert_eq!(numbers.len(), sent);
}

/// Lets time pass and takes what comes out; the newest probe of each target.
fn outputs(engine: &mut Engine, second: u64) -> (Vec<Output>, BTreeMap<Target, ProbeId>) {
    engine.handle_timeout(at(second));
    let outputs: Vec<Output> = std::iter::from_fn(|| engine.poll_output()).collect();
    let probes = outputs.iter().filter_map(|output| match output {
        Output::Probe { probe, target, .. } => Some((*target, *probe)),
        _ => None,
    });
    let probes = probes.collect();
    (outputs, probes)
}

fn answers(engine: &mut Engine, probe: ProbeId, observation: Observation, second: u64) {
    engine.handle_input(Input::Probed { probe, observation, void: false }, at(second));
}

fn dead_unit() -> Observation {
    Observation::Unit(UnitState { load: "loaded".into(), active: "failed".into(), sub: "failed".into() })
}

#[test]
fn an_answer_that_comes_again_and_again_is_one_answer() {
    let mut engine = engine(&[]);
    let (_, probes) = outputs(&mut engine, 30);
    let db = probes[&Target::Channel(AssemblyIndex(0))];
    answers(&mut engine, db, Observation::Alive, 30);
    let (_, probes) = outputs(&mut engine, 30);
    let pg = probes[&Target::Service(ServiceIndex(0))];
    answers(&mut engine, pg, dead_unit(), 30);
    outputs(&mut engine, 30);
    let before = engine.view();
    for _ in 0..10 {
        answers(&mut engine, db, Observation::Channel(ChannelFailure::TimedOut, "".into()), 30);
        answers(&mut engine, pg, dead_unit(), 30);
    }
    assert_eq!(outputs(&mut engine, 30).0, []);
    assert_eq!(engine.view(), before);
}

#[test]
fn neither_a_deadline_nor_an_answer_that_was_lost_is_a_sign_of_life() {
    for observation in [Observation::DeadlinePassed, Observation::NotObserved] {
        let mut engine = engine(&[]);
        let (_, probes) = outputs(&mut engine, 30);
        answers(&mut engine, probes[&Target::Channel(AssemblyIndex(0))], observation.clone(), 30);
        let (_, probes) = outputs(&mut engine, 30);
        assert!(!probes.contains_key(&Target::Service(ServiceIndex(0))), "{observation:?}");
    }
}

#[test]
fn the_answer_of_a_service_that_a_reload_took_away_is_dropped() {
    let mut engine = engine(&[]);
    let (_, probes) = outputs(&mut engine, 30);
    answers(&mut engine, probes[&Target::Channel(AssemblyIndex(1))], Observation::Alive, 30);
    let (_, probes) = outputs(&mut engine, 30);
    let nginx = probes[&Target::Service(ServiceIndex(1))];
    let only_db = PAIR.split("[assemblies.web]").next().unwrap_or_default();
    let Ok(definition) = Deployable::parse("site.toml", only_db) else { panic!("a definition") };
    engine.handle_input(Input::Definition(Arc::new(definition)), at(31));
    outputs(&mut engine, 31);
    answers(&mut engine, nginx, dead_unit(), 31);
    assert_eq!(outputs(&mut engine, 31).0, []);
}

#[test]
fn what_is_said_of_a_machine_that_it_does_not_have_is_dropped() {
    // A reload took it away while the answer was under way.
    let mut engine = engine(&[]);
    for assembly in [AssemblyIndex(2), AssemblyIndex(9)] {
        let surroundings = Surroundings {
            self_trusted: true,
            held_domain: None,
            path_answered_ago: None,
            path_answered_by: "".into(),
            capabilities: None,
        };
        engine.handle_input(Input::Surroundings { assembly, surroundings }, at(1));
        let (state, owner) = (InstanceState::Gone, Owner::OursOrNone);
        engine.handle_input(Input::Instance { assembly, state, address: None, ordered: false, owner }, at(1));
    }
    let outputs: Vec<Output> = std::iter::from_fn(|| engine.poll_output()).collect();
    assert!(outputs.iter().all(|it| matches!(it, Output::Probe { .. })), "{outputs:?}");
}

#[test]
fn maintenance_that_was_kept_holds_for_those_machines_that_are_still_there() {
    let engine = engine(&[1, 2, 9]);
    let view = engine.view();
    assert_eq!(view.assemblies.iter().map(|it| it.maintenance).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn what_it_tells_goes_before_what_it_asks() {
    let mut engine = engine(&[]);
    engine.handle_timeout(at(60));
    let order = Order::Maintenance { assembly: None, on: true, reason: "upgrade".into() };
    engine.handle_input(Input::Order(order), at(61));
    let tells = |output: &Output| matches!(output, Output::Report(_));
    let outputs = engine.poll_outputs();
    assert!(outputs.iter().any(tells) && !outputs.iter().all(tells), "{outputs:?}");
    assert!(outputs.is_sorted_by_key(|output| !tells(output)), "{outputs:?}");
    assert_eq!(engine.poll_outputs(), [], "each once");
}
