//! What operators order by hand, against a live fleet on loopback: through the same gate, answered with what is done or why not.

#![allow(clippy::unwrap_used, reason = "what fails here is a test's failure")]

mod site;

use site::Site;

const SHOP: &str = r#"
name = "shop"
infrastructure = "demo"
[probe]
interval = "500ms"
timeout = "1s"
confirm_interval = "100ms"
stable_for = "300ms"
startup_grace = "5s"
[assemblies.web]
address = "{web}"
[assemblies.web.services.nginx]
systemd = "nginx.service"
[assemblies.db]
address = "{db}"
failure_domains = ["az2"]
[assemblies.db.services.pg]
systemd = "nginx.service"
"#;

fn shop() -> Site {
    let site = Site::start(&[("shop.toml", SHOP)], &["web", "db"], &["nginx.service"]);
    site.wait_for("shop/web/nginx", "healthy");
    site.wait_for("shop/db/pg", "healthy");
    site
}

#[test]
fn a_recovery_by_hand_is_done_and_told_with_who_ordered_it() {
    let site = shop();
    let said = site.cpe(&["recover", "shop/web/nginx", "--reason", "it leaks"]).done();
    assert!(said.starts_with("shop/web/nginx: action 1, restart-service, is under way"), "{said}");
    site.wait_for_event(|event| event["kind"] == "incident_closed");
    assert_eq!(site.machine("web").counts().unit_starts, 1);
    let why = site.cpe(&["why", "shop/web/nginx"]).done();
    for part in
        ["ordered: recover, by uid", ": it leaks", "evidence   ordered: by uid", "gate       mode: act"]
    {
        assert!(why.contains(part), "{part}: {why}");
    }
    let said = site.cpe(&["recover", "shop/db", "--rung", "reboot-hard"]).done();
    assert!(said.contains("reboot-hard, is under way"), "{said}");
    site.wait_for_event(|event| event["kind"] == "recovery_finished" && event["rung"] == "reboot-hard");
}

#[test]
fn what_the_gate_refuses_a_person_is_exit_1_with_the_reason() {
    let site = shop();
    site.cpe(&["maintenance", "on", "shop/web", "--for", "1h", "--reason", "new disks"]).done();
    let refused = |arguments: &[&str], words: &str| {
        let said = site.cpe(arguments);
        assert_eq!(said.code, 1, "{arguments:?}");
        assert!(said.stderr.contains(words), "{words}: {}", said.stderr);
    };
    refused(&["recover", "shop/web/nginx"], "refused: maintenance");
    site.wait_for_event(|event| event["kind"] == "recovery_refused" && event["reason"] == "maintenance");
    site.cpe(&["pause", "--reason", "storm"]).done();
    refused(&["recover", "shop/db"], "refused: paused");
    refused(&["recover", "shop/db", "--rung", "recreate"], "refused: paused");
    site.cpe(&["resume"]).done();
    refused(&["recover", "shop/db", "--rung", "recreate"], "above max_rung");
    refused(&["recover", "shop"], "whole deployable");
    refused(&["recover", "shop/db/pg", "--rung", "reboot-hard"], "cpe recover shop/db --rung reboot-hard");
    refused(&["recover", "shop/nothing"], "there is no");
    refused(&["confirm-fenced", "shop/db", "--reason", "dark"], "not confirmed dead");
    assert_eq!(site.machine("web").counts().unit_starts + site.machine("db").counts().unit_starts, 0);
}

/// The key of every host as known_hosts has it, without that of one machine.
fn forget_key(site: &Site, machine: &str) {
    let file = site.state_dir().with_file_name("known_hosts");
    let address = site.machine(machine).address().ip().to_string();
    let known = std::fs::read_to_string(&file).unwrap();
    let kept: Vec<&str> = known.lines().filter(|line| !line.contains(&format!("[{address}]"))).collect();
    assert_ne!(kept.len(), known.lines().count(), "{known}");
    std::fs::write(file, kept.join("\n") + "\n").unwrap();
}

#[test]
fn a_host_key_is_believed_by_its_fingerprint_only_and_the_machine_is_connected_at_once() {
    let mut site = shop();
    site.kill_controller();
    forget_key(&site, "web");
    site.start_controller();
    site.wait_for_event(|event| event["kind"] == "state_changed" && event["to"] == "misconfigured");
    let looked = site.cpe(&["trust", "shop/web"]);
    assert_eq!(looked.code, 1, "nobody can be asked: {}", looked.stdout);
    assert!(looked.stdout.contains("no key of it is known"), "{}", looked.stdout);
    let fingerprint = looked.stdout.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap();
    assert!(looked.stderr.contains(&format!("--fingerprint {fingerprint}")), "{}", looked.stderr);
    let other = site.cpe(&[
        "trust",
        "shop/web",
        "--fingerprint",
        "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ]);
    assert_eq!(other.code, 1);
    assert!(other.stderr.contains("nothing is believed"), "{}", other.stderr);
    let said = site.cpe(&["trust", "shop/web", "--fingerprint", fingerprint]).done();
    assert!(said.contains("is believed"), "{said}");
    site.wait_for("shop/web/nginx", "healthy");
    let event = site.wait_for_event(|event| event["kind"] == "ordered");
    assert!(event["reason"].as_str().unwrap().starts_with(&format!("trust {fingerprint} of ")), "{event}");
    site.kill_controller();
    site.start_controller();
    site.wait_for("shop/web/nginx", "healthy");
    let again = site.cpe(&["trust", "shop/web"]);
    assert_eq!((again.code, again.stdout.contains("that is the known key")), (0, true), "{}", again.stdout);
}

#[test]
fn a_scheduled_window_is_a_maintenance_that_outlives_a_restart_and_that_a_person_can_end() {
    let all_day = SHOP.replacen(
        '\n',
        "\nmaintenance = [{ from = \"00:00\", for = \"1day\", assemblies = [\"w*\"], reason = \"patches\" }]\n",
        1,
    );
    let mut site = Site::start(&[("shop.toml", &all_day)], &["web", "db"], &["nginx.service"]);
    let window =
        |event: &serde_json::Value| event["kind"] == "maintenance_changed" && event["assembly"] == "web";
    site.wait_for("shop/web/nginx", "healthy");
    site.wait_for("shop/db/pg", "healthy");
    site.machine("web").kill_unit("nginx.service").unwrap();
    site.machine("db").kill_unit("nginx.service").unwrap();
    site.wait_for_event(|event| event["kind"] == "recovery_refused" && event["reason"] == "maintenance");
    site.wait_for("shop/db/pg", "healthy");
    let why_not = |site: &Site| site.cpe(&["why-not", "shop/web"]).done();
    site.wait("the schedule is told", || why_not(&site).contains("patches (by its schedule)").then_some(()));
    assert!(why_not(&site).contains(", until "), "{}", why_not(&site));
    site.kill_controller();
    site.start_controller();
    site.wait("it is in maintenance still", || {
        let status = site.status();
        (status["deployables"][0]["assemblies"][0]["maintenance"] == true).then_some(())
    });
    assert_eq!(site.machine("web").counts().unit_starts, 0);
    site.cpe(&["maintenance", "off", "shop/web"]).done();
    site.wait_for("shop/web/nginx", "healthy");
    assert_eq!(site.machine("web").counts().unit_starts, 1, "a person ends it before its time");
    let ended = site.wait_for_event(|event| window(event) && event["reason"] == "off: switched off");
    let again = site.cpe(&["events", "--json", "--since", "1h"]).done();
    let later = again.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    assert_eq!(
        later.filter(|event| window(event) && event["seq"].as_u64() > ended["seq"].as_u64()).count(),
        0
    );
}

#[test]
fn a_failure_domain_and_globs_select_what_is_shown_and_held_back() {
    let site = shop();
    let shown = |name: &str| -> Vec<String> {
        let said = site.cpe(&["status", name, "--json"]).done();
        let status: serde_json::Value = serde_json::from_str(&said).unwrap();
        let assemblies = status["deployables"][0]["assemblies"].as_array().unwrap();
        assemblies.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (shown("domain:az2"), shown("domain:az?"), shown("*/w*")),
        (vec!["db".to_owned()], vec!["db".to_owned()], vec!["web".to_owned()])
    );
    assert_eq!(site.cpe(&["status", "domain:az9"]).code, 1);
    let said = site.cpe(&["maintenance", "on", "domain:az2", "--for", "1h", "--reason", "power"]).done();
    assert!(said.starts_with("shop/db: in maintenance"), "{said}");
    site.machine("db").kill_unit("nginx.service").unwrap();
    site.wait_for_event(|event| event["kind"] == "recovery_refused" && event["reason"] == "maintenance");
    let events = site.cpe(&["events", "domain:az2", "--since", "1h", "--json"]).done();
    assert!(events.contains("recovery_refused") && !events.contains("\"assembly\":\"web\""), "{events}");
    assert!(site.cpe(&["why-not", "domain:az2"]).done().contains("shop/db/pg"));
    site.cpe(&["maintenance", "off", "shop/*"]).done();
    site.wait_for("shop/db/pg", "healthy");
    assert!(site.cpe(&["pause", "s*", "--reason", "storm"]).done().starts_with("shop: recovery is paused"));
    assert!(site.cpe(&["resume", "sh?p"]).done().starts_with("shop: recovery goes on"));
}

#[test]
fn a_pause_of_one_service_or_assembly_outlives_a_restart_and_holds_back_nothing_else() {
    let mut site = shop();
    assert!(site.cpe(&["pause", "shop/d", "--reason", "x"]).stderr.contains("there is no"));
    let said = site.cpe(&["pause", "shop/web/nginx", "--reason", "debugging"]).done();
    assert!(said.contains("`cpe resume shop/web/nginx` ends it"), "{said}");
    site.kill_controller();
    site.start_controller();
    site.wait_for("shop/web/nginx", "healthy");
    site.wait_for("shop/db/pg", "healthy");
    site.machine("web").kill_unit("nginx.service").unwrap();
    site.wait_for_event(|event| event["kind"] == "recovery_refused" && event["reason"] == "paused");
    site.machine("db").kill_unit("nginx.service").unwrap();
    site.wait("what is not paused is restarted", || {
        (site.machine("db").counts().unit_starts == 1).then_some(())
    });
    assert_eq!(site.machine("web").counts().unit_starts, 0);
    let why_not = site.cpe(&["why-not", "shop/web/nginx"]).stdout;
    assert!(why_not.contains("shop/web/nginx is paused: debugging (by uid"), "{why_not}");
    let status = site.cpe(&["status"]).stdout;
    assert!(status.contains("paused: debugging (by uid"), "{status}");
    let by_hand = site.cpe(&["recover", "shop/web/nginx"]);
    assert!(by_hand.code == 1 && by_hand.stderr.contains("paused"), "{}", by_hand.stderr);
    assert!(site.cpe(&["resume", "*/web/*"]).done().contains("shop/web/nginx: recovery goes on"));
    site.wait_for("shop/web/nginx", "healthy");
    let said = site.cpe(&["pause", "shop/*", "--reason", "both"]).done();
    assert!(said.contains("shop/db: recovery is paused") && said.contains("shop/web: recovery"), "{said}");
    assert!(site.cpe(&["resume", "shop/*"]).done().contains("shop/db: recovery goes on"));
    assert_eq!(site.cpe(&["audit"]).code, 0);
}

#[test]
fn a_pause_of_a_failure_domain_outlives_a_restart_and_covers_what_comes_into_it() {
    let mut site = shop();
    assert!(site.cpe(&["pause", "domain:az9", "--reason", "storm"]).stderr.contains("there is no"));
    let said = site.cpe(&["pause", "domain:az2", "--reason", "power work"]).done();
    assert!(said.contains("`cpe resume domain:az2` ends it"), "{said}");
    site.kill_controller();
    site.start_controller();
    site.wait_for("shop/web/nginx", "healthy");
    site.wait_for("shop/db/pg", "healthy");
    let refused = |assembly: &'static str| {
        move |event: &serde_json::Value| {
            event["kind"] == "recovery_refused"
                && event["reason"] == "paused"
                && event["assembly"] == assembly
        }
    };
    site.machine("db").kill_unit("nginx.service").unwrap();
    site.wait_for_event(refused("db"));
    site.machine("web").kill_unit("nginx.service").unwrap();
    site.wait("what is elsewhere is restarted", || {
        (site.machine("web").counts().unit_starts == 1).then_some(())
    });
    site.wait_for("shop/web/nginx", "healthy");
    let moved = SHOP.replace("address = \"{web}\"", "address = \"{web}\"\nfailure_domains = [\"az2\"]");
    site.define("shop.toml", &moved);
    site.wait_for_event(|event| event["kind"] == "definition_loaded" && event["reason"] == "changed");
    site.machine("web").kill_unit("nginx.service").unwrap();
    site.wait_for_event(refused("web"));
    assert!(
        site.cpe(&["status"]).stdout.contains("all recovery in domain:az2 is paused: power work (by uid")
    );
    let why_not = site.cpe(&["why-not", "shop/db"]).done();
    assert!(why_not.contains("domain:az2 is paused: power work"), "{why_not}");
    assert_eq!(site.machine("db").counts().unit_starts, 0);
    assert!(site.cpe(&["resume", "domain:az?"]).done().starts_with("domain:az2: recovery goes on"));
    site.wait_for("shop/db/pg", "healthy");
    site.wait_for("shop/web/nginx", "healthy");
    assert!(site.cpe(&["resume", "domain:az2"]).done().contains("was not paused"));
}
