//! Texts that ask for an attribute of an assembly, as `http://{web.address}/`: what is a reference in them, and the text with the
//! values in place. Which assembly a word means is found out by `resolve.rs`, where `count` is expanded; what its address is
//! now, by whoever renders.

use std::fmt;
use std::sync::Arc;

use crate::document::nearest;
use crate::id::{AssemblyIndex, Name};

/// What a reference may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// Where the assembly is reached now: an IP address or a host name.
    Address,
    /// Its name in the deployable.
    Name,
}

impl Attribute {
    /// All of them, in the order of messages.
    pub const ALL: [Self; 2] = [Self::Address, Self::Name];

    /// The word of definitions.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Name => "name",
        }
    }
}

/// `{ASSEMBLY.ATTRIBUTE}`. The assembly is an index, or the word of the file where that is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference<A = AssemblyIndex> {
    /// Whose.
    pub assembly: A,
    /// What.
    pub attribute: Attribute,
}

impl fmt::Display for Reference<Arc<str>> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{{{}.{}}}", self.assembly, self.attribute.as_str())
    }
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece<A> {
    Text(Arc<str>),
    Reference(Reference<A>),
}

/// A text with references in it, or with none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referring<A = AssemblyIndex> {
    pieces: Arc<[Piece<A>]>,
}

impl Referring<Arc<str>> {
    /// Finds the references in a text. Braces around anything else are text, for a shell's and a program's own use of them.
    ///
    /// # Errors
    /// What is expected, where an attribute is nearly one of those that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut pieces, mut rest, mut plain) = (Vec::new(), text, 0);
        while let Some(open) = rest[plain..].find('{').map(|at| at + plain) {
            // Of two opening braces in a row the inner one may begin a reference.
            let found = rest[open + 1..].split_once('}').map(|(inside, _)| read(inside));
            let Some(reference) = found.transpose()?.flatten() else {
                plain = open + 1;
                continue;
            };
            let written = reference.to_string().len();
            if open > 0 {
                pieces.push(Piece::Text(rest[..open].into()));
            }
            pieces.push(Piece::Reference(reference));
            (rest, plain) = (&rest[open + written..], 0);
        }
        if !rest.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Self { pieces: pieces.into() })
    }

    /// Whether there is anything in it that is or looks like a reference.
    pub(super) fn may_refer(&self) -> bool {
        self.references().next().is_some() || self.lookalikes().next().is_some()
    }

    /// What looks like a reference but for its attribute: the words of `{db.port}`. Whether it was meant as one is seen from the first.
    pub(super) fn lookalikes(&self) -> impl Iterator<Item = (&str, &str)> {
        let texts = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(&**text),
            Piece::Reference(_) => None,
        });
        let inside = texts.flat_map(|text| text.split('{').skip(1)).filter_map(|rest| rest.split_once('}'));
        inside.filter_map(|(inside, _)| inside.rsplit_once('.'))
    }

    /// The same with the assemblies that `find` says the words mean. None where it has none; it has said why.
    pub fn resolve(
        &self,
        mut find: impl FnMut(&Reference<Arc<str>>) -> Option<AssemblyIndex>,
    ) -> Option<Referring> {
        let mut resolved = Some(Vec::with_capacity(self.pieces.len()));
        for piece in self.pieces.iter() {
            let piece = match piece {
                Piece::Text(text) => Some(Piece::Text(Arc::clone(text))),
                Piece::Reference(reference) => find(reference)
                    .map(|assembly| Piece::Reference(Reference { assembly, attribute: reference.attribute })),
            };
            // Goes on after a word that means nothing, so that all of them are told.
            match (&mut resolved, piece) {
                (Some(pieces), Some(piece)) => pieces.push(piece),
                _ => resolved = None,
            }
        }
        resolved.map(|pieces| Referring { pieces: pieces.into() })
    }
}

impl<A> Referring<A> {
    /// The text with a value for each reference.
    ///
    /// # Errors
    /// The first reference that has no value yet.
    pub fn render<T: AsRef<str>>(
        &self,
        mut value: impl FnMut(&Reference<A>) -> Option<T>,
    ) -> Result<String, &Reference<A>> {
        let mut out = String::new();
        for piece in self.pieces.iter() {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Reference(reference) => out.push_str(value(reference).ok_or(reference)?.as_ref()),
            }
        }
        Ok(out)
    }

    /// The references in it, in order.
    pub fn references(&self) -> impl Iterator<Item = &Reference<A>> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Reference(reference) => Some(reference),
        })
    }

    /// The reference, if the text is nothing else.
    #[must_use]
    pub fn only(&self) -> Option<&Reference<A>> {
        match &*self.pieces {
            [Piece::Reference(reference)] => Some(reference),
            _ => None,
        }
    }

    /// The text, if there is no reference in it.
    #[must_use]
    pub fn plain(&self) -> Option<&str> {
        match &*self.pieces {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// What stands between braces, if it is a reference.
fn read(inside: &str) -> Result<Option<Reference<Arc<str>>>, String> {
    let Some((assembly, word)) = inside.rsplit_once('.') else { return Ok(None) };
    if Name::parse(assembly).is_err() {
        return Ok(None);
    }
    if let Some(attribute) = Attribute::ALL.into_iter().find(|attribute| attribute.as_str() == word) {
        return Ok(Some(Reference { assembly: assembly.into(), attribute }));
    }
    match nearest(word, Attribute::ALL.map(Attribute::as_str)) {
        Some(near) => Err(format!("`{{{assembly}.{near}}}` instead of `{{{inside}}}`")),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str) -> String {
        let parsed = Referring::parse(text).expect("it is right");
        let value =
            |it: &Reference<Arc<str>>| Some(format!("<{} of {}>", it.attribute.as_str(), it.assembly));
        parsed.render(value).expect("each has a value")
    }

    #[test]
    fn a_reference_is_replaced_and_all_else_is_text() {
        assert_eq!(render("http://{web-1.address}:8080/"), "http://<address of web-1>:8080/");
        assert_eq!(render("{a.name}{b.address}"), "<name of a><address of b>");
        assert_eq!(render("{{a.name}}"), "{<name of a>}");
        for text in [
            "",
            "{",
            "}",
            "{}",
            "{a.",
            "awk '{print $1}'",
            "${X}",
            "{A.address}",
            "{a.size}",
            "{.name}",
            "é{",
        ] {
            assert_eq!(render(text), text);
        }
    }

    #[test]
    fn an_attribute_that_is_nearly_one_is_told() {
        let said = Referring::parse("{db.adress}").expect_err("a slip of the pen");
        assert_eq!(said, "`{db.address}` instead of `{db.adress}`");
    }

    #[test]
    fn what_has_no_value_yet_is_named() {
        let parsed = Referring::parse("{a.name}:{b.address}").expect("it is right");
        let resolved = parsed
            .resolve(|it| Some(AssemblyIndex(u16::from(&*it.assembly == "b"))))
            .expect("both are known");
        let value = |it: &Reference| (it.attribute == Attribute::Name).then_some("a");
        let missing = Reference { assembly: AssemblyIndex(1), attribute: Attribute::Address };
        assert_eq!(resolved.render(value), Err(&missing));
        assert_eq!(resolved.references().count(), 2);
        assert_eq!((resolved.plain(), resolved.only()), (None, None));
        assert!(parsed.resolve(|_| None).is_none());
    }
}
