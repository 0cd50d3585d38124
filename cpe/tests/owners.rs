//! Whose machines are, beside a running cpe: what bears another controller's mark is reported and never acted upon, until a person claims
//! it. The infrastructure is the story's own program, which keeps marks in files.

#![allow(clippy::unwrap_used, reason = "what fails here is a test's failure")]

mod site;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use site::Site;
use tempfile::TempDir;

const PROGRAM: &str = r#"#!/bin/sh
cd "${0%/*}" || exit 1
request=$(cat)
field() { printf '%s' "$request" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
part=$(field assembly)
case $1 in
capabilities)
    echo '{"capabilities":["status","start","stop","reboot-hard","claim"]}'
    exit ;;
status) ;;
claim) field controller > "new-$part" && mv "new-$part" "owner-$part" ;;
*) echo "$1 $part" >> asked ;;
esac
printf '{"state":"active","owner":"%s"}\n' "$(cat "owner-$part" 2> /dev/null)"
"#;

const SHOP: &str = r#"
name = "shop"
infrastructure = "prod"
probe = { interval = "500ms", timeout = "1s", confirm_interval = "100ms", stable_for = "300ms", startup_grace = "5s" }
[assemblies.web]
address = "{web}"
services.nginx.systemd = "nginx.service"
[assemblies.db]
address = "{db}"
services.pg.systemd = "nginx.service"
"#;

fn infrastructure() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    fs::write(&program, PROGRAM).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
    let settings = format!(
        "[controller]\nid = \"north\"\n[infrastructures.prod]\nkind = \"command\"\nprogram = {:?}\n",
        program.display().to_string()
    );
    (folder, settings)
}

#[test]
fn what_bears_no_mark_gets_ours_and_what_bears_anothers_is_left_alone_until_it_is_claimed() {
    let (folder, settings) = infrastructure();
    let mark =
        |part: &str| fs::read_to_string(folder.path().join(format!("owner-{part}"))).unwrap_or_default();
    fs::write(folder.path().join("owner-web"), "east\n").unwrap();
    let site = Site::configured(&[("shop.toml", SHOP)], &["web", "db"], &["nginx.service"], &settings);
    site.wait_for("shop/db/pg", "healthy");
    let ours = fs::read_to_string(site.state_dir().join("controller-id")).unwrap().trim().to_owned();
    assert_eq!(ours, "north", "as cpe.toml says");
    site.wait("the other machine is marked", || (mark("db").trim() == ours).then_some(()));
    site.wait_for_event(|event| {
        event["kind"] == "owner_changed" && event["reason"] == "foreign: it bears the mark of controller east"
    });
    let refused = |arguments: &[&str], words: &str| {
        let said = site.cpe(arguments);
        assert_eq!(said.code, 1, "{arguments:?}");
        assert!(said.stderr.contains(words), "{words}: {}", said.stderr);
    };
    refused(&["recover", "shop/web/nginx"], "not_owner: its machine bears the mark of controller east");
    let why_not = site.cpe(&["why-not", "shop/web"]).stdout;
    assert!(why_not.contains("another controller, east"), "{why_not}");
    assert_eq!(mark("web").trim(), "east", "nobody wrote over it");

    let said = site.cpe(&["claim", "shop/web", "--reason", "east is shut down"]).done();
    assert!(said.starts_with("shop/web: ours now"), "{said}");
    site.wait_for_event(|event| {
        event["kind"] == "owner_changed" && event["reason"].as_str().is_some_and(|it| it.starts_with("ours"))
    });
    assert_eq!(mark("web").trim(), ours);
    site.cpe(&["recover", "shop/web/nginx"]).done();
    assert!(!folder.path().join("asked").exists(), "no machine was acted upon");
}
