//! What an agent says of itself: the XML document that `action=metadata` prints, parsed. Which options it has and needs, which
//! actions it does. It is outside input: sizes are capped, a document type is refused, a name is only a name.

use std::collections::{BTreeMap, BTreeSet};

use cpe_proto::infrastructure::{Capabilities, Operation};
use roxmltree::{Document, Node, ParsingOptions};

use crate::process::one_line;

/// The most nodes of a document; the largest of Debian's agents has about 700.
const NODES_MAX: u32 = 20_000;

/// The most options of an agent, and the most values of one that is to be chosen; the largest has 50 and 10.
const PARAMETERS_MAX: usize = 500;

/// Of the name of one parameter: it is outside input.
const NAME_MAX_BYTES: usize = 64;

/// What an agent can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Action {
    /// Say what it is.
    Metadata,
    /// Try whether the device answers.
    Monitor,
    /// Say whether a machine has power.
    Status,
    /// Switch it off.
    Off,
    /// Switch it on.
    On,
    /// Both, as the device does it.
    Reboot,
}

impl Action {
    const ALL: [Self; 6] = [Self::Metadata, Self::Monitor, Self::Status, Self::Off, Self::On, Self::Reboot];

    /// The word of the interface.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Monitor => "monitor",
            Self::Status => "status",
            Self::Off => "off",
            Self::On => "on",
            Self::Reboot => "reboot",
        }
    }
}

/// How a machine is rebooted through this agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reboot {
    /// Off, seen to be off, on.
    Verified,
    /// By the agent's own reboot: that the machine was ever off is not seen.
    Own,
}

/// One option of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// Whether the agent does nothing without it.
    pub(crate) required: bool,
    /// The older name that it replaces.
    pub(crate) obsoletes: Option<String>,
    /// What its value has to be.
    pub(crate) content: Content,
}

/// What the value of an option has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Any text.
    Text,
    /// A whole number.
    Integer,
    /// Yes or no.
    Boolean,
    /// One of these.
    Select(BTreeSet<String>),
}

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Its options by name.
    pub(crate) parameters: BTreeMap<String, Parameter>,
    actions: BTreeSet<Action>,
}

impl Metadata {
    /// Reads what the agent printed. The error says what is wrong with it, and what was expected.
    pub(crate) fn parse(output: &[u8]) -> Result<Self, String> {
        const EXPECTED: &str = "expected the <resource-agent> document of a fence agent";
        let text = std::str::from_utf8(output).map_err(|_| format!("not UTF-8, {EXPECTED}"))?.trim();
        if text.is_empty() {
            return Err(format!("nothing on standard output, {EXPECTED}"));
        }
        let options = ParsingOptions { nodes_limit: NODES_MAX, ..ParsingOptions::default() };
        let document = Document::parse_with_options(text, options).map_err(|error| {
            let error = one_line(&error.to_string(), 200);
            format!("{error} in {:?}, {EXPECTED}", one_line(text, 60))
        })?;
        let root = document.root_element();
        if !root.has_tag_name("resource-agent") {
            return Err(format!("<{}>, {EXPECTED}", one_line(root.tag_name().name(), 60)));
        }
        let parameters = read_parameters(root)?;
        let actions = read_actions(root);
        if actions.is_empty() {
            return Err(format!(
                "none of status, monitor, off, on and reboot among its <actions>, {EXPECTED}"
            ));
        }
        Ok(Self { parameters, actions })
    }

    /// Whether it does that.
    pub(crate) fn does(&self, action: Action) -> bool {
        self.actions.contains(&action)
    }

    /// How a machine is rebooted through it. An agent that cuts a machine from its network or storage, and not from its power, has
    /// no reboot of its own, and off and on are none with it: the machine would run on.
    pub(crate) fn reboot(&self) -> Option<Reboot> {
        let verified = [Action::Off, Action::Status, Action::On].iter().all(|action| self.does(*action));
        self.does(Action::Reboot).then_some(if verified { Reboot::Verified } else { Reboot::Own })
    }

    /// Which operations can be done through it. Off without status could not be verified.
    pub(crate) fn capabilities(&self) -> Capabilities {
        let offered = [
            (Operation::Status, self.does(Action::Status)),
            (Operation::Start, self.does(Action::On)),
            (Operation::Stop, self.does(Action::Off) && self.does(Action::Status)),
            (Operation::RebootHard, self.reboot().is_some()),
        ];
        Capabilities(offered.into_iter().filter(|(_, can)| *can).map(|(operation, _)| operation).collect())
    }

    /// The actions that it does, for a message.
    pub(crate) fn actions(&self) -> String {
        self.actions.iter().map(|action| action.as_str()).collect::<Vec<_>>().join(", ")
    }
}

fn elements<'a, 'i: 'a>(
    node: Node<'a, 'i>,
    list: &'a str,
    name: &'a str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children()
        .filter(move |child| child.has_tag_name(list))
        .flat_map(|list| list.children())
        .filter(move |child| child.has_tag_name(name))
}

fn flag(node: Node<'_, '_>, name: &str) -> bool {
    node.attribute(name).is_some_and(|value| matches!(value.trim(), "1" | "true" | "yes"))
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (1..=NAME_MAX_BYTES).contains(&text.len()) && text.chars().all(plain)
}

fn read_parameters(root: Node<'_, '_>) -> Result<BTreeMap<String, Parameter>, String> {
    let mut parameters = BTreeMap::new();
    for node in elements(root, "parameters", "parameter") {
        // What is no name could not be set: it would be another line, or another option, of the agent's input.
        let Some(name) = node.attribute("name").map(str::trim).filter(|name| is_name(name)) else {
            continue;
        };
        if parameters.len() == PARAMETERS_MAX {
            return Err(format!("more than {PARAMETERS_MAX} parameters, expected fewer"));
        }
        parameters.insert(name.to_owned(), read_parameter(node));
    }
    Ok(parameters)
}

fn read_parameter(node: Node<'_, '_>) -> Parameter {
    let content = node.children().find(|child| child.has_tag_name("content"));
    let attribute = |name| content.and_then(|content| content.attribute(name)).map(str::trim);
    // With a value of its own an option need not be given, whatever `required` says: `action` is such a one.
    let has_default = attribute("default").is_some_and(|value| !value.is_empty());
    Parameter {
        required: flag(node, "required") && !has_default,
        obsoletes: node.attribute("obsoletes").map(|name| name.trim().to_owned()),
        content: match (attribute("type"), content) {
            (Some("integer"), _) => Content::Integer,
            (Some("boolean"), _) => Content::Boolean,
            (Some("select"), Some(content)) => read_choices(content),
            _ => Content::Text,
        },
    }
}

fn read_choices(content: Node<'_, '_>) -> Content {
    let values = content.children().filter(|child| child.has_tag_name("option"));
    let values = values.filter_map(|option| option.attribute("value")).take(PARAMETERS_MAX);
    let values: BTreeSet<String> = values.map(str::to_owned).collect();
    if values.is_empty() { Content::Text } else { Content::Select(values) }
}

/// What can only be done on the machine itself (`on_target`) is nothing that we can do.
fn read_actions(root: Node<'_, '_>) -> BTreeSet<Action> {
    let known = |node: Node<'_, '_>| {
        let name = node.attribute("name")?.trim();
        Action::ALL.into_iter().find(|action| action.as_str() == name && *action != Action::Metadata)
    };
    elements(root, "actions", "action").filter(|node| !flag(*node, "on_target")).filter_map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(parameters: &str, actions: &[&str]) -> Metadata {
        let actions: String = actions.iter().map(|action| format!("<action name=\"{action}\"/>")).collect();
        let text = format!(
            "<?xml version=\"1.0\" ?>\n<resource-agent name=\"x\"><parameters>{parameters}</parameters>\
             <actions>{actions}</actions></resource-agent>"
        );
        Metadata::parse(text.as_bytes()).expect("it is right")
    }

    fn can(actions: &[&str]) -> Vec<&'static str> {
        agent("", actions).capabilities().0.iter().map(|operation| operation.as_str()).collect()
    }

    #[test]
    fn what_can_be_done_follows_from_the_agents_actions() {
        let power = ["on", "off", "reboot", "status", "list", "monitor", "metadata"];
        assert_eq!(can(&power), ["status", "start", "stop", "reboot-hard"]);
        assert_eq!(agent("", &power).reboot(), Some(Reboot::Verified));
        // It cuts a port of a switch: the machine would run on.
        assert_eq!(can(&["on", "off", "status", "monitor"]), ["status", "start", "stop"]);
        // Off that cannot be seen is no stop.
        assert_eq!(can(&["on", "off", "monitor"]), ["start"]);
        assert_eq!(can(&["reboot", "monitor"]), ["reboot-hard"]);
        assert_eq!(agent("", &["reboot", "monitor"]).reboot(), Some(Reboot::Own));
        assert_eq!(agent("", &["on", "off", "reboot"]).reboot(), Some(Reboot::Own));
    }

    /// Agents of every kind, as Debian has them: power over IPMI, SNMP, telnet, SSH, HTTP, of virtual machines and of clouds; a
    /// switch, storage, and those that can do less.
    const DEBIANS: [(&str, &str); 13] = [
        ("fence_ipmilan", "status, start, stop, reboot-hard"),
        ("fence_apc_snmp", "status, start, stop, reboot-hard"),
        ("fence_apc", "status, start, stop, reboot-hard"),
        ("fence_virsh", "status, start, stop, reboot-hard"),
        ("fence_redfish", "status, start, stop, reboot-hard"),
        ("fence_openstack", "status, start, stop, reboot-hard"),
        ("fence_sbd", "status, start, stop, reboot-hard"),
        ("fence_dummy", "status, start, stop, reboot-hard"),
        ("fence_brocade", "status, start, stop"),
        ("fence_scsi", "status, stop"),
        ("fence_kdump", ""),
        ("fence_rcd_serial", "reboot-hard"),
        ("fence_ovh", "start, reboot-hard"),
    ];

    fn ask(agent: &str) -> Vec<u8> {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let mut command = Command::new(format!("/usr/sbin/{agent}"));
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = command.unwrap_or_else(|error| {
            panic!("{agent}: {error}: apt-get install fence-agents, or run tests/run as root")
        });
        child.stdin.take().expect("a pipe").write_all(b"action=metadata\n").expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{agent}");
        output.stdout
    }

    #[test]
    fn the_agents_of_debian_are_understood() {
        for (name, expected) in DEBIANS {
            let agent = Metadata::parse(&ask(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            let can: Vec<&str> = agent.capabilities().0.iter().map(|operation| operation.as_str()).collect();
            assert_eq!(can.join(", "), expected, "{name}");
            assert!(agent.parameters.contains_key("verbose"), "{name}");
        }
        let apc = Metadata::parse(&ask("fence_apc")).expect("it is right");
        assert_eq!(apc.parameters["ip"].obsoletes.as_deref(), Some("ipaddr"));
        assert!(apc.parameters["plug"].required && !apc.parameters["action"].required);
        assert_eq!(apc.parameters["ipport"].content, Content::Integer);
        let methods = Content::Select(["cycle".to_owned(), "onoff".to_owned()].into());
        let ipmilan = Metadata::parse(&ask("fence_ipmilan")).expect("it is right");
        assert_eq!(ipmilan.parameters["method"].content, methods);
    }

    #[test]
    fn what_only_the_machine_itself_could_do_is_not_offered() {
        let text = "<resource-agent><actions><action name=\"on\" on_target=\"1\"/><action name=\"off\"/>\
                    <action name=\"status\"/></actions></resource-agent>";
        let agent = Metadata::parse(text.as_bytes()).expect("it is right");
        assert_eq!(agent.capabilities().0, [Operation::Status, Operation::Stop].into());
    }

    #[test]
    fn options_have_their_rules() {
        let agent = agent(
            "<parameter name=\"plug\" required=\"1\" obsoletes=\"port\"><content type=\"string\"/></parameter>\
             <parameter name=\"action\" required=\"1\"><content type=\"string\" default=\"reboot\"/></parameter>\
             <parameter name=\"port\" required=\"1\" deprecated=\"1\"/>\
             <parameter name=\"method\"><content type=\"select\" default=\"onoff\"><option value=\"onoff\"/>\
             <option value=\"cycle\"/></content></parameter><parameter/>",
            &["off"],
        );
        assert_eq!(agent.parameters.len(), 4);
        assert!(agent.parameters["plug"].required && !agent.parameters["action"].required);
        assert_eq!(agent.parameters["plug"].obsoletes.as_deref(), Some("port"));
        let methods = Content::Select(["cycle".to_owned(), "onoff".to_owned()].into());
        assert_eq!(agent.parameters["method"].content, methods);
    }

    #[test]
    fn what_is_no_name_is_no_option() {
        // Found by fuzzing: an option goes into a line `name=value`.
        let agent =
            agent("<parameter name=\"a=b\"/><parameter name=\"a b\"/><parameter name=\"plug\"/>", &["off"]);
        assert_eq!(agent.parameters.keys().collect::<Vec<_>>(), ["plug"]);
    }

    #[test]
    fn what_is_no_metadata_is_told_with_what_was_expected() {
        let said = |text: &str| Metadata::parse(text.as_bytes()).expect_err("it is wrong");
        assert!(said(" \n").starts_with("nothing on standard output, expected the <resource-agent>"));
        assert!(said("Usage: fence_x").contains("in \"Usage: fence_x\", expected"));
        assert!(said("<html/>").starts_with("<html>, expected"));
        assert!(
            said("<resource-agent><actions><action name=\"diag\"/></actions></resource-agent>")
                .contains("none of status")
        );
        assert!(said("<resource-agent><actions>").contains("expected the <resource-agent>"));
        assert!(Metadata::parse(b"\xff").expect_err("it is wrong").starts_with("not UTF-8"));
    }

    #[test]
    fn a_document_that_breaks_off_or_is_damaged_anywhere_is_refused_or_read_and_never_more() {
        let whole = ask("fence_kdump");
        let read = |bytes: &[u8]| Metadata::parse(bytes).map(|agent| agent.capabilities().0.len());
        assert_eq!(read(&whole), Ok(0));
        let end = whole.trim_ascii_end().len();
        for at in 0..end {
            assert!(read(&whole[..at]).is_err(), "{at} bytes of it");
            let mut damaged = whole.clone();
            damaged[at] = b'<';
            assert!(read(&damaged).is_ok_and(|can| can == 0) || read(&damaged).is_err());
        }
    }

    #[test]
    fn hostile_documents_are_refused_and_cost_little() {
        let said = |text: &str| Metadata::parse(text.as_bytes()).expect_err("it is refused");
        let laughs = "<!DOCTYPE x [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;\">]><resource-agent>&b;</resource-agent>";
        assert!(said(laughs).contains("DTD"), "{}", said(laughs));
        let file =
            "<!DOCTYPE x [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><resource-agent>&a;</resource-agent>";
        assert!(said(file).contains("DTD"));
        assert!(said(&"<a>".repeat(20_000)).contains("expected"));
        let wide = format!("<resource-agent>{}</resource-agent>", "<a/>".repeat(30_000));
        assert!(said(&wide).contains("limit"), "{}", said(&wide));
    }
}
