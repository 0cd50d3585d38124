//! `[controller]`: who this controller is to the infrastructures that keep marks (policy.md section 7).

use std::fmt;
use std::sync::Arc;

use crate::document::{Position, Schema, Table, plain_text};

/// The longest id, in bytes: metadata of clouds are at most 255.
const ID_MAX: usize = 255;

/// A controller's mark on machines. Two controllers that have one id would both act on what either of them made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerId(Arc<str>);

impl ControllerId {
    /// Checks an id.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > ID_MAX || text.trim() != text || plain_text(text).is_err() {
            return Err("1 to 255 bytes on one line, no control characters, no space at either end");
        }
        Ok(Self(text.into()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ControllerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl From<ControllerId> for Arc<str> {
    fn from(id: ControllerId) -> Self {
        id.0
    }
}

/// The id that cpe.toml sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// The id.
    pub id: ControllerId,
    /// Where the file says so.
    pub at: Position,
}

pub(super) const CONTROLLER: Schema = Schema { title: "[controller]", keys: &["id"], later: &[] };

pub(super) fn read(root: &Table<'_>) -> Option<Controller> {
    let table = root.table("controller", &CONTROLLER)?;
    let id = table.parse("id", ControllerId::parse)?;
    let at = table.report().position(table.at_key("id"));
    Some(Controller { id, at })
}
