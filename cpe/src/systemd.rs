//! What systemd is told: READY=1 when everything works, a STATUS= line that `systemctl status` shows, WATCHDOG=1 as long as we live and
//! do our work, STOPPING=1. Without systemd (no NOTIFY_SOCKET) nothing is sent. The unit is packaging/cpe.service.

use std::time::Duration;

use sd_notify::NotifyState;

/// How often STATUS= is renewed where the watchdog does not ask for more.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Whether this process does its work: a status line, or why not. In the latter case the watchdog is not fed, and systemd restarts us.
pub type Liveness = Result<String, String>;

/// Says that the start is over, and from then on, for as long as the runtime turns, what `check` answers: at half of the watchdog's time,
/// for the kernel may wake us late once.
pub async fn ready(check: impl Fn() -> Liveness) {
    let every = sd_notify::watchdog_enabled().map_or(STATUS_EVERY, |limit| (limit / 2).min(STATUS_EVERY));
    send(vec![NotifyMessage::Ready]).await;
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        send(messages(check())).await;
    }
}

/// Says that we are ending. The last word, so it may block for a moment.
pub fn stopping() {
    notify(&[NotifyMessage::Stopping]);
}

/// One message, owned, so that it can go to a thread that may block.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NotifyMessage {
    Ready,
    Stopping,
    Watchdog,
    Status(String),
}

fn messages(liveness: Liveness) -> Vec<NotifyMessage> {
    match liveness {
        Ok(status) => vec![NotifyMessage::Watchdog, NotifyMessage::Status(status)],
        Err(reason) => {
            tracing::error!(reason, "not alive: the watchdog is not fed");
            vec![NotifyMessage::Status(format!("not working: {reason}"))]
        }
    }
}

async fn send(messages: Vec<NotifyMessage>) {
    // Fails only when the runtime ends.
    let _ = tokio::task::spawn_blocking(move || notify(&messages)).await;
}

fn notify(messages: &[NotifyMessage]) {
    let state = |message| match message {
        &NotifyMessage::Ready => NotifyState::Ready,
        &NotifyMessage::Stopping => NotifyState::Stopping,
        &NotifyMessage::Watchdog => NotifyState::Watchdog,
        NotifyMessage::Status(status) => NotifyState::Status(status),
    };
    let states: Vec<_> = messages.iter().map(state).collect();
    if let Err(error) = sd_notify::notify(&states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_only_while_the_work_is_done() {
        let fine = messages(Ok("watching 3 services".to_owned()));
        assert_eq!(fine, [NotifyMessage::Watchdog, NotifyMessage::Status("watching 3 services".to_owned())]);
        let stuck = messages(Err("no engine turned for 30 s".to_owned()));
        assert_eq!(stuck, [NotifyMessage::Status("not working: no engine turned for 30 s".to_owned())]);
    }
}
