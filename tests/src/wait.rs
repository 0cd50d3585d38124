//! The one way of waiting: look until a condition holds or a deadline has passed. No test sleeps otherwise.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

/// Pause between two looks. Short beside what is waited for (boots, probes), long beside what a look costs.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Looks until `look` finds something, and returns it.
///
/// # Errors
/// When `look` fails, or has found nothing by the deadline; the message then names `what` was awaited.
pub fn until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if start.elapsed() >= deadline {
            bail!("waited {deadline:?} in vain for: {what}");
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// Puts what helps to understand a failure below its message.
pub(crate) fn explained<T>(result: Result<T>, details: impl FnOnce() -> String) -> Result<T> {
    result.map_err(|error| anyhow!("{error:#}\n{}", details()))
}
