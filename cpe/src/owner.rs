//! Whose machines are (policy.md section 7): the id of this controller, which is its mark in infrastructures that keep marks, and `cpe claim`.
//! What a mark means is decided by the engine (`dped/src/owner.rs`); marks are read and written in `actions.rs`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use cpe_proto::api::CommandAnswer;
use cpe_proto::config::{Config, Controller, ControllerId};
use cpe_proto::document::Diagnostic;
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{AssemblyIndex, Name};
use tokio::sync::oneshot;

use crate::api::Refused;
use crate::driver::Message;
use crate::event::plain;
use crate::fleet::{Fleet, unknown};
use crate::pauses;

/// The file of state_dir that keeps it.
const FILE: &str = "controller-id";

/// The id of this controller: what `[controller]` of cpe.toml sets, and else `controller-id` in state_dir: one line, which somebody may have
/// written; made at the first start. Kept with the journal, since with another one all machines that bear our mark are another controller's.
/// Where the two differ, cpe.toml holds: said in the log, and the file is written anew, so that it stays when the key is taken away.
///
/// # Errors
/// Where it cannot be read or made, or is no id.
pub fn controller_id(state_dir: &Path, set: Option<&ControllerId>) -> anyhow::Result<Arc<str>> {
    let path = state_dir.join(FILE);
    let keep = |id: &str| {
        write(&path, id)
            .with_context(|| format!("cannot write {}: cpe must be able to write there", path.display()))
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = set.map_or_else(random, |id| Ok(id.to_string()))?;
            keep(&id)?;
            return Ok(id.into());
        }
        Err(error) => {
            let said = format!(
                "cannot read {}: without it cpe does not know which machines are its own",
                path.display()
            );
            return Err(error).context(said);
        }
    };
    let kept = ControllerId::parse(text.trim_end());
    let Some(set) = set else {
        let expected = |expected| anyhow!("{} holds no id: expected one line, {expected}", path.display());
        return Ok(kept.map_err(expected)?.into());
    };
    if kept.as_ref() != Ok(set) {
        if let Ok(before) = &kept {
            tracing::warn!(id = %set, "the controller's id is set anew: {}", changed(&path, before));
        }
        keep(set.as_str())?;
    }
    Ok(set.clone().into())
}

/// For `cpe check`: what the next start with this configuration changes. Nothing where there is no id yet, or where it cannot be read.
#[must_use]
pub fn check(file: &str, config: &Config) -> Option<Diagnostic> {
    let Controller { id, at } = config.controller.as_ref()?;
    let path = config.state_dir.join(FILE);
    let kept = ControllerId::parse(fs::read_to_string(&path).ok()?.trim_end()).ok()?;
    (kept != *id).then(|| {
        Diagnostic::warning(
            file,
            *at,
            format!("`id` is {id:?}, but {}", changed(&path, &kept), id = id.as_str()),
        )
    })
}

fn changed(path: &Path, before: &ControllerId) -> String {
    format!(
        "{} has another one, {before}: with this one, machines that bear the mark of {before} are another controller's, watched and never acted upon until `cpe claim`; with id = {:?} they stay ours",
        path.display(),
        before.as_str()
    )
}

/// 128 random bits.
fn random() -> anyhow::Result<String> {
    let mut random = [0_u8; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    read.context("cannot read /dev/urandom for the id of this controller")?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whole or not at all: by rename, and on disk before anything is marked with it.
fn write(path: &Path, id: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&fresh)?;
    file.write_all(format!("{id}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

impl Fleet {
    /// `cpe claim`: a person's word that machines are ours, whatever mark they bear.
    pub(crate) async fn claim(&self, name: &str, reason: &str, by: &str) -> Result<CommandAnswer, Refused> {
        let mut told = Vec::new();
        for place in self.places(name)? {
            let (deployable, assembly) = self.place(&place)?;
            let definition = self.definition_of(&deployable).ok_or_else(|| unknown(name))?;
            let infrastructure = definition.infrastructure.as_ref();
            let adapter = infrastructure.and_then(|it| self.shared().infrastructures.get(it));
            let Some(adapter) = adapter else {
                let why =
                    format!("{place}: the deployable has no infrastructure: its machines bear no marks");
                return Err(Refused::conflict(why));
            };
            if !adapter.claims() {
                let infrastructure = infrastructure.map(Name::as_str).unwrap_or_default();
                let why = format!(
                    "{place}: infrastructure {infrastructure} cannot put a mark on what is there (no `claim` among its capabilities): change it there; cpe sees it at its next look"
                );
                return Err(Refused::conflict(why));
            }
            let all =
                definition.assembly_indices().filter(|index| assembly.is_none_or(|only| only == *index));
            for index in all {
                let assembly = &definition.assembly(index).name;
                let said = format!("claim, by {}", pauses::said(reason, by));
                let event = Event { assembly: Some(assembly.clone()), ..plain(EventKind::Ordered, &said) };
                self.shared().report(Some(&deployable), event);
                let claimed = self.put_mark(&deployable, index).await?;
                claimed.map_err(|why| {
                    Refused::conflict(format!("{deployable}/{assembly} was not claimed: {why}"))
                })?;
                told.push(format!("{deployable}/{assembly}"));
            }
        }
        Ok(CommandAnswer {
            message: format!("{}: ours now; whoever had it must not act on it any more", told.join(", ")),
        })
    }

    async fn put_mark(&self, name: &Name, index: AssemblyIndex) -> Result<Result<(), String>, Refused> {
        let gone = || Refused::unavailable(format!("the engine of {name} has ended; `cpe status` shows it"));
        let (sender, reply) = oneshot::channel();
        let mailbox = self.mailbox_of(name)?;
        mailbox.send(Message::Claim(index, sender)).await.map_err(|_| gone())?;
        reply.await.map_err(|_| gone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_once_and_what_somebody_wrote_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let id = controller_id(folder.path(), None).unwrap();
        assert_eq!(id.len(), 32, "{id}");
        assert_eq!(controller_id(folder.path(), None).unwrap(), id, "the same at the next start");
        fs::write(folder.path().join("controller-id"), "east\n").unwrap();
        assert_eq!(&*controller_id(folder.path(), None).unwrap(), "east");
        fs::write(folder.path().join("controller-id"), "\n").unwrap();
        let error = controller_id(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("controller-id holds no id: expected one line"), "{error}");
    }

    #[test]
    fn the_id_of_the_configuration_holds_over_a_lost_folder_and_over_the_one_that_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("controller-id");
        let config = format!("state_dir = {:?}\n[controller]\nid = \"east\"\n", folder.path());
        let config = Config::parse("cpe.toml", &config).unwrap();
        let set = config.controller.as_ref().map(|it| &it.id);
        assert_eq!(check("cpe.toml", &config), None, "there is none yet");
        assert_eq!(&*controller_id(folder.path(), set).unwrap(), "east", "as in a new folder after a loss");
        assert_eq!(fs::read_to_string(&file).unwrap(), "east\n");
        assert_eq!(check("cpe.toml", &config), None);

        fs::write(&file, "west\n").unwrap();
        let told = check("cpe.toml", &config).unwrap().to_string();
        let (begins, ends) =
            ("cpe.toml:3:1: warning: `id` is \"east\", but ", "with id = \"west\" they stay ours");
        assert!(told.starts_with(begins) && told.ends_with(ends), "{told}");
        assert_eq!(&*controller_id(folder.path(), set).unwrap(), "east");
        assert_eq!(&*controller_id(folder.path(), None).unwrap(), "east", "also when the key is taken away");
        fs::write(&file, "\n").unwrap();
        assert_eq!(check("cpe.toml", &config), None, "what holds no id has marked nothing");
        assert_eq!(&*controller_id(folder.path(), set).unwrap(), "east");
    }
}
