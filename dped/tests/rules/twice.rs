//! What is written down of an engine, read and written down again, says the same: nothing of counts, ladders, waits and what is in flight
//! is lost or made up by a restart of cpe, nor by another one right after it.

use std::sync::Arc;
use std::time::Duration;

use cpe_proto::event::EventKind;
use cpe_proto::id::{ActionId, IncidentId};
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::{Past, Snapshot, Stage};
use cpe_proto::state::State;
use dped::{Engine, Order, Seed};

use crate::site::words::pause_of;
use crate::site::{Outcome, Site, seconds};

const SHOP: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s", startup_grace = "30s" }
    timing = { retry_after = "10m", service_action_timeout = "20s" }
    [escalation]
    service = { failures = 2, within = "1h" }
    assembly = { failures = 2, within = "6h" }
    deployable = { failures = 2, within = "1d" }
    [assemblies.db]
    instance = "db"
    data = "none"
    max_rung = "recreate"
    services.pg.systemd = "pg.service"
    [assemblies.app]
    address = "192.0.2.2"
    after = ["db"]
    services.rails = { systemd = "rails.service", configure = "/usr/sbin/set-up", parameters = { db = "{db.address}" } }
    services.jobs = { systemd = "jobs.service", after = ["rails"] }
"#;

/// Reads a snapshot as the next process does, at once, and writes it down again.
fn again(site: &Site, snapshot: &Snapshot) -> Snapshot {
    let seed = Seed {
        first_action: ActionId(1),
        first_incident: IncidentId(1),
        random: 7,
        desired: site.desired,
        maintenance: Vec::new(),
    };
    let definition = Arc::clone(site.engine.definition());
    Engine::restore(definition, seed, snapshot, Duration::ZERO, site.now).snapshot(site.now)
}

/// But for what the next process has to assume: what was in flight may still be done, whether a creation was begun says the journal, and
/// a pace that is not one between attempts begins anew.
fn assumed(mut snapshot: Snapshot) -> Snapshot {
    for assembly in &mut snapshot.assemblies {
        assembly.astray.clear();
        if let Some(recovery) = &mut assembly.recovery
            && recovery.stage == Some(Stage::Creating)
        {
            recovery.stage = Some(Stage::Fenced);
        }
        let services = assembly.services.iter_mut().map(|service| &mut service.past);
        for kept in services.chain([&mut assembly.past]) {
            if let Some(past) = kept
                && past.attempt.is_none()
            {
                past.wait = None;
            }
            let _nothing = kept.take_if(|past| *past == Past::default());
        }
    }
    snapshot
}

/// Lets a story go on, and looks at what would be read in each second of it.
fn is_read_as_written(site: &mut Site, span: u32, story: impl Fn(&mut Site, u32)) {
    for second in 0..span {
        story(site, second);
        site.run(1.0);
        let written = site.engine.snapshot(site.now);
        let once = again(site, &written);
        assert_eq!(once, again(site, &once), "at {}\n{}", site.now, site.transcript());
        assert_eq!(assumed(once), assumed(written), "at {}\n{}", site.now, site.transcript());
    }
}

fn site() -> Site {
    let mut site = Site::cold(SHOP);
    site.host("db").address = Some("10.0.0.1".into());
    site.until("everything is healthy", 60.0, |site| site.view().state == State::Healthy);
    site.forget();
    site
}

#[test]
fn while_a_service_fails_until_its_deployable_is_restarted_and_its_ladder_ends() {
    let mut site = site();
    site.host("db").moves_to = Some("10.0.0.2".into());
    is_read_as_written(&mut site, 1500, |site, second| {
        if second == 3 {
            site.break_for_good("db/pg");
        }
    });
    let rungs = site.rungs();
    assert!(rungs.contains(&Rung::RestartDeployable) && rungs.contains(&Rung::Recreate), "{rungs:?}");
}

#[test]
fn while_a_machine_hangs_and_answers_are_lost_until_its_ladder_ends() {
    let mut site = site();
    site.host("db").boot = seconds(1e6);
    site.outcomes = vec![Outcome::Lost, Outcome::Unresolved, Outcome::Fails, Outcome::Lost];
    site.freeze("db");
    is_read_as_written(&mut site, 6000, |_, _| {});
    assert_eq!(site.state("db"), State::Exhausted, "{}", site.transcript());
}

#[test]
fn while_a_person_stops_powers_off_pauses_and_starts_what_fails() {
    let mut site = site();
    is_read_as_written(&mut site, 900, |site, second| match second {
        3 => {
            site.kill("app/jobs");
            site.outcomes = vec![Outcome::Lost];
        }
        20 => site.order(pause_of("app/jobs", true)),
        60 => site.order(pause_of("app/jobs", false)),
        120 => {
            site.outcomes = vec![Outcome::Fails, Outcome::Late(seconds(15.0))];
            site.order(Order::Stop);
        }
        240 => {
            site.outcomes = vec![Outcome::Late(seconds(15.0)), Outcome::Fails];
            site.order(Order::PowerOff);
        }
        420 => {
            site.outcomes = vec![Outcome::Late(seconds(15.0)), Outcome::Fails];
            site.order(Order::Start);
        }
        _ => {}
    });
    assert_eq!(site.view().state, State::Healthy, "{}", site.transcript());
}

#[test]
fn while_what_let_go_for_a_restart_that_came_to_nothing_is_given_back() {
    let mut site = site();
    site.break_for_good("db/pg");
    site.until("its deployable is to be restarted", 900.0, |site| {
        site.reasons(EventKind::Escalated).iter().any(|it| it.contains("restart-deployable"))
    });
    site.outcomes = vec![Outcome::Late(seconds(15.0)), Outcome::Fails, Outcome::Late(seconds(15.0))];
    is_read_as_written(&mut site, 600, |site, second| {
        if second == 25 {
            site.pause(true);
        }
    });
    assert!(
        site.reasons(EventKind::RecoveryFinished).iter().any(|it| it.starts_with("not begun")),
        "{}",
        site.transcript()
    );
}
