//! What is decided: the policy engine of one deployable and, above all engines, the fleet guard. Synchronous and
//! deterministic: time, randomness and results come in, decisions go out. No clock, no socket, no log.
//!
//! The way of a fault through these files: `observe.rs` collects what probes saw, `judge.rs` and `systemd.rs` say what one means, `health.rs`
//! what state follows; `witness.rs` who else speaks for an assembly. [`isolate`] finds the scope from [`Facts`](cpe_proto::decision::Facts) that `fault.rs` gathers. `window.rs` counts,
//! [`ladder`] names the rung, `backoff.rs` its wait; `recover.rs` pleads with the gate (`gate.rs`, and [`guard`] above all engines), `action.rs`
//! carries the action, `verify.rs` believes it or not; [`bounds`] says how long all of it takes at worst. `plan.rs` starts and stops in order,
//! `whole.rs` recovers the deployable as a whole, `dependency.rs` waits, `incident.rs` tells.
//!
//! One failure up the ladder: a unit that no restart can mend is restarted twice, then its machine is rebooted.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use cpe_proto::decision::Answer;
//! use cpe_proto::definition::Deployable;
//! use cpe_proto::id::{ActionId, IncidentId};
//! use cpe_proto::infrastructure::{Capabilities, InstanceState, Operation, Owner};
//! use cpe_proto::observation::{Observation, UnitState};
//! use cpe_proto::rung::Rung;
//! use cpe_proto::time::Timestamp;
//! use dped::{Act, ActionOutcome, Desired, Engine, Input, Output, Seed, Surroundings, Target};
//!
//! let definition = Deployable::parse(
//!     "shop.toml",
//!     r#"
//!     name = "shop"
//!     infrastructure = "prod"
//!     [escalation]
//!     service = { failures = 3, within = "1h" }
//!     [assemblies.web]
//!     address = "192.0.2.1"
//!     [assemblies.web.services.nginx]
//!     systemd = "nginx.service"
//!     "#,
//! )
//! .expect("a definition");
//! let seed = Seed {
//!     first_action: ActionId(1),
//!     first_incident: IncidentId(1),
//!     random: 7,
//!     desired: Desired::Running,
//!     maintenance: Vec::new(),
//! };
//! let mut now = Timestamp::from_boot(Duration::from_secs(60));
//! let mut engine = Engine::new(Arc::new(definition), seed, now);
//!
//! let (mut broken, mut acts) = (false, Vec::new());
//! while !acts.contains(&Act::Machine(Rung::RebootSoft)) {
//!     // What a shell does: carry out what the engine asks for, and answer. Here everything is answered at once.
//!     while let Some(output) = engine.poll_output() {
//!         let answer = match output {
//!             Output::Probe { probe, target, .. } => {
//!                 let active = if broken { "failed" } else { "active" };
//!                 let unit = UnitState { load: "loaded".into(), active: active.into(), sub: "".into() };
//!                 let observation = match target {
//!                     Target::Channel(_) => Observation::Alive,
//!                     Target::Service(_) => Observation::Unit(unit),
//!                 };
//!                 Input::Probed { probe, observation, void: false }
//!             }
//!             Output::AskInstance(assembly) => {
//!                 Input::Instance { assembly, state: InstanceState::Active, address: None, ordered: false, owner: Owner::OursOrNone }
//!             }
//!             Output::AskSurroundings(assembly) => {
//!                 let surroundings = Surroundings {
//!                     self_trusted: true,
//!                     held_domain: None,
//!                     path_answered_ago: None,
//!                     path_answered_by: "".into(),
//!                     capabilities: Some(Capabilities(Operation::ALL.into_iter().collect())),
//!                 };
//!                 Input::Surroundings { assembly, surroundings }
//!             }
//!             Output::AskAdmission(request) => {
//!                 Input::Admission { action: request.action, answer: Answer::Admitted, gates: Vec::new() }
//!             }
//!             Output::Act(action) => {
//!                 acts.push(action.act);
//!                 Input::Acted { action: action.action, outcome: ActionOutcome::Failed { detail: "exit status 1".into() } }
//!             }
//!             _ => continue,
//!         };
//!         engine.handle_input(answer, now);
//!     }
//!     // It sleeps until the engine wants to be woken, and knows why.
//!     let Some((at, _why)) = engine.poll_timeout() else { break };
//!     now = at;
//!     broken = now.since_boot() > Duration::from_secs(120);
//!     engine.handle_timeout(now);
//! }
//! let nginx = engine.definition().services_of(cpe_proto::id::AssemblyIndex(0)).next().expect("a service");
//! assert_eq!(acts, [Act::RestartService(nginx), Act::RestartService(nginx), Act::Machine(Rung::RebootSoft)]);
//! ```

mod action;
mod astray;
pub mod audit;
mod backoff;
pub mod bounds;
mod dependency;
pub mod describe;
mod engine;
mod fault;
mod gate;
pub mod guard;
mod hand;
pub mod health;
mod incident;
mod input;
pub mod isolate;
pub mod judge;
pub mod ladder;
mod notices;
mod observe;
mod orders;
mod output;
mod owner;
mod parts;
mod plan;
mod power;
mod random;
mod recover;
mod replace;
mod setup;
mod snapshot;
pub mod systemd;
mod timer;
mod verify;
mod view;
mod warning;
mod whole;
pub mod window;
mod witness;

pub use action::OUTCOME_LOST_AFTER;
pub use engine::{Desired, Engine, Seed};
pub use gate::ADMISSION_TIMEOUT;
pub use guard::{Carried, Evacuate, Guard, GuardOutput, GuardSettings, HealthClass, Place, Prover, Scope};
pub use incident::SETTLE_FACTOR;
pub use input::{ActionOutcome, ByHand, Input, Order, PartName, Surroundings};
pub use notices::{IncidentKey, Notices};
pub use output::{Act, Action, Output, Request, Switch, Target};
pub use setup::Parameters;
pub use timer::{LOST_AFTER, Wake};
pub use view::{AssemblyView, ServiceView, View, Wait, Waiting};
