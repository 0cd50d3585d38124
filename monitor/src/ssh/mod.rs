//! SSH: one [`Session`] per assembly, from one [`Monitor`] that all share (keys, known hosts, the limits on connecting).
//! Nothing of the SSH library shows here, so that another can take its place. `resident.rs` is the protocol that is spoken in the
//! guest; `known_hosts.rs` decides whether a host is the one it should be; `task.rs` is where a session lives.

mod act;
mod certificate;
mod configured;
mod connect;
mod enrol;
mod exec;
mod fallback;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gate;
mod identity;
mod jump;
mod known_hosts;
mod login;
mod monitor;
mod observe;
mod pending;
mod port;
pub mod resident;
mod session;
mod settings;
mod shell;
mod socket;
mod task;
mod tunnel;
mod words;

pub use enrol::{ShownKey, Standing, Whose};
pub use monitor::{Counters, Monitor};
pub(crate) use port::{Closed, Guest};
pub use session::Session;
pub use settings::{
    Act, ActError, Answer, Answers, Configuration, Deed, Endpoint, Error, Identity, Jump, Probe,
    ProbeRequest, Resource, Route, ServiceAct, Settings, Subject,
};
