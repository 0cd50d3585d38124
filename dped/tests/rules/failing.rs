//! What a recovery that does not work says of the parts around it: what ran all the time is healthy, and what was tried in vain is tried
//! again only on a probe that failed since (policy.md sections 1 and 7).

use cpe_proto::event::EventKind;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;
use dped::Target;

use crate::site::{Outcome, Site, seconds};

const WEB: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s", startup_grace = "20s" }
    [escalation]
    service = { failures = 2, within = "1h" }
    assembly = { failures = 2, within = "6h" }
    [assemblies.web]
    address = "192.0.2.1"
    [assemblies.web.services.app]
    systemd = "app.service"
    [assemblies.web.services.crashy]
    systemd = "crashy.service"
"#;

#[test]
fn a_service_that_ran_all_the_time_is_healthy_whatever_became_of_the_reboot_for_another() {
    let mut site = Site::with(WEB);
    site.break_for_good("web/crashy");
    site.until("the ladder ended", 1800.0, |site| site.state("web/crashy") == State::Exhausted);
    assert!(site.rungs().contains(&Rung::RebootSoft), "{:?}", site.rungs());
    let of_app =
        |event: &&cpe_proto::event::Event| event.service.as_ref().is_some_and(|name| name.as_str() == "app");
    let states: Vec<_> =
        site.kinds(EventKind::StateChanged).into_iter().filter(of_app).filter_map(|it| it.to).collect();
    assert!(!states.contains(&State::Unknown), "{states:?}\n{}", site.transcript());
    assert_eq!(states.last(), Some(&State::Healthy));
    // Something serves all the time: but for the reboots themselves the whole is degraded at worst.
    let whole = |event: &&cpe_proto::event::Event| event.assembly.is_none();
    let states: Vec<_> =
        site.kinds(EventKind::StateChanged).into_iter().filter(whole).filter_map(|it| it.to).collect();
    assert!(!states.contains(&State::Exhausted) && !states.contains(&State::Failed), "{states:?}");
}

/// When probes of nginx began.
fn probes_of(site: &Site, name: &str) -> Vec<Timestamp> {
    let service = Target::Service(site.service_index(name));
    site.probes.iter().filter(|(_, target)| *target == service).map(|(at, _)| *at).collect()
}

#[test]
fn a_restart_that_itself_failed_is_counted_at_once_and_tried_again_on_a_failed_probe() {
    let mut site = Site::with(&WEB.replace("failures = 2, within = \"1h\"", "failures = 4, within = \"1h\""));
    site.break_for_good("web/crashy");
    site.outcomes = vec![Outcome::Fails, Outcome::Fails];
    site.until("it was tried twice", 60.0, |site| site.acts.len() == 2);
    let (first, second) = (site.acts[0].0, site.acts[1].0);
    let failed = first.after(seconds(0.2));
    let since = probes_of(&site, "web/crashy").into_iter().filter(|at| *at >= failed && *at < second).count();
    assert!(since >= 2, "{since} probes between the failure and the next attempt\n{}", site.transcript());
    assert!(second.since(failed) <= seconds(1.6), "no interval is lost: {:?}", second.since(failed));
    let evidence: Vec<_> = site.decisions[1].evidence.iter().map(|it| (&*it.name, &*it.value)).collect();
    assert_eq!(evidence[0], ("probe", "unit failed, confirmed by 2 probes"));
    assert_eq!(evidence[2], ("count", "failure 2 of 4 in 1 h"));
}

#[test]
fn a_restart_that_failed_and_is_seen_to_run_all_the_same_is_not_repeated() {
    let mut site = Site::with(WEB);
    site.kill("web/crashy");
    site.outcomes = vec![Outcome::Fails];
    site.until("it was tried", 10.0, |site| !site.acts.is_empty());
    // It came up by itself meanwhile.
    site.mend("web/crashy");
    site.run(60.0);
    assert_eq!((site.acts.len(), site.state("web/crashy")), (1, State::Healthy));
    // The failure was counted: the fault was the first, the failed restart the second, which escalates.
    assert_eq!(site.kinds(EventKind::Escalated).len(), 1, "{}", site.transcript());
    assert_eq!(site.rungs(), [Rung::RestartService], "nothing is rebooted for what runs");
}
