//! policy.md, rule by rule: each test names the rule or row that it holds. `site/` is the world that they happen in.

mod bounds;
mod counting;
mod dependencies;
mod elsewhere;
mod exact;
mod failing;
mod found;
mod gate;
mod guard;
mod hand;
mod isolation;
mod late_answer;
mod observing;
mod owner;
mod phase;
mod power;
mod restart;
mod setup;
mod site;
mod telling;
mod whole;
mod witness;
