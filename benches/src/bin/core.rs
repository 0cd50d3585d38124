//! What the policy core costs: CPU time per input, and bytes per deployable, with 1, 2 and 10 assemblies of two services.
//!
//!     cargo run --release -p cpe-benches --bin core
//!
//! The engines run under virtual time, as fast as they can, in a world that answers each probe at once; nothing else runs. Each row is a
//! process of its own, so that its memory is its own. Memory is the difference of private memory (USS), by definition and by engine.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use cpe_benches::host;
use cpe_benches::process::{memory_of, own_cpu};
use cpe_benches::table::{Table, kilobytes, span};
use cpe_proto::decision::Answer;
use cpe_proto::definition::{Definition, Deployable};
use cpe_proto::id::{ActionId, IncidentId, ServiceIndex};
use cpe_proto::infrastructure::Capabilities;
use cpe_proto::observation::{Observation, UnitState};
use cpe_proto::time::Timestamp;
use dped::{Act, ActionOutcome, Desired, Engine, Input, Output, Seed, Surroundings, Target};
use serde::{Deserialize, Serialize};

/// Services of each assembly.
const SERVICES: usize = 2;
/// The interval of all probes, as in the definitions below.
const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Parser)]
#[command(about = "CPU per input and bytes per deployable of the policy core")]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Engines in each row.
    #[arg(long, default_value_t = 1000, global = true)]
    engines: usize,
    /// Virtual time that is measured, of the healthy fleet and again of the one that is recovered.
    #[arg(long, default_value_t = 600, global = true)]
    seconds: u64,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// One row; started by this program itself.
    #[command(hide = true)]
    Row { assemblies: usize },
}

/// What one row's process reports.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    definition_bytes: f64,
    engine_bytes: f64,
    healthy: Sum,
    recovering: Sum,
}

/// What the engines did in a span of virtual time.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Sum {
    inputs: u64,
    probes: u64,
    actions: u64,
    records: u64,
    cpu: Duration,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Part::Row { assemblies }) = arguments.part {
        println!("{}", serde_json::to_string(&row(&arguments, assemblies)?)?);
        return Ok(());
    }
    println!("{}", host::describe());
    println!(
        "{} engines a row, {SERVICES} systemd services an assembly, probes every {} s, {} s of virtual time\n",
        arguments.engines,
        INTERVAL.as_secs(),
        arguments.seconds
    );
    let mut table = Table::new(&[
        "assemblies",
        "healthy: CPU per input",
        "inputs/s on one core",
        "CPU per deployable and minute",
        "one service of each broken and restarted: CPU per incident",
        "definition",
        "engine",
        "both, per assembly",
    ]);
    for assemblies in [1, 2, 10] {
        table.row(&cells(&arguments, assemblies, &run_row(&arguments, assemblies)?));
    }
    println!("{table}");
    Ok(())
}

fn run_row(arguments: &Arguments, assemblies: usize) -> anyhow::Result<Report> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("row").arg(assemblies.to_string());
    command.arg("--engines").arg(arguments.engines.to_string());
    command.arg("--seconds").arg(arguments.seconds.to_string());
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "the row of {assemblies} assemblies failed: {said}");
    serde_json::from_slice(&output.stdout).context("the row's report")
}

fn cells(arguments: &Arguments, assemblies: usize, report: &Report) -> Vec<String> {
    let per_input = report.healthy.cpu.as_secs_f64() / report.healthy.inputs.max(1) as f64;
    let deployable_minutes = (arguments.engines as f64) * (arguments.seconds as f64) / 60.0;
    // What the same probes of the same span cost without the faults is taken off.
    let probes = report.recovering.probes as f64 / report.healthy.probes.max(1) as f64;
    let extra = report.recovering.cpu.as_secs_f64() - report.healthy.cpu.as_secs_f64() * probes;
    let incident = extra.max(0.0) / report.recovering.actions.max(1) as f64;
    vec![
        assemblies.to_string(),
        span(Duration::from_secs_f64(per_input)),
        format!("{:.1} million", 1e-6 / per_input),
        span(Duration::from_secs_f64(report.healthy.cpu.as_secs_f64() / deployable_minutes)),
        format!("{} ({} restarts)", span(Duration::from_secs_f64(incident)), report.recovering.actions),
        kilobytes(report.definition_bytes),
        kilobytes(report.engine_bytes),
        kilobytes((report.definition_bytes + report.engine_bytes) / assemblies as f64),
    ]
}

fn row(arguments: &Arguments, assemblies: usize) -> anyhow::Result<Report> {
    let uss = || memory_of(std::process::id()).map(|memory| memory.uss);
    let per_engine = |bytes: u64| bytes as f64 / arguments.engines as f64;
    // Whatever is allocated once is allocated now.
    drop(definition(assemblies, 0)?);
    let start = uss()?;
    let definitions = (0..arguments.engines)
        .map(|number| definition(assemblies, number))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let defined = uss()?;
    let mut world = World::new(definitions);
    let span = Duration::from_secs(arguments.seconds);
    // Until all are healthy, and their first incidents, if any, are over.
    world.run(Duration::from_secs(120));
    let settled = uss()?;
    let healthy = world.run(span);
    anyhow::ensure!(healthy.actions == 0, "a healthy fleet was acted upon");
    world.break_one_of_each();
    let recovering = world.run(span);
    anyhow::ensure!(recovering.actions == arguments.engines as u64, "{} restarts", recovering.actions);
    Ok(Report {
        definition_bytes: per_engine(defined.saturating_sub(start)),
        engine_bytes: per_engine(settled.saturating_sub(defined)),
        healthy,
        recovering,
    })
}

fn definition(assemblies: usize, number: usize) -> anyhow::Result<Arc<Deployable>> {
    let mut text = format!("name = \"shop-{number}\"\n[probe]\ninterval = \"{} s\"\n", INTERVAL.as_secs());
    for assembly in 0..assemblies {
        let host = [10, number / 250, number % 250, assembly].map(|byte| byte.to_string()).join(".");
        write!(text, "[assemblies.web-{assembly}]\naddress = \"{host}\"\nfailure_domains = [\"rack-1\"]\n")?;
        for service in 0..SERVICES {
            write!(
                text,
                "[assemblies.web-{assembly}.services.s{service}]\nsystemd = \"s{service}.service\"\n"
            )?;
        }
    }
    let definition = Definition::parse("bench.toml", &text);
    let definition =
        definition.map_err(|errors| anyhow::anyhow!("the benchmark's definition: {errors:?}"))?;
    Ok(definition.deployable)
}

/// Engines and what they watch, under one virtual clock.
struct World {
    now: Timestamp,
    engines: Vec<Engine>,
    /// The first broken service of each deployable, if any.
    broken: Vec<Option<ServiceIndex>>,
    /// When each engine wants to be woken, soonest first; an entry that is not the engine's last is stale.
    wakes: BinaryHeap<Reverse<(Timestamp, usize)>>,
    next: Vec<Option<Timestamp>>,
    sum: Sum,
}

impl World {
    fn new(definitions: Vec<Arc<Deployable>>) -> Self {
        let now = Timestamp::from_boot(Duration::from_secs(3600));
        let seed = |number| Seed {
            first_action: ActionId(1),
            first_incident: IncidentId(1),
            random: number,
            desired: Desired::Running,
            maintenance: Vec::new(),
        };
        let engines: Vec<Engine> = definitions
            .into_iter()
            .zip(0..)
            .map(|(definition, number)| Engine::new(definition, seed(number), now))
            .collect();
        let count = engines.len();
        let mut world = Self {
            now,
            engines,
            broken: vec![None; count],
            wakes: BinaryHeap::with_capacity(2 * count),
            next: vec![None; count],
            sum: Sum::default(),
        };
        for index in 0..count {
            world.serve(index);
        }
        world
    }

    fn break_one_of_each(&mut self) {
        self.broken.fill(Some(ServiceIndex(0)));
    }

    /// Lets that much virtual time pass.
    fn run(&mut self, span: Duration) -> Sum {
        let end = self.now.after(span);
        self.sum = Sum::default();
        let start = own_cpu();
        while let Some(Reverse((at, index))) =
            self.wakes.peek().copied().filter(|Reverse((at, _))| *at <= end)
        {
            self.wakes.pop();
            if self.next[index] != Some(at) {
                continue;
            }
            self.now = self.now.max(at);
            self.next[index] = None;
            self.sum.inputs += 1;
            self.engines[index].handle_timeout(self.now);
            self.serve(index);
        }
        self.now = end;
        self.sum.cpu = own_cpu() - start;
        self.sum
    }

    /// Carries out what an engine wants, until it wants no more.
    fn serve(&mut self, index: usize) {
        while let Some(output) = self.engines[index].poll_output() {
            if let Some(input) = self.answer(index, output) {
                self.sum.inputs += 1;
                self.engines[index].handle_input(input, self.now);
            }
        }
        let wake = self.engines[index].poll_timeout().map(|(at, _)| at.max(self.now));
        if wake != self.next[index] {
            self.next[index] = wake;
            self.wakes.extend(wake.map(|at| Reverse((at, index))));
        }
    }

    fn answer(&mut self, index: usize, output: Output) -> Option<Input> {
        match output {
            Output::Probe { probe, target, .. } => {
                self.sum.probes += 1;
                Some(Input::Probed { probe, observation: self.observe(index, target), void: false })
            }
            Output::AskSurroundings(assembly) => {
                Some(Input::Surroundings { assembly, surroundings: surroundings() })
            }
            Output::AskAdmission(request) => {
                Some(Input::Admission { action: request.action, answer: Answer::Admitted, gates: Vec::new() })
            }
            Output::Act(action) => {
                self.sum.actions += 1;
                if let Act::RestartService(_) = action.act {
                    self.broken[index] = None;
                }
                Some(Input::Acted {
                    action: action.action,
                    outcome: ActionOutcome::Done { detail: "".into() },
                })
            }
            Output::Report(_) | Output::Record(_) | Output::Answer { .. } | Output::Notify { .. } => {
                self.sum.records += 1;
                None
            }
            _ => None,
        }
    }

    fn observe(&self, index: usize, target: Target) -> Observation {
        let Target::Service(service) = target else { return Observation::Alive };
        let [active, sub] = match self.broken[index] == Some(service) {
            true => ["failed", "failed"],
            false => ["active", "running"],
        };
        Observation::Unit(UnitState { load: "loaded".into(), active: active.into(), sub: sub.into() })
    }
}

fn surroundings() -> Surroundings {
    Surroundings {
        self_trusted: true,
        held_domain: None,
        path_answered_ago: Some(Duration::ZERO),
        path_answered_by: "a peer".into(),
        capabilities: Some(Capabilities::default()),
    }
}
