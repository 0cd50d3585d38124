//! The bounds that `cpe check` prints for what it loaded (policy.md sections 1, 3 and 6, computed by `dped::bounds`): how long faults last at
//! worst, alone and all together, and the most that could be done in ten minutes.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use cpe_proto::definition::{Check, Deployable};
use cpe_proto::id::{AssemblyIndex, Name};
use cpe_proto::rung::Rung;
use dped::bounds::{self, Assumptions, FaultBounds, Managed, Rates};
use dped::describe::span;
use serde::Serialize;

use crate::load::{Context, Definitions};

/// A person reads so many lines; the rest is in `--json`.
const LINES_MAX: usize = 24;

/// What `--json` prints under `bounds`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Bounds {
    /// Faults of services whose machine answers.
    services: Vec<Fault>,
    /// Machines that hang.
    machines: Vec<Fault>,
    in_10_min: Most,
    /// After the last fault, all together.
    #[serde(skip_serializing_if = "Option::is_none")]
    healed: Option<Healed>,
}

/// From the last fault until everything is healthy, or exhausted and a person was told.
#[derive(Debug, Serialize)]
struct Healed {
    within_ms: u64,
    summands: Vec<Summand>,
}

#[derive(Debug, Serialize)]
struct Summand {
    what: &'static str,
    /// What it is made of.
    made_of: &'static str,
    ms: u64,
}

/// How long one kind of fault lasts at worst, in milliseconds from its beginning.
#[derive(Debug, Serialize)]
struct Fault {
    /// `deployable/assembly/service` or `deployable/assembly`.
    name: String,
    /// Until it is found; none: it is only reported, because nothing proves the path or nothing can reboot the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    found_ms: Option<u64>,
    /// Until a unit that stays `activating` is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    hung_start_found_ms: Option<u64>,
    /// Each attempt until it has worked or has failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rungs: Vec<Attempt>,
    /// Until every rung was tried in vain and a person is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    exhausted_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Attempt {
    rung: Rung,
    over_ms: u64,
}

/// The most actions of each rung in any ten minutes.
#[derive(Debug, Default, Serialize)]
struct Most {
    deployables: BTreeMap<Name, Rates>,
    infrastructures: BTreeMap<Name, Rates>,
    fleet: Rates,
}

/// Of everything that is in force.
pub(super) fn of(definitions: &Definitions) -> Bounds {
    let unknown = Context::default();
    let context = definitions.context().unwrap_or(&unknown);
    let all: Vec<&Deployable> = definitions.used().map(|it| &*it.deployable).collect();
    let peers = Peers::of(&all, context);
    let mut found = Bounds::default();
    for definition in &all {
        for index in definition.assembly_indices() {
            let assumed = context.assumptions(definition, peers.besides((&definition.name, index)));
            add_faults(&mut found, definition, index, &assumed);
        }
        let rates = bounds::rates(definition, &context.assumptions(definition, None), &context.guard);
        found.in_10_min.deployables.insert(definition.name.clone(), rates);
    }
    let mut shared: BTreeMap<Option<&Name>, Vec<&Rates>> = BTreeMap::new();
    for definition in &all {
        let rates = found.in_10_min.deployables.get(&definition.name);
        shared.entry(definition.infrastructure.as_ref()).or_default().extend(rates);
    }
    let mut fleet = Rates::new();
    for (infrastructure, rates) in shared {
        let together = bounds::together(rates, &context.guard);
        for (rung, most) in &together {
            *fleet.entry(*rung).or_default() += most;
        }
        found.in_10_min.infrastructures.extend(infrastructure.map(|name| (name.clone(), together)));
    }
    found.in_10_min.fleet = fleet;
    found.healed = healed(&all, &peers, context);
    found
}

fn healed(all: &[&Deployable], peers: &Peers<'_>, context: &Context) -> Option<Healed> {
    let managed = all.iter().map(|definition| {
        let each = definition.assembly_indices().map(|index| peers.besides((&definition.name, index)));
        let mut domains = definition.assemblies.iter().flat_map(|it| &it.failure_domains);
        let evacuated = domains.any(|domain| context.evacuated.contains(domain));
        Managed { definition, assumed: context.assumptions(definition, each.flatten().max()), evacuated }
    });
    let healing = bounds::healed(&managed.collect::<Vec<_>>(), &context.guard);
    let summands = healing.summands().into_iter();
    let summands = summands.map(|(what, made_of, of)| Summand { what, made_of, ms: millis(of) });
    let healed = Healed { within_ms: millis(healing.total()), summands: summands.collect() };
    (!all.is_empty()).then_some(healed)
}

fn add_faults(found: &mut Bounds, definition: &Deployable, index: AssemblyIndex, assumed: &Assumptions) {
    let machine = format!("{}/{}", definition.name, definition.assembly(index).name);
    for service in definition.services_of(index) {
        let part = definition.service(service);
        let unit = matches!(part.check, Check::Systemd(_));
        let bounds = bounds::service(definition, service, assumed);
        let hung = unit.then(|| millis(bounds::hung_start(&part.probe)));
        found.services.push(Fault {
            hung_start_found_ms: hung,
            ..fault(format!("{machine}/{}", part.name), Some(bounds))
        });
    }
    if definition.infrastructure.is_some() {
        found.machines.push(fault(machine, bounds::hung_machine(definition, index, assumed)));
    }
}

fn fault(name: String, bounds: Option<FaultBounds>) -> Fault {
    let found_ms = bounds.as_ref().map(|it| millis(it.detection));
    let exhausted_ms = bounds.as_ref().map(|it| millis(it.exhausted));
    let rungs = bounds.into_iter().flat_map(|it| it.rungs);
    let rungs = rungs.map(|it| Attempt { rung: it.rung, over_ms: millis(it.over) }).collect();
    Fault { name, found_ms, hung_start_found_ms: None, rungs, exhausted_ms }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Who proves the path of whom: canaries, or the two assemblies of all definitions that answer most often, of which one is another.
struct Peers<'a> {
    canaries: Option<Duration>,
    fastest: Vec<(Duration, (&'a Name, AssemblyIndex))>,
}

impl<'a> Peers<'a> {
    fn of(all: &[&'a Deployable], context: &Context) -> Self {
        let each = all.iter().flat_map(|definition| {
            let every = |index| bounds::answers_every(&definition.assembly(index).probe);
            definition.assembly_indices().map(move |index| (every(index), (&definition.name, index)))
        });
        let mut fastest: Vec<_> = each.collect();
        fastest.sort();
        fastest.truncate(2);
        let canaries = context.canaries.then_some(crate::canary::ANSWERS_EVERY);
        Self { canaries, fastest }
    }

    /// The longest between two answers of somebody else.
    fn besides(&self, who: (&Name, AssemblyIndex)) -> Option<Duration> {
        let peer = self.fastest.iter().find(|(_, other)| *other != who).map(|(every, _)| *every);
        [self.canaries, peer].into_iter().flatten().min()
    }
}

/// For a person: one line a fault, then the most in ten minutes.
pub(super) fn print(bounds: &Bounds, out: &mut impl Write) -> io::Result<()> {
    let faults: Vec<&Fault> = bounds.services.iter().chain(&bounds.machines).collect();
    if faults.is_empty() {
        return Ok(());
    }
    writeln!(out, "at worst, while cpe trusts itself and the gate refuses nothing:")?;
    let width = faults.iter().take(LINES_MAX).map(|it| it.name.len()).max().unwrap_or(0);
    for fault in faults.iter().take(LINES_MAX) {
        writeln!(out, "  {:<width$}  {}", fault.name, line(fault))?;
    }
    if let Some(more) = faults.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
        writeln!(out, "  and {more} more; `cpe check --json` has all of them")?;
    }
    let most = &bounds.in_10_min;
    for (name, rates) in most.infrastructures.iter().take(LINES_MAX) {
        writeln!(out, "in any 10 min at most, on {name}: {}", told(rates))?;
    }
    writeln!(out, "in any 10 min at most, in all: {}", told(&most.fleet))?;
    let Some(healed) = &bounds.healed else { return Ok(()) };
    let within = hours(healed.within_ms);
    writeln!(out, "at worst {within} after the last fault everything is healthy or a person was told:")?;
    for Summand { what, made_of, ms } in &healed.summands {
        writeln!(out, "  {:>10}  {what} ({made_of})", hours(*ms))?;
    }
    Ok(())
}

/// As [`span`], but above two hours with its minutes.
fn hours(millis: u64) -> String {
    let minutes = millis / 60_000;
    match (minutes / 60, minutes % 60) {
        (2.., 1..) => format!("{} h {} min", minutes / 60, minutes % 60),
        _ => span(Duration::from_millis(millis)),
    }
}

fn line(fault: &Fault) -> String {
    let after = |millis: u64| span(Duration::from_millis(millis));
    let Some(found) = fault.found_ms else { return "a hang is only reported".to_owned() };
    let mut words = vec![format!("found in {}", after(found))];
    let mut last: BTreeMap<Rung, u64> = BTreeMap::new();
    for attempt in &fault.rungs {
        last.insert(attempt.rung, attempt.over_ms);
    }
    words.extend(last.iter().map(|(rung, over)| format!("{} by {}", rung.past(), after(*over))));
    words.extend(fault.exhausted_ms.map(|at| format!("exhausted by {}", after(at))));
    words.join(", ")
}

fn told(rates: &Rates) -> String {
    if rates.is_empty() {
        return "nothing".to_owned();
    }
    rates.iter().map(|(rung, most)| format!("{most} {rung}")).collect::<Vec<_>>().join(", ")
}
