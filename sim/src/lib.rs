//! Worlds to try cpe in. Now: [`live`], a fleet of real SSH servers on loopback in one process.
//! The simulated world (virtual time, seeded faults) comes later and stands beside it.

pub mod live;
