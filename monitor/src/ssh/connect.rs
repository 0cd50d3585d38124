//! One attempt to connect: address, TCP, host key, login. Each way to fail is told apart, since isolation concludes different
//! things from them.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use cpe_proto::observation::{ChannelFailure, detail};
use russh::client::{self, AuthResult, DisconnectReason, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Preferred, cipher, kex, mac};
use tokio::net::TcpStream;

use super::known_hosts::{KnownHosts, Verdict};
use super::monitor::{Shared, Trust};
use super::settings::{Endpoint, Identity};
use super::socket::{self, Line};

/// Keys that are offered in one login, of an agent that has many: servers close after MaxAuthTries (6).
const AGENT_KEYS_MAX: usize = 6;

/// Why an attempt failed.
pub(super) struct Failure {
    pub(super) cause: ChannelFailure,
    pub(super) detail: Box<str>,
}

impl Failure {
    fn new(cause: ChannelFailure, text: &str) -> Self {
        Self { cause, detail: detail(text) }
    }
}

/// How far an attempt has come: what its silence means.
#[derive(Default)]
pub(super) struct Progress(AtomicU8);

const STEPS: [(ChannelFailure, &str); 7] = [
    (ChannelFailure::NotTried, "too many connections are being made"),
    (ChannelFailure::NotTried, "the host name was not resolved in time"),
    (ChannelFailure::TimedOut, "no answer to the TCP connection"),
    (ChannelFailure::TimedOut, "the port accepts connections, but no SSH server speaks"),
    (ChannelFailure::NotTried, "too many logins are under way"),
    (ChannelFailure::TimedOut, "the SSH server fell silent in the key exchange"),
    (ChannelFailure::TimedOut, "the SSH server fell silent in the login"),
];

impl Progress {
    fn at(&self, step: u8) {
        self.0.store(step, Relaxed);
    }

    /// What it means that there is no outcome yet.
    pub(super) fn silence(&self) -> Failure {
        let (cause, text) = STEPS[usize::from(self.0.load(Relaxed)).min(STEPS.len() - 1)];
        Failure::new(cause, text)
    }
}

/// A session that is logged in. Dropping it ends it, and whatever goes on over it.
pub(super) struct Link {
    pub(super) handle: Arc<Handle<Client>>,
    pub(super) notes: Arc<Notes>,
    shared: Arc<Shared>,
    _line: Line,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.tally.open.fetch_sub(1, Relaxed);
    }
}

/// What the session's task learned and could not return.
#[derive(Default)]
pub(super) struct Notes {
    host_key: Mutex<Option<String>>,
    farewell: Mutex<Option<String>>,
}

impl Notes {
    /// Why the session ended, as the server or the library said.
    pub(super) fn farewell(&self) -> Option<String> {
        self.farewell.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The library's view of us.
pub(super) struct Client {
    /// Until the host key was judged; after it, the fingerprint that holds for the whole session.
    host: Host,
    notes: Arc<Notes>,
}

enum Host {
    Unjudged(Box<(String, u16, Arc<Trust>)>),
    Accepted(Box<str>),
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, offered: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let fingerprint = offered.public_key().fingerprint(HashAlg::Sha256).to_string();
        let fault = match &self.host {
            Host::Accepted(known) => {
                (**known != *fingerprint).then(|| "it changed within the session".to_owned())
            }
            Host::Unjudged(host) => judge(&host.2, &host.0, host.1, offered, &fingerprint),
        };
        if let Some(fault) = fault {
            *self.notes.host_key.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
            return Ok(false);
        }
        self.host = Host::Accepted(fingerprint.into());
        Ok(true)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        let (text, result) = match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                (format!("the server said: {}", info.message), Ok(()))
            }
            DisconnectReason::Error(error) => (error.to_string(), Err(error)),
        };
        *self.notes.farewell.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        result
    }
}

/// What is wrong with a host key, and what to do about it; `None` where it is the known one.
fn judge(
    trust: &Trust,
    host: &str,
    port: u16,
    offered: &PublicKeyOrCertificate,
    seen: &str,
) -> Option<String> {
    let known = &trust.known_hosts;
    let (kind, verdict) = match offered {
        PublicKeyOrCertificate::PublicKey { key, .. } => (key.algorithm(), known.judge(host, port, key)),
        PublicKeyOrCertificate::Certificate(shown) => {
            (shown.algorithm(), known.judge_certificate(host, port, shown, SystemTime::now()))
        }
    };
    Some(match verdict {
        Verdict::Known => return None,
        Verdict::Changed(place, expected) => {
            format!(
                "changed: seen {seen}, but {place} has {expected}; if that is right, renew it by `cpe trust`"
            )
        }
        Verdict::Revoked(place) => format!("revoked by {place}: {kind} {seen}"),
        Verdict::OnlyAuthority(place) => {
            format!(
                "{place} has an authority, and the server showed nothing that it signed: seen {kind} {seen}; set HostCertificate in its sshd_config, or add the key"
            )
        }
        Verdict::Flawed(place, flaw) => {
            format!("the certificate shown, by the authority of {place}, {flaw}; seen {kind} {seen}")
        }
        Verdict::Unknown => {
            format!(
                "unknown: seen {kind} {seen} of {host} port {port}; compare, then add it by `cpe trust` or ssh-keyscan"
            )
        }
    })
}

/// Connects and logs in. It takes as long as the network takes: whoever waits for it ends it by dropping it.
pub(super) async fn connect(
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    progress: Arc<Progress>,
) -> Result<Link, Failure> {
    shared.gate.turn().await;
    let port = endpoint.port.unwrap_or(shared.settings.port);
    progress.at(1);
    let addresses = resolve(&endpoint.address, port).await?;
    progress.at(2);
    let stream = open(&addresses).await?;
    progress.at(3);
    // The server speaks first: before that there is nothing to compute.
    stream.readable().await.map_err(|error| Failure::new(ChannelFailure::Protocol, &error.to_string()))?;
    progress.at(4);
    let permit = shared.gate.handshake().await;
    progress.at(5);
    let trust = shared.trust();
    let notes = Arc::new(Notes::default());
    let config = config(&shared, &trust.known_hosts, &endpoint.address, port);
    let host = Host::Unjudged(Box::new((endpoint.address.clone(), port, Arc::clone(&trust))));
    let client = Client { host, notes: Arc::clone(&notes) };
    let (line, socket) = socket::split(stream);
    let handle = client::connect_stream(config, socket, client).await;
    let mut handle = handle.map_err(|error| handshake_failure(&error, &notes))?;
    progress.at(6);
    login(&mut handle, &shared, &trust, &endpoint, &notes).await?;
    drop(permit);
    shared.tally.connected.fetch_add(1, Relaxed);
    shared.tally.open.fetch_add(1, Relaxed);
    Ok(Link { handle: Arc::new(handle), notes, shared, _line: line })
}

async fn resolve(address: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    if let Ok(address) = address.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    // Our resolver's trouble says nothing of the assembly.
    let fault =
        |what: String| Failure::new(ChannelFailure::NotTried, &format!("host name {address}: {what}"));
    let found = tokio::net::lookup_host((address, port)).await.map_err(|error| fault(error.to_string()))?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() { Err(fault("has no address".to_owned())) } else { Ok(found) }
}

async fn open(addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
    let mut last = Failure::new(ChannelFailure::NotTried, "no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Only a matter of speed.
                let _slower = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = Failure::new(tcp_cause(error.kind()), &format!("{address}: {error}")),
        }
    }
    Err(last)
}

fn tcp_cause(kind: ErrorKind) -> ChannelFailure {
    match kind {
        ErrorKind::ConnectionRefused => ChannelFailure::Refused,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => ChannelFailure::Protocol,
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            ChannelFailure::TimedOut
        }
        // Out of file descriptors, ports or memory, or forbidden by our own firewall: nothing was asked of the assembly.
        _ => ChannelFailure::NotTried,
    }
}

fn handshake_failure(error: &russh::Error, notes: &Notes) -> Failure {
    if let Some(fault) = notes.host_key.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Failure::new(ChannelFailure::HostKey, &fault);
    }
    match error {
        russh::Error::NoCommonAlgo { kind, theirs, .. } => Failure::new(
            ChannelFailure::Protocol,
            &format!("no common {kind:?} algorithm; the server has {}", theirs.join(" ")),
        ),
        russh::Error::WrongServerSig => {
            Failure::new(ChannelFailure::HostKey, "the server could not prove its host key")
        }
        russh::Error::IO(error) if error.kind() == ErrorKind::TimedOut => {
            Failure::new(ChannelFailure::TimedOut, &error.to_string())
        }
        russh::Error::Disconnect | russh::Error::HUP => {
            Failure::new(ChannelFailure::Protocol, "the server ended the connection before the login")
        }
        other => Failure::new(ChannelFailure::Protocol, &format!("key exchange: {other}")),
    }
}

/// Offers each key in turn.
async fn login(
    handle: &mut Handle<Client>,
    shared: &Shared,
    trust: &Arc<Trust>,
    endpoint: &Endpoint,
    notes: &Notes,
) -> Result<(), Failure> {
    let user = endpoint.user.as_deref().unwrap_or(&shared.settings.user);
    let own = endpoint.identity.as_slice();
    let identities = if own.is_empty() { shared.settings.identities.as_slice() } else { own };
    let mut refused = Vec::new();
    for identity in identities {
        let accepted = match identity {
            Identity::File(_) | Identity::Encrypted { .. } => {
                offer_file(handle, user, trust, identity, &mut refused).await
            }
            Identity::Agent(path) => offer_agent(handle, user, path, &mut refused).await,
        };
        if accepted {
            return Ok(());
        }
        if handle.is_closed() {
            break;
        }
    }
    let farewell = notes.farewell();
    if handle.is_closed() && !farewell.as_ref().is_some_and(|text| text.starts_with("the server said")) {
        return Err(Failure::new(ChannelFailure::Protocol, "the server ended the connection in the login"));
    }
    let offered = if refused.is_empty() { "no key is configured".to_owned() } else { refused.join(", ") };
    let farewell = farewell.map(|text| format!("; {text}")).unwrap_or_default();
    Err(Failure::new(ChannelFailure::AuthenticationFailed, &format!("user {user}: {offered}{farewell}")))
}

async fn offer_file(
    handle: &mut Handle<Client>,
    user: &str,
    trust: &Arc<Trust>,
    identity: &Identity,
    refused: &mut Vec<String>,
) -> bool {
    let (reader, owned) = (Arc::clone(trust), identity.clone());
    let key = match tokio::task::spawn_blocking(move || reader.keys.get(&owned)).await {
        Ok(Ok(Some(key))) => key,
        Ok(Err(error)) => {
            refused.push(error.to_string());
            return false;
        }
        Ok(Ok(None)) | Err(_) => return false,
    };
    let hash = rsa_hash(handle, &key.algorithm()).await;
    let outcome =
        handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::clone(&key), hash)).await;
    if matches!(outcome, Ok(AuthResult::Success)) {
        return true;
    }
    let fingerprint = key.public_key().fingerprint(HashAlg::Sha256);
    refused.push(format!("key {} ({fingerprint}) is not accepted", identity.path().display()));
    false
}

async fn offer_agent(
    handle: &mut Handle<Client>,
    user: &str,
    path: &Path,
    refused: &mut Vec<String>,
) -> bool {
    let agent = AgentClient::connect_uds(path).await;
    let mut agent = match agent {
        Ok(agent) => agent,
        Err(error) => {
            refused.push(format!("agent {}: {error}", path.display()));
            return false;
        }
    };
    let identities = match agent.request_identities().await {
        Ok(identities) => identities,
        Err(error) => {
            refused.push(format!("agent {}: {error}", path.display()));
            return false;
        }
    };
    let keys = identities.into_iter().filter_map(|identity| match identity {
        AgentIdentity::PublicKey { key, .. } => Some(key),
        AgentIdentity::Certificate { .. } => None,
    });
    let mut count = 0_usize;
    for key in keys.take(AGENT_KEYS_MAX) {
        count += 1;
        let hash = rsa_hash(handle, &key.algorithm()).await;
        let outcome = handle.authenticate_publickey_with(user, key, hash, &mut agent).await;
        if matches!(outcome, Ok(AuthResult::Success)) {
            return true;
        }
        if handle.is_closed() {
            break;
        }
    }
    refused.push(format!("none of {count} keys of the agent {} is accepted", path.display()));
    false
}

/// RSA keys sign by SHA-2; which one, the server says.
async fn rsa_hash(handle: &Handle<Client>, algorithm: &Algorithm) -> Option<HashAlg> {
    if !is_rsa(algorithm) {
        return None;
    }
    handle.best_supported_rsa_hash().await.ok().flatten().flatten().or(Some(HashAlg::Sha256))
}

fn is_rsa(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Rsa { .. })
}

/// Current algorithms only, and few: each session keeps its lists.
fn config(shared: &Shared, known: &KnownHosts, host: &str, port: u16) -> Arc<client::Config> {
    const KEX: &[kex::Name] = &[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    ];
    const CIPHERS: &[cipher::Name] = &[cipher::CHACHA20_POLY1305, cipher::AES_256_GCM, cipher::AES_128_GCM];
    // Never used with the ciphers above, which authenticate by themselves; the list may not be empty.
    const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM];
    let preferred = Preferred {
        kex: KEX.into(),
        key: host_key_algorithms(&known.algorithms(host, port)).into(),
        // A server that has a certificate shows it to whoever asks, in place of its key.
        host_key_certificates: if known.has_authority(host, port) {
            host_key_algorithms(&[]).into()
        } else {
            (&[][..]).into()
        },
        cipher: CIPHERS.into(),
        mac: MACS.into(),
        compression: (&[russh::compression::NONE][..]).into(),
    };
    Arc::new(client::Config {
        preferred,
        keepalive_interval: Some(shared.settings.keepalive),
        keepalive_max: shared.settings.keepalive_max,
        channel_buffer_size: 16,
        window_size: 256 * 1024,
        ..client::Config::default()
    })
}

/// The kinds that known_hosts has of the host come first, so that a server with several keys shows the one that can be checked.
fn host_key_algorithms(known: &[Algorithm]) -> Vec<Algorithm> {
    let rsa = |hash| Algorithm::Rsa { hash: Some(hash) };
    let mut all = vec![Algorithm::Ed25519];
    all.extend(
        [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521]
            .map(|curve| Algorithm::Ecdsa { curve }),
    );
    all.extend([rsa(HashAlg::Sha512), rsa(HashAlg::Sha256)]);
    // A known RSA key is written as ssh-rsa, whatever hash it signs by.
    all.sort_by_key(|kind| !known.iter().any(|known| known == kind || (is_rsa(known) && is_rsa(kind))));
    all
}
