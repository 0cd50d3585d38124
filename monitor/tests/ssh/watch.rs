//! A session whose answers are collected, so that a test can ask and read.

use std::collections::BTreeMap;
use std::time::Duration;

use cpe_monitor::ssh::{
    Act, ActError, Answer, Deed, Endpoint, Monitor, Probe, ProbeRequest, ServiceAct, Session, Settings,
    Subject,
};
use cpe_proto::definition::{Check, CommandLine, ProcessName, UnitName};
use cpe_proto::id::ProbeId;
use cpe_proto::observation::{ChannelFailure, Observation, UnitState};
use tokio::sync::mpsc;

use crate::guest::{Guest, PATIENCE};

pub(crate) struct Watch {
    pub(crate) monitor: Monitor,
    pub(crate) session: Session,
    answers: mpsc::UnboundedReceiver<Answer>,
    next: u64,
}

impl Watch {
    pub(crate) fn of(guest: &Guest) -> Self {
        Self::with(guest.settings(), guest.endpoint())
    }

    pub(crate) fn with(settings: Settings, endpoint: Endpoint) -> Self {
        Self::under(Monitor::new(settings).unwrap(), endpoint)
    }

    pub(crate) fn under(monitor: Monitor, endpoint: Endpoint) -> Self {
        let (send, answers) = mpsc::unbounded_channel();
        let session = monitor.session(endpoint, Box::new(move |answer| drop(send.send(answer))));
        Self { monitor, session, answers, next: 0 }
    }

    /// Asks, and gives the numbers of what was asked.
    pub(crate) fn submit(&mut self, probes: &[(Probe, Duration)]) -> Vec<ProbeId> {
        let requests: Vec<_> = probes
            .iter()
            .map(|(what, timeout)| {
                self.next += 1;
                ProbeRequest { probe: ProbeId(self.next), what: what.clone(), timeout: *timeout }
            })
            .collect();
        let ids = requests.iter().map(|request| request.probe).collect();
        self.session.submit(requests);
        ids
    }

    /// The next answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        tokio::time::timeout(PATIENCE, self.answers.recv()).await.expect("an answer").unwrap()
    }

    /// Asks and waits for every answer; in the order asked.
    pub(crate) async fn ask(&mut self, probes: &[Probe]) -> Vec<Observation> {
        let timed: Vec<_> = probes.iter().map(|probe| (probe.clone(), PATIENCE / 2)).collect();
        self.ask_timed(&timed).await
    }

    pub(crate) async fn ask_timed(&mut self, probes: &[(Probe, Duration)]) -> Vec<Observation> {
        let ids = self.submit(probes);
        let mut seen = BTreeMap::new();
        while seen.len() < ids.len() {
            let answer = self.answer().await;
            assert!(ids.contains(&answer.probe), "an answer to {} that was not asked now", answer.probe);
            assert!(
                seen.insert(answer.probe, answer.observation).is_none(),
                "two answers to {}",
                answer.probe
            );
        }
        seen.into_values().collect()
    }

    /// The channel's own word.
    pub(crate) async fn channel(&mut self) -> Observation {
        self.ask(&[Probe::Channel]).await.remove(0)
    }

    /// One probe's whole answer.
    pub(crate) async fn measured(&mut self, probe: Probe) -> Answer {
        self.submit(&[(probe, PATIENCE)]);
        self.answer().await
    }

    /// One probe of a service over a live channel.
    pub(crate) async fn check(&mut self, check: Probe) -> Observation {
        let mut seen = self.ask(&[Probe::Channel, check]).await;
        assert_eq!(seen.remove(0), Observation::Alive);
        seen.remove(0)
    }

    pub(crate) async fn act(&self, act: ServiceAct, unit: &str) -> Result<String, ActError> {
        self.act_within(act, unit, PATIENCE).await
    }

    pub(crate) async fn act_within(
        &self,
        act: ServiceAct,
        unit: &str,
        timeout: Duration,
    ) -> Result<String, ActError> {
        let unit = Subject::Unit(UnitName::parse(unit).unwrap());
        self.session.act(Act { deed: Deed::Service(act, unit), timeout }).await
    }

    /// No answer is left over.
    pub(crate) fn assert_no_more_answers(&mut self) {
        if let Ok(answer) = self.answers.try_recv() {
            panic!("one answer too many: {answer:?}");
        }
    }
}

pub(crate) fn unit(name: &str) -> Probe {
    Probe::Check(Check::Systemd(UnitName::parse(name).unwrap()))
}

pub(crate) fn process(name: &str) -> Probe {
    Probe::Check(Check::Process(ProcessName::parse(name).unwrap()))
}

pub(crate) fn command(line: &str) -> Probe {
    Probe::Check(Check::Command(CommandLine::parse(line).unwrap()))
}

pub(crate) fn tcp(port: u16) -> Probe {
    Probe::Check(Check::Tcp { host: "127.0.0.1".into(), port })
}

pub(crate) fn state(load: &str, active: &str, sub: &str) -> Observation {
    Observation::Unit(UnitState { load: load.into(), active: active.into(), sub: sub.into() })
}

/// How a channel failed, and its text.
pub(crate) fn failure(observation: &Observation) -> (ChannelFailure, &str) {
    match observation {
        Observation::Channel(cause, detail) => (*cause, detail),
        other => panic!("the channel should have failed: {other:?}"),
    }
}
