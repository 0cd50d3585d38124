//! The sessions to the assemblies of one deployable, and the probes that are in flight over them. The driver (`driver.rs`)
//! collects what is due in one tick and sends it as one batch for each assembly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cpe_monitor::ssh::{Answer, Endpoint, Identity, Probe, ProbeRequest, Session};
use cpe_proto::definition::{Assembly, Check, Deployable, Direct, HostOf, Machine, Monitor};
use cpe_proto::id::{AssemblyIndex, ProbeId};
use cpe_proto::observation::{ChannelFailure, Observation};
use cpe_proto::time::Timestamp;
use dped::Target;
use tokio::sync::mpsc;

use crate::direct::{self, DirectProbes};
use crate::shared::Shared;

/// A probe that was sent.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    /// What it is aimed at.
    pub target: Target,
    /// The assembly whose channel carries it.
    pub assembly: AssemblyIndex,
    /// When it was sent.
    pub sent: Timestamp,
}

impl InFlight {
    /// The same probe under a changed definition; none where its target is not the same any more.
    fn follow(self, before: &Deployable, after: &Deployable) -> Option<Self> {
        let assembly = same_machine(before, after, self.assembly)?;
        let target = match self.target {
            Target::Channel(_) => Target::Channel(assembly),
            Target::Service(service) => {
                Target::Service(after.service_named(assembly, before.service(service).name.as_str())?)
            }
        };
        Some(Self { target, assembly, ..self })
    }
}

/// The assemblies that are the same machines before and after a change of their definition.
pub fn same_machines<'a>(
    before: &'a Deployable,
    after: &'a Deployable,
) -> impl Iterator<Item = (AssemblyIndex, AssemblyIndex)> + 'a {
    before.assembly_indices().filter_map(|index| Some((index, same_machine(before, after, index)?)))
}

fn same_machine(before: &Deployable, after: &Deployable, index: AssemblyIndex) -> Option<AssemblyIndex> {
    let was = before.assembly(index);
    let found = after.assembly_named(was.name.as_str())?;
    let now = &after.assembly(found).machine;
    // An instance is not another one because it would be made otherwise now.
    let made = matches!((&was.machine, now), (Machine::Image { .. }, Machine::Image { .. }));
    (made || *now == was.machine).then_some(found)
}

/// The sessions of one deployable.
pub struct Sessions {
    shared: Arc<Shared>,
    results: mpsc::Sender<Answer>,
    direct: DirectProbes,
    machines: Vec<MachineSession>,
    in_flight: BTreeMap<ProbeId, InFlight>,
}

/// One assembly's address and session; both come when they are known.
#[derive(Default)]
struct MachineSession {
    address: Option<Arc<str>>,
    session: Option<Arc<Session>>,
    batch: Vec<ProbeRequest>,
}

impl Sessions {
    /// Sessions to what has an address in its definition; connected by the first probe.
    #[must_use]
    pub fn new(definition: &Deployable, shared: Arc<Shared>, results: mpsc::Sender<Answer>) -> Self {
        let machines = definition.assemblies.iter().map(|_| MachineSession::default()).collect();
        let direct = DirectProbes::new(shared.prober.clone(), results.clone());
        let mut sessions = Self { shared, results, direct, machines, in_flight: BTreeMap::new() };
        sessions.connect_to_addresses(definition);
        sessions
    }

    /// Where nothing is known of a machine but its definition: one that moved stays where it is.
    fn connect_to_addresses(&mut self, definition: &Deployable) {
        for index in definition.assembly_indices() {
            if let Machine::Address(address) = &definition.assembly(index).machine
                && self.address(index).is_none()
            {
                self.set_address(definition, index, &Arc::from(address.as_str()));
            }
        }
    }

    /// Where an assembly is reached, if known.
    #[must_use]
    pub fn address(&self, assembly: AssemblyIndex) -> Option<&Arc<str>> {
        self.machine(assembly).address.as_ref()
    }

    /// The session to an assembly, if its address is known.
    #[must_use]
    pub fn session(&self, assembly: AssemblyIndex) -> Option<&Arc<Session>> {
        self.machine(assembly).session.as_ref()
    }

    /// Uses that address from now on; a session to another one is closed.
    pub fn set_address(&mut self, definition: &Deployable, assembly: AssemblyIndex, address: &Arc<str>) {
        if self.machine(assembly).address.as_ref() == Some(address) {
            return;
        }
        let machine = &mut self.machines[usize::from(assembly.0)];
        (machine.address, machine.session) = (Some(Arc::clone(address)), None);
        if definition.assembly(assembly).monitor != Monitor::Ssh {
            return;
        }
        let endpoint = endpoint(definition, definition.assembly(assembly), address);
        let results = self.results.clone();
        // There is room for all that can be in flight; an answer that finds none is one that the engine has given up.
        let answers = Box::new(move |answer| drop(results.try_send(answer)));
        let session = Arc::new(self.shared.monitor.session(endpoint, answers));
        self.machines[usize::from(assembly.0)].session = Some(session);
    }

    /// Follows a changed definition: a machine that is the same keeps its session, and its probes stay in flight.
    pub fn follow(&mut self, before: &Deployable, after: &Deployable) {
        self.direct.forget();
        let mut kept: Vec<_> = std::mem::take(&mut self.machines).into_iter().map(Some).collect();
        self.machines = after.assemblies.iter().map(|_| MachineSession::default()).collect();
        for (index, same) in same_machines(before, after) {
            let (was, is) = (before.assembly(index), after.assembly(same));
            // As the engine keeps what it knows of a machine; otherwise where it moved to is forgotten on both sides.
            if is.ssh == was.ssh
                && before.reached_alike(index, after, same)
                && let Some(machine) = kept[usize::from(index.0)].take()
            {
                self.machines[usize::from(same.0)] = machine;
            }
        }
        self.connect_to_addresses(after);
        let flights = std::mem::take(&mut self.in_flight).into_iter();
        self.in_flight =
            flights.filter_map(|(probe, flight)| Some((probe, flight.follow(before, after)?))).collect();
    }

    /// Adds a probe to its assembly's batch: what is asked there, or why nothing can be. A probe that cannot be sent is answered at once by
    /// the observation returned.
    pub fn add(
        &mut self,
        definition: &Deployable,
        (probe, target, what): (ProbeId, Target, Result<Probe, String>),
        timeout: Duration,
        now: Timestamp,
    ) -> Option<Observation> {
        let what = match what {
            Ok(Probe::Check(Check::FromGuest(asked))) => self.host(&asked).map_or_else(
                || Err("the address to ask at is not known yet".to_owned()),
                |host| Ok(Probe::FromGuest(self.direct.at(target, &asked, &host))),
            ),
            what => what,
        };
        let what = match what {
            Ok(Probe::Check(Check::Direct(asked))) => {
                return self.ask_directly(definition, probe, target, &asked, timeout, now);
            }
            Ok(Probe::Channel) if let Some(asked) = direct::of(definition, target) => {
                return self.ask_directly(definition, probe, target, asked, timeout, now);
            }
            Ok(what) => what,
            Err(why) => return Some(Observation::NotAsked(why.into())),
        };
        let assembly = match target {
            Target::Channel(assembly) => assembly,
            Target::Service(service) => definition.service(service).assembly,
        };
        self.renew(definition, assembly);
        let machine = &mut self.machines[usize::from(assembly.0)];
        if machine.session.is_none() {
            return Some(unaddressed(target));
        }
        machine.batch.push(ProbeRequest { probe, what, timeout });
        self.in_flight.insert(probe, InFlight { target, assembly, sent: now });
        None
    }

    /// A session whose task panicked is replaced. What it had in flight is never answered, and the engine asks it again by itself.
    fn renew(&mut self, definition: &Deployable, assembly: AssemblyIndex) {
        if !self.session(assembly).is_some_and(|session| session.has_ended()) {
            return;
        }
        let Some(address) = self.machines[usize::from(assembly.0)].address.take() else { return };
        tracing::error!(deployable = %definition.name, assembly = %definition.assembly(assembly).name, "a session panicked; a new one is made");
        self.set_address(definition, assembly, &address);
    }

    /// Where that is asked, if known.
    fn host(&self, what: &Direct) -> Option<Arc<str>> {
        match what.target() {
            HostOf::Assembly(assembly) => self.address(*assembly).cloned(),
            HostOf::Host(host) => Some(Arc::from(host.as_str())),
        }
    }

    fn ask_directly(
        &mut self,
        definition: &Deployable,
        probe: ProbeId,
        target: Target,
        what: &Arc<Direct>,
        timeout: Duration,
        now: Timestamp,
    ) -> Option<Observation> {
        let Some(host) = self.host(what) else { return Some(unaddressed(target)) };
        let assembly = match target {
            Target::Channel(assembly) => assembly,
            Target::Service(service) => definition.service(service).assembly,
        };
        self.direct.submit(probe, target, what, &host, timeout);
        self.in_flight.insert(probe, InFlight { target, assembly, sent: now });
        None
    }

    /// Sends all batches.
    pub fn flush(&mut self) {
        for machine in &mut self.machines {
            if machine.batch.is_empty() {
                continue;
            }
            let batch = std::mem::take(&mut machine.batch);
            if let Some(session) = &machine.session {
                session.submit(batch);
            }
        }
    }

    /// Takes a probe out of flight; none: it was not in flight.
    pub fn landed(&mut self, probe: ProbeId) -> Option<InFlight> {
        self.in_flight.remove(&probe)
    }

    /// Drops the session to an assembly; the next probe connects anew.
    pub fn reconnect(&self, assembly: AssemblyIndex) {
        if let Some(session) = self.session(assembly) {
            session.reconnect();
        }
    }

    fn machine(&self, assembly: AssemblyIndex) -> &MachineSession {
        &self.machines[usize::from(assembly.0)]
    }
}

fn unaddressed(target: Target) -> Observation {
    match target {
        Target::Channel(_) => {
            Observation::Channel(ChannelFailure::NotTried, "no address is known yet".into())
        }
        Target::Service(_) => Observation::NotObserved,
    }
}

/// How an assembly is reached at that address.
pub(crate) fn endpoint(definition: &Deployable, assembly: &Assembly, address: &str) -> Endpoint {
    let ssh = &assembly.ssh;
    Endpoint {
        label: format!("{}/{}", definition.name, assembly.name),
        address: address.to_owned(),
        port: ssh.port,
        user: ssh.user.clone(),
        identity: ssh
            .identity
            .as_ref()
            .map(|file| Identity::configured(file.into(), ssh.passphrase.as_ref())),
        route: ssh.route.as_ref().map(Into::into),
    }
}
