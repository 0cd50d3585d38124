//! The crash that rule 4 of design.md section 4 is about: cpe is killed right after an intent became durable and before anything was
//! done. The next cpe must know of it. This program is its own victim: it starts itself as a child that announces each durable intent.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use cpe::journal::{Journal, Settings};
use cpe::metrics::Metrics;
use cpe_proto::api::Intent;
use cpe_proto::id::{ActionId, Name};

const VICTIM: &str = "CPE_TEST_VICTIM_STATE_DIR";
const INTENTS: u64 = 20;

fn main() -> anyhow::Result<()> {
    if let Some(state_dir) = env::var_os(VICTIM) {
        return tokio::runtime::Runtime::new()?.block_on(victim(Path::new(&state_dir)));
    }
    // Killed after the first, and in the middle of many.
    for announced in [1, 7, INTENTS] {
        killed_after(announced).with_context(|| format!("killed after {announced} durable intents"))?;
    }
    Ok(())
}

fn open(state_dir: &Path) -> anyhow::Result<Journal> {
    let settings =
        Settings { state_dir: state_dir.to_owned(), keep: Duration::from_secs(86_400), max_size: 1 << 30 };
    Ok(Journal::open(&settings, &Arc::new(Metrics::new()))?)
}

async fn victim(state_dir: &Path) -> anyhow::Result<()> {
    let journal = open(state_dir)?;
    let mut out = std::io::stdout();
    for action in 1..=INTENTS {
        journal.intend(intent(action)?).await?;
        writeln!(out, "{action}")?;
        out.flush()?;
    }
    // Whoever started it kills it.
    std::future::pending().await
}

fn intent(action: u64) -> anyhow::Result<Intent> {
    Ok(Intent {
        deployable: Name::parse("shop")?,
        action: ActionId(action),
        incident: None,
        assembly: Name::parse("web")?,
        service: None,
        act: "reboot-hard".to_owned(),
        rung: None,
    })
}

fn killed_after(announced: u64) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut child =
        Command::new(env::current_exe()?).env(VICTIM, dir.path()).stdout(Stdio::piped()).spawn()?;
    let out = child.stdout.take().context("the child has an output")?;
    let mut lines = BufReader::new(out).lines();
    for expected in 1..=announced {
        let line = lines.next().context("the child ended early")??;
        ensure!(line == expected.to_string(), "announced {line}, expected {expected}");
    }
    child.kill()?;
    child.wait()?;

    let runtime = tokio::runtime::Runtime::new()?;
    let journal = open(dir.path())?;
    let known: Vec<u64> =
        journal.start_state().unresolved.iter().map(|(_, intent)| intent.action.0).collect();
    let all_announced = (1..=announced).all(|action| known.contains(&action));
    ensure!(all_announced, "known after the crash: {known:?}");
    let next = journal.next_ids(&Name::parse("shop")?).action;
    ensure!(known.iter().all(|action| *action < next.0), "the next number {next} is unused");
    Ok(runtime.block_on(journal.close())?)
}
