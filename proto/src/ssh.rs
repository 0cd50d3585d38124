//! What cpe.toml and definitions both say of SSH: where a passphrase is, and the way through a jump host.

use std::fmt;
use std::path::PathBuf;

use crate::definition::ssh_user;
use crate::document::{Host, HostPort, Schema, Table};

/// A passphrase's table.
pub(crate) const PASSPHRASE: Schema =
    Schema { title: "passphrase", keys: &["file", "credential"], later: &[] };

/// Where the passphrase of a private key is. It is never written in a configuration itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passphrase {
    /// In a file.
    File(PathBuf),
    /// In a credential of the unit that cpe runs as (systemd.exec(5), `LoadCredential=`), by its name.
    Credential(String),
}

/// Reads `passphrase = { file = "..." }` or `passphrase = { credential = "..." }`.
pub(crate) fn read_passphrase(
    table: &Table<'_>,
    file: impl FnOnce(&str) -> Result<PathBuf, &'static str>,
) -> Option<Passphrase> {
    let inner = table.table("passphrase", &PASSPHRASE)?;
    if inner.has("file") == inner.has("credential") {
        let message = format!("{} has to have either `file` or `credential`", inner.title());
        inner.report().error(table.at_key("passphrase"), message);
        return None;
    }
    let credential = inner.parse("credential", credential).map(Passphrase::Credential);
    credential.or_else(|| inner.parse("file", file).map(Passphrase::File))
}

/// The name of a systemd credential.
pub(crate) fn credential(text: &str) -> Result<String, &'static str> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !plain || text.is_empty() || text.len() > 255 || text.starts_with('.') {
        return Err("the name of a systemd credential: letters, digits, -, _ and .");
    }
    Ok(text.to_owned())
}

/// A host that connects us to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JumpHost {
    /// The user to log in as, where it differs from cpe.toml's.
    pub user: Option<String>,
    /// Where it is.
    pub host: Host,
    /// The port (22).
    pub port: Option<u16>,
}

impl JumpHost {
    /// Parses `user@host:port`; the user and the port may be left out.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "one jump host, as \"bastion\" or \"user@192.0.2.1:22\"";
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (Some(ssh_user(user).map_err(|_| EXPECTED)?), place),
            None => (None, text),
        };
        // An IPv6 address without brackets has colons and no port.
        if let Ok(host) = Host::parse(place) {
            return Ok(Self { user, host, port: None });
        }
        let HostPort { host, port } = HostPort::parse(place).map_err(|_| EXPECTED)?;
        Ok(Self { user, host, port: Some(port) })
    }
}

impl fmt::Display for JumpHost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(out, "{user}@")?;
        }
        match (self.host.as_str(), self.port) {
            (host, Some(port)) if host.contains(':') => write!(out, "[{host}]:{port}"),
            (host, Some(port)) => write!(out, "{host}:{port}"),
            (host, None) => out.write_str(host),
        }
    }
}

/// How an assembly is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// From the controller: `jump = "none"`.
    Direct,
    /// Through a jump host.
    Jump(JumpHost),
}

impl Route {
    /// Parses `none` or a jump host.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "none" {
            return Ok(Self::Direct);
        }
        let jump = JumpHost::parse(text).map(Self::Jump);
        jump.map_err(|_| "one jump host, as \"bastion\" or \"user@192.0.2.1:22\", or \"none\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_host_is_read_as_it_is_written() {
        for (text, user, host, port) in [
            ("bastion", None, "bastion", None),
            ("dped@bastion.example.org", Some("dped"), "bastion.example.org", None),
            ("dped@192.0.2.1:2222", Some("dped"), "192.0.2.1", Some(2222)),
            ("2001:db8::7", None, "2001:db8::7", None),
            ("a@[2001:db8::7]:22", Some("a"), "2001:db8::7", Some(22)),
        ] {
            let jump = JumpHost::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((jump.user.as_deref(), jump.host.as_str(), jump.port), (user, host, port), "{text}");
            assert_eq!(jump.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_jump_host_is_refused() {
        for text in [
            "",
            "@bastion",
            "a@",
            "a b@c",
            "a@b:0",
            "a@b:65536",
            "a,b",
            "-oProxyCommand=x",
            "ssh://a",
            "a@b:",
        ] {
            assert!(JumpHost::parse(text).is_err(), "{text}");
        }
        assert_eq!(Route::parse("none"), Ok(Route::Direct));
        assert!(Route::parse("a:b:c").is_err());
    }
}
