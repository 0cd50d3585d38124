//! Reads the configuration and a directory of definitions, at the start and whenever something changes there. One broken file costs
//! only itself: it is reported with all its errors and what was in force stays, and so it is with what claims another's name or machine
//! (design.md section 4, rule 8). `watch.rs` says when to look again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cpe_calendar::Calendar;
use cpe_proto::config::{Config, Infrastructure, InfrastructureKind};
use cpe_proto::definition::{Definition, Deployable, TEMPLATES_FILE, Templates, TemplatesFile, check_set};
use cpe_proto::document::{DIAGNOSTICS_MAX, Diagnostic, FILE_MAX_BYTES, Position};
use cpe_proto::id::Name;
use cpe_proto::infrastructure::Capabilities;
use dped::GuardSettings;
use dped::bounds::{Assumptions, Weight, conflicts};

use crate::clock;
use crate::guard;
use crate::vital::catch;

/// The configuration in that file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn config(path: &Path) -> Result<Config, Vec<Diagnostic>> {
    let file = path.display().to_string();
    let text = read(path).map_err(|error| vec![unreadable(&file, &error)])?;
    let text = String::from_utf8(text).map_err(|_| {
        vec![Diagnostic::error(&file, Position::START, "not UTF-8, expected TOML".to_owned())]
    })?;
    let config = Config::parse(&file, &text)?;
    let secrets: Vec<String> = config.written_secrets().collect();
    let open = || std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0);
    if secrets.is_empty() || !open() {
        return Ok(config);
    }
    let message = format!(
        "everybody on this machine can read this file, and it holds `{}`, expected {{ file = \"/path\" }} with a file that only cpe can read (or chmod o-r this one)",
        secrets.join("`, `")
    );
    Err(vec![Diagnostic::error(&file, Position::START, message)])
}

/// The infrastructures of a configuration that are fence agents.
#[must_use]
pub fn fence_agents(config: &Config) -> BTreeSet<Name> {
    let agents = config.infrastructures.iter();
    let agents = agents.filter(|(_, entry)| matches!(entry.kind, InfrastructureKind::Fence(_)));
    agents.map(|(name, _)| name.clone()).collect()
}

/// All `*.toml` files of a directory, in the order of their names.
///
/// # Errors
/// When the directory cannot be read.
pub fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What is compared with the configuration, where there is one.
#[derive(Debug, Default)]
pub struct Context {
    /// The names of its infrastructures.
    pub infrastructures: BTreeSet<Name>,
    /// Those of them that are fence agents.
    pub fence_agents: BTreeSet<Name>,
    /// The port of its `[ssh]`.
    pub port: u16,
    /// Whether it has canaries.
    pub canaries: bool,
    /// How much may be done at a time.
    pub guard: GuardSettings,
    /// The failure domains that are evacuated when they are dead.
    pub evacuated: BTreeSet<Name>,
    /// What is written of its infrastructures: what each can do, and how long it may take to answer.
    pub written: BTreeMap<Name, (Option<Capabilities>, Duration)>,
}

impl Context {
    /// What a configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let written = |(name, entry): (&Name, &Infrastructure)| {
            let written = match &entry.kind {
                InfrastructureKind::Command(settings) => (settings.capabilities.clone(), settings.timeout),
                InfrastructureKind::Fence(settings) => (None, settings.timeout),
            };
            (name.clone(), written)
        };
        Self {
            infrastructures: config.infrastructures.keys().cloned().collect(),
            fence_agents: fence_agents(config),
            port: config.ssh.port,
            canaries: !config.canaries.is_empty(),
            guard: guard::settings(config),
            evacuated: config.domains.iter().map(|it| it.domain.clone()).collect(),
            written: config.infrastructures.iter().map(written).collect(),
        }
    }

    /// What bounds of a definition rest on; `path_answers`: how often somebody else on the path answers, if anybody does. What an
    /// infrastructure does not say before it is asked, it is taken to be able to do.
    #[must_use]
    pub fn assumptions(&self, definition: &Deployable, path_answers: Option<Duration>) -> Assumptions {
        let mut assumed = Assumptions::of(definition, path_answers);
        let written = definition.infrastructure.as_ref().and_then(|name| self.written.get(name));
        if let Some((capabilities, answers)) = written {
            assumed.infrastructure_answers = *answers;
            assumed.capabilities = capabilities.clone().or(assumed.capabilities);
        }
        assumed
    }
}

/// What a file was when it was read: another value means that it has to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let data = std::fs::metadata(path)?;
        Ok(Self { inode: data.ino(), size: data.size(), modified: (data.mtime(), data.mtime_nsec()) })
    }
}

/// One file.
#[derive(Debug)]
struct Known {
    stamp: Option<Stamp>,
    /// What is in force: the newest valid version that claims nothing of another's.
    used: Option<Definition>,
    /// Whether other templates may change what is read of it.
    templated: bool,
}

/// The templates of a directory: the newest that can be read.
#[derive(Debug, Default)]
struct Shared {
    stamp: Option<Stamp>,
    used: TemplatesFile,
}

/// A directory's definitions: what of them is in force.
#[derive(Debug)]
pub struct Definitions {
    context: Option<Context>,
    files: BTreeMap<PathBuf, Known>,
    /// By their directory.
    templates: BTreeMap<PathBuf, Shared>,
}

/// What a look at the files found different.
#[derive(Debug, Default)]
pub struct Changes {
    /// New, or not what it was, in the order of the files' names.
    pub defined: Vec<Arc<Deployable>>,
    /// Not defined any more.
    pub removed: Vec<Name>,
    /// Each file that has errors, with them: an earlier version of it stays in force.
    pub rejected: Vec<(PathBuf, Vec<Diagnostic>)>,
    /// What is valid and suspicious.
    pub warnings: Vec<Diagnostic>,
}

impl Definitions {
    /// None yet.
    #[must_use]
    pub fn new(context: Option<Context>) -> Self {
        Self { context, files: BTreeMap::new(), templates: BTreeMap::new() }
    }

    /// What they are compared with.
    #[must_use]
    pub fn context(&self) -> Option<&Context> {
        self.context.as_ref()
    }

    /// Those that are in force, in the order of their files.
    pub fn used(&self) -> impl Iterator<Item = &Definition> {
        self.files.values().filter_map(|known| known.used.as_ref())
    }

    /// How many are in force.
    #[must_use]
    pub fn in_force(&self) -> usize {
        self.files.values().filter(|known| known.used.is_some()).count()
    }

    /// Reads what of these files, in the order of their names, has changed since the last look. What is not among them is defined no more.
    pub fn look(&mut self, present: &[PathBuf]) -> Changes {
        let mut changes = Changes::default();
        let others = self.look_at_templates(present, &mut changes);
        let present: Vec<&PathBuf> = present.iter().filter(|path| !holds_templates(path)).collect();
        let present_set: BTreeSet<&PathBuf> = present.iter().copied().collect();
        let absent = self.files.extract_if(.., |path, _| !present_set.contains(path));
        let mut gone: BTreeMap<Name, Definition> =
            absent.filter_map(|(_, known)| known.used).map(by_name).collect();
        let mut fresh = BTreeMap::new();
        let mut changed = Vec::new();
        for path in present {
            // A file that cannot be looked at is read, and that says why.
            let stamp = Stamp::of(path).ok();
            let same =
                |known: &Known| known.stamp == stamp && !(known.templated && others.contains(home(path)));
            if stamp.is_some() && self.files.get(path).is_some_and(same) {
                continue;
            }
            let new = Known { stamp, used: None, templated: true };
            self.files.entry(path.clone()).or_insert(new).stamp = stamp;
            changed.push(path);
        }
        let homes: BTreeSet<&Path> = changed.iter().map(|path| home(path)).collect();
        let known = homes.into_iter().filter_map(|home| Some((home, self.templates.get(home)?)));
        let templates: BTreeMap<&Path, Templates<'_>> =
            known.map(|(home, known)| (home, known.used.open())).collect();
        for (path, read) in read_all(&changed, self.context.as_ref(), &templates) {
            if let Some(known) = self.files.get_mut(path) {
                // What could not be read may be right with other templates.
                known.templated = read.as_ref().map_or(true, |definition| definition.templated);
            }
            match read {
                Ok(definition) => drop(fresh.insert(path.clone(), definition)),
                Err(errors) => changes.rejected.push((path.clone(), errors)),
            }
        }
        self.admit(fresh, &mut gone, &mut changes);
        if !changes.defined.is_empty() {
            changes.warnings.extend(self.alone());
        }
        if !gone.is_empty() {
            let used = self.files.values().filter_map(|known| known.used.as_ref());
            let names: BTreeSet<&Name> = used.map(|definition| &definition.deployable.name).collect();
            changes.removed = gone.into_keys().filter(|name| !names.contains(name)).collect();
        }
        changes
    }

    /// Reads the templates beside these files, where they have changed; those that cannot be read change nothing. The directories that have
    /// other ones now.
    fn look_at_templates(&mut self, present: &[PathBuf], changes: &mut Changes) -> BTreeSet<PathBuf> {
        let directories: BTreeSet<&Path> = present.iter().map(|path| home(path)).collect();
        self.templates.retain(|directory, _| directories.contains(directory.as_path()));
        let mut others = BTreeSet::new();
        for directory in directories {
            let path = directory.join(TEMPLATES_FILE);
            let stamp = Stamp::of(&path).ok();
            let known = self.templates.entry(directory.to_owned()).or_default();
            if known.stamp == stamp {
                continue;
            }
            known.stamp = stamp;
            match templates(&path, stamp.is_some()) {
                Err(errors) => changes.rejected.push((path, errors)),
                Ok(read) if read != known.used => {
                    known.used = read;
                    others.insert(directory.to_owned());
                }
                Ok(_) => {}
            }
        }
        others
    }

    /// Puts new versions into force, as far as none claims what another has: what runs already stays, of two new ones the earlier.
    fn admit(
        &mut self,
        fresh: BTreeMap<PathBuf, Definition>,
        gone: &mut BTreeMap<Name, Definition>,
        changes: &mut Changes,
    ) {
        if fresh.is_empty() {
            return;
        }
        let standing = self.files.iter().filter(|(path, _)| !fresh.contains_key(*path));
        let standing = standing.filter_map(|(_, known)| known.used.clone());
        let set: Vec<Definition> = standing.chain(fresh.values().cloned()).collect();
        let problems = check_set(&set, self.port());
        changes.warnings.extend(problems.iter().filter(|it| !it.is_error()).cloned());
        // Only where something is claimed twice each new version is compared by itself.
        let quiet = !problems.iter().any(Diagnostic::is_error);
        for (path, definition) in fresh {
            let errors = if quiet { Vec::new() } else { self.conflicts(&path, &definition) };
            if !errors.is_empty() {
                changes.rejected.push((path, errors));
                continue;
            }
            changes.warnings.extend(definition.warnings.iter().cloned());
            let deployable = Arc::clone(&definition.deployable);
            let replaced = self.files.get_mut(&path).and_then(|known| known.used.replace(definition));
            gone.extend(replaced.map(by_name));
            if gone.get(&deployable.name).is_none_or(|before| before.deployable != deployable) {
                changes.defined.push(deployable);
            }
        }
    }

    /// policy.md section 6: where there is neither a peer nor a canary, nothing proves the path, and a hung machine is not recovered.
    fn alone(&self) -> Option<Diagnostic> {
        let mut used = self.files.values().filter_map(|known| known.used.as_ref());
        let only = used
            .next()
            .filter(|it| it.deployable.assemblies.len() == 1 && it.deployable.infrastructure.is_some())?;
        let canaries = self.context.as_ref().is_some_and(|context| context.canaries);
        if used.next().is_some() || canaries {
            return None;
        }
        let message = "the only machine of all definitions, and no [[canaries]]: nothing proves the path to it, so when it hangs or is off \
                       that is only reported; expected a second machine, or canaries in cpe.toml";
        let at = only.places.machines.first().copied().unwrap_or(Position::START);
        Some(Diagnostic::warning(&only.file, at, message.to_owned()))
    }

    fn port(&self) -> u16 {
        self.context.as_ref().map_or(22, |context| context.port)
    }

    /// What this version claims that another file in force has.
    fn conflicts(&self, path: &Path, definition: &Definition) -> Vec<Diagnostic> {
        let others = self.files.iter().filter(|(other, _)| other.as_path() != path);
        // The later by name is refused, so the new one is compared under the last name.
        let mut set: Vec<Definition> = others.filter_map(|(_, known)| known.used.clone()).collect();
        set.push(Definition { file: format!("{}{}", char::MAX, definition.file), ..definition.clone() });
        let errors =
            check_set(&set, self.port()).into_iter().filter(|problem| problem.file.starts_with(char::MAX));
        errors.map(|problem| Diagnostic { file: definition.file.clone(), ..problem }).collect()
    }
}

fn by_name(definition: Definition) -> (Name, Definition) {
    (definition.deployable.name.clone(), definition)
}

/// The directory of a file.
fn home(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Whether a file holds templates, and no definition.
#[must_use]
pub fn holds_templates(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == TEMPLATES_FILE)
}

/// None where there is no such file.
fn templates(path: &Path, there: bool) -> Result<TemplatesFile, Vec<Diagnostic>> {
    if !there {
        return Ok(TemplatesFile::default());
    }
    let file = path.display().to_string();
    let read = || {
        let bytes = read(path).map_err(|error| vec![unreadable(&file, &error)])?;
        TemplatesFile::parse_bytes(&file, &bytes)
    };
    catch(read).unwrap_or_else(|said| Err(vec![panicked(&file, &said)]))
}

type Outcome<'p> = (&'p PathBuf, Result<Definition, Vec<Diagnostic>>);

/// Fewer files than this are read by one thread.
const FILES_OF_A_THREAD: usize = 64;

/// Reads files, in their order, on all processors where they are many: each is read by itself, and a fault of the parser costs the file that
/// shows it, and nobody else.
fn read_all<'p>(
    files: &[&'p PathBuf],
    context: Option<&Context>,
    templates: &BTreeMap<&Path, Templates<'_>>,
) -> Vec<Outcome<'p>> {
    let read = |path: &'p PathBuf| -> Outcome<'p> {
        let file = path.display().to_string();
        let read = catch(|| definition(path, &file, templates.get(home(path)), context));
        (path, read.unwrap_or_else(|said| Err(vec![panicked(&file, &said)])))
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = files.len().div_ceil(threads).max(FILES_OF_A_THREAD);
    if files.len() <= share {
        return files.iter().map(|path| read(path)).collect();
    }
    std::thread::scope(|scope| {
        let spawn = |some: &'_ [&'p PathBuf]| {
            let some = some.to_vec();
            scope.spawn(move || some.into_iter().map(read).collect::<Vec<_>>())
        };
        let parts: Vec<_> = files.chunks(share).map(spawn).collect();
        // Each file's panic was caught with it.
        parts.into_iter().filter_map(|part| part.join().ok()).flatten().collect()
    })
}

fn definition(
    path: &Path,
    file: &str,
    templates: Option<&Templates<'_>>,
    context: Option<&Context>,
) -> Result<Definition, Vec<Diagnostic>> {
    let bytes = read(path).map_err(|error| vec![unreadable(file, &error)])?;
    let definition = timers(Definition::parse_with(file, &bytes, templates)?, context)?;
    windows(&definition)?;
    let Some(context) = context else { return Ok(definition) };
    if let Some(unknown) = definition.check_infrastructure(&context.infrastructures) {
        return Err(vec![unknown]);
    }
    let wrong = definition.check_outlets(&context.fence_agents);
    if wrong.is_empty() { Ok(definition) } else { Err(wrong) }
}

/// Maintenance windows in a zone that is not known, or that never happen.
fn windows(definition: &Definition) -> Result<(), Vec<Diagnostic>> {
    let now = clock::wall_ms();
    let each = definition.deployable.maintenance.iter().zip(&definition.places.maintenance);
    let wrong = |(window, at): (_, &Position)| {
        let flaw = Calendar::of(window, now).err()?;
        Some(Diagnostic::error(&definition.file, *at, flaw.to_string()))
    };
    let wrong: Vec<_> = each.filter_map(wrong).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Timers that contradict each other (`dped::bounds`): errors, or warnings of the definition.
fn timers(mut definition: Definition, context: Option<&Context>) -> Result<Definition, Vec<Diagnostic>> {
    let unknown = Context::default();
    let assumed = context.unwrap_or(&unknown).assumptions(&definition.deployable, None);
    let (mut errors, file) = (Vec::new(), &definition.file);
    for conflict in conflicts(&definition.deployable, &assumed).into_iter().take(DIAGNOSTICS_MAX) {
        let at = definition.places.of(&definition.deployable, conflict.part, conflict.key);
        match conflict.weight {
            Weight::Error => errors.push(Diagnostic::error(file, at, conflict.message)),
            Weight::Warning => definition.warnings.push(Diagnostic::warning(file, at, conflict.message)),
        }
    }
    if errors.is_empty() { Ok(definition) } else { Err(errors) }
}

/// A file's bytes: at most one more than is allowed, so that the parser can say that it is too much.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(FILE_MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(file: &str, error: &io::Error) -> Diagnostic {
    Diagnostic::error(file, Position::START, format!("cannot be read: {error}"))
}

fn panicked(file: &str, said: &str) -> Diagnostic {
    let message =
        format!("reading it panicked, which is a fault of cpe; please report it with the file: {said}");
    Diagnostic::error(file, Position::START, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, file: &str, text: &str) -> PathBuf {
        let path = directory.join(file);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn one_machine(name: &str, address: &str) -> String {
        format!(
            "name = \"{name}\"\n[assemblies.a]\naddress = \"{address}\"\n[assemblies.a.services.s]\nsystemd = \"s.service\"\n"
        )
    }

    fn look(definitions: &mut Definitions, root: &Path) -> Changes {
        definitions.look(&files(root).unwrap())
    }

    fn names(changes: &Changes) -> Vec<&str> {
        changes.defined.iter().map(|it| it.name.as_str()).collect()
    }

    #[test]
    fn a_secret_in_a_configuration_that_everybody_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let rack = |password: &str| {
            format!(
                "[infrastructures.rack7]\nkind = \"fence\"\nagent = \"fence_apc\"\noptions = {{ password = {password} }}\n"
            )
        };
        let of = |password: &str, mode: u32| {
            let file = write(directory.path(), "cpe.toml", &rack(password));
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            config(&file)
        };
        let said = of("\"hunter2\"", 0o644).unwrap_err()[0].to_string();
        assert!(said.contains("holds `infrastructures.rack7.options.password`, expected { file"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        let warned = of("\"hunter2\"", 0o640).unwrap().warnings;
        assert!(warned[0].message.starts_with("`password` is written in this file"), "{warned:?}");
        assert_eq!(of("{ file = \"/run/secret\" }", 0o644).unwrap().warnings, []);
    }

    #[test]
    fn one_broken_definition_costs_only_itself() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(root, "1-good.toml", &one_machine("good", "192.0.2.1"));
        write(root, "2-broken.toml", "name = \"broken\"\nasemblies = 1\n");
        write(root, "3-good.toml", &one_machine("other", "192.0.2.2"));
        write(root, "4-not-read.txt", "neither TOML nor ours");
        let changes = look(&mut Definitions::new(None), root);
        assert_eq!(names(&changes), ["good", "other"]);
        assert_eq!(changes.rejected.len(), 1);
        let broken = &changes.rejected[0].1;
        assert!(broken.iter().any(|error| error.to_string().contains("2-broken.toml:2:1: ")), "{broken:?}");
    }

    #[test]
    fn a_lone_machine_with_an_infrastructure_is_told_that_its_hang_is_only_reported() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let text = one_machine("lone", "192.0.2.1").replacen('\n', "\ninfrastructure = \"prod\"\n", 1);
        write(root, "lone.toml", &text);
        let mut definitions = Definitions::new(None);
        let warnings = look(&mut definitions, root).warnings;
        assert!(warnings[0].to_string().contains("only reported"), "{warnings:?}");
        write(root, "peer.toml", &one_machine("peer", "192.0.2.2"));
        assert!(look(&mut definitions, root).warnings.is_empty());
    }

    #[test]
    fn of_two_new_ones_that_claim_one_machine_the_later_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(root, "a.toml", &one_machine("first", "192.0.2.1"));
        write(root, "b.toml", &one_machine("second", "192.0.2.1"));
        let changes = look(&mut Definitions::new(None), root);
        assert_eq!(names(&changes), ["first"]);
        assert!(changes.rejected[0].0.ends_with("b.toml"));
        assert!(changes.rejected[0].1[0].to_string().contains("b.toml:"), "{:?}", changes.rejected);
    }

    #[test]
    fn what_runs_keeps_its_machine_whatever_the_newcomer_is_called() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(root, "b.toml", &one_machine("running", "192.0.2.1"));
        let mut definitions = Definitions::new(None);
        assert_eq!(names(&look(&mut definitions, root)), ["running"]);
        write(root, "a.toml", &one_machine("newcomer", "192.0.2.1"));
        let changes = look(&mut definitions, root);
        assert!(names(&changes).is_empty() && changes.removed.is_empty(), "{changes:?}");
        assert!(changes.rejected[0].0.ends_with("a.toml"));
    }

    /// A machine that has all but its address from a template.
    fn of_template(name: &str, template: &str, address: &str) -> String {
        format!("name = \"{name}\"\n[assemblies.a]\ntemplate = \"{template}\"\naddress = \"{address}\"\n")
    }

    fn rejected(changes: &Changes) -> Vec<String> {
        changes.rejected.iter().flat_map(|(_, errors)| errors).map(ToString::to_string).collect()
    }

    #[test]
    fn changed_templates_change_those_that_have_them_and_broken_ones_change_nothing() {
        const WEB: &str = "[templates.web]\nservices.nginx.systemd = \"nginx.service\"\n";
        const DB: &str = "[templates.db]\nservices.pg.systemd = \"pg.service\"\n";
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(root, "a.toml", &of_template("one", "web", "192.0.2.1"));
        write(root, "b.toml", &of_template("two", "db", "192.0.2.2"));
        write(root, "c.toml", &one_machine("plain", "192.0.2.3"));
        let mut definitions = Definitions::new(None);
        let without = look(&mut definitions, root);
        assert_eq!(names(&without), ["plain"]);
        assert!(
            rejected(&without)[0].contains("a.toml:3:12: no template \"web\", expected [templates.NAME]")
        );

        write(root, "templates.toml", &format!("{WEB}{DB}"));
        assert_eq!(names(&look(&mut definitions, root)), ["one", "two"], "they are right now");
        write(root, "templates.toml", &format!("{WEB}max_rung = \"reboot-soft\"\n{DB}"));
        assert_eq!(names(&look(&mut definitions, root)), ["one"], "the other one's is what it was");

        write(
            root,
            "templates.toml",
            &format!("[templates.web]\nservice.nginx.systemd = \"n.service\"\n{DB}"),
        );
        let broken = look(&mut definitions, root);
        assert!(names(&broken).is_empty() && broken.removed.is_empty(), "{broken:?}");
        assert!(rejected(&broken)[0].contains("templates.toml:2:1: unknown key `service`"), "{broken:?}");

        write(root, "templates.toml", &format!("{WEB}max_rung = \"reboot-smooth\"\n{DB}"));
        let wrong = look(&mut definitions, root);
        assert!(names(&wrong).is_empty() && wrong.removed.is_empty(), "{wrong:?}");
        let said = rejected(&wrong);
        assert!(said[0].contains("a.toml:3:12: `max_rung` is \"reboot-smooth\""), "{said:?}");
        assert!(said[0].contains("templates.toml:3:12, which is included here)"), "{said:?}");

        std::fs::remove_file(root.join("templates.toml")).unwrap();
        let gone = look(&mut definitions, root);
        assert!(names(&gone).is_empty() && gone.removed.is_empty(), "what runs goes on: {gone:?}");
        assert_eq!(gone.rejected.len(), 2);
        write(root, "templates.toml", &format!("{WEB}max_rung = \"reboot-soft\"\n{DB}"));
        let back = look(&mut definitions, root);
        assert!(
            names(&back).is_empty() && back.rejected.is_empty(),
            "nothing is other than what runs: {back:?}"
        );
    }

    #[test]
    fn one_file_alone_has_the_templates_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = write(directory.path(), "a.toml", &of_template("one", "web", "192.0.2.1"));
        write(
            directory.path(),
            "templates.toml",
            "[templates.web]\nservices.nginx.systemd = \"n.service\"\n",
        );
        assert_eq!(names(&Definitions::new(None).look(&[file])), ["one"]);
    }

    #[test]
    fn only_what_changed_is_told_and_a_broken_version_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(root, "a.toml", &one_machine("one", "192.0.2.1"));
        write(root, "b.toml", &one_machine("two", "192.0.2.2"));
        let mut definitions = Definitions::new(None);
        look(&mut definitions, root);
        assert!(names(&look(&mut definitions, root)).is_empty(), "nothing changed");
        write(root, "b.toml", &one_machine("two", "192.0.2.33"));
        assert_eq!(names(&look(&mut definitions, root)), ["two"]);
        write(
            root,
            "b.toml",
            "nonsense, and longer than before, whatever the clock's resolution ...........................................................",
        );
        let broken = look(&mut definitions, root);
        assert!(names(&broken).is_empty() && broken.removed.is_empty(), "the running version stays");
        assert_eq!(broken.rejected.len(), 1);
        std::fs::remove_file(root.join("b.toml")).unwrap();
        let removed = look(&mut definitions, root);
        assert_eq!(removed.removed.iter().map(Name::as_str).collect::<Vec<_>>(), ["two"]);
    }
}
