//! The demo's machines and definitions. The faults that befall them are in `script.rs`.

use cpe_sim::live::{MachineSpec, UnitSpec};

/// What the controller is given: file and text, with `{NAME}` for an address.
pub(super) const DEFINITIONS: [(&str, &str); 3] = [
    ("batch.toml", include_str!("deployables/batch.toml")),
    ("mail.toml", include_str!("deployables/mail.toml")),
    ("shop.toml", include_str!("deployables/shop.toml")),
];

/// The machines.
pub(super) fn machines() -> Vec<MachineSpec> {
    let machine = |name: &str, units: &[(&str, Option<u16>)]| {
        let units = units.iter().map(|(unit, port)| {
            let spec = UnitSpec::new(unit);
            port.map_or(spec.clone(), |port| spec.listening(port))
        });
        MachineSpec::new(name, units.collect())
    };
    let web = [("nginx.service", Some(80)), ("php-fpm.service", None)];
    let mx = [("postfix.service", Some(25))];
    let mut machines = vec![
        machine("mysql", &[("mariadb.service", Some(3306))]),
        machine("web-1", &web),
        machine("web-2", &web),
        machine("mx-1", &mx),
        machine("mx-2", &mx),
    ];
    machines.extend((1..=4).map(|number| machine(&format!("worker-{number}"), &[("job.service", None)])));
    machines
}
