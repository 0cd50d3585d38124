//! `cpe run`: puts the parts together, keeps them going, takes them down in order. Also used by `demo/`, in the same process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cpe_infra::{Infrastructure, command, fence};
use cpe_monitor::ssh::{self, Identity, Monitor};
use cpe_proto::config::{ApiAddress, Config, InfrastructureKind, Listen, Login, SharedPoint};
use cpe_proto::id::Name;
use tokio::signal::unix::{SignalKind, signal};

use crate::adapter::Adapter;
use crate::api;
use crate::api::{Controller as _, Tokens};
use crate::canary;
use crate::fleet::Fleet;
use crate::guard;
use crate::journal::{self, Journal};
use crate::lag::Lag;
use crate::limits;
use crate::load::{self, Changes, Definitions};
use crate::metrics::{self, Metrics};
use crate::notify::Notifier;
use crate::owner;
use crate::shared::Shared;
use crate::systemd;
use crate::upkeep::{self, Pulse};
use crate::vital::{Failures, Vital};
use crate::watch;

/// After SIGTERM, actions under way get this long to end; what is left is resolved by looking after the next start.
const DRAIN: Duration = Duration::from_secs(5);

/// A journal that hangs is not waited for: below the unit's TimeoutStopSec.
const STOP_MAX: Duration = Duration::from_secs(15);

/// A running controller.
pub struct Controller {
    /// Its deployables.
    pub fleet: Arc<Fleet>,
    /// Whether its engines answer.
    pub pulse: Arc<Pulse>,
    vital: Vital,
    failures: Failures,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What could not be started, with what to do.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut controller = Controller::start(config).await?;
    let (fleet, pulse) = (Arc::clone(&controller.fleet), Arc::clone(&controller.pulse));
    controller
        .vital
        .spawn("feeder of the watchdog", async move { systemd::ready(|| pulse.check(&fleet)).await });
    let ended = tokio::select! {
        _ = terminate.recv() => {
            tracing::info!("SIGTERM: draining");
            Ok(())
        }
        _ = interrupt.recv() => {
            tracing::info!("SIGINT: draining");
            Ok(())
        }
        failed = controller.failed() => {
            tracing::error!(failed, "cpe cannot do its work any more: it ends, to be started anew");
            Err(anyhow::anyhow!("{failed}: cpe cannot do its work without it and ends; systemd starts it anew"))
        }
    };
    systemd::stopping();
    if tokio::time::timeout(STOP_MAX, controller.stop()).await.is_err() {
        tracing::error!("the last records were not written in time");
    }
    ended
}

impl Controller {
    /// Starts everything: journal first, for without it nothing may be done; API last, so that whoever reaches it is answered.
    ///
    /// # Errors
    /// What could not be started, with what to do.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let hangup = signal(SignalKind::hangup()).context("a handler of SIGHUP")?;
        let allowed = limits::assemblies_max();
        let metrics = Arc::new(Metrics::new());
        let journal = journal::Settings {
            state_dir: config.state_dir.clone(),
            keep: config.journal.keep,
            max_size: config.journal.max_size,
        };
        let opened = Arc::clone(&metrics);
        let journal = tokio::task::spawn_blocking(move || Journal::open(&journal, &opened)).await??;
        let settings = ssh_settings(&config);
        let monitor = tokio::task::spawn_blocking(move || Monitor::new(settings))
            .await?
            .context("[ssh] of the configuration")?;
        let (state_dir, set) = (config.state_dir.clone(), config.controller.clone());
        let controller = move || owner::controller_id(&state_dir, set.as_ref().map(|it| &it.id));
        let controller = tokio::task::spawn_blocking(controller).await??;
        let infrastructures = infrastructures(&config, &controller);
        let (vital, failures) = Vital::new();
        let notifier = Notifier::new(config.notify.clone(), Arc::clone(&metrics), journal.clone(), &vital);
        let mut guard = guard::taken_up(journal.start_state(), guard::settings(&config));
        for SharedPoint { domain, infrastructure } in &config.domains {
            guard.shared_point(domain.clone(), infrastructure.clone());
        }
        let lag = Lag::new(config.lag_budget);
        for adapter in infrastructures.values() {
            tokio::spawn(Arc::clone(adapter).learn());
        }
        let shared = Arc::new(Shared::new(guard, journal, monitor, infrastructures, metrics, notifier, lag));
        let fleet = Fleet::new(Arc::clone(&shared));
        vital.spawn("measure of our own lag", {
            let shared = Arc::clone(&shared);
            async move { shared.lag.measure().await }
        });
        vital.spawn("journal's writer", Arc::clone(&shared).follow_journal());
        canary::start(&shared, &config.canaries, &vital);
        let (definitions, changes) = read_definitions(&config).await?;
        watch::apply(&fleet, changes).await;
        fleet.forget_strangers();
        say_size(&fleet, allowed);
        say_witnesses(&fleet, &config);
        let follow = watch::follow(config.deployables.clone(), definitions, Arc::clone(&fleet), hangup);
        vital.spawn("watcher of definitions", follow);
        let pulse = Arc::new(Pulse::new());
        vital.spawn("upkeep", upkeep::run(Arc::clone(&fleet), Arc::clone(&pulse)));
        let follow = upkeep::follow_journal(shared.journal.clone(), Arc::clone(&pulse));
        vital.spawn("pulse of the journal", follow);
        serve_api(&config.listen, &fleet, &vital).await?;
        if let Some(address) = config.listen.metrics {
            metrics::serve(address, Arc::clone(&shared.metrics), &vital).await?;
        }
        Ok(Self { fleet, pulse, vital, failures })
    }

    /// Waits until something without which cpe cannot do its work has ended, and says what.
    pub async fn failed(&mut self) -> String {
        self.failures.first().await
    }

    /// Begins nothing new, waits for what is under way, ends.
    pub async fn stop(self) {
        let shared = self.fleet.shared();
        shared.drain();
        let deadline = tokio::time::Instant::now() + DRAIN;
        while shared.acting() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if shared.acting() > 0 {
            tracing::warn!(
                actions = shared.acting(),
                "actions still under way are left; the next start looks what came of them"
            );
        }
        self.fleet.close().await;
        if let Err(error) = shared.journal.close().await {
            tracing::error!(%error, "the last records were not written");
        }
    }
}

async fn serve_api(listen: &Listen, fleet: &Arc<Fleet>, vital: &Vital) -> anyhow::Result<()> {
    let wanted = listen.clone();
    let tokens = Arc::new(tokio::task::spawn_blocking(move || Tokens::read(&wanted)).await??);
    let journal = &fleet.shared().journal;
    for place in &listen.api {
        let (fleet, journal) = (Arc::clone(fleet), journal.clone());
        match place {
            ApiAddress::Unix(socket) => api::serve(socket, fleet, journal, vital).await?,
            ApiAddress::Tcp(address) => {
                api::serve_tcp(*address, Arc::clone(&tokens), fleet, journal, vital).await?;
            }
        }
    }
    Ok(())
}

async fn read_definitions(config: &Config) -> anyhow::Result<(Definitions, Changes)> {
    let directory = config.deployables.clone();
    let mut definitions = Definitions::new(Some(load::Context::of(config)));
    let read = move || {
        load::files(&directory).map(|files| definitions.look(&files)).map(|changes| (definitions, changes))
    };
    let read = tokio::task::spawn_blocking(read).await?;
    read.with_context(|| {
        format!("deployables = {:?} cannot be read: make that directory, or name another", config.deployables)
    })
}

fn say_size(fleet: &Fleet, allowed: Option<u64>) {
    let (deployables, assemblies, services) = fleet.size();
    tracing::info!(deployables, assemblies, services, "definitions loaded");
    if let Some(allowed) = allowed.filter(|allowed| *allowed < assemblies as u64) {
        tracing::error!(
            "the limit of open files allows {allowed} assemblies; raise LimitNOFILE= of the unit"
        );
    }
}

/// Without a canary and without a peer nothing proves the path to a machine that is silent.
fn say_witnesses(fleet: &Fleet, config: &Config) {
    if config.canaries.is_empty() && fleet.size().1 == 1 {
        tracing::warn!(
            "one assembly and no [[canaries]]: nothing proves the path to it, so it is only reported when it hangs"
        );
    }
}

fn infrastructures(config: &Config, controller: &Arc<str>) -> BTreeMap<Name, Arc<Adapter>> {
    let adapter = |(name, entry): (&Name, &cpe_proto::config::Infrastructure)| {
        let infrastructure = match &entry.kind {
            InfrastructureKind::Command(settings) => Infrastructure::Command(command::Command::new(settings)),
            InfrastructureKind::Fence(settings) => Infrastructure::Fence(fence::Fence::new(settings)),
        };
        (name.clone(), Arc::new(Adapter::new(name.clone(), Arc::clone(controller), infrastructure)))
    };
    config.infrastructures.iter().map(adapter).collect()
}

fn ssh_settings(config: &Config) -> ssh::Settings {
    let ssh = &config.ssh;
    let identity = match &ssh.login {
        Login::Identity(file) => Some(Identity::configured(file.clone(), ssh.passphrase.as_ref())),
        Login::Agent => std::env::var_os("SSH_AUTH_SOCK").map(|socket| Identity::Agent(socket.into())),
    };
    ssh::Settings {
        user: ssh.user.clone(),
        port: ssh.port,
        identities: identity.into_iter().collect(),
        jump: ssh.jump.as_ref().map(Into::into),
        known_hosts: ssh.known_hosts.clone(),
        enrolled: Some(config.state_dir.join("known_hosts")),
        connect_concurrency: usize::try_from(ssh.connecting).unwrap_or(usize::MAX),
        connects_per_second: ssh.connects_per_second,
        ..ssh::Settings::default()
    }
}
