//! What services are set up with (policy.md section 4): parameters are rendered and compared with those that the service was last set up
//! with. Where an assembly comes back with another address, those dependents whose parameters changed, and no others, are configured
//! and restarted, in order, as uncounted steps of its incident. The steps themselves are `plan.rs`'s. One whose outcome a restart of
//! this process lost is done again: nothing in the guest tells what it was configured with, and to configure twice is harmless.

use std::collections::BTreeMap;
use std::sync::Arc;

use cpe_proto::decision::{Refusal, Value};
use cpe_proto::definition::{
    Attribute, Check, CommandLine, Deployable, Direct, Machine, Mode, ParameterName, Reference, Referring,
    Service,
};
use cpe_proto::document::Host;
use cpe_proto::event::EventKind;
use cpe_proto::id::{ActionId, AssemblyIndex, IncidentId, ServiceIndex};
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use cpe_proto::time::Timestamp;

use crate::backoff;
use crate::describe::span;
use crate::engine::{About, Engine};
use crate::health::HealthEvent;
use crate::output::{Act, Output};
use crate::parts::{Demand, Phase, Standing, Start};

/// Parameters with their values, by name.
pub type Parameters = Arc<[(ParameterName, String)]>;

/// After so many attempts that failed a person is told, and it is tried on at the pace of what is exhausted.
const TOLD_AFTER: u8 = 3;

/// What a service was set up with, where that can change: its parameters refer to something, or a script configures it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    /// None: nobody knows yet; the first rendering that is whole is taken for it.
    pub(crate) applied: Option<Parameters>,
    /// Its machine was made anew since.
    pub(crate) fresh: bool,
    /// It is to be set up anew.
    pub(crate) due: bool,
    /// What it is being set up with.
    pub(crate) acting: Option<Parameters>,
    /// The incident of what made it due.
    pub(crate) incident: Option<IncidentId>,
    /// Attempts that failed.
    pub(crate) failed: u8,
    /// No attempt before.
    pub(crate) wait_until: Option<Timestamp>,
    /// A refusal that stands.
    pub(crate) refused: Option<Standing>,
}

/// What is asked for with `http` alone has a path.
fn at_path(asked: &Arc<Direct>, path: &str) -> Result<Arc<Direct>, String> {
    let Direct::Http(http) = &**asked else { return Ok(Arc::clone(asked)) };
    let http = http
        .at_path(path)
        .map_err(|expected| format!("with its references it is no path, expected {expected}"))?;
    Ok(Arc::new(Direct::Http(Box::new(http))))
}

impl Engine {
    /// What a service runs with: what it was last set up with. None where an address that it needs is not known yet.
    #[must_use]
    pub fn parameters(&self, service: ServiceIndex) -> Option<Parameters> {
        let setup = self.service(service).setup.as_ref();
        setup.and_then(|setup| setup.applied.clone()).or_else(|| self.rendered(service))
    }

    /// What a service would be set up with now. None where an address that it needs is not known yet.
    #[must_use]
    pub fn rendered(&self, service: ServiceIndex) -> Option<Parameters> {
        let parameters = &self.definition().service(service).parameters;
        let one = |(name, value): &(ParameterName, Referring)| {
            let value = value.render(|reference| self.attribute(*reference)).ok()?;
            Some((name.clone(), value))
        };
        parameters.iter().map(one).collect()
    }

    /// A text of the definition with what its references mean now. An address is nothing but an address or a host name there, whatever
    /// an infrastructure says: to a shell, a URL and a program it is one plain word that begins with no hyphen.
    ///
    /// # Errors
    /// Which address is not known yet, or is none, for a person.
    pub fn fill(&self, text: &Referring) -> Result<String, String> {
        let mut wrong = None;
        let filled = text.render(|reference| {
            let value = self.attribute(*reference)?;
            if reference.attribute == Attribute::Name {
                return Some(value.to_string());
            }
            let host = Host::parse(&value);
            if host.is_err() {
                wrong = Some(value);
            }
            host.ok().map(|host| host.as_str().to_owned())
        });
        filled.map_err(|reference| {
            let name = &self.definition().assembly(reference.assembly).name;
            match wrong {
                None => format!("the address of {name} is not known yet"),
                Some(said) => {
                    let shown: String = said.chars().take(64).flat_map(char::escape_debug).collect();
                    format!("the address of {name} is \"{shown}\", expected an IP address or a host name")
                }
            }
        })
    }

    /// How a service is probed now: as its definition says, with what its line refers to.
    ///
    /// # Errors
    /// Why it cannot be probed, for a person.
    pub fn check(&self, service: ServiceIndex) -> Result<Check, String> {
        let service = self.definition().service(service);
        let Some(line) = &service.line else { return Ok(service.check.clone()) };
        let filled = self.fill(line)?;
        let line = || {
            CommandLine::parse(&filled)
                .map_err(|expected| format!("with its references it is no command line, expected {expected}"))
        };
        match &service.check {
            Check::Direct(asked) => at_path(asked, &filled).map(Check::Direct),
            Check::FromGuest(asked) => at_path(asked, &filled).map(Check::FromGuest),
            Check::Nagios(_) => line().map(Check::Nagios),
            _ => line().map(Check::Command),
        }
    }

    /// What an assembly is made with now.
    ///
    /// # Errors
    /// Why some of its parameters have no value, beside those that have one.
    pub fn made_with(&self, assembly: AssemblyIndex) -> (BTreeMap<String, String>, Option<String>) {
        let (mut known, mut missing) = (BTreeMap::new(), None);
        for (name, value) in &self.definition().assembly(assembly).parameters {
            match self.fill(value) {
                Ok(value) => _ = known.insert(name.clone(), value),
                Err(why) => missing = missing.or_else(|| Some(format!("parameter {name}: {why}"))),
            }
        }
        (known, missing)
    }

    /// Where an assembly is reached, as far as that is more than its definition says: kept over restarts.
    #[must_use]
    pub fn moved_to(&self, assembly: AssemblyIndex) -> Option<&Arc<str>> {
        let part = self.assembly(assembly);
        part.address.as_ref().filter(|_| part.moved)
    }

    fn attribute(&self, reference: Reference) -> Option<Arc<str>> {
        let assembly = self.definition().assembly(reference.assembly);
        match (reference.attribute, &assembly.machine) {
            (Attribute::Name, _) => Some(assembly.name.as_str().into()),
            // An infrastructure may have another name for the address of the definition: only a change of its own word is one.
            (Attribute::Address, Machine::Address(address)) => {
                Some(self.moved_to(reference.assembly).cloned().unwrap_or_else(|| address.as_str().into()))
            }
            (Attribute::Address, _) => self.assembly(reference.assembly).address.clone(),
        }
    }

    /// Gives each service the place for it that it needs.
    pub(crate) fn begin_setups(&mut self) {
        let definition = Arc::clone(self.definition());
        for service in definition.assembly_indices().flat_map(|index| definition.services_of(index)) {
            let wanted =
                definition.service(service).refers() || definition.service(service).configure.is_some();
            let part = self.service_mut(service);
            part.setup = part.setup.take().or_else(|| wanted.then(Box::default)).filter(|_| wanted);
        }
        self.look_at_setups(None);
    }

    /// Something changed: which services are to be set up anew?
    pub(crate) fn look_at_setups(&mut self, incident: Option<IncidentId>) {
        let definition = Arc::clone(self.definition());
        for service in definition.assembly_indices().flat_map(|index| definition.services_of(index)) {
            if self.service(service).setup.is_none() {
                continue;
            }
            let rendered = self.rendered(service);
            let Some(setup) = &mut self.service_mut(service).setup else { continue };
            if setup.applied.is_none() {
                setup.applied.clone_from(&rendered);
            }
            let due = rendered.is_some_and(|now| setup.fresh || setup.applied.as_ref() != Some(&now));
            if due && !setup.due {
                (setup.failed, setup.wait_until) = (0, None);
                setup.incident = incident.or(setup.incident);
            }
            setup.due = due;
        }
    }

    /// A machine has a new disk: nothing on it is set up.
    pub(crate) fn machine_made_anew(&mut self, index: AssemblyIndex, incident: IncidentId) {
        for service in self.definition().services_of(index) {
            let configured = self.definition().service(service).configure.is_some();
            if let Some(setup) = self.service_mut(service).setup.as_mut().filter(|_| configured) {
                setup.fresh = true;
            }
        }
        self.look_at_setups(Some(incident));
    }

    pub(crate) fn setup_due(&self, service: ServiceIndex) -> bool {
        self.service(service).setup.as_ref().is_some_and(|setup| setup.due)
    }

    /// The assembly whose address a service needs and that has none yet, so that it cannot be set up.
    pub(crate) fn address_missing(&self, service: ServiceIndex) -> Option<AssemblyIndex> {
        self.service(service).setup.as_ref()?;
        let parameters = &self.definition().service(service).parameters;
        let mut references = parameters.iter().flat_map(|(_, value)| value.references());
        references.find(|reference| self.attribute(**reference).is_none()).map(|reference| reference.assembly)
    }

    /// The service whose turn it is, and what forbids it, if anything does.
    pub(crate) fn next_setup(
        &self,
        index: AssemblyIndex,
        now: Timestamp,
    ) -> Option<(ServiceIndex, Option<Refusal>)> {
        let mut services = self.definition().services_of(index);
        let service = services.find(|service| self.setup_due(*service) && self.setup_turn(*service, now))?;
        let refusal = match self.definition().mode {
            Mode::Observe => Some(Refusal::ObserveMode),
            Mode::Act => self.service_held_back(service),
        };
        Some((service, refusal))
    }

    fn setup_turn(&self, service: ServiceIndex, now: Timestamp) -> bool {
        let part = self.service(service);
        let waits = part.setup.as_ref().and_then(|setup| setup.wait_until).is_some_and(|at| now < at);
        // What does not run is started, and set up by that.
        let starts = part.trouble.as_ref().is_some_and(|it| matches!(it.start, Start::Wanted | Start::Again));
        if waits || starts || part.state == State::Stopped {
            return false;
        }
        let definition = self.definition();
        let own = definition.service(service);
        let others = own.referred().filter(|other| *other != own.assembly);
        let before = others.chain(definition.assembly(own.assembly).after.iter().copied());
        let mut services = own.after.iter().copied().chain(before.flat_map(|it| definition.services_of(it)));
        let earlier = |other: ServiceIndex| {
            self.service(other).setup.as_ref().is_some_and(|it| it.due && it.failed < TOLD_AFTER)
        };
        let mut referred = own.referred().filter(|other| *other != own.assembly);
        let well = |other| self.unproven(other, Timestamp::ZERO).is_none() && !self.busy(other);
        !services.any(earlier) && self.dependency_down(service).is_none() && referred.all(well)
    }

    /// The gate said no. Told once, then counted, and to a person when it has stood for `unreachable_notify`.
    pub(crate) fn refuse_setup(
        &mut self,
        service: ServiceIndex,
        refusal: Refusal,
        gates: &[Value],
        now: Timestamp,
    ) {
        let again = now.after(self.pace(self.definition().service(service).assembly));
        let patience = self.definition().timing.unreachable_notify;
        let name = self.name_of(About::Service(service));
        let Some(setup) = &mut self.service_mut(service).setup else { return };
        setup.wait_until = Some(again);
        let incident = setup.incident;
        let (known, tells) =
            setup.refused.get_or_insert(Standing::new(now)).again(refusal, false, patience, now);
        if tells {
            let message = format!("{name}: reconfiguration is refused for {}: {refusal}", span(patience));
            // It may outlast the incident that it comes from, which is over then.
            let incident = incident.filter(|it| self.is_open(*it));
            self.output(Output::Notify { incident, message: message.into() });
        }
        if known {
            return;
        }
        let deciding = gates.last().map_or(String::new(), |gate| format!(": {} {}", gate.name, gate.value));
        let reason = format!("reconfigure: {refusal}{deciding}");
        self.report(About::Service(service), EventKind::RecoveryRefused, now, |it| {
            (it.reason, it.incident) = (reason.into(), incident);
        });
    }

    /// A start is given out: it sets up first.
    pub(crate) fn setup_begins(&mut self, service: ServiceIndex) {
        let rendered = self.rendered(service);
        if let Some(setup) = &mut self.service_mut(service).setup {
            (setup.acting, setup.refused) = (rendered, None);
        }
    }

    /// A reconfiguration is given out. What the service runs with until it ends says nothing of it.
    pub(crate) fn reconfiguration_begins(&mut self, service: ServiceIndex, action: ActionId, now: Timestamp) {
        self.setup_begins(service);
        let incident = self.service(service).setup.as_ref().and_then(|setup| setup.incident);
        let reason: Box<str> = format!("reconfigured: {}", self.why_due(service)).into();
        self.report(About::Service(service), EventKind::RecoveryStarted, now, |it| {
            (it.reason, it.incident, it.action) = (reason.clone(), incident, Some(action));
        });
        let trouble = self.service_trouble(service);
        (trouble.demand, trouble.refused, trouble.waits) = (Demand::Nothing, None, None);
        (trouble.passing_since, trouble.first_failed, trouble.last_failed) = (None, None, None);
        (trouble.wait_until, trouble.pending_since) = (None, None);
        self.change(service, HealthEvent::Started, &reason, now);
        self.begin_grace(service, now);
    }

    /// The names of what changed, never the values: they may be secrets.
    fn why_due(&self, service: ServiceIndex) -> String {
        let Some(setup) = &self.service(service).setup else { return String::new() };
        if setup.fresh {
            return "its machine was made anew".to_owned();
        }
        let (before, after) = (setup.applied.iter().flat_map(|it| it.iter()), setup.acting.iter());
        let before: Vec<_> = before.collect();
        let changed = after.flat_map(|it| it.iter()).filter(|it| !before.contains(it));
        let names: Vec<&str> = changed.map(|(name, _)| name.as_str()).collect();
        format!("{} changed", names.join(", "))
    }

    /// Whether a service is being set up, and probes of it say nothing.
    pub(crate) fn is_being_set_up(&self, service: ServiceIndex) -> bool {
        let step = self.assembly(self.definition().service(service).assembly).step.as_ref();
        step.is_some_and(|step| {
            step.act == Act::Reconfigure(service) && matches!(step.phase, Phase::Acting { .. })
        })
    }

    /// A start or a reconfiguration ended. Not with success: what it is set up with is what it was.
    pub(crate) fn setup_ends(&mut self, service: ServiceIndex, worked: bool) {
        let Some(setup) = &mut self.service_mut(service).setup else { return };
        let acting = setup.acting.take();
        if !worked {
            return;
        }
        if acting.is_some() {
            (setup.applied, setup.fresh) = (acting, false);
        }
        self.look_at_setups(None);
    }

    /// Tells how a reconfiguration ended; one that failed is tried again later.
    pub(crate) fn reconfiguration_ends(
        &mut self,
        service: ServiceIndex,
        action: ActionId,
        failed: Option<&str>,
        now: Timestamp,
    ) {
        let incident = self.service(service).setup.as_ref().and_then(|setup| setup.incident);
        let (to, reason) = match failed {
            None => (State::Starting, "fresh probes decide".to_owned()),
            Some(detail) => (State::Failed, detail.to_owned()),
        };
        self.report(About::Service(service), EventKind::RecoveryFinished, now, |it| {
            (it.to, it.reason, it.incident, it.action) = (Some(to), reason.into(), incident, Some(action));
        });
        self.setup_ends(service, failed.is_none());
        let Some(detail) = failed else { return };
        let mut random = self.random.fork(u64::from(service.0));
        let retry_after = self.definition().timing.retry_after;
        let Some(setup) = &mut self.service_mut(service).setup else { return };
        setup.failed = setup.failed.saturating_add(1);
        let attempts = setup.failed;
        let wait = match attempts < TOLD_AFTER {
            true => backoff::wait(Rung::RestartService, u32::from(attempts), &mut random),
            false => retry_after,
        };
        setup.wait_until = Some(now.after(wait));
        if attempts == TOLD_AFTER {
            let name = self.name_of(About::Service(service));
            let message = format!(
                "{name} could not be reconfigured: {detail}; it is tried every {}",
                span(retry_after)
            );
            self.output(Output::Notify { incident, message: message.into() });
        }
    }

    /// It is tried as if it had never failed: at once, or not before a time.
    pub(crate) fn retry_setup(&mut self, service: ServiceIndex, not_before: Option<Timestamp>) {
        if let Some(setup) = &mut self.service_mut(service).setup {
            (setup.failed, setup.wait_until) = (0, not_before);
        }
    }
}

/// What a service's parameters are, as its definition has them: with names, for indices change from one definition to the next.
pub(crate) fn written(definition: &Deployable, service: &Service) -> Vec<(ParameterName, String)> {
    let name = |reference: &Reference| {
        let assembly = &definition.assembly(reference.assembly).name;
        Some(format!("{{{assembly}.{}}}", reference.attribute.as_str()))
    };
    let one =
        |(key, value): &(ParameterName, Referring)| (key.clone(), value.render(name).unwrap_or_default());
    service.parameters.iter().map(one).collect()
}
