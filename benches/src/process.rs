//! What a process used: CPU time and memory, of this process or of another one.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

use crate::host::field;

/// Memory of a process, in bytes, as /proc/PID/smaps_rollup has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Proportional set size: shared pages divided among those who share them.
    pub pss: u64,
    /// Unique set size: private pages.
    pub uss: u64,
}

/// CPU time that this process used so far, user and system, all threads.
#[must_use]
pub fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// CPU time that another process used so far, user and system, all threads; in ticks of 10 ms.
///
/// # Errors
/// The process is gone.
pub fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    // proc_pid_stat(5): after the name in parentheses, utime and stime are fields 14 and 15 of the whole line.
    let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat without a name")?;
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second())?)
}

/// Memory of a process.
///
/// # Errors
/// The process is gone, or belongs to somebody else.
pub fn memory_of(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let kilobytes = |name: &str| -> anyhow::Result<u64> {
        let value = field(&text, name).with_context(|| format!("{path} has no {name}"))?;
        Ok(value.trim_end_matches(" kB").trim().parse()?)
    };
    let uss = kilobytes("Private_Clean")? + kilobytes("Private_Dirty")?;
    Ok(Memory { pss: kilobytes("Pss")? * 1024, uss: uss * 1024 })
}
