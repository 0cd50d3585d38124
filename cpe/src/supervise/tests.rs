//! Engines that panic on purpose, in a whole controller before real SSH servers on loopback.

use std::path::Path;

use cpe_proto::api::{Command, DeployableStatus};
use cpe_proto::event::EventRecord;
use cpe_proto::state::State;
use cpe_sim::live::{Behaviour, MachineSpec, UnitSpec};
use tempfile::TempDir;

use super::*;
use crate::api::Controller as _;
use crate::demo::world::World;
use crate::fleet::Made;
use crate::glob::Glob;
use crate::journal::EventQuery;
use crate::run::Controller;

/// More than anything here takes on a slow machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// What is told of each panic.
const PANICKED: &str = "the policy engine panicked: broken rule";

struct Site {
    controller: Controller,
    world: World,
    _directory: TempDir,
}

fn definition(name: &str) -> String {
    format!(
        "name = \"{name}\"\n[probe]\ninterval = \"200ms\"\ntimeout = \"2s\"\nconfirm_interval = \"100ms\"\nstable_for = \"300ms\"\n\
         [escalation]\nservice = {{ failures = 5, within = \"10m\" }}\n\
         [timing]\nservice_action_timeout = \"8s\"\n[assemblies.web]\naddress = \"{{{name}}}\"\n[assemblies.web.services.nginx]\nsystemd = \"nginx.service\"\n"
    )
}

impl Site {
    /// Two deployables of one machine each, all healthy.
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let machine = |name| MachineSpec::new(name, vec![UnitSpec::new("nginx.service")]);
        let (shop, wiki) = (definition("shop"), definition("wiki"));
        let files = [("shop.toml", &*shop), ("wiki.toml", &*wiki)];
        let machines = vec![machine("shop"), machine("wiki")];
        let world = World::build(directory.path().join("world"), machines, &files, Path::new("/nonexistent"));
        let world = world.await.unwrap();
        let site = Self { controller: controller(&world).await, world, _directory: directory };
        site.until("shop", |shop| shop.state == State::Healthy).await;
        site.until("wiki", |wiki| wiki.state == State::Healthy).await;
        site
    }

    /// This cpe ends, and another one starts.
    async fn restart(self) -> Self {
        let Self { controller: before, world, _directory } = self;
        before.stop().await;
        left_behind(&world);
        Self { controller: controller(&world).await, world, _directory }
    }

    fn fleet(&self) -> &Arc<Fleet> {
        &self.controller.fleet
    }

    async fn until(&self, name: &str, wanted: impl Fn(&DeployableStatus) -> bool) -> DeployableStatus {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let glob: Glob = name.parse().unwrap();
        loop {
            let status = self.fleet().status(&glob).await;
            let found = status.deployables.into_iter().find(|it| it.name.as_str() == name);
            if let Some(found) = found.filter(|found| wanted(found)) {
                return found;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "not within {DEADLINE:?}: {:#?}",
                self.events().await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for so many events whose reason has that in it, and returns all events.
    async fn until_told(&self, words: &str, times: usize) -> Vec<EventRecord> {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let events = self.events().await;
            if events.iter().filter(|it| it.event.reason.contains(words)).count() >= times {
                return events;
            }
            assert!(tokio::time::Instant::now() < deadline, "not within {DEADLINE:?}: {words}: {events:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn events(&self) -> Vec<EventRecord> {
        let query = EventQuery { name: None, after_seq: 0, since: 0 };
        self.fleet().shared().journal.events(query).await.unwrap()
    }

    /// The engine of shop panics.
    async fn panic(&self, words: &'static str) {
        let name = Name::parse("shop").unwrap();
        let member = self.fleet().members().get(&name).cloned().unwrap();
        let Standing::Runs(mailbox) = member.standing else { panic!("it does not run") };
        mailbox.send(Message::Panic(words)).await.unwrap();
    }

    /// Three times, until nobody starts it any more.
    async fn park(&self) {
        let before = self.events().await;
        let before = before.iter().filter(|it| it.event.reason.contains(PANICKED)).count();
        for times in 1..=3 {
            self.panic("broken rule").await;
            self.until_told(PANICKED, before + times).await;
            if times < 3 {
                self.until("shop", |shop| shop.parked.is_none()).await;
            }
        }
    }

    async fn order(&self, command: Command) -> Result<String, String> {
        let answer = self.fleet().command(command, "ann".to_owned()).await;
        answer.map(|answer| answer.message).map_err(|refused| refused.message)
    }

    fn metric(&self, line: &str) -> bool {
        let text = self.fleet().shared().metrics.exposition().unwrap();
        text.lines().any(|it| it == line)
    }
}

async fn controller(world: &World) -> Controller {
    Controller::start(crate::load::config(&world.config_file()).unwrap()).await.unwrap()
}

/// What the next process would find: the files, without what this one still has open of them.
fn left_behind(world: &World) {
    let config = world.config_file();
    let (state, before) = (config.with_file_name("state"), config.with_file_name("state-before"));
    let _ = std::fs::remove_dir_all(&before);
    std::fs::rename(&state, &before).unwrap();
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::metadata(&before).unwrap().permissions()).unwrap();
    for file in std::fs::read_dir(&before).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), state.join(file.file_name())).unwrap();
    }
    std::fs::remove_file(config.with_file_name("api.sock")).unwrap();
}

fn runs(shop: &DeployableStatus) -> bool {
    shop.parked.is_none() && shop.state == State::Healthy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_panics_is_told_restored_from_its_snapshot_and_no_other_notices() {
    let site = Site::start().await;
    let shop = site.world.fleet.machine("shop").unwrap();
    shop.kill_unit("nginx.service").unwrap();
    site.until_told("healthy for", 1).await;
    site.panic("index 7 out of bounds").await;
    let events = site.until_told("goes on from its last snapshot", 1).await;
    let told = events.iter().find(|it| it.event.reason.contains("index 7 out of bounds")).unwrap();
    assert_eq!(told.deployable.as_ref().map(Name::as_str), Some("shop"));
    site.until("shop", runs).await;
    assert!(site.metric("cpe_engine_panics_total 1") && site.metric("cpe_engines_parked 0"));
    assert!(
        site.metric("cpe_deployables{state=\"healthy\"} 2"),
        "the gauges have what is, not what the panic left"
    );
    // It knows what was before: a number is used once.
    shop.kill_unit("nginx.service").unwrap();
    let events = site.until_told("healthy for", 2).await;
    let started = |it: &&EventRecord| it.event.kind == EventKind::RecoveryStarted;
    let numbers: Vec<u64> = events.iter().filter(started).filter_map(|it| Some(it.event.action?.0)).collect();
    assert_eq!(numbers, [1, 2]);
    let of_wiki = |it: &&EventRecord| it.deployable.as_ref().is_some_and(|name| name.as_str() == "wiki");
    let after = events.iter().filter(of_wiki).filter(|it| it.seq > told.seq).count();
    assert_eq!(after, 0, "nothing happened to the other one");
    site.controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_in_flight_at_the_panic_is_waited_for_and_looked_at_and_never_repeated() {
    let site = Site::start().await;
    let shop = site.world.fleet.machine("shop").unwrap();
    shop.behave("nginx.service", Behaviour::HangsInStart).await.unwrap();
    shop.kill_unit("nginx.service").unwrap();
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while shop.counts().unit_starts == 0 {
        assert!(tokio::time::Instant::now() < deadline, "no restart was begun");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    site.panic("in the middle").await;
    site.until("shop", |shop| shop.parked.is_some()).await;
    assert_eq!(site.fleet().shared().acting(), 1, "the action goes on without its engine");
    let refused = site.order(Command::Retry { name: "shop".to_owned() }).await.unwrap_err();
    assert!(refused.contains("is being restored"), "{refused}");
    assert!(site.events().await.iter().all(|it| !it.event.reason.contains("goes on from")));
    shop.behave("nginx.service", Behaviour::Runs).await.unwrap();
    site.until("shop", runs).await;
    assert_eq!(shop.counts().unit_starts, 1, "once");
    assert_eq!(site.fleet().shared().guard().in_flight(), 0, "no lease is left behind");
    site.controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_third_panic_within_a_minute_parks_it_loudly_until_an_operator_retries() {
    let site = Site::start().await;
    for times in 1..=2 {
        site.panic("broken rule").await;
        site.until_told("goes on from its last snapshot", times).await;
    }
    site.panic("broken rule").await;
    let shop = site.until("shop", |shop| shop.parked.is_some()).await;
    let reason = shop.parked.unwrap().reason;
    assert!(
        reason.contains("parked") && reason.contains("broken rule") && reason.contains("`cpe retry shop`"),
        "{reason}"
    );
    assert_eq!((shop.state, shop.assemblies[0].state), (State::Unknown, State::Unknown));
    assert!(site.metric("cpe_engine_panics_total 3") && site.metric("cpe_engines_parked 1"));
    assert!(site.metric("cpe_deployables{state=\"unknown\"} 1"));
    // An order is kept, and it is said that it has no effect yet.
    let said = site.order(Command::Pause { name: Some("shop".to_owned()), reason: "look".to_owned() }).await;
    assert!(said.unwrap_err().contains("is kept until"));
    let mut asked = None;
    assert!(site.fleet().answers(&mut asked).await, "the others answer");
    let said = site.order(Command::Retry { name: "shop".to_owned() }).await.unwrap();
    assert!(said.contains("goes on from its last snapshot"), "{said}");
    let shop = site.until("shop", runs).await;
    assert_eq!(shop.paused.map(|paused| paused.reason).as_deref(), Some("look"));
    assert!(site.metric("cpe_engines_parked 0"));
    site.controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_parked_stays_so_over_restarts_until_an_operator_retries_or_its_definition_changes() {
    let site = Site::start().await;
    site.park().await;
    let before = site.until("shop", |shop| shop.parked.is_some()).await.parked.unwrap();
    let site = site.restart().await;
    let shop = site.until("shop", |shop| shop.parked.is_some()).await;
    assert_eq!(shop.parked.as_ref(), Some(&before), "since when and why");
    assert!(site.metric("cpe_engines_parked 1"));
    site.until_told("`cpe retry shop` starts it anew", 2).await;
    site.until("wiki", runs).await;
    let site = site.restart().await;
    site.until("shop", |shop| shop.parked.is_some()).await;
    site.order(Command::Retry { name: "shop".to_owned() }).await.unwrap();
    site.until("shop", runs).await;
    let site = site.restart().await;
    site.until("shop", runs).await;
    // Somebody changes the definition while no cpe runs.
    site.park().await;
    site.until("shop", |shop| shop.parked.is_some()).await;
    let Site { controller: running, world, _directory } = site;
    running.stop().await;
    left_behind(&world);
    let file = world.config_file().with_file_name("deployables").join("shop.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"200ms\"", "\"250ms\"")).unwrap();
    let site = Site { controller: controller(&world).await, world, _directory };
    site.until("shop", runs).await;
    site.controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_deployable_whose_definition_is_removed_is_managed_no_more() {
    let site = Site::start().await;
    site.park().await;
    site.until("shop", |shop| shop.parked.is_some()).await;
    let shop = Name::parse("shop").unwrap();
    site.fleet().remove(&shop).await;
    site.until_told("managed no more", 1).await;
    assert_eq!(site.fleet().size().0, 1);
    assert!(site.metric("cpe_engines_parked 0") && site.metric("cpe_deployables{state=\"unknown\"} 0"));
    site.controller.stop().await;
}

/// An engine of shop that is made and has no place yet.
async fn made(site: &Site) -> (Made, Arc<Down>) {
    let (fleet, name) = (site.fleet(), Name::parse("shop").unwrap());
    let Member { definition, standing, panics } = fleet.members().get(&name).cloned().unwrap();
    let Standing::Runs(mailbox) = standing else { panic!("it does not run") };
    mailbox.send(Message::Close).await.unwrap();
    mailbox.closed().await;
    let down = fleet.down(&definition, "broken rule", Stage::Restoring, clock::wall_ms());
    let standing = Standing::Down(Arc::clone(&down));
    fleet.enter(&name, Member { definition: Arc::clone(&definition), standing, panics: panics.clone() });
    (fleet.make(definition, panics).unwrap(), down)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ordered_in_the_moment_in_which_an_engine_begins_is_the_first_that_it_is_told() {
    let site = Site::start().await;
    let shop = || "shop".to_owned();
    let (reason, for_seconds) = ("migration".to_owned(), 3600);
    site.order(Command::MaintenanceOn { name: shop(), for_seconds, reason: reason.clone() }).await.unwrap();
    site.until("shop", |shop| shop.maintenance).await;

    let (engine, down) = made(&site).await;
    site.order(Command::MaintenanceOff { name: shop() }).await.unwrap();
    let web = "shop/web".to_owned();
    let on = Command::MaintenanceOn { name: web, for_seconds, reason: reason.clone() };
    site.order(on).await.unwrap();
    site.order(Command::Pause { name: Some(shop()), reason: reason.clone() }).await.unwrap();
    site.order(Command::Pause { name: Some("shop/web/nginx".to_owned()), reason }).await.unwrap();
    site.fleet().launch(engine, Some(&down));
    site.until_told("paused: migration (by ann)", 1).await;
    site.until_told("paused: ordered while its policy engine was started", 1).await;
    let paused = site.until("shop", |shop| shop.assemblies[0].maintenance).await;
    assert!(!paused.maintenance, "{paused:#?}");

    let (engine, down) = made(&site).await;
    site.order(Command::MaintenanceOff { name: "shop/web".to_owned() }).await.unwrap();
    for name in [shop(), "shop/web/nginx".to_owned()] {
        site.order(Command::Resume { name: Some(name), reason: String::new() }).await.unwrap();
    }
    site.order(Command::Stop { name: shop(), power_off: false }).await.unwrap();
    site.fleet().launch(engine, Some(&down));
    let stopped = site.until("shop", |shop| shop.assemblies[0].services[0].state == State::Stopped).await;
    assert!(!stopped.assemblies[0].maintenance, "{stopped:#?}");

    let (engine, down) = made(&site).await;
    site.order(Command::Start { name: shop() }).await.unwrap();
    site.fleet().launch(engine, Some(&down));
    let shop = site.until("shop", |shop| shop.state == State::Healthy).await;
    assert!(!shop.maintenance && !shop.assemblies[0].maintenance && shop.paused.is_none(), "{shop:#?}");
    site.controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_that_is_removed_in_the_moment_in_which_its_engine_begins_is_managed_no_more() {
    let site = Site::start().await;
    let (engine, down) = made(&site).await;
    site.fleet().remove(&Name::parse("shop").unwrap()).await;
    site.fleet().launch(engine, Some(&down));
    site.until_told("managed no more", 1).await;
    assert_eq!(site.fleet().size().0, 1);
    assert!(site.metric("cpe_deployables{state=\"healthy\"} 1"));
    site.controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_thread_of_its_journal_cpe_does_nothing_and_ends_to_be_started_anew() {
    let mut site = Site::start().await;
    site.fleet().shared().journal.panic();
    let failed = tokio::time::timeout(DEADLINE, site.controller.failed()).await.unwrap();
    assert!(failed.contains("journal"), "{failed}");
    site.controller.stop().await;
}

#[test]
fn panics_that_are_a_minute_apart_are_accidents() {
    let at = |seconds| Timestamp::from_boot(Duration::from_secs(seconds));
    let mut panics = Panics::default();
    assert!(!panics.count(at(0)) && !panics.count(at(30)) && !panics.count(at(60)));
    assert!(!panics.count(at(100)) && panics.count(at(110)));
}
