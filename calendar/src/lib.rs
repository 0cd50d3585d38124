//! When maintenance windows of definitions are (policy.md section 8: wall time serves windows). Wall time comes in, beginnings and ends go
//! out: no clock is read here, so that `cpe` and the simulator keep windows alike. `window.rs` is one window in its time zone,
//! `schedule.rs` which of all of them have begun and were not ordered yet.

mod schedule;
mod window;

pub use schedule::{Begun, Place, Schedule};
pub use window::{Calendar, Flaw, Local, Occurrence, local, moment, shown};
