//! E-mails, through a real SMTP server (aiosmtpd) on loopback.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cpe_proto::config::{Email, MailAddress, MailServer, Privacy};
use cpe_proto::document::Host;
use cpe_proto::secret::SecretSource;

use super::authority::Authority;
use super::*;

/// A mail server that ends with the test.
struct Post {
    server: Child,
    port: u16,
    out: PathBuf,
}

impl Post {
    fn start(dir: &TempDir, arguments: &[&str]) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/smtpd");
        let out = dir.path().join("mails");
        let mut command = Command::new(program);
        command.arg(&out).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server =
            command.spawn().expect("tests/programs/smtpd starts: /usr/bin/python3 and python3-aiosmtpd");
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("it says its port: is python3-aiosmtpd installed?");
        Self { server, port, out }
    }

    fn got(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.out).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn email(&self, privacy: Privacy) -> Email {
        Email {
            to: vec![MailAddress::parse("ops@example.org").unwrap()],
            from: MailAddress::parse("cpe@example.org").unwrap(),
            server: MailServer { host: Host::parse("127.0.0.1").unwrap(), port: self.port, privacy },
            login: None,
        }
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn notify(email: Email) -> Notify {
    Notify { email: Some(email), ..Notify::default() }
}

/// What stands after that header.
fn header(mail: &Value, name: &str) -> Option<String> {
    let text = mail["text"].as_str().unwrap();
    let lead = format!("{name}: ");
    text.lines()
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix(&lead))
        .map(str::to_owned)
}

#[tokio::test]
async fn an_incident_is_one_thread_from_opening_to_close_also_when_cpe_is_started_anew_between() {
    let dir = TempDir::new().unwrap();
    let post = Post::start(&dir, &[]);
    let kept = journal(&dir);
    kept.event(Some(shop()), incident(EventKind::IncidentOpened, 3));
    let (vital, metrics) = (Vital::new().0, Arc::new(Metrics::new()));
    let email = post.email(Privacy::Plain);
    let notifier =
        Notifier::with_pace(notify(email.clone()), Arc::clone(&metrics), kept.clone(), quick(), &vital);
    notifier.notify(&shop(), Some(IncidentId(3)), "shop/web: unreachable for 5 min");
    until("it is told", || metrics.notifications.sent.get() == 1).await;
    drop(notifier);
    kept.close().await.unwrap();
    drop(kept);
    let second = reopened(&dir).await;
    let notifier = Notifier::with_pace(notify(email), metrics, second.clone(), quick(), &vital);
    notifier.notify(&shop(), Some(IncidentId(3)), "shop/web: unreachable for 9 min");
    notifier.notify(&shop(), Some(IncidentId(3)), "shop/web is exhausted");
    until("the new state is told", || post.got().len() == 2).await;
    second.event(Some(shop()), incident(EventKind::IncidentClosed, 3));
    until("its end is told", || post.got().len() == 3).await;
    let got = post.got();
    let root = header(&got[0], "Message-ID");
    assert_eq!(root.as_deref(), Some("<incident.shop.3@example.org>"));
    for mail in &got {
        assert_eq!((&mail["from"], &mail["to"][0]), (&"cpe@example.org".into(), &"ops@example.org".into()));
        assert_eq!(header(mail, "Subject").as_deref(), Some("cpe: incident shop#3"));
    }
    assert_eq!((header(&got[0], "References"), header(&got[1], "References")), (None, root.clone()));
    assert_eq!((header(&got[1], "In-Reply-To"), header(&got[2], "In-Reply-To")), (root.clone(), root));
    assert!(
        got[1]["text"].as_str().unwrap().contains("shop/web is exhausted"),
        "the same state is told once"
    );
    assert!(got[2]["text"].as_str().unwrap().contains("shop/web: over: healthy for 15 s"));
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again_and_gets_each_e_mail_once() {
    let dir = TempDir::new().unwrap();
    let post = Post::start(&dir, &["--busy", "3"]);
    let metrics = Arc::new(Metrics::new());
    let notify = notify(post.email(Privacy::Plain));
    let notifier = Notifier::with_pace(notify, Arc::clone(&metrics), journal(&dir), quick(), &Vital::new().0);
    notifier.notify(&shop(), None, "first");
    notifier.notify(&shop(), None, "second");
    until("both are sent", || metrics.notifications.sent.get() == 2).await;
    assert_eq!(post.got().len(), 2);
    assert_eq!(metrics.notifications.failed.get(), 0);
}

#[tokio::test]
async fn one_recipient_whom_the_server_refuses_is_said_and_the_others_are_told() {
    let dir = TempDir::new().unwrap();
    let post = Post::start(&dir, &["--refuse", "gone@example.org"]);
    let mut email = post.email(Privacy::Plain);
    email.to.insert(0, MailAddress::parse("gone@example.org").unwrap());
    let metrics = Arc::new(Metrics::new());
    let notifier =
        Notifier::with_pace(notify(email), Arc::clone(&metrics), journal(&dir), quick(), &Vital::new().0);
    notifier.notify(&shop(), None, "shop/web is exhausted");
    let outcome = outcome(&dir, "not told by email").await;
    assert!(
        outcome.contains("not to gone@example.org") && outcome.contains("no such user here"),
        "{outcome}"
    );
    assert!(!outcome.contains("ops@example.org"), "{outcome}");
    let got = post.got();
    assert_eq!((got.len(), &got[0]["to"][0]), (1, &"ops@example.org".into()));
}

#[tokio::test]
async fn a_login_goes_over_tls_and_a_wrong_password_is_given_up_at_once_and_never_shown() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new(&dir);
    let path = |path: &PathBuf| path.display().to_string();
    let tls = |privacy: &str| {
        let files = [path(&authority.certificate), path(&authority.key)];
        let arguments =
            ["--privacy", privacy, "--cert", &files[0], "--key", &files[1], "--login", "cpe:hunter2"];
        Post::start(&dir, &arguments)
    };
    let password = dir.path().join("password");
    std::fs::write(&password, "hunter2\n").unwrap();
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).unwrap();
    let login = Some(("cpe".to_owned(), SecretSource::File(password.clone())));
    let kept = journal(&dir);
    for (number, (word, privacy)) in
        [("tls", Privacy::Tls), ("starttls", Privacy::StartTls)].into_iter().enumerate()
    {
        let post = tls(word);
        let email = Email { login: login.clone(), ..post.email(privacy) };
        let notify = Notify { ca: Some(authority.ca.clone()), ..notify(email) };
        let notifier =
            Notifier::with_pace(notify, Arc::new(Metrics::new()), kept.clone(), quick(), &Vital::new().0);
        notifier.notify(&shop(), None, "shop/web is exhausted");
        until("it is told", || post.got().len() == number + 1).await;
        let mail = post.got().pop().unwrap();
        assert_eq!((&mail["tls"], &mail["authenticated"]), (&true.into(), &true.into()), "{word}");
    }
    std::fs::write(&password, "hunter3\n").unwrap();
    let post = tls("starttls");
    let email = Email { login, ..post.email(Privacy::StartTls) };
    let notify = Notify { ca: Some(authority.ca.clone()), ..notify(email) };
    let notifier = Notifier::with_pace(notify, Arc::new(Metrics::new()), kept, quick(), &Vital::new().0);
    notifier.notify(&shop(), None, "shop/web is exhausted");
    let outcome = outcome(&dir, "not told by email").await;
    assert!(outcome.contains("535") && !outcome.contains("hunter"), "{outcome}");
}

#[tokio::test]
async fn without_the_tls_that_was_meant_nothing_is_sent() {
    let dir = TempDir::new().unwrap();
    let post = Post::start(&dir, &[]);
    let metrics = Arc::new(Metrics::new());
    let notify = notify(post.email(Privacy::StartTls));
    let notifier = Notifier::with_pace(notify, Arc::clone(&metrics), journal(&dir), quick(), &Vital::new().0);
    notifier.notify(&shop(), None, "shop/web is exhausted");
    let outcome = outcome(&dir, "not told by email").await;
    assert!(outcome.contains("STARTTLS"), "{outcome}");
    assert!(post.got().is_empty());
}
