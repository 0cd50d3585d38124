//! policy.md section 6, its last line: the budgets of the fleet guard, its leases, and which paths are proven.

use std::time::Duration;

use cpe_proto::decision::{Answer, ChannelFact, Facts, Refusal, Verdict};
use cpe_proto::id::{ActionId, AssemblyIndex, Name};
use cpe_proto::rung::Rung;
use cpe_proto::time::Timestamp;
use dped::{Guard, GuardSettings, Place, Request};

#[test]
fn one_in_flight_per_deployable_until_it_is_released() {
    let mut guard = Guard::new(GuardSettings::default());
    assert_eq!(ask(&mut guard, "shop", 1, Some(Rung::RestartService), 0), Answer::Admitted);
    assert_eq!(ask(&mut guard, "shop", 2, Some(Rung::RestartService), 0), Answer::Refused(Refusal::Budget));
    assert_eq!(ask(&mut guard, "blog", 2, Some(Rung::RestartService), 0), Answer::Admitted);
    guard.release(&name("shop"), ActionId(1), at(1));
    assert_eq!(ask(&mut guard, "shop", 3, Some(Rung::RestartService), 1), Answer::Admitted);
}

#[test]
fn five_in_flight_per_domain() {
    let mut guard = Guard::new(GuardSettings::default());
    let domains = [name("az1"), name("rack7")];
    let mut admitted = 0;
    for index in 0..8 {
        let place = Place { infrastructure: None, domains: &domains };
        let (answer, values) = guard.ask(
            &name(&format!("shop-{index}")),
            &request(1, Some(Rung::RestartService)),
            &place,
            at(0),
        );
        if answer == Answer::Admitted {
            admitted += 1;
        } else {
            assert_eq!(&*values.last().unwrap().value, "5 of 5");
        }
    }
    assert_eq!(admitted, 5);
    let place = Place { infrastructure: None, domains: &[name("az2")] };
    let (answer, _) = guard.ask(&name("elsewhere"), &request(1, Some(Rung::RestartService)), &place, at(0));
    assert_eq!(answer, Answer::Admitted, "other domains are not held by one");
}

#[test]
fn ten_in_flight_per_infrastructure_and_fifty_in_the_fleet() {
    let mut guard = Guard::new(GuardSettings::default());
    let admitted = |guard: &mut Guard, infrastructure: &str, count: u64| {
        let place = Place { infrastructure: Some(name(infrastructure)), domains: &[] };
        let asks = (0..count).map(|index| {
            let key = name(&format!("{infrastructure}-{index}"));
            guard.ask(&key, &request(1, Some(Rung::RestartService)), &place, at(0)).0
        });
        asks.filter(|answer| *answer == Answer::Admitted).count()
    };
    assert_eq!(admitted(&mut guard, "a", 12), 10);
    let others: usize =
        ["b", "c", "d", "e", "f"].iter().map(|infrastructure| admitted(&mut guard, infrastructure, 12)).sum();
    assert_eq!(others, 40, "50 in all");
    assert_eq!(guard.in_flight(), 50);
}

#[test]
fn ten_machine_rungs_in_ten_minutes_per_infrastructure() {
    let mut guard = Guard::new(GuardSettings::default());
    let reboot = |guard: &mut Guard, index: u64, second: u64| {
        let answer = ask(guard, &format!("shop-{index}"), index, Some(Rung::RebootHard), second);
        guard.release(&name(&format!("shop-{index}")), ActionId(index), at(second));
        answer
    };
    for index in 0..10 {
        assert_eq!(reboot(&mut guard, index, index), Answer::Admitted);
    }
    assert_eq!(reboot(&mut guard, 10, 30), Answer::Refused(Refusal::Budget));
    assert_eq!(
        ask(&mut guard, "other", 1, Some(Rung::RestartService), 30),
        Answer::Admitted,
        "a restart is no machine rung"
    );
    guard.release(&name("other"), ActionId(1), at(30));
    assert_eq!(reboot(&mut guard, 11, 599), Answer::Refused(Refusal::Budget));
    assert_eq!(reboot(&mut guard, 12, 600), Answer::Admitted, "the first is 10 min old");
    assert_eq!(reboot(&mut guard, 13, 600), Answer::Refused(Refusal::Budget));
}

#[test]
fn what_has_just_failed_does_not_wait_for_what_is_exhausted() {
    // Twenty machines are exhausted, and their retries are due; then another one fails.
    let mut guard = Guard::new(GuardSettings::default());
    let place = Place { infrastructure: Some(name("prod")), domains: &[] };
    let mut reboot = |index: u64, dated_retry: bool, second: u64| {
        let (key, asked) = (name(&format!("shop-{index}")), request(index, Some(Rung::RebootHard)));
        let answer = guard.ask(&key, &Request { dated_retry, ..asked }, &place, at(second));
        guard.release(&key, ActionId(index), at(second));
        answer
    };
    for index in 0..5 {
        assert_eq!(reboot(index, true, index).0, Answer::Admitted);
    }
    let (answer, gates) = reboot(5, true, 20);
    assert_eq!(answer, Answer::Refused(Refusal::Budget), "half of ten are for first attempts");
    let last = gates.last().map(|gate| format!("{} {}", gate.name, gate.value));
    assert_eq!(last.as_deref(), Some("machine rungs of dated retries in 10 min, infrastructure prod 5 of 5"));
    for index in 20..25 {
        assert_eq!(reboot(index, false, 30).0, Answer::Admitted);
    }
    assert_eq!(reboot(25, false, 31).0, Answer::Refused(Refusal::Budget));
    assert_eq!(reboot(5, true, 600).0, Answer::Refused(Refusal::Budget), "first attempts go before it");
    assert_eq!(reboot(25, false, 600).0, Answer::Admitted);
}

#[test]
fn a_step_of_a_recovery_that_holds_no_lease_has_no_place_beside_another_action() {
    let mut guard = Guard::new(GuardSettings::default());
    assert_eq!(ask(&mut guard, "shop", 1, Some(Rung::RestartService), 0), Answer::Admitted);
    let place = Place { infrastructure: Some(name("prod")), domains: &[] };
    let mut step = |whole: u64| {
        let assembly = AssemblyIndex(1);
        let step = Request { assembly, part_of: Some(ActionId(whole)), ..request(2, None) };
        guard.ask(&name("shop"), &step, &place, at(1)).0
    };
    assert_eq!(step(7), Answer::Refused(Refusal::Budget));
    assert_eq!(step(1), Answer::Admitted, "that one has the deployable's place");
}

#[test]
fn what_nobody_carries_on_is_in_flight_also_when_another_engine_of_its_deployable_goes() {
    let mut guard = Guard::new(GuardSettings::default());
    assert_eq!(ask(&mut guard, "shop", 1, Some(Rung::RebootHard), 0), Answer::Admitted);
    guard.part(&name("shop"));
    guard.revoke(&name("shop"), |_| false, at(10));
    assert_eq!(guard.in_flight(), 1, "nobody saw it end");
}

#[test]
fn where_there_is_room_for_one_machine_action_a_dated_retry_may_have_it() {
    let mut guard = Guard::new(GuardSettings { machine_rungs: 1, ..GuardSettings::default() });
    let place = Place { infrastructure: Some(name("prod")), domains: &[] };
    let retry = Request { dated_retry: true, ..request(1, Some(Rung::RebootHard)) };
    assert_eq!(guard.ask(&name("shop"), &retry, &place, at(0)).0, Answer::Admitted);
}

#[test]
fn a_lease_that_is_never_released_expires() {
    let mut guard = Guard::new(GuardSettings::default());
    assert_eq!(ask(&mut guard, "shop", 1, Some(Rung::RestartService), 0), Answer::Admitted);
    assert_eq!(
        ask(&mut guard, "shop", 2, Some(Rung::RestartService), 1799),
        Answer::Refused(Refusal::Budget)
    );
    assert_eq!(ask(&mut guard, "shop", 3, Some(Rung::RestartService), 1800), Answer::Admitted);
}

#[test]
fn a_start_step_on_the_machine_under_recovery_is_part_of_that_recovery() {
    let mut guard = Guard::new(GuardSettings::default());
    assert_eq!(ask(&mut guard, "shop", 1, Some(Rung::RebootHard), 0), Answer::Admitted);
    assert_eq!(ask(&mut guard, "shop", 2, None, 1), Answer::Admitted);
    let mut elsewhere = request(3, None);
    elsewhere.assembly = AssemblyIndex(1);
    let place = Place { infrastructure: None, domains: &[] };
    assert_eq!(guard.ask(&name("shop"), &elsewhere, &place, at(1)).0, Answer::Refused(Refusal::Budget));
}

#[test]
fn nothing_is_admitted_without_a_journal_on_old_evidence_untrusted_or_paused() {
    let mut guard = Guard::new(GuardSettings::default());
    guard.set_journal_writable(false);
    assert_eq!(ask(&mut guard, "shop", 1, Some(Rung::RestartService), 0), Answer::Refused(Refusal::Journal));
    guard.set_journal_writable(true);
    guard.set_paused(true);
    assert_eq!(ask(&mut guard, "shop", 1, Some(Rung::RestartService), 0), Answer::Refused(Refusal::Paused));
    guard.set_paused(false);
    let az1 = [name("az1")];
    let inside = Place { infrastructure: None, domains: &az1 };
    guard.set_domain_paused(&az1[0], true);
    let (answer, gates) = guard.ask(&name("shop"), &request(1, Some(Rung::RestartService)), &inside, at(0));
    assert_eq!(answer, Answer::Refused(Refusal::Paused));
    assert_eq!(gates.last().map(|gate| &*gate.value), Some("paused in az1"));
    guard.set_domain_paused(&az1[0], false);
    let place = Place { infrastructure: None, domains: &[] };
    let mut old = request(1, Some(Rung::RestartService));
    old.evidence_age = Duration::from_millis(4001);
    assert_eq!(guard.ask(&name("shop"), &old, &place, at(0)).0, Answer::Refused(Refusal::Evidence));
    let mut untrusted = request(1, Some(Rung::RestartService));
    untrusted.facts.self_trusted = false;
    assert_eq!(guard.ask(&name("shop"), &untrusted, &place, at(0)).0, Answer::Refused(Refusal::Untrusted));
    assert_eq!(guard.in_flight(), 0, "a refusal is no lease");
}

#[test]
fn a_path_is_proven_by_the_newest_answer_of_another() {
    let mut guard = Guard::new(GuardSettings::default());
    let (shop, blog) = (name("shop"), name("blog"));
    let (one, two) = (AssemblyIndex(0), AssemblyIndex(1));
    assert_eq!(guard.path_answered("default", (&shop, one), at(9)), None);
    guard.answered("default", &shop, one, at(1));
    assert_eq!(guard.path_answered("default", (&shop, one), at(9)), None, "it does not prove its own path");
    guard.answered("default", &shop, two, at(2));
    guard.answered("default", &shop, one, at(3));
    guard.answered("default", &shop, one, at(4));
    let found = guard.path_answered("default", (&shop, one), at(9));
    assert_eq!(found, Some((Duration::from_secs(7), (shop.clone(), two))));
    guard.answered("default", &blog, one, at(5));
    let found = guard.path_answered("default", (&shop, one), at(9));
    assert_eq!(found, Some((Duration::from_secs(4), (blog.clone(), one))));
    let found = guard.path_answered("default", (&blog, one), at(9));
    assert_eq!(found, Some((Duration::from_secs(5), (shop.clone(), one))));
    assert_eq!(guard.path_answered("jump-a", (&shop, one), at(9)), None, "another path");
}

fn name(text: &str) -> Name {
    match Name::parse(text) {
        Ok(name) => name,
        Err(error) => panic!("{error}"),
    }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_boot(Duration::from_secs(10_000 + second))
}

fn request(action: u64, rung: Option<Rung>) -> Request {
    Request {
        action: ActionId(action),
        rung,
        assembly: AssemblyIndex(0),
        service: None,
        verdict: Verdict::PerService,
        facts: Facts {
            self_trusted: true,
            held_domain: None,
            instance: None,
            ordered: false,
            channel: ChannelFact::Healthy,
            live_witness: false,
            path_proven: true,
        },
        evidence_age: Duration::from_secs(1),
        part_of: None,
        dated_retry: false,
        evidence_age_max: Duration::from_secs(4),
        give_up: Duration::from_secs(900),
    }
}

fn ask(guard: &mut Guard, key: &str, action: u64, rung: Option<Rung>, second: u64) -> Answer {
    let place = Place { infrastructure: Some(name("prod")), domains: &[] };
    guard.ask(&name(key), &request(action, rung), &place, at(second)).0
}

#[test]
fn when_an_engine_is_gone_only_the_leases_end_that_its_successor_does_not_go_on_with() {
    let mut guard = Guard::new(GuardSettings { in_flight_deployable: 3, ..GuardSettings::default() });
    for (deployable, action) in [("shop", 1), ("shop", 2), ("wiki", 1)] {
        let answer = ask(&mut guard, deployable, action, Some(Rung::RestartService), 1);
        assert_eq!(answer, Answer::Admitted);
    }
    let shop = name("shop");
    guard.revoke(&shop, |action| action == ActionId(2), at(2));
    assert_eq!(guard.in_flight(), 2, "action 2 of shop, and that of wiki");
    guard.forget(&shop);
    assert_eq!(
        guard.in_flight(),
        2,
        "so also where the engine is parked, and nobody knows the health of its machines"
    );
    guard.revoke(&shop, |_| false, at(3));
    assert_eq!(guard.in_flight(), 1, "that of wiki");
}
