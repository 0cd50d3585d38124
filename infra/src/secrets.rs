//! Secrets that were given to a program, and what may be repeated of what it says: an agent or an operator's script that fails likes to
//! show what it was called with.

/// A secret this short is part of many words: where it might have been said, nothing is repeated.
const SHORT: usize = 4;

/// Secrets that somebody was given.
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Those that are not empty.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut secrets: Vec<String> = secrets.into_iter().filter(|secret| !secret.is_empty()).collect();
        // A secret that is part of another is not to be cut out of it first.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// A text of theirs without the secrets. `cut`: its beginning is missing, so that the first word may be the rest of one.
    #[must_use]
    pub fn scrub(&self, text: &str, cut: bool) -> String {
        if self.0.iter().any(|secret| secret.len() < SHORT) {
            return if text.trim().is_empty() { String::new() } else { "(hidden)".to_owned() };
        }
        let text = match text.split_once('\n') {
            _ if !cut || self.0.is_empty() => text,
            Some((_, rest)) => rest,
            None => "(hidden)",
        };
        self.0.iter().fold(text.to_owned(), |text, secret| {
            hide_words(&text.replace(secret.as_str(), "(hidden)"), secret)
        })
    }
}

/// Hides what becomes the secret once the text is put on one line: other white space or control characters between its words.
fn hide_words(text: &str, secret: &str) -> String {
    let words: Vec<&str> = secret.split(is_gap).filter(|word| !word.is_empty()).collect();
    let Some((first, rest)) = words.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return text.to_owned();
    };
    let mut out = String::with_capacity(text.len());
    let mut left = text;
    while let Some(at) = left.find(first) {
        let (before, here) = left.split_at(at);
        out.push_str(before);
        let next = here.chars().next().map_or(here.len(), char::len_utf8);
        match after_words(&here[first.len()..], rest) {
            Some(after) => {
                out.push_str("(hidden)");
                left = after;
            }
            None => {
                out.push_str(&here[..next]);
                left = &here[next..];
            }
        }
    }
    out.push_str(left);
    out
}

/// What is after these words, each of them after a gap.
fn after_words<'text>(text: &'text str, words: &[&str]) -> Option<&'text str> {
    words.iter().try_fold(text, |text, word| {
        let word_on = text.trim_start_matches(is_gap);
        if word_on.len() == text.len() { None } else { word_on.strip_prefix(word) }
    })
}

/// What `process::one_line` puts a space for.
pub(crate) fn is_gap(character: char) -> bool {
    character.is_whitespace() || character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_phrase_that_a_program_repeats_with_other_spaces_is_not_told_once_it_is_on_one_line() {
        let secrets = Secrets::new(["correct horse 7".to_owned()]);
        assert_eq!(secrets.scrub("no: correct horse 7!", false), "no: (hidden)!");
        assert_eq!(secrets.scrub("no: correct\0\t horse\n7!", false), "no: (hidden)!");
        assert_eq!(secrets.scrub("correct correct horse  7", false), "correct (hidden)");
        assert_eq!(secrets.scrub("correct horse7, correct horse", false), "correct horse7, correct horse");
    }
}
