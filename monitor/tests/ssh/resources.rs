//! Plugins, resource agents, init scripts and configure scripts: the real ones of Debian (monitoring-plugins-basic, resource-agents), and
//! scripts where what matters is what they are given.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use cpe_monitor::ssh::{Act, ActError, Configuration, Deed, Probe, Resource, ServiceAct, Subject};
use cpe_proto::definition::{Check, CommandLine, OcfAgent, ParameterName, ProgramPath, ScriptName};
use cpe_proto::id::Name;
use cpe_proto::observation::Observation;

use crate::guest::{Guest, Kind, PATIENCE, am_root};
use crate::watch::Watch;

pub(crate) fn plugin(line: &str) -> Probe {
    Probe::Check(Check::Nagios(CommandLine::parse(line).unwrap()))
}

pub(crate) fn lsb(name: &str) -> Probe {
    Probe::Check(Check::Lsb(ScriptName::parse(name).unwrap()))
}

pub(crate) fn resource(agent: &str, parameters: &[(&str, &str)]) -> Arc<Resource> {
    let one = |(name, value): &(&str, &str)| (ParameterName::parse(name).unwrap(), (*value).to_owned());
    Arc::new(Resource {
        agent: OcfAgent::parse(agent).unwrap(),
        instance: Name::parse("dummy").unwrap(),
        parameters: parameters.iter().map(one).collect(),
    })
}

fn exit(observation: &Observation) -> i32 {
    match observation {
        Observation::Exited(status, _) => *status,
        other => panic!("it should have ended: {other:?}"),
    }
}

pub(crate) async fn act(watch: &Watch, act: ServiceAct, subject: Subject) -> Result<String, ActError> {
    watch.session.act(Act { deed: Deed::Service(act, subject), timeout: PATIENCE }).await
}

/// Runs the guest's program `configure`.
pub(crate) async fn configure(
    watch: &Watch,
    guest: &Guest,
    parameters: &[(&str, &str)],
) -> Result<String, ActError> {
    let one = |(name, value): &(&str, &str)| (ParameterName::parse(name).unwrap(), (*value).to_owned());
    let configuration = Configuration {
        service: "shop/web/blog".to_owned(),
        program: ProgramPath::parse(guest.path("configure").to_str().unwrap()).unwrap(),
        parameters: parameters.iter().map(one).collect(),
    };
    watch.session.act(Act { deed: Deed::Configure(configuration), timeout: PATIENCE }).await
}

/// A guest where the resident shell cannot run, so that each probe is an exec of its own.
const BY_EXEC: &[&str] = &[
    "sh", "sleep", "tail", "cat", "awk", "basename", "cut", "date", "grep", "id", "ls", "rm", "sed", "touch",
    "tr", "uname", "which",
];

#[tokio::test(flavor = "multi_thread")]
async fn debians_plugins_say_their_line_and_what_they_measured() {
    for kind in [Kind::default(), Kind { only_commands: Some(BY_EXEC), ..Kind::default() }] {
        let guest = Guest::of(&kind);
        let mut watch = Watch::of(&guest);
        assert_eq!(watch.channel().await, Observation::Alive);
        let disk = watch.measured(plugin("check_disk -w 1% -c 1% -p /proc")).await;
        assert!(!matches!(disk.observation, Observation::NotRunnable(_)), "{disk:?}");
        let load = watch.measured(plugin("check_load -w 9000,9000,9000 -c 9999,9999,9999")).await;
        let Observation::Exited(0, line) = &load.observation else { panic!("{load:?}") };
        assert!(line.contains("load average") && !line.contains('|'), "{line}");
        let labels: Vec<&str> = load.measures.iter().map(|it| it.label.as_str()).collect();
        assert_eq!((labels, load.dropped), (vec!["load1", "load5", "load15"], 0), "{load:?}");
        // check_dummy ends as it is told.
        for (told, expected) in
            [(0, "OK: fine"), (1, "WARNING: fine"), (2, "CRITICAL: fine"), (3, "UNKNOWN: fine")]
        {
            let seen = watch.measured(plugin(&format!("check_dummy {told} fine"))).await;
            assert_eq!(seen.observation, Observation::Exited(told, expected.into()));
            assert!(seen.measures.is_empty());
        }
        let missing = watch.measured(plugin("check_nothing")).await;
        assert!(
            matches!(&missing.observation, Observation::NotRunnable(why) if why.contains("not found")),
            "{missing:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_later_lines_arrive_and_what_is_too_long_is_cut_between_two() {
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    let seen = watch.measured(plugin(r"printf 'OK | a=1\nmore\nstill | b=2\nc=3\n'")).await;
    let labels: Vec<&str> = seen.measures.iter().map(|it| it.label.as_str()).collect();
    assert_eq!((seen.observation, labels), (Observation::Exited(0, "OK".into()), vec!["a", "b", "c"]));
    let seen = watch.measured(plugin(r"printf 'OK |'; i=100; while [ $i -lt 200 ]; do printf ' disk-number-%s=%s234567890' $i $i; i=$((i+1)); done")).await;
    assert!(seen.measures.len() > 20, "{seen:?}");
    for measure in &seen.measures {
        assert!(measure.value > 1e11, "a part of a figure: {measure:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_agents_resource_is_watched_started_stopped_and_restarted() {
    for kind in [Kind::default(), Kind { only_commands: Some(BY_EXEC), ..Kind::default() }] {
        let guest = Guest::of(&kind);
        let state = guest.path("units/dummy.state").display().to_string();
        let dummy = resource("ocf:heartbeat:Dummy", &[("state", &state)]);
        let subject = || Subject::Resource(Arc::clone(&dummy));
        let probe = Probe::Resource(Arc::clone(&dummy));
        let mut watch = Watch::of(&guest);
        assert_eq!(exit(&watch.check(probe.clone()).await), 7, "not running");
        act(&watch, ServiceAct::Stop, subject()).await.expect("a stop of what is stopped succeeds");
        act(&watch, ServiceAct::Start, subject()).await.expect("it starts");
        assert!(Path::new(&state).exists(), "the parameter reached the agent as it is");
        assert_eq!(exit(&watch.check(probe.clone()).await), 0);
        act(&watch, ServiceAct::Start, subject()).await.expect("so does a start of what runs");
        fs::remove_file(&state).unwrap();
        assert_eq!(exit(&watch.check(probe.clone()).await), 7);
        act(&watch, ServiceAct::Restart, subject()).await.expect("stopped and started");
        assert_eq!(exit(&watch.check(probe.clone()).await), 0);
        act(&watch, ServiceAct::Stop, subject()).await.expect("it stops");
        assert_eq!(exit(&watch.check(probe).await), 7);
        assert!(
            guest.read("units/log").contains("sudo -n /usr/bin/env -i "),
            "as root, with a clean environment"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_not_there_or_not_allowed_is_a_matter_for_a_person() {
    let guest = Guest::new();
    let mut watch = Watch::of(&guest);
    let missing = resource("ocf:heartbeat:NoSuchAgent", &[]);
    let seen = watch.check(Probe::Resource(Arc::clone(&missing))).await;
    assert!(matches!(&seen, Observation::NotRunnable(why) if why.contains("No such file")), "{seen:?}");
    let told = act(&watch, ServiceAct::Restart, Subject::Resource(missing)).await;
    assert!(matches!(&told, Err(ActError::NotRunnable(why)) if why.contains("sudoers-cpe")), "{told:?}");
    guest.write("units/sudo-refuses", "");
    let seen = watch.check(Probe::Resource(resource("ocf:heartbeat:Dummy", &[]))).await;
    assert!(
        matches!(&seen, Observation::NotRunnable(why) if why.contains("password is required")),
        "{seen:?}"
    );
}

const SCRIPT: &str = r#"#!/bin/sh
# Runs while there is a file.
case $1 in
start) echo start >> DIR/units/acts; : > DIR/units/runs;;
stop) echo stop >> DIR/units/acts; [ ! -e DIR/units/stuck ] || exit 1; rm -f DIR/units/runs;;
status) [ -e DIR/units/runs ] || { echo "it is not running"; exit 3; };;
*) exit 2;;
esac
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_init_script_is_watched_and_restarted_by_a_stop_that_succeeds() {
    if !am_root() {
        // /etc/init.d is that of this machine.
        return;
    }
    let prepare = |dir: &Path| {
        fs::create_dir(dir.join("init.d")).unwrap();
        let script = dir.join("init.d/oldie");
        fs::write(&script, SCRIPT.replace("DIR", dir.to_str().unwrap())).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let guest = Guest::of(&Kind { prepare: Some(&prepare), ..Kind::default() });
    let subject = || Subject::Script(ScriptName::parse("oldie").unwrap());
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.check(lsb("oldie")).await, Observation::Exited(3, "it is not running".into()));
    act(&watch, ServiceAct::Restart, subject()).await.expect("it starts");
    assert_eq!(exit(&watch.check(lsb("oldie")).await), 0);
    assert_eq!(guest.read("units/acts"), "stop\nstart\n");
    guest.write("units/stuck", "");
    let told = act(&watch, ServiceAct::Restart, subject()).await;
    assert!(matches!(&told, Err(ActError::Failed { status: Some(1), .. })), "{told:?}");
    assert_eq!(
        guest.read("units/acts"),
        "stop\nstart\nstop\n",
        "what does not stop is not started a second time"
    );
    assert!(matches!(watch.check(lsb("no-such")).await, Observation::NotRunnable(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configure_script_gets_its_parameters_as_environment_and_nothing_else() {
    let guest = Guest::new();
    let program = guest.path("configure");
    let text = format!(
        "#!/bin/sh\n/usr/bin/env > {}\n[ \"$CPE_PARAMETER_db\" != wrong ]\n",
        guest.path("units/seen").display()
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut watch = Watch::of(&guest);
    assert_eq!(watch.channel().await, Observation::Alive);
    let value = "192.0.2.7'; touch /tmp/x; $(id) `id` \"";
    configure(&watch, &guest, &[("db", value)]).await.expect("it is run");
    let seen = guest.read("units/seen");
    assert!(seen.contains("CPE_PARAMETER_db=192.0.2.7'; touch /tmp/x; $(id) `id` \"\n"), "{seen}");
    assert!(seen.contains("CPE_SERVICE=shop/web/blog\n") && !seen.contains("SSH_CONNECTION"), "{seen}");
    let told = configure(&watch, &guest, &[("db", "wrong")]).await;
    assert!(matches!(&told, Err(ActError::Failed { status: Some(1), .. })), "{told:?}");
    let told = configure(&watch, &guest, &[("db", "a\nc 1 5 reboot")]).await;
    assert!(
        matches!(&told, Err(ActError::NotRunnable(why)) if why.contains("control character")),
        "{told:?}"
    );
}
