//! What a management node has: a folder with definitions, cpe.toml, key and known hosts, for a live fleet.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use cpe_sim::live::{Fleet, FleetSettings, MachineSpec, UnitSpec};

/// The units of each machine.
pub(crate) const UNITS: [&str; 2] = ["nginx.service", "app.service"];

/// The fleet and its controller's files.
pub(crate) struct Site {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) metrics: SocketAddr,
    folder: tempfile::TempDir,
}

impl Site {
    pub(crate) async fn build(
        assemblies: usize,
        per_deployable: usize,
        interval: u64,
    ) -> anyhow::Result<Self> {
        let machine = |number| MachineSpec::new(&format!("m{number}"), UNITS.map(UnitSpec::new).into());
        let fleet = Fleet::start(FleetSettings::new((0..assemblies).map(machine).collect())).await?;
        // Free now; whoever takes it before cpe does makes cpe say so.
        let metrics = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let site = Self { fleet: Arc::new(fleet), metrics, folder: tempfile::tempdir()? };
        site.write(per_deployable, interval)?;
        Ok(site)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("cpe.toml")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("cpe.log")
    }

    fn write(&self, per_deployable: usize, interval: u64) -> anyhow::Result<()> {
        let folder = self.folder.path();
        std::fs::write(folder.join("known_hosts"), self.fleet.known_hosts())?;
        let identity = folder.join("identity");
        std::fs::write(&identity, self.fleet.client_key_openssh())?;
        std::fs::set_permissions(&identity, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let definitions = folder.join("deployables");
        std::fs::create_dir(&definitions)?;
        for (number, machines) in self.fleet.machines().chunks(per_deployable.max(1)).enumerate() {
            let mut text = format!("name = \"d{number}\"\n[probe]\ninterval = \"{interval}s\"\n");
            for machine in machines {
                let (name, address) = (machine.name(), machine.address().ip());
                write!(text, "[assemblies.{name}]\naddress = \"{address}\"\n")?;
                for unit in UNITS {
                    let service = unit.trim_end_matches(".service");
                    write!(text, "[assemblies.{name}.services.{service}]\nsystemd = \"{unit}\"\n")?;
                }
            }
            std::fs::write(definitions.join(format!("d{number}.toml")), text)?;
        }
        let config = format!(
            "deployables = \"deployables\"\nstate_dir = \"state\"\n\
             [listen]\napi = \"unix:api.sock\"\nmetrics = \"{}\"\n\
             [ssh]\nuser = \"{}\"\nport = {}\nidentity = \"identity\"\nknown_hosts = [\"known_hosts\"]\n",
            self.metrics,
            self.fleet.user(),
            self.fleet.port(),
        );
        Ok(std::fs::write(self.config(), config)?)
    }
}
