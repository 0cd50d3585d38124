//! What is written down of an engine, read and written down again, says the same: nothing of counts, ladders, waits and what is in flight
//! is lost or made up by a restart of cpe, nor by another one right after it.

use std::sync::Arc;
use std::time::Duration;

use cpe_proto::definition::Deployable;
use cpe_proto::event::EventKind;
use cpe_proto::id::{ActionId, IncidentId};
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::{AssemblySnapshot, AstraySnapshot, Past, Snapshot, Stage, Standing, WholeStage};
use cpe_proto::state::State;
use dped::{Engine, Order, Seed};

use crate::site::words::pause_of;
use crate::site::{Outcome, Site, Unit, seconds};

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
        for (before, after) in written.assemblies.iter().zip(&once.assemblies) {
            may_still_be_done(before, after);
        }
        assert_eq!(assumed(once), assumed(written), "at {}\n{}", site.now, site.transcript());
    }
}

/// What is in flight at a machine when cpe ends may be done for `action_give_up` (15 min) after it was begun.
fn may_still_be_done(before: &AssemblySnapshot, after: &AssemblySnapshot) {
    let in_flight =
        before.recovery.iter().filter(|it| it.service.is_none() && it.whole == WholeStage::Machine);
    let in_flight = in_flight.filter(|it| before.astray.iter().all(|known| known.action != it.action));
    let mut expected = before.astray.clone();
    expected.extend(in_flight.map(|it| AstraySnapshot {
        action: it.action,
        makes: it.rung.replaces() && it.stage != Some(Stage::Fencing),
        left: seconds(900.0).saturating_sub(it.age.into()).into(),
    }));
    assert_eq!(after.astray, expected);
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

#[test]
fn a_restart_of_cpe_brings_no_retry_of_what_is_exhausted_before_its_time() {
    let mut site = site();
    site.host("db").boot = seconds(1e6);
    site.freeze("db");
    site.until("its ladder has ended", 7200.0, |site| site.state("db") == State::Exhausted);
    site.until("a retry has failed", 1200.0, |site| {
        !site.in_flight() && site.state("db") == State::Exhausted
    });
    let tried = site.acts.len();
    site.restart(10.0);
    site.run(300.0);
    assert_eq!(site.acts.len(), tried, "{}", site.transcript());
    site.until("it is tried", 900.0, |site| site.acts.len() > tried);
}

#[test]
fn what_is_in_flight_when_cpe_ends_counts_as_an_attempt_of_what_it_was_for_and_of_nothing_else() {
    let mut site = site();
    site.kill("app/rails");
    site.unit("app/jobs", Unit::Failed);
    site.outcomes = vec![Outcome::Lost];
    site.until("one is under way", 10.0, |site| site.acts.len() == 1);
    let written = site.engine.snapshot(site.now);
    let attempts = |service: usize| {
        let past = written.assemblies[1].services[service].past.as_ref();
        past.map(|past| (past.ladder.rung, past.ladder.attempts))
    };
    assert_eq!(attempts(0), Some((Some(Rung::RestartService), 1)));
    assert_eq!(attempts(1), Some((None, 0)));
}

#[test]
fn a_stop_under_way_is_written_down_as_one() {
    let mut site = site();
    site.outcomes = vec![Outcome::Lost];
    site.order(Order::Stop);
    site.until("one is being stopped", 10.0, |site| site.acts.len() == 1);
    let written = site.engine.snapshot(site.now);
    let step = written.assemblies[1].step.as_ref();
    assert_eq!(step.map(|step| step.towards), Some(cpe_proto::snapshot::Desired::Stopped));
}

#[test]
fn what_was_being_started_when_cpe_ended_has_what_is_left_of_its_grace() {
    let mut site = Site::cold(SHOP);
    site.host("db").address = Some("10.0.0.1".into());
    site.unit("app/jobs", Unit::Failed);
    site.guest("app/jobs").broken = true;
    site.until("it was started", 60.0, |site| site.acts.len() == 1 && !site.in_flight());
    site.restart(2.0);
    site.run(15.0);
    assert_eq!(site.kinds(EventKind::IncidentOpened).len(), 0, "{}", site.transcript());
    site.until("it has failed", 30.0, |site| site.state("app/jobs") == State::Failed);
}

#[test]
fn an_attempt_that_was_in_flight_counts_once_when_its_outcome_comes_to_the_next_process() {
    let mut site = site();
    site.kill("app/rails");
    site.outcomes = vec![Outcome::Late(seconds(10.0))];
    site.until("it is under way", 10.0, |site| site.acts.len() == 1);
    site.restart(0.1);
    site.until("it is healthy", 120.0, |site| site.state("app/rails") == State::Healthy);
    let written = site.engine.snapshot(site.now);
    let past = written.assemblies[1].services[0].past.as_ref();
    assert_eq!(past.map(|past| past.ladder.attempts), Some(1), "{}", site.transcript());
}

/// Reads a snapshot under another definition.
fn under(definition: &str, site: &Site, snapshot: &Snapshot) -> Snapshot {
    let Ok(definition) = Deployable::parse("site.toml", definition) else { panic!("no definition") };
    let seed = Seed {
        first_action: ActionId(1),
        first_incident: IncidentId(1),
        random: 7,
        desired: site.desired,
        maintenance: Vec::new(),
    };
    Engine::restore(Arc::new(definition), seed, snapshot, Duration::ZERO, site.now).snapshot(site.now)
}

#[test]
fn a_service_that_was_added_while_cpe_was_down_is_started_if_it_does_not_run() {
    let site = site();
    let written = site.engine.snapshot(site.now);
    let more = SHOP.replace("services.pg.", "services.cron.systemd = \"cron.service\"\n    services.pg.");
    let read = under(&more, &site, &written);
    let cron = read.assemblies[0].services.iter().find(|it| it.name.as_str() == "cron");
    assert_eq!(cron.map(|it| it.standing), Some(Standing::ToStart));
}

#[test]
fn a_reboot_for_a_service_is_not_asked_for_any_more_when_that_is_defined_no_more() {
    let mut site = site();
    site.break_for_good("db/pg");
    site.outcomes = vec![Outcome::Late(seconds(30.0)); 4];
    site.until("its machine is asked for", 600.0, |site| {
        let written = site.engine.snapshot(site.now);
        written.assemblies[0]
            .past
            .as_ref()
            .is_some_and(|past| past.attempt.is_some() && past.escalated.is_some())
    });
    let written = site.engine.snapshot(site.now);
    let read = under(
        &SHOP.replace("services.pg.systemd = \"pg.service\"", "services.mysql.systemd = \"mysql.service\""),
        &site,
        &written,
    );
    let past = read.assemblies[0].past.as_ref();
    assert_eq!(past.and_then(|past| past.attempt.clone()), None);
}

#[test]
fn a_service_that_waits_between_two_attempts_goes_on_waiting() {
    let mut site = Site::cold(&SHOP.replace("service = { failures = 2", "service = { failures = 5"));
    site.host("db").address = Some("10.0.0.1".into());
    site.until("everything is healthy", 60.0, |site| site.view().state == State::Healthy);
    site.break_for_good("app/jobs");
    site.until("it waits for its second attempt", 60.0, |site| {
        let past = site.engine.snapshot(site.now).assemblies[1].services[1].past.clone();
        past.is_some_and(|past| past.attempt.is_some() && past.wait.is_some() && past.ladder.attempts == 1)
    });
}
