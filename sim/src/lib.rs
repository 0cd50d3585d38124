//! Worlds to try cpe in. [`world`]: a simulated one, virtual time around the real engines and the real guard, drawn from a seed or
//! scripted. [`live`]: a fleet of real SSH servers on loopback in one process.

pub mod live;
pub mod world;
