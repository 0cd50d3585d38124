//! Services that the controller probes itself (policy.md sections 1 and 2): judged by themselves while their assembly's channel is dead,
//! and what they prove of the assembly. And a channel that is not tried, because the way to it is somebody else's trouble.

use cpe_proto::event::EventKind;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;

use dped::Target;

use crate::site::{Machine, Site, Unit};

/// A web server that is probed in the guest and from outside, beside a machine that proves the path.
fn shop(outside: &str) -> String {
    format!(
        r#"
    name = "shop"
    infrastructure = "prod"
    probe = {{ interval = "2s", timeout = "2s" }}
    [escalation]
    assembly = {{ failures = 3, within = "6h" }}
    [assemblies.web]
    address = "192.0.2.1"
    [assemblies.web.services.nginx]
    systemd = "nginx.service"
    [assemblies.web.services.blog]
    {outside}
    restart = {{ systemd = "php-fpm.service" }}
    [assemblies.db]
    address = "192.0.2.2"
"#
    )
}

const HTTP: &str = "http = \"http://{web.address}/\"";

#[test]
fn row_9_a_dead_channel_is_a_fault_of_the_channel_while_an_http_probe_passes() {
    for failure in [ChannelFailure::TimedOut, ChannelFailure::Protocol, ChannelFailure::Refused] {
        let mut site = Site::with(&shop(HTTP));
        site.cut("web", Some(failure));
        site.run(1800.0);
        assert_eq!((site.rungs(), site.state("web")), (vec![], State::Unreachable), "{failure}");
        assert_eq!(site.reconnects, 1, "{failure}");
        assert_eq!(site.notified().len(), 1, "{:?}", site.notified());
        let told = site.notified()[0];
        assert!(told.contains("channel_fault") && told.ends_with("; but blog passed since"), "{told}");
        assert_eq!((site.state("web/blog"), site.state("web/nginx")), (State::Healthy, State::Unknown));
        site.cut("web", None);
        site.until("all is well again", 60.0, |site| site.state("web") == State::Healthy);
        assert_eq!(site.rungs(), [], "{failure}");
    }
}

#[test]
fn row_11_a_machine_whose_witness_falls_silent_too_is_hung() {
    let mut site = Site::with(&shop(HTTP));
    site.freeze("web");
    site.until("it is healthy again", 180.0, |site| {
        !site.rungs().is_empty() && site.state("web") == State::Healthy
    });
    assert_eq!(site.rungs(), [Rung::RebootHard]);
    // Its silence was never taken for a fault of the service.
    let failed =
        |event: &&cpe_proto::event::Event| event.to == Some(State::Failed) && event.service.is_some();
    assert_eq!(site.events.iter().filter(failed).count(), 0, "{}", site.transcript());
}

#[test]
fn row_11_what_only_a_kernel_answers_is_no_witness() {
    for outside in ["tcp = 80\n    from = \"controller\"", "icmp = true"] {
        let mut site = Site::with(&shop(outside));
        site.freeze("web");
        site.until("it is rebooted", 60.0, |site| site.rungs() == [Rung::RebootHard]);
    }
}

#[test]
fn row_11_an_answer_from_elsewhere_is_no_witness() {
    let mut site = Site::with(&shop("http = \"http://192.0.2.80/\""));
    site.cut("web", Some(ChannelFailure::TimedOut));
    site.until("it is rebooted", 60.0, |site| site.rungs() == [Rung::RebootHard]);
}

#[test]
fn row_11_what_is_asked_from_within_the_guest_is_judged_over_its_channel_and_is_no_witness() {
    let mut site = Site::with(&shop(&format!("{HTTP}\n    from = \"guest\"")));
    site.kill("web/blog");
    site.until("it is restarted", 30.0, |site| {
        site.rungs() == [Rung::RestartService] && site.state("web/blog") == State::Healthy
    });
    site.cut("web", Some(ChannelFailure::TimedOut));
    site.until("nothing is heard of it", 60.0, |site| site.state("web/blog") == State::Unknown);
    site.until("it is rebooted", 60.0, |site| site.rungs() == [Rung::RestartService, Rung::RebootHard]);
}

#[test]
fn row_11_a_witness_that_passed_before_the_channel_failed_is_asked_again_first() {
    // Probed once an hour: what it said before is no evidence, and it is heard before anything is done.
    let mut site = Site::with(&shop(&format!("{HTTP}\n    probe = {{ interval = \"1h\" }}")));
    site.cut("web", Some(ChannelFailure::Protocol));
    site.until("it is concluded", 30.0, |site| !site.kinds(EventKind::FaultIsolated).is_empty());
    assert!(site.reasons(EventKind::FaultIsolated)[0].starts_with("channel_fault"), "{}", site.transcript());
    assert_eq!(site.rungs(), []);
}

#[test]
fn rows_6_to_8_the_infrastructures_word_comes_before_a_witness() {
    let mut site = Site::with(&shop(HTTP));
    site.machine("web", Machine::Off);
    site.until("it is started", 60.0, |site| site.rungs() == [Rung::Start]);
}

#[test]
fn a_service_probed_from_outside_fails_by_itself_and_is_restarted_once_its_channel_carries_a_restart() {
    let mut site = Site::with(&shop(HTTP));
    site.cut("web", Some(ChannelFailure::Refused));
    site.run(30.0);
    site.kill("web/blog");
    site.until("it has failed", 10.0, |site| site.state("web/blog") == State::Failed);
    assert!(site.reason("web/blog").contains("connection refused"), "{}", site.reason("web/blog"));
    site.run(600.0);
    assert_eq!((site.rungs(), site.state("web/blog")), (vec![], State::Failed));
    site.cut("web", None);
    site.until("it is healthy again", 60.0, |site| site.state("web/blog") == State::Healthy);
    assert_eq!(site.rungs(), [Rung::RestartService]);
    // Evidence from before the channel answered would not do.
    let confirmed = &site.decisions[0].evidence[0].value;
    assert!(confirmed.contains("confirmed by 2 probes"), "{confirmed}");
}

#[test]
fn a_service_probed_from_outside_is_restarted_over_a_healthy_channel() {
    let mut site = Site::with(&shop(HTTP));
    site.unit("web/blog", Unit::Odd);
    site.until("it is healthy again", 60.0, |site| {
        !site.rungs().is_empty() && site.state("web/blog") == State::Healthy
    });
    assert_eq!(site.rungs(), [Rung::RestartService]);
    assert!(site.decisions[0].evidence[0].value.starts_with("503"), "{:?}", site.decisions[0].evidence);
}

#[test]
fn silence_is_a_fault_of_a_service_only_over_a_healthy_channel() {
    let mut site = Site::with(&shop(HTTP));
    site.unit("web/blog", Unit::Hangs);
    site.until("it is restarted", 30.0, |site| site.rungs() == [Rung::RestartService]);

    let mut site = Site::with(&shop(HTTP));
    site.darken("web");
    site.claims("web", cpe_proto::infrastructure::InstanceState::Unknown);
    site.run(1800.0);
    assert_eq!((site.rungs(), site.state("web/blog")), (vec![], State::Unknown));
}

#[test]
fn what_the_controller_cannot_ask_says_nothing_of_a_service() {
    let mut site = Site::with(&shop(HTTP));
    site.unit("web/blog", Unit::NotFound);
    site.run(600.0);
    assert_eq!((site.rungs(), site.state("web/blog")), (vec![], State::Unknown));
    site.unit("web/blog", Unit::Masked);
    site.until("a person is told", 30.0, |site| !site.notified().is_empty());
    assert_eq!(
        site.notified(),
        ["shop/web/blog is misconfigured: the certificate is not trusted; no recovery can help"]
    );
}

#[test]
fn a_certificate_that_ends_soon_passes_and_a_person_is_told_once() {
    let mut site = Site::with(&shop("tls = { to = 443, warn_before = \"21days\" }"));
    site.unit("web/blog", Unit::Activating);
    site.run(3600.0);
    assert_eq!((site.rungs(), site.state("web/blog")), (vec![], State::Healthy));
    assert_eq!(site.notified(), ["shop/web/blog passes with a warning: the certificate ends in 10 days"]);
}

#[test]
fn a_start_behind_a_dead_channel_says_that_a_service_is_down() {
    let mut site = Site::cold(&shop(HTTP));
    site.cut("web", Some(ChannelFailure::Refused));
    site.kill("web/blog");
    site.until("it is known", 120.0, |site| site.state("web/blog") == State::Failed);
    assert_eq!(site.rungs(), []);
}

#[test]
fn a_channel_that_is_not_tried_keeps_its_state_for_as_long_as_its_evidence_is_fresh_and_is_then_unknown() {
    let mut site = Site::with(&shop(HTTP));
    site.details = "jump host bastion:22 does not answer".into();
    site.cut("web", Some(ChannelFailure::NotTried));
    site.run(3.0);
    assert_eq!(site.state("web/nginx"), State::Healthy);
    site.until("nothing is known", 10.0, |site| site.state("web") == State::Unknown);
    assert_eq!((site.state("web/nginx"), site.state("web/blog")), (State::Unknown, State::Healthy));
    site.run(280.0);
    assert_eq!(site.notified(), [""; 0]);
    site.run(3600.0);
    assert_eq!(site.notified().len(), 1, "{:?}", site.notified());
    let told = site.notified()[0];
    assert!(told.starts_with("shop/web: unreachable for 5 min"), "{told}");
    assert!(told.ends_with("jump host bastion:22 does not answer; nothing is done"), "{told}");
    assert_eq!((site.rungs(), site.kinds(EventKind::IncidentOpened).len()), (vec![], 0));
    site.cut("web", None);
    site.until("all is well again", 30.0, |site| site.view().state == State::Healthy);
    assert_eq!((site.rungs(), site.notified().len()), (vec![], 1));
}

#[test]
fn a_channel_that_is_not_tried_now_and_then_stays_as_it_is() {
    let shop = shop(HTTP)
        .replace("systemd = \"nginx.service\"", "icmp = true\n    restart = { systemd = \"nginx.service\" }");
    let mut site = Site::with(&shop);
    for _ in 0..20 {
        site.cut("web", Some(ChannelFailure::NotTried));
        site.run(3.0);
        site.cut("web", None);
        site.run(3.0);
    }
    assert_eq!(site.kinds(EventKind::StateChanged).len(), 0, "{}", site.transcript());
}

#[test]
fn a_dead_channel_that_is_not_tried_any_more_is_never_acted_upon() {
    let mut site = Site::with(&shop(HTTP));
    site.refuses = Some(cpe_proto::decision::Refusal::Budget);
    site.freeze("web");
    site.until("a reboot is wanted", 60.0, |site| !site.refusals().is_empty());
    // The machine hangs; then the jump host before it dies, too.
    site.cut("web", Some(ChannelFailure::NotTried));
    site.until("nothing is known", 30.0, |site| site.state("web/nginx") == State::Unknown);
    site.run(5.0);
    site.refuses = None;
    site.run(3600.0);
    assert_eq!(site.rungs(), [], "{}", site.transcript());
}

#[test]
fn a_definition_in_which_assemblies_have_moved_keeps_what_is_known_of_services_probed_from_outside() {
    let text = shop(HTTP);
    let mut site = Site::with(&text);
    site.cut("web", Some(ChannelFailure::Refused));
    site.kill("web/blog");
    site.until("it has failed", 60.0, |site| site.state("web/blog") == State::Failed);
    let first = "[assemblies.front]\n    address = \"192.0.2.9\"\n    [assemblies.web]";
    site.redefine(&text.replacen("[assemblies.web]", first, 1));
    assert_eq!(site.state("web/blog"), State::Failed);
    // Another page is another service.
    site.redefine(&text.replace("address}/", "address}/other"));
    assert_eq!(site.state("web/blog"), State::Starting);
}

#[test]
fn a_way_that_cannot_be_tried_when_cpe_starts_is_waited_for_as_long_as_a_machine_may_take_to_start() {
    let mut site = Site::cold(&shop(HTTP));
    site.cut("db", Some(ChannelFailure::NotTried));
    site.run(55.0);
    assert_eq!(site.state("db"), State::Starting, "startup_grace");
    site.until("it is not known", 10.0, |site| site.state("db") == State::Unknown);
}

#[test]
fn what_was_seen_before_gets_old_with_failure_threshold_probes_that_could_not_be_sent() {
    let patient = shop(HTTP)
        .replace("address = \"192.0.2.2\"", "address = \"192.0.2.2\"\nprobe = { failure_threshold = 20 }");
    let mut site = Site::with(&patient);
    site.cut("db", Some(ChannelFailure::NotTried));
    site.run(8.0);
    assert_eq!(site.state("db"), State::Healthy, "twenty, 500 ms apart");
    site.until("it is not known", 5.0, |site| site.state("db") == State::Unknown);
}

#[test]
fn a_witness_is_asked_as_soon_as_the_channel_beside_it_misses() {
    let mut site = Site::with(&shop(&format!("{HTTP}\nprobe = {{ interval = \"1m\" }}")));
    let blog = Target::Service(site.service_index("web/blog"));
    let asked = |site: &Site| site.probes.iter().filter(|(_, target)| *target == blog).count();
    site.until("its own turn has come", 90.0, |site| asked(site) > 0);
    site.run(5.0);
    site.forget();
    site.cut("web", Some(ChannelFailure::Refused));
    site.until("it is asked out of its turn", 10.0, |site| asked(site) > 0);
    let channel = Target::Channel(site.assembly_index("web"));
    let missed = site.probes.iter().filter(|(_, target)| *target == channel).count();
    assert_eq!(missed, 1, "the first one");
}

#[test]
fn what_waited_for_its_channel_waits_for_it_no_more_when_it_is_back() {
    let mut site = Site::with(&shop(HTTP));
    site.cut("web", Some(ChannelFailure::Refused));
    site.break_for_good("web/blog");
    site.until("it waits", 300.0, |site| {
        site.state("web/nginx") == State::Unknown && site.reason("web/blog").contains("waits for its channel")
    });
    site.cut("web", None);
    site.until("it is back", 60.0, |site| site.state("web/nginx") == State::Healthy);
    assert!(!site.reason("web/blog").contains("waits for its channel"), "{}", site.reason("web/blog"));
}
