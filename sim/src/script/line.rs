//! One line of a script as words with their columns, taken one after the other. What is missing, too much or not understood is said with
//! what was expected there.

use std::time::Duration;

use cpe_proto::document::{nearest, parse_duration};

/// What is wrong, and in which column.
pub(super) type Wrong = (u32, String);

/// The words of a line that are not taken yet.
#[derive(Clone, Debug)]
pub(super) struct Line<'t> {
    words: Vec<(u32, &'t str)>,
    next: usize,
    end: u32,
}

impl<'t> Line<'t> {
    /// The words of a line, up to `#`.
    pub(super) fn of(text: &'t str) -> Self {
        let text = text.split_once('#').map_or(text, |(before, _)| before);
        let mut words = Vec::new();
        let mut begin = None;
        for (at, letter) in text.char_indices().chain([(text.len(), ' ')]) {
            match (letter.is_whitespace(), begin) {
                (false, None) => begin = Some(at),
                (true, Some(from)) => {
                    words.extend(text.get(from..at).map(|word| (column(text, from), word)));
                    begin = None;
                }
                _ => {}
            }
        }
        let end = words.last().map_or(1, |(at, word)| at + width(word));
        Self { words, next: 0, end }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The column of the next word, or where one would be.
    pub(super) fn at(&self) -> u32 {
        self.words.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    pub(super) fn peek(&self) -> Option<&'t str> {
        self.words.get(self.next).map(|(_, word)| *word)
    }

    /// The next word.
    pub(super) fn word(&mut self, expected: &str) -> Result<&'t str, Wrong> {
        let at = self.at();
        let word = self.peek().ok_or_else(|| (at, format!("the line ends here, expected {expected}")))?;
        self.next += 1;
        Ok(word)
    }

    /// Takes that word if it is the next one.
    pub(super) fn takes(&mut self, word: &str) -> bool {
        let is = self.peek() == Some(word);
        self.next += usize::from(is);
        is
    }

    /// That word must come now.
    pub(super) fn must(&mut self, word: &str) -> Result<(), Wrong> {
        let at = self.at();
        match self.peek() {
            Some(found) if found == word => {
                self.next += 1;
                Ok(())
            }
            Some(found) => Err((at, format!("`{}`, expected `{word}`", shown(found)))),
            None => Err((at, format!("the line ends here, expected `{word}`"))),
        }
    }

    /// One of these words.
    pub(super) fn one_of<T: Copy>(&mut self, known: &[(&'static str, T)]) -> Result<T, Wrong> {
        let (at, words) = (self.at(), known.iter().map(|(word, _)| *word));
        let list = words.clone().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let word = self.word(&list)?;
        known.iter().find(|(candidate, _)| *candidate == word).map(|(_, it)| *it).ok_or_else(|| {
            let near = near(word, words);
            (at, format!("`{}`, expected {list}{near}", shown(word)))
        })
    }

    /// A span: `30s`, `1h30m`.
    pub(super) fn span(&mut self) -> Result<Duration, Wrong> {
        let at = self.at();
        let word = self.word("a span, as `30s`")?;
        let span = parse_duration(word)
            .map_err(|expected| (at, format!("`{}`, expected {expected}", shown(word))))?;
        if span > SPAN_MAX {
            return Err((at, format!("`{}`, expected at most 30 days", shown(word))));
        }
        Ok(span)
    }

    /// `for SPAN`.
    pub(super) fn lasts(&mut self) -> Result<Duration, Wrong> {
        self.must("for")?;
        self.span()
    }

    /// A whole number of at most so much.
    pub(super) fn number(&mut self, most: u32) -> Result<u32, Wrong> {
        let at = self.at();
        let word = self.word("a number")?;
        let number = word.parse::<u32>().ok().filter(|number| *number <= most);
        number.ok_or_else(|| (at, format!("`{}`, expected a number of 0 to {most}", shown(word))))
    }

    /// Nothing comes any more.
    pub(super) fn ends(&self) -> Result<(), Wrong> {
        match self.peek() {
            None => Ok(()),
            Some(word) => {
                Err((self.at(), format!("`{}` is too much, expected the end of the line", shown(word))))
            }
        }
    }
}

/// The longest span of a script: a world of it takes seconds, not hours.
const SPAN_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// `, nearest is X`, or nothing.
pub(super) fn near<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> String {
    nearest(word, known).map(|near| format!(", nearest is `{near}`")).unwrap_or_default()
}

/// A word from a file, as a message shows it.
pub(super) fn shown(word: &str) -> String {
    word.chars().take(64).flat_map(char::escape_debug).collect()
}

fn column(text: &str, at: usize) -> u32 {
    width(text.get(..at).unwrap_or_default()) + 1
}

fn width(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}
