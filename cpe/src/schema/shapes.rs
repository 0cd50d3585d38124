//! What the keys of definitions and of cpe.toml hold, table by table; the first table of each is the file itself.

use cpe_proto::document::Schema;

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Text,
    Duration,
    Number(u32, u32),
    Flag,
    Words(&'static [&'static str]),
    Texts,
    /// A table of texts with free keys.
    TextTable,
    /// A table of that kind.
    Table(&'static str),
    /// A table of such tables by name.
    Tables(&'static str),
    /// A table with free keys.
    Values(&'static Self),
    /// A list of such tables.
    List(&'static str),
    Any(&'static [Self]),
}

use Shape::{
    Any, Duration, Flag, List, Number, Table, Tables as Named, Text, TextTable, Texts, Values, Words,
};

/// Kinds of tables with their keys.
pub(super) type Tables = [(&'static str, &'static [(&'static str, Shape)])];

/// The name that a parser's table has in a schema: its title in words.
pub(super) fn name_of(schema: &Schema) -> &'static str {
    // Two kinds of infrastructures have one title, and differ in their keys.
    match schema.title {
        "an infrastructure" if schema.keys.contains(&"program") => "command infrastructure",
        "an infrastructure" => "fence infrastructure",
        title => title,
    }
}

/// The keys without which a table is wrong.
pub(super) fn required(name: &str) -> &'static [&'static str] {
    match name {
        "the definition" => &["name", "assemblies"],
        "a window" => &["failures", "within"],
        "a maintenance window" => &["from", "for"],
        "adopt" => &["tag"],
        "[[canaries]]" => &["path", "tcp"],
        "[[domains]]" => &["name", "infrastructure"],
        "command infrastructure" => &["kind", "program"],
        "fence infrastructure" => &["kind", "agent"],
        _ => &[],
    }
}

/// The keys of which a table has exactly one.
pub(super) fn one_of(name: &str) -> &'static [&'static str] {
    match name {
        "an assembly" => &["address", "image", "instance", "adopt"],
        "a service" => {
            &["systemd", "process", "tcp", "command", "nagios", "ocf", "lsb", "http", "tls", "dns", "icmp"]
        }
        _ => &[],
    }
}

const PORT: Shape = Number(1, 65535);
const TEXT_OR_PORT: Shape = Any(&[Text, PORT]);
const RUNGS: Shape =
    Words(&["restart-service", "reboot-soft", "reboot-hard", "rebuild", "recreate", "relocate"]);
const ON_ORDER: Shape = Words(&["recover", "report"]);
const OPERATIONS: Shape = Texts;

/// Its template, and what names one machine, stand first.
const ASSEMBLY: &[(&str, Shape)] = &[
    ("template", Text),
    ("address", Text),
    ("instance", Text),
    ("adopt", Table("adopt")),
    ("image", Text),
    ("flavor", Text),
    ("count", Number(1, 1000)),
    ("after", Texts),
    ("failure_domains", Texts),
    ("data", Words(&["local", "volume", "none"])),
    ("max_rung", RUNGS),
    ("monitor", Words(&["ssh", "direct"])),
    ("channel", Table("channel")),
    ("ssh", Table("ssh")),
    ("probe", Table("[probe]")),
    ("parameters", TextTable),
    ("fence", Values(&Any(&[Text, Table("an option")]))),
    ("services", Named("a service")),
];

/// They are all that a template has not.
const OF_TEMPLATE: &[(&str, Shape)] = ASSEMBLY.split_at(4).1;

pub(super) const DEFINITION: &Tables = &[
    (
        "the definition",
        &[
            ("name", Text),
            ("infrastructure", Text),
            ("mode", Words(&["act", "observe"])),
            ("probe", Table("[probe]")),
            ("escalation", Table("[escalation]")),
            ("timing", Table("[timing]")),
            ("maintenance", List("a maintenance window")),
            ("templates", Named("a template")),
            ("assemblies", Named("an assembly")),
        ],
    ),
    (
        "[probe]",
        &[
            ("interval", Duration),
            ("timeout", Duration),
            ("confirm_interval", Duration),
            ("failure_threshold", Number(1, 20)),
            ("startup_grace", Duration),
            ("stable_for", Duration),
        ],
    ),
    (
        "[escalation]",
        &[
            ("service", Table("a window")),
            ("assembly", Table("a window")),
            ("deployable", Table("the deployable's window")),
            ("relocate", Table("relocate")),
        ],
    ),
    ("a window", &[("failures", Number(1, 100)), ("within", Duration)]),
    (
        "the deployable's window",
        &[("failures", Number(1, 100)), ("within", Duration), ("scope", Words(&["affected", "all"]))],
    ),
    ("relocate", &[("zone", Text)]),
    (
        "[timing]",
        &[
            ("dependency_wait", Duration),
            ("unreachable_notify", Duration),
            ("transition_wait", Duration),
            ("retry_after", Duration),
            ("service_action_timeout", Duration),
            ("machine_action_timeout", Duration),
            ("action_give_up", Duration),
            ("on_channel_refused", ON_ORDER),
            ("on_unexpected_stop", ON_ORDER),
        ],
    ),
    (
        "a maintenance window",
        &[
            ("from", Text),
            ("for", Duration),
            ("days", Texts),
            ("dates", Texts),
            ("months", Texts),
            ("zone", Text),
            ("assemblies", Texts),
            ("reason", Text),
        ],
    ),
    ("a template", OF_TEMPLATE),
    ("an assembly", ASSEMBLY),
    ("adopt", &[("tag", Text)]),
    (
        "ssh",
        &[
            ("user", Text),
            ("port", PORT),
            ("identity", Text),
            ("passphrase", Table("passphrase")),
            ("jump", Text),
        ],
    ),
    ("passphrase", &[("file", Text), ("credential", Text)]),
    ("an option", &[("file", Text)]),
    (
        "a service",
        &[
            ("systemd", Text),
            ("process", Text),
            ("tcp", TEXT_OR_PORT),
            ("command", Text),
            ("nagios", Text),
            ("ocf", Text),
            ("lsb", Text),
            ("http", Any(&[Text, Table("http")])),
            ("tls", Any(&[Text, PORT, Table("tls")])),
            ("dns", Any(&[Text, Table("dns")])),
            ("icmp", Any(&[Flag, Text])),
            ("parameters", TextTable),
            ("configure", Text),
            ("from", Words(&["guest", "controller"])),
            ("restart", Table("restart")),
            ("after", Texts),
            ("probe", Table("[probe]")),
        ],
    ),
    (
        "http",
        &[
            ("url", Text),
            ("method", Words(&["GET", "HEAD"])),
            ("status", Any(&[Text, Number(100, 599)])),
            ("host", Text),
            ("headers", Values(&Any(&[Text, Table("a header")]))),
            ("answer_headers", TextTable),
            ("contains", Text),
            ("matches", Text),
            ("redirects", Number(0, 100)),
            ("ca", Text),
        ],
    ),
    ("a header", &[("file", Text), ("credential", Text)]),
    (
        "tls",
        &[
            ("to", TEXT_OR_PORT),
            ("name", Text),
            ("warn_before", Duration),
            ("fail_before", Duration),
            ("ca", Text),
        ],
    ),
    ("dns", &[("name", Text), ("type", Text), ("expect", Texts), ("server", Text)]),
    (
        "channel",
        &[
            ("http", Any(&[Text, Table("http")])),
            ("tls", Any(&[Text, PORT, Table("tls")])),
            ("tcp", TEXT_OR_PORT),
            ("icmp", Any(&[Flag, Text])),
        ],
    ),
    ("restart", &[("systemd", Text), ("lsb", Text)]),
];

pub(super) const CONFIGURATION: &Tables = &[
    (
        "the configuration",
        &[
            ("deployables", Text),
            ("state_dir", Text),
            ("controller", Table("[controller]")),
            ("listen", Table("[listen]")),
            ("ssh", Table("[ssh]")),
            ("journal", Table("[journal]")),
            ("notify", Table("[notify]")),
            ("canaries", List("[[canaries]]")),
            ("domains", List("[[domains]]")),
            (
                "infrastructures",
                Values(&Any(&[Table("command infrastructure"), Table("fence infrastructure")])),
            ),
            ("budgets", Table("[budgets]")),
            ("guard", Table("[guard]")),
            ("lag_budget", Duration),
        ],
    ),
    ("[controller]", &[("id", Text)]),
    (
        "[listen]",
        &[
            ("api", Any(&[Text, Texts])),
            ("token", Table("a secret")),
            ("read_token", Table("a secret")),
            ("plain", Flag),
            ("metrics", Text),
        ],
    ),
    ("a secret", &[("file", Text), ("credential", Text), ("env", Text)]),
    (
        "[ssh]",
        &[
            ("user", Text),
            ("port", PORT),
            ("identity", Text),
            ("passphrase", Table("passphrase")),
            ("agent", Flag),
            ("jump", Text),
            ("known_hosts", Texts),
            ("connecting", Number(1, 10_000)),
            ("connects_per_second", Number(1, 10_000)),
        ],
    ),
    ("passphrase", &[("file", Text), ("credential", Text)]),
    ("[journal]", &[("keep", Duration), ("max_size", Text)]),
    (
        "[notify]",
        &[
            ("command", Text),
            ("webhook", Text),
            ("email", Table("email")),
            ("ca", Text),
            ("burst", Number(1, 1000)),
            ("every", Duration),
        ],
    ),
    (
        "email",
        &[
            ("to", Texts),
            ("from", Text),
            ("server", Text),
            ("username", Text),
            ("password", Any(&[Text, Table("a secret")])),
            ("plain", Flag),
        ],
    ),
    ("[[canaries]]", &[("path", Text), ("tcp", Text)]),
    ("[[domains]]", &[("name", Text), ("infrastructure", Text)]),
    ("[budgets]", &[("in_flight", Table("in_flight")), ("machine_rungs", Table("machine_rungs"))]),
    (
        "in_flight",
        &[
            ("per_deployable", Number(1, 10_000)),
            ("per_domain", Number(1, 10_000)),
            ("per_infrastructure", Number(1, 10_000)),
            ("fleet", Number(1, 10_000)),
        ],
    ),
    ("machine_rungs", &[("count", Number(1, 10_000)), ("within", Duration)]),
    (
        "[guard]",
        &[
            ("window", Duration),
            ("hold", Duration),
            ("domain", Table("a threshold")),
            ("fleet", Table("a threshold")),
        ],
    ),
    ("a threshold", &[("count", Number(2, 10_000)), ("percent", Number(1, 100))]),
    (
        "command infrastructure",
        &[
            ("kind", Words(&["command"])),
            ("program", Text),
            ("parameters", TextTable),
            ("timeout", Duration),
            ("capabilities", OPERATIONS),
            ("in_flight", Number(1, 1000)),
        ],
    ),
    (
        "fence infrastructure",
        &[
            ("kind", Words(&["fence"])),
            ("agent", Text),
            ("options", Values(&Any(&[Text, Table("an option")]))),
            ("timeout", Duration),
            ("in_flight", Number(1, 1000)),
        ],
    ),
    ("an option", &[("file", Text)]),
];
