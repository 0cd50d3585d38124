//! The keys of a definition (design.md section 5), and those that are planned. `deployables/reference.toml` explains each of
//! them; a test holds the two together.

use crate::document::Schema;
use crate::{fence, ssh};

pub(super) const DEFINITION: Schema = Schema {
    title: "the definition",
    keys: &[
        "name",
        "infrastructure",
        "mode",
        "probe",
        "escalation",
        "timing",
        "maintenance",
        "templates",
        "assemblies",
    ],
    later: &[],
};

/// The file of templates that definitions share.
pub(super) const TEMPLATES: Schema =
    Schema { title: "the file of templates", keys: &["templates"], later: &[] };

pub(super) const PROBE: Schema = Schema {
    title: "[probe]",
    keys: &["interval", "timeout", "confirm_interval", "failure_threshold", "startup_grace", "stable_for"],
    later: &[],
};

pub(super) const ESCALATION: Schema =
    Schema { title: "[escalation]", keys: &["service", "assembly", "deployable", "relocate"], later: &[] };

pub(super) const WINDOW: Schema = Schema { title: "a window", keys: &["failures", "within"], later: &[] };

pub(super) const DEPLOYABLE_SCOPE: Schema =
    Schema { title: "the deployable's window", keys: &["failures", "within", "scope"], later: &[] };

pub(super) const RELOCATION: Schema = Schema { title: "relocate", keys: &["zone"], later: &[] };

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

pub(super) const MAINTENANCE: Schema = Schema {
    title: "a maintenance window",
    keys: &["from", "for", "days", "dates", "months", "zone", "assemblies", "reason"],
    later: &[],
};

pub(super) const ASSEMBLY: Schema = Schema {
    title: "an assembly",
    keys: &[
        "template",
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
        "channel",
        "ssh",
        "probe",
        "parameters",
        "fence",
        "services",
    ],
    later: &[],
};

/// What several assemblies may have in common: all but what names one machine.
pub(super) const TEMPLATE: Schema = Schema {
    title: "a template",
    keys: &[
        "image",
        "flavor",
        "count",
        "after",
        "failure_domains",
        "data",
        "max_rung",
        "monitor",
        "channel",
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

pub(super) const SERVICE: Schema = Schema {
    title: "a service",
    keys: &[
        "systemd",
        "process",
        "tcp",
        "command",
        "nagios",
        "ocf",
        "lsb",
        "http",
        "tls",
        "dns",
        "icmp",
        "parameters",
        "configure",
        "from",
        "restart",
        "after",
        "probe",
    ],
    later: &[],
};

/// The kinds of services, of which each service has one.
pub(super) const SERVICE_KINDS: [&str; 11] =
    ["systemd", "process", "tcp", "command", "nagios", "ocf", "lsb", "http", "tls", "dns", "icmp"];

pub(super) const HTTP: Schema = Schema {
    title: "http",
    keys: &[
        "url",
        "method",
        "status",
        "host",
        "headers",
        "answer_headers",
        "contains",
        "matches",
        "redirects",
        "ca",
    ],
    later: &[],
};

/// Where the value of a header is.
pub(super) const HEADER: Schema = Schema { title: "a header", keys: &["file", "credential"], later: &[] };

pub(super) const TLS: Schema =
    Schema { title: "tls", keys: &["to", "name", "warn_before", "fail_before", "ca"], later: &[] };

pub(super) const DNS: Schema =
    Schema { title: "dns", keys: &["name", "type", "expect", "server"], later: &[] };

/// What stands for the channel of an assembly that is reached by direct probes alone.
pub(super) const CHANNEL: Schema =
    Schema { title: "channel", keys: &["http", "tls", "tcp", "icmp"], later: &[] };

/// What names the machine of an assembly, of which each has one.
pub(super) const MACHINE_KEYS: [&str; 4] = ["address", "image", "instance", "adopt"];

pub(super) const RESTART: Schema = Schema {
    title: "restart",
    keys: &["systemd", "lsb"],
    later: &[
        ("command", "expected `systemd` or `lsb`"),
        ("ocf", "expected `systemd` or `lsb`, or a service of kind `ocf`, which restarts itself"),
    ],
};

/// Every kind of table with its keys, for documents and editors.
pub const SCHEMAS: [&Schema; 21] = [
    &DEFINITION,
    &TEMPLATE,
    &MAINTENANCE,
    &PROBE,
    &ESCALATION,
    &WINDOW,
    &DEPLOYABLE_SCOPE,
    &RELOCATION,
    &TIMING,
    &ASSEMBLY,
    &ADOPT,
    &SSH,
    &ssh::PASSPHRASE,
    &fence::VALUE,
    &SERVICE,
    &HTTP,
    &HEADER,
    &TLS,
    &DNS,
    &CHANNEL,
    &RESTART,
];
