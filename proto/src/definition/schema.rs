//! The keys of a definition (design.md section 5), and those that are planned. `deployables/reference.toml` explains each of
//! them; a test holds the two together.

use crate::document::Schema;
use crate::{fence, ssh};

pub(super) const DEFINITION: Schema = Schema {
    title: "the definition",
    keys: &["name", "infrastructure", "mode", "probe", "escalation", "timing", "assemblies"],
    later: &[],
};

pub(super) const PROBE: Schema = Schema {
    title: "[probe]",
    keys: &["interval", "timeout", "confirm_interval", "failure_threshold", "startup_grace", "stable_for"],
    later: &[],
};

pub(super) const ESCALATION: Schema = Schema {
    title: "[escalation]",
    keys: &["service", "assembly"],
    later: &[("deployable", "expected `service` or `assembly`")],
};

pub(super) const WINDOW: Schema = Schema { title: "a window", keys: &["failures", "within"], later: &[] };

pub(super) const TIMING: Schema = Schema {
    title: "[timing]",
    keys: &[
        "dependency_wait",
        "unreachable_notify",
        "transition_wait",
        "retry_after",
        "service_action_timeout",
        "machine_action_timeout",
        "action_give_up",
        "on_channel_refused",
        "on_unexpected_stop",
    ],
    later: &[],
};

pub(super) const ASSEMBLY: Schema = Schema {
    title: "an assembly",
    keys: &[
        "address",
        "image",
        "flavor",
        "instance",
        "adopt",
        "count",
        "after",
        "failure_domains",
        "data",
        "max_rung",
        "monitor",
        "ssh",
        "probe",
        "parameters",
        "fence",
        "services",
    ],
    later: &[],
};

pub(super) const ADOPT: Schema = Schema { title: "adopt", keys: &["tag"], later: &[] };

pub(super) const SSH: Schema =
    Schema { title: "ssh", keys: &["user", "port", "identity", "passphrase", "jump"], later: &[] };

/// What is said of a kind that is planned.
const KINDS: &str = "the kinds are `systemd`, `process`, `tcp` and `command`";

pub(super) const SERVICE: Schema = Schema {
    title: "a service",
    keys: &["systemd", "process", "tcp", "command", "from", "restart", "after", "probe"],
    later: &[
        ("http", KINDS),
        ("nagios", KINDS),
        ("ocf", KINDS),
        ("tls", KINDS),
        ("dns", KINDS),
        ("icmp", KINDS),
        ("parameters", "an assembly may have `parameters`, for its infrastructure"),
    ],
};

/// The kinds of services, of which each service has one.
pub(super) const SERVICE_KINDS: [&str; 4] = ["systemd", "process", "tcp", "command"];

/// What names the machine of an assembly, of which each has one.
pub(super) const MACHINE_KEYS: [&str; 4] = ["address", "image", "instance", "adopt"];

pub(super) const RESTART: Schema = Schema {
    title: "restart",
    keys: &["systemd"],
    later: &[("command", "expected `systemd`"), ("ocf", "expected `systemd`")],
};

/// Every kind of table with its keys, for documents and editors.
pub const SCHEMAS: [&Schema; 12] = [
    &DEFINITION,
    &PROBE,
    &ESCALATION,
    &WINDOW,
    &TIMING,
    &ASSEMBLY,
    &ADOPT,
    &SSH,
    &ssh::PASSPHRASE,
    &fence::VALUE,
    &SERVICE,
    &RESTART,
];
