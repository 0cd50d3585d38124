//! `cpe trust`: shows the fingerprint that a host has, and believes it only after a person's yes, or by a fingerprint that was given.

use std::io::{self, BufRead, IsTerminal, Write};

use cpe_proto::api::{Command, HostKey, HostKeyStanding};

use super::ask::order;
use super::{Exit, Failure, Trust};
use crate::client::Client;

pub(super) async fn trust(wanted: &Trust, client: &Client) -> Result<Exit, Failure> {
    let believe =
        |fingerprint: String| Command::Trust { name: wanted.name.clone(), fingerprint, jump: wanted.jump };
    if let Some(fingerprint) = &wanted.fingerprint {
        return order(believe(fingerprint.clone()), client).await;
    }
    let key = client.host_key(&wanted.name, wanted.jump).await?;
    let mut out = io::stdout();
    write!(out, "{}", said(&wanted.name, &key))?;
    out.flush()?;
    match key.standing {
        HostKeyStanding::Known => return Ok(Exit::Done),
        HostKeyStanding::Revoked { place } => {
            super::complain(&format!("it is revoked by {place}: nothing is believed"));
            return Ok(Exit::No);
        }
        HostKeyStanding::Unknown | HostKeyStanding::Changed { .. } => {}
    }
    if !io::stdin().is_terminal() {
        let jump = if wanted.jump { " --jump" } else { "" };
        super::complain(&format!(
            "nobody can be asked here: compare it, then `cpe trust {}{jump} --fingerprint {}`",
            wanted.name, key.fingerprint
        ));
        return Ok(Exit::No);
    }
    write!(
        out,
        "Compare it on the machine itself (ssh-keygen -lf /etc/ssh/ssh_host_..._key.pub). Believe it? [yes/no] "
    )?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() != "yes" {
        super::complain(&"nothing was changed");
        return Ok(Exit::No);
    }
    order(believe(key.fingerprint), client).await
}

/// What was seen and what is known.
fn said(name: &str, key: &HostKey) -> String {
    let HostKey { host, kind, fingerprint, standing } = key;
    let known = match standing {
        HostKeyStanding::Known => "that is the known key".to_owned(),
        HostKeyStanding::Unknown => "no key of it is known".to_owned(),
        HostKeyStanding::Changed { place, known } => {
            format!("known is {known} ({place}), which will be revoked")
        }
        HostKeyStanding::Revoked { place } => format!("revoked by {place}"),
    };
    format!("{name}: {host} shows {kind} {fingerprint}\n  {known}\n")
}
