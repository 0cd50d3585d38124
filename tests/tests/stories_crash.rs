//! cpe is killed within each rung, stands still, and is told another time: what it had begun is looked at, neither lost nor done twice,
//! and nobody else is blamed for it.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use cpe_tests::definition::{SHOP, SHOP_ON_GUESTS, watched};
use cpe_tests::{Controller, Guest, InfraFault, story};

const SOON: Duration = Duration::from_secs(60);
/// For whole ladders.
const LATER: Duration = Duration::from_secs(180);

/// Each start of app takes so long that a kill falls into it, and is written down in the guest.
const SLOW_START: &str =
    "[Service]\nType=exec\nExecStartPre=/bin/sh -c 'echo start >>/var/starts; sleep 3'\n";

#[test]
fn killed_while_a_restart_is_under_way_it_does_not_restart_again() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.put("/etc/systemd/system/app.service.d/slow.conf", SLOW_START, 0o644)?;
        web.boot()?;
        let cpe =
            Controller::start(site, &format!("{SHOP}{}", watched(web, &["app", "nginx"])), &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let neighbour = web.main_pid("nginx")?;

        web.stop_unit("app")?;
        web.wait_until("its restart is under way", SOON, || Ok(starts(web)? == 2))?;
        assert_eq!(web.unit_state("app")?, "activating");
        cpe.crash()?;
        let cpe = Controller::resume(site)?;
        cpe.wait_for_event("the incident to close", SOON, |event| event.is("incident_closed"))?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert_eq!(starts(web)?, 2, "one at boot, one by cpe");
        assert_eq!(cpe.recoveries()?, ["restart-service web/app"]);
        assert_eq!((web.main_pid("nginx")?, web.boots()?), (neighbour, 1));
        Ok(())
    })
}

fn starts(web: &Guest) -> Result<usize> {
    Ok(web.run("cat /var/starts")?.stdout.lines().count())
}

/// The image of a machine is broken, so that only another instance helps. On the way there, cpe is killed in each rung, when it was
/// done and nobody had heard of it.
#[test]
fn killed_within_each_rung_of_a_machine_it_climbs_on_and_does_nothing_twice() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.spoil_image(
            "/etc/systemd/system/app.service.d/broken.conf",
            "[Service]\nExecStartPre=test -e /run/lucky\n",
        )?;
        web.boot()?;
        // Nothing is replaced before what a killed cpe had begun is given up: soon, so that the story is short.
        let timing = "[timing]\nmachine_action_timeout = \"20s\"\nservice_action_timeout = \"20s\"\n\
                      action_give_up = \"20s\"\n";
        let head = SHOP_ON_GUESTS.replace("[probe]", &format!("{timing}[probe]\nstartup_grace = \"5s\""));
        let ladder = "[escalation]\nservice = { failures = 1, within = \"1h\" }\n\
                      assembly = { failures = 3, within = \"6h\" }\n";
        let machine = watched(web, &[]) + "data = \"none\"\nmax_rung = \"recreate\"\n";
        let service = "[assemblies.web.services.app]\nsystemd = \"app.service\"\n";
        let definition = format!("{head}{ladder}{machine}{service}");
        let mut cpe = Controller::start(site, &definition, &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;

        site.break_infra(Some(InfraFault::Slow))?;
        // As on its broken image: from now on it does not start.
        web.put(
            "/etc/systemd/system/app.service.d/broken.conf",
            "[Service]\nExecStartPre=test -e /run/lucky\n",
            0o644,
        )?;
        web.demand("systemctl daemon-reload && systemctl stop app")?;
        let deeds = ["reboot-soft web", "reboot-hard web", "rebuild web", "stop web", "create web"];
        for done in [1, 2, 3, 4, 5] {
            site.wait_for_deeds(&cpe, &deeds[..done], LATER)?;
            cpe.crash()?;
            cpe = Controller::resume(site)?;
        }
        cpe.wait_for_event("the incident to close", LATER, |event| event.is("incident_closed"))?;
        cpe.wait_for_state("shop", "healthy", LATER)?;
        assert_eq!(site.infra_deeds()?, deeds);
        assert_eq!(cpe.recoveries()?, ["reboot-soft web", "reboot-hard web", "rebuild web", "recreate web"]);
        assert_eq!((web.boots()?, web.unit_state("app")?), (5, "active".to_owned()));
        assert_eq!(site.told()?, [""; 0], "nobody was needed");
        Ok(())
    })
}

/// It gets no time for longer than every time-out and threshold. Then all answers are old, and they are not held against anybody.
#[test]
fn a_cpe_that_stood_still_for_longer_than_every_time_out_blames_nobody() -> Result<()> {
    story(&["web", "peer-1", "peer-2"], |site| {
        site.boot_all()?;
        let machines: String = site.guests().iter().map(|guest| watched(guest, &["app", "nginx"])).collect();
        let cpe = Controller::start(site, &format!("{SHOP_ON_GUESTS}{machines}"), &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let before = cpe.events()?.len();

        cpe.freeze()?;
        // Its sessions end meanwhile, too: whoever is back finds out and connects anew.
        site.guest("peer-1")?.demand("pkill -KILL -f '^sshd: dped'")?;
        site.guest("web")?.demand("systemctl restart ssh")?;
        let asked = site.infra_calls()?.len();
        stand_still();
        cpe.thaw()?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let since = cpe.events()?.split_off(before);
        let blamed: Vec<_> = since
            .iter()
            .filter(|event| {
                event.is("fault_isolated") || event.is("incident_opened") || event.became("failed")
            })
            .collect();
        assert!(blamed.is_empty(), "{blamed:#?}");
        let done = site.infra_calls()?.split_off(asked).into_iter().find(|call| call.did);
        assert!(done.is_none() && cpe.recoveries()?.is_empty(), "{done:?}");

        // And it still finds what is really broken.
        site.guest("web")?.kill_unit("app")?;
        cpe.wait_for_event("the restart of app", SOON, |event| event.is("incident_closed"))?;
        assert_eq!(cpe.recoveries()?, ["restart-service web/app"]);
        Ok(())
    })
}

/// The time that passes is the story: six intervals, three thresholds, five of the gaps that void evidence.
fn stand_still() {
    thread::sleep(Duration::from_secs(15));
}
