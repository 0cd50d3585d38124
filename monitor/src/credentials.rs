//! Where the credentials of the unit are, for what `ssh/` and `direct/` read from them.

use std::path::PathBuf;

/// Where systemd puts the credentials of `cpe.service`, as systemd.exec(5) says: what `$CREDENTIALS_DIRECTORY` is there.
const OF_CPE_SERVICE: &str = "/run/credentials/cpe.service";

/// Whether there are any.
pub(crate) fn given() -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY").is_some()
}

/// `$CREDENTIALS_DIRECTORY`; where that is not set, the place where `cpe.service` would have it, for messages to name.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("CREDENTIALS_DIRECTORY").unwrap_or_else(|| OF_CPE_SERVICE.into()).into()
}
