//! The command line as a script sees it: exit status 0 done, 1 the answer is no, 2 wrong usage, 3 nobody to ask. No machine is
//! needed for these.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use cpe_tests::{Output, controller, program};

const COMMAND: Duration = Duration::from_secs(60);

/// A folder for one test, empty.
fn folder(name: &str) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn cpe(arguments: &[&str]) -> Result<Output> {
    program::run(controller::binary()?, arguments, COMMAND)
}

const GOOD: &str = "name = \"shop\"\n[assemblies.web]\naddress = \"192.0.2.1\"\n[assemblies.web.services.app]\n\
                    systemd = \"app.service\"\n";

/// Three mistakes in one file: all are named at once, each with its place, and a misspelt key with the one that was meant.
#[test]
fn check_names_every_mistake_with_its_place_and_exits_with_1() -> Result<()> {
    let folder = folder("check")?;
    let broken = folder.join("broken.toml");
    let text = GOOD.replace("address", "adress").replace("app.service", "app service")
        + "[assemblies.web.services.blog]\nsystemd = \"blog.service\"\nafter = [\"web/ap\"]\n";
    fs::write(&broken, text)?;
    let checked = cpe(&["check", &broken.display().to_string()])?;
    assert_eq!(checked.status, Some(1), "{}{}", checked.stdout, checked.stderr);
    for (place, what) in [(":3:1: ", "address"), (":5:11: ", "app service"), (":8:10: ", "no service \"ap\"")]
    {
        let place = format!("{}{place}", broken.display());
        let line = checked.stdout.lines().find(|line| line.starts_with(&place));
        assert!(
            line.is_some_and(|line| line.contains(what)),
            "no {place} with {what} in:\n{}",
            checked.stdout
        );
    }

    let good = folder.join("good.toml");
    fs::write(&good, GOOD)?;
    let checked = cpe(&["check", &good.display().to_string()])?;
    assert_eq!(checked.status, Some(0), "{}{}", checked.stdout, checked.stderr);
    Ok(())
}

#[test]
fn the_examples_of_this_repository_are_valid() -> Result<()> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deployables");
    let checked = cpe(&["check", &examples.display().to_string()])?;
    assert_eq!(checked.status, Some(0), "{}{}", checked.stdout, checked.stderr);
    Ok(())
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_there_is() -> Result<()> {
    for wrong in [&["stauts"][..], &["check"], &["maintenance", "on", "shop"], &["status", "--jason"]] {
        let answer = cpe(wrong)?;
        assert_eq!(answer.status, Some(2), "cpe {wrong:?}: {}{}", answer.stdout, answer.stderr);
        assert!(answer.stderr.contains("Usage"), "cpe {wrong:?}: {}", answer.stderr);
    }
    Ok(())
}

#[test]
fn a_controller_that_cannot_be_reached_is_exit_status_3_and_its_socket_is_named() -> Result<()> {
    let folder = folder("unreachable")?;
    let config = folder.join("cpe.toml");
    fs::write(&config, "[listen]\napi = \"unix:api.sock\"\n")?;
    let config = config.display().to_string();
    for command in [&["status"][..], &["events"], &["why", "shop"], &["stop", "shop"]] {
        let answer = cpe(&[&["--config", config.as_str()], command].concat())?;
        assert_eq!(answer.status, Some(3), "cpe {command:?}: {}{}", answer.stdout, answer.stderr);
        assert!(answer.stderr.contains("api.sock"), "cpe {command:?}: {}", answer.stderr);
    }
    Ok(())
}

#[test]
fn a_configuration_that_is_wrong_is_told_with_its_place_before_anything_starts() -> Result<()> {
    let folder = folder("config")?;
    let config = folder.join("cpe.toml");
    fs::write(&config, "state_dri = \"/nowhere\"\n")?;
    let config = config.display().to_string();
    let answer = cpe(&["--config", &config, "run"])?;
    assert!(matches!(answer.status, Some(1 | 2)), "{answer:?}");
    assert!(answer.stderr.contains("cpe.toml:1:1: ") && answer.stderr.contains("state_dir"), "{answer:?}");
    Ok(())
}
