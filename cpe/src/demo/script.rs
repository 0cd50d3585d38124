//! What befalls the demo's machines, and when. Only the machines are touched: what is seen and done about it is the controller's own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cpe_sim::live::{Behaviour, Fleet, Happening, What};
use tokio::sync::broadcast;

/// One fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// After the demo's start.
    pub(super) at: Duration,
    /// What an operator would be told is broken: the names of events begin with it.
    pub(super) subject: &'static str,
    /// What happens, for a person.
    pub(super) told: &'static str,
    machine: &'static str,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill(&'static str),
    /// It dies 1 s after each start; only a reboot of its machine ends that.
    CrashLoop(&'static str),
    Freeze,
    PowerOff,
    NewHostKey,
    /// For so long.
    StopSshd(Duration),
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The faults, in order.
pub(super) const STEPS: [Step; 8] = [
    Step {
        at: seconds(4),
        subject: "shop/web-1/nginx",
        told: "nginx is killed on web-1",
        machine: "web-1",
        fault: Fault::Kill("nginx.service"),
    },
    Step {
        at: seconds(7),
        subject: "batch/worker-1",
        told: "job on worker-1 begins to die 1 s after each start, until its machine is rebooted",
        machine: "worker-1",
        fault: Fault::CrashLoop("job.service"),
    },
    Step {
        at: seconds(11),
        subject: "mail/mx-2",
        told: "mx-2 freezes: its kernel accepts connections, nothing answers",
        machine: "mx-2",
        fault: Fault::Freeze,
    },
    Step {
        at: seconds(14),
        subject: "shop/mysql/mariadb",
        told: "mariadb is killed on mysql ...",
        machine: "mysql",
        fault: Fault::Kill("mariadb.service"),
    },
    Step {
        at: seconds(14),
        subject: "shop/web-2/php",
        told: "... and php on web-2, which needs it, dies with it",
        machine: "web-2",
        fault: Fault::Kill("php-fpm.service"),
    },
    Step {
        at: seconds(24),
        subject: "batch/worker-4",
        told: "worker-4 loses its power",
        machine: "worker-4",
        fault: Fault::PowerOff,
    },
    Step {
        at: seconds(27),
        subject: "batch/worker-3",
        told: "worker-3 answers with another host key",
        machine: "worker-3",
        fault: Fault::NewHostKey,
    },
    Step {
        at: seconds(30),
        subject: "mail/mx-1",
        told: "sshd on mx-1 is stopped for 8 s; its mail service lives on",
        machine: "mx-1",
        fault: Fault::StopSshd(seconds(8)),
    },
];

/// When the demo ends: the last fault has been dealt with by then.
pub(super) const END: Duration = seconds(46);

impl Step {
    /// Makes it happen.
    pub(super) async fn happen(&self, fleet: &Arc<Fleet>) -> anyhow::Result<()> {
        let machine = fleet.machine(self.machine).with_context(|| format!("no machine {}", self.machine))?;
        match self.fault {
            Fault::Kill(unit) => machine.kill_unit(unit)?,
            Fault::CrashLoop(unit) => {
                let happenings = fleet.observe();
                machine.crash_loop(unit, seconds(1)).await?;
                tokio::spawn(cure_by_reboot(Arc::clone(fleet), happenings, self.machine, unit));
            }
            Fault::Freeze => machine.freeze().await,
            Fault::PowerOff => machine.power_off().await,
            Fault::NewHostKey => machine.change_host_key().await?,
            Fault::StopSshd(span) => {
                machine.stop_sshd().await;
                let machine = Arc::clone(machine);
                tokio::spawn(async move {
                    tokio::time::sleep(span).await;
                    machine.start_sshd().await;
                });
            }
        }
        Ok(())
    }
}

async fn cure_by_reboot(
    fleet: Arc<Fleet>,
    mut happenings: broadcast::Receiver<Happening>,
    machine: &'static str,
    unit: &'static str,
) {
    loop {
        match happenings.recv().await {
            Ok(Happening { machine: on, what: What::Booting(_), .. }) if &*on == machine => break,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
    let Some(machine) = fleet.machine(machine) else { return };
    if let Err(error) = machine.behave(unit, Behaviour::Runs).await {
        tracing::warn!(%error, "the demo's crash loop goes on");
    }
}
