//! What the fleet guard learns of ourselves: canaries, which are connected to over TCP as long as the process runs, and our own lag, told
//! with each tick. What the guard says by itself is heard here too. Whether that means trust is decided in `dped::guard`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cpe_proto::config::Canary;
use cpe_proto::document::HostPort;
use cpe_proto::id::Name;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::clock;
use crate::shared::Shared;
use crate::vital::Vital;

/// Between two looks at one canary. The guard believes an answer for 10 s, so one lost packet distrusts nothing.
const EVERY: Duration = Duration::from_secs(2);

/// A canary that has not accepted by then did not answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// The longest between two answers of a canary that answers.
pub const ANSWERS_EVERY: Duration = EVERY.saturating_add(DEADLINE);

/// Between two ticks of the guard: well below the 3 s that are a gap, and no longer than a wait that it counts in seconds.
const TICK: Duration = Duration::from_millis(500);

/// Watches the canaries and keeps the guard's time, for as long as the process runs. Within a runtime.
pub fn start(shared: &Arc<Shared>, canaries: &[Canary], vital: &Vital) {
    let mut paths: BTreeMap<&Name, Vec<&HostPort>> = BTreeMap::new();
    for canary in canaries {
        paths.entry(&canary.path).or_default().push(&canary.tcp);
    }
    for (path, canaries) in paths {
        // Before anything can be asked: a path whose canaries have not answered yet is not trusted.
        shared.guard().expect_canaries(path.as_str(), canaries.len());
        for (index, target) in canaries.into_iter().enumerate() {
            vital.spawn("watch of a canary", watch(Arc::clone(shared), path.clone(), index, target.clone()));
        }
    }
    vital.spawn("fleet guard's time", keep_time(Arc::clone(shared)));
}

async fn watch(shared: Arc<Shared>, path: Name, index: usize, target: HostPort) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = None;
    loop {
        ticks.tick().await;
        let connected = timeout(DEADLINE, TcpStream::connect((target.host.as_str(), target.port))).await;
        let answered = matches!(connected, Ok(Ok(_)));
        shared.guard().canary(path.as_str(), index, answered, clock::now());
        if before != Some(answered) && (before.is_some() || !answered) {
            let (host, port) = (target.host.as_str(), target.port);
            tracing::warn!(%path, host, port, answered, "a canary changed");
        }
        before = Some(answered);
    }
}

async fn keep_time(shared: Arc<Shared>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = clock::now();
    loop {
        ticks.tick().await;
        let now = clock::now();
        {
            let mut guard = shared.guard();
            guard.lag(now, shared.lag.late_since(before));
            guard.handle_timeout(now);
            shared.keep_guard(&mut guard, now);
            shared.count_guard(&guard, now);
        }
        shared.hear_guard();
        before = now;
    }
}
