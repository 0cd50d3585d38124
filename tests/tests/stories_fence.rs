//! Machines that are rebooted through a fence agent: `guests/fence_guest`, called as one of fence-agents.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use cpe_tests::definition::{SHOP_ON_GUESTS, watched};
use cpe_tests::{Controller, story};

const SOON: Duration = Duration::from_secs(60);
/// For a machine that is lost, found and verified.
const LATER: Duration = Duration::from_secs(180);

const AGENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/fence_guest");

/// It is switched off, seen to be off, and switched on; the agent's own reboot is not asked for, and no other outlet is touched.
#[test]
fn a_machine_that_hangs_is_switched_off_and_on_by_its_fence_agent() -> Result<()> {
    story(&["web", "peer-1", "peer-2"], |site| {
        site.boot_all()?;
        let folder = site.path("");
        let config = format!(
            "{}[infrastructures.rack]\nkind = \"fence\"\nagent = \"{AGENT}\"\noptions = {{ site = \"{}\" }}\n",
            site.cpe_toml(),
            folder.display().to_string().trim_end_matches('/'),
        );
        let machine = |guest| {
            format!("{}[assemblies.{1}.fence]\nplug = \"{1}\"\n", watched(guest, &["app"]), guest.name())
        };
        let machines: String = site.guests().iter().map(machine).collect();
        let head = SHOP_ON_GUESTS.replace("\"guests\"", "\"rack\"");
        let cpe = Controller::start(site, &format!("{head}{machines}"), &config)?;
        cpe.wait_for_state("shop", "healthy", SOON)?;

        site.guest("web")?.hang()?;
        cpe.wait_for_event("the incident to close", LATER, |event| {
            event.is("incident_closed") && event.word("assembly") == "web"
        })?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert_eq!(cpe.recoveries()?, ["reboot-hard web"]);
        for guest in site.guests() {
            let boots = if guest.name() == "web" { 2 } else { 1 };
            assert_eq!(guest.boots()?, boots, "boots of {}", guest.name());
        }
        let log = fs::read_to_string(site.path("fence.log"))?;
        let calls: Vec<&str> = log.lines().collect();
        let off = calls.iter().position(|call| *call == "off web 0");
        let rest = off.and_then(|off| calls.get(off..off + 4)).unwrap_or_default();
        assert_eq!(rest, ["off web 0", "status web 2", "on web 0", "status web 0"], "{log}");
        assert!(calls.iter().all(|call| call.starts_with("status ") || call.ends_with(" web 0")), "{log}");
        assert!(!log.contains("reboot"), "{log}");
        assert_eq!(site.infra_deeds()?, [""; 0]);
        Ok(())
    })
}
