//! What operators do, and what happens to cpe itself: maintenance, ordered stop and start, restarts, a journal that cannot be
//! written. What is healthy is not touched by any of it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use cpe_tests::definition::{SHOP, watched};
use cpe_tests::{Controller, Event, Guest, program, story, wait};

const SOON: Duration = Duration::from_secs(60);
/// For what waits for a back-off.
const LATER: Duration = Duration::from_secs(120);

#[test]
fn in_maintenance_a_fault_is_seen_and_not_acted_on_and_after_it_is_repaired() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        let head = SHOP.replace("[probe]", "[probe]\nstartup_grace = \"5s\"");
        let definition = format!("{head}{}", watched(web, &["app", "nginx"]));
        let cpe = Controller::start(site, &definition, &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let neighbour = web.main_pid("nginx")?;

        cpe.demand(&["maintenance", "on", "shop/web", "--for", "1h", "--reason", "kernel update"])?;
        let begun = cpe.wait_for_event("maintenance", SOON, |event| event.is("maintenance_changed"))?;
        assert!(begun.word("reason").contains("kernel update"), "{begun:?}");
        web.stop_unit("app")?;
        cpe.wait_until_became("web/app", "failed", SOON)?;
        let refused = cpe.wait_for_event("a refusal", SOON, |event| event.is("recovery_refused"))?;
        assert!(refused.word("reason").contains("maintenance"), "{refused:?}");
        assert_eq!((cpe.recoveries()?.len(), web.unit_state("app")?), (0, "inactive".to_owned()));

        cpe.demand(&["maintenance", "off", "shop/web"])?;
        web.wait_until("app to run again", SOON, || Ok(web.unit_state("app")? == "active"))?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert_eq!(web.main_pid("nginx")?, neighbour);
        let refusals = cpe.events()?.iter().filter(|event| event.is("recovery_refused")).count();
        assert_eq!(refusals, 1, "a standing refusal is told once");
        Ok(())
    })
}

/// `web/app` comes after `db/dep`: it is stopped first and started last.
#[test]
fn stop_and_start_keep_the_order_and_a_stop_outlives_a_restart_of_cpe() -> Result<()> {
    story(&["db", "web"], |site| {
        site.boot_all()?;
        let (db, web) = (site.guest("db")?, site.guest("web")?);
        let order = "after = [\"db/dep\"]\n";
        let definition = format!("{SHOP}{}{}{order}", watched(db, &["dep"]), watched(web, &["app"]));
        let cpe = Controller::start(site, &definition, &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;

        cpe.demand(&["stop", "shop"])?;
        cpe.wait_for_state("shop", "stopped", SOON)?;
        assert_eq!((web.unit_state("app")?, db.unit_state("dep")?), ("inactive".into(), "inactive".into()));
        let (app, dep) = (changed(web, "app", "InactiveEnter")?, changed(db, "dep", "InactiveEnter")?);
        assert!(app < dep, "app was stopped at {app} µs, dep at {dep} µs");

        // A stop is an order, not a fault: a cpe that is new here keeps to it.
        assert!(cpe.stop()?.success());
        let cpe = Controller::resume(site)?;
        cpe.wait_for_state("shop", "stopped", SOON)?;
        assert_eq!(web.unit_state("app")?, "inactive");

        cpe.demand(&["start", "shop"])?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let (app, dep) = (changed(web, "app", "ActiveEnter")?, changed(db, "dep", "ActiveEnter")?);
        assert!(dep < app, "dep was started at {dep} µs, app at {app} µs");
        assert_eq!(cpe.recoveries()?, [""; 0], "none of this was a recovery");
        assert_eq!(cpe.events()?.iter().filter(|event| event.is("incident_opened")).count(), 0);
        assert_eq!((web.boots()?, db.boots()?), (1, 1));
        Ok(())
    })
}

/// SIGTERM comes while a slow restart is under way. The restart is finished, and what comes after finds all in order.
#[test]
fn sigterm_lets_an_action_finish_and_the_next_cpe_touches_nothing_healthy() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        web.demand(
            "mkdir /etc/systemd/system/app.service.d && printf '[Service]\\nType=exec\\nExecStartPre=sleep 2\\n' \
             >/etc/systemd/system/app.service.d/slow.conf && systemctl daemon-reload",
        )?;
        let definition = format!("{SHOP}{}", watched(web, &["app", "nginx"]));
        let cpe = Controller::start(site, &definition, &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let neighbour = web.main_pid("nginx")?;

        web.stop_unit("app")?;
        cpe.wait_for_event("its restart to begin", SOON, |event| event.is("recovery_started"))?;
        let first = cpe.events()?;
        assert!(cpe.stop()?.success(), "a drain is no failure");
        assert_eq!(web.unit_state("app")?, "active", "the restart was waited for");
        let restarted = web.main_pid("app")?;

        let cpe = Controller::resume(site)?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert_eq!(cpe.recoveries()?, ["restart-service web/app"]);
        assert_eq!((web.main_pid("app")?, web.main_pid("nginx")?), (restarted, neighbour));
        let all = cpe.events()?;
        assert_eq!(all[..first.len()], first, "what was written is kept");
        assert!(numbers_grow(&all), "numbers of events are never used twice: {all:#?}");

        // A second fault is a second incident.
        web.kill_unit("nginx")?;
        let opened = cpe.wait_for_event("an incident of nginx", SOON, |event| {
            event.is("incident_opened") && event.subject() == "web/nginx"
        })?;
        let known = all.iter().find(|event| event.is("incident_opened")).context("no first incident")?;
        assert_ne!(opened.0["incident"], known.0["incident"]);
        cpe.wait_for_state("shop", "healthy", SOON)?;

        // Nor does one that comes after a crash.
        cpe.crash()?;
        let neighbour = web.main_pid("nginx")?;
        let cpe = Controller::resume(site)?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert_eq!(cpe.recoveries()?, ["restart-service web/app", "restart-service web/nginx"]);
        assert_eq!((web.main_pid("app")?, web.main_pid("nginx")?), (restarted, neighbour));
        assert!(numbers_grow(&cpe.events()?));
        Ok(())
    })
}

/// The disk under state_dir is full: no durable intent, no action. It goes on as soon as there is room.
#[test]
fn while_the_journal_cannot_be_written_nothing_is_done_and_then_it_is() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        let disk = Disk::mount(&site.path("cpe/state"))?;
        let definition = format!("{SHOP}{}", watched(web, &["app"]));
        let cpe = Controller::start(site, &definition, &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;

        disk.fill()?;
        web.stop_unit("app")?;
        cpe.wait_for_status("shop/web/app", "failed", SOON)?;
        wait::until("the journal to be the reason of a refusal", SOON, || {
            let metrics = cpe.metrics()?;
            let unwritable = metrics.lines().any(|line| line == "cpe_journal_writable 0");
            let refused = metrics.lines().any(|line| {
                line.starts_with("cpe_refusals") && line.contains("\"journal\"") && !line.ends_with(" 0")
            });
            Ok((unwritable && refused).then_some(()))
        })?;
        assert_eq!(web.unit_state("app")?, "inactive", "nothing was done");
        assert_eq!(cpe.state_of("shop/web/app")?, "failed", "and it is still watched");
        // A person is told, and whoever asks.
        let told = site.wait_until_told("the journal cannot be written", SOON)?;
        assert!(told.contains("nothing is recovered until it can"), "{told}");
        let why_not = cpe.cli(&["why-not", "shop/web/app"])?.stdout;
        assert!(why_not.contains("the journal"), "{why_not}");

        disk.empty()?;
        cpe.wait_for_state("shop", "healthy", LATER)?;
        assert_eq!(web.unit_state("app")?, "active");
        assert_eq!(cpe.recoveries()?, ["restart-service web/app"]);
        site.wait_until_told("the journal can be written again", SOON)?;
        assert!(cpe.stop()?.success());
        Ok(())
    })
}

/// When a unit last changed so, in microseconds of the one clock that all guests share.
fn changed(guest: &Guest, unit: &str, how: &str) -> Result<u64> {
    let property = format!("{how}TimestampMonotonic");
    Ok(guest.demand(&format!("systemctl show --value --property={property} {unit}"))?.parse()?)
}

fn numbers_grow(events: &[Event]) -> bool {
    events.is_sorted_by_key(|event| event.0["seq"].as_u64())
        && events.windows(2).all(|two| two[0].0["seq"] != two[1].0["seq"])
}

/// A small disk of its own, unmounted on drop. Made before the controller that writes to it, so that it goes after it.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let folder = folder.display().to_string();
        let options = ["-t", "tmpfs", "-o", "size=64M,mode=0755", "tmpfs", &folder];
        program::demand("mount", options, SOON)?;
        Ok(Self(folder.into()))
    }

    fn fill(&self) -> Result<()> {
        let mut file = File::create(self.0.join("filler"))?;
        for size in [1 << 16, 1 << 12, 1] {
            let chunk = vec![0; size];
            while file.write_all(&chunk).is_ok() {}
        }
        Ok(())
    }

    fn empty(&self) -> Result<()> {
        fs::remove_file(self.0.join("filler")).context("removing what fills the disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: if cpe still lives because its story failed, the site's end must not fail, too.
        drop(program::demand("umount", ["--lazy".into(), self.0.clone()], SOON));
    }
}
