//! HTTP: what is sent, what is expected, redirects, connections that are kept, and answers that are none.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Redirect;
use axum::routing::get;
use cpe_monitor::direct::{Counters, Prober, Purpose, Settings};
use cpe_proto::observation::{ChannelFailure, Observation};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::site::{PATIENCE, SOON, ask, free_port, look, look_in_vain, says, serve, target};

async fn shop() -> SocketAddr {
    let told = |headers: HeaderMap, request: Request| async move {
        let value = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or("-").to_owned();
        let agent = value("user-agent");
        format!(
            "{} {} host={} token={} agent={}",
            request.method(),
            request.uri(),
            value("host"),
            value("authorization"),
            agent.split('/').next().unwrap_or_default()
        )
    };
    let app = Router::new()
        .route("/told", get(told))
        .route(
            "/cart",
            get(|| async { ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], "3 items: checkout") }),
        )
        .route("/down", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "try later") }))
        .route("/once", get(|| async { Redirect::temporary("cart") }))
        .route("/twice", get(|| async { Redirect::permanent("/once") }))
        .route("/round", get(|| async { Redirect::temporary("/round") }))
        .route("/nowhere", get(|| async { StatusCode::FOUND }))
        .route("/large", get(|| async { "x".repeat(70_000) + "checkout" }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn passed(status: u16) -> Observation {
    Observation::Expected(format!("status {status}").into())
}

fn failed(why: &str) -> Observation {
    Observation::Unexpected(why.into())
}

#[tokio::test]
async fn an_answer_is_judged_by_its_status_its_header_and_its_body() {
    let shop = shop().await;
    let at = |path: &str, more: &str| format!("http = {{ url = \"http://{shop}{path}\"{more} }}");
    assert_eq!(look(&format!("http = \"http://{shop}/cart\"")).await, passed(200));
    assert_eq!(look(&at("/down?token=secret", "")).await, failed("/down: status 503, expected 200-399"));
    assert_eq!(look(&at("/down", ", status = \"500-599\"")).await, passed(503));
    assert_eq!(look(&at("/cart", ", status = 201")).await, failed("/cart: status 200, expected 201"));
    let typed = |value: &str| format!(", answer_headers = {{ Content-Type = \"{value}\" }}");
    assert_eq!(look(&at("/cart", &typed("text/html"))).await, passed(200));
    assert_eq!(
        look(&at("/cart", &typed("json"))).await,
        failed("/cart: no header content-type with \"json\"")
    );
    assert_eq!(
        look(&at("/cart", ", contains = \"checkout\", matches = \"^[0-9]+ items\"")).await,
        passed(200)
    );
    assert_eq!(
        look(&at("/cart", ", contains = \"sold out\"")).await,
        failed("/cart: status 200, and \"sold out\" is not in the body")
    );
    assert_eq!(
        look(&at("/cart", ", matches = \"^0 items\"")).await,
        failed("/cart: status 200, and \"^0 items\" does not match the body")
    );
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit_only() {
    let shop = shop().await;
    let seen = look(&format!("http = {{ url = \"http://{shop}/large\", contains = \"checkout\" }}")).await;
    assert_eq!(seen, failed("/large: status 200, and \"checkout\" is not in the body"));
}

#[tokio::test]
async fn redirects_are_followed_as_far_as_is_said_and_not_at_all_if_nothing_is() {
    let shop = shop().await;
    let at = |path: &str, more: &str| format!("http = {{ url = \"http://{shop}{path}\"{more} }}");
    assert_eq!(look(&at("/twice", "")).await, passed(308));
    assert_eq!(look(&at("/twice", ", redirects = 2, contains = \"checkout\"")).await, passed(200));
    assert_eq!(look(&at("/twice", ", redirects = 1")).await, failed("redirected more often than 1 times"));
    assert_eq!(look(&at("/round", ", redirects = 10")).await, failed("redirected more often than 10 times"));
    assert_eq!(look(&at("/nowhere", ", redirects = 1")).await, passed(302));
}

#[tokio::test]
async fn what_is_sent_is_as_written_and_a_secret_is_read_anew_each_time() {
    let shop = shop().await;
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    let kind = format!(
        "http = {{ url = \"http://{shop}/told\", host = \"www.example.com\", headers = {{ Authorization = {{ file = {token:?} }}, User-Agent = \"me/1\" }}, contains = \"host=www.example.com:{} token=Bearer one agent=me\" }}",
        shop.port()
    );
    let prober = Prober::new(Settings::default());
    let target = target(&prober, &kind);
    let seen = ask(&target, Purpose::Service, PATIENCE).await;
    assert!(matches!(&seen, Observation::NotRunnable(why) if why.contains("No such file")), "{seen:?}");
    std::fs::write(&token, "Bearer two\n").expect("it can be written");
    let mode = |mode| std::fs::set_permissions(&token, PermissionsExt::from_mode(mode)).expect("it is ours");
    mode(0o644);
    let seen = ask(&target, Purpose::Service, PATIENCE).await;
    assert!(matches!(&seen, Observation::NotRunnable(why) if why.ends_with("chmod 0600")), "{seen:?}");
    mode(0o600);
    let seen = ask(&target, Purpose::Service, PATIENCE).await;
    assert!(matches!(&seen, Observation::Unexpected(why) if !why.contains("two")), "{seen:?}");
    std::fs::write(&token, "Bearer one\n").expect("it can be written");
    assert_eq!(ask(&target, Purpose::Service, PATIENCE).await, passed(200));
}

#[tokio::test]
async fn a_secret_does_not_follow_a_redirect_to_another_server() {
    let (shop, folder) = (shop().await, tempfile::tempdir().expect("a folder"));
    let away = Router::new()
        .route("/", get(move || async move { Redirect::temporary(&format!("http://{shop}/told")) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, away).await });
    let token = folder.path().join("token");
    std::fs::write(&token, "Bearer one").expect("it can be written");
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).expect("it is ours");
    let kind = format!(
        "http = {{ url = \"http://{address}/\", redirects = 1, headers = {{ Authorization = {{ file = {token:?} }} }}, contains = \"host={shop} token=- agent=cpe\" }}"
    );
    assert_eq!(look(&kind).await, passed(200));
}

#[tokio::test]
async fn head_asks_for_the_header_only() {
    let shop = shop().await;
    let kind = format!(
        "http = {{ url = \"http://{shop}/cart\", method = \"HEAD\", answer_headers = {{ Content-Length = \"17\" }} }}"
    );
    assert_eq!(look(&kind).await, passed(200));
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_probe_until_it_is_time_for_a_new_one() {
    let shop = shop().await;
    let kind = format!("http = \"http://{shop}/cart\"");
    let prober = Prober::new(Settings::default());
    let target_of_many = target(&prober, &kind);
    for _ in 0..5 {
        assert_eq!(ask(&target_of_many, Purpose::Service, PATIENCE).await, passed(200));
    }
    assert_eq!(prober.counters(), Counters { connected: 1, reused: 4 });

    for settings in [
        Settings { kept_for: std::time::Duration::ZERO, ..Settings::default() },
        Settings { kept: 0, ..Settings::default() },
    ] {
        let prober = Prober::new(settings);
        let target = target(&prober, &kind);
        for _ in 0..3 {
            assert_eq!(ask(&target, Purpose::Service, PATIENCE).await, passed(200));
        }
        assert_eq!(prober.counters(), Counters { connected: 3, reused: 0 });
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_server_ended_is_no_answer() {
    // It says that the connection is kept, answers once, and ends it with the next request.
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let server = serve(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            let mut asked = [0; 1024];
            let _first = stream.read(&mut asked).await;
            count.fetch_add(1, Ordering::SeqCst);
            let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            let _second = stream.read(&mut asked).await;
        }
    })
    .await;
    let prober = Prober::new(Settings::default());
    let target = target(&prober, &format!("http = \"http://{server}/\""));
    for _ in 0..3 {
        assert_eq!(ask(&target, Purpose::Service, PATIENCE).await, passed(200));
    }
    assert_eq!((served.load(Ordering::SeqCst), prober.counters().reused), (3, 0));
}

#[tokio::test]
async fn what_is_no_answer_says_how() {
    let port = free_port();
    let seen = look(&format!("http = \"http://127.0.0.1:{port}/\"")).await;
    assert_eq!(seen, Observation::NotConnected(format!("port {port}: connection refused").into()));
    let seen = look(&format!("http = \"http://{}/\"", says(b"SSH-2.0-OpenSSH_9.9\r\n").await)).await;
    assert!(
        matches!(&seen, Observation::Unexpected(why) if why.starts_with("the answer is not HTTP")),
        "{seen:?}"
    );
    let seen = look(&format!("http = \"http://{}/\"", says(b"").await)).await;
    assert!(matches!(&seen, Observation::NotConnected(_)), "{seen:?}");
    let cut = says(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
    let seen = look(&format!("http = {{ url = \"http://{cut}/\" }}")).await;
    assert!(matches!(&seen, Observation::NotConnected(_)), "{seen:?}");
    let mute = serve(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let seen = look_in_vain(&format!("http = \"http://{mute}/\"")).await;
    assert_eq!(seen, Observation::Silent("asked, and no answer by the deadline".into()));
}

#[tokio::test]
async fn as_a_channel_any_answer_shows_that_a_program_lives() {
    let shop = shop().await;
    let prober = Prober::new(Settings::default());
    let at = |path: &str| target(&prober, &format!("http = \"http://{shop}{path}\""));
    for path in ["/cart", "/down", "/not-there"] {
        assert_eq!(ask(&at(path), Purpose::Channel, PATIENCE).await, Observation::Alive, "{path}");
    }
    let refused = target(&prober, &format!("http = \"http://127.0.0.1:{}/\"", free_port()));
    let seen = ask(&refused, Purpose::Channel, SOON).await;
    assert!(matches!(seen, Observation::Channel(ChannelFailure::Refused, _)), "{seen:?}");
}
