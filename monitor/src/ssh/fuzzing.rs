//! Doors for the fuzz targets of `fuzz/`, with the feature `fuzzing` only: the readers of what a guest and a file of host keys say.

use std::path::Path;
use std::sync::Arc;

use cpe_proto::definition::UnitName;
use cpe_proto::observation::Observation;
use russh::keys::PublicKey;

use super::known_hosts::{KnownHosts, Verdict};
use super::observe;
use super::resident::Reader;

/// What the resident shell's answers are, one text each, up to the first that is none, and what is wrong with that. `chunks` is how they
/// came.
#[must_use]
pub fn answers<'a>(nonce: &str, chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, Option<String>) {
    let mut reader = Reader::new(nonce.to_owned());
    let mut seen = Vec::new();
    for chunk in chunks {
        match reader.push(chunk) {
            Ok(replies) => seen.extend(replies.iter().map(|reply| format!("{reply:?}"))),
            Err(error) => return (seen, Some(error.to_string())),
        }
    }
    (seen, None)
}

/// What is observed of the units asked, from what `systemctl show` printed.
#[must_use]
pub fn units(words: &str, status: i32, asked: &[UnitName]) -> Vec<Observation> {
    observe::units(words, status, asked.iter())
}

/// What is observed of a command that ended.
#[must_use]
pub fn ended(status: i32, output: &str) -> Observation {
    observe::ended(status, output)
}

/// A file of known host keys.
pub struct Hosts(KnownHosts);

impl Hosts {
    /// Reads its text.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut known = KnownHosts::default();
        known.add(text, &Arc::from(Path::new("known_hosts")));
        Self(known)
    }

    /// Whether that key, as `ssh-ed25519 AAAA...`, would be believed of the host.
    #[must_use]
    pub fn believes(&self, host: &str, port: u16, key: &str) -> bool {
        PublicKey::from_openssh(key).is_ok_and(|key| self.0.judge(host, port, &key) == Verdict::Known)
    }
}
