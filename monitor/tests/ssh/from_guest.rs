//! Direct probes that a guest's sshd connects for: http, tls and dns from within the guest, by its deadline, and nothing left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cpe_monitor::direct::{Prober, Settings};
use cpe_monitor::ssh::Probe;
use cpe_proto::definition::{Deployable, HostOf};
use cpe_proto::observation::Observation;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::guest::{Guest, Kind, free_port};
use crate::watch::Watch;

const SOON: Duration = Duration::from_millis(1500);

/// A probe as a definition writes it, of a guest that sees itself as 127.0.0.1.
pub(crate) fn from_guest(kind: &str) -> Probe {
    let text = format!(
        "name = \"x\"\n[assemblies.own]\naddress = \"192.0.2.1\"\nservices.s = {{ {kind}, from = \"guest\" }}\n"
    );
    let parsed = Deployable::parse("x.toml", &text);
    let parsed = parsed.unwrap_or_else(|errors| panic!("{kind}: {errors:?}"));
    let asked = Arc::clone(parsed.services[0].check.from_guest().expect("it is from the guest"));
    let HostOf::Host(host) = asked.target() else { panic!("{kind} names no host") };
    let host = host.as_str().into();
    Probe::FromGuest(Prober::new(Settings::default()).target(asked, host))
}

/// A server in the guest, which is this machine.
async fn serve<F, W>(with: F) -> u16
where
    F: Fn(TcpStream) -> W + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(with(stream));
        }
    });
    port
}

/// One that answers whatever it is asked with these bytes.
pub(crate) async fn says(bytes: &'static [u8]) -> u16 {
    serve(move |mut stream| async move {
        let mut asked = [0; 4096];
        let _any = stream.read(&mut asked).await;
        let _gone = stream.write_all(bytes).await;
    })
    .await
}

pub(crate) const WELCOME: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nwelcome";

fn http(port: u16) -> Probe {
    from_guest(&format!("http = {{ url = \"http://127.0.0.1:{port}/page\", contains = \"welcome\" }}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_judged_by_what_it_says_to_the_guest_with_a_resident_shell_and_without() {
    let welcome = says(WELCOME).await;
    let down = says(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let mute = says(b"").await;
    for kind in [Kind::default(), Kind { only_commands: Some(&["id"]), ..Kind::default() }] {
        let guest = Guest::of(&kind);
        let mut watch = Watch::of(&guest);
        let probes = [Probe::Channel, http(welcome), http(down), http(mute), http(free_port())];
        for _ in 0..2 {
            let seen = watch.ask(&probes).await;
            assert_eq!(seen[0], Observation::Alive);
            assert_eq!(seen[1], Observation::Expected("status 200".into()));
            assert_eq!(seen[2], Observation::Unexpected("/page: status 503, expected 200-399".into()));
            assert!(matches!(&seen[3], Observation::NotConnected(_)), "{:?}", seen[3]);
            let why = |text: &str| text.contains("refused or unreachable");
            assert!(matches!(&seen[4], Observation::NotConnected(text) if why(text)), "{:?}", seen[4]);
        }
        watch.assert_no_more_answers();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_looked_at_and_a_name_asked_for_over_tcp() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["www.example.com".into()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let secure = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _any = stream.read(&mut [0; 16]).await;
        }
    })
    .await;
    // The question as it came, as an answer with one address.
    let names = serve(|mut stream| async move {
        let Ok(length) = stream.read_u16().await else { return };
        let mut answer = vec![0; usize::from(length)];
        let Ok(_) = stream.read_exact(&mut answer).await else { return };
        (answer[2], answer[7]) = (answer[2] | 0x80, 1);
        answer.extend(*b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x07");
        let _gone = stream.write_u16(u16::try_from(answer.len()).unwrap()).await;
        let _gone = stream.write_all(&answer).await;
        let _any = stream.read(&mut [0; 16]).await;
    })
    .await;
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    let tls = |name: &str| from_guest(&format!("tls = {{ to = {secure}, name = \"{name}\", ca = {ca:?} }}"));
    let dns = from_guest(&format!("dns = {{ name = \"shop.example.com\", server = \"127.0.0.1:{names}\" }}"));
    let seen = watch.ask(&[Probe::Channel, tls("www.example.com"), tls("other.example.com"), dns]).await;
    assert!(matches!(&seen[1], Observation::Expected(_)), "{:?}", seen[1]);
    assert!(matches!(&seen[2], Observation::NotRunnable(_)), "{:?}", seen[2]);
    assert_eq!(seen[3], Observation::Expected("A shop.example.com: 192.0.2.7".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_answers_is_late_alone_and_leaves_no_connection_behind() {
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    let silent = serve(move |mut stream| {
        let open = Arc::clone(&counted);
        async move {
            open.fetch_add(1, SeqCst);
            while stream.read(&mut [0; 1024]).await.is_ok_and(|length| length > 0) {}
            open.fetch_sub(1, SeqCst);
        }
    })
    .await;
    // It never stops, whether it is read or not.
    let flood =
        serve(|mut stream| async move { while stream.write_all(&[b'x'; 65536]).await.is_ok() {} }).await;
    let welcome = says(WELCOME).await;
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    for _ in 0..2 {
        let patience = crate::guest::PATIENCE;
        let batch = [
            (http(silent), SOON),
            (http(flood), patience),
            (http(welcome), patience),
            (Probe::Channel, patience),
        ];
        let seen = watch.ask_timed(&batch).await;
        assert_eq!(seen[0], Observation::DeadlinePassed);
        assert!(
            matches!(&seen[1], Observation::Unexpected(text) if text.contains("not HTTP")),
            "{:?}",
            seen[1]
        );
        assert_eq!(seen[2], Observation::Expected("status 200".into()));
        assert_eq!(seen[3], Observation::Alive);
    }
    crate::guest::eventually("its connections are closed", || open.load(SeqCst) == 0);
    assert_eq!(watch.monitor.counters().connected, 1, "the session went on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ended_with_its_session_says_nothing_of_the_service() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let silent = serve(move |mut stream| {
        let asked = Arc::clone(&counted);
        async move {
            let _any = stream.read(&mut [0; 1024]).await;
            asked.fetch_add(1, SeqCst);
            let _end = stream.read(&mut [0; 1024]).await;
        }
    })
    .await;
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    watch.submit(&[(http(silent), crate::guest::PATIENCE)]);
    let waits = Arc::clone(&asked);
    let wait = move || crate::guest::eventually("it was asked", || waits.load(SeqCst) == 1);
    tokio::task::spawn_blocking(wait).await.unwrap();
    guest.signal_sessions("KILL");
    assert_eq!(watch.answer().await.observation, Observation::NotObserved);
}
