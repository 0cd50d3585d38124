//! The resident shell of one connection, from our side: starting it, one write per batch, its answers.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use cpe_proto::definition::{Check, UnitName};
use cpe_proto::observation::Observation;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};

use super::connect::Link;
use super::observe;
use super::pending::{Pending, Stage, Waiting};
use super::resident::{self, BadFrame, Reader, Reply};
use super::settings::{Probe, Resource};
use super::words::{self, Rights};

/// What `systemctl` may have printed so far, in bytes, over all requests: some hundred units.
const WORDS_MAX_BYTES: usize = 256 * 1024;

/// `s` lines that may wait for their answer. Each is answered within its SECS, unless somebody ended its worker in the guest.
const UNIT_LINES_MAX: usize = 64;

/// A resident shell.
pub(super) struct Shell {
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    reader: Reader,
    /// The nonce's line, until it is sent with the first batch.
    greeting: String,
    next_line: u32,
    /// The last batch whose `a` line was answered.
    heard: u32,
    /// The units of `s` lines that wait, and what came of them.
    units: Vec<(u32, Vec<UnitName>, String)>,
}

/// What became of the shell.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It ended.
    Ended,
    /// It cannot be understood.
    Misframed(BadFrame),
}

impl Shell {
    /// Opens the channel and starts the program. It says that it is ready when it is asked something.
    pub(super) async fn start(link: &Link) -> Result<Self, russh::Error> {
        let channel = link.handle.channel_open_session().await?;
        channel.exec(false, resident::command()).await?;
        let (read, write) = channel.split();
        let nonce = format!("{:016x}", rand::random::<u64>());
        let greeting = format!("{nonce}\n");
        Ok(Self {
            read,
            write,
            reader: Reader::new(nonce),
            greeting,
            next_line: 0,
            heard: 0,
            units: Vec::new(),
        })
    }

    /// Whether it has ever answered.
    pub(super) fn ready(&self) -> bool {
        self.reader.ready()
    }

    /// Whether it was asked something and has never answered.
    pub(super) fn silent(&self) -> bool {
        self.greeting.is_empty() && !self.ready()
    }

    /// The ID that the next batch will have.
    pub(super) fn next_batch(&self) -> u32 {
        self.next_line.wrapping_add(1)
    }

    /// Whether it was alive after that batch was sent.
    pub(super) fn heard(&self, batch: u32) -> bool {
        batch != 0 && self.heard >= batch
    }

    /// Closes its channel.
    pub(super) async fn close(self) {
        let _lost = self.write.close().await;
    }

    /// Waits for what comes next from it. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Vec<Reply>, Trouble> {
        loop {
            match self.read.wait().await {
                Some(ChannelMsg::Data { data }) => {
                    return self.reader.push(&data).map_err(Trouble::Misframed);
                }
                Some(ChannelMsg::Eof | ChannelMsg::Close | ChannelMsg::Failure) | None => {
                    return Err(Trouble::Ended);
                }
                Some(_) => {}
            }
        }
    }

    /// Writes one batch for all that wait. Gives up at the deadline, and then the session is stuck.
    pub(super) async fn send(&mut self, text: String, deadline: Option<Instant>) -> bool {
        let write = self.write.data_bytes(text.into_bytes());
        let sent = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), write).await,
            None => Ok(write.await),
        };
        matches!(sent, Ok(Ok(())))
    }

    /// The lines that ask for everything that waits; those probes are then marked as asked. Probes of ports are served by the
    /// session itself: `beside` says that there are some, and then the shell is at least asked whether it lives. Empty where there
    /// is nothing to ask.
    pub(super) fn batch(&mut self, waiting: &mut Waiting, beside: bool, rights: Rights) -> String {
        let count = if beside { Lines::FIXED } else { 0 };
        let mut lines = Lines::new(self.next_batch(), rights);
        lines.count = count;
        for pending in waiting.iter_mut().filter(|pending| pending.stage == Stage::Waiting) {
            lines.add(pending);
        }
        if lines.count == 0 {
            return String::new();
        }
        self.next_line = self.next_line.wrapping_add(lines.count);
        let mut text = std::mem::take(&mut self.greeting);
        lines.write(&mut text);
        if !lines.units.is_empty() {
            if self.units.len() >= UNIT_LINES_MAX {
                self.units.remove(0);
            }
            self.units.push((lines.unit_line(), lines.units, String::new()));
        }
        text
    }

    /// Answers the probes that a reply is about.
    ///
    /// # Errors
    /// [`BadFrame`] where it cannot be true. One that is about something answered already is of no matter.
    pub(super) fn settle(&mut self, reply: Reply, waiting: &mut Waiting) -> Result<(), BadFrame> {
        match reply {
            Reply::Ready => {}
            Reply::Alive(id) => {
                if id <= self.heard || id > self.next_line {
                    return Err(BadFrame("it answers a batch that was not asked"));
                }
                self.heard = id;
                answer(waiting, id, |_| Some(Observation::Alive));
            }
            Reply::Processes(id, seen) => {
                answer(waiting, id, |slot| seen.get(slot).map(|seen| observe::process(*seen)));
            }
            Reply::Words(id, words) => {
                let kept: usize = self.units.iter().map(|entry| entry.2.len()).sum();
                let Some(entry) = self.units.iter_mut().find(|entry| entry.0 == id) else { return Ok(()) };
                if kept + words.len() > WORDS_MAX_BYTES {
                    return Err(BadFrame("systemctl prints without end"));
                }
                entry.2.push_str(&words);
                entry.2.push(' ');
            }
            Reply::Units(id, status, rest) => {
                let Some(index) = self.units.iter().position(|entry| entry.0 == id) else { return Ok(()) };
                let (_, asked, mut words) = self.units.swap_remove(index);
                words.push_str(&rest);
                let seen = observe::units(&words, status, asked.iter());
                answer(waiting, id, |slot| seen.get(slot).cloned());
            }
            Reply::Ended(id, status, text) => answer(waiting, id, |_| Some(observe::ended(status, &text))),
            Reply::Plugin(id, status, text) => {
                let cut = text.chars().count() >= resident::PLUGIN_CHARACTERS;
                let seen = observe::plugin(status, &text, cut);
                waiting.answer_measured(|pending| match pending.stage {
                    Stage::Asked { line, .. } if line == id => Some(seen.clone()),
                    _ => None,
                });
            }
            Reply::Killed(id) => {
                self.units.retain(|entry| entry.0 != id);
                answer(waiting, id, |_| Some(Observation::DeadlinePassed));
            }
        }
        Ok(())
    }
}

/// Answers those that were asked by one line. None may be left: the deadline has answered them.
fn answer(waiting: &mut Waiting, id: u32, observation: impl Fn(usize) -> Option<Observation>) {
    waiting.answer(|pending| match pending.stage {
        Stage::Asked { line, slot, .. } if line == id => observation(slot.into()),
        _ => None,
    });
}

/// The lines of one batch: `a`, then at most one `s` and one `p`, then the commands.
struct Lines {
    first: u32,
    rights: Rights,
    count: u32,
    units: Vec<UnitName>,
    units_until: Option<Instant>,
    processes: String,
    process_count: u16,
    commands: String,
}

impl Lines {
    /// `a`, `s` and `p` have the first three IDs, whether used or not.
    const FIXED: u32 = 3;

    fn new(first: u32, rights: Rights) -> Self {
        Self {
            first,
            rights,
            count: 0,
            units: Vec::new(),
            units_until: None,
            processes: String::new(),
            process_count: 0,
            commands: String::new(),
        }
    }

    fn unit_line(&self) -> u32 {
        self.first.wrapping_add(1)
    }

    fn process_line(&self) -> u32 {
        self.first.wrapping_add(2)
    }

    fn add(&mut self, pending: &mut Pending) {
        self.count = self.count.max(Self::FIXED);
        let batch = self.first;
        let (line, slot) = match &pending.what {
            Probe::Channel => (self.first, 0),
            Probe::Check(Check::Systemd(unit)) => {
                self.units_until = self.units_until.max(Some(pending.deadline));
                let known = self.units.iter().position(|known| known == unit);
                let slot = known.unwrap_or(self.units.len());
                if known.is_none() {
                    self.units.push(unit.clone());
                }
                (self.unit_line(), u16::try_from(slot).unwrap_or(u16::MAX))
            }
            Probe::Check(Check::Process(name)) => {
                let _infallible = write!(self.processes, " {name}");
                self.process_count += 1;
                (self.process_line(), self.process_count - 1)
            }
            // Ports are opened beside the shell; what is direct was never meant for a session.
            Probe::Check(Check::Tcp { .. } | Check::Direct(_) | Check::FromGuest(_))
            | Probe::FromGuest(_) => return,
            other => {
                let Some((kind, command)) = command(other, self.rights) else { return };
                let line = self.first.wrapping_add(self.count);
                self.count += 1;
                let seconds = seconds(pending.deadline);
                let _infallible = writeln!(self.commands, "{kind} {line} {seconds} {command}");
                (line, 0)
            }
        };
        pending.stage = Stage::Asked { line, slot, batch };
    }

    fn write(&self, text: &mut String) {
        let _infallible = writeln!(text, "a {}", self.first);
        if let Some(until) = self.units_until {
            let _infallible = write!(text, "s {} {}", self.unit_line(), seconds(until));
            for unit in &self.units {
                let _infallible = write!(text, " {unit}");
            }
            text.push('\n');
        }
        text.push_str(&self.commands);
        if self.process_count > 0 {
            let _infallible = writeln!(text, "p {}{}", self.process_line(), self.processes);
        }
    }
}

/// The command of a probe that is one, and the kind of its line.
pub(super) fn command(what: &Probe, rights: Rights) -> Option<(char, String)> {
    Some(match what {
        Probe::Check(Check::Command(line)) => ('c', line.as_str().to_owned()),
        Probe::Check(Check::Nagios(line)) => ('n', words::plugin(line.as_str())),
        Probe::Check(Check::Lsb(script)) => ('c', words::status(script.as_str(), rights)),
        Probe::Check(Check::Ocf(agent)) => ('c', words::monitor(&Resource::bare(agent)?, rights)),
        Probe::Resource(resource) => ('c', words::monitor(resource, rights)),
        _ => return None,
    })
}

/// From now to a deadline, in whole seconds, for the guest's watchdog: never before our own.
fn seconds(deadline: Instant) -> u64 {
    let left = deadline.saturating_duration_since(Instant::now());
    left.saturating_add(Duration::from_millis(999)).as_secs().max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use cpe_proto::definition::{CommandLine, ProcessName};
    use cpe_proto::id::ProbeId;

    use super::*;
    use crate::ssh::settings::ProbeRequest;

    /// The text that would be sent for these probes, the first line of the session being 8.
    fn text(checks: &[Probe]) -> String {
        let mut waiting = Waiting::new(Arc::new(Box::new(|_| ())));
        let timeout = Duration::from_millis(1500);
        let requests =
            checks.iter().map(|what| ProbeRequest { probe: ProbeId(1), what: what.clone(), timeout });
        assert!(waiting.add(requests.collect(), Instant::now()).is_empty());
        let mut lines = Lines::new(8, Rights::Sudo);
        waiting.iter_mut().for_each(|pending| lines.add(pending));
        let mut text = String::new();
        lines.write(&mut text);
        text
    }

    fn unit(name: &str) -> Probe {
        Probe::Check(Check::Systemd(UnitName::parse(name).unwrap()))
    }

    fn process(name: &str) -> Probe {
        Probe::Check(Check::Process(ProcessName::parse(name).unwrap()))
    }

    fn command(line: &str) -> Probe {
        Probe::Check(Check::Command(CommandLine::parse(line).unwrap()))
    }

    #[test]
    fn a_batch_is_one_line_for_all_units_one_for_all_processes_and_one_for_each_command() {
        let asked = [
            Probe::Channel,
            process("nginx"),
            unit("a.service"),
            command("  exit 1 # it's \\ "),
            unit("b.timer"),
            process("sshd"),
            unit("a.service"),
            command("true"),
        ];
        assert_eq!(
            text(&asked),
            "a 8\ns 9 2 a.service b.timer\nc 11 2   exit 1 # it's \\ \nc 12 2 true\np 10 nginx sshd\n"
        );
    }

    #[test]
    fn every_batch_asks_whether_the_shell_lives() {
        assert_eq!(text(&[process("nginx")]), "a 8\np 10 nginx\n");
        assert_eq!(text(&[Probe::Channel]), "a 8\n");
    }

    #[test]
    fn an_answer_reaches_only_the_probe_that_its_line_asked() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&seen);
        let answers =
            move |answer: crate::ssh::Answer| keep.lock().unwrap().push((answer.probe.0, answer.observation));
        let mut waiting = Waiting::new(Arc::new(Box::new(answers)));
        let timeout = Duration::from_secs(60);
        let request = |probe, what| ProbeRequest { probe: ProbeId(probe), what, timeout };
        let asked =
            vec![request(1, command("true")), request(2, command("true")), request(3, Probe::Channel)];
        assert!(waiting.add(asked, Instant::now()).is_empty());
        let mut lines = Lines::new(8, Rights::Sudo);
        waiting.iter_mut().for_each(|pending| lines.add(pending));
        answer(&mut waiting, 12, |_| Some(Observation::Exited(2, "".into())));
        answer(&mut waiting, 12, |_| Some(Observation::Exited(9, "".into())));
        answer(&mut waiting, 9, |_| Some(Observation::Alive));
        assert_eq!(*seen.lock().unwrap(), vec![(2, Observation::Exited(2, "".into()))]);
    }
}
