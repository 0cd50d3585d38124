//! policy.md section 1, rule by rule: what probes conclude, and when they are sent.

use cpe_proto::event::EventKind;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;

use crate::site::{Site, seconds};

const WEB: &str = r#"
    name = "shop"
    probe = { interval = "2s" }
    [assemblies.web]
    address = "192.0.2.1"
    [assemblies.web.services.nginx]
    systemd = "nginx.service"
"#;

#[test]
fn a_stopped_unit_is_seen_confirmed_restarted_and_verified() {
    let mut site = Site::with(WEB);
    site.kill("web/nginx");
    let seen = site.until("a restart was begun", 3.0, |site| !site.rungs().is_empty());
    assert!(seen <= seconds(2.6), "{seen:?} is over interval + confirm_interval + round trip\n{}", site.transcript());
    site.until("it is healthy", 10.0, |site| site.state("web/nginx") == State::Healthy);
    assert_eq!(site.rungs(), [Rung::RestartService]);
    assert_eq!(site.reasons(EventKind::RecoveryStarted), ["unit inactive, confirmed by 2 probes; failure 1 of 5 in 1 h"]);
    assert_eq!(site.reasons(EventKind::RecoveryFinished), ["healthy after 5.2 s"]);
    site.until("the incident is closed", 20.0, |site| site.view().incidents.is_empty());
    println!("{}", site.transcript());
}
