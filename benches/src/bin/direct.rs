//! What a direct probe costs: tcp, http over a kept connection, http over a new one each time.
//!
//!     cargo run --release -p cpe-benches --bin direct -- --targets 500 --pace 1000 --seconds 20
//!
//! The web server and the prober (cpe's own) are processes of their own, the prober a fresh one for each row. CPU time is the prober's, user
//! and system, of all its threads, less that of its start.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use cpe_benches::table::{Table, span};
use cpe_benches::{host, process};
use cpe_monitor::direct::{Prober, Purpose, Settings, Target};
use cpe_proto::definition::{Deployable, Direct};
use cpe_proto::id::ProbeId;
use cpe_proto::observation::Observation;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval, sleep};

#[derive(Debug, Parser)]
#[command(about = "CPU per direct probe")]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Things that are probed, all at one server.
    #[arg(long, default_value_t = 500, global = true)]
    targets: usize,
    /// Probes a second over all targets.
    #[arg(long, default_value_t = 1000, global = true)]
    pace: u32,
    /// How long each row is measured.
    #[arg(long, default_value_t = 20, global = true)]
    seconds: u64,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The web server's process; started by this program itself.
    #[command(hide = true)]
    Serve,
    /// The prober's process; started by this program itself.
    #[command(hide = true)]
    Probe { kind: Kind, port: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Tcp,
    HttpKept,
    HttpNew,
}

/// What the prober's process reports.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    cpu: Duration,
    probes: u64,
    /// Probes that were not answered as expected.
    wrong: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    match &arguments.part {
        Some(Part::Serve) => {
            println!("{}", runtime.block_on(serve())?);
            // It ends when its standard input does.
            std::io::stdin().read_to_end(&mut Vec::new())?;
            Ok(())
        }
        Some(Part::Probe { kind, port }) => {
            let report = runtime.block_on(probe(&arguments, *kind, *port))?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
        None => all(&arguments),
    }
}

fn all(arguments: &Arguments) -> anyhow::Result<()> {
    println!("{}", host::describe());
    println!(
        "{} targets, {} probes/s over all, {} s a row\n",
        arguments.targets, arguments.pace, arguments.seconds
    );
    let mut server = spawn(arguments, &["serve".to_owned()])?;
    let mut port = String::new();
    BufReader::new(server.stdout.take().context("the server has no output")?).read_line(&mut port)?;
    let mut table = Table::new(&["a probe is", "prober's CPU", "probes", "wrong"]);
    for kind in [Kind::Tcp, Kind::HttpKept, Kind::HttpNew] {
        let word = kind.to_possible_value().context("a kind has a word")?.get_name().to_owned();
        let mut prober = spawn(arguments, &["probe".to_owned(), word, port.trim().to_owned()])?;
        let mut text = String::new();
        prober.stdout.take().context("the prober has no output")?.read_to_string(&mut text)?;
        anyhow::ensure!(prober.wait()?.success(), "the prober failed");
        let report: Report = serde_json::from_str(&text).with_context(|| format!("its report: {text:?}"))?;
        let each = report.cpu.div_f64(report.probes.max(1) as f64);
        let what = match kind {
            Kind::Tcp => "tcp: a connection, closed again",
            Kind::HttpKept => "http: GET over a kept connection",
            Kind::HttpNew => "http: GET over a new connection",
        };
        table.row(&[what.to_owned(), span(each), report.probes.to_string(), report.wrong.to_string()]);
    }
    println!("{table}");
    drop(server.stdin.take());
    server.wait()?;
    Ok(())
}

fn spawn(arguments: &Arguments, part: &[String]) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(part);
    command.arg("--targets").arg(arguments.targets.to_string());
    command.arg("--pace").arg(arguments.pace.to_string());
    command.arg("--seconds").arg(arguments.seconds.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().context("this program cannot start itself")
}

/// A server that answers each request on a connection with the same few bytes; its port.
async fn serve() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    Ok(port)
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = [0; 1024];
    // A request of the prober comes in one piece.
    while stream.read(&mut request).await? > 0 {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
    }
    Ok(())
}

async fn probe(arguments: &Arguments, kind: Kind, port: u16) -> anyhow::Result<Report> {
    let kept = if kind == Kind::HttpNew { 0 } else { arguments.targets };
    let prober = Prober::new(Settings { kept, ..Settings::default() });
    let what = definition(kind, port)?;
    let targets: Vec<Arc<Target>> =
        (0..arguments.targets).map(|_| prober.target(Arc::clone(&what), "127.0.0.1".into())).collect();
    let (answered, wrong) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let wanted = u64::from(arguments.pace) * arguments.seconds;
    // 20 ms, as cpe's own timer gathers what is due.
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let before = process::own_cpu();
    let mut sent = 0;
    let mut next = targets.iter().cycle();
    while sent < wanted {
        ticks.tick().await;
        for target in next.by_ref().take(usize::try_from(arguments.pace / 50)?.max(1)) {
            let (answered, wrong) = (Arc::clone(&answered), Arc::clone(&wrong));
            target.submit(ProbeId(sent), Purpose::Service, Duration::from_secs(5), move |answer| {
                answered.fetch_add(1, Relaxed);
                if !matches!(answer.observation, Observation::Expected(_) | Observation::Connected) {
                    wrong.fetch_add(1, Relaxed);
                }
            });
            sent += 1;
        }
    }
    while answered.load(Relaxed) < sent {
        sleep(Duration::from_millis(20)).await;
    }
    let cpu = process::own_cpu().saturating_sub(before);
    Ok(Report { cpu, probes: sent, wrong: wrong.load(Relaxed) })
}

fn definition(kind: Kind, port: u16) -> anyhow::Result<Arc<Direct>> {
    let service = match kind {
        Kind::Tcp => format!("{{ tcp = {port}, from = \"controller\" }}"),
        Kind::HttpKept | Kind::HttpNew => format!("{{ http = \"http://{{own.address}}:{port}/\" }}"),
    };
    let text =
        format!("name = \"bench\"\n[assemblies.own]\naddress = \"127.0.0.1\"\nservices.s = {service}\n");
    let parsed = Deployable::parse("bench.toml", &text).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    let direct = parsed.services.first().and_then(|service| service.check.direct());
    direct.cloned().context("it is direct")
}
