//! The machine that a number holds for.

use std::fs;

/// One line: processor, cores, kernel, load.
#[must_use]
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&cpu, "model name").unwrap_or("unknown processor");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    let build =
        if cfg!(debug_assertions) { "DEBUG BUILD: the numbers mean nothing" } else { "release build" };
    format!("{model}, {cores} cores, Linux {}, load {load} at the start, {build}", kernel.trim())
}

/// The value of `name : value` or `name: value` in a file of /proc.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}
