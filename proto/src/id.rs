//! Names and numbers that identify things. Names are shared (`Arc<str>`): thousands of events carry them.
//! Indices are only valid within the one definition they were taken from.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes: a DNS label, so that a name can be a host name.
pub const NAME_MAX_BYTES: usize = 63;

/// A name of a deployable, assembly, service, infrastructure or failure domain: `a-z`, `0-9` and `-`, starting and ending with
/// a letter or digit, at most [`NAME_MAX_BYTES`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit")]
pub struct NameError(pub String);

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError`] where the text is not a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let whole = bytes.iter().all(|byte| plain(byte) || *byte == b'-');
        let ends = bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain);
        if !whole || !ends || bytes.len() > NAME_MAX_BYTES {
            return Err(NameError(text.chars().take(NAME_MAX_BYTES + 1).collect()));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(out)
            }
        }
    };
}

number! {
    /// An assembly's place in [`Deployable::assemblies`](crate::definition::Deployable::assemblies).
    AssemblyIndex(u16)
}
number! {
    /// A service's place in [`Deployable::services`](crate::definition::Deployable::services), over all assemblies.
    ServiceIndex(u16)
}
number! {
    /// One action of one deployable: never used twice, not even after a restart of cpe (the journal gives the first one).
    ActionId(u64)
}
number! {
    /// One incident of one deployable: from a fault's confirmation to recovery or giving up. Never used twice.
    IncidentId(u64)
}
number! {
    /// One probe in flight of one engine. A result with another number than the one in flight is an old one.
    ProbeId(u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label_in_lower_case() {
        for good in ["a", "web-1", "0", "a23456789-123456789-123456789-123456789-123456789-123456789-123"] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-", "a-", "-a", "A", "a.b", "a/b", "ä", &"a".repeat(64)] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }
}
