//! The canaries of cpe.toml: two ports that really are connected to. When they vanish, it is the controller's own network that is not to be
//! trusted, and nothing that rests on silence is concluded or done; when they are back, it goes on.

mod site;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use site::Site;

const WEB: &str = r#"
name = "shop"
infrastructure = "demo"
[probe]
interval = "500ms"
timeout = "1s"
confirm_interval = "100ms"
stable_for = "300ms"
startup_grace = "10s"
[escalation]
assembly = { failures = 3, within = "1h" }
[assemblies.web]
address = "{web}"
services.nginx.systemd = "nginx.service"
[assemblies.db]
address = "{db}"
services.nginx.systemd = "nginx.service"
"#;

/// Something beside us on the path to all machines. Its address is this process's own, so that nobody takes its port while it is away.
struct Beacon {
    at: SocketAddr,
    listener: Option<TcpListener>,
}

impl Beacon {
    fn new(number: u8) -> Self {
        let [.., high, low] = std::process::id().to_be_bytes();
        let own = Ipv4Addr::new(127, 200 + number, high, low.clamp(1, 254));
        let listener = TcpListener::bind((own, 0)).expect("an address of loopback");
        let port = listener.local_addr().expect("it has one").port();
        Self { at: SocketAddr::new(IpAddr::V4(own), port), listener: Some(listener) }
    }

    fn vanish(&mut self) {
        self.listener = None;
    }

    fn come_back(&mut self) {
        self.listener = Some(TcpListener::bind(self.at).expect("nobody else is there"));
    }

    fn configured(&self) -> String {
        format!("[[canaries]]\npath = \"default\"\ntcp = \"{}\"\n", self.at)
    }
}

#[test]
fn canaries_that_vanish_hold_all_that_rests_on_silence_until_they_are_back() {
    let mut beacons = [Beacon::new(1), Beacon::new(2)];
    let canaries: String = beacons.iter().map(Beacon::configured).collect();
    let site = Site::configured(&[("shop.toml", WEB)], &["web", "db"], &["nginx.service"], &canaries);
    site.wait_for("shop/web/nginx", "healthy");
    site.wait_for("shop/db/nginx", "healthy");

    beacons.iter_mut().for_each(Beacon::vanish);
    let told = site.wait_for_event(|event| event["kind"] == "breaker_changed");
    let said = "cpe does not trust itself: 0 of 2 canaries of path default answer; nothing that rests on absence is done";
    assert_eq!(told["reason"], said);

    // A machine falls silent, as all would if it were our network.
    site.now(site.machine("web").freeze());
    let isolated =
        site.wait_for_event(|event| event["kind"] == "fault_isolated" && event["assembly"] == "web");
    let reason = isolated["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("untrusted: "), "{reason}");
    // What is seen failing over a session that lives rests on no silence.
    site.machine("db").kill_unit("nginx.service").expect("it has that unit");
    site.wait_for_starts("db", 1);
    site.wait_for("shop/db/nginx", "healthy");
    assert_eq!(site.machine("web").counts().boots, 0, "nothing is done to what is only silent");

    beacons.iter_mut().for_each(Beacon::come_back);
    site.wait_for_event(|event| event["reason"] == "cpe trusts itself again");
    let begun =
        site.wait_for_event(|event| event["kind"] == "recovery_started" && event["assembly"] == "web");
    assert_eq!(begun["rung"], "reboot-hard");
    site.wait_for("shop/web/nginx", "healthy");
    assert_eq!(site.machine("web").counts().boots, 1);
}

#[test]
fn a_lone_canary_that_vanishes_is_its_own_fault() {
    let mut beacons = [Beacon::new(3), Beacon::new(4)];
    let canaries: String = beacons.iter().map(Beacon::configured).collect();
    let site = Site::configured(&[("shop.toml", WEB)], &["web", "db"], &["nginx.service"], &canaries);
    site.wait_for("shop/web/nginx", "healthy");
    beacons[0].vanish();
    site.now(site.machine("web").freeze());
    let begun =
        site.wait_for_event(|event| event["kind"] == "recovery_started" && event["assembly"] == "web");
    assert_eq!(begun["rung"], "reboot-hard");
    site.wait_for("shop/web/nginx", "healthy");
}
