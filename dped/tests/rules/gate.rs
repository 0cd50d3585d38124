//! policy.md section 7 and the engine's own checks: what is refused and why, what comes back from actions, maintenance, pause, observe.

use cpe_proto::decision::{Answer, Refusal};
use cpe_proto::event::EventKind;
use cpe_proto::id::{ActionId, Name};
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::{Act, ActionOutcome, Input, Order};
use expect_test::expect_file;

use crate::site::words::{part, pause_of};
use crate::site::{Machine, Outcome, Site, Unit, seconds};

const WEB: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s" }
    [escalation]
    service = { failures = 3, within = "1h" }
    assembly = { failures = 3, within = "6h" }
    [assemblies.web]
    address = "192.0.2.1"
    [assemblies.web.services.nginx]
    systemd = "nginx.service"
    [assemblies.web.services.php]
    systemd = "php.service"
"#;

#[test]
fn every_decision_holds_what_it_rests_on() {
    let mut site = Site::with(WEB);
    site.kill("web/nginx");
    site.run(10.0);
    let [decision] = &site.decisions[..] else { panic!("one decision: {:?}", site.decisions) };
    assert_eq!((decision.answer, decision.rung), (Answer::Admitted, Rung::RestartService));
    assert_eq!(
        dped::isolate::isolate(&decision.facts).0,
        decision.verdict,
        "it recomputes to the same verdict"
    );
    let line = |value: &cpe_proto::decision::Value| format!("{}: {}", value.name, value.value);
    let evidence: Vec<_> = decision.evidence.iter().map(line).collect();
    assert_eq!(
        evidence,
        [
            "probe: unit inactive, confirmed by 2 probes",
            "age of the evidence: 0 s, at most 4 s",
            "count: failure 1 of 3 in 1 h"
        ]
    );
    let gates: Vec<_> = decision.gates.iter().map(line).collect();
    assert_eq!(
        gates,
        [
            "mode: act",
            "maintenance: no",
            "paused: no",
            "in flight, assembly: 0 of 1",
            "fleet: not paused",
            "self: trusted, no canaries: peers prove the path",
            "age of the evidence: 0 s, at most 4 s",
            "in flight, deployable: 0 of 1",
            "in flight, infrastructure prod: 0 of 10",
            "in flight, fleet: 0 of 50",
            "journal: writable",
        ]
    );
}

#[test]
fn a_standing_refusal_is_told_once_then_counted_and_asked_again_with_a_pace() {
    let mut site = Site::with(WEB);
    site.refuses = Some(Refusal::BreakerOpen);
    site.kill("web/nginx");
    site.run(120.0);
    assert_eq!(site.kinds(EventKind::RecoveryRefused).len(), 1);
    assert_eq!(site.refusals(), [Refusal::BreakerOpen]);
    let times = site.view().services[0].refused;
    assert!((50..=62).contains(&times), "asked each 2 s: {times}");
    site.refuses = Some(Refusal::Budget);
    site.run(30.0);
    assert_eq!(site.refusals(), [Refusal::BreakerOpen, Refusal::Budget], "another reason is told");
    site.refuses = None;
    site.until("it is restarted", 5.0, |site| site.rungs() == [Rung::RestartService]);
    assert!(
        site.reasons(EventKind::RecoveryStarted)[0].ends_with("failure 1 of 3 in 1 h"),
        "waiting is not counted"
    );
}

#[test]
fn without_a_journal_probing_and_notifying_go_on_and_nothing_is_done() {
    let mut site = Site::with(WEB);
    site.guard.set_journal_writable(false);
    site.kill("web/nginx");
    site.unit("web/php", Unit::Masked);
    site.run(250.0);
    assert_eq!((site.acts.len(), site.refusals()), (0, vec![Refusal::Journal]));
    assert_eq!(site.notified().len(), 1);
    site.guard.set_journal_writable(true);
    site.until("it is restarted", 5.0, |site| site.rungs() == [Rung::RestartService]);
}

#[test]
fn an_action_without_a_durable_intent_was_not_begun_and_is_asked_for_again_uncounted() {
    let mut site = Site::with(WEB);
    site.outcomes = vec![Outcome::NotBegun; 3];
    site.kill("web/nginx");
    site.until("it is healthy", 60.0, |site| {
        site.acts.len() > 3 && site.state("web/nginx") == State::Healthy
    });
    assert_eq!(site.rungs(), [Rung::RestartService; 4]);
    let reasons = site.reasons(EventKind::RecoveryStarted);
    assert!(reasons.iter().all(|reason| reason.ends_with("failure 1 of 3 in 1 h")), "{reasons:?}");
}

#[test]
fn observe_decides_and_records_everything_and_does_nothing() {
    let mut site = Site::with(&WEB.replace("infrastructure", "mode = \"observe\"\ninfrastructure"));
    site.kill("web/nginx");
    site.run(3600.0);
    assert_eq!((site.acts.len(), site.rungs()), (0, vec![]));
    let [decision] = &site.decisions[..] else { panic!("one decision: {:?}", site.decisions) };
    assert_eq!(
        (decision.answer, decision.rung),
        (Answer::Refused(Refusal::ObserveMode), Rung::RestartService)
    );
    site.machine("web", Machine::Off);
    site.run(120.0);
    let decision = site.decisions.last().unwrap();
    assert_eq!((decision.answer, decision.rung), (Answer::Refused(Refusal::ObserveMode), Rung::Start));
    assert_eq!(site.acts.len(), 0);
}

#[test]
fn observe_starts_nothing_either() {
    let mut site = Site::cold(&WEB.replace("infrastructure", "mode = \"observe\"\ninfrastructure"));
    site.unit("web/nginx", Unit::Stopped);
    site.run(600.0);
    assert_eq!(site.acts.len(), 0);
    assert_eq!(site.refusals(), [Refusal::ObserveMode]);
}

#[test]
fn maintenance_watches_without_acting_or_counting_and_begins_anew_after_it() {
    let mut site = Site::with(WEB);
    site.maintenance(true);
    for _ in 0..5 {
        site.kill("web/nginx");
        site.run(20.0);
        site.mend("web/nginx");
        site.run(20.0);
    }
    site.break_for_good("web/nginx");
    site.run(300.0);
    assert_eq!(site.acts.len(), 0);
    assert!(site.refusals().iter().all(|refusal| *refusal == Refusal::Maintenance));
    assert_eq!(site.state("web/nginx"), State::Failed);
    site.maintenance(false);
    site.run(55.0);
    assert_eq!((site.acts.len(), site.state("web/nginx")), (0, State::Starting), "startup_grace");
    site.until("it is a fault like another", 20.0, |site| site.rungs() == [Rung::RestartService]);
    assert!(
        site.reasons(EventKind::RecoveryStarted)[0].ends_with("failure 1 of 3 in 1 h"),
        "none of maintenance's counts"
    );
}

#[test]
fn what_was_down_before_maintenance_stays_known_and_is_not_told_again_after_it() {
    let mut site = Site::with(WEB);
    site.cut("web", Some(ChannelFailure::HostKey));
    site.until("a person is told", 60.0, |site| site.notified().len() == 1);
    let incident = site.view().assemblies[0].incident;
    site.maintenance(true);
    site.run(3600.0);
    site.maintenance(false);
    site.run(3600.0);
    assert_eq!(
        (site.notified().len(), site.view().assemblies[0].incident),
        (1, incident),
        "{}",
        site.transcript()
    );
    assert_eq!(site.kinds(EventKind::IncidentOpened).len(), 1);
}

#[test]
fn what_went_down_in_maintenance_is_told_at_its_end_and_not_before() {
    for way in [ChannelFailure::HostKey, ChannelFailure::Refused, ChannelFailure::TimedOut] {
        let mut site = Site::with(WEB);
        site.canary = false;
        site.maintenance(true);
        site.cut("web", Some(way));
        site.run(3600.0);
        assert_eq!(site.notified(), Vec::<&str>::new(), "{way:?}");
        site.maintenance(false);
        site.until("a person is told", 500.0, |site| site.notified().len() == 1);
    }
    let mut site = Site::with(WEB);
    site.maintenance(true);
    site.unit("web/nginx", Unit::Masked);
    site.run(3600.0);
    assert_eq!(site.notified(), Vec::<&str>::new());
    site.maintenance(false);
    site.until("a person is told", 100.0, |site| site.notified().len() == 1);
    // What a person knows from before is not told once more by the next window.
    site.maintenance(true);
    site.run(600.0);
    site.maintenance(false);
    site.run(600.0);
    assert_eq!(site.notified().len(), 1, "{}", site.transcript());
}

#[test]
fn the_grace_after_maintenance_holds_also_for_a_machine_that_could_not_be_reached_at_its_end() {
    let mut site = Site::with(WEB);
    site.maintenance(true);
    site.kill("web/nginx");
    site.cut("web", Some(ChannelFailure::Refused));
    site.run(60.0);
    site.maintenance(false);
    site.run(25.0);
    site.cut("web", None);
    site.run(25.0);
    assert_eq!(site.rungs(), [], "50 s after it, of a grace of 60 s: {}", site.transcript());
    site.until("it is started", 30.0, |site| site.rungs() == [Rung::RestartService]);
}

#[test]
fn maintenance_of_one_assembly_holds_back_only_that_one() {
    let pair =
        format!("{WEB}\n[assemblies.db]\naddress = \"192.0.2.2\"\nservices.db.systemd = \"db.service\"\n");
    let mut site = Site::with(&pair);
    let web = site.assembly_index("web");
    site.order(Order::Maintenance { assembly: Some(web), on: true, reason: "disk".into() });
    site.kill("web/nginx");
    site.kill("db/db");
    site.run(60.0);
    assert_eq!(site.acts.len(), 1);
    assert_eq!((site.state("web/nginx"), site.state("db/db")), (State::Failed, State::Healthy));
    assert_eq!(site.reasons(EventKind::MaintenanceChanged), ["on: disk"]);
}

#[test]
fn maintenance_never_strands_an_admitted_action_half_way() {
    let mut site = Site::with(WEB);
    site.freeze("web");
    site.until("a reboot was begun", 60.0, |site| site.rungs() == [Rung::RebootHard]);
    site.run(1.0);
    site.maintenance(true);
    site.until("it is verified all the same", 120.0, |site| {
        site.kinds(EventKind::RecoveryFinished).len() == 1
    });
    assert!(site.reasons(EventKind::RecoveryFinished)[0].starts_with("healthy after"));
}

#[test]
fn a_pause_neither_counts_nor_acts_and_a_resume_acts_on_what_still_fails() {
    let mut site = Site::with(WEB);
    site.pause(true);
    site.break_for_good("web/nginx");
    site.run(600.0);
    assert_eq!((site.acts.len(), site.refusals()), (0, vec![Refusal::Paused]));
    site.pause(false);
    site.until("it is restarted", 5.0, |site| site.rungs() == [Rung::RestartService]);
    assert!(site.reasons(EventKind::RecoveryStarted)[0].ends_with("failure 1 of 3 in 1 h"));
}

#[test]
fn a_pause_of_a_failure_domain_holds_back_what_is_in_it_and_what_comes_into_it() {
    let inside = WEB.replace("[assemblies.web]", "[assemblies.web]\nfailure_domains = [\"az1\"]");
    let mut site = Site::with(&inside.replace("az1", "az2"));
    let domains = std::collections::BTreeSet::from([Name::parse("az1").expect("a name")]);
    site.order(Order::DomainPause { domains: domains.clone(), on: true });
    site.kill("web/nginx");
    site.until("what is elsewhere is restarted", 60.0, |site| {
        site.kinds(EventKind::RecoveryFinished).len() == 1
    });
    site.redefine(&inside);
    let before = site.acts.len();
    site.break_for_good("web/nginx");
    site.run(600.0);
    assert_eq!((site.acts.len(), site.refusals()), (before, vec![Refusal::Paused]));
    site.order(Order::DomainPause { domains, on: false });
    site.until("it is restarted", 5.0, |site| site.acts.len() > before);
}

#[test]
fn a_pause_of_a_service_holds_back_its_restarts_and_no_other_and_climbs_no_ladder() {
    let mut site = Site::with(WEB);
    site.order(pause_of("web/nginx", true));
    site.break_for_good("web/nginx");
    site.run(600.0);
    assert_eq!((site.acts.len(), site.refusals()), (0, vec![Refusal::Paused]));
    site.kill("web/php");
    site.until("the other is restarted", 30.0, |site| site.rungs() == [Rung::RestartService]);
    site.until("and runs", 30.0, |site| site.state("web/php") == State::Healthy);
    site.order(pause_of("web/nginx", false));
    site.until("it is restarted, too", 5.0, |site| site.rungs().len() == 2);
    assert!(site.reasons(EventKind::RecoveryStarted)[1].ends_with("failure 1 of 3 in 1 h"));
    let told = site.reasons(EventKind::BreakerChanged);
    assert_eq!(told, ["paused: looking (by ann)", "resumed: looking (by ann)"]);
}

#[test]
fn a_paused_service_that_does_not_run_makes_no_reboot_of_its_machine_fail() {
    let mut site = Site::with(WEB);
    site.order(pause_of("web/nginx", true));
    site.break_for_good("web/nginx");
    site.freeze("web");
    site.until("its machine is rebooted", 200.0, |site| site.rungs() == [Rung::RebootHard]);
    site.run(900.0);
    assert_eq!(site.rungs(), [Rung::RebootHard], "{}", site.transcript());
    assert_eq!(site.state("web/php"), State::Healthy);
}

#[test]
fn a_pause_of_an_assembly_holds_back_all_of_it_and_is_of_its_name_whatever_the_definition_says() {
    let mut site = Site::with(WEB);
    site.order(Order::PartsPause { parts: part("web"), on: true, reason: "".into() });
    assert!(site.kinds(EventKind::BreakerChanged).is_empty(), "a new engine is told what was told before");
    site.redefine(&WEB.replace("2s", "3s"));
    site.freeze("web");
    site.run(600.0);
    assert_eq!((site.acts.len(), site.refusals()), (0, vec![Refusal::Paused]));
    site.recover("web/nginx", None);
    site.run(5.0);
    assert_eq!(site.acts.len(), 0, "by hand neither");
    site.order(pause_of("web", false));
    site.until("it is rebooted", 60.0, |site| site.rungs() == [Rung::RebootHard]);
}

#[test]
fn a_late_outcome_of_an_old_action_is_reported_not_believed() {
    let mut site = Site::with(WEB);
    site.outcomes = vec![Outcome::Late(seconds(300.0))];
    site.kill("web/nginx");
    site.until("it was over before", 130.0, |site| site.kinds(EventKind::RecoveryFinished).len() == 1);
    site.kill("web/nginx");
    site.run(5.0);
    let before = site.acts.len();
    site.run(300.0);
    let late: Vec<_> = site
        .reasons(EventKind::RecoveryFinished)
        .into_iter()
        .filter(|it| it.starts_with("late outcome"))
        .collect();
    assert_eq!(late, ["late outcome, not believed: done: done"]);
    assert_eq!(site.acts.len(), before, "and changes nothing");
}

#[test]
fn a_doubled_outcome_and_one_of_an_action_that_never_was_change_nothing() {
    let mut site = Site::with(WEB);
    site.outcomes = vec![Outcome::Twice];
    site.kill("web/nginx");
    site.run(10.0);
    site.input(Input::Acted { action: ActionId(777), outcome: ActionOutcome::Failed { detail: "?".into() } });
    site.run(60.0);
    assert_eq!(site.rungs(), [Rung::RestartService]);
    assert_eq!(site.state("web/nginx"), State::Healthy);
}

#[test]
fn an_admission_that_comes_twice_or_too_late_is_given_back() {
    let mut site = Site::with(WEB);
    site.input(Input::Admission { action: ActionId(4711), answer: Answer::Admitted, gates: Vec::new() });
    site.run(1.0);
    assert_eq!((site.acts.len(), site.guard.in_flight()), (0, 0));
}

#[test]
fn an_unresolved_restart_holds_the_assembly_until_a_fresh_probe_looked() {
    let mut site = Site::with(WEB);
    site.outcomes = vec![Outcome::Unresolved];
    site.kill("web/nginx");
    site.until("a restart was begun", 5.0, |site| site.acts.len() == 1);
    site.kill("web/php");
    site.run(80.0);
    assert_eq!(site.acts.len(), 1, "the assembly is held");
    site.until("what was looked at is well", 60.0, |site| site.state("web/nginx") == State::Healthy);
    site.until("the other one is restarted then", 30.0, |site| site.rungs().len() == 2);
}

#[test]
fn an_unresolved_reboot_is_looked_at_and_the_next_rung_supersedes_it() {
    let mut site = Site::with(WEB);
    site.host("web").boot = seconds(1e6);
    site.outcomes = vec![Outcome::Lost];
    site.freeze("web");
    site.until("a second reboot", 1200.0, |site| site.rungs().len() == 2);
    let [first, second] = [site.acts[0].0, site.acts[1].0];
    assert!(
        second.since(first) >= seconds(300.0 + 60.0),
        "not before its timeout and a look: {:?}",
        second.since(first)
    );
    assert_eq!(site.rungs(), [Rung::RebootHard; 2]);
    expect_file!["../transcripts/reboot-unresolved.txt"].assert_eq(&site.transcript());
}

#[test]
fn an_action_that_nothing_can_look_at_ends_in_exhausted_after_action_give_up() {
    let mut site = Site::with(WEB);
    site.host("web").boot = seconds(1e6);
    site.outcomes = vec![Outcome::Lost];
    site.freeze("web");
    site.until("a reboot was begun", 60.0, |site| site.acts.len() == 1);
    site.deaf = true;
    site.until("it is given up", 1000.0, |site| site.state("web") == State::Exhausted);
    assert!(site.notified()[0].contains("unresolved for 15 min"), "{:?}", site.notified());
    assert_eq!(site.acts.len(), 1);
}

#[test]
fn a_verification_without_an_answer_counts_nothing() {
    let mut site = Site::with(WEB);
    site.kill("web/nginx");
    site.until("a restart was begun", 5.0, |site| site.acts.len() == 1);
    site.unit("web/nginx", Unit::Odd);
    site.guest("web/nginx").broken = true;
    site.outcomes = vec![Outcome::Unresolved];
    site.run(3600.0);
    assert_eq!(site.acts.len(), 1, "unknown never leads to an action\n{}", site.transcript());
    assert_eq!(site.reasons(EventKind::RecoveryFinished), ["no answer says whether it worked"]);
    assert_eq!(site.state("web/nginx"), State::Unknown);
}

#[test]
fn what_is_refused_for_one_reason_and_another_in_turn_is_told_to_a_person_once() {
    // Others take the budget whenever it has room, and its own deployable is busy meanwhile.
    let mut site = Site::with(WEB);
    site.kill("web/nginx");
    for _ in 0..60 {
        for refusal in [Refusal::Budget, Refusal::InFlight] {
            site.refuses = Some(refusal);
            site.run(15.0);
        }
    }
    let said = site.notified();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("shop/web/nginx: recovery is refused for 5 min: "), "{said:?}");
    assert_eq!(site.refusals(), [Refusal::Budget, Refusal::InFlight], "each is recorded once");
}

#[test]
fn a_refusal_that_stands_for_long_is_told_to_a_person_once() {
    let mut site = Site::with(WEB);
    site.guard.set_journal_writable(false);
    site.kill("web/nginx");
    site.run(3600.0);
    assert_eq!(site.notified(), ["shop/web/nginx: recovery is refused for 5 min: journal"]);
}

#[test]
fn two_faults_of_one_assembly_are_recovered_one_after_the_other() {
    let mut site = Site::with(WEB);
    site.kill("web/nginx");
    site.kill("web/php");
    site.until("both are healthy", 30.0, |site| {
        site.rungs().len() == 2 && site.view().state == State::Healthy
    });
    assert!(site.acts[1].0.since(site.acts[0].0) >= seconds(5.0), "verified before the next");
}

#[test]
fn two_assemblies_of_one_deployable_are_recovered_one_after_the_other() {
    let pair =
        format!("{WEB}\n[assemblies.db]\naddress = \"192.0.2.2\"\nservices.db.systemd = \"db.service\"\n");
    let mut site = Site::with(&pair);
    site.kill("web/nginx");
    site.kill("db/db");
    site.until("both are healthy", 30.0, |site| {
        site.rungs().len() == 2 && site.view().state == State::Healthy
    });
    assert!(site.acts[1].0.since(site.acts[0].0) >= seconds(5.0), "1 in flight per deployable");
    assert_eq!(site.refusals(), [Refusal::Budget]);
}

#[test]
fn a_changed_definition_keeps_what_did_not_change() {
    let mut site = Site::with(WEB);
    site.break_for_good("web/nginx");
    site.until("one restart failed", 10.0, |site| site.kinds(EventKind::RecoveryFinished).len() == 1);
    let changed =
        format!("{WEB}\n[assemblies.db]\naddress = \"192.0.2.2\"\nservices.db.systemd = \"db.service\"\n");
    site.redefine(&changed.replace("php", "fpm"));
    assert_eq!(site.state("web/nginx"), State::Failed);
    assert_eq!(site.state("web/fpm"), State::Starting);
    site.until("a changed service is watched", 10.0, |site| site.state("web/fpm") == State::Healthy);
    site.until("a new assembly is watched", 10.0, |site| site.state("db/db") == State::Healthy);
    site.until("and counting goes on", 10.0, |site| site.rungs().len() >= 2);
    assert!(site.reasons(EventKind::RecoveryStarted)[1].ends_with("failure 2 of 3 in 1 h"));
}

#[test]
fn a_machine_is_not_acted_on_while_a_restart_of_its_service_is_under_way() {
    let mut site = Site::with(WEB);
    site.outcomes.push(Outcome::Lost);
    site.kill("web/nginx");
    site.until("a restart is begun", 10.0, |site| site.acts.len() == 1);
    site.freeze("web");
    site.run(80.0);
    assert_eq!(site.rungs(), [Rung::RestartService], "it may take 90 s\n{}", site.transcript());
    site.until("then the machine is rebooted", 1200.0, |site| site.rungs().len() == 2);
}

#[test]
fn a_changed_number_of_a_service_keeps_its_state_its_counts_and_its_incident() {
    let mut site = Site::with(WEB);
    site.break_for_good("web/nginx");
    site.until("one restart failed", 10.0, |site| site.kinds(EventKind::RecoveryFinished).len() == 1);
    let unit = "systemd = \"nginx.service\"";
    let changed = WEB.replace(unit, &format!("{unit}\nprobe = {{ startup_grace = \"50s\" }}"));
    assert_ne!(changed, WEB);
    site.redefine(&changed);
    assert_eq!(site.state("web/nginx"), State::Failed);
    site.until("and counting goes on", 10.0, |site| site.rungs().len() >= 2);
    assert!(site.reasons(EventKind::RecoveryStarted)[1].ends_with("failure 2 of 3 in 1 h"));
    assert_eq!(site.kinds(EventKind::IncidentOpened).len(), 1);
}

#[test]
fn an_action_on_what_a_changed_definition_does_not_have_is_let_go() {
    let mut site = Site::with(WEB);
    site.kill("web/php");
    site.until("a restart was begun", 5.0, |site| site.acts.len() == 1);
    let smaller = WEB.replace("[assemblies.web.services.php]\n    systemd = \"php.service\"\n", "");
    let action = site.acts[0].1.action;
    assert!(matches!(site.acts[0].1.act, Act::RestartService(_)));
    site.acts.clear();
    site.redefine(&smaller);
    site.input(Input::Acted { action, outcome: ActionOutcome::Done { detail: "done".into() } });
    assert_eq!(site.guard.in_flight(), 0, "its lease ended");
    assert!(site.reasons(EventKind::RecoveryFinished)[0].starts_with("late outcome"));
}
