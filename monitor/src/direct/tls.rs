//! TLS: the handshake, which fails for many reasons that are not alike, and the probe of a certificate.

use std::io::Error;
use std::path::Path;
use std::time::SystemTime;

use cpe_proto::definition::Tls;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::CertificateError;
use tokio_rustls::rustls::pki_types::ServerName;

use super::connect::{Context, Stream};
use super::expiry;
use super::trouble::{Answer, Outcome, Stage, Trouble};

/// Shakes hands with a server of that name.
pub(super) async fn greet(
    context: &Context<'_>,
    stream: Box<dyn Stream>,
    name: &str,
    ca: Option<&Path>,
) -> Result<TlsStream<Box<dyn Stream>>, Trouble> {
    let config = context.shared.trust.config(ca).await?;
    let server = ServerName::try_from(name.to_owned());
    let server =
        server.map_err(|_| Trouble::Unfit(format!("{name:?} is no name that a certificate can have")))?;
    context.progress.reach(Stage::Greeting);
    let stream = TlsConnector::from(config).connect(server, stream).await;
    stream.map_err(|error| failed(name, &error))
}

/// Why a handshake failed. A certificate is a person's matter, but for one that has ended: whoever runs the server may have a new one.
fn failed(name: &str, error: &Error) -> Trouble {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(cause) = cause else { return Trouble::of("closed in the TLS handshake", error) };
    let rustls::Error::InvalidCertificate(wrong) = cause else {
        return Trouble::Unexpected(format!("TLS handshake: {cause}"));
    };
    let (is, ended) = match wrong {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => ("has ended", true),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("is not valid yet", false)
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ("is not for that name", false)
        }
        // A new authority under the name of the old one shows by its signatures only.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            ("is not of an issuer that is trusted here", false)
        }
        CertificateError::Revoked => ("is revoked", false),
        other => return Trouble::Certificate(format!("the certificate for {name}: {other}")),
    };
    let said = format!("the certificate for {name} {is}");
    if ended { Trouble::Unexpected(said) } else { Trouble::Certificate(said) }
}

/// Looks at a certificate, in a session of its own.
pub(super) async fn probe(context: &Context<'_>, tls: &Tls, host: &str) -> Outcome {
    let name = tls.name.as_ref().map_or(host, |name| name.as_str());
    let stream = context.connect(host, tls.to.port).await?;
    let stream = greet(context, stream, name, tls.ca.as_deref()).await?;
    let (_, session) = stream.get_ref();
    let Some(certificate) = session.peer_certificates().and_then(<[_]>::first) else {
        return Err(Trouble::Unexpected("the server showed no certificate".to_owned()));
    };
    let ends = expiry::of(certificate).map_err(Trouble::Certificate)?;
    let left = ends.duration_since(SystemTime::now()).unwrap_or_default();
    let said = format!("the certificate for {name} ends in {}", expiry::days(left));
    if left <= tls.fail_before {
        return Err(Trouble::Unexpected(said));
    }
    if left <= tls.warn_before {
        return Ok(Answer::Warning(format!("{said}: it is time for a new one")));
    }
    Ok(Answer::Program(said))
}
