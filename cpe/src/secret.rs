//! Reads secrets from where the configuration says that they are: files, systemd credentials, the environment. No message has any of one.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cpe_proto::fence::Secret;
use cpe_proto::secret::SecretSource;

/// The longest, in bytes.
const LENGTH_MAX: usize = 4_096;

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
    #[error("everybody on this machine can read {0}: chmod o-r it, and use another secret from now on")]
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
    #[error("what is in {0} is {1}, expected one line of 1 to 4096 bytes")]
    NoSecret(String, &'static str),
}

/// Reads it. Blocks.
///
/// # Errors
/// [`SecretError`]: where it was looked for, and what is wrong there.
pub fn read(source: &SecretSource) -> Result<Secret, SecretError> {
    match source {
        SecretSource::File(path) => read_file(path),
        SecretSource::Credential(name) => {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
            let folder = folder.ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
            // Only systemd writes there, and only the unit can read it.
            let path = Path::new(&folder).join(name);
            one_line(&path.display().to_string(), bytes(&path)?)
        }
        SecretSource::Env(name) => {
            let value = std::env::var_os(name).ok_or_else(|| SecretError::NoVariable(name.clone()))?;
            one_line(&format!("${name}"), value.into_encoded_bytes())
        }
    }
}

/// Reads it from a file that not everybody may read. Blocks.
///
/// # Errors
/// [`SecretError`].
pub fn read_file(path: &Path) -> Result<Secret, SecretError> {
    let failed = |source| SecretError::Io { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.mode() & 0o004 != 0 {
        return Err(SecretError::Open(path.to_owned()));
    }
    one_line(&path.display().to_string(), bytes(path)?)
}

fn bytes(path: &Path) -> Result<Vec<u8>, SecretError> {
    let failed = |source| SecretError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let limit = u64::try_from(LENGTH_MAX).unwrap_or(u64::MAX).saturating_add(2);
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn one_line(place: &str, bytes: Vec<u8>) -> Result<Secret, SecretError> {
    let wrong = |what| SecretError::NoSecret(place.to_owned(), what);
    let text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    if text.is_empty() {
        return Err(wrong("empty"));
    }
    if text.len() > LENGTH_MAX {
        return Err(wrong("too long"));
    }
    if text.chars().any(char::is_control) {
        return Err(wrong("more than one line"));
    }
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_one_line_of_a_file_that_not_everybody_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let with = |text: &[u8], mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            read(&SecretSource::File(path.clone())).map(|secret| secret.expose().to_owned())
        };
        assert_eq!(with(b"hunter2\n", 0o640).unwrap(), "hunter2");
        let open = with(b"hunter2\n", 0o644).unwrap_err().to_string();
        assert!(open.contains("everybody on this machine can read") && !open.contains("hunter2"), "{open}");
        for bad in [&b""[..], b"\n", b"hunter2\nhunter3\n", b"hunter2\r\n", b"\xff", &[b'x'; 4_097]] {
            let said = with(bad, 0o600).unwrap_err().to_string();
            assert!(said.contains("expected one line") && !said.contains("hunter"), "{said}");
        }
        let missing = read(&SecretSource::Env("CPE_NO_SUCH_VARIABLE".to_owned())).unwrap_err().to_string();
        assert!(missing.contains("CPE_NO_SUCH_VARIABLE"), "{missing}");
    }
}
