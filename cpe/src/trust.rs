//! `cpe trust`: what key the host of an assembly shows, and that a person believes it. cpe itself connects, over the way that its probes
//! take; a key is enrolled only by a fingerprint that somebody has confirmed. The file is `monitor`'s (`enrol.rs`).

use std::sync::Arc;
use std::time::Duration;

use cpe_monitor::ssh::{Endpoint, ShownKey, Standing, Whose};
use cpe_proto::api::{CommandAnswer, HostKey, HostKeyStanding};
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{AssemblyIndex, Name};
use dped::Order;
use jiff::Timestamp;

use crate::api::Refused;
use crate::event::plain;
use crate::fleet::{Fleet, unknown};
use crate::glob::Glob;
use crate::sessions::endpoint;

/// Somebody waits for it.
const LOOK_TIMEOUT: Duration = Duration::from_secs(8);

/// A SHA-256 fingerprint has 43 characters.
const FINGERPRINT_MAX: usize = 64;

/// An assembly and how it is reached.
struct Place {
    deployable: Name,
    index: AssemblyIndex,
    assembly: Name,
    endpoint: Endpoint,
}

impl Fleet {
    /// The key that a host shows now; nothing is learnt.
    pub(crate) async fn look_at_key(&self, name: &str, jump: bool) -> Result<HostKey, Refused> {
        let place = self.reached(name).await?;
        let shown = self.shown(&place, jump).await?;
        let standing = match &shown.standing {
            Standing::Known => HostKeyStanding::Known,
            Standing::Unknown => HostKeyStanding::Unknown,
            Standing::Changed { place, known } => {
                HostKeyStanding::Changed { place: place.clone(), known: known.clone() }
            }
            Standing::Revoked(place) => HostKeyStanding::Revoked { place: place.clone() },
        };
        Ok(HostKey { host: shown.host(), kind: shown.kind(), fingerprint: shown.fingerprint(), standing })
    }

    /// Believes the key of that fingerprint, if it is what the host shows.
    pub(crate) async fn trust(
        &self,
        name: &str,
        fingerprint: &str,
        jump: bool,
        by: &str,
    ) -> Result<CommandAnswer, Refused> {
        let digest = fingerprint.strip_prefix("SHA256:").unwrap_or_default();
        if digest.is_empty() || fingerprint.len() > FINGERPRINT_MAX {
            return Err(Refused::bad(format!(
                "{fingerprint:?} is no fingerprint: SHA256:..., as ssh-keygen -l prints it"
            )));
        }
        let place = self.reached(name).await?;
        let shown = self.shown(&place, jump).await?;
        let (host, seen) = (shown.host(), shown.fingerprint());
        if seen != fingerprint {
            return Err(Refused::conflict(format!(
                "{name}: {host} shows {seen}, not {fingerprint}: nothing is believed; find out whose key that is"
            )));
        }
        if shown.standing == Standing::Known {
            return Ok(CommandAnswer {
                message: format!("{name}: {seen} of {host} is the known key already"),
            });
        }
        let record = format!("by {by}, {}", Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ"));
        let monitor = self.shared().monitor.clone();
        let enrolled = tokio::task::spawn_blocking(move || monitor.enrol(&shown, &record)).await;
        let enrolled =
            enrolled.map_err(|error| error.to_string()).and_then(|it| it.map_err(|error| error.to_string()));
        let replaced = enrolled.map_err(|why| {
            Refused::unavailable(format!("{name}: the key of {host} was not enrolled: {why}"))
        })?;
        let instead = match replaced.as_slice() {
            [] => String::new(),
            keys => format!(", in place of {}, revoked now", keys.join(", ")),
        };
        let event = Event {
            assembly: Some(place.assembly),
            ..plain(EventKind::Ordered, &format!("trust {seen} of {host}{instead}, by {by}"))
        };
        self.shared().report(Some(&place.deployable), event);
        self.order(&place.deployable, Order::Look { assembly: place.index }).await?;
        Ok(CommandAnswer {
            message: format!("{name}: {seen} of {host} is believed{instead}; it is connected anew"),
        })
    }

    async fn reached(&self, name: &str) -> Result<Place, Refused> {
        let (deployable, index) = self.place(name)?;
        let Some(index) = index else {
            return Err(Refused::bad(format!("{name} is no machine; name one: {name}/ASSEMBLY")));
        };
        let definition = self.definition_of(&deployable).ok_or_else(|| unknown(name))?;
        let assembly = definition.assembly(index);
        let wanted: Glob =
            name.parse().map_err(|error: crate::glob::GlobError| Refused::bad(error.to_string()))?;
        let statuses = self.statuses(&wanted).await;
        let found = statuses.iter().find(|it| it.name == deployable);
        let found = found.and_then(|it| it.assemblies.iter().find(|it| it.name == assembly.name));
        let address = found.and_then(|it| it.address.as_deref()).ok_or_else(|| {
            Refused::conflict(format!(
                "{name}: its address is not known yet; its infrastructure has to say it first"
            ))
        })?;
        let endpoint = endpoint(&definition, assembly, address);
        Ok(Place { deployable, index, assembly: assembly.name.clone(), endpoint })
    }

    async fn shown(&self, place: &Place, jump: bool) -> Result<ShownKey, Refused> {
        let whose = if jump { Whose::Jump } else { Whose::Machine };
        let monitor = Arc::new(self.shared().monitor.clone());
        let shown = monitor.show_key(&place.endpoint, whose, LOOK_TIMEOUT).await;
        shown.map_err(|why| {
            let hint = if why.contains("jump host") && why.contains("unknown:") {
                "; enrol the jump host's key first: `cpe trust --jump`"
            } else {
                ""
            };
            Refused::conflict(format!("{}: no key was seen: {why}{hint}", place.endpoint.label))
        })
    }
}
