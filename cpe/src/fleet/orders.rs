//! What operators order over the API: start and stop, pause and resume, retry, ack. What of it must outlive the controller is durable
//! before an engine is told. What NAME means is in `select.rs`; recoveries by hand are in `by_hand.rs`, host keys in `trust.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cpe_proto::api::{Command, CommandAnswer, HostKey, Status};
use cpe_proto::id::Name;
use cpe_proto::infrastructure::Operation;
use dped::Order;

use super::{Fleet, unknown};
use crate::api::{Controller, Refused};
use crate::glob::Glob;
use crate::journal::{self, JournalError, WhyQuery};
use crate::pauses::{self, Scope};

impl Fleet {
    async fn set_desired(&self, name: &str, desired: journal::Desired) -> Result<CommandAnswer, Refused> {
        let name = self.deployable(name)?;
        if desired == journal::Desired::PoweredOff {
            self.can_power_off(&name)?;
        }
        self.shared.journal.set_desired(name.clone(), desired).await.map_err(|error| unwritable(&error))?;
        self.wishes().insert(name.clone(), desired);
        let (order, word) = match desired {
            journal::Desired::Started => (Order::Start, "start"),
            journal::Desired::Stopped => (Order::Stop, "stop"),
            journal::Desired::PoweredOff => (Order::PowerOff, "stop, and power-off after it,"),
        };
        self.order(&name, order).await?;
        Ok(CommandAnswer {
            message: format!("{name}: {word} ordered; `cpe events {name} --follow` shows it"),
        })
    }

    /// What cannot be powered off, or not on again, is not ordered.
    fn can_power_off(&self, name: &Name) -> Result<(), Refused> {
        let stop = format!("`cpe stop {name}` stops its services and leaves its machines on");
        let definition = self.definition_of(name).ok_or_else(|| unknown(name.as_str()))?;
        let Some(infrastructure) = &definition.infrastructure else {
            return Err(Refused::conflict(format!(
                "{name} has no infrastructure that could power its machines off; {stop}"
            )));
        };
        let adapter = self.shared.infrastructures.get(infrastructure).filter(|it| it.has_answered());
        let Some(adapter) = adapter else {
            return Err(Refused::unavailable(format!(
                "infrastructure {infrastructure} has not said yet what it can do; try again, or {stop}"
            )));
        };
        let can = adapter.capabilities().0;
        match [Operation::Stop, Operation::Start].into_iter().find(|it| !can.contains(it)) {
            None => Ok(()),
            Some(missing) => Err(Refused::conflict(format!(
                "infrastructure {infrastructure} cannot `{missing}` a machine, and both `stop` and `start` are needed; {stop}"
            ))),
        }
    }

    async fn pause(&self, name: Option<String>, reason: &str, by: &str) -> Result<CommandAnswer, Refused> {
        let mut told = Vec::new();
        for scope in self.paused_by(name)? {
            let begun = self.pauses.begin(&self.shared, &scope, reason, by).await;
            begun.map_err(|error| unwritable(&error))?;
            self.order_pause(&scope, true, pauses::said(reason, by)).await?;
            let again = if scope == Scope::Everything { String::new() } else { format!(" {scope}") };
            told.push(format!(
                "{scope}: recovery is paused; what was begun finishes; `cpe resume{again}` ends it"
            ));
        }
        Ok(CommandAnswer { message: told.join("; ") })
    }

    async fn resume(&self, name: Option<String>, reason: &str, by: &str) -> Result<CommandAnswer, Refused> {
        let mut told = Vec::new();
        for scope in self.paused_by(name)? {
            let ended = self.pauses.end(&self.shared, &scope, reason, by).await;
            if ended.map_err(|error| unwritable(&error))? {
                self.order_pause(&scope, false, pauses::said(reason, by)).await?;
                told.push(format!("{scope}: recovery goes on"));
            } else {
                told.push(format!("{scope}: was not paused; `cpe status` shows what is"));
            }
        }
        Ok(CommandAnswer { message: told.join("; ") })
    }

    /// Tells the engines that it concerns.
    async fn order_pause(&self, scope: &Scope, on: bool, reason: String) -> Result<(), Refused> {
        match scope {
            Scope::Everything => self.order_all(&Order::FleetPause { on }).await,
            Scope::Domain(domain) => {
                self.order_all(&Order::DomainPause { domains: BTreeSet::from([domain.clone()]), on }).await;
            }
            // What is not defined any more may still have been paused.
            Scope::Deployable(name) if on || self.members().contains_key(name) => {
                self.order(name, Order::Pause { on, reason: reason.into() }).await?;
            }
            Scope::Part(name, part) if on || self.members().contains_key(name) => {
                let parts = BTreeSet::from([part.clone()]);
                self.order(name, Order::PartsPause { parts, on, reason: reason.into() }).await?;
            }
            Scope::Deployable(_) | Scope::Part(..) => {}
        }
        Ok(())
    }

    async fn retry(&self, name: &str, by: &str) -> Result<CommandAnswer, Refused> {
        // The counts of a service and of its machine are one ladder.
        let machine: Vec<&str> = name.splitn(3, '/').take(2).collect();
        let (deployable, assembly) = self.place(&machine.join("/"))?;
        if let (Some(service), Some(index)) = (name.splitn(3, '/').nth(2), assembly) {
            let members = self.members();
            let definition = members.get(&deployable).map(|member| Arc::clone(&member.definition));
            drop(members);
            definition
                .and_then(|definition| definition.service_named(index, service))
                .ok_or_else(|| unknown(name))?;
        }
        if self.unpark(&deployable, &format!("ordered by {by}")) {
            let message = format!("{deployable}: its policy engine goes on from its last snapshot");
            return Ok(CommandAnswer { message });
        }
        self.order(&deployable, Order::Retry { assembly }).await?;
        Ok(CommandAnswer {
            message: format!("{}: counts are forgotten, tried anew from the first rung", machine.join("/")),
        })
    }

    async fn acknowledge(&self, name: &str, by: &str) -> Result<CommandAnswer, Refused> {
        let wanted = WhyQuery::parse(name).map_err(Refused::bad)?;
        let open = self.shared.journal.open_incidents(wanted).await.map_err(|error| unwritable(&error))?;
        if open.is_empty() {
            return Err(Refused::not_found(format!(
                "{name}: no incident is open; `cpe status` shows what is"
            )));
        }
        let mut told = Vec::with_capacity(open.len());
        for (deployable, incident) in open {
            let kept = self.shared.journal.acknowledge(deployable.clone(), incident, by).await;
            kept.map_err(|error| unwritable(&error))?;
            self.shared.notifier.acknowledge(&deployable, incident);
            told.push(format!("{deployable}#{incident}"));
        }
        Ok(CommandAnswer {
            message: format!("{}: acknowledged by {by}; no more notifications of it", told.join(", ")),
        })
    }
}

impl Controller for Fleet {
    fn size(&self) -> (usize, usize, usize) {
        self.count()
    }

    async fn status(&self, wanted: &Glob) -> Status {
        let mut status = Status {
            deployables: self.statuses(wanted).await,
            paused: None,
            paused_domains: BTreeMap::new(),
        };
        self.pauses.tell(&mut status);
        status
    }

    async fn host_key(&self, name: &str, jump: bool) -> Result<HostKey, Refused> {
        self.look_at_key(name, jump).await
    }

    async fn command(&self, command: Command, by: String) -> Result<CommandAnswer, Refused> {
        match command {
            Command::Start { name } => self.set_desired(&name, journal::Desired::Started).await,
            Command::Stop { name, power_off: false } => {
                self.set_desired(&name, journal::Desired::Stopped).await
            }
            Command::Stop { name, power_off: true } => {
                self.set_desired(&name, journal::Desired::PoweredOff).await
            }
            Command::MaintenanceOn { name, for_seconds, reason } => {
                self.maintenance_on(name, for_seconds, reason, by).await
            }
            Command::MaintenanceOff { name } => {
                let mut said = Vec::new();
                for place in self.places(&name)? {
                    said.push(self.maintenance_off(&place, "switched off", &by).await?.message);
                }
                Ok(CommandAnswer { message: said.join("; ") })
            }
            Command::Pause { name, reason } => self.pause(name, &reason, &by).await,
            Command::Resume { name, reason } => self.resume(name, &reason, &by).await,
            Command::Recover { name, rung, reason } => self.recover(&name, rung, &reason, &by).await,
            Command::ConfirmFenced { name, reason } => self.confirm_fenced(&name, &reason, &by).await,
            Command::Claim { name, reason } => self.claim(&name, &reason, &by).await,
            Command::Trust { name, fingerprint, jump } => self.trust(&name, &fingerprint, jump, &by).await,
            Command::Retry { name } => self.retry(&name, &by).await,
            Command::Ack { name } => self.acknowledge(&name, &by).await,
        }
    }
}

pub(super) fn unwritable(error: &JournalError) -> Refused {
    Refused::unavailable(format!("{error}; without a journal nothing is ordered"))
}
