//! `cpe demo`: a fleet of SSH servers in this process, real definitions, the real controller, and a script of faults. Nothing on the
//! machine is needed or touched but a temporary directory and loopback. `world.rs` builds it, `script.rs` breaks it, `tally.rs` sums up.

pub mod infrastructure;
mod script;
mod tally;
mod world;

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cpe_proto::event::EventRecord;
use tokio::sync::broadcast;

use crate::clock;
use crate::load;
use crate::render::{Colour, Follow, Reader};
use crate::run::Controller;
use tally::Tally;
use world::World;

/// Runs the demo. Whether every fault was dealt with.
///
/// # Errors
/// What could not be started.
pub async fn run() -> anyhow::Result<bool> {
    let world = World::build().await?;
    let file = world.config_file();
    let config = load::config(&file)
        .map_err(|errors| anyhow::anyhow!("the demo's own {}: {errors:?}", file.display()))?;
    let mut show = Show::new();
    show.opening(&world)?;
    let controller = Controller::start(config).await?;
    let events = controller.fleet.shared().journal.subscribe();
    let result = show.play(&world, events).await;
    controller.stop().await;
    result
}

/// What is on the screen.
struct Show {
    out: std::io::Stdout,
    colours: bool,
    follow: Follow,
    start: Instant,
    tally: Tally,
}

impl Show {
    fn new() -> Self {
        let out = std::io::stdout();
        let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let colour = if colours { Colour::On } else { Colour::Off };
        let follow = Follow::new(Reader::new(jiff::tz::TimeZone::system(), clock::wall_ms(), colour));
        Self { out, colours, follow, start: Instant::now(), tally: Tally::default() }
    }

    fn opening(&mut self, world: &World) -> std::io::Result<()> {
        let machines = world.fleet.machines().len();
        let file = world.config_file();
        writeln!(
            self.out,
            "{machines} machines of 3 deployables, as real SSH servers on loopback in this process; what runs on them is imitated.\n\
             One controller watches them. {} faults follow, each line below is either a fault (>>) or one of its events.\n\
             Meanwhile, in another terminal:  cpe --config {} status\n",
            script::STEPS.len(),
            file.display(),
        )
    }

    async fn play(
        &mut self,
        world: &World,
        mut events: broadcast::Receiver<Arc<EventRecord>>,
    ) -> anyhow::Result<bool> {
        let mut steps = script::STEPS.iter();
        let mut next = steps.next();
        loop {
            let until = next.map_or(script::END, |step| step.at).saturating_sub(self.start.elapsed());
            tokio::select! {
                event = events.recv() => match event {
                    Ok(record) => self.event(&record)?,
                    Err(broadcast::error::RecvError::Lagged(count)) => writeln!(self.out, "({count} events not shown)")?,
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                () = tokio::time::sleep(until) => {
                    let Some(step) = next else { break };
                    self.fault(step.told)?;
                    self.tally.add(*step, clock::wall_ms());
                    step.happen(&world.fleet).await?;
                    next = steps.next();
                }
            }
            if next.is_none() && self.tally.complete() && self.start.elapsed() > LAST_LOOK {
                break;
            }
        }
        self.closing()
    }

    fn fault(&mut self, told: &str) -> std::io::Result<()> {
        let (on, off) = if self.colours { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        writeln!(self.out, "{on}>> {:>5.1} s  {told}{off}", self.start.elapsed().as_secs_f64())
    }

    fn event(&mut self, record: &EventRecord) -> std::io::Result<()> {
        self.tally.note(record);
        match self.follow.line(record) {
            Some(line) => writeln!(self.out, "   {line}"),
            None => Ok(()),
        }
    }

    fn closing(&mut self) -> anyhow::Result<bool> {
        let complete = self.tally.complete();
        writeln!(self.out, "\n{}", self.tally.table())?;
        let said = if complete {
            "Each fault was repaired, or left to a person where no recovery helps."
        } else {
            "NOT every fault was dealt with."
        };
        writeln!(self.out, "{said} {:.0} s.", self.start.elapsed().as_secs_f64())?;
        Ok(complete)
    }
}

/// Not before this: the last fault needs its time to show that nothing is done about it.
const LAST_LOOK: Duration = Duration::from_secs(40);
