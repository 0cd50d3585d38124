//! One imitated machine: what state it is in and the verbs that change it. Its port is `port.rs`, its units `unit.rs`, what its
//! guest answers `guest.rs`. A task of its own (`run.rs`) brings the port in line with the state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::FleetError;
use super::connection::{Connection, Gate};
use super::keys::HostKey;
use super::observer::{Boot, Counters, Counts, Observer, What};
use super::port::Link;
use super::state::{Power, State};
use super::unit::{Activity, Behaviour, Load, Unit, UnitSpec};

/// A machine as the fleet is built with it.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// Its name, unique in the fleet.
    pub name: String,
    /// Its units.
    pub units: Vec<UnitSpec>,
    /// From the start of a boot until sshd answers.
    pub boot_time: Duration,
    /// What programs that are no units do: the whole command line of a `command` probe, and its behaviour.
    pub commands: BTreeMap<String, Command>,
    /// Names of processes that run without a unit.
    pub processes: BTreeSet<String>,
}

impl MachineSpec {
    /// A machine that boots in 3 s, with these units.
    #[must_use]
    pub fn new(name: &str, units: Vec<UnitSpec>) -> Self {
        Self {
            name: name.to_owned(),
            units,
            boot_time: Duration::from_secs(3),
            commands: BTreeMap::new(),
            processes: BTreeSet::new(),
        }
    }
}

/// What a program does when a `command` probe runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// It prints and exits.
    Exits {
        /// Its exit status.
        status: u8,
        /// What it prints on standard output.
        output: String,
        /// How long it takes.
        after: Duration,
    },
    /// It never ends.
    Hangs,
    /// It prints that many bytes and exits 0.
    Floods {
        /// How many bytes.
        bytes: u64,
    },
}

/// There is no such unit on the machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "machine {machine} of the live fleet has no unit {unit}: name one of its units, with the type (nginx.service)"
)]
pub struct NoSuchUnit {
    /// The machine.
    pub machine: Arc<str>,
    /// What was asked for.
    pub unit: String,
}

/// One machine of a fleet. Verbs return when the change is in effect on the network.
#[derive(Debug)]
pub struct Machine {
    pub(super) name: Arc<str>,
    pub(super) address: SocketAddr,
    pub(super) user: Arc<str>,
    pub(super) counters: Counters,
    pub(super) observer: Observer,
    pub(super) gate: Arc<Gate>,
    /// Wakes the machine's task.
    pub(super) changed: Notify,
    /// The newest version of the state that the port follows.
    pub(super) applied: watch::Sender<u64>,
    state: Mutex<State>,
}

/// What the machine's task has to see to.
pub(super) struct Plan {
    pub(super) version: u64,
    pub(super) link: Link,
    /// When something happens by itself.
    pub(super) next: Option<Instant>,
}

/// More connections at a time than this are dropped, as sshd does (MaxStartups is 100 at most by default).
const CONNECTIONS_MAX: usize = 100;

impl Machine {
    pub(super) fn new(
        spec: MachineSpec,
        address: SocketAddr,
        user: Arc<str>,
        host_key: HostKey,
        observer: Observer,
    ) -> Self {
        let name = spec.name.as_str().into();
        let state = State::new(spec, host_key);
        Self {
            name,
            address,
            user,
            counters: Counters::default(),
            observer,
            gate: Arc::default(),
            changed: Notify::new(),
            applied: watch::Sender::new(0),
            state: Mutex::new(state),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its sshd listens: an address of its own in 127.0.0.0/8, and the fleet's port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// Whether it has power.
    #[must_use]
    pub fn power(&self) -> Power {
        self.lock().power
    }

    /// Its line of a `known_hosts` file, with its present key.
    #[must_use]
    pub fn known_hosts_line(&self) -> String {
        self.lock().host_key.known_hosts_line(self.address)
    }

    /// Whether that unit is active now, whoever can see it.
    ///
    /// # Errors
    /// [`NoSuchUnit`].
    pub fn is_active(&self, unit: &str) -> Result<bool, NoSuchUnit> {
        self.with_unit(unit, |unit| unit.is_active())
    }

    /// Kills a unit's processes: it is failed, and nobody restarts it.
    ///
    /// # Errors
    /// [`NoSuchUnit`].
    pub fn kill_unit(&self, unit: &str) -> Result<(), NoSuchUnit> {
        self.with_unit(unit, |unit| unit.activity = Activity::Failed)?;
        self.tell(What::UnitKilled(unit.into()));
        Ok(())
    }

    /// Makes a unit die that long after each start, the present one included.
    ///
    /// # Errors
    /// [`NoSuchUnit`].
    pub async fn crash_loop(&self, unit: &str, after: Duration) -> Result<(), NoSuchUnit> {
        self.behave(unit, Behaviour::DiesAfter(after)).await
    }

    /// Changes what a unit does once it was started.
    ///
    /// # Errors
    /// [`NoSuchUnit`].
    pub async fn behave(&self, unit: &str, behaviour: Behaviour) -> Result<(), NoSuchUnit> {
        let now = Instant::now();
        self.with_unit(unit, |unit| {
            unit.spec.behaviour = behaviour;
            let comes_up = matches!(behaviour, Behaviour::Runs | Behaviour::DiesAfter(_));
            if unit.is_active() || unit.activity == Activity::Starting && comes_up {
                unit.activity = Activity::Running { since: now };
            }
        })?;
        self.change(None, |_| {}).await;
        Ok(())
    }

    /// Masks a unit and stops it.
    ///
    /// # Errors
    /// [`NoSuchUnit`].
    pub fn mask(&self, unit: &str) -> Result<(), NoSuchUnit> {
        self.with_unit(unit, |unit| {
            unit.load = Load::Masked;
            unit.activity = Activity::Stopped;
        })?;
        self.tell(What::UnitMasked(unit.into()));
        Ok(())
    }

    /// Takes a unit's mask off. It stays stopped.
    ///
    /// # Errors
    /// [`NoSuchUnit`].
    pub fn unmask(&self, unit: &str) -> Result<(), NoSuchUnit> {
        self.with_unit(unit, |unit| unit.load = Load::Loaded)
    }

    /// Removes a unit's file and stops it: systemd does not find it any more.
    ///
    /// # Errors
    /// [`NoSuchUnit`].
    pub fn remove_unit(&self, unit: &str) -> Result<(), NoSuchUnit> {
        self.with_unit(unit, |unit| {
            unit.load = Load::NotFound;
            unit.activity = Activity::Stopped;
        })
    }

    /// Stops everything in the guest: the kernel still accepts TCP connections, nothing answers. A reboot from inside is not heard.
    pub async fn freeze(&self) {
        self.change(Some(What::Frozen), |state| state.frozen = true).await;
    }

    /// Ends [`freeze`](Self::freeze).
    pub async fn thaw(&self) {
        self.change(Some(What::Thawed), |state| state.frozen = false).await;
    }

    /// Cuts its network: no packet arrives, neither a reset nor a refusal comes back. Power and guest are untouched, and no reboot
    /// repairs it. (On loopback: new connections get no answer at all; on open ones bytes stay where they are.)
    pub async fn cut_off(&self) {
        self.change(Some(What::CutOff), |state| state.cut_off = true).await;
    }

    /// Ends [`cut_off`](Self::cut_off). Open connections go on as if nothing had been.
    pub async fn heal(&self) {
        self.change(Some(What::Healed), |state| state.cut_off = false).await;
    }

    /// Cuts its power. No packet comes back.
    pub async fn power_off(&self) {
        self.change(Some(What::PoweredOff), |state| {
            state.power = Power::Off;
            state.boots_until = None;
            state.guest_lost();
        })
        .await;
    }

    /// Gives it power, if it is off: it boots.
    pub async fn power_on(&self) {
        if self.power() == Power::Off {
            self.boot(Boot::PowerOn).await;
        }
    }

    /// Asks the guest to reboot: sessions end in order, then it boots. A guest that is frozen, off or booting does not hear it.
    /// Returns whether it heard.
    pub async fn reboot_soft(&self) -> bool {
        let hears = {
            let state = self.lock();
            state.power == Power::On && !state.frozen
        };
        if hears {
            self.boot(Boot::Soft).await;
        } else {
            self.tell(What::RebootIgnored);
        }
        hears
    }

    /// Cuts its power and gives it back. It boots, also from frozen and from off.
    pub async fn reboot_hard(&self) {
        self.boot(Boot::Hard).await;
    }

    async fn boot(&self, boot: Boot) {
        self.counters.boots.add(1);
        self.change(Some(What::Booting(boot)), |state| {
            if boot == Boot::Soft {
                state.end_connections(Connection::end);
            }
            state.power = Power::Booting;
            state.boots_until = Some(Instant::now() + state.boot_time);
            state.guest_lost();
        })
        .await;
    }

    /// Stops sshd and its sessions: the kernel refuses connections, units live on.
    pub async fn stop_sshd(&self) {
        self.change(Some(What::SshdStopped), |state| {
            state.sshd = false;
            state.end_connections(Connection::end);
        })
        .await;
    }

    /// Starts sshd again.
    pub async fn start_sshd(&self) {
        self.change(Some(What::SshdStarted), |state| state.sshd = true).await;
    }

    /// Ends all sessions in order, as a restart of sshd's sessions does; new ones are accepted.
    pub async fn end_sessions(&self) {
        self.change(None, |state| state.end_connections(Connection::end)).await;
    }

    /// Gives it another host key, as a reinstallation does, and ends its sessions.
    ///
    /// # Errors
    /// [`FleetError::Key`] if none can be made.
    pub async fn change_host_key(&self) -> Result<(), FleetError> {
        let key = HostKey::new().map_err(FleetError::Key)?;
        self.change(Some(What::HostKeyChanged), |state| {
            state.host_key = key;
            state.end_connections(Connection::end);
        })
        .await;
        Ok(())
    }

    /// Refuses the fleet's client key from now on, and ends its sessions.
    pub async fn refuse_key(&self) {
        self.change(Some(What::KeyRefused), |state| {
            state.accepts_key = false;
            state.end_connections(Connection::end);
        })
        .await;
    }

    /// Accepts the fleet's client key again.
    pub fn accept_key(&self) {
        self.lock().accepts_key = true;
        self.tell(What::KeyAccepted);
    }

    /// Whether `sudo -n` works for the user (it does at first).
    pub fn allow_sudo(&self, allowed: bool) {
        self.lock().sudo = allowed;
    }

    /// Whether `systemctl` answers (it does at first): without, it hangs, as when PID 1 or the bus is stuck.
    pub fn let_systemctl_answer(&self, answers: bool) {
        self.lock().systemctl_answers = answers;
    }

    /// Whether a resident shell can be started (it can at first): without, its exec is answered with exit 126 and only exec per
    /// probe is left. Ends the sessions, so that it shows.
    pub async fn allow_resident_shell(&self, allowed: bool) {
        self.change(None, |state| {
            state.resident = allowed;
            state.end_connections(Connection::end);
        })
        .await;
    }

    /// Sets what a program does when a `command` probe runs exactly this line.
    pub fn set_command(&self, line: &str, command: Command) {
        self.lock().commands.insert(line.to_owned(), command);
    }

    /// Starts or ends a process that belongs to no unit.
    pub fn set_process(&self, name: &str, runs: bool) {
        let processes = &mut self.lock().processes;
        if runs {
            processes.insert(name.to_owned());
        } else {
            processes.remove(name);
        }
    }

    /// Waits until the guest runs. Never returns if nobody gives it power.
    pub async fn until_booted(&self) {
        let mut applied = self.applied.subscribe();
        while self.power() != Power::On {
            if applied.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn tell(&self, what: What) {
        self.observer.tell(&self.name, what);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in another task leaves a state that is still one of a machine.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_unit<T>(&self, name: &str, then: impl FnOnce(&mut Unit) -> T) -> Result<T, NoSuchUnit> {
        let mut state = self.lock();
        match state.unit(name) {
            Some(unit) => Ok(then(unit)),
            None => Err(NoSuchUnit { machine: Arc::clone(&self.name), unit: name.to_owned() }),
        }
    }

    /// Changes the state, tells it (before anything that follows from it), and waits until the port follows it.
    async fn change(&self, what: Option<What>, then: impl FnOnce(&mut State)) {
        let version = {
            let mut state = self.lock();
            then(&mut state);
            what.into_iter().for_each(|what| self.tell(what));
            state.version += 1;
            self.gate.set_still(state.link() == Link::Vanished || state.link() == Link::Silent);
            state.wake_connections();
            state.version
        };
        self.changed.notify_one();
        let mut applied = self.applied.subscribe();
        // An error says that the fleet was stopped: then nothing is in effect any more.
        let _ = applied.wait_for(|done| *done >= version).await;
    }

    /// Wakes the machine's task after a unit was started, so that it sees to its death.
    pub(super) fn units_changed(&self) {
        self.lock().version += 1;
        self.changed.notify_one();
    }

    /// Lets happen what is due, and says what comes next.
    pub(super) fn settle(&self, now: Instant) -> Plan {
        let mut state = self.lock();
        if state.boots_until.is_some_and(|until| until <= now) {
            state.booted(now);
            self.gate.set_still(state.cut_off);
            self.tell(What::Booted);
        }
        let mut next = state.boots_until;
        if state.power == Power::On && !state.frozen {
            for unit in &mut state.units {
                let Some(dies) = unit.dies_at() else { continue };
                if dies <= now {
                    unit.activity = Activity::Failed;
                    self.tell(What::UnitDied(unit.spec.name.as_str().into()));
                } else {
                    next = Some(next.map_or(dies, |next| next.min(dies)));
                }
            }
        }
        Plan { version: state.version, link: state.link(), next }
    }

    /// Takes a new connection, if there are not too many.
    pub(super) fn admit(&self, connection: &Arc<Connection>) -> bool {
        let mut state = self.lock();
        state.connections.retain(|connection| connection.strong_count() > 0);
        if state.connections.len() >= CONNECTIONS_MAX {
            return false;
        }
        state.connections.push(Arc::downgrade(connection));
        true
    }

    /// Breaks all connections: the fleet is stopped.
    pub(super) fn abandon(&self) {
        self.lock().end_connections(Connection::break_off);
    }
}
