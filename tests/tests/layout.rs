//! The shape of the workspace (design.md section 2): which crate may know which, and what every file owes its reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// What each crate may depend on within the workspace. A crate that is not here fails the test: decide where it stands.
const MAY_DEPEND_ON: [(&str, &[&str]); 10] = [
    ("cpe-proto", &[]),
    ("cpe-calendar", &["cpe-proto"]),
    ("dped", &["cpe-proto"]),
    ("cpe-monitor", &["cpe-proto"]),
    ("cpe-infra", &["cpe-proto"]),
    ("cpe-sim", &["cpe-proto", "cpe-calendar", "dped"]),
    ("cpe", &["cpe-proto", "cpe-calendar", "dped", "cpe-monitor", "cpe-infra", "cpe-sim"]),
    ("cpe-tests", &["cpe-proto", "dped", "cpe-monitor", "cpe-infra", "cpe-sim", "cpe"]),
    ("cpe-fuzz", &["cpe-proto", "cpe-monitor", "cpe-infra", "cpe"]),
    ("cpe-benches", &["cpe-proto", "dped", "cpe-monitor", "cpe-infra", "cpe-sim", "cpe"]),
];

/// What "no logic, no I/O" of proto excludes.
const NOT_IN_PROTO: [&str; 9] =
    ["tokio", "russh", "axum", "hyper", "rusqlite", "rustix", "tracing", "rand", "prometheus-client"];

/// Beyond this a file is several files.
const MOST_LINES: usize = 800;

fn workspace() -> Result<Metadata> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().context("cargo metadata")
}

/// Names of what a package depends on when it is built for use, not for its tests.
fn dependencies(package: &Package) -> BTreeSet<&str> {
    let used =
        package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
    used.map(|dependency| dependency.name.as_str()).collect()
}

/// All Rust files below a folder, which may be absent.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

fn source_files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for package in workspace()?.workspace_packages() {
        let home = package.manifest_path.parent().context("a manifest is in a folder")?;
        for folder in ["src", "tests", "benches", "examples"] {
            files.extend(rust_files(&home.join(folder).into_std_path_buf())?);
        }
    }
    assert!(files.len() > 10, "the walk found next to nothing: {files:?}");
    Ok(files)
}

#[test]
fn dependencies_point_one_way() -> Result<()> {
    let allowed: BTreeMap<_, _> = MAY_DEPEND_ON.into_iter().collect();
    let metadata = workspace()?;
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let Some(allowed) = allowed.get(package.name.as_str()) else {
            wrong.push(format!("{} has no place in design.md's table yet; add it here", package.name));
            continue;
        };
        let ours = dependencies(package)
            .into_iter()
            .filter(|name| MAY_DEPEND_ON.iter().any(|(ours, _)| ours == name));
        wrong.extend(
            ours.filter(|name| !allowed.contains(name))
                .map(|name| format!("{} depends on {name}", package.name)),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn the_core_depends_on_nothing_but_proto() -> Result<()> {
    let metadata = workspace()?;
    let packages = metadata.workspace_packages();
    let dped = packages.iter().find(|package| package.name == "dped").context("no dped")?;
    assert_eq!(dependencies(dped), BTreeSet::from(["cpe-proto"]));
    let proto = packages.iter().find(|package| package.name == "cpe-proto").context("no cpe-proto")?;
    let effects: Vec<_> =
        dependencies(proto).into_iter().filter(|name| NOT_IN_PROTO.contains(name)).collect();
    assert!(effects.is_empty(), "cpe-proto has no I/O, yet depends on {effects:?}");
    Ok(())
}

#[test]
fn the_core_cannot_read_a_clock_or_iterate_an_unordered_map() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dped/clippy.toml");
    let bans: toml::Table = fs::read_to_string(&path).context("dped/clippy.toml holds the bans")?.parse()?;
    let banned = bans.get("disallowed-types").and_then(toml::Value::as_array).context("it bans no type")?;
    let banned: BTreeSet<_> = banned.iter().filter_map(|ban| ban.get("path")?.as_str()).collect();
    for wanted in [
        "std::collections::HashMap",
        "std::collections::HashSet",
        "std::time::Instant",
        "std::time::SystemTime",
        "std::fs::File",
        "std::net::TcpStream",
    ] {
        assert!(banned.contains(wanted), "dped/clippy.toml does not ban {wanted}");
    }
    for file in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../dped/src"))? {
        let lifted = fs::read_to_string(&file)?.contains("clippy::disallowed_");
        assert!(!lifted, "{} lifts a ban of dped/clippy.toml", file.display());
    }
    Ok(())
}

#[test]
fn every_crate_inherits_what_the_workspace_decides() -> Result<()> {
    for package in workspace()?.workspace_packages() {
        let manifest: toml::Table = fs::read_to_string(&package.manifest_path)?.parse()?;
        let inherits = |table: &str, key: &str| {
            let value = manifest.get(table).and_then(|table| table.get(key));
            value.and_then(|value| value.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
        };
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            assert!(inherits("package", key), "{} does not inherit {key}", package.manifest_path);
        }
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(lints.and_then(toml::Value::as_bool), Some(true), "lints of {}", package.manifest_path);
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(table).and_then(toml::Value::as_table) else {
                continue;
            };
            for name in dependencies.keys() {
                assert!(
                    inherits(table, name),
                    "{name} in {} has a version of its own",
                    package.manifest_path
                );
            }
        }
    }
    Ok(())
}

#[test]
fn every_file_says_what_it_is_for() -> Result<()> {
    let mut silent = Vec::new();
    for file in source_files()? {
        if !fs::read_to_string(&file)?.starts_with("//!") {
            silent.push(file);
        }
    }
    assert!(silent.is_empty(), "these do not open with `//!`: {silent:#?}");
    Ok(())
}

#[test]
fn no_file_is_too_long_to_read() -> Result<()> {
    let mut long = Vec::new();
    for file in source_files()? {
        let lines = fs::read_to_string(&file)?.lines().count();
        if lines > MOST_LINES {
            long.push((lines, file));
        }
    }
    assert!(long.is_empty(), "more than {MOST_LINES} lines: {long:#?}");
    Ok(())
}
