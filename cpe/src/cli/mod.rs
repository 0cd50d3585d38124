//! The command line: what may be typed (this file), what is done offline (`check.rs`), and what is asked of a running cpe (`ask.rs`).
//! `run` and `demo` are dispatched by `main.rs`. Exit status: 0 done, 1 the answer is no, 2 wrong usage, 3 the controller cannot be reached.

mod ask;
mod audit;
mod bounds;
mod check;
mod generate;
mod simulate;
mod trust;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use cpe_proto::document::parse_duration;
use cpe_proto::rung::Rung;

use crate::client::{ClientError, Place};
use crate::glob::Glob;

/// Where the configuration is unless somebody says otherwise.
pub const CONFIG_DEFAULT: &str = "/etc/cpe/cpe.toml";

/// Keeps the services of thousands of cloud machines running: watches them over SSH, and recovers what fails, from restarting a
/// service to rebooting its machine.
#[derive(Clone, Debug, Parser)]
#[command(name = "cpe", version, max_term_width = 100, after_help = EXIT_STATUS)]
pub struct Cli {
    /// The configuration of the controller
    #[arg(long, global = true, env = "CPE_CONFIG", hide_env_values = true, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    pub config: PathBuf,
    /// Where the controller is asked, instead of where that configuration says: unix:/path, or HOST:PORT with a token
    #[arg(long, global = true, env = "CPE_API", hide_env_values = true, value_name = "PLACE", value_parser = place)]
    pub api: Option<Place>,
    /// The file of the token for HOST:PORT
    #[arg(long, global = true, env = "CPE_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_STATUS: &str = "NAME is deployable, deployable/assembly or deployable/assembly/service, or a glob of these: 'shop/*/nginx'; or domain:az1,
the assemblies of a failure domain (status, events, why-not, maintenance, pause).
Exit status: 0 done, 1 the answer is no (invalid, unhealthy, refused), 2 wrong usage, 3 the controller cannot be reached.";

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the controller
    Run,
    /// See it work: a fleet of SSH servers in this process, broken on purpose; under a minute, touches nothing
    Demo,
    /// What the demo's infrastructure runs
    #[command(hide = true)]
    DemoInfra(DemoInfra),
    /// Validate definitions, offline; exit 1 on any error
    Check(Check),
    /// What is going on; exit 1 when something is not healthy
    Status(Status),
    /// What happened
    Events(Events),
    /// Why it acted: an incident with its evidence, decisions and actions
    Why(Why),
    /// Why nothing is done now about what is not healthy, and until when
    WhyNot(WhyNot),
    /// Start a deployable
    Start(Deployable),
    /// Stop a deployable's services in reverse order; its machines stay on, or are powered off after it
    Stop(Stop),
    /// Watch but do not act, until an hour
    #[command(subcommand)]
    Maintenance(Maintenance),
    /// Stop recovery until it is resumed, for everything, one deployable or a part of it; what was begun finishes
    Pause(Pause),
    /// Allow recovery again
    Resume(Resume),
    /// What would happen: a scenario of faults against definitions, in virtual time, with the real policy engines
    #[command(after_long_help = simulate::help())]
    Simulate(Simulate),
    /// Check the rules that may not be broken against a journal, offline, also while cpe runs; exit 1 on any finding
    Audit(Audit),
    /// What a shell needs to complete cpe's commands, on standard output: `source <(cpe completions bash)`
    Completions(Completions),
    /// The JSON Schema of definitions or of cpe.toml, for editors, on standard output
    Schema(Schema),
    /// Write the manual pages into a folder, for packages
    #[command(hide = true)]
    Man(Man),
    /// Forget the counts of what is exhausted and try anew, now
    Retry(Retry),
    /// Recover an assembly or a service by hand, through the same gate; exit 1 when it is refused
    Recover(Recover),
    /// Say that a machine is down for certain, where that cannot be verified, so that it may be replaced
    ConfirmFenced(ConfirmFenced),
    /// Take over machines that bear another controller's mark: it must not act on them any more
    Claim(Claim),
    /// Believe the host key of an assembly: shows its fingerprint and asks
    Trust(Trust),
    /// Say that you know of an incident: it is marked, and nobody is notified of it any more
    Ack(Ack),
}

/// `cpe simulate`.
#[derive(Clone, Debug, Args)]
pub struct Simulate {
    /// A script of what happens; `cpe simulate --help` has its words
    scenario: PathBuf,
    /// Definitions, or folders of them, beside those that the script names
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// `cpe audit`.
#[derive(Clone, Debug, Args)]
pub struct Audit {
    /// A journal, or the folder that it is in; without one: that of the configuration
    #[arg(conflicts_with = "state_dir")]
    journal: Option<PathBuf>,
    /// The folder of the journal
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// An incident may be open for so long without a person having been told
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "6h")]
    open_for: Duration,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// `cpe completions`.
#[derive(Clone, Debug, Args)]
pub struct Completions {
    /// Which shell
    shell: clap_complete::Shell,
}

/// `cpe schema`.
#[derive(Clone, Debug, Args)]
pub struct Schema {
    /// Of what
    of: crate::schema::Of,
}

/// `cpe man`.
#[derive(Clone, Debug, Args)]
pub struct Man {
    /// The folder; made if it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// `cpe retry`.
#[derive(Clone, Debug, Args)]
pub struct Retry {
    /// A deployable, deployable/assembly, or deployable/assembly/service (then its whole machine is tried anew)
    name: String,
}

/// `cpe recover`.
#[derive(Clone, Debug, Args)]
pub struct Recover {
    /// deployable/assembly, or deployable/assembly/service
    name: String,
    /// What to do; without it the next rung of its ladder
    #[arg(long, value_parser = rung)]
    rung: Option<Rung>,
    /// Why; it is recorded and shown
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// `cpe trust`.
#[derive(Clone, Debug, Args)]
pub struct Trust {
    /// deployable/assembly
    name: String,
    /// The fingerprint that was compared already: believed if it is what the host shows, and nothing is asked
    #[arg(long, value_name = "SHA256:...")]
    fingerprint: Option<String>,
    /// The key of the jump host that it is reached through
    #[arg(long)]
    jump: bool,
}

/// `cpe confirm-fenced`.
#[derive(Clone, Debug, Args)]
pub struct ConfirmFenced {
    /// deployable/assembly
    name: String,
    /// How you know; it is recorded and shown
    #[arg(long)]
    reason: String,
}

/// `cpe claim`.
#[derive(Clone, Debug, Args)]
pub struct Claim {
    /// A deployable, deployable/assembly, or a glob of these
    name: String,
    /// Why the other controller has no say any more; it is recorded and shown
    #[arg(long)]
    reason: String,
}

/// `cpe ack`.
#[derive(Clone, Debug, Args)]
pub struct Ack {
    /// An incident (shop#3), or a name: all that is open there
    #[arg(value_name = "NAME|INCIDENT", value_parser = name_or_incident)]
    of: String,
}

/// `cpe pause`.
#[derive(Clone, Debug, Args)]
pub struct Pause {
    /// A deployable, an assembly, a service, a glob of these, or domain:NAME; without one: everything
    name: Option<String>,
    /// Why; it is recorded and shown
    #[arg(long)]
    reason: String,
}

/// `cpe resume`.
#[derive(Clone, Debug, Args)]
pub struct Resume {
    /// A deployable, an assembly, a service, a glob of these, or domain:NAME; without one: everything, but not what was paused by its own name
    name: Option<String>,
    /// Why; it is recorded
    #[arg(long, default_value = "")]
    reason: String,
}

/// `cpe demo-infra`.
#[derive(Clone, Debug, Args)]
pub struct DemoInfra {
    /// The demo's socket.
    pub socket: PathBuf,
    /// An operation of the `command` infrastructure.
    pub action: String,
}

/// `cpe check`.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// Definitions, and directories of them (*.toml); a cpe.toml among them is checked too, and they against it
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// `cpe status`.
#[derive(Clone, Debug, Args)]
pub struct Status {
    /// Only that
    name: Option<Glob>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// `cpe events`.
#[derive(Clone, Debug, Args)]
pub struct Events {
    /// Only of that
    name: Option<Glob>,
    /// Go on with what happens, after the last ten or --since
    #[arg(long, short)]
    follow: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Only the last 30s, 15m, 1h, 7d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
}

/// `cpe why`.
#[derive(Clone, Debug, Args)]
pub struct Why {
    /// A name, or an incident: shop#3
    #[arg(value_name = "NAME|INCIDENT", value_parser = name_or_incident)]
    of: String,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// `cpe why-not`.
#[derive(Clone, Debug, Args)]
pub struct WhyNot {
    /// A deployable, deployable/assembly or deployable/assembly/service, or a glob of these
    name: Glob,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// `cpe start`.
#[derive(Clone, Debug, Args)]
pub struct Deployable {
    /// A deployable
    name: String,
}

/// `cpe stop`.
#[derive(Clone, Debug, Args)]
pub struct Stop {
    /// A deployable
    name: String,
    /// Power its machines off, too, once nothing runs on them any more; `cpe start` powers them on again
    #[arg(long)]
    power_off: bool,
}

/// `cpe maintenance`.
#[derive(Clone, Debug, Subcommand)]
pub enum Maintenance {
    /// Begin
    On {
        /// A deployable, deployable/assembly, a glob of these, or domain:NAME
        name: String,
        /// For how long: 30m, 2h
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        duration: Duration,
        /// Why; it is recorded and shown
        #[arg(long)]
        reason: String,
    },
    /// End, before its hour
    Off {
        /// A deployable, deployable/assembly, a glob of these, or domain:NAME
        name: String,
    },
}

fn rung(text: &str) -> Result<Rung, String> {
    let words = Rung::ALL.map(Rung::as_str).join(", ");
    Rung::parse(text).ok_or_else(|| format!("expected one of {words}"))
}

fn place(text: &str) -> Result<Place, String> {
    text.parse().map_err(|expected| format!("expected {expected}"))
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(str::to_owned)
}

fn name_or_incident(text: &str) -> Result<String, String> {
    let name = text.split_once('#').map_or(Ok(text), |(name, number)| {
        number
            .parse::<u64>()
            .map(|_| name)
            .map_err(|_| "an incident is deployable#N, as in shop#3".to_owned())
    })?;
    name.parse::<Glob>().map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The answer is no: invalid, unhealthy, refused.
    No,
    /// Wrong usage.
    Usage,
    /// The controller cannot be reached.
    Unreachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::No => Self::from(1),
            Exit::Usage => Self::from(2),
            Exit::Unreachable => Self::from(3),
        }
    }
}

/// Why a command did not end by itself.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    #[error("{0}")]
    Config(String),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Self::Client(ClientError::Refused(_)) | Self::Output(_) | Self::Config(_) => Exit::No,
            Self::Client(_) => Exit::Unreachable,
        }
    }
}

/// Does everything but `run` and `demo`, which are the process's own affair: with those it says so and is wrong usage.
#[must_use]
pub fn execute(cli: &Cli) -> Exit {
    let (command, config) = (&cli.command, cli.config.as_path());
    let done = match command {
        Command::Check(check) => check::check(check),
        Command::Audit(audit) => audit::audit(audit, config),
        Command::Simulate(wanted) => simulate::run(wanted),
        Command::Completions(wanted) => generate::completions(wanted.shell),
        Command::Schema(wanted) => generate::schema(wanted.of),
        Command::Man(wanted) => generate::man(&wanted.directory),
        Command::Run | Command::Demo | Command::DemoInfra(_) => return Exit::Usage,
        ask => ask::ask(ask, cli),
    };
    match done {
        Ok(exit) => exit,
        // Who closed the pipe (`| head`) has what they wanted.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(failure) => {
            complain(&failure);
            failure.exit()
        }
    }
}

/// Says on standard error what went wrong.
pub fn complain(what: &dyn fmt::Display) {
    // There is nowhere else to say it.
    let _ = writeln!(io::stderr(), "cpe: {what}");
}

#[cfg(test)]
mod tests;
