//! policy.md section 3: counting, climbing, back-off, caps, and the end of the ladder.

use cpe_proto::decision::{ChannelFact, Facts, Refusal, Verdict};
use cpe_proto::event::EventKind;
use cpe_proto::id::{ActionId, AssemblyIndex, Name};
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung::{RebootHard, RebootSoft, Rebuild, Recreate, RestartService};
use cpe_proto::state::State;
use dped::{Guard, GuardSettings, Order, Place, Request};
use expect_test::expect_file;

use crate::site::{Machine, Site, seconds};

/// The deployable of policy.md's worked table, with what a test changes in it.
fn shop(assembly: &str, more: &str) -> String {
    format!(
        r#"
        name = "shop"
        infrastructure = "prod"
        probe = {{ interval = "2s" }}
        [escalation]
        service = {{ failures = 3, within = "1h" }}
        assembly = {{ failures = 3, within = "6h" }}
        [assemblies.web]
        address = "192.0.2.1"
        {assembly}
        [assemblies.web.services.nginx]
        systemd = "nginx.service"
        {more}
    "#
    )
}

const CAPPED: &str = "data = \"none\"\nmax_rung = \"reboot-hard\"";
const UNCAPPED: &str = "data = \"none\"\nmax_rung = \"recreate\"";

#[test]
fn worked_table_a_unit_that_dies_10_s_after_each_start() {
    let mut site = Site::with(&shop(CAPPED, ""));
    site.crash_loop("web/nginx", 10.0);
    site.until("the ladder ended", 1800.0, |site| site.state("web/nginx") == State::Exhausted);
    #[rustfmt::skip]
    assert_eq!(site.rungs(), [
        RestartService, RestartService, RebootSoft, // failures 1, 2, 3
        RestartService, RestartService, RebootHard, // failures 4, 5, 6
        RestartService, RestartService, // failures 7, 8; at 9 rebuild is above max_rung
    ]);
    assert_eq!(site.notified().len(), 1, "{:?}", site.notified());
    assert_eq!(site.kinds(EventKind::IncidentOpened).len(), 1, "one thread for a person");
    expect_file!["../transcripts/worked-table.txt"].assert_eq(&site.transcript());
}

#[test]
fn without_escalation_a_scope_never_climbs_five_in_an_hour_end_in_exhausted() {
    let mut site = Site::with(&shop(UNCAPPED, "").replace("service = { failures = 3, within = \"1h\" }", ""));
    site.break_for_good("web/nginx");
    site.until("the ladder ended", 600.0, |site| site.state("web/nginx") == State::Exhausted);
    assert_eq!(site.rungs(), [RestartService; 4], "the fifth failure ends it");
    assert!(
        site.notified()[0].contains("failure 5 of 5 in 1 h; no [escalation] for the service"),
        "{:?}",
        site.notified()
    );
}

#[test]
fn a_whole_ladder_reboots_then_rebuild_then_recreate_once_each() {
    let mut site = Site::with(&shop(UNCAPPED, ""));
    site.break_for_good("web/nginx");
    site.until("the ladder ended", 7200.0, |site| site.state("web/nginx") == State::Exhausted);
    let machine: Vec<_> = site.rungs().into_iter().filter(|rung| *rung != RestartService).collect();
    assert_eq!(machine, [RebootSoft, RebootHard, Rebuild, Recreate]);
    assert_eq!(site.notified().len(), 1, "{:?}", site.notified());
}

#[test]
fn data_local_forbids_rebuild_and_recreate_with_a_record() {
    let mut site = Site::with(&shop("data = \"local\"", ""));
    site.break_for_good("web/nginx");
    site.until("the ladder ended", 7200.0, |site| site.state("web/nginx") == State::Exhausted);
    assert!(!site.rungs().contains(&Rebuild) && !site.rungs().contains(&Recreate));
    let data = dped::ladder::Bounds {
        max_rung: Recreate,
        data: cpe_proto::definition::Data::Local,
        capabilities: site.capabilities.as_ref(),
        deployable: false,
        relocate: dped::ladder::Elsewhere::NotGiven,
        climbs: true,
    };
    let ladder = dped::ladder::Ladder { climbed: true, rebooted: true, ..Default::default() };
    let choice = dped::ladder::choose(&Verdict::Hung, false, &ladder, data);
    let local = dped::ladder::Skip::LocalData;
    assert_eq!((choice.rung, choice.skipped), (None, vec![(Rebuild, local), (Recreate, local)]));
}

#[test]
fn a_rung_that_the_adapter_cannot_do_is_skipped() {
    let mut site = Site::with(&shop(CAPPED, ""));
    site.capabilities.as_mut().unwrap().0.remove(&cpe_proto::infrastructure::Operation::RebootSoft);
    site.crash_loop("web/nginx", 10.0);
    site.until("a reboot was begun", 300.0, |site| site.rungs().contains(&RebootHard));
    let decision = site.decisions.last().unwrap();
    assert!(decision.evidence.iter().any(|it| &*it.name == "skipped reboot-soft"), "{decision:?}");
}

#[test]
fn without_an_infrastructure_the_ladder_ends_with_the_service() {
    let mut site = Site::with(&shop("", "").replace("infrastructure = \"prod\"", ""));
    site.break_for_good("web/nginx");
    site.until("the ladder ended", 600.0, |site| site.state("web/nginx") == State::Exhausted);
    assert_eq!(site.rungs(), [RestartService; 2]);
    assert!(site.notified()[0].contains("no infrastructure"), "{:?}", site.notified());
}

#[test]
fn a_service_with_nothing_to_restart_climbs_at_once() {
    let definition = shop(CAPPED, "[assemblies.web.services.queue]\nprocess = \"queue\"\n");
    let mut site = Site::with(&definition);
    site.break_for_good("web/queue");
    site.until("its machine is rebooted", 60.0, |site| site.rungs() == [RebootSoft]);
}

#[test]
fn hung_is_rebooted_hard_at_once() {
    let mut site = Site::with(&shop(CAPPED, ""));
    site.freeze("web");
    site.until("a reboot was begun", 120.0, |site| !site.rungs().is_empty());
    assert_eq!(site.rungs(), [RebootHard]);
}

#[test]
fn exhausted_is_one_notification_then_one_lowest_rung_attempt_every_retry_after_never_climbing() {
    let mut site = Site::with(&shop(CAPPED, ""));
    site.break_for_good("web/nginx");
    site.until("the ladder ended", 1800.0, |site| site.state("web/nginx") == State::Exhausted);
    site.forget();
    site.run(4.0 * 1800.0 + 60.0);
    assert_eq!(site.rungs(), [RestartService; 4]);
    for pair in site.acts.windows(2) {
        let apart = pair[1].0.since(pair[0].0);
        assert!(apart >= seconds(1800.0) && apart < seconds(1810.0), "{apart:?}");
    }
    assert_eq!(site.notified(), [""; 0], "one notification, and that was before");
    assert_eq!(site.state("web/nginx"), State::Exhausted);
    site.guest("web/nginx").broken = false;
    site.until("a dated retry works", 1900.0, |site| site.state("web/nginx") == State::Healthy);
}

#[test]
fn the_dated_retries_of_exhausted_machines_leave_room_for_a_first_attempt_and_wait_in_silence() {
    let mut site = Site::with(&shop("max_rung = \"reboot-hard\"", ""));
    site.host("web").boot = seconds(1e6);
    site.freeze("web");
    site.until("the ladder ended", 7200.0, |site| site.state("web") == State::Exhausted);
    site.forget();
    let budget = GuardSettings { machine_rungs_within: seconds(86_400.0), ..GuardSettings::default() };
    site.guard = Guard::new(budget);
    retries_of_others(&mut site);
    site.run(2.0 * 3600.0);
    assert_eq!(site.refusals(), [Refusal::Budget], "others' retries have had their half");
    assert_eq!(site.rungs(), []);
    assert_eq!(site.notified(), [""; 0], "that it is exhausted was told");
    site.recover("web", Some(RebootHard));
    site.until("a person's order is no retry", 60.0, |site| site.rungs() == [RebootHard]);
}

/// Other machines of the same infrastructure are exhausted, too, and tried again as far as the guard lets them.
fn retries_of_others(site: &mut Site) {
    let place = Place { infrastructure: site.engine.definition().infrastructure.clone(), domains: &[] };
    for number in 0..6 {
        let Ok(other) = Name::parse(&format!("other-{number}")) else { panic!("a name") };
        let retry = Request {
            action: ActionId(number),
            rung: Some(RebootHard),
            assembly: AssemblyIndex(0),
            service: None,
            verdict: Verdict::Hung,
            facts: Facts {
                self_trusted: true,
                held_domain: None,
                instance: Some(InstanceState::Active),
                ordered: false,
                channel: ChannelFact::Dead(ChannelFailure::TimedOut),
                live_witness: false,
                path_proven: true,
            },
            evidence_age: seconds(0.0),
            evidence_age_max: seconds(4.0),
            give_up: seconds(900.0),
            part_of: None,
            dated_retry: true,
        };
        site.guard.ask(&other, &retry, &place, site.now);
        site.guard.release(&other, retry.action, site.now);
    }
}

#[test]
fn an_exhausted_machine_is_retried_with_its_lowest_rung_too() {
    let mut site = Site::with(&shop("max_rung = \"reboot-hard\"", ""));
    site.host("web").boot = seconds(1e6);
    site.freeze("web");
    site.until("the ladder ended", 7200.0, |site| site.state("web") == State::Exhausted);
    assert_eq!(site.rungs(), [RebootHard; 2], "the third failure ends it");
    site.forget();
    site.host("web").boot = seconds(20.0);
    site.until("a dated retry works", 2000.0, |site| site.state("web") == State::Healthy);
    assert_eq!(site.rungs(), [RebootHard]);
    assert_eq!(site.notified(), [""; 0]);
}

#[test]
fn an_exhausted_incident_stays_open_until_it_is_proven_healthy() {
    let mut site = Site::with(&shop(CAPPED, ""));
    site.break_for_good("web/nginx");
    site.until("the ladder ended", 1800.0, |site| site.state("web/nginx") == State::Exhausted);
    site.mend("web/nginx");
    site.until("it passes", 10.0, |site| site.state("web/nginx") == State::Healthy);
    site.run(3000.0);
    assert_eq!(site.kinds(EventKind::IncidentClosed).len(), 0);
    site.run(700.0);
    let incidents = site.view().incidents;
    site.run(6.0 * 3600.0);
    assert_eq!(site.kinds(EventKind::IncidentClosed).len(), 1, "{incidents:?}\n{}", site.transcript());
    site.forget();
    site.kill("web/nginx");
    site.run(60.0);
    assert_eq!(
        site.reasons(EventKind::RecoveryStarted),
        ["unit inactive, confirmed by 2 probes; failure 1 of 3 in 1 h"]
    );
}

#[test]
fn retry_clears_exhausted() {
    let mut site = Site::with(&shop(CAPPED, ""));
    site.break_for_good("web/nginx");
    site.until("the ladder ended", 1800.0, |site| site.state("web/nginx") == State::Exhausted);
    site.forget();
    site.guest("web/nginx").broken = false;
    site.order(Order::Retry { assembly: None });
    site.until("it is healthy", 30.0, |site| site.state("web/nginx") == State::Healthy);
    assert_eq!(site.reasons(EventKind::RecoveryStarted).len(), 1);
    assert!(site.reasons(EventKind::RecoveryStarted)[0].ends_with("failure 1 of 3 in 1 h"));
}

#[test]
fn attempts_of_one_rung_back_off() {
    let definition =
        shop(CAPPED, "").replace("failures = 3, within = \"1h\"", "failures = 12, within = \"1h\"");
    let mut site = Site::with(&definition);
    site.break_for_good("web/nginx");
    site.until("eleven restarts", 3600.0, |site| site.rungs().len() == 11);
    // Each attempt fails at once, 0.2 s after it was begun.
    let waits: Vec<f64> =
        site.acts.windows(2).map(|pair| pair[1].0.since(pair[0].0).as_secs_f64() - 0.2).collect();
    for (wait, plain) in waits.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]) {
        // Fresh evidence is waited for as well: a probe each 2 s.
        assert!(
            *wait >= plain * 0.9 - 0.001 && *wait <= plain + 2.1,
            "{wait} s where {plain} s is the rule: {waits:?}"
        );
    }
}

#[test]
fn failures_that_do_not_lie_within_the_window_do_not_escalate() {
    let definition =
        shop(CAPPED, "").replace("failures = 3, within = \"1h\"", "failures = 3, within = \"5m\"");
    let mut site = Site::with(&definition);
    for _ in 0..8 {
        site.kill("web/nginx");
        site.run(160.0);
    }
    assert_eq!(site.rungs(), [RestartService; 8]);
}

#[test]
fn a_recovery_that_fails_is_a_failure_of_its_scope() {
    let mut site = Site::with(&shop(CAPPED, ""));
    site.guest("web/nginx").dies_after = Some(seconds(1.0));
    site.kill("web/nginx");
    site.until("a reboot", 120.0, |site| site.rungs().contains(&RebootSoft));
    assert_eq!(site.rungs(), [RestartService, RestartService, RebootSoft]);
    let finished = site.reasons(EventKind::RecoveryFinished);
    assert_eq!(
        finished,
        ["unit failed", "unit failed"],
        "a restart that exits 0 for a unit that dies at once"
    );
}

#[test]
fn an_escalated_service_that_runs_again_calls_the_reboot_off() {
    let mut site = Site::with(&shop(CAPPED, ""));
    site.break_for_good("web/nginx");
    site.until("two restarts", 60.0, |site| site.rungs().len() == 2);
    site.refuses = Some(Refusal::Budget);
    site.run(30.0);
    assert_eq!(site.refusals().last(), Some(&Refusal::Budget));
    site.mend("web/nginx");
    site.run(10.0);
    site.refuses = None;
    site.run(600.0);
    assert_eq!(site.rungs(), [RestartService; 2]);
    assert_eq!(site.state("web"), State::Healthy);
}

#[test]
fn a_reboot_is_verified_by_the_channel_and_every_service_that_should_run() {
    let definition = shop(
        CAPPED,
        "[assemblies.web.services.worker]\nsystemd = \"worker.service\"\nafter = [\"web/nginx\"]\n",
    );
    let mut site = Site::with(&definition);
    site.guest("web/worker").enabled = false;
    site.machine("web", Machine::Frozen);
    site.until("both run", 240.0, |site| !site.rungs().is_empty() && site.state("web") == State::Healthy);
    assert_eq!(site.rungs(), [RebootHard]);
    assert_eq!(site.state("web/worker"), State::Healthy);
    expect_file!["../transcripts/reboot-starts-what-is-not-enabled.txt"].assert_eq(&site.transcript());
}

#[test]
fn reboots_that_worked_in_earlier_incidents_are_no_reason_to_rebuild() {
    // policy.md section 7: "a reboot of this incident that failed". Each hang is mended by one reboot.
    let mut site = Site::with(&shop(UNCAPPED, ""));
    let hangs_and_is_mended = |site: &mut Site| {
        site.freeze("web");
        site.until("it is mended", 900.0, |site| {
            site.state("web") == State::Healthy && !site.in_flight() && site.hosts[0].machine == Machine::Up
        });
    };
    for _ in 0..2 {
        hangs_and_is_mended(&mut site);
        site.until("the incident is over", 60.0, |site| site.view().incidents.is_empty());
    }
    hangs_and_is_mended(&mut site);
    assert_eq!(
        site.rungs(),
        [RebootHard; 3],
        "the third is the N-th, but no reboot of its incident has failed"
    );
    // It stays the same incident, so that the next one is a failure of that reboot.
    site.run(600.0);
    hangs_and_is_mended(&mut site);
    assert_eq!(site.rungs(), [RebootHard, RebootHard, RebootHard, Rebuild]);
}

#[test]
fn a_crash_loop_that_is_an_incident_of_its_own_each_time_still_ends_in_exhausted() {
    // It lives for 20 s after each start: longer than an incident is kept open for.
    for assembly in [CAPPED, UNCAPPED] {
        let mut site = Site::with(&shop(assembly, ""));
        site.crash_loop("web/nginx", 20.0);
        site.until("the ladder ended", 3600.0, |site| site.state("web/nginx") == State::Exhausted);
        assert_eq!(site.notified().len(), 1, "{:?}", site.notified());
        let replaced = site.rungs().into_iter().filter(|rung| *rung > RebootHard).collect::<Vec<_>>();
        let wanted: &[_] = if assembly == CAPPED { &[] } else { &[Rebuild, Recreate] };
        assert_eq!(replaced, wanted);
    }
}

#[test]
fn what_comes_and_goes_by_itself_too_fast_for_a_reboot_is_told_to_a_person() {
    // Found by a scenario: it was well again before each reboot was due, the count began anew each time, and nobody was told of 40 incidents.
    for interval in ["2s", "5s"] {
        let mut site = Site::with(&shop(UNCAPPED, "").replace("2s", interval));
        for _ in 0..25 {
            site.break_for_good("web/nginx");
            site.run(25.0);
            site.mend("web/nginx");
            site.run(25.0);
        }
        assert_eq!(site.notified().len(), 1, "{:?}", site.notified());
        assert!(site.notified()[0].contains("failure 3 of 3 in 6 h"), "{:?}", site.notified());
    }
}

#[test]
fn an_incident_that_a_recreate_ended_is_closed_and_does_not_stay_open_for_the_whole_window() {
    let mut site = Site::with(&shop(UNCAPPED, ""));
    site.break_for_good("web/nginx");
    site.until("it is recreated", 3600.0, |site| site.rungs().last() == Some(&Recreate));
    site.mend("web/nginx");
    site.until("it is closed", 180.0, |site| site.view().incidents.is_empty());
    assert_eq!(site.notified(), [""; 0], "nobody was needed");
}
