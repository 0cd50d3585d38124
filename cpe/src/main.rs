//! The `cpe` program: parses the command line and hands over. What the commands do is in `cli/`, the daemon in `run.rs`, the demo in `demo/`.

use std::future::Future;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use cpe::cli::{self, Cli, Command, Exit};
use cpe::demo;
use cpe::load;
use cpe::run;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Run => daemon(&cli.config).map(|()| Exit::Done),
        Command::Demo => show(),
        Command::DemoInfra(call) => {
            demo::infrastructure::perform(&call.socket, &call.action).map(|()| Exit::Done)
        }
        _ => return cli::execute(&cli).into(),
    };
    let exit = result.unwrap_or_else(|error| {
        cli::complain(&format_args!("{error:#}"));
        Exit::No
    });
    exit.into()
}

fn daemon(config: &Path) -> anyhow::Result<()> {
    log("info");
    let config = match load::config(config) {
        Ok(config) => config,
        Err(errors) => {
            for error in &errors {
                cli::complain(error);
            }
            anyhow::bail!("{} errors in the configuration {}", errors.len(), config.display());
        }
    };
    block_on(run::run(config))
}

fn show() -> anyhow::Result<Exit> {
    log("error");
    let complete = block_on(demo::run())?;
    Ok(if complete { Exit::Done } else { Exit::No })
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the async runtime")?;
    let result = runtime.block_on(work);
    // What still runs is a query of somebody who waits no more, or an action that the next start looks for.
    runtime.shutdown_background();
    result
}

/// Logs to standard error: systemd's journal takes it from there. `RUST_LOG` says otherwise what is logged.
fn log(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
}
