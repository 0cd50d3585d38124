//! Live reload: a change in the directory of definitions, or SIGHUP, is followed by a look (`load.rs`), and the fleet is told of what
//! changed and nothing else. SIGHUP also reads keys and known hosts again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use crate::fleet::Fleet;
use crate::load::{self, Changes, Definitions};

/// A person's editor, or a tool that copies many files, is let finish: one look follows the last change by this.
const QUIET: Duration = Duration::from_millis(200);

/// But a directory in which something changes all the time is looked at this often.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// Follows the directory for as long as the process runs. `hangup` is asked for by who starts it, before anybody can send one: without
/// a handler it ends the process.
pub async fn follow(directory: PathBuf, mut definitions: Definitions, fleet: Arc<Fleet>, mut hangup: Signal) {
    let (sender, mut changed) = mpsc::channel(1);
    // Kept: dropping it ends the watch.
    let _watcher = watch(&directory, sender);
    loop {
        tokio::select! {
            Some(()) = changed.recv() => settle(&mut changed).await,
            _ = hangup.recv() => {
                tracing::info!("SIGHUP: definitions, keys and known hosts are read again");
                reload_keys(&fleet).await;
            }
        }
        let at = directory.clone();
        let look = tokio::task::spawn_blocking(move || {
            let changes = load::files(&at).map(|files| definitions.look(&files));
            (definitions, changes)
        });
        let Ok((back, changes)) = look.await else { return };
        definitions = back;
        match changes {
            Ok(changes) => apply(&fleet, changes).await,
            Err(error) => {
                tracing::error!(directory = %directory.display(), %error, "definitions cannot be read; what is managed stays as it is");
            }
        }
    }
}

/// Tells the fleet what changed.
pub async fn apply(fleet: &Arc<Fleet>, changes: Changes) {
    for warning in &changes.warnings {
        tracing::warn!("{warning}");
    }
    for (path, errors) in &changes.rejected {
        fleet.reject(path, errors);
    }
    for name in &changes.removed {
        fleet.remove(name).await;
    }
    for deployable in changes.defined {
        fleet.define(deployable).await;
    }
}

fn watch(directory: &std::path::Path, sender: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let told = move |event: notify::Result<notify::Event>| {
        let reads = event.is_ok_and(|event| event.kind.is_access());
        if !reads {
            // A full queue says already that something changed.
            let _ = sender.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(told).and_then(|mut watcher| {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::error!(directory = %directory.display(), %error, "changes of definitions are not seen; send SIGHUP after each");
            None
        }
    }
}

async fn settle(changed: &mut mpsc::Receiver<()>) {
    let until = tokio::time::Instant::now() + BUSY_MAX;
    while tokio::time::Instant::now() < until {
        if tokio::time::timeout(QUIET, changed.recv()).await.is_err() {
            return;
        }
    }
}

async fn reload_keys(fleet: &Arc<Fleet>) {
    let monitor = fleet.shared().monitor.clone();
    match tokio::task::spawn_blocking(move || monitor.reload()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(%error, "keys or known hosts cannot be read; those read before stay");
        }
        Err(error) => tracing::error!(%error, "keys and known hosts were not read"),
    }
}
