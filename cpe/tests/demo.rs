//! The README's first command, as a user runs it: it shows each fault detected and dealt with, and ends by itself.

use std::process::Command;

#[test]
fn the_demo_shows_each_fault_repaired_or_left_to_a_person() {
    let output = Command::new(env!("CARGO_BIN_EXE_cpe")).arg("demo").output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    let row = |subject: &str| {
        let found = shown.lines().find(|line| line.starts_with(&format!("{subject} ")));
        found.unwrap_or_else(|| panic!("no row of {subject} in\n{shown}")).to_owned()
    };
    assert!(row("shop/web-1/nginx").contains(" restart-service "), "{shown}");
    assert!(row("batch/worker-1").contains(" restart-service, reboot-soft "), "{shown}");
    assert!(row("mail/mx-2").contains(" reboot-hard "), "{shown}");
    assert!(row("batch/worker-4").contains(" start "), "{shown}");
    for untouched in ["batch/worker-3", "mail/mx-1"] {
        assert!(row(untouched).contains(" nothing "), "{shown}");
    }
}
