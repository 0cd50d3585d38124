//! Edges that `cargo mutants` showed nobody looked at: what is written down and when, whose repair is whose, exact limits, and what a hold
//! leaves behind.

use std::time::Duration;

use cpe_proto::decision::{Answer, Refusal};
use cpe_proto::id::{ActionId, AssemblyIndex, Name};
use dped::{Guard, GuardSettings, Place, Request};

use super::restart::dark;
use super::{HELD, UNTRUSTED, Yard, machine, name, silent, unit_down};
use dped::HealthClass::{Excluded, Healthy, Left};

fn with(settings: GuardSettings, domains: &[(&str, usize)]) -> Yard {
    let mut yard = Yard::of(domains);
    let mut guard = Guard::new(settings);
    std::mem::swap(&mut yard.guard, &mut guard);
    for (domain, count) in domains {
        (0..*count).for_each(|index| yard.is(domain, index, Healthy));
    }
    yard.pass(settings.window.as_secs() + 1);
    yard
}

fn wrote(yard: &mut Yard) -> bool {
    yard.guard.take_persist()
}

// ---- what is written down

#[test]
fn an_admission_is_written_down_whatever_happens_before_it_is() {
    for meanwhile in [
        (|yard| yard.pass(1)) as fn(&mut Yard),
        |yard| assert_eq!(yard.ask("az1", 0, unit_down()).0, Answer::Refused(Refusal::Budget)),
        |yard| {
            let now = yard.now();
            yard.guard.release(&machine("az1", 0), ActionId(99), now);
        },
        |yard| {
            let now = yard.now();
            yard.guard.lag(now, true);
            yard.guard.handle_timeout(now);
            yard.pass(2);
        },
    ] {
        let mut yard = Yard::of(&[("az1", 10)]);
        wrote(&mut yard);
        assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
        meanwhile(&mut yard);
        assert!(wrote(&mut yard));
        assert!(!wrote(&mut yard), "once");
    }
}

#[test]
fn a_lease_that_expired_is_written_down_and_a_quiet_second_is_not() {
    let mut yard = Yard::of(&[("az1", 10)]);
    assert_eq!(yard.ask("az1", 0, unit_down()).0, Answer::Admitted);
    assert!(wrote(&mut yard));
    yard.pass(1799);
    assert!(!wrote(&mut yard), "nothing changed");
    assert_eq!(yard.guard.in_flight(), 1);
    yard.pass(1);
    assert_eq!(yard.guard.in_flight(), 0);
    assert!(wrote(&mut yard));
}

#[test]
fn who_left_and_who_is_back_is_written_down_and_what_is_no_loss_is_not() {
    let mut yard = Yard::of(&[("az1", 10)]);
    wrote(&mut yard);
    yard.is("az1", 0, Left);
    assert!(wrote(&mut yard), "one left");
    yard.is("az1", 0, Healthy);
    assert!(wrote(&mut yard), "it is back");
    yard.is("az1", 0, Excluded);
    assert!(!wrote(&mut yard), "in maintenance it is not counted");
    yard.is("az1", 10, Healthy);
    assert!(!wrote(&mut yard), "a new one that is well");
}

#[test]
fn each_step_of_a_hold_is_written_down() {
    let mut yard = dark(120);
    assert!(wrote(&mut yard), "slow start");
    yard.repaired("az1", 0);
    wrote(&mut yard);
    // One that never left health is repaired by a person's order, in the same slow start.
    assert_eq!(yard.reboot("az1", 9), Answer::Admitted);
    wrote(&mut yard);
    yard.is("az1", 8, Healthy);
    assert!(!wrote(&mut yard), "that one was not under repair");
    yard.is("az1", 9, Healthy);
    assert!(wrote(&mut yard), "a repair was verified");
}

// ---- what is told

#[test]
fn a_pause_of_everything_is_known() {
    let mut yard = Yard::of(&[("az1", 3)]);
    assert!(!yard.guard.paused());
    yard.guard.set_paused(true);
    assert!(yard.guard.paused());
    let (answer, gates) = yard.ask("az1", 0, silent());
    assert_eq!(answer, Answer::Refused(Refusal::Paused));
    assert_eq!((&*gates[0].name, &*gates[0].value), ("fleet", "paused"));
}

#[test]
fn that_something_is_begun_is_written_down() {
    let mut yard = Yard::of(&[("az1", 10)]);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
    let (now, action) = (yard.now(), ActionId(1));
    let begins = |yard: &mut Yard, of: usize| {
        yard.guard.begins(&machine("az1", of), action, Duration::from_secs(900), now);
        wrote(yard)
    };
    assert!(wrote(&mut yard));
    assert!(begins(&mut yard, 0));
    assert!(!begins(&mut yard, 1), "it holds no lease");
}

#[test]
fn distrust_is_told_after_5_s_and_not_before() {
    let mut yard = Yard::of(&[]);
    yard.guard.expect_canaries("default", 2);
    yard.pass(1);
    assert!(!yard.guard.trusts_itself(yard.now()));
    yard.pass(4);
    assert_eq!(yard.told.len(), 0, "{:?}", yard.told);
    yard.pass(1);
    assert_eq!(yard.told.len(), 1);
    let now = yard.now();
    (0..2).for_each(|index| yard.guard.canary("default", index, true, now));
    assert!(yard.guard.trusts_itself(now));
}

#[test]
fn what_a_machine_waits_for_is_said_with_its_end() {
    let mut yard = Yard::of(&[("az1", 40), ("az2", 40)]);
    let domains = [name("az1")];
    let place = Place { infrastructure: Some(name("prod")), domains: &domains };
    assert_eq!(yard.guard.waits(&place, false), []);
    for index in 0..9 {
        yard.repaired("az2", index);
        yard.pass(1);
    }
    assert_eq!(yard.guard.waits(&place, false), [], "one is left of the budget");
    yard.repaired("az2", 9);
    yard.lose("az1", 0..10);
    let until = |seconds: u64| yard.now().after(Duration::from_secs(seconds));
    assert_eq!(
        yard.guard.waits(&place, false),
        [
            ("failure domain az1 is held".to_owned(), until(120)),
            ("10 machine actions in 10 min on infrastructure prod are spent".to_owned(), until(591)),
        ]
    );
    let [_, (retries, frees)] = &yard.guard.waits(&place, true)[..] else { panic!("it waits for both") };
    let said =
        "5 machine actions in 10 min on infrastructure prod are spent, the others are for first attempts";
    assert_eq!((retries.as_str(), *frees), (said, until(596)), "then four are left of ten");
    yard.pass(120);
    assert_eq!(yard.guard.waits(&place, false).len(), 1, "a slow start is no wait with an end");
}

#[test]
fn outputs_that_nobody_takes_are_bounded() {
    let mut guard = Guard::new(GuardSettings::default());
    let now = Yard::of(&[]).now();
    for index in 0..2100 {
        let domain = [name(&format!("rack{index}"))];
        for place in 0..3 {
            guard.health(&machine(domain[0].as_str(), place), AssemblyIndex(0), &domain, Left, now);
        }
    }
    let said = std::iter::from_fn(|| guard.poll_output()).count();
    assert_eq!(said, 4096);
}

// ---- exact limits

#[test]
fn evidence_may_be_as_old_as_its_limit() {
    let mut yard = Yard::of(&[("az1", 3)]);
    let limit = silent().evidence_age_max;
    let older = Request { evidence_age: limit + Duration::from_millis(1), ..silent() };
    assert_eq!(yard.ask("az1", 0, older).0, Answer::Refused(Refusal::Evidence));
    let exactly = Request { evidence_age: limit, ..silent() };
    assert_eq!(yard.ask("az1", 0, exactly).0, Answer::Admitted);
}

#[test]
fn so_many_paths_are_known_and_no_more() {
    let mut guard = Guard::new(GuardSettings::default());
    let now = Yard::of(&[]).now();
    let (me, one) = (name("me"), AssemblyIndex(0));
    for index in 0..1025 {
        let path = format!("path{index}");
        guard.expect_canaries(&path, 2);
        guard.answered(&path, &name("peer"), one, now);
    }
    assert!(!guard.self_trusted("path1023", now) && guard.self_trusted("path1024", now));
    assert!(guard.path_answered("path1023", (&me, one), now).is_some());
    assert_eq!(guard.path_answered("path1024", (&me, one), now), None);
}

#[test]
fn a_shorter_distrust_neither_ends_nor_renames_a_longer_one_and_a_longer_one_extends_it() {
    let settings = GuardSettings { late_settle: Duration::from_secs(2), ..GuardSettings::default() };
    let mut yard = with(settings, &[]);
    yard.second += 4;
    let now = yard.now();
    yard.guard.handle_timeout(now);
    yard.guard.lag(now, true);
    yard.pass(2);
    assert_eq!(yard.reboot("az1", 0), UNTRUSTED, "3 s after the gap, whatever else was wrong");
    let now = yard.now();
    yard.guard.lag(now, true);
    yard.pass(1);
    assert_eq!(yard.reboot("az1", 0), UNTRUSTED, "2 s after the lag");
    yard.pass(1);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);

    let settings = GuardSettings { late_settle: GuardSettings::default().gap, ..settings };
    let mut yard = with(settings, &[]);
    yard.second += 4;
    let now = yard.now();
    yard.guard.handle_timeout(now);
    yard.guard.lag(now, true);
    let (_, values) = yard.ask("az1", 0, silent());
    let said = values.last().map(|it| it.value.to_string()).unwrap_or_default();
    assert!(said.contains("stood still"), "the first reason: {said}");
}

// ---- holds

#[test]
fn a_repair_is_over_when_its_own_action_is() {
    let mut yard = dark(120);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
    let (action, now) = (ActionId(yard.actions), yard.now());
    yard.guard.release(&machine("az1", 1), action, now);
    yard.guard.release(&machine("az1", 0), ActionId(99), now);
    yard.pass(31);
    assert!(!yard.held("az1"), "it is still under way: {:?}", yard.said);
    let now = yard.now();
    yard.guard.release(&machine("az1", 0), action, now);
    yard.pass(31);
    assert!(yard.held("az1"), "over, and not healthy within 30 s");
}

#[test]
fn a_repair_whose_end_nobody_tells_has_failed_with_its_lease() {
    let mut yard = dark(120);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
    yard.pass(1800);
    assert!(!yard.held("az1"), "{:?}", yard.said);
    yard.pass(1);
    assert!(yard.held("az1"), "{:?}", yard.said);
}

#[test]
fn a_repair_of_what_is_defined_anew_leaves_its_room() {
    let mut yard = dark(120);
    assert_eq!((yard.reboot("az1", 0), yard.reboot("az1", 1)), (Answer::Admitted, HELD));
    yard.guard.forget(&machine("az1", 0));
    assert_eq!(yard.reboot("az1", 1), Answer::Admitted);
}

#[test]
fn only_the_ladder_of_a_member_under_repair_ends_a_slow_start() {
    let mut yard = dark(120);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
    yard.is("az1", 1, Excluded);
    assert!(!yard.held("az1"), "another one went to maintenance");
    yard.is("az1", 0, Excluded);
    assert!(yard.held("az1"), "the one under repair is exhausted: {:?}", yard.said);
}

#[test]
fn the_slow_starts_of_two_domains_share_no_room() {
    let mut yard = Yard::of(&[("az1", 10), ("az2", 10), ("az3", 40)]);
    yard.lose("az1", 0..3);
    yard.lose("az2", 0..3);
    yard.pass(120);
    assert_eq!((yard.reboot("az1", 0), yard.reboot("az2", 0)), (Answer::Admitted, Answer::Admitted));
    assert_eq!((yard.reboot("az1", 1), yard.reboot("az2", 1)), (HELD, HELD));
}

#[test]
fn a_hold_lasts_its_time_also_when_all_are_back_and_an_exhaustion_does_not() {
    let mut yard = Yard::of(&[("az1", 10)]);
    yard.lose("az1", 0..4);
    yard.pass(60);
    (0..4).for_each(|index| yard.is("az1", index, Healthy));
    yard.pass(59);
    assert!(yard.held("az1"), "what comes and goes is watched for the whole hold");
    yard.pass(1);
    assert!(!yard.held("az1"));

    let mut yard = dark(120);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
    yard.is("az1", 0, Excluded);
    assert!(yard.held("az1"), "exhausted");
    (0..4).for_each(|index| yard.is("az1", index, Healthy));
    yard.pass(1);
    assert!(!yard.held("az1"), "nothing is down there any more: {:?}", yard.said);
}

#[test]
fn what_was_never_healthy_opens_nothing_even_where_the_share_has_grown() {
    let mut yard = Yard::of(&[("az1", 16), ("az2", 40)]);
    yard.lose("az1", 0..3);
    assert!(!yard.held("az1"), "3 of 16 are not 20%");
    (3..6).for_each(|index| yard.is("az1", index, Excluded));
    yard.is("az1", 16, Left);
    assert!(!yard.held("az1"));
    yard.lose("az1", 6..7);
    assert!(yard.held("az1"));
}

#[test]
fn many_in_one_domain_are_that_domain_s_case_also_while_it_is_not_held() {
    let settings = GuardSettings { domain_percent: 60, ..GuardSettings::default() };
    let mut yard = with(settings, &[("az1", 10)]);
    yard.lose("az1", 0..5);
    assert_eq!(yard.guard.holds().count(), 0, "{:?}", yard.said);
    yard.lose("az1", 5..6);
    assert_eq!(yard.guard.holds().count(), 1, "{:?}", yard.said);
}

#[test]
fn what_one_hold_was_for_counts_for_no_other() {
    let settings = GuardSettings { window: Duration::from_secs(3600), ..GuardSettings::default() };
    let mut yard = with(settings, &[("az1", 10), ("az2", 40)]);
    yard.lose("az1", 0..3);
    yard.pass(120 + 600);
    assert_eq!(yard.guard.holds().count(), 0, "quiet: {:?}", yard.said);
    yard.lose("az1", 3..5);
    assert!(!yard.held("az1"), "two, and the three from before are known");
    yard.lose("az1", 5..6);
    assert!(yard.held("az1"));
}

#[test]
fn the_end_of_the_fleets_hold_leaves_to_each_domain_what_is_down_there() {
    let mut yard = Yard::of(&[("az1", 5), ("az2", 5)]);
    yard.lose("az1", 0..3);
    yard.lose("az2", 0..3);
    yard.pass(120 + 600);
    assert_eq!(yard.guard.holds().count(), 0, "{:?}", yard.said);
    let ended: Vec<_> = yard.said.iter().filter(|said| said.contains("held no more")).collect();
    assert_eq!(ended.len(), 3, "{ended:?}");
    let down = |said: &&String| said.contains("3 are still down") || said.contains("6 are still down");
    assert!(ended.iter().all(down), "{ended:?}");
}

#[test]
fn a_member_that_moves_takes_its_health_along() {
    let mut yard = Yard::of(&[("az1", 16), ("az2", 40)]);
    let now = yard.now();
    let moved: [Name; 1] = [name("az2")];
    for index in 10..16 {
        yard.guard.health(&machine("az1", index), AssemblyIndex(0), &moved, Healthy, now);
    }
    yard.lose("az1", 0..3);
    assert!(yard.held("az1"), "3 of the 10 that are left there: {:?}", yard.said);
}

#[test]
fn what_was_never_healthy_is_not_counted_as_healthy_either() {
    let mut yard = Yard::of(&[("az1", 10), ("az2", 40)]);
    yard.lose("az1", 10..16);
    yard.lose("az1", 0..3);
    assert!(yard.held("az1"), "3 of 10: {:?}", yard.said);
}
