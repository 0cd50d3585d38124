//! Actions: intent first, then the deed, then what came of it. Each runs in its own task, so that nothing waits for a slow one;
//! the engine bounds how many there are. Services are acted on over the assembly's session (`services.rs`), machines through an adapter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cpe_infra::{Error as InfraError, InstanceAnswer, InstanceRequest};
use cpe_monitor::ssh::Session;
use cpe_proto::decision::Refusal;
use cpe_proto::definition::{Deployable, Machine};
use cpe_proto::id::{ActionId, AssemblyIndex, Name, ServiceIndex};
use cpe_proto::infrastructure::{InstanceState, Operation, Owner};
use cpe_proto::observation::detail;
use cpe_proto::rung::Rung;
use dped::{Act, Action, ActionOutcome, Input, Switch};
use tokio::sync::mpsc;

use crate::adapter::Adapter;
use crate::clock;
use crate::driver::{Message, Seen};
use crate::journal::JournalError;
use crate::services::{Given, Hand};
use crate::shared::Shared;
use crate::vital::caught;

/// An infrastructure that does not say its state by then is not waited for.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Adapters and sessions keep an action's time themselves and say more of it; this is for what does not.
const MARGIN: Duration = Duration::from_secs(5);

/// What an action works with.
pub struct Work {
    /// What all drivers share.
    pub shared: Arc<Shared>,
    /// The definition.
    pub definition: Arc<Deployable>,
    /// The deployable's infrastructure, if it has one.
    pub adapter: Option<Arc<Adapter>>,
    /// The assembly.
    pub assembly: AssemblyIndex,
    /// Its instance id, if known.
    pub instance: Option<Arc<str>>,
    /// Its address, if known.
    pub address: Option<Arc<str>>,
    /// The zone that it lives in, or is to be made in, where that is another than its definition's.
    pub zone: Option<Name>,
    /// The parameters of the service that is acted on.
    pub given: Given,
    /// The parameters of the assembly, and why some have no value, if some have none.
    pub made_with: (BTreeMap<String, String>, Option<String>),
    /// It may get our mark, if it bears none.
    pub marks: bool,
    /// The driver.
    pub reply: mpsc::Sender<Message>,
}

/// Asks the infrastructure for its view of an assembly and tells the driver.
pub async fn look(work: Work) {
    let Some(adapter) = &work.adapter else { return };
    let request = work.request("look".to_owned());
    let answer = match adapter.perform(Operation::Status, &request, LOOK_TIMEOUT).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(assembly = %work.label(), %error, "infrastructure could not say its state");
            return work.tell(unknown()).await;
        }
    };
    let unmarked =
        answer.owner.is_none() && !matches!(answer.state, InstanceState::Gone | InstanceState::Unknown);
    if unmarked && work.marks && adapter.claims() {
        // What is managed for the first time, or given back without a mark, gets ours.
        return drop(claim(work).await);
    }
    work.tell(answer).await;
}

/// Puts our mark on a machine, over any other, and tells the driver what it bears then.
///
/// # Errors
/// What went wrong, for a person.
pub async fn claim(work: Work) -> Result<(), String> {
    let Some(adapter) = &work.adapter else { return Err("the deployable has no infrastructure".to_owned()) };
    let answer = adapter.perform(Operation::Claim, &work.request("claim".to_owned()), LOOK_TIMEOUT).await;
    let answer = answer.map_err(|error| {
        tracing::warn!(assembly = %work.label(), %error, "the machine could not be marked as ours");
        error.to_string()
    })?;
    let owner = answer.owner.clone();
    let ours = owner.as_deref() == Some(&**adapter.controller());
    work.tell(answer).await;
    let bears = owner.map_or_else(|| "no mark".to_owned(), |owner| format!("the mark of {owner}"));
    if ours { Ok(()) } else { Err(format!("it bears {bears} after its claim")) }
}

/// Does an action and tells the driver how it ended.
pub async fn perform(work: Work, session: Option<Arc<Session>>, action: Action) {
    let _acting = work.shared.begin_action();
    let outcome = caught(carry_out(&work, session, &action)).await.unwrap_or_else(|said| {
        tracing::error!(assembly = %work.label(), action = %action.action, panic = %said, "an action panicked: what came of it is looked at");
        let outcome = ActionOutcome::Unresolved { detail: detail(&format!("it panicked: {said}")) };
        work.shared.journal.resolve(&work.definition.name, action.action, &outcome_text(&outcome));
        outcome
    });
    let seen = !matches!(outcome, ActionOutcome::Unresolved { .. });
    let input = match action.act {
        Act::Fence(_) => Input::Fenced { action: action.action, outcome },
        _ => Input::Acted { action: action.action, outcome },
    };
    let heard = work.reply.send(Message::Input(input)).await.is_ok();
    if seen && !heard {
        // Its definition was removed meanwhile: nobody else gives back what it was granted.
        work.shared.guard().release(&work.definition.name, action.action, clock::now());
    }
}

/// The intent is durable before anything is done, and that a creation is begun before it is. A creation that was begun before is not
/// begun again, whatever became of it.
async fn carry_out(work: &Work, session: Option<Arc<Session>>, action: &Action) -> ActionOutcome {
    let (journal, name) = (&work.shared.journal, &work.definition.name);
    let durable = match action.act {
        Act::Machine(Rung::Recreate | Rung::Relocate) => journal.create(name, action.action).await,
        _ => journal.intend(action.intent(&work.definition)).await,
    };
    match durable {
        Err(JournalError::Created { .. }) => {
            let detail = "its creation was begun before cpe ended, and is not begun again".into();
            ActionOutcome::Unresolved { detail }
        }
        Err(error) => not_begun(Refusal::Journal, &error.to_string()),
        Ok(()) => {
            let deed = work.act(session, action);
            let outcome = tokio::time::timeout(action.timeout.saturating_add(MARGIN), deed)
                .await
                .unwrap_or_else(|_| {
                    let seconds = action.timeout.as_secs();
                    ActionOutcome::Unresolved { detail: format!("no answer within {seconds} s").into() }
                });
            let goes_on = matches!((action.act, &outcome), (Act::Fence(_), ActionOutcome::Done { .. }));
            if !goes_on {
                journal.resolve(name, action.action, &outcome_text(&outcome));
            }
            outcome
        }
    }
}

impl Work {
    async fn act(&self, session: Option<Arc<Session>>, action: &Action) -> ActionOutcome {
        match action.act {
            Act::RestartService(service)
            | Act::StartService(service)
            | Act::StopService(service)
            | Act::Reconfigure(service) => self.service(session, service, action).await,
            Act::Fence(_) => self.fence(action).await,
            Act::Machine(rung) => self.machine(rung, action).await,
            Act::Power(switch) => self.power(switch, action).await,
        }
    }

    async fn service(
        &self,
        session: Option<Arc<Session>>,
        service: ServiceIndex,
        action: &Action,
    ) -> ActionOutcome {
        let Some(session) = session else {
            return ActionOutcome::Failed { detail: "the assembly has no address yet".into() };
        };
        let (definition, given, timeout) = (&*self.definition, &self.given, action.timeout);
        Hand { definition, service, given, session: &session, timeout }.act(action.act).await
    }

    async fn machine(&self, rung: Rung, action: &Action) -> ActionOutcome {
        let Some(adapter) = &self.adapter else {
            return ActionOutcome::Failed { detail: "the deployable has no infrastructure".into() };
        };
        // With half of what it is to be made with it would be another machine.
        if let (true, Some(missing)) = (rung.makes_disk(), &self.made_with.1) {
            return not_begun(Refusal::NotStarted, &format!("it is not made anew: {missing}"));
        }
        let request = self.request(self.action_id(action.action));
        let operation = match rung {
            Rung::Start => Operation::Start,
            Rung::RebootSoft => Operation::RebootSoft,
            Rung::RebootHard => Operation::RebootHard,
            Rung::Rebuild => Operation::Rebuild,
            Rung::Recreate => Operation::Create,
            Rung::Relocate => Operation::Relocate,
            Rung::RestartDeployable => return self.power_cycle(adapter, request, action).await,
            Rung::RestartService => {
                return ActionOutcome::Failed { detail: "not an operation of an infrastructure".into() };
            }
        };
        let answer = adapter.perform(operation, &request, action.timeout).await;
        self.conclude(answer).await
    }

    /// A replacement starts only after the old instance is confirmed off or gone (design.md section 4, rule 3), by the infrastructure
    /// or, where that cannot say, by a person.
    async fn fence(&self, action: &Action) -> ActionOutcome {
        let Some(adapter) = &self.adapter else {
            return ActionOutcome::Failed { detail: "the deployable has no infrastructure".into() };
        };
        // An id is asked once: a program that remembers it would take the creation for the stop, asked again.
        let request = self.request(format!("{}-stop", self.action_id(action.action)));
        match adapter.perform(Operation::Stop, &request, action.timeout).await {
            Ok(answer) if matches!(answer.state, InstanceState::Off | InstanceState::Gone) => {
                ActionOutcome::Done { detail: format!("the old instance is {}", answer.state).into() }
            }
            stopped if action.fenced => {
                let said = stopped.map_or_else(|error| error.to_string(), |answer| answer.state.to_string());
                tracing::warn!(assembly = %self.label(), said, "the old instance is not verified off: a person confirmed that it is down");
                ActionOutcome::Done { detail: "a person confirmed that the old instance is down".into() }
            }
            Ok(answer) => {
                let detail = format!(
                    "the old instance is {} after its stop, so nothing was created; if it is down for certain, `cpe confirm-fenced {}`",
                    answer.state,
                    self.label()
                );
                ActionOutcome::Failed { detail: detail.into() }
            }
            Err(error) => failed(&error),
        }
    }

    /// One step of an ordered stop or start.
    async fn power(&self, switch: Switch, action: &Action) -> ActionOutcome {
        let Some(adapter) = &self.adapter else {
            return ActionOutcome::Failed { detail: "the deployable has no infrastructure".into() };
        };
        let request = self.request(self.action_id(action.action));
        let operation = match switch {
            Switch::Off => Operation::Stop,
            Switch::On => Operation::Start,
        };
        let answer = adapter.perform(operation, &request, action.timeout).await;
        let outcome = match switch {
            Switch::Off => verified_off(&answer),
            Switch::On => concluded(&answer),
        };
        self.tell_of(answer).await;
        outcome
    }

    /// Off, verified, and on again: what hangs on to its machine must be seen to have let go. The same disk, so that nothing is lost.
    async fn power_cycle(
        &self,
        adapter: &Adapter,
        request: InstanceRequest,
        action: &Action,
    ) -> ActionOutcome {
        let stop = InstanceRequest { action_id: format!("{}-stop", request.action_id), ..request.clone() };
        match adapter.perform(Operation::Stop, &stop, action.timeout).await {
            Ok(answer) if matches!(answer.state, InstanceState::Off | InstanceState::Gone) => {}
            Ok(answer) => {
                let detail =
                    format!("its instance is {} after its stop, so it was not started", answer.state);
                return ActionOutcome::Failed { detail: detail.into() };
            }
            Err(error) => return failed(&error),
        }
        let answer = adapter.perform(Operation::Start, &request, action.timeout).await;
        self.conclude(answer).await
    }

    async fn conclude(&self, answer: Result<InstanceAnswer, InfraError>) -> ActionOutcome {
        let outcome = concluded(&answer);
        self.tell_of(answer).await;
        outcome
    }

    async fn tell_of(&self, answer: Result<InstanceAnswer, InfraError>) {
        if let Ok(answer) = answer {
            self.tell(answer).await;
        }
    }

    async fn tell(&self, answer: InstanceAnswer) {
        let InstanceAnswer { state, instance, address, owner, .. } = answer;
        let (instance, address) = (instance.map(Arc::from), address.map(Arc::from));
        let own = self.adapter.as_ref().map(|adapter| &**adapter.controller());
        let owner = match owner {
            Some(owner) if Some(&*owner) != own => Owner::Another(owner.into()),
            None if state == InstanceState::Unknown => Owner::NotSaid,
            _ => Owner::OursOrNone,
        };
        let seen = Seen {
            owner,
            definition: Arc::clone(&self.definition),
            assembly: self.assembly,
            state,
            instance,
            address,
        };
        // The driver has ended with its engine: nobody needs to know any more.
        let _ = self.reply.send(Message::Seen(seen)).await;
    }

    fn request(&self, action_id: String) -> InstanceRequest {
        let assembly = self.definition.assembly(self.assembly);
        let named = match &assembly.machine {
            Machine::Instance(id) => Some(id.clone()),
            Machine::Address(_) | Machine::Adopt { .. } | Machine::Image { .. } => None,
        };
        InstanceRequest {
            action_id,
            controller: self.adapter.as_ref().map(|it| it.controller().to_string()).unwrap_or_default(),
            deployable: self.definition.name.to_string(),
            assembly: assembly.name.to_string(),
            instance: self.instance.as_deref().map(str::to_owned).or(named),
            address: self.address.as_deref().map(str::to_owned),
            zone: self.zone.as_ref().map(Name::to_string),
            parameters: self.made_with.0.clone(),
            fence: assembly.fence.clone(),
        }
    }

    fn action_id(&self, action: ActionId) -> String {
        format!("{}-{action}", self.definition.name)
    }

    fn label(&self) -> String {
        format!("{}/{}", self.definition.name, self.definition.assembly(self.assembly).name)
    }
}

/// What an infrastructure's answer says of what it was asked to do.
pub(crate) fn concluded(answer: &Result<InstanceAnswer, InfraError>) -> ActionOutcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return failed(error),
    };
    let said = detail(&format!("infrastructure: {} {}", answer.state, answer.detail));
    match answer.state {
        InstanceState::Active | InstanceState::Changing => ActionOutcome::Done { detail: said },
        InstanceState::Off | InstanceState::Error | InstanceState::Gone => {
            ActionOutcome::Failed { detail: said }
        }
        InstanceState::Unknown => ActionOutcome::Unresolved { detail: said },
    }
}

/// The same of a stop that was ordered: to be off is verified.
fn verified_off(answer: &Result<InstanceAnswer, InfraError>) -> ActionOutcome {
    match answer {
        Ok(InstanceAnswer { state: state @ (InstanceState::Off | InstanceState::Gone), .. }) => {
            ActionOutcome::Done { detail: format!("the instance is {state}").into() }
        }
        Ok(answer) => ActionOutcome::Failed {
            detail: format!("its instance is {} after its stop", answer.state).into(),
        },
        Err(error) => failed(error),
    }
}

/// An infrastructure that could not be asked says nothing.
fn unknown() -> InstanceAnswer {
    let (state, detail) = (InstanceState::Unknown, String::new());
    InstanceAnswer { state, instance: None, address: None, owner: None, detail }
}

fn not_begun(why: Refusal, said: &str) -> ActionOutcome {
    ActionOutcome::NotBegun { why, detail: detail(said) }
}

/// What was certainly not begun is tried again; of anything else the effect is not known.
fn failed(error: &InfraError) -> ActionOutcome {
    let said = detail(&error.to_string());
    match error {
        InfraError::NotStarted { .. } => ActionOutcome::NotBegun { why: Refusal::NotStarted, detail: said },
        _ => ActionOutcome::Unresolved { detail: said },
    }
}

fn outcome_text(outcome: &ActionOutcome) -> String {
    match outcome {
        ActionOutcome::Done { detail } if detail.is_empty() => "done".to_owned(),
        ActionOutcome::Done { detail } => format!("done: {detail}"),
        ActionOutcome::Failed { detail } => format!("failed: {detail}"),
        ActionOutcome::Unresolved { detail } => format!("unresolved: {detail}"),
        ActionOutcome::NotBegun { detail, .. } => format!("not begun: {detail}"),
    }
}
