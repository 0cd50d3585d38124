//! What goes wrong with a service while its machine is well: policy.md section 1 and row 13 of section 2, on real systemd.

use std::time::Duration;

use anyhow::Result;
use cpe_tests::definition::{SHOP, SHOP_ON_GUESTS, watched};
use cpe_tests::{Controller, story, wait};

const SOON: Duration = Duration::from_secs(60);
/// For whole ladders and back-offs.
const LATER: Duration = Duration::from_secs(180);

/// Somebody stops a unit. Its neighbour on the same machine notices nothing.
#[test]
fn a_stopped_unit_is_seen_within_an_interval_restarted_told_in_one_sentence_and_explained() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        let definition = format!("{SHOP}{}", watched(web, &["app", "nginx"]));
        let cpe = Controller::start(site, &definition, &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let neighbour = web.main_pid("nginx")?;
        assert_eq!(cpe.recoveries()?, [""; 0], "what runs is not started");
        assert_eq!(cpe.cli(&["status"])?.status, Some(0));

        web.stop_unit("app")?;
        let stopped = now();
        let failed = cpe.wait_until_became("web/app", "failed", SOON)?;
        let seen_after = failed.time().saturating_sub(stopped);
        // Interval 2 s, confirmation 0.5 s, and as much again for a busy machine; far from the default interval of 10 s.
        assert!(seen_after < Duration::from_secs(5), "seen after {seen_after:?}");

        let closed =
            cpe.wait_for_event("the incident to close", SOON, |event| event.is("incident_closed"))?;
        assert_eq!(closed.subject(), "web/app");
        assert_eq!(web.unit_state("app")?, "active");
        assert_eq!(web.main_pid("nginx")?, neighbour, "nginx was not touched");
        assert_eq!(cpe.recoveries()?, ["restart-service web/app"]);

        let events = cpe.demand(&["events", "shop/web/app"])?;
        let sentence =
            "restarted (unit inactive, confirmed by 2 probes; failure 1 of 5 in 1 h), healthy after ";
        let told: Vec<_> = events.lines().filter(|line| line.contains("restart")).collect();
        assert!(told.len() == 1 && told[0].contains(sentence), "not one sentence on the restart:\n{events}");

        let why = cpe.demand(&["why", "shop/web/app"])?;
        for evidence in [
            "unit inactive, confirmed by 2 probes",
            "restart-service of web/app: admitted",
            "per_service (row 13)",
            "channel healthy",
            "failure 1 of 5 in 1 h",
        ] {
            assert!(why.contains(evidence), "cpe why does not show {evidence:?}:\n{why}");
        }
        let metrics = cpe.metrics()?;
        let restarts: Vec<_> = metrics
            .lines()
            .filter(|line| line.contains("recoveries") && line.contains("restart-service"))
            .collect();
        assert!(restarts.iter().any(|line| line.ends_with(" 1")), "one restart is counted: {restarts:?}");
        Ok(())
    })
}

/// A unit whose start always succeeds and which is dead a second later: nothing below an engineer can help.
#[test]
fn a_unit_that_dies_again_after_each_restart_climbs_to_reboots_and_ends_exhausted_with_a_notification()
-> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        web.demand("touch /etc/crashy-cured && systemctl enable --quiet --now crashy")?;
        let head =
            SHOP_ON_GUESTS.replace("stable_for = \"2s\"", "stable_for = \"3s\"\nstartup_grace = \"12s\"");
        let ladder = "[escalation]\nservice = { failures = 2, within = \"1h\" }\n\
                      assembly = { failures = 3, within = \"6h\" }\n[timing]\nretry_after = \"10s\"\n";
        let definition = format!("{head}{ladder}{}", watched(web, &["app", "crashy"]));
        let cpe = Controller::start(site, &definition, &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;

        web.demand("rm /etc/crashy-cured")?;
        web.kill_unit("crashy")?;
        cpe.wait_until_became("web/crashy", "exhausted", LATER)?;
        let told = site.wait_until_told("exhausted", SOON)?;
        assert!(told.contains("shop/web"), "{told}");

        let recoveries = cpe.recoveries()?;
        assert_eq!(recoveries[0], "restart-service web/crashy", "the mildest first: {recoveries:?}");
        let reboots: Vec<_> = recoveries.iter().filter(|done| done.starts_with("reboot")).collect();
        assert_eq!(reboots, ["reboot-soft web", "reboot-hard web"], "{recoveries:?}");
        assert_eq!(site.infra_deeds()?, ["reboot-soft web", "reboot-hard web"]);
        let slandered =
            cpe.events()?.into_iter().find(|event| event.subject() == "web/app" && event.became("unknown"));
        assert_eq!(slandered, None, "app came up with each reboot");
        let escalated = cpe.events()?.iter().filter(|event| event.is("escalated")).count();
        assert!(escalated >= 2, "from the service to the assembly, and to the end: {escalated}");
        let exhausted = cpe.events()?.into_iter().find(|event| event.became("exhausted"));
        assert!(exhausted.is_some_and(|event| !event.word("reason").is_empty()));
        assert_eq!(cpe.cli(&["status", "shop"])?.status, Some(1), "unhealthy");

        // A person mends it. The dated retry finds out, without a further reboot.
        web.demand("touch /etc/crashy-cured")?;
        cpe.wait_for_state("shop/web/crashy", "healthy", LATER)?;
        assert_eq!(site.infra_deeds()?.len(), 2);
        assert_eq!(site.told()?.iter().filter(|message| message.contains("exhausted")).count(), 1);
        Ok(())
    })
}

/// One unit is masked, the name of another is wrong, and beside that lies a definition that cannot be read.
#[test]
fn what_is_masked_or_missing_is_reported_and_never_acted_on() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        let definition = format!("{SHOP_ON_GUESTS}{}", watched(web, &["app", "masked", "missing"]));
        std::fs::create_dir_all(site.path("cpe/deployables"))?;
        std::fs::write(site.path("cpe/deployables/broken.toml"), "name = \"broken\"\nasemblies = 1\n")?;
        let cpe = Controller::start(site, &definition, &site.cpe_toml())?;
        cpe.wait_for_event("the broken definition to be rejected", SOON, |event| {
            event.is("definition_rejected") && event.word("reason").contains("broken.toml")
        })?;
        cpe.wait_for_state("shop/web/masked", "misconfigured", SOON)?;
        cpe.wait_for_state("shop/web/missing", "misconfigured", SOON)?;
        cpe.wait_for_state("shop/web/app", "healthy", SOON)?;
        assert!(site.wait_until_told("shop/web/masked", SOON)?.contains("masked"));
        assert!(site.wait_until_told("shop/web/missing", SOON)?.contains("not-found"));

        // It ends when it passes, and until then nothing is done.
        web.demand(
            "cp --remove-destination /etc/systemd/system/app.service /etc/systemd/system/masked.service",
        )?;
        web.demand("cp /etc/systemd/system/app.service /etc/systemd/system/missing.service")?;
        assert_eq!(cpe.recoveries()?, [""; 0]);
        web.demand("systemctl daemon-reload && systemctl start masked missing")?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert_eq!(cpe.recoveries()?, [""; 0]);
        assert_eq!(site.told()?.len(), 2, "each was told once: {:?}", site.told()?);
        Ok(())
    })
}

/// `front` cannot run without `dep`. `dep` dies and cannot start again until somebody frees what it needs.
#[test]
fn when_a_dependency_dies_its_dependent_is_not_blamed_and_comes_back_after_it() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        web.demand(
            "mkdir /etc/systemd/system/dep.service.d && printf '[Service]\\nExecStartPre=test ! -e /run/taken\\n' \
             >/etc/systemd/system/dep.service.d/needs.conf && systemctl daemon-reload",
        )?;
        let order = "after = [\"dep\"]\n";
        let definition = format!("{SHOP}{}{order}", watched(web, &["dep", "front"]));
        let cpe = Controller::start(site, &definition, &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;

        web.demand("touch /run/taken")?;
        web.kill_unit("dep")?;
        cpe.wait_for_event("a restart of dep that does not work", SOON, |event| {
            event.is("recovery_finished") && event.subject() == "web/dep" && event.word("to") != "healthy"
        })?;
        // It waits, and says for what.
        wait::until("front to say that it waits for dep", SOON, || {
            let reason = cpe.reason_of("shop/web/front")?;
            Ok((reason.contains("consequence") && reason.contains("dep")).then_some(()))
        })?;
        let recoveries = cpe.recoveries()?;
        assert!(recoveries.iter().all(|done| done == "restart-service web/dep"), "{recoveries:?}");
        let isolated = cpe.wait_for_event("front's fault to be isolated", SOON, |event| {
            event.is("fault_isolated") && event.subject() == "web/front"
        })?;
        assert!(isolated.word("reason").starts_with("consequence: "), "{isolated:?}");

        web.demand("rm /run/taken")?;
        cpe.wait_for_state("shop", "healthy", LATER)?;
        let recoveries = cpe.recoveries()?;
        let last = recoveries.iter().rev().take(2).rev().collect::<Vec<_>>();
        assert_eq!(last, ["restart-service web/dep", "restart-service web/front"], "{recoveries:?}");
        let blamed = recoveries.iter().filter(|done| done.ends_with("front")).count();
        assert_eq!(blamed, 1, "{recoveries:?}");
        let events = cpe.demand(&["events", "shop/web/front"])?;
        assert!(events.contains("failure 1 of 5"), "a consequence is not counted:\n{events}");
        Ok(())
    })
}

/// One server, seen by its process, its port, its page and what the page says. It stops: one restart, not four.
#[test]
fn four_checks_of_one_server_ask_for_one_restart() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        let checks = "[assemblies.web.services.server]\nprocess = \"nginx\"\n\
                      restart = { systemd = \"nginx.service\" }\n\
                      [assemblies.web.services.port]\ntcp = 80\nafter = [\"server\"]\n\
                      restart = { systemd = \"nginx.service\" }\n\
                      [assemblies.web.services.page]\nafter = [\"port\"]\n\
                      command = \"bash -c 'exec 3<>/dev/tcp/127.0.0.1/80; echo GET / >&3; grep -q . <&3'\"\n\
                      restart = { systemd = \"nginx.service\" }\n\
                      [assemblies.web.services.text]\nafter = [\"port\"]\nfrom = \"guest\"\n\
                      http = { url = \"http://127.0.0.1/\", contains = \"nginx\" }\n\
                      restart = { systemd = \"nginx.service\" }\n";
        let definition = format!("{SHOP}{}{checks}", watched(web, &[]));
        let cpe = Controller::start(site, &definition, &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;

        web.stop_unit("nginx")?;
        for check in ["web/server", "web/port", "web/page", "web/text"] {
            cpe.wait_until_became(check, "suspected", SOON)?;
        }
        cpe.wait_for_state("shop", "healthy", SOON)?;
        assert_eq!(cpe.recoveries()?, ["restart-service web/server"]);
        assert_eq!(web.unit_state("nginx")?, "active");
        Ok(())
    })
}

/// Two checks of an operator misbehave: one never ends, one prints 100 MB. Neither harms what is beside it.
#[test]
fn a_probe_that_hangs_and_one_that_prints_100_mb_harm_nobody() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        let checks = "[assemblies.web.services.hangs]\ncommand = \"if test -e /run/hang; then sleep 4321; fi\"\n\
                      restart = { systemd = \"app.service\" }\nprobe = { timeout = \"1s\" }\n\
                      [assemblies.web.services.floods]\n\
                      command = \"if test -e /run/flood; then head -c 100000000 /dev/zero | tr '\\\\0' x; fi\"\n\
                      probe = { timeout = \"20s\" }\n";
        let definition = format!("{SHOP}{}{checks}", watched(web, &["app", "nginx"]));
        let cpe = Controller::start(site, &definition, &site.cpe_toml())?;
        cpe.wait_for_state("shop", "healthy", SOON)?;
        let memory = peak_memory_kb(&cpe)?;

        web.demand("touch /run/flood")?;
        web.wait_until("the flood to be under way", SOON, || {
            Ok(web.run("pgrep -f '^head -c 100000000'")?.succeeded())
        })?;
        web.wait_until("it to be over", SOON, || Ok(!web.run("pgrep -f '^head -c 100000000'")?.succeeded()))?;
        web.demand("rm /run/flood")?;
        assert_eq!(cpe.recoveries()?, [""; 0]);
        let grown = peak_memory_kb(&cpe)? - memory;
        assert!(grown < 50_000, "100 MB of output cost cpe {grown} kB");

        // No answer by the deadline is first unknown, and a fault after as many as confirm one.
        web.demand("touch /run/hang")?;
        let failed = cpe.wait_until_became("web/hangs", "failed", SOON)?;
        assert!(failed.word("reason").contains("did not end within 1 s"), "{failed:?}");
        cpe.wait_for_event("its restart", SOON, |event| event.is("recovery_started"))?;
        // What it starts, it ends: no more than the one that is under way.
        let left: u32 = web.run("pgrep -c -f '^sleep 4321'")?.stdout.trim().parse()?;
        assert!(left <= 1, "{left} probes hang in the guest");
        web.demand("rm /run/hang")?;
        cpe.wait_for_state("shop", "healthy", LATER)?;
        for neighbour in ["web/nginx", "web/floods"] {
            let unwell = cpe
                .events()?
                .into_iter()
                .find(|event| event.subject() == neighbour && event.became("failed"));
            assert_eq!(unwell, None, "{neighbour}");
        }
        let lost =
            cpe.events()?.into_iter().find(|event| event.subject() == "web" && event.became("unreachable"));
        assert_eq!(lost, None, "its channel was never blamed");
        Ok(())
    })
}

fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

fn peak_memory_kb(cpe: &Controller) -> Result<i64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", cpe.pid()))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    Ok(peak.trim().trim_end_matches(" kB").parse()?)
}
