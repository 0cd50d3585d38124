//! What is decided: the policy engine of one deployable and, above all engines, the fleet guard. Synchronous and
//! deterministic: time, randomness and results come in, decisions go out. No clock, no socket, no log.

mod backoff;
mod dependency;
pub mod describe;
mod engine;
mod fault;
pub mod guard;
pub mod health;
mod incident;
mod input;
pub mod isolate;
pub mod judge;
pub mod ladder;
mod observe;
mod orders;
mod output;
mod parts;
mod plan;
mod random;
mod recover;
pub mod systemd;
mod timer;
mod verify;
mod view;
pub mod window;

pub use engine::{Desired, Engine, Seed};
pub use guard::{Guard, GuardSettings, Place};
pub use incident::SETTLE_FACTOR;
pub use input::{ActionOutcome, Input, Order, Surroundings};
pub use output::{Act, Action, Output, Request, Target};
pub use recover::{ADMISSION_TIMEOUT, OUTCOME_LOST_AFTER};
pub use timer::{LOST_AFTER, Wake};
pub use view::{AssemblyView, ServiceView, View};
