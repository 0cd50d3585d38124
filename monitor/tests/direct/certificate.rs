//! TLS: certificates that are good, that end soon, that are not to be trusted; and https.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cpe_monitor::direct::{Prober, Purpose, Settings};
use cpe_proto::observation::Observation;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::site::{PATIENCE, ask, look, look_in_vain, says, serve, target};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An authority of the test, and the file in which its certificate is.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("it can be written");
        Self { issuer, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A server for that name whose certificate ends so long from now, or has so long ago.
    async fn server(&self, name: &str, ends: Ends) -> SocketAddr {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let now = SystemTime::now();
        params.not_before = (now - 100 * DAY).into();
        params.not_after = match ends {
            Ends::In(span) => (now + span).into(),
            Ends::Ago(span) => (now - span).into(),
        };
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a configuration");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        serve(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut asked = [0; 4096];
                let Ok(length) = stream.read(&mut asked).await else { return };
                let text = String::from_utf8_lossy(&asked[..length]);
                let host = text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
                let answer =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\nhost {host}", host.len() + 5);
                let _gone = stream.write_all(answer.as_bytes()).await;
                let _closed = stream.shutdown().await;
            }
        })
        .await
    }

    /// A TLS probe of a server, trusting this authority.
    fn kind(&self, server: SocketAddr, more: &str) -> String {
        format!("tls = {{ to = \"{server}\", ca = {:?}{more} }}", self.file())
    }
}

#[derive(Clone, Copy)]
enum Ends {
    In(Duration),
    Ago(Duration),
}

#[tokio::test]
async fn a_certificate_is_good_until_it_is_time_for_a_new_one_and_then_it_fails() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", Ends::In(10 * DAY + DAY / 2)).await;
    let seen = look(&authority.kind(server, ", warn_before = \"9days\"")).await;
    assert_eq!(seen, Observation::Expected("the certificate for 127.0.0.1 ends in 10 days".into()));
    let seen = look(&authority.kind(server, ", warn_before = \"11days\"")).await;
    let why = "the certificate for 127.0.0.1 ends in 10 days: it is time for a new one";
    assert_eq!(seen, Observation::Warned(why.into()));
    let seen = look(&authority.kind(server, ", warn_before = \"21days\", fail_before = \"11days\"")).await;
    assert_eq!(seen, Observation::Unexpected("the certificate for 127.0.0.1 ends in 10 days".into()));
    let server = authority.server("127.0.0.1", Ends::Ago(DAY)).await;
    let seen = look(&authority.kind(server, "")).await;
    assert_eq!(seen, Observation::Unexpected("the certificate for 127.0.0.1 has ended".into()));
}

#[tokio::test]
async fn a_certificate_that_is_not_to_be_trusted_is_a_persons_matter() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.server("www.example.com", Ends::In(90 * DAY)).await;
    let named = ", name = \"www.example.com\"";
    assert!(matches!(look(&authority.kind(server, named)).await, Observation::Expected(_)));
    let seen = look(&authority.kind(server, "")).await;
    assert_eq!(seen, Observation::NotRunnable("the certificate for 127.0.0.1 is not for that name".into()));
    let seen = look(&other.kind(server, named)).await;
    let why = "the certificate for www.example.com is not of an issuer that is trusted here";
    assert_eq!(seen, Observation::NotRunnable(why.into()));
    // As a channel it has answered, whatever it is.
    let prober = Prober::new(Settings::default());
    let seen = ask(&target(&prober, &other.kind(server, named)), Purpose::Channel, PATIENCE).await;
    assert_eq!(seen, Observation::Alive);
}

#[tokio::test]
async fn a_file_of_certificates_that_is_not_there_is_named_and_read_again_when_it_is() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", Ends::In(90 * DAY)).await;
    let missing = authority.folder.path().join("later.pem");
    let prober = Prober::new(Settings::default());
    let target = target(&prober, &format!("tls = {{ to = \"{server}\", ca = {missing:?} }}"));
    let seen = ask(&target, Purpose::Service, PATIENCE).await;
    let why = format!("`ca` {}: no such file or directory", missing.display());
    assert_eq!(seen, Observation::NotRunnable(cpe_proto::observation::detail(&why)));
    std::fs::copy(authority.file(), &missing).expect("it can be written");
    assert!(matches!(ask(&target, Purpose::Service, PATIENCE).await, Observation::Expected(_)));
}

#[tokio::test]
async fn what_speaks_no_tls_or_nothing_at_all_is_told_apart() {
    let seen = look(&format!("tls = \"{}\"", says(b"220 mail.example.com ESMTP\r\n").await)).await;
    assert!(matches!(&seen, Observation::Unexpected(why) if why.starts_with("TLS handshake")), "{seen:?}");
    let mute = serve(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let seen = look_in_vain(&format!("tls = \"{mute}\"")).await;
    assert_eq!(
        seen,
        Observation::Silent("connected, and no end of the TLS handshake by the deadline".into())
    );
}

#[tokio::test]
async fn https_asks_for_the_name_in_host_and_checks_the_certificate_for_it() {
    let authority = Authority::new();
    let server = authority.server("www.example.com", Ends::In(90 * DAY)).await;
    let ask =
        |more: &str| format!("http = {{ url = \"https://{server}/\", ca = {:?}{more} }}", authority.file());
    let port = server.port();
    let seen =
        look(&ask(&format!(", host = \"www.example.com\", contains = \"host www.example.com:{port}\"")))
            .await;
    assert_eq!(seen, Observation::Expected("status 200".into()));
    let seen = look(&ask("")).await;
    assert_eq!(seen, Observation::NotRunnable("the certificate for 127.0.0.1 is not for that name".into()));
}
