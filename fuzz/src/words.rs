//! What clients of the API and writers of definitions say in one word or one object. What is understood is printed and understood again.

use std::fmt::{Debug, Display};

use cpe::glob::Glob;
use cpe::journal::WhyQuery;
use cpe_proto::api::Command;
use cpe_proto::definition::Referring;
use cpe_proto::document::{Host, HostPort, parse_duration, parse_size, plain_text};
use cpe_proto::id::Name;
use cpe_proto::ssh::JumpHost;

use crate::printable;

/// What a refusal may repeat of what was given, and words of ours around it.
const REFUSAL_MAX: usize = 4000;

/// The body of `POST /v1/command`.
pub(crate) fn command(data: &[u8]) {
    let Ok(command) = serde_json::from_slice::<Command>(data) else { return };
    let printed = serde_json::to_vec(&command).expect("a command is JSON");
    let again: Command = serde_json::from_slice(&printed).expect("it can be read again");
    assert_eq!(command, again);
}

/// A query, a name, a word of a definition.
pub(crate) fn words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<Glob>() {
        Ok(glob) => {
            again(&glob, |text| text.parse::<Glob>().ok());
            assert!((1..=3).contains(&glob.segments().len()));
            let everything = glob.segments().iter().all(|segment| segment.as_str() == "*");
            assert!(glob.matches(&["a".repeat(63).as_str(), "b", "c"]) || !everything);
        }
        Err(error) => assert!(error.to_string().len() <= REFUSAL_MAX, "{error}"),
    }
    if let Ok(name) = Name::parse(&text) {
        assert!(text.parse::<Glob>().is_ok(), "a name is a glob of itself");
        again(&name, |text| Name::parse(text).ok());
    }
    if let Ok(jump) = JumpHost::parse(&text) {
        again(&jump, |text| JumpHost::parse(text).ok());
    }
    if let Ok(place) = HostPort::parse(&text) {
        printable(place.host.as_str(), REFUSAL_MAX);
    }
    if let Ok(host) = Host::parse(&text) {
        assert_eq!(Host::parse(host.as_str()).ok(), Some(host));
    }
    if let Ok(plain) = plain_text(&text) {
        printable(&plain, text.len());
    }
    if let Err(error) = WhyQuery::parse(&text) {
        assert!(error.len() <= 10 * text.len() + REFUSAL_MAX);
    }
    let _ = (parse_duration(&text), parse_size(&text));
    references(&text);
}

/// Whatever the references are replaced by, what is no reference stays.
fn references(text: &str) {
    let Ok(referring) = Referring::parse(text) else { return };
    let same = referring.render(|reference| Some(reference.to_string()));
    assert_eq!(same.as_deref().ok(), Some(text), "it does not print as it was read");
    assert_eq!(referring.plain().is_some(), referring.references().next().is_none());
}

fn again<T: Display + Debug + PartialEq>(value: &T, parse: impl Fn(&str) -> Option<T>) {
    let printed = value.to_string();
    let read = parse(&printed);
    assert_eq!(read.as_ref(), Some(value), "printed as {printed:?}");
}
