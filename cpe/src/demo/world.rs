//! The demo's world: machines, and a directory with all that a real management node has (definitions, cpe.toml, key, known hosts,
//! the infrastructure's program), written for them. The faults that befall it are in `script.rs`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use cpe_sim::live::{Fleet, FleetSettings, MachineSpec, UnitSpec};

const DEFINITIONS: [(&str, &str); 3] = [
    ("batch.toml", include_str!("deployables/batch.toml")),
    ("mail.toml", include_str!("deployables/mail.toml")),
    ("shop.toml", include_str!("deployables/shop.toml")),
];

/// Where the machines' infrastructure is asked.
const CONTROL: &str = "infrastructure.sock";

/// The machines and where their controller finds all that it needs.
#[derive(Debug)]
pub(super) struct World {
    pub(super) fleet: Arc<Fleet>,
    directory: PathBuf,
}

impl World {
    /// Starts the machines and writes the files.
    pub(super) async fn build() -> anyhow::Result<Self> {
        let fleet = Fleet::start(FleetSettings::new(machines())).await.context("the demo's machines")?;
        let directory = std::env::temp_dir().join(format!("cpe-demo-{}", std::process::id()));
        create_private(&directory)
            .with_context(|| format!("the demo's directory {}", directory.display()))?;
        fleet.serve_control(&directory.join(CONTROL)).await.context("the demo's infrastructure")?;
        let world = Self { fleet: Arc::new(fleet), directory };
        world.write_files().with_context(|| format!("the demo's files in {}", world.directory.display()))?;
        Ok(world)
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.directory.join("cpe.toml")
    }

    fn write_files(&self) -> anyhow::Result<()> {
        let root = &self.directory;
        let definitions = root.join("deployables");
        std::fs::create_dir(&definitions)?;
        for (file, template) in DEFINITIONS {
            std::fs::write(definitions.join(file), self.with_addresses(template))?;
        }
        write_private(&root.join("identity"), &self.fleet.client_key_openssh())?;
        std::fs::write(root.join("known_hosts"), self.fleet.known_hosts())?;
        let program = root.join("infrastructure");
        let cpe = std::env::current_exe()?;
        let script = format!(
            "#!/bin/sh\nexec '{}' demo-infra '{}' \"$1\"\n",
            cpe.display(),
            root.join(CONTROL).display()
        );
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

fn machines() -> Vec<MachineSpec> {
    let machine = |name: &str, units: &[(&str, Option<u16>)]| {
        let units = units.iter().map(|(unit, port)| {
            let spec = UnitSpec::new(unit);
            port.map_or(spec.clone(), |port| spec.listening(port))
        });
        MachineSpec::new(name, units.collect())
    };
    let web = [("nginx.service", Some(80)), ("php-fpm.service", None)];
    let mx = [("postfix.service", Some(25))];
    let mut machines = vec![
        machine("mysql", &[("mariadb.service", Some(3306))]),
        machine("web-1", &web),
        machine("web-2", &web),
        machine("mx-1", &mx),
        machine("mx-2", &mx),
    ];
    machines.extend((1..=4).map(|number| machine(&format!("worker-{number}"), &[("job.service", None)])));
    machines
}
