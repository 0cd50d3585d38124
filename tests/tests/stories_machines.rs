//! What goes wrong with a whole machine: rows 7, 11, 12 and 14 of policy.md section 2. Machines that live beside it prove the path.

use std::time::Duration;

use anyhow::Result;
use cpe_tests::definition::{SHOP, SHOP_ON_GUESTS, watched};
use cpe_tests::{Controller, Guest, InfraFault, Power, Site, story, wait};

const SOON: Duration = Duration::from_secs(60);
/// For a machine that is lost, found and verified.
const LATER: Duration = Duration::from_secs(180);

/// `web` and two peers on the same path, all healthy, in the site's infrastructure.
fn three_healthy_machines(site: &Site) -> Result<(&Guest, Controller)> {
    site.boot_all()?;
    let machines: String = site.guests().iter().map(|guest| watched(guest, &["app"])).collect();
    let cpe = Controller::start(site, &format!("{SHOP_ON_GUESTS}{machines}"), &site.cpe_toml())?;
    cpe.wait_for_state("shop", "healthy", SOON)?;
    Ok((site.guest("web")?, cpe))
}

/// One infrastructure call, one boot more, its service verified, its peers untouched.
fn assert_saved_by(deed: &str, site: &Site, cpe: &Controller) -> Result<()> {
    cpe.wait_for_event("the incident to close", LATER, |event| {
        event.is("incident_closed") && event.word("assembly") == "web"
    })?;
    cpe.wait_for_state("shop", "healthy", SOON)?;
    assert_eq!(site.infra_deeds()?, [format!("{deed} web")]);
    assert_eq!(cpe.recoveries()?, [format!("{deed} web")]);
    for guest in site.guests() {
        assert_eq!(guest.unit_state("app")?, "active");
        let boots = if guest.name() == "web" { 2 } else { 1 };
        assert_eq!(guest.boots()?, boots, "boots of {}", guest.name());
    }
    Ok(())
}

#[test]
fn a_machine_without_power_is_started() -> Result<()> {
    story(&["web", "peer-1", "peer-2"], |site| {
        let (web, cpe) = three_healthy_machines(site)?;
        web.power_off()?;
        assert_saved_by("start", site, &cpe)?;
        let why = cpe.demand(&["why", "shop/web"])?;
        for evidence in ["off (row 7)", "infrastructure says off", "path proven", "start of web: admitted"] {
            assert!(why.contains(evidence), "cpe why does not show {evidence:?}:\n{why}");
        }
        Ok(())
    })
}

/// The machine is off, and so is the cloud's API. What cannot be asked is not guessed.
#[test]
fn while_the_infrastructure_does_not_answer_nothing_is_done_and_then_the_machine_is_started() -> Result<()> {
    story(&["web", "peer-1", "peer-2"], |site| {
        let (web, cpe) = three_healthy_machines(site)?;
        site.break_infra(Some(InfraFault::Fails))?;
        web.power_off()?;
        cpe.wait_for_state("shop/web", "unreachable", SOON)?;
        let asked = site.infra_calls()?.len();
        wait::until("the infrastructure to be asked thrice more", SOON, || {
            Ok((site.infra_calls()?.len() >= asked + 3).then_some(()))
        })?;
        assert_eq!((cpe.recoveries()?.len(), cpe.state_of("shop/web")?), (0, "unreachable".to_owned()));

        site.break_infra(None)?;
        assert_saved_by("start", site, &cpe)
    })
}

/// All its processes stand still. Its kernel accepts connections, which proves nothing.
#[test]
fn a_frozen_machine_is_rebooted_hard_once_peers_prove_the_path() -> Result<()> {
    story(&["web", "peer-1", "peer-2"], |site| {
        let (web, cpe) = three_healthy_machines(site)?;
        web.freeze()?;
        assert_saved_by("reboot-hard", site, &cpe)?;
        let why = cpe.demand(&["why", "shop/web"])?;
        for evidence in
            ["hung (row 11)", "infrastructure says active", "path: ", "reboot-hard of web: admitted"]
        {
            assert!(why.contains(evidence), "cpe why does not show {evidence:?}:\n{why}");
        }
        let events = cpe.demand(&["events", "shop/web"])?;
        assert!(events.contains("rebooted (hard) (hung: "), "no sentence on the reboot:\n{events}");
        let isolated = cpe.events()?.iter().filter(|event| event.is("fault_isolated")).count();
        assert_eq!(isolated, 1, "one conclusion of one fault:\n{events}");
        Ok(())
    })
}

#[test]
fn a_machine_that_hangs_silently_is_rebooted_hard_once_peers_prove_the_path() -> Result<()> {
    story(&["web", "peer-1", "peer-2"], |site| {
        let (web, cpe) = three_healthy_machines(site)?;
        web.hang()?;
        assert_saved_by("reboot-hard", site, &cpe)
    })
}

/// With nobody beside it, the fault may as well be ours.
#[test]
fn a_hung_machine_without_any_peer_is_only_reported() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        let timing = "[timing]\nunreachable_notify = \"3s\"\n";
        let definition = format!("{SHOP_ON_GUESTS}{timing}{}", watched(web, &["app"]));
        let cpe = Controller::start(site, &definition, &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert!(cpe.stderr_tail().contains("only reported"), "its start says so: {}", cpe.stderr_tail());
        let definition = cpe.deployables().join("story.toml").display().to_string();
        let checked = cpe.demand(&["check", &definition])?;
        assert!(checked.contains("only reported"), "cpe check says so: {checked}");

        web.hang()?;
        cpe.wait_for_state("shop/web", "unreachable", SOON)?;
        cpe.wait_for_state("shop/web/app", "unknown", SOON)?;
        let told = site.wait_until_told("unreachable", SOON)?;
        assert!(told.contains("shop/web") && told.contains("nothing is done"), "{told}");
        // The infrastructure is asked on and on, and never to do anything.
        let asked = site.infra_calls()?.len();
        wait::until("the infrastructure to be asked thrice more", SOON, || {
            Ok((site.infra_calls()?.len() >= asked + 3).then_some(()))
        })?;
        assert_eq!(site.infra_deeds()?, [""; 0]);

        web.thaw()?;
        cpe.wait_for_state("shop", "healthy", LATER)?;
        assert_eq!(cpe.recoveries()?, [""; 0]);
        assert_eq!((web.boots()?, web.unit_state("app")?), (1, "active".to_owned()));
        Ok(())
    })
}

#[test]
fn a_network_that_is_back_before_the_thresholds_costs_nothing() -> Result<()> {
    story(&["web", "peer-1", "peer-2"], |site| {
        site.boot_all()?;
        // Five misses of two seconds each: time enough to heal it after the first.
        let head = SHOP_ON_GUESTS.replace("[probe]", "[probe]\nfailure_threshold = 5");
        let machines: String = site.guests().iter().map(|guest| watched(guest, &["app"])).collect();
        let cpe = Controller::start(site, &format!("{head}{machines}"), &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let web = site.guest("web")?;

        web.cut_link()?;
        cpe.wait_until_became("web", "suspected", SOON)?;
        web.heal_link()?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert!(!cpe.events()?.iter().any(|event| event.is("fault_isolated") || event.is("incident_opened")));
        assert_eq!(site.infra_calls()?.iter().filter(|call| call.did).count(), 0);
        assert_eq!(web.boots()?, 1);
        Ok(())
    })
}

/// From outside it is a hung machine: active, silent, and its peers answer. A reboot is tried and does not heal the cable.
#[test]
fn a_machine_that_stays_cut_off_is_rebooted_and_verified_when_the_network_is_back() -> Result<()> {
    story(&["web", "peer-1", "peer-2"], |site| {
        let (web, cpe) = three_healthy_machines(site)?;
        web.cut_link()?;
        cpe.wait_for_event("a hard reboot", SOON, |event| {
            event.is("recovery_started") && event.word("rung") == "reboot-hard"
        })?;
        web.heal_link()?;
        assert_saved_by("reboot-hard", site, &cpe)
    })
}

#[test]
fn a_machine_that_is_cut_off_and_that_nobody_can_reboot_is_left_alone() -> Result<()> {
    story(&["web", "peer-1", "peer-2"], |site| {
        site.boot_all()?;
        let machines: String = site.guests().iter().map(|guest| watched(guest, &["app"])).collect();
        let timing = "[timing]\nunreachable_notify = \"3s\"\n";
        let cpe = Controller::start(site, &format!("{SHOP}{timing}{machines}"), &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let web = site.guest("web")?;

        web.cut_link()?;
        cpe.wait_for_state("shop/web", "unreachable", SOON)?;
        assert_eq!(cpe.state_of("shop")?, "degraded", "its peers still serve");
        site.wait_until_told("shop/web", SOON)?;
        web.heal_link()?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert_eq!(cpe.recoveries()?, [""; 0]);
        let asked = site.infra_calls()?.into_iter().find(|call| call.action != "capabilities");
        assert!(asked.is_none(), "it is not in that infrastructure: {asked:?}");
        assert_eq!((web.boots()?, web.unit_state("app")?), (1, "active".to_owned()));
        Ok(())
    })
}

/// The infrastructure can look and do nothing else: the ladder has no rung, and a person is told.
#[test]
fn a_hung_machine_in_an_infrastructure_that_can_only_look_is_told_to_a_person() -> Result<()> {
    story(&["web", "peer-1", "peer-2"], |site| {
        site.boot_all()?;
        let machines: String = site.guests().iter().map(|guest| watched(guest, &["app"])).collect();
        let cpe_toml = format!("{}capabilities = [\"status\"]\n", site.cpe_toml());
        let cpe = Controller::start(site, &format!("{SHOP_ON_GUESTS}{machines}"), &cpe_toml)?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let web = site.guest("web")?;

        web.hang()?;
        let told = site.wait_until_told("exhausted", LATER)?;
        assert!(told.contains("shop/web") && told.contains("reboot-hard skipped"), "{told}");
        assert_eq!(site.infra_deeds()?, [""; 0]);
        web.thaw()?;
        cpe.wait_for_state("shop", "healthy", LATER)?;
        assert_eq!(cpe.recoveries()?, [""; 0]);
        assert_eq!((web.boots()?, web.state()?), (1, Power::Active));
        Ok(())
    })
}
