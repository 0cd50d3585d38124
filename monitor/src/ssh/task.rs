//! Where one session lives: a task that connects when a channel probe asks for it, sends what is due in one write, and answers every
//! probe by its deadline.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use cpe_proto::definition::Check;
use cpe_proto::observation::{ChannelFailure, Observation, detail};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::connect::{self, Failure, Link, Peer, Progress};
use super::jump::Way;
use super::monitor::Shared;
use super::pending::{Seen, Stage, Waiting};
use super::port::Ports;
use super::resident::Reply;
use super::session::{Command, refuse};
use super::settings::{Act, ActError, Answers, Endpoint, Probe, Route};
use super::shell::{Shell, Trouble};
use super::words::Rights;
use super::{act, fallback};

/// Connections to ports that failed, after which the session is renewed: the library keeps a record of each until the session ends.
const REFUSALS_MAX: usize = 512;

struct Task {
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    /// The jump host that it is reached through.
    way: Option<Way>,
    answers: Arc<Answers>,
    waiting: Waiting,
    state: State,
    /// How many connections there were: what comes late from an old one is of no matter.
    generation: u32,
    /// Whether the last connection ended before its shell had ever answered: then the next one serves by exec.
    shell_failed: bool,
    /// Whether something waits that the session can be asked now.
    due: bool,
    events: mpsc::UnboundedSender<Event>,
}

enum State {
    Idle,
    Connecting(JoinHandle<()>, Arc<Progress>),
    Up(Box<Up>),
}

struct Up {
    link: Link,
    service: Service,
    ports: Ports,
}

enum Service {
    Shell(Shell),
    Exec(Arc<Semaphore>),
}

/// What the task's own helpers report.
enum Event {
    Connected(u32, Box<Result<Connected, Failure>>),
    Seen(u32, u32, Box<Seen>),
}

struct Connected {
    link: Link,
    shell: Option<Shell>,
}

/// What woke the task.
enum Wake {
    Command(Option<Command>),
    Event(Event),
    Shell(Result<Vec<Reply>, Trouble>),
    Deadline,
}

/// Runs until the session's handle is dropped.
pub(super) async fn run(
    shared: Arc<Shared>,
    endpoint: Endpoint,
    answers: Arc<Answers>,
    mut inbox: mpsc::Receiver<Command>,
) {
    // Not bounded, but what it can hold is: one event for each probe that waits and one for a connection.
    let (events, mut reports) = mpsc::unbounded_channel();
    let waiting = Waiting::new(Arc::clone(&answers));
    let way = way(&shared, &endpoint);
    let endpoint = Arc::new(endpoint);
    let (state, generation, shell_failed, due) = (State::Idle, 0, false, false);
    let mut task =
        Task { shared, endpoint, way, answers, waiting, state, generation, shell_failed, due, events };
    loop {
        let wake = task.wake(&mut inbox, &mut reports).await;
        match wake {
            Wake::Command(None) => return,
            Wake::Command(Some(command)) => task.command(command),
            Wake::Event(event) => task.event(event),
            Wake::Shell(Ok(replies)) => task.replies(replies),
            Wake::Shell(Err(trouble)) => task.shell_trouble(&trouble),
            Wake::Deadline => task.expire(),
        }
        if std::mem::take(&mut task.due) {
            task.send().await;
        }
    }
}

/// The way through a jump host, where there is one. The jump host of all may itself be an assembly: it is reached directly, or its own
/// death could never be told.
pub(super) fn way(shared: &Shared, endpoint: &Endpoint) -> Option<Way> {
    match &endpoint.route {
        Some(Route::Direct) => None,
        Some(Route::Jump(jump)) => Some(shared.jumps.way(jump)),
        None => {
            let jump = shared.settings.jump.as_ref()?;
            let port = endpoint.port.unwrap_or(shared.settings.port);
            (!jump.is_at(&endpoint.address, port)).then(|| shared.jumps.way(jump))
        }
    }
}

impl Task {
    /// Waits for the next thing to do. Answers come before deadlines: what has arrived in time counts as in time.
    async fn wake(
        &mut self,
        inbox: &mut mpsc::Receiver<Command>,
        reports: &mut mpsc::UnboundedReceiver<Event>,
    ) -> Wake {
        let deadline = self.waiting.deadline();
        let shell = match &mut self.state {
            State::Up(up) => match &mut up.service {
                Service::Shell(shell) => Some(shell),
                Service::Exec(_) => None,
            },
            _ => None,
        };
        let shell_says = async {
            match shell {
                Some(shell) => shell.next().await,
                None => std::future::pending().await,
            }
        };
        let expires = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            said = shell_says => Wake::Shell(said),
            Some(event) = reports.recv() => Wake::Event(event),
            command = inbox.recv() => Wake::Command(command),
            () = expires => Wake::Deadline,
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Probe(batch, asked) => {
                let too_much = self.waiting.add(batch, asked);
                refuse(&self.answers, &too_much, asked);
                if let Some(way) = self.way.as_ref().filter(|_| self.waiting.wants_channel()) {
                    way.ask();
                }
                self.renew();
                self.proceed();
            }
            Command::Act(order) => {
                let (act, reply) = *order;
                self.act(act, reply);
            }
            Command::Reconnect => {
                self.drop_link("it was asked to connect anew");
                self.proceed();
            }
        }
    }

    /// Does for everything that waits what the state allows.
    fn proceed(&mut self) {
        match &self.state {
            State::Idle if self.waiting.wants_channel() => self.connect(),
            State::Idle => self.waiting.answer(|_| Some(Observation::NotObserved)),
            State::Connecting(..) => {}
            State::Up(_) => self.due = true,
        }
    }

    fn connect(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        let progress = Arc::new(Progress::default());
        let attempt = attempt(
            Arc::clone(&self.shared),
            Peer::of(&self.endpoint, &self.shared.settings),
            self.way.clone(),
            Arc::clone(&progress),
            self.generation,
            !self.shell_failed,
            self.events.clone(),
        );
        self.state = State::Connecting(tokio::spawn(attempt), progress);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connected(generation, outcome) => {
                if generation == self.generation && matches!(self.state, State::Connecting(..)) {
                    self.connected(*outcome);
                }
            }
            Event::Seen(generation, key, seen) => {
                if generation == self.generation {
                    self.seen(key, &seen);
                }
            }
        }
    }

    fn connected(&mut self, outcome: Result<Connected, Failure>) {
        let Connected { link, shell } = match outcome {
            Ok(connected) => connected,
            Err(failure) => {
                self.state = State::Idle;
                self.shared.tally.failed(failure.cause);
                self.fail(failure.cause, &failure.detail);
                return;
            }
        };
        let service = match shell {
            Some(shell) => Service::Shell(shell),
            None => self.exec_service("the resident shell did not start"),
        };
        // The next connection tries the shell again.
        self.shell_failed = false;
        self.state = State::Up(Box::new(Up { link, service, ports: Ports::default() }));
        self.proceed();
    }

    /// Serves by exec from now on, and says so.
    fn exec_service(&self, why: &str) -> Service {
        self.shared.tally.fallbacks.fetch_add(1, Relaxed);
        tracing::warn!(assembly = %self.endpoint.label, "{why}: each probe is run by an exec of its own until the next connection");
        Service::Exec(Arc::new(Semaphore::new(fallback::CONCURRENT_MAX)))
    }

    /// The channel is not alive: its probes say how, those behind it were not observed.
    fn fail(&mut self, cause: ChannelFailure, why: &str) {
        self.waiting.answer(|pending| {
            Some(match pending.what {
                Probe::Channel => Observation::Channel(cause, detail(why)),
                _ => Observation::NotObserved,
            })
        });
    }

    /// Ends the connection. A channel probe that was sent over it is sent once more over the next one.
    fn drop_link(&mut self, why: &str) {
        let (mut cause, mut why) = (ChannelFailure::Protocol, why);
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => {}
            State::Connecting(attempt, _) => attempt.abort(),
            State::Up(up) => {
                if let Service::Shell(shell) = &up.service {
                    self.shell_failed = shell.silent();
                }
                if up.link.way_ended() {
                    (cause, why) = (ChannelFailure::NotTried, connect::LOST_WAY);
                }
                drop(up);
            }
        }
        self.waiting.answer(|pending| match (&pending.what, pending.stage) {
            (_, Stage::Waiting) => None,
            (Probe::Channel, _) if !pending.resent => None,
            (Probe::Channel, _) => Some(Observation::Channel(cause, detail(why))),
            _ => Some(Observation::NotObserved),
        });
        for pending in self.waiting.iter_mut().filter(|pending| pending.stage != Stage::Waiting) {
            pending.stage = Stage::Waiting;
            pending.resent = true;
        }
    }

    /// Renews a session that has had too many refused ports, when a channel probe is about to prove the new one.
    fn renew(&mut self) {
        let State::Up(up) = &self.state else { return };
        if up.ports.refusals() >= REFUSALS_MAX && self.waiting.wants_channel() {
            self.drop_link("it was renewed");
        }
    }

    /// Sends everything that waits.
    async fn send(&mut self) {
        let State::Up(up) = &self.state else { return };
        let batch = match &up.service {
            Service::Shell(shell) => shell.next_batch(),
            Service::Exec(_) => 0,
        };
        let ports = self.open_ports(batch);
        let rights = self.rights();
        let State::Up(up) = &mut self.state else { return };
        match &mut up.service {
            Service::Shell(shell) => {
                let text = shell.batch(&mut self.waiting, ports, rights);
                if !text.is_empty() && !shell.send(text, self.waiting.deadline()).await {
                    self.expire();
                }
            }
            Service::Exec(limit) => {
                let limit = Arc::clone(limit);
                self.exec_all(&limit);
            }
        }
    }

    /// Starts one exec for each probe that waits.
    fn exec_all(&mut self, limit: &Arc<Semaphore>) {
        let rights = self.rights();
        let State::Up(up) = &self.state else { return };
        for pending in self.waiting.iter_mut().filter(|pending| pending.stage == Stage::Waiting) {
            pending.stage = Stage::Alone { batch: 0 };
            let (handle, limit, what) =
                (Arc::clone(&up.link.handle), Arc::clone(limit), pending.what.clone());
            let (deadline, output_max) = (pending.deadline, self.shared.settings.output_max);
            let (events, generation, key) = (self.events.clone(), self.generation, pending.key);
            tokio::spawn(async move {
                let probe = fallback::probe(handle, limit, (what, rights), deadline.into(), output_max);
                let seen = Box::pin(probe).await;
                let _gone = events.send(Event::Seen(generation, key, Box::new(seen)));
            });
        }
    }

    /// Starts what waits and needs ports of the guest, to which sshd connects. Says whether there was any.
    fn open_ports(&mut self, batch: u32) -> bool {
        let State::Up(up) = &self.state else { return false };
        let (mut opened, mut too_many) = (false, Vec::new());
        for pending in self.waiting.iter_mut().filter(|pending| pending.stage == Stage::Waiting) {
            let (events, generation, key) = (self.events.clone(), self.generation, pending.key);
            let tell = move |seen: Observation| {
                let _gone = events.send(Event::Seen(generation, key, Box::new(seen.into())));
            };
            match &pending.what {
                Probe::Check(Check::Tcp { host, port }) => {
                    let Some(port) = up.ports.open(host, *port) else {
                        too_many.push(key);
                        continue;
                    };
                    let handle = Arc::clone(&up.link.handle);
                    tokio::spawn(async move { tell(Box::pin(port.probe(&handle)).await) });
                }
                Probe::FromGuest(target) => {
                    let (target, guest) = (Arc::clone(target), up.ports.within(&up.link));
                    let deadline = pending.deadline.into();
                    // Where there is no answer, the deadline says what that means.
                    tokio::spawn(async move {
                        target.ask_from(&guest, deadline).await.into_iter().for_each(tell);
                    });
                }
                _ => continue,
            }
            pending.stage = Stage::Alone { batch };
            opened = true;
        }
        self.waiting.answer(|pending| too_many.contains(&pending.key).then_some(Observation::NotObserved));
        opened
    }

    fn rights(&self) -> Rights {
        Rights::of(self.endpoint.user.as_ref().unwrap_or(&self.shared.settings.user))
    }

    fn act(&mut self, act: Act, reply: oneshot::Sender<Result<String, ActError>>) {
        let State::Up(up) = &self.state else {
            let _gone = reply.send(Err(ActError::NoChannel("the session is not connected".to_owned())));
            return;
        };
        let user = self.endpoint.user.as_ref().unwrap_or(&self.shared.settings.user).clone();
        let (handle, output_max) = (Arc::clone(&up.link.handle), self.shared.settings.output_max);
        tokio::spawn(async move {
            let _gone = reply.send(Box::pin(act::run(handle, user, act, output_max)).await);
        });
    }

    fn replies(&mut self, replies: Vec<Reply>) {
        for reply in replies {
            let State::Up(up) = &mut self.state else { return };
            let Service::Shell(shell) = &mut up.service else { return };
            if let Err(bad) = shell.settle(reply, &mut self.waiting) {
                return self.shell_trouble(&Trouble::Misframed(bad));
            }
        }
    }

    /// The shell ended or cannot be understood. Where the session lives on, exec serves; where it does not, it is connected anew.
    fn shell_trouble(&mut self, trouble: &Trouble) {
        let State::Up(up) = &mut self.state else { return };
        let ready = matches!(&up.service, Service::Shell(shell) if shell.ready());
        let why = match trouble {
            Trouble::Misframed(bad) => bad.to_string(),
            Trouble::Ended if !ready && !up.link.handle.is_closed() => {
                "the resident shell did not start".to_owned()
            }
            Trouble::Ended => {
                let why = up.link.notes.farewell().unwrap_or_else(|| "the resident shell ended".to_owned());
                self.drop_link(&why);
                return self.proceed();
            }
        };
        let service = self.exec_service(&why);
        let State::Up(up) = &mut self.state else { return };
        if let Service::Shell(shell) = std::mem::replace(&mut up.service, service) {
            // A channel's close waits for room in the session's queue; the answers to come do not wait for that.
            tokio::spawn(shell.close());
        }
        for pending in self.waiting.iter_mut() {
            pending.stage = match pending.stage {
                // A port is being connected to without the shell.
                Stage::Alone { .. } => Stage::Alone { batch: 0 },
                _ => Stage::Waiting,
            };
        }
        self.due = true;
    }

    fn seen(&mut self, key: u32, seen: &Seen) {
        let lost = matches!(&self.state, State::Up(up) if up.link.handle.is_closed());
        if lost {
            let farewell = match &self.state {
                State::Up(up) => up.link.notes.farewell(),
                _ => None,
            };
            self.drop_link(&farewell.unwrap_or_else(|| "the server ended the session".to_owned()));
            return self.proceed();
        }
        self.waiting.answer_measured(|pending| (pending.key == key).then(|| seen.clone()));
        if matches!(seen.observation, Observation::Channel(..)) {
            // Said by an exec: the guest does not answer over this session.
            self.drop_link("the session gave no answer");
            self.proceed();
        }
    }

    /// Answers what is due. A channel probe without an answer means that nothing behind it can be observed either.
    fn expire(&mut self) {
        let now = Instant::now();
        let mut silence = match &self.state {
            State::Connecting(_, progress) => progress.silence(),
            _ => Failure { cause: ChannelFailure::TimedOut, detail: "the session gave no answer".into() },
        };
        if let Some(way) = &self.way {
            let due = self.waiting.channel_due(now);
            silence = due.map_or(silence.clone(), |asked| way.silence(silence, asked));
        }
        let up = match &self.state {
            State::Up(up) => Some(up),
            _ => None,
        };
        let mut dead = false;
        self.waiting.answer(|pending| {
            if pending.deadline > now {
                return None;
            }
            if pending.what == Probe::Channel {
                dead = true;
                return Some(Observation::Channel(silence.cause, silence.detail.clone()));
            }
            let alive = up.is_some_and(|up| up.alive_since(pending.stage));
            Some(if alive { Observation::DeadlinePassed } else { Observation::NotObserved })
        });
        if !dead {
            return;
        }
        match &self.state {
            // Others may still wait for this attempt.
            State::Connecting(..) if self.waiting.wants_channel() => {}
            State::Connecting(..) => {
                self.shared.tally.failed(silence.cause);
                self.drop_link("");
                self.fail(silence.cause, &silence.detail);
            }
            _ => {
                self.drop_link("the session gave no answer");
                if self.waiting.wants_channel() {
                    self.connect();
                }
            }
        }
    }
}

impl Up {
    /// Whether the guest has answered anything since a probe was sent.
    fn alive_since(&self, stage: Stage) -> bool {
        match (&self.service, stage) {
            (Service::Shell(shell), Stage::Asked { batch, .. } | Stage::Alone { batch }) => {
                shell.heard(batch)
            }
            // An exec has no heartbeat beside it: the session's own keepalive speaks for it.
            (Service::Exec(_), _) => !self.link.handle.is_closed(),
            _ => false,
        }
    }
}

/// Connects, and starts the shell where it is wanted.
async fn attempt(
    shared: Arc<Shared>,
    peer: Peer,
    way: Option<Way>,
    progress: Arc<Progress>,
    generation: u32,
    with_shell: bool,
    events: mpsc::UnboundedSender<Event>,
) {
    let connected = Box::pin(connect::connect(shared, peer, way, progress)).await;
    let outcome = match connected {
        Ok(link) if with_shell => start_shell(link).await,
        Ok(link) => Ok(Connected { link, shell: None }),
        Err(failure) => Err(failure),
    };
    let _gone = events.send(Event::Connected(generation, Box::new(outcome)));
}

async fn start_shell(link: Link) -> Result<Connected, Failure> {
    match Shell::start(&link).await {
        Ok(shell) => Ok(Connected { link, shell: Some(shell) }),
        Err(russh::Error::ChannelOpenFailure(_)) => Ok(Connected { link, shell: None }),
        Err(_) => {
            let why = link
                .notes
                .farewell()
                .unwrap_or_else(|| "the server ended the session after the login".to_owned());
            let failure = Failure { cause: ChannelFailure::Protocol, detail: detail(&why) };
            Err(Link::blame(link.via(), failure).await)
        }
    }
}
