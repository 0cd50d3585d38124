//! ICMP: an echo over the kernel's ping socket (icmp(7)), which needs no privilege where `net.ipv4.ping_group_range` allows the group.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::trouble::{Answer, Outcome, Trouble};

/// An echo that has not come back is sent again after this.
const REPEAT: Duration = Duration::from_secs(1);

/// RFC 792 and RFC 4443: the types of an echo's request and reply.
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);

/// Sends echoes until one comes back; the deadline is the caller's.
pub(super) async fn probe(address: IpAddr) -> Outcome {
    let lost = |error: std::io::Error| Trouble::of("echo", &error);
    let socket = open(address)?;
    socket.connect(SocketAddr::new(address, 0)).await.map_err(lost)?;
    let (request, reply) = if address.is_ipv4() { V4 } else { V6 };
    let token = rand::random::<[u8; 16]>();
    let mut buffer = [0; 128];
    for sequence in 1_u16.. {
        socket.send(&echo(request, sequence, &token)).await.map_err(lost)?;
        let answered = timeout(REPEAT, async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                let seen = &buffer[..length];
                if seen.first() == Some(&reply) && seen.get(8..) == Some(&token[..]) {
                    return Ok::<_, std::io::Error>(());
                }
            }
        });
        match answered.await {
            Ok(Ok(())) => return Ok(Answer::Kernel),
            Ok(Err(error)) => return Err(lost(error)),
            Err(_) => {}
        }
    }
    Err(Trouble::Silent("no echo came back".to_owned()))
}

/// An echo's request. The kernel puts in the checksum and the identifier, which is the socket's port.
fn echo(request: u8, sequence: u16, token: &[u8; 16]) -> [u8; 24] {
    let mut message = [0; 24];
    message[0] = request;
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    message[8..].copy_from_slice(token);
    message
}

fn open(address: IpAddr) -> Result<UdpSocket, Trouble> {
    let (family, protocol) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    match socket_with(family, SocketType::DGRAM, flags, Some(protocol)) {
        Ok(socket) => UdpSocket::from_std(socket.into()).map_err(|error| Trouble::of("echo", &error)),
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Err(Trouble::Unfit(
            "pings are not permitted: set the sysctl net.ipv4.ping_group_range so that it holds cpe's group, as \"0 2147483647\"".to_owned(),
        )),
        Err(error) => Err(Trouble::of("echo", &error.into())),
    }
}
