//! The controller and its command line against a live fleet on loopback (`cpe_sim::live`): what needs no real guest. The same on real
//! systemd machines is in `tests/`.

mod site;

use std::time::Duration;

use site::Site;

const WEB: &str = r#"
name = "shop"
infrastructure = "demo"
[probe]
interval = "500ms"
timeout = "1s"
confirm_interval = "100ms"
stable_for = "300ms"
startup_grace = "5s"
[escalation]
service = { failures = 3, within = "10m" }
[assemblies.web]
address = "{web}"
[assemblies.web.services.nginx]
systemd = "nginx.service"
[assemblies.web.services.php]
systemd = "php.service"
after = ["nginx"]
"#;

#[test]
fn a_killed_unit_is_restarted_and_told_in_one_sentence() {
    let site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/nginx", "healthy");
    site.machine("web").kill_unit("nginx.service").unwrap();
    site.wait_for_event(|event| event["kind"] == "incident_closed" && event["service"] == "nginx");
    let events = site.cpe(&["events", "shop/web/nginx"]).done();
    let told = events
        .lines()
        .find(|line| line.contains("restarted (unit failed"))
        .unwrap_or_else(|| panic!("{events}"));
    assert!(told.contains("failure 1 of 3 in 10 min), healthy after "), "{told}");
    let why = site.cpe(&["why", "shop/web/nginx"]).done();
    assert!(why.contains("concluded  per_service (row 13)"), "{why}");
    assert!(why.contains("gate       mode: act"), "{why}");
}

#[test]
fn in_maintenance_a_fault_is_seen_and_not_acted_upon_until_it_ends() {
    let site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/nginx", "healthy");
    site.cpe(&["maintenance", "on", "shop/web", "--for", "1h", "--reason", "new disks"]).done();
    site.machine("web").kill_unit("nginx.service").unwrap();
    site.wait_for_event(|event| event["kind"] == "recovery_refused" && event["service"] == "nginx");
    assert_eq!(site.machine("web").counts().unit_starts, 0);
    site.cpe(&["maintenance", "off", "shop/web"]).done();
    site.wait_for("shop/web/nginx", "healthy");
    assert!(site.machine("web").is_active("nginx.service").unwrap());
}

#[test]
fn maintenance_and_numbers_outlive_the_controller() {
    let mut site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/nginx", "healthy");
    site.machine("web").kill_unit("nginx.service").unwrap();
    site.wait_for_event(|event| event["kind"] == "incident_closed");
    site.cpe(&["maintenance", "on", "shop", "--for", "1h", "--reason", "new disks"]).done();
    site.kill_controller();
    site.start_controller();
    site.wait_for("shop/web/nginx", "healthy");
    assert_eq!(site.status()["deployables"][0]["maintenance"], true);
    site.cpe(&["maintenance", "off", "shop"]).done();
    site.machine("web").kill_unit("nginx.service").unwrap();
    let started = site.wait_for_event(|event| event["kind"] == "recovery_started" && event["incident"] != 1);
    assert_eq!(started["incident"], 2, "a number is never used twice");
    assert_eq!(started["action"], 2, "a number is never used twice");
}

#[test]
fn a_stop_is_in_reverse_order_and_nothing_that_was_stopped_is_recovered() {
    let site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/php", "healthy");
    let mut happenings = site.fleet().observe();
    site.cpe(&["stop", "shop"]).done();
    site.wait_for("shop/web/nginx", "stopped");
    let mut stopped = Vec::new();
    while let Ok(happening) = happenings.try_recv() {
        stopped.extend(happening.what.to_string().strip_suffix(" stopped").map(str::to_owned));
    }
    assert_eq!(stopped, ["php.service", "nginx.service"]);
    assert_eq!(site.machine("web").counts().unit_starts, 0);
    site.cpe(&["start", "shop"]).done();
    site.wait_for("shop/web/php", "healthy");
    assert!(site.machine("web").is_active("nginx.service").unwrap());
}

#[test]
fn while_one_deployable_is_paused_it_is_watched_and_nothing_is_done_also_after_a_restart() {
    let mut site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/nginx", "healthy");
    site.cpe(&["pause", "shop", "--reason", "migration"]).done();
    site.wait_for_event(|event| event["kind"] == "breaker_changed" && event["deployable"] == "shop");
    site.kill_controller();
    site.start_controller();
    site.wait_for("shop/web/nginx", "healthy");
    site.machine("web").kill_unit("nginx.service").unwrap();
    let refused = site.wait_for_event(|event| event["kind"] == "recovery_refused");
    assert_eq!(refused["reason"], "paused");
    assert_eq!(site.machine("web").counts().unit_starts, 0);
    let status = site.status();
    assert_eq!(status["deployables"][0]["paused"]["reason"], "migration");
    assert_eq!(status["paused"], serde_json::Value::Null, "only that deployable");
    site.cpe(&["resume", "shop"]).done();
    site.wait_for("shop/web/nginx", "healthy");
    assert!(site.machine("web").is_active("nginx.service").unwrap());
    assert_eq!(site.status()["deployables"][0]["paused"], serde_json::Value::Null);
}

#[test]
fn while_everything_is_paused_the_gate_refuses_all_also_after_a_restart() {
    let mut site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/nginx", "healthy");
    site.cpe(&["pause", "--reason", "storm"]).done();
    site.kill_controller();
    site.start_controller();
    site.wait_for("shop/web/nginx", "healthy");
    site.machine("web").kill_unit("nginx.service").unwrap();
    let refused = site.wait_for_event(|event| event["kind"] == "recovery_refused");
    assert!(refused["reason"].as_str().unwrap().starts_with("paused"), "{refused}");
    assert_eq!(site.machine("web").counts().unit_starts, 0);
    let said = site.cpe(&["status"]).stdout;
    assert!(said.contains("all recovery is paused: storm (by uid "), "{said}");
    site.cpe(&["resume", "--reason", "over"]).done();
    site.wait_for("shop/web/nginx", "healthy");
    let events = site.cpe(&["events"]).done();
    assert!(
        events.contains("paused: storm (by uid ") && events.contains("resumed: over (by uid "),
        "{events}"
    );
    let again = site.cpe(&["resume"]).done();
    assert!(again.contains("was not paused"), "{again}");
}

#[test]
fn an_acknowledged_incident_is_marked_with_who_knows_of_it() {
    let site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/nginx", "healthy");
    let nothing = site.cpe(&["ack", "shop"]);
    assert_eq!(nothing.code, 1);
    assert!(nothing.stderr.contains("no incident is open"), "{}", nothing.stderr);
    site.cpe(&["pause", "--reason", "storm"]).done();
    site.machine("web").kill_unit("nginx.service").unwrap();
    site.wait_for_event(|event| event["kind"] == "incident_opened");
    let said = site.cpe(&["ack", "shop/web"]).done();
    assert!(said.starts_with("shop#1: acknowledged by uid "), "{said}");
    let why = site.cpe(&["why", "shop#1"]).done();
    assert!(why.contains("acknowledged ") && why.contains(" by uid "), "{why}");
    let unknown = site.cpe(&["retry", "shop/web/ngnix"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("shop/web/ngnix"), "{}", unknown.stderr);
}

#[test]
fn why_not_tells_what_stands_in_the_way_and_until_when() {
    let site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/php", "healthy");
    let well = site.cpe(&["why-not", "shop"]).done();
    assert_eq!(well, "nothing is wrong: all 3 parts are healthy\n");
    site.cpe(&["maintenance", "on", "shop/web", "--for", "2h", "--reason", "new disks"]).done();
    site.machine("web").kill_unit("nginx.service").unwrap();
    site.wait_for_event(|event| event["kind"] == "recovery_refused");
    let said = site.cpe(&["why-not", "shop/web/nginx"]).done();
    assert!(said.starts_with("shop/web/nginx  is failed since "), "{said}");
    assert!(
        said.contains("  concluded  service_fault: unit failed, confirmed by 2 probes (shop#1)"),
        "{said}"
    );
    assert!(said.contains("  because    shop/web is in maintenance: new disks (by uid "), "{said}");
    assert!(said.contains(", until "), "{said}");
    let json: serde_json::Value =
        serde_json::from_str(&site.cpe(&["why-not", "shop/web/nginx", "--json"]).done()).unwrap();
    assert_eq!(json["parts"][0]["because"][0]["what"], "maintenance");
    assert_eq!(site.cpe(&["why-not", "nobody"]).code, 1);
}

#[test]
fn an_audit_finds_a_record_that_cannot_be_true_and_names_it() {
    let mut site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/nginx", "healthy");
    site.machine("web").kill_unit("nginx.service").unwrap();
    site.wait_for_event(|event| event["kind"] == "incident_closed");
    let living = site.cpe(&["audit"]).done();
    assert!(living.ends_with("1 decisions, 1 actions, 1 incidents: no rule was broken\n"), "{living}");
    site.kill_controller();
    let journal = site.state_dir().join("journal.sqlite");
    let forge = |from: &str, to: &str| {
        let sql = "UPDATE decisions SET body = replace(body, ?1, ?2)";
        let forged = rusqlite::Connection::open(&journal).unwrap().execute(sql, [from, to]).unwrap();
        assert_eq!(forged, 1);
    };
    forge("\"per_service\"", "\"hung\"");
    let said = site.cpe(&["audit", "--state-dir", site.state_dir().to_str().unwrap()]);
    assert_eq!(said.code, 1);
    let lie = "rule 7: the recorded facts give per_service (row 13), the record says hung (decision 1)\n";
    assert!(said.stdout.starts_with(lie), "{}", said.stdout);
    forge("\"hung\"", "\"per_service\"");
    assert_eq!(site.cpe(&["audit", "/nonexistent/journal.sqlite"]).code, 1);
}

#[test]
fn a_second_controller_on_the_same_state_is_refused() {
    let site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    let second = site.cpe(&["run"]);
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains("another cpe"), "{}", second.stderr);
}

#[test]
fn what_is_not_there_is_said_with_exit_1() {
    let site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    let answer = site.cpe(&["stop", "shopp"]);
    assert_eq!(answer.code, 1);
    assert!(answer.stderr.contains("shopp"), "{}", answer.stderr);
}

const OTHER: &str = r#"
name = "other"
[probe]
interval = "500ms"
confirm_interval = "100ms"
stable_for = "300ms"
[assemblies.app]
address = "{app}"
[assemblies.app.services.php]
systemd = "php.service"
"#;

#[test]
fn a_new_definition_is_followed_without_a_restart_and_nothing_else_notices() {
    let site = Site::start(&[("shop.toml", WEB)], &["web", "app"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/php", "healthy");
    let logins = site.machine("web").counts().logins;
    site.define("other.toml", OTHER);
    site.wait_for("other/app/php", "healthy");
    site.machine("app").kill_unit("php.service").unwrap();
    site.wait_for_event(|event| event["kind"] == "recovery_finished" && event["deployable"] == "other");
    assert_eq!(site.machine("web").counts().logins, logins, "the other session was not touched");
}

#[test]
fn a_changed_definition_keeps_the_session_and_the_state_of_what_is_the_same() {
    let site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/php", "healthy");
    let logins = site.machine("web").counts().logins;
    let since = site.status()["deployables"][0]["assemblies"][0]["services"][0]["since"].clone();
    site.define("shop.toml", &WEB.replace("services.php]", "services.fpm]"));
    site.wait_for("shop/web/fpm", "healthy");
    let nginx = &site.status()["deployables"][0]["assemblies"][0]["services"][0];
    assert_eq!((&nginx["state"], &nginx["since"]), (&"healthy".into(), &since));
    assert_eq!(site.machine("web").counts().logins, logins);
}

#[test]
fn a_broken_definition_is_told_and_the_running_one_stays() {
    let site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/php", "healthy");
    site.define("shop.toml", "name = \"shop\"\nasemblies = 1\n");
    let told = site.wait_for_event(|event| event["kind"] == "definition_rejected");
    assert!(told["reason"].as_str().unwrap().contains("shop.toml:1:1: "), "{told}");
    site.machine("web").kill_unit("nginx.service").unwrap();
    site.wait_for_event(|event| event["kind"] == "recovery_finished");
    assert!(site.machine("web").is_active("nginx.service").unwrap());
}

#[test]
fn a_removed_definition_is_managed_no_more_and_its_machine_is_left_alone() {
    let site = Site::start(
        &[("shop.toml", WEB), ("other.toml", OTHER)],
        &["web", "app"],
        &["nginx.service", "php.service"],
    );
    site.wait_for("other/app/php", "healthy");
    // A unit that dies before it was ever seen healthy is not at fault: it is started.
    site.wait_for("shop/web/php", "healthy");
    site.undefine("other.toml");
    site.wait_for_event(|event| {
        event["deployable"] == "other" && event["reason"].as_str().unwrap_or("").contains("removed")
    });
    site.machine("app").kill_unit("php.service").unwrap();
    site.machine("web").kill_unit("php.service").unwrap();
    site.wait_for_event(|event| event["kind"] == "recovery_finished" && event["deployable"] == "shop");
    assert!(!site.machine("app").is_active("php.service").unwrap());
    assert_eq!(site.cpe(&["status", "other"]).code, 1);
}

#[test]
fn a_controller_that_stood_still_blames_nobody() {
    let site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/php", "healthy");
    site.stand_still(Duration::from_secs(6));
    site.wait_for_rounds("web", 5);
    let events = site.cpe(&["events", "--json", "--since", "1h"]).done();
    for word in ["suspected", "failed", "unreachable", "recovery_started"] {
        assert!(!events.contains(word), "{events}");
    }
    assert_eq!(site.machine("web").counts().unit_starts, 0);
}

#[test]
fn counts_outlive_a_killed_controller() {
    let patient = WEB.replace("stable_for = \"300ms\"", "stable_for = \"5s\"");
    let mut site = Site::start(&[("shop.toml", &patient)], &["web"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/nginx", "healthy");
    site.machine("web").kill_unit("nginx.service").unwrap();
    let first = site.wait_for_event(|event| event["kind"] == "recovery_started");
    assert!(first["reason"].as_str().unwrap().contains("failure 1 of 3"), "{first}");
    site.wait_for_active("web", "nginx.service");
    site.kill_controller();
    site.start_controller();
    site.machine("web").kill_unit("nginx.service").unwrap();
    let second = site
        .wait_for_event(|event| event["kind"] == "recovery_started" && event["action"] != first["action"]);
    assert!(second["reason"].as_str().unwrap().contains("failure 2 of 3"), "{second}");
    assert_eq!(second["incident"], first["incident"], "the incident goes on under its number");
}

#[test]
fn an_action_that_a_killed_controller_had_begun_is_looked_at_and_not_repeated() {
    let mut site = Site::start(&[("shop.toml", WEB)], &["web"], &["nginx.service", "php.service"]);
    site.wait_for("shop/web/nginx", "healthy");
    site.hang_in_start("web", "nginx.service");
    site.machine("web").kill_unit("nginx.service").unwrap();
    let begun = site.wait_for_event(|event| event["kind"] == "recovery_started");
    site.wait_for_starts("web", 1);
    site.kill_controller();
    site.come_up("web", "nginx.service");
    site.start_controller();
    site.wait_for("shop/web/nginx", "healthy");
    assert_eq!(site.machine("web").counts().unit_starts, 1, "the guest was asked once");
    let events = site.cpe(&["events", "--json", "--since", "1h"]).done();
    let started = events.lines().filter(|line| line.contains("\"recovery_started\"")).count();
    assert_eq!(started, 1, "{begun}\n{events}");
}

/// Two machines in one deployable, of which one at a time may be acted upon.
const PAIR: &str = "name = \"shop\"\n\
    [probe]\ninterval = \"500ms\"\ntimeout = \"3s\"\nconfirm_interval = \"100ms\"\nstable_for = \"300ms\"\n\
    [escalation]\nservice = { failures = 3, within = \"1h\" }\n\
    [assemblies.web]\naddress = \"{web}\"\n[assemblies.web.services.nginx]\nsystemd = \"nginx.service\"\n\
    [assemblies.db]\naddress = \"{db}\"\n[assemblies.db.services.nginx]\nsystemd = \"nginx.service\"\n";

#[test]
fn what_was_begun_is_still_in_flight_when_its_definition_is_removed_while_cpe_is_down_and_comes_back() {
    let mut site = Site::start(&[("shop.toml", PAIR)], &["web", "db"], &["nginx.service"]);
    site.wait_for("shop/web/nginx", "healthy");
    site.wait_for("shop/db/nginx", "healthy");
    site.hang_in_start("web", "nginx.service");
    site.machine("web").kill_unit("nginx.service").unwrap();
    site.wait_for_starts("web", 1);
    site.kill_controller();
    site.undefine("shop.toml");
    site.start_controller();
    site.define("shop.toml", PAIR);
    site.wait_for("shop/db/nginx", "healthy");
    site.machine("db").kill_unit("nginx.service").unwrap();
    let refused =
        site.wait_for_event(|event| event["kind"] == "recovery_refused" && event["assembly"] == "db");
    assert!(refused["reason"].as_str().unwrap().contains("in flight, deployable 1 of 1"), "{refused}");
    assert_eq!(site.machine("db").counts().unit_starts, 0);
    site.come_up("web", "nginx.service");
    site.wait_for("shop/web/nginx", "healthy");
    site.wait_for("shop/db/nginx", "healthy");
    assert_eq!(site.machine("web").counts().unit_starts, 1, "and the guest was asked once");
}
