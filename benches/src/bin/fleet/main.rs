//! What one `cpe` costs that watches a whole fleet: 2,000 assemblies at 5 s, by default, as a live fleet in this process, while `cpe` runs
//! as a process of its own, with its real configuration, journal and metrics.
//!
//!     cargo build --release -p cpe && cargo run --release -p cpe-benches --bin fleet -- --assemblies 2000 --seconds 60
//!
//! Two spans: a quiet one, then one in which units are killed one after the other and must run again. `site.rs` writes the files,
//! `scrape.rs` reads cpe's metrics.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

mod scrape;
mod site;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use cpe_benches::host;
use cpe_benches::process::{Memory, cpu_of, memory_of, own_cpu};
use cpe_benches::table::{Table, kilobytes, quantile, span};
use cpe_sim::live::{Counts, Fleet, Happening, Machine, What};
use tokio::sync::broadcast;

use scrape::Scrape;
use site::Site;

/// How long the fleet may take to become healthy, and a killed unit to run again.
const DEADLINE: Duration = Duration::from_secs(300);

#[derive(Debug, Parser)]
#[command(about = "One cpe process that watches a whole live fleet: CPU, memory, lateness, detection")]
struct Arguments {
    /// Machines, each with two systemd units.
    #[arg(long, default_value_t = 2000)]
    assemblies: usize,
    /// Assemblies of one deployable.
    #[arg(long, default_value_t = 2)]
    per_deployable: usize,
    /// The interval of all probes, in seconds.
    #[arg(long, default_value_t = 5)]
    interval: u64,
    /// How long the quiet span is measured.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Units that are killed after it, one every 200 ms.
    #[arg(long, default_value_t = 100)]
    kill: usize,
    /// The program to measure [default: `cpe` beside this program].
    #[arg(long)]
    cpe: Option<PathBuf>,
}

/// The controller's process; it is ended with this program's, whatever happens.
struct Controller(Child);

impl Drop for Controller {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is read at the start and at the end of a span.
struct Reading {
    at: Instant,
    cpe_cpu: Duration,
    own_cpu: Duration,
    memory: Memory,
    counts: Counts,
    metrics: Scrape,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let program = match &arguments.cpe {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("cpe"),
    };
    anyhow::ensure!(program.exists(), "no {}: build it by `cargo build --release -p cpe`", program.display());
    println!("{}", host::describe());
    println!(
        "{} assemblies in {} deployables, 2 systemd services each, every probe every {} s; {} s measured; cpe and the fleet are two \
         processes on this machine\n",
        arguments.assemblies,
        arguments.assemblies.div_ceil(arguments.per_deployable),
        arguments.interval,
        arguments.seconds
    );
    let runtime = tokio::runtime::Runtime::new()?;
    let site =
        runtime.block_on(Site::build(arguments.assemblies, arguments.per_deployable, arguments.interval))?;
    let start = Instant::now();
    let mut controller = Controller(start_cpe(&program, &site)?);
    until_healthy(&arguments, &site, &mut controller)?;
    println!("healthy {} after the start of cpe", span(start.elapsed()));
    // The logins of the start are over, but what they allocated is still being reused.
    std::thread::sleep(Duration::from_secs(2 * arguments.interval));

    let before = read(&controller, &site)?;
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    let after = read(&controller, &site)?;
    println!("\n{}", quiet_table(&arguments, &before, &after)?);
    if arguments.kill > 0 {
        let happenings = site.fleet.observe();
        let times = runtime.block_on(kill(Arc::clone(&site.fleet), happenings, arguments.kill));
        let last = read(&controller, &site)?;
        println!("{}", kill_table(&arguments, times?, &after, &last));
    }
    Ok(())
}

fn start_cpe(program: &std::path::Path, site: &Site) -> anyhow::Result<Child> {
    let log = std::fs::File::create(site.log())?;
    let mut command = Command::new(program);
    command.arg("--config").arg(site.config()).arg("run").stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

fn until_healthy(arguments: &Arguments, site: &Site, controller: &mut Controller) -> anyhow::Result<()> {
    let end = Instant::now() + DEADLINE;
    let mut healthy = 0.0;
    while Instant::now() < end {
        if let Some(status) = controller.0.try_wait()? {
            let log = std::fs::read_to_string(site.log()).unwrap_or_default();
            anyhow::bail!("cpe ended with {status}:\n{log}");
        }
        // Before its listener is up there is nothing to read.
        if let Ok(metrics) = Scrape::of(site.metrics) {
            healthy = metrics.value("cpe_assemblies{state=\"healthy\"}");
            if healthy as usize == arguments.assemblies {
                return Ok(());
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let log = std::fs::read_to_string(site.log()).unwrap_or_default();
    let start: String = log.lines().take(20).map(|line| format!("{line}\n")).collect();
    anyhow::bail!(
        "{healthy} of {} assemblies are healthy after {DEADLINE:?}; cpe's log begins:\n{start}",
        arguments.assemblies
    )
}

fn read(controller: &Controller, site: &Site) -> anyhow::Result<Reading> {
    let pid = controller.0.id();
    Ok(Reading {
        at: Instant::now(),
        cpe_cpu: cpu_of(pid)?,
        own_cpu: own_cpu(),
        memory: memory_of(pid)?,
        counts: site.fleet.counts(),
        metrics: Scrape::of(site.metrics)?,
    })
}

fn quiet_table(arguments: &Arguments, before: &Reading, after: &Reading) -> anyhow::Result<Table> {
    let wall = after.at - before.at;
    let cpu = after.cpe_cpu.saturating_sub(before.cpe_cpu);
    let probes = after.metrics.sum("cpe_probes_total") - before.metrics.sum("cpe_probes_total");
    let failed = probes - (after.metrics.passed() - before.metrics.passed());
    anyhow::ensure!(probes > 0.0, "cpe's metrics count no probe");
    let assemblies = arguments.assemblies as f64;
    let at_most = |name: &str, share: f64| match after.metrics.quantile_since(&before.metrics, name, share) {
        Some(seconds) => format!("at most {}", span(Duration::from_secs_f64(seconds))),
        None => "above the last bucket".to_owned(),
    };
    let rounds = after.counts.resident_rounds - before.counts.resident_rounds;
    let per = |what: f64| format!("{what:.1}");
    let mut table = Table::new(&["quiet fleet", "value"]);
    let mut row = |what: &str, value: String| table.row(&[what.to_owned(), value]);
    row("probes", format!("{} /s ({} not passed)", per(probes / wall.as_secs_f64()), failed));
    row("round trips", format!("{} /s", per(rounds as f64 / wall.as_secs_f64())));
    row("cpe's CPU", format!("{} % of one core", per(100.0 * cpu.as_secs_f64() / wall.as_secs_f64())));
    row("cpe's CPU per probe", span(cpu.div_f64(probes)));
    row("cpe's CPU per assembly and minute", span(cpu.mul_f64(60.0 / wall.as_secs_f64() / assemblies)));
    row("cpe's memory, PSS", format!("{:.1} MB", after.memory.pss as f64 / 1e6));
    row("cpe's memory, USS", format!("{:.1} MB", after.memory.uss as f64 / 1e6));
    row("PSS per assembly", kilobytes(after.memory.pss as f64 / assemblies));
    row("lateness p50", at_most("cpe_lateness_seconds", 0.5));
    row("lateness p99", at_most("cpe_lateness_seconds", 0.99));
    row("probe's round trip p50", at_most("cpe_probe_duration_seconds", 0.5));
    row("probe's round trip p99", at_most("cpe_probe_duration_seconds", 0.99));
    let fleet = after.own_cpu.saturating_sub(before.own_cpu);
    row(
        "the fleet's own CPU",
        format!("{} % of one core", per(100.0 * fleet.as_secs_f64() / wall.as_secs_f64())),
    );
    Ok(table)
}

/// Kills a unit on one machine after the other and returns how long each was away.
async fn kill(
    fleet: Arc<Fleet>,
    mut happenings: broadcast::Receiver<Happening>,
    count: usize,
) -> anyhow::Result<Vec<Duration>> {
    let step = (fleet.machines().len() / count).max(1);
    let victims: Vec<Arc<Machine>> = fleet.machines().iter().step_by(step).take(count).cloned().collect();
    let expected = victims.len();
    tokio::spawn(async move {
        for machine in victims {
            // Its first unit is one that every machine of the site has.
            let _ = machine.kill_unit(site::UNITS[0]);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let mut killed = std::collections::BTreeMap::new();
    let mut times = Vec::new();
    while times.len() < expected {
        let happening = tokio::time::timeout(DEADLINE, happenings.recv()).await;
        let happening =
            happening.with_context(|| format!("{} of {expected} units run again", times.len()))??;
        match happening.what {
            What::UnitKilled(_) => drop(killed.insert(happening.machine, happening.at)),
            What::UnitStarted(_) => {
                times.extend(killed.remove(&happening.machine).map(|at| happening.at.saturating_sub(at)));
            }
            _ => {}
        }
    }
    Ok(times)
}

fn kill_table(arguments: &Arguments, mut times: Vec<Duration>, before: &Reading, after: &Reading) -> Table {
    let wall = after.at - before.at;
    let cpu = after.cpe_cpu.saturating_sub(before.cpe_cpu);
    let mut table = Table::new(&["units killed, one every 200 ms", "value"]);
    let mut row = |what: &str, value: String| table.row(&[what.to_owned(), value]);
    row("killed and running again", times.len().to_string());
    row("from kill to start, p50", span(quantile(&mut times, 0.5)));
    row("from kill to start, p99", span(quantile(&mut times, 0.99)));
    row("from kill to start, slowest", span(quantile(&mut times, 1.0)));
    row(
        "at best, on average (interval / 2 + confirmation)",
        span(Duration::from_millis(500 * arguments.interval + 500)),
    );
    row(
        "cpe's CPU meanwhile",
        format!("{:.1} % of one core", 100.0 * cpu.as_secs_f64() / wall.as_secs_f64()),
    );
    table
}
