//! A world for the demo and for tests: machines, and a directory with all that a real management node has (definitions, cpe.toml,
//! key, known hosts, the infrastructure's program), written for them. The demo's own machines are in `cast.rs`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use cpe_sim::live::{Fleet, FleetSettings, MachineSpec};

/// Where the machines' infrastructure is asked.
const CONTROL: &str = "infrastructure.sock";

/// The machines and where their controller finds all that it needs. The directory goes when this is dropped.
#[derive(Debug)]
pub struct World {
    /// The machines.
    pub fleet: Arc<Fleet>,
    directory: PathBuf,
}

impl World {
    /// Starts the machines and writes the files into `directory`, which must not exist. In definitions `{NAME}` stands for the address of
    /// that machine. `cpe` is the program that serves as infrastructure.
    ///
    /// # Errors
    /// What could not be started or written.
    pub async fn build(
        directory: PathBuf,
        machines: Vec<MachineSpec>,
        definitions: &[(&str, &str)],
        cpe: &Path,
    ) -> anyhow::Result<Self> {
        let fleet = Fleet::start(FleetSettings::new(machines)).await.context("the machines")?;
        create_private(&directory).with_context(|| format!("the directory {}", directory.display()))?;
        fleet.serve_control(&directory.join(CONTROL)).await.context("the infrastructure")?;
        let world = Self { fleet: Arc::new(fleet), directory };
        world
            .write_files(definitions, cpe)
            .with_context(|| format!("files in {}", world.directory.display()))?;
        Ok(world)
    }

    /// Its cpe.toml.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("cpe.toml")
    }

    /// Writes a definition, as a person would; a running controller has to be told.
    ///
    /// # Errors
    /// As the file system says.
    pub fn define(&self, file: &str, template: &str) -> std::io::Result<()> {
        std::fs::write(self.directory.join("deployables").join(file), self.with_addresses(template))
    }

    fn write_files(&self, definitions: &[(&str, &str)], cpe: &Path) -> anyhow::Result<()> {
        let root = &self.directory;
        std::fs::create_dir(root.join("deployables"))?;
        for (file, template) in definitions {
            self.define(file, template)?;
        }
        write_private(&root.join("identity"), self.fleet.client_key_openssh())?;
        std::fs::write(root.join("known_hosts"), self.fleet.known_hosts())?;
        let program = root.join("infrastructure");
        let control = root.join(CONTROL);
        let script =
            format!("#!/bin/sh\nexec '{}' demo-infra '{}' \"$1\"\n", cpe.display(), control.display());
        std::fs::write(&program, script)?;
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700))?;
        std::fs::write(self.config_file(), self.config())?;
        Ok(())
    }

    fn with_addresses(&self, template: &str) -> String {
        self.fleet.machines().iter().fold(template.to_owned(), |text, machine| {
            text.replace(&format!("{{{}}}", machine.name()), &machine.address().ip().to_string())
        })
    }

    fn config(&self) -> String {
        format!(
            "deployables = \"deployables\"\n\
             state_dir = \"state\"\n\
             [listen]\n\
             api = \"unix:{}/api.sock\"\n\
             metrics = \"off\"\n\
             [ssh]\n\
             user = \"{}\"\n\
             port = {}\n\
             identity = \"identity\"\n\
             known_hosts = [\"known_hosts\"]\n\
             [infrastructures.demo]\n\
             kind = \"command\"\n\
             program = \"infrastructure\"\n",
            self.directory.display(),
            self.fleet.user(),
            self.fleet.port(),
        )
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), %error, "the demo's files are left behind");
        }
    }
}

fn create_private(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir(directory)?;
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o700))
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(path, "")?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    std::fs::write(path, text)
}
