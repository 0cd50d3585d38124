//! What changes beside a running cpe: a machine that comes back at another address, a definition that says otherwise than what runs. The
//! infrastructure is the story's own program, whose answers are files; what was asked of it is written down.

mod site;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use site::Site;
use tempfile::TempDir;

/// Answers with what the file of that assembly says; a start finds what it is to become, if that is given.
const PROGRAM: &str = r#"#!/bin/sh
cd "${0%/*}" || exit 1
part=$(sed 's/.*"assembly":"\([^"]*\)".*/\1/')
case $1 in
capabilities)
    echo '{"capabilities":["status","create","start","stop","reboot-soft","reboot-hard","rebuild","destroy"]}'
    exit ;;
status) ;;
*)
    echo "$1 $part" >> asked
    test -e "next-$part" && mv "next-$part" "now-$part" ;;
esac
cat "now-$part"
"#;

/// Somebody who is told.
const PAGE: &str = "#!/bin/sh\ncat >> \"${0%/*}/told\"\n";

struct Infrastructure(TempDir);

impl Infrastructure {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [("program", PROGRAM), ("page", PAGE)] {
            fs::write(folder.path().join(name), text).expect("a program");
            fs::set_permissions(folder.path().join(name), PermissionsExt::from_mode(0o700))
                .expect("its mode");
        }
        Self(folder)
    }

    fn settings(&self) -> String {
        let folder = self.0.path().display();
        format!(
            "[infrastructures.prod]\nkind = \"command\"\nprogram = \"{folder}/program\"\n\
             [notify]\ncommand = \"{folder}/page\"\n"
        )
    }

    /// From here on it says that of an assembly.
    fn say(&self, file: &str, state: &str, address: &str) {
        let answer = format!("{{\"state\":\"{state}\",\"instance\":\"i-1\",\"address\":\"{address}\"}}\n");
        let new = self.0.path().join("new");
        fs::write(&new, answer).expect("an answer");
        // Whoever reads it meanwhile reads a whole answer.
        fs::rename(new, self.0.path().join(file)).expect("an answer");
    }

    /// From here on it has no answer for an assembly.
    fn fall_silent(&self, file: &str) {
        fs::remove_file(self.0.path().join(file)).expect("an answer");
    }

    /// What it was asked to do, but for looking.
    fn asked(&self) -> String {
        read(&self.0.path().join("asked"))
    }

    fn told(&self) -> String {
        read(&self.0.path().join("told"))
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

fn address(site: &Site, machine: &str) -> String {
    site.machine(machine).address().ip().to_string()
}

/// Waits until that assembly of shop is healthy and reached there.
fn wait_for_address(site: &Site, assembly: &str, address: &str) {
    site.wait(&format!("{assembly} is healthy at {address}"), || {
        let status = site.status();
        let assemblies = status["deployables"][0]["assemblies"].as_array()?;
        let found = assemblies.iter().find(|it| it["name"] == assembly)?;
        (found["state"] == "healthy" && found["address"] == address).then_some(())
    });
}

fn drifted<'a>(reason: &'a str) -> impl Fn(&serde_json::Value) -> bool + 'a {
    move |event| event["kind"] == "definition_loaded" && event["reason"] == format!("drift: {reason}")
}

const PROBE: &str = r#"
name = "shop"
infrastructure = "prod"
[probe]
interval = "500ms"
timeout = "3s"
confirm_interval = "100ms"
stable_for = "300ms"
startup_grace = "30s"
"#;

const SHOP: &str = r#"
[escalation]
assembly = { failures = 3, within = "1h" }
[assemblies.db]
address = "{db}"
services.mariadb.systemd = "mariadb.service"
[assemblies.app]
address = "{app}"
services.app = { systemd = "app.service", configure = "/usr/sbin/set-up", parameters = { db = "{db.address}" } }
services.cache.systemd = "cache.service"
"#;

/// What a guest is asked when that service is set up for a database at this address.
fn set_up(db: &str) -> String {
    format!(
        "export LC_ALL=C; sudo -n /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C \
         CPE_SERVICE='shop/app/app' 'CPE_PARAMETER_db={db}' /usr/sbin/set-up"
    )
}

#[test]
fn who_depends_on_a_machine_that_comes_back_elsewhere_is_reconfigured_once_also_after_a_restart() {
    let infrastructure = Infrastructure::new();
    let units = ["mariadb.service", "app.service", "cache.service"];
    let machines = ["db", "elsewhere", "app"];
    let mut site = Site::configured(&[], &machines, &units, &infrastructure.settings());
    let (before, after) = (address(&site, "db"), address(&site, "elsewhere"));
    infrastructure.say("now-db", "active", &before);
    infrastructure.say("now-app", "active", &address(&site, "app"));
    // The guest has that script, and only for the new address: with any other it is refused, and nothing is restarted.
    let script =
        cpe_sim::live::Command::Exits { status: 0, output: String::new(), after: std::time::Duration::ZERO };
    site.machine("app").set_command(&set_up(&after), script);
    site.define("shop.toml", &format!("{PROBE}{SHOP}"));
    wait_for_address(&site, "db", &before);
    wait_for_address(&site, "app", &address(&site, "app"));

    infrastructure.say("next-db", "active", &after);
    infrastructure.say("now-db", "off", &before);
    site.now(site.machine("db").power_off());
    let begun = site.wait_for_event(|event| event["reason"] == "reconfigured: db changed");
    assert_eq!((&begun["assembly"], &begun["service"]), (&"app".into(), &"app".into()), "{begun}");
    site.wait_for_event(|event| event["kind"] == "recovery_finished" && event["action"] == begun["action"]);
    wait_for_address(&site, "db", &after);
    wait_for_address(&site, "app", &address(&site, "app"));
    assert_eq!(
        (site.machine("app").counts().unit_starts, infrastructure.asked()),
        (1, "start db\n".to_owned())
    );

    // The definition has the old address still, and nobody says the new one again: cpe knows it, also after a reload and a restart.
    infrastructure.fall_silent("now-db");
    let logins = site.machine("elsewhere").counts().logins;
    site.define("shop.toml", &format!("{}{SHOP}", PROBE.replace("500ms", "400ms")));
    site.wait_for_event(|event| event["kind"] == "definition_loaded" && event["reason"] == "changed");
    site.wait_for_rounds("elsewhere", 4);
    wait_for_address(&site, "db", &after);
    assert_eq!(site.machine("elsewhere").counts().logins, logins, "its session was not touched");
    site.kill_controller();
    site.start_controller();
    site.wait_for_rounds("elsewhere", 4);
    wait_for_address(&site, "db", &after);
    site.wait_for_rounds("app", 4);
    assert_eq!(
        (site.machine("app").counts().unit_starts, infrastructure.asked()),
        (1, "start db\n".to_owned())
    );
}

fn image(image: &str) -> String {
    format!(
        "{PROBE}[escalation]\nassembly = {{ failures = 3, within = \"1h\" }}\n\
         [assemblies.web]\nimage = \"{image}\"\ndata = \"none\"\nmax_rung = \"recreate\"\nservices.nginx.systemd = \"nginx.service\"\n"
    )
}

#[test]
fn a_changed_image_of_what_runs_is_told_also_after_a_restart_and_the_machine_is_left_alone() {
    let infrastructure = Infrastructure::new();
    let mut site = Site::configured(&[], &["web"], &["nginx.service"], &infrastructure.settings());
    let web = address(&site, "web");
    infrastructure.say("now-web", "active", &web);
    site.define("shop.toml", &image("debian-12"));
    wait_for_address(&site, "web", &web);

    site.define("shop.toml", &image("debian-13"));
    let drift = "its instance was made of debian-12, the definition says debian-13; nothing is done about it before it is recreated";
    let event = site.wait_for_event(drifted(drift));
    assert_eq!(event["assembly"], "web");
    site.wait("somebody is told", || {
        infrastructure.told().contains(&format!("shop/web: drift: {drift}")).then_some(())
    });
    site.kill_controller();
    site.start_controller();
    wait_for_address(&site, "web", &web);
    assert_eq!(site.status()["deployables"][0]["assemblies"][0]["drift"], drift);
    let why_not = site.cpe(&["why-not", "shop/web"]).done();
    assert!(why_not.contains(drift), "{why_not}");

    site.wait_for_rounds("web", 4);
    let counts = site.machine("web").counts();
    assert_eq!((counts.boots, counts.unit_starts, counts.unit_stops), (0, 0, 0));
    assert_eq!(infrastructure.asked(), "");

    // Back as it was made: there is nothing to tell any more.
    site.define("shop.toml", &image("debian-12"));
    site.wait("the drift is over", || {
        site.status()["deployables"][0]["assemblies"][0]["drift"].is_null().then_some(())
    });
}

#[test]
fn a_renamed_assembly_is_told_and_watched_anew_and_the_machine_is_left_alone() {
    let infrastructure = Infrastructure::new();
    let web = |name: &str| {
        format!(
            "{PROBE}[assemblies.{name}]\naddress = \"{{web}}\"\nservices.nginx.systemd = \"nginx.service\"\n"
        )
    };
    let site = Site::configured(&[], &["web"], &["nginx.service"], &infrastructure.settings());
    let at = address(&site, "web");
    infrastructure.say("now-web", "active", &at);
    infrastructure.say("now-www", "active", &at);
    site.define("shop.toml", &web("web"));
    wait_for_address(&site, "web", &at);

    site.define("shop.toml", &web("www"));
    let drift = "it was called web; it is watched anew, and its counts are not kept";
    let event = site.wait_for_event(drifted(drift));
    assert_eq!(event["assembly"], "www");
    site.wait("somebody is told", || {
        infrastructure.told().contains(&format!("shop/www: drift: {drift}")).then_some(())
    });
    wait_for_address(&site, "www", &at);
    assert_eq!(site.cpe(&["status", "shop/web"]).code, 1, "nobody is called so any more");
    site.wait_for_rounds("web", 4);
    let counts = site.machine("web").counts();
    assert_eq!((counts.boots, counts.unit_starts, counts.unit_stops), (0, 0, 0));
    assert_eq!(infrastructure.asked(), "");
}
