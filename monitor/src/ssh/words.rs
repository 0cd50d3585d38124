//! The command lines of plugins, resource agents, init scripts and configure scripts, as a guest's shell takes them. Names are safe as
//! words by their types; values are quoted, and reach a program as its environment, never through a shell's eyes.
//! `packaging/cpe-guest` builds the same texts from its list and compares them.

use std::fmt::Write as _;

use super::exec::quote;
use super::settings::{Configuration, Resource, ServiceAct, Subject};

/// Where distributions keep plugins: Debian, Red Hat (two), SUSE and Alpine, and upstream.
const PLUGINS: &str = "PATH=/usr/lib/nagios/plugins:/usr/lib64/nagios/plugins:/usr/lib/monitoring-plugins:/usr/local/nagios/libexec:$PATH; ";

/// What root's programs see of the environment, besides what is theirs.
const CLEAN: &str =
    "/usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C";

/// OCF resource agent API 1.0: where agents are, and its version.
const OCF: &str = "OCF_ROOT=/usr/lib/ocf OCF_RA_VERSION_MAJOR=1 OCF_RA_VERSION_MINOR=0";

/// So that sudo's refusals are recognised.
const C: &str = "export LC_ALL=C; ";

/// Whether a login is root's own, or needs `sudo -n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    Root,
    Sudo,
}

impl Rights {
    pub(super) fn of(user: &str) -> Self {
        if user == "root" { Self::Root } else { Self::Sudo }
    }

    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Sudo => "sudo -n ",
        }
    }
}

/// A monitoring plugin and its arguments.
pub(super) fn plugin(line: &str) -> String {
    format!("{PLUGINS}{line}")
}

/// Whether a resource runs.
pub(super) fn monitor(resource: &Resource, rights: Rights) -> String {
    format!("{C}exec {}", agent(resource, "monitor", rights))
}

/// Whether what an init script starts runs.
pub(super) fn status(script: &str, rights: Rights) -> String {
    format!("{C}exec {}", init(script, "status", rights))
}

/// What does that to a subject.
pub(super) fn act(act: ServiceAct, subject: &Subject, rights: Rights) -> String {
    let sudo = rights.prefix();
    let one = |verb| match subject {
        Subject::Unit(unit) => format!("{sudo}systemctl {verb} {unit}"),
        Subject::Resource(resource) => agent(resource, verb, rights),
        Subject::Script(script) => init(script.as_str(), verb, rights),
    };
    let script = match (act, subject) {
        // Without it a unit that failed too often is not started again. It fails for a unit that is not loaded: of no matter.
        (ServiceAct::Restart | ServiceAct::Start, Subject::Unit(unit)) => {
            format!("{sudo}systemctl reset-failed {unit} >/dev/null 2>&1; {}", one(act.verb()))
        }
        // A stop of what is stopped succeeds; after one that fails a start would make a second.
        (ServiceAct::Restart, _) => format!("{} && {}", one("stop"), one("start")),
        (ServiceAct::Start | ServiceAct::Stop, _) => one(act.verb()),
    };
    alone(&format!("{C}{script}"))
}

/// A configure script.
pub(super) fn configure(configuration: &Configuration, rights: Rights) -> String {
    let mut text = format!("{C}{}{CLEAN} CPE_SERVICE={}", rights.prefix(), quote(&configuration.service));
    for (name, value) in &configuration.parameters {
        let _infallible = write!(text, " {}", quote(&format!("CPE_PARAMETER_{name}={value}")));
    }
    alone(&format!("{text} {}", configuration.program))
}

/// The order that a channel of its own carries, whatever the login shell is.
fn alone(script: &str) -> String {
    format!("exec /bin/sh -c {}", quote(script))
}

fn agent(resource: &Resource, action: &str, rights: Rights) -> String {
    let (provider, kind) = (resource.agent.provider(), resource.agent.kind());
    let mut text = format!(
        "{}{CLEAN} {OCF} OCF_RESOURCE_PROVIDER={provider} OCF_RESOURCE_TYPE={kind} OCF_RESOURCE_INSTANCE={}",
        rights.prefix(),
        resource.instance
    );
    for (name, value) in &resource.parameters {
        let _infallible = write!(text, " {}", quote(&format!("OCF_RESKEY_{name}={value}")));
    }
    let _infallible = write!(text, " /usr/lib/ocf/resource.d/{provider}/{kind} {action}");
    text
}

fn init(script: &str, action: &str, rights: Rights) -> String {
    format!("{}/etc/init.d/{script} {action}", rights.prefix())
}

/// What cannot be sent, because it would end the line that carries it.
pub(super) fn unfit(parameters: &[(cpe_proto::definition::ParameterName, String)]) -> Option<String> {
    let bad = parameters.iter().find(|(_, value)| value.chars().any(char::is_control))?;
    Some(format!("parameter {} has a control character in it", bad.0))
}

#[cfg(test)]
mod tests {
    use cpe_proto::definition::{OcfAgent, ParameterName, ProgramPath, ScriptName, UnitName};
    use cpe_proto::id::Name;

    use super::*;

    fn parameters(list: &[(&str, &str)]) -> Vec<(ParameterName, String)> {
        let one = |(name, value): &(&str, &str)| (ParameterName::parse(name).unwrap(), (*value).to_owned());
        list.iter().map(one).collect()
    }

    fn resource(list: &[(&str, &str)]) -> Resource {
        Resource {
            agent: OcfAgent::parse("ocf:heartbeat:Dummy").unwrap(),
            instance: Name::parse("vip").unwrap(),
            parameters: parameters(list),
        }
    }

    #[test]
    fn a_restart_of_a_unit_forgets_earlier_failures_first() {
        let unit = Subject::Unit(UnitName::parse("nginx.service").unwrap());
        assert_eq!(
            act(ServiceAct::Restart, &unit, Rights::Sudo),
            "exec /bin/sh -c 'export LC_ALL=C; sudo -n systemctl reset-failed nginx.service >/dev/null 2>&1; sudo -n systemctl restart nginx.service'"
        );
        assert_eq!(
            act(ServiceAct::Stop, &unit, Rights::Root),
            "exec /bin/sh -c 'export LC_ALL=C; systemctl stop nginx.service'"
        );
    }

    #[test]
    fn a_restart_of_anything_else_is_a_stop_that_succeeded_and_a_start() {
        let script = Subject::Script(ScriptName::parse("exim4").unwrap());
        assert_eq!(
            act(ServiceAct::Restart, &script, Rights::Sudo),
            "exec /bin/sh -c 'export LC_ALL=C; sudo -n /etc/init.d/exim4 stop && sudo -n /etc/init.d/exim4 start'"
        );
        let text = act(ServiceAct::Restart, &Subject::Resource(resource(&[]).into()), Rights::Root);
        assert!(text.contains("/heartbeat/Dummy stop && /usr/bin/env -i "), "{text}");
    }

    #[test]
    fn an_agent_gets_a_clean_environment_and_its_parameters_in_it() {
        assert_eq!(
            monitor(&resource(&[("state", "/run/x")]), Rights::Sudo),
            "export LC_ALL=C; exec sudo -n /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C \
             OCF_ROOT=/usr/lib/ocf OCF_RA_VERSION_MAJOR=1 OCF_RA_VERSION_MINOR=0 OCF_RESOURCE_PROVIDER=heartbeat OCF_RESOURCE_TYPE=Dummy \
             OCF_RESOURCE_INSTANCE=vip 'OCF_RESKEY_state=/run/x' /usr/lib/ocf/resource.d/heartbeat/Dummy monitor"
        );
    }

    /// What a shell makes of a text, by a program that prints its environment instead of the one named.
    fn environment(text: &str) -> String {
        let (text, _) = text.rsplit_once(" /usr/").unwrap();
        let closed = if text.starts_with("exec /bin/sh -c '") { "'" } else { "" };
        let output =
            std::process::Command::new("sh").args(["-c", &format!("{text} /usr/bin/env{closed}")]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    #[test]
    fn no_value_is_ever_read_by_a_shell() {
        let nasty = "a b'c\"$(reboot)`x`\\;&|<>*?{1,2}#~ é";
        let seen = environment(&monitor(&resource(&[("x", nasty), ("y", "")]), Rights::Root));
        assert!(seen.contains(&format!("\nOCF_RESKEY_x={nasty}\nOCF_RESKEY_y=\n")), "{seen}");
        let configuration = Configuration {
            service: "shop/web/blog".to_owned(),
            program: ProgramPath::parse("/usr/local/sbin/configure-blog").unwrap(),
            parameters: parameters(&[("db", nasty)]),
        };
        let seen = environment(&configure(&configuration, Rights::Root));
        assert!(seen.contains(&format!("\nCPE_SERVICE=shop/web/blog\nCPE_PARAMETER_db={nasty}\n")), "{seen}");
        assert!(!seen.contains("\nHOME="), "{seen}");
    }

    #[test]
    fn a_value_that_would_end_its_line_is_not_sent() {
        assert_eq!(unfit(&parameters(&[("a", "b c")])), None);
        assert!(unfit(&parameters(&[("a", "b\nc 1 5 reboot")])).unwrap().contains("parameter a"));
    }
}
