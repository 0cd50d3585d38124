//! What a probe costs over SSH, by the resident shell and by exec, beside a plain TCP echo at the same pace in the same run.
//!
//!     cargo run --release -p cpe-benches --bin ssh -- --sessions 500 --pace 1000 --seconds 20
//!
//! Servers (`serve.rs`: a live fleet, or TCP echo) and prober (`client.rs`: cpe's own SSH monitor, or TCP) are processes of their own,
//! fresh for each row, so that each row's memory is its own. CPU time is the prober's, user and system, of all its threads.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

mod client;
mod serve;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use cpe_benches::table::{Table, kilobytes, span};
use cpe_benches::{host, process};
use serde::{Deserialize, Serialize};

#[derive(Debug, Parser)]
#[command(about = "CPU per probe and memory per session: SSH (resident shell, exec) beside plain TCP")]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Sessions, each to a machine of its own.
    #[arg(long, default_value_t = 500, global = true)]
    sessions: usize,
    /// Rounds a second over all sessions.
    #[arg(long, default_value_t = 1000, global = true)]
    pace: u32,
    /// How long each row is measured.
    #[arg(long, default_value_t = 20, global = true)]
    seconds: u64,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The servers' process; started by this program itself.
    #[command(hide = true)]
    Serve { kind: Kind, folder: PathBuf },
    /// The prober's process; started by this program itself.
    #[command(hide = true)]
    Client { kind: Kind, probes: usize, tick_ms: u64, folder: PathBuf },
}

/// How a round goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// 64 bytes there and back over plain TCP.
    Tcp,
    /// A batch of probes by the resident shell.
    Resident,
    /// A batch of probes by one exec each.
    Exec,
}

/// What the prober's process reports.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Report {
    /// CPU time to connect all sessions.
    connect_cpu: Duration,
    /// CPU time of the measured rounds.
    cpu: Duration,
    rounds: u64,
    answers: u64,
    /// Answers that were not the expected ones.
    wrong: u64,
    /// Bytes of PSS per session, once connected and once used.
    connected_bytes: f64,
    used_bytes: f64,
    p50: Duration,
    p99: Duration,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match &arguments.part {
        Some(Part::Serve { kind, folder }) => serve::run(*kind, arguments.sessions, folder),
        Some(Part::Client { kind, probes, tick_ms, folder }) => {
            let settings = client::Settings {
                kind: *kind,
                probes: *probes,
                tick: Duration::from_millis(*tick_ms),
                sessions: arguments.sessions,
                pace: arguments.pace,
                duration: Duration::from_secs(arguments.seconds),
            };
            println!("{}", serde_json::to_string(&client::run(&settings, folder)?)?);
            Ok(())
        }
        None => all(&arguments),
    }
}

fn all(arguments: &Arguments) -> anyhow::Result<()> {
    println!("{}", host::describe());
    println!(
        "{} sessions, {} rounds/s over all, {} s a row; prober and servers are two processes on this machine\n",
        arguments.sessions, arguments.pace, arguments.seconds
    );
    let mut table = Table::new(&[
        "a round is",
        "sends",
        "prober CPU per round",
        "per probe",
        "servers' CPU per round",
        "PSS per session, connected",
        "used",
        "connect CPU per session",
        "round trip p50",
        "p99",
        "rounds",
        "wrong",
    ]);
    for (kind, probes) in [(Kind::Tcp, 1), (Kind::Resident, 1), (Kind::Resident, 4), (Kind::Exec, 1)] {
        for tick_ms in [1, 20] {
            table.row(&row(arguments, kind, probes, tick_ms)?);
        }
    }
    println!("{table}");
    println!(
        "Servers run an imitated guest and their CPU includes all logins: it is not a real guest's. Memory is the prober's, \
         without the kernel's part of a socket."
    );
    Ok(())
}

fn row(arguments: &Arguments, kind: Kind, probes: usize, tick_ms: u64) -> anyhow::Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let mut server = spawn(arguments, kind, folder.path(), &["serve"], &[])?;
    let ready = server.stdout.take().context("the servers' process has no output")?;
    let mut line = String::new();
    BufReader::new(ready).read_line(&mut line)?;
    anyhow::ensure!(line.trim() == "ready", "the servers did not start: {line:?}");
    let before = process::cpu_of(server.id())?;
    let numbers = [probes.to_string(), tick_ms.to_string()];
    let mut client = spawn(arguments, kind, folder.path(), &["client"], &numbers)?;
    let mut text = String::new();
    client.stdout.take().context("the prober's process has no output")?.read_to_string(&mut text)?;
    anyhow::ensure!(client.wait()?.success(), "the prober failed");
    let servers = process::cpu_of(server.id())?.saturating_sub(before);
    // The servers end when their standard input does.
    drop(server.stdin.take());
    server.wait()?;
    let report: Report =
        serde_json::from_str(&text).with_context(|| format!("the prober's report: {text:?}"))?;
    Ok(cells(arguments, kind, probes, tick_ms, servers, &report))
}

fn spawn(
    arguments: &Arguments,
    kind: Kind,
    folder: &Path,
    part: &[&str],
    numbers: &[String],
) -> anyhow::Result<Child> {
    let kind = kind.to_possible_value().context("a kind has a word")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(part).arg(kind.get_name()).args(numbers).arg(folder);
    command.arg("--sessions").arg(arguments.sessions.to_string());
    command.arg("--pace").arg(arguments.pace.to_string());
    command.arg("--seconds").arg(arguments.seconds.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().context("this program cannot start itself")
}

fn cells(
    arguments: &Arguments,
    kind: Kind,
    probes: usize,
    tick_ms: u64,
    servers: Duration,
    report: &Report,
) -> Vec<String> {
    let each = |time: Duration, count: u64| span(time.div_f64(count.max(1) as f64));
    let round = match kind {
        Kind::Tcp => "64 bytes over TCP".to_owned(),
        Kind::Resident => format!("{probes} unit probe(s), resident shell"),
        Kind::Exec => format!("{probes} unit probe(s), exec"),
    };
    vec![
        round,
        format!("{tick_ms} ms ticks"),
        each(report.cpu, report.rounds),
        each(report.cpu, report.answers),
        each(servers, report.rounds),
        kilobytes(report.connected_bytes),
        kilobytes(report.used_bytes),
        each(report.connect_cpu, arguments.sessions as u64),
        span(report.p50),
        span(report.p99),
        report.rounds.to_string(),
        report.wrong.to_string(),
    ]
}
