//! One probe from its start to its deadline: each that is asked is answered exactly once.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cpe_proto::definition::Direct;
use cpe_proto::id::ProbeId;
use cpe_proto::observation::Observation;
use tokio::time::{Instant, timeout_at};

use super::connect::Context;
use super::http::Kept;
use super::trouble::{Answer, Outcome, Progress, Stage, Trouble, of_channel, of_service};
use super::{Prober, Shared, dns, http, icmp, tls};
use crate::ssh::{self, Guest};

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To know whether a service is as its definition expects.
    Service,
    /// To know whether an assembly can be reached, whatever is answered.
    Channel,
}

/// One thing that is probed, at one host. It keeps its connection for the next probe, where its kind has such.
pub struct Target {
    pub(super) shared: Arc<Shared>,
    pub(super) what: Arc<Direct>,
    pub(super) host: Arc<str>,
    pub(super) kept: Mutex<Option<Kept>>,
}

impl Prober {
    /// Something that is probed. `host` is where it is now: the address that the definition's reference means, or the host it names.
    #[must_use]
    pub fn target(&self, what: Arc<Direct>, host: Arc<str>) -> Arc<Target> {
        Arc::new(Target { shared: Arc::clone(&self.0), what, host, kept: Mutex::default() })
    }
}

/// Two are equal that keep the same connection.
impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Target {}

impl fmt::Debug for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} at {}", self.what.kind(), self.host)
    }
}

impl Target {
    /// Where it is.
    #[must_use]
    pub fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// Asks, on a task of its own on the runtime this is called in. Answered once, by the deadline, whatever happens.
    pub fn submit(
        self: &Arc<Self>,
        probe: ProbeId,
        purpose: Purpose,
        timeout: Duration,
        answer: impl FnOnce(ssh::Answer) + Send + 'static,
    ) {
        let (target, asked) = (Arc::clone(self), Instant::now());
        tokio::spawn(async move {
            let deadline = asked + timeout;
            let progress = Progress::default();
            let asking = Box::pin(target.ask(&progress, deadline, None));
            let (outcome, late) = match timeout_at(deadline, asking).await {
                Ok(outcome) => (outcome, false),
                Err(_) => (Err(progress.late()), true),
            };
            let observation = match purpose {
                Purpose::Service => of_service(outcome),
                Purpose::Channel => of_channel(outcome),
            };
            let finished = Instant::now();
            let lag = if late { finished.saturating_duration_since(deadline) } else { Duration::ZERO };
            answer(ssh::Answer {
                probe,
                observation,
                measures: Vec::new(),
                dropped: 0,
                asked: asked.into(),
                finished: finished.into(),
                lag,
            });
        });
    }

    /// Asks once as a service, from within a guest. None: no answer by the deadline; what that means is known to
    /// whoever has the session.
    pub(crate) async fn ask_from(&self, guest: &Guest, deadline: Instant) -> Option<Observation> {
        let progress = Progress::default();
        let asking = async {
            let outcome = self.ask(&progress, deadline, Some(guest)).await;
            // A connection that ends may have ended with its session.
            let own = outcome.is_ok() || guest.lives().await;
            if own { of_service(outcome) } else { Observation::NotObserved }
        };
        timeout_at(deadline, Box::pin(asking)).await.ok()
    }

    async fn ask(&self, progress: &Progress, deadline: Instant, guest: Option<&Guest>) -> Outcome {
        let context = Context { shared: &self.shared, progress, deadline, guest };
        match &*self.what {
            Direct::Tcp(to) => context.connect(&self.host, to.port).await.map(|_| Answer::Kernel),
            Direct::Tls(tls) => tls::probe(&context, tls, &self.host).await,
            Direct::Http(http) => http::probe(&context, self, http).await,
            Direct::Dns(dns) => dns::probe(&context, dns, &self.host).await,
            Direct::Icmp(_) if guest.is_some() => {
                Err(Trouble::Unfit("no echo is sent from within a guest".to_owned()))
            }
            Direct::Icmp(_) => {
                let address = context.look_up(&self.host, 0).await?.into_iter().next();
                let Some(address) = address else {
                    return Err(Trouble::NotAsked(format!("{} has no address", self.host)));
                };
                progress.reach(Stage::Asked);
                icmp::probe(address.ip()).await
            }
        }
    }
}
