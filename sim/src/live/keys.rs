//! The keys of a live fleet: one host key a machine, one client key for all. Made anew at each start; nothing is kept.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::MethodKind;
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::ssh_key::{Error, LineEnding};
use russh::keys::{PrivateKey, PublicKey};
use russh::server::Config;

/// A machine's host key, as the server needs it.
#[derive(Clone, Debug)]
pub(super) struct HostKey {
    /// What sessions are served with.
    pub(super) config: Arc<Config>,
    /// The public half, as `known_hosts` has it.
    public: Arc<str>,
}

impl HostKey {
    pub(super) fn new() -> Result<Self, Error> {
        let key = random();
        let public = key.public_key().to_openssh()?;
        let config = Config {
            keys: vec![key],
            // sshd answers a refused key at once, too.
            auth_rejection_time: Duration::ZERO,
            auth_rejection_time_initial: Some(Duration::ZERO),
            inactivity_timeout: None,
            methods: (&[MethodKind::PublicKey][..]).into(),
            ..Config::default()
        };
        Ok(Self { config: Arc::new(config), public: public.trim_end().into() })
    }

    pub(super) fn known_hosts_line(&self, address: SocketAddr) -> String {
        // sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT": a port other than 22 stands with the host in brackets.
        match address.port() {
            22 => format!("{} {}\n", address.ip(), self.public),
            port => format!("[{}]:{port} {}\n", address.ip(), self.public),
        }
    }
}

/// The key that all machines accept.
pub(super) struct ClientKey(PrivateKey);

impl ClientKey {
    pub(super) fn new() -> Self {
        Self(random())
    }

    pub(super) fn public(&self) -> &PublicKey {
        self.0.public_key()
    }

    pub(super) fn openssh(&self) -> Result<String, Error> {
        self.0.to_openssh(LineEnding::LF).map(|text| text.to_string())
    }
}

fn random() -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::random(&mut safe_rng()))
}
