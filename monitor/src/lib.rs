//! How probes reach an assembly: over SSH, and directly from the controller. What a probe means is decided elsewhere (`dped`); this crate
//! says what it saw, exactly once for each probe asked, by its deadline. It reads secrets, too ([`secret`]). An agent comes beside [`ssh`] and [`direct`] later.

mod credentials;
pub mod direct;
pub mod perfdata;
pub mod secret;
pub mod ssh;
