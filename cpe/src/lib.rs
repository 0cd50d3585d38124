//! The controller: everything around the policy engines that touches the world. `run.rs` puts the parts together, `driver.rs` is the loop
//! around one engine; the journal, the API, metrics and notifications are folders and files of their own.

pub mod actions;
pub mod adapter;
pub mod api;
pub mod by_hand;
pub mod canary;
pub mod cli;
pub mod client;
pub mod clock;
pub mod demo;
pub mod driver;
pub mod event;
pub mod fleet;
pub mod glob;
pub mod guard;
pub mod journal;
pub mod lag;
pub mod limits;
pub mod load;
pub mod metrics;
pub mod notify;
pub mod past;
pub mod pauses;
pub mod render;
pub mod run;
pub mod secret;
pub mod sessions;
pub mod shared;
pub mod supervise;
pub mod systemd;
pub mod trust;
pub mod upkeep;
pub mod view;
pub mod vital;
pub mod watch;
