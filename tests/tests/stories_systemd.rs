//! cpe as it is shipped: its unit, as an unprivileged user, under the systemd of a management node, put there as README.md tells a
//! stranger. What the README says is read from it, and done.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cpe_tests::{Guest, Output, Site, controller, readme, story, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
/// The unit's WatchdogSec=, the time that systemd leaves a process to die of it, and a start.
const WATCHDOG: Duration = Duration::from_secs(180);

const SECTION: &str = "Three machines in ten minutes";
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Where a stranger keeps a clone, on each machine.
const CLONE: &str = "/root/cpe";

/// The addresses of README's example, and the guests that have its parts.
const MACHINES: [(&str, &str); 2] = [("192.0.2.7", "mysql"), ("192.0.2.8", "web")];

/// What one session of the stranger does, on one machine, as root, in the clone.
fn type_in(guest: &Guest, commands: &str) -> Result<()> {
    guest.demand(&format!("cd {CLONE} && set -e; umask 022\n{commands}")).map(drop)
}

fn bring_the_clone(guest: &Guest) -> Result<()> {
    for file in ["cpe.service", "cpe.sysusers", "cpe.tmpfiles", "sudoers-cpe"] {
        let content = std::fs::read(Path::new(REPOSITORY).join("packaging").join(file))?;
        guest.put(&format!("{CLONE}/packaging/{file}"), content, 0o644)?;
    }
    Ok(())
}

/// A machine of the example: nothing on it is cpe's, and the services that it names run. The shop's page is served as long as PHP is.
fn become_machine(guest: &Guest, key: &str) -> Result<()> {
    guest.demand("userdel --remove dped 2>/dev/null; rm /etc/sudoers.d/dped")?;
    for unit in ["mariadb", "php-fpm"] {
        guest.demand(&format!("cd /etc/systemd/system && cp app.service {unit}.service"))?;
    }
    guest.demand("systemctl daemon-reload && systemctl start mariadb php-fpm")?;
    guest.put("/usr/local/bin/curl", "#!/bin/sh\nexec systemctl is-active --quiet php-fpm\n", 0o755)?;
    bring_the_clone(guest)?;
    let commands = readme::block(SECTION, "useradd")?;
    ensure!(commands.contains("ssh-ed25519 AAAA... cpe"), "the README's key is another: {commands}");
    type_in(guest, &commands.replace("ssh-ed25519 AAAA... cpe", key))
}

fn with_our_addresses(site: &Site, text: &str) -> Result<String> {
    MACHINES.into_iter().try_fold(text.to_owned(), |text, (theirs, name)| {
        Ok(text.replace(theirs, &site.guest(name)?.address().to_string()))
    })
}

/// All of the section, on a management node and two machines. The program is not built in the guest, as it would take longer than all.
fn set_up<'s>(site: &'s Site) -> Result<Node<'s>> {
    site.boot_all()?;
    let node = Node { guest: site.guest("node")? };
    bring_the_clone(node.guest)?;
    node.guest.put(&format!("{CLONE}/target/release/cpe"), std::fs::read(controller::binary()?)?, 0o755)?;
    for words in ["/usr/bin/cpe", "cpe.sysusers", "cpe.tmpfiles", "ssh-keygen -q"] {
        type_in(node.guest, &readme::line(SECTION, words)?.replace("cargo build --release && ", ""))?;
    }
    let key = node.guest.demand("cat /etc/cpe/id_ed25519.pub")?;
    for (_, name) in MACHINES {
        become_machine(site.guest(name)?, &key)?;
    }
    let config = readme::block(SECTION, "state_dir")?;
    let definition = with_our_addresses(site, &readme::block(SECTION, "[assemblies.mysql]")?)?;
    node.guest.put("/etc/cpe/cpe.toml", config, 0o644)?;
    node.guest.put("/etc/cpe/deployables/shop.toml", definition, 0o644)?;
    type_in(node.guest, &with_our_addresses(site, &readme::block(SECTION, "ssh-keyscan")?)?)?;
    type_in(node.guest, &readme::line(SECTION, "enable --now")?)?;
    Ok(node)
}

/// The management node, and cpe on it as its operator sees it.
struct Node<'s> {
    guest: &'s Guest,
}

impl Node<'_> {
    fn cpe(&self, arguments: &str) -> Result<Output> {
        self.guest.run(&format!("cpe {arguments}"))
    }

    fn property(&self, name: &str) -> Result<String> {
        self.guest.demand(&format!("systemctl show --value --property={name} cpe"))
    }

    fn state_of(&self, name: &str) -> Result<String> {
        let said = self.cpe(&format!("status {name} --json"))?;
        let status: Value = serde_json::from_str(&said.stdout)
            .with_context(|| format!("cpe status said: {} {}", said.stdout, said.stderr))?;
        let mut found = &status["deployables"][0];
        for list in ["assemblies", "services"].into_iter().take(name.matches('/').count()) {
            found = &found[list][0];
        }
        Ok(found["state"].as_str().unwrap_or_default().to_owned())
    }

    fn wait_for_state(&self, name: &str, state: &str) -> Result<()> {
        let became = wait::until(&format!("{name} to be {state}"), SOON, || {
            Ok((self.state_of(name)? == state).then_some(()))
        });
        became.with_context(|| {
            let log =
                self.guest.demand("journalctl --no-pager --lines=40 --unit=cpe; cpe status; cpe events");
            format!("the node says:\n{}", log.unwrap_or_else(|error| error.to_string()))
        })
    }

    fn recoveries(&self) -> Result<Vec<String>> {
        let events = self.guest.demand("cpe events --json")?;
        let events = events.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let begun = events.iter().filter(|event| event["kind"] == "recovery_started");
        let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        Ok(begun
            .map(|event| {
                format!("{} {}/{}", word(event, "rung"), word(event, "assembly"), word(event, "service"))
            })
            .collect())
    }
}

/// From three bare machines to a service that was repaired, with nothing but the README; then cpe itself hangs.
#[test]
fn a_stranger_is_running_under_systemd_and_systemd_restarts_a_cpe_that_hangs() -> Result<()> {
    story(&["node", "mysql", "web"], |site| {
        let node = set_up(site)?;
        // `systemctl enable --now` came back: it was ready.
        assert_eq!(node.property("ActiveState")?, "active");
        node.wait_for_state("shop", "healthy")?;
        let first = node.property("MainPID")?;
        assert_eq!(node.guest.demand(&format!("stat --format=%U:%G /proc/{first}"))?, "cpe:cpe");
        assert_eq!(node.guest.demand("stat --format=%a:%U:%G /run/cpe/api.sock")?, "660:cpe:cpe");
        wait::until("systemd to be told what it does", SOON, || {
            let status = node.property("StatusText")?;
            Ok((status == "watching 3 services on 2 assemblies of 1 deployables").then_some(()))
        })?;
        // In tenths: 2.0 of 10, of what systemd has loaded and does, not of what a file says.
        let security = node.guest.run("systemd-analyze security --no-pager --threshold=20 cpe.service")?;
        assert!(security.succeeded(), "{}{}", security.stdout, security.stderr);

        who_may_use_it(&node)?;
        site.guest("mysql")?.kill_unit("mariadb")?;
        site.guest("web")?.kill_unit("nginx")?;
        for (machine, unit) in [("mysql", "mariadb"), ("web", "nginx")] {
            let machine = site.guest(machine)?;
            machine
                .wait_until("its unit to be restarted", SOON, || Ok(machine.unit_state(unit)? == "active"))?;
        }
        node.wait_for_state("shop", "healthy")?;
        let mut repaired = node.recoveries()?;
        repaired.sort();
        assert_eq!(repaired, ["restart-service mysql/mariadb", "restart-service web/nginx"]);

        // What a core would hold is nobody's: none is written.
        let limit = node.guest.demand(&format!("grep 'Max core file size' /proc/{first}/limits"))?;
        assert_eq!(limit.split_whitespace().nth(4), Some("0"), "{limit}");
        node.guest.demand("systemctl reload cpe")?;
        assert_eq!(node.property("MainPID")?, first);

        // It hangs. Nobody looks, until systemd has it restarted; what it then finds is well, and it leaves that alone.
        node.guest.demand(&format!("kill -STOP {first}"))?;
        wait::until("systemd to restart cpe", WATCHDOG, || {
            Ok((node.property("NRestarts")? == "1").then_some(()))
        })?;
        wait::until("it to be ready again", SOON, || {
            Ok((node.property("ActiveState")? == "active").then_some(()))
        })?;
        assert_ne!(node.property("MainPID")?, first);
        node.wait_for_state("shop", "healthy")?;
        assert_eq!(node.recoveries()?.len(), 2);

        let audit = node.cpe("audit")?;
        assert!(audit.succeeded(), "{}{}", audit.stdout, audit.stderr);
        node.guest.demand("systemctl stop cpe")?;
        assert_eq!(node.property("Result")?, "success");
        Ok(())
    })
}

/// Root and the members of the group, and nobody else; and whoever may not is told what to do.
fn who_may_use_it(node: &Node<'_>) -> Result<()> {
    node.guest.demand("useradd olga && useradd visitor && gpasswd --add olga cpe")?;
    let by = |who: &str| node.guest.run(&format!("runuser -u {who} -- cpe status"));
    let allowed = by("olga")?;
    assert_eq!(allowed.status, Some(0), "{}{}", allowed.stdout, allowed.stderr);
    let refused = by("visitor")?;
    assert_ne!(refused.status, Some(0));
    assert!(refused.stderr.contains("Permission denied"), "{}", refused.stderr);
    for secret in ["/etc/cpe/id_ed25519", "/var/lib/cpe"] {
        for who in ["olga", "visitor"] {
            let read = node.guest.run(&format!("runuser -u {who} -- test -r {secret}"))?;
            assert!(!read.succeeded(), "{who} can read {secret}");
        }
    }
    Ok(())
}

/// The key is encrypted. Its passphrase is a credential: root's file, which systemd shows to cpe alone.
#[test]
fn the_passphrase_of_the_key_is_a_credential_of_the_unit() -> Result<()> {
    story(&["node", "mysql", "web"], |site| {
        let node = set_up(site)?;
        node.wait_for_state("shop", "healthy")?;
        node.guest.put("/root/passphrase", "a-secret-of-the-operator", 0o600)?;
        node.guest.demand("ssh-keygen -q -p -N a-secret-of-the-operator -f /etc/cpe/id_ed25519")?;
        node.guest.demand("chown cpe: /etc/cpe/id_ed25519")?;
        node.guest.demand("systemctl restart cpe || true")?;
        wait::until("it to say that it needs the passphrase", SOON, || {
            Ok(node.guest.demand("journalctl --no-pager --unit=cpe")?.contains("passphrase").then_some(()))
        })?;

        node.guest.put(
            "/etc/systemd/system/cpe.service.d/key.conf",
            "[Service]\nLoadCredential=ssh:/root/passphrase\n",
            0o644,
        )?;
        node.guest
            .demand("sed -i '/^\\[ssh\\]/a passphrase = { credential = \"ssh\" }' /etc/cpe/cpe.toml")?;
        node.guest.demand("systemctl daemon-reload && systemctl restart cpe")?;
        node.wait_for_state("shop", "healthy")?;
        site.guest("web")?.kill_unit("nginx")?;
        node.wait_for_state("shop", "healthy")?;
        for place in [
            "journalctl --no-pager",
            "cat /var/lib/cpe/*",
            "cat /proc/$(systemctl show --value -p MainPID cpe)/environ",
        ] {
            let secret = node.guest.run(&format!("{place} | grep -c a-secret-of-the-operator"))?;
            assert_eq!(secret.stdout.trim(), "0", "{place}");
        }
        Ok(())
    })
}
