//! What a person orders by hand goes through the same gate (policy.md sections 3, 6 and 7): what his word stands for, and what it does not.

use cpe_proto::decision::{Answer, Refusal, Verdict};
use cpe_proto::event::EventKind;
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::{Order, Wait};

use crate::site::words::refused;
use crate::site::{Machine, Site, Unit, seconds};

const WEB: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s" }
    timing = { retry_after = "5m" }
    [escalation]
    service = { failures = 3, within = "1h" }
    assembly = { failures = 2, within = "6h" }
    [assemblies.web]
    address = "192.0.2.1"
    data = "none"
    max_rung = "recreate"
    [assemblies.web.services.nginx]
    systemd = "nginx.service"
    [assemblies.web.services.curl]
    command = "curl -f localhost"
    [assemblies.db]
    address = "192.0.2.2"
    [assemblies.db.services.pg]
    systemd = "pg.service"
"#;

#[test]
fn an_incident_does_not_end_under_an_order_whose_answer_is_under_way() {
    let mut site = Site::with(WEB);
    site.kill("web/nginx");
    site.until("it runs again", 60.0, |site| {
        site.rungs().len() == 1 && site.state("web/nginx") == State::Healthy
    });
    // It is closed after 15 s of passes, in a moment; the gate takes its time.
    site.run(8.0);
    assert_eq!(site.kinds(EventKind::IncidentClosed).len(), 0);
    site.gate_takes = seconds(4.0);
    site.recover("web/nginx", None);
    site.until("it is restarted", 5.0, |site| site.rungs().len() == 2);
    assert_eq!(site.kinds(EventKind::IncidentClosed).len(), 0, "{}", site.transcript());
    let begun = site.kinds(EventKind::RecoveryStarted);
    assert_eq!(begun[0].incident, begun[1].incident);
}

#[test]
fn a_person_restarts_what_is_healthy_and_it_is_told_as_an_incident_of_its_own() {
    let mut site = Site::with(WEB);
    let order = site.recover("web/nginx", None);
    let said = site.answer(order).unwrap();
    assert!(said.contains("action 1, restart-service, is under way; `cpe why shop#1`"), "{said}");
    site.until("it is over", 60.0, |site| !site.kinds(EventKind::IncidentClosed).is_empty());
    assert_eq!(site.rungs(), [Rung::RestartService]);
    assert_eq!(site.reasons(EventKind::Ordered), ["recover, by ann"]);
    assert_eq!(site.reasons(EventKind::IncidentOpened), ["a recovery was ordered by ann"]);
    assert_eq!(site.reasons(EventKind::RecoveryStarted), ["ordered by ann"]);
    let [decision] = &site.decisions[..] else { panic!("{:?}", site.decisions) };
    assert_eq!(decision.answer, Answer::Admitted);
    assert_eq!(dped::isolate::isolate(&decision.facts).0, decision.verdict, "it recomputes");
    assert_eq!(&*decision.evidence[0].value, "by ann");
    assert_eq!(site.notified(), Vec::<&str>::new(), "who ordered it knows");
}

#[test]
fn a_person_reboots_a_machine_that_answers_once_its_infrastructure_was_asked() {
    let mut site = Site::with(WEB);
    let order = site.recover("web", None);
    assert!(site.answer(order).unwrap().contains("reboot-soft"), "the ladder's next");
    site.until("it is over", 120.0, |site| site.state("web") == State::Healthy);
    let order = site.recover("web", Some(Rung::Rebuild));
    assert!(site.answer(order).unwrap().contains("rebuild"), "no milder attempt is asked of a person");
    site.until("it is over", 120.0, |site| site.state("web") == State::Healthy);
    assert_eq!(site.rungs(), [Rung::RebootSoft, Rung::Rebuild]);
}

#[test]
fn by_hand_the_gate_holds_as_it_does_by_itself() {
    let mut site = Site::with(WEB);
    site.maintenance(true);
    let order = site.recover("web/nginx", None);
    refused(&site, order, "maintenance");
    site.maintenance(false);
    site.until("healthy again", 60.0, |site| site.view().state == State::Healthy);
    site.pause(true);
    let order = site.recover("web", None);
    refused(&site, order, "paused");
    site.pause(false);
    site.order(Order::FleetPause { on: true });
    let order = site.recover("web", None);
    refused(&site, order, "paused");
    site.order(Order::FleetPause { on: false });
    site.refuses = Some(Refusal::BreakerOpen);
    let order = site.recover("web", None);
    refused(&site, order, "breaker_open");
    site.refuses = None;
    assert_eq!(
        site.refusals(),
        [Refusal::Maintenance, Refusal::Paused, Refusal::Paused, Refusal::BreakerOpen],
        "each has its record"
    );
    assert_eq!(site.kinds(EventKind::RecoveryRefused).len(), 4);
    assert_eq!(site.acts.len(), 0);
    let first = site.recover("web", None);
    assert!(site.answer(first).is_ok());
    let second = site.recover("web/nginx", None);
    refused(&site, second, "in_flight");
    let other = site.recover("db/pg", None);
    refused(&site, other, "budget: in flight, deployable 1 of 1");
}

#[test]
fn an_incident_that_is_only_about_an_order_ends_when_that_is_refused() {
    let made = WEB.replacen("address = \"192.0.2.1\"", "image = \"debian-12\"\nflavor = \"m1.small\"", 1);
    let mut site = Site::cold(&made);
    site.claims("web", InstanceState::Gone);
    site.run(10.0);
    assert!(site.notified()[0].contains("no instance of it exists"), "{:?}", site.notified());
    site.pause(true);
    let order = site.recover("web", None);
    refused(&site, order, "paused");
    assert_eq!(
        site.reasons(EventKind::IncidentClosed),
        ["the order was refused"],
        "it stays as it was: told"
    );
    site.pause(false);
    site.refuses = Some(Refusal::Budget);
    let order = site.recover("db", None);
    refused(&site, order, "budget");
    assert_eq!(site.reasons(EventKind::IncidentClosed).len(), 2, "refused by the gate");
    site.cut("db", Some(cpe_proto::observation::ChannelFailure::TimedOut));
    site.until("its channel is dead", 60.0, |site| site.kinds(EventKind::IncidentOpened).len() == 3);
    let order = site.recover("db", None);
    refused(&site, order, "budget");
    assert_eq!(site.reasons(EventKind::IncidentClosed).len(), 2, "a fault's own incident stays open");
}

#[test]
fn what_the_definition_forbids_or_nobody_can_do_stays_undone() {
    let mut site = Site::with(WEB);
    let order = site.recover("web/curl", None);
    refused(&site, order, "nothing to restart");
    let order = site.recover("db", Some(Rung::Recreate));
    refused(&site, order, "above max_rung");
    let order = site.recover("db", Some(Rung::Relocate));
    refused(&site, order, "relocate: above max_rung");
    site.order(Order::Stop);
    let order = site.recover("web", None);
    refused(&site, order, "cpe start");
    assert_eq!(site.acts.iter().filter(|(_, it)| matches!(it.act, dped::Act::Machine(_))).count(), 0);
}

#[test]
fn an_infrastructure_that_does_not_answer_is_not_waited_for_long() {
    let mut site = Site::with(WEB);
    site.deaf = true;
    let order = site.recover("web", Some(Rung::RebootHard));
    assert!(!site.answers.contains_key(&order), "it is waited for");
    site.run(8.0);
    refused(&site, order, "evidence: the infrastructure did not say its state within 8 s");
    site.deaf = false;
    site.claims("web", InstanceState::Unknown);
    let order = site.recover("web", Some(Rung::Recreate));
    refused(&site, order, "needs the infrastructure");
    assert_eq!(site.acts.len(), 0);
}

#[test]
fn a_restart_over_a_dead_channel_is_refused() {
    let mut site = Site::with(WEB);
    site.cut("web", Some(cpe_proto::observation::ChannelFailure::AuthenticationFailed));
    site.until("it is dead", 60.0, |site| site.state("web") == State::Misconfigured);
    let order = site.recover("web/nginx", None);
    refused(&site, order, "does not answer");
    let order = site.recover("web", Some(Rung::RebootHard));
    refused(&site, order, "no recovery can help");
}

#[test]
fn an_order_by_hand_that_does_not_work_is_a_failure_like_another() {
    let mut site = Site::with(WEB);
    site.break_for_good("web/nginx");
    let order = site.recover("web/nginx", None);
    assert!(site.answer(order).is_ok());
    site.until("the ladder goes on", 120.0, |site| site.rungs().len() > 1);
    assert!(site.reasons(EventKind::RecoveryStarted)[1].contains("failure 1 of 3"), "{}", site.transcript());
}

#[test]
fn a_pause_of_everything_counts_nothing() {
    let mut site = Site::with(WEB);
    site.order(Order::FleetPause { on: true });
    site.guard.set_paused(true);
    site.kill("web/nginx");
    site.run(60.0);
    assert_eq!(site.refusals(), [Refusal::Paused]);
    site.mend("web/nginx");
    site.run(60.0);
    site.order(Order::FleetPause { on: false });
    site.guard.set_paused(false);
    site.forget();
    site.kill("web/nginx");
    site.until("it is restarted", 20.0, |site| !site.rungs().is_empty());
    let reason = &site.reasons(EventKind::RecoveryStarted)[0];
    assert!(reason.ends_with("failure 1 of 3 in 1 h"), "the first that counts: {reason}");
}

/// The machine is silent, and its infrastructure does not know what it is like.
fn dark() -> Site {
    let mut site = Site::with(WEB);
    site.claims("web", InstanceState::Unknown);
    site.machine("web", Machine::Frozen);
    site.run(400.0);
    assert_eq!((site.acts.len(), site.state("web")), (0, State::Unreachable), "{}", site.transcript());
    assert!(site.notified()[0].contains("unreachable"), "{:?}", site.notified());
    site
}

#[test]
fn where_fencing_cannot_be_had_nothing_is_replaced_until_a_person_confirms_it() {
    let mut site = dark();
    assert!(site.confirm_fenced("web").unwrap().contains("for shop#1"));
    site.until("it is replaced", 30.0, |site| site.rungs() == [Rung::Recreate]);
    assert!(site.acts[0].1.fenced, "the shell need not verify it");
    assert_eq!(site.reasons(EventKind::Ordered), ["confirm-fenced, by ann: the rack is dark"]);
    let decision = site.decisions.last().unwrap();
    let line = decision.evidence.iter().find(|it| &*it.name == "fenced").unwrap();
    assert_eq!(&*line.value, "confirmed by ann: the rack is dark");
    assert_eq!(dped::isolate::isolate(&decision.facts).0, decision.verdict, "it recomputes");
    site.host("web").claims = None;
    site.until("it is healthy", 120.0, |site| site.state("web") == State::Healthy);
    // The next incident is another instance's.
    site.run(60.0);
    site.forget();
    site.claims("web", InstanceState::Unknown);
    site.machine("web", Machine::Frozen);
    site.run(400.0);
    assert_eq!(site.acts.len(), 0, "{}", site.transcript());
}

#[test]
fn a_confirmation_outlives_a_restart_and_not_an_answer() {
    let mut site = dark();
    site.guard.set_journal_writable(false);
    site.confirm_fenced("web").unwrap();
    site.run(5.0);
    site.restart(30.0);
    site.until("it is replaced", 60.0, |site| site.rungs() == [Rung::Recreate]);

    let mut site = dark();
    site.refuses = Some(Refusal::Budget);
    site.confirm_fenced("web").unwrap();
    site.run(5.0);
    site.machine("web", Machine::Up);
    site.until("it answers", 30.0, |site| site.state("web") == State::Healthy);
    site.refuses = None;
    site.machine("web", Machine::Frozen);
    site.run(300.0);
    assert_eq!(site.acts.len(), 0, "what answered was not down: {}", site.transcript());
}

#[test]
fn what_answers_in_any_way_cannot_be_confirmed_down() {
    let mut site = Site::with(WEB);
    assert!(site.confirm_fenced("web").unwrap_err().contains("not confirmed dead"));
    site.cut("web", Some(cpe_proto::observation::ChannelFailure::Refused));
    site.run(20.0);
    assert!(site.confirm_fenced("web").unwrap_err().contains("something answers"));
    site.machine("db", Machine::Frozen);
    site.claims("db", InstanceState::Unknown);
    site.run(60.0);
    assert!(site.confirm_fenced("db").unwrap_err().contains("above max_rung"));
}

/// What it waits for, and for how many seconds more.
fn waits(site: &Site, name: &str) -> Vec<(Wait, u64)> {
    let view = site.view();
    let waits = match name.contains('/') {
        true => view.services[usize::from(site.service_index(name).0)].waits.clone(),
        false => view.assemblies[usize::from(site.assembly_index(name).0)].waits.clone(),
    };
    waits.into_iter().map(|it| (it.what, it.until.since(site.now).as_secs())).collect()
}

#[test]
fn a_machine_says_what_it_waits_for_from_its_start_to_the_end_of_its_ladder() {
    let mut site = Site::cold(WEB);
    site.host("db").boot = seconds(1e6);
    site.freeze("db");
    assert_eq!(waits(&site, "db"), [(Wait::Grace, 60)]);
    site.until("it is rebooted", 300.0, |site| site.rungs() == [Rung::RebootHard]);
    assert!(matches!(waits(&site, "db")[..], [(Wait::Outcome, _)]), "{:?}", waits(&site, "db"));
    site.until("its ladder has ended", 3600.0, |site| site.state("db") == State::Exhausted);
    assert!(matches!(waits(&site, "db")[..], [(Wait::Retry, _)]), "{:?}", waits(&site, "db"));
    let verdict = site.engine.isolated(site.assembly_index("db"));
    assert_eq!(verdict, Some((&Verdict::Hung, 11)));
    assert_eq!(waits(&site, "web"), [], "and what is healthy waits for nothing");
}

#[test]
fn a_service_that_is_started_says_how_long_it_may_take() {
    let mut site = Site::cold(WEB);
    site.unit("web/nginx", Unit::Stopped);
    site.guest("web/nginx").broken = true;
    site.until("it was started", 60.0, |site| site.acts.len() == 1 && !site.in_flight());
    assert!(
        matches!(waits(&site, "web/nginx")[..], [(Wait::Grace, 1..=60)]),
        "{:?}",
        waits(&site, "web/nginx")
    );
    site.until("it has failed", 120.0, |site| site.state("web/nginx") == State::Failed);
    assert!(waits(&site, "web/nginx").iter().all(|(what, _)| *what != Wait::Grace));
}

#[test]
fn each_wait_says_until_when_it_lasts() {
    let mut site = Site::with(WEB);
    assert_eq!(waits(&site, "web/nginx"), []);
    site.break_for_good("db/pg");
    site.until("a second attempt waits", 60.0, |site| {
        !waits(site, "db/pg").is_empty() && site.acts.len() == 2
    });
    assert!(matches!(waits(&site, "db/pg")[..], [(Wait::Outcome | Wait::Verification | Wait::BackOff, _)]));
    site.until("it is exhausted", 900.0, |site| site.state("db/pg") == State::Exhausted);
    let [(Wait::Retry, left)] = waits(&site, "db/pg")[..] else { panic!("{:?}", waits(&site, "db/pg")) };
    assert!((200..=300).contains(&left), "retry_after is 5 min: {left}");
    site.refuses = Some(Refusal::Budget);
    site.kill("web/nginx");
    site.until("it is refused", 30.0, |site| site.refusals().contains(&Refusal::Budget));
    assert!(matches!(waits(&site, "web/nginx")[..], [(Wait::Gate, _)]));
}

#[test]
fn the_guard_says_when_what_it_holds_or_has_spent_is_free_again() {
    let mut site = Site::with(WEB);
    let infrastructure = site.engine.definition().infrastructure.clone();
    let place = |infrastructure| dped::Place { infrastructure, domains: &[] };
    assert_eq!(site.guard.waits(&place(infrastructure.clone()), false), []);
    let begun = site.now;
    for _ in 0..10 {
        let order = site.recover("web", Some(Rung::RebootSoft));
        assert!(site.answer(order).is_ok());
        site.until("it is over", 120.0, |site| site.state("web") == State::Healthy && !site.in_flight());
    }
    let order = site.recover("web", Some(Rung::RebootSoft));
    refused(&site, order, "budget: machine rungs in 10 min");
    let waits = site.guard.waits(&place(infrastructure), false);
    let [(what, until)] = &waits[..] else { panic!("{waits:?}") };
    assert_eq!(what, "10 machine actions in 10 min on infrastructure prod are spent");
    assert!(until.since(begun) >= seconds(600.0) && until.since(begun) < seconds(602.0));
}

#[test]
fn a_changed_image_is_drift_that_is_told_and_not_acted_upon() {
    let of = |image: &str, name: &str| {
        format!(
            "name = \"shop\"\ninfrastructure = \"prod\"\nprobe = {{ interval = \"2s\" }}\n[assemblies.{name}]\nimage = \"{image}\"\ndata = \"none\"\nmax_rung = \"recreate\"\nservices.nginx.systemd = \"nginx.service\"\n"
        )
    };
    let mut site = Site::with(&of("debian-12", "web"));
    site.redefine(&of("debian-13", "web"));
    site.run(60.0);
    assert_eq!((site.acts.len(), site.state("web")), (0, State::Healthy), "{}", site.transcript());
    let drift = "its instance was made of debian-12, the definition says debian-13; nothing is done about it before it is recreated";
    assert_eq!(site.view().assemblies[0].drift.as_deref(), Some(drift));
    assert_eq!(site.notified(), [format!("shop/web: drift: {drift}")]);
    site.restart(10.0);
    site.until("it is healthy", 60.0, |site| site.state("web") == State::Healthy);
    assert_eq!(site.view().assemblies[0].drift.as_deref(), Some(drift), "known after a restart");
    let order = site.recover("web", Some(Rung::Recreate));
    assert!(site.answer(order).is_ok());
    site.until("it is recreated", 120.0, |site| site.state("web") == State::Healthy && !site.in_flight());
    assert_eq!(site.view().assemblies[0].drift, None);
    site.redefine(&of("debian-14", "web"));
    site.redefine(&of("debian-13", "web"));
    assert_eq!(site.view().assemblies[0].drift, None, "it is as it was made");
}

#[test]
fn a_renamed_machine_is_told_and_watched_anew() {
    let mut site = Site::with(WEB);
    site.redefine(&WEB.replace("assemblies.web", "assemblies.www"));
    site.run(60.0);
    let told = "shop/www: drift: it was called web; it is watched anew, and its counts are not kept";
    assert_eq!((site.notified(), site.state("www"), site.acts.len()), (vec![told], State::Healthy, 0));
}
