//! Host keys that a person believes (`cpe trust`): what key a host shows, seen without logging in, and the file in which those are kept
//! that were confirmed. Nothing gets into it that somebody did not confirm by its fingerprint; a key that another one takes the place of
//! is revoked there, whichever file has it. How keys are judged is `known_hosts.rs`'s.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use russh::keys::{HashAlg, PublicKey};

use super::connect::{self, Failure, Peer, Progress};
use super::known_hosts::{Verdict, lookup_name};
use super::monitor::Monitor;
use super::settings::{Endpoint, Error, Jump, Route};
use super::task::way;

/// Which host of an assembly's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Its own.
    Machine,
    /// The jump host that it is reached through.
    Jump,
}

/// A host key as its host showed it, and proved to hold.
#[derive(Clone, Debug)]
pub struct ShownKey {
    host: String,
    port: u16,
    key: PublicKey,
    /// What the files say of it.
    pub standing: Standing,
}

/// What is known of a key that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the known one.
    Known,
    /// Nothing is known of the host.
    Unknown,
    /// Another one is known.
    Changed {
        /// Where that is written.
        place: String,
        /// The fingerprint of the known one.
        known: String,
    },
    /// It is revoked; where.
    Revoked(String),
}

impl ShownKey {
    /// The host as known_hosts files name it: `host`, or `[host]:port`.
    #[must_use]
    pub fn host(&self) -> String {
        lookup_name(&self.host, self.port)
    }

    /// The key's kind: `ssh-ed25519`.
    #[must_use]
    pub fn kind(&self) -> String {
        self.key.algorithm().to_string()
    }

    /// `SHA256:...`
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.key)
    }
}

impl Monitor {
    /// Connects as far as the host key, and says which one that is; no login is tried, and nothing is learnt.
    ///
    /// # Errors
    /// Why no key was seen, as a clause.
    pub async fn show_key(
        &self,
        endpoint: &Endpoint,
        whose: Whose,
        limit: Duration,
    ) -> Result<ShownKey, String> {
        let shared = self.shared();
        let (peer, way) = match whose {
            Whose::Machine => (Peer::of(endpoint, &shared.settings), way(shared, endpoint)),
            Whose::Jump => {
                let jump = self.jump_of(endpoint).ok_or("it is reached without a jump host")?;
                (Peer::of_jump(&jump, &shared.settings), None)
            }
        };
        let (host, port) = (peer.address.clone(), peer.port);
        let progress = Arc::new(Progress::default());
        let looked = connect::look(Arc::clone(shared), peer, way, Arc::clone(&progress));
        let looked = tokio::time::timeout(limit, looked).await.unwrap_or_else(|_| Err(progress.silence()));
        let key =
            looked.map_err(|Failure { cause, detail }| format!("{host} port {port}: {cause}: {detail}"))?;
        let standing = match shared.trust().known_hosts.judge(&host, port, &key) {
            Verdict::Known => Standing::Known,
            Verdict::Changed(place, known) => Standing::Changed { place: place.to_string(), known },
            Verdict::Revoked(place) => Standing::Revoked(place.to_string()),
            Verdict::OnlyAuthority(_) | Verdict::Flawed(..) | Verdict::Unknown => Standing::Unknown,
        };
        Ok(ShownKey { host, port, key, standing })
    }

    fn jump_of(&self, endpoint: &Endpoint) -> Option<Jump> {
        match &endpoint.route {
            Some(Route::Direct) => None,
            Some(Route::Jump(jump)) => Some(jump.clone()),
            None => self.shared().settings.jump.clone(),
        }
    }

    /// Believes a key from now on, and no other of its host: those known before are revoked. Returns their fingerprints. `record` says
    /// who did it and when, for whoever reads the file. Blocks on files: call it on the blocking pool.
    ///
    /// # Errors
    /// There is no file for it, it cannot be written, or a file of somebody else's revokes the key.
    pub fn enrol(&self, shown: &ShownKey, record: &str) -> Result<Vec<String>, Error> {
        let shared = self.shared();
        let file = shared.settings.enrolled.as_ref();
        let file = file.ok_or(Error::Settings("there is no file for keys that are enrolled"))?;
        let fault = |source| Error::KnownHosts { path: file.clone(), source };
        let _one_at_a_time = shared.enrolling.lock().unwrap_or_else(PoisonError::into_inner);
        let trust = shared.trust();
        if let Verdict::Revoked(place) = trust.known_hosts.judge(&shown.host, shown.port, &shown.key)
            && !place.is_in(file)
        {
            let text = format!("{place} revokes that key: only who keeps that file can take that back");
            return Err(fault(io::Error::other(text)));
        }
        let before = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(fault(error)),
        };
        let others = trust.known_hosts.others(&shown.host, shown.port, &shown.key);
        replace(file, &renewed(&before, shown, &others, record)).map_err(fault)?;
        self.reload()?;
        Ok(others.iter().map(fingerprint).collect())
    }
}

/// The file's text after a key took the place of those others.
fn renewed(before: &str, shown: &ShownKey, others: &[PublicKey], record: &str) -> String {
    let (name, own) = (shown.host(), text_of(&shown.key));
    let record: String = record.chars().filter(|it| !it.is_control()).collect();
    let stale = |line: &&str| {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("@revoked"), Some(host)) => {
                host == name && words.take(2).collect::<Vec<_>>().join(" ") == own
            }
            (Some(host), _) => host == name,
            _ => false,
        }
    };
    let mut lines: Vec<String> = before.lines().filter(|line| !stale(line)).map(str::to_owned).collect();
    if before.is_empty() {
        lines.push("# Host keys that were confirmed by `cpe trust`, and those that they replaced. cpe writes this file.".to_owned());
    }
    for other in others {
        let revoked = format!("@revoked {name} {}", text_of(other));
        if !lines.iter().any(|line| line.starts_with(&revoked)) {
            lines.push(format!("{revoked} replaced {record}"));
        }
    }
    lines.push(format!("{name} {own} {record}"));
    lines.join("\n") + "\n"
}

/// Kind and key, as files have them, without a comment.
fn text_of(key: &PublicKey) -> String {
    let text = key.to_openssh().unwrap_or_default();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Writes a file beside it, and puts that in its place: whoever reads it meanwhile sees the one or the other, whole.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let beside: PathBuf = file.with_extension("new");
    let mut options = OpenOptions::new();
    let mut new = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    std::fs::rename(&beside, file)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPFve+s23SOC/5hIX1HkCRgSDs4ZEEmHYf5ZbC9OEkE0";
    const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIURGlm34LvEeuDu98FyDWkPgph9UgoK50/LEx3GUCrE";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    fn shown(text: &str) -> ShownKey {
        ShownKey { host: "web".to_owned(), port: 22, key: key(text), standing: Standing::Unknown }
    }

    #[test]
    fn a_key_takes_the_place_of_another_and_back() {
        let first = renewed("", &shown(ONE), &[], "by ann");
        assert!(first.ends_with(&format!("\nweb {ONE} by ann\n")), "{first}");
        let kept = format!("{first}db {TWO} by ann\n");
        let second = renewed(&kept, &shown(TWO), &[key(ONE)], "by bob\n");
        let lines: Vec<&str> = second.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                format!("db {TWO} by ann"),
                format!("@revoked web {ONE} replaced by bob"),
                format!("web {TWO} by bob")
            ]
        );
        let back = renewed(&second, &shown(ONE), &[key(TWO)], "by ann");
        let lines: Vec<&str> = back.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                format!("db {TWO} by ann"),
                format!("@revoked web {TWO} replaced by ann"),
                format!("web {ONE} by ann")
            ]
        );
    }
}
