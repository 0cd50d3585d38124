//! The process's own limits, looked at once at the start: each assembly takes one open file for its session.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use cpe_monitor::direct;

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

/// The limits of direct probes, so that they leave most open files to sessions.
#[must_use]
pub fn of_direct_probes(allowed: Option<u64>) -> direct::Settings {
    let usual = direct::Settings::default();
    let share =
        |part: u64| allowed.map_or(usize::MAX, |files| usize::try_from(files / part).unwrap_or(usize::MAX));
    direct::Settings {
        connecting: usual.connecting.min(share(8).max(1)),
        kept: usual.kept.min(share(4)),
        ..usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_open_files_are_not_used_up_by_kept_connections() {
        let of = |allowed| {
            let settings = of_direct_probes(allowed);
            (settings.connecting, settings.kept)
        };
        assert_eq!(of(None), (256, 4096));
        assert_eq!(of(Some(65_336)), (256, 4096));
        assert_eq!(of(Some(824)), (103, 206));
        assert_eq!(of(Some(0)), (1, 0));
    }
}
