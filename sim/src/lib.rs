//! Worlds to try cpe in. [`world`]: a simulated one, virtual time around the real engines and the real guard, drawn from a seed or
//! scripted by a text ([`script`]). [`live`]: a fleet of real SSH servers on loopback in one process.

pub mod live;
pub mod script;
pub mod world;
