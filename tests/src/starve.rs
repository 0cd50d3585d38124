//! Takes a process almost all of its CPU time, as a neighbour on a crowded machine would: a quota of its cgroup, in whichever hierarchy
//! of this host rules over CPU time.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The span that a quota is of, in microseconds: the kernel's default.
const PERIOD_US: u32 = 100_000;

/// A process that starves. It gets its time back on drop.
#[derive(Debug)]
pub struct Starved {
    pid: u32,
    group: PathBuf,
}

impl Starved {
    /// Leaves a process so many percent of one core.
    ///
    /// # Errors
    /// When this host lets nobody divide its CPU time.
    pub fn to(percent: u32, pid: u32) -> Result<Self> {
        let unified = Path::new("/sys/fs/cgroup");
        let controllers = fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
        let v2 = controllers.split_whitespace().any(|word| word == "cpu");
        let root = if v2 { unified.to_owned() } else { unified.join("cpu") };
        if v2 {
            fs::write(root.join("cgroup.subtree_control"), "+cpu")
                .context("asking for the cpu controller")?;
        }
        let group = root.join(format!("cpe-starved-{pid}"));
        fs::create_dir(&group).with_context(|| format!("making {}", group.display()))?;
        let starved = Self { pid, group };
        let quota = percent * PERIOD_US / 100;
        let (file, text) = match v2 {
            true => ("cpu.max", format!("{quota} {PERIOD_US}")),
            false => ("cpu.cfs_quota_us", quota.to_string()),
        };
        fs::write(starved.group.join(file), text).context("setting the quota")?;
        fs::write(starved.group.join("cgroup.procs"), pid.to_string()).context("moving the process")?;
        Ok(starved)
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to move.
        let root = self.group.parent().unwrap_or(&self.group).join("cgroup.procs");
        drop(fs::write(root, self.pid.to_string()));
        drop(fs::remove_dir(&self.group));
    }
}
