//! How probes reach an assembly: over SSH. What a probe means is decided elsewhere (`dped`); this crate says what it saw, exactly once
//! for each probe asked, by its deadline. An agent and direct probes come beside [`ssh`] later.

pub mod perfdata;
pub mod ssh;
