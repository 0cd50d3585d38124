//! A command over a channel of its own: for acts, and for probes where the resident shell cannot serve.

use std::sync::Arc;

use cpe_proto::observation::detail;
use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelOpenFailure, Sig};
use tokio::time::Instant;

use super::connect::Client;

/// What is kept of a command's output, in bytes: more than an observation can carry, and a plugin's figures.
pub(super) const KEPT_BYTES: usize = 1024;

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It ended. The status is absent after a signal.
    Ended {
        /// The exit status.
        status: Option<i32>,
        /// The first of its output, standard output and standard error as they came.
        output: Vec<u8>,
    },
    /// It printed more than allowed and was ended.
    TooMuch,
    /// It did not end by the deadline. It was told to end; whether it did is not known.
    Late,
    /// The server would not run it.
    Refused(&'static str),
    /// The session was lost on the way.
    Lost,
}

/// Runs a command, given as the login shell takes it, with empty input.
pub(super) async fn run(
    handle: Arc<Handle<Client>>,
    command: String,
    deadline: Instant,
    output_max: usize,
) -> Outcome {
    // Not under the deadline: an open that is dropped half way would leave its channel open for good.
    let opened = match handle.channel_open_session().await {
        Ok(channel) => channel,
        Err(russh::Error::ChannelOpenFailure(reason)) => return Outcome::Refused(open_failure(&reason)),
        Err(_) => return Outcome::Lost,
    };
    let mut channel = opened;
    let outcome = tokio::time::timeout_at(deadline, read(&mut channel, command, output_max)).await;
    let outcome = outcome.unwrap_or(Outcome::Late);
    if matches!(outcome, Outcome::TooMuch | Outcome::Late) {
        // sshd gives the signal to the command's whole process group (OpenSSH 7.9 and later).
        let _lost = channel.signal(Sig::KILL).await;
    }
    let _lost = channel.close().await;
    outcome
}

async fn read(channel: &mut Channel<Msg>, command: String, output_max: usize) -> Outcome {
    if channel.exec(true, command).await.is_err() || channel.eof().await.is_err() {
        return Outcome::Lost;
    }
    let (mut output, mut total, mut status) = (Vec::new(), 0_usize, None);
    let mut ended = false;
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => {
                let room = KEPT_BYTES.saturating_sub(output.len()).min(data.len());
                output.extend_from_slice(data.get(..room).unwrap_or_default());
                total = total.saturating_add(data.len());
                if total > output_max {
                    return Outcome::TooMuch;
                }
            }
            ChannelMsg::ExitStatus { exit_status } => {
                status = i32::try_from(exit_status).ok();
                ended = true;
            }
            ChannelMsg::ExitSignal { .. } => ended = true,
            ChannelMsg::Failure => return Outcome::Refused("the server does not run commands for this user"),
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    if ended { Outcome::Ended { status, output } } else { Outcome::Lost }
}

/// What it means that a channel for a command is not opened.
fn open_failure(reason: &ChannelOpenFailure) -> &'static str {
    match reason {
        ChannelOpenFailure::ResourceShortage => "the server is short of resources for another command",
        _ => "the server allows no further command: raise MaxSessions in its sshd_config",
    }
}

/// A text as one word for a POSIX shell.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Output as one line for a person.
pub(super) fn text(output: &[u8]) -> Box<str> {
    detail(&String::from_utf8_lossy(output))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn a_quoted_text_is_one_word_to_a_shell() {
        for text in ["a b", "it's", "$(reboot) `x` \\ \"", "'", "''", ""] {
            let script = format!("printf %s {}", quote(text));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }
}
