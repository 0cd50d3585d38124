//! NAME on the command line and in the API: `deployable`, `deployable/assembly`, `deployable/assembly/service`, or a glob of these
//! (`shop/*/nginx`, `web-?`). A name stands for itself and everything in it. Matched here in memory, by `journal/read.rs` in SQL.

use std::fmt;
use std::str::FromStr;

use cpe_proto::api::Status;
use cpe_proto::document::glob;

/// The most characters of a pattern: three names and two slashes.
const MAX_BYTES: usize = 3 * cpe_proto::id::NAME_MAX_BYTES + 2;

/// A name or a glob of names: one to three segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<Segment>);

/// One segment: `a-z`, `0-9`, `-`, `*` (any number of characters, none included) and `?` (one character).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment(String);

/// Why a text is no name and no glob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name: give deployable, deployable/assembly or deployable/assembly/service, of a-z, 0-9 and -, with * and ? \
     standing for any characters and for one"
)]
pub struct GlobError(String);

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-*?".contains(&byte);
        let segments: Vec<_> = text.split('/').collect();
        let whole = segments.iter().all(|segment| !segment.is_empty() && segment.bytes().all(allowed));
        if !whole || segments.len() > 3 || text.len() > MAX_BYTES {
            return Err(GlobError(text.chars().take(MAX_BYTES).collect()));
        }
        Ok(Self(segments.into_iter().map(|segment| Segment(segment.to_owned())).collect()))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Segment(segment)) in self.0.iter().enumerate() {
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
        Self(vec![Segment("*".to_owned())])
    }

    /// Its segments, one to three.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether the thing of that name is meant, by itself or as a part of what is meant.
    #[must_use]
    pub fn matches(&self, name: &[&str]) -> bool {
        name.len() >= self.0.len() && self.may_contain(name)
    }

    /// Whether the thing of that name is meant or may hold something that is meant.
    #[must_use]
    pub fn may_contain(&self, name: &[&str]) -> bool {
        self.0.iter().zip(name).all(|(segment, part)| segment.matches(part))
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
                assembly.services.retain(|service| self.matches(&[of, inside, service.name.as_str()]));
                self.matches(&[of, inside]) || !assembly.services.is_empty()
            });
            self.matches(&[of]) || !deployable.assemblies.is_empty()
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

    fn matches(&self, name: &str) -> bool {
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
    fn what_cannot_be_a_name_is_refused() {
        for bad in ["", "/", "a/", "a/b/c/d", "A", "a b", "a[0]", "../x", &"a".repeat(MAX_BYTES + 1)] {
            assert!(bad.parse::<Glob>().is_err(), "{bad:?}");
        }
    }
}
