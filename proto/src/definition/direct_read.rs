//! Reads the kinds of probes that the controller makes itself: `http`, `tls`, `dns`, `icmp`, and `tcp` with `from = "controller"`. What
//! they are is in `direct.rs` and `http.rs`. Where no host is given, it is that of the assembly itself, and with `from = "guest"` its
//! loopback, as for `tcp`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::direct::{DNS_PORT, Direct, Dns, HostOf, PortOf, Record, Tls};
use super::http::{HeaderValue, Http, Method, Pattern, Statuses, Url};
use super::schema::{CHANNEL, DNS, HEADER, HTTP, TLS};
use crate::document::{Host, Schema, Table, Text, TextOrTable, plain_text};
use crate::fence::is_secret;
use crate::ssh::credential;

/// A probe whose reference is still a word.
pub(super) type Template = Direct<Arc<str>>;

/// The most headers of one request, and of one answer.
const HEADERS_MAX: usize = 32;

/// The longest text that is sent or looked for, in bytes.
const TEXT_MAX_BYTES: usize = 1024;

/// A day, for the times of certificates.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A host whose reference is still a word.
type HostTemplate = HostOf<Arc<str>>;

/// Reads the kind that is there; `own` is whom it asks where no host is given.
pub(super) fn read_direct(table: &Table<'_>, kind: &str, own: &HostTemplate) -> Option<Template> {
    match kind {
        "tcp" => read_port(table, "tcp", own).map(Direct::Tcp),
        "tls" => read_tls(table, own).map(Direct::Tls),
        "http" => read_http(table).map(|http| Direct::Http(Box::new(http))),
        "dns" => read_dns(table, own).map(Direct::Dns),
        _ => read_icmp(table, own).map(Direct::Icmp),
    }
}

/// `channel` of an assembly that is reached by direct probes alone. Only whether it answers matters there.
pub(super) fn read_channel(table: &Table<'_>, own: Text<'_>) -> Option<Template> {
    let channel = table.table("channel", &CHANNEL)?;
    let given: Vec<&str> = CHANNEL.keys.iter().copied().filter(|key| channel.has(key)).collect();
    let [kind] = given.as_slice() else {
        let message = format!(
            "{} has {} kinds, expected one of `http`, `tls`, `tcp` and `icmp`",
            channel.title(),
            given.len()
        );
        table.report().error(table.at_key("channel"), message);
        return None;
    };
    let read = read_direct(&channel, kind, &own_host(own));
    if matches!(&read, Some(Direct::Http(http)) if http.url.referring().is_some()) {
        let message = "the path of a `channel` refers to something, expected a path as it is; only its host may refer, and the path of a service's `http`";
        table.report().error(channel.at_key(kind), message);
    }
    read
}

/// The assembly of that name.
pub(super) fn own_host(own: Text<'_>) -> HostTemplate {
    HostOf::Assembly(own.text.into())
}

/// The guest as it sees itself.
pub(super) fn guest_itself() -> HostTemplate {
    HostOf::Host(Host::loopback())
}

/// A port of the assembly itself, or `HOST:PORT`.
fn read_port(table: &Table<'_>, key: &str, own: &HostTemplate) -> Option<PortOf<Arc<str>>> {
    if table.is_number(key) {
        let port = table.number(key, 1, 65535).and_then(|port| u16::try_from(port).ok())?;
        return Some(PortOf { host: own.clone(), port });
    }
    table.parse(key, |text| PortOf::parse(text, None))
}

/// `icmp = true` is the assembly itself.
fn read_icmp(table: &Table<'_>, own: &HostTemplate) -> Option<HostTemplate> {
    if !table.is_flag("icmp") {
        let expected = "true, or a host in quotes: a name, an IP address or {ASSEMBLY.address}";
        return table.parse("icmp", |text| {
            HostOf::parse(text).map_err(|error| error.unwrap_or_else(|| expected.to_owned()))
        });
    }
    if table.flag("icmp") == Some(false) {
        table.report().error(table.at_key("icmp"), "`icmp` is false, expected true or a host");
    }
    Some(own.clone())
}

/// Whether the key's value is a table of that kind; a text or a number is the short form.
fn long_form<'t>(table: &Table<'t>, key: &str, schema: &'static Schema) -> Option<Table<'t>> {
    table.is_table(key).then(|| table.table(key, schema)).flatten()
}

fn read_tls(table: &Table<'_>, own: &HostTemplate) -> Option<Tls<Arc<str>>> {
    let Some(inner) = long_form(table, "tls", &TLS) else {
        let to = read_port(table, "tls", own)?;
        return Some(Tls {
            to,
            name: None,
            warn_before: Duration::ZERO,
            fail_before: Duration::ZERO,
            ca: None,
        });
    };
    inner.require("to", "to = 443, or \"HOST:PORT\"");
    let before = |key| inner.duration(key, Duration::ZERO, 3650 * DAY).unwrap_or_default();
    let tls = Tls {
        to: read_port(&inner, "to", own)?,
        name: inner.parse("name", Host::parse),
        warn_before: before("warn_before"),
        fail_before: before("fail_before"),
        ca: read_ca(&inner),
    };
    if inner.has("warn_before") && tls.warn_before <= tls.fail_before {
        let message = "`warn_before` is not longer than `fail_before`, so nothing is told before it fails";
        inner.report().error(inner.at_key("warn_before"), message);
    }
    Some(tls)
}

fn read_ca(table: &Table<'_>) -> Option<PathBuf> {
    table.parse("ca", absolute)
}

fn absolute(text: &str) -> Result<PathBuf, &'static str> {
    match text.starts_with('/') {
        true => plain_text(text).map(PathBuf::from),
        false => Err("an absolute path"),
    }
}

fn read_dns(table: &Table<'_>, own: &HostTemplate) -> Option<Dns<Arc<str>>> {
    let own_server = || PortOf { host: own.clone(), port: DNS_PORT };
    let Some(inner) = long_form(table, "dns", &DNS) else {
        let name = table.parse("dns", record_name)?;
        return Some(Dns { name, record: Record::A, expect: Arc::default(), server: own_server() });
    };
    inner.require("name", "name = \"www.example.com\"");
    let expect =
        inner.list("expect", |text| plain_text(text).map(String::into_boxed_str)).unwrap_or_default();
    if expect.len() > HEADERS_MAX {
        let message = format!("`expect` has {} entries, expected at most {HEADERS_MAX}", expect.len());
        inner.report().error(inner.at_key("expect"), message);
    }
    let server = match inner.has("server") {
        true => inner.parse("server", |text| PortOf::parse(text, Some(DNS_PORT))),
        false => Some(own_server()),
    };
    Some(Dns {
        name: inner.parse("name", record_name)?,
        record: inner.word("type", &Record::ALL.map(|record| (record.as_str(), record))).unwrap_or_default(),
        expect: expect.into(),
        server: server?,
    })
}

/// A name as DNS has it (RFC 1035, with the underscores of RFC 8552), in one spelling.
fn record_name(text: &str) -> Result<Arc<str>, &'static str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        plain && (1..=63).contains(&label.len())
    };
    match name.len() <= 253 && name.split('.').all(label) {
        true => Ok(name.to_ascii_lowercase().into()),
        false => Err("a name of DNS, as \"www.example.com\""),
    }
}

fn read_http(table: &Table<'_>) -> Option<Http<Arc<str>>> {
    let Some(inner) = long_form(table, "http", &HTTP) else {
        return table.parse("http", Url::parse).map(Http::get);
    };
    inner.require("url", "url = \"http://{ASSEMBLY.address}/\"");
    let method = inner.word("method", &[("GET", Method::Get), ("HEAD", Method::Head)]).unwrap_or_default();
    let http = Http {
        method,
        host: inner.parse("host", Host::parse),
        headers: read_headers(&inner).into(),
        status: read_status(&inner).unwrap_or_default(),
        answer_headers: read_answer_headers(&inner).into(),
        contains: inner.parse("contains", short_text).map(Arc::from),
        matches: inner.parse("matches", Pattern::parse),
        redirects: inner.number("redirects", 0, 10).and_then(|most| u8::try_from(most).ok()).unwrap_or(0),
        ca: read_ca(&inner),
        ..Http::get(inner.parse("url", Url::parse)?)
    };
    for key in ["contains", "matches"].into_iter().filter(|key| inner.has(key) && method == Method::Head) {
        inner
            .report()
            .error(inner.at_key(key), format!("`{key}` with `method` \"HEAD\", whose answer has no body"));
    }
    if http.ca.is_some() && !http.url.secure {
        inner.report().error(inner.at_key("ca"), "`ca` without https in `url`, expected both");
    }
    Some(http)
}

fn read_status(table: &Table<'_>) -> Option<Statuses> {
    if table.is_number("status") {
        let status = table.number("status", 100, 599)?;
        return Statuses::parse(&status.to_string()).ok();
    }
    table.parse("status", Statuses::parse)
}

fn short_text(text: &str) -> Result<String, &'static str> {
    match text.is_empty() || text.len() > TEXT_MAX_BYTES {
        true => Err("1 to 1024 bytes"),
        false => Ok(text.to_owned()),
    }
}

/// What is sent. The connection's own headers are not for a definition to say.
fn read_headers(table: &Table<'_>) -> Vec<(Box<str>, HeaderValue)> {
    const OURS: [&str; 5] = ["host", "connection", "content-length", "transfer-encoding", "upgrade"];
    let given = table.texts_or_tables("headers", &HEADER).unwrap_or_default();
    limit_headers(table, "headers", given.len());
    let mut headers = Vec::new();
    for (name, value) in given {
        if !is_header(table, name) {
            continue;
        }
        if OURS.contains(&name.text.to_ascii_lowercase().as_str()) {
            let instead = if name.text.eq_ignore_ascii_case("host") {
                ", expected `host` beside `headers`"
            } else {
                ""
            };
            table.report().error(name.at, format!("header \"{}\" is set by cpe itself{instead}", name.text));
            continue;
        }
        let value = match value {
            TextOrTable::Text(text) => read_header(table, name, text),
            TextOrTable::Table(inner) => read_header_place(&inner),
        };
        headers.extend(value.map(|value| (name.text.to_ascii_lowercase().into_boxed_str(), value)));
    }
    headers
}

fn read_header(table: &Table<'_>, name: Text<'_>, text: Text<'_>) -> Option<HeaderValue> {
    let lower = name.text.to_ascii_lowercase();
    // The value is in no message: it may be a secret, whatever the header is called.
    if is_secret(&lower) || lower.contains("auth") || lower.contains("cookie") {
        let message = format!(
            "header \"{}\" is written in a definition, expected {{ file = \"/path\" }} or {{ credential = \"NAME\" }}",
            name.text
        );
        table.report().error(text.at, message);
        return None;
    }
    let plain = text.text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !plain || text.text.is_empty() || text.text.len() > TEXT_MAX_BYTES {
        let message = format!(
            "header \"{}\" has no value that can be sent, expected 1 to 1024 printable ASCII characters",
            name.text
        );
        table.report().error(text.at, message);
        return None;
    }
    Some(HeaderValue::Text(text.text.into()))
}

fn read_header_place(inner: &Table<'_>) -> Option<HeaderValue> {
    if inner.has("file") == inner.has("credential") {
        let message = format!("{} has to have either `file` or `credential`", inner.title());
        inner.report().error(inner.at(), message);
        return None;
    }
    let credential = inner.parse("credential", credential).map(|name| HeaderValue::Credential(name.into()));
    credential.or_else(|| inner.parse("file", absolute).map(HeaderValue::File))
}

fn read_answer_headers(table: &Table<'_>) -> Vec<(Box<str>, Box<str>)> {
    let given = table.text_table("answer_headers").unwrap_or_default();
    limit_headers(table, "answer_headers", given.len());
    let right = given.into_iter().filter(|(name, _)| is_header(table, *name));
    right.map(|(name, value)| (name.text.to_ascii_lowercase().into(), value.text.into())).collect()
}

fn limit_headers(table: &Table<'_>, key: &str, is: usize) {
    if is > HEADERS_MAX {
        table
            .report()
            .error(table.at_key(key), format!("`{key}` has {is} entries, expected at most {HEADERS_MAX}"));
    }
}

/// A token of RFC 9110; what is none is reported.
fn is_header(table: &Table<'_>, name: Text<'_>) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let right = (1..=128).contains(&name.text.len()) && name.text.bytes().all(token);
    if !right {
        let shown: String = name.text.chars().take(64).flat_map(char::escape_debug).collect();
        table.report().error(name.at, format!("\"{shown}\" is not the name of a header"));
    }
    right
}
