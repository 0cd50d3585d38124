//! An HTTP probe: the address, what is sent, what is expected of the answer. Read by `direct_read.rs`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::direct::HostOf;
use super::reference::Referring;
use crate::document::{Host, HostPort};
use crate::id::AssemblyIndex;

/// What an HTTP probe asks and expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http<A = AssemblyIndex> {
    /// What is asked for.
    pub url: Url<A>,
    /// The method.
    pub method: Method,
    /// The name in the Host header, and with https the name that the certificate must have; none: the address's host.
    pub host: Option<Host>,
    /// Sent besides.
    pub headers: Arc<[(Box<str>, HeaderValue)]>,
    /// The statuses that pass.
    pub status: Statuses,
    /// Headers that the answer must have, each with a text within its value.
    pub answer_headers: Arc<[(Box<str>, Box<str>)]>,
    /// A text that must be in the first part of the body.
    pub contains: Option<Arc<str>>,
    /// A regular expression that must match there.
    pub matches: Option<Pattern>,
    /// How many redirects are followed; what comes after them is what is judged.
    pub redirects: u8,
    /// A file of certificates that are trusted; none: those of the controller's host.
    pub ca: Option<PathBuf>,
}

impl<A> Http<A> {
    /// A plain GET of an address, any 2xx or 3xx passes.
    #[must_use]
    pub fn get(url: Url<A>) -> Self {
        Self {
            url,
            method: Method::Get,
            host: None,
            headers: Arc::default(),
            status: Statuses::default(),
            answer_headers: Arc::default(),
            contains: None,
            matches: None,
            redirects: 0,
            ca: None,
        }
    }

    pub(super) fn with_host<B>(&self, host: HostOf<B>) -> Http<B> {
        let Url { secure, port, path, .. } = &self.url;
        Http {
            url: Url { secure: *secure, host, port: *port, path: Arc::clone(path) },
            method: self.method,
            host: self.host.clone(),
            headers: Arc::clone(&self.headers),
            status: self.status.clone(),
            answer_headers: Arc::clone(&self.answer_headers),
            contains: self.contains.clone(),
            matches: self.matches.clone(),
            redirects: self.redirects,
            ca: self.ca.clone(),
        }
    }
}

/// The method of a request. Others may change what they are sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// The whole answer.
    #[default]
    Get,
    /// Its header only.
    Head,
}

/// An address of http or https.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url<A = AssemblyIndex> {
    /// https.
    pub secure: bool,
    /// The host.
    pub host: HostOf<A>,
    /// The port: 80 and 443 where the address has none.
    pub port: u16,
    /// From the first slash on, with the query; as it is written, where it refers to something.
    pub path: Arc<str>,
}

const EXPECTED: &str = "http://HOST[:PORT]/PATH, or https, where HOST is a name, an IP address or {ASSEMBLY.address}; without user, password or fragment";

/// In bytes.
const PATH_MAX: usize = 2048;

/// RFC 3986: what may stand in a path and a query, without the fragment.
fn is_path(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?@!$&'()*+,;=%[]".contains(&byte);
    text.len() <= PATH_MAX && text.bytes().all(plain)
}

impl<A: Clone> Http<A> {
    /// The same, asked for at another path.
    ///
    /// # Errors
    /// What is expected of a path.
    pub fn at_path(&self, path: &str) -> Result<Self, String> {
        if !is_path(path) {
            return Err(format!("at most {PATH_MAX} bytes of what may stand in a path and a query"));
        }
        Ok(Self { url: Url { path: path.into(), ..self.url.clone() }, ..self.clone() })
    }
}

impl<A> Url<A> {
    /// What the path and the query refer to; none: to nothing.
    pub(super) fn referring(&self) -> Option<Referring<Arc<str>>> {
        Referring::parse(&self.path).ok().filter(|path| path.references().next().is_some())
    }
}

impl Url<Arc<str>> {
    /// Parses an address whose host may be a reference.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (secure, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(EXPECTED.to_owned()),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let default = if secure { 443 } else { 80 };
        let (host, port) = split_port(authority).unwrap_or((authority, default));
        let shown = Referring::parse(path)?.render(|_| Some("")).unwrap_or_default();
        if path.len() > PATH_MAX || !is_path(&shown) {
            return Err(EXPECTED.to_owned());
        }
        let path = if path.starts_with('/') { path.into() } else { format!("/{path}").into() };
        Ok(Self {
            secure,
            host: HostOf::parse(host).map_err(|error| error.unwrap_or(EXPECTED.to_owned()))?,
            port,
            path,
        })
    }
}

/// `HOST:PORT` in two; none where there is no port.
pub(super) fn split_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| *port > 0 && digits)?;
    // An IPv6 address has brackets where a port follows.
    let whole = !host.contains(':') || HostPort::parse(text).is_ok();
    whole.then_some((host, port))
}

impl<A: fmt::Display> fmt::Display for Url<A> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        match &self.host {
            HostOf::Assembly(of) => write!(out, "{scheme}://{{{of}.address}}:{}{}", self.port, self.path),
            HostOf::Host(host) => write!(out, "{scheme}://{}:{}{}", host.as_str(), self.port, self.path),
        }
    }
}

/// The value of a header that is sent. What is secret is never written in a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    /// The value itself.
    Text(Box<str>),
    /// The file that holds it, without the newline at its end; read for each probe.
    File(PathBuf),
    /// A credential of the unit that cpe runs as (systemd.exec(5), `LoadCredential=`), by its name.
    Credential(Box<str>),
}

/// Statuses that pass: ranges, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Arc<[(u16, u16)]>);

impl Default for Statuses {
    fn default() -> Self {
        Self([(200, 399)].into())
    }
}

impl Statuses {
    /// Parses `200-299, 401`.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "statuses of 100 to 599, as 200 or \"200-299, 401\"";
        let status = |text: &str| {
            let text = text.trim();
            let plain = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|status| plain && (100..=599).contains(status))
        };
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            status(first).zip(status(last)).filter(|(first, last)| first <= last)
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        ranges.filter(|ranges| ranges.len() <= 32).map(|ranges| Self(ranges.into())).ok_or(EXPECTED)
    }

    /// Whether a status is among them.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (first, last)) in self.0.iter().enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            match first == last {
                true => write!(out, "{comma}{first}")?,
                false => write!(out, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// A regular expression, compiled when the definition was read. Its search takes time in proportion to the text.
#[derive(Clone, Debug)]
pub struct Pattern(Arc<regex_lite::Regex>);

impl Pattern {
    /// The most that it may be, in bytes, before and after it is compiled.
    const MAX_BYTES: (usize, usize) = (1024, 64 * 1024);

    /// Parses it.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (written, compiled) = Self::MAX_BYTES;
        if text.is_empty() || text.len() > written {
            return Err(format!("a regular expression of 1 to {written} bytes"));
        }
        let built = regex_lite::RegexBuilder::new(text).size_limit(compiled).build();
        built.map(|it| Self(it.into())).map_err(|error| format!("a regular expression: {error}"))
    }

    /// Whether it matches somewhere in a text.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> String {
        Url::parse(text).map_or_else(|error| format!("expected {error}"), |url| url.to_string())
    }

    #[test]
    fn an_address_is_taken_apart_once() {
        assert_eq!(url("http://{web.address}/a?b=c"), "http://{web.address}:80/a?b=c");
        assert_eq!(url("https://{web-1.address}:8443"), "https://{web-1.address}:8443/");
        assert_eq!(url("https://www.Example.com?x"), "https://www.example.com:443/?x");
        assert_eq!(url("http://[2001:db8::1]:81/"), "http://2001:db8::1:81/");
        assert_eq!(url("http://[2001:db8::1]/"), "http://2001:db8::1:80/");
        for bad in [
            "",
            "web",
            "ftp://web/",
            "http:///",
            "http://web:0/",
            "http://web:x/",
            "http://user@web/",
            "http://web/#part",
            "http://web/ /",
            "http://web/\n",
            "http://{web.name}/",
            "http://{web.address}x/",
            "http://web/{db.size}",
            "http://web/{db}",
        ] {
            assert!(url(bad).starts_with("expected http://HOST"), "{bad}: {}", url(bad));
        }
        assert_eq!(url("http://{web.adress}/"), "expected `{web.address}` instead of `{web.adress}`");
    }

    #[test]
    fn statuses_are_ranges() {
        let statuses = Statuses::parse("200-299, 401").expect("they are right");
        let passed: Vec<u16> =
            [199, 200, 299, 300, 401, 402].into_iter().filter(|it| statuses.contains(*it)).collect();
        assert_eq!(passed, [200, 299, 401]);
        assert_eq!(statuses.to_string(), "200-299, 401");
        for bad in ["", "2xx", "99", "600", "299-200", "200-", "+20", "200;201"] {
            assert!(Statuses::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_expression_has_limits() {
        assert!(Pattern::parse("^ok (yes|no)$").expect("it is right").matches("ok yes"));
        for bad in ["", "(", &"x".repeat(1025), "(a{1000}){1000}"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
