//! What is decided: the policy engine of one deployable and, above all engines, the fleet guard. Synchronous and
//! deterministic: time, randomness and results come in, decisions go out. No clock, no socket, no log.

mod input;
mod output;

pub use input::{ActionOutcome, Input, Order, Surroundings};
pub use output::{Act, Action, Output, Request, Target};

/// The policy engine of one deployable.
#[derive(Debug)]
pub struct Engine;
