//! The choice of a rung (policy.md section 3) where a ladder is far along: what was left off is started, what was made elsewhere is not
//! made there again. `counting.rs` and `elsewhere.rs` have how it gets there.

use cpe_proto::decision::{Refusal, Verdict};
use cpe_proto::definition::Data;
use cpe_proto::event::EventKind;
use cpe_proto::infrastructure::{Capabilities, InstanceState, Operation};
use cpe_proto::rung::Rung;
use cpe_proto::snapshot::Beyond;
use dped::ladder::{Bounds, Elsewhere, Ladder, Skip, choose, forbidden_elsewhere, left_off};

use crate::site::{Site, seconds};

fn everything() -> Capabilities {
    Capabilities(Operation::ALL.into_iter().collect())
}

fn bounds(capabilities: &Capabilities) -> Bounds<'_> {
    Bounds {
        max_rung: Rung::Relocate,
        data: Data::None,
        capabilities: Some(capabilities),
        climbs: true,
        deployable: true,
        relocate: Elsewhere::Given,
    }
}

#[test]
fn what_we_powered_off_and_is_off_is_only_started() {
    let everything = everything();
    let mut ladder = Ladder { climbed: true, rebooted: true, beyond: Beyond::LeftOff, ..Ladder::default() };
    let choice = choose(&Verdict::Off, false, &ladder, bounds(&everything));
    assert_eq!((choice.rung, choice.skipped), (Some(Rung::Start), vec![]));
    assert!(!left_off(&Verdict::Hung, &ladder), "it runs");
    ladder.attempted(Rung::Start);
    assert_eq!(ladder.beyond, Beyond::Tried, "it was started");
    assert!(!left_off(&Verdict::Off, &ladder), "somebody else has powered it off");
    let choice = choose(&Verdict::Off, false, &ladder, bounds(&everything));
    assert_eq!(choice.rung, Some(Rung::Rebuild));
}

#[test]
fn a_machine_is_made_elsewhere_once_and_whether_its_own_scope_climbs_is_not_asked() {
    let everything = everything();
    let climbed = Ladder { climbed: true, rebooted: true, ..Ladder::default() };
    let own = Bounds { climbs: false, ..bounds(&everything) };
    assert_eq!(forbidden_elsewhere(&Verdict::Hung, &climbed, own), None);
    let relocated = Ladder { relocated: true, ..climbed };
    assert_eq!(forbidden_elsewhere(&Verdict::Hung, &relocated, own), Some(Skip::AlreadyTried));
}

const ALONE: &str = r#"
    name = "shop"
    infrastructure = "prod"
    probe = { interval = "2s", timeout = "2s" }
    [escalation]
    assembly = { failures = 2, within = "6h" }
    [assemblies.web]
    address = "192.0.2.1"
    data = "none"
    max_rung = "recreate"
    services.nginx.systemd = "nginx.service"
"#;

#[test]
fn a_rebuild_needs_a_proven_path_of_its_own_however_well_proven_it_was_at_the_reboot() {
    let mut site = Site::with(ALONE);
    site.host("web").boot = seconds(1e6);
    site.claims("web", InstanceState::Error);
    site.freeze("web");
    site.until("it is rebooted", 300.0, |site| site.rungs().len() == 1);
    // Everybody else on the path falls silent, too.
    site.canary = false;
    site.run(3600.0);
    assert!(!site.rungs().contains(&Rung::Rebuild), "{}", site.transcript());
    assert!(site.refusals().contains(&Refusal::Evidence), "{}", site.transcript());
    site.canary = true;
    site.until("it is rebuilt", 600.0, |site| site.rungs().contains(&Rung::Rebuild));
    let escalated = site.reasons(EventKind::Escalated);
    assert_eq!(escalated, ["failure 2 of 2 in 6 h: escalates to rebuild"]);
}
