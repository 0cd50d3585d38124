//! The API over TCP, asked by the real client and by what would never be a client.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use cpe_proto::config::Listen;
use cpe_proto::document::HostPort;
use cpe_proto::fence::Secret;
use cpe_proto::secret::SecretSource;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tests::{Fleet, journal_in};
use super::*;
use crate::client::{Client, ClientError, Place};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const READ_TOKEN: &str = "fedcba9876543210fedcba9876543210";

struct World {
    address: SocketAddr,
    fleet: Arc<Fleet>,
    _dir: TempDir,
}

fn secret(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, format!("{text}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

fn listen(dir: &TempDir, token: &str, read_token: &str) -> Listen {
    Listen {
        api: Vec::new(),
        token: Some(SecretSource::File(secret(dir, "token", token))),
        read_token: Some(SecretSource::File(secret(dir, "read_token", read_token))),
        plain: false,
        metrics: None,
    }
}

async fn world() -> World {
    let dir = TempDir::new().unwrap();
    let journal = journal_in(dir.path().join("state"));
    let fleet = Arc::new(Fleet::default());
    let tokens = Arc::new(Tokens::read(&listen(&dir, TOKEN, READ_TOKEN)).unwrap());
    let any = "127.0.0.1:0".parse().unwrap();
    let address = serve_tcp(any, tokens, Arc::clone(&fleet), journal, &Vital::new().0).await.unwrap();
    World { address, fleet, _dir: dir }
}

impl World {
    fn client(&self, token: Option<&str>) -> Client {
        let address = HostPort::parse(&self.address.to_string()).unwrap();
        Client::new(Place::Tcp(address), token.map(|token| Secret::new(token.to_owned())))
    }

    /// Sends those bytes and reads until the other end closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer {
        Err(ClientError::Refused(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_has_the_token_may_order_and_it_is_recorded_from_where() {
    let world = world().await;
    let client = world.client(Some(TOKEN));
    assert_eq!(client.status(None).await.unwrap().deployables.len(), 2);
    client.command(&Command::Start { name: "shop".to_owned() }).await.unwrap();
    assert_eq!(world.fleet.ordered_by(), ["token from 127.0.0.1"]);
}

#[tokio::test]
async fn who_has_the_read_token_may_look_and_not_order() {
    let world = world().await;
    let client = world.client(Some(READ_TOKEN));
    assert_eq!(client.status(None).await.unwrap().deployables.len(), 2);
    let said = refused(client.command(&Command::Start { name: "shop".to_owned() }).await);
    assert!(said.contains("may look and not order"), "{said}");
    assert!(world.fleet.ordered_by().is_empty());
}

#[tokio::test]
async fn without_the_token_nothing_is_said_but_what_to_do() {
    let world = world().await;
    for token in [None, Some("0123456789abcdef0123456789abcdee"), Some(""), Some(&TOKEN[..31])] {
        let said = refused(world.client(token).status(None).await);
        assert!(said.contains("--token-file"), "{said}");
    }
    let answer = world.raw("GET /v1/status HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("www-authenticate: Bearer"), "{answer}");
    assert!(!answer.contains("shop") && !answer.contains(TOKEN), "{answer}");
}

#[tokio::test]
async fn a_web_page_reaches_nothing_even_with_a_token() {
    let world = world().await;
    let ask = |headers: &str| {
        format!(
            "GET /v1/status HTTP/1.1\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n{headers}\r\n"
        )
    };
    let page = world.raw(&ask("host: 127.0.0.1\r\norigin: https://evil.example.org\r\n")).await;
    assert!(page.starts_with("HTTP/1.1 403 ") && page.contains("web page"), "{page}");
    // A name of the attacker's that resolves to this machine.
    let rebound = world.raw(&ask("host: evil.example.org:7070\r\n")).await;
    assert!(rebound.starts_with("HTTP/1.1 403 ") && rebound.contains("ask by IP address"), "{rebound}");
    let nameless = world.raw(&ask("")).await;
    assert!(nameless.starts_with("HTTP/1.1 40"), "{nameless}");
    let operator = world.raw(&ask("host: localhost:7070\r\n")).await;
    assert!(operator.starts_with("HTTP/1.1 200 "), "{operator}");
}

#[tokio::test]
async fn a_head_that_is_too_large_or_never_ends_costs_one_connection_and_not_the_api() {
    let world = world().await;
    let mut slow = TcpStream::connect(world.address).await.unwrap();
    slow.write_all(b"GET /v1/status HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ").await.unwrap();
    let large = format!("GET /v1/status HTTP/1.1\r\nhost: 127.0.0.1\r\nx: {}\r\n\r\n", "x".repeat(80 << 10));
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    // It may be closed before all was taken.
    let _ = stream.write_all(large.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    let mut body = format!(
        "POST /v1/command HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        64 << 10
    );
    body.push_str(&"x".repeat(64 << 10));
    let answer = world.raw(&body).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(world.client(Some(TOKEN)).status(None).await.is_ok(), "the others are served");
    // It is closed by the other end, for its head did not come in time.
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn a_token_that_could_be_guessed_or_that_everybody_can_read_is_refused_by_its_key() {
    let dir = TempDir::new().unwrap();
    let said = |listen: &Listen| Tokens::read(listen).map(|_| ()).unwrap_err().to_string();
    let weak = said(&listen(&dir, "secret", READ_TOKEN));
    assert!(weak.contains("[listen] token") && weak.contains("openssl rand -hex 32"), "{weak}");
    let odd = said(&listen(&dir, TOKEN, "spaces are no part of a token"));
    assert!(odd.contains("[listen] read_token"), "{odd}");
    let open = listen(&dir, TOKEN, READ_TOKEN);
    std::fs::set_permissions(dir.path().join("token"), PermissionsExt::from_mode(0o644)).unwrap();
    let open = said(&open);
    assert!(open.contains("everybody on this machine can read") && !open.contains(TOKEN), "{open}");
}
