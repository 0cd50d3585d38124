//! What is done to services over their assembly's session: units, OCF resources and init scripts restarted, started, stopped; what a
//! script sets up. Intent, deed and outcome in their order are `actions.rs`'s.

use std::sync::Arc;

use cpe_monitor::ssh::{Act, ActError, Configuration, Deed, Probe, Resource, ServiceAct, Session, Subject};
use cpe_proto::definition::{Check, Deployable, OcfAgent, Restart, Service};
use cpe_proto::id::ServiceIndex;
use cpe_proto::observation::detail;
use dped::{ActionOutcome, Engine, Parameters};

const UNKNOWN: &str = "an address that its parameters need is not known yet";

/// The parameters of the service that an action is for; none where an address that they need is not known yet.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// What it runs with.
    pub running: Option<Parameters>,
    /// What it is to run with.
    pub wanted: Option<Parameters>,
}

impl Given {
    /// Of an action.
    #[must_use]
    pub fn of(engine: &Engine, act: dped::Act) -> Self {
        match act {
            dped::Act::Fence(_) | dped::Act::Machine(_) | dped::Act::Power(_) => Self::default(),
            dped::Act::RestartService(service)
            | dped::Act::StartService(service)
            | dped::Act::StopService(service)
            | dped::Act::Reconfigure(service) => {
                Self { running: engine.parameters(service), wanted: engine.rendered(service) }
            }
        }
    }
}

/// One service, and how it is reached.
pub struct Hand<'a> {
    /// The definition.
    pub definition: &'a Deployable,
    /// Which.
    pub service: ServiceIndex,
    /// Its parameters.
    pub given: &'a Given,
    /// The session to its assembly.
    pub session: &'a Session,
    /// How long each step may take.
    pub timeout: std::time::Duration,
}

impl Hand<'_> {
    /// Does it.
    pub async fn act(&self, act: dped::Act) -> ActionOutcome {
        let ended = match act {
            dped::Act::RestartService(_) => self.to_subject(ServiceAct::Restart, &self.given.running).await,
            dped::Act::StopService(_) => self.to_subject(ServiceAct::Stop, &self.given.running).await,
            dped::Act::StartService(_) => match self.configure().await {
                Ok(_) => self.to_subject(ServiceAct::Start, &self.given.wanted).await,
                Err(error) => Err(error),
            },
            dped::Act::Reconfigure(_) => return self.reconfigure().await,
            dped::Act::Fence(_) | dped::Act::Machine(_) | dped::Act::Power(_) => {
                Err(ActError::NotRunnable("not an act on a service".to_owned()))
            }
        };
        outcome(ended)
    }

    /// It is done once the service has what it is to run with; whether it runs, probes say.
    async fn reconfigure(&self) -> ActionOutcome {
        if let Err(error) = self.configure().await {
            return outcome(Err(error));
        }
        let restarted = match self.service().restart {
            None => Ok(String::new()),
            // What was started with other parameters can only be stopped with them.
            Some(Restart::Ocf(_)) => match self.to_subject(ServiceAct::Stop, &self.given.running).await {
                Err(error) => return outcome(Err(error)),
                Ok(_) => self.to_subject(ServiceAct::Start, &self.given.wanted).await,
            },
            Some(_) => self.to_subject(ServiceAct::Restart, &self.given.wanted).await,
        };
        match restarted {
            Err(error @ ActError::Failed { .. }) => {
                ActionOutcome::Done { detail: detail(&format!("configured; its restart {error}")) }
            }
            other => outcome(other),
        }
    }

    async fn configure(&self) -> Result<String, ActError> {
        let service = self.service();
        let Some(program) = &service.configure else { return Ok(String::new()) };
        let assembly = &self.definition.assembly(service.assembly).name;
        let configuration = Configuration {
            service: format!("{}/{assembly}/{}", self.definition.name, service.name),
            program: program.clone(),
            parameters: known(&self.given.wanted)?.to_vec(),
        };
        self.session.act(Act { deed: Deed::Configure(configuration), timeout: self.timeout }).await
    }

    async fn to_subject(&self, act: ServiceAct, parameters: &Option<Parameters>) -> Result<String, ActError> {
        let service = self.service();
        let subject = match &service.restart {
            None => return Err(ActError::NotRunnable("the service has nothing to act on".to_owned())),
            Some(Restart::Systemd(unit)) => Subject::Unit(unit.clone()),
            Some(Restart::Lsb(script)) => Subject::Script(script.clone()),
            Some(Restart::Ocf(agent)) => Subject::Resource(resource(service, agent, known(parameters)?)),
        };
        self.session.act(Act { deed: Deed::Service(act, subject), timeout: self.timeout }).await
    }

    fn service(&self) -> &Service {
        self.definition.service(self.service)
    }
}

/// An OCF resource with what it is set up with. Its service's name tells it from others in the guest.
#[must_use]
pub fn resource(service: &Service, agent: &OcfAgent, parameters: &Parameters) -> Arc<Resource> {
    let (agent, instance) = (agent.clone(), service.name.clone());
    Arc::new(Resource { agent, instance, parameters: parameters.to_vec() })
}

/// What a service is asked now: a resource with what it was set up with, all else with the newest values.
///
/// # Errors
/// Why nothing can be asked, for a person.
pub fn probe(engine: &Engine, service: ServiceIndex) -> Result<Probe, String> {
    let definition = engine.definition().service(service);
    let Check::Ocf(agent) = &definition.check else { return engine.check(service).map(Probe::Check) };
    let parameters = engine.parameters(service).ok_or(UNKNOWN)?;
    Ok(Probe::Resource(resource(definition, agent, &parameters)))
}

fn known(parameters: &Option<Parameters>) -> Result<&Parameters, ActError> {
    parameters.as_ref().ok_or_else(|| ActError::NotRunnable(UNKNOWN.to_owned()))
}

fn outcome(ended: Result<String, ActError>) -> ActionOutcome {
    let error = match ended {
        Ok(text) => return ActionOutcome::Done { detail: detail(&text) },
        Err(error) => error,
    };
    let said = detail(&error.to_string());
    match error {
        // A session that was lost on the way may have carried it out.
        ActError::TimedOut | ActError::NoChannel(_) => ActionOutcome::Unresolved { detail: said },
        ActError::NotRunnable(_) | ActError::Failed { .. } => ActionOutcome::Failed { detail: said },
    }
}
