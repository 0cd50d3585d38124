//! The servers' process: a live fleet or TCP echo servers. It says `ready` and ends when its standard input does.

use std::io::Read as _;
use std::path::Path;

use cpe_sim::live::{Fleet, FleetSettings, MachineSpec, UnitSpec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::Kind;

/// Units of each machine; a round of several probes names them all.
pub(crate) const UNITS: [&str; 4] = ["a.service", "b.service", "c.service", "d.service"];
/// What a plain TCP round carries: about what the answer to one unit probe does.
pub(crate) const MESSAGE_BYTES: usize = 64;

pub(crate) fn run(kind: Kind, sessions: usize, folder: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let _fleet = runtime.block_on(async {
        match kind {
            Kind::Tcp => echo(folder).await.map(|()| None),
            Kind::Resident | Kind::Exec => fleet(kind, sessions, folder).await.map(Some),
        }
    })?;
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

async fn fleet(kind: Kind, sessions: usize, folder: &Path) -> anyhow::Result<Fleet> {
    let machine = |number| MachineSpec::new(&format!("m{number}"), UNITS.map(UnitSpec::new).into());
    let fleet = Fleet::start(FleetSettings::new((0..sessions).map(machine).collect())).await?;
    let mut addresses = String::new();
    for machine in fleet.machines() {
        if kind == Kind::Exec {
            machine.allow_resident_shell(false).await;
        }
        addresses += &format!("{}\n", machine.address());
    }
    std::fs::write(folder.join("addresses"), addresses)?;
    std::fs::write(folder.join("known_hosts"), fleet.known_hosts())?;
    std::fs::write(folder.join("identity"), fleet.client_key_openssh())?;
    std::fs::set_permissions(folder.join("identity"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(fleet)
}

async fn echo(folder: &Path) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    std::fs::write(folder.join("addresses"), format!("{}\n", listener.local_addr()?))?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo_one(stream));
        }
    });
    Ok(())
}

async fn echo_one(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE_BYTES];
    loop {
        stream.read_exact(&mut message).await?;
        stream.write_all(&message).await?;
    }
}
