//! `[[maintenance]]`: windows that come again. Here is what a definition says of them; when that is, in its time zone, is
//! computed in `calendar/`, since this crate knows no calendar.

use std::time::Duration;

use super::schema::MAINTENANCE;
use crate::document::{Table, Text, plain_text};
use crate::id::AssemblyIndex;

/// The most windows of one deployable.
const WINDOWS_MAX: usize = 32;

/// The longest window.
const LENGTH_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A maintenance that comes again. What is given of `days`, `dates` and `months` must all fit; what is not given fits always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaintenanceWindow {
    /// The days of the week on which it begins; none: every day.
    pub days: Vec<WeekDay>,
    /// The days of the month; none: every day.
    pub dates: Vec<MonthDay>,
    /// The months, 1 to 12; none: every month.
    pub months: Vec<u8>,
    /// When it begins, in minutes after midnight on that day's clocks.
    pub from: u16,
    /// How long it lasts, in time that passes: clocks that are put forward or back change nothing.
    pub length: Duration,
    /// The IANA time zone of those clocks.
    pub zone: String,
    /// What is in maintenance then; none: the whole deployable.
    pub assemblies: Vec<AssemblyIndex>,
    /// Why.
    pub reason: String,
}

/// A day of the week: each one, or a certain one of the month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeekDay {
    /// Monday is 1, Sunday 7.
    pub day: u8,
    /// Which of its month.
    pub nth: Nth,
}

/// Which of the month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nth {
    /// Each.
    Every,
    /// The first is 1; at most 4, since not every month has a fifth.
    Nth(u8),
    /// The last.
    Last,
}

/// A day of the month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonthDay {
    /// 1 to 31. A month without it has no such window.
    Day(u8),
    /// The last, whichever that is.
    Last,
}

/// A window before its assemblies are looked up.
pub(super) struct WindowTemplate<'t> {
    pub(super) window: MaintenanceWindow,
    pub(super) assemblies: Vec<Text<'t>>,
    pub(super) at: usize,
}

pub(super) fn read_maintenance<'t>(root: &Table<'t>) -> Vec<WindowTemplate<'t>> {
    let tables = root.table_list("maintenance", &MAINTENANCE);
    if tables.len() > WINDOWS_MAX {
        let message = format!("`maintenance` has {} windows, expected at most {WINDOWS_MAX}", tables.len());
        root.report().error(root.at_key("maintenance"), message);
    }
    tables.iter().take(WINDOWS_MAX).filter_map(read_window).collect()
}

fn read_window<'t>(table: &Table<'t>) -> Option<WindowTemplate<'t>> {
    table.require("from", "from = \"02:00\"");
    table.require("for", "for = \"2h\"");
    let from = table.parse("from", wall_time);
    let length = table.duration("for", Duration::from_secs(60), LENGTH_MAX);
    let window = MaintenanceWindow {
        days: table.list("days", week_day).unwrap_or_default(),
        dates: table.list("dates", month_day).unwrap_or_default(),
        months: table.list("months", month).unwrap_or_default(),
        zone: table.parse("zone", zone).unwrap_or_else(|| "UTC".to_owned()),
        assemblies: Vec::new(),
        reason: table.parse("reason", plain_text).unwrap_or_else(|| "a scheduled window".to_owned()),
        from: from?,
        length: length?,
    };
    Some(WindowTemplate {
        window,
        assemblies: table.texts("assemblies").unwrap_or_default(),
        at: table.at_key("from"),
    })
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const NTH: [(&str, Nth); 5] = [
    ("first", Nth::Nth(1)),
    ("second", Nth::Nth(2)),
    ("third", Nth::Nth(3)),
    ("fourth", Nth::Nth(4)),
    ("last", Nth::Last),
];

fn week_day(text: &str) -> Result<WeekDay, &'static str> {
    let expected = "mon, tue, wed, thu, fri, sat or sun, or one of the month: \"first sun\", \"last fri\"";
    let (nth, word) = match text.split_once(' ') {
        None => (Nth::Every, text),
        Some((nth, word)) => {
            let (_, nth) = NTH.iter().find(|(name, _)| *name == nth).ok_or(expected)?;
            (*nth, word)
        }
    };
    let day = (1..).zip(DAYS).find(|(_, name)| *name == word).ok_or(expected)?.0;
    Ok(WeekDay { day, nth })
}

fn month_day(text: &str) -> Result<MonthDay, &'static str> {
    if text == "last" {
        return Ok(MonthDay::Last);
    }
    let day = text.parse::<u8>().ok().filter(|day| (1..=31).contains(day) && !text.starts_with(['0', '+']));
    day.map(MonthDay::Day).ok_or("\"1\" to \"31\", or \"last\"")
}

fn month(text: &str) -> Result<u8, &'static str> {
    let found = (1..).zip(MONTHS).find(|(_, name)| *name == text);
    found.map(|(number, _)| number).ok_or("jan, feb, mar, apr, may, jun, jul, aug, sep, oct, nov or dec")
}

fn wall_time(text: &str) -> Result<u16, &'static str> {
    let expected = "a time of day, as \"02:00\"";
    let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    let (hour, minute) =
        text.split_once(':').filter(|(hour, minute)| digits(hour) && digits(minute)).ok_or(expected)?;
    let (hour, minute): (u16, u16) =
        (hour.parse().map_err(|_| expected)?, minute.parse().map_err(|_| expected)?);
    if hour > 23 || minute > 59 { Err(expected) } else { Ok(hour * 60 + minute) }
}

/// Whether there is such a zone is known only where its data are.
fn zone(text: &str) -> Result<String, &'static str> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte));
    let sane =
        plain && !text.is_empty() && text.len() <= 64 && !text.starts_with('/') && !text.contains("//");
    sane.then(|| text.to_owned()).ok_or("an IANA time zone, as \"Europe/Berlin\" or \"UTC\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_dates_months_and_times_have_one_spelling_each() {
        assert_eq!(week_day("sat"), Ok(WeekDay { day: 6, nth: Nth::Every }));
        assert_eq!(week_day("second tue"), Ok(WeekDay { day: 2, nth: Nth::Nth(2) }));
        assert_eq!(week_day("last sun"), Ok(WeekDay { day: 7, nth: Nth::Last }));
        assert_eq!((month_day("31"), month_day("last")), (Ok(MonthDay::Day(31)), Ok(MonthDay::Last)));
        assert_eq!((month("feb"), wall_time("02:30"), wall_time("23:59")), (Ok(2), Ok(150), Ok(1439)));
        for bad in ["", "Sat", "saturday", "fifth sun", "2 sun", "sun first"] {
            assert!(week_day(bad).is_err(), "{bad}");
        }
        for bad in ["", "0", "32", "01", "+1", "-1"] {
            assert!(month_day(bad).is_err(), "{bad}");
        }
        for bad in ["", "2:00", "24:00", "12:60", "12", "12:00:00", "+2:00"] {
            assert!(wall_time(bad).is_err(), "{bad}");
        }
        for bad in ["", "/etc/passwd", "Europe Berlin", "a//b", "../x"] {
            assert!(zone(bad).is_err(), "{bad}");
        }
    }
}
