//! How assemblies are created and recovered: one module and one feature for each infrastructure (design.md section 7). An adapter
//! does what it is asked, once, and says how sure it is of the outcome; whether and when is decided elsewhere (`dped`).

#[cfg(feature = "command")]
pub mod command;
#[cfg(feature = "fence")]
pub mod fence;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg(any(feature = "command", feature = "fence"))]
mod process;
#[cfg(any(feature = "command", feature = "fence"))]
mod secrets;

#[cfg(any(feature = "command", feature = "fence"))]
pub use secrets::Secrets;

use std::collections::BTreeMap;
use std::time::Duration;

use cpe_proto::fence::FenceOptions;
use cpe_proto::infrastructure::{Capabilities, InstanceState, Operation};
use serde::Serialize;

/// The longest detail of an answer, in characters.
#[cfg(any(feature = "command", feature = "fence"))]
const DETAIL_MAX_CHARS: usize = 1000;

/// One infrastructure of cpe.toml.
#[derive(Debug)]
pub enum Infrastructure {
    /// The operator's own program.
    #[cfg(feature = "command")]
    Command(command::Command),
    /// A fence agent.
    #[cfg(feature = "fence")]
    Fence(fence::Fence),
}

/// What an operation is about. The same action is asked with the same `action_id`, so that a program can refuse to do it twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstanceRequest {
    /// The action, unique in one controller.
    pub action_id: String,
    /// The id of this controller: the mark that `create` and `claim` put on the instance.
    pub controller: String,
    /// The deployable's name.
    pub deployable: String,
    /// The assembly's name.
    pub assembly: String,
    /// The infrastructure's id of the instance, if known.
    pub instance: Option<String>,
    /// The instance's address, if known.
    pub address: Option<String>,
    /// The zone that it lives in, or is to be made in, where that is another than its definition's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The assembly's parameters.
    pub parameters: BTreeMap<String, String>,
    /// The options of the assembly's outlet, for a fence agent. No other program gets them, for they may name secrets.
    #[serde(skip)]
    pub fence: FenceOptions,
}

/// A failure domain that is dead, and which of its instances are to be started elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EvacuationRequest {
    /// The action, unique in one controller.
    pub action_id: String,
    /// The failure domain's name.
    pub domain: String,
    /// Those of its assemblies that are to be recovered.
    pub assemblies: Vec<Evacuee>,
    /// The infrastructure's own parameters.
    pub parameters: BTreeMap<String, String>,
}

/// One assembly of an evacuation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evacuee {
    /// The deployable's name.
    pub deployable: String,
    /// The assembly's name.
    pub assembly: String,
    /// The infrastructure's id of the instance, where the definition has it.
    pub instance: Option<String>,
    /// The address, where the definition has it.
    pub address: Option<String>,
}

/// What the infrastructure says of the instance after an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceAnswer {
    /// Its state.
    pub state: InstanceState,
    /// Its id, where it is said.
    pub instance: Option<String>,
    /// Its IP address or host name, where it is said.
    pub address: Option<String>,
    /// The id of the controller whose mark it bears, where it bears one and that is said.
    pub owner: Option<String>,
    /// More, for a person; at most 1,000 characters.
    pub detail: String,
}

/// Why there is no answer. What matters to the engine is whether there may have been an effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It was certainly not begun: there is no effect, and it may be tried again.
    #[error("{operation} by {program} was not begun: {detail}")]
    NotStarted {
        /// What was to be called.
        program: String,
        /// What for.
        operation: Operation,
        /// Why not, and what to do.
        detail: String,
    },
    /// It was begun and did not end in time; everything it started was ended. Its effect is not known.
    #[error(
        "{operation} by {program} did not end within {after:?} and was killed; its effect is not known{detail}"
    )]
    TimedOut {
        /// What was called.
        program: String,
        /// What for.
        operation: Operation,
        /// The time that it had.
        after: Duration,
        /// The last of what it wrote to standard error.
        detail: String,
    },
    /// It said that it failed. How far it came is not known.
    #[error("{operation} by {program} failed with {status}; its effect is not known{detail}")]
    ExitStatus {
        /// What was called.
        program: String,
        /// What for.
        operation: Operation,
        /// Its exit status or signal, as text.
        status: String,
        /// The last of what it wrote to standard error.
        detail: String,
    },
    /// It ended well but its answer cannot be read. Its effect is not known.
    #[error("{operation} by {program} gave no usable answer: {detail}; its effect is not known")]
    BadAnswer {
        /// What was called.
        program: String,
        /// What for.
        operation: Operation,
        /// What is wrong with the answer, and what was expected.
        detail: String,
    },
}

impl Error {
    /// Whether there may have been an effect, so that it has to be looked at before anything else is done.
    #[must_use]
    pub const fn is_unresolved(&self) -> bool {
        !matches!(self, Self::NotStarted { .. })
    }
}

impl Infrastructure {
    /// Which operations there are. Asked each time: keep the answer.
    ///
    /// # Errors
    /// Where it could not be asked or its answer could not be read.
    pub async fn capabilities(&self) -> Result<Capabilities, Error> {
        match *self {
            #[cfg(feature = "command")]
            Self::Command(ref command) => command.capabilities().await,
            #[cfg(feature = "fence")]
            Self::Fence(ref fence) => fence.capabilities().await,
        }
    }

    /// Evacuates a failure domain. `timeout` covers the wait for its turn too.
    ///
    /// # Errors
    /// See [`Error`]; only [`Error::NotStarted`] is certain to have had no effect.
    #[cfg_attr(not(any(feature = "command", feature = "fence")), allow(unused_variables))]
    pub async fn evacuate(
        &self,
        request: EvacuationRequest,
        timeout: Duration,
    ) -> Result<InstanceAnswer, Error> {
        match *self {
            #[cfg(feature = "command")]
            Self::Command(ref command) => command.evacuate(request, timeout).await,
            #[cfg(feature = "fence")]
            Self::Fence(ref fence) => Err(fence.cannot(Operation::Evacuate)),
        }
    }

    /// Does one operation on one instance. `timeout` covers the wait for its turn too. If the caller stops waiting, the operation
    /// goes on to its end or its time-out.
    ///
    /// # Errors
    /// See [`Error`]; only [`Error::NotStarted`] is certain to have had no effect.
    #[cfg_attr(not(any(feature = "command", feature = "fence")), allow(unused_variables))]
    pub async fn perform(
        &self,
        operation: Operation,
        request: &InstanceRequest,
        timeout: Duration,
    ) -> Result<InstanceAnswer, Error> {
        match *self {
            #[cfg(feature = "command")]
            Self::Command(ref command) => command.perform(operation, request, timeout).await,
            #[cfg(feature = "fence")]
            Self::Fence(ref fence) => fence.perform(operation, request, timeout).await,
        }
    }
}
