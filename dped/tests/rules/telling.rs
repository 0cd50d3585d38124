//! What is told of a dead channel: one verdict for one fact, at once when it is certain, and details only where they are looked for.

use cpe_proto::event::EventKind;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::Input;

use crate::site::{Site, Unit, seconds};

const PAIR: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s", timeout = "2s" }
    [assemblies.web]
    address = "192.0.2.1"
    [assemblies.web.services.nginx]
    systemd = "nginx.service"
    [assemblies.db]
    address = "192.0.2.2"
    [assemblies.db.services.mariadb]
    systemd = "mariadb.service"
"#;

#[test]
fn a_hang_is_told_once_as_what_it_is() {
    for (interval, timeout) in [("2s", "2s"), ("2s", "1s"), ("10s", "5s"), ("1s", "5s")] {
        let definition =
            PAIR.replace("\"2s\", timeout = \"2s\"", &format!("\"{interval}\", timeout = \"{timeout}\""));
        let mut site = Site::with(&definition);
        site.canary = false;
        site.freeze("web");
        site.until("it is rebooted", 120.0, |site| !site.rungs().is_empty());
        assert_eq!(site.rungs(), [Rung::RebootHard], "{interval}, {timeout}");
        let told = site.reasons(EventKind::FaultIsolated);
        assert_eq!(told.len(), 1, "{interval}, {timeout}: {told:?}\n{}", site.transcript());
        assert!(told[0].starts_with("hung: "), "{interval}, {timeout}: {told:?}");
    }
}

#[test]
fn a_dead_channel_without_a_proven_path_is_told_as_unreachable_without_delay() {
    let mut site = Site::with(PAIR);
    site.canary = false;
    for name in ["web", "db"] {
        site.cut(name, Some(ChannelFailure::TimedOut));
    }
    let told = |site: &Site| !site.kinds(EventKind::FaultIsolated).is_empty();
    let dead = |site: &Site| site.state("web") == State::Unreachable;
    site.until("it is dead", 20.0, dead);
    let after = site.until("it is told", 20.0, told);
    assert!(after <= seconds(4.0), "{after:?} after its death\n{}", site.transcript());
    assert!(site.reasons(EventKind::FaultIsolated)[0].contains("the path is not proven"));
    site.run(600.0);
    assert_eq!(site.rungs(), []);
}

#[test]
fn a_machine_out_of_reach_is_told_also_when_our_evidence_was_void_at_the_hour_of_telling() {
    let cut = || {
        let mut site = Site::with(PAIR);
        site.canary = false;
        for name in ["web", "db"] {
            site.cut(name, Some(ChannelFailure::TimedOut));
        }
        site
    };
    let due = cut().until("it is told", 600.0, |site| !site.notified().is_empty());
    let mut site = cut();
    site.run(due.as_secs_f64() - 0.5);
    assert_eq!(site.notified(), Vec::<&str>::new());
    site.input(Input::EvidenceVoid { reason: "this process stood still for 4 s".into() });
    site.run(60.0);
    let told = site.notified().iter().filter(|it| it.starts_with("shop/web: unreachable for ")).count();
    assert_eq!(told, 1, "{:?}", site.notified());
}

/// The details that ssh gives for a host key are long: which key was expected, which was shown, where to look.
fn shows_another_key(site: &mut Site, detail: &str) {
    site.cut("web", Some(ChannelFailure::HostKey));
    site.details = detail.into();
}

#[test]
fn the_detail_of_a_dead_channel_is_told_once_and_state_changes_carry_a_word() {
    let detail = "SHA256:aaaa was expected, SHA256:bbbb was shown";
    let mut site = Site::with(PAIR);
    shows_another_key(&mut site, detail);
    site.run(60.0);
    let told = |kind| site.reasons(kind).into_iter().filter(|reason| reason.contains(detail)).count();
    assert_eq!(told(EventKind::StateChanged), 0, "{}", site.transcript());
    assert_eq!(told(EventKind::IncidentOpened), 1, "{}", site.transcript());
    assert!(site.notified()[0].contains(detail), "{:?}", site.notified());
    assert!(site.reason("web").contains(detail), "status has it: {}", site.reason("web"));
    let changes = site.reasons(EventKind::StateChanged);
    let word = "channel host key changed or unknown";
    assert!(changes.iter().all(|reason| reason.is_empty() || reason == word), "{changes:?}");
}

#[test]
fn a_channel_that_no_recovery_can_help_is_never_called_unreachable_in_between() {
    for failure in [ChannelFailure::HostKey, ChannelFailure::AuthenticationFailed] {
        let mut site = Site::with(PAIR);
        site.cut("web", Some(failure));
        site.run(60.0);
        let web = |event: &&cpe_proto::event::Event| event.assembly.is_some() && event.service.is_none();
        let states: Vec<_> = site
            .kinds(EventKind::StateChanged)
            .into_iter()
            .filter(web)
            .filter_map(|event| event.to)
            .collect();
        assert_eq!(states, [State::Suspected, State::Misconfigured], "{failure}");
    }
}

#[test]
fn the_path_is_asked_for_from_the_first_failure_on_also_when_nothing_was_known_before() {
    let mut site = Site::with(PAIR);
    site.canary = false;
    site.freeze("web");
    site.input(Input::EvidenceVoid { reason: "a gap of 5 s".into() });
    let told = |site: &Site| !site.kinds(EventKind::FaultIsolated).is_empty();
    let after = site.until("it is told", 60.0, told);
    assert!(site.reasons(EventKind::FaultIsolated)[0].starts_with("hung: "), "{}", site.transcript());
    // Its first failed probe, one that may have begun before the path's answer, and two that fail after it: 2 s each.
    assert!(after <= seconds(8.5), "{after:?}\n{}", site.transcript());
}

#[test]
fn a_warning_is_told_once_and_again_only_when_it_was_gone_for_a_while() {
    let definition = PAIR.replace("systemd = \"nginx.service\"", "nagios = \"check_disk -w 10% -c 5% /\"");
    let mut site = Site::with(&definition);
    let warnings = |site: &Site| site.notified().iter().filter(|it| it.contains("warning")).count();
    for _ in 0..20 {
        site.unit("web/nginx", Unit::Warns);
        site.run(20.0);
        assert_eq!(
            (site.state("web/nginx"), &*site.reason("web/nginx")),
            (State::Healthy, "warning: look at it")
        );
        site.unit("web/nginx", Unit::Running);
        site.run(4.0);
    }
    assert_eq!((warnings(&site), site.rungs()), (1, vec![]), "{}", site.transcript());
    site.run(60.0);
    site.unit("web/nginx", Unit::Warns);
    site.run(20.0);
    assert_eq!(warnings(&site), 2, "{}", site.transcript());
    assert!(site.view().incidents.is_empty());
}
