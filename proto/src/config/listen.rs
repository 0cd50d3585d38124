//! `[listen]`: where the API and the metrics are, and what proves who asks over the network.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::path;
use crate::document::{Schema, Table};
use crate::secret::{SecretSource, read_secret};

pub(super) const LISTEN: Schema =
    Schema { title: "[listen]", keys: &["api", "token", "read_token", "plain", "metrics"], later: &[] };

/// The most bytes of a unix socket's path: `sun_path` of unix(7) without its NUL.
const SOCKET_PATH_MAX: usize = 107;
/// The most places of the API.
const PLACES_MAX: usize = 8;

/// Where the controller is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where the API is served (unix:/run/cpe/api.sock).
    pub api: Vec<ApiAddress>,
    /// What proves an operator who comes over TCP.
    pub token: Option<SecretSource>,
    /// What proves somebody who may look but not order.
    pub read_token: Option<SecretSource>,
    /// Whether tokens may come over an address that is not loopback, where others can read them on the way.
    pub plain: bool,
    /// Where metrics are served (127.0.0.1:9464); none: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// One place where the API is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAddress {
    /// A unix socket: its group decides who may order.
    Unix(PathBuf),
    /// A TCP port, where 0 is any that is free, and the log says which: who has the token.
    Tcp(SocketAddr),
}

impl ApiAddress {
    /// Parses `unix:/path` or `IP:PORT`; a relative path begins at `folder`.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, &'static str> {
        const EXPECTED: &str = "unix: and a path of at most 107 bytes, as \"unix:/run/cpe/api.sock\", or IP:PORT, as \"127.0.0.1:7070\"";
        let Some(socket) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp).map_err(|_| EXPECTED);
        };
        let socket = path(socket, folder).map_err(|_| EXPECTED)?;
        if socket.as_os_str().len() > SOCKET_PATH_MAX { Err(EXPECTED) } else { Ok(Self::Unix(socket)) }
    }
}

pub(super) fn read(root: &Table<'_>, folder: &Path) -> Listen {
    let default = SocketAddr::from(([127, 0, 0, 1], 9464));
    let mut listen = Listen {
        api: vec![ApiAddress::Unix("/run/cpe/api.sock".into())],
        token: None,
        read_token: None,
        plain: false,
        metrics: Some(default),
    };
    let Some(table) = root.table("listen", &LISTEN) else { return listen };
    if let Some(api) = read_api(&table, folder) {
        listen.api = api;
    }
    listen.token = read_secret(&table, "token", |text| path(text, folder));
    listen.read_token = read_secret(&table, "read_token", |text| path(text, folder));
    listen.plain = table.flag("plain").unwrap_or(false);
    let metrics = table.parse("metrics", |text| match text {
        "off" => Ok(None),
        address => address.parse().map(Some).map_err(|_| "IP:PORT, as \"127.0.0.1:9464\", or \"off\""),
    });
    listen.metrics = metrics.unwrap_or(listen.metrics);
    check(&table, &listen);
    listen
}

/// One place, or a list of them.
fn read_api(table: &Table<'_>, folder: &Path) -> Option<Vec<ApiAddress>> {
    let parse = |text: &str| ApiAddress::parse(text, folder);
    if !table.is_list("api") {
        return table.parse("api", parse).map(|address| vec![address]);
    }
    let list = table.list("api", parse)?;
    if list.is_empty() || list.len() > PLACES_MAX {
        let message = format!("`api` in [listen] has {} places, expected 1 to {PLACES_MAX}", list.len());
        table.report().error(table.at_key("api"), message);
    }
    Some(list)
}

fn check(table: &Table<'_>, listen: &Listen) {
    let tcp = || {
        listen.api.iter().filter_map(|address| match address {
            ApiAddress::Tcp(address) => Some(address),
            ApiAddress::Unix(_) => None,
        })
    };
    if tcp().next().is_some() && !table.has("token") && !table.has("read_token") {
        let message = "`api` in [listen] is an address, and there is no `token`, expected token = { file = \"/etc/cpe/token\" } with a \
                       file that `openssl rand -hex 32` filled: without one everybody who reaches the port could order";
        table.report().error(table.at_key("api"), message);
    }
    if let Some(open) = tcp().find(|address| !address.ip().is_loopback() && !listen.plain) {
        let message = format!(
            "`api` in [listen] is {open}, where tokens could be read on the way, expected a loopback address (reach it through \
             `ssh -L` or a proxy with TLS), or plain = true if that network is trusted"
        );
        table.report().error(table.at_key("api"), message);
    }
}
