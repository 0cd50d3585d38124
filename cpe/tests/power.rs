//! `cpe stop --power-off` against a live fleet whose infrastructure really switches machines: what runs is stopped, then the machines go
//! off; cpe is killed on the way and afterwards; nothing comes back by itself, and a start brings all of it back.

#![allow(clippy::unwrap_used, reason = "what fails here is a test's failure")]

mod site;

use cpe_sim::live::Power;
use site::Site;

const SHOP: &str = r#"
name = "shop"
infrastructure = "demo"
probe = { interval = "500ms", timeout = "1s", confirm_interval = "100ms", stable_for = "300ms", startup_grace = "20s" }
[assemblies.db]
address = "{db}"
services.pg.systemd = "pg.service"
[assemblies.web]
address = "{web}"
after = ["db"]
services.nginx.systemd = "nginx.service"
"#;

const PLAIN: &str = r#"
name = "plain"
[assemblies.other]
address = "{other}"
services.nginx.systemd = "nginx.service"
"#;

const UNITS: [&str; 2] = ["pg.service", "nginx.service"];

fn power(site: &Site, machine: &str) -> Power {
    site.machine(machine).power()
}

fn is_off(site: &Site) -> bool {
    ["db", "web"].iter().all(|machine| power(site, machine) == Power::Off)
}

#[test]
fn what_is_stopped_with_its_power_stays_off_over_kills_of_cpe_until_it_is_started() {
    let mut site = Site::start(&[("shop.toml", SHOP)], &["db", "web"], &UNITS);
    site.wait_for("shop/web/nginx", "healthy");
    // A capability is learned once the infrastructure has answered.
    site.wait("the order is taken", || (site.cpe(&["stop", "--power-off", "shop"]).code == 0).then_some(()));
    site.wait("the first machine is off", || (power(&site, "web") == Power::Off).then_some(()));
    site.kill_controller();
    site.start_controller();
    site.wait("all machines are off", || is_off(&site).then_some(()));
    let status = || site.cpe(&["status", "shop"]).stdout;
    site.wait("that is told", || (status().matches("powered off").count() == 2).then_some(()));
    let stopped: Vec<_> = UNITS.iter().zip(["db", "web"]).collect();
    for (unit, machine) in stopped {
        assert!(!site.machine(machine).is_active(unit).unwrap(), "{unit} was stopped on {machine}");
    }

    site.kill_controller();
    site.start_controller();
    site.wait_for("shop/web/nginx", "stopped");
    assert!(is_off(&site), "a start of cpe powers nothing on");

    site.cpe(&["start", "shop"]).done();
    site.wait_for("shop/db/pg", "healthy");
    site.wait_for("shop/web/nginx", "healthy");
    let events = site.cpe(&["events", "shop"]).done();
    assert!(!events.contains("incident"), "neither was a fault:\n{events}");
    assert!(events.contains("shop/web  ordered: powered off"), "{events}");
    assert!(events.contains("shop/web  ordered: powered on"), "{events}");
    let audit = site.cpe(&["audit"]);
    assert_eq!(audit.code, 0, "{}{}", audit.stdout, audit.stderr);
}

#[test]
fn what_nothing_can_power_off_is_refused_before_anything_is_stopped() {
    let site = Site::start(&[("plain.toml", PLAIN)], &["other"], &UNITS);
    site.wait_for("plain/other/nginx", "healthy");
    let said = site.cpe(&["stop", "--power-off", "plain"]);
    assert_eq!(said.code, 1);
    assert!(
        said.stderr.contains("plain has no infrastructure that could power its machines off"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("`cpe stop plain` stops its services"), "{}", said.stderr);
    assert!(site.machine("other").is_active("nginx.service").unwrap());
    site.wait_for("plain/other/nginx", "healthy");
}
