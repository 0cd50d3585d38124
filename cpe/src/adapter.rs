//! One infrastructure as the drivers see it: what it can do, asked once and again until it has answered, and its operations.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cpe_infra::{Error, EvacuationRequest, Infrastructure, InstanceAnswer, InstanceRequest};
use cpe_proto::id::Name;
use cpe_proto::infrastructure::{Capabilities, Operation};

/// Between two attempts to learn what an infrastructure can do.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// One infrastructure.
#[derive(Debug)]
pub struct Adapter {
    name: Name,
    /// Our mark.
    controller: Arc<str>,
    infrastructure: Infrastructure,
    capabilities: OnceLock<Capabilities>,
}

impl Adapter {
    /// An infrastructure of cpe.toml, as the controller of that id uses it.
    #[must_use]
    pub fn new(name: Name, controller: Arc<str>, infrastructure: Infrastructure) -> Self {
        Self { name, controller, infrastructure, capabilities: OnceLock::new() }
    }

    /// The id of this controller.
    #[must_use]
    pub fn controller(&self) -> &Arc<str> {
        &self.controller
    }

    /// Whether it has said what it can do.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.capabilities.get().is_some()
    }

    /// Whether it can put our mark on an instance that is there.
    #[must_use]
    pub fn claims(&self) -> bool {
        self.capabilities.get().is_some_and(|capabilities| capabilities.0.contains(&Operation::Claim))
    }

    /// What it can do; nothing until it has said so.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities.get().cloned().unwrap_or_default()
    }

    /// Asks what it can do until it answers.
    pub async fn learn(self: Arc<Self>) {
        loop {
            match self.infrastructure.capabilities().await {
                Ok(capabilities) => {
                    tracing::info!(infrastructure = %self.name, ?capabilities, "infrastructure answers");
                    let _ = self.capabilities.set(capabilities);
                    return;
                }
                Err(error) => {
                    tracing::warn!(infrastructure = %self.name, %error, "no answer on capabilities, so no machine is recovered through it yet");
                }
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Evacuates a failure domain.
    ///
    /// # Errors
    /// As the adapter says.
    pub async fn evacuate(
        &self,
        request: EvacuationRequest,
        timeout: Duration,
    ) -> Result<InstanceAnswer, Error> {
        self.infrastructure.evacuate(request, timeout).await
    }

    /// Does one operation.
    ///
    /// # Errors
    /// As the adapter says.
    pub async fn perform(
        &self,
        operation: Operation,
        request: &InstanceRequest,
        timeout: Duration,
    ) -> Result<InstanceAnswer, Error> {
        self.infrastructure.perform(operation, request, timeout).await
    }
}
