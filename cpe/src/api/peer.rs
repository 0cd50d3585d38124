//! Who is at the other end of a connection. On the socket the kernel says (`SO_PEERCRED`), and the client cannot lie; names come from
//! /etc/passwd, read once at the start. Over TCP it is who has a token, and from where.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::token::Role;

/// Accounts that are remembered by name; the rest is shown by number.
const ACCOUNTS_MAX: usize = 4_096;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// On the socket: an account of this machine.
    Account { uid: Option<u32>, name: Option<Arc<str>> },
    /// Over TCP.
    Token { role: Role, address: SocketAddr },
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account { uid: Some(uid), name: Some(name) } => write!(out, "uid {uid} ({name})"),
            Self::Account { uid: Some(uid), name: None } => write!(out, "uid {uid}"),
            Self::Account { uid: None, .. } => out.write_str("uid unknown"),
            Self::Token { role, address } => write!(out, "{} from {}", role.as_str(), address.ip()),
        }
    }
}

/// The accounts of this machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts(Arc<BTreeMap<u32, Arc<str>>>);

impl Accounts {
    /// Those in a text like /etc/passwd.
    pub(super) fn parse(passwd: &str) -> Self {
        let account = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            Some((uid, Arc::from(name)))
        };
        let mut accounts = BTreeMap::new();
        for (uid, name) in passwd.lines().filter_map(account).take(ACCOUNTS_MAX) {
            accounts.entry(uid).or_insert(name);
        }
        Self(Arc::new(accounts))
    }

    /// The peer with that user id; none: the kernel did not say.
    pub(super) fn peer(&self, uid: Option<u32>) -> Peer {
        let name = uid.and_then(|uid| self.0.get(&uid).cloned());
        Peer::Account { uid, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_named_by_number_and_name() {
        let accounts = Accounts::parse(
            "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\nbroken\nann:x:1000:1000::/home/ann:/bin/sh",
        );
        assert_eq!(accounts.peer(Some(0)).to_string(), "uid 0 (root)");
        assert_eq!(accounts.peer(Some(1000)).to_string(), "uid 1000 (ann)");
        assert_eq!(accounts.peer(Some(7)).to_string(), "uid 7");
        assert_eq!(accounts.peer(None).to_string(), "uid unknown");
    }
}
