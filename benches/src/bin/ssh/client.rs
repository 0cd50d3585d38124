//! The prober's process: connects all sessions, sends rounds at the pace, and reports what it used.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cpe_benches::process::{memory_of, own_cpu};
use cpe_benches::table::quantile;
use cpe_monitor::ssh::{Answer, Endpoint, Identity, Monitor, Probe, ProbeRequest, Session};
use cpe_proto::definition::{Check, UnitName};
use cpe_proto::id::ProbeId;
use cpe_proto::observation::Observation;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::serve::{MESSAGE_BYTES, UNITS};
use crate::{Kind, Report};

/// How long all sessions together may take to connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(120);
/// The deadline of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Settings {
    pub(crate) kind: Kind,
    pub(crate) probes: usize,
    pub(crate) tick: Duration,
    pub(crate) sessions: usize,
    pub(crate) pace: u32,
    pub(crate) duration: Duration,
}

/// What came back.
#[derive(Debug, Default)]
struct Tally {
    answers: AtomicU64,
    wrong: AtomicU64,
    times: Mutex<Vec<Duration>>,
}

impl Tally {
    fn count(&self, right: bool, time: Duration) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if !right {
            self.wrong.fetch_add(1, Ordering::Relaxed);
        }
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
    }

    fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    async fn until(&self, answers: u64, deadline: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + deadline;
        while self.answers() < answers {
            anyhow::ensure!(Instant::now() < end, "{} of {answers} answers came in time", self.answers());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn forget(&self) {
        self.answers.store(0, Ordering::Relaxed);
        self.wrong.store(0, Ordering::Relaxed);
        self.times.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A way to send a round.
enum Line {
    Tcp(mpsc::Sender<()>),
    Ssh(Session, usize),
}

impl Line {
    fn send(&self, number: u64) {
        match self {
            // The queue is full only where the echo is slower than the pace; then a round is not sent, which the count shows.
            Self::Tcp(rounds) => drop(rounds.try_send(())),
            Self::Ssh(session, probes) => session.submit(units(number, *probes)),
        }
    }
}

fn units(number: u64, probes: usize) -> Vec<ProbeRequest> {
    let parsed = UNITS.iter().take(probes).filter_map(|unit| UnitName::parse(unit).ok());
    let request = |unit| ProbeRequest {
        probe: ProbeId(number),
        what: Probe::Check(Check::Systemd(unit)),
        timeout: PROBE_TIMEOUT,
    };
    parsed.map(request).collect()
}

pub(crate) fn run(settings: &Settings, folder: &Path) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(settings, folder))
}

async fn measure(settings: &Settings, folder: &Path) -> anyhow::Result<Report> {
    let tally = Arc::new(Tally::default());
    let sessions = settings.sessions as u64;
    let pss = || memory_of(std::process::id()).map(|memory| memory.pss);
    let rounds_expected = settings.duration.as_secs() * u64::from(settings.pace);
    let answers_expected =
        usize::try_from(rounds_expected).unwrap_or_default() * settings.probes + settings.sessions;
    // Written once, so that the memory of the measurement itself is there before anything is measured.
    tally.times.lock().unwrap_or_else(PoisonError::into_inner).resize(answers_expected, Duration::MAX);
    tally.forget();
    let (cpu_start, pss_start) = (own_cpu(), pss()?);
    let lines = connect(settings, folder, &tally).await?;
    let (connect_cpu, pss_connected) = (own_cpu() - cpu_start, pss()?);

    tally.forget();
    for line in &lines {
        line.send(0);
    }
    tally.until(sessions * settings.probes as u64, CONNECT_DEADLINE).await?;
    anyhow::ensure!(tally.wrong.load(Ordering::Relaxed) == 0, "the first round was answered wrongly");
    tally.forget();

    let cpu_start = own_cpu();
    let rounds = pace(settings, &lines).await;
    tally.until(rounds * settings.probes as u64, PROBE_TIMEOUT).await?;
    let cpu = own_cpu() - cpu_start;
    let pss_used = pss()?;
    let per_session = |bytes: u64| bytes.saturating_sub(pss_start) as f64 / sessions as f64;
    let mut times = tally.times.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Report {
        connect_cpu,
        cpu,
        rounds,
        answers: tally.answers(),
        wrong: tally.wrong.load(Ordering::Relaxed),
        connected_bytes: per_session(pss_connected),
        used_bytes: per_session(pss_used),
        p50: quantile(&mut times, 0.5),
        p99: quantile(&mut times, 0.99),
    })
}

/// Sends rounds to one session after the other; what is due within a tick is sent together. Returns how many.
async fn pace(settings: &Settings, lines: &[Line]) -> u64 {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(settings.tick);
    let mut sent = 0u64;
    while start.elapsed() < settings.duration {
        ticks.tick().await;
        let due = (start.elapsed().min(settings.duration).as_secs_f64() * f64::from(settings.pace)) as u64;
        while sent < due {
            lines[usize::try_from(sent).unwrap_or_default() % lines.len()].send(sent);
            sent += 1;
        }
    }
    sent
}

async fn connect(settings: &Settings, folder: &Path, tally: &Arc<Tally>) -> anyhow::Result<Vec<Line>> {
    let addresses = std::fs::read_to_string(folder.join("addresses"))?;
    let addresses: Vec<std::net::SocketAddr> = addresses.lines().map(str::parse).collect::<Result<_, _>>()?;
    let mut lines = Vec::new();
    match settings.kind {
        Kind::Tcp => {
            let address = addresses.first().context("no address of the echo")?;
            for _ in 0..settings.sessions {
                lines.push(tcp(*address, Arc::clone(tally)).await?);
            }
        }
        Kind::Resident | Kind::Exec => {
            let monitor = monitor(folder)?;
            for address in &addresses {
                let tally = Arc::clone(tally);
                let answers =
                    move |answer: Answer| tally.count(is_right(&answer), answer.finished - answer.asked);
                let endpoint = Endpoint {
                    label: "bench".to_owned(),
                    address: address.ip().to_string(),
                    port: Some(address.port()),
                    ..Endpoint::default()
                };
                let session = monitor.session(endpoint, Box::new(answers));
                let what = Probe::Channel;
                session.submit(vec![ProbeRequest { probe: ProbeId(0), what, timeout: CONNECT_DEADLINE }]);
                lines.push(Line::Ssh(session, settings.probes));
            }
            tally.until(addresses.len() as u64, CONNECT_DEADLINE).await?;
        }
    }
    Ok(lines)
}

fn monitor(folder: &Path) -> anyhow::Result<Monitor> {
    let settings = cpe_monitor::ssh::Settings {
        user: cpe_sim::live::USER.to_owned(),
        identities: vec![Identity::File(folder.join("identity"))],
        known_hosts: vec![folder.join("known_hosts")],
        connects_per_second: 10_000,
        ..cpe_monitor::ssh::Settings::default()
    };
    Ok(Monitor::new(settings)?)
}

fn is_right(answer: &Answer) -> bool {
    match &answer.observation {
        Observation::Alive => true,
        Observation::Unit(unit) => &*unit.active == "active",
        _ => false,
    }
}

async fn tcp(address: std::net::SocketAddr, tally: Arc<Tally>) -> anyhow::Result<Line> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, mut rounds) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut message = [7; MESSAGE_BYTES];
        while rounds.recv().await.is_some() {
            let start = Instant::now();
            let sent = stream.write_all(&message).await;
            let right = sent.is_ok() && stream.read_exact(&mut message).await.is_ok();
            tally.count(right, start.elapsed());
        }
    });
    Ok(Line::Tcp(sender))
}
