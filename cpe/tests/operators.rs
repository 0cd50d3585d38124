//! What operators order by hand, against a live fleet on loopback: through the same gate, answered with what is done or why not.

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
