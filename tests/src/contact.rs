//! What a stranger learns from a TCP port: the independent witness of what a guest's network does.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, bail};

/// How an attempt to talk ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contact {
    /// A process answered; these are its first bytes.
    Greeted(String),
    /// The kernel accepted, and nothing was said before the deadline.
    Accepted,
    /// The kernel said that nobody listens.
    Refused,
    /// Nothing answered at all.
    Silence,
}

/// Connects and listens for a greeting, each for at most `patience`.
///
/// # Errors
/// When the attempt ended in a way that no guest should show, such as "no route to host".
pub fn contact(address: SocketAddr, patience: Duration) -> Result<Contact> {
    let mut stream = match TcpStream::connect_timeout(&address, patience) {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                ErrorKind::ConnectionRefused => Ok(Contact::Refused),
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Ok(Contact::Silence),
                _ => bail!("connecting to {address}: {error}"),
            };
        }
    };
    stream.set_read_timeout(Some(patience))?;
    let mut greeting = [0; 256];
    match stream.read(&mut greeting) {
        Ok(length) => {
            Ok(Contact::Greeted(String::from_utf8_lossy(&greeting[..length]).trim_end().to_owned()))
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Ok(Contact::Accepted)
        }
        Err(error) => bail!("reading the greeting of {address}: {error}"),
    }
}
