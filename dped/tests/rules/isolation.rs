//! policy.md section 2, row by row: the table itself, and what each verdict leads to in a running engine.

use cpe_proto::decision::{ChannelFact, Facts, Verdict};
use cpe_proto::event::EventKind;
use cpe_proto::id::Name;
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::isolate::isolate;
use expect_test::expect_file;

use crate::site::{Machine, Site, Unit};

const PAIR: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s", timeout = "2s" }
    [escalation]
    assembly = { failures = 3, within = "6h" }
    [assemblies.web]
    address = "192.0.2.1"
    data = "none"
    max_rung = "recreate"
    [assemblies.web.services.nginx]
    systemd = "nginx.service"
    [assemblies.db]
    address = "192.0.2.2"
    [assemblies.db.services.mariadb]
    systemd = "mariadb.service"
"#;

/// The same, alone and without an infrastructure.
const LONELY: &str = r#"
    name = "shop"
    probe = { interval = "2s", timeout = "2s" }
    [assemblies.web]
    address = "192.0.2.1"
    [assemblies.web.services.nginx]
    systemd = "nginx.service"
"#;

fn dead(failure: ChannelFailure) -> Facts {
    Facts {
        self_trusted: true,
        held_domain: None,
        instance: Some(InstanceState::Active),
        ordered: false,
        channel: ChannelFact::Dead(failure),
        live_witness: false,
        path_proven: true,
    }
}

#[test]
fn the_whole_table_of_isolation() {
    use ChannelFailure as C;
    use InstanceState as I;
    let channels = [
        ChannelFact::Healthy,
        ChannelFact::Suspected,
        ChannelFact::Unknown,
        ChannelFact::Dead(C::Refused),
        ChannelFact::Dead(C::TimedOut),
        ChannelFact::Dead(C::AuthenticationFailed),
        ChannelFact::Dead(C::HostKey),
        ChannelFact::Dead(C::Protocol),
        ChannelFact::Dead(C::NotTried),
    ];
    let instances = [
        None,
        Some(I::Active),
        Some(I::Off),
        Some(I::Error),
        Some(I::Gone),
        Some(I::Changing),
        Some(I::Unknown),
    ];
    let mut table = String::from(
        "channel                 infrastructure  path proven             path not proven         another witness\n",
    );
    for channel in channels {
        for instance in instances {
            let word = match channel {
                ChannelFact::Dead(failure) => format!("dead: {failure}").chars().take(23).collect(),
                other => format!("{other:?}").to_lowercase(),
            };
            table.push_str(&format!("{word:<24}{:<16}", instance.map_or("none", InstanceState::as_str)));
            for (path_proven, live_witness) in [(true, false), (false, false), (false, true)] {
                let facts = Facts { channel, instance, path_proven, live_witness, ..dead(C::TimedOut) };
                let (verdict, row) = isolate(&facts);
                table.push_str(&format!("{:<24}", format!("{row:>2} {verdict}")));
            }
            table.truncate(table.trim_end().len());
            table.push('\n');
        }
    }
    expect_file!["../tables/isolation.txt"].assert_eq(&table);
}

#[test]
fn row_1_untrusted_whatever_else_is_seen() {
    for failure in [ChannelFailure::TimedOut, ChannelFailure::HostKey] {
        let facts = Facts { self_trusted: false, instance: Some(InstanceState::Off), ..dead(failure) };
        assert_eq!(isolate(&facts), (Verdict::Untrusted, 1));
    }
    let mut site = Site::with(PAIR);
    site.self_trusted = false;
    site.machine("web", Machine::Off);
    site.run(600.0);
    assert_eq!(site.rungs(), []);
    let told = site.reasons(EventKind::FaultIsolated);
    assert!(told.iter().any(|reason| reason.contains("cpe does not trust itself")), "{told:?}");
    // Its fault is cpe's, which the guard tells a person of once: not each machine of the fleet is told.
    assert_eq!(site.notified(), Vec::<&str>::new());
}

#[test]
fn row_2_a_held_domain_waits_for_its_own_incident() {
    let mut site = Site::with(PAIR);
    site.held = Some(Name::parse("az1").unwrap());
    site.machine("web", Machine::Off);
    site.run(60.0);
    assert_eq!(site.rungs(), []);
    assert_eq!(site.state("web"), State::Held);
    site.held = None;
    site.until("it is started once the hold is over", 120.0, |site| site.rungs() == [Rung::Start]);
}

#[test]
fn row_3_disagreement_is_reported_and_services_are_judged_over_the_channel() {
    let facts = Facts {
        channel: ChannelFact::Healthy,
        instance: Some(InstanceState::Off),
        ..dead(ChannelFailure::TimedOut)
    };
    assert_eq!(isolate(&facts), (Verdict::Disagreement, 3));
    let mut site = Site::with(PAIR);
    site.claims("web", InstanceState::Gone);
    site.kill("web/nginx");
    site.run(60.0);
    assert_eq!(site.rungs(), [Rung::RestartService]);
    assert_eq!(site.state("web"), State::Healthy);
}

#[test]
fn row_4_in_transition_waits_and_is_said_after_10_minutes() {
    let mut site = Site::with(PAIR);
    site.claims("web", InstanceState::Changing);
    site.machine("web", Machine::Frozen);
    site.run(540.0);
    assert_eq!((site.rungs(), site.state("web")), (vec![], State::InTransition));
    assert_eq!(site.notified(), [""; 0]);
    site.run(120.0);
    assert_eq!(site.notified().len(), 1, "{:?}", site.notified());
    assert!(site.notified()[0].contains("in_transition"), "{:?}", site.notified());
    assert_eq!(site.rungs(), []);
}

#[test]
fn row_5_a_changed_host_key_or_a_refused_key_is_never_recovered() {
    for failure in [ChannelFailure::HostKey, ChannelFailure::AuthenticationFailed] {
        let mut site = Site::with(PAIR);
        site.cut("web", Some(failure));
        site.run(3600.0);
        assert_eq!((site.rungs(), site.state("web")), (vec![], State::Misconfigured));
        assert_eq!(site.notified().len(), 1, "told once: {:?}", site.notified());
        site.cut("web", None);
        site.until("it ends when it passes", 30.0, |site| site.state("web") == State::Healthy);
    }
}

#[test]
fn row_6_gone_is_recreated_where_data_and_cap_allow_it() {
    let mut site = Site::with(PAIR);
    site.machine("web", Machine::Gone);
    site.until("it is healthy again", 120.0, |site| {
        !site.rungs().is_empty() && site.state("web") == State::Healthy
    });
    assert_eq!(site.rungs(), [Rung::Recreate]);
}

#[test]
fn row_6_gone_with_local_data_is_exhausted_and_told() {
    let mut site = Site::with(PAIR);
    site.machine("db", Machine::Gone);
    site.until("its ladder ended", 60.0, |site| site.state("db") == State::Exhausted);
    assert_eq!(site.rungs(), []);
    assert!(site.notified()[0].contains("recreate skipped: above max_rung"), "{:?}", site.notified());
}

#[test]
fn row_7_off_is_started() {
    let mut site = Site::with(PAIR);
    site.machine("db", Machine::Off);
    site.until("it is healthy again", 120.0, |site| {
        !site.rungs().is_empty() && site.state("db") == State::Healthy
    });
    assert_eq!(site.rungs(), [Rung::Start]);
    expect_file!["../transcripts/powered-off.txt"].assert_eq(&site.transcript());
}

#[test]
fn rows_6_and_7_what_somebody_ordered_is_respected() {
    for machine in [Machine::Off, Machine::Gone] {
        let mut site = Site::with(PAIR);
        site.machine("web", machine);
        site.host("web").ordered = true;
        site.run(3600.0);
        assert_eq!((site.rungs(), site.state("web")), (vec![], State::Stopped));
        assert!(site.notified()[0].contains("as somebody ordered"), "{:?}", site.notified());
    }
}

#[test]
fn row_7_off_is_only_reported_where_the_definition_says_so() {
    let mut site = Site::with(&format!("{PAIR}\n[timing]\non_unexpected_stop = \"report\"\n"));
    site.machine("web", Machine::Off);
    site.run(600.0);
    assert_eq!((site.rungs(), site.state("web")), (vec![], State::Failed));
    assert_eq!(site.notified().len(), 1, "reported: {:?}", site.notified());
}

#[test]
fn row_7_off_is_not_started_where_nothing_proves_the_path_and_that_is_told() {
    let mut site = Site::with(&PAIR[..PAIR.find("[assemblies.db]").unwrap_or(0)]);
    site.canary = false;
    site.machine("web", Machine::Off);
    site.run(3600.0);
    assert_eq!((site.rungs(), site.state("web")), (vec![], State::Failed));
    assert_eq!(site.notified(), ["shop/web: recovery is refused for 5 min: evidence"]);
}

#[test]
fn row_8_an_instance_in_error_takes_the_assembly_ladder() {
    let mut site = Site::with(PAIR);
    site.machine("web", Machine::Broken);
    site.until("it is healthy again", 120.0, |site| {
        !site.rungs().is_empty() && site.state("web") == State::Healthy
    });
    assert_eq!(site.rungs(), [Rung::RebootSoft]);
}

#[test]
fn row_9_another_live_witness_makes_it_a_fault_of_the_channel() {
    for failure in [ChannelFailure::TimedOut, ChannelFailure::Refused, ChannelFailure::Protocol] {
        let facts = Facts { live_witness: true, ..dead(failure) };
        assert_eq!(isolate(&facts), (Verdict::ChannelFault, 9));
    }
}

#[test]
fn row_10_a_refused_channel_is_reconnected_and_told_and_nothing_more() {
    let mut site = Site::with(PAIR);
    site.cut("web", Some(ChannelFailure::Refused));
    site.run(3600.0);
    assert_eq!((site.rungs(), site.state("web")), (vec![], State::Unreachable));
    assert_eq!(site.reconnects, 1);
    assert_eq!(site.notified().len(), 1, "{:?}", site.notified());
    assert!(site.notified()[0].contains("channel_fault"), "{:?}", site.notified());
}

#[test]
fn row_10_takes_the_ladder_only_with_on_channel_refused_recover() {
    let mut site = Site::with(&format!("{PAIR}\n[timing]\non_channel_refused = \"recover\"\n"));
    site.cut("web", Some(ChannelFailure::Refused));
    site.until("a reboot was begun", 60.0, |site| site.rungs() == [Rung::RebootSoft]);
}

#[test]
fn row_11_hung_is_rebooted_hard_once_a_peer_proves_the_path() {
    let mut site = Site::with(PAIR);
    site.canary = false;
    site.freeze("web");
    site.until("it is healthy again", 180.0, |site| {
        !site.rungs().is_empty() && site.state("web") == State::Healthy
    });
    assert_eq!(site.rungs(), [Rung::RebootHard]);
    let path = site.decisions[0].evidence.iter().find(|value| &*value.name == "path").unwrap();
    assert_eq!(&*path.value, "shop/db");
    expect_file!["../transcripts/hung.txt"].assert_eq(&site.transcript());
}

/// Twenty machines on one path, probed by policy.md's defaults or faster.
fn fleet(interval: &str) -> String {
    let mut text =
        format!("name = \"shop\"\ninfrastructure = \"prod\"\nprobe = {{ interval = \"{interval}\" }}\n");
    for index in 1..=20 {
        text.push_str(&format!("[assemblies.web-{index}]\naddress = \"192.0.2.{index}\"\n"));
    }
    text
}

#[test]
fn row_11_when_all_fall_silent_at_once_it_is_us_and_nothing_is_done_then_or_when_they_come_back() {
    for (interval, delay) in [("1s", 0.0), ("2s", 1.3), ("10s", 0.0), ("10s", 4.4), ("30s", 11.0)] {
        let mut site = Site::with(&fleet(interval));
        site.canary = false;
        site.run(delay);
        for silence in [1.0, 7.0, 18.0, 33.0, 100.0, 700.0] {
            for host in &mut site.hosts {
                host.way = Some(ChannelFailure::TimedOut);
            }
            site.run(silence);
            for host in &mut site.hosts {
                host.way = None;
            }
            site.until("all is well again", 90.0, |site| site.view().state == State::Healthy);
            assert_eq!(
                site.rungs(),
                [],
                "interval {interval}, silent for {silence} s\n{}",
                site.transcript()
            );
        }
    }
}

#[test]
fn row_11_one_that_stays_silent_when_the_others_come_back_is_hung() {
    let mut site = Site::with(&fleet("5s"));
    site.canary = false;
    for host in &mut site.hosts {
        host.way = Some(ChannelFailure::TimedOut);
    }
    site.freeze("web-7");
    site.run(120.0);
    for host in &mut site.hosts {
        host.way = None;
    }
    site.until("all is well again", 180.0, |site| site.view().state == State::Healthy);
    assert_eq!(site.rungs(), [Rung::RebootHard]);
    assert_eq!(site.acts[0].1.assembly, site.assembly_index("web-7"));
}

#[test]
fn row_12_unreachable_does_nothing_and_is_told_after_5_minutes() {
    let mut site = Site::with(LONELY);
    site.cut("web", Some(ChannelFailure::TimedOut));
    site.run(290.0);
    assert_eq!(site.notified(), [""; 0]);
    site.run(60.0);
    assert_eq!(site.notified().len(), 1, "{:?}", site.notified());
    assert!(site.notified()[0].contains("nothing is done"), "{:?}", site.notified());
    assert_eq!(
        (site.rungs(), site.state("web"), site.state("web/nginx")),
        (vec![], State::Unreachable, State::Unknown)
    );
}

#[test]
fn row_12_an_infrastructure_that_does_not_know_proves_nothing() {
    let mut site = Site::with(PAIR);
    site.claims("web", InstanceState::Unknown);
    site.freeze("web");
    site.run(1800.0);
    assert_eq!((site.rungs(), site.state("web")), (vec![], State::Unreachable));
}

#[test]
fn row_13_over_a_healthy_channel_each_service_is_judged_for_itself() {
    let facts = Facts { channel: ChannelFact::Healthy, instance: None, ..dead(ChannelFailure::TimedOut) };
    assert_eq!(isolate(&facts), (Verdict::PerService, 13));
    let mut site = Site::with(PAIR);
    site.unit("web/nginx", Unit::Failed);
    site.run(30.0);
    assert_eq!(site.decisions[0].verdict, Verdict::PerService);
    assert_eq!((site.rungs(), site.state("db/mariadb")), (vec![Rung::RestartService], State::Healthy));
}

#[test]
fn row_14_without_answers_nothing_is_done() {
    let mut site = Site::with(PAIR);
    site.deaf = true;
    site.machine("web", Machine::Off);
    site.run(3600.0);
    assert_eq!((site.rungs(), site.state("web")), (vec![], State::Unreachable));
    site.deaf = false;
    site.until("it is started once somebody answers", 120.0, |site| site.rungs() == [Rung::Start]);
}

#[test]
fn row_14_a_suspected_channel_is_no_verdict_yet() {
    let facts = Facts {
        channel: ChannelFact::Suspected,
        instance: Some(InstanceState::Off),
        ..dead(ChannelFailure::TimedOut)
    };
    assert_eq!(isolate(&facts), (Verdict::Unreachable, 14));
    let facts =
        Facts { instance: Some(InstanceState::Active), path_proven: false, ..dead(ChannelFailure::TimedOut) };
    assert_eq!(isolate(&facts), (Verdict::Unreachable, 14));
}
