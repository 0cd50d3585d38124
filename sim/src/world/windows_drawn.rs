//! `[[maintenance]]` in random worlds: windows within the hour that is lived, in time zones, many of them while clocks are put forward or back;
//! what breaks within one; reloads that bring one or take it away.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use cpe_calendar::{local, moment};
use cpe_proto::definition::Deployable;

use super::Planned;
use super::dice::Dice;
use super::draw::parse;
use super::fleet::Fleet;
use super::happening::{ControllerFault, Happening, MachineFault, Operator, Place, ServiceFault};

/// When a world begins, in UTC, and the zones that it shows something of: clocks there are put forward or back within an hour, or the day
/// ends. From the IANA database.
const MOMENTS: [(&str, &[&str]); 7] = [
    ("2026-03-29T00:35", &["Europe/Berlin", "Europe/London", "UTC"]),
    ("2026-10-25T00:25", &["Europe/Berlin", "Europe/Lisbon", "UTC"]),
    ("2026-03-08T06:40", &["America/New_York", "America/Chicago"]),
    ("2026-11-01T05:30", &["America/New_York", "America/Havana"]),
    ("2026-04-04T14:30", &["Australia/Lord_Howe", "Australia/Sydney"]),
    ("2026-12-31T14:30", &["Asia/Tokyo", "Asia/Kolkata"]),
    ("2026-11-18T11:20", &["UTC", "America/St_Johns"]),
];

const WEEK: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Gives windows to some definitions of some fleets; what happens because of them.
pub(super) fn windows(
    fleet: &mut Fleet,
    texts: &mut [String],
    dice: &mut Dice,
    lasts: Duration,
) -> Vec<Planned> {
    let mut plan = Vec::new();
    if !dice.one_in(3) {
        return plan;
    }
    let (begins, zones) = dice.of(&MOMENTS);
    let Ok(Some(wall)) = moment(begins, "UTC") else { return plan };
    fleet.wall = wall;
    for (place, text) in texts.iter_mut().enumerate() {
        let bare = Arc::clone(&fleet.definitions[place]);
        if place > 0 && dice.one_in(2) {
            continue;
        }
        for _ in 0..=dice.roll(2) {
            let at = dice.between(Duration::ZERO, lasts);
            let length = dice.seconds(60, 1500);
            let zone = dice.of(zones);
            let Some(window) = window(dice, &bare, wall, at, length, zone) else { continue };
            text.push_str(&window);
            let within = at + dice.between(Duration::ZERO, length);
            plan.extend(breaks(dice, &bare, within));
            plan.extend(ends(dice, &bare, within));
        }
        let kept = parse(text);
        let changes = dice.between(Duration::from_secs(30), lasts);
        let back = changes + dice.seconds(5, 900);
        match dice.roll(4) {
            0 => {
                plan.push(Planned { at: changes, happening: Happening::Define(bare) });
                plan.push(Planned { at: back, happening: Happening::Define(Arc::clone(&kept)) });
                fleet.definitions[place] = kept;
            }
            // The world begins without them.
            1 => plan.push(Planned { at: changes, happening: Happening::Define(kept) }),
            _ => fleet.definitions[place] = kept,
        }
    }
    plan
}

/// One that begins after so long, or an hour beside that by what the clocks of its zone do.
fn window(
    dice: &mut Dice,
    definition: &Deployable,
    wall: u64,
    at: Duration,
    length: Duration,
    zone: &str,
) -> Option<String> {
    let begins = wall + u64::try_from(at.as_millis()).ok()?;
    let shown = local(zone, begins).ok()?;
    let earlier = shown.minutes.checked_sub(60).filter(|_| dice.one_in(4));
    let from = earlier.unwrap_or(shown.minutes);
    let mut text = format!(
        "\n[[maintenance]]\nfrom = \"{:02}:{:02}\"\nfor = \"{}s\"\nzone = \"{zone}\"\n",
        from / 60,
        from % 60,
        length.as_secs()
    );
    // None comes again within a week.
    let _ = if dice.one_in(2) {
        writeln!(text, "dates = [\"{}\"]", shown.day)
    } else {
        writeln!(text, "days = [\"{}\"]", WEEK[usize::from(shown.week_day.max(1) - 1) % WEEK.len()])
    };
    if dice.one_in(2) {
        let assembly = dice.of(&definition.assemblies).name;
        let _ = writeln!(text, "assemblies = [\"{assembly}\"]");
    }
    Some(text)
}

/// Something is taken down within a window.
fn breaks(dice: &mut Dice, definition: &Deployable, at: Duration) -> Option<Planned> {
    let (deployable, assembly) = (definition.name.clone(), dice.of(&definition.assemblies).name);
    let index = definition.assembly_named(assembly.as_str())?;
    let service = definition.services_of(index).next().map(|it| definition.service(it).name.clone());
    let happening = match dice.roll(4) {
        0 => return None,
        1 => Happening::Machine(Place { deployable, assembly, service: None }, MachineFault::PowerLoss),
        2 => Happening::Machine(Place { deployable, assembly, service: None }, MachineFault::Hang),
        _ => {
            service.as_ref()?;
            Happening::Service(Place { deployable, assembly, service }, ServiceFault::Crash)
        }
    };
    Some(Planned { at, happening })
}

/// A person ends it, orders a shorter maintenance within it, or sets the clock.
fn ends(dice: &mut Dice, definition: &Deployable, at: Duration) -> Option<Planned> {
    let assembly = dice.one_in(2).then(|| dice.of(&definition.assemblies).name);
    let name = definition.name.clone();
    let order = match dice.roll(8) {
        3 => {
            let seconds = i64::try_from(dice.roll(2400)).unwrap_or(0) - 1200;
            let happening = Happening::Controller(ControllerFault::ClockSet(seconds));
            return Some(Planned { at, happening });
        }
        0 | 1 => Operator::MaintenanceOff(name, assembly),
        2 => Operator::Maintenance(name, assembly, dice.seconds(20, 200)),
        _ => return None,
    };
    Some(Planned { at, happening: Happening::Operator(order) })
}
