//! Bounds (`dped/src/bounds.rs`): what they come to, as text; that the engine keeps them whatever it is made to suffer; and that timers which
//! contradict each other are found.

use std::collections::BTreeMap;
use std::time::Duration;

use cpe_proto::definition::Deployable;
use cpe_proto::id::{AssemblyIndex, ServiceIndex};
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::bounds::{self, Assumptions, Healing, Managed, RATE_WINDOW, Rates, Weight};
use dped::{Act, GuardSettings, describe::span};
use expect_test::expect_file;

use crate::site::{Machine, Outcome, Site, Unit, seconds};

fn definition(probe: &str, escalation: &str, machine: &str) -> String {
    format!(
        "name = \"shop\"\ninfrastructure = \"prod\"\nprobe = {{ {probe} }}\n{escalation}\n[assemblies.web]\naddress = \"192.0.2.1\"\n{machine}\n\
         [assemblies.web.services.nginx]\nsystemd = \"nginx.service\"\n"
    )
}

const CLIMBS: &str =
    "[escalation]\nservice = { failures = 3, within = \"2h\" }\nassembly = { failures = 3, within = \"6h\" }";
const UNCAPPED: &str = "data = \"none\"\nmax_rung = \"recreate\"";

/// Definitions whose bounds are written down and held.
fn cases() -> Vec<(&'static str, String)> {
    vec![
        ("all defaults", definition("", "", "")),
        ("a fast probe, up to recreate", definition("interval = \"1s\", timeout = \"1s\"", CLIMBS, UNCAPPED)),
        ("a time-out above the interval", definition("interval = \"3s\", timeout = \"5s\"", CLIMBS, "")),
        (
            "many confirmations",
            definition(
                "failure_threshold = 6, confirm_interval = \"3s\"",
                CLIMBS,
                "max_rung = \"reboot-soft\"",
            ),
        ),
        (
            "one failure is enough",
            definition(
                "failure_threshold = 1",
                "[escalation]\nservice = { failures = 1, within = \"1h\" }\nassembly = { failures = 2, within = \"1h\" }",
                UNCAPPED,
            ),
        ),
        (
            "as a whole, then elsewhere",
            definition(
                "interval = \"2s\"",
                &format!(
                    "{CLIMBS}\ndeployable = {{ failures = 2, within = \"12h\" }}\nrelocate = {{ zone = \"az2\" }}"
                ),
                "data = \"none\"\nmax_rung = \"relocate\"",
            ),
        ),
    ]
}

fn parsed(text: &str) -> Deployable {
    Deployable::parse("shop.toml", text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"))
}

/// Canaries answer every second in the world of these tests, and its infrastructure at once.
fn assumed(definition: &Deployable) -> Assumptions {
    let assumed = Assumptions::of(definition, Some(seconds(1.0)));
    Assumptions { infrastructure_answers: seconds(0.1), ..assumed }
}

fn told(rates: &Rates) -> String {
    let each: Vec<String> = rates.iter().map(|(rung, most)| format!("{most} {rung}")).collect();
    each.join(", ")
}

fn healed(definitions: &[&Deployable]) -> Healing {
    let managed = |definition: &&'_ Deployable| assumed(definition);
    let managed: Vec<_> = definitions
        .iter()
        .map(|it| Managed { definition: it, assumed: managed(it), evacuated: false })
        .collect();
    bounds::healed(&managed, &GuardSettings::default())
}

fn summands(definitions: &[&Deployable]) -> String {
    let healed = healed(definitions);
    let each: Vec<String> =
        healed.summands().iter().map(|(what, _, of)| format!("\n    {what}: {}", span(*of))).collect();
    format!("{}{}", span(healed.total()), each.concat())
}

#[test]
fn what_definitions_come_to_at_worst_is_written_down() {
    let mut text = String::new();
    for (what, definition) in cases() {
        let definition = parsed(&definition);
        let assumed = assumed(&definition);
        let service = bounds::service(&definition, ServiceIndex(0), &assumed);
        let hung = bounds::hung_machine(&definition, AssemblyIndex(0), &assumed);
        text.push_str(&format!("{what}\n"));
        for (fault, bounds) in [("service fails", Some(service)), ("machine hangs", hung)] {
            let Some(bounds) = bounds else {
                text.push_str(&format!("  {fault}: only reported\n"));
                continue;
            };
            text.push_str(&format!("  {fault}: found within {}\n", span(bounds.detection)));
            for rung in &bounds.rungs {
                text.push_str(&format!("    {} over by {}\n", rung.rung, span(rung.over)));
            }
            text.push_str(&format!("    exhausted by {}\n", span(bounds.exhausted)));
        }
        let rates = bounds::rates(&definition, &assumed, &GuardSettings::default());
        text.push_str(&format!("  in any {}: {}\n", span(RATE_WINDOW), told(&rates)));
        text.push_str(&format!("  healed: {}\n\n", summands(&[&definition])));
    }
    let all: Vec<Deployable> = cases().iter().map(|(_, text)| parsed(text)).collect();
    text.push_str(&format!("all of them, healed: {}\n", summands(&all.iter().collect::<Vec<_>>())));
    expect_file!["../tables/bounds.txt"].assert_eq(&text);
}

/// One of many shops: a shop server that waits for its database, on two machines of one zone and one infrastructure.
fn one_of_many(number: usize, timing: &str, machine: &str) -> Deployable {
    parsed(&format!(
        r#"
        name = "shop-{number}"
        infrastructure = "prod"
        {timing}
        {CLIMBS}
        deployable = {{ failures = 3, within = "1d" }}
        relocate = {{ zone = "az2" }}
        [assemblies.db]
        address = "192.0.2.1"
        failure_domains = ["az1"]
        {machine}
        services.pg.systemd = "pg.service"
        [assemblies.web]
        address = "192.0.2.2"
        failure_domains = ["az1"]
        {machine}
        services.nginx = {{ systemd = "nginx.service", after = ["db/pg"] }}
        services.cron = {{ systemd = "cron.service", after = ["nginx"] }}
    "#
    ))
}

#[test]
fn what_a_zone_of_many_deployables_comes_to_at_worst_is_written_down() {
    let guard = GuardSettings::default();
    let mut text = String::new();
    for (what, count, timing, machine, evacuated) in [
        ("sixty shops", 60, "", "data = \"none\"\nmax_rung = \"relocate\"", false),
        (
            "sixty shops in a zone that can be evacuated",
            60,
            "",
            "data = \"none\"\nmax_rung = \"relocate\"",
            true,
        ),
        ("six shops", 6, "", "", false),
        ("two shops", 2, "", "", false),
        (
            "a shop whose infrastructure is slow",
            1,
            "timing = { action_give_up = \"3h\", machine_action_timeout = \"1h\", retry_after = \"4h\" }",
            "",
            false,
        ),
    ] {
        let all: Vec<Deployable> = (0..count).map(|number| one_of_many(number, timing, machine)).collect();
        // Without canaries its peers prove the path.
        let answers = |it: &Deployable| bounds::answers_every(&it.assemblies[0].probe);
        let assumed = |it: &Deployable| Assumptions::of(it, Some(answers(it)));
        let managed: Vec<_> =
            all.iter().map(|it| Managed { definition: it, assumed: assumed(it), evacuated }).collect();
        let healed = bounds::healed(&managed, &guard);
        text.push_str(&format!("{what}\n  healed: {}\n", span(healed.total())));
        for (summand, _, of) in healed.summands() {
            text.push_str(&format!("    {summand}: {}\n", span(of)));
        }
        let rates: Vec<Rates> = all.iter().map(|it| bounds::rates(it, &assumed(it), &guard)).collect();
        text.push_str(&format!("  in any {}, one: {}\n", span(RATE_WINDOW), told(&rates[0])));
        let unbounded = GuardSettings { machine_rungs: 100_000, ..guard };
        let most = bounds::rates(&all[0], &assumed(&all[0]), &unbounded);
        text.push_str(&format!("  one, without the guard's budget: {}\n", told(&most)));
        text.push_str(&format!("  all: {}\n", told(&bounds::together(&rates, &guard))));
        let Some(hung) = bounds::hung_machine(&all[0], AssemblyIndex(0), &assumed(&all[0])) else { continue };
        for rung in Rung::ALL {
            if let Some(by) = hung.repaired_by(rung) {
                text.push_str(&format!("  a hung database is repaired by {rung} within {}\n", span(by)));
            }
        }
        text.push_str(&format!("  or exhausted within {}\n", span(hung.exhausted)));
    }
    expect_file!["../tables/bounds-zone.txt"].assert_eq(&text);
}

#[test]
fn a_fault_is_found_within_its_bound_whenever_it_happens() {
    for (what, text) in cases() {
        let detection = bounds::detection(&parsed(&text).services[0].probe);
        for offset in 0..40 {
            let mut site = Site::with(&text);
            site.run(f64::from(offset) * 0.37);
            site.kill("web/nginx");
            let found = site.until("it is found", 300.0, |site| {
                site.state("web/nginx") != State::Healthy && site.state("web/nginx") != State::Suspected
            });
            assert!(found <= detection, "{what}: found after {found:?}, bound {detection:?}");
        }
    }
}

#[test]
fn a_start_that_hangs_is_found_within_its_bound() {
    let text = definition("interval = \"2s\", startup_grace = \"30s\"", "", "");
    let bound = bounds::hung_start(&parsed(&text).services[0].probe);
    let mut site = Site::with(&text);
    site.unit("web/nginx", Unit::Activating);
    let found = site.until("it is found", 300.0, |site| !site.acts.is_empty());
    assert!(found <= bound, "found after {found:?}, bound {bound:?}");
}

/// Of one machine the services are restarted in turn, then it climbs once; of the other one waits for it. Nothing mends any of them, and
/// what is tried is never told, so that each attempt takes its longest.
#[test]
fn services_that_nothing_mends_and_one_that_waits_for_them_are_exhausted_within_the_bound_of_the_whole() {
    let text = definition("", CLIMBS, UNCAPPED).replacen(
        "address = \"192.0.2.1\"",
        "image = \"debian-12\"\nflavor = \"m1.small\"",
        1,
    ) + "\n[assemblies.web.services.php]\nsystemd = \"php.service\"\n[assemblies.web.services.cron]\nsystemd = \"cron.service\"\n\
         [assemblies.late]\naddress = \"192.0.2.9\"\nafter = [\"web\"]\nservices.batch.systemd = \"batch.service\"\n";
    let definition = parsed(&text);
    let whole = healed(&[&definition]);
    let names = ["web/nginx", "web/php", "web/cron"];
    let mut site = Site::with(&text);
    site.outcomes = vec![Outcome::Unresolved; 200];
    names.iter().for_each(|name| site.break_for_good(name));
    let counted = whole.found + whole.climbed + whole.turns;
    let took = site.until("their machine is given up", counted.as_secs_f64(), |site| {
        site.state("web") == State::Exhausted
            && names.iter().all(|name| site.state(name) != State::Recovering)
    });
    assert!(took <= counted, "{took:?}, {counted:?}");
    let restarts = |site: &Site| site.rungs().iter().filter(|rung| **rung == Rung::RestartService).count();
    let first = site.rungs().iter().position(|rung| *rung > Rung::RestartService).unwrap();
    assert_eq!(first, restarts(&site), "none between the machine's rungs: {:?}", site.rungs());
}

#[test]
fn three_machines_that_nothing_mends_wait_for_each_other_and_all_are_exhausted_within_the_bound_of_the_whole()
{
    let text = definition("", CLIMBS, &format!("{UNCAPPED}\ncount = 3")).replacen(
        "address = \"192.0.2.1\"",
        "image = \"debian-12\"\nflavor = \"m1.small\"",
        1,
    );
    let definition = parsed(&text);
    let alone = bounds::service(&definition, ServiceIndex(0), &assumed(&definition)).exhausted;
    let whole = healed(&[&definition]);
    let names = ["web-1/nginx", "web-2/nginx", "web-3/nginx"];
    let mut site = Site::with(&text);
    site.outcomes = vec![Outcome::Unresolved; 200];
    names.iter().for_each(|name| site.break_for_good(name));
    let limit = whole.total().as_secs_f64();
    let took = site.until("all are exhausted", limit, |site| {
        names.iter().all(|name| site.state(name) == State::Exhausted)
    });
    assert!(took > alone, "one after the other takes longer than one alone: {took:?}, {alone:?}");
    let counted = whole.found + whole.climbed + whole.turns;
    assert!(took <= counted, "{took:?} without any wait for anything else, {counted:?}");
}

#[test]
fn a_service_that_nothing_mends_is_exhausted_within_its_bound() {
    for (what, text) in cases() {
        let definition = parsed(&text);
        let bound = bounds::service(&definition, ServiceIndex(0), &assumed(&definition));
        for outcomes in [Vec::new(), vec![Outcome::Lost; 40], vec![Outcome::Unresolved; 40]] {
            let mut site = Site::with(&text);
            site.outcomes = outcomes;
            site.break_for_good("web/nginx");
            let limit = bound.exhausted.as_secs_f64();
            site.until(what, limit, |site| site.state("web/nginx") == State::Exhausted);
            let planned: Vec<Rung> = bound.rungs.iter().map(|it| it.rung).collect();
            assert_eq!(site.rungs(), planned, "{what}: the rungs that the bound goes through");
        }
    }
}

#[test]
fn a_machine_that_stays_hung_is_exhausted_within_its_bound() {
    for (what, text) in cases() {
        let definition = parsed(&text);
        let Some(bound) = bounds::hung_machine(&definition, AssemblyIndex(0), &assumed(&definition)) else {
            let mut site = Site::with(&text);
            site.freeze("web");
            site.run(3600.0);
            assert!(site.acts.is_empty(), "{what}: nothing was promised and nothing may be done");
            continue;
        };
        for outcomes in [vec![Outcome::Fails; 40], vec![Outcome::Lost; 40]] {
            let mut site = Site::with(&text);
            site.outcomes = outcomes;
            // However it is rebooted, it hangs again at once.
            site.host("web").boot = Duration::from_secs(1_000_000);
            site.freeze("web");
            let (detection, limit) = (bound.detection.as_secs_f64(), bound.exhausted.as_secs_f64());
            site.until(what, detection, |site| {
                !site.acts.is_empty() || site.state("web") == State::Exhausted
            });
            site.until(what, limit - detection, |site| site.state("web") == State::Exhausted);
        }
    }
}

/// Faults of every kind, one after another, for hours: as often as they like.
fn torment(text: &str, seed: u64) -> Vec<(Duration, Rung)> {
    let mut site = Site::seeded(text, seed, dped::Desired::Running);
    let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut roll = |sides: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        (dice >> 11) % sides
    };
    while site.now.since_boot() < seconds(1000.0 + 4.0 * 3600.0) {
        match roll(9) {
            0 | 1 => site.kill("web/nginx"),
            2 => site.crash_loop("web/nginx", roll(20) as f64 / 2.0),
            3 => site.break_for_good("web/nginx"),
            4 => site.mend("web/nginx"),
            5 => site.freeze("web"),
            6 => site.machine("web", Machine::Off),
            7 => site.machine("web", Machine::Up),
            _ => site.outcomes.push([Outcome::Fails, Outcome::Lost, Outcome::Twice][roll(3) as usize]),
        }
        site.run(roll(400) as f64 / 10.0);
    }
    let rung = |act: &Act| match act {
        Act::RestartService(_) => Some(Rung::RestartService),
        Act::Machine(rung) => Some(*rung),
        Act::Fence(_) | Act::Power(_) | Act::StartService(_) | Act::StopService(_) | Act::Reconfigure(_) => {
            None
        }
    };
    site.acts.iter().filter_map(|(at, action)| Some((at.since_boot(), rung(&action.act)?))).collect()
}

#[test]
fn no_ten_minutes_see_more_actions_than_were_printed() {
    let mut most: BTreeMap<Rung, u64> = BTreeMap::new();
    for (what, text) in cases() {
        // A ladder that begins anew all the time: its counts decay, and what is exhausted is tried again soon.
        let hasty = text
            .replace("within = \"2h\"", "within = \"3m\"")
            .replace("[escalation]", "[timing]\nretry_after = \"2m\"\n[escalation]");
        for (text, seed) in [&text, &hasty].into_iter().zip([1, 2]).flat_map(|it| [it, (it.0, it.1 + 10)]) {
            let definition = parsed(text);
            let bound = bounds::rates(&definition, &assumed(&definition), &GuardSettings::default());
            let acts = torment(text, seed);
            for (index, (begin, _)) in acts.iter().enumerate() {
                let mut seen: BTreeMap<Rung, u64> = BTreeMap::new();
                for (_, rung) in acts[index..].iter().take_while(|(at, _)| *at <= *begin + RATE_WINDOW) {
                    *seen.entry(*rung).or_default() += 1;
                }
                for (rung, times) in seen {
                    let bound = bound.get(&rung).copied().unwrap_or(0);
                    assert!(times <= bound, "{what}, seed {seed}: {times} {rung} in 10 min, bound {bound}");
                    let most = most.entry(rung).or_default();
                    *most = (*most).max(times);
                }
            }
        }
    }
    assert!(most.get(&Rung::RestartService).is_some_and(|times| *times >= 5), "too quiet: {most:?}");
    assert!(most.keys().any(|rung| *rung > Rung::RestartService), "too quiet: {most:?}");
}

#[test]
fn an_escalation_that_came_to_nothing_does_not_begin_its_back_off_anew() {
    let text = definition(
        "interval = \"1s\", timeout = \"1s\"",
        "[escalation]\nservice = { failures = 2, within = \"1h\" }\nassembly = { failures = 3, within = \"6h\" }",
        "",
    );
    let mut site = Site::with(&text);
    // It always comes up by itself just when its machine was to be rebooted.
    site.deaf = true;
    for _ in 0..120 {
        site.kill("web/nginx");
        site.run(2.5);
        site.mend("web/nginx");
        site.run(2.5);
    }
    let restarts = site.acts.len();
    let definition = parsed(&text);
    let bound = bounds::rates(&definition, &assumed(&definition), &GuardSettings::default());
    assert!(restarts as u64 <= bound[&Rung::RestartService], "{restarts} restarts, {bound:?}");
}

#[test]
fn timers_that_contradict_each_other_are_found_and_those_that_do_not_are_left() {
    let found = |probe: &str, more: &str| -> Vec<String> {
        let definition = parsed(&definition(probe, more, UNCAPPED));
        let found = bounds::conflicts(&definition, &assumed(&definition));
        let weight = |weight| if weight == Weight::Error { "error" } else { "warning" };
        found.iter().map(|it| format!("{} {}: {}", weight(it.weight), it.key, it.message)).collect()
    };
    let mut text = String::new();
    for (probe, more) in [
        ("", ""),
        ("", CLIMBS),
        ("", "[escalation]\nservice = { failures = 5, within = \"6s\" }"),
        ("", "[escalation]\nservice = { failures = 5, within = \"5m\" }"),
        ("stable_for = \"10m\"", "[escalation]\nservice = { failures = 2, within = \"10m\" }"),
        ("startup_grace = \"20m\"", "[escalation]\nservice = { failures = 2, within = \"10m\" }"),
        ("", "[escalation]\nassembly = { failures = 5, within = \"1m\" }"),
        ("", "[escalation]\nassembly = { failures = 5, within = \"20m\" }"),
        ("startup_grace = \"10m\"", "[escalation]\nassembly = { failures = 2, within = \"10m\" }"),
        ("stable_for = \"40s\"", "timing = { retry_after = \"40s\" }"),
        (
            "",
            "timing = { retry_after = \"5s\", action_give_up = \"15m\" }\n[escalation]\nservice = { failures = 8, within = \"1h\" }",
        ),
        ("stable_for = \"10m\"", "[escalation]\nservice = { failures = 1, within = \"5m\" }"),
        ("", "[escalation]\ndeployable = { failures = 3, within = \"10m\" }"),
        ("", "[escalation]\ndeployable = { failures = 1, within = \"1s\" }"),
        ("", "[escalation]\nassembly = { failures = 1, within = \"1s\" }"),
        ("", "timing = { retry_after = \"2m\" }"),
        ("", "[escalation]\ndeployable = { failures = 2, within = \"1d\" }"),
        (
            "stable_for = \"1s\"",
            "timing = { retry_after = \"5s\" }\n[escalation]\nservice = { failures = 8, within = \"1h\" }",
        ),
        ("", "[escalation]\nrelocate = { zone = \"az2\" }"),
    ] {
        text.push_str(&format!("{probe} {}\n", more.replace('\n', " ").trim()));
        for line in found(probe, more) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    expect_file!["../tables/conflicts.txt"].assert_eq(&text);
}

#[test]
fn a_relocation_that_leads_where_a_machine_is_already_is_told() {
    let found = |domain: &str| {
        let machine = format!("data = \"none\"\nmax_rung = \"relocate\"\nfailure_domains = [\"{domain}\"]");
        let definition = parsed(&definition("", "[escalation]\nrelocate = { zone = \"az2\" }", &machine));
        let found = bounds::conflicts(&definition, &assumed(&definition));
        found.into_iter().map(|it| it.message).collect::<Vec<_>>()
    };
    assert_eq!(found("az1"), [""; 0]);
    assert_eq!(
        found("az2"),
        ["`relocate` leads to az2, where web is already: it is in its `failure_domains`"]
    );
}
