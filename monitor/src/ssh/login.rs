//! The login of one connection: each key is offered in turn, from files and from agents.

use std::path::Path;
use std::sync::Arc;

use cpe_proto::observation::ChannelFailure;
use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg};

use super::connect::{Client, Failure, Notes, Peer, is_rsa};
use super::monitor::Trust;
use super::settings::Identity;

/// Keys that are offered in one login, of an agent that has many: servers close after MaxAuthTries (6).
const AGENT_KEYS_MAX: usize = 6;

/// Offers each key in turn.
pub(super) async fn login(
    handle: &mut Handle<Client>,
    trust: &Arc<Trust>,
    peer: &Peer,
    notes: &Notes,
) -> Result<(), Failure> {
    let user = peer.user.as_str();
    let mut refused = Vec::new();
    for identity in &peer.identities {
        let accepted = match identity {
            Identity::File(_) | Identity::Encrypted { .. } => {
                offer_file(handle, user, trust, identity, &mut refused).await
            }
            Identity::Agent(path) => offer_agent(handle, user, path, &mut refused).await,
        };
        if accepted {
            return Ok(());
        }
        if handle.is_closed() {
            break;
        }
    }
    let farewell = notes.farewell();
    if handle.is_closed() && !farewell.as_ref().is_some_and(|text| text.starts_with("the server said")) {
        return Err(Failure::new(ChannelFailure::Protocol, "the server ended the connection in the login"));
    }
    let offered = if refused.is_empty() { "no key is configured".to_owned() } else { refused.join(", ") };
    let farewell = farewell.map(|text| format!("; {text}")).unwrap_or_default();
    Err(Failure::new(ChannelFailure::AuthenticationFailed, &format!("user {user}: {offered}{farewell}")))
}

async fn offer_file(
    handle: &mut Handle<Client>,
    user: &str,
    trust: &Arc<Trust>,
    identity: &Identity,
    refused: &mut Vec<String>,
) -> bool {
    let (reader, owned) = (Arc::clone(trust), identity.clone());
    let key = match tokio::task::spawn_blocking(move || reader.keys.get(&owned)).await {
        Ok(Ok(Some(key))) => key,
        Ok(Err(error)) => {
            refused.push(error.to_string());
            return false;
        }
        Ok(Ok(None)) | Err(_) => return false,
    };
    let hash = rsa_hash(handle, &key.algorithm()).await;
    let outcome =
        handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::clone(&key), hash)).await;
    if matches!(outcome, Ok(AuthResult::Success)) {
        return true;
    }
    let fingerprint = key.public_key().fingerprint(HashAlg::Sha256);
    refused.push(format!("key {} ({fingerprint}) is not accepted", identity.path().display()));
    false
}

async fn offer_agent(
    handle: &mut Handle<Client>,
    user: &str,
    path: &Path,
    refused: &mut Vec<String>,
) -> bool {
    let agent = AgentClient::connect_uds(path).await;
    let mut agent = match agent {
        Ok(agent) => agent,
        Err(error) => {
            refused.push(format!("agent {}: {error}", path.display()));
            return false;
        }
    };
    let identities = match agent.request_identities().await {
        Ok(identities) => identities,
        Err(error) => {
            refused.push(format!("agent {}: {error}", path.display()));
            return false;
        }
    };
    let keys = identities.into_iter().filter_map(|identity| match identity {
        AgentIdentity::PublicKey { key, .. } => Some(key),
        AgentIdentity::Certificate { .. } => None,
    });
    let mut count = 0_usize;
    for key in keys.take(AGENT_KEYS_MAX) {
        count += 1;
        let hash = rsa_hash(handle, &key.algorithm()).await;
        let outcome = handle.authenticate_publickey_with(user, key, hash, &mut agent).await;
        if matches!(outcome, Ok(AuthResult::Success)) {
            return true;
        }
        if handle.is_closed() {
            break;
        }
    }
    refused.push(format!("none of {count} keys of the agent {} is accepted", path.display()));
    false
}

/// RSA keys sign by SHA-2; which one, the server says.
async fn rsa_hash(handle: &Handle<Client>, algorithm: &Algorithm) -> Option<HashAlg> {
    if !is_rsa(algorithm) {
        return None;
    }
    handle.best_supported_rsa_hash().await.ok().flatten().flatten().or(Some(HashAlg::Sha256))
}
