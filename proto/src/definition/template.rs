//! Templates of assemblies: what several of them share is written once, under `[templates.NAME]` of the definition itself or of the file
//! `templates.toml` beside it, and an assembly that says `template = "NAME"` has it, but for what it says itself. They are joined before
//! anything is read (`parse.rs`), so that `count` and references know nothing of them.

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::schema::{SERVICE_KINDS, TEMPLATE, TEMPLATES};
use crate::document::{Diagnostic, Report, Source, Table, nearest_clause, shown};

/// The file of a directory that holds the templates that its definitions share.
pub const TEMPLATES_FILE: &str = "templates.toml";

/// The most that one definition has from templates, in bytes: what `template` multiplies has to be small.
const INHERITED_MAX_BYTES: usize = 8 * 1024 * 1024;

/// What a key or a value costs beside its text.
const NODE_BYTES: usize = 64;

/// What names one machine, beside which the keys of one that is made mean nothing.
const NAMED: [&str; 3] = ["address", "instance", "adopt"];
const MADE: [&str; 3] = ["image", "flavor", "count"];

/// A file of templates that can be read. What they say is judged with each assembly that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplatesFile(Source);

impl TemplatesFile {
    /// Parses the file.
    ///
    /// # Errors
    /// What is wrong with the file itself, sorted by place.
    pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let text = Report::text_of(file, bytes).map_err(|error| vec![error])?;
        let (report, document) = Report::read(file, text);
        {
            let root = Table::root(&report, &document, &TEMPLATES);
            for (template, table) in root.tables("templates", &TEMPLATE) {
                super::read::check_name(&table, template, "a template");
            }
        }
        if report.failed() { Err(report.finish()) } else { Ok(Self(Source::new(file, text))) }
    }

    /// Opens them for the definitions that use them.
    #[must_use]
    pub fn open(&self) -> Templates<'_> {
        let (document, _) = DeTable::parse_recoverable(self.0.text());
        Templates { source: &self.0, document: document.into_inner() }
    }
}

/// The templates that the definitions of a directory share.
#[derive(Clone, Debug)]
pub struct Templates<'t> {
    source: &'t Source,
    document: DeTable<'t>,
}

/// Gives each assembly that names a template what it says. Whether one does.
pub(super) fn inherit<'t>(
    document: &mut Spanned<DeTable<'t>>,
    report: &mut Report<'t>,
    shared: Option<&Templates<'t>>,
) -> bool {
    let own = templates(document.get_ref()).cloned().unwrap_or_default();
    let others = shared.and_then(|shared| Some((shared.source, templates(&shared.document)?)));
    let Some(DeValue::Table(assemblies)) = document.get_mut().get_mut("assemblies").map(Spanned::get_mut)
    else {
        return false;
    };
    let (mut any, mut inherited) = (false, 0usize);
    for (_, value) in assemblies.iter_mut() {
        let DeValue::Table(assembly) = value.get_mut() else { continue };
        let Some(named) = assembly.get("template") else { continue };
        any = true;
        let at = named.span().start;
        let Some(word) = named.get_ref().as_str().map(str::to_owned) else {
            report.error(at, "`template` is no text, expected the name of one in quotes");
            continue;
        };
        let of_others = others.and_then(|(source, all)| Some((source, all.get(word.as_str())?.get_ref())));
        let (template, base) = match (own.get(word.as_str()), of_others) {
            (Some(own), _) => (own.get_ref(), 0),
            // Its places are those of another file: they are kept apart from this one's.
            (None, Some((source, template))) => (template, report.include(at, source)),
            (None, None) => {
                let others = others.iter().flat_map(|(_, all)| all.keys());
                unknown(report, at, &word, own.keys().chain(others).map(|key| &**key.get_ref()));
                continue;
            }
        };
        // What is no table is told where it stands.
        let Some(template) = template.as_table() else { continue };
        inherited = inherited.saturating_add(weight(template));
        if inherited > INHERITED_MAX_BYTES {
            let message = format!("templates add more than {INHERITED_MAX_BYTES} bytes to this definition");
            report.error(at, message);
            break;
        }
        join(assembly, template, base, Level::Assembly);
    }
    any
}

fn templates<'a, 't>(document: &'a DeTable<'t>) -> Option<&'a DeTable<'t>> {
    document.get("templates")?.get_ref().as_table()
}

/// How much a table has.
fn weight(table: &DeTable<'_>) -> usize {
    table.iter().map(|(key, value)| NODE_BYTES + key.get_ref().len() + weight_of(value.get_ref())).sum()
}

fn weight_of(value: &DeValue<'_>) -> usize {
    match value {
        DeValue::Table(table) => weight(table),
        DeValue::Array(list) => list.iter().map(|item| NODE_BYTES + weight_of(item.get_ref())).sum(),
        DeValue::String(text) => text.len(),
        _ => 0,
    }
}

fn unknown<'n>(report: &Report<'_>, at: usize, word: &str, known: impl Iterator<Item = &'n str>) {
    let near = nearest_clause(word, known, '"');
    let expected = if near.is_empty() {
        format!(", expected [templates.NAME] in this file or in {TEMPLATES_FILE} beside it")
    } else {
        near
    };
    report.error(at, format!("no template \"{}\"{expected}", shown(word)));
}

/// What is joined, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Assembly,
    Services,
    Service,
    Other,
}

/// Adds what is not there; tables that both have are joined in turn, of everything else the assembly's own counts.
fn join<'t>(own: &mut DeTable<'t>, template: &DeTable<'t>, base: usize, level: Level) {
    let has = |keys: &[&str]| keys.iter().any(|key| own.contains_key(*key));
    let (is_named, has_kind) = (has(&NAMED), has(&SERVICE_KINDS));
    for (key, value) in template {
        let word: &str = key.get_ref();
        let left = match level {
            Level::Assembly => word == "template" || is_named && MADE.contains(&word),
            Level::Service => has_kind && SERVICE_KINDS.contains(&word) && !own.contains_key(word),
            Level::Services | Level::Other => false,
        };
        if left {
            continue;
        }
        let below = match (level, word) {
            (Level::Assembly, "services") => Level::Services,
            (Level::Services, _) => Level::Service,
            _ => Level::Other,
        };
        match (own.get_mut(word).map(Spanned::get_mut), value.get_ref()) {
            (None, _) => {
                own.insert(moved(key, base, Clone::clone), moved(value, base, |it| copy(it, base)));
            }
            (Some(DeValue::Table(own)), DeValue::Table(template)) => join(own, template, base, below),
            (Some(_), _) => {}
        }
    }
}

/// The same, its place so much further on.
fn moved<T>(it: &Spanned<T>, by: usize, copy: impl Fn(&T) -> T) -> Spanned<T> {
    let span = it.span();
    Spanned::new(span.start + by..span.end + by, copy(it.get_ref()))
}

fn copy<'t>(value: &DeValue<'t>, by: usize) -> DeValue<'t> {
    match value {
        DeValue::Table(table) => {
            let mut copied = DeTable::new();
            for (key, value) in table {
                copied.insert(moved(key, by, Clone::clone), moved(value, by, |it| copy(it, by)));
            }
            DeValue::Table(copied)
        }
        DeValue::Array(list) => {
            let mut copied = DeArray::new();
            list.iter().for_each(|item| copied.push(moved(item, by, |it| copy(it, by))));
            DeValue::Array(copied)
        }
        other => other.clone(),
    }
}
