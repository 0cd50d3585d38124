//! Reads what a program says. Nothing that it says is trusted: sizes are capped, an address has to be one.

use std::collections::BTreeSet;

use cpe_proto::document::{Host, nearest, plain_text};
use cpe_proto::infrastructure::{Capabilities, InstanceState, Operation};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::process::one_line;
use crate::{DETAIL_MAX_CHARS, InstanceAnswer};

#[derive(Deserialize)]
struct Instance {
    state: InstanceState,
    #[serde(default)]
    instance: Option<String>,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    detail: Option<String>,
}

#[derive(Deserialize)]
struct CanDo {
    capabilities: Vec<String>,
}

/// The answer to an operation, or what is wrong with it.
pub(crate) fn instance(output: &[u8]) -> Result<InstanceAnswer, String> {
    let said: Instance =
        object(output, "{\"state\":\"active\"} with one of active, off, error, gone, changing, unknown")?;
    let instance =
        given(said.instance).map(|id| plain_text(&id).map_err(|expected| wrong("instance", &id, expected)));
    let address = given(said.address)
        .map(|text| Host::parse(&text).map_err(|expected| wrong("address", &text, expected)));
    let owner = given(said.owner).map(|id| plain_text(&id).map_err(|expected| wrong("owner", &id, expected)));
    Ok(InstanceAnswer {
        state: said.state,
        owner: owner.transpose()?,
        instance: instance.transpose()?,
        address: address.transpose()?.map(|host| host.as_str().to_owned()),
        detail: one_line(&said.detail.unwrap_or_default(), DETAIL_MAX_CHARS),
    })
}

/// The answer to `capabilities`, or what is wrong with it.
pub(crate) fn capabilities(output: &[u8]) -> Result<Capabilities, String> {
    let said: CanDo = object(output, "{\"capabilities\":[\"status\",\"reboot-hard\"]}")?;
    let operation = |word: &String| {
        let known = Operation::ALL.map(Operation::as_str);
        let near = nearest(word, known).map(|near| format!(", nearest is {near}")).unwrap_or_default();
        Operation::parse(word)
            .ok_or_else(|| format!("it can do {:?}, which is not an action{near}", one_line(word, 64)))
    };
    said.capabilities.iter().map(operation).collect::<Result<BTreeSet<_>, _>>().map(Capabilities)
}

fn object<T: DeserializeOwned>(output: &[u8], expected: &str) -> Result<T, String> {
    if output.trim_ascii().is_empty() {
        return Err(format!("nothing on standard output, expected {expected}"));
    }
    serde_json::from_slice(output).map_err(|error| {
        let begin = one_line(&String::from_utf8_lossy(output), 80);
        // It repeats what it does not know as it came.
        let error = one_line(&error.to_string(), 200);
        format!("{error} in {begin:?}, expected {expected}")
    })
}

fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn wrong(key: &str, text: &str, expected: &str) -> String {
    format!("{key} is {:?}, expected {expected}", one_line(text, 80))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_needs_a_state_and_nothing_else() {
        let bare = instance(b" {\"state\":\"off\"}\n").expect("it is enough");
        assert_eq!(
            (bare.state, bare.instance, bare.address, bare.detail),
            (InstanceState::Off, None, None, String::new())
        );
        let full =
            br#"{"state":"active","instance":"i-7","address":"2001:DB8::1","detail":"a\nb","more":[1]}"#;
        let full = instance(full).expect("more is allowed");
        assert_eq!((full.address.as_deref(), full.detail.as_str()), (Some("2001:db8::1"), "a b"));
        let empty =
            instance(br#"{"state":"gone","instance":"","address":null}"#).expect("absent in three ways");
        assert_eq!((empty.instance, empty.address), (None, None));
    }

    #[test]
    fn what_cannot_be_used_is_told_with_what_was_expected() {
        let said = |output: &[u8]| instance(output).expect_err("it is wrong");
        assert!(said(b" \n").starts_with("nothing on standard output, expected {\"state\""));
        assert!(said(b"ok").contains("in \"ok\", expected {\"state\""));
        assert!(said(br#"{"state":"running"}"#).contains("unknown variant"));
        assert!(said(br#"{"state":"off"} {"state":"active"}"#).contains("trailing characters"));
        assert!(
            said(br#"{"state":"active","address":"$(reboot)"}"#)
                .contains("expected an IP address or a host name")
        );
        assert!(said(br#"{"state":"active","instance":"a\nb"}"#).contains("on one line"));
        assert!(said(b"{\"state\":\"off\",\"detail\":\"\xff\"}").contains("expected"));
        // Found by fuzzing: a word that is not known was repeated with its control characters.
        assert!(!said(b"{\"state\":\"acti\x7f\"}").contains('\x7f'));
    }

    #[test]
    fn a_capability_that_is_not_an_action_is_told_with_the_nearest() {
        let both =
            capabilities(br#"{"capabilities":["status","reboot-hard","status"]}"#).expect("they are actions");
        assert_eq!(both.0.len(), 2);
        let error = capabilities(br#"{"capabilities":["reboot_hard"]}"#).expect_err("it is not an action");
        assert_eq!(error, "it can do \"reboot_hard\", which is not an action, nearest is reboot-hard");
    }
}
