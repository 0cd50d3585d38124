//! Definitions as text, as an operator would write them: a head that says how often is looked, and a table for each guest.

use std::fmt::Write;

use crate::guest::Guest;

/// The head of the deployable `shop`, which no infrastructure looks after: only services can be restarted. Short intervals, so
/// that stories are short; what is not given here is policy.
pub const SHOP: &str = r#"name = "shop"
[probe]
interval = "2s"
timeout = "2s"
stable_for = "2s"
"#;

/// As [`SHOP`], with the site's infrastructure.
pub const SHOP_ON_GUESTS: &str = r#"name = "shop"
infrastructure = "guests"
[probe]
interval = "2s"
timeout = "2s"
stable_for = "2s"
"#;

/// The table of a guest and of some of its units, each a service of the unit's name. Further tables of it may follow.
#[must_use]
pub fn watched(guest: &Guest, units: &[&str]) -> String {
    let name = guest.name();
    let mut text = format!("[assemblies.{name}]\naddress = \"{}\"\n", guest.address());
    for unit in units {
        // Writing to a text cannot fail.
        let _ = write!(text, "[assemblies.{name}.services.{unit}]\nsystemd = \"{unit}.service\"\n");
    }
    text
}
