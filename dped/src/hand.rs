//! What a person orders by hand: a recovery (`cpe recover`), and that a machine counts as down (`cpe confirm-fenced`). A person's word
//! stands in place of evidence that something is broken and of milder attempts before it. It goes through the same gate all the same:
//! nothing in maintenance, pause or observe mode, one recovery at a time, budgets and breakers, no durable intent no action; and what the
//! definition forbids (`max_rung`, `data`) or nobody can do stays undone.

use std::time::Duration;

use cpe_proto::decision::{Answer, Decision, Facts, Refusal, Verdict};
use cpe_proto::definition::Mode;
use cpe_proto::event::EventKind;
use cpe_proto::id::{AssemblyIndex, IncidentId, ServiceIndex};
use cpe_proto::infrastructure::{Capabilities, InstanceState, Operation};
use cpe_proto::observation::ChannelFailure;
use cpe_proto::rung::Rung;
use cpe_proto::time::Timestamp;

use crate::describe::{span, value};
use crate::engine::{About, Engine, Part};
use crate::gate::Plea;
use crate::health::ChannelHealth;
use crate::input::ByHand;
use crate::isolate::isolate;
use crate::ladder;
use crate::output::Output;
use crate::parts::{Demand, Ordered, Recovery};

/// Somebody waits for the answer: what the infrastructure and the guard do not say by then is not waited for.
const ANSWERED_WITHIN: Duration = Duration::from_secs(8);

/// Why a recovery by hand is refused by the engine itself.
type No = (Refusal, String);

impl Engine {
    // ---- a recovery

    pub(crate) fn order_recover(&mut self, wanted: ByHand, now: Timestamp) {
        let (order, index) = (wanted.order, wanted.assembly);
        if let Err(why) = self.makes_sense(&wanted) {
            return self.answer(order, Err(why));
        }
        let opened = self.incident_of(&wanted).is_none();
        let incident = self.incident_by_hand(&wanted, now);
        let rung = wanted.rung.map(|rung| format!(" {rung}")).unwrap_or_default();
        let reason = format!("recover{rung}, by {}", wanted.by);
        self.report(about(&wanted), EventKind::Ordered, now, |it| {
            (it.reason, it.incident, it.rung) = (reason.into(), Some(incident), wanted.rung);
        });
        if wanted.service.is_none() {
            // What the infrastructure and the guard say is asked for at once.
            self.assembly_trouble(index).ask_at = Some(now);
        }
        let ordered = Ordered { wanted, until: now.after(ANSWERED_WITHIN), action: None, opened };
        self.assembly_mut(index).by_hand = Some(Box::new(ordered));
    }

    /// What no waiting would change.
    fn makes_sense(&self, wanted: &ByHand) -> Result<(), String> {
        let index = wanted.assembly;
        if !self.knows(index) {
            return Err("there is no such assembly any more".to_owned());
        }
        if !self.desired.runs() {
            return Err("it was stopped by an order; `cpe start` starts it".to_owned());
        }
        if self.assembly(index).by_hand.is_some() {
            return Err("another order of it is not answered yet".to_owned());
        }
        if let Some(service) = wanted.service {
            return match self.definition().service(service).restart {
                Some(_) => Ok(()),
                None => Err("the service has no `restart`: there is nothing to restart".to_owned()),
            };
        }
        match wanted.rung {
            Some(Rung::RestartService) => Err("restart-service is for a service".to_owned()),
            _ if self.definition().infrastructure.is_none() => {
                Err("the deployable has no infrastructure: only its services can be restarted".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn incident_of(&mut self, wanted: &ByHand) -> Option<IncidentId> {
        match wanted.service {
            Some(service) => self.service_trouble(service).incident,
            None => self.assembly_trouble(wanted.assembly).incident,
        }
    }

    /// The open one of what is recovered, or one of its own.
    fn incident_by_hand(&mut self, wanted: &ByHand, now: Timestamp) -> IncidentId {
        if let Some(open) = self.incident_of(wanted) {
            return open;
        }
        let incident = self.incident_id();
        match wanted.service {
            Some(service) => self.service_trouble(service).incident = Some(incident),
            None => self.assembly_trouble(wanted.assembly).incident = Some(incident),
        }
        let reason = format!("a recovery was ordered by {}", wanted.by);
        self.report(about(wanted), EventKind::IncidentOpened, now, |it| {
            (it.reason, it.incident) = (reason.into(), Some(incident));
        });
        incident
    }

    /// Takes an order to the gate once all that the gate looks at is known.
    pub(crate) fn by_hand(&mut self, index: AssemblyIndex, now: Timestamp) {
        let Some(ordered) = &self.assembly(index).by_hand else { return };
        if let Some(action) = ordered.action {
            if self.assembly(index).recovery.as_ref().is_none_or(|it| it.action != action) {
                self.refuse_by_hand(index, "the gate gave no answer", now);
            }
            return;
        }
        let (wanted, late) = (ordered.wanted.clone(), now >= ordered.until);
        let facts = match wanted.service {
            Some(_) => self.facts_of_service(index, now),
            None => match self.facts(index, now) {
                Some(facts) => facts,
                None if !late && self.may(index, None).is_ok() => return,
                None => {
                    let said =
                        format!("the infrastructure did not say its state within {}", span(ANSWERED_WITHIN));
                    let no = self.may(index, None).err().unwrap_or((Refusal::Evidence, said));
                    let facts = self.facts_of_service(index, now);
                    return self.refuse_ordered(index, &wanted, facts, no, now);
                }
            },
        };
        match self.may(index, wanted.service).and_then(|()| self.rung_by_hand(&wanted, &facts, now)) {
            Err(no) => self.refuse_ordered(index, &wanted, facts, no, now),
            Ok(rung) => {
                let plea = self.plea_by_hand(&wanted, rung, facts, now);
                self.ask_gate(index, plea, now);
                let action = self.assembly_mut(index).recovery.as_mut().map(|recovery| {
                    recovery.by = Some(wanted.by);
                    recovery.action
                });
                if let Some(ordered) = &mut self.assembly_mut(index).by_hand {
                    ordered.action = action;
                }
            }
        }
    }

    /// What holds back a person's order as it does the engine's own.
    fn may(&self, index: AssemblyIndex, service: Option<ServiceIndex>) -> Result<(), No> {
        if self.definition().mode == Mode::Observe {
            return Err((Refusal::ObserveMode, "decided and recorded, not done".to_owned()));
        }
        let held = service.map_or_else(|| self.held_back(index), |it| self.service_held_back(it));
        if let Some(refusal) = held {
            let why = match self.foreign(index).filter(|_| refusal == Refusal::NotOwner) {
                Some(controller) => format!(
                    "its machine bears the mark of controller {controller}; `cpe claim {}` takes it over",
                    self.name_of(About::Assembly(index))
                ),
                None => "what was ordered holds until it is ended".to_owned(),
            };
            return Err((refusal, why));
        }
        if self.busy(index) {
            return Err((Refusal::InFlight, "another action of it is under way".to_owned()));
        }
        if self.whole().is_some() {
            return Err((Refusal::InFlight, "its deployable recovers as a whole".to_owned()));
        }
        Ok(())
    }

    fn rung_by_hand(&self, wanted: &ByHand, facts: &Facts, now: Timestamp) -> Result<Rung, No> {
        let (verdict, _) = isolate(facts);
        if wanted.service.is_some() {
            let healthy = self.assembly(wanted.assembly).channel == ChannelHealth::Healthy;
            let no = || {
                (Refusal::Evidence, "its machine does not answer: nothing can be restarted there".to_owned())
            };
            return healthy.then_some(Rung::RestartService).ok_or_else(no);
        }
        match &verdict {
            Verdict::Untrusted => return Err((Refusal::Untrusted, "cpe does not trust itself".to_owned())),
            Verdict::CommonCause(domain) => {
                return Err((Refusal::DomainHeld, format!("failure domain {domain} is held")));
            }
            Verdict::InTransition => {
                return Err((Refusal::Evidence, "its infrastructure is changing it".to_owned()));
            }
            Verdict::MisconfiguredChannel => {
                return Err((
                    Refusal::Evidence,
                    "it answers and refuses our key, or shows another host key: no recovery can help"
                        .to_owned(),
                ));
            }
            _ => {}
        }
        let (index, evidence) = (wanted.assembly, |why: String| (Refusal::Evidence, why));
        let rung = match wanted.rung {
            Some(rung) => {
                let skipped = ladder::forbidden(rung, self.bounds(index));
                skipped.map_or(Ok(rung), |skip| Err(evidence(format!("{rung}: {skip}"))))?
            }
            None => self.next_rung(index, &verdict).map_err(evidence)?,
        };
        if let Some(until) = self.astray_until(index, rung, now) {
            return Err((
                Refusal::InFlight,
                format!(
                    "an earlier action on it, whose end nobody saw, may still be done for {}",
                    span(until.since(now))
                ),
            ));
        }
        if rung >= Rung::RestartDeployable && self.busy_elsewhere(index) {
            return Err((Refusal::InFlight, "another action in its deployable is under way".to_owned()));
        }
        if rung >= Rung::Rebuild && facts.instance.is_none_or(|state| state == InstanceState::Unknown) {
            return Err(evidence(format!(
                "{rung} needs the infrastructure, which does not say what the machine is like"
            )));
        }
        Ok(rung)
    }

    fn next_rung(&self, index: AssemblyIndex, verdict: &Verdict) -> Result<Rung, String> {
        let trouble = self.assembly(index).trouble.as_ref();
        let climbed = trouble.map(|trouble| trouble.ladder.clone()).unwrap_or_default();
        let first = climbed.attempts_of(Rung::RebootSoft) == 0;
        let choice = ladder::choose(verdict, first, &climbed, self.bounds(index));
        choice.rung.ok_or_else(|| {
            let skipped: Vec<_> =
                choice.skipped.iter().map(|(rung, skip)| format!("{rung}: {skip}")).collect();
            format!("no rung is left ({}); name one with --rung", skipped.join("; "))
        })
    }

    fn plea_by_hand(&mut self, wanted: &ByHand, rung: Rung, facts: Facts, now: Timestamp) -> Plea {
        let index = wanted.assembly;
        let incident = self.incident_by_hand(wanted, now);
        let seen = match wanted.service {
            Some(service) => self.service_trouble(service).reason.clone(),
            None => self.assembly_trouble(index).reason.clone(),
        };
        let mut evidence = vec![value("ordered", format!("by {}", wanted.by))];
        if !seen.is_empty() {
            evidence.push(value("probe", seen));
        }
        if let Some(by) = &self.assembly_trouble(index).fenced {
            evidence.push(value("fenced", format!("confirmed by {by}")));
        } else if let Some(instance) = facts.instance {
            evidence.push(value("infrastructure", instance.as_str()));
        }
        let (verdict, _) = isolate(&facts);
        Plea {
            rung,
            service: wanted.service,
            incident,
            verdict,
            facts,
            evidence,
            gates: self.own_gates(index, wanted.service),
            // The order itself is what the action rests on.
            age: Duration::ZERO,
            age_max: self.fresh_for(index),
            dated_retry: false,
        }
    }

    fn refuse_ordered(
        &mut self,
        index: AssemblyIndex,
        wanted: &ByHand,
        facts: Facts,
        no: No,
        now: Timestamp,
    ) {
        let (refusal, why) = no;
        let rung = match wanted.service {
            Some(_) => Rung::RestartService,
            None => wanted.rung.unwrap_or_else(|| self.likely_rung(index)),
        };
        let mut plea = self.plea_by_hand(wanted, rung, facts, now);
        plea.evidence.push(value("because", why.clone()));
        let action = self.action_id();
        let decision = self.decision(index, action, &plea, Answer::Refused(refusal), now);
        let part = wanted.service.map_or(Part::Assembly(index), Part::Service);
        self.tell_refusal(part, Box::new(decision), refusal, now);
        self.refuse_by_hand(index, &format!("{refusal}: {why}"), now);
    }

    /// The gate has the last word. The order that it answers, if a person asked.
    pub(crate) fn answered_by_gate(
        &mut self,
        index: AssemblyIndex,
        recovery: &Recovery,
        answer: Answer,
        decision: &Decision,
    ) -> Option<Box<Ordered>> {
        recovery.by.as_ref()?;
        let (action, rung) = (recovery.action, recovery.rung);
        let said = match answer {
            Answer::Refused(refusal) => {
                let gate = decision.gates.last();
                let gate = gate.map_or(String::new(), |gate| format!(": {} {}", gate.name, gate.value));
                Err(format!("{refusal}{gate}"))
            }
            Answer::Admitted if self.still_wanted(index, recovery) => Ok(format!(
                "action {action}, {rung}, is under way; `cpe why {}#{}` shows what becomes of it",
                self.definition().name,
                recovery.incident
            )),
            Answer::Admitted => Err("meanwhile it is not possible any more".to_owned()),
        };
        let ordered = self.assembly_mut(index).by_hand.take_if(|it| it.action == Some(action))?;
        self.answer(ordered.wanted.order, said);
        Some(ordered)
    }

    /// An order that is not answered yet is not followed.
    pub(crate) fn refuse_by_hand(&mut self, index: AssemblyIndex, why: &str, now: Timestamp) {
        if let Some(ordered) = self.assembly_mut(index).by_hand.take() {
            self.answer(ordered.wanted.order, Err(why.to_owned()));
            self.close_refused(&ordered, now);
        }
    }

    /// An incident that is only about an order ends when that is refused: who ordered it knows, and nothing else is the matter with it.
    pub(crate) fn close_refused(&mut self, ordered: &Ordered, now: Timestamp) {
        let wanted = &ordered.wanted;
        let index = wanted.assembly;
        let at_fault = match wanted.service {
            Some(service) => {
                let trouble = self.service_trouble(service);
                trouble.confirmed || trouble.demand != Demand::Nothing
            }
            None => {
                let dead = self.assembly(index).channel == ChannelHealth::Dead;
                dead || self.assembly_trouble(index).demand != Demand::Nothing
            }
        };
        if !ordered.opened || at_fault {
            return;
        }
        let incident = match wanted.service {
            Some(service) => self.service_trouble(service).incident.take(),
            None => self.assembly_trouble(index).leave_incident(),
        };
        if let Some(incident) = incident {
            self.report(about(wanted), EventKind::IncidentClosed, now, |it| {
                (it.reason, it.incident) = ("the order was refused".into(), Some(incident));
            });
        }
    }

    fn answer(&mut self, order: u64, answer: Result<String, String>) {
        let answer = answer.map(Into::into).map_err(Into::into);
        self.output(Output::Answer { order, answer });
    }

    // ---- fencing

    /// Whether a person's word stands for what the infrastructure cannot say.
    pub(crate) fn is_fenced(&self, index: AssemblyIndex) -> bool {
        let fenced = self.assembly(index).trouble.as_ref().is_some_and(|trouble| trouble.fenced.is_some());
        fenced && self.assembly(index).channel == ChannelHealth::Dead
    }

    /// policy.md section 7: where it cannot be verified that a machine is down, nothing replaces it until a person says so.
    pub(crate) fn confirm_fenced(&mut self, order: u64, index: AssemblyIndex, by: &str, now: Timestamp) {
        if let Err(why) = self.may_be_fenced(index) {
            return self.answer(order, Err(why));
        }
        let trouble = self.assembly_trouble(index);
        trouble.fenced = Some(by.into());
        (trouble.verdict, trouble.refused, trouble.wait_until) = (None, None, None);
        trouble.ask_at = Some(now);
        // A replacement that was given up, because it could not be known that the old one is down, is tried anew.
        (trouble.ladder.given_up, trouble.ladder.recreated) = (false, false);
        let incident = trouble.incident;
        let reason = format!("confirm-fenced, by {by}");
        self.report(About::Assembly(index), EventKind::Ordered, now, |it| {
            (it.reason, it.incident) = (reason.into(), incident);
        });
        let number =
            incident.map_or(String::new(), |incident| format!("{}#{incident}", self.definition().name));
        self.answer(order, Ok(format!("its machine counts as down for {number}: it may be replaced, through the gate; an answer from it ends that")));
    }

    fn may_be_fenced(&self, index: AssemblyIndex) -> Result<(), String> {
        if !self.knows(index) {
            return Err("there is no such assembly any more".to_owned());
        }
        let part = self.assembly(index);
        let open = part.trouble.as_ref().is_some_and(|trouble| trouble.incident.is_some());
        if part.channel != ChannelHealth::Dead || !open {
            return Err("it is not confirmed dead: there is no incident that this could be for".to_owned());
        }
        let answers = match part.failure {
            ChannelFailure::TimedOut | ChannelFailure::NotTried => None,
            other => Some(other),
        };
        if let Some(how) = answers {
            return Err(format!("something answers at its address ({how}): it is not down"));
        }
        if self.machine_acting(index) {
            return Err("an action on it is under way; see what it comes to first".to_owned());
        }
        let mut bounds = self.bounds(index);
        let everything = Capabilities(Operation::ALL.into_iter().collect());
        if self.definition().infrastructure.is_some() {
            // What the adapter can do may not be known at this moment; the ladder looks again.
            bounds.capabilities.get_or_insert(&everything);
        }
        let elsewhere = ladder::forbidden(Rung::Relocate, bounds).is_none();
        ladder::forbidden(Rung::Recreate, bounds).filter(|_| !elsewhere).map_or(Ok(()), |skip| {
            Err(format!(
                "it would change nothing: the only rung that needs it is recreate, and that is {skip}"
            ))
        })
    }

    // ---- looking

    /// What the channel rests on has changed: it is tried anew, now.
    pub(crate) fn order_look(&mut self, index: AssemblyIndex, now: Timestamp) {
        if self.knows(index) {
            self.output(Output::Reconnect(index));
            self.assembly_mut(index).poll.hasten(now);
        }
    }
}

fn about(wanted: &ByHand) -> About {
    wanted.service.map_or(About::Assembly(wanted.assembly), About::Service)
}
