//! One maintenance window in its time zone. A `from` that the clocks skip begins when they have been put forward, one that they show twice
//! at the first; `for` is time that passes.

use std::time::Duration;

use cpe_proto::definition::{MaintenanceWindow, MonthDay, Nth, WeekDay};
use jiff::civil::{Date, DateTime, time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// So many days ahead a window is looked for: the 29th of February that is a Sunday comes every 28 years, or 40 over a century's turn.
const DAYS_AHEAD: usize = 41 * 366;

/// One occurrence, in milliseconds since 1970-01-01T00:00:00Z: from the first up to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// When it begins.
    pub from: u64,
    /// When it is over.
    pub to: u64,
}

/// A window in its time zone.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
    window: MaintenanceWindow,
}

/// Why a window cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Nothing is known of its zone.
    #[error(
        "no time zone \"{0}\" on this machine, expected one of the IANA database (/usr/share/zoneinfo, of the package tzdata)"
    )]
    Zone(String),
    /// No day fits.
    #[error("the window never happens: no day has all of its `days`, `dates` and `months`")]
    Never,
}

impl Calendar {
    /// A window whose zone is known and that happens, as seen from `now`.
    ///
    /// # Errors
    /// [`Flaw`].
    pub fn of(window: &MaintenanceWindow, now: u64) -> Result<Self, Flaw> {
        let calendar = Self { zone: zone(&window.zone)?, window: window.clone() };
        if calendar.after(now).next().is_none() { Err(Flaw::Never) } else { Ok(calendar) }
    }

    /// The occurrences that are not over then, the earliest first.
    pub fn after(&self, now: u64) -> impl Iterator<Item = Occurrence> {
        let length = self.window.length;
        let first = timestamp(now).checked_sub(length).unwrap_or(Timestamp::UNIX_EPOCH);
        // A day more, for what a zone's clocks may be set back.
        let first = first.to_zoned(self.zone.clone()).date().checked_sub(1.day());
        let days = first.unwrap_or(Date::MIN).series(1.day()).take(DAYS_AHEAD);
        let begins = days.filter(|day| self.fits(*day)).filter_map(|day| self.begin(day));
        begins
            .map(move |from| Occurrence { from, to: from.saturating_add(millis(length)) })
            .filter(move |it| it.to > now)
    }

    /// The one that lasts then.
    #[must_use]
    pub fn at(&self, now: u64) -> Option<Occurrence> {
        self.after(now).next().filter(|it| it.from <= now)
    }

    fn begin(&self, day: Date) -> Option<u64> {
        let (hour, minute) = (self.window.from / 60, self.window.from % 60);
        let wall = day.to_datetime(time(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0));
        let at = self.zone.to_ambiguous_timestamp(wall).compatible().ok()?;
        u64::try_from(at.as_millisecond()).ok()
    }

    fn fits(&self, day: Date) -> bool {
        let MaintenanceWindow { days, dates, months, .. } = &self.window;
        let month = u8::try_from(day.month()).unwrap_or(0);
        (days.is_empty() || days.iter().any(|wanted| is_week_day(day, *wanted)))
            && (dates.is_empty() || dates.iter().any(|wanted| is_month_day(day, *wanted)))
            && (months.is_empty() || months.contains(&month))
    }
}

fn zone(name: &str) -> Result<TimeZone, Flaw> {
    match name {
        "UTC" => Ok(TimeZone::UTC),
        name => TimeZone::get(name).map_err(|_| Flaw::Zone(name.to_owned())),
    }
}

/// A moment on the clocks of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// Monday is 1, Sunday 7.
    pub week_day: u8,
    /// 1 to 31.
    pub day: u8,
    /// Minutes after midnight.
    pub minutes: u16,
}

/// What the clocks of a zone show at a time, in milliseconds since 1970-01-01T00:00:00Z.
///
/// # Errors
/// [`Flaw::Zone`].
pub fn local(name: &str, at: u64) -> Result<Local, Flaw> {
    let shown = timestamp(at).to_zoned(zone(name)?);
    let small = |number: i8| u8::try_from(number).unwrap_or(0);
    Ok(Local {
        week_day: small(shown.weekday().to_monday_one_offset()),
        day: small(shown.day()),
        minutes: u16::from(small(shown.hour())) * 60 + u16::from(small(shown.minute())),
    })
}

/// A time as a person writes it, `2026-10-25T02:30` on the clocks of a zone, in milliseconds since 1970-01-01T00:00:00Z. None: it is none,
/// or before 1970. What the clocks skip is later, what they show twice is the first.
///
/// # Errors
/// [`Flaw::Zone`].
pub fn moment(text: &str, name: &str) -> Result<Option<u64>, Flaw> {
    let zone = zone(name)?;
    let wall = text.parse::<DateTime>().ok();
    let at = wall.and_then(|wall| zone.to_ambiguous_timestamp(wall).compatible().ok());
    Ok(at.and_then(|at| u64::try_from(at.as_millisecond()).ok()))
}

fn is_week_day(day: Date, wanted: WeekDay) -> bool {
    let nth = (day.day() - 1) / 7 + 1;
    let same = day.weekday().to_monday_one_offset() == i8::try_from(wanted.day).unwrap_or(0);
    same && match wanted.nth {
        Nth::Every => true,
        Nth::Nth(number) => nth == i8::try_from(number).unwrap_or(0),
        Nth::Last => day.day() + 7 > day.days_in_month(),
    }
}

fn is_month_day(day: Date, wanted: MonthDay) -> bool {
    match wanted {
        MonthDay::Day(number) => day.day() == i8::try_from(number).unwrap_or(0),
        MonthDay::Last => day.day() == day.days_in_month(),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A time beyond what can be written is the last that can.
fn timestamp(millis: u64) -> Timestamp {
    i64::try_from(millis)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .unwrap_or(Timestamp::MAX)
}

/// An occurrence for a person: on the clocks of its zone.
#[must_use]
pub fn shown(calendar: &Calendar, occurrence: Occurrence) -> String {
    let on =
        |at: u64, format: &str| timestamp(at).to_zoned(calendar.zone.clone()).strftime(format).to_string();
    format!("{} to {}", on(occurrence.from, "%a %Y-%m-%d %H:%M"), on(occurrence.to, "%a %H:%M %Z"))
}

#[cfg(test)]
mod tests {
    use cpe_proto::definition::Deployable;

    use super::*;

    fn calendar(keys: &str) -> Result<Calendar, Flaw> {
        let text =
            format!("name = \"x\"\n[[maintenance]]\n{keys}\n[assemblies.a]\naddress = \"192.0.2.1\"\n");
        let deployable = Deployable::parse("x.toml", &text).unwrap();
        Calendar::of(&deployable.maintenance[0], at("2026-01-01T00:00:00Z"))
    }

    fn at(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    /// The next of them after a time, as they begin and end.
    fn next(keys: &str, after: &str, count: usize) -> Vec<String> {
        let calendar = calendar(keys).unwrap();
        let told = calendar
            .after(at(after))
            .take(count)
            .map(|it| format!("{} {}", timestamp(it.from), timestamp(it.to)));
        told.collect()
    }

    #[test]
    fn a_window_comes_again_on_its_days() {
        let weekend = "from = \"02:00\"\nfor = \"2h\"\ndays = [\"sat\", \"sun\"]";
        assert_eq!(
            next(weekend, "2026-11-22T03:00:00Z", 3),
            [
                "2026-11-22T02:00:00Z 2026-11-22T04:00:00Z",
                "2026-11-28T02:00:00Z 2026-11-28T04:00:00Z",
                "2026-11-29T02:00:00Z 2026-11-29T04:00:00Z"
            ],
            "one that lasts is the first"
        );
        let monthly =
            "from = \"23:30\"\nfor = \"1h\"\ndays = [\"second tue\", \"last fri\"]\nmonths = [\"feb\"]";
        assert_eq!(
            next(monthly, "2026-01-01T00:00:00Z", 3),
            [
                "2026-02-10T23:30:00Z 2026-02-11T00:30:00Z",
                "2026-02-27T23:30:00Z 2026-02-28T00:30:00Z",
                "2027-02-09T23:30:00Z 2027-02-10T00:30:00Z"
            ]
        );
        let last = "from = \"00:00\"\nfor = \"1day\"\ndates = [\"last\"]\nmonths = [\"feb\"]";
        assert_eq!(next(last, "2027-03-01T00:00:00Z", 1), ["2028-02-29T00:00:00Z 2028-03-01T00:00:00Z"]);
    }

    #[test]
    fn what_the_clocks_skip_is_later_and_what_they_show_twice_is_the_first() {
        let nightly = "from = \"02:30\"\nfor = \"2h\"\nzone = \"Europe/Berlin\"";
        assert_eq!(
            next(nightly, "2026-03-28T12:00:00Z", 2),
            [
                // 02:30 does not exist: 03:30 on the clocks that were put forward.
                "2026-03-29T01:30:00Z 2026-03-29T03:30:00Z",
                "2026-03-30T00:30:00Z 2026-03-30T02:30:00Z"
            ]
        );
        assert_eq!(
            next(nightly, "2026-10-24T12:00:00Z", 2),
            [
                // 02:30 is there twice; two hours pass, whatever the clocks show then.
                "2026-10-25T00:30:00Z 2026-10-25T02:30:00Z",
                "2026-10-26T01:30:00Z 2026-10-26T03:30:00Z"
            ]
        );
    }

    #[test]
    fn a_moment_is_read_and_shown_on_the_clocks_of_a_zone() {
        let berlin = |text: &str| moment(text, "Europe/Berlin").unwrap();
        assert_eq!(berlin("2026-07-01T14:30"), Some(at("2026-07-01T12:30:00Z")));
        assert_eq!(berlin("2026-10-25T02:30"), Some(at("2026-10-25T00:30:00Z")), "the first of two");
        assert_eq!(berlin("2026-03-29T02:30"), Some(at("2026-03-29T01:30:00Z")), "as 03:30");
        assert_eq!((berlin("yesterday"), berlin("1969-01-01T00:00")), (None, None));
        let shown = local("America/New_York", at("2026-11-23T00:05:00Z"));
        assert_eq!(shown, Ok(Local { week_day: 7, day: 22, minutes: 19 * 60 + 5 }));
        assert!(local("Europe/Nowhere", 0).is_err() && moment("2026-07-01T14:30", "x").is_err());
    }

    #[test]
    fn a_long_window_is_found_while_it_lasts() {
        let week = calendar("from = \"22:00\"\nfor = \"7days\"\ndates = [\"1\"]").unwrap();
        let found = week.at(at("2026-05-08T21:59:59Z")).map(|it| it.from);
        assert_eq!(found, Some(at("2026-05-01T22:00:00Z")));
        assert_eq!(week.at(at("2026-05-08T22:00:00Z")), None, "its end is no part of it");
        assert_eq!(week.at(at("2026-05-01T21:59:59Z")), None);
    }

    #[test]
    fn a_window_that_never_happens_and_a_zone_that_is_not_known_are_told() {
        let flaw = |keys: &str| calendar(&format!("from = \"02:00\"\nfor = \"2h\"\n{keys}")).err();
        assert_eq!(flaw("dates = [\"30\"]\nmonths = [\"feb\"]"), Some(Flaw::Never));
        assert_eq!(flaw("dates = [\"20\"]\ndays = [\"first mon\"]"), Some(Flaw::Never));
        assert_eq!(flaw("dates = [\"29\"]\nmonths = [\"feb\"]\ndays = [\"sun\"]"), None, "in 2032");
        assert_eq!(flaw("zone = \"Europe/Nowhere\""), Some(Flaw::Zone("Europe/Nowhere".to_owned())));
    }
}
