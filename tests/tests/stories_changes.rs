//! What changes under a running cpe: its definitions, the disk of a machine, the time of day. What did not change is not touched.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use cpe_tests::definition::{SHOP, watched};
use cpe_tests::{Controller, Site, program, story, wait};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn definitions_are_changed_broken_mended_and_removed_and_the_machine_notices_only_what_is_meant() -> Result<()>
{
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        let cpe = Controller::start(site, &format!("{SHOP}{}", watched(web, &["app"])), &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let (app, nginx) = (web.main_pid("app")?, web.main_pid("nginx")?);
        let file = cpe.deployables().join("story.toml");

        // One service more.
        fs::write(&file, format!("{SHOP}{}", watched(web, &["app", "nginx"])))?;
        wait::until("nginx to be watched", SOON, || {
            Ok((cpe.state_of("shop/web/nginx").ok().as_deref() == Some("healthy")).then_some(()))
        })?;
        // Broken: what runs goes on as it was, and still repairs.
        fs::write(&file, format!("{SHOP}{}", watched(web, &["app", "nginx"])).replace("address", "adress"))?;
        let rejected = cpe.wait_for_event("the rejection", SOON, |event| event.is("definition_rejected"))?;
        assert!(rejected.word("reason").contains("story.toml:"), "{rejected:?}");
        assert_eq!((web.main_pid("app")?, web.main_pid("nginx")?), (app, nginx));
        web.kill_unit("nginx")?;
        web.wait_until("nginx to be restarted", SOON, || Ok(web.unit_state("nginx")? == "active"))?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let nginx = web.main_pid("nginx")?;

        // Mended, and app is not cpe's any more: nobody restarts it, nor stops it.
        fs::write(&file, format!("{SHOP}{}", watched(web, &["nginx"])))?;
        wait::until("app not to be watched", SOON, || {
            Ok(cpe.state_of("shop/web/app").is_err().then_some(()))
        })?;
        assert_eq!((web.main_pid("app")?, web.main_pid("nginx")?), (app, nginx));
        web.stop_unit("app")?;

        // Removed: the machine is left alone.
        fs::remove_file(&file)?;
        wait::until("shop to be gone", SOON, || Ok(cpe.state_of("shop").is_err().then_some(())))?;
        web.stop_unit("nginx")?;
        wait::until("its sessions to end", SOON, || {
            Ok((!web.run("pgrep -f '^sshd: dped'")?.succeeded()).then_some(()))
        })?;
        // nginx's own stop gives it 5 s: on a busy machine it is killed then, and "failed". Nobody starts it.
        assert_eq!(web.unit_state("app")?, "inactive");
        assert_ne!(web.unit_state("nginx")?, "active");

        // Back again, as it was left: what is down is found.
        fs::write(&file, format!("{SHOP}{}", watched(web, &["nginx"])))?;
        web.wait_until("nginx to run", SOON, || Ok(web.unit_state("nginx")? == "active"))?;
        assert_eq!((web.unit_state("app")?, web.boots()?), ("inactive".to_owned(), 1));
        Ok(())
    })
}

/// No byte can be written on it any more, where programs write: its probes and its recovery need none.
#[test]
fn a_machine_with_a_full_disk_is_watched_and_repaired() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        let check = "[assemblies.web.services.check]\ncommand = \"test -e /run/systemd/system\"\n";
        let definition = format!("{SHOP}{}{check}", watched(web, &["app"]));
        for folder in ["/tmp", "/var/tmp", "/var/log", "/home/dped"] {
            let full = format!(
                "d=$(mktemp -d /run/fill.XXXXXX); cp -a {folder}/. $d; mount -t tmpfs -o size=64k,mode=1777 full {folder}; \
                 cp -a $d/. {folder} 2>/dev/null; dd if=/dev/zero of={folder}/filler bs=1k 2>/dev/null; \
                 dd if=/dev/zero of={folder}/more bs=1 2>/dev/null; ! echo x >{folder}/x 2>/dev/null"
            );
            web.demand(&full).with_context(|| format!("filling {folder}"))?;
        }
        web.demand("chown dped: /home/dped && chmod 755 /home/dped")?;
        let cpe = Controller::start(site, &definition, &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        web.kill_unit("app")?;
        cpe.wait_for_event("the incident to close", SOON, |event| event.is("incident_closed"))?;
        assert_eq!(cpe.recoveries()?, ["restart-service web/app"]);
        assert_eq!(cpe.state_of("shop/web/check")?, "healthy");
        Ok(())
    })
}

/// The wall clock of cpe alone: a kernel has one for all, so it is faked in this one process (libfaketime), by so many seconds from the
/// true time, from now on. Engine time is not touched, as setting a clock does not touch it.
fn set_clock(site: &Site, seconds: i64) -> Result<()> {
    let new = site.path("clock.new");
    fs::write(&new, format!("{seconds:+}\n"))?;
    fs::rename(new, site.path("clock")).context("setting the clock")
}

fn faked(site: &Site) -> Result<Vec<(&'static str, String)>> {
    let found = program::demand("sh", ["-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"], SOON)
        .context("libfaketime is needed: apt-get install faketime")?;
    Ok(vec![
        ("LD_PRELOAD", found.trim().to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", site.path("clock").display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ])
}

/// A day behind, right again, an hour ahead. Nothing is late for that, nobody is blamed, faults are repaired as ever, and what was promised
/// for half an hour ends by the clock that people read.
#[test]
fn a_clock_that_is_set_back_and_forth_harms_nobody() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        set_clock(site, 0)?;
        let definition = format!("{SHOP}{}", watched(web, &["app"]));
        let cpe = Controller::start_with(site, &definition, &site.cpe_toml(), &faked(site)?)?;
        cpe.wait_for_state("shop", "healthy", SOON)?;

        for (number, seconds) in [-86_400, 0, 3600].into_iter().enumerate() {
            let ahead = seconds > 0;
            if ahead {
                cpe.demand(&["maintenance", "on", "shop/web", "--for", "30m", "--reason", "clock"])?;
            }
            set_clock(site, seconds)?;
            wait::until("maintenance to be over, if there was any", SOON, || {
                let changes = cpe.events()?.iter().filter(|event| event.is("maintenance_changed")).count();
                Ok((changes == if ahead { 2 } else { 0 }).then_some(()))
            })?;
            web.kill_unit("app")?;
            wait::until("the repair", SOON, || {
                let closed = cpe.events()?.into_iter().filter(|event| event.is("incident_closed"));
                Ok((closed.count() == number + 1).then_some(()))
            })?;
            cpe.wait_for_state("shop", "healthy", SOON)?;
            let told = cpe.events()?.last().context("there are events")?.time().as_secs();
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().saturating_add_signed(seconds);
            assert!(now.abs_diff(told) < 600, "told at {told}, the clock said {now}");
        }
        assert_eq!(cpe.recoveries()?, ["restart-service web/app"; 3]);
        let blamed = cpe.events()?.into_iter().find(|event| event.became("unreachable"));
        assert_eq!(blamed, None);
        Ok(())
    })
}
