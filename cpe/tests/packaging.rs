//! What is shipped beside the program is accepted by the programs that read it: systemd and sudo.

use std::path::PathBuf;
use std::process::{Command, Output};

fn shipped(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging")).join(file)
}

fn run(program: &str, package: &str, arguments: &[&str], file: &str) -> Output {
    // Administrators' programs are not on everybody's path.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new(program).args(arguments).arg(shipped(file)).env("PATH", path).output().unwrap_or_else(
        |error| panic!("{program} is needed for this test ({error}): install Debian's package {package}"),
    )
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_unit_exposes_little() {
    // In tenths: 2.0 of 10.
    let checked = run(
        "systemd-analyze",
        "systemd",
        &["security", "--offline=true", "--no-pager", "--threshold=20"],
        "cpe.service",
    );
    assert!(checked.status.success(), "{}", said(&checked));
}

#[test]
fn the_unit_says_how_it_is_watched_and_who_may_use_its_socket() {
    let unit = std::fs::read_to_string(shipped("cpe.service")).unwrap();
    for line in [
        "Type=notify",
        "WatchdogSec=30s",
        "Restart=always",
        "User=cpe",
        "LimitCORE=0",
        "RuntimeDirectory=cpe",
        "StateDirectory=cpe",
    ] {
        assert!(unit.lines().any(|it| it == line), "{line}");
    }
    // It would map every peer of the socket to nobody.
    assert!(!unit.lines().any(|line| line.starts_with("PrivateUsers=")));
}

/// It ends well whatever it thinks of a line: what counts is what it would write.
#[test]
fn the_account_is_one_that_sysusers_makes() {
    let checked = run("systemd-sysusers", "systemd", &["--dry-run"], "cpe.sysusers");
    let said = said(&checked);
    assert!(checked.status.success() && !said.contains("not a valid"), "{said}");
}

#[test]
fn the_line_for_guests_is_one_that_sudo_accepts() {
    let checked = run("visudo", "sudo", &["--check", "--file"], "sudoers-cpe");
    assert!(checked.status.success(), "{}", said(&checked));
}

#[test]
fn so_are_those_for_resources_once_they_are_no_comments() {
    let shipped = std::fs::read_to_string(shipped("sudoers-cpe")).unwrap();
    let lines = shipped.lines().map(|line| {
        let wanted = ["#Cmnd_Alias ", "#Defaults!", "#dped "].iter().any(|start| line.starts_with(start));
        if wanted { &line[1..] } else { line }
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    assert!(text.contains("\nCmnd_Alias CPE_OCF_1 = "), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sudoers");
    std::fs::write(&file, text).unwrap();
    let checked = Command::new("visudo").args(["--check", "--file"]).arg(&file).output();
    let checked = checked.expect("visudo (Debian: sudo) is needed for these tests");
    assert!(checked.status.success(), "{}", said(&checked));
}
