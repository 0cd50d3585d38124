//! Who is at the other end of a connection: the kernel says (`SO_PEERCRED`), the client cannot lie. Names come from /etc/passwd, read
//! once at the start.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Accounts that are remembered by name; the rest is shown by number.
const ACCOUNTS_MAX: usize = 4_096;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    uid: Option<u32>,
    name: Option<Arc<str>>,
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.uid, &self.name) {
            (Some(uid), Some(name)) => write!(out, "uid {uid} ({name})"),
            (Some(uid), None) => write!(out, "uid {uid}"),
            (None, _) => out.write_str("uid unknown"),
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
        Peer { uid, name }
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
