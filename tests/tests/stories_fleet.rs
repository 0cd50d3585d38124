//! Twenty machines in two failure domains, and what is feared most of automatic recovery: the recovery. What is counted is what was done
//! to machines. One story, in chapters on the same guests, as twenty boots are what takes time.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cpe_tests::starve::Starved;
use cpe_tests::{Controller, Event, Guest, Site, story, wait};

/// Twenty machines on two busy cores.
const SOON: Duration = Duration::from_secs(120);

/// Each machine is a deployable of its own, as budgets allow one action at a time in each.
fn definition(guest: &Guest) -> String {
    let (name, domain) = (guest.name(), &guest.name()[..1]);
    format!(
        "name = \"{name}\"\ninfrastructure = \"guests\"\n\
         [probe]\ninterval = \"2s\"\ntimeout = \"2s\"\nstable_for = \"2s\"\n\
         [escalation]\nassembly = {{ failures = 3, within = \"1h\" }}\n\
         [assemblies.vm]\naddress = \"{}\"\nfailure_domains = [\"az-{domain}\"]\n\
         [assemblies.vm.services.app]\nsystemd = \"app.service\"\n",
        guest.address()
    )
}

/// A cpe that knows nothing of earlier chapters, and sees everything healthy.
fn new_controller(site: &Site) -> Result<Controller> {
    let folder = site.path("cpe");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(folder.join("deployables"))?;
    for guest in site.guests() {
        fs::write(folder.join("deployables").join(format!("{}.toml", guest.name())), definition(guest))?;
    }
    // The first one stands for the story's own file.
    let first = site.guests().first().context("a site has guests")?;
    fs::remove_file(folder.join("deployables").join(format!("{}.toml", first.name())))?;
    let cpe = Controller::start(site, &definition(first), &site.cpe_toml())?;
    until_all(&cpe, site.guests(), &["healthy"])?;
    Ok(cpe)
}

/// Waits until each of these machines is in one of these states.
fn until_all(cpe: &Controller, guests: &[Guest], states: &[&str]) -> Result<()> {
    let names: BTreeSet<&str> = guests.iter().map(Guest::name).collect();
    let all = wait::until(&format!("{names:?} to be {states:?}"), SOON, || {
        let status = cpe.status()?;
        let deployables = status["deployables"].as_array().context("there are deployables")?;
        let mut meant =
            deployables.iter().filter(|it| it["name"].as_str().is_some_and(|name| names.contains(name)));
        let all = meant
            .all(|it| it["assemblies"][0]["state"].as_str().is_some_and(|state| states.contains(&state)));
        Ok(all.then_some(()))
    });
    all.with_context(|| cpe.cli(&["status"]).map(|said| said.stdout).unwrap_or_default())
}

fn held(event: &Event, what: &str) -> bool {
    event.is("breaker_changed") && event.word("reason").starts_with(&format!("{what} is held"))
}

fn boots(guests: &[Guest]) -> Result<u32> {
    guests.iter().map(Guest::boots).sum()
}

/// The most recoveries that were under way at a time.
fn most_at_once(events: &[Event]) -> usize {
    let mut under_way = BTreeSet::new();
    let mut most = 0;
    for event in events {
        let action = (event.word("deployable").to_owned(), event.0["action"].as_u64());
        if event.is("recovery_started") {
            under_way.insert(action);
        } else if event.is("recovery_finished") {
            under_way.remove(&action);
        }
        most = most.max(under_way.len());
    }
    most
}

#[test]
fn twenty_machines_and_nothing_is_ever_made_worse() -> Result<()> {
    let names: Vec<String> =
        ["a", "b"].iter().flat_map(|domain| (0..10).map(move |n| format!("{domain}{n}"))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    story(&names, |site| {
        site.boot_all()?;
        let cpe = new_controller(site)?;
        ten_fail_under_pause(site, &cpe).context("ten fail under pause")?;
        cpe_starves(site, &cpe).context("cpe starves")?;
        the_management_side_is_cut_off(site, &cpe).context("the management side is cut off")?;
        ensure!(cpe.stop()?.success(), "it did not end well");
        a_third_is_frozen(site).context("a third is frozen")?;
        one_domain_goes_dark_while_another_loses_one(site).context("one domain goes dark")
    })
}

/// Nothing is done while an operator says so; then all of it, five in a domain at a time.
fn ten_fail_under_pause(site: &Site, cpe: &Controller) -> Result<()> {
    let (failing, _) = site.guests().split_at(10);
    cpe.demand(&["pause", "--reason", "a change of the network"])?;
    site.each(failing, |guest| guest.kill_unit("app"))?;
    for guest in failing {
        cpe.wait_for_state(&format!("{}/vm/app", guest.name()), "failed", SOON)?;
    }
    for guest in failing {
        ensure!(guest.unit_state("app")? == "failed", "{} was restarted under pause", guest.name());
    }
    ensure!(cpe.recoveries()?.is_empty(), "{:?}", cpe.recoveries()?);
    let why_not = cpe.cli(&["why-not", "a0"])?.stdout;
    ensure!(why_not.contains("pause") && why_not.contains("a change of the network"), "{why_not}");

    cpe.demand(&["resume"])?;
    until_all(cpe, site.guests(), &["healthy"])?;
    let recoveries = cpe.recoveries()?;
    ensure!(recoveries == ["restart-service vm/app"; 10], "{recoveries:?}");
    let at_once = most_at_once(&cpe.events()?);
    ensure!((1..=5).contains(&at_once), "{at_once} at once in one domain");
    ensure!(boots(site.guests())? == 20 && site.infra_deeds()?.is_empty());
    Ok(())
}

/// It gets a tenth of a core for a while: it is late for everything, and knows that it is.
fn cpe_starves(site: &Site, cpe: &Controller) -> Result<()> {
    let before = cpe.events()?.len();
    let starved = Starved::to(10, cpe.pid())?;
    // The time that passes is the story: ten intervals.
    thread::sleep(Duration::from_secs(20));
    drop(starved);
    until_all(cpe, site.guests(), &["healthy"])?;
    let since = cpe.events()?.split_off(before);
    let confirmed: Vec<_> = since
        .iter()
        .filter(|event| {
            event.is("fault_isolated") || event.is("incident_opened") || event.is("recovery_started")
        })
        .collect();
    ensure!(confirmed.is_empty(), "{confirmed:#?}");
    Ok(())
}

/// All are silent for as long as every threshold takes, and nothing is done, neither then nor when they are back.
fn the_management_side_is_cut_off(site: &Site, cpe: &Controller) -> Result<()> {
    let before = cpe.recoveries()?;
    site.cut_all()?;
    until_all(cpe, site.guests(), &["unreachable", "held"])?;
    for guest in site.guests() {
        // Concluded, not only suspected.
        cpe.wait_for_event(&format!("a conclusion on {}", guest.name()), SOON, |event| {
            event.is("fault_isolated")
                && event.word("deployable") == guest.name()
                && event.word("service").is_empty()
        })?;
    }
    site.heal_all()?;
    until_all(cpe, site.guests(), &["healthy"])?;
    ensure!(cpe.recoveries()? == before && site.infra_deeds()?.is_empty(), "{:?}", cpe.recoveries()?);
    // Full resume: what breaks now is repaired.
    let last = site.guest("b9")?;
    last.kill_unit("app")?;
    wait::until("b9 to be repaired", SOON, || {
        Ok((cpe.recoveries()?.len() == before.len() + 1).then_some(()))
    })?;
    until_all(cpe, site.guests(), &["healthy"])?;
    ensure!(boots(site.guests())? == 20);
    Ok(())
}

fn a_third_is_frozen(site: &Site) -> Result<()> {
    let cpe = new_controller(site)?;
    let frozen: Vec<Guest> = site.guests().iter().step_by(3).cloned().collect();
    site.each(&frozen, Guest::freeze)?;
    cpe.wait_for_event("the fleet to be held", SOON, |event| held(event, "the fleet"))?;
    until_all(&cpe, &frozen, &["held", "recovering", "healthy"])?;
    // Those that were confirmed before the third of their domain.
    let begun = cpe.recoveries()?.len();
    ensure!(begun <= 4, "a storm: {:?}", cpe.recoveries()?);
    // Those that were rebooted are thawed by that.
    site.each(&frozen, |guest| guest.thaw())?;
    until_all(&cpe, site.guests(), &["healthy"])?;
    ensure!(cpe.recoveries()?.len() == begun, "more was done when they were back: {:?}", cpe.recoveries()?);
    ensure!(site.infra_deeds()?.len() == begun, "{:?}", site.infra_deeds()?);
    ensure!(boots(site.guests())? == 20 + u32::try_from(begun)?);
    ensure!(cpe.stop()?.success(), "it did not end well");
    Ok(())
}

fn one_domain_goes_dark_while_another_loses_one(site: &Site) -> Result<()> {
    let cpe = new_controller(site)?;
    let (dark, lit) = site.guests().split_at(10);
    let before = site.infra_deeds()?.len();
    let lost = site.guest("b0")?;
    let booted = lost.boots()?;
    site.each(dark, Guest::power_off)?;
    cpe.wait_for_event("the dark domain to be held", SOON, |event| held(event, "failure domain az-a"))?;
    lost.power_off()?;
    cpe.wait_for_event("b0 to be recovered", SOON, |event| {
        event.is("recovery_finished") && event.word("deployable") == "b0" && event.word("to") == "healthy"
    })?;
    until_all(&cpe, lit, &["healthy"])?;
    until_all(&cpe, dark, &["held", "recovering", "healthy"])?;
    ensure!(lost.boots()? == booted + 1, "b0 was started {} times", lost.boots()?);
    let deeds = site.infra_deeds()?.split_off(before);
    let (of_lost, of_dark): (Vec<_>, Vec<_>) = deeds.into_iter().partition(|deed| deed.ends_with(" b0"));
    ensure!(of_lost == ["start b0"], "{of_lost:?}");
    ensure!(of_dark.len() <= 2, "more than those that were confirmed before the third: {of_dark:?}");
    ensure!(!cpe.events()?.iter().any(|event| held(event, "the fleet")), "one domain is not the fleet");
    Ok(())
}
