//! The way to a mail server, for `mail.rs`: a connection, TLS, a login, one e-mail. A server is believed in nothing: what it says is limited
//! in bytes and in time, and is repeated without the password, for servers like to show the line that they did not understand.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cpe_infra::Secrets;
use cpe_proto::config::{Email, MailServer, Privacy};
use cpe_proto::observation::detail;
use data_encoding::BASE64;
use lettre::address::Envelope;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::mail::MailError;
use super::tls::{self, TlsError};
use cpe_monitor::secret;

/// One delivery.
const TIMEOUT: Duration = Duration::from_secs(30);
/// For the goodbye: the e-mail is taken by then.
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);
/// What a server may say in one delivery, in bytes; a well-behaved one says less than 4 KiB.
const SAID_MAX: usize = 256 << 10;
/// As RFC 4616 and the oldest servers have it.
const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

/// A mail server, and what is needed to be let in.
pub(super) struct Server {
    address: MailServer,
    privacy: Channel,
    hello: ClientId,
    login: Option<Credentials>,
    secrets: Secrets,
}

enum Channel {
    Plain,
    StartTls(TlsParameters),
    Tls(TlsConnector, ServerName<'static>),
}

impl std::fmt::Debug for Server {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Server({})", self.address.host.as_str())
    }
}

/// What ended a delivery.
enum Ended {
    Connection(io::Error),
    Smtp(lettre::transport::smtp::Error),
}

impl From<lettre::transport::smtp::Error> for Ended {
    fn from(error: lettre::transport::smtp::Error) -> Self {
        Self::Smtp(error)
    }
}

impl Server {
    /// Blocks: it reads the password and certificates.
    pub(super) fn new(email: &Email, ca: Option<&Path>) -> Result<Self, MailError> {
        let host = email.server.host.as_str();
        let privacy = match email.server.privacy {
            Privacy::Plain => Channel::Plain,
            Privacy::StartTls => Channel::StartTls(parameters(host, ca)?),
            Privacy::Tls => {
                let name = ServerName::try_from(host.to_owned());
                let name = name.map_err(|error| MailError::Unmade(error.to_string()))?;
                Channel::Tls(TlsConnector::from(Arc::new(tls::client(ca)?)), name)
            }
        };
        let login = email.login.as_ref().map(|(user, password)| Ok((user, secret::read(password)?)));
        let login = login.transpose().map_err(MailError::Password)?;
        let (login, secrets) = match login {
            None => (None, Vec::new()),
            Some((user, password)) => {
                let password = password.expose();
                let both = BASE64.encode(format!("\0{user}\0{password}").as_bytes());
                let secrets = vec![password.to_owned(), BASE64.encode(password.as_bytes()), both];
                (Some(Credentials::new(user.clone(), password.to_owned())), secrets)
            }
        };
        let hello = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Self {
            address: email.server.clone(),
            privacy,
            hello: ClientId::Domain(hello),
            login,
            secrets: Secrets::new(secrets),
        })
    }

    /// Gives it one e-mail.
    pub(super) async fn deliver(&self, envelope: &Envelope, message: &[u8]) -> Result<(), MailError> {
        self.limited(async {
            let stream = self.connect().await.map_err(Ended::Connection)?;
            self.say(stream, envelope, message).await
        })
        .await
    }

    /// The same over a connection that is there.
    #[cfg(feature = "fuzzing")]
    pub(super) async fn deliver_over<S>(
        &self,
        stream: S,
        envelope: &Envelope,
        message: &[u8],
    ) -> Result<(), MailError>
    where
        S: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug + 'static,
    {
        self.limited(self.say(Bounded::boxed(stream), envelope, message)).await
    }

    async fn limited(&self, delivery: impl Future<Output = Result<(), Ended>>) -> Result<(), MailError> {
        let server = self.address.host.as_str().to_owned();
        let Ok(ended) = tokio::time::timeout(TIMEOUT, delivery).await else {
            return Err(MailError::TimedOut { server });
        };
        ended.map_err(|ended| {
            let (said, passes) = match ended {
                Ended::Connection(error) => (error.to_string(), true),
                // What the server said no to for good, and what it does not offer (STARTTLS, a login), stays so.
                Ended::Smtp(error) => (error.to_string(), !error.is_permanent() && !error.is_client()),
            };
            MailError::Refused { server, reason: detail(&self.secrets.scrub(&said, false)), passes }
        })
    }

    async fn connect(&self) -> io::Result<Box<dyn AsyncTokioStream>> {
        let stream = TcpStream::connect((self.address.host.as_str(), self.address.port)).await?;
        match &self.privacy {
            Channel::Plain | Channel::StartTls(_) => Ok(Bounded::boxed(stream)),
            Channel::Tls(connector, name) => {
                Ok(Bounded::boxed(connector.connect(name.clone(), stream).await?))
            }
        }
    }

    async fn say(
        &self,
        stream: Box<dyn AsyncTokioStream>,
        envelope: &Envelope,
        message: &[u8],
    ) -> Result<(), Ended> {
        let mut connection = AsyncSmtpConnection::connect_with_transport(stream, &self.hello).await?;
        if let Channel::StartTls(parameters) = &self.privacy {
            connection.starttls(parameters.clone(), &self.hello).await?;
        }
        if let Some(login) = &self.login {
            connection.auth(&MECHANISMS, login).await?;
        }
        connection.send(envelope, message).await?;
        // It is taken: a server that does not say goodbye is not given it again.
        let _ = tokio::time::timeout(QUIT_TIMEOUT, connection.abort()).await;
        Ok(())
    }
}

/// Blocks.
fn parameters(host: &str, ca: Option<&Path>) -> Result<TlsParameters, MailError> {
    let wrong = |error: lettre::transport::smtp::Error| MailError::Unmade(error.to_string());
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(path) = ca {
        let text = tls::read_ca(path)?;
        let wrong = |error: lettre::transport::smtp::Error| TlsError::Ca {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        builder = builder.add_root_certificate(Certificate::from_pem(&text).map_err(wrong)?);
    }
    builder.build_rustls().map_err(wrong)
}

/// A connection whose other end may say so much and no more: the library looks at a line only when it has its end.
#[derive(Debug)]
struct Bounded<S> {
    inner: S,
    left: usize,
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug + 'static> Bounded<S> {
    fn boxed(inner: S) -> Box<dyn AsyncTokioStream> {
        Box::new(Self { inner, left: SAID_MAX })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let said = buffer.filled().len() - before;
        match self.left.checked_sub(said) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Err(io::Error::other("it said more than 256 KiB"))),
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug> AsyncTokioStream for Bounded<S> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
