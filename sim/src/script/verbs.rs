//! What can happen in a scenario: each verb with its usage, and what it makes of the rest of its line. What it does to the world is
//! `world/faults.rs`'s.

use cpe_proto::infrastructure::InstanceState;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;

use super::Reader;
use super::line::{Line, Wrong, near, shown};
use super::names::Names;
use crate::world::{
    ControllerFault, Fate, Happening, InfrastructureFault, Lie, MachineFault, Operator, Place, ServiceFault,
    Side,
};

/// One verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its first word.
    pub verb: &'static str,
    /// How it is written.
    pub usage: &'static str,
    /// What happens.
    pub about: &'static str,
}

const fn usage(verb: &'static str, usage: &'static str, about: &'static str) -> Usage {
    Usage { verb, usage, about }
}

/// Everything that can happen. SERVICE and MACHINE are `shop/web/nginx` and `shop/web`, with `*` for any part of a name.
pub const GRAMMAR: [Usage; 31] = [
    usage("kill", "kill SERVICE", "it dies, once"),
    usage("crash-loop", "crash-loop SERVICE every SPAN", "it dies, and again so long after each start"),
    usage("break", "break SERVICE", "it dies, and no start helps"),
    usage(
        "hang",
        "hang SERVICE for SPAN | hang MACHINE | hang domain NAME",
        "probes do not end; a kernel hangs",
    ),
    usage("slow", "slow SERVICE|MACHINE by SPAN for SPAN", "its answers take that much longer"),
    usage("flap", "flap SERVICE every SPAN for SPAN", "it comes and goes"),
    usage("lie", "lie SERVICE passes|fails for SPAN", "its probes say the contrary of what is so"),
    usage(
        "warn",
        "warn SERVICE for SPAN",
        "it works, and its plugin or resource agent says that a person should look at it",
    ),
    usage("mask", "mask SERVICE", "somebody masks the unit"),
    usage("uninstall", "uninstall SERVICE", "its unit file vanishes"),
    usage("stall", "stall SERVICE", "it stays activating"),
    usage("mend", "mend SERVICE|MACHINE", "somebody sees to it"),
    usage("power-off", "power-off MACHINE | power-off domain NAME", "the power fails"),
    usage(
        "host-dies",
        "host-dies domain NAME for SPAN",
        "its machines are off, and boot only after that or elsewhere",
    ),
    usage("reboot", "reboot MACHINE", "it reboots by itself"),
    usage("wreck", "wreck MACHINE", "it hangs, and again after each boot until its disk is made anew"),
    usage("vanish", "vanish MACHINE", "its instance is gone"),
    usage("fail", "fail MACHINE", "the infrastructure says: error"),
    usage("refuse", "refuse MACHINE for SPAN", "its sshd refuses connections"),
    usage("lock-out", "lock-out MACHINE for SPAN", "it does not take our key"),
    usage("change-key", "change-key MACHINE for SPAN", "it shows another host key"),
    usage("claim", "claim MACHINE STATE for SPAN", "the infrastructure says so, whatever is true"),
    usage("take", "take MACHINE for SPAN", "another controller's mark is on it"),
    usage("person", "person stops|deletes MACHINE", "somebody does that on purpose"),
    usage(
        "cut",
        "cut MACHINE|domain NAME|monitor|machines|canaries for SPAN",
        "nothing passes; `monitor` is cpe itself",
    ),
    usage(
        "cloud",
        "cloud NAME down|silent|errors for SPAN | cloud NAME slow by SPAN for SPAN",
        "an infrastructure ails",
    ),
    usage(
        "next",
        "next NAME answer-lost|answered-twice|refused | next NAME answered-late|done-late by SPAN",
        "what becomes of its next operation",
    ),
    usage(
        "cpe",
        "cpe crashes for SPAN [after N] | cpe stands-still for SPAN | cpe lags by SPAN for SPAN | cpe cannot-write for SPAN | cpe clock SECONDS | cpe panics DEPLOYABLE | cpe node-reboots for SPAN",
        "something happens to the controller",
    ),
    usage(
        "operator",
        "operator stop|power-off|start|pause|resume|retry|ack|recover|confirm-fenced|maintenance ...",
        "as the command of that name",
    ),
    usage("define", "define FILE", "a definition is changed, or is there again"),
    usage("remove", "remove DEPLOYABLE", "a definition is removed"),
];

/// What the rest of a line orders.
pub(super) fn happenings(
    line: &mut Line<'_>,
    names: Names<'_>,
    reader: Reader<'_>,
) -> Result<Vec<Happening>, Wrong> {
    let at = line.at();
    let verb = line.word("what happens, as `kill shop/web/nginx`")?;
    match verb {
        "kill" => services(line, names, |_| Ok(ServiceFault::Crash)),
        "crash-loop" => services(line, names, |line| every(line).map(ServiceFault::CrashLoop)),
        "break" => services(line, names, |_| Ok(ServiceFault::Broken)),
        "flap" => services(line, names, |line| Ok(ServiceFault::Flap(every(line)?, line.lasts()?))),
        "lie" => services(line, names, |line| {
            let lie = line.one_of(&[("passes", Lie::Passes), ("fails", Lie::Fails)])?;
            Ok(ServiceFault::Lie(lie, line.lasts()?))
        }),
        "warn" => services(line, names, |line| line.lasts().map(ServiceFault::Warns)),
        "mask" => services(line, names, |_| Ok(ServiceFault::Masked)),
        "uninstall" => services(line, names, |_| Ok(ServiceFault::NotFound)),
        "stall" => services(line, names, |_| Ok(ServiceFault::Activating)),
        "hang" => hang(line, names),
        "host-dies" => {
            line.must("domain")?;
            let domain = names.domain(line)?;
            Ok(vec![Happening::Domain(domain, MachineFault::HostDies(line.lasts()?))])
        }
        "slow" => parts(line, names, |line, service| {
            line.must("by")?;
            let (by, lasts) = (line.span()?, line.lasts()?);
            Ok(if service {
                Fault::Service(ServiceFault::Slow(by, lasts))
            } else {
                Fault::Machine(MachineFault::Slow(by, lasts))
            })
        }),
        "mend" => parts(line, names, |_, service| {
            Ok(if service {
                Fault::Service(ServiceFault::Mended)
            } else {
                Fault::Machine(MachineFault::Mended)
            })
        }),
        "power-off" if line.takes("domain") => {
            Ok(vec![Happening::Domain(names.domain(line)?, MachineFault::PowerLoss)])
        }
        "power-off" => machines(line, names, |_| Ok(MachineFault::PowerLoss)),
        "reboot" => machines(line, names, |_| Ok(MachineFault::Reboots)),
        "wreck" => machines(line, names, |_| Ok(MachineFault::NeverBoots)),
        "vanish" => machines(line, names, |_| Ok(MachineFault::Vanishes)),
        "fail" => machines(line, names, |_| Ok(MachineFault::Fails)),
        "refuse" => door(line, names, ChannelFailure::Refused),
        "lock-out" => door(line, names, ChannelFailure::AuthenticationFailed),
        "change-key" => door(line, names, ChannelFailure::HostKey),
        "claim" => machines(line, names, |line| {
            use InstanceState as S;
            let states = [S::Active, S::Off, S::Error, S::Gone, S::Changing, S::Unknown];
            let state = line.one_of(&states.map(|state| (state.as_str(), state)))?;
            Ok(MachineFault::Claimed(state, line.lasts()?))
        }),
        "take" => machines(line, names, |line| line.lasts().map(MachineFault::Taken)),
        "person" => {
            let known =
                [("stops", MachineFault::StoppedByPerson), ("deletes", MachineFault::DeletedByPerson)];
            let fault = line.one_of(&known)?;
            machines(line, names, |_| Ok(fault))
        }
        "cut" => cut(line, names),
        "cloud" => cloud(line, names),
        "next" => next(line, names),
        // What panics is the policy engine of one deployable.
        "cpe" if line.takes("panics") => Ok(vec![Happening::Panic(names.deployable(line)?, 0)]),
        "cpe" => controller(line).map(|fault| vec![Happening::Controller(fault)]),
        "operator" => operator(line, names),
        "define" => {
            let at = line.at();
            let file = line.word("a definition's file")?;
            let definition = reader(file).map_err(|problem| (at, problem))?;
            Ok(vec![Happening::Define(definition)])
        }
        "remove" => Ok(vec![Happening::Remove(names.deployable(line)?)]),
        verb => {
            let known = GRAMMAR.map(|usage| usage.verb);
            let list = known.map(|verb| format!("`{verb}`")).join(", ");
            Err((at, format!("`{}`{}, expected one of {list}", shown(verb), near(verb, known))))
        }
    }
}

fn services(
    line: &mut Line<'_>,
    names: Names<'_>,
    fault: impl Fn(&mut Line<'_>) -> Result<ServiceFault, Wrong>,
) -> Result<Vec<Happening>, Wrong> {
    let places = names.services(line)?;
    let fault = fault(line)?;
    Ok(places.into_iter().map(|place| Happening::Service(place, fault)).collect())
}

fn machines(
    line: &mut Line<'_>,
    names: Names<'_>,
    fault: impl Fn(&mut Line<'_>) -> Result<MachineFault, Wrong>,
) -> Result<Vec<Happening>, Wrong> {
    let places = names.machines(line)?;
    let fault = fault(line)?;
    Ok(places.into_iter().map(|place| Happening::Machine(place, fault)).collect())
}

/// A fault of whatever a name says.
#[derive(Clone, Copy)]
enum Fault {
    Service(ServiceFault),
    Machine(MachineFault),
}

fn parts(
    line: &mut Line<'_>,
    names: Names<'_>,
    fault: impl Fn(&mut Line<'_>, bool) -> Result<Fault, Wrong>,
) -> Result<Vec<Happening>, Wrong> {
    let places = names.parts(line)?;
    let of_service = places.first().is_some_and(|place| place.service.is_some());
    let fault = fault(line, of_service)?;
    let happening = |place: Place| match fault {
        Fault::Service(fault) => Happening::Service(place, fault),
        Fault::Machine(fault) => Happening::Machine(place, fault),
    };
    Ok(places.into_iter().map(happening).collect())
}

fn hang(line: &mut Line<'_>, names: Names<'_>) -> Result<Vec<Happening>, Wrong> {
    if line.takes("domain") {
        return Ok(vec![Happening::Domain(names.domain(line)?, MachineFault::Hang)]);
    }
    parts(line, names, |line, service| {
        Ok(if service {
            Fault::Service(ServiceFault::Hang(line.lasts()?))
        } else {
            Fault::Machine(MachineFault::Hang)
        })
    })
}

fn every(line: &mut Line<'_>) -> Result<std::time::Duration, Wrong> {
    line.must("every")?;
    line.span()
}

fn door(line: &mut Line<'_>, names: Names<'_>, failure: ChannelFailure) -> Result<Vec<Happening>, Wrong> {
    machines(line, names, |line| Ok(MachineFault::Door(failure, line.lasts()?)))
}

fn cut(line: &mut Line<'_>, names: Names<'_>) -> Result<Vec<Happening>, Wrong> {
    let sides = match line.peek() {
        Some("monitor") => vec![Side::Monitor],
        Some("machines") => vec![Side::AllMachines],
        Some("canaries") => vec![Side::Canaries],
        Some("domain") => {
            line.takes("domain");
            vec![Side::Domain(names.domain(line)?)]
        }
        _ => names.machines(line)?.into_iter().map(Side::Machine).collect(),
    };
    if matches!(sides.as_slice(), [Side::Monitor | Side::AllMachines | Side::Canaries]) {
        line.word("a side")?;
    }
    let lasts = line.lasts()?;
    Ok(sides.into_iter().map(|side| Happening::Cut(side, lasts)).collect())
}

fn cloud(line: &mut Line<'_>, names: Names<'_>) -> Result<Vec<Happening>, Wrong> {
    use InfrastructureFault as F;
    let name = names.infrastructure(line)?;
    let known = [
        ("down", F::Down),
        ("silent", F::Silent),
        ("errors", F::Errors),
        ("slow", F::Slow(std::time::Duration::ZERO)),
    ];
    let mut fault = line.one_of(&known)?;
    if let F::Slow(takes) = &mut fault {
        line.must("by")?;
        *takes = line.span()?;
    }
    Ok(vec![Happening::Infrastructure(name, fault, line.lasts()?)])
}

fn next(line: &mut Line<'_>, names: Names<'_>) -> Result<Vec<Happening>, Wrong> {
    let name = names.infrastructure(line)?;
    let zero = std::time::Duration::ZERO;
    let known = [
        ("answer-lost", Fate::AnswerLost),
        ("answered-twice", Fate::AnsweredTwice),
        ("refused", Fate::Refused),
        ("answered-late", Fate::AnsweredLate(zero)),
        ("done-late", Fate::DoneLate(zero)),
    ];
    let mut fate = line.one_of(&known)?;
    if let Fate::AnsweredLate(late) | Fate::DoneLate(late) = &mut fate {
        line.must("by")?;
        *late = line.span()?;
    }
    Ok(vec![Happening::Operation(name, fate)])
}

fn controller(line: &mut Line<'_>) -> Result<ControllerFault, Wrong> {
    match line.one_of(&[
        ("crashes", 0),
        ("stands-still", 1),
        ("lags", 2),
        ("cannot-write", 3),
        ("clock", 4),
        ("node-reboots", 5),
    ])? {
        0 => {
            let down = line.lasts()?;
            let after = if line.takes("after") { line.number(1_000)? } else { 0 };
            Ok(ControllerFault::Crash { after, down })
        }
        1 => Ok(ControllerFault::Gap(line.lasts()?)),
        2 => {
            line.must("by")?;
            Ok(ControllerFault::Lag(line.span()?, line.lasts()?))
        }
        3 => Ok(ControllerFault::JournalUnwritable(line.lasts()?)),
        5 => Ok(ControllerFault::NodeReboot(line.lasts()?)),
        _ => {
            let at = line.at();
            let word = line.word("seconds, as `3600` or `-3600`")?;
            // A year each way: what a person mistypes, or a broken battery.
            let seconds = word.parse::<i64>().ok().filter(|it| it.abs() <= 31_557_600);
            let wrong = || (at, format!("`{}`, expected seconds, at most a year either way", shown(word)));
            seconds.map(ControllerFault::ClockSet).ok_or_else(wrong)
        }
    }
}

fn operator(line: &mut Line<'_>, names: Names<'_>) -> Result<Vec<Happening>, Wrong> {
    let at = line.at();
    let order = match line.word("what the operator orders")? {
        "stop" => Operator::Stop(names.deployable(line)?),
        "power-off" => Operator::PowerOff(names.deployable(line)?),
        "start" => Operator::Start(names.deployable(line)?),
        word @ ("pause" | "resume") if line.peek().is_some_and(|name| name.contains('/')) => {
            let order = if word == "pause" { Operator::PausePart } else { Operator::ResumePart };
            let places = names.parts(line)?.into_iter();
            return Ok(places.map(|place| Happening::Operator(order(place))).collect());
        }
        "pause" => Operator::Pause(line.peek().is_some().then(|| names.deployable(line)).transpose()?),
        "resume" => Operator::Resume(line.peek().is_some().then(|| names.deployable(line)).transpose()?),
        "retry" => {
            let (deployable, assembly) = names.deployable_or_assembly(line)?;
            Operator::Retry(deployable, assembly)
        }
        "ack" => {
            let (deployable, assembly) = names.deployable_or_assembly(line)?;
            Operator::Ack(deployable, assembly)
        }
        "maintenance" => maintenance(line, names)?,
        "confirm-fenced" => Operator::ConfirmFenced(names.machine(line)?),
        "recover" => {
            let places = names.parts(line)?;
            let rungs = Rung::ALL.map(|rung| (rung.as_str(), rung));
            let rung = if line.takes("by") { Some(line.one_of(&rungs)?) } else { None };
            let order = |place| Happening::Operator(Operator::Recover(place, rung));
            return Ok(places.into_iter().map(order).collect());
        }
        word => {
            let known = [
                "stop",
                "power-off",
                "start",
                "pause",
                "resume",
                "retry",
                "ack",
                "maintenance",
                "confirm-fenced",
                "recover",
            ];
            let list = known.map(|word| format!("`{word}`")).join(", ");
            return Err((at, format!("`{}`, expected {list}{}", shown(word), near(word, known))));
        }
    };
    Ok(vec![Happening::Operator(order)])
}

/// `maintenance NAME for SPAN`, `maintenance off NAME`.
fn maintenance(line: &mut Line<'_>, names: Names<'_>) -> Result<Operator, Wrong> {
    if line.takes("off") {
        let (deployable, assembly) = names.deployable_or_assembly(line)?;
        return Ok(Operator::MaintenanceOff(deployable, assembly));
    }
    let (deployable, assembly) = names.deployable_or_assembly(line)?;
    Ok(Operator::Maintenance(deployable, assembly, line.lasts()?))
}
