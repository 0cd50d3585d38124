//! From what cpe.toml and definitions say of SSH to what a session needs.

use std::path::{Path, PathBuf};

use cpe_proto::ssh::{self, JumpHost, Passphrase};

use super::settings::{Identity, Jump, Route};
use crate::credentials;

impl Identity {
    /// A private key's file, with the file of its passphrase where it has one. A credential is a file in
    /// `$CREDENTIALS_DIRECTORY`; where that is not set, messages name the place where `cpe.service` would have it.
    #[must_use]
    pub fn configured(key: PathBuf, passphrase: Option<&Passphrase>) -> Self {
        Self::of(key, passphrase, &credentials::folder())
    }

    fn of(key: PathBuf, passphrase: Option<&Passphrase>, credentials: &Path) -> Self {
        let passphrase = match passphrase {
            None => return Self::File(key),
            Some(Passphrase::File(file)) => file.clone(),
            Some(Passphrase::Credential(name)) => credentials.join(name),
        };
        Self::Encrypted { key, passphrase }
    }
}

impl From<&JumpHost> for Jump {
    fn from(jump: &JumpHost) -> Self {
        Self { user: jump.user.clone(), address: jump.host.as_str().to_owned(), port: jump.port }
    }
}

impl From<&ssh::Route> for Route {
    fn from(route: &ssh::Route) -> Self {
        match route {
            ssh::Route::Direct => Self::Direct,
            ssh::Route::Jump(jump) => Self::Jump(jump.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_a_file_or_a_credential_of_the_unit() {
        let key = || PathBuf::from("/key");
        let of = |passphrase: Option<&Passphrase>| {
            Identity::of(key(), passphrase, Path::new("/run/credentials/cpe"))
        };
        let locked = |file: &str| Identity::Encrypted { key: key(), passphrase: file.into() };
        assert_eq!(of(None), Identity::File(key()));
        assert_eq!(of(Some(&Passphrase::File("/pass".into()))), locked("/pass"));
        assert_eq!(of(Some(&Passphrase::Credential("ssh".to_owned()))), locked("/run/credentials/cpe/ssh"));
    }

    #[test]
    fn a_jump_host_is_named_as_it_is_written_with_its_port() {
        for (text, named) in [("bastion", "bastion:22"), ("a@[2001:db8::7]:2222", "a@[2001:db8::7]:2222")] {
            let Ok(ssh::Route::Jump(jump)) = ssh::Route::parse(text) else { panic!("{text}") };
            assert_eq!(Jump::from(&jump).to_string(), named);
        }
        assert_eq!(Route::from(&ssh::Route::Direct), Route::Direct);
    }
}
