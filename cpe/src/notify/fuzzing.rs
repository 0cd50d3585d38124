//! A door for the fuzz target of what mail servers say, with the feature `fuzzing` only.

use cpe_proto::config::{Email, MailAddress};
use tokio::io::{AsyncRead, AsyncWrite};

use super::mail;
use super::smtp::Server;

/// One e-mail that is always the same, to one mail server.
pub struct Letterbox {
    server: Server,
    email: Email,
}

impl Letterbox {
    /// Blocks: it reads the password.
    ///
    /// # Errors
    /// What of it cannot be used.
    pub fn new(email: Email) -> Result<Self, String> {
        let server = Server::new(&email, None).map_err(|error| error.to_string())?;
        Ok(Self { server, email })
    }

    /// Sends it over that connection.
    ///
    /// # Errors
    /// What would be told of it.
    pub async fn deliver<S>(&self, stream: S, to: &MailAddress) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug + 'static,
    {
        let said = |error: mail::MailError| error.to_string();
        let envelope = mail::envelope(&self.email, to).map_err(said)?;
        let message = b"Subject: cpe: incident shop#3\r\n\r\nshop/web is exhausted\r\n.\r\n";
        self.server.deliver_over(stream, &envelope, message).await.map_err(said)
    }
}
