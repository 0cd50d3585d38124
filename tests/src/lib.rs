//! Real machines to tell stories about: a [`Site`] of [`Guest`]s, and the `cpe` under test beside them.
//!
//! A guest is a Debian with systemd and sshd in a container with a network of its own (`guests/machine` is its
//! hypervisor). A test is one [`story`]: it names its guests, breaks something, and says what must be seen.
//! Everything here ends by a deadline, and a story that fails shows the consoles of its guests.

pub mod contact;
pub mod controller;
pub mod definition;
pub mod guest;
pub mod infra;
pub mod program;
pub mod readme;
mod reservation;
pub mod site;
pub mod starve;
pub mod wait;

pub use contact::Contact;
pub use controller::{Controller, Event};
pub use guest::{Guest, Power};
pub use infra::{InfraCall, InfraFault};
pub use program::Output;
pub use site::{Site, story};
