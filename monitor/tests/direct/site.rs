//! A probe as a definition writes it, asked once of a server of the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cpe_monitor::direct::{Prober, Purpose, Settings, Target};
use cpe_proto::definition::{Deployable, Direct, HostOf};
use cpe_proto::id::ProbeId;
use cpe_proto::observation::Observation;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Far longer than any answer takes here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A deadline that is waited for.
pub(crate) const SOON: Duration = Duration::from_millis(300);

/// What a service of that kind asks.
pub(crate) fn direct(kind: &str) -> Arc<Direct> {
    let text =
        format!("name = \"x\"\n[assemblies.own]\naddress = \"127.0.0.1\"\nservices.s = {{ {kind} }}\n");
    let parsed = Deployable::parse("x.toml", &text);
    let parsed = parsed.unwrap_or_else(|errors| panic!("{kind}: {errors:?}"));
    Arc::clone(parsed.services[0].check.direct().expect("it is direct"))
}

/// At the host that it names, or else here.
pub(crate) fn target(prober: &Prober, kind: &str) -> Arc<Target> {
    let what = direct(kind);
    let host = match what.target() {
        HostOf::Host(host) => host.as_str().into(),
        HostOf::Assembly(_) => "127.0.0.1".into(),
    };
    prober.target(what, host)
}

/// Asks once.
pub(crate) async fn ask(target: &Arc<Target>, purpose: Purpose, timeout: Duration) -> Observation {
    let (sender, seen) = tokio::sync::oneshot::channel();
    target.submit(ProbeId(7), purpose, timeout, move |answer| drop(sender.send(answer)));
    let answer = tokio::time::timeout(2 * PATIENCE, seen).await.expect("by its deadline").expect("once");
    assert_eq!(answer.probe, ProbeId(7));
    answer.observation
}

/// What a service's probe sees.
pub(crate) async fn look(kind: &str) -> Observation {
    ask(&target(&Prober::new(Settings::default()), kind), Purpose::Service, PATIENCE).await
}

/// The same, where no answer comes.
pub(crate) async fn look_in_vain(kind: &str) -> Observation {
    ask(&target(&Prober::new(Settings::default()), kind), Purpose::Service, SOON).await
}

/// A server of the test; what it does with each connection goes on until the test ends.
pub(crate) async fn serve<F, W>(with: F) -> SocketAddr
where
    F: Fn(TcpStream) -> W + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(with(stream));
        }
    });
    address
}

/// A server that says these bytes once it was asked, and goes.
pub(crate) async fn says(bytes: &'static [u8]) -> SocketAddr {
    serve(move |mut stream| async move {
        let mut asked = [0; 1024];
        let _any = stream.read(&mut asked).await;
        let _gone = stream.write_all(bytes).await;
    })
    .await
}

/// A port on which nobody listens. The kernel gives it to nobody else while others are free: it was in use a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}
