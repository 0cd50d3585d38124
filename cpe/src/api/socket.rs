//! The unix socket: made with mode 0660, so that its group decides who may order. What a dead cpe left is removed; what a living one
//! uses, or what is not a socket, is left alone.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{UnixListener, UnixStream};

use super::peer::{Accounts, Peer};

/// Owner and group may connect.
const MODE: u32 = 0o660;
/// After a failed accept (too many open files), before the next.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody answers there.
    #[error("another cpe answers on {0}: stop it, or choose another [listen] api")]
    InUse(PathBuf),
    /// Something else has that name.
    #[error("{0} exists and is not a socket: it is left alone; choose another [listen] api")]
    NotASocket(PathBuf),
    /// The port cannot be had.
    #[error(
        "cannot listen on {address} for the API: {source}; choose another [listen] api, or end what uses it"
    )]
    Address {
        /// The address of the configuration.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// It cannot be made.
    #[error("cannot listen on {path}: {source}; its folder must exist and cpe must be able to write there")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes the socket.
pub(super) async fn bind(path: &Path) -> Result<PeerListener, ServeError> {
    let failed = |source| ServeError::Io { path: path.to_owned(), source };
    remove_stale(path).await?;
    // Under another name first, so that nobody can connect before the mode is right.
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let _ = tokio::fs::remove_file(&fresh).await;
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    tokio::fs::set_permissions(&fresh, PermissionsExt::from_mode(MODE)).await.map_err(failed)?;
    tokio::fs::rename(&fresh, path).await.map_err(failed)?;
    let passwd = tokio::fs::read_to_string("/etc/passwd").await.unwrap_or_default();
    Ok(PeerListener { listener, accounts: Accounts::parse(&passwd) })
}

async fn remove_stale(path: &Path) -> Result<(), ServeError> {
    let failed = |source| ServeError::Io { path: path.to_owned(), source };
    let kind = match tokio::fs::symlink_metadata(path).await {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !kind.is_socket() {
        return Err(ServeError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(socket = %path.display(), "removed the socket of a cpe that has ended");
            tokio::fs::remove_file(path).await.map_err(failed)
        }
        Ok(_) => Err(ServeError::InUse(path.to_owned())),
        Err(error) => Err(failed(error)),
    }
}

/// Accepts connections and says who they are from.
#[derive(Debug)]
pub(super) struct PeerListener {
    listener: UnixListener,
    accounts: Accounts,
}

impl Listener for PeerListener {
    type Io = UnixStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (UnixStream, Peer) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                    return (stream, self.accounts.peer(uid));
                }
                Err(error) => {
                    tracing::error!(%error, "no connection can be accepted on the API socket; tried again");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(self.accounts.peer(Some(rustix::process::getuid().as_raw())))
    }
}
