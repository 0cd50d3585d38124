//! What a machine is at one moment, and what follows from it: what the network sees, what a boot starts. Under the lock of `machine.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::keys::HostKey;
use super::machine::{Command, MachineSpec};
use super::port::Link;
use super::unit::Unit;

/// Whether a machine has power, and its guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It is off.
    Off,
    /// It has power, sshd does not run yet.
    Booting,
    /// The guest runs.
    On,
}

/// Everything of a machine that can change.
#[derive(Debug)]
pub(super) struct State {
    pub(super) version: u64,
    pub(super) power: Power,
    pub(super) boots_until: Option<Instant>,
    pub(super) boot_time: Duration,
    pub(super) cut_off: bool,
    pub(super) frozen: bool,
    pub(super) sshd: bool,
    pub(super) accepts_key: bool,
    pub(super) sudo: bool,
    pub(super) systemctl_answers: bool,
    pub(super) resident: bool,
    pub(super) units: Vec<Unit>,
    pub(super) commands: BTreeMap<String, Command>,
    pub(super) processes: BTreeSet<String>,
    pub(super) host_key: HostKey,
    pub(super) connections: Vec<Weak<Connection>>,
}

impl State {
    /// A machine that has booted.
    pub(super) fn new(spec: MachineSpec, host_key: HostKey) -> Self {
        let mut state = Self {
            version: 0,
            power: Power::On,
            boots_until: None,
            boot_time: spec.boot_time,
            cut_off: false,
            frozen: false,
            sshd: true,
            accepts_key: true,
            sudo: true,
            systemctl_answers: true,
            resident: true,
            units: spec.units.into_iter().map(Unit::new).collect(),
            commands: spec.commands,
            processes: spec.processes,
            host_key,
            connections: Vec::new(),
        };
        state.start_enabled(Instant::now());
        state
    }

    pub(super) fn unit(&mut self, name: &str) -> Option<&mut Unit> {
        self.units.iter_mut().find(|unit| unit.spec.name == name)
    }

    pub(super) fn link(&self) -> Link {
        match self {
            Self { power: Power::Off | Power::Booting, .. } | Self { cut_off: true, .. } => Link::Vanished,
            Self { frozen: true, .. } => Link::Silent,
            Self { sshd: false, .. } => Link::Refusing,
            _ => Link::Listening,
        }
    }

    /// The guest is gone with all that ran in it.
    pub(super) fn guest_lost(&mut self) {
        self.frozen = false;
        for unit in &mut self.units {
            unit.power_lost();
        }
    }

    /// A fresh guest knows nothing of old connections: packets of theirs are answered with a reset.
    pub(super) fn booted(&mut self, now: Instant) {
        self.power = Power::On;
        self.boots_until = None;
        self.sshd = true;
        self.version += 1;
        self.end_connections(Connection::break_off);
        self.start_enabled(now);
    }

    fn start_enabled(&mut self, now: Instant) {
        for unit in self.units.iter_mut().filter(|unit| unit.spec.enabled) {
            unit.start(now);
        }
    }

    pub(super) fn end_connections(&mut self, end: fn(&Connection)) {
        for connection in self.connections.drain(..).filter_map(|connection| connection.upgrade()) {
            end(&connection);
        }
    }

    pub(super) fn wake_connections(&self) {
        for connection in self.connections.iter().filter_map(Weak::upgrade) {
            connection.wake();
        }
    }
}
