//! What a service's or a channel's state becomes, as one table each of (state, event). What an observation means is `judge.rs`'s; that a
//! failure is confirmed, and that a grace is over, is known before the event is made (`observe.rs`). Both tables are committed as text.

use std::fmt;

use cpe_proto::state::State;

/// What happens to a service's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthEvent {
    /// A probe passed.
    Passed,
    /// A probe failed, not yet as often in a row as confirms a fault, or within a grace in which that is no fault.
    Missed,
    /// A fault is confirmed.
    Confirmed,
    /// No recovery could help.
    Misconfigured,
    /// A probe neither passed nor failed.
    Unclear,
    /// The channel is confirmed dead.
    ChannelLost,
    /// Evidence was voided: a gap of our clock, a restored engine.
    Voided,
    /// An action on it, or on its machine, was begun.
    RecoveryBegan,
    /// Fresh probes passed for `stable_for`.
    RecoveryWorked,
    /// Verification failed.
    RecoveryFailed,
    /// Verification could not be had.
    RecoveryUnclear,
    /// The ladder ended.
    GaveUp,
    /// It is to be started, or watched anew after maintenance.
    Started,
    /// It was stopped by an order.
    Stopped,
}

impl HealthEvent {
    /// All events, in the order of the table.
    pub const ALL: [Self; 14] = [
        Self::Passed,
        Self::Missed,
        Self::Confirmed,
        Self::Misconfigured,
        Self::Unclear,
        Self::ChannelLost,
        Self::Voided,
        Self::RecoveryBegan,
        Self::RecoveryWorked,
        Self::RecoveryFailed,
        Self::RecoveryUnclear,
        Self::GaveUp,
        Self::Started,
        Self::Stopped,
    ];
}

/// An event that cannot happen in that state: a defect of the engine, which leaves the state as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IllegalEvent {
    /// The state.
    pub state: State,
    /// The event.
    pub event: HealthEvent,
}

impl fmt::Display for IllegalEvent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} cannot happen to a service that is {}", self.event, self.state)
    }
}

/// The states that a service can be in.
pub const SERVICE_STATES: [State; 9] = [
    State::Starting,
    State::Healthy,
    State::Suspected,
    State::Failed,
    State::Recovering,
    State::Misconfigured,
    State::Unknown,
    State::Exhausted,
    State::Stopped,
];

/// The state of a service after an event.
///
/// # Errors
/// [`IllegalEvent`] where the two do not go together.
pub const fn service(state: State, event: HealthEvent) -> Result<State, IllegalEvent> {
    use HealthEvent as E;
    use State as S;
    Ok(match (state, event) {
        // An order outranks whatever was seen.
        (_, E::Stopped) => S::Stopped,
        (_, E::Started) => S::Starting,
        (
            S::Stopped,
            E::Passed | E::Missed | E::Confirmed | E::Misconfigured | E::Unclear | E::ChannelLost | E::Voided,
        ) => S::Stopped,

        // While it recovers, probes are collected by the verification, which decides alone. Only what no recovery can help ends it.
        (_, E::Misconfigured) => S::Misconfigured,
        (
            S::Recovering,
            E::Passed | E::Missed | E::Confirmed | E::Unclear | E::ChannelLost | E::Voided | E::RecoveryBegan,
        ) => S::Recovering,
        (S::Recovering, E::RecoveryWorked) => S::Healthy,
        (S::Recovering, E::RecoveryFailed) => S::Failed,
        (S::Recovering, E::RecoveryUnclear) => S::Unknown,

        // A misconfiguration ends when it passes, or when it is confirmed that only the service itself is down any more: a unit that was
        // unmasked and not started would otherwise never come back (design.md section 4, rule 5).
        (S::Misconfigured, E::Confirmed) => S::Failed,
        (S::Misconfigured, E::Missed | E::Unclear | E::ChannelLost | E::Voided) => S::Misconfigured,
        // A machine may be recovered while one of its services is misconfigured; that says nothing of the service.
        (S::Misconfigured, E::RecoveryBegan | E::RecoveryWorked | E::RecoveryFailed | E::RecoveryUnclear) => {
            S::Misconfigured
        }

        (
            S::Starting
            | S::Healthy
            | S::Suspected
            | S::Failed
            | S::Unknown
            | S::Exhausted
            | S::Misconfigured,
            E::Passed,
        ) => S::Healthy,

        (S::Healthy | S::Suspected | S::Unknown, E::Missed) => S::Suspected,
        (S::Starting, E::Missed | E::Unclear | E::Voided) => S::Starting,
        (S::Failed, E::Missed) => S::Failed,
        (S::Exhausted, E::Missed | E::Confirmed | E::Unclear) => S::Exhausted,

        (S::Starting | S::Healthy | S::Suspected | S::Failed | S::Unknown, E::Confirmed) => S::Failed,

        // What was suspected stays so: an unclear answer neither confirms nor clears.
        (S::Suspected, E::Unclear) => S::Suspected,
        (S::Healthy | S::Failed | S::Unknown, E::Unclear) => S::Unknown,

        (S::Starting | S::Healthy | S::Suspected | S::Failed | S::Unknown | S::Exhausted, E::ChannelLost) => {
            S::Unknown
        }

        (S::Healthy | S::Suspected, E::Voided) => S::Healthy,
        (S::Failed | S::Unknown, E::Voided) => S::Unknown,
        (S::Exhausted, E::Voided) => S::Exhausted,

        (
            S::Starting | S::Healthy | S::Suspected | S::Failed | S::Unknown | S::Exhausted,
            E::RecoveryBegan,
        ) => S::Recovering,
        (S::Failed | S::Recovering | S::Unknown | S::Exhausted, E::GaveUp) => S::Exhausted,

        (state, event) => return Err(IllegalEvent { state, event }),
    })
}

/// What is known of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelHealth {
    /// No fresh answer and no confirmed failure.
    Unknown,
    /// It answers.
    Healthy,
    /// It did not answer last time.
    Suspected,
    /// Confirmed dead.
    Dead,
}

impl ChannelHealth {
    /// All, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Healthy, Self::Suspected, Self::Dead];
}

/// What happens to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelEvent {
    /// It answered.
    Answered,
    /// It did not, not yet as often in a row as confirms it.
    Missed,
    /// It did not, as often in a row as confirms it.
    Confirmed,
    /// Evidence was voided, or its machine is being recovered.
    Voided,
}

impl ChannelEvent {
    /// All events, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Answered, Self::Missed, Self::Confirmed, Self::Voided];
}

/// The health of a channel after an event.
#[must_use]
pub const fn channel(health: ChannelHealth, event: ChannelEvent) -> ChannelHealth {
    use ChannelHealth as H;
    match (health, event) {
        (_, ChannelEvent::Answered) => H::Healthy,
        (H::Healthy | H::Suspected, ChannelEvent::Missed) => H::Suspected,
        (H::Unknown, ChannelEvent::Missed) | (_, ChannelEvent::Voided) => H::Unknown,
        (H::Dead, ChannelEvent::Missed) | (_, ChannelEvent::Confirmed) => H::Dead,
    }
}
