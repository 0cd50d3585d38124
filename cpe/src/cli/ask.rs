//! What is asked of a running cpe, and how its answer is shown: as JSON with stable names, or as `render/` has it for a person.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use cpe_proto::api;
use cpe_proto::config::{ApiAddress, Listen};
use cpe_proto::document::HostPort;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::{CONFIG_DEFAULT, Cli, Command, Events, Exit, Failure, Maintenance, Status, Why, WhyNot};
use crate::client::{Client, EventsRequest, Place};
use crate::render::{self, Colour, Follow, Joined, Reader};
use crate::{clock, load};
use cpe_monitor::secret::{self, SecretError};

/// Where the API is when there is no configuration at all.
const SOCKET_DEFAULT: &str = "/run/cpe/api.sock";
/// What `--follow` begins with, as `tail -f` does.
const FOLLOW_FIRST: u32 = 10;

pub(super) fn ask(command: &Command, cli: &Cli) -> Result<Exit, Failure> {
    let client = client(cli)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(answer(command, &client))
}

/// Who is asked: whom the command line names, or else the configuration. An operator who is on that machine needs neither.
pub(super) fn client(cli: &Cli) -> Result<Client, Failure> {
    let unread = |error: SecretError| Failure::Config(format!("the token: {error}"));
    let token = cli.token_file.as_deref().map(secret::read_file).transpose().map_err(unread)?;
    if let Some(place) = &cli.api {
        return Ok(Client::new(place.clone(), token));
    }
    if cli.config == Path::new(CONFIG_DEFAULT) && !cli.config.exists() {
        return Ok(Client::new(Place::Unix(SOCKET_DEFAULT.into()), None));
    }
    let Listen { api, token: source, .. } = configured(&cli.config)?;
    let socket = api.iter().find_map(|place| match place {
        ApiAddress::Unix(socket) => Some(socket.clone()),
        ApiAddress::Tcp(_) => None,
    });
    if let Some(socket) = socket {
        return Ok(Client::new(Place::Unix(socket), None));
    }
    let address = api.iter().find_map(|place| match place {
        ApiAddress::Tcp(address) => HostPort::parse(&address.to_string()).ok(),
        ApiAddress::Unix(_) => None,
    });
    let address = address.ok_or_else(|| Failure::Config("[listen] api names no place".to_owned()))?;
    let token = match (token, source) {
        (Some(token), _) => Some(token),
        (None, source) => source.as_ref().map(secret::read).transpose().map_err(unread)?,
    };
    Ok(Client::new(Place::Tcp(address), token))
}

fn configured(config: &Path) -> Result<Listen, Failure> {
    let parsed = load::config(config).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::Config(lines.join("\n"))
    })?;
    Ok(parsed.listen)
}

async fn answer(command: &Command, client: &Client) -> Result<Exit, Failure> {
    match command {
        Command::Status(wanted) => status(wanted, client).await,
        Command::Events(wanted) => events(wanted, client).await,
        Command::Why(wanted) => why(wanted, client).await,
        Command::WhyNot(wanted) => why_not(wanted, client).await,
        Command::Start(what) => order(api::Command::Start { name: what.name.clone() }, client).await,
        Command::Stop(what) => {
            let (name, power_off) = (what.name.clone(), what.power_off);
            order(api::Command::Stop { name, power_off }, client).await
        }
        Command::Maintenance(what) => order(maintenance(what), client).await,
        Command::Retry(what) => order(api::Command::Retry { name: what.name.clone() }, client).await,
        Command::Ack(what) => order(api::Command::Ack { name: what.of.clone() }, client).await,
        Command::Recover(what) => {
            let (name, reason) = (what.name.clone(), what.reason.clone());
            order(api::Command::Recover { name, rung: what.rung, reason }, client).await
        }
        Command::ConfirmFenced(what) => {
            let (name, reason) = (what.name.clone(), what.reason.clone());
            order(api::Command::ConfirmFenced { name, reason }, client).await
        }
        Command::Claim(what) => {
            let (name, reason) = (what.name.clone(), what.reason.clone());
            order(api::Command::Claim { name, reason }, client).await
        }
        Command::Trust(what) => super::trust::trust(what, client).await,
        Command::Pause(what) => {
            order(api::Command::Pause { name: what.name.clone(), reason: what.reason.clone() }, client).await
        }
        Command::Resume(what) => {
            order(api::Command::Resume { name: what.name.clone(), reason: what.reason.clone() }, client).await
        }
        Command::Completions(_)
        | Command::Schema(_)
        | Command::Man(_)
        | Command::Check(_)
        | Command::Audit(_)
        | Command::Run
        | Command::Demo
        | Command::Simulate(_)
        | Command::DemoInfra(_) => Ok(Exit::Usage),
    }
}

fn maintenance(what: &Maintenance) -> api::Command {
    match what {
        Maintenance::On { name, duration, reason } => api::Command::MaintenanceOn {
            name: name.clone(),
            for_seconds: duration.as_secs(),
            reason: reason.clone(),
        },
        Maintenance::Off { name } => api::Command::MaintenanceOff { name: name.clone() },
    }
}

pub(super) async fn order(command: api::Command, client: &Client) -> Result<Exit, Failure> {
    let answer = client.command(&command).await?;
    writeln!(io::stdout(), "{}", answer.message)?;
    Ok(Exit::Done)
}

async fn status(wanted: &Status, client: &Client) -> Result<Exit, Failure> {
    let status = client.status(wanted.name.as_ref().map(ToString::to_string).as_deref()).await?;
    if wanted.json {
        document(&status)?;
    } else {
        io::stdout().write_all(render::status(&status, &reader()).as_bytes())?;
    }
    Ok(if render::is_healthy(&status) { Exit::Done } else { Exit::No })
}

async fn why(wanted: &Why, client: &Client) -> Result<Exit, Failure> {
    let why = client.why(&wanted.of).await?;
    if wanted.json {
        document(&why)?;
    } else if !why.incidents.is_empty() {
        io::stdout().write_all(render::why(&why, &reader()).as_bytes())?;
    }
    if why.incidents.is_empty() {
        super::complain(&format!("no incident of {} is in the journal: nothing was done there", wanted.of));
        return Ok(Exit::No);
    }
    Ok(Exit::Done)
}

async fn why_not(wanted: &WhyNot, client: &Client) -> Result<Exit, Failure> {
    let answer = client.why_not(&wanted.name.to_string()).await?;
    if wanted.json {
        document(&answer)?;
    } else {
        io::stdout().write_all(render::why_not(&answer, &reader()).as_bytes())?;
    }
    Ok(Exit::Done)
}

async fn events(wanted: &Events, client: &Client) -> Result<Exit, Failure> {
    let since = wanted.since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    let request = EventsRequest {
        name: wanted.name.as_ref().map(ToString::to_string),
        since_ms: since.map(|since| clock::wall_ms().saturating_sub(since)),
        after_seq: None,
        limit: (wanted.follow && wanted.since.is_none()).then_some(FOLLOW_FIRST),
        follow: wanted.follow,
    };
    let mut stream = client.events(&request).await?;
    let mut printer = Printer::new(wanted);
    while let Some(record) = stream.next().await? {
        printer.print(record)?;
    }
    printer.finish()?;
    Ok(Exit::Done)
}

/// How events are shown.
enum Printer {
    Json,
    Joined(Joined),
    Follow(Follow),
}

impl Printer {
    fn new(wanted: &Events) -> Self {
        match (wanted.json, wanted.follow) {
            (true, _) => Self::Json,
            (false, true) => Self::Follow(Follow::new(reader())),
            (false, false) => Self::Joined(Joined::new(reader())),
        }
    }

    fn print(&mut self, record: cpe_proto::event::EventRecord) -> io::Result<()> {
        match self {
            Self::Json => lines([serde_json::to_string(&record)?]),
            Self::Joined(joined) => lines(joined.push(record)),
            Self::Follow(follow) => lines(follow.line(&record)),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Joined(joined) => lines(joined.finish()),
            Self::Json | Self::Follow(_) => Ok(()),
        }
    }
}

/// Writes lines at once: somebody may wait for them at the other end of a pipe.
fn lines(lines: impl IntoIterator<Item = String>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

fn document(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)
}

fn reader() -> Reader {
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    Reader::new(TimeZone::system(), clock::wall_ms(), if colour { Colour::On } else { Colour::Off })
}
