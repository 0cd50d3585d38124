//! Who is told what, as `cpe/src/notify/` decides it: nothing of an incident that somebody has acknowledged. What was not told for that
//! reason is kept in the transcript, where it counts as known.

use std::time::Duration;

use cpe_proto::id::{IncidentId, Name};
use dped::Notices;
use dped::audit::Notified;

use super::journal::{Record, millis};
use super::{What, World};

/// A warning is told again only after it was gone for longer than this.
pub(super) const WARNED_AGAIN: Duration = Duration::from_secs(10);

impl World {
    /// What the journal has of who knows what.
    pub(super) fn notices(&self) -> Notices {
        Notices::taken_up(self.journal.told(), self.journal.acknowledged.clone())
    }

    pub(super) fn notify(&mut self, name: &Name, incident: Option<IncidentId>, message: Box<str>) {
        if let Some(incident) = incident {
            let key = (name.clone(), incident);
            let known = self.truth.knows(&key);
            if !self.process.notices.tell(key) {
                self.coverage.count("told", "withheld, because it is acknowledged");
                return self.say(What::Withheld(name.clone(), incident, message));
            }
            if known {
                self.broken(format!("{name}#{incident} is acknowledged, and a person is told: {message}"));
            }
        }
        self.pace_told(name, &message);
        if message.contains(" passes with a ") {
            self.coverage.count("told", "a warning");
            if self.truth.warned(&message, self.now) {
                self.broken(format!(
                    "a warning is told twice within {} s: {message}",
                    WARNED_AGAIN.as_secs()
                ));
            }
        }
        self.keep(Record::Notified(Notified { time: millis(self.now), deployable: name.clone(), incident }));
        self.say(What::Told(name.clone(), incident, message));
    }

    /// `cpe ack`: of every incident that is open there.
    pub(super) fn acknowledge(&mut self, name: &Name, assembly: Option<&Name>) {
        let open = self.journal.open_written(name);
        let meant = open.filter(|(_, it)| assembly.is_none() || it.assembly.as_ref() == assembly);
        for key in meant.map(|(incident, _)| (name.clone(), incident)).collect::<Vec<_>>() {
            self.coverage.count("told", "acknowledged");
            self.journal.acknowledge(&key, self.now);
            self.process.notices.acknowledge(key.clone());
            self.truth.acknowledged(key);
        }
    }
}
