//! What a person orders by hand, to the letter: what is refused and in which words, what stays open, what is written down of it. `hand.rs`
//! has what such an order does.

use cpe_proto::decision::{Refusal, Verdict};
use cpe_proto::event::EventKind;
use cpe_proto::id::Name;
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::{Guard, GuardSettings, Order};

use crate::site::words::{pause_of, refused};
use crate::site::{Site, seconds};

const SHOP: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "1s", timeout = "500ms" }
    [escalation]
    service = { failures = 3, within = "1h" }
    assembly = { failures = 2, within = "6h" }
    deployable = { failures = 2, within = "1d" }
    [assemblies.web]
    address = "192.0.2.1"
    failure_domains = ["az1"]
    data = "none"
    max_rung = "recreate"
    services.nginx.systemd = "nginx.service"
    [assemblies.db]
    address = "192.0.2.2"
    services.pg.systemd = "pg.service"
"#;

#[test]
fn a_stop_ends_each_open_incident_once() {
    // Two services have one each, and a machine has one with its service, for which it was rebooted in vain.
    let mut site = Site::with(SHOP);
    site.break_for_good("web/nginx");
    site.until("its machine is rebooted for it", 600.0, |site| site.rungs().contains(&Rung::RebootSoft));
    site.kill("db/pg");
    site.until("both are open", 600.0, |site| {
        site.kinds(EventKind::IncidentOpened).len() == 2 && site.state("web/nginx") == State::Failed
    });
    site.order(Order::Stop);
    site.run(60.0);
    let mut closed: Vec<_> = site.kinds(EventKind::IncidentClosed).iter().map(|it| it.incident).collect();
    let mut opened: Vec<_> = site.kinds(EventKind::IncidentOpened).iter().map(|it| it.incident).collect();
    closed.sort_unstable();
    opened.sort_unstable();
    assert_eq!(closed, opened, "{}", site.transcript());
}

#[test]
fn a_rung_of_a_service_is_not_for_a_machine_and_a_machine_without_infrastructure_has_none() {
    let mut site = Site::with(SHOP);
    let order = site.recover("web", Some(Rung::RestartService));
    refused(&site, order, "restart-service is for a service");
    assert_eq!(site.kinds(EventKind::Ordered).len(), 0, "no waiting would change that");
    let mut site = Site::with(
        "name = \"s\"\n[assemblies.web]\naddress = \"192.0.2.1\"\nservices.a.systemd = \"a.service\"\n",
    );
    let order = site.recover("web", Some(Rung::RebootHard));
    refused(&site, order, "only its services can be restarted");
    assert_eq!(site.kinds(EventKind::Ordered).len(), 0);
}

#[test]
fn a_persons_word_does_not_stand_for_trust_for_a_hold_or_for_what_the_infrastructure_is_doing() {
    let mut site = Site::with(SHOP);
    site.self_trusted = false;
    let order = site.recover("web", Some(Rung::RebootHard));
    refused(&site, order, "untrusted: cpe does not trust itself");
    let dead = || {
        let mut site = Site::with(SHOP);
        site.deaf = true;
        site.cut("web", Some(ChannelFailure::TimedOut));
        site.until("it is dead", 20.0, |site| site.state("web") == State::Unreachable);
        site.deaf = false;
        site
    };
    let mut site = dead();
    site.held = Name::parse("az1").ok();
    let order = site.recover("web", Some(Rung::RebootHard));
    refused(&site, order, "failure domain az1 is held");
    let mut site = dead();
    site.claims("web", InstanceState::Changing);
    let order = site.recover("web", Some(Rung::RebootHard));
    refused(&site, order, "its infrastructure is changing it");
    assert_eq!((site.refusals(), site.acts.len()), (vec![Refusal::Evidence], 0));
    assert_eq!(site.decisions[0].verdict, Verdict::InTransition);
}

#[test]
fn a_restart_of_the_whole_waits_for_what_is_under_way_elsewhere_and_a_reboot_only_for_its_budget() {
    let mut site = Site::with(SHOP);
    site.guard = Guard::new(GuardSettings { in_flight_deployable: 2, ..GuardSettings::default() });
    let first = site.recover("db/pg", None);
    assert!(site.answer(first).is_ok());
    let whole = site.recover("web", Some(Rung::RestartDeployable));
    refused(&site, whole, "another action in its deployable is under way");
    let reboot = site.recover("web", Some(Rung::RebootSoft));
    assert!(site.answer(reboot).is_ok());
}

#[test]
fn what_its_probe_said_is_written_beside_an_order_and_nothing_where_it_said_nothing() {
    let probe = |site: &Site| {
        let line = site.decisions[0].evidence.iter().find(|line| &*line.name == "probe");
        line.map(|line| line.value.to_string())
    };
    let mut site = Site::with(SHOP);
    site.recover("web/nginx", None);
    assert_eq!(probe(&site), None);
    let mut site = Site::with(SHOP);
    site.pause(true);
    site.kill("web/nginx");
    site.until("it has failed", 20.0, |site| site.state("web/nginx") == State::Failed);
    site.pause(false);
    site.decisions.clear();
    site.recover("web/nginx", None);
    assert_eq!(probe(&site).as_deref(), Some("unit inactive"));
}

#[test]
fn a_pause_by_name_is_written_as_what_held_a_restart_back() {
    let mut site = Site::with(SHOP);
    site.order(pause_of("web/nginx", true));
    site.kill("web/nginx");
    site.until("it is refused", 20.0, |site| site.refusals() == [Refusal::Paused]);
    let gate = site.decisions[0].gates.iter().find(|gate| &*gate.name == "paused").unwrap();
    assert_eq!(&*gate.value, "yes");
}

/// A site whose gate takes its time and then refuses.
fn refusing() -> Site {
    let mut site = Site::with(SHOP);
    (site.gate_takes, site.refuses) = (seconds(4.0), Some(Refusal::Budget));
    site
}

#[test]
fn a_refused_order_closes_the_incident_that_it_opened_and_no_other() {
    // Nothing was the matter.
    for name in ["web/nginx", "web"] {
        let mut site = refusing();
        site.recover(name, None);
        site.run(4.5);
        assert_eq!(site.reasons(EventKind::IncidentClosed), ["the order was refused"], "{name}");
    }
    // It broke while the gate was asked.
    let mut site = refusing();
    site.recover("web/nginx", None);
    site.kill("web/nginx");
    site.run(4.5);
    assert_eq!(site.state("web/nginx"), State::Failed);
    assert_eq!(site.reasons(EventKind::IncidentClosed), [""; 0], "{}", site.transcript());
    // It is out of reach since, and nothing is asked for about that.
    let mut site = refusing();
    site.claims("web", InstanceState::Unknown);
    site.recover("web", Some(Rung::RebootHard));
    site.cut("web", Some(ChannelFailure::TimedOut));
    site.run(4.5);
    assert_eq!(site.state("web"), State::Unreachable);
    assert_eq!(site.reasons(EventKind::IncidentClosed), [""; 0], "{}", site.transcript());
}

#[test]
fn a_refused_order_leaves_the_incident_of_a_fault_that_was_just_mended() {
    let mut site = Site::with(SHOP);
    site.kill("web/nginx");
    site.until("it was restarted", 60.0, |site| !site.kinds(EventKind::RecoveryFinished).is_empty());
    assert_eq!(site.state("web/nginx"), State::Healthy);
    site.refuses = Some(Refusal::Budget);
    let order = site.recover("web/nginx", None);
    refused(&site, order, "budget");
    assert_eq!(site.reasons(EventKind::IncidentClosed), [""; 0], "{}", site.transcript());
}

#[test]
fn a_machine_that_answers_is_not_confirmed_down_for_the_incident_that_it_had() {
    let mut site = Site::with(SHOP);
    site.recover("web", Some(Rung::RebootHard));
    site.until("it is over", 120.0, |site| site.state("web") == State::Healthy && !site.in_flight());
    assert_eq!(site.view().incidents.len(), 1, "it settles");
    assert!(site.confirm_fenced("web").unwrap_err().contains("not confirmed dead"));
}

#[test]
fn what_a_channel_rests_on_has_changed_and_it_is_tried_at_once() {
    let mut site = Site::with(&SHOP.replace("\"1s\"", "\"60s\""));
    site.run(10.0);
    site.forget();
    let assembly = site.assembly_index("web");
    site.order(Order::Look { assembly });
    site.run(1.0);
    assert_eq!(site.reconnects, 1);
    assert!(site.probes.iter().any(|(_, target)| *target == dped::Target::Channel(assembly)));
}
