//! Machines that are powered off by order and on again (policy.md section 5), while cpe is killed on the way there, on the way back, and
//! between them: what it had begun is neither lost nor done twice, and what is off by order is nobody's fault.

use std::time::Duration;

use anyhow::Result;
use cpe_tests::definition::{SHOP_ON_GUESTS, watched};
use cpe_tests::{Controller, InfraFault, Power, story, wait};

const SOON: Duration = Duration::from_secs(60);
/// For machines that boot one after the other.
const LATER: Duration = Duration::from_secs(180);

/// Each stop of app that is one, and no loss of power, is written down in the guest.
const TELLS_OF_A_STOP: &str = "[Service]\nExecStopPost=/bin/sh -c 'echo stopped >>/var/stops'\n";

#[test]
fn what_is_stopped_with_its_power_stays_off_and_comes_back_by_order_whenever_cpe_is_killed() -> Result<()> {
    story(&["db", "web"], |site| {
        for guest in site.guests() {
            guest.put("/etc/systemd/system/app.service.d/tells.conf", TELLS_OF_A_STOP, 0o644)?;
        }
        site.boot_all()?;
        let (db, web) = (site.guest("db")?, site.guest("web")?);
        let needs = "after = [\"db\"]\n[assemblies.web.services.app]\nsystemd = \"app.service\"\n";
        let machines = format!("{}{}{needs}", watched(db, &["app"]), watched(web, &[]));
        let cpe = Controller::start(site, &format!("{SHOP_ON_GUESTS}{machines}"), &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;

        // What is done is answered late, so that each kill falls between the deed and its answer.
        site.break_infra(Some(InfraFault::Slow))?;
        // It is refused until the infrastructure has said what it can do.
        wait::until("the order to be taken", SOON, || {
            Ok(cpe.cli(&["stop", "--power-off", "shop"])?.succeeded().then_some(()))
        })?;
        site.wait_for_deeds(&cpe, &["stop web"], LATER)?;
        cpe.crash()?;
        let cpe = Controller::resume(site)?;
        site.wait_for_deeds(&cpe, &["stop web", "stop db"], LATER)?;
        cpe.crash()?;
        let cpe = Controller::resume(site)?;
        for name in ["shop/db", "shop/web"] {
            wait::until(&format!("{name} to be told as off"), SOON, || {
                Ok((cpe.reason_of(name)? == "powered off").then_some(()))
            })?;
        }
        assert_eq!(cpe.state_of("shop")?, "stopped");
        cpe.crash()?;
        let cpe = Controller::resume(site)?;
        cpe.wait_for_state("shop", "stopped", SOON)?;
        assert_eq!((db.state()?, web.state()?), (Power::Off, Power::Off));

        cpe.demand(&["start", "shop"])?;
        let deeds = ["stop web", "stop db", "start db", "start web"];
        site.wait_for_deeds(&cpe, &deeds[..3], LATER)?;
        cpe.crash()?;
        let cpe = Controller::resume(site)?;
        cpe.wait_for_state("shop", "healthy", LATER)?;
        assert_eq!(site.infra_deeds()?, deeds, "each once, and in the order of what needs what");
        for guest in site.guests() {
            let stops = guest.run("cat /var/stops")?.stdout;
            assert_eq!(stops, "stopped\n", "app of {} was stopped before its power was cut", guest.name());
            assert_eq!((guest.boots()?, guest.unit_state("app")?), (2, "active".to_owned()));
        }
        assert_eq!(cpe.recoveries()?, [""; 0]);
        let incidents = cpe.events()?.iter().filter(|event| event.is("incident_opened")).count();
        assert_eq!((incidents, site.told()?), (0, vec![]), "neither was a fault");
        Ok(())
    })
}
