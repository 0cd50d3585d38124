//! What goes wrong between cpe and a machine that is well: rows 5 and 10 of policy.md section 2. The machine is never touched,
//! although an infrastructure could reboot it and peers prove the path.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use cpe_tests::definition::{SHOP_ON_GUESTS, watched};
use cpe_tests::{Controller, Guest, Site, story, wait};

const SOON: Duration = Duration::from_secs(60);

fn two_healthy_machines(site: &Site) -> Result<(&Guest, Controller)> {
    site.boot_all()?;
    let machines: String = site.guests().iter().map(|guest| watched(guest, &["app"])).collect();
    let cpe = Controller::start(site, &format!("{SHOP_ON_GUESTS}{machines}"), &site.cpe_toml())?;
    cpe.wait_for_state("shop", "healthy", SOON)?;
    Ok((site.guest("web")?, cpe))
}

/// For several further intervals the infrastructure is asked, and asked to do nothing.
fn assert_left_alone(site: &Site, cpe: &Controller, web: &Guest) -> Result<()> {
    let asked = site.infra_calls()?.len();
    wait::until("the infrastructure to be asked thrice more", SOON, || {
        Ok((site.infra_calls()?.len() >= asked + 3).then_some(()))
    })?;
    assert_eq!(site.infra_deeds()?, [""; 0]);
    assert_eq!(cpe.recoveries()?, [""; 0]);
    assert_eq!((web.boots()?, web.unit_state("app")?), (1, "active".to_owned()));
    Ok(())
}

fn isolated(cpe: &Controller, verdict: &str) -> Result<()> {
    let what = format!("web to be isolated as {verdict}");
    let seen = cpe
        .wait_for_event(&what, SOON, |event| event.is("fault_isolated") && event.word("assembly") == "web")?;
    assert!(seen.word("reason").starts_with(verdict), "{seen:?}");
    Ok(())
}

#[test]
fn when_sshd_is_stopped_the_channel_is_blamed_and_the_machine_left_alone() -> Result<()> {
    story(&["web", "peer"], |site| {
        let (web, cpe) = two_healthy_machines(site)?;
        web.stop_sshd()?;
        isolated(&cpe, "channel_fault")?;
        assert!(site.wait_until_told("channel_fault", SOON)?.contains("shop/web"));
        assert_eq!(cpe.state_of("shop/web/app")?, "unknown", "not failed: nobody could look");
        assert_left_alone(site, &cpe, web)?;

        web.start_unit("ssh")?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert_eq!(cpe.recoveries()?, [""; 0]);
        Ok(())
    })
}

/// Somebody may sit in the middle. The operator who finds out that it was a new installation says so in known_hosts.
#[test]
fn a_changed_host_key_is_told_and_never_trusted_by_itself() -> Result<()> {
    story(&["web", "peer"], |site| {
        let (web, cpe) = two_healthy_machines(site)?;
        web.replace_host_key()?;
        isolated(&cpe, "misconfigured_channel")?;
        cpe.wait_for_state("shop/web", "misconfigured", SOON)?;
        assert!(site.wait_until_told("host key", SOON)?.contains("shop/web"));
        assert_left_alone(site, &cpe, web)?;

        let known = fs::read_to_string(site.path("known_hosts"))?;
        let address = web.address().to_string();
        let kept: String = known
            .lines()
            .filter(|line| !line.starts_with(&address))
            .map(|line| format!("{line}\n"))
            .collect();
        let key = web.demand("cat /etc/ssh/ssh_host_ed25519_key.pub")?;
        fs::write(site.path("known_hosts"), format!("{kept}{address} {key}\n"))?;
        // Known hosts are read at the start.
        assert!(cpe.stop()?.success());
        let cpe = Controller::resume(site)?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert_eq!(cpe.recoveries()?, [""; 0]);
        Ok(())
    })
}

#[test]
fn a_refused_key_is_told_and_nothing_is_done_until_it_is_accepted_again() -> Result<()> {
    story(&["web", "peer"], |site| {
        let (web, cpe) = two_healthy_machines(site)?;
        web.refuse_keys()?;
        isolated(&cpe, "misconfigured_channel")?;
        cpe.wait_for_state("shop/web", "misconfigured", SOON)?;
        assert!(site.wait_until_told("authentication failed", SOON)?.contains("shop/web"));
        assert_left_alone(site, &cpe, web)?;

        web.accept_keys()?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert_eq!(cpe.recoveries()?, [""; 0]);
        assert_eq!(site.told()?.len(), 1, "told once: {:?}", site.told()?);
        Ok(())
    })
}
