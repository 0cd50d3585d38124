//! What is given to an agent: the options of cpe.toml with those of the assembly over them, checked against the agent's metadata
//! before it is called. An agent ignores an option that it does not know, so that a slip of the pen would go unnoticed until the
//! night that it matters.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use cpe_proto::document::nearest;
use cpe_proto::fence::{FenceOptions, FenceValue, is_secret};

use super::metadata::{Action, Content, Metadata, Parameter};
use crate::process::one_line;
use crate::secrets::Secrets;

/// The longest value in a file, in bytes.
const FILE_MAX: u64 = 4096;

/// The names of the option that tells one machine of a device from another, the newer first.
const PLUG: [&str; 2] = ["plug", "port"];

/// Which options have to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// All that the agent requires.
    Everything,
    /// None: only those that are there are checked.
    Nothing,
}

/// Options that an agent will take.
pub(super) struct Options {
    values: BTreeMap<String, String>,
    secrets: Secrets,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_set().entries(self.values.keys()).finish()
    }
}

impl Options {
    /// The options, those of the assembly over those of cpe.toml. Files are read: this blocks. The error says what is wrong, and
    /// holds no value.
    pub(super) fn new(
        metadata: &Metadata,
        common: &FenceOptions,
        own: &FenceOptions,
        needs: Needs,
    ) -> Result<Self, String> {
        let mut given: BTreeMap<&str, &FenceValue> = BTreeMap::new();
        for (key, value) in common.iter().chain(own) {
            let key = known(metadata, key)?;
            // What the assembly says under the other name of an option is said of the same option.
            if let Some(other) = other_name(metadata, key) {
                given.remove(other);
            }
            given.insert(key, value);
        }
        if needs == Needs::Everything {
            check_required(metadata, &given)?;
        }
        let (mut values, mut secrets) = (BTreeMap::new(), Vec::new());
        for (key, value) in given {
            let text = match value {
                FenceValue::Text(text) => text.expose().to_owned(),
                FenceValue::File(file) => read(key, file)?,
            };
            check_value(key, &text, &metadata.parameters[key].content)?;
            if is_secret(key) || matches!(value, FenceValue::File(_)) {
                secrets.push(text.clone());
            }
            values.insert(key.to_owned(), text);
        }
        Ok(Self { values, secrets: Secrets::new(secrets) })
    }

    /// No options, for a question that needs none.
    pub(super) fn none() -> Self {
        Self { values: BTreeMap::new(), secrets: Secrets::new([]) }
    }

    /// What the agent reads from its standard input.
    pub(super) fn input(&self, action: Action) -> Vec<u8> {
        let mut input = format!("action={}\n", action.as_str());
        for (key, value) in &self.values {
            input.push_str(key);
            input.push('=');
            input.push_str(value);
            input.push('\n');
        }
        input.into_bytes()
    }

    /// A text of the agent's without our secrets. `cut`: its beginning is missing.
    pub(super) fn scrub(&self, text: &str, cut: bool) -> String {
        self.secrets.scrub(text, cut)
    }
}

/// The name under which the agent knows an option: `plug` is `port` to an old agent, and the other way round.
fn known<'m>(metadata: &'m Metadata, key: &str) -> Result<&'m str, String> {
    let name = |key: &str| metadata.parameters.get_key_value(key).map(|(name, _)| name.as_str());
    if let Some(name) = name(key) {
        return Ok(name);
    }
    if PLUG.contains(&key)
        && let Some(name) = PLUG.into_iter().find_map(name)
    {
        return Ok(name);
    }
    let near = nearest(key, metadata.parameters.keys().map(String::as_str));
    let near = near.map(|near| format!(", nearest is `{near}`")).unwrap_or_default();
    let all = if near.is_empty() { "; its metadata has all there are" } else { "" };
    Err(format!("the agent has no option `{}`{near}{all}", one_line(key, 64)))
}

/// The older name of an option, or the newer one.
fn other_name<'m>(metadata: &'m Metadata, key: &str) -> Option<&'m str> {
    let older = metadata.parameters.get(key).and_then(|parameter| parameter.obsoletes.as_deref());
    older.or_else(|| newer_name(metadata, key))
}

fn newer_name<'m>(metadata: &'m Metadata, key: &str) -> Option<&'m str> {
    let replaces = |(_, other): &(&String, &Parameter)| other.obsoletes.as_deref() == Some(key);
    metadata.parameters.iter().find(replaces).map(|(name, _)| name.as_str())
}

fn check_required(metadata: &Metadata, given: &BTreeMap<&str, &FenceValue>) -> Result<(), String> {
    let missing = |(key, parameter): &(&String, &Parameter)| {
        let is_there = |name: &str| given.contains_key(name);
        // The older name is required too where the newer one is; one of them is enough, and only the newer one is asked for.
        let older = newer_name(metadata, key).is_some();
        parameter.required
            && !older
            && !is_there(key)
            && !parameter.obsoletes.as_deref().is_some_and(is_there)
    };
    let missing: Vec<&str> =
        metadata.parameters.iter().filter(missing).map(|(key, _)| key.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let all = one_line(&missing.join("`, `"), 300);
    let place = if PLUG.iter().any(|plug| missing.contains(plug)) {
        "; a machine's outlet is the `fence` of its assembly, as { plug = \"7\" }"
    } else {
        "; write it into `options` in cpe.toml, or into the assembly's `fence`"
    };
    Err(format!("the agent needs `{all}`{place}"))
}

fn check_value(key: &str, value: &str, content: &Content) -> Result<(), String> {
    if value.is_empty() || value.chars().any(|c| matches!(c, '\n' | '\r' | '\0')) {
        return Err(format!("the value of `{key}` is empty or has more than one line, expected one line"));
    }
    let expected = match content {
        Content::Text => return Ok(()),
        Content::Integer if value.trim().parse::<i64>().is_ok() => return Ok(()),
        Content::Integer => "a whole number".to_owned(),
        Content::Boolean => {
            let words = ["1", "0", "yes", "no", "on", "off", "true", "false"];
            if words.iter().any(|word| word.eq_ignore_ascii_case(value)) {
                return Ok(());
            }
            "\"true\" or \"false\"".to_owned()
        }
        Content::Select(choices) => {
            if choices.iter().any(|choice| choice.eq_ignore_ascii_case(value)) {
                return Ok(());
            }
            let choices: Vec<String> = choices.iter().take(20).map(|choice| one_line(choice, 32)).collect();
            format!("one of {}", choices.join(", "))
        }
    };
    Err(format!("the value of `{key}` is not one that the agent takes, expected {expected}"))
}

/// The text of a file without the newline at its end.
fn read(key: &str, file: &Path) -> Result<String, String> {
    let problem =
        |what: &str| format!("the value of `{key}` could not be read from {}: {what}", file.display());
    let opened = std::fs::File::open(file).map_err(|error| problem(&error.to_string()))?;
    if !opened.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(problem("not a file"));
    }
    let mut text = String::new();
    opened.take(FILE_MAX + 1).read_to_string(&mut text).map_err(|error| problem(&error.to_string()))?;
    if text.len() as u64 > FILE_MAX {
        return Err(problem(&format!("more than {FILE_MAX} bytes")));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

#[cfg(test)]
mod tests {
    use cpe_proto::fence::Secret;

    use super::*;

    const AGENT: &str = "<resource-agent><parameters>\
        <parameter name=\"action\" required=\"1\"><content type=\"string\" default=\"reboot\"/></parameter>\
        <parameter name=\"ip\" required=\"1\" obsoletes=\"ipaddr\"/><parameter name=\"ipaddr\" required=\"1\"/>\
        <parameter name=\"plug\" required=\"1\" obsoletes=\"port\"/><parameter name=\"port\" required=\"1\"/>\
        <parameter name=\"password\"/><parameter name=\"power_wait\"><content type=\"integer\"/></parameter>\
        <parameter name=\"ssl\"><content type=\"boolean\"/></parameter>\
        <parameter name=\"method\"><content type=\"select\"><option value=\"onoff\"/><option value=\"cycle\"/></content></parameter>\
        </parameters><actions><action name=\"off\"/></actions></resource-agent>";

    fn options(pairs: &[(&str, &str)]) -> FenceOptions {
        let value = |text: &str| FenceValue::Text(Secret::new(text.to_owned()));
        pairs.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect()
    }

    fn given(common: &[(&str, &str)], own: &[(&str, &str)]) -> Result<Options, String> {
        let metadata = Metadata::parse(AGENT.as_bytes()).expect("it is right");
        Options::new(&metadata, &options(common), &options(own), Needs::Everything)
    }

    fn input(common: &[(&str, &str)], own: &[(&str, &str)]) -> String {
        let given = given(common, own).unwrap_or_else(|error| panic!("{error}"));
        String::from_utf8(given.input(Action::Off)).expect("text")
    }

    fn refused(common: &[(&str, &str)], own: &[(&str, &str)]) -> String {
        given(common, own).expect_err("it is refused")
    }

    #[test]
    fn the_assemblys_options_go_over_those_of_the_infrastructure_whatever_name_they_use() {
        let common = [("ip", "192.0.2.9"), ("password", "hunter2"), ("plug", "1")];
        assert_eq!(input(&common, &[("plug", "7")]), "action=off\nip=192.0.2.9\npassword=hunter2\nplug=7\n");
        assert_eq!(input(&common, &[("port", "7")]), "action=off\nip=192.0.2.9\npassword=hunter2\nport=7\n");
        assert_eq!(
            input(&[("ipaddr", "192.0.2.9")], &[("plug", "7")]),
            "action=off\nipaddr=192.0.2.9\nplug=7\n"
        );
    }

    #[test]
    fn an_old_agent_gets_its_port_from_a_plug() {
        let old = "<resource-agent><parameters><parameter name=\"port\" required=\"1\"/></parameters>\
                   <actions><action name=\"off\"/></actions></resource-agent>";
        let metadata = Metadata::parse(old.as_bytes()).expect("it is right");
        let own = options(&[("plug", "7")]);
        let given = Options::new(&metadata, &FenceOptions::new(), &own, Needs::Everything).expect("it is");
        assert_eq!(given.input(Action::On), b"action=on\nport=7\n");
    }

    #[test]
    fn what_is_wrong_is_told_by_its_name_and_never_by_its_value() {
        let right = [("ip", "192.0.2.9")];
        let unknown = refused(&right, &[("plgu", "sesame")]);
        assert_eq!(unknown, "the agent has no option `plgu`, nearest is `plug`");
        let missing = refused(&right, &[]);
        assert_eq!(
            missing,
            "the agent needs `plug`; a machine's outlet is the `fence` of its assembly, as { plug = \"7\" }"
        );
        let missing = refused(&[], &[("plug", "7")]);
        assert_eq!(
            missing,
            "the agent needs `ip`; write it into `options` in cpe.toml, or into the assembly's `fence`"
        );
        for (key, value) in
            [("power_wait", "sesame"), ("ssl", "sesame"), ("method", "sesame"), ("password", "a\naction=on")]
        {
            let said = refused(&right, &[("plug", "7"), (key, value)]);
            assert!(said.contains(&format!("the value of `{key}`")) && !said.contains("sesame"), "{said}");
        }
        assert!(refused(&right, &[("plug", "7"), ("method", "x")]).ends_with("expected one of cycle, onoff"));
    }

    #[test]
    fn a_file_is_read_at_each_call_without_its_last_newline() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("secret");
        let common: FenceOptions = [("password".to_owned(), FenceValue::File(file.clone()))].into();
        let metadata = Metadata::parse(AGENT.as_bytes()).expect("it is right");
        let read = || {
            Options::new(&metadata, &common, &FenceOptions::new(), Needs::Nothing)
                .map(|options| String::from_utf8(options.input(Action::Status)).expect("text"))
        };
        let said = read().expect_err("there is no file");
        assert!(
            said.contains("`password` could not be read from") && said.contains("No such file"),
            "{said}"
        );
        for (text, expected) in [("hunter2\n", "hunter2"), (" x \r\n", " x "), ("hunter3", "hunter3")] {
            std::fs::write(&file, text).expect("written");
            assert_eq!(read(), Ok(format!("action=status\npassword={expected}\n")));
        }
        for text in ["", "\n", "two\nlines\n"] {
            std::fs::write(&file, text).expect("written");
            assert!(read().expect_err("it is no value").contains("expected one line"));
        }
        std::fs::write(&file, "x".repeat(5000)).expect("written");
        assert!(read().expect_err("too long").contains("more than 4096 bytes"));
        std::fs::remove_file(&file).expect("removed");
        std::fs::create_dir(&file).expect("made");
        assert!(read().expect_err("a folder").contains("not a file"));
    }

    #[test]
    fn what_the_agent_says_is_repeated_without_secrets() {
        let common = [("ip", "192.0.2.9"), ("plug", "7"), ("password", "hunter2")];
        let options = given(&common, &[]).expect("they are right");
        assert_eq!(
            options.scrub("ssh ha:hunter2@192.0.2.9 failed", false),
            "ssh ha:(hidden)@192.0.2.9 failed"
        );
        // Where the beginning is lost, the first line may begin within the secret.
        assert_eq!(options.scrub("ter2 refused\nbye", true), "bye");
        assert_eq!(options.scrub("ter2 refused", true), "(hidden)");
        let short =
            given(&[("ip", "192.0.2.9"), ("plug", "7"), ("password", "a")], &[]).expect("they are right");
        assert_eq!(short.scrub("a banana", false), "(hidden)");
        assert!(!format!("{:?}", options.scrub("", false)).contains("hidden"));
    }
}
