//! What the site's `command` infrastructure was asked, and how to make it bad. The program is `guests/infra`.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::controller::Controller;
use crate::site::Site;
use crate::wait;

/// One call of the infrastructure, as its program logged it.
#[derive(Clone, Debug)]
pub struct InfraCall {
    /// `status`, `reboot-hard`, ...
    pub action: String,
    /// The id that makes a repetition recognisable.
    pub action_id: Option<String>,
    /// The guest that was meant.
    pub guest: Option<String>,
    /// Whether anything was done: not for a question, a repetition or a refusal.
    pub did: bool,
    /// What was answered: an object, or the words of a refusal.
    pub answer: Value,
}

/// How an infrastructure can fail those who rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfraFault {
    /// Every call exits with 1.
    Fails,
    /// Every call prints something that is no JSON.
    PrintsGarbage,
    /// No call ever ends.
    Hangs,
    /// Every guest is claimed to be active, and nothing is done.
    Lies,
    /// What is done is answered five seconds later.
    Slow,
}

impl Site {
    /// All calls so far, in their order.
    ///
    /// # Errors
    /// When the log cannot be read or understood.
    pub fn infra_calls(&self) -> Result<Vec<InfraCall>> {
        let log = match fs::read_to_string(self.path("infra.log")) {
            Ok(log) => log,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).context("reading infra.log"),
        };
        log.lines().map(|line| parse(line).with_context(|| format!("infra.log says {line:?}"))).collect()
    }

    /// The actions that were really done, in their order, as `reboot-hard web`.
    ///
    /// # Errors
    /// As [`Self::infra_calls`].
    pub fn infra_deeds(&self) -> Result<Vec<String>> {
        let calls = self.infra_calls()?;
        let deeds = calls.into_iter().filter(|call| call.did);
        Ok(deeds.map(|call| format!("{} {}", call.action, call.guest.unwrap_or_default())).collect())
    }

    /// Waits until exactly these actions were really done, in this order.
    ///
    /// # Errors
    /// As [`Self::infra_calls`], or when the deadline has passed; the message shows what was done, and the last events of `cpe`.
    pub fn wait_for_deeds(&self, cpe: &Controller, deeds: &[&str], deadline: Duration) -> Result<()> {
        let done = wait::until(&format!("{deeds:?} to be done"), deadline, || {
            Ok((self.infra_deeds()? == deeds).then_some(()))
        });
        wait::explained(done, || {
            format!("done was {:?}; {}", self.infra_deeds().unwrap_or_default(), cpe.last_events())
        })
    }

    /// Makes every further call go wrong in this way; `None` makes the infrastructure good again.
    ///
    /// # Errors
    /// When the file that says so cannot be written.
    pub fn break_infra(&self, fault: Option<InfraFault>) -> Result<()> {
        let word = match fault {
            None => "",
            Some(InfraFault::Fails) => "fail",
            Some(InfraFault::PrintsGarbage) => "garbage",
            Some(InfraFault::Hangs) => "hang",
            Some(InfraFault::Lies) => "active",
            Some(InfraFault::Slow) => "slow",
        };
        fs::write(self.path("infra.fault"), word).context("writing infra.fault")
    }
}

fn parse(line: &str) -> Result<InfraCall> {
    let call: Value = serde_json::from_str(line)?;
    let text = |key: &str| call[key].as_str().map(str::to_owned);
    Ok(InfraCall {
        action: text("action").context("no action")?,
        action_id: text("action_id"),
        guest: text("guest"),
        did: call["did"].as_bool().context("no did")?,
        answer: call["answer"].clone(),
    })
}
