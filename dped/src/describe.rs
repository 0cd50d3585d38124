//! The clauses of reasons: "unit inactive, confirmed by 2 probes; failure 1 of 5 in 1 h". One place, so that an event, a decision and
//! a notification say the same thing in the same words.

use std::time::Duration;

use cpe_proto::decision::Value;
use cpe_proto::definition::Window;

use crate::window::Count;

/// A span as people say it: "5.2 s", "90 s", "5 min", "1 h".
#[must_use]
pub fn span(span: Duration) -> String {
    let (seconds, millis) = (span.as_secs(), span.subsec_millis());
    if seconds >= 3600 && seconds.is_multiple_of(3600) {
        return format!("{} h", seconds / 3600);
    }
    if seconds >= 120 && seconds.is_multiple_of(60) {
        return format!("{} min", seconds / 60);
    }
    if seconds >= 600 {
        return format!("{} min", seconds / 60);
    }
    match millis / 100 {
        0 if seconds == 0 && millis > 0 => format!("{millis} ms"),
        0 => format!("{seconds} s"),
        tenths => format!("{seconds}.{tenths} s"),
    }
}

/// "failure 1 of 5 in 1 h".
pub(crate) fn count(count: Count, window: Window) -> String {
    format!("failure {} of {} in {}", count.failure, count.of, span(window.within))
}

/// "unit inactive, confirmed by 2 probes"; with no probe only what is known.
pub(crate) fn confirmed(what: &str, probes: u8) -> String {
    match probes {
        0 => what.to_owned(),
        1 => format!("{what}, seen by 1 probe"),
        probes => format!("{what}, confirmed by {probes} probes"),
    }
}

/// A value for a record.
pub(crate) fn value(name: &str, value: impl Into<Box<str>>) -> Value {
    Value { name: name.into(), value: value.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_say_them() {
        let said = [0, 30, 5_200, 10_000, 60_000, 90_000, 300_000, 3_600_000, 21_600_000, 4_000_000]
            .map(|millis| span(Duration::from_millis(millis)));
        assert_eq!(said, ["0 s", "30 ms", "5.2 s", "10 s", "60 s", "90 s", "5 min", "1 h", "6 h", "66 min"]);
    }
}
