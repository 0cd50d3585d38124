//! Probes that the controller makes itself, without a session to the guest: what each asks and what it expects. `direct_read.rs` reads
//! them; `monitor/src/direct/` makes them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::http::{Http, split_port};
use super::reference::{Attribute, Reference, Referring};
use crate::document::Host;
use crate::id::AssemblyIndex;

/// The port of DNS (RFC 1035).
pub const DNS_PORT: u16 = 53;

/// A host that a direct probe is made to. The assembly is an index, or the word of the file where that is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostOf<A = AssemblyIndex> {
    /// Wherever that assembly is reached now.
    Assembly(A),
    /// This host.
    Host(Host),
}

impl HostOf<Arc<str>> {
    /// Parses a host, or a reference to an assembly's address.
    ///
    /// # Errors
    /// What is expected, where the text is nearly a reference; otherwise nothing, and whoever asked says it in his own words.
    pub(super) fn parse(text: &str) -> Result<Self, Option<String>> {
        let referring = Referring::parse(text).map_err(Some)?;
        match referring.only() {
            Some(Reference { assembly, attribute: Attribute::Address }) => {
                Ok(Self::Assembly(assembly.clone()))
            }
            Some(_) => Err(None),
            None => Host::parse(text).map(Self::Host).map_err(|_| None),
        }
    }
}

/// A port of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOf<A = AssemblyIndex> {
    /// The host.
    pub host: HostOf<A>,
    /// The port, from 1.
    pub port: u16,
}

impl PortOf<Arc<str>> {
    /// Parses `HOST:PORT`, where the host may be a reference.
    ///
    /// # Errors
    /// What is expected.
    pub(super) fn parse(text: &str, port: Option<u16>) -> Result<Self, String> {
        let expected = || match port {
            None => "HOST:PORT, where HOST is a name, an IP address or {ASSEMBLY.address}".to_owned(),
            Some(port) => format!(
                "HOST or HOST:PORT (port {port}), where HOST is a name, an IP address or {{ASSEMBLY.address}}"
            ),
        };
        let (host, port) = match (split_port(text), port) {
            (Some(split), _) => split,
            (None, Some(port)) => (text, port),
            (None, None) => return Err(expected()),
        };
        let host = HostOf::parse(host).map_err(|error| error.unwrap_or_else(expected))?;
        Ok(Self { host, port })
    }
}

/// A probe that the controller makes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Direct<A = AssemblyIndex> {
    /// A port accepts a connection, which proves a kernel.
    Tcp(PortOf<A>),
    /// A TLS handshake succeeds, and the certificate is good for a while.
    Tls(Tls<A>),
    /// An HTTP request is answered as expected.
    Http(Box<Http<A>>),
    /// A DNS server answers a question as expected.
    Dns(Dns<A>),
    /// An ICMP echo comes back, which proves a kernel.
    Icmp(HostOf<A>),
}

/// What a TLS probe asks and expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls<A = AssemblyIndex> {
    /// Where.
    pub to: PortOf<A>,
    /// The name that is asked for and that the certificate must have; none: the host's.
    pub name: Option<Host>,
    /// A certificate that ends within this is for a person to renew (0 s: not told before it fails).
    pub warn_before: Duration,
    /// A certificate that ends within this is a failure (0 s: once it has ended).
    pub fail_before: Duration,
    /// A file of certificates that are trusted; none: those of the controller's host.
    pub ca: Option<PathBuf>,
}

/// What a DNS probe asks and expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns<A = AssemblyIndex> {
    /// The name that is asked for.
    pub name: Arc<str>,
    /// The type of record.
    pub record: Record,
    /// What must be among the answers; none: any answer of that type will do.
    pub expect: Arc<[Box<str>]>,
    /// Whom to ask.
    pub server: PortOf<A>,
}

/// A type of DNS record that can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Record {
    /// An IPv4 address.
    #[default]
    A,
    /// An IPv6 address.
    Aaaa,
    /// Another name for it.
    Cname,
    /// A mail server, as `10 mail.example.com`.
    Mx,
    /// A name server.
    Ns,
    /// A name for an address.
    Ptr,
    /// A server, as `10 5 443 host.example.com`.
    Srv,
    /// A text.
    Txt,
}

impl Record {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::A, Self::Aaaa, Self::Cname, Self::Mx, Self::Ns, Self::Ptr, Self::Srv, Self::Txt];

    /// The word of definitions.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Mx => "MX",
            Self::Ns => "NS",
            Self::Ptr => "PTR",
            Self::Srv => "SRV",
            Self::Txt => "TXT",
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl<A> Direct<A> {
    /// The word of definitions and metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Tls(_) => "tls",
            Self::Http(_) => "http",
            Self::Dns(_) => "dns",
            Self::Icmp(_) => "icmp",
        }
    }

    /// Whom it asks.
    #[must_use]
    pub const fn target(&self) -> &HostOf<A> {
        match self {
            Self::Tcp(to) => &to.host,
            Self::Tls(tls) => &tls.to.host,
            Self::Http(http) => &http.url.host,
            Self::Dns(dns) => &dns.server.host,
            Self::Icmp(host) => host,
        }
    }

    /// Whether an answer comes from a program. What only a kernel answers proves no live machine (policy.md section 2).
    #[must_use]
    pub const fn speaks_of_programs(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::Http(_) | Self::Dns(_))
    }

    /// The same with the assembly that `find` says a word means. None where it has none; it has said why.
    pub(super) fn resolve<B>(&self, find: impl FnOnce(&A) -> Option<B>) -> Option<Direct<B>> {
        let host = match self.target() {
            HostOf::Assembly(word) => HostOf::Assembly(find(word)?),
            HostOf::Host(host) => HostOf::Host(host.clone()),
        };
        let socket = |port: u16, host| PortOf { host, port };
        Some(match self {
            Self::Tcp(to) => Direct::Tcp(socket(to.port, host)),
            Self::Icmp(_) => Direct::Icmp(host),
            Self::Tls(tls) => Direct::Tls(Tls {
                to: socket(tls.to.port, host),
                name: tls.name.clone(),
                warn_before: tls.warn_before,
                fail_before: tls.fail_before,
                ca: tls.ca.clone(),
            }),
            Self::Http(http) => Direct::Http(Box::new(http.with_host(host))),
            Self::Dns(dns) => Direct::Dns(Dns {
                name: Arc::clone(&dns.name),
                record: dns.record,
                expect: Arc::clone(&dns.expect),
                server: socket(dns.server.port, host),
            }),
        })
    }
}
