//! `cpe demo`: a fleet of SSH servers in this process, real definitions, the real controller, and a script of faults. Nothing on the
//! machine is needed or touched but a temporary directory and loopback. `world.rs` builds it for `cast.rs`, `script.rs` breaks it, `screen.rs` shows it, `tally.rs` sums up.

mod cast;
pub mod infrastructure;
mod screen;
mod script;
mod tally;
pub mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cpe_proto::event::EventRecord;
use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;

use crate::api::Controller as _;
use crate::clock;
use crate::glob::Glob;
use crate::load;
use crate::run::Controller;
use screen::Screen;
use tally::Tally;
use world::World;

/// Not before this: the last fault needs its time to show that nothing is done about it.
const LAST_LOOK: Duration = Duration::from_secs(40);

/// How often the strip of states is drawn anew, on a terminal.
const STRIP: Duration = Duration::from_millis(500);

/// Runs the demo. Whether every fault was dealt with.
///
/// # Errors
/// What could not be started.
pub async fn run() -> anyhow::Result<bool> {
    let directory = std::env::temp_dir().join(format!("cpe-demo-{}", std::process::id()));
    let cpe = std::env::current_exe()?;
    let world = World::build(directory, cast::machines(), &cast::DEFINITIONS, &cpe).await?;
    let file = world.config_file();
    let config = load::config(&file)
        .map_err(|errors| anyhow::anyhow!("the demo's own {}: {errors:?}", file.display()))?;
    let mut show = Show { screen: Screen::new(), start: Instant::now(), tally: Tally::default() };
    show.screen.text(&opening(&world))?;
    let controller = Controller::start(config).await?;
    let events = controller.fleet.shared().journal.subscribe();
    let result = show.play(&world, &controller, events).await;
    controller.stop().await;
    result
}

fn opening(world: &World) -> String {
    format!(
        "{} machines of 3 deployables, as real SSH servers on loopback in this process; what runs on them is imitated.\n\
         One controller watches them. {} faults follow; each line below is a fault (>>) or an event of the controller.\n\
         Meanwhile, in another terminal:  cpe --config {} status\n",
        world.fleet.machines().len(),
        script::STEPS.len(),
        world.config_file().display(),
    )
}

/// The demo as it goes on.
struct Show {
    screen: Screen,
    start: Instant,
    tally: Tally,
}

impl Show {
    async fn play(
        &mut self,
        world: &World,
        controller: &Controller,
        mut events: broadcast::Receiver<Arc<EventRecord>>,
    ) -> anyhow::Result<bool> {
        let mut steps = script::STEPS.iter();
        let mut next = steps.next();
        let mut strip = tokio::time::interval(STRIP);
        strip.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !self.over(next.is_none()) {
            let until = next.map_or(script::END, |step| step.at).saturating_sub(self.start.elapsed());
            tokio::select! {
                event = events.recv() => match event {
                    Ok(record) => {
                        self.tally.note(&record);
                        self.screen.event(&record)?;
                    }
                    Err(broadcast::error::RecvError::Lagged(count)) => self.screen.text(&format!("({count} events not shown)"))?,
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                _ = strip.tick(), if self.screen.has_strip() => {
                    let status = controller.fleet.status(&Glob::everything()).await;
                    self.screen.strip(&status)?;
                }
                () = tokio::time::sleep(until) => {
                    let Some(step) = next else { break };
                    self.screen.fault(self.start.elapsed(), step.told)?;
                    self.tally.add(*step, clock::wall_ms());
                    step.happen(&world.fleet).await?;
                    next = steps.next();
                }
            }
        }
        self.closing()
    }

    fn over(&self, all_happened: bool) -> bool {
        all_happened && self.tally.complete() && self.start.elapsed() > LAST_LOOK
    }

    fn closing(&mut self) -> anyhow::Result<bool> {
        let complete = self.tally.complete();
        let said = if complete {
            "Each fault was repaired, or left to a person where no recovery helps."
        } else {
            "NOT every fault was dealt with."
        };
        let seconds = self.start.elapsed().as_secs();
        self.screen.text(&format!("\n{}\n{said} {seconds} s.", self.tally.table()))?;
        Ok(complete)
    }
}
