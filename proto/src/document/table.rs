//! One table of a file, read key by key. Each reader returns what is there and right, and reports what is there and wrong;
//! unknown keys are reported when the table is opened.

use std::fmt::Display;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::Report;
use super::words::{nearest_clause, parse_duration, shown};

/// The keys that one kind of table may have.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// What the file itself is called in messages; other tables are called by their path.
    pub title: &'static str,
    /// The keys, most important first.
    pub keys: &'static [&'static str],
    /// Keys that are planned but not supported yet, each with what is.
    pub later: &'static [(&'static str, &'static str)],
}

/// A text of the file with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'t> {
    /// The text, without its quotes.
    pub text: &'t str,
    /// Its first byte in the file.
    pub at: usize,
}

/// A value that may be a text or a table.
#[derive(Clone, Debug)]
pub enum TextOrTable<'t> {
    /// A text.
    Text(Text<'t>),
    /// A table.
    Table(Table<'t>),
}

/// One table of a file.
#[derive(Clone, Debug)]
pub struct Table<'t> {
    report: &'t Report<'t>,
    entries: &'t DeTable<'t>,
    schema: &'static Schema,
    path: String,
    title: String,
    at: usize,
}

impl<'t> Table<'t> {
    /// Opens the file's own table.
    #[must_use]
    pub fn root(report: &'t Report<'t>, table: &'t Spanned<DeTable<'t>>, schema: &'static Schema) -> Self {
        Self::open(report, table.get_ref(), 0, String::new(), schema)
    }

    fn open(
        report: &'t Report<'t>,
        entries: &'t DeTable<'t>,
        at: usize,
        path: String,
        schema: &'static Schema,
    ) -> Self {
        let title = if path.is_empty() { schema.title.to_owned() } else { format!("[{path}]") };
        for (Text { text: name, at }, _) in in_file_order(entries) {
            if let Some((_, instead)) = schema.later.iter().find(|(later, _)| *later == name) {
                report.error(at, format!("`{name}` is not supported yet in {title}, {instead}"));
            } else if !schema.keys.contains(&name) {
                let near = nearest_clause(name, schema.keys.iter().copied(), '`');
                let expected = if near.is_empty() {
                    format!(", expected {}", joined(schema.keys, '`', "or"))
                } else {
                    near
                };
                report.error(at, format!("unknown key `{}` in {title}{expected}", shown(name)));
            }
        }
        Self { report, entries, schema, path, title, at }
    }

    /// Where problems are reported.
    #[must_use]
    pub fn report(&self) -> &'t Report<'t> {
        self.report
    }

    /// What the table is called in messages.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Where the table begins.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether the key is there, with whatever value.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether the key is absent or its table has nothing in it.
    #[must_use]
    pub fn is_empty(&self, key: &str) -> bool {
        self.entries.get(key).is_none_or(|value| value.get_ref().as_table().is_some_and(DeTable::is_empty))
    }

    /// Where the key stands, or else the table.
    #[must_use]
    pub fn at_key(&self, key: &str) -> usize {
        self.entries.get_key_value(key).map_or(self.at, |(key, _)| key.span().start)
    }

    /// Whether one of the keys that are not supported yet is there.
    #[must_use]
    pub fn has_later(&self) -> bool {
        self.schema.later.iter().any(|(key, _)| self.has(key))
    }

    /// Reports that the key has to be there.
    pub fn require(&self, key: &str, as_in: &str) {
        if !self.has(key) && !self.has_later() {
            self.report.absent(self.at, format!("no `{key}` in {}, expected {as_in}", self.title));
        }
    }

    /// The text of a key.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<Text<'t>> {
        let value = self.entries.get(key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(key, value, "a text in quotes");
        }
        Some(Text { text: text?, at: value.span().start })
    }

    /// The text of a key, parsed. The error of `parse` is what was expected.
    pub fn parse<T, E: Display>(&self, key: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let text = self.text(key)?;
        self.parsed(key, text, parse)
    }

    fn parsed<T, E: Display>(
        &self,
        key: &str,
        text: Text<'_>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let expected = |error: E| {
            self.report.error(text.at, format!("`{key}` is \"{}\", expected {error}", shown(text.text)));
        };
        parse(text.text).map_err(expected).ok()
    }

    /// One of some words.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text.text);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let near = nearest_clause(text.text, names.iter().copied(), '"');
            let message =
                format!("`{key}` is \"{}\", expected {}{near}", shown(text.text), joined(&names, '"', "or"));
            self.report.error(text.at, message);
        }
        found.map(|(_, value)| *value)
    }

    /// A duration within limits, both included.
    #[must_use]
    pub fn duration(&self, key: &str, least: Duration, most: Duration) -> Option<Duration> {
        let value = self.entries.get(key)?;
        if !value.get_ref().is_str() {
            self.wrong_type(key, value, "a duration in quotes with its unit, as \"3s\"");
            return None;
        }
        let print = humantime::format_duration;
        self.parse(key, |text| match parse_duration(text) {
            Ok(span) if (least..=most).contains(&span) => Ok(span),
            Ok(_) => Err(format!("{} to {}", print(least), print(most))),
            Err(expected) => Err(expected.to_owned()),
        })
    }

    /// A whole number within limits, both included.
    #[must_use]
    pub fn number(&self, key: &str, least: u32, most: u32) -> Option<u32> {
        let value = self.entries.get(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, &format!("a whole number of {least} to {most}"));
            return None;
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        let within = number.filter(|number| (least..=most).contains(number));
        if within.is_none() {
            let message = format!("`{key}` is {}, expected {least} to {most}", shown(integer.as_str()));
            self.report.error(value.span().start, message);
        }
        within
    }

    /// Whether the key's value is a whole number.
    #[must_use]
    pub fn is_number(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| value.get_ref().is_integer())
    }

    /// Whether the key's value is true or false.
    #[must_use]
    pub fn is_flag(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| value.get_ref().is_bool())
    }

    /// Whether the key's value is a table.
    #[must_use]
    pub fn is_table(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| value.get_ref().is_table())
    }

    /// True or false.
    #[must_use]
    pub fn flag(&self, key: &str) -> Option<bool> {
        let value = self.entries.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(key, value, "true or false");
        }
        flag
    }

    /// Whether the key has a list.
    #[must_use]
    pub fn is_list(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| value.get_ref().is_array())
    }

    /// A list of texts, in order.
    #[must_use]
    pub fn texts(&self, key: &str) -> Option<Vec<Text<'t>>> {
        const EXPECTED: &str = "a list of texts, as [\"one\", \"two\"]";
        let value = self.entries.get(key)?;
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_type(key, value, EXPECTED);
            return None;
        };
        let mut texts = Vec::new();
        for item in list.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push(Text { text, at: item.span().start }),
                None => self.wrong_type(key, item, EXPECTED),
            }
        }
        Some(texts)
    }

    /// A list of texts, each parsed; those that are wrong are reported and left out.
    pub fn list<T, E: Display>(&self, key: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<Vec<T>> {
        let texts = self.texts(key)?;
        Some(texts.into_iter().filter_map(|text| self.parsed(key, text, &parse)).collect())
    }

    /// A table of texts with free keys.
    #[must_use]
    pub fn text_table(&self, key: &str) -> Option<Vec<(Text<'t>, Text<'t>)>> {
        let (_, entries) = self.entries_of(key, "a table of texts, as { key = \"value\" }")?;
        let mut texts = Vec::new();
        for (name, value) in in_file_order(entries) {
            match value.get_ref().as_str() {
                Some(text) => texts.push((name, Text { text, at: value.span().start })),
                None => self.wrong_type(&format!("{key}.{}", shown(name.text)), value, "a text in quotes"),
            }
        }
        Some(texts)
    }

    /// A table with free keys, whose values are texts or tables with known keys.
    #[must_use]
    pub fn texts_or_tables(
        &self,
        key: &str,
        schema: &'static Schema,
    ) -> Option<Vec<(Text<'t>, TextOrTable<'t>)>> {
        let (_, entries) = self.entries_of(key, "a table, as { key = \"value\" }")?;
        let mut values = Vec::new();
        for (name, value) in in_file_order(entries) {
            let (at, own) = (value.span().start, format!("{key}.{}", shown(name.text)));
            if let Some(text) = value.get_ref().as_str() {
                values.push((name, TextOrTable::Text(Text { text, at })));
            } else if let Some(inner) = value.get_ref().as_table() {
                let path = self.path_to(&own);
                values.push((name, TextOrTable::Table(Self::open(self.report, inner, at, path, schema))));
            } else {
                let expected =
                    format!("a text in quotes, or a table with {}", joined(schema.keys, '`', "and"));
                self.wrong_type(&own, value, &expected);
            }
        }
        Some(values)
    }

    /// A table with known keys.
    #[must_use]
    pub fn table(&self, key: &str, schema: &'static Schema) -> Option<Self> {
        let (at, entries) =
            self.entries_of(key, &format!("a table with {}", joined(schema.keys, '`', "and")))?;
        Some(Self::open(self.report, entries, at, self.path_to(key), schema))
    }

    /// The tables of a table with free keys, in the file's order: `[assemblies.web]` and its like.
    #[must_use]
    pub fn tables(&self, key: &str, schema: &'static Schema) -> Vec<(Text<'t>, Self)> {
        self.tables_by(key, |_| schema)
    }

    /// The same, where the keys of each table depend on the text of its `kind`.
    pub fn tables_by(
        &self,
        key: &str,
        schema: impl Fn(Option<&str>) -> &'static Schema,
    ) -> Vec<(Text<'t>, Self)> {
        let expected = format!("a table, as [{}.NAME]", self.path_to(key));
        let Some((_, entries)) = self.entries_of(key, &expected) else { return Vec::new() };
        let mut tables = Vec::new();
        for (name, value) in in_file_order(entries) {
            let path = format!("{}.{}", self.path_to(key), shown(name.text));
            match value.get_ref().as_table() {
                Some(inner) => {
                    let schema = schema(inner.get("kind").and_then(|kind| kind.get_ref().as_str()));
                    tables.push((name, Self::open(self.report, inner, name.at, path, schema)));
                }
                None => self.wrong_type(&format!("{key}.{}", shown(name.text)), value, &expected),
            }
        }
        tables
    }

    /// The tables of a list: `[[canaries]]` and its like.
    #[must_use]
    pub fn table_list(&self, key: &str, schema: &'static Schema) -> Vec<Self> {
        let expected = format!("a list of tables, as [[{key}]]");
        let Some(value) = self.entries.get(key) else { return Vec::new() };
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_type(key, value, &expected);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in list.iter() {
            match item.get_ref().as_table() {
                Some(inner) => {
                    let at = item.span().start;
                    tables.push(Self::open(self.report, inner, at, self.path_to(key), schema));
                }
                None => self.wrong_type(key, item, &expected),
            }
        }
        tables
    }

    fn path_to(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn entries_of(&self, key: &str, expected: &str) -> Option<(usize, &'t DeTable<'t>)> {
        let (name, value) = self.entries.get_key_value(key)?;
        let entries = value.get_ref().as_table();
        if entries.is_none() {
            self.wrong_type(key, value, expected);
        }
        Some((name.span().start, entries?))
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'t>>, expected: &str) {
        let is = match value.get_ref() {
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a decimal number",
            DeValue::Boolean(true) => "true",
            DeValue::Boolean(false) => "false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::String(_) => "a text",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.report.error(value.span().start, format!("`{key}` is {is}, expected {expected}"));
    }
}

/// A table's entries as they stand in the file; the library has them by name.
fn in_file_order<'t>(entries: &'t DeTable<'t>) -> Vec<(Text<'t>, &'t Spanned<DeValue<'t>>)> {
    let place = |(key, value): (&'t Spanned<_>, _)| (text_of(key), value);
    let mut entries: Vec<_> = entries.iter().map(place).collect();
    entries.sort_by_key(|(key, _)| key.at);
    entries
}

fn text_of<'t>(key: &'t Spanned<std::borrow::Cow<'t, str>>) -> Text<'t> {
    Text { text: key.get_ref(), at: key.span().start }
}

/// "`a`, `b` or `c`".
pub(crate) fn joined(words: &[&str], quote: char, last_word: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{quote}{word}{quote}")).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} {last_word} {last}", first.join(", ")),
    }
}
