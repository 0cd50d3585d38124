//! The way to a port: the name is looked up, its addresses are tried in turn, as many probes at a time as are allowed. From within a
//! guest its sshd does all that.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::trouble::{Progress, Stage, Trouble, plain};
use crate::ssh::Guest;

/// The most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// A connection, wherever it was made.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What one probe works with.
pub(super) struct Context<'p> {
    pub(super) shared: &'p Shared,
    pub(super) progress: &'p Progress,
    pub(super) deadline: Instant,
    /// Within which guest it is made; none: here.
    pub(super) guest: Option<&'p Guest>,
}

impl Context<'_> {
    /// Connects to a port. Where a name has several addresses, each gets its share of the time.
    pub(super) async fn connect(&self, host: &str, port: u16) -> Result<Box<dyn Stream>, Trouble> {
        if let Some(guest) = self.guest {
            self.progress.reach(Stage::Connecting);
            let passage = guest.connect(host, port).await.map_err(Trouble::closed)?;
            self.shared.connected.fetch_add(1, Relaxed);
            return Ok(Box::new(passage));
        }
        let addresses = self.look_up(host, port).await?;
        self.progress.reach(Stage::Waiting);
        let _permit = self.shared.connecting.acquire().await;
        self.progress.reach(Stage::Connecting);
        let mut last = None;
        for (nth, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - nth).unwrap_or(1);
            let share = self.deadline.saturating_duration_since(Instant::now()) / left;
            let what = if addresses.len() > 1 { format!("{address}") } else { format!("port {port}") };
            last = Some(match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    self.shared.connected.fetch_add(1, Relaxed);
                    // One small request at a time: waiting for more to send would only make it late.
                    let _best_effort = stream.set_nodelay(true);
                    return Ok(Box::new(stream));
                }
                Ok(Err(error)) => Trouble::of(&what, &error),
                Err(_) => Trouble::Silent(format!("{what}: not connected by the deadline")),
            });
        }
        Err(last.unwrap_or_else(|| Trouble::NotAsked(format!("{host} has no address"))))
    }

    /// The addresses of a host. An IP address is its own.
    pub(super) async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Trouble> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        self.progress.reach(Stage::Waiting);
        let Ok(permit) = Arc::clone(&self.shared.lookups).acquire_owned().await else {
            return Err(Trouble::NotAsked("no name is looked up any more".to_owned()));
        };
        self.progress.reach(Stage::LookingUp);
        let name = host.to_owned();
        // The permit goes with the thread: a resolver that hangs outlives the probe.
        let looked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            (name.as_str(), port).to_socket_addrs().map(|found| found.take(ADDRESSES_MAX).collect::<Vec<_>>())
        });
        match looked.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(Trouble::NotAsked(format!("{host} cannot be resolved: {}", plain(&error)))),
            Err(_) => Err(Trouble::NotAsked(format!("{host} was not looked up"))),
        }
    }
}
