//! Where a redirect leads: RFC 3986's relative references, as far as servers send them.

use hyper::Uri;
use hyper::http::uri::Scheme;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) secure: bool,
    /// Without brackets where it is an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

impl Location {
    /// Whether it is the same server.
    pub(super) fn same_origin(&self, other: &Self) -> bool {
        (self.secure, &self.host, self.port) == (other.secure, &other.host, other.port)
    }

    /// Where a `Location` header leads from here; none: nowhere that can be asked.
    pub(super) fn follow(&self, to: &str) -> Option<Self> {
        // A reference is printable ASCII (RFC 3986, section 2); hyper lets more into a path.
        if !to.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let to = to.split('#').next().unwrap_or(to);
        let scheme = if self.secure { "https" } else { "http" };
        let absolute = match to {
            _ if to.starts_with("http://") || to.starts_with("https://") => to.to_owned(),
            _ if to.starts_with("//") => format!("{scheme}:{to}"),
            _ if to.contains("://") => return None,
            _ => return Some(Self { path: self.join(to)?, ..self.clone() }),
        };
        let uri: Uri = absolute.parse().ok()?;
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Some(Self { secure, host, port, path })
    }

    fn join(&self, to: &str) -> Option<String> {
        let path = self.path.split('?').next().unwrap_or("/");
        let joined = match to {
            "" => self.path.clone(),
            _ if to.starts_with('/') => to.to_owned(),
            _ if to.starts_with('?') => format!("{path}{to}"),
            _ => format!("{}/{to}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        joined.parse::<Uri>().ok().map(|_| joined)
    }

    /// The name in the Host header: with the port where it is not the scheme's own.
    pub(super) fn authority(&self, name: Option<&str>) -> String {
        let name = name.unwrap_or(&self.host);
        let name = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
        let usual = if self.secure { 443 } else { 80 };
        if self.port == usual { name } else { format!("{name}:{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(path: &str) -> Location {
        Location { secure: true, host: "2001:db8::1".to_owned(), port: 8443, path: path.to_owned() }
    }

    #[test]
    fn a_redirect_is_relative_to_where_it_came_from() {
        let led =
            |to: &str| from("/a/b?c").follow(to).map(|it| format!("{} {}", it.authority(None), it.path));
        let here = "[2001:db8::1]:8443";
        assert_eq!(led("/x?y"), Some(format!("{here} /x?y")));
        assert_eq!(led("x"), Some(format!("{here} /a/x")));
        assert_eq!(led("?d"), Some(format!("{here} /a/b?d")));
        assert_eq!(led("//www.example.com/z"), Some("www.example.com /z".to_owned()));
        assert_eq!(led("http://www.example.com#top"), Some("www.example.com /".to_owned()));
        assert_eq!(led("https://[2001:db8::2]/"), Some("[2001:db8::2] /".to_owned()));
        for bad in ["ftp://example.com/", "http://", "a b", "/\u{1}", "/\u{92}", "//example.com/\u{e9}"] {
            assert_eq!(led(bad), None, "{bad}");
        }
    }

    #[test]
    fn another_scheme_host_or_port_is_another_server() {
        let here = from("/");
        let same = |to: &str| here.follow(to).is_some_and(|it| here.same_origin(&it));
        assert!(same("/x") && same("https://[2001:db8::1]:8443/"));
        assert!(
            !same("http://[2001:db8::1]:8443/")
                && !same("https://[2001:db8::1]/")
                && !same("//example.com:8443/")
        );
    }
}
