//! When probes are due: what belongs to one assembly is asked in one round trip, and assemblies are spread over the interval
//! (policy.md section 1; a round trip costs the same for one answer as for five).

use std::collections::BTreeMap;

use cpe_proto::definition::Deployable;
use cpe_proto::id::AssemblyIndex;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;
use dped::Target;

use crate::site::{Site, seconds};

const SHOP: &str = r#"
    name = "shop"
    probe = { interval = "2s" }
    [assemblies.web]
    address = "192.0.2.1"
    services = { a.systemd = "a.service", b.systemd = "b.service", c.systemd = "c.service" }
    [assemblies.db]
    address = "192.0.2.2"
    services = { a.systemd = "a.service", b.systemd = "b.service" }
"#;

/// What of an assembly was probed at each of the times at which anything was.
fn batches(site: &Site, name: &str) -> BTreeMap<Timestamp, Vec<Target>> {
    let index = site.assembly_index(name);
    let definition: &Deployable = site.engine.definition();
    let of = |target: &Target| -> AssemblyIndex {
        match target {
            Target::Channel(index) => *index,
            Target::Service(service) => definition.service(*service).assembly,
        }
    };
    let mut batches = BTreeMap::<_, Vec<_>>::new();
    for (at, target) in site.probes.iter().filter(|(_, target)| of(target) == index) {
        batches.entry(*at).or_default().push(*target);
    }
    batches
}

#[test]
fn an_assembly_with_three_services_is_asked_in_one_batch_per_interval() {
    let mut site = Site::with(SHOP);
    site.run(10.0);
    site.forget();
    site.run(200.0);
    for (name, targets) in [("web", 4), ("db", 3)] {
        let batches = batches(&site, name);
        assert!((99..=101).contains(&batches.len()), "{name}: {} batches in 100 intervals", batches.len());
        assert!(batches.values().all(|batch| batch.len() == targets), "{name}: {batches:?}");
    }
}

#[test]
fn assemblies_are_not_asked_at_the_same_time() {
    let mut site = Site::with(SHOP);
    site.run(10.0);
    site.forget();
    site.run(20.0);
    let (web, db) = (batches(&site, "web"), batches(&site, "db"));
    assert!(web.keys().all(|at| !db.contains_key(at)), "{web:?}\n{db:?}");
}

#[test]
fn after_a_fault_its_probes_find_back_to_the_others() {
    let mut site = Site::with(SHOP);
    site.kill("web/b");
    site.until("it is restarted", 20.0, |site| !site.rungs().is_empty());
    site.until("all is healthy", 60.0, |site| site.view().state == State::Healthy);
    site.run(30.0);
    site.forget();
    site.run(60.0);
    let batches = batches(&site, "web");
    assert!(batches.values().all(|batch| batch.len() == 4), "{batches:?}");
}

#[test]
fn a_longer_interval_that_is_a_multiple_joins_every_so_many_batches() {
    let definition = SHOP.replace(
        "c.systemd = \"c.service\"",
        "c = { systemd = \"c.service\", probe = { interval = \"6s\" } }",
    );
    let mut site = Site::with(&definition);
    site.run(30.0);
    site.forget();
    site.run(60.0);
    let batches = batches(&site, "web");
    let sizes: Vec<_> = batches.values().map(Vec::len).collect();
    assert!((29..=31).contains(&sizes.len()), "{sizes:?}");
    assert_eq!(sizes.iter().filter(|size| **size == 4).count(), 10, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size >= 3), "{sizes:?}");
}

#[test]
fn no_target_waits_longer_than_its_interval() {
    let mut site = Site::with(SHOP);
    site.kill("web/b");
    site.run(300.0);
    let mut last = BTreeMap::new();
    for (at, target) in &site.probes {
        if let Some(before) = last.insert(*target, *at) {
            let gap = at.since(before);
            assert!(gap <= seconds(2.0), "{target:?} waited {gap:?}");
        }
    }
}
