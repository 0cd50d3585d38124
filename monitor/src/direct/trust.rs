//! Whom TLS believes: the certificates of the controller's host, or those of a file. Each is read once, a file again when it has changed.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::trouble::{Trouble, plain};

/// The largest file of certificates, in bytes.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// The most files that are remembered; beyond that all are read again.
const FILES_MAX: usize = 1000;

/// When a file was last changed, and its length.
type Stamp = Option<(SystemTime, u64)>;

/// What was read, by file; none: those of the host.
type Known = BTreeMap<Option<PathBuf>, (Stamp, Arc<ClientConfig>)>;

/// What was read so far.
#[derive(Default)]
pub(super) struct Trust {
    known: Arc<Mutex<Known>>,
}

impl Trust {
    /// How to speak TLS where these are trusted.
    pub(super) async fn config(&self, file: Option<&Path>) -> Result<Arc<ClientConfig>, Trouble> {
        let (known, file) = (Arc::clone(&self.known), file.map(Path::to_path_buf));
        // Files block.
        let read = tokio::task::spawn_blocking(move || {
            let stamp = file.as_deref().and_then(stamp);
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, config)) = known.get(&file).filter(|(before, _)| *before == stamp) {
                return Ok(Arc::clone(config));
            }
            let roots = match &file {
                Some(file) => of_file(file)?,
                None => of_host()?,
            };
            let config = Arc::new(config(roots)?);
            if known.len() >= FILES_MAX {
                known.clear();
            }
            known.insert(file, (stamp, Arc::clone(&config)));
            Ok(config)
        });
        read.await.unwrap_or_else(|_| Err(Trouble::NotAsked("certificates were not read".to_owned())))
    }
}

fn stamp(file: &Path) -> Stamp {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn config(roots: RootCertStore) -> Result<ClientConfig, Trouble> {
    let versions = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| Trouble::Unfit(format!("TLS: {error}")))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    // A resumed session shows the certificate of the first one.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn of_host() -> Result<RootCertStore, Trouble> {
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match added {
        0 => Err(Trouble::Unfit(
            "no trusted certificates on this host: install ca-certificates, or name a file with `ca`"
                .to_owned(),
        )),
        _ => Ok(roots),
    }
}

fn of_file(file: &Path) -> Result<RootCertStore, Trouble> {
    let unfit = |why: String| Trouble::Unfit(format!("`ca` {}: {why}", file.display()));
    let mut text = Vec::new();
    let opened = std::fs::File::open(file).and_then(|open| open.take(FILE_MAX).read_to_end(&mut text));
    opened.map_err(|error| unfit(plain(&error)))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| unfit(format!("not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| unfit(format!("not a certificate to trust: {error}")))?;
    }
    match roots.is_empty() {
        true => Err(unfit("no certificate in it, expected some in PEM".to_owned())),
        false => Ok(roots),
    }
}
