//! Held domains, the fleet breaker, slow start.

use std::time::Duration;

use cpe_proto::decision::{Answer, Refusal};
use cpe_proto::id::AssemblyIndex;
use cpe_proto::infrastructure::InstanceState;
use cpe_proto::rung::Rung;
use cpe_proto::state::State;
use dped::{Guard, GuardSettings, HealthClass, Request, Scope};

use super::{HELD, OPEN, Yard, name, silent, unit_down};
use HealthClass::{Excluded, Healthy, Left};

#[test]
fn a_domain_is_held_at_3_and_20_percent() {
    let mut yard = Yard::of(&[("az1", 15), ("az2", 16)]);
    yard.lose("az1", 0..2);
    yard.lose("az2", 0..3);
    assert!(!yard.held("az1"), "2 of 15");
    assert!(!yard.held("az2"), "3 of 16 are 19%");
    yard.lose("az1", 2..3);
    assert!(yard.held("az1"), "3 of 15 are 20%");
    assert_eq!(yard.reboot("az1", 0), HELD);
    assert_eq!(yard.reboot("az2", 0), Answer::Admitted, "other domains are not held by one");
    assert_eq!(
        yard.told,
        [
            "failure domain az1 is held: 3 of 15 assemblies left health within 2 min; nothing is done there for 2 min, then slow start"
        ]
    );
}

#[test]
fn what_left_longer_than_the_window_ago_does_not_count() {
    let mut yard = Yard::of(&[("az1", 10)]);
    yard.lose("az1", 0..2);
    yard.pass(120);
    yard.lose("az1", 2..3);
    assert!(!yard.held("az1"), "the first two left 2 min ago");
    yard.pass(119);
    yard.lose("az1", 3..5);
    assert!(yard.held("az1"));
}

#[test]
fn single_faults_that_were_repaired_one_after_another_have_no_common_cause() {
    let mut yard = Yard::of(&[("az1", 10)]);
    for index in 0..10 {
        yard.is("az1", index, Left);
        yard.pass(10);
        yard.is("az1", index, Healthy);
    }
    assert_eq!(yard.guard.holds().count(), 0);
    yard.is("az1", 0, Left);
    yard.is("az1", 1, Left);
    assert!(!yard.held("az1"));
    yard.is("az1", 2, Left);
    assert!(yard.held("az1"), "3 at a time, whatever they did before");
}

#[test]
fn exhausted_maintenance_and_stopped_do_not_count() {
    for state in [State::Exhausted, State::Stopped, State::Misconfigured] {
        assert_eq!(HealthClass::of(state, false), Some(Excluded));
    }
    assert_eq!(HealthClass::of(State::Unreachable, true), Some(Excluded), "maintenance");
    assert_eq!(HealthClass::of(State::Unreachable, false), Some(Left));
    assert_eq!(HealthClass::of(State::Suspected, false), None, "not confirmed");
    let mut yard = Yard::of(&[("az1", 10)]);
    for index in 0..5 {
        yard.is("az1", index, Excluded);
    }
    yard.lose("az1", 0..5);
    assert!(!yard.held("az1"), "they had not been healthy");
    yard.lose("az1", 5..7);
    yard.is("az1", 5, Excluded);
    yard.lose("az1", 7..8);
    assert!(!yard.held("az1"), "2 of 4: one was taken out");
    yard.lose("az1", 8..9);
    assert!(yard.held("az1"), "3 of 4");
}

#[test]
fn what_was_never_healthy_is_no_loss_but_for_the_first_window_of_the_guard() {
    let mut yard = Yard::of(&[]);
    yard.is("az2", 0, Healthy);
    yard.pass(120);
    yard.lose("az1", 0..5);
    assert!(!yard.held("az1"), "new ones that never came up");
    let mut guard = Guard::new(GuardSettings::default());
    let domains = [name("az1")];
    for index in 0..3 {
        let now = Yard::of(&[]).now();
        guard.health(&name(&format!("az1-{index}")), AssemblyIndex(0), &domains, Left, now);
    }
    assert!(guard.held_domain(&domains).is_some(), "restarted in the middle of an outage");
}

#[test]
fn held_is_hold_then_slow_start_1_2_4_each_verified() {
    let mut yard = Yard::of(&[("az1", 10)]);
    yard.lose("az1", 0..10);
    yard.pass(119);
    assert!(yard.held("az1"));
    assert_eq!(yard.reboot("az1", 0), HELD);
    yard.pass(1);
    assert!(!yard.held("az1"), "in slow start its members are judged again");
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
    assert_eq!(yard.reboot("az1", 1), HELD, "one at a time");
    yard.ends("az1", 0, false);
    assert_eq!(yard.reboot("az1", 1), HELD, "over is not verified");
    yard.is("az1", 0, Healthy);
    assert_eq!(yard.reboot("az1", 1), Answer::Admitted);
    assert_eq!(yard.reboot("az1", 2), Answer::Admitted, "two at a time");
    assert_eq!(yard.reboot("az1", 3), HELD);
    yard.ends("az1", 1, true);
    assert_eq!(yard.reboot("az1", 3), HELD, "a step is verified as a whole");
    yard.ends("az1", 2, true);
    for index in 3..7 {
        assert_eq!(yard.reboot("az1", index), Answer::Admitted, "four at a time");
    }
    assert_eq!(yard.reboot("az1", 7), HELD);
    for index in 3..7 {
        yard.ends("az1", index, true);
    }
    for index in 7..10 {
        yard.repaired("az1", index);
    }
    yard.pass(1);
    assert_eq!(yard.guard.holds().count(), 0);
    assert_eq!(
        yard.said.last().unwrap(),
        "failure domain az1 is held no more: all that left health are back or taken out"
    );
}

#[test]
fn the_first_failed_repair_stops_the_ramp_and_a_person_is_told_then_it_begins_anew() {
    let mut yard = Yard::of(&[("az1", 10)]);
    yard.lose("az1", 0..5);
    yard.pass(120);
    yard.repaired("az1", 0);
    assert_eq!(yard.reboot("az1", 1), Answer::Admitted);
    yard.ends("az1", 1, false);
    yard.pass(30);
    assert!(!yard.held("az1"), "30 s to become healthy");
    yard.pass(1);
    assert!(yard.held("az1"));
    assert_eq!(
        yard.told.last().unwrap(),
        "failure domain az1 is exhausted: a repair in az1-1 did not work, so slow start stopped; tried again in 30 min"
    );
    assert_eq!(yard.reboot("az1", 2), HELD);
    yard.pass(1799);
    assert_eq!(yard.reboot("az1", 2), HELD);
    yard.pass(1);
    yard.repaired("az1", 2);
    for index in [1, 3] {
        assert_eq!(yard.reboot("az1", index), Answer::Admitted);
    }
}

#[test]
fn a_member_that_asks_again_or_is_given_up_was_not_repaired() {
    let mut one = Yard::of(&[("az1", 10)]);
    one.lose("az1", 0..3);
    one.pass(120);
    assert_eq!(one.reboot("az1", 0), Answer::Admitted);
    one.ends("az1", 0, false);
    assert_eq!(one.reboot("az1", 0), HELD, "the next rung of a repair that failed");
    let mut given_up = Yard::of(&[("az1", 10)]);
    given_up.lose("az1", 0..3);
    given_up.pass(120);
    assert_eq!(given_up.reboot("az1", 0), Answer::Admitted);
    given_up.is("az1", 0, Excluded);
    assert_eq!(given_up.reboot("az1", 1), HELD, "exhausted by its own ladder");
}

#[test]
fn a_hold_ends_when_all_came_back_by_themselves() {
    let mut yard = Yard::of(&[("az1", 10)]);
    yard.lose("az1", 0..10);
    yard.pass(60);
    for index in 0..10 {
        yard.is("az1", index, Healthy);
    }
    yard.pass(60);
    assert_eq!(yard.guard.holds().count(), 0);
    yard.lose("az1", 0..1);
    assert!(!yard.held("az1"), "what one hold was for counts for no other");
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
}

/// Whether such a machine is healthy afterwards says nothing of what the hold is about: it boots longer than a repair may be unverified.
#[test]
fn a_machine_that_is_powered_on_by_an_order_waits_for_a_hold_and_neither_takes_nor_ends_a_slow_start() {
    let mut yard = Yard::of(&[("az1", 10)]);
    yard.lose("az1", 0..10);
    let power_on = || Request { rung: None, ..silent() };
    assert_eq!(yard.ask("az1", 9, power_on()).0, HELD);
    yard.pass(120);
    assert_eq!(yard.ask("az1", 9, power_on()).0, Answer::Admitted);
    yard.ends("az1", 9, false);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted, "its room was not taken");
    assert_eq!(yard.ask("az1", 8, power_on()).0, HELD, "there is no room now");
    yard.ends("az1", 0, true);
    yard.pass(60);
    assert_eq!(yard.reboot("az1", 1), Answer::Admitted, "what was powered on did not end it");
}

#[test]
fn a_slow_start_in_which_nobody_wants_anything_ends() {
    let mut yard = Yard::of(&[("az1", 10)]);
    yard.lose("az1", 0..3);
    yard.pass(120);
    yard.pass(599);
    assert_eq!(yard.guard.holds().count(), 1);
    yard.pass(1);
    assert_eq!(yard.guard.holds().count(), 0);
    assert!(yard.said.last().unwrap().contains("3 are still down"), "{:?}", yard.said);
}

#[test]
fn the_fleet_breaker_opens_at_5_and_30_percent_in_2_domains() {
    // 2 lost in each domain hold none of them.
    let mut yard = Yard::of(&[("az1", 6), ("az2", 6), ("az3", 6)]);
    yard.lose("az1", 0..2);
    yard.lose("az2", 0..2);
    yard.lose("az3", 0..1);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted, "5 of 18 are 28%");
    yard.ends("az1", 0, false);
    yard.lose("az3", 1..2);
    assert_eq!(yard.reboot("az1", 1), OPEN, "6 of 18");
    assert!(
        yard.told[0]
            .starts_with("the fleet is held: 6 of 18 assemblies left health within 2 min in 2 or more")
    );
    let mut four = Yard::of(&[("az1", 2), ("az2", 2)]);
    four.lose("az1", 0..2);
    four.lose("az2", 0..2);
    assert_eq!(four.reboot("az1", 0), Answer::Admitted, "4 are too few");
}

#[test]
fn one_domain_that_is_down_does_not_open_the_fleet_breaker_and_two_do() {
    let mut yard = Yard::of(&[("az1", 10), ("az2", 10)]);
    yard.lose("az1", 0..10);
    yard.lose("az2", 0..1);
    assert!(yard.held("az1"));
    assert_eq!(yard.reboot("az2", 0), Answer::Admitted, "a healthy zone is recovered while another is held");
    yard.lose("az2", 1..3);
    assert!(yard.held("az2"));
    assert!(yard.guard.holds().any(|scope| *scope == Scope::Fleet));
}

#[test]
fn domains_within_a_domain_are_one() {
    let mut yard = Yard::of(&[("az2", 2)]);
    let domains = [name("az1"), name("rack7")];
    for class in [Healthy, Left] {
        for index in 0..6 {
            let now = yard.now();
            yard.guard.health(&name(&format!("vm-{index}")), AssemblyIndex(0), &domains, class, now);
        }
    }
    let held: Vec<String> = yard.guard.holds().map(ToString::to_string).collect();
    assert_eq!(held, ["failure domain az1", "failure domain rack7"]);
}

#[test]
fn what_is_in_no_domain_is_a_domain_of_its_own() {
    let mut yard = Yard::of(&[("-", 10)]);
    yard.lose("-", 0..4);
    assert_eq!(yard.reboot("-", 0), Answer::Admitted);
    yard.lose("-", 4..5);
    assert_eq!(yard.reboot("-", 1), OPEN);
}

#[test]
fn the_fleet_breaker_is_half_open_after_its_hold_once_self_is_trusted_and_the_infrastructure_answers() {
    let mut yard = Yard::of(&[("-", 10)]);
    yard.lose("-", 0..6);
    yard.guard.expect_canaries("default", 2);
    yard.pass(300);
    assert!(
        !yard.said.iter().any(|said| said.contains("slow start, 1 repair")),
        "not trusted: {:?}",
        yard.said
    );
    let now = yard.now();
    for index in 0..2 {
        yard.guard.canary("default", index, true, now);
    }
    assert_eq!(yard.reboot("-", 0), OPEN);
    yard.pass(1);
    for instance in [None, Some(InstanceState::Unknown)] {
        let mut request = silent();
        request.facts.instance = instance;
        assert_eq!(yard.ask("-", 0, request).0, OPEN, "the infrastructure does not answer");
    }
    assert_eq!(yard.reboot("-", 0), Answer::Admitted);
    assert_eq!(yard.reboot("-", 1), OPEN, "the same slow start");
    yard.ends("-", 0, true);
    assert_eq!(yard.reboot("-", 1), Answer::Admitted);
    assert_eq!(yard.reboot("-", 2), Answer::Admitted);
}

#[test]
fn a_restart_on_positive_evidence_over_a_healthy_channel_needs_only_its_budgets() {
    let mut yard = Yard::of(&[("az1", 4), ("az2", 4)]);
    yard.lose("az1", 0..4);
    yard.lose("az2", 0..4);
    assert_eq!(yard.reboot("az1", 0), OPEN);
    assert_eq!(yard.ask("az1", 0, unit_down()).0, Answer::Admitted);
    let escalated = Request { rung: Some(Rung::RebootSoft), ..unit_down() };
    assert_eq!(yard.ask("az1", 1, escalated).0, OPEN, "a machine rung, whatever the channel");
    let step = Request { rung: None, ..unit_down() };
    assert_eq!(yard.ask("az1", 2, step).0, Answer::Admitted);
    assert_eq!(yard.ask("az1", 2, unit_down()).0, Answer::Refused(Refusal::Budget));
}

#[test]
fn a_changed_or_removed_deployable_leaves_no_counts_behind() {
    let mut yard = Yard::of(&[("az1", 10)]);
    yard.lose("az1", 0..2);
    for index in 0..2 {
        yard.guard.forget(&super::machine("az1", index));
    }
    yard.lose("az1", 2..4);
    assert!(!yard.held("az1"), "2 of 8");
    let (now, moved) = (yard.now(), [name("az2")]);
    yard.guard.health(&super::machine("az1", 2), AssemblyIndex(0), &moved, Left, now);
    yard.lose("az1", 4..5);
    assert!(!yard.held("az1"), "one was moved");
}

#[test]
fn the_same_story_gives_the_same_answers() {
    let story = || {
        let mut yard = Yard::of(&[("az1", 10), ("az2", 10), ("-", 5)]);
        yard.lose("az1", 2..8);
        yard.lose("-", 0..2);
        yard.pass(125);
        yard.repaired("az1", 5);
        yard.lose("az2", 0..5);
        yard.pass(200);
        (yard.said, yard.told, format!("{:?}", yard.guard))
    };
    assert_eq!(story(), story());
    assert_eq!(GuardSettings::default().window, Duration::from_secs(120));
}
