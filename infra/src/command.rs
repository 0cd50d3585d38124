//! The operator's own program as an infrastructure. `answer.rs` reads what it says, `../process.rs` runs it and ends it.
//!
//! The contract: cpe runs `PROGRAM ACTION`. ACTION is one of status, create, relocate, start, stop, reboot-soft, reboot-hard,
//! rebuild, destroy, claim, evacuate, capabilities.
//!
//! * Standard input: one JSON object, `{"action_id","controller","deployable","assembly","instance","address","parameters":{}}`; `instance`
//!   and `address` are null where they are not known. Then it ends.
//! * An assembly that lives, or is to be made, in another zone than its definition says has `"zone"` as well. `relocate` is `create` for
//!   it; a program that says that it can do it looks at `zone` in every `create`, too.
//! * Standard output: one JSON object, `{"state","instance","address","owner","detail"}`, at most 64 KiB; `state` is one of active, off,
//!   error, gone, changing, unknown, and has to be there. For capabilities: `{"capabilities":["status","reboot-hard"]}`.
//! * `evacuate` is about a failure domain that is dead (`[[domains]]` of cpe.toml), and optional: its object is
//!   `{"action_id","domain","assemblies":[{"deployable","assembly","instance","address"}],"parameters":{}}`, and it answers once what ran
//!   there and is in the list was started elsewhere: active. It makes sure first that the old host cannot run them any more (fences it).
//! * Ownership, where the program can keep a mark on an instance: `create` and `claim` write `controller` (this cpe's id) there, every
//!   answer says it as `owner`. What bears another controller's mark is reported and never acted upon; without `owner` nothing is known
//!   of others. `claim` (optional) changes nothing else; cpe asks for it when it first manages an instance that bears no mark, and for
//!   a person who orders `cpe claim`.
//! * Standard error: for people; its last 4 KiB are kept where something goes wrong.
//! * A parameter whose name says so (`password`, `api_token`, `secret` ...) is a secret: what the program says is repeated without it.
//! * Exit status 0: the answer counts. Anything else, no answer or a bad one: the effect is unknown, and cpe looks again.
//! * Environment: PATH, LANG=C, CPE_ACTION (the ACTION), and nothing else; the working directory is `/`.
//! * `stop` answers once the machine is off for certain: a replacement may be started after it.
//! * Time: a program that is late gets SIGTERM with everything that it started, and SIGKILL 2 s later.
//!
//! `examples/command-infrastructure` is such a program.

pub(crate) mod answer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::config::CommandSettings;
use cpe_proto::fence::is_secret;
use cpe_proto::infrastructure::{Capabilities, Operation};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::process::{self, Call, Complaint, Ended, clause, spawn_detail};
use crate::secrets::Secrets;
use crate::{Error, EvacuationRequest, InstanceAnswer, InstanceRequest};

/// One program of cpe.toml.
#[derive(Debug)]
pub struct Command {
    settings: CommandSettings,
    /// Questions have turns of their own: however many assemblies are asked about, a recovery does not wait behind them.
    questions: Arc<Semaphore>,
    actions: Arc<Semaphore>,
}

impl Command {
    /// A program with the settings of cpe.toml. It is not run yet.
    #[must_use]
    pub fn new(settings: &CommandSettings) -> Self {
        let turns = usize::try_from(settings.in_flight).unwrap_or(1).max(1);
        let turns = || Arc::new(Semaphore::new(turns));
        Self { settings: settings.clone(), questions: turns(), actions: turns() }
    }

    /// What cpe.toml says that it can do, or else what it says itself.
    ///
    /// # Errors
    /// Where it could not be asked or its answer could not be read.
    pub async fn capabilities(&self) -> Result<Capabilities, Error> {
        if let Some(capabilities) = &self.settings.capabilities {
            return Ok(capabilities.clone());
        }
        let operation = Operation::Capabilities;
        let ended = self.call(operation, b"{}\n".to_vec(), self.settings.timeout).await?;
        let output = self.output(operation, self.settings.timeout, &Secrets::new([]), ended)?;
        answer::capabilities(&output).map_err(|detail| self.bad_answer(operation, detail))
    }

    /// Runs the program for one operation.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn perform(
        &self,
        operation: Operation,
        request: &InstanceRequest,
        timeout: Duration,
    ) -> Result<InstanceAnswer, Error> {
        let mut parameters = self.settings.parameters.clone();
        parameters.extend(request.parameters.clone());
        let secrets = secrets_of(&parameters);
        let request = InstanceRequest { parameters, ..request.clone() };
        self.ask(operation, &request, &secrets, timeout).await
    }

    /// Runs the program for a failure domain.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn evacuate(
        &self,
        request: EvacuationRequest,
        timeout: Duration,
    ) -> Result<InstanceAnswer, Error> {
        let parameters = self.settings.parameters.clone();
        let secrets = secrets_of(&parameters);
        let request = EvacuationRequest { parameters, ..request };
        self.ask(Operation::Evacuate, &request, &secrets, timeout).await
    }

    async fn ask(
        &self,
        operation: Operation,
        request: &impl Serialize,
        secrets: &Secrets,
        timeout: Duration,
    ) -> Result<InstanceAnswer, Error> {
        if let Some(capabilities) = &self.settings.capabilities
            && !capabilities.0.contains(&operation)
        {
            return Err(self.not_started(operation, "it is not in its `capabilities` in cpe.toml".to_owned()));
        }
        let input = line(request).map_err(|error| self.not_started(operation, error.to_string()))?;
        let ended = self.call(operation, input, timeout).await?;
        let output = self.output(operation, timeout, secrets, ended)?;
        match answer::instance(&output) {
            Ok(answer) => Ok(InstanceAnswer { detail: secrets.scrub(&answer.detail, false), ..answer }),
            Err(detail) => {
                // What is wrong is shown by its beginning, which is what the program says and perhaps what it was told.
                let said = secrets.scrub(&String::from_utf8_lossy(&output), false);
                let detail = answer::instance(said.as_bytes()).err().unwrap_or(secrets.scrub(&detail, false));
                Err(self.bad_answer(operation, detail))
            }
        }
    }

    /// The program runs in a task of its own: if nobody waits for it any more, it is still ended when it is late.
    async fn call(&self, operation: Operation, input: Vec<u8>, timeout: Duration) -> Result<Ended, Error> {
        let begun = tokio::time::Instant::now();
        let turns = match operation {
            Operation::Status | Operation::Capabilities => &self.questions,
            _ => &self.actions,
        };
        let turn = tokio::time::timeout(timeout, Arc::clone(turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            let detail = format!("{} of its processes are running (`in_flight`)", self.settings.in_flight);
            return Err(self.not_started(operation, detail));
        };
        let left = timeout.saturating_sub(begun.elapsed());
        let call = Call {
            program: self.settings.program.clone(),
            arguments: vec![operation.as_str()],
            environment: vec![("CPE_ACTION", operation.as_str())],
            input,
            timeout: left,
        };
        let task = tokio::spawn(async move {
            let ended = process::run(call).await;
            drop(turn);
            ended
        });
        match task.await {
            Ok(Ok(ended)) => Ok(ended),
            Ok(Err(error)) => Err(self.not_started(operation, spawn_detail(&error, "program"))),
            Err(error) => Err(self.bad_answer(operation, format!("its task ended: {error}"))),
        }
    }

    /// What it said, if it ended well.
    fn output(
        &self,
        operation: Operation,
        after: Duration,
        secrets: &Secrets,
        ended: Ended,
    ) -> Result<Vec<u8>, Error> {
        let clause = |said: &Complaint| clause(&secrets.scrub(&said.text, said.cut));
        match ended {
            Ended::Well { stdout } => Ok(stdout),
            Ended::TooLong => {
                let expected =
                    format!("more than {} bytes of output, expected one JSON object", process::STDOUT_MAX);
                Err(self.bad_answer(operation, expected))
            }
            Ended::Badly { status, said, .. } => {
                Err(Error::ExitStatus { program: self.program(), operation, status, detail: clause(&said) })
            }
            Ended::Late { said } => {
                Err(Error::TimedOut { program: self.program(), operation, after, detail: clause(&said) })
            }
        }
    }

    fn program(&self) -> String {
        self.settings.program.display().to_string()
    }

    fn not_started(&self, operation: Operation, detail: String) -> Error {
        Error::NotStarted { program: self.program(), operation, detail }
    }

    fn bad_answer(&self, operation: Operation, detail: String) -> Error {
        Error::BadAnswer { program: self.program(), operation, detail }
    }
}

fn secrets_of(parameters: &BTreeMap<String, String>) -> Secrets {
    let secret = parameters.iter().filter(|(key, _)| is_secret(key)).map(|(_, value)| value.clone());
    Secrets::new(secret)
}

/// The request as one line of JSON.
fn line(request: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    Ok(line)
}
