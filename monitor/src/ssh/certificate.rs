//! Host certificates: what is wrong with one whose authority is known. `known_hosts.rs` finds the authority; that the server holds
//! the certified key was proven in the key exchange.
//!
//! The rules are those of OpenSSH's PROTOCOL.certkeys for host certificates, and stricter in two: one that names no host is not
//! believed for every host, and RSA authorities sign by SHA-2 only.

use std::fmt;
use std::time::SystemTime;

use russh::keys::ssh_key::Certificate;
use russh::keys::{Algorithm, HashAlg};

use super::known_hosts::glob;

/// Why a certificate proves nothing. Its display says it for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The signature is not the authority's, or is of a kind that is no longer safe.
    Signature,
    /// It is made for users.
    ForUsers,
    /// It has conditions that are not known; none are defined for hosts.
    Conditions,
    /// It names no host at all.
    NoNames,
    /// It names other hosts.
    OtherHost,
    /// Its time has not come.
    NotYet,
    /// Its time is over.
    Expired,
}

impl fmt::Display for Flaw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Signature => "is not signed by that authority, or by SHA-1: sign it anew",
            Self::ForUsers => "is a user's: sign the host's key with `ssh-keygen -h`",
            Self::Conditions => "has critical options, which host certificates may not have",
            Self::NoNames => "names no host: sign it with `ssh-keygen -n NAME`",
            Self::OtherHost => {
                "is for other hosts: sign it with `ssh-keygen -n` and the address that the definition has"
            }
            Self::NotYet => "is not valid yet: compare the clocks here and where it was signed",
            Self::Expired => "has expired: sign it anew",
        })
    }
}

/// What is wrong with a certificate for a host at a time; nothing where it proves the host.
pub(super) fn flaw(certificate: &Certificate, host: &str, now: SystemTime) -> Option<Flaw> {
    if !current(&certificate.signature().algorithm()) || certificate.verify_signature().is_err() {
        return Some(Flaw::Signature);
    }
    if !certificate.cert_type().is_host() {
        return Some(Flaw::ForUsers);
    }
    if !certificate.critical_options().is_empty() {
        return Some(Flaw::Conditions);
    }
    let names = certificate.valid_principals();
    if names.is_empty() {
        return Some(Flaw::NoNames);
    }
    let host = host.to_lowercase();
    if !names.iter().any(|name| glob(name.to_lowercase().as_bytes(), host.as_bytes())) {
        return Some(Flaw::OtherHost);
    }
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if now < certificate.valid_after() {
        return Some(Flaw::NotYet);
    }
    (now >= certificate.valid_before()).then_some(Flaw::Expired)
}

/// Kinds of signatures that an authority may sign by.
fn current(kind: &Algorithm) -> bool {
    matches!(
        kind,
        Algorithm::Ed25519
            | Algorithm::Ecdsa { .. }
            | Algorithm::Rsa { hash: Some(HashAlg::Sha256 | HashAlg::Sha512) }
    )
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    /// Makes a key and signs it with an authority's, by ssh-keygen and these of its options.
    pub(in crate::ssh) fn signed(dir: &Path, options: &[&str]) -> Certificate {
        for name in ["authority", "host"] {
            if !dir.join(name).exists() {
                keygen(dir, &["-t", "ed25519", "-N", "", "-C", name, "-f", name]);
            }
        }
        keygen(dir, &[&["-s", "authority", "-I", "web"], options, &["host.pub"]].concat());
        let text = std::fs::read_to_string(dir.join("host-cert.pub")).unwrap();
        Certificate::from_openssh(&text).unwrap()
    }

    fn keygen(dir: &Path, arguments: &[&str]) {
        let mut command = Command::new("ssh-keygen");
        let output = command.current_dir(dir).env("TZ", "UTC").arg("-q").args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    #[test]
    fn a_certificate_proves_the_hosts_that_it_names_while_it_is_valid() {
        let dir = tempfile::tempdir().unwrap();
        let of_host = signed(dir.path(), &["-h", "-n", "web,*.example.org,2001:db8::7"]);
        let now = SystemTime::now();
        for host in ["web", "WEB", "a.example.org", "2001:db8::7"] {
            assert_eq!(flaw(&of_host, host, now), None, "{host}");
        }
        for host in ["example.org", "we", "web.example.com", ""] {
            assert_eq!(flaw(&of_host, host, now), Some(Flaw::OtherHost), "{host}");
        }
        let hour = ["-h", "-n", "web", "-V", "20260101000000Z:20260101010000Z"];
        let hour = signed(dir.path(), &hour);
        // 2026-01-01, as `date -u -d 2026-01-01 +%s` has it.
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let second = Duration::from_secs(1);
        assert_eq!(flaw(&hour, "web", start - second), Some(Flaw::NotYet));
        assert_eq!(flaw(&hour, "web", start), None);
        assert_eq!(flaw(&hour, "web", start + 3599 * second), None);
        assert_eq!(flaw(&hour, "web", start + 3600 * second), Some(Flaw::Expired));
    }

    #[test]
    fn a_certificate_that_is_not_a_named_hosts_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let of_user = signed(dir.path(), &["-n", "web"]);
        assert_eq!(flaw(&of_user, "web", now), Some(Flaw::ForUsers));
        let of_all = signed(dir.path(), &["-h"]);
        assert_eq!(flaw(&of_all, "web", now), Some(Flaw::NoNames));
        let conditional = signed(dir.path(), &["-h", "-n", "web", "-O", "critical:only@example.org=monday"]);
        assert_eq!(flaw(&conditional, "web", now), Some(Flaw::Conditions));
    }

    #[test]
    fn a_certificate_that_was_changed_is_not_signed() {
        let dir = tempfile::tempdir().unwrap();
        let good = signed(dir.path(), &["-h", "-n", "web"]);
        let mut bytes = good.to_bytes().unwrap();
        let at = bytes.windows(3).position(|three| three == b"web").unwrap();
        bytes[at..at + 3].copy_from_slice(b"www");
        let forged = Certificate::from_bytes(&bytes).unwrap();
        assert_eq!(flaw(&forged, "web", SystemTime::now()), Some(Flaw::Signature));
    }

    #[test]
    fn an_authority_signs_by_current_kinds_only() {
        assert!(!current(&Algorithm::Rsa { hash: None }) && !current(&Algorithm::Dsa));
        assert!(current(&Algorithm::Rsa { hash: Some(HashAlg::Sha512) }) && current(&Algorithm::Ed25519));
    }
}
