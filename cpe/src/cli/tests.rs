//! What may be typed.

use clap::CommandFactory;
use expect_test::expect_file;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("cpe").chain(line.split_whitespace()))
}

#[test]
fn the_command_line_is_well_formed_and_explains_itself() {
    Cli::command().debug_assert();
    let mut help = Cli::command().term_width(100).render_long_help().to_string();
    for name in ["check", "status", "events", "why", "maintenance", "pause", "resume", "audit"] {
        let mut root = Cli::command().term_width(100);
        root.build();
        help += &format!("\n== {name}\n{}", root.find_subcommand_mut(name).unwrap().render_help());
    }
    // Where clap left spaces at the end of a line, an editor would not.
    let help: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    expect_file!["snapshots/help.txt"].assert_eq(&help);
}

#[test]
fn everything_of_the_manual_can_be_typed() {
    for line in [
        "run",
        "--config /tmp/cpe.toml run",
        "run --config /tmp/cpe.toml",
        "demo",
        "check deployables",
        "check a.toml b.toml --json",
        "status",
        "status shop/*/nginx --json",
        "stop shop --power-off",
        "events",
        "events shop --follow --json --since 1h",
        "why shop/web/nginx",
        "why shop#3",
        "audit",
        "audit /tmp/journal.sqlite --json",
        "audit --state-dir /var/lib/cpe --open-for 1h",
        "schema definition",
        "schema config",
        "completions bash",
        "man /tmp/man",
        "why-not shop/web/nginx",
        "why-not * --json",
        "start shop",
        "stop shop",
        "maintenance on shop/web --for 2h --reason disk",
        "maintenance off shop/web",
        "pause --reason storm",
        "pause shop --reason migration",
        "resume",
        "resume shop --reason done",
        "retry shop/web/nginx",
        "ack shop#3",
        "ack shop",
        "recover shop/web",
        "recover shop/web/nginx --rung restart-service --reason leaks",
        "confirm-fenced shop/web --reason dark",
        "claim shop/web --reason moved",
        "trust shop/web",
        "trust shop/web --jump --fingerprint SHA256:abc",
    ] {
        let parsed = parse(line);
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
}

#[test]
fn what_makes_no_sense_is_wrong_usage_and_says_why() {
    for (line, says) in [
        ("", "Usage"),
        ("statsu", "status"),
        ("check", "PATH"),
        ("status Shop", "is no name"),
        ("events --since soon", "--since"),
        ("why shop#x", "shop#3"),
        ("maintenance on shop", "--for"),
        ("maintenance on shop --for 2h", "--reason"),
        ("pause shop", "--reason"),
        ("ack shop#x", "shop#3"),
        ("recover shop/web --rung replace", "reboot-hard"),
        ("confirm-fenced shop/web", "--reason"),
        ("completions dos", "possible values"),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(says), "{line}: {error}");
    }
}

#[test]
fn the_place_of_the_controller_is_the_command_lines_or_else_the_configurations_socket_before_its_port() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let token = "token = { file = \"token\" }\n";
    let both =
        file("both.toml", &format!("[listen]\n{token}api = [\"127.0.0.1:7070\", \"unix:/run/a.sock\"]\n"));
    let port = file("port.toml", &format!("[listen]\n{token}api = \"[::1]:7070\"\n"));
    let place = |line: &str| {
        let client = ask::client(&parse(line).unwrap());
        client.map(|client| client.place().to_string()).map_err(|failure| failure.to_string())
    };
    assert_eq!(place(&format!("--config {both} status")).unwrap(), "/run/a.sock");
    let missing = place(&format!("--config {port} status")).unwrap_err();
    assert!(missing.starts_with("the token: ") && missing.contains("cannot be read"), "{missing}");
    let token = file("token", "0123456789abcdef0123456789abcdef\n");
    assert_eq!(place(&format!("--config {port} status")).unwrap(), "[::1]:7070");
    assert_eq!(place(&format!("status --api node1:7070 --token-file {token}")).unwrap(), "node1:7070");
    assert_eq!(place("--api unix:/run/b.sock status").unwrap(), "/run/b.sock");
    assert!(parse("--api /run/b.sock status").is_err() && parse("--api node1 status").is_err());
}
