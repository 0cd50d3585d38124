//! `[notify]`: how a person is told, and how often at most.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::path_of;
use crate::document::{Host, HostPort, Schema, Table};
use crate::secret::{SecretSource, read_secret};

pub(super) const NOTIFY: Schema =
    Schema { title: "[notify]", keys: &["command", "webhook", "email", "ca", "burst", "every"], later: &[] };
pub(super) const EMAIL: Schema =
    Schema { title: "email", keys: &["to", "from", "server", "username", "password", "plain"], later: &[] };

/// The most people that one e-mail goes to.
const RECIPIENTS_MAX: usize = 20;
/// The longest address: RFC 5321 section 4.5.3.1 has 256 with its brackets.
const ADDRESS_MAX: usize = 254;

/// How a person is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// A program that gets each notification as JSON on its standard input.
    pub command: Option<PathBuf>,
    /// Where each notification is posted to as JSON.
    pub webhook: Option<Webhook>,
    /// Who gets each notification as an e-mail.
    pub email: Option<Email>,
    /// Certificates that the webhook's and the mail server's may be signed by, beside those of this host.
    pub ca: Option<PathBuf>,
    /// So many are told at once (10) ...
    pub burst: u32,
    /// ... and one more after each of this (15 s); what is above goes into a digest.
    pub every: Duration,
}

impl Default for Notify {
    fn default() -> Self {
        Self {
            command: None,
            webhook: None,
            email: None,
            ca: None,
            burst: 10,
            every: Duration::from_secs(15),
        }
    }
}

/// An address that notifications are posted to. Its path is often a secret: only its host is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook(String);

impl Webhook {
    /// Parses `http://HOST/PATH` or `https://HOST/PATH`.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "an address, as \"https://chat.example.org/hooks/...\"";
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or(EXPECTED)?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || host.contains('@') || !plain || text.len() > 2_048 {
            return Err(EXPECTED);
        }
        Ok(Self(text.to_owned()))
    }

    /// The whole address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its host and port: what may be shown.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.split('/').nth(2).unwrap_or_default().split(['?', '#']).next().unwrap_or_default()
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Webhook({})", self.host())
    }
}

/// How e-mails are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// Whom to.
    pub to: Vec<MailAddress>,
    /// Who they are from.
    pub from: MailAddress,
    /// Who takes them.
    pub server: MailServer,
    /// The account there, and where its password is.
    pub login: Option<(String, SecretSource)>,
}

/// The address of a mailbox, `LOCAL@DOMAIN`: plain ASCII without anything that means something in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailAddress(String);

impl MailAddress {
    /// Parses an address. Quoted local parts and names beside the address are not taken.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "an address, as \"ops@example.org\"";
        let (local, domain) = text.rsplit_once('@').ok_or(EXPECTED)?;
        // RFC 5322 section 3.2.3, a dot-atom.
        let atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
        let local =
            !local.is_empty() && local.split('.').all(|part| !part.is_empty() && part.bytes().all(atom));
        // A name, not an address in brackets: who takes e-mail has one.
        let domain = !domain.contains([':', '[']) && !domain.ends_with('.') && Host::parse(domain).is_ok();
        if local && domain && text.len() <= ADDRESS_MAX { Ok(Self(text.to_owned())) } else { Err(EXPECTED) }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What comes after the `@`.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

/// Who takes e-mails, and how they get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailServer {
    /// Its name or address; it is also what its certificate must be for.
    pub host: Host,
    /// Its port: 465 with TLS, 587 with STARTTLS, 25 without.
    pub port: u16,
    /// Whether others can read on the way.
    pub privacy: Privacy,
}

/// Whether others can read on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// TLS from the first byte: `smtps://`.
    Tls,
    /// TLS after STARTTLS; a server that does not offer it gets nothing: `smtp://`.
    StartTls,
    /// None: `smtp://` to this machine itself, or with `plain = true`.
    Plain,
}

impl MailServer {
    /// Parses `smtps://HOST[:PORT]` or `smtp://HOST[:PORT]`.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str, plain: bool) -> Result<Self, &'static str> {
        const EXPECTED: &str = "smtps://HOST (TLS) or smtp://HOST (STARTTLS), with :PORT where it is another";
        let (tls, place) = match (text.strip_prefix("smtps://"), text.strip_prefix("smtp://")) {
            (Some(place), _) => (true, place),
            (_, Some(place)) => (false, place),
            (None, None) => return Err(EXPECTED),
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        let (host, port) = match HostPort::parse(place) {
            Ok(HostPort { host, port }) => (host, Some(port)),
            Err(_) => (Host::parse(place).map_err(|_| EXPECTED)?, None),
        };
        let privacy = match (tls, plain || is_loopback(&host)) {
            (true, true) if plain => return Err("smtp://HOST where `plain` is true"),
            (true, _) => Privacy::Tls,
            (false, true) => Privacy::Plain,
            (false, false) => Privacy::StartTls,
        };
        let default = match privacy {
            Privacy::Tls => 465,
            Privacy::StartTls => 587,
            Privacy::Plain => 25,
        };
        Ok(Self { host, port: port.unwrap_or(default), privacy })
    }
}

fn is_loopback(host: &Host) -> bool {
    let address = host.as_str().parse::<std::net::IpAddr>();
    address.map_or_else(|_| host.as_str() == "localhost", |address| address.is_loopback())
}

pub(super) fn read(root: &Table<'_>, folder: &Path) -> Notify {
    let default = Notify::default();
    let Some(table) = root.table("notify", &NOTIFY) else { return default };
    let every = table.duration("every", Duration::from_secs(1), Duration::from_secs(24 * 3600));
    Notify {
        command: path_of(&table, "command", folder),
        webhook: read_webhook(&table),
        email: read_email(&table, folder),
        ca: path_of(&table, "ca", folder),
        burst: table.number("burst", 1, 1_000).unwrap_or(default.burst),
        every: every.unwrap_or(default.every),
    }
}

/// The address itself is in no message.
fn read_webhook(table: &Table<'_>) -> Option<Webhook> {
    let text = table.text("webhook")?;
    match Webhook::parse(text.text) {
        Ok(webhook) => Some(webhook),
        Err(expected) => {
            let message = format!("`webhook` in [notify] cannot be asked, expected {expected}");
            table.report().error(table.at_key("webhook"), message);
            None
        }
    }
}

fn read_email(notify: &Table<'_>, folder: &Path) -> Option<Email> {
    let table = notify.table("email", &EMAIL)?;
    table.require("to", "to = [\"ops@example.org\"]");
    table.require("from", "from = \"cpe@example.org\"");
    table.require("server", "server = \"smtps://mail.example.org\"");
    let to = table.list("to", MailAddress::parse);
    if let Some(count) = to.as_ref().map(Vec::len).filter(|count| !(1..=RECIPIENTS_MAX).contains(count)) {
        let message =
            format!("`to` in {} has {count} addresses, expected 1 to {RECIPIENTS_MAX}", table.title());
        table.report().error(table.at_key("to"), message);
    }
    let plain = table.flag("plain").unwrap_or(false);
    let server = table.parse("server", |text| MailServer::parse(text, plain));
    let from = table.parse("from", MailAddress::parse);
    let login = read_login(&table, folder);
    Some(Email { to: to?, from: from?, server: server?, login })
}

fn read_login(table: &Table<'_>, folder: &Path) -> Option<(String, SecretSource)> {
    if table.has("username") != table.has("password") {
        let message = format!("{} has to have both `username` and `password`, or neither", table.title());
        table.report().error(table.at(), message);
    }
    let username = table.parse("username", crate::document::plain_text);
    let password = read_secret(table, "password", |text| super::path(text, folder));
    Some((username?, password?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_private_the_way_to_a_mail_server_is_follows_from_its_address() {
        let read = |text: &str, plain| {
            MailServer::parse(text, plain).map(|it| (it.host.as_str().to_owned(), it.port, it.privacy))
        };
        let is = |host: &str, port, privacy| Ok((host.to_owned(), port, privacy));
        assert_eq!(read("smtps://mail.example.org", false), is("mail.example.org", 465, Privacy::Tls));
        assert_eq!(read("smtp://mail.example.org", false), is("mail.example.org", 587, Privacy::StartTls));
        assert_eq!(read("smtp://mail.example.org:25/", true), is("mail.example.org", 25, Privacy::Plain));
        assert_eq!(read("smtp://[::1]:2525", false), is("::1", 2525, Privacy::Plain));
        assert_eq!(read("smtp://localhost", false), is("localhost", 25, Privacy::Plain));
        assert_eq!(read("smtps://127.0.0.1", false), is("127.0.0.1", 465, Privacy::Tls));
        for bad in [
            "mail.example.org",
            "smtps://",
            "smtp://a b",
            "smtps://user:pw@mail",
            "http://mail",
            "smtp://a:0",
        ] {
            assert!(read(bad, false).is_err(), "{bad}");
        }
        assert!(read("smtps://mail.example.org", true).is_err(), "both cannot be meant");
    }

    #[test]
    fn a_mail_address_cannot_hold_a_header() {
        for good in ["ops@example.org", "a.b+c@localhost", "o'hara@mail-1.example.org"] {
            assert_eq!(MailAddress::parse(good).map(|address| address.0), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "ops",
            "@example.org",
            "ops@",
            "a b@example.org",
            "ops@example.org\r\nBcc: x@example.net",
            "ops@example.org, x@example.net",
            "<ops@example.org>",
            "\"a b\"@example.org",
            "a..b@example.org",
            "ops@[192.0.2.1]",
            "öps@example.org",
        ] {
            assert!(MailAddress::parse(bad).is_err(), "{bad}");
        }
        assert!(MailAddress::parse(&format!("{}@example.org", "x".repeat(250))).is_err());
    }
}
