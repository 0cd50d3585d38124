//! Whose certificates are believed: those that this host believes, and those of `[notify] ca`. For `webhook.rs`; `mail.rs` does the same
//! through its library.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The longest file of certificates, in bytes.
const CA_MAX: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("[notify] ca, {path}, cannot be used: {reason}; it is a file of certificates in PEM")]
    Ca { path: PathBuf, reason: String },
    #[error("no trusted certificates on this host: install ca-certificates, or give [notify] ca")]
    NoRoots,
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// The text of `[notify] ca`. Blocks.
pub(super) fn read_ca(path: &Path) -> Result<Vec<u8>, TlsError> {
    let wrong = |reason: String| TlsError::Ca { path: path.to_owned(), reason };
    let read = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(path)?, CA_MAX), &mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error| wrong(error.to_string()))?;
    if CertificateDer::pem_slice_iter(&text).next().is_none() {
        return Err(wrong("no certificate in it".to_owned()));
    }
    Ok(text)
}

/// Blocks: it reads the host's certificates.
pub(super) fn client(ca: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    // One that cannot be read or parsed is no reason to believe none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let wrong = |reason: String| TlsError::Ca { path: path.to_owned(), reason };
        for certificate in CertificateDer::pem_slice_iter(&read_ca(path)?) {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
    }
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(TlsError::Setup)?.with_root_certificates(roots).with_no_client_auth())
}
