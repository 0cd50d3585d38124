//! The process's own limits, looked at once at the start: each assembly takes one open file for its session.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that are not sessions: journal, sockets, the runtime, actions.
const OTHER_FILES: u64 = 200;

/// Raises the soft limit of open files to the hard one and says how many assemblies that allows; none: no limit.
#[must_use]
pub fn assemblies_max() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let raised = setrlimit(Resource::Nofile, wanted).is_ok();
    let files = if raised { limit.maximum } else { limit.current };
    files.map(|files| files.saturating_sub(OTHER_FILES))
}
