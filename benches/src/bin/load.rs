//! What a directory of definitions costs to load: each file is read and parsed with all its checks, as many threads at a time as there are
//! processors, and all are compared with each other. As `cpe/src/load.rs` does, without what it does with them.
#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;
use cpe_benches::table::Table;
use cpe_benches::{host, process};
use cpe_proto::definition::{Definition, check_set};

/// How much.
#[derive(Debug, Parser)]
struct Arguments {
    /// Definitions
    #[arg(long, default_value_t = 10_000)]
    definitions: usize,
    /// Services of each
    #[arg(long, default_value_t = 4)]
    services: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    println!("{}\n", host::describe());
    let directory = tempfile::tempdir()?;
    let mut files = Vec::with_capacity(arguments.definitions);
    for number in 0..arguments.definitions {
        let file = directory.path().join(format!("{number:06}.toml"));
        std::fs::write(&file, definition(number, arguments.services))?;
        files.push(file);
    }
    let (wall, cpu) = (Instant::now(), process::own_cpu());
    let definitions = load(&files)?;
    let problems = check_set(&definitions, 22).len();
    let (wall, cpu) = (wall.elapsed(), process::own_cpu().saturating_sub(cpu));
    anyhow::ensure!(definitions.len() == files.len() && problems == 0, "{problems} problems");
    let mut table = Table::new(&["definitions", "services", "wall", "CPU", "CPU a definition"]);
    table.row(&[
        files.len().to_string(),
        (files.len() * arguments.services).to_string(),
        format!("{:.0} ms", wall.as_secs_f64() * 1e3),
        format!("{:.0} ms", cpu.as_secs_f64() * 1e3),
        format!("{:.0} µs", cpu.as_secs_f64() * 1e6 / files.len().max(1) as f64),
    ]);
    println!("{table}");
    Ok(())
}

fn load(files: &[PathBuf]) -> anyhow::Result<Vec<Definition>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let parts: Vec<_> = files
            .chunks(files.len().div_ceil(threads).max(1))
            .map(|part| scope.spawn(|| part.iter().map(read).collect::<anyhow::Result<Vec<_>>>()))
            .collect();
        let mut all = Vec::with_capacity(files.len());
        for part in parts {
            let part = part.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
            all.extend(part?);
        }
        Ok(all)
    })
}

fn read(file: &PathBuf) -> anyhow::Result<Definition> {
    let bytes = std::fs::read(file)?;
    let name = file.display().to_string();
    Definition::parse_bytes(&name, &bytes).ok().context("an example of ours is wrong")
}

/// One machine with services, and a dependency between each two.
fn definition(number: usize, services: usize) -> String {
    let mut text = format!(
        "name = \"app-{number}\"\n[probe]\ninterval = \"5s\"\n[escalation]\nservice = {{ failures = 5, within = \"1h\" }}\n\
         [assemblies.web]\naddress = \"10.{}.{}.{}\"\nfailure_domains = [\"az{}\"]\n",
        number >> 16 & 255,
        number >> 8 & 255,
        number & 255,
        number % 3
    );
    for service in 0..services {
        text.push_str(&format!("[assemblies.web.services.s{service}]\nsystemd = \"s{service}.service\"\n"));
        if service > 0 {
            text.push_str(&format!("after = [\"s{}\"]\n", service - 1));
        }
    }
    text
}
