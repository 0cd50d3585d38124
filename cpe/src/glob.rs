//! NAME on the command line and in the API: `deployable`, `deployable/assembly`, `deployable/assembly/service`, or a glob of these
//! (`shop/*/nginx`, `web-?`). A name stands for itself and everything in it. Matched here in memory, by `journal/read.rs` in SQL.

use std::fmt;
use std::str::FromStr;

use cpe_proto::api::Status;
use cpe_proto::document::glob;

/// The most characters of a pattern: three names and two slashes.
const MAX_BYTES: usize = 3 * cpe_proto::id::NAME_MAX_BYTES + 2;

/// A name or a glob of names: one to three segments; or the assemblies of a failure domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    segments: Vec<Segment>,
    domain: Option<Segment>,
}

/// Before the name of a failure domain.
pub(crate) const DOMAIN: &str = "domain:";

/// One segment: `a-z`, `0-9`, `-`, `*` (any number of characters, none included) and `?` (one character).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment(String);

/// Why a text is no name and no glob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name: give deployable, deployable/assembly or deployable/assembly/service, of a-z, 0-9 and -, with * and ? \
     standing for any characters and for one; or domain:NAME, for the assemblies of a failure domain"
)]
pub struct GlobError(String);

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-*?".contains(&byte);
        if let Some(domain) = text.strip_prefix(DOMAIN) {
            if domain.is_empty() || domain.len() > MAX_BYTES || !domain.bytes().all(allowed) {
                return Err(GlobError(text.chars().take(MAX_BYTES).collect()));
            }
            return Ok(Self { domain: Some(Segment(domain.to_owned())), ..Self::everything() });
        }
        let segments: Vec<_> = text.split('/').collect();
        let whole = segments.iter().all(|segment| !segment.is_empty() && segment.bytes().all(allowed));
        if !whole || segments.len() > 3 || text.len() > MAX_BYTES {
            return Err(GlobError(text.chars().take(MAX_BYTES).collect()));
        }
        let segments = segments.into_iter().map(|segment| Segment(segment.to_owned())).collect();
        Ok(Self { segments, domain: None })
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Segment(domain)) = &self.domain {
            return write!(out, "{DOMAIN}{domain}");
        }
        for (index, Segment(segment)) in self.segments.iter().enumerate() {
            out.write_str(if index == 0 { "" } else { "/" })?;
            out.write_str(segment)?;
        }
        Ok(())
    }
}

impl Glob {
    /// `*`: everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { segments: vec![Segment("*".to_owned())], domain: None }
    }

    /// Its segments, one to three.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The failure domain whose assemblies are meant, if it is one.
    #[must_use]
    pub fn domain(&self) -> Option<&Segment> {
        self.domain.as_ref()
    }

    /// Whether it stands for one thing only.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.domain.is_none() && self.segments.iter().all(Segment::is_literal)
    }

    /// Whether the thing of that name is meant, by itself or as a part of what is meant.
    #[must_use]
    pub fn matches(&self, name: &[&str]) -> bool {
        name.len() >= self.segments.len() && self.may_contain(name)
    }

    /// Whether the thing of that name is meant or may hold something that is meant.
    #[must_use]
    pub fn may_contain(&self, name: &[&str]) -> bool {
        self.segments.iter().zip(name).all(|(segment, part)| segment.matches(part))
    }

    /// Whether a deployable of that name is meant or may hold something that is meant.
    #[must_use]
    pub fn may_match(&self, deployable: &str) -> bool {
        self.may_contain(&[deployable])
    }

    /// Removes from a status what is not meant.
    pub fn prune(&self, status: &mut Status) {
        status.deployables.retain_mut(|deployable| {
            let of = deployable.name.as_str();
            deployable.assemblies.retain_mut(|assembly| {
                let inside = assembly.name.as_str();
                if let Some(domain) = &self.domain {
                    return assembly.domains.iter().any(|name| domain.matches(name.as_str()));
                }
                assembly.services.retain(|service| self.matches(&[of, inside, service.name.as_str()]));
                self.matches(&[of, inside]) || !assembly.services.is_empty()
            });
            self.domain.is_none() && self.matches(&[of]) || !deployable.assemblies.is_empty()
        });
    }
}

impl Segment {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for one name only.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// Whether that name is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        glob(self.0.as_bytes(), name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(text: &str) -> Glob {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_stands_for_itself_and_everything_in_it() {
        let shop = meant("shop");
        assert!(shop.matches(&["shop"]) && shop.matches(&["shop", "web", "nginx"]));
        assert!(!shop.matches(&["shop-2"]));
        let nginx = meant("shop/*/nginx");
        assert!(nginx.matches(&["shop", "web-1", "nginx"]));
        assert!(!nginx.matches(&["shop", "web-1"]), "the assembly itself is not meant");
        assert!(nginx.may_contain(&["shop", "web-1"]), "but holds what is meant");
        assert!(!nginx.matches(&["shop", "web-1", "php"]));
    }

    #[test]
    fn stars_and_question_marks_stand_for_characters() {
        for (glob, name, meant) in [
            ("web-?", "web-1", true),
            ("web-?", "web-10", false),
            ("*", "anything", true),
            ("w*b", "wb", true),
            ("w*b-*2", "web-b-12", true),
            ("*a*a*", "banana", true),
            ("*x", "banana", false),
            ("**", "", true),
        ] {
            assert_eq!(Segment(glob.to_owned()).matches(name), meant, "{glob} {name}");
        }
    }

    #[test]
    fn a_failure_domain_stands_for_its_assemblies() {
        let domain = meant("domain:az*");
        assert!(domain.domain().is_some_and(|it| it.matches("az1") && !it.matches("rack7")));
        assert_eq!(domain.to_string(), "domain:az*");
        assert!(!domain.is_literal() && meant("shop/web").is_literal());
        for bad in ["domain:", "domain:AZ1", "domain:a/b"] {
            assert!(bad.parse::<Glob>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        for bad in ["", "/", "a/", "a/b/c/d", "A", "a b", "a[0]", "../x", &"a".repeat(MAX_BYTES + 1)] {
            assert!(bad.parse::<Glob>().is_err(), "{bad:?}");
        }
    }
}
