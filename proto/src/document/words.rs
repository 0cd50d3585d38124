//! What stands in quotes in a file: durations, sizes, hosts, ports; and the nearest word for one that is not known.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The longest word for which a nearest one is looked for, and the most of a text that a message repeats.
const SHOWN_MAX_CHARS: usize = 64;

/// The word among those known that was probably meant, if one is near enough.
#[must_use]
pub fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    if word.len() > SHOWN_MAX_CHARS {
        return None;
    }
    let distance = |candidate: &'w str| (strsim::osa_distance(word, candidate), candidate);
    let (distance, candidate) = known.into_iter().map(distance).min_by_key(|(distance, _)| *distance)?;
    let near = candidate.chars().count().max(word.chars().count()).div_ceil(3);
    (distance <= near).then_some(candidate)
}

/// `, nearest is X`, or nothing.
pub(crate) fn nearest_clause<'w>(
    word: &str,
    known: impl IntoIterator<Item = &'w str>,
    quote: char,
) -> String {
    nearest(word, known).map(|near| format!(", nearest is {quote}{near}{quote}")).unwrap_or_default()
}

/// A text of a file as a message shows it: cut, and on one line.
pub(crate) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_MAX_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().count() > SHOWN_MAX_CHARS { format!("{cut}...") } else { cut }
}

/// A duration as people write it: "3s", "1h 30m", "500ms".
///
/// # Errors
/// What is expected.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text)
        .map_err(|_| "a duration with its unit, as \"3s\", \"500ms\" or \"1h 30m\"")
}

/// A size in bytes: "512MiB", "2 GiB", "10GB", "4096".
///
/// # Errors
/// What is expected.
pub fn parse_size(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "a size with its unit, as \"512MiB\" or \"2GiB\"";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(EXPECTED),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or(EXPECTED)
}

/// A text for other programs (an id, a tag, an image's name): 1 to 255 characters, none of them a control character.
///
/// # Errors
/// What is expected.
pub fn plain_text(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() || text.chars().count() > 255 || text.chars().any(char::is_control) {
        return Err("1 to 255 characters on one line");
    }
    Ok(text.to_owned())
}

/// An IP address or a host name, written in one way only, so that two that are equal are equal as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(String);

impl Host {
    /// Parses an IPv4 or IPv6 address or a host name (RFC 1123).
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "an IP address or a host name";
        let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self(address.to_string()));
        }
        // Digits and dots that are no IPv4 address are a slip of the pen, not a name.
        let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let name = text.strip_suffix('.').unwrap_or(text);
        if numeric || name.len() > 253 || !name.split('.').all(is_label) {
            return Err(EXPECTED);
        }
        Ok(Self(name.to_ascii_lowercase()))
    }

    /// Whoever asks, itself.
    pub(crate) fn loopback() -> Self {
        Self("127.0.0.1".to_owned())
    }

    /// The host as text; an IPv6 address without brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_label(label: &str) -> bool {
    let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    plain && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
}

/// A host and a port: `192.0.2.1:22`, `[2001:db8::1]:22`, `db:5432`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port, from 1.
    pub port: u16,
}

impl HostPort {
    /// Parses a host and a port.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "HOST:PORT with a port of 1 to 65535, as \"127.0.0.1:5432\" or \"[::1]:5432\"";
        if let Ok(address) = text.parse::<SocketAddr>()
            && address.port() > 0
        {
            return Ok(Self { host: Host(address.ip().to_string()), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
        let host = Host::parse(host).map_err(|_| EXPECTED)?;
        match port.parse::<u16>() {
            Ok(port) if port > 0 && !host.0.contains(':') => Ok(Self { host, port }),
            _ => Err(EXPECTED),
        }
    }
}

/// Whether a text fits a pattern, in which `*` stands for any bytes and `?` for one. Greedy, with one point to go back to: linear space, and at worst the product of both lengths.
#[must_use]
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                back = Some((at + 1, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((star, tried)) = back else { return false };
                back = Some((star, tried + 1));
                at = star;
                from = tried + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_do_not_overflow() {
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("512 MiB"), Ok(512 << 20));
        assert_eq!(parse_size("4096"), Ok(4096));
        for bad in ["", "GiB", "-1", "1.5GiB", "2Gib", "99999999TiB", "99999999999999999999"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_has_one_spelling() {
        let same = |one: &str, other: &str| assert_eq!(Host::parse(one), Host::parse(other), "{one} {other}");
        same("2001:db8::1", "2001:0DB8:0:0:0:0:0:1");
        same("[::1]", "::1");
        same("Web.Example.com.", "web.example.com");
        for bad in [
            "",
            ".",
            "a b",
            "-a",
            "a_b",
            "192.0.2.256",
            "192.0.2",
            "a..b",
            "{web.address}",
            "::1::",
            &"x".repeat(64),
        ] {
            assert!(Host::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_belongs_to_a_host() {
        assert_eq!(HostPort::parse("db:5432").map(|parsed| parsed.port), Ok(5432));
        assert_eq!(
            HostPort::parse("[::1]:22").map(|parsed| parsed.host.as_str().to_owned()),
            Ok("::1".to_owned())
        );
        for bad in ["db", "db:", "db:0", "db:65536", ":22", "::1:22x", "2001:db8::1:", "1.2.3.4:0"] {
            assert!(HostPort::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("intervall", ["interval", "timeout"]), Some("interval"));
        assert_eq!(nearest("systemdd", ["systemd", "process"]), Some("systemd"));
        assert_eq!(nearest("zebra", ["interval", "timeout"]), None);
        assert_eq!(nearest(&"x".repeat(1000), ["x"]), None);
    }
}
