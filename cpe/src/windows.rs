//! Maintenance windows of definitions as orders: an occurrence that has begun is a maintenance like one by hand, ordered by the schedule,
//! with the occurrence's end as its end. So it is kept in the journal, outlives a restart, and a person can end it before its time. By wall
//! time, looked at once a second: a clock that is set forth or back begins what is due then, and repeats nothing. What has begun and was not
//! ordered yet is `cpe_calendar`'s to say.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cpe_calendar::{Begun, Place, Schedule};
use cpe_proto::definition::Deployable;
use cpe_proto::id::{AssemblyIndex, Name};

use crate::api::Refused;
use crate::clock;
use crate::fleet::Fleet;
use crate::journal::StartState;

/// Who ordered it, in records.
const SCHEDULE: &str = "its schedule";

/// The windows of all deployables.
#[derive(Debug, Default)]
pub struct Windows(Mutex<Schedule>);

impl Windows {
    /// None yet; what persons ended before is remembered.
    #[must_use]
    pub fn restored(start: &StartState) -> Self {
        let ended = start.maintenance_ended.iter();
        let ended = ended.filter_map(|(name, at)| Some((Place::parse(name)?, *at)));
        Self(Mutex::new(Schedule::new(ended.collect())))
    }

    /// The windows of a deployable, in place of those that it had. What cannot be kept was an error when it was loaded.
    pub fn set(&self, definition: &Deployable, now: u64) {
        self.lock().set(definition, now);
    }

    /// A deployable is managed no more.
    pub fn remove(&self, name: &Name) {
        self.lock().remove(name);
    }

    /// What an engine that begins now is to know: what of it is in a window that was not ordered yet.
    #[must_use]
    pub fn now(&self, name: &Name, now: u64) -> Vec<Option<AssemblyIndex>> {
        self.lock().now(name, now)
    }

    /// The occurrence that goes on when the maintenance of that name ends.
    pub(crate) fn lasts(&self, name: &str, now: u64) -> Option<Begun> {
        self.lock().lasts(&Place::parse(name)?, now)
    }

    /// The maintenance of that name was ended, by a person or because its hour has come.
    pub fn ended(&self, name: &str, by_person: bool) {
        if let Some(place) = Place::parse(name) {
            self.lock().ended(&place, by_person, clock::wall_ms());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fleet {
    /// Orders what has begun, and ends what an engine knew from its start and was never ordered.
    pub async fn keep_windows(&self) {
        let now = clock::wall_ms();
        let due = self.windows().lock().due(now);
        for begun in due {
            let name = begun.place.to_string();
            // One by hand that lasts longer stays as it is.
            let longer = self.maintenance_until(&name).is_some_and(|end| end >= begun.until);
            let ordered = longer
                || match self.begin_window(&begun).await {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::warn!(name, %error, "a maintenance window could not be begun; tried again");
                        false
                    }
                };
            self.windows().lock().done(&begun, ordered);
        }
        let over = self.windows().lock().over(now);
        for place in over {
            self.end_unordered(&place.to_string()).await;
        }
    }
    /// Orders it, with its end.
    pub(crate) async fn begin_window(&self, begun: &Begun) -> Result<(), Refused> {
        let Begun { place, until, reason } = begun.clone();
        self.begin_maintenance(place.to_string(), until, reason, SCHEDULE.to_owned()).await
    }
}
