//! README.md as a stranger reads it: its blocks of commands and files, so that what it tells is what a story does.

use std::fs;

use anyhow::{Context, Result};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");

/// The one block of a section that contains these words, without its indent.
///
/// # Errors
/// When the README has no such section, or not exactly one such block in it; then mend the story, or the README.
pub fn block(section: &str, words: &str) -> Result<String> {
    let readme = fs::read_to_string(README).context("reading README.md")?;
    let blocks =
        blocks_of(&readme, section).with_context(|| format!("README.md has no section {section:?}"))?;
    let mut found = blocks.into_iter().filter(|block| block.contains(words));
    let first = found.next().with_context(|| format!("no block of {section:?} contains {words:?}"))?;
    anyhow::ensure!(found.next().is_none(), "two blocks of {section:?} contain {words:?}");
    Ok(first)
}

/// The one line of a section's blocks that contains these words.
///
/// # Errors
/// As [`block`].
pub fn line(section: &str, words: &str) -> Result<String> {
    let block = block(section, words)?;
    let mut found = block.lines().filter(|line| line.contains(words));
    let first = found.next().context("the block has it")?;
    anyhow::ensure!(found.next().is_none(), "two lines of {section:?} contain {words:?}");
    Ok(first.to_owned())
}

/// The indented blocks below a heading, up to the next one. None without that heading.
fn blocks_of(readme: &str, section: &str) -> Option<Vec<String>> {
    let heading = format!("## {section}\n");
    let (_, rest) = readme.split_once(&heading)?;
    let text = rest.split("\n## ").next().unwrap_or(rest);
    let mut blocks = vec![String::new()];
    for line in text.lines() {
        match (line.strip_prefix("    "), blocks.last_mut()) {
            (Some(line), Some(block)) => *block += &format!("{line}\n"),
            // An empty line within a block belongs to it.
            (None, Some(block)) if line.is_empty() => block.push('\n'),
            _ => blocks.push(String::new()),
        }
    }
    let trimmed = blocks.iter().map(|block| format!("{}\n", block.trim()));
    Some(trimmed.filter(|block| block != "\n").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_what_is_indented_below_its_heading() {
        let readme =
            "# A\n\n    no\n\n## B\n\ntext\n\n    one\n\n    two\n\nmore\n\n    three\n\n## C\n\n    no\n";
        assert_eq!(blocks_of(readme, "B"), Some(vec!["one\n\ntwo\n".to_owned(), "three\n".to_owned()]));
        assert_eq!(blocks_of(readme, "D"), None);
    }
}
