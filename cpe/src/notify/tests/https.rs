//! A webhook over HTTPS, at a server whose certificate is of its own authority.

use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::authority::Authority;
use super::*;

/// Serves what `Chat` takes, behind TLS.
async fn serve(authority: &Authority) -> (Chat, Webhook) {
    let chat = Chat::default();
    let router = Router::new().route("/hook", post(take)).with_state(chat.clone());
    let certificate = CertificateDer::from_pem_file(&authority.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(&authority.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
            tokio::spawn(async move {
                // A client that does not trust us leaves here.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let _ =
                    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (chat, Webhook::parse(&address).unwrap())
}

#[tokio::test]
async fn a_webhook_over_https_is_told_where_its_authority_is_configured() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new(&dir);
    let (chat, webhook) = serve(&authority).await;
    let notify = Notify { webhook: Some(webhook), ca: Some(authority.ca), ..Notify::default() };
    let metrics = Arc::new(Metrics::new());
    let notifier = Notifier::with_pace(notify, metrics, journal(&dir), quick(), &Vital::new().0);
    notifier.notify(&shop(), None, "shop/web is exhausted");
    until("it is told", || chat.got().len() == 1).await;
    assert_eq!(chat.got()[0]["message"], "shop/web is exhausted");
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_told_nothing_and_the_journal_says_why() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new(&dir);
    let (chat, webhook) = serve(&authority).await;
    // Some other authority, so that the test does not depend on what this host trusts.
    let other = TempDir::new().unwrap();
    let ca = Some(Authority::new(&other).ca);
    let notify = Notify { webhook: Some(webhook), ca, ..Notify::default() };
    let metrics = Arc::new(Metrics::new());
    let notifier = Notifier::with_pace(notify, Arc::clone(&metrics), journal(&dir), quick(), &Vital::new().0);
    notifier.notify(&shop(), Some(IncidentId(3)), "shop/web is exhausted");
    until("it is given up", || metrics.notifications.failed.get() == 1).await;
    assert!(chat.got().is_empty());
    let outcome = outcome(&dir, "not told by webhook").await;
    assert!(outcome.to_lowercase().contains("certificate"), "{outcome}");
}

#[tokio::test]
async fn a_file_of_certificates_that_is_none_is_said_with_its_path() {
    let dir = TempDir::new().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, "no PEM").unwrap();
    let webhook = Webhook::parse("https://127.0.0.1:1/hook").unwrap();
    let notify = Notify { webhook: Some(webhook), ca: Some(ca), ..Notify::default() };
    let metrics = Arc::new(Metrics::new());
    let notifier = Notifier::with_pace(notify, Arc::clone(&metrics), journal(&dir), quick(), &Vital::new().0);
    notifier.notify(&shop(), None, "shop/web is exhausted");
    let outcome = outcome(&dir, "not told by webhook").await;
    assert!(outcome.contains("ca.pem, cannot be used: no certificate in it"), "{outcome}");
}
