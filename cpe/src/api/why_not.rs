//! `GET /v1/why-not`: for each part that is not healthy, why nothing is done about it now: what isolation concluded, what holds recovery
//! back and until when. From the status and the newest records of the journal; nothing is asked of an engine.

use cpe_proto::api::{Because, DeployableStatus, Obstacle, Paused, Status, Stuck, Waiting, WhyNot};
use cpe_proto::decision::{Answer, Refusal};
use cpe_proto::id::{IncidentId, Name};
use cpe_proto::state::State;

use crate::journal::{Latest, Maintenance};

/// What is known beside the status.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The newest records of each open incident.
    pub(super) latest: Vec<Latest>,
    /// Every maintenance.
    pub(super) maintenance: Vec<Maintenance>,
    /// Why the journal cannot be written, if it cannot.
    pub(super) journal: Option<String>,
}

/// A part of a deployable.
struct Part<'a> {
    of: &'a DeployableStatus,
    assembly: &'a Name,
    in_maintenance: bool,
    /// Its assembly is paused by its name, and its service by its own.
    paused: [Option<&'a Paused>; 2],
    service: Option<&'a Name>,
    state: State,
    since: u64,
    reason: &'a str,
    waits: &'a [Waiting],
    domains: &'a [Name],
    drift: Option<&'a str>,
}

/// Why nothing is done about what is in the status.
pub(super) fn why_not(status: &Status, known: &Known) -> WhyNot {
    let mut answer = WhyNot { healthy: 0, parts: Vec::new() };
    for of in &status.deployables {
        for assembly in &of.assemblies {
            let whole = Part {
                of,
                assembly: &assembly.name,
                in_maintenance: assembly.maintenance,
                paused: [assembly.paused.as_ref(), None],
                service: None,
                state: assembly.state,
                since: assembly.since,
                reason: &assembly.reason,
                waits: &assembly.waits,
                domains: &assembly.domains,
                drift: assembly.drift.as_deref(),
            };
            let services = assembly.services.iter().map(|service| Part {
                service: Some(&service.name),
                paused: [assembly.paused.as_ref(), service.paused.as_ref()],
                state: service.state,
                since: service.since,
                reason: &service.reason,
                waits: &service.waits,
                drift: None,
                ..whole
            });
            let services: Vec<_> = services.collect();
            // What an assembly is because of a service is told of the service.
            let of_a_service = services.iter().any(|service| {
                service.state == whole.state && whole.reason.ends_with(&format!(" is {}", whole.state))
            });
            for part in std::iter::once(whole).filter(|_| !of_a_service).chain(services) {
                if let Some(drift) = part.drift {
                    let because = vec![said(Obstacle::Drift, &format!("drift: {drift}"))];
                    answer.parts.push(Stuck { because, ..part.stuck(status, known) });
                } else if matches!(part.state, State::Healthy) {
                    answer.healthy += 1;
                } else {
                    answer.parts.push(part.stuck(status, known));
                }
            }
        }
    }
    answer
}

impl Part<'_> {
    fn stuck(&self, status: &Status, known: &Known) -> Stuck {
        let latest = self.latest(known);
        let mut because = Vec::new();
        self.by_state(latest, &mut because);
        if self.state != State::Stopped {
            self.held_back(status, known, &mut because);
            refused(latest, &mut because);
            because.extend(self.waits.iter().map(|waiting| Because {
                what: Obstacle::Waiting,
                detail: waiting.what.clone(),
                until: Some(waiting.until),
            }));
        }
        if because.is_empty() {
            because.push(said(Obstacle::Nothing, "nothing is known to hold it back: the next probes decide"));
        }
        Stuck {
            name: self.name(),
            state: self.state,
            since: self.since,
            reason: self.reason.into(),
            incident: latest.map(|latest| incident(&self.of.name, latest.incident)),
            concluded: latest.and_then(|latest| latest.isolated.clone()),
            because,
        }
    }

    fn name(&self) -> String {
        let service = self.service.map(|service| format!("/{service}")).unwrap_or_default();
        format!("{}/{}{service}", self.of.name, self.assembly)
    }

    /// Of its own incident, or of its machine's.
    fn latest<'k>(&self, known: &'k Known) -> Option<&'k Latest> {
        let here = |latest: &&Latest| {
            latest.deployable == self.of.name && latest.assembly.as_ref() == Some(self.assembly)
        };
        let of = |service: Option<&Name>| {
            known.latest.iter().filter(here).rfind(|latest| latest.service.as_ref() == service)
        };
        of(self.service).or_else(|| of(None))
    }

    /// What its state says by itself.
    fn by_state(&self, latest: Option<&Latest>, because: &mut Vec<Because>) {
        let (what, detail) = match self.state {
            State::Stopped => (Obstacle::Stopped, "stopped by an order; `cpe start` starts it".to_owned()),
            State::Suspected => (Obstacle::BeingConfirmed, "one probe failed: the next decide".to_owned()),
            State::Starting => (Obstacle::Starting, "it is being started: that is no fault yet".to_owned()),
            State::Recovering => (Obstacle::UnderWay, under_way(latest)),
            State::Misconfigured => (
                Obstacle::Misconfigured,
                "no recovery can help: mend it; the next probe sees that".to_owned(),
            ),
            State::Unknown => (
                Obstacle::Unknown,
                "what is not known never counts as failed; look at its machine and the way to it".to_owned(),
            ),
            State::Exhausted => (
                Obstacle::Exhausted,
                "its ladder has ended and a person was told; `cpe retry` begins anew".to_owned(),
            ),
            State::Held => (Obstacle::Held, "its failure domain is held: common cause".to_owned()),
            State::InTransition => {
                (Obstacle::InTransition, "its infrastructure is changing it: waits for the end".to_owned())
            }
            State::Unreachable => (
                Obstacle::NoAction,
                "isolation concludes nothing that an action may rest on: a dead channel alone proves nothing"
                    .to_owned(),
            ),
            _ => return,
        };
        because.push(said(what, &detail));
    }

    fn held_back(&self, status: &Status, known: &Known, because: &mut Vec<Because>) {
        let paused = |paused: &Paused| format!("{} (by {})", paused.reason, paused.by);
        if let Some(all) = &status.paused {
            because.push(said(Obstacle::Paused, &format!("all recovery is paused: {}", paused(all))));
        }
        if let Some(pause) = &self.of.paused {
            because.push(said(Obstacle::Paused, &format!("{} is paused: {}", self.of.name, paused(pause))));
        }
        let own = format!("{}/{}", self.of.name, self.assembly);
        let service = self.service.map(|service| format!("{own}/{service}")).unwrap_or_default();
        for (name, pause) in [own, service].iter().zip(self.paused) {
            if let Some(pause) = pause {
                because.push(said(Obstacle::Paused, &format!("{name} is paused: {}", paused(pause))));
            }
        }
        for domain in self.domains {
            if let Some(pause) = status.paused_domains.get(domain) {
                because
                    .push(said(Obstacle::Paused, &format!("domain:{domain} is paused: {}", paused(pause))));
            }
        }
        let whole = self.of.name.as_str().to_owned();
        let own = format!("{whole}/{}", self.assembly);
        for (on, name) in [(self.of.maintenance, whole), (self.in_maintenance, own)] {
            if !on {
                continue;
            }
            let kept = known.maintenance.iter().find(|kept| kept.name == name);
            let why = kept.map(|kept| format!(": {} (by {})", kept.reason, kept.by)).unwrap_or_default();
            because.push(Because {
                what: Obstacle::Maintenance,
                detail: format!("{name} is in maintenance{why}").into(),
                until: kept.map(|kept| kept.until),
            });
        }
        if self.of.mode != "act" {
            let detail = "it is in observe mode: decided and recorded, not done";
            because.push(said(Obstacle::ObserveMode, detail));
        }
        if let Some(reason) = &known.journal {
            let detail = format!("the journal cannot be written ({reason}): nothing is done until it can");
            because.push(said(Obstacle::Journal, &detail));
        }
    }
}

fn under_way(latest: Option<&Latest>) -> String {
    let decision = latest.and_then(|latest| latest.decision.as_ref());
    match decision {
        Some((_, decision)) if decision.answer == Answer::Admitted => {
            format!("action {}: {} is under way or being verified", decision.action, decision.rung)
        }
        _ => "an action is under way or being verified".to_owned(),
    }
}

/// The newest refusal, if it is not told already.
fn refused(latest: Option<&Latest>, because: &mut Vec<Because>) {
    let Some((_, decision)) = latest.and_then(|latest| latest.decision.as_ref()) else { return };
    let Answer::Refused(refusal) = decision.answer else { return };
    // Whether these hold still is known at first hand.
    let elsewhere =
        matches!(refusal, Refusal::Paused | Refusal::Maintenance | Refusal::ObserveMode | Refusal::Journal);
    if elsewhere || because.iter().any(|because| because.what == Obstacle::UnderWay) {
        return;
    }
    let deciding = decision.gates.last();
    let deciding = deciding.map(|gate| format!(" ({} {})", gate.name, gate.value)).unwrap_or_default();
    because.push(Because {
        what: Obstacle::Refused,
        detail: format!(
            "action {}, {}, was refused: {refusal}{deciding}; asked again at each interval",
            decision.action, decision.rung
        )
        .into(),
        until: None,
    });
}

fn incident(deployable: &Name, incident: IncidentId) -> String {
    format!("{deployable}#{incident}")
}

fn said(what: Obstacle, detail: &str) -> Because {
    Because { what, detail: detail.into(), until: None }
}
