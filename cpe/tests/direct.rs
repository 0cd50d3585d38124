//! Services that the controller looks at itself: the real cpe, a real web server at the address of a machine of the live fleet, whose answers
//! depend on what runs on that machine.

mod site;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use cpe_sim::live::Machine;
use site::Site;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// A page that is there while the machine's php runs, and one that always is.
fn serve(machine: &Arc<Machine>) -> (SocketAddr, Runtime) {
    let php = Arc::clone(machine);
    let blog = move || {
        let runs = php.is_active("php.service").unwrap_or(false);
        async move { if runs { (StatusCode::OK, "welcome") } else { (StatusCode::BAD_GATEWAY, "no php") } }
    };
    serve_at(machine.address().ip(), Router::new().route("/blog", get(blog)))
}

/// With its runtime everything ends at once, the connections that are kept as well.
fn serve_at(address: IpAddr, pages: Router) -> (SocketAddr, Runtime) {
    let pages = pages.route("/", get(|| async { "welcome" }));
    let runtime = Runtime::new().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind((address, 0))).expect("a port");
    let address = listener.local_addr().expect("it has one");
    runtime.spawn(async move { axum::serve(listener, pages).await });
    (address, runtime)
}

fn shop(http: &str) -> String {
    format!(
        r#"
name = "shop"
infrastructure = "demo"
[probe]
interval = "500ms"
timeout = "1s"
confirm_interval = "100ms"
stable_for = "300ms"
startup_grace = "5s"
[escalation]
service = {{ failures = 3, within = "10m" }}
assembly = {{ failures = 3, within = "1h" }}
[assemblies.web]
address = "{{web}}"
[assemblies.web.services.nginx]
systemd = "nginx.service"
[assemblies.web.services.blog]
http = {http}
restart = {{ systemd = "php.service" }}
probe = {{ timeout = "10s" }}
[assemblies.db]
address = "{{db}}"
"#
    )
}

fn started() -> (Site, SocketAddr, Runtime) {
    let site = Site::start(&[], &["web", "db"], &["nginx.service", "php.service"]);
    let (at, server) = serve(site.machine("web"));
    site.define("shop.toml", &shop(&format!("\"http://{{web.address}}:{}/blog\"", at.port())));
    site.wait("the definition is followed", || site.status()["deployables"][0]["name"].as_str().map(drop));
    site.wait_for("shop/web/blog", "healthy");
    site.wait_for("shop/web/nginx", "healthy");
    (site, at, server)
}

#[test]
fn a_page_that_fails_has_what_is_behind_it_restarted() {
    let (site, _, _server) = started();
    site.machine("web").kill_unit("php.service").expect("it has that unit");
    let closed =
        site.wait_for_event(|event| event["kind"] == "incident_closed" && event["service"] == "blog");
    assert_eq!(closed["incident"], 1);
    assert_eq!(site.machine("web").counts().unit_starts, 1);
    let why = site.cpe(&["why", "shop/web/blog"]).done();
    assert!(why.contains("/blog: status 502, expected 200-399, confirmed by 2 probes"), "{why}");
}

#[test]
fn a_page_that_is_asked_for_from_within_its_guest_goes_with_its_channel() {
    let site = Site::start(&[], &["web", "db"], &["nginx.service", "php.service"]);
    let (at, _server) = serve(site.machine("web"));
    let url = format!("\"http://{{web.address}}:{}/blog\"\nfrom = \"guest\"", at.port());
    site.define("shop.toml", &shop(&url));
    site.wait("the definition is followed", || site.status()["deployables"][0]["name"].as_str().map(drop));
    site.wait_for("shop/web/blog", "healthy");
    site.machine("web").kill_unit("php.service").expect("it has that unit");
    let closed =
        site.wait_for_event(|event| event["kind"] == "incident_closed" && event["service"] == "blog");
    assert_eq!(closed["incident"], 1);
    let why = site.cpe(&["why", "shop/web/blog"]).done();
    assert!(why.contains("/blog: status 502, expected 200-399, confirmed by 2 probes"), "{why}");
    site.now(site.machine("web").stop_sshd());
    site.wait_for("shop/web/blog", "unknown");
    site.now(site.machine("web").start_sshd());
    site.wait_for("shop/web/blog", "healthy");
    assert_eq!(site.machine("web").counts().unit_starts, 1);
}

#[test]
fn a_page_whose_path_names_another_machine_is_asked_for_where_that_is_now() {
    let site = Site::start(&[], &["web", "db"], &["nginx.service", "php.service"]);
    let db = site.machine("db").address().ip().to_string();
    let of = move |Path(who): Path<String>| async move {
        if who == db { (StatusCode::OK, "mine") } else { (StatusCode::NOT_FOUND, "not mine") }
    };
    let pages = Router::new().route("/of/{who}", get(of));
    let (at, _server) = serve_at(site.machine("web").address().ip(), pages);
    let url = |what: &str| format!("\"http://{{web.address}}:{}/of/{{db.{what}}}\"", at.port());
    site.define("shop.toml", &shop(&url("address")));
    site.wait("the definition is followed", || site.status()["deployables"][0]["name"].as_str().map(drop));
    site.wait_for("shop/web/blog", "healthy");
    site.define("shop.toml", &shop(&url("name")));
    let failed = site.wait_for_event(|event| event["kind"] == "fault_isolated" && event["service"] == "blog");
    assert!(failed["reason"].as_str().unwrap_or("").contains("/of/db: status 404"), "{failed}");
}

#[test]
fn a_machine_that_answers_http_is_not_rebooted_for_its_sshd() {
    let (site, at, _server) = started();
    site.now(site.machine("web").freeze());
    let isolated =
        site.wait_for_event(|event| event["kind"] == "fault_isolated" && event["assembly"] == "web");
    let reason = isolated["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("channel_fault: ") && reason.ends_with("; but blog passed since"), "{reason}");
    site.wait_for("shop/web/nginx", "unknown");
    site.now(site.machine("web").thaw());
    site.wait_for("shop/web/nginx", "healthy");
    let counts = site.machine("web").counts();
    assert_eq!((counts.boots, counts.unit_starts), (0, 0), "{at}");
}

#[test]
fn a_page_goes_on_being_judged_while_sshd_is_down_and_is_mended_when_it_is_back() {
    let (site, _, _server) = started();
    site.now(site.machine("web").stop_sshd());
    site.wait_for("shop/web/nginx", "unknown");
    site.machine("web").kill_unit("php.service").expect("it has that unit");
    site.wait_for("shop/web/blog", "failed");
    let status = site.status().to_string();
    assert!(status.contains("waits for its channel: a restart goes over it"), "{status}");
    site.now(site.machine("web").start_sshd());
    site.wait_for("shop/web/blog", "healthy");
    let counts = site.machine("web").counts();
    assert_eq!((counts.boots, counts.unit_starts), (0, 1));
}

#[test]
fn a_probe_that_was_changed_in_its_file_is_made_as_changed() {
    let (site, at, _server) = started();
    let page = |more: &str| format!("{{ url = \"http://{{web.address}}:{}/blog\"{more} }}", at.port());
    site.define(
        "shop.toml",
        &shop(&page(", contains = \"farewell\", headers = { X-Token = { file = \"/nowhere\" } }")),
    );
    site.wait_for("shop/web/blog", "misconfigured");
    site.define("shop.toml", &shop(&page(", contains = \"welcome\"")));
    site.wait_for("shop/web/blog", "healthy");
    assert_eq!(site.machine("web").counts().unit_starts, 0);
}

#[test]
fn a_machine_without_a_session_is_watched_from_outside_alone() {
    let site = Site::start(&[], &["web"], &["nginx.service"]);
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = IpAddr::V4(Ipv4Addr::new(127, 210, high, low.clamp(1, 254)));
    let (at, server) = serve_at(own, Router::new());
    site.define(
        "box.toml",
        &format!(
            r#"
name = "box"
probe = {{ interval = "300ms", timeout = "1s", confirm_interval = "100ms" }}
[assemblies.switch]
address = "{own}"
monitor = "direct"
channel = {{ http = "http://{{switch.address}}:{port}/not-there" }}
services.page.http = "http://{{switch.address}}:{port}/"
services.port = {{ tcp = {port} }}
"#,
            port = at.port()
        ),
    );
    site.wait("it is managed", || site.status()["deployables"][0]["name"].as_str().map(drop));
    site.wait_for("box/switch/page", "healthy");
    site.wait_for("box/switch/port", "healthy");
    site.wait("its channel is seen", || {
        (site.status()["deployables"][0]["assemblies"][0]["state"] == "healthy").then_some(())
    });
    server.shutdown_background();
    site.wait_for("box/switch/page", "failed");
    let isolated =
        site.wait_for_event(|event| event["kind"] == "fault_isolated" && event["service"].is_null());
    assert!(isolated["reason"].as_str().unwrap_or_default().starts_with("channel_fault: "), "{isolated}");
}
