//! One cpe per state_dir: two that act on the same machines would fight. The lock is the kernel's (flock), so it ends with its process,
//! however that ends; the process id in the file is only for the message.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why state_dir is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another cpe has it.
    #[error(
        "{state_dir} is in use by another cpe ({holder}): stop that one, or give this one a state_dir of its own"
    )]
    Held {
        /// The folder.
        state_dir: PathBuf,
        /// "process 1234".
        holder: String,
    },
    /// The folder cannot be made or the lock file not be opened.
    #[error("cannot use {path}: {source}; state_dir must be a folder that cpe may write to")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The lock, for as long as it lives.
#[derive(Debug)]
pub(super) struct StateLock {
    _file: File,
}

impl StateLock {
    /// Makes the folder if need be and locks it.
    pub(super) fn take(state_dir: &Path) -> Result<Self, LockError> {
        let path = state_dir.join("lock");
        let failed = |path: &Path, source| LockError::Io { path: path.to_owned(), source };
        fs::create_dir_all(state_dir).map_err(|source| failed(state_dir, source))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| failed(&path, source))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LockError::Held { state_dir: state_dir.to_owned(), holder: holder(&mut file) });
            }
            Err(error) => return Err(failed(&path, error.into())),
        }
        note(&mut file).map_err(|source| failed(&path, source))?;
        Ok(Self { _file: file })
    }
}

fn note(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(process)) => format!("process {process}"),
        _ => "process unknown".to_owned(),
    }
}
