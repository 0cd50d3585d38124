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
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "(hidden)"))
    }
}
