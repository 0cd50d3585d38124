//! policy.md section 3: counting, climbing, back-off, caps, and the end of the ladder.

use cpe_proto::definition::Deployable;
use cpe_proto::event::EventKind;
use cpe_proto::rung::Rung::{RebootHard, RebootSoft, RestartService};
use cpe_proto::state::State;
use expect_test::expect_file;

use crate::site::{Site, seconds};

/// The deployable of policy.md's worked table.
const WORKED: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s" }
    [escalation]
    service = { failures = 3, within = "1h" }
    assembly = { failures = 3, within = "6h" }
    [assemblies.web]
    address = "192.0.2.1"
    data = "none"
    max_rung = "reboot-hard"
    [assemblies.web.services.nginx]
    systemd = "nginx.service"
"#;

#[test]
fn worked_table_a_unit_that_dies_10_s_after_each_start() {
    let mut site = Site::with(WORKED);
    site.crash_loop("web/nginx", 10.0);
    site.until("the ladder ended", 1800.0, |site| site.state("web/nginx") == State::Exhausted);
    assert_eq!(
        site.rungs(),
        [
            RestartService, RestartService, RebootSoft, // failures 1, 2, 3
            RestartService, RestartService, RebootHard, // failures 4, 5, 6
            RestartService, RestartService, // failures 7, 8; at 9 rebuild is above max_rung
        ]
    );
    assert_eq!(site.notified().len(), 1, "{:?}", site.notified());
    assert_eq!(site.kinds(EventKind::IncidentOpened).len(), 1, "one thread for a person");
    expect_file!["../transcripts/worked-table.txt"].assert_eq(&site.transcript());
}
