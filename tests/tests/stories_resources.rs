//! Services that are no units: a resource agent of Debian's resource-agents, and an init script, each looked at, stopped and started
//! by an unprivileged user through the lines of packaging/sudoers-cpe. policy.md section 1, "other kinds".

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use cpe_tests::definition::{SHOP, watched};
use cpe_tests::{Controller, Guest, story};

const SOON: Duration = Duration::from_secs(60);

/// Runs a program and keeps its process id in a file: exit 7 without the file, 1 where the process of the file is gone.
const QUEUE: &str = "[assemblies.web.services.queue]\nocf = \"ocf:heartbeat:anything\"\n\
                     parameters = { binfile = \"/usr/bin/sleep\", cmdline_options = \"87654\", pidfile = \"/run/queue.pid\" }\n";
/// What the parameters make of it.
const RUNS: &str = "pgrep -x -f '/usr/bin/sleep 87654'";

/// The resource is stopped behind cpe's back, then its process is killed.
#[test]
fn a_resource_that_fails_is_stopped_and_started_by_its_agent_with_its_parameters_by_an_unprivileged_user()
-> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        install_agent(web, "anything")?;
        permit(web)?;
        let cpe =
            Controller::start(site, &format!("{SHOP}{}{QUEUE}", watched(web, &["app"])), &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let before = cpe.recoveries()?.len();

        web.demand(&by_hand("stop"))?;
        assert_eq!(web.run(&by_hand("monitor"))?.status, Some(7), "the agent says that it is not running");
        cpe.wait_until_became("web/queue", "failed", SOON)?;
        cpe.wait_for_state("shop/web/queue", "healthy", SOON)?;
        let first = web.demand(RUNS)?;
        let events = cpe.demand(&["events", "shop/web/queue"])?;
        let told: Vec<_> = events.lines().filter(|line| line.contains("restarted (not running")).collect();
        assert!(told.len() == 1 && told[0].contains("failure 1 of 5 in 1 h), healthy after"), "{events}");

        web.demand(&format!("kill -KILL {first}"))?;
        cpe.wait_for_event("a second restart", SOON, |event| {
            event.is("recovery_started") && event.word("reason").contains("exit status 1")
        })?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert_ne!(web.demand(RUNS)?, first);
        assert_eq!(cpe.recoveries()?[before..], ["restart-service web/queue", "restart-service web/queue"]);
        Ok(())
    })
}

/// What the agent is given on the machine, by its own administrator.
fn by_hand(action: &str) -> String {
    format!(
        "env OCF_ROOT=/usr/lib/ocf OCF_RESOURCE_INSTANCE=queue OCF_RESKEY_binfile=/usr/bin/sleep OCF_RESKEY_cmdline_options=87654 \
         OCF_RESKEY_pidfile=/run/queue.pid /usr/lib/ocf/resource.d/heartbeat/anything {action}"
    )
}

/// Nginx as its init script sees it.
#[test]
fn what_an_init_script_starts_is_seen_by_its_status_and_started_again_by_it() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        permit(web)?;
        let nginx = "[assemblies.web.services.nginx]\nlsb = \"nginx\"\n";
        let cpe =
            Controller::start(site, &format!("{SHOP}{}{nginx}", watched(web, &["app"])), &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert_eq!(cpe.recoveries()?, [""; 0], "what runs is not started");

        web.stop_unit("nginx")?;
        cpe.wait_until_became("web/nginx", "failed", SOON)?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert_eq!(web.unit_state("nginx")?, "active");
        let events = cpe.demand(&["events", "shop/web/nginx"])?;
        assert!(events.contains("restarted (not running"), "{events}");
        assert_eq!(cpe.recoveries()?, ["restart-service web/nginx"]);
        Ok(())
    })
}

/// The agent and the shell functions that all agents read, from this machine's package of them.
fn install_agent(guest: &Guest, agent: &str) -> Result<()> {
    let library = Path::new("/usr/lib/ocf/lib/heartbeat");
    let listed = fs::read_dir(library);
    let listed = listed.with_context(|| format!("{} (Debian: resource-agents)", library.display()))?;
    let mut files = vec![Path::new("/usr/lib/ocf/resource.d/heartbeat").join(agent)];
    for entry in listed {
        let path = entry?.path();
        files.extend(path.is_file().then_some(path));
    }
    for file in files {
        let content = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        guest.put(&file.display().to_string(), content, 0o755)?;
    }
    Ok(())
}

/// The file for sudo as it is shipped, with the lines for resources and init scripts taken out of their comments and filled in.
fn permit(guest: &Guest) -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/sudoers-cpe");
    let shipped = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let filled = shipped
        .replace("#Cmnd_Alias", "Cmnd_Alias")
        .replace("#Defaults", "Defaults")
        .replace("#dped", "dped")
        .replace("IPaddr2", "anything")
        .replace("INSTANCE=vip", "INSTANCE=queue")
        .replace("/etc/init.d/exim4", "/etc/init.d/nginx");
    guest.put("/etc/sudoers.d/dped", filled, 0o440)
}
