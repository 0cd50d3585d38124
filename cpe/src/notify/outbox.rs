//! What is to be sent stands in the journal from before it is sent until it was, or was given up (`desk.rs`), with all that is needed to send
//! it: a cpe that was killed between the two sends it again at its next start, under the same id. A receiver that remembers ids
//! (`Idempotency-Key`, Message-ID, `id`) is told once; another one may be told twice, and only of what was being sent when cpe ended.

use cpe_proto::id::IncidentId;
use serde::{Deserialize, Serialize};

use super::desk::{CLOSED, state_of};
use super::{Notification, Phase};
use crate::journal::{Notified, Outgoing};

/// A notification as it is kept.
#[derive(Serialize, Deserialize)]
struct Letter {
    first: bool,
    notification: Notification,
}

/// What the journal keeps of one that goes over these channels.
pub(super) fn outgoing<'a>(
    notification: &Notification,
    channels: impl Iterator<Item = &'a str>,
) -> Vec<Outgoing> {
    let letter = Letter { first: notification.first, notification: notification.clone() };
    // Names and texts only: it cannot fail.
    let body = serde_json::to_string(&letter).unwrap_or_default();
    let to = |channel: &str| Outgoing {
        id: notification.id.clone(),
        channel: channel.to_owned(),
        body: body.clone(),
    };
    channels.map(to).collect()
}

/// What an earlier cpe did not send, oldest first, each with its channels.
pub(super) fn left(outbox: &[Outgoing]) -> Vec<(Notification, Vec<String>)> {
    let mut left: Vec<(Notification, Vec<String>)> = Vec::new();
    for Outgoing { id, channel, body } in outbox {
        match left.last_mut().filter(|(notification, _)| notification.id == *id) {
            Some((_, channels)) => channels.push(channel.clone()),
            None => match serde_json::from_str::<Letter>(body) {
                Ok(Letter { first, notification }) => {
                    left.push((Notification { first, ..notification }, vec![channel.clone()]));
                }
                // A newer cpe wrote it.
                Err(error) => {
                    tracing::warn!(id, %error, "a notification that was not sent cannot be read");
                }
            },
        }
    }
    left
}

/// How the journal knows it; none: a digest.
pub(super) fn notified(notification: &Notification) -> Option<Notified> {
    let deployable = notification.deployable.clone()?;
    let number = notification.incident.as_ref().and_then(|it| it.rsplit_once('#')?.1.parse().ok());
    let state = match notification.state {
        Phase::Closed => CLOSED.to_owned(),
        Phase::Open | Phase::Digest => state_of(&notification.message),
    };
    let (time, message) = (notification.time, notification.message.clone());
    Some(Notified { time, deployable, incident: number.map(IncidentId), state, message })
}
