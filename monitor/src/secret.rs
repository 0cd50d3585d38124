//! The one reader of secrets: tokens, passwords, passphrases, the headers of requests. They are files, credentials of the unit, or variables
//! of the environment, by reference; each is one line, and no message has any of one.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cpe_proto::fence::Secret;
use cpe_proto::secret::SecretSource;

use crate::credentials;

/// The longest, in bytes, without the end of its line.
const LENGTH_MAX: usize = 16 * 1024;

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is open to everybody.
    #[error(
        "everybody on this machine can read or write {0}: use another secret from now on, and chmod 0600"
    )]
    Open(PathBuf),
    /// We do not run as a unit with credentials.
    #[error(
        "there is no $CREDENTIALS_DIRECTORY for the credential {0}: cpe has to run as a unit with LoadCredential={0}:/path"
    )]
    NoCredentials(String),
    /// The variable is not there.
    #[error("there is no variable {0} in cpe's environment")]
    NoVariable(String),
    /// What is there is no secret.
    #[error("what is in {0} is {1}, expected one line of 1 to 16384 bytes")]
    NoSecret(String, &'static str),
}

/// Reads it. Blocks.
///
/// # Errors
/// [`SecretError`]: where it was looked for, and what is wrong there.
pub fn read(source: &SecretSource) -> Result<Secret, SecretError> {
    match source {
        SecretSource::File(path) => read_file(path),
        SecretSource::Credential(name) => match read_file(&credentials::folder().join(name)) {
            Err(SecretError::Io { .. }) if !credentials::given() => {
                Err(SecretError::NoCredentials(name.clone()))
            }
            read => read,
        },
        SecretSource::Env(name) => {
            let value = std::env::var_os(name).ok_or_else(|| SecretError::NoVariable(name.clone()))?;
            one_line(&format!("${name}"), value.into_encoded_bytes())
        }
    }
}

/// Reads it from a file that not everybody may read or write. Blocks.
///
/// # Errors
/// [`SecretError`].
pub fn read_file(path: &Path) -> Result<Secret, SecretError> {
    let failed = |source| SecretError::Io { path: path.to_owned(), source };
    // Asked before it is opened: the open of a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.permissions().mode() & 0o006 != 0 {
        return Err(SecretError::Open(path.to_owned()));
    }
    if !metadata.is_file() {
        return Err(failed(io::Error::other("not a file")));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(LENGTH_MAX).unwrap_or(u64::MAX).saturating_add(3);
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    one_line(&path.display().to_string(), bytes)
}

fn one_line(place: &str, bytes: Vec<u8>) -> Result<Secret, SecretError> {
    let wrong = |what| SecretError::NoSecret(place.to_owned(), what);
    let text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(wrong("empty"));
    }
    if text.len() > LENGTH_MAX {
        return Err(wrong("too long"));
    }
    if text.contains(|character: char| character.is_control() && character != '\t') {
        return Err(wrong("more than one line"));
    }
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_line_of_a_file_that_not_everybody_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let with = |text: &[u8], mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read(&SecretSource::File(path.clone())).map(|secret| secret.expose().to_owned())
        };
        assert_eq!(with(b"hunter2\n", 0o640).unwrap(), "hunter2");
        assert_eq!(with(b"hunter2\r\n", 0o600).unwrap(), "hunter2");
        assert_eq!(with(&[b'x'; 16_384], 0o600).unwrap().len(), 16_384);
        for mode in [0o644, 0o602] {
            let open = with(b"hunter2\n", mode).unwrap_err().to_string();
            assert!(
                open.contains("everybody on this machine can read") && !open.contains("hunter2"),
                "{open}"
            );
        }
        for bad in [&b""[..], b"\n", b"hunter2\nhunter3\n", b"hunter2\r\r\n", b"\xff", &[b'x'; 16_385]] {
            let said = with(bad, 0o600).unwrap_err().to_string();
            assert!(said.contains("expected one line") && !said.contains("hunter"), "{said}");
        }
        let missing = read(&SecretSource::Env("CPE_NO_SUCH_VARIABLE".to_owned())).unwrap_err().to_string();
        assert!(missing.contains("CPE_NO_SUCH_VARIABLE"), "{missing}");
    }
}
