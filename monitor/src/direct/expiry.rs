//! When a certificate ends.

use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// When it ends.
pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<SystemTime, String> {
    let parsed = Certificate::from_der(certificate)
        .map_err(|error| format!("the certificate cannot be read: {error}"))?;
    Ok(parsed.tbs_certificate().validity().not_after.to_system_time())
}

/// A time as a person counts it for a certificate.
pub(super) fn days(left: Duration) -> String {
    match left.as_secs() / 3600 {
        hours @ 0..48 => format!("{hours} h"),
        hours => format!("{} days", hours / 24),
    }
}
