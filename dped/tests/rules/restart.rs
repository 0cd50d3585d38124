//! policy.md section 8: cpe ends and is started again. Counts, ladders and incidents go on, evidence begins anew, time spent down counts as
//! elapsed, and what was in flight is looked at, never repeated (design.md section 4, rule 4).

use std::sync::Arc;
use std::time::Duration;

use cpe_proto::definition::Deployable;
use cpe_proto::event::EventKind;
use cpe_proto::id::{ActionId, IncidentId};
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::Snapshot;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;
use dped::{Act, Desired, Engine, Order, Seed};

use crate::site::{Machine, Outcome, Site, Unit, seconds};

const SHOP: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s" }
    [escalation]
    service = { failures = 3, within = "1h" }
    assembly = { failures = 3, within = "6h" }
    [assemblies.web]
    address = "192.0.2.1"
    data = "none"
    max_rung = "recreate"
    [assemblies.web.services.nginx]
    systemd = "nginx.service"
    [assemblies.web.services.php]
    systemd = "php.service"
"#;

/// What was done to the machine and its services, in order, without the steps of a start.
fn done(site: &Site) -> Vec<Rung> {
    let rung = |act: Act| match act {
        Act::RestartService(_) => Some(Rung::RestartService),
        Act::Machine(rung) => Some(rung),
        Act::Fence(_) | Act::Power(_) | Act::StartService(_) | Act::StopService(_) | Act::Reconfigure(_) => {
            None
        }
    };
    site.acts.iter().filter_map(|(_, action)| rung(action.act)).collect()
}

#[test]
fn a_restart_in_a_calm_hour_changes_nothing_and_tells_nothing() {
    let mut site = Site::with(SHOP);
    site.run(60.0);
    site.forget();
    site.restart(30.0);
    site.run(60.0);
    assert_eq!(site.view().state, State::Healthy);
    assert_eq!(done(&site), []);
    assert_eq!(site.kinds(EventKind::IncidentOpened).len(), 0);
    assert_eq!(site.notified(), [""; 0]);
}

#[test]
fn what_died_while_nobody_watched_is_a_fault_and_not_started_in_silence() {
    let mut site = Site::with(SHOP);
    site.run(60.0);
    site.kill("web/nginx");
    site.restart(30.0);
    site.run(60.0);
    assert_eq!(site.acts.len(), 1);
    assert_eq!(done(&site), [Rung::RestartService]);
    assert_eq!(
        site.reasons(EventKind::RecoveryStarted),
        ["unit inactive, confirmed by 2 probes; failure 1 of 3 in 1 h"]
    );
    assert_eq!(site.state("web/nginx"), State::Healthy);
}

#[test]
fn an_action_that_was_in_flight_is_looked_at_and_never_repeated_at_each_rung() {
    let rungs = [Rung::RestartService, Rung::RebootSoft, Rung::RebootHard, Rung::Rebuild, Rung::Recreate];
    for rung in rungs {
        for down in [0.5, 30.0, 3600.0] {
            let mut site = Site::with(SHOP);
            site.break_for_good("web/nginx");
            site.until("the rung is begun", 7200.0, |site| done(site).last() == Some(&rung));
            // This one helps.
            site.guest("web/nginx").broken = false;
            let (so_far, incidents) = (done(&site), site.view().incidents);
            site.restart(down);
            assert_eq!(site.view().recoveries, 1, "{rung} is in flight after {down} s");
            site.until("all is well", 600.0, |site| site.view().state == State::Healthy);
            assert_eq!(done(&site), so_far, "{rung}, down for {down} s\n{}", site.transcript());
            assert_eq!(site.view().incidents, incidents, "it goes on under its number");
            site.until("its incident is closed", 7.0 * 3600.0, |site| site.view().incidents.is_empty());
            assert_eq!(site.kinds(EventKind::IncidentOpened).len(), 1, "{}", site.transcript());
            assert_eq!(site.kinds(EventKind::IncidentClosed).len(), 1, "{}", site.transcript());
        }
    }
}

/// A machine that somebody deleted, up to the moment at which its recreate is `begun`.
fn vanished(begun: impl Fn(&Site) -> bool) -> Site {
    let shop = SHOP.replace("address = \"192.0.2.1\"", "image = \"debian-12\"");
    let mut site = Site::with(&shop);
    site.run(60.0);
    site.host("web").machine = Machine::Gone;
    site.until("the step is begun", 300.0, begun);
    site
}

fn fences(site: &Site) -> usize {
    site.acts.iter().filter(|(_, it)| matches!(it.act, Act::Fence(_))).count()
}

#[test]
fn killed_before_the_fence_was_verified_it_is_looked_at_and_the_creation_follows() {
    for down in [0.5, 30.0, 3600.0] {
        let mut site = vanished(|site| fences(site) == 1);
        site.restart(down);
        site.until("it is replaced", 600.0, |site| site.state("web") == State::Healthy && !site.in_flight());
        assert_eq!((fences(&site), done(&site)), (1, vec![Rung::Recreate]), "{}", site.transcript());
        assert_eq!(site.reasons(EventKind::Fenced), ["looked at; its replacement is made"]);
        let actions: Vec<_> = site.acts.iter().map(|(_, it)| it.action).collect();
        assert_eq!(actions[0], actions[1], "it is one action");
        assert_eq!(site.notified(), [""; 0]);
    }
}

#[test]
fn killed_between_fence_and_creation_the_creation_follows_once() {
    for down in [0.5, 30.0, 3600.0] {
        let mut site = vanished(|site| done(site) == [Rung::Recreate]);
        // The snapshot was written, the record of the creation was not.
        site.lose_creation();
        site.restart(down);
        site.until("it is replaced", 600.0, |site| site.state("web") == State::Healthy && !site.in_flight());
        assert_eq!((fences(&site), done(&site)), (1, vec![Rung::Recreate]), "{}", site.transcript());
        assert_eq!(site.notified(), [""; 0]);
    }
}

#[test]
fn a_creation_whose_outcome_a_crash_lost_is_adopted_and_never_begun_again() {
    for down in [0.5, 30.0, 3600.0] {
        let mut site = vanished(|site| done(site) == [Rung::Recreate]);
        site.restart(down);
        site.until("it is adopted", 600.0, |site| site.state("web") == State::Healthy && !site.in_flight());
        assert_eq!((fences(&site), done(&site)), (1, vec![Rung::Recreate]), "{}", site.transcript());
        assert_eq!(site.notified(), [""; 0]);
    }
}

#[test]
fn a_creation_that_came_to_nothing_while_nobody_watched_is_told_and_not_begun_again() {
    let mut site = vanished(|site| done(site) == [Rung::Recreate]);
    site.outcomes.push(Outcome::Fails);
    site.restart(30.0);
    site.until("it is told", 600.0, |site| site.state("web") == State::Exhausted);
    assert_eq!((fences(&site), done(&site)), (1, vec![Rung::Recreate]), "{}", site.transcript());
    assert_eq!(site.notified().len(), 1);
    site.run(3600.0);
    assert_eq!(done(&site), [Rung::Recreate], "what makes a new instance is not retried by itself");
    site.order(Order::Retry { assembly: None });
    site.until("a person's retry mends it", 600.0, |site| site.state("web") == State::Healthy);
    assert_eq!(done(&site), [Rung::Recreate; 2], "another action, admitted by itself");
}

#[test]
fn maintenance_between_fence_and_creation_does_not_strand_the_machine() {
    let mut site = vanished(|site| fences(site) == 1);
    site.order(Order::Maintenance { assembly: None, on: true, reason: "disk".into() });
    site.restart(5.0);
    site.until("it is replaced", 600.0, |site| done(site) == [Rung::Recreate]);
}

#[test]
fn the_ladder_is_the_same_with_a_restart_after_each_attempt_as_without_any() {
    let climb = |restarts: bool| {
        let mut site = Site::with(SHOP);
        site.break_for_good("web/nginx");
        let mut attempts = 0;
        while site.state("web/nginx") != State::Exhausted {
            let known = site.acts.len();
            site.until("the next attempt, or the end", 3600.0, |site| {
                site.acts.len() > known || site.state("web/nginx") == State::Exhausted
            });
            attempts += 1;
            assert!(attempts < 100, "it never ends\n{}", site.transcript());
            if restarts && site.state("web/nginx") != State::Exhausted {
                site.restart(5.0);
            }
        }
        (done(&site), site.notified().len())
    };
    assert_eq!(climb(true), climb(false));
}

#[test]
fn counts_survive_and_a_failure_that_was_counted_is_not_counted_twice() {
    let mut site = Site::with(SHOP);
    site.crash_loop("web/nginx", 8.0);
    site.until("two attempts", 120.0, |site| done(site).len() == 2);
    site.until("it failed again and waits", 60.0, |site| site.state("web/nginx") == State::Healthy);
    site.restart(10.0);
    site.until("the third failure escalates", 120.0, |site| done(site).len() == 3);
    assert_eq!(done(&site), [Rung::RestartService, Rung::RestartService, Rung::RebootSoft]);

    // While the second attempt waits: it is still the second.
    let mut site = Site::with(SHOP);
    site.break_for_good("web/nginx");
    site.until("the first attempt failed", 60.0, |site| {
        done(site).len() == 1 && site.state("web/nginx") == State::Failed
    });
    site.restart(0.1);
    site.until("the second attempt", 60.0, |site| done(site).len() == 2);
    let reasons = site.reasons(EventKind::RecoveryStarted);
    assert!(reasons[1].ends_with("failure 2 of 3 in 1 h"), "{reasons:?}");
}

#[test]
fn time_spent_down_counts_as_elapsed() {
    // A back-off that ended meanwhile is over.
    let mut site = Site::with(SHOP);
    site.freeze("web");
    site.outcomes = vec![Outcome::Fails, Outcome::Fails];
    site.until("the first reboot failed", 120.0, |site| site.acts.len() == 1 && !site.in_flight());
    site.until("the second waits", 60.0, |site| site.reasons(EventKind::FaultIsolated).len() == 2);
    site.restart(40.0);
    let waited = site.until("the second", 120.0, |site| site.acts.len() == 2);
    assert!(waited < seconds(35.0), "{waited:?}\n{}", site.transcript());

    // Failures that left their window meanwhile do not count.
    let mut site = Site::with(SHOP);
    site.crash_loop("web/nginx", 8.0);
    site.until("two attempts", 120.0, |site| done(site).len() == 2);
    site.until("it runs", 60.0, |site| site.state("web/nginx") == State::Healthy);
    site.restart(4000.0);
    site.until("another attempt", 120.0, |site| done(site).len() == 3);
    assert_eq!(done(&site)[2], Rung::RestartService, "failure 1 of 3 again");
}

#[test]
fn time_spent_down_is_not_proven_healthy() {
    let mut site = Site::with(SHOP);
    site.kill("web/nginx");
    site.until("it is healthy again", 60.0, |site| {
        done(site).len() == 1 && site.state("web/nginx") == State::Healthy
    });
    let incidents = site.view().incidents;
    assert_eq!(incidents.len(), 1);
    site.restart(600.0);
    assert_eq!(site.view().incidents, incidents, "nobody has seen it healthy meanwhile");
    let after = site.until("it is closed", 120.0, |site| site.view().incidents.is_empty());
    assert!(after >= seconds(15.0), "{after:?} is less than the settling time");
}

#[test]
fn what_was_exhausted_stays_so_until_its_retry_is_due() {
    let mut site = Site::with(SHOP);
    site.break_for_good("web/nginx");
    site.until("the ladder ended", 7200.0, |site| site.state("web/nginx") == State::Exhausted);
    let (acts, notices) = (site.acts.len(), site.notices.len());
    site.restart(60.0);
    assert_eq!(site.state("web/nginx"), State::Exhausted);
    site.run(1500.0);
    assert_eq!((site.acts.len(), site.state("web/nginx")), (acts, State::Exhausted));
    site.run(400.0);
    assert_eq!(site.acts.len(), acts + 1, "one attempt after 30 min\n{}", site.transcript());
    assert_eq!(site.notices.len(), notices, "told once: {:?}", site.notified());
    // One that is due is made at once.
    site.restart(2000.0);
    site.run(60.0);
    assert_eq!(site.acts.len(), acts + 2);
}

#[test]
fn an_exhausted_machine_stays_so_too() {
    let mut site = Site::with(&SHOP.replace("max_rung = \"recreate\"", "max_rung = \"reboot-hard\""));
    site.freeze("web");
    site.outcomes = vec![Outcome::Fails; 9];
    site.until("the ladder ended", 7200.0, |site| site.state("web") == State::Exhausted);
    let (acts, notices) = (site.acts.len(), site.notices.len());
    site.restart(60.0);
    assert_eq!(site.state("web"), State::Exhausted);
    site.run(1500.0);
    assert_eq!((site.acts.len(), site.notices.len()), (acts, notices), "{}", site.transcript());
    site.run(400.0);
    assert_eq!(site.acts.len(), acts + 1);
}

#[test]
fn orders_are_carried_on() {
    let mut site = Site::with(SHOP);
    site.pause(true);
    site.kill("web/nginx");
    site.restart(10.0);
    site.run(120.0);
    assert!(site.view().paused);
    assert_eq!(site.acts.len(), 0);
    site.pause(false);
    site.until("it is restarted", 60.0, |site| done(site) == [Rung::RestartService]);

    let mut site = Site::with(SHOP);
    site.order(Order::Stop);
    site.until("the first stop is begun", 30.0, |site| site.acts.len() == 1);
    site.restart(10.0);
    site.until("all is stopped", 120.0, |site| site.view().state == State::Stopped);
    let stopped = |site: &Site| site.guests.iter().all(|guest| guest.unit == Unit::Stopped);
    assert!(stopped(&site), "{}", site.transcript());
    site.restart(10.0);
    site.run(60.0);
    assert!(stopped(&site) && site.view().state == State::Stopped);
    // An order that was kept and not carried out yet is carried out.
    site.desired = Desired::Running;
    site.restart(10.0);
    site.until("all runs", 120.0, |site| site.view().state == State::Healthy);
}

#[test]
fn a_start_goes_on_where_it_was() {
    let mut site = Site::seeded(SHOP, 1, Desired::Stopped);
    site.run(10.0);
    site.order(Order::Start);
    site.until("the first service is started", 60.0, |site| site.acts.len() == 1);
    site.restart(10.0);
    site.until("all runs", 120.0, |site| site.view().state == State::Healthy);
    assert_eq!(done(&site), [], "a start is no recovery\n{}", site.transcript());
    assert_eq!(site.kinds(EventKind::IncidentOpened).len(), 0);
}

#[test]
fn what_is_another_machine_or_another_check_begins_anew() {
    let mut site = Site::with(SHOP);
    site.break_for_good("web/nginx");
    site.until("the ladder ended", 7200.0, |site| site.state("web/nginx") == State::Exhausted);
    let Some((snapshot, _)) = site.written.clone() else { panic!("it was never written down") };
    let restored = |definition: &str, snapshot: &Snapshot| {
        let Ok(definition) = Deployable::parse("site.toml", definition) else { panic!("a definition") };
        let seed = Seed {
            first_action: ActionId(1),
            first_incident: IncidentId(1),
            random: 1,
            desired: Desired::Running,
            maintenance: Vec::new(),
        };
        Engine::restore(Arc::new(definition), seed, snapshot, Duration::ZERO, site.now).view()
    };
    let state_with = |definition: &str| restored(definition, &snapshot);
    assert_eq!(state_with(SHOP).services[0].state, State::Exhausted);
    assert_eq!(state_with(&SHOP.replace("192.0.2.1", "192.0.2.7")).services[0].state, State::Starting);
    let other = state_with(&SHOP.replace("\"nginx.service\"", "\"nginx2.service\""));
    assert_eq!((other.services[0].state, other.services[1].state), (State::Starting, State::Starting));
    let mut of_the_future = snapshot.clone();
    of_the_future.version = 2;
    let services = restored(SHOP, &of_the_future).services;
    assert_eq!(services[0].state, State::Starting, "what cannot be read says nothing");
}

#[test]
fn ages_are_kept_over_a_boot_of_the_controller() {
    let mut site = Site::with(SHOP);
    site.crash_loop("web/nginx", 8.0);
    site.until("two attempts", 120.0, |site| done(site).len() == 2);
    let snapshot = site.engine.snapshot(site.now);
    let definition = Arc::clone(site.engine.definition());
    let seed = Seed {
        first_action: ActionId(1),
        first_incident: IncidentId(1),
        random: 1,
        desired: Desired::Running,
        maintenance: Vec::new(),
    };
    // The clock has just begun; the failures are 20 minutes old.
    let now = Timestamp::from_boot(Duration::from_secs(5));
    let engine = Engine::restore(definition, seed, &snapshot, Duration::from_secs(1200), now);
    let again = engine.snapshot(now);
    let ages = |snapshot: &Snapshot| -> Vec<u64> {
        let past = snapshot.assemblies[0].services[0].past.clone();
        past.map_or(Vec::new(), |past| past.ladder.failures.iter().map(|age| age.0).collect())
    };
    let before: Vec<u64> = ages(&snapshot).iter().map(|age| age + 1_200_000).collect();
    assert_eq!((ages(&again), before.len()), (before, 2));
    assert!(again.next_action >= snapshot.next_action && again.next_incident >= snapshot.next_incident);
}

#[test]
fn nothing_is_written_while_nothing_changes() {
    let mut site = Site::with(SHOP);
    site.run(60.0);
    let writes = site.writes;
    site.run(3600.0);
    assert_eq!(site.writes, writes, "a calm hour");
    // Nor by a refusal that stands.
    site.refuses = Some(cpe_proto::decision::Refusal::Budget);
    site.kill("web/nginx");
    site.run(60.0);
    let writes = site.writes;
    site.run(600.0);
    assert_eq!(site.writes, writes, "refused again and again");
}

#[test]
fn what_an_action_rests_on_is_written_before_it_is_begun() {
    let mut site = Site::with(SHOP);
    site.break_for_good("web/nginx");
    site.run(7200.0);
    assert!(site.acts.len() > 5, "{}", site.transcript());
    assert_eq!(site.unwritten, [], "each action was in what was written before it");
}
