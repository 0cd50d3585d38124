//! What can happen in a world, as a script or a seed orders it: faults, what operators do, changes of definitions. Each prints as one
//! clause for a transcript. What it does to the world is in `faults.rs`, when it happens in a random world is in `draw.rs`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::definition::Deployable;
use cpe_proto::id::Name;
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;

use super::machine::Lie;

/// `deployable/assembly`, or with a service `deployable/assembly/service`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The deployable.
    pub deployable: Name,
    /// The assembly.
    pub assembly: Name,
    /// The service, if it is about one.
    pub service: Option<Name>,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.deployable, self.assembly)?;
        match &self.service {
            Some(service) => write!(out, "/{service}"),
            None => Ok(()),
        }
    }
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// To a service.
    Service(Place, ServiceFault),
    /// To a machine.
    Machine(Place, MachineFault),
    /// To all machines of a failure domain at once.
    Domain(Name, MachineFault),
    /// Nothing passes between cpe and what is meant, for so long.
    Cut(Side, Duration),
    /// To an infrastructure, for so long.
    Infrastructure(Name, InfrastructureFault, Duration),
    /// To the next operation of an infrastructure that changes something.
    Operation(Name, Fate),
    /// To cpe itself.
    Controller(ControllerFault),
    /// The engine of a deployable panics, at what it is told after so many more things.
    Panic(Name, u32),
    /// Somebody orders something.
    Operator(Operator),
    /// The definition of a deployable is changed, or is there again.
    Define(Arc<Deployable>),
    /// The definition of a deployable is removed; its machines are left alone.
    Remove(Name),
}

/// What happens to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceFault {
    /// It dies, once.
    Crash,
    /// It dies, and again so long after each start.
    CrashLoop(Duration),
    /// It dies, and no start helps.
    Broken,
    /// Its probes do not end, for so long; a start mends it.
    Hang(Duration),
    /// Its probes take so long, for so long.
    Slow(Duration, Duration),
    /// It comes and goes in this rhythm, for so long.
    Flap(Duration, Duration),
    /// It dies or works as before, and its probes say the contrary for so long.
    Lie(Lie, Duration),
    /// It works, and its probes say that a person should look at it, for so long. Only of plugins and resources.
    Warns(Duration),
    /// Somebody masks it.
    Masked,
    /// Its unit file vanishes.
    NotFound,
    /// It is stuck on its way up.
    Activating,
    /// It works again, whatever it had.
    Mended,
}

/// What happens to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineFault {
    /// It loses its power.
    PowerLoss,
    /// Its kernel hangs.
    Hang,
    /// It reboots by itself.
    Reboots,
    /// What it runs on dies, for so long: it is off, and boots again only after that or elsewhere.
    HostDies(Duration),
    /// Its kernel hangs, and again after each boot until its disk is made anew.
    NeverBoots,
    /// Its instance vanishes.
    Vanishes,
    /// The infrastructure fails it.
    Fails,
    /// Its answers take so long, for so long.
    Slow(Duration, Duration),
    /// Its SSH server fails so, for so long.
    Door(ChannelFailure, Duration),
    /// Nothing reaches it, for so long.
    Cut(Duration),
    /// The infrastructure says this of it, whatever is true, for so long.
    Claimed(InstanceState, Duration),
    /// Another controller takes it, and gives it back after so long.
    Taken(Duration),
    /// Somebody powers it off on purpose.
    StoppedByPerson,
    /// Somebody deletes it on purpose.
    DeletedByPerson,
    /// Somebody sees to it: it is there, on, and has no fault.
    Mended,
}

/// Which machines a cut concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// One.
    Machine(Place),
    /// Those of a failure domain.
    Domain(Name),
    /// All, and the canaries: cpe itself is cut off.
    Monitor,
    /// All but one path of evidence: machines cannot be reached, canaries can.
    AllMachines,
    /// The canaries: machines can be reached.
    Canaries,
}

/// What happens to an infrastructure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfrastructureFault {
    /// It does not answer: states are unknown, and no operation is begun.
    Down,
    /// It answers nothing at all, not even an error.
    Silent,
    /// What it does takes so much longer.
    Slow(Duration),
    /// It refuses every operation.
    Errors,
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is done, and its answer is lost.
    AnswerLost,
    /// It is done, and its answer comes twice.
    AnsweredTwice,
    /// It is done, and its answer comes so much later.
    AnsweredLate(Duration),
    /// It is done so much later.
    DoneLate(Duration),
    /// It is refused.
    Refused,
}

/// What happens to cpe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerFault {
    /// It ends without warning after so many more things that it does, and is started so long after that.
    Crash {
        /// 0: at once.
        after: u32,
        /// For how long it is down.
        down: Duration,
    },
    /// Its machine reboots: the clock since the boot begins anew, and it is down for so long.
    NodeReboot(Duration),
    /// Its journal cannot be written, for so long.
    JournalUnwritable(Duration),
    /// It stands still (suspended, SIGSTOP), for so long.
    Gap(Duration),
    /// It is late by so much with everything, for so long.
    Lag(Duration, Duration),
    /// Its wall clock is set, by so many seconds.
    ClockSet(i64),
}

/// What a person orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `cpe stop`.
    Stop(Name),
    /// `cpe stop --power-off`.
    PowerOff(Name),
    /// `cpe start`.
    Start(Name),
    /// `cpe maintenance on`, until it ends by itself. Of an assembly or of the whole deployable.
    Maintenance(Name, Option<Name>, Duration),
    /// `cpe maintenance off`.
    MaintenanceOff(Name, Option<Name>),
    /// `cpe pause`; none: everything.
    Pause(Option<Name>),
    /// `cpe resume`.
    Resume(Option<Name>),
    /// `cpe pause` of an assembly or a service.
    PausePart(Place),
    /// `cpe resume` of one.
    ResumePart(Place),
    /// `cpe retry`.
    Retry(Name, Option<Name>),
    /// `cpe ack`, of all that is open there.
    Ack(Name, Option<Name>),
    /// `cpe recover`, with a rung or the next one.
    Recover(Place, Option<Rung>),
    /// `cpe confirm-fenced`.
    ConfirmFenced(Place),
}

impl Happening {
    /// Its kind, as coverage counts it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Service(_, fault) => fault.kind(),
            Self::Machine(_, fault) => fault.kind(),
            Self::Domain(_, MachineFault::HostDies(_)) => "dead hypervisor",
            Self::Domain(_, MachineFault::Hang) => "outage of a domain, hung",
            Self::Domain(..) => "outage of a domain",
            Self::Cut(Side::Machine(_), _) => "partition of one",
            Self::Cut(Side::Domain(_), _) => "partition of a domain",
            Self::Cut(Side::Monitor, _) => "partition of the monitor",
            Self::Cut(Side::AllMachines, _) => "partition of all machines",
            Self::Cut(Side::Canaries, _) => "partition of the canaries",
            Self::Infrastructure(_, InfrastructureFault::Down, _) => "infrastructure down",
            Self::Infrastructure(_, InfrastructureFault::Silent, _) => "infrastructure silent",
            Self::Infrastructure(_, InfrastructureFault::Slow(_), _) => "infrastructure slow",
            Self::Infrastructure(_, InfrastructureFault::Errors, _) => "infrastructure errors",
            Self::Operation(_, fate) => fate.kind(),
            Self::Controller(fault) => fault.kind(),
            Self::Panic(_, 0) => "engine panics",
            Self::Panic(..) => "engine panics within a step",
            Self::Operator(order) => order.kind(),
            Self::Define(_) => "reload",
            Self::Remove(_) => "definition removed",
        }
    }
}

impl ServiceFault {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::CrashLoop(_) => "crash loop",
            Self::Broken => "broken for good",
            Self::Hang(_) => "service hang",
            Self::Slow(..) => "slow service",
            Self::Flap(..) => "flap",
            Self::Lie(Lie::Passes, _) => "probe passes a broken service",
            Self::Lie(Lie::Fails, _) => "probe fails a working service",
            Self::Warns(_) => "warns",
            Self::Masked => "masked",
            Self::NotFound => "unit not found",
            Self::Activating => "stuck activating",
            Self::Mended => "service mended",
        }
    }
}

impl MachineFault {
    const fn kind(&self) -> &'static str {
        match self {
            Self::PowerLoss => "power loss",
            Self::Hang => "kernel hang",
            Self::Reboots => "reboots by itself",
            Self::HostDies(_) => "dead hypervisor",
            Self::NeverBoots => "never boots",
            Self::Vanishes => "instance vanishes",
            Self::Fails => "instance fails",
            Self::Slow(..) => "slow machine",
            Self::Door(ChannelFailure::Refused, _) => "ssh refused",
            Self::Door(ChannelFailure::AuthenticationFailed, _) => "ssh authentication fails",
            Self::Door(ChannelFailure::HostKey, _) => "host key changes",
            Self::Door(..) => "ssh protocol error",
            Self::Cut(_) => "partition of one",
            Self::Claimed(InstanceState::Changing, _) => "foreign change",
            Self::Claimed(..) => "infrastructure lies about a state",
            Self::Taken(_) => "taken by another controller",
            Self::StoppedByPerson => "stopped by a person",
            Self::DeletedByPerson => "deleted by a person",
            Self::Mended => "machine mended",
        }
    }
}

impl Fate {
    const fn kind(self) -> &'static str {
        match self {
            Self::AnswerLost => "outcome lost",
            Self::AnsweredTwice => "outcome doubled",
            Self::AnsweredLate(_) => "outcome late",
            Self::DoneLate(_) => "done late",
            Self::Refused => "operation refused",
        }
    }
}

impl ControllerFault {
    const fn kind(self) -> &'static str {
        match self {
            Self::Crash { after: 0, .. } => "controller crash",
            Self::Crash { .. } => "controller crash within a step",
            Self::NodeReboot(_) => "management node reboots",
            Self::JournalUnwritable(_) => "journal unwritable",
            Self::Gap(_) => "tick gap",
            Self::Lag(..) => "lag",
            Self::ClockSet(_) => "clock jump",
        }
    }
}

impl Operator {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Stop(_) => "operator stops",
            Self::PowerOff(_) => "operator powers off",
            Self::Start(_) => "operator starts",
            Self::Maintenance(_, None, _) => "maintenance of a deployable",
            Self::Maintenance(..) => "maintenance of an assembly",
            Self::MaintenanceOff(..) => "maintenance ends early",
            Self::Pause(None) => "pause of everything",
            Self::Pause(_) => "pause of a deployable",
            Self::PausePart(Place { service: None, .. }) => "pause of an assembly",
            Self::PausePart(_) => "pause of a service",
            Self::Resume(_) | Self::ResumePart(_) => "resume",
            Self::Retry(..) => "retry",
            Self::Ack(..) => "acknowledged",
            Self::Recover(..) => "recovery by hand",
            Self::ConfirmFenced(_) => "confirmed as fenced",
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Service(place, fault) => write!(out, "{place}: {kind}{}", Spans(fault.spans())),
            Self::Machine(place, MachineFault::Claimed(state, lasts)) => {
                write!(out, "{place}: {kind}: {state}{}", Spans([Some(*lasts), None]))
            }
            Self::Machine(place, fault) => write!(out, "{place}: {kind}{}", Spans(fault.spans())),
            Self::Domain(domain, fault) => {
                write!(out, "domain {domain}: {}{}", fault.kind(), Spans(fault.spans()))
            }
            Self::Cut(Side::Machine(place), lasts) => {
                write!(out, "{place}: {kind}{}", Spans([Some(*lasts), None]))
            }
            Self::Cut(Side::Domain(domain), lasts) => {
                write!(out, "{kind} {domain}{}", Spans([Some(*lasts), None]))
            }
            Self::Cut(_, lasts) => write!(out, "{kind}{}", Spans([Some(*lasts), None])),
            Self::Infrastructure(name, InfrastructureFault::Slow(takes), lasts) => {
                write!(out, "{name}: {kind}{}", Spans([Some(*takes), Some(*lasts)]))
            }
            Self::Infrastructure(name, _, lasts) => {
                write!(out, "{name}: {kind}{}", Spans([Some(*lasts), None]))
            }
            Self::Operation(name, Fate::AnsweredLate(late) | Fate::DoneLate(late)) => {
                write!(out, "{name}: next {kind}{}", Spans([Some(*late), None]))
            }
            Self::Operation(name, _) => write!(out, "{name}: next {kind}"),
            Self::Controller(ControllerFault::Crash { after, down }) => {
                write!(out, "cpe: crash, {after} steps from now, down{}", Spans([Some(*down), None]))
            }
            Self::Controller(ControllerFault::ClockSet(seconds)) => write!(out, "cpe: {kind}, {seconds} s"),
            Self::Controller(
                ControllerFault::JournalUnwritable(lasts)
                | ControllerFault::Gap(lasts)
                | ControllerFault::NodeReboot(lasts),
            ) => {
                write!(out, "cpe: {kind}{}", Spans([Some(*lasts), None]))
            }
            Self::Controller(ControllerFault::Lag(lag, lasts)) => {
                write!(out, "cpe: {kind}{}", Spans([Some(*lag), Some(*lasts)]))
            }
            Self::Panic(name, after) => {
                write!(out, "{name}: its policy engine panics, {after} inputs from now")
            }
            Self::Operator(order) => write!(out, "{order}"),
            Self::Define(definition) => write!(out, "{}: {kind}", definition.name),
            Self::Remove(name) => write!(out, "{name}: {kind}"),
        }
    }
}

impl ServiceFault {
    const fn spans(&self) -> [Option<Duration>; 2] {
        match self {
            Self::CrashLoop(span) | Self::Hang(span) | Self::Lie(_, span) | Self::Warns(span) => {
                [Some(*span), None]
            }
            Self::Slow(one, two) | Self::Flap(one, two) => [Some(*one), Some(*two)],
            _ => [None, None],
        }
    }
}

impl MachineFault {
    const fn spans(&self) -> [Option<Duration>; 2] {
        match self {
            Self::Slow(one, two) => [Some(*one), Some(*two)],
            Self::Door(_, span)
            | Self::Cut(span)
            | Self::Claimed(_, span)
            | Self::HostDies(span)
            | Self::Taken(span) => [Some(*span), None],
            _ => [None, None],
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |deployable: &Name, assembly: &Option<Name>| match assembly {
            Some(assembly) => format!("{deployable}/{assembly}"),
            None => deployable.to_string(),
        };
        match self {
            Self::Stop(name) => write!(out, "operator: stop {name}"),
            Self::PowerOff(name) => write!(out, "operator: stop --power-off {name}"),
            Self::Start(name) => write!(out, "operator: start {name}"),
            Self::Maintenance(name, assembly, lasts) => {
                write!(out, "operator: maintenance on {}{}", of(name, assembly), Spans([Some(*lasts), None]))
            }
            Self::MaintenanceOff(name, assembly) => {
                write!(out, "operator: maintenance off {}", of(name, assembly))
            }
            Self::Pause(Some(name)) => write!(out, "operator: pause {name}"),
            Self::Pause(None) => out.write_str("operator: pause everything"),
            Self::Resume(Some(name)) => write!(out, "operator: resume {name}"),
            Self::Resume(None) => out.write_str("operator: resume everything"),
            Self::PausePart(place) => write!(out, "operator: pause {place}"),
            Self::ResumePart(place) => write!(out, "operator: resume {place}"),
            Self::Retry(name, assembly) => write!(out, "operator: retry {}", of(name, assembly)),
            Self::Ack(name, assembly) => write!(out, "operator: ack {}", of(name, assembly)),
            Self::Recover(place, Some(rung)) => write!(out, "operator: recover {place} by {rung}"),
            Self::Recover(place, None) => write!(out, "operator: recover {place}"),
            Self::ConfirmFenced(place) => write!(out, "operator: confirms that {place} is down"),
        }
    }
}

/// ", 1.5 s, 60.0 s".
struct Spans([Option<Duration>; 2]);

impl fmt::Display for Spans {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for span in self.0.into_iter().flatten() {
            write!(out, ", {:.1} s", span.as_secs_f64())?;
        }
        Ok(())
    }
}
