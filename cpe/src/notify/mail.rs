//! `[notify] email`: each notification is one e-mail, and those of one incident are one thread from its opening to its close, also over
//! restarts: the first has a Message-ID that follows from the incident, the others refer to it. Each recipient is a delivery of its own, so
//! that one whom the server does not take keeps no other from being told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use cpe_proto::config::{Email, MailAddress};
use lettre::address::Envelope;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, SinglePart};
use lettre::{Address, Message};

use super::smtp::Server;
use super::tls::TlsError;
use super::{Notification, Phase, Retry};
use cpe_monitor::secret::SecretError;

#[derive(Debug, thiserror::Error)]
pub(super) enum MailError {
    #[error("[notify.email] password: {0}")]
    Password(#[from] SecretError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the e-mail cannot be made: {0}")]
    Unmade(String),
    #[error("{server} did not answer within 30 s")]
    TimedOut { server: String },
    #[error("{server}: {reason}")]
    Refused { server: String, reason: Box<str>, passes: bool },
    #[error("not to {}", .0.join("; not to "))]
    Recipients(Vec<String>),
}

impl MailError {
    /// Whether the same may work later.
    fn passes(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::Refused { passes, .. } => *passes,
            Self::Password(_) | Self::Tls(_) | Self::Unmade(_) | Self::Recipients(_) => false,
        }
    }
}

/// The way to the mail server.
#[derive(Debug)]
pub(super) struct Mailer {
    email: Email,
    ca: Option<PathBuf>,
    retry: Retry,
    /// Made when it is needed, and made anew after a refusal: the password may be another one by then.
    server: Option<Arc<Server>>,
}

impl Mailer {
    pub(super) fn new(email: Email, ca: Option<PathBuf>, retry: Retry) -> Self {
        Self { email, ca, retry, server: None }
    }

    /// Sends until each recipient's server took it, refused it for good or was given up.
    pub(super) async fn send(&mut self, notification: &Notification) -> Result<(), MailError> {
        let message = message(&self.email, notification)?.formatted();
        let mut failed = Vec::new();
        for to in self.email.to.clone() {
            let mut attempts = self.retry.attempts();
            while let Err(error) = self.deliver(&to, &message).await {
                let wait = attempts.next().filter(|_| error.passes());
                let Some(wait) = wait else {
                    self.server = None;
                    failed.push(format!("{}: {error}", to.as_str()));
                    break;
                };
                tracing::warn!(to = to.as_str(), %error, "an e-mail is tried again");
                tokio::time::sleep(wait).await;
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(MailError::Recipients(failed)) }
    }

    async fn deliver(&mut self, to: &MailAddress, message: &[u8]) -> Result<(), MailError> {
        let server = match &self.server {
            Some(server) => Arc::clone(server),
            None => {
                let (email, ca) = (self.email.clone(), self.ca.clone());
                let made = tokio::task::spawn_blocking(move || Server::new(&email, ca.as_deref())).await;
                let made = made.map_err(|error| MailError::Unmade(error.to_string()))??;
                Arc::clone(self.server.insert(Arc::new(made)))
            }
        };
        server.deliver(&envelope(&self.email, to)?, message).await
    }
}

pub(super) fn envelope(email: &Email, to: &MailAddress) -> Result<Envelope, MailError> {
    let envelope = Envelope::new(Some(address(&email.from)?), vec![address(to)?]);
    envelope.map_err(|error| MailError::Unmade(error.to_string()))
}

fn address(address: &MailAddress) -> Result<Address, MailError> {
    address.as_str().parse().map_err(|error| MailError::Unmade(format!("{}: {error}", address.as_str())))
}

/// RFC 3834: nobody's absence is told to us.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// All that is in a header is ours: names, numbers and addresses that were parsed.
fn message(email: &Email, notification: &Notification) -> Result<Message, MailError> {
    let domain = email.from.domain();
    let id = format!("<{}.{:016x}@{domain}>", dotted(&notification.id), fingerprint(&notification.message));
    let mut builder = Message::builder()
        .from(Mailbox::new(Some("cpe".to_owned()), address(&email.from)?))
        .subject(subject(notification))
        .date(UNIX_EPOCH + Duration::from_millis(notification.time))
        .header(AutoSubmitted);
    for to in &email.to {
        builder = builder.to(Mailbox::new(None, address(to)?));
    }
    builder = match &notification.incident {
        None => builder.message_id(Some(id)),
        Some(incident) => {
            let root = format!("<incident.{}@{domain}>", dotted(incident));
            if notification.first {
                builder.message_id(Some(root))
            } else {
                builder.message_id(Some(id)).in_reply_to(root.clone()).references(root)
            }
        }
    };
    let message = builder.singlepart(SinglePart::plain(text(notification)));
    message.map_err(|error| MailError::Unmade(error.to_string()))
}

/// The same for all of one incident.
fn subject(notification: &Notification) -> String {
    match (&notification.incident, &notification.deployable) {
        (Some(incident), _) => format!("cpe: incident {incident}"),
        (None, Some(deployable)) => format!("cpe: {deployable}"),
        (None, None) => "cpe: more notifications".to_owned(),
    }
}

fn text(notification: &Notification) -> String {
    let mut text = format!("{}\n", one_line(&notification.message));
    for message in &notification.messages {
        text.push_str(&format!("- {}\n", one_line(message)));
    }
    match (&notification.incident, notification.state) {
        (Some(incident), Phase::Open) => {
            text.push_str(&format!("\nWhy:  cpe why {incident}\nStop: cpe ack {incident}\n"));
        }
        (Some(incident), _) => text.push_str(&format!("\nWhy: cpe why {incident}\n")),
        (None, _) => text.push_str("\nMore: cpe status\n"),
    }
    text
}

/// What a guest said may be in it.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// `shop#3-17` as a part of a Message-ID, where `#` is allowed but rarely seen.
fn dotted(id: &str) -> String {
    let plain =
        |character: char| if character.is_ascii_alphanumeric() || character == '-' { character } else { '.' };
    id.chars().map(plain).collect()
}

/// The FNV-1a hash (Fowler, Noll, Vo; 64 bits): two states that were told in one millisecond are two e-mails.
pub(super) fn fingerprint(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use cpe_proto::config::MailServer;
    use cpe_proto::id::Name;

    use super::*;

    fn email() -> Email {
        Email {
            to: vec![
                MailAddress::parse("ops@example.org").unwrap(),
                MailAddress::parse("ann@example.net").unwrap(),
            ],
            from: MailAddress::parse("cpe@example.org").unwrap(),
            server: MailServer::parse("smtps://mail.example.org", false).unwrap(),
            login: None,
        }
    }

    fn told(message: &str, first: bool) -> Notification {
        Notification {
            id: "shop#3-1795380860800".to_owned(),
            time: 1_795_380_860_800,
            state: Phase::Open,
            deployable: Some(Name::parse("shop").unwrap()),
            incident: Some("shop#3".to_owned()),
            first,
            message: message.to_owned(),
            messages: Vec::new(),
        }
    }

    fn written(notification: &Notification) -> String {
        String::from_utf8(message(&email(), notification).unwrap().formatted()).unwrap()
    }

    #[test]
    fn an_incident_is_one_thread_and_each_state_of_it_an_e_mail_of_its_own() {
        let (first, second) =
            (written(&told("it is exhausted", true)), written(&told("it is unreachable", false)));
        let third = written(&told("it is forgotten", false));
        let has = |text: &str, line: &str| text.split("\r\n").any(|it| it == line);
        assert!(has(&first, "Message-ID: <incident.shop.3@example.org>"), "{first}");
        assert!(!first.contains("References"), "{first}");
        for later in [&second, &third] {
            assert!(has(later, "In-Reply-To: <incident.shop.3@example.org>"), "{later}");
            assert!(has(later, "References: <incident.shop.3@example.org>"), "{later}");
        }
        for each in [&first, &second, &third] {
            assert!(
                has(each, "Subject: cpe: incident shop#3") && has(each, "Auto-Submitted: auto-generated"),
                "{each}"
            );
            assert!(has(each, "To: ops@example.org, ann@example.net"), "{each}");
        }
        let id =
            |text: &str| text.split("\r\n").find(|line| line.starts_with("Message-ID: ")).map(str::to_owned);
        assert_ne!(id(&second), id(&third));
        assert_eq!(id(&second), id(&written(&told("it is unreachable", false))), "the same in each attempt");
    }

    #[test]
    fn what_a_guest_said_is_text_and_never_a_header_or_a_command() {
        let text = written(&told("no\r\nBcc: x@example.net\r\n\r\n.\r\nMAIL FROM:<x>\r\n", true));
        let (headers, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(!headers.contains("example.net>") && !headers.contains("Bcc"), "{headers}");
        assert!(body.starts_with("no  Bcc: x@example.net"), "{body}");
        assert!(!body.contains("\r\n.\r\n"), "{body}");
    }
}
