//! What comes over the network: what clients send to the API, and what mail servers, DNS servers and web servers answer. Conversations run under a
//! paused clock: what waits for its time-out costs nothing, and one that never ends is seen.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cpe::api::{Controller, Refused, Tokens};
use cpe::fuzzing::{Api, Letterbox};
use cpe::glob::Glob;
use cpe::journal::{Journal, Settings};
use cpe::metrics::Metrics;
use cpe_monitor::direct::fuzzing;
use cpe_proto::api::{Command, CommandAnswer, HostKey, Status};
use cpe_proto::config::{Email, Listen, MailAddress, MailServer};
use cpe_proto::definition::Record;
use cpe_proto::observation::Observation;
use cpe_proto::secret::SecretSource;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, timeout};

use crate::printable;

/// The longest text that is taken over from outside, and words of ours around it, in bytes.
const TEXT_MAX: usize = 5000;
/// Of the API; no answer may have it.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Of the mail server; nothing that is told may have it, nor its parts in base64.
const PASSWORD: &str = "correct horse 7 battery";
/// `\0cpe\0` and the password, and the password.
const PASSWORD_CODED: [&str; 2] =
    ["AGNwZQBjb3JyZWN0IGhvcnNlIDcgYmF0dGVyeQ==", "Y29ycmVjdCBob3JzZSA3IGJhdHRlcnk="];
/// Within this a connection of the API ends whatever its client does.
const PATIENCE: Duration = Duration::from_secs(3600);

struct Site {
    runtime: Runtime,
    local: Api,
    remote: Api,
    mail: [Letterbox; 2],
    _files: TempDir,
}

thread_local! {
    static SITE: Site = Site::new().expect("a place for a journal, and a runtime");
}

struct Nobody;

impl Controller for Nobody {
    async fn status(&self, _: &Glob) -> Status {
        Status { deployables: Vec::new(), paused: None, paused_domains: std::collections::BTreeMap::new() }
    }

    async fn command(&self, _: Command, by: String) -> Result<CommandAnswer, Refused> {
        printable(&by, 300);
        Ok(CommandAnswer { message: "done".to_owned() })
    }

    async fn host_key(&self, _: &str, _: bool) -> Result<HostKey, Refused> {
        Err(Refused::conflict("no key was seen"))
    }

    fn size(&self) -> (usize, usize, usize) {
        (0, 0, 0)
    }
}

impl Site {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let files = TempDir::new()?;
        let secret = |name: &str, text: &str| -> std::io::Result<SecretSource> {
            let path: PathBuf = files.path().join(name);
            std::fs::write(&path, text)?;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
            Ok(SecretSource::File(path))
        };
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let settings = Settings {
            state_dir: files.path().join("state"),
            keep: Duration::from_secs(86_400),
            max_size: 1 << 30,
        };
        let journal = Journal::open(&settings, &Arc::new(Metrics::new()))?;
        let listen = Listen {
            api: Vec::new(),
            token: Some(secret("token", TOKEN)?),
            read_token: None,
            plain: false,
            metrics: None,
        };
        let tokens = Arc::new(Tokens::read(&listen)?);
        let from = SocketAddr::from(([192, 0, 2, 1], 4711));
        let email = |login| -> Result<Letterbox, Box<dyn std::error::Error>> {
            Ok(Letterbox::new(Email {
                to: vec![MailAddress::parse("ops@example.org")?],
                from: MailAddress::parse("cpe@example.org")?,
                server: MailServer::parse("smtp://127.0.0.1", false)?,
                login,
            })?)
        };
        let login = Some(("cpe".to_owned(), secret("password", PASSWORD)?));
        Ok(Self {
            local: Api::local(Arc::new(Nobody), journal.clone()),
            remote: Api::remote(Arc::new(Nobody), journal, tokens, from),
            mail: [email(None)?, email(login)?],
            runtime,
            _files: files,
        })
    }
}

/// What a client does once it has said all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    /// Reads, and closes after a while.
    Closes,
    /// Reads, and stays.
    Stays,
    /// Never reads.
    Deaf,
}

/// The first byte: over which listener, and what the client does; the second: how what follows is cut. `\x01` after
/// `authorization: Bearer ` stands for the token. Whatever comes: the connection ends, the answers are HTTP, none has the token.
pub(crate) fn http(data: &[u8]) {
    let [mode, size, said @ ..] = data else { return };
    let said = replaced(said, b"\nauthorization: Bearer \x01", &format!("\nauthorization: Bearer {TOKEN}"));
    let client = match mode >> 1 & 3 {
        0 | 1 => Client::Closes,
        2 => Client::Stays,
        _ => Client::Deaf,
    };
    let answer = SITE.with(|site| {
        let api = if mode & 1 == 0 { &site.local } else { &site.remote };
        site.runtime.block_on(async {
            let (ours, theirs) = duplex(if client == Client::Deaf { 256 } else { 1 << 16 });
            let served = timeout(PATIENCE, api.serve(theirs));
            let asked = ask(ours, client, said.chunks(usize::from(*size).max(1)));
            let (served, answer) = tokio::join!(served, asked);
            assert!(served.is_ok(), "the connection never ends");
            answer
        })
    });
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "no HTTP: {:?}", lossy(&answer));
    assert!(
        answer.len() <= (16 << 10) + 256 * said.len(),
        "{} bytes in answer to {}",
        answer.len(),
        said.len()
    );
    assert!(!lossy(&answer).contains(TOKEN), "the token is told");
}

async fn ask<'a>(stream: DuplexStream, client: Client, said: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(stream);
    let saying = async {
        for piece in said {
            if write.write_all(piece).await.is_err() {
                return;
            }
        }
        if client == Client::Closes {
            sleep(Duration::from_secs(1)).await;
            let _ = write.shutdown().await;
        }
    };
    if client == Client::Deaf {
        let _ = timeout(PATIENCE, saying).await;
        // It holds its end until the other end has had all patience.
        sleep(PATIENCE).await;
        return Vec::new();
    }
    let mut answer = Vec::new();
    // Who follows events reads for ever: it leaves after a while.
    let (_, _) = tokio::join!(saying, timeout(Duration::from_secs(300), read.read_to_end(&mut answer)));
    answer
}

/// The first byte: whether we log in, and whether the server closes when it has said all. `\x01` stands for what a server could repeat of
/// our login. Whatever it says: the delivery ends in time, and what is told of it is one line without the password.
pub(crate) fn mail(data: &[u8]) {
    let Some((mode, said)) = data.split_first() else { return };
    let said = replaced(said, b"\x01", PASSWORD_CODED[0]);
    let said = replaced(&said, b"\x02", PASSWORD);
    let outcome = SITE.with(|site| {
        site.runtime.block_on(async {
            let (ours, theirs) = duplex(1 << 16);
            let to = MailAddress::parse("ops@example.org").expect("an address");
            let begun = Instant::now();
            let delivery = site.mail[usize::from(mode & 1)].deliver(ours, &to);
            let (outcome, ()) = tokio::join!(delivery, answer(theirs, mode & 2 != 0, &said));
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
            outcome
        })
    });
    let Err(told) = outcome else { return };
    printable(&told, TEXT_MAX);
    for secret in PASSWORD_CODED.iter().chain([&PASSWORD]) {
        assert!(mode & 1 == 0 || !told.contains(secret), "the password is told: {told}");
    }
}

async fn answer(stream: DuplexStream, closes: bool, said: &[u8]) {
    let (mut read, mut write) = tokio::io::split(stream);
    let saying = async {
        let _ = write.write_all(said).await;
        if closes {
            let _ = write.shutdown().await;
        }
    };
    let mut commands = tokio::io::sink();
    let _ = tokio::join!(saying, tokio::io::copy(&mut read, &mut commands));
}

/// The first byte: which records are asked for, and whether one is expected.
pub(crate) fn dns(data: &[u8]) {
    let Some((mode, answer)) = data.split_first() else { return };
    let record = [Record::A, Record::Aaaa, Record::Cname, Record::Mx, Record::Ns, Record::Srv, Record::Txt];
    let record = record[usize::from(mode & 7) % record.len()];
    let expect = (mode & 8 != 0).then_some("192.0.2.80");
    match fuzzing::dns(record, expect, answer) {
        None => {}
        Some(Observation::Expected(said)) => {
            printable(&said, TEXT_MAX);
            assert!(expect.is_none_or(|expect| said.contains(expect)), "{said}");
        }
        Some(Observation::Unexpected(why)) => printable(&why, TEXT_MAX),
        Some(other) => panic!("{other:?}"),
    }
}

/// A certificate in DER, and the value of a `Location` header.
pub(crate) fn web(data: &[u8]) {
    if let Err(Observation::NotRunnable(why)) = fuzzing::expiry(data) {
        printable(&why, TEXT_MAX);
    }
    let Some((same, authority, path)) = fuzzing::redirect(&String::from_utf8_lossy(data)) else { return };
    printable(&path, data.len() * 3 + 8);
    assert!(!path.contains(' '), "{path:?} would be two words of a request");
    assert!(!same || authority == "[2001:db8::1]:8443", "{authority:?} is taken for the same server");
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn replaced(bytes: &[u8], what: &[u8], by: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        if let Some(after) = rest.strip_prefix(what) {
            out.extend_from_slice(by.as_bytes());
            rest = after;
        } else {
            out.push(*first);
            rest = &rest[1..];
        }
    }
    out
}
