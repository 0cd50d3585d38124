//! A command line, cut into its statements and words: as much of POSIX sh as cpe-monitor's exec requests use (quotes, `;`, `&&`,
//! `||`, redirections, of which `>/dev/null` counts). It runs nothing; `guest.rs` answers what comes out.

/// One simple command and when it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) when: When,
    pub(super) words: Vec<String>,
    /// Its output goes to /dev/null.
    pub(super) quiet: bool,
}

/// Whether a statement is run, after the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Always,
    Succeeded,
    Failed,
}

/// Cuts a line. An open quote ends at the line's end.
pub(super) fn statements(line: &str) -> Vec<Statement> {
    let mut cutter =
        Cutter { done: Vec::new(), when: When::Always, words: Vec::new(), word: None, quiet: false };
    let mut rest = line.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\'' => {
                let word = cutter.word.get_or_insert_default();
                word.extend(rest.by_ref().take_while(|inner| *inner != '\''));
            }
            '"' => {
                let word = cutter.word.get_or_insert_default();
                while let Some(inner) = rest.next().filter(|inner| *inner != '"') {
                    word.push(if inner == '\\' { rest.next().unwrap_or(inner) } else { inner });
                }
            }
            '\\' => cutter.word.get_or_insert_default().extend(rest.next()),
            ';' | '\n' => cutter.end(When::Always),
            // In `2>&1` the ampersand belongs to the redirection, not to a separator.
            '&' if rest.next_if_eq(&'&').is_some() => cutter.end(When::Succeeded),
            '|' if rest.next_if_eq(&'|').is_some() => cutter.end(When::Failed),
            ' ' | '\t' => cutter.end_word(),
            _ => cutter.word.get_or_insert_default().push(character),
        }
    }
    cutter.end(When::Always);
    cutter.done
}

struct Cutter {
    done: Vec<Statement>,
    when: When,
    words: Vec<String>,
    word: Option<String>,
    quiet: bool,
}

impl Cutter {
    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        let redirection = word.trim_start_matches(|digit: char| digit.is_ascii_digit());
        if redirection.starts_with(['<', '>']) {
            self.quiet |= word == ">/dev/null";
        } else {
            self.words.push(word);
        }
    }

    fn end(&mut self, next: When) {
        self.end_word();
        let when = std::mem::replace(&mut self.when, next);
        let words = std::mem::take(&mut self.words);
        let quiet = std::mem::take(&mut self.quiet);
        if !words.is_empty() {
            self.done.push(Statement { when, words, quiet });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<(When, String)> {
        statements(line).into_iter().map(|statement| (statement.when, statement.words.join("|"))).collect()
    }

    #[test]
    fn a_line_is_cut_as_a_shell_cuts_it() {
        let line = r#"LC_ALL=C sudo -n 'a b' "c \"d\"" </dev/null 2>&1; x&&y ;  z || w"#;
        let cut = words(line);
        assert_eq!(cut[0], (When::Always, r#"LC_ALL=C|sudo|-n|a b|c "d""#.to_owned()));
        assert_eq!(cut[1], (When::Always, "x".to_owned()));
        assert_eq!(cut[2], (When::Succeeded, "y".to_owned()));
        assert_eq!(cut[3], (When::Always, "z".to_owned()));
        assert_eq!(cut[4], (When::Failed, "w".to_owned()));
    }

    #[test]
    fn a_redirection_is_no_word() {
        let cut = statements("a >/dev/null 2>&1; b </dev/null");
        assert_eq!((cut[0].words.len(), cut[0].quiet), (1, true));
        assert_eq!((cut[1].words.len(), cut[1].quiet), (1, false));
    }

    #[test]
    fn a_quote_that_is_never_closed_ends_with_the_line() {
        assert_eq!(words("a 'b c"), [(When::Always, "a|b c".to_owned())]);
        assert_eq!(words(""), []);
    }
}
