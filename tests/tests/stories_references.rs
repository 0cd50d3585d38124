//! An assembly that comes back elsewhere, and who uses it (policy.md section 4, its last sentence), on real machines: what runs in the
//! dependent has the new address.

use std::time::Duration;

use anyhow::Result;
use cpe_tests::definition::{SHOP_ON_GUESTS, watched};
use cpe_tests::{Controller, Guest, Site, story, wait};

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(180);

/// The database may be made anew, and is told nothing of who uses it.
const DB: &str = r#"
[assemblies.db]
instance = "db"
data = "none"
max_rung = "recreate"
services.app.systemd = "app.service"
[assemblies.web.services.reach]
command = "bash -c '</dev/tcp/{db.address}/22'"
after = ["db/app"]
[assemblies.web.services.app]
systemd = "app.service"
configure = "/usr/local/sbin/configure"
parameters = { db = "{db.address}", unit = "app" }
[assemblies.web.services.dep]
systemd = "dep.service"
configure = "/usr/local/sbin/configure"
parameters = { db = "{db.address}", unit = "dep" }
after = ["app"]
"#;

/// The instance `db` is the guest `db`, lost for good when its power is; made anew it is the guest `spare`, at another address.
fn infrastructure(site: &Site) -> Result<String> {
    let program = format!(
        r#"cd '{}' || exit
call=$(cat)
case "$call" in *'"assembly":"db"'*) ;; *) printf '%s' "$call" | ./infra "$1"; exit ;; esac
address={} state=gone action=$1
id=$(printf '%s' "$call" | sed -n 's/.*"action_id":"\([^"]*\)".*/\1/p')
if [ "$1" = create ]; then : >moved; action=start; fi
if [ -e moved ]; then address={}; state=off; fi
printf '{{"action_id":"%s","assembly":"db","address":"%s"}}' "$id" "$address" | ./infra "$action" | sed "s/\"state\": \"off\"/\"state\": \"$state\"/"
"#,
        site.path("").display(),
        site.guest("db")?.address(),
        site.guest("spare")?.address(),
    );
    Ok(site.write_program("elsewhere", &program)?.display().to_string())
}

/// Two units that read where the database is when they start, a script that writes it down for them, and who calls it in what order.
fn set_up(web: &Guest) -> Result<()> {
    let script = "#!/bin/sh\necho \"DB=$CPE_PARAMETER_db\" >\"/etc/$CPE_PARAMETER_unit.db\"\n\
                  echo \"$CPE_PARAMETER_unit $CPE_PARAMETER_db\" >>/var/log/configured\n";
    web.put("/usr/local/sbin/configure", script, 0o755)?;
    web.put("/etc/sudoers.d/configure", "dped ALL=(root) NOPASSWD: ALL\n", 0o440)?;
    for unit in ["app", "dep"] {
        let reads = format!(
            "[Service]\nEnvironmentFile=-/etc/{unit}.db\nExecStartPre=/bin/sh -c 'echo {unit} >>/var/log/started'\n"
        );
        web.put(&format!("/etc/systemd/system/{unit}.service.d/reads.conf"), reads, 0o644)?;
    }
    web.demand("systemctl daemon-reload && systemctl stop front app dep && rm -f /var/log/started").map(drop)
}

/// What the running process was given, which no file can show.
fn runs_with(web: &Guest, unit: &str) -> Result<String> {
    let pid = web.main_pid(unit)?;
    Ok(web.demand(&format!("tr '\\0' '\\n' </proc/{pid}/environ | sed -n s/^DB=//p"))?.trim().to_owned())
}

#[test]
fn a_database_comes_back_elsewhere_and_who_uses_it_runs_with_the_new_address() -> Result<()> {
    story(&["web", "db", "spare", "peer"], |site| {
        let (web, db, spare) = (site.guest("web")?, site.guest("db")?, site.guest("spare")?);
        site.each([web, db, site.guest("peer")?], Guest::boot)?;
        set_up(web)?;
        let program = infrastructure(site)?;
        let toml = site.cpe_toml().replace(&site.path("infra").display().to_string(), &program);
        let peer = watched(site.guest("peer")?, &["app"]);
        let definition = format!("{SHOP_ON_GUESTS}{}{peer}{DB}", watched(web, &[]));
        let cpe = Controller::start(site, &definition, &toml)?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let before = db.address().to_string();
        for unit in ["app", "dep"] {
            assert_eq!(runs_with(web, unit)?, before, "{unit} was configured before it was started");
        }

        db.power_off()?;
        wait::until("the new address to be in what runs", LATER, || {
            let now = (runs_with(web, "app")?, runs_with(web, "dep")?);
            let new = spare.address().to_string();
            Ok((now == (new.clone(), new)).then_some(()))
        })?;
        cpe.wait_for_state("shop", "healthy", LATER)?;
        let after = spare.address().to_string();
        let configured = web.demand("cat /var/log/configured")?;
        let told = [("app", &before), ("dep", &before), ("app", &after), ("dep", &after)];
        let told: Vec<String> = told.map(|(unit, address)| format!("{unit} {address}")).into();
        assert_eq!(configured.lines().collect::<Vec<_>>(), told);
        let started = web.demand("cat /var/log/started")?;
        assert_eq!(
            started.lines().collect::<Vec<_>>(),
            ["app", "dep", "app", "dep"],
            "restarted once, in order"
        );
        assert_eq!((web.boots()?, spare.boots()?), (1, 1));
        assert_eq!(site.told()?, [""; 0], "nobody was needed");
        Ok(())
    })
}
