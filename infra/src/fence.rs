//! Fence agents as an infrastructure: any program of fence-agents, or one that speaks as they do (its project's
//! `doc/FenceAgentAPI.md`). `fence/metadata.rs` reads what an agent says of itself, `options.rs` checks what it is given,
//! `agent.rs` calls it once, `power.rs` does the steps of an operation.
//!
//! How an agent is called, as by Pacemaker's fencer:
//!
//! * No arguments; options as lines `name=value` on standard input, the first of them `action=...`; then standard input ends. No
//!   secret is on a command line or in the environment, where others of this machine could read it.
//! * `action=metadata` is asked first, alone, and once: its XML says which options there are and which actions.
//! * Exit status 0 is done. Of `status`: 0 on, 2 off, anything else not known.
//! * One call at a time, unless `in_flight` says otherwise; 60 s for each, unless `timeout` does.
//! * An agent without `reboot` cuts a machine from its network or storage, not from its power: it can fence, it cannot reboot.
//!
//! And where this differs:
//!
//! * Pacemaker finds a machine's outlet by the node's name and a host map; here it is the assembly's `fence`, which has to be there
//!   and is compared over all definitions. Neither `nodename` nor anything else is added to it.
//! * An agent's word is not taken for a machine that is off: `off` has to succeed *and* `status` has to say off after it. That is
//!   tried again until the operation's time is over. A reboot is off, seen to be off, and on; an agent that cannot do these is asked
//!   for its own reboot, and the answer says that it was not verified.
//! * Options that the agent does not have are errors before it is called; agents ignore them.
//! * The environment is PATH and LANG=C, the working directory `/`. An agent that is late gets SIGTERM with all that it started,
//!   and SIGKILL 2 s later.
//!
//! What an agent writes to standard error is repeated in errors, with every secret that it was given cut out.

mod agent;
pub(crate) mod metadata;
mod options;
mod power;

use std::sync::Arc;
use std::time::Duration;

use cpe_proto::config::FenceSettings;
use cpe_proto::fence::FenceOptions;
use cpe_proto::infrastructure::{Capabilities, Operation};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::{Error, InstanceAnswer, InstanceRequest};
use agent::{Said, Trouble};
use metadata::{Action, Metadata};
use options::{Needs, Options};
use power::Power;

/// What an agent could do that prints this as its metadata.
///
/// # Errors
/// What is wrong with it, and what was expected.
pub fn capabilities_of(metadata: &[u8]) -> Result<Capabilities, String> {
    Metadata::parse(metadata).map(|metadata| metadata.capabilities())
}

/// One fence agent of cpe.toml, with its device.
#[derive(Clone, Debug)]
pub struct Fence {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: FenceSettings,
    /// What the agent said of itself, once it has.
    metadata: OnceCell<Arc<Metadata>>,
    turns: Turns,
}

/// Who may call the agent. A question waits among questions first: however many machines are asked about, an action waits for what
/// is running, and behind few of them.
#[derive(Debug)]
struct Turns {
    questions: Arc<Semaphore>,
    calls: Arc<Semaphore>,
}

/// Leave to call the agent, until it is dropped.
type Turn = (Option<OwnedSemaphorePermit>, OwnedSemaphorePermit);

impl Fence {
    /// An agent with the settings of cpe.toml. It is not called yet.
    #[must_use]
    pub fn new(settings: &FenceSettings) -> Self {
        let most = usize::try_from(settings.in_flight).unwrap_or(1).max(1);
        let turns = || Arc::new(Semaphore::new(most));
        let turns = Turns { questions: turns(), calls: turns() };
        let shared = Shared { settings: settings.clone(), metadata: OnceCell::new(), turns };
        Self { shared: Arc::new(shared) }
    }

    /// What its metadata says that it can do; and that its options are right and its device answers (`monitor`), as far as that can
    /// be tried without those of an assembly.
    ///
    /// # Errors
    /// Where it could not be asked, its metadata could not be read, an option is wrong or the device does not answer.
    pub async fn capabilities(&self) -> Result<Capabilities, Error> {
        let (operation, timeout) = (Operation::Capabilities, self.shared.settings.timeout);
        let deadline = Instant::now() + timeout;
        let turn = self.turn(operation, deadline).await?;
        let shared = Arc::clone(&self.shared);
        self.in_a_task(operation, async move {
            let _turn = turn;
            let metadata = shared.metadata(operation, deadline).await?;
            let none = FenceOptions::new();
            shared.options(operation, &metadata, none.clone(), Needs::Nothing).await?;
            let monitored = match shared.options(operation, &metadata, none, Needs::Everything).await {
                Ok(options) if metadata.does(Action::Monitor) => Some(options),
                // What is missing is in the assemblies: there is nothing to try yet.
                _ => None,
            };
            if let Some(options) = monitored {
                shared.monitor(operation, &options, deadline).await?;
            }
            Ok(metadata.capabilities())
        })
        .await
    }

    /// Does one operation.
    ///
    /// # Errors
    /// See [`Error`]; only [`Error::NotStarted`] is certain to have had no effect.
    pub async fn perform(
        &self,
        operation: Operation,
        request: &InstanceRequest,
        timeout: Duration,
    ) -> Result<InstanceAnswer, Error> {
        let deadline = Instant::now() + timeout;
        if request.fence.is_empty() {
            let name = format!("{}/{}", request.deployable, request.assembly);
            let detail = format!(
                "nothing says which outlet is that of {name}; write fence = {{ plug = \"7\" }} into its assembly"
            );
            return Err(self.shared.not_started(operation, detail));
        }
        let turn = self.turn(operation, deadline).await?;
        let (shared, own) = (Arc::clone(&self.shared), request.fence.clone());
        // An operation that was begun goes on to its end, whoever waits: no machine is left off half way through a reboot.
        self.in_a_task(operation, async move {
            let _turn = turn;
            let metadata = shared.metadata(operation, deadline).await.map_err(|error| match error {
                begun if begun.is_unresolved() => shared.not_started(operation, begun.to_string()),
                error => error,
            })?;
            if !metadata.capabilities().0.contains(&operation) {
                let detail = format!("the agent does {} only", metadata.actions());
                return Err(shared.not_started(operation, detail));
            }
            let options = shared.options(operation, &metadata, own, Needs::Everything).await?;
            let power =
                Power { shared: &shared, metadata: &metadata, options: &options, operation, deadline };
            power.perform().await
        })
        .await
    }

    /// It switches power and nothing else.
    pub(crate) fn cannot(&self, operation: Operation) -> Error {
        self.shared.not_started(operation, "a fence agent switches power and nothing else".to_owned())
    }

    async fn turn(&self, operation: Operation, deadline: Instant) -> Result<Turn, Error> {
        let turns = &self.shared.turns;
        let waiting = async {
            let question = match operation {
                Operation::Status | Operation::Capabilities => {
                    Some(Arc::clone(&turns.questions).acquire_owned().await.ok()?)
                }
                _ => None,
            };
            Some((question, Arc::clone(&turns.calls).acquire_owned().await.ok()?))
        };
        let turn = tokio::time::timeout_at(deadline, waiting).await.ok().flatten();
        turn.ok_or_else(|| {
            let most = self.shared.settings.in_flight;
            let detail = format!("{most} of its calls are under way (`in_flight`), and did not end in time");
            self.shared.not_started(operation, detail)
        })
    }

    async fn in_a_task<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        tokio::spawn(work).await.unwrap_or_else(|error| {
            Err(self.shared.bad_answer(operation, format!("its task ended: {error}")))
        })
    }
}

impl Shared {
    async fn metadata(&self, operation: Operation, deadline: Instant) -> Result<Arc<Metadata>, Error> {
        let ask = || async {
            let said = self.call(Action::Metadata, &Options::none(), deadline).await;
            let output = said.map_err(|trouble| self.error(operation, trouble))?.output;
            let parsed = Metadata::parse(&output);
            parsed
                .map(Arc::new)
                .map_err(|detail| self.bad_answer(operation, format!("its metadata: {detail}")))
        };
        self.metadata.get_or_try_init(ask).await.cloned()
    }

    /// The options of cpe.toml with those of an assembly over them.
    async fn options(
        &self,
        operation: Operation,
        metadata: &Arc<Metadata>,
        own: FenceOptions,
        needs: Needs,
    ) -> Result<Options, Error> {
        let (metadata, common) = (Arc::clone(metadata), self.settings.options.clone());
        // They may be in files.
        let read = move || Options::new(&metadata, &common, &own, needs);
        let options = match tokio::task::spawn_blocking(read).await {
            Ok(options) => options,
            Err(error) => Err(format!("its options could not be read: {error}")),
        };
        options.map_err(|detail| self.not_started(operation, detail))
    }

    async fn monitor(&self, operation: Operation, options: &Options, deadline: Instant) -> Result<(), Error> {
        match self.call(Action::Monitor, options, deadline).await {
            Ok(Said { .. }) | Err(Trouble::Exit { code: Some(agent::OFF), .. }) => Ok(()),
            Err(trouble) => Err(self.error(operation, trouble)),
        }
    }

    fn program(&self) -> String {
        self.settings.agent.display().to_string()
    }

    fn not_started(&self, operation: Operation, detail: String) -> Error {
        Error::NotStarted { program: self.program(), operation, detail }
    }

    fn bad_answer(&self, operation: Operation, detail: String) -> Error {
        Error::BadAnswer { program: self.program(), operation, detail }
    }

    fn error(&self, operation: Operation, trouble: Trouble) -> Error {
        let program = self.program();
        match trouble {
            Trouble::NotBegun(detail) => Error::NotStarted { program, operation, detail },
            Trouble::Late { after, said } => Error::TimedOut { program, operation, after, detail: said },
            Trouble::Exit { status, said, .. } => {
                Error::ExitStatus { program, operation, status, detail: said }
            }
            Trouble::Doubt(detail) => Error::BadAnswer { program, operation, detail },
        }
    }
}
