//! How a service is probed: the kinds, and the words in them that reach a guest's shell, each parsed into a type that cannot
//! hold anything unsafe.

use std::fmt;
use std::sync::Arc;

use super::direct::Direct;
use super::resource::{OcfAgent, ScriptName};

/// How a service is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// systemd's view of a unit.
    Systemd(UnitName),
    /// At least one process of that name (`/proc/PID/comm`) runs.
    Process(ProcessName),
    /// A TCP port accepts a connection, tried from within the guest.
    Tcp {
        /// Host name or IP address as seen by the guest (127.0.0.1).
        host: Arc<str>,
        /// The port.
        port: u16,
    },
    /// A command in the guest exits 0. Run by `/bin/sh -c`.
    Command(CommandLine),
    /// The controller looks itself, not over the assembly's channel.
    Direct(Arc<Direct>),
    /// The controller asks the same through the guest's sshd, so from within the guest and over its channel.
    FromGuest(Arc<Direct>),
    /// A monitoring plugin and its arguments, run by `/bin/sh -c`, which finds it in the folders that distributions keep them in.
    Nagios(CommandLine),
    /// An OCF resource: its agent's `monitor`, with the service's parameters.
    Ocf(OcfAgent),
    /// An init script: its `status`.
    Lsb(ScriptName),
}

impl Check {
    /// The word of definitions and metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Systemd(_) => "systemd",
            Self::Process(_) => "process",
            Self::Tcp { .. } => "tcp",
            Self::Command(_) => "command",
            Self::Nagios(_) => "nagios",
            Self::Ocf(_) => "ocf",
            Self::Lsb(_) => "lsb",
            Self::Direct(asked) | Self::FromGuest(asked) => asked.kind(),
        }
    }

    /// The probe that the controller makes itself; none: it is made in the guest, over the assembly's channel.
    #[must_use]
    pub const fn direct(&self) -> Option<&Arc<Direct>> {
        match self {
            Self::Direct(direct) => Some(direct),
            _ => None,
        }
    }

    /// What is asked through the guest's sshd.
    #[must_use]
    pub const fn from_guest(&self) -> Option<&Arc<Direct>> {
        match self {
            Self::FromGuest(asked) => Some(asked),
            _ => None,
        }
    }
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $what:literal, $parse:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses it.
            ///
            /// # Errors
            /// What is wrong with the text, as a clause for a person.
            pub fn parse(text: &str) -> Result<Self, &'static str> {
                let check: fn(&str) -> Result<(), &'static str> = $parse;
                check(text).map(|()| Self(text.into()))
            }

            #[doc = concat!("The ", $what, " as text.")]
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, out)
            }
        }
    };
}

pub(super) use word;

word! {
    /// A systemd unit's whole name, with its type: safe as a word of a shell command and never read as an option.
    UnitName, "unit's name", |text| {
        // systemd.unit(5): at most 255 characters of these, and a suffix that is a unit type.
        let known = [".service", ".socket", ".target", ".timer", ".mount", ".path", ".slice", ".scope", ".swap", ".automount", ".device"];
        if !known.iter().any(|suffix| text.len() > suffix.len() && text.ends_with(suffix)) {
            return Err("a unit's whole name with its type, as nginx.service");
        }
        if text.len() > 255 || text.starts_with('-') {
            return Err("at most 255 characters, the first not -");
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.@".contains(&byte)) {
            return Err("only letters, digits and : - _ . @ (systemd-escape makes such a name of any text)");
        }
        Ok(())
    }
}

word! {
    /// A process's name as the kernel has it in `/proc/PID/comm`: at most 15 bytes.
    ProcessName, "process's name", |text| {
        // TASK_COMM_LEN is 16 with the final NUL; a longer name would never match.
        if text.is_empty() || text.len() > 15 {
            return Err("1 to 15 bytes, as in /proc/PID/comm (the kernel cuts longer names)");
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.@+/".contains(&byte)) {
            return Err("only letters, digits and : - _ . @ + /");
        }
        Ok(())
    }
}

word! {
    /// A command line for the guest's `/bin/sh -c`: one line, printable, at most 1,024 bytes. Its text is the operator's own;
    /// it is passed as one quoted word, so it cannot reach the framing of the probe that carries it.
    CommandLine, "command line", |text| {
        if text.trim().is_empty() || text.len() > 1024 {
            return Err("1 to 1024 bytes");
        }
        if text.chars().any(char::is_control) {
            return Err("one line without control characters");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_name_cannot_carry_a_command_or_an_option() {
        for good in ["nginx.service", "getty@tty1.service", "a-b_c:d.e.timer"] {
            assert!(UnitName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "nginx",
            ".service",
            "-x.service",
            "a b.service",
            "a;b.service",
            "a$(b).service",
            "a\\x2d.service",
            "a\n.service",
        ] {
            assert!(UnitName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_command_is_one_printable_line() {
        assert!(CommandLine::parse("test -f /run/ok && exit 0").is_ok());
        for bad in ["", " ", "a\nb", "a\0b", &"x".repeat(1025)] {
            assert!(CommandLine::parse(bad).is_err(), "{bad:?}");
        }
    }
}
