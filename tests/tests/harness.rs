//! The harness itself: what its guests do when something happens to them is what real machines do.
//! Every story of cpe relies on these.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use cpe_tests::{Contact, Guest, InfraFault, Output, Power, Site, story, wait};
use serde_json::{Value, json};

const SSH: u16 = 22;
const SOON: Duration = Duration::from_secs(30);

fn greets(guest: &Guest) -> Result<bool> {
    Ok(matches!(guest.contact(SSH)?, Contact::Greeted(greeting) if greeting.starts_with("SSH-2.0-OpenSSH")))
}

/// Asks the site's infrastructure program as cpe would.
fn ask(site: &Site, action: &str, action_id: &str, guest: &Guest) -> Result<Output> {
    let mut command = Command::new(site.path("infra"));
    command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let call = json!({
        "action_id": action_id, "deployable": "shop", "assembly": "any", "instance": "",
        "address": guest.address(), "parameters": {},
    });
    child.stdin.take().context("its standard input")?.write_all(call.to_string().as_bytes())?;
    let done = child.wait_with_output()?;
    Ok(Output {
        status: done.status.code(),
        stdout: String::from_utf8(done.stdout)?,
        stderr: String::from_utf8(done.stderr)?,
    })
}

fn state_in(answer: &Output) -> Result<String> {
    if !answer.succeeded() {
        bail!("the infrastructure refused: {}", answer.stderr);
    }
    let answer: Value = serde_json::from_str(&answer.stdout)?;
    Ok(answer["state"].as_str().context("no state")?.to_owned())
}

#[test]
fn three_guests_boot_at_once_and_know_who_they_are() -> Result<()> {
    story(&["mysql", "web-1", "web-2"], |site| {
        site.boot_all()?;
        for guest in site.guests() {
            assert_eq!(guest.state()?, Power::Active);
            assert_eq!(guest.demand("hostname")?, guest.name());
            assert_eq!(guest.boots()?, 1);
        }
        let ids: Result<Vec<_>> =
            site.guests().iter().map(|guest| guest.demand("cat /etc/machine-id")).collect();
        let [mysql, web_1, web_2] = ids?.try_into().ok().context("three ids")?;
        assert!(mysql != web_1 && web_1 != web_2 && web_2 != mysql, "machine ids differ");
        // They are neighbours: one reaches the web server of another.
        let neighbour = site.guest("web-1")?.address();
        let get = format!(
            "exec 3<>/dev/tcp/{neighbour}/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; head -n 1 <&3"
        );
        let answer = site.guest("mysql")?.demand(&format!("timeout 5 bash -c \"{get}\""))?;
        assert_eq!(answer.trim_end(), "HTTP/1.1 200 OK");
        Ok(())
    })
}

#[test]
fn the_management_user_logs_in_by_key_and_may_only_manage_units() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        let who = web.ssh("id -un")?;
        assert_eq!((who.status, who.stdout.trim_end()), (Some(0), "dped"), "{}", who.stderr);

        // A restart as cpe does it.
        let restart =
            web.ssh("sudo -n systemctl reset-failed app.service && sudo -n systemctl restart app.service")?;
        assert_eq!(restart.status, Some(0), "{}", restart.stderr);
        assert_eq!(web.ssh("sudo -n systemctl daemon-reload")?.status, Some(0));

        for forbidden in [
            "sudo -n systemctl reboot",
            "sudo -n systemctl mask app.service",
            "sudo -n systemctl restart app.service dep.service",
            "sudo -n systemctl restart --root=/tmp app.service",
            "sudo -n systemctl --host=elsewhere restart app.service",
            "sudo -n sh -c id",
        ] {
            let refused = web.ssh(forbidden)?;
            assert_eq!(refused.status, Some(1), "{forbidden} was not refused: {}", refused.stdout);
            assert!(
                refused.stderr.contains("sudo: a password is required"),
                "{forbidden}: {}",
                refused.stderr
            );
        }
        Ok(())
    })
}

#[test]
fn a_host_key_that_changed_and_a_key_that_is_refused_are_told_apart() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        web.refuse_keys()?;
        let refused = web.ssh("true")?;
        assert_eq!(refused.status, Some(255));
        assert!(refused.stderr.contains("Permission denied (publickey)"), "{}", refused.stderr);
        web.accept_keys()?;
        assert_eq!(web.ssh("true")?.status, Some(0));

        web.replace_host_key()?;
        let changed = web.ssh("true")?;
        assert_eq!(changed.status, Some(255));
        assert!(changed.stderr.contains("REMOTE HOST IDENTIFICATION HAS CHANGED"), "{}", changed.stderr);
        Ok(())
    })
}

#[test]
fn the_units_of_the_stories_behave_as_their_stories_need() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        for unit in ["app", "dep", "front", "nginx", "ssh"] {
            assert_eq!(web.unit_state(unit)?, "active", "{unit}");
        }
        web.stop_unit("app")?;
        assert_eq!(web.unit_state("app")?, "inactive");
        web.start_unit("app")?;
        assert_eq!(web.unit_state("app")?, "active");

        web.kill_unit("dep")?;
        web.wait_until("front goes down with dep", SOON, || Ok(web.unit_state("front")? == "inactive"))?;
        assert_eq!(web.unit_state("dep")?, "failed");

        // Its start succeeds, and yet it is dead a moment later.
        web.start_unit("crashy")?;
        web.wait_until("crashy dies", SOON, || Ok(web.unit_state("crashy")? == "failed"))?;
        web.demand("touch /etc/crashy-cured")?;
        web.start_unit("crashy")?;
        assert_eq!(web.unit_state("crashy")?, "active");

        assert_eq!(web.demand("systemctl show --value --property=LoadState masked")?, "masked");
        assert_eq!(web.demand("systemctl show --value --property=LoadState missing")?, "not-found");
        Ok(())
    })
}

#[test]
fn commands_reach_a_guest_whose_sshd_is_stopped() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        web.stop_unit("ssh")?;
        assert_eq!(web.contact(SSH)?, Contact::Refused);
        assert_eq!(web.unit_state("app")?, "active");
        web.start_unit("ssh")?;
        web.wait_until("sshd greets again", SOON, || greets(web))
    })
}

#[test]
fn a_frozen_guest_accepts_tcp_and_says_nothing() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        web.freeze()?;
        assert_eq!(web.contact(SSH)?, Contact::Accepted);
        assert_eq!(web.state()?, Power::Active);
        web.thaw()?;
        web.wait_until("it greets again", SOON, || greets(web))?;
        assert_eq!(web.boots()?, 1);
        Ok(())
    })
}

#[test]
fn a_guest_that_is_cut_off_is_silent_until_its_link_heals() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        web.cut_link()?;
        assert_eq!(web.contact(SSH)?, Contact::Silence);
        assert_eq!(web.unit_state("app")?, "active", "it does not know");
        web.heal_link()?;
        web.wait_until("it greets again", SOON, || greets(web))?;
        assert_eq!(web.boots()?, 1);
        Ok(())
    })
}

#[test]
fn a_reboot_does_not_heal_a_cut_link() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        web.cut_link()?;
        assert_eq!(state_in(&ask(site, "reboot-hard", "one", web)?)?, "active");
        web.wait_until("its app is up", SOON, || {
            Ok(web.unit_state("app").is_ok_and(|state| state == "active"))
        })?;
        assert_eq!(web.contact(SSH)?, Contact::Silence);
        web.heal_link()?;
        web.wait_until_up()
    })
}

#[test]
fn a_guest_without_power_is_silent_and_keeps_its_disk() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        web.demand("echo kept >/root/note")?;
        web.power_off()?;
        assert_eq!(web.state()?, Power::Off);
        assert_eq!(web.contact(SSH)?, Contact::Silence);
        web.boot()?;
        assert_eq!(web.demand("cat /root/note")?, "kept");
        assert_eq!(web.ssh("true")?.status, Some(0), "its host key is still the known one");
        assert_eq!(web.boots()?, 2);
        Ok(())
    })
}

#[test]
fn a_guest_that_reboots_itself_comes_back() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        web.demand("systemctl reboot")?;
        web.wait_until("it was started again", SOON, || Ok(web.boots()? == 2))?;
        web.wait_until_up()?;
        assert_eq!(web.state()?, Power::Active);
        Ok(())
    })
}

#[test]
fn a_guest_that_is_shut_down_stays_off() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        web.shut_down()?;
        web.wait_until("it is off", SOON, || Ok(web.state()? == Power::Off))?;
        assert_eq!(web.contact(SSH)?, Contact::Silence);
        assert_eq!(web.boots()?, 1);
        Ok(())
    })
}

#[test]
fn the_infrastructure_ends_a_hang_by_a_hard_reboot_and_does_each_action_once() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        web.hang()?;
        assert_eq!(web.contact(SSH)?, Contact::Silence);
        assert_eq!(state_in(&ask(site, "status", "look", web)?)?, "active", "an infrastructure sees no hang");

        assert_eq!(state_in(&ask(site, "reboot-hard", "first", web)?)?, "active");
        web.wait_until_up()?;
        assert_eq!(web.boots()?, 2);

        assert_eq!(state_in(&ask(site, "reboot-hard", "first", web)?)?, "active");
        assert_eq!(web.boots()?, 2, "the same action id, again, does nothing");

        assert_eq!(state_in(&ask(site, "reboot-soft", "second", web)?)?, "active");
        web.wait_until_up()?;
        assert_eq!(state_in(&ask(site, "stop", "third", web)?)?, "off");
        assert_eq!(web.contact(SSH)?, Contact::Silence);
        assert_eq!(state_in(&ask(site, "start", "fourth", web)?)?, "active");
        web.wait_until_up()?;

        let deeds = site.infra_deeds()?;
        assert_eq!(deeds, ["reboot-hard web", "reboot-soft web", "stop web", "start web"]);
        Ok(())
    })
}

#[test]
fn an_infrastructure_that_cannot_or_will_not_says_so_and_does_nothing() -> Result<()> {
    story(&["web"], |site| {
        let web = site.guest("web")?;
        web.boot()?;
        let cannot = ask(site, "destroy", "one", web)?;
        assert_eq!(cannot.status, Some(1));
        assert!(cannot.stderr.contains("can not be asked to destroy"), "{}", cannot.stderr);

        site.break_infra(Some(InfraFault::Fails))?;
        assert_eq!(ask(site, "reboot-hard", "two", web)?.status, Some(1));
        site.break_infra(Some(InfraFault::PrintsGarbage))?;
        let garbage = ask(site, "reboot-hard", "three", web)?;
        assert!(serde_json::from_str::<Value>(&garbage.stdout).is_err(), "{}", garbage.stdout);
        web.power_off()?;
        site.break_infra(Some(InfraFault::Lies))?;
        assert_eq!(state_in(&ask(site, "status", "four", web)?)?, "active");
        site.break_infra(None)?;
        assert_eq!(state_in(&ask(site, "status", "five", web)?)?, "off");

        assert_eq!(site.infra_deeds()?, [""; 0]);
        assert_eq!(site.infra_calls()?.len(), 5);
        Ok(())
    })
}

#[test]
fn nothing_is_left_of_a_site() -> Result<()> {
    let mut gone = None;
    story(&["web"], |site| {
        site.guest("web")?.boot()?;
        let mounts = fs::read_to_string("/proc/mounts")?;
        let folder = site.path("guests");
        assert!(mounts.contains(&folder.display().to_string()), "the guest's disk is mounted");
        gone = Some((folder, site.guest("web")?.clone()));
        Ok(())
    })?;
    let Some((folder, web)) = gone else {
        return Ok(());
    };
    assert!(!folder.exists());
    assert!(!fs::read_to_string("/proc/mounts")?.contains(&folder.display().to_string()));
    assert!(web.state().is_err(), "the hypervisor does not know it any more");
    Ok(())
}

/// Set in the process that is to die: the name of a file for what it leaves behind.
const DIES: &str = "CPE_TESTS_DIES_IN_A_STORY";

#[test]
fn what_a_killed_test_leaves_is_swept_by_the_next_one() -> Result<()> {
    if let Some(will) = env::var_os(DIES) {
        return story(&["web"], |site| {
            site.guest("web")?.boot()?;
            fs::write(&will, site.path("guests/web/hypervisor.pid").display().to_string())?;
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
            bail!("outlived its end")
        });
    }
    story(&[], |site| {
        let will = site.path("will");
        let mut test = Command::new(env::current_exe()?);
        test.args(["--exact", "what_a_killed_test_leaves_is_swept_by_the_next_one"]).env(DIES, &will);
        let ended = test.output()?;
        assert_eq!(ended.status.signal(), Some(9), "{}", String::from_utf8_lossy(&ended.stdout));
        let left = fs::read_to_string(&will)?;
        // Other tests sweep, too, and may have been quicker: all that is promised is that it is gone now.
        let hypervisor = fs::read_to_string(&left).ok();
        story(&[], |_| Ok(()))?;
        assert!(!Path::new(&left).exists(), "{left} is still there");
        let Some(pid) = hypervisor else {
            return Ok(());
        };
        // It has nothing left to do but to exit.
        let command = Path::new("/proc").join(pid.trim_end()).join("cmdline");
        wait::until("the end of its hypervisor", SOON, || {
            Ok((!fs::read_to_string(&command).unwrap_or_default().contains("hypervise")).then_some(()))
        })
    })
}
