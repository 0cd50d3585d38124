//! The simulated world itself: scripted as `cpe simulate` scripts it, and the same each time.

use std::sync::Arc;
use std::time::Duration;

use cpe_proto::definition::Deployable;
use cpe_proto::event::EventKind;
use cpe_proto::id::Name;
use cpe_proto::rung::Rung;
use cpe_sim::world::{Fleet, Happening, MachineFault, Place, ServiceFault, Side, What, World, draw, live};

const SHOP: &str = r#"
name = "shop"
infrastructure = "prod"
probe = { interval = "5s" }
[escalation]
service = { failures = 3, within = "1h" }
[assemblies.web]
address = "192.0.2.1"
services.nginx.systemd = "nginx.service"
[assemblies.db]
address = "192.0.2.2"
services.mariadb.systemd = "mariadb.service"
"#;

fn shop() -> Fleet {
    Fleet::of(vec![Arc::new(Deployable::parse("shop.toml", SHOP).expect("a definition"))])
}

fn place(assembly: &str, service: Option<&str>) -> Place {
    let name = |text: &str| Name::parse(text).expect("a name");
    Place { deployable: name("shop"), assembly: name(assembly), service: service.map(name) }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn rungs(world: &World) -> Vec<Rung> {
    let started = world.transcript().iter().filter_map(|entry| match &entry.what {
        What::Event(record) if record.event.kind == EventKind::RecoveryStarted => record.event.rung,
        _ => None,
    });
    started.collect()
}

fn told(world: &World) -> String {
    world.transcript().iter().map(|entry| format!("{entry}\n")).collect()
}

#[test]
fn a_scripted_crash_is_repaired_by_a_restart_and_a_hung_machine_by_a_reboot() {
    let mut world = World::new(&shop(), 1);
    world.schedule(seconds(60), Happening::Service(place("web", Some("nginx")), ServiceFault::Crash));
    world.run_until(seconds(120));
    assert_eq!(rungs(&world), [Rung::RestartService], "{}", told(&world));
    world.schedule(seconds(150), Happening::Machine(place("db", None), MachineFault::Hang));
    world.run_until(seconds(300));
    assert_eq!(rungs(&world), [Rung::RestartService, Rung::RebootHard], "{}", told(&world));
    assert!(world.is_healthy(), "{:?}\n{}", world.unwell(), told(&world));
    assert!(world.audit(), "{:?}", world.breaches());
}

#[test]
fn a_monitor_that_is_cut_off_does_nothing_to_machines_that_work() {
    let mut world = World::new(&shop(), 1);
    world.schedule(seconds(60), Happening::Cut(Side::Monitor, seconds(900)));
    world.run_until(seconds(1200));
    assert_eq!(rungs(&world), [], "{}", told(&world));
    assert!(world.is_healthy(), "{:?}\n{}", world.unwell(), told(&world));
}

#[test]
fn the_same_seed_has_the_same_transcript() {
    for seed in 0..3 {
        let lived = || {
            let (fleet, plan) = draw(seed, seconds(1800));
            let lived = live(&fleet, &plan, seed, seconds(1800));
            lived.transcript.iter().map(|entry| format!("{entry}\n")).collect::<String>()
        };
        let (first, second) = (lived(), lived());
        assert!(first.lines().count() > 20, "next to nothing happened:\n{first}");
        assert_eq!(first, second, "seed {seed}");
    }
}
