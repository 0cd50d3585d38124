//! Ports probed from within the guest, through a channel of the session (direct-tcpip): sshd connects, nothing is forked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use cpe_proto::observation::{Observation, detail};
use russh::ChannelOpenFailure;
use russh::client::Handle;

use super::connect::Client;

/// Ports of one session that are being connected to at one time. One that hangs stays so for as long as the guest's kernel tries.
const OPENING_MAX: usize = 32;

/// What goes on with the ports of one session.
#[derive(Default)]
pub(super) struct Ports {
    opening: Arc<AtomicUsize>,
    refusals: Arc<AtomicUsize>,
}

impl Ports {
    /// Room for one more, if there is.
    pub(super) fn open(&self, host: &Arc<str>, port: u16) -> Option<Port> {
        if self.opening.load(Relaxed) >= OPENING_MAX {
            return None;
        }
        self.opening.fetch_add(1, Relaxed);
        let (opening, refusals) = (Arc::clone(&self.opening), Arc::clone(&self.refusals));
        Some(Port { host: Arc::clone(host), port, opening, refusals })
    }

    /// How many were not opened.
    pub(super) fn refusals(&self) -> usize {
        self.refusals.load(Relaxed)
    }
}

/// A port to connect to, from within the guest.
pub(super) struct Port {
    host: Arc<str>,
    port: u16,
    opening: Arc<AtomicUsize>,
    refusals: Arc<AtomicUsize>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.opening.fetch_sub(1, Relaxed);
    }
}

impl Port {
    /// Has sshd connect to it. It takes as long as the guest's kernel tries: whoever asked has been answered by its deadline, but the
    /// channel that opens after it must be closed.
    pub(super) async fn probe(&self, handle: &Handle<Client>) -> Observation {
        let opened = handle.channel_open_direct_tcpip(&*self.host, self.port.into(), "127.0.0.1", 0).await;
        let reason = match opened {
            Ok(channel) => {
                let _lost = channel.close().await;
                return Observation::Connected;
            }
            Err(russh::Error::ChannelOpenFailure(reason)) => reason,
            Err(_) => return Observation::NotObserved,
        };
        self.refusals.fetch_add(1, Relaxed);
        match reason {
            ChannelOpenFailure::ConnectFailed => {
                Observation::NotConnected(detail(&format!("{} port {}: refused or unreachable", self.host, self.port)))
            }
            ChannelOpenFailure::ResourceShortage => Observation::NotObserved,
            _ => Observation::NotRunnable(
                "sshd does not allow it: set AllowTcpForwarding local (or PermitOpen) in its sshd_config for this user, and port-forwarding for a key with `restrict`".into(),
            ),
        }
    }
}
