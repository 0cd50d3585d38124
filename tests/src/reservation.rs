//! What tests that run at once share: a limited number of guests, and one number per site. Both are file locks, so that
//! they hold between threads and processes alike and vanish with their holder. `guests/machine` knows the site locks.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait;

/// Where the locks are; fixed, because networks and namespaces are the whole machine's.
const LOCKS: &str = "/run/lock/cpe-guests";
/// Guests that may run at once on this machine: as many as the largest story has. Each is 50 MB and, once booted, next to no CPU time.
const GUESTS_AT_ONCE: usize = 20;
/// How long a story waits for others to end theirs.
const QUEUE: Duration = Duration::from_secs(1800);

/// Leave to run a number of guests. Given back on drop.
#[derive(Debug)]
pub(crate) struct Leave {
    _slots: Vec<File>,
}

impl Leave {
    /// Waits until this many guests may be run. All at once, so that two stories never wait for each other's.
    pub(crate) fn take(guests: usize) -> Result<Self> {
        if guests > GUESTS_AT_ONCE {
            bail!("a story may have {GUESTS_AT_ONCE} guests at once, this one wants {guests}");
        }
        let gate = open("gate")?;
        gate.lock().context("waiting for the other stories")?;
        let mut slots = Vec::new();
        let mut look = || {
            for slot in 0..GUESTS_AT_ONCE {
                if slots.len() == guests {
                    break;
                }
                slots.extend(try_lock(&format!("slot-{slot}"))?);
            }
            Ok((slots.len() == guests).then_some(()))
        };
        wait::until("other stories to give their guests back", QUEUE, &mut look)?;
        Ok(Self { _slots: slots })
    }
}

/// The number of a site, ours as long as this lives. An empty lock means that nothing is left of its last site.
#[derive(Debug)]
pub(crate) struct Number {
    pub(crate) value: u8,
    lock: File,
}

impl Number {
    /// Takes the first number that is free and swept.
    pub(crate) fn take() -> Result<Self> {
        for value in 1..=250 {
            let Some(lock) = try_lock(&value.to_string())? else {
                continue;
            };
            if lock.metadata()?.len() == 0 {
                return Ok(Self { value, lock });
            }
        }
        bail!("all 250 sites are in use; do other tests hang? See the holders with `lslocks | grep {LOCKS}`");
    }

    /// Says in the lock where the site is, so that a sweep finds it when we are gone.
    pub(crate) fn write_down(&mut self, site: &Path) -> Result<()> {
        write!(self.lock, "{}", site.display()).context("writing down where the site is")
    }

    /// Says that nothing is left of the site.
    pub(crate) fn wipe(&self) -> Result<()> {
        self.lock.set_len(0).context("writing down that the site is gone")
    }
}

fn open(name: &str) -> Result<File> {
    fs::create_dir_all(LOCKS).with_context(|| format!("making {LOCKS}"))?;
    let path = PathBuf::from(LOCKS).join(name);
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    options.open(&path).with_context(|| format!("opening {}", path.display()))
}

fn try_lock(name: &str) -> Result<Option<File>> {
    let file = open(name)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {LOCKS}/{name}")),
    }
}
