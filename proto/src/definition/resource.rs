//! Services that are not systemd's: OCF resources and LSB init scripts, and what restarts a service. Their names become words of a
//! guest's shell, so each is parsed into a type that cannot hold anything unsafe; values are quoted by the monitor.

use std::fmt;
use std::sync::Arc;

use super::UnitName;
use super::check::word;

/// What is restarted, started and stopped for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restart {
    /// A systemd unit.
    Systemd(UnitName),
    /// The OCF resource that the service is: stopped, then started.
    Ocf(OcfAgent),
    /// An init script: stopped, then started.
    Lsb(ScriptName),
}

impl fmt::Display for Restart {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Systemd(unit) => unit.fmt(out),
            Self::Ocf(agent) => agent.fmt(out),
            Self::Lsb(script) => script.fmt(out),
        }
    }
}

word! {
    /// A resource agent of the Open Cluster Framework, `ocf:PROVIDER:TYPE`: the program `resource.d/PROVIDER/TYPE` below `OCF_ROOT`.
    OcfAgent, "resource agent", |text| {
        const EXPECTED: &str = "ocf:PROVIDER:TYPE, as ocf:heartbeat:IPaddr2";
        let mut words = text.strip_prefix("ocf:").ok_or(EXPECTED)?.split(':');
        match (words.next(), words.next(), words.next()) {
            (Some(provider), Some(kind), None) if file_name(provider) && file_name(kind) => Ok(()),
            _ => Err(EXPECTED),
        }
    }
}

impl OcfAgent {
    /// Who made it: `heartbeat` for those of the package resource-agents.
    #[must_use]
    pub fn provider(&self) -> &str {
        self.as_str().split(':').nth(1).unwrap_or_default()
    }

    /// Its program's name.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.as_str().split(':').nth(2).unwrap_or_default()
    }
}

word! {
    /// An init script's name in `/etc/init.d`.
    ScriptName, "init script's name", |text| {
        if file_name(text) { Ok(()) } else { Err("the name of a script in /etc/init.d: letters, digits and . _ + - @") }
    }
}

word! {
    /// The absolute path of a program in the guest.
    ProgramPath, "program's path", |text| {
        let plain = text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(folder));
        if plain && text.len() <= 255 { Ok(()) } else { Err("an absolute path of letters, digits and . _ + - @, as /usr/local/sbin/configure-shop") }
    }
}

word! {
    /// A parameter's name: the last part of an environment variable's.
    ParameterName, "parameter's name", |text| {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let starts = text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        if plain && starts && text.len() <= 64 { Ok(()) } else { Err("1 to 64 letters, digits and _, the first not a digit") }
    }
}

/// One part of a path; a hidden one as well, but none that leads up.
fn folder(text: &str) -> bool {
    file_name(text.strip_prefix('.').unwrap_or(text))
}

/// One part of a path that no shell reads as anything else, and that names no other folder.
fn file_name(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-@".contains(&byte));
    plain && !text.is_empty() && text.len() <= 64 && !text.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_a_program_below_its_folder_and_nothing_else() {
        let agent = OcfAgent::parse("ocf:heartbeat:IPaddr2").expect("one of Debian's");
        assert_eq!((agent.provider(), agent.kind()), ("heartbeat", "IPaddr2"));
        for bad in [
            "Dummy",
            "ocf:Dummy",
            "ocf::Dummy",
            "ocf:..:x",
            "ocf:a:b/c",
            "ocf:a:b:c",
            "ocf:a:$(b)",
            "lsb:a:b",
        ] {
            assert!(OcfAgent::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_script_and_a_program_are_words_that_leave_no_folder() {
        assert!(
            ScriptName::parse("exim4").is_ok() && ProgramPath::parse("/usr/local/sbin/set-up_1.sh").is_ok()
        );
        for bad in ["", "..", "-x", "a/b", "a b", "a;b", "a'b", "a\nb"] {
            assert!(ScriptName::parse(bad).is_err(), "{bad:?}");
            assert!(ProgramPath::parse(&format!("/{bad}/")).is_err(), "{bad:?}");
        }
        assert!(ProgramPath::parse("bin/x").is_err() && ProgramPath::parse("/usr/../x").is_err());
    }

    #[test]
    fn a_parameter_is_a_part_of_a_variables_name() {
        assert!(ParameterName::parse("cidr_netmask").is_ok() && ParameterName::parse("_X9").is_ok());
        for bad in ["", "9a", "a-b", "a=b", "a b", "é"] {
            assert!(ParameterName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
