//! Files that people write: definitions, cpe.toml, known hosts.

use std::fmt::Debug;

use cpe_monitor::ssh::fuzzing::Hosts;
use cpe_proto::config::Config;
use cpe_proto::definition::{Definition, TemplatesFile};
use cpe_proto::document::{DIAGNOSTICS_MAX, Diagnostic};

use crate::printable;

/// What is said of one place of a file, in bytes: several words of the file, each shown cut.
const MESSAGE_MAX: usize = 2000;

/// What separates a definition from the templates beside it.
const TEMPLATES: &[u8] = b"\n%%\n";

pub(crate) fn definition(data: &[u8]) {
    let Some(at) = data.windows(TEMPLATES.len()).position(|it| it == TEMPLATES) else {
        return read(data, Definition::parse_bytes);
    };
    let (own, templates) = (&data[..at], &data[at + TEMPLATES.len()..]);
    read(templates, TemplatesFile::parse_bytes);
    let Ok(file) = TemplatesFile::parse_bytes("templates", templates) else { return };
    read(own, |file_name, bytes| Definition::parse_with(file_name, bytes, Some(&file.open())));
}

pub(crate) fn config(data: &[u8]) {
    read(data, Config::parse_bytes);
}

/// The same answer each time; what is wrong is told in so many lines at most, each with a place that is in the file.
fn read<T: Debug>(data: &[u8], parse: impl Fn(&str, &[u8]) -> Result<T, Vec<Diagnostic>>) {
    let first = parse("file", data);
    let again = parse("file", data);
    assert_eq!(format!("{first:?}"), format!("{again:?}"), "read twice, understood differently");
    let Err(diagnostics) = first else { return };
    assert!(diagnostics.iter().any(Diagnostic::is_error), "refused without an error");
    assert!(diagnostics.len() <= DIAGNOSTICS_MAX + 1, "{} diagnostics", diagnostics.len());
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.split('\n').collect();
    for diagnostic in &diagnostics {
        printable(&diagnostic.to_string(), MESSAGE_MAX);
        let line = usize::try_from(diagnostic.line).unwrap_or(usize::MAX);
        let Some(text) = line.checked_sub(1).and_then(|line| lines.get(line)) else {
            panic!("no such line: {diagnostic}");
        };
        let columns = text.chars().count() + 1;
        let column = usize::try_from(diagnostic.column).unwrap_or(usize::MAX);
        assert!((1..=columns).contains(&column), "no such column: {diagnostic}");
    }
}

/// A key of nobody.
const STRANGER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

/// A key that is not in a file is not believed, whatever else is in it; and a line of ours is, unless it is revoked.
pub(crate) fn known_hosts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let hosts = Hosts::read(&text);
    let body = STRANGER.split(' ').nth(1).unwrap_or_default();
    if !text.contains(body) {
        for (host, port) in [("192.0.2.1", 22), ("web.example.org", 2222), ("", 22), ("*", 22)] {
            assert!(!hosts.believes(host, port, STRANGER), "a stranger's key is believed of {host}:{port}");
        }
        let with = Hosts::read(&format!("{text}\nours.example.org {STRANGER}\n"));
        assert!(with.believes("ours.example.org", 22, STRANGER), "a line in order is not understood");
        assert!(!with.believes("other.example.org", 22, STRANGER), "it is believed of another host");
        let revoked = Hosts::read(&format!("ours.example.org {STRANGER}\n@revoked * {STRANGER}\n{text}"));
        assert!(!revoked.believes("ours.example.org", 22, STRANGER), "a revoked key is believed");
    }
}
