//! policy.md section 1, rule by rule: what probes conclude, and when they are sent.

use cpe_proto::event::EventKind;
use cpe_proto::observation::{ChannelFailure, Observation, UnitState};
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::health::{self, ChannelEvent, ChannelHealth, HealthEvent, SERVICE_STATES};
use dped::judge::{Judgement, judge};
use dped::{Input, Target};
use expect_test::expect_file;

use crate::site::{Site, Unit, seconds};

const WEB: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s" }
    [assemblies.web]
    address = "192.0.2.1"
    [assemblies.web.services.nginx]
    systemd = "nginx.service"
    [assemblies.web.services.worker]
    process = "worker"
    restart = { systemd = "worker.service" }
"#;

#[test]
fn a_stopped_unit_is_seen_confirmed_restarted_and_verified() {
    let mut site = Site::with(WEB);
    site.kill("web/nginx");
    let seen = site.until("a restart was begun", 3.0, |site| !site.rungs().is_empty());
    assert!(
        seen <= seconds(2.6),
        "{seen:?} is over interval + confirm_interval + round trip\n{}",
        site.transcript()
    );
    site.until("it is healthy", 10.0, |site| site.state("web/nginx") == State::Healthy);
    assert_eq!(site.rungs(), [Rung::RestartService]);
    assert_eq!(
        site.reasons(EventKind::RecoveryStarted),
        ["unit inactive, confirmed by 2 probes; failure 1 of 5 in 1 h"]
    );
    assert_eq!(site.reasons(EventKind::RecoveryFinished), ["healthy after 5.2 s"]);
    site.until("the incident is closed", 20.0, |site| site.view().incidents.is_empty());
    expect_file!["../transcripts/unit-stopped.txt"].assert_eq(&site.transcript());
}

#[test]
fn the_table_of_systemd_units() {
    let Ok(check) = cpe_proto::definition::UnitName::parse("nginx.service") else { panic!("a unit's name") };
    let check = cpe_proto::definition::Check::Systemd(check);
    let mut table = String::from("LoadState    ActiveState (SubState)        judgement\n");
    for load in ["loaded", "masked", "not-found", "bad-setting", "error", "merged", ""] {
        for (active, sub) in [
            ("active", "running"),
            ("activating", "start"),
            ("activating", "auto-restart"),
            ("reloading", "reload"),
            ("deactivating", "stop-sigterm"),
            ("inactive", "dead"),
            ("failed", "failed"),
            ("maintenance", ""),
        ] {
            let unit = UnitState { load: load.into(), active: active.into(), sub: sub.into() };
            let verdict = match judge(&check, &Observation::Unit(unit)) {
                Judgement::Passed => "passed".to_owned(),
                Judgement::Failed(clause) => format!("failed: {clause}"),
                Judgement::Misconfigured(clause) => format!("misconfigured: {clause}"),
                Judgement::Pending(clause) => format!("unknown, pending: {clause}"),
                other => format!("{other:?}"),
            };
            table.push_str(&format!("{load:<13}{:<30}{verdict}\n", format!("{active} ({sub})")));
        }
    }
    expect_file!["../tables/systemd.txt"].assert_eq(&table);
}

#[test]
fn the_table_of_the_other_kinds_of_check() {
    let site = Site::cold(
        r#"
        name = "shop"
        [assemblies.web]
        address = "192.0.2.1"
        services.systemd.systemd = "nginx.service"
        services.process.process = "nginx"
        services.tcp.tcp = 80
        services.command.command = "true"
        services.nagios.nagios = "check_disk"
        services.ocf.ocf = "ocf:heartbeat:Dummy"
        services.lsb.lsb = "exim4"
        services.http.http = "http://{web.address}/"
    "#,
    );
    let observations = [
        Observation::Exited(0, "".into()),
        Observation::Exited(1, "no".into()),
        Observation::Exited(2, "".into()),
        Observation::Exited(3, "".into()),
        Observation::Exited(4, "".into()),
        Observation::Exited(5, "".into()),
        Observation::Exited(6, "".into()),
        Observation::Exited(7, "".into()),
        Observation::Exited(8, "".into()),
        Observation::Exited(9, "".into()),
        Observation::Exited(126, "permission denied".into()),
        Observation::Exited(127, "".into()),
        Observation::Exited(190, "".into()),
        Observation::Exited(191, "".into()),
        Observation::NotAsked("its address is not known".into()),
        Observation::NotRunnable("sudo: a password is required".into()),
        Observation::Connected,
        Observation::NotConnected("refused".into()),
        Observation::DeadlinePassed,
        Observation::NotObserved,
        Observation::Channel(ChannelFailure::TimedOut, "".into()),
        Observation::Alive,
    ];
    let mut table = String::new();
    for service in &site.engine.definition().services {
        for observation in &observations {
            table.push_str(&format!(
                "{:<9}{:<55}{:?}\n",
                service.name,
                format!("{observation:?}"),
                judge(&service.check, observation)
            ));
        }
    }
    expect_file!["../tables/kinds.txt"].assert_eq(&table);
}

#[test]
fn the_table_of_a_services_states() {
    let mut table = format!("{:<18}", "");
    for state in SERVICE_STATES {
        table.push_str(&format!("{state:<15}"));
    }
    for event in HealthEvent::ALL {
        table.truncate(table.trim_end().len());
        table.push_str(&format!("\n{:<18}", format!("{event:?}")));
        for state in SERVICE_STATES {
            let after = health::service(state, event).map_or("cannot happen", State::as_str);
            table.push_str(&format!("{after:<15}"));
        }
    }
    table.truncate(table.trim_end().len());
    expect_file!["../tables/service.txt"].assert_eq(&(table + "\n"));
}

#[test]
fn the_table_of_a_channels_health() {
    let mut table = String::new();
    for event in ChannelEvent::ALL {
        for health in ChannelHealth::ALL {
            table.push_str(&format!(
                "{:<12}{:<12}{:?}\n",
                format!("{health:?}"),
                format!("{event:?}"),
                health::channel(health, event)
            ));
        }
    }
    expect_file!["../tables/channel.txt"].assert_eq(&table);
}

#[test]
fn a_first_failure_is_confirmed_every_confirm_interval_until_a_pass() {
    let mut site = Site::with(WEB);
    site.kill("web/nginx");
    site.until("it is suspected", 3.0, |site| site.state("web/nginx") == State::Suspected);
    site.mend("web/nginx");
    site.run(60.0);
    assert_eq!(site.state("web/nginx"), State::Healthy);
    assert_eq!((site.rungs(), site.kinds(EventKind::IncidentOpened).len()), (vec![], 0));
}

#[test]
fn a_probe_is_due_an_interval_after_the_start_of_the_last_one_and_only_one_is_in_flight() {
    let mut site = Site::with(WEB);
    site.latency = seconds(3.0);
    site.run(20.0);
    site.probes.clear();
    site.run(60.0);
    let nginx = Target::Service(site.service_index("web/nginx"));
    let times: Vec<_> =
        site.probes.iter().filter(|(_, target)| *target == nginx).map(|(at, _)| *at).collect();
    for pair in times.windows(2) {
        assert_eq!(
            pair[1].since(pair[0]),
            seconds(3.0),
            "max(start + interval, end), and the answer takes 3 s"
        );
    }
    site.latency = seconds(0.5);
    site.run(10.0);
    site.probes.clear();
    site.run(60.0);
    let times: Vec<_> =
        site.probes.iter().filter(|(_, target)| *target == nginx).map(|(at, _)| *at).collect();
    for pair in times.windows(2) {
        assert_eq!(pair[1].since(pair[0]), seconds(2.0));
    }
}

#[test]
fn first_probes_are_spread_over_the_interval() {
    let mut definition = String::from("name = \"shop\"\nprobe = { interval = \"10s\" }\n");
    for index in 0..40 {
        definition.push_str(&format!("[assemblies.web-{index}]\naddress = \"192.0.2.{index}\"\n"));
    }
    let mut site = Site::cold(&definition);
    site.run(10.0);
    let in_half = |from: f64, to: f64| {
        let begun = site.probes[0].0.before(site.probes[0].0.since_boot() - seconds(1000.0));
        site.probes.iter().filter(|(at, _)| (seconds(from)..seconds(to)).contains(&at.since(begun))).count()
    };
    assert!(
        in_half(0.0, 5.0) > 8 && in_half(5.0, 10.0) > 8,
        "{} and {}",
        in_half(0.0, 5.0),
        in_half(5.0, 10.0)
    );
}

#[test]
fn a_void_result_neither_passes_nor_fails() {
    let mut site = Site::with(WEB);
    site.lagging = true;
    site.kill("web/nginx");
    site.freeze("web");
    site.run(120.0);
    assert_eq!((site.events.len(), site.rungs()), (0, vec![]));
    assert_eq!(site.state("web/nginx"), State::Healthy);
}

#[test]
fn unknown_never_counts_as_failed() {
    for unit in [Unit::Odd, Unit::Activating] {
        let mut site = Site::with(WEB);
        site.unit("web/nginx", unit);
        site.run(55.0);
        assert_eq!((site.state("web/nginx"), site.rungs()), (State::Unknown, vec![]), "{unit:?}");
    }
    let mut site = Site::with(WEB);
    site.unit("web/nginx", Unit::Odd);
    site.run(7200.0);
    assert_eq!((site.state("web/nginx"), site.rungs()), (State::Unknown, vec![]));
}

#[test]
fn a_unit_that_is_still_activating_after_startup_grace_has_failed() {
    let mut site = Site::with(WEB);
    site.unit("web/nginx", Unit::Activating);
    let waited = site.until("it has failed", 70.0, |site| site.state("web/nginx") == State::Recovering);
    assert!(waited >= seconds(59.0), "{waited:?}");
    assert!(
        site.reasons(EventKind::RecoveryStarted)[0].starts_with("unit activating (auto-restart) for 60 s")
    );
}

/// Found by seed 3389: the wait of an earlier start was still counted, so the next one had no grace at all.
#[test]
fn each_start_has_a_grace_of_its_own() {
    let mut site = Site::with(WEB);
    site.unit("web/nginx", Unit::Activating);
    site.run(50.0);
    site.unit("web/nginx", Unit::Masked);
    site.run(10.0);
    site.unit("web/nginx", Unit::Activating);
    site.run(50.0);
    assert_eq!(site.rungs(), vec![]);
}

#[test]
fn misconfigured_never_climbs_is_told_once_and_ends_when_it_passes() {
    for unit in [Unit::Masked, Unit::NotFound] {
        let mut site = Site::with(WEB);
        site.unit("web/nginx", unit);
        site.run(7200.0);
        assert_eq!((site.state("web/nginx"), site.rungs()), (State::Misconfigured, vec![]));
        assert_eq!(site.notified().len(), 1, "{:?}", site.notified());
        site.mend("web/nginx");
        site.until("it ends when it passes", 5.0, |site| site.state("web/nginx") == State::Healthy);
    }
}

#[test]
fn a_unit_that_was_unmasked_and_not_started_is_started_after_all() {
    let mut site = Site::with(WEB);
    site.unit("web/nginx", Unit::Masked);
    site.run(30.0);
    site.unit("web/nginx", Unit::Stopped);
    site.until("it is healthy again", 30.0, |site| site.state("web/nginx") == State::Healthy);
    assert_eq!(site.rungs(), [Rung::RestartService]);
}

#[test]
fn a_probe_that_hangs_is_unknown_and_failed_after_the_threshold_over_a_healthy_channel() {
    let mut site = Site::with(WEB);
    site.unit("web/worker", Unit::Hangs);
    site.until("it is unknown at first", 10.0, |site| site.state("web/worker") == State::Unknown);
    assert_eq!(site.rungs(), []);
    site.until("and then recovered", 10.0, |site| site.rungs() == [Rung::RestartService]);
    assert_eq!(
        site.reasons(EventKind::RecoveryStarted),
        ["probe did not end within 5 s, confirmed by 2 probes; failure 1 of 5 in 1 h"]
    );
}

#[test]
fn a_systemd_that_does_not_answer_is_unknown_however_often() {
    let mut site = Site::with(WEB);
    site.unit("web/nginx", Unit::Hangs);
    site.run(1800.0);
    assert_eq!((site.state("web/nginx"), site.rungs()), (State::Unknown, vec![]));
}

#[test]
fn behind_a_dead_channel_services_are_unknown_and_not_probed() {
    let mut site = Site::with(WEB);
    site.canary = false;
    site.freeze("web");
    site.until("the channel is dead", 60.0, |site| site.state("web") == State::Unreachable);
    assert_eq!((site.state("web/nginx"), site.state("web/worker")), (State::Unknown, State::Unknown));
    site.probes.clear();
    site.run(120.0);
    assert!(
        !site.probes.is_empty() && site.probes.iter().all(|(_, target)| matches!(target, Target::Channel(_)))
    );
}

#[test]
fn a_network_that_heals_before_the_threshold_was_no_fault() {
    let mut site = Site::with(WEB);
    site.cut("web", Some(ChannelFailure::TimedOut));
    site.until("it is suspected", 10.0, |site| site.state("web") == State::Suspected);
    site.cut("web", None);
    site.run(60.0);
    assert_eq!((site.state("web"), site.kinds(EventKind::IncidentOpened).len()), (State::Healthy, 0));
}

#[test]
fn voided_evidence_is_not_acted_on_before_fresh_probes() {
    let mut site = Site::with(WEB);
    site.refuses = Some(cpe_proto::decision::Refusal::Budget);
    site.kill("web/nginx");
    site.until("it has failed", 5.0, |site| site.state("web/nginx") == State::Failed);
    site.mend("web/nginx");
    site.refuses = None;
    site.input(Input::EvidenceVoid { reason: "a gap of 4 s between two ticks".into() });
    site.run(60.0);
    assert_eq!((site.state("web/nginx"), site.rungs()), (State::Healthy, vec![]));
}

#[test]
fn a_result_that_never_comes_does_not_end_the_probing() {
    let mut site = Site::with(WEB);
    site.lossy = Some(5);
    site.run(3600.0);
    site.kill("web/nginx");
    site.until("it is restarted all the same", 60.0, |site| site.rungs() == [Rung::RestartService]);
}

#[test]
fn a_probe_that_began_before_evidence_was_voided_says_nothing_when_it_ends() {
    let mut site = Site::with(WEB);
    site.latency = seconds(1.5);
    site.run(10.0);
    site.kill("web/nginx");
    site.forget();
    let nginx = Target::Service(site.service_index("web/nginx"));
    site.until("a probe is on its way", 60.0, |site| site.probes.iter().any(|(_, target)| *target == nginx));
    site.run(0.2);
    site.input(Input::EvidenceVoid { reason: "a gap of 5 s".into() });
    site.run(1.4);
    assert_eq!(
        site.state("web/nginx"),
        State::Healthy,
        "what ended since began before the gap\n{}",
        site.transcript()
    );
    site.until("a fresh probe says so", 30.0, |site| site.state("web/nginx") == State::Suspected);
}

#[test]
fn what_no_recovery_can_help_is_told_to_a_person_as_soon_as_it_is_seen() {
    let mut site = Site::with(WEB);
    site.unit("web/nginx", Unit::Masked);
    site.until("it is seen", 5.0, |site| site.state("web/nginx") == State::Misconfigured);
    assert_eq!(site.notified().len(), 1, "{}", site.transcript());
}
