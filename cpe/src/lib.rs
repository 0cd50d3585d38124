//! The controller: everything around the policy engines that touches the world. `run.rs` puts the parts together, `driver.rs` is the loop
//! around one engine; the journal, the API, metrics and notifications are folders and files of their own.

pub mod api;
pub mod clock;
pub mod glob;
pub mod journal;
pub mod metrics;
pub mod notify;
pub mod render;
pub mod systemd;
