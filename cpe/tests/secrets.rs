//! A secret is planted in each place that can hold one, each with a word of its own. cpe is then driven through starts, faults, programs
//! that fail and show what they were called with, and people who cannot be told, with everything logged; and nothing that anybody
//! else can read holds one of these words.
#![allow(clippy::unwrap_used, reason = "what fails here is a test's failure")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cpe::demo::world::World;
use cpe_sim::live::{Behaviour, MachineSpec, UnitSpec};
use tokio::runtime::Runtime;

/// More than anything here takes on a slow machine.
const DEADLINE: Duration = Duration::from_secs(90);

const UNIT: &str = "nginx.service";

const PASSPHRASE: &str = "planted-passphrase-of-the-key";
const WRONG_PASSPHRASE: &str = "planted-passphrase-of-another-key";
const PARAMETER: &str = "planted-token-of-the-infrastructure";
const OWN_PARAMETER: &str = "planted-token-of-the-assembly";
const FENCE_FILE: &str = "planted-password-in-a-file";
const API_TOKEN: &str = "planted-token-of-an-operator";
const READ_TOKEN: &str = "planted-token-of-a-reader";
const MAIL_PASSWORD: &str = "planted-password-of-the-mail-account";
const FENCE_TEXT: &str = "planted-community-in-cpe-toml";
const WEBHOOK_PATH: &str = "planted-path-of-the-webhook";
const WEBHOOK_QUERY: &str = "planted-query-of-the-webhook";
const ENVIRONMENT: &str = "planted-word-of-the-environment";

/// Two machines: one with a program as its infrastructure, one with a fence agent. Neither can be helped.
fn definition(name: &str, infrastructure: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\ninfrastructure = \"{infrastructure}\"\n\
         [probe]\ninterval = \"500ms\"\ntimeout = \"2s\"\nconfirm_interval = \"100ms\"\nstable_for = \"300ms\"\n\
         startup_grace = \"2s\"\n\
         [escalation]\nservice = {{ failures = 1, within = \"1h\" }}\nassembly = {{ failures = 2, within = \"1h\" }}\n\
         [timing]\nmachine_action_timeout = \"10s\"\n\
         [assemblies.vm]\naddress = \"{{{name}}}\"\n{more}\
         [assemblies.vm.services.nginx]\nsystemd = \"{UNIT}\"\n"
    )
}

/// Shows everything that it was given, on both ways out, and fails.
const TELLTALE: &str = "#!/bin/sh\ninput=$(cat)\nprintf '%s\\n' \"$input\"; env\n\
                        { echo \"called with $*\"; printf '%s\\n' \"$input\"; env; } >&2\nexit 1\n";

/// An agent with metadata in order, that does the same otherwise.
const AGENT: &str = "#!/bin/sh\ninput=$(cat)\ncase $input in *action=metadata*)\n\
    echo '<resource-agent><parameters><parameter name=\"ip\"/><parameter name=\"plug\"/><parameter name=\"password\"/>'\n\
    echo '<parameter name=\"community\"/></parameters><actions><action name=\"on\"/><action name=\"off\"/>'\n\
    echo '<action name=\"status\"/><action name=\"reboot\"/></actions></resource-agent>'; exit 0;;\nesac\n\
    printf '%s\\n' \"$input\"; env\n{ printf '%s\\n' \"$input\"; env; } >&2\nexit 1\n";

struct Site {
    world: World,
    runtime: Runtime,
    root: PathBuf,
    controller: Option<Child>,
    _directory: tempfile::TempDir,
}

impl Site {
    fn new(webhook: SocketAddr) -> Self {
        let runtime = Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("world");
        let machine = |name: &str| MachineSpec::new(name, vec![UnitSpec::new(UNIT)]);
        let parameters = format!("parameters = {{ secret = \"{OWN_PARAMETER}\" }}\n");
        let definitions = [
            ("a.toml", definition("a", "lab", &parameters)),
            ("b.toml", definition("b", "rack", "fence = { plug = \"7\" }\n")),
        ];
        let definitions: Vec<(&str, &str)> =
            definitions.iter().map(|(file, text)| (*file, &**text)).collect();
        let cpe = env!("CARGO_BIN_EXE_cpe").as_ref();
        let machines = vec![machine("a"), machine("b")];
        let world = runtime.block_on(World::build(root.clone(), machines, &definitions, cpe)).unwrap();
        let site = Self { world, runtime, root, controller: None, _directory: directory };
        site.plant(webhook);
        site
    }

    fn plant(&self, webhook: SocketAddr) {
        let private = |file: &str, text: &str, mode| {
            fs::write(self.root.join(file), text).unwrap();
            fs::set_permissions(self.root.join(file), PermissionsExt::from_mode(mode)).unwrap();
        };
        let identity = self.root.join("identity");
        let encrypt = ["-q", "-p", "-P", "", "-N", PASSPHRASE, "-f", identity.to_str().unwrap()];
        let encrypted = Command::new("ssh-keygen").args(encrypt).output().expect("install openssh-client");
        assert!(encrypted.status.success(), "{}", String::from_utf8_lossy(&encrypted.stderr));
        private("passphrase", PASSPHRASE, 0o600);
        private("fence-password", FENCE_FILE, 0o600);
        private("token", API_TOKEN, 0o600);
        private("read-token", READ_TOKEN, 0o600);
        private("mail-password", MAIL_PASSWORD, 0o600);
        private("lab", TELLTALE, 0o700);
        private("fence_telltale", AGENT, 0o700);
        private("page", "#!/bin/sh\ncat >>\"${0%/*}/told\"\n", 0o700);
        let config = fs::read_to_string(self.world.config_file()).unwrap();
        let config = config.replace("metrics = \"off\"", "metrics = \"127.0.0.1:0\"").replace(
            "identity = \"identity\"",
            "identity = \"identity\"\npassphrase = { file = \"passphrase\" }",
        );
        let listen = "[listen]\ntoken = { file = \"token\" }\nread_token = { file = \"read-token\" }\n";
        let config =
            config.replace("[listen]\n", listen).replace("api = \"unix", "api = [\"127.0.0.1:0\", \"unix");
        let config = config.replace("api.sock\"", "api.sock\"]");
        let config = format!(
            "{config}[infrastructures.lab]\nkind = \"command\"\nprogram = \"lab\"\n\
             parameters = {{ api_token = \"{PARAMETER}\" }}\n\
             capabilities = [\"status\", \"reboot-soft\", \"reboot-hard\"]\n\
             [infrastructures.rack]\nkind = \"fence\"\nagent = \"{}/fence_telltale\"\n\
             options = {{ ip = \"192.0.2.9\", community = \"{FENCE_TEXT}\", password = {{ file = \"fence-password\" }} }}\n\
             [notify]\ncommand = \"page\"\nwebhook = \"http://{webhook}/{WEBHOOK_PATH}?key={WEBHOOK_QUERY}\"\n\
             [notify.email]\nto = [\"ops@example.org\"]\nfrom = \"cpe@example.org\"\nserver = \"smtp://127.0.0.1:1\"\n\
             username = \"cpe\"\npassword = {{ file = \"mail-password\" }}\n",
            self.root.display(),
        );
        private("cpe.toml", &config, 0o600);
    }

    /// What nobody may find anywhere: the planted words, and what the private key is made of.
    fn secrets(&self) -> Vec<String> {
        let key = self.world.fleet.client_key_openssh();
        let body: Vec<String> =
            key.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned).collect();
        assert!(body.len() > 2, "the key has lines");
        // Its first lines are of the format, and of the public half.
        let private = body.into_iter().skip(2);
        let words = [
            PASSPHRASE,
            WRONG_PASSPHRASE,
            PARAMETER,
            OWN_PARAMETER,
            FENCE_FILE,
            API_TOKEN,
            READ_TOKEN,
            MAIL_PASSWORD,
            FENCE_TEXT,
            WEBHOOK_PATH,
            WEBHOOK_QUERY,
            ENVIRONMENT,
        ];
        words.map(str::to_owned).into_iter().chain(private).collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cpe"));
        command.arg("--config").arg(self.world.config_file()).args(arguments).stdin(Stdio::null());
        // Of the dependencies, too, all that they would ever say.
        command.env("RUST_LOG", "trace").env("PLANTED_WORD", ENVIRONMENT).env("RUST_BACKTRACE", "full");
        command
    }

    fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.command(&["run"]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.controller = Some(command.spawn().unwrap());
    }

    /// As a crash that would leave a core where one is allowed.
    fn abort(&mut self) {
        let Some(mut controller) = self.controller.take() else { return };
        let id = rustix::process::Pid::from_child(&controller);
        rustix::process::kill_process(id, rustix::process::Signal::ABORT).unwrap();
        controller.wait().unwrap();
    }

    fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn wait<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "not within {DEADLINE:?}: {what}\n{}",
                String::from_utf8_lossy(&self.ask(&["events"]).stdout)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything that cpe says to whoever asks it.
    fn answers(&self) -> Vec<(String, Vec<u8>)> {
        let commands: [&[&str]; 9] = [
            &["status"],
            &["events"],
            &["why", "a"],
            &["why", "b"],
            &["why-not", "a"],
            &["why-not", "b"],
            &["audit"],
            &["check", "deployables"],
            &["status", "nobody"],
        ];
        let mut all = Vec::new();
        for command in commands {
            for json in [&[][..], &["--json"]] {
                let said = self.command(&[command, json].concat()).current_dir(&self.root).output().unwrap();
                all.push((format!("cpe {command:?} {json:?}"), [said.stdout, said.stderr].concat()));
            }
        }
        all.push(("metrics".to_owned(), self.metrics()));
        all
    }

    /// The log says where the system has put them.
    fn metrics(&self) -> Vec<u8> {
        if self.controller.is_none() {
            return Vec::new();
        }
        let log = fs::read_to_string(self.log()).unwrap();
        let said = log.lines().rev().find(|line| line.contains("metrics are served at"));
        let place = said.and_then(|line| line.split("127.0.0.1:").nth(1)).expect("the log names the port");
        let port: String = place.chars().take_while(char::is_ascii_digit).collect();
        let mut stream = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: cpe\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.windows(4).any(|word| word == b"cpe_"), "no metrics");
        answer
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut controller) = self.controller.take() {
            // It may have ended by itself: then there is nothing to end.
            let _ = controller.kill();
            let _ = controller.wait();
        }
    }
}

/// A receiver that refuses everything and shows what it was asked for. Ends with the test's process.
fn refuse_all() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut first = String::new();
            // Whoever goes away early is no matter here.
            let _ = BufReader::new(&stream).read_line(&mut first);
            let body = format!("you asked for {first}");
            let answer = format!("HTTP/1.1 500 {}\r\nContent-Length: {}\r\n\r\n{body}", "Oops", body.len());
            let _ = (&stream).write_all(answer.as_bytes());
        }
    });
    address
}

fn found(secrets: &[String], place: &str, bytes: &[u8]) -> Vec<String> {
    let holds = |secret: &&String| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
    let line = |secret: &String| {
        let text = String::from_utf8_lossy(bytes);
        let line = text.lines().find(|line| line.contains(secret.as_str())).unwrap_or_default();
        format!("{secret} in {place}: {}", line.chars().take(600).collect::<String>())
    };
    secrets.iter().filter(holds).map(line).collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn what_is_secret_is_in_no_log_event_metric_answer_or_notification_and_not_in_the_journal() {
    let mut site = Site::new(refuse_all());
    // First with a passphrase that does not fit: an error that is near to the secret.
    fs::write(site.root.join("passphrase"), WRONG_PASSPHRASE).unwrap();
    site.start();
    site.wait("the key to be refused", || {
        fs::read_to_string(site.log())
            .ok()
            .filter(|log| log.contains("passphrase") || log.contains("identity"))
    });
    site.abort();
    fs::write(site.root.join("passphrase"), PASSPHRASE).unwrap();
    site.start();
    let healthy = |name| site.ask(&["status", name]).status.code() == Some(0);
    site.wait("both to be healthy", || (healthy("a") && healthy("b")).then_some(()));

    for name in ["a", "b"] {
        let machine = site.world.fleet.machine(name).unwrap();
        site.runtime.block_on(machine.behave(UNIT, Behaviour::FailsToStart)).unwrap();
        machine.kill_unit(UNIT).unwrap();
    }
    // Both programs fail to reboot them, and show what they know.
    for name in ["a", "b"] {
        site.wait("an action that went wrong, with what its program said", || {
            let said = site.ask(&["why", name, "--json"]).stdout;
            String::from_utf8_lossy(&said).contains("it said:").then_some(())
        });
    }
    let order = |order: &[&str]| assert!(site.ask(order).status.code().is_some());
    order(&["maintenance", "on", "a", "--for", "1h", "--reason", "x"]);
    order(&["maintenance", "off", "a"]);
    order(&["retry", "b"]);
    order(&["pause", "--reason", "x"]);
    order(&["resume"]);
    site.wait("a POST that is tried again", || {
        let log = fs::read_to_string(site.log()).unwrap();
        log.contains("a notification is tried again").then_some(())
    });
    let mut places = site.answers();
    site.abort();
    places.extend(site.answers().into_iter().filter(|(place, _)| place != "metrics"));

    let secrets = site.secrets();
    let held: [&str; 7] =
        ["cpe.toml", "passphrase", "fence-password", "token", "read-token", "mail-password", "a.toml"];
    for file in files_below(&site.root) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if fs::symlink_metadata(&file).unwrap().is_file() && !held.contains(&&*name) && name != "identity" {
            places.push((file.display().to_string(), fs::read(&file).unwrap()));
        }
    }
    for needed in ["log", "told", "journal"] {
        assert!(
            places.iter().any(|(place, bytes)| place.contains(needed) && !bytes.is_empty()),
            "no {needed}"
        );
    }
    let leaks: Vec<String> = places.iter().flat_map(|(place, bytes)| found(&secrets, place, bytes)).collect();
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
}
