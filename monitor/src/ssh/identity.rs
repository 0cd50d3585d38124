//! Private keys: read from their files, unlocked where they are encrypted, each once. No message holds any of what was read.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cpe_proto::fence::Secret;
use russh::keys::PrivateKey;

use super::settings::{Error, Identity};
use crate::secret;

/// The longest file of a private key, in bytes; RSA keys of 16384 bits have some 13,000.
const KEY_MAX_BYTES: u64 = 64 * 1024;

/// The keys that were read. One that several sessions want at a time is read once; the others wait for it.
#[derive(Default)]
pub(super) struct Keys(Mutex<HashMap<Identity, Arc<Mutex<Slot>>>>);

#[derive(Default)]
enum Slot {
    #[default]
    Unread,
    Read(Arc<PrivateKey>),
    /// Trying a passphrase costs CPU time, by intention: one that does not fit is not tried again until all is read anew.
    Locked(String),
}

impl Keys {
    /// The key of an identity; none where that is an agent, which keeps its keys. Blocks on files.
    pub(super) fn get(&self, identity: &Identity) -> Result<Option<Arc<PrivateKey>>, Error> {
        let (path, passphrase) = match identity {
            Identity::File(path) => (path, None),
            Identity::Encrypted { key, passphrase } => (key, Some(passphrase)),
            Identity::Agent(_) => return Ok(None),
        };
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(identity.clone()).or_default())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Slot::Read(key) => return Ok(Some(Arc::clone(key))),
            Slot::Locked(what) => return Err(fault(path, what)),
            Slot::Unread => {}
        }
        match read(path, passphrase.map(PathBuf::as_path)) {
            Ok(key) => {
                let key = Arc::new(key);
                *slot = Slot::Read(Arc::clone(&key));
                Ok(Some(key))
            }
            Err(Fault::Locked(what)) => {
                *slot = Slot::Locked(what.clone());
                Err(fault(path, &what))
            }
            Err(Fault::Unread(what)) => Err(fault(path, &what)),
        }
    }
}

fn fault(path: &Path, what: &str) -> Error {
    Error::Identity { path: path.to_owned(), what: what.to_owned() }
}

enum Fault {
    Unread(String),
    Locked(String),
}

fn read(path: &Path, passphrase: Option<&Path>) -> Result<PrivateKey, Fault> {
    let text =
        read_text(path, KEY_MAX_BYTES).map_err(|what| Fault::Unread(format!("cannot be read: {what}")))?;
    let secret = passphrase.map(secret::read_file).transpose();
    let secret = secret.map_err(|error| Fault::Unread(format!("is locked, and its passphrase: {error}")))?;
    // The library's own texts may name what it read: they are not passed on.
    match russh::keys::decode_secret_key(&text, secret.as_ref().map(Secret::expose)) {
        Ok(key) if !key.is_encrypted() => Ok(key),
        Err(_) if !encrypted(&text) => Err(Fault::Unread(
            "is no private key that is understood (OpenSSH's format; ed25519, ecdsa or rsa)".to_owned(),
        )),
        _ => Err(match passphrase {
            Some(file) => Fault::Locked(format!(
                "is not unlocked by the passphrase in {}: write the right one there, and reload",
                file.display()
            )),
            None => Fault::Unread(
                "is encrypted, and no passphrase is configured: set `passphrase = { file = \"...\" }` beside it, or use an agent"
                    .to_owned(),
            ),
        }),
    }
}

/// Whether a file that could not be decoded is a private key under a passphrase.
fn encrypted(text: &str) -> bool {
    // OpenSSH's own format names its cipher only within.
    let openssh = PrivateKey::from_openssh(text).is_ok_and(|key| key.is_encrypted());
    openssh
        || text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || text.contains("\nProc-Type: 4,ENCRYPTED")
}

/// A small text file.
fn read_text(path: &Path, most: u64) -> Result<String, String> {
    // Asked before it is opened: the open of a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("not a file".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let count = file.take(most + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if u64::try_from(count).is_ok_and(|count| count <= most) {
        Ok(text)
    } else {
        Err(format!("longer than {most} bytes"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    /// What must never be seen.
    const SECRET: &str = "correct horse 7 battery";

    struct Place(TempDir);

    impl Place {
        /// A folder with a key `locked`, whose passphrase is in `good`.
        fn new(kind: &[&str]) -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-a", "1", "-N", SECRET, "-f"]).arg(place.path("locked")).args(kind);
            assert!(keygen.status().unwrap().success());
            place.write("good", &format!("{SECRET}\n"), 0o600);
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str, mode: u32) {
            std::fs::write(self.path(name), text).unwrap();
            std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }

        fn locked(&self, passphrase: &str) -> Identity {
            Identity::Encrypted { key: self.path("locked"), passphrase: self.path(passphrase) }
        }
    }

    fn refused(keys: &Keys, identity: &Identity) -> String {
        let Err(error) = keys.get(identity) else { panic!("{identity:?} was accepted") };
        let text = format!("{error} {error:?}");
        assert!(!text.contains("horse") && !text.contains("staple"), "{text}");
        error.to_string()
    }

    #[test]
    fn encrypted_keys_of_each_kind_are_unlocked_by_the_passphrase_in_a_file() {
        for kind in [
            &["-t", "ed25519"][..],
            &["-t", "ecdsa"],
            &["-t", "rsa", "-b", "2048"],
            &["-t", "ecdsa", "-m", "PKCS8"],
        ] {
            let place = Place::new(kind);
            let keys = Keys::default();
            let key = keys.get(&place.locked("good")).unwrap().unwrap();
            assert!(!key.is_encrypted(), "{kind:?}");
            let public = std::fs::read_to_string(place.path("locked.pub")).unwrap();
            let public = russh::keys::PublicKey::from_openssh(&public).unwrap();
            assert_eq!(key.public_key().key_data(), public.key_data());
            let again = keys.get(&place.locked("good")).unwrap().unwrap();
            assert!(Arc::ptr_eq(&key, &again), "it is read once");
            let plain = refused(&keys, &Identity::File(place.path("locked")));
            assert!(plain.contains("no passphrase is configured"), "{kind:?}: {plain}");
        }
    }

    #[test]
    fn a_passphrase_that_cannot_be_used_is_told_with_its_file_and_without_its_text() {
        let place = Place::new(&["-t", "ed25519"]);
        place.write("wrong", "staple", 0o600);
        place.write("open", SECRET, 0o644);
        place.write("empty", "\n", 0o600);
        place.write("long", &"staple".repeat(4000), 0o600);
        std::fs::write(place.path("binary"), b"staple\xff").unwrap();
        std::fs::set_permissions(place.path("binary"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let keys = Keys::default();
        for (file, says) in [
            ("wrong", "not unlocked"),
            ("open", "chmod 0600"),
            ("empty", "is empty"),
            ("long", "too long"),
            ("binary", "UTF-8"),
            ("missing", "No such file"),
            (".", "chmod 0600"),
        ] {
            let told = refused(&keys, &place.locked(file));
            let named = place.path(file).display().to_string();
            assert!(told.contains(says) && told.contains(&named), "{file}: {told}");
        }
    }

    #[test]
    fn a_wrong_passphrase_is_tried_once_and_a_missing_one_again_and_again() {
        let place = Place::new(&["-t", "ed25519"]);
        place.write("wrong", "staple", 0o600);
        let keys = Keys::default();
        let told = refused(&keys, &place.locked("wrong"));
        place.write("wrong", SECRET, 0o600);
        assert_eq!(refused(&keys, &place.locked("wrong")), told, "until all is read anew");
        assert!(Keys::default().get(&place.locked("wrong")).is_ok());
        refused(&keys, &place.locked("late"));
        place.write("late", SECRET, 0o600);
        assert!(keys.get(&place.locked("late")).is_ok());
    }

    #[test]
    fn a_key_that_is_not_locked_needs_no_passphrase_and_a_broken_one_is_told_as_such() {
        let place = Place::new(&["-t", "ed25519"]);
        let keys = Keys::default();
        place.write("text", &format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n"), 0o600);
        let told =
            refused(&keys, &Identity::Encrypted { key: place.path("text"), passphrase: place.path("good") });
        assert!(told.contains("no private key"), "{told}");
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-p", "-P", SECRET, "-N", "", "-f"]).arg(place.path("locked"));
        assert!(keygen.stdout(std::process::Stdio::null()).status().unwrap().success());
        assert!(keys.get(&Identity::File(place.path("locked"))).is_ok());
        assert!(keys.get(&place.locked("good")).is_ok());
    }
}
