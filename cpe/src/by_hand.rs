//! What operators order of one machine by hand, beside `fleet.rs`: a recovery, and that a machine counts as down. The engine decides, and
//! its gate; here names are looked up, and the answer is waited for.

use cpe_proto::api::CommandAnswer;
use cpe_proto::id::ServiceIndex;
use cpe_proto::rung::Rung;
use dped::{ByHand, Order};

use crate::api::Refused;
use crate::fleet::{Fleet, unknown};
use crate::pauses;

impl Fleet {
    /// A recovery by hand of an assembly or a service.
    pub(crate) async fn recover(
        &self,
        name: &str,
        rung: Option<Rung>,
        reason: &str,
        by: &str,
    ) -> Result<CommandAnswer, Refused> {
        let parts: Vec<&str> = name.splitn(3, '/').collect();
        let machine = parts.iter().take(2).copied().collect::<Vec<_>>().join("/");
        let (deployable, assembly) = self.place(&machine)?;
        let Some(assembly) = assembly else {
            return Err(Refused::bad(format!(
                "{name} is a whole deployable; name what to recover: {name}/ASSEMBLY or {name}/ASSEMBLY/SERVICE"
            )));
        };
        let service = match parts.get(2) {
            Some(service) => {
                let definition = self.definition_of(&deployable).ok_or_else(|| unknown(name))?;
                Some(definition.service_named(assembly, service).ok_or_else(|| unknown(name))?)
            }
            None => None,
        };
        let service = scope(name, service, rung)?;
        let by = if reason.is_empty() { by.to_owned() } else { format!("{by}: {reason}") };
        // The driver numbers it.
        let order = Order::Recover(ByHand { order: 0, assembly, service, rung, by: by.into() });
        let said = self.order_and_wait(&deployable, order).await?;
        Ok(CommandAnswer { message: format!("{name}: {said}") })
    }

    /// A person's word that a machine is down.
    pub(crate) async fn confirm_fenced(
        &self,
        name: &str,
        reason: &str,
        by: &str,
    ) -> Result<CommandAnswer, Refused> {
        let (deployable, Some(assembly)) = self.place(name)? else {
            return Err(Refused::bad(format!("{name} is no machine; name one: {name}/ASSEMBLY")));
        };
        let order = Order::ConfirmFenced { order: 0, assembly, by: pauses::said(reason, by).into() };
        let said = self.order_and_wait(&deployable, order).await?;
        Ok(CommandAnswer { message: format!("{name}: {said}") })
    }
}

/// A service is restarted; every other rung is its machine's, and is asked for by the machine's name.
fn scope(
    name: &str,
    service: Option<ServiceIndex>,
    rung: Option<Rung>,
) -> Result<Option<ServiceIndex>, Refused> {
    match (service, rung) {
        (Some(_), Some(rung)) if rung != Rung::RestartService => {
            let machine = name.rsplit_once('/').map_or(name, |(machine, _)| machine);
            Err(Refused::bad(format!(
                "{rung} is for the whole machine: `cpe recover {machine} --rung {rung}`"
            )))
        }
        (None, Some(Rung::RestartService)) => {
            Err(Refused::bad(format!("restart-service is for a service: `cpe recover {name}/SERVICE`")))
        }
        (service, _) => Ok(service),
    }
}
