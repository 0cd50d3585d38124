//! Maintenance that operators and schedules order: when it ends is kept here and in the journal; each engine knows whether it is in one.

use cpe_proto::api::CommandAnswer;
use cpe_proto::id::Name;
use dped::Order;

use super::Fleet;
use super::orders::unwritable;
use crate::api::Refused;
use crate::clock;
use crate::journal::{CPE, Maintenance};

impl Fleet {
    /// Ends maintenance whose hour has come.
    pub async fn end_maintenance(&self) {
        let now = clock::wall_ms();
        let over = |(name, until): (&String, &u64)| (*until <= now).then(|| name.clone());
        let over: Vec<String> = self.ends().iter().filter_map(over).collect();
        for name in over {
            self.end_overdue(&name).await;
        }
    }

    /// A window that lasts longer than what was ordered within it goes on.
    async fn end_overdue(&self, name: &str) {
        let ended = match self.windows().lasts(name, clock::wall_ms()) {
            Some(begun) => self.begin_window(&begun).await,
            None => self.maintenance_off(name, "its time is over", CPE).await.map(drop),
        };
        if let Err(error) = ended {
            tracing::warn!(name, %error, "maintenance could not be ended; tried again");
        }
    }

    /// Ends what an engine knew from its start, if nobody has ordered it for longer.
    pub(crate) async fn end_unordered(&self, name: &str) {
        if self.maintenance_until(name).is_none() {
            self.end_overdue(name).await;
        } else {
            self.windows().ended(name, false);
        }
    }

    pub(super) async fn maintenance_on(
        &self,
        name: String,
        seconds: u64,
        reason: String,
        by: String,
    ) -> Result<CommandAnswer, Refused> {
        let until = clock::wall_ms().saturating_add(seconds.saturating_mul(1000));
        let meant = self.places(&name)?;
        let message =
            format!("{}: in maintenance for {seconds} s: watched, not acted upon", meant.join(", "));
        for place in meant {
            self.begin_maintenance(place, until, reason.clone(), by.clone()).await?;
        }
        Ok(CommandAnswer { message })
    }

    /// Maintenance until then, in milliseconds of wall time.
    pub(crate) async fn begin_maintenance(
        &self,
        name: String,
        until: u64,
        reason: String,
        by: String,
    ) -> Result<(), Refused> {
        let (deployable, assembly) = self.place(&name)?;
        let said = format!("{reason} (by {by})").into();
        let kept = Maintenance { name: name.clone(), until, reason, by };
        self.shared.journal.set_maintenance(kept).await.map_err(|error| unwritable(&error))?;
        self.ends().insert(name, until);
        self.order(&deployable, Order::Maintenance { assembly, on: true, reason: said }).await
    }

    /// When the maintenance of that name is over, if it is in one.
    pub(crate) fn maintenance_until(&self, name: &str) -> Option<u64> {
        self.ends().get(name).copied()
    }

    /// What a changed definition has anew is in the maintenance that its name is in; what knows it already is told nothing new.
    pub(super) async fn remind_of_maintenance(&self, name: &Name) {
        let kept: Vec<String> = self.ends().keys().cloned().collect();
        for place in kept.iter().filter(|place| assembly_of(place, name.as_str()).is_some()) {
            let Ok((deployable, assembly)) = self.place(place) else { continue };
            let reason = "it is in maintenance".into();
            let _ = self.order(&deployable, Order::Maintenance { assembly, on: true, reason }).await;
        }
    }

    pub(super) async fn maintenance_off(
        &self,
        name: &str,
        why: &str,
        by: &str,
    ) -> Result<CommandAnswer, Refused> {
        self.shared.journal.end_maintenance(name, by).await.map_err(|error| unwritable(&error))?;
        let known = self.ends().remove(name).is_some();
        self.windows().ended(name, by != CPE);
        let (deployable, assembly) = self.place(name)?;
        self.order(&deployable, Order::Maintenance { assembly, on: false, reason: why.into() }).await?;
        let message = if known {
            format!("{name}: maintenance ended")
        } else {
            format!("{name}: was not in maintenance")
        };
        Ok(CommandAnswer { message })
    }
}

/// The assembly's part of `deployable` or `deployable/assembly`, if the first part is that deployable.
pub(super) fn assembly_of<'a>(name: &'a str, deployable: &str) -> Option<Option<&'a str>> {
    match name.split_once('/') {
        None => (name == deployable).then_some(None),
        Some((first, assembly)) => (first == deployable).then_some(Some(assembly)),
    }
}
