//! Whose machines are (policy.md section 7): the id of this controller, which is its mark in infrastructures that keep marks, and `cpe claim`.
//! What a mark means is decided by the engine (`dped/src/owner.rs`); marks are read and written in `actions.rs`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use cpe_proto::api::CommandAnswer;
use cpe_proto::document::plain_text;
use cpe_proto::event::{Event, EventKind};
use cpe_proto::id::{AssemblyIndex, Name};
use tokio::sync::oneshot;

use crate::api::Refused;
use crate::driver::Message;
use crate::event::plain;
use crate::fleet::{Fleet, unknown};
use crate::pauses;

/// The longest id that somebody writes, in bytes: metadata of clouds are at most 255.
const ID_MAX: usize = 255;

/// The id of this controller, from `controller-id` in state_dir: one line, which somebody may have written; made at the first start. Kept
/// with the journal, since with another one all machines that bear our mark are another controller's.
///
/// # Errors
/// Where it cannot be read or made, or is no id.
pub fn controller_id(state_dir: &Path) -> anyhow::Result<Arc<str>> {
    let path = state_dir.join("controller-id");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path)
            .with_context(|| format!("cannot make {}: cpe must be able to write there", path.display()))?,
        Err(error) => {
            let said = format!(
                "cannot read {}: without it cpe does not know which machines are its own",
                path.display()
            );
            return Err(error).context(said);
        }
    };
    let id = text.trim_end();
    if id.is_empty() || id.len() > ID_MAX || plain_text(id).is_err() {
        bail!(
            "{} holds no id: expected one line of 1 to {ID_MAX} bytes, no control characters",
            path.display()
        );
    }
    Ok(id.into())
}

/// 128 random bits. Whole or not at all: by rename, and on disk before anything is marked with it.
fn make(path: &Path) -> io::Result<String> {
    let mut random = [0_u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect();
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&fresh)?;
    file.write_all(id.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(id)
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
        let id = controller_id(folder.path()).unwrap();
        assert_eq!(id.len(), 32, "{id}");
        assert_eq!(controller_id(folder.path()).unwrap(), id, "the same at the next start");
        fs::write(folder.path().join("controller-id"), "east\n").unwrap();
        assert_eq!(&*controller_id(folder.path()).unwrap(), "east");
        fs::write(folder.path().join("controller-id"), "\n").unwrap();
        let error = controller_id(folder.path()).unwrap_err().to_string();
        assert!(error.contains("controller-id holds no id: expected one line"), "{error}");
    }
}
