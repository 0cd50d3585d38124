//! Known host keys, as sshd(8) describes the files: plain, hashed and patterned names, `[host]:port`, negation, `@revoked`,
//! `@cert-authority` (`certificate.rs` judges what such an authority signed). Nothing is accepted that a file does not name.
//! The SSH library's own reader knows neither patterns nor marks, and reads the file again for each connection: hence this one.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use data_encoding::BASE64;
use ring::hmac;
use russh::keys::ssh_key::Certificate;
use russh::keys::{Algorithm, HashAlg, PublicKey};

use super::certificate::{self, Flaw};
use super::settings::Error;

/// The longest file that is read, in bytes: room for some 100,000 hosts.
const FILE_MAX_BYTES: u64 = 32 * 1024 * 1024;

/// All known host keys.
#[derive(Default)]
pub(super) struct KnownHosts {
    entries: Vec<Entry>,
    /// Entries by a name in them that is neither hashed nor a pattern: the common case, found without a search.
    by_name: HashMap<Box<str>, Vec<u32>>,
    /// The other entries.
    searched: Vec<u32>,
}

struct Entry {
    names: Names,
    mark: Mark,
    key: PublicKey,
    file: Arc<Path>,
    line: u32,
}

enum Names {
    /// `|1|salt|HMAC-SHA1(salt, name)`.
    Hashed(hmac::Key, Box<[u8]>),
    /// Comma-separated patterns, in lower case.
    Patterns(Box<str>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    Revoked,
    Authority,
}

/// What the files say of one host's key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the known one.
    Known,
    /// It is marked as revoked.
    Revoked(Place),
    /// Another key is known.
    Changed(Place, String),
    /// Only an authority is known, and it did not sign what was shown.
    OnlyAuthority(Place),
    /// A known authority's certificate, which proves nothing.
    Flawed(Place, Flaw),
    /// Nothing is known.
    Unknown,
}

/// Where something is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place(Arc<Path>, u32);

impl Place {
    /// Whether it is in that file.
    pub(super) fn is_in(&self, file: &Path) -> bool {
        &*self.0 == file
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.0.display(), self.1)
    }
}

impl KnownHosts {
    /// Reads all files. One that does not exist is an empty one; a line that cannot be understood is skipped with a warning.
    pub(super) fn read<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Result<Self, Error> {
        let mut known = Self::default();
        for path in files {
            let fault = |source| Error::KnownHosts { path: path.clone(), source };
            let size = match std::fs::metadata(path) {
                Ok(metadata) => metadata.len(),
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(fault(source)),
            };
            if size > FILE_MAX_BYTES {
                return Err(fault(std::io::Error::other("longer than 32 MiB")));
            }
            let bytes = std::fs::read(path).map_err(fault)?;
            known.add(&String::from_utf8_lossy(&bytes), &Arc::from(path.as_path()));
        }
        Ok(known)
    }

    /// Adds the lines of one file.
    pub(super) fn add(&mut self, text: &str, file: &Arc<Path>) {
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            match parse(text) {
                Ok((mark, names, key)) => {
                    self.insert(Entry { names, mark, key, file: Arc::clone(file), line });
                }
                Err(what) => tracing::warn!(file = %file.display(), line, "known host skipped: {what}"),
            }
        }
    }

    fn insert(&mut self, entry: Entry) {
        let Ok(index) = u32::try_from(self.entries.len()) else { return };
        match &entry.names {
            Names::Patterns(patterns) if !patterns.contains(['*', '?', '!']) => {
                for name in patterns.split(',') {
                    self.by_name.entry(name.into()).or_default().push(index);
                }
            }
            _ => self.searched.push(index),
        }
        self.entries.push(entry);
    }

    fn of(&self, name: &str) -> Vec<&Entry> {
        let direct = self.by_name.get(name).into_iter().flatten();
        let searched = self.searched.iter().filter(|index| {
            self.entries.get(**index as usize).is_some_and(|entry| entry.names.matches(name))
        });
        let mut indices: Vec<u32> = direct.chain(searched).copied().collect();
        indices.sort_unstable();
        indices.iter().filter_map(|index| self.entries.get(*index as usize)).collect()
    }

    /// Judges a key that a server proved to hold.
    pub(super) fn judge(&self, host: &str, port: u16, key: &PublicKey) -> Verdict {
        let entries = self.of(&lookup_name(host, port));
        let same = |entry: &&&Entry| entry.key.key_data() == key.key_data();
        let bare = if port == 22 { Vec::new() } else { self.of(&host.to_lowercase()) };
        let mut revoked = entries.iter().chain(&bare).filter(same);
        if let Some(entry) = revoked.find(|entry| entry.mark == Mark::Revoked) {
            return Verdict::Revoked(entry.place());
        }
        let plain = || entries.iter().filter(|entry| entry.mark == Mark::None);
        // As ssh(1): where no key is known of the port, the host's own will do; its other keys then say nothing.
        let fallback = bare.iter().filter(|entry| entry.mark == Mark::None && plain().next().is_none());
        if plain().chain(fallback).any(|entry| same(&entry)) {
            return Verdict::Known;
        }
        // The key of the same kind explains best what changed.
        let mut others: Vec<&&Entry> = plain().collect();
        others.sort_by_key(|entry| entry.key.algorithm() != key.algorithm());
        if let Some(entry) = others.first() {
            return Verdict::Changed(entry.place(), entry.key.fingerprint(HashAlg::Sha256).to_string());
        }
        let authority = entries.iter().chain(&bare).find(|entry| entry.mark == Mark::Authority);
        authority.map_or(Verdict::Unknown, |entry| Verdict::OnlyAuthority(entry.place()))
    }

    /// Judges a certificate whose key a server proved to hold. As ssh(1): where its authority is not one of the host's, it counts as
    /// the bare key.
    pub(super) fn judge_certificate(
        &self,
        host: &str,
        port: u16,
        shown: &Certificate,
        now: SystemTime,
    ) -> Verdict {
        let entries = self.with_bare(host, port);
        let revoked = entries.iter().find(|entry| {
            let key = entry.key.key_data();
            entry.mark == Mark::Revoked && (key == shown.public_key() || key == shown.signature_key())
        });
        if let Some(entry) = revoked {
            return Verdict::Revoked(entry.place());
        }
        let authority = entries
            .iter()
            .find(|entry| entry.mark == Mark::Authority && entry.key.key_data() == shown.signature_key());
        let Some(entry) = authority else {
            return self.judge(host, port, &PublicKey::from(shown.public_key().clone()));
        };
        certificate::flaw(shown, host, now)
            .map_or(Verdict::Known, |flaw| Verdict::Flawed(entry.place(), flaw))
    }

    /// Whether an authority is known of a host: only then is the server asked for certificates.
    pub(super) fn has_authority(&self, host: &str, port: u16) -> bool {
        self.with_bare(host, port).iter().any(|entry| entry.mark == Mark::Authority)
    }

    /// What is known of a host at a port, then what is known of the host.
    fn with_bare(&self, host: &str, port: u16) -> Vec<&Entry> {
        let mut entries = self.of(&lookup_name(host, port));
        if port != 22 {
            entries.extend(self.of(&host.to_lowercase()));
        }
        entries
    }

    /// The keys that are believed of a host beside that one.
    pub(super) fn others(&self, host: &str, port: u16, than: &PublicKey) -> Vec<PublicKey> {
        let plain = |name: String| -> Vec<PublicKey> {
            let entries = self.of(&name).into_iter().filter(|entry| entry.mark == Mark::None);
            entries.map(|entry| entry.key.clone()).collect()
        };
        let mut keys = plain(lookup_name(host, port));
        if keys.is_empty() && port != 22 {
            keys = plain(host.to_lowercase());
        }
        keys.retain(|key| key.key_data() != than.key_data());
        keys
    }

    /// The kinds of keys that are known of a host: those are asked of the server first.
    pub(super) fn algorithms(&self, host: &str, port: u16) -> Vec<Algorithm> {
        let plain = |name: String| -> Vec<Algorithm> {
            let entries = self.of(&name).into_iter().filter(|entry| entry.mark == Mark::None);
            entries.map(|entry| entry.key.algorithm()).collect()
        };
        let of_port = plain(lookup_name(host, port));
        if of_port.is_empty() && port != 22 { plain(host.to_lowercase()) } else { of_port }
    }
}

impl Entry {
    fn place(&self) -> Place {
        Place(Arc::clone(&self.file), self.line)
    }
}

impl Names {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Hashed(salt, hash) => hmac::verify(salt, name.as_bytes(), hash).is_ok(),
            Self::Patterns(patterns) => {
                let mut found = false;
                for pattern in patterns.split(',') {
                    match pattern.strip_prefix('!') {
                        Some(pattern) if glob(pattern.as_bytes(), name.as_bytes()) => return false,
                        Some(_) => {}
                        None => found |= glob(pattern.as_bytes(), name.as_bytes()),
                    }
                }
                found
            }
        }
    }
}

/// The name under which files have a host: bracketed with its port, unless that is SSH's own.
pub(super) fn lookup_name(host: &str, port: u16) -> String {
    let host = host.to_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// `*` is any text, `?` is any one byte.
pub(super) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read, mut star) = (0, 0, None);
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((star_at, star_read)) = star else { return false };
                star = Some((star_at, star_read + 1));
                at = star_at + 1;
                read = star_read + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// One line: an optional mark, names, a key's kind, the key, a comment.
fn parse(text: &str) -> Result<(Mark, Names, PublicKey), &'static str> {
    let mut words = text.split_ascii_whitespace();
    let mut first = words.next().ok_or("empty")?;
    let mark = match first {
        "@revoked" => Mark::Revoked,
        "@cert-authority" => Mark::Authority,
        other if other.starts_with('@') => return Err("a mark that is not known"),
        _ => Mark::None,
    };
    if mark != Mark::None {
        first = words.next().ok_or("no names after the mark")?;
    }
    let names = parse_names(first)?;
    let (Some(kind), Some(key)) = (words.next(), words.next()) else { return Err("no key") };
    let key = PublicKey::from_openssh(&format!("{kind} {key}"))
        .map_err(|_| "a key that cannot be read, or of a kind that is not supported")?;
    Ok((mark, names, key))
}

fn parse_names(text: &str) -> Result<Names, &'static str> {
    let Some(hashed) = text.strip_prefix('|') else { return Ok(Names::Patterns(text.to_lowercase().into())) };
    let mut parts = hashed.split('|');
    let (Some("1"), Some(salt), Some(hash), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("a hashed name that is not |1|salt|hash");
    };
    let decode = |part: &str| BASE64.decode(part.as_bytes()).map_err(|_| "a hashed name that is not base64");
    let salt = decode(salt)?;
    // The format's own choice; it hides names from a casual reader and protects nothing else.
    let salt = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    Ok(Names::Hashed(salt, decode(hash)?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::certificate::tests::signed;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPFve+s23SOC/5hIX1HkCRgSDs4ZEEmHYf5ZbC9OEkE0";
    const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIURGlm34LvEeuDu98FyDWkPgph9UgoK50/LEx3GUCrE";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    fn known(text: &str) -> KnownHosts {
        let mut known = KnownHosts::default();
        known.add(text, &Arc::from(Path::new("/k")));
        known
    }

    fn place(line: u32) -> Place {
        Place(Arc::from(Path::new("/k")), line)
    }

    #[test]
    fn a_key_is_known_by_each_of_its_names_and_by_no_other() {
        let hosts = known(&format!("# a comment\n\nweb,192.0.2.7,2001:db8::7 {ONE} a comment\n"));
        for name in ["web", "WEB", "192.0.2.7", "2001:db8::7"] {
            assert_eq!(hosts.judge(name, 22, &key(ONE)), Verdict::Known, "{name}");
        }
        assert_eq!(hosts.judge("we", 22, &key(ONE)), Verdict::Unknown);
        assert_eq!(hosts.judge("web2", 22, &key(ONE)), Verdict::Unknown);
    }

    #[test]
    fn another_key_is_a_change_and_says_where_the_known_one_is_written() {
        let hosts = known(&format!("other {TWO}\nweb {ONE}\n"));
        let expected = key(ONE).fingerprint(HashAlg::Sha256).to_string();
        assert_eq!(hosts.judge("web", 22, &key(TWO)), Verdict::Changed(place(2), expected));
    }

    #[test]
    fn a_port_has_a_key_of_its_own() {
        let hosts = known(&format!("[web]:2222 {ONE}\nweb {TWO}\n"));
        assert_eq!(hosts.judge("web", 2222, &key(ONE)), Verdict::Known);
        assert!(matches!(hosts.judge("web", 2222, &key(TWO)), Verdict::Changed(..)));
        assert_eq!(hosts.judge("web", 22, &key(TWO)), Verdict::Known);
        assert_eq!(hosts.judge("web", 2223, &key(TWO)), Verdict::Known, "the host's own key, as ssh(1)");
        assert_eq!(hosts.judge("web", 2223, &key(ONE)), Verdict::Unknown);
    }

    #[test]
    fn hashed_names_are_found_with_and_without_a_port() {
        for (name, port) in [("example.com", 22), ("example.com", 2222)] {
            let salt = [7_u8; 20];
            let tag = hmac::sign(
                &hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt),
                lookup_name(name, port).as_bytes(),
            );
            let hosts =
                known(&format!("|1|{}|{} {ONE}\n", BASE64.encode(&salt), BASE64.encode(tag.as_ref())));
            assert_eq!(hosts.judge(name, port, &key(ONE)), Verdict::Known);
            assert_eq!(hosts.judge("example.org", port, &key(ONE)), Verdict::Unknown);
        }
        // As `ssh-keygen -H` of OpenSSH 9.2 hashed the name example.com.
        let line = format!("|1|l27dLH+0pMN9KUQjUqTGRZF8iKk=|myje97RWrHHkwWznlQ/RAdhfEpQ= {ONE}\n");
        assert_eq!(known(&line).judge("example.com", 22, &key(ONE)), Verdict::Known);
    }

    #[test]
    fn patterns_match_and_a_negated_one_excludes() {
        let hosts = known(&format!("*.example.org,!secret.example.org,10.0.0.? {ONE}\n"));
        for (name, verdict) in [
            ("a.example.org", Verdict::Known),
            ("a.b.example.org", Verdict::Known),
            ("10.0.0.5", Verdict::Known),
            ("10.0.0.55", Verdict::Unknown),
            ("example.org", Verdict::Unknown),
            ("secret.example.org", Verdict::Unknown),
        ] {
            assert_eq!(hosts.judge(name, 22, &key(ONE)), verdict, "{name}");
        }
        for (pattern, text, matches) in [
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("?", "", false),
            ("**", "a", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn a_revoked_key_is_refused_even_where_it_is_also_known() {
        let hosts = known(&format!("web {ONE}\n@revoked * {ONE}\n"));
        assert_eq!(hosts.judge("web", 22, &key(ONE)), Verdict::Revoked(place(2)));
        assert_eq!(
            hosts.judge("web", 22, &key(TWO)),
            Verdict::Changed(place(1), key(ONE).fingerprint(HashAlg::Sha256).to_string())
        );
    }

    #[test]
    fn a_line_that_revokes_everywhere_does_not_hide_a_hosts_own_key() {
        let hosts = known(&format!("web {ONE}\n@revoked * {TWO}\n"));
        assert_eq!(hosts.judge("web", 2222, &key(ONE)), Verdict::Known);
        assert_eq!(hosts.judge("web", 2222, &key(TWO)), Verdict::Revoked(place(2)));
        let hosts = known(&format!("[web]:2222 {ONE}\n@revoked web {ONE}\n"));
        assert_eq!(hosts.judge("web", 2222, &key(ONE)), Verdict::Revoked(place(2)), "of each port");
    }

    #[test]
    fn an_authority_vouches_for_what_it_signed_and_for_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let shown = signed(dir.path(), &["-h", "-n", "a.example.org"]);
        let authority = PublicKey::from(shown.signature_key().clone()).to_openssh().unwrap();
        let host = PublicKey::from(shown.public_key().clone()).to_openssh().unwrap();
        let told = |text: &str, name: &str, port: u16| {
            known(text).judge_certificate(name, port, &shown, SystemTime::now())
        };
        let trusted = format!("@cert-authority *.example.org {authority}\n");
        assert_eq!(told(&trusted, "a.example.org", 22), Verdict::Known);
        assert_eq!(told(&trusted, "A.Example.org", 2222), Verdict::Known, "its name, whatever the port");
        assert_eq!(told(&trusted, "b.example.org", 22), Verdict::Flawed(place(1), Flaw::OtherHost));
        assert_eq!(told(&trusted, "a.example.com", 22), Verdict::Unknown, "not this authority's");
        let other = format!("@cert-authority * {ONE}\n");
        assert_eq!(told(&other, "a.example.org", 22), Verdict::OnlyAuthority(place(1)));
        assert_eq!(told(&format!("{other}a.example.org {host}\n"), "a.example.org", 22), Verdict::Known);
        let unmarked = told(&format!("* {authority}\n"), "a.example.org", 22);
        assert!(matches!(unmarked, Verdict::Changed(..)), "a key without the mark is no authority");
        for revoked in [&authority, &host] {
            let text = format!("{trusted}@revoked * {revoked}\n");
            assert_eq!(told(&text, "a.example.org", 22), Verdict::Revoked(place(2)));
        }
        let hosts = known(&trusted);
        assert_eq!(hosts.judge("a.example.org", 22, &key(ONE)), Verdict::OnlyAuthority(place(1)));
        let own = PublicKey::from_openssh(&authority).unwrap();
        assert_eq!(hosts.judge("a.example.org", 22, &own), Verdict::OnlyAuthority(place(1)));
        assert!(hosts.has_authority("a.example.org", 2222) && !hosts.has_authority("example.com", 22));
    }

    #[test]
    fn lines_that_cannot_be_understood_cost_the_others_nothing() {
        let hosts = known(&format!(
            "web\n@what web {ONE}\n|1|x {ONE}\n|1|%%|%% {ONE}\nweb ssh-nope AAAA\n@revoked\nweb {ONE}"
        ));
        assert_eq!(hosts.entries.len(), 1);
        assert_eq!(hosts.judge("web", 22, &key(ONE)), Verdict::Known);
    }

    #[test]
    fn the_kinds_of_known_keys_are_asked_first() {
        assert_eq!(known(&format!("web {ONE}\n")).algorithms("web", 22), vec![Algorithm::Ed25519]);
        assert!(known("").algorithms("web", 22).is_empty());
    }
}
