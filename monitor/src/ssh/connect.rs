//! One attempt to connect: address, TCP or the way through a jump host (`jump.rs`), host key, login (`login.rs`). Each way to fail is
//! told apart, since isolation concludes different things from them.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use cpe_proto::observation::{ChannelFailure, detail};
use russh::client::{self, DisconnectReason, Handle};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{ChannelId, ChannelOpenFailure, Preferred, cipher, kex, mac};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::jump::{Through, Way};
use super::known_hosts::{KnownHosts, Verdict};
use super::login::login;
use super::monitor::{Shared, Trust};
use super::settings::{Endpoint, Identity, Jump, Settings};
use super::socket::{self, Line, Socket};
use super::tunnel;

/// How long a session to a jump host may take to prove that it lives, when one that it carried was ended.
const LIVES_MAX: Duration = Duration::from_secs(2);

/// What is said where the session to the jump host was ended.
pub(super) const LOST_WAY: &str = "the session to the jump host was lost";

/// How long we wait for the words to a failure that we know of already.
const WORDS_MAX: Duration = Duration::from_secs(1);

/// Why an attempt failed.
#[derive(Clone)]
pub(super) struct Failure {
    pub(super) cause: ChannelFailure,
    pub(super) detail: Box<str>,
}

impl Failure {
    pub(super) fn new(cause: ChannelFailure, text: &str) -> Self {
        Self { cause, detail: detail(text) }
    }
}

/// How far an attempt has come: what its silence means.
#[derive(Default)]
pub(super) struct Progress(AtomicU8);

const STEPS: [(ChannelFailure, &str); 8] = [
    (ChannelFailure::NotTried, "too many connections are being made"),
    (ChannelFailure::NotTried, "the host name was not resolved in time"),
    (ChannelFailure::TimedOut, "no answer to the TCP connection"),
    (ChannelFailure::TimedOut, "the port accepts connections, but no SSH server speaks"),
    (ChannelFailure::NotTried, "too many logins are under way"),
    (ChannelFailure::TimedOut, "the SSH server fell silent in the key exchange"),
    (ChannelFailure::TimedOut, "the SSH server fell silent in the login"),
    (ChannelFailure::NotTried, NO_JUMP),
];

/// What a jump host's name is put before.
pub(super) const NO_JUMP: &str = "the session to it was not there in time";

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
    /// The session that carries this one.
    via: Option<Arc<Self>>,
}

impl Link {
    /// Whether the session lives: it answers now.
    pub(super) async fn lives(&self) -> bool {
        let answered = tokio::time::timeout(LIVES_MAX, self.handle.send_ping()).await;
        matches!(answered, Ok(Ok(()))) && !self.ended()
    }

    /// Whether the session has ended.
    pub(super) fn ended(&self) -> bool {
        self.handle.is_closed() || self.notes.farewell().is_some()
    }

    /// Whether the session that carries this one has ended.
    pub(super) fn way_ended(&self) -> bool {
        self.via.as_ref().is_some_and(|via| via.ended())
    }

    /// What it means that a session was ended which this one carries (if any does): where this one has ended too, nothing.
    pub(super) async fn blame(via: Option<&Arc<Self>>, failure: Failure) -> Failure {
        let Some(via) = via.filter(|_| failure.cause == ChannelFailure::Protocol) else { return failure };
        if via.lives().await {
            return failure;
        }
        Failure::new(ChannelFailure::NotTried, LOST_WAY)
    }

    /// The session that carries this one.
    pub(super) fn via(&self) -> Option<&Arc<Self>> {
        self.via.as_ref()
    }
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
    /// Of a session to a jump host: why connections could not be made, until all who wait for such a text have had theirs.
    refusals: Option<watch::Sender<Refusals>>,
}

#[derive(Default)]
struct Refusals {
    texts: Vec<Box<str>>,
    claimed: usize,
}

impl Notes {
    /// Why the session ended, as the server or the library said.
    pub(super) fn farewell(&self) -> Option<String> {
        self.farewell.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server's words for a connection that it could not make; each such failure asks once. The library does not tell whose
    /// words they are: where several came at a time and differ, nobody is told.
    pub(super) async fn refusal(&self) -> Option<String> {
        let refusals = self.refusals.as_ref()?;
        let mut changed = refusals.subscribe();
        // The library tells of the failure before it tells its words.
        let come = changed.wait_for(|refusals| refusals.texts.len() > refusals.claimed);
        tokio::time::timeout(WORDS_MAX, come).await.ok()?.ok()?;
        let mut told = None;
        refusals.send_modify(|refusals| {
            let same = refusals.texts.windows(2).all(|pair| pair[0] == pair[1]);
            told = refusals.texts.first().filter(|_| same).map(ToString::to_string);
            refusals.claimed += 1;
            if refusals.claimed >= refusals.texts.len() {
                *refusals = Refusals::default();
            }
        });
        told
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
    /// It is only looked at; what was shown.
    Looked(Arc<Mutex<Option<PublicKey>>>),
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, offered: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let fingerprint = offered.public_key().fingerprint(HashAlg::Sha256).to_string();
        if let Host::Looked(shown) = &self.host {
            *shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(offered.public_key());
            return Ok(false);
        }
        let fault = match &self.host {
            Host::Looked(_) => None,
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

    async fn channel_open_failure(
        &mut self,
        _channel: ChannelId,
        _reason: ChannelOpenFailure,
        description: &str,
        _language: &str,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        if let Some(refusals) = &self.notes.refusals {
            refusals.send_modify(|refusals| refusals.texts.push(detail(description)));
        }
        Ok(())
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

/// Whom to connect to, and as whom.
pub(super) struct Peer {
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) identities: Vec<Identity>,
    /// Whether it is to connect us to others.
    forwards: bool,
}

impl Peer {
    pub(super) fn of(endpoint: &Endpoint, settings: &Settings) -> Self {
        let own = endpoint.identity.as_slice();
        let identities = if own.is_empty() { &settings.identities } else { own };
        Self {
            address: endpoint.address.clone(),
            port: endpoint.port.unwrap_or(settings.port),
            user: endpoint.user.as_ref().unwrap_or(&settings.user).clone(),
            identities: identities.to_vec(),
            forwards: false,
        }
    }

    pub(super) fn of_jump(jump: &Jump, settings: &Settings) -> Self {
        Self {
            address: jump.address.clone(),
            port: jump.port.unwrap_or(Jump::PORT),
            user: jump.user.as_ref().unwrap_or(&settings.user).clone(),
            identities: settings.identities.clone(),
            forwards: true,
        }
    }
}

/// A connection on which nothing was said by us yet.
struct Opened {
    line: Line,
    socket: Socket,
    via: Option<Arc<Link>>,
}

/// Connects and logs in. It takes as long as the network takes: whoever waits for it ends it by dropping it.
pub(super) async fn connect(
    shared: Arc<Shared>,
    peer: Peer,
    way: Option<Way>,
    progress: Arc<Progress>,
) -> Result<Link, Failure> {
    let Opened { line, socket, via } = match way {
        None => open_directly(&shared, &peer, &progress).await?,
        Some(way) => open_through(&shared, &peer, &way, &progress).await?,
    };
    progress.at(4);
    let permit = shared.gate.handshake().await;
    progress.at(5);
    let trust = shared.trust();
    let refusals = peer.forwards.then(|| watch::Sender::new(Refusals::default()));
    let notes = Arc::new(Notes { refusals, ..Notes::default() });
    let config = Arc::new(config(&shared, &trust.known_hosts, &peer.address, peer.port));
    let host = Host::Unjudged(Box::new((peer.address.clone(), peer.port, Arc::clone(&trust))));
    let client = Client { host, notes: Arc::clone(&notes) };
    let mut handle = match client::connect_stream(config, socket, client).await {
        Ok(handle) => handle,
        Err(error) => return Err(Link::blame(via.as_ref(), handshake_failure(&error, &notes)).await),
    };
    progress.at(6);
    if let Err(failure) = login(&mut handle, &trust, &peer, &notes).await {
        return Err(Link::blame(via.as_ref(), failure).await);
    }
    drop(permit);
    shared.tally.connected.fetch_add(1, Relaxed);
    shared.tally.open.fetch_add(1, Relaxed);
    Ok(Link { handle: Arc::new(handle), notes, shared, _line: line, via })
}

/// Connects as far as the host key that is shown, and no further.
pub(super) async fn look(
    shared: Arc<Shared>,
    peer: Peer,
    way: Option<Way>,
    progress: Arc<Progress>,
) -> Result<PublicKey, Failure> {
    let Opened { line: _line, socket, via } = match way {
        None => open_directly(&shared, &peer, &progress).await?,
        Some(way) => open_through(&shared, &peer, &way, &progress).await?,
    };
    progress.at(4);
    let _permit = shared.gate.handshake().await;
    progress.at(5);
    let trust = shared.trust();
    let mut config = config(&shared, &trust.known_hosts, &peer.address, peer.port);
    // A certificate would hide which key the server has.
    config.preferred.host_key_certificates = (&[][..]).into();
    let (shown, notes) = (Arc::default(), Arc::new(Notes::default()));
    let client = Client { host: Host::Looked(Arc::clone(&shown)), notes: Arc::clone(&notes) };
    let ended = client::connect_stream(Arc::new(config), socket, client).await.err();
    let shown = shown.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (shown, ended) {
        (Some(key), _) => Ok(key),
        (None, Some(error)) => Err(Link::blame(via.as_ref(), handshake_failure(&error, &notes)).await),
        (None, None) => Err(Failure::new(ChannelFailure::Protocol, "the server showed no key")),
    }
}

async fn open_directly(shared: &Shared, peer: &Peer, progress: &Progress) -> Result<Opened, Failure> {
    shared.gate.turn().await;
    progress.at(1);
    let addresses = resolve(&peer.address, peer.port).await?;
    progress.at(2);
    let stream = open(&addresses).await?;
    progress.at(3);
    // The server speaks first: before that there is nothing to compute.
    stream.readable().await.map_err(|error| Failure::new(ChannelFailure::Protocol, &error.to_string()))?;
    let (line, socket) = socket::split(stream);
    Ok(Opened { line, socket, via: None })
}

/// The jump host resolves the name and connects.
async fn open_through(
    shared: &Arc<Shared>,
    peer: &Peer,
    way: &Way,
    progress: &Progress,
) -> Result<Opened, Failure> {
    progress.at(7);
    let link = way.link(shared).await?;
    progress.at(0);
    shared.gate.turn().await;
    progress.at(2);
    let Through { stream, link } = way.open(link, &peer.address, peer.port).await?;
    progress.at(3);
    match tunnel::open(*stream).await {
        Ok(ends) => {
            let (line, socket) = socket::of_tunnel(ends);
            Ok(Opened { line, socket, via: Some(link) })
        }
        Err(error) => {
            let text = format!("the server ended the connection: {error}");
            Err(Link::blame(Some(&link), Failure::new(ChannelFailure::Protocol, &text)).await)
        }
    }
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

pub(super) fn is_rsa(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Rsa { .. })
}

/// Current algorithms only, and few: each session keeps its lists.
fn config(shared: &Shared, known: &KnownHosts, host: &str, port: u16) -> client::Config {
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
    client::Config {
        preferred,
        keepalive_interval: Some(shared.settings.keepalive),
        keepalive_max: shared.settings.keepalive_max,
        channel_buffer_size: 16,
        window_size: 256 * 1024,
        ..client::Config::default()
    }
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
