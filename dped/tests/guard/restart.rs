//! policy.md section 6: "its budgets and breakers are journaled". cpe is killed and started again; the guard goes on where it was.

use std::time::Duration;

use cpe_proto::decision::{Answer, Refusal};
use cpe_proto::id::{ActionId, AssemblyIndex, Name};
use cpe_proto::snapshot::guard::GuardSnapshot;
use dped::{Carried, Guard, GuardSettings, HealthClass, Request};

use super::{HELD, Yard, machine, name, silent};

impl Yard {
    /// cpe ends without warning and is started again so many seconds later, with what was written down. Nothing was seen since.
    pub(super) fn restart(&mut self, down: u64) {
        let written = serde_json::to_string(&self.guard.snapshot(self.now())).unwrap_or_default();
        let snapshot: GuardSnapshot = match serde_json::from_str(&written) {
            Ok(snapshot) => snapshot,
            Err(error) => panic!("{error}: {written}"),
        };
        self.second += down;
        self.guard =
            Guard::restore(GuardSettings::default(), &snapshot, Duration::from_secs(down), self.now());
        self.listen();
    }

    /// What is first looked at after a start: who is down is told as down.
    pub(super) fn looks(
        &mut self,
        domain: &str,
        healthy: std::ops::Range<usize>,
        down: std::ops::Range<usize>,
    ) {
        for index in healthy {
            self.is(domain, index, HealthClass::Healthy);
        }
        self.lose(domain, down);
    }
}

/// A domain of ten with four dark machines, held since `ago` seconds.
pub(super) fn dark(ago: u64) -> Yard {
    let mut yard = Yard::of(&[("az1", 10), ("az2", 10)]);
    yard.lose("az1", 0..4);
    yard.pass(ago);
    yard
}

#[test]
fn a_hold_goes_on_for_what_was_left_of_it_and_is_told_once_more_but_notified_only_once() {
    let mut yard = dark(40);
    let told = yard.told.len();
    yard.restart(20);
    assert_eq!(
        yard.said.last().map(String::as_str),
        Some("failure domain az1 is held on after a restart of cpe: nothing is done there for 60 s more")
    );
    assert!(yard.held("az1") && !yard.held("az2"), "before anything was looked at");
    yard.pass(5);
    yard.looks("az1", 4..10, 0..4);
    assert_eq!(yard.reboot("az1", 0), HELD);
    yard.pass(54);
    assert!(yard.held("az1"));
    yard.pass(1);
    assert!(!yard.held("az1"), "{:?}", yard.said);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted, "slow start");
    assert_eq!(yard.reboot("az1", 1), HELD, "one at a time");
    assert_eq!(yard.told.len(), told, "{:?}", yard.told);
}

#[test]
fn a_hold_whose_time_passed_while_cpe_was_down_goes_on_with_slow_start_not_with_everything() {
    let mut yard = dark(10);
    yard.restart(600);
    yard.pass(1);
    yard.looks("az1", 4..10, 0..4);
    assert_eq!((yard.reboot("az1", 0), yard.reboot("az1", 1)), (Answer::Admitted, HELD));
}

#[test]
fn a_slow_start_goes_on_at_its_width_and_still_waits_for_the_repair_that_is_not_verified() {
    let mut yard = dark(130);
    yard.repaired("az1", 0);
    assert_eq!((yard.reboot("az1", 1), yard.reboot("az1", 2)), (Answer::Admitted, Answer::Admitted));
    yard.restart(5);
    yard.looks("az1", 4..10, 0..0);
    assert_eq!(yard.reboot("az1", 3), HELD, "two are out, and two at a time is what was verified");
    yard.ends("az1", 1, true);
    yard.ends("az1", 2, true);
    assert_eq!(yard.reboot("az1", 3), Answer::Admitted, "{:?}", yard.said);
}

#[test]
fn a_repair_that_fails_after_the_restart_still_ends_the_slow_start() {
    let mut yard = dark(130);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
    yard.restart(5);
    yard.ends("az1", 0, false);
    yard.pass(40);
    assert!(yard.held("az1"), "{:?}", yard.said);
    yard.restart(60);
    yard.pass(1);
    assert!(yard.held("az1"), "exhausted is kept over the next restart, too: {:?}", yard.said);
}

#[test]
fn what_was_begun_counts_against_the_budgets_of_the_next_process() {
    let mut yard = Yard::of(&[("az1", 50)]);
    for index in 0..10 {
        assert_eq!(yard.reboot("az1", index), Answer::Admitted);
        yard.ends("az1", index, true);
        yard.pass(5);
    }
    assert_eq!(yard.reboot("az1", 10), Answer::Refused(Refusal::Budget));
    yard.restart(30);
    assert_eq!(yard.reboot("az1", 10), Answer::Refused(Refusal::Budget), "10 in 10 min, also over a restart");
    yard.pass(600);
    assert_eq!(yard.reboot("az1", 10), Answer::Admitted);
}

#[test]
fn a_lease_is_kept_for_an_action_that_an_engine_carries_on_or_nobody_saw_end_and_ends_with_all_others() {
    let mut yard = Yard::of(&[("az1", 10)]);
    for index in 0..3 {
        assert_eq!(yard.reboot("az1", index), Answer::Admitted);
    }
    yard.restart(10);
    assert_eq!(yard.guard.in_flight(), 3);
    let kept = |deployable: &Name| match deployable.as_str() {
        "az1-0" => Carried::On,
        "az1-1" => Carried::Unseen,
        _ => Carried::Not,
    };
    let now = yard.now();
    yard.guard.retain_leases(|deployable, _| kept(deployable), now);
    assert_eq!(yard.guard.in_flight(), 2);
    assert_eq!(yard.reboot("az1", 0), Answer::Refused(Refusal::Budget), "it is still in flight");
    assert_eq!(yard.reboot("az1", 1), Answer::Refused(Refusal::Budget), "nobody saw it end");
    assert_eq!(yard.reboot("az1", 2), Answer::Admitted);
}

#[test]
fn an_action_that_an_engine_goes_on_with_is_in_flight_however_long_cpe_was_down() {
    // The node rebooted, and its clock was set forward by an hour.
    let mut yard = Yard::of(&[("az1", 10)]);
    for index in 0..2 {
        assert_eq!(yard.reboot("az1", index), Answer::Admitted);
    }
    yard.restart(3600);
    let kept = |deployable: &Name| if deployable.as_str() == "az1-0" { Carried::On } else { Carried::Unseen };
    let now = yard.now();
    yard.guard.retain_leases(|deployable, _| kept(deployable), now);
    assert_eq!(yard.reboot("az1", 0), Answer::Refused(Refusal::Budget), "it is looked at first");
    assert_eq!(yard.reboot("az1", 1), Answer::Admitted, "it was given up meanwhile");
    yard.ends("az1", 0, true);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
}

#[test]
fn what_is_defined_no_more_after_the_restart_holds_no_domain_and_what_it_had_begun_is_still_in_flight() {
    let mut yard = dark(130);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
    yard.restart(5);
    yard.guard.retain(|deployable, _| !deployable.as_str().starts_with("az1"));
    yard.pass(1);
    assert_eq!((yard.guard.in_flight(), yard.guard.holds().count()), (1, 0), "{:?}", yard.said);
    yard.is("az1", 0, HealthClass::Healthy);
    assert_eq!(yard.reboot("az1", 0), Answer::Refused(Refusal::Budget), "its definition is back");
    let now = yard.now();
    yard.guard.release(&machine("az1", 0), ActionId(yard.actions - 1), now);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted, "what was begun then is seen to have ended");
}

#[test]
fn what_nobody_waits_for_any_more_is_in_flight_until_it_is_seen_to_end_or_given_up() {
    // Its definition is removed while its machine is rebooted, or its engine is parked.
    let mut yard = Yard::of(&[("az1", 10)]);
    assert_eq!((yard.reboot("az1", 0), yard.reboot("az1", 1)), (Answer::Admitted, Answer::Admitted));
    yard.pass(60);
    for index in [0, 1] {
        yard.guard.part(&machine("az1", index));
    }
    assert!(yard.guard.take_persist());
    assert!(!yard.guard.take_persist(), "once");
    assert_eq!(yard.reboot("az1", 0), Answer::Refused(Refusal::Budget), "its definition is back");
    yard.ends("az1", 0, true);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
    // Of the other one nothing is seen, also not by the next cpe, whose engines do not know of it.
    yard.pass(400);
    yard.restart(30);
    let now = yard.now();
    yard.guard.retain_leases(|_, _| Carried::Not, now);
    yard.pass(900 - 60 - 400 - 30 - 1);
    assert_eq!(yard.reboot("az1", 1), Answer::Refused(Refusal::Budget));
    yard.pass(1);
    assert_eq!(yard.reboot("az1", 1), Answer::Admitted, "action_give_up after it was begun");
}

#[test]
fn a_lease_outlives_a_long_action_give_up() {
    let mut yard = Yard::of(&[("az1", 10)]);
    let slow = Request { give_up: Duration::from_secs(3600), ..silent() };
    assert_eq!(yard.ask("az1", 0, slow).0, Answer::Admitted);
    yard.pass(3600);
    assert_eq!(yard.reboot("az1", 0), Answer::Refused(Refusal::Budget), "its engine still looks at it");
}

#[test]
fn a_snapshot_reads_like_this_and_one_without_the_optional_parts_reads_too() {
    let mut yard = dark(130);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
    yard.pass(2);
    let text = serde_json::to_string_pretty(&yard.guard.snapshot(yard.now())).unwrap_or_default();
    expect_test::expect_file!["../tables/guard-snapshot.txt"].assert_eq(&text);
    let bare: GuardSnapshot = serde_json::from_str("{\"version\":1}").unwrap_or_default();
    assert_eq!(bare.version, 1);
    let unknown = GuardSnapshot { version: 2, ..yard.guard.snapshot(yard.now()) };
    let guard = Guard::restore(GuardSettings::default(), &unknown, Duration::ZERO, yard.now());
    assert_eq!(
        (guard.in_flight(), guard.holds().count()),
        (0, 0),
        "what a newer cpe wrote is not guessed at"
    );
}

#[test]
fn a_restart_between_two_asks_changes_no_answer() {
    // The same fleet, once killed at each step and once never: the gate answers the same.
    let story = |kills: bool| {
        let mut yard = dark(30);
        let mut answers = Vec::new();
        for step in 0..40 {
            yard.pass(7);
            if kills {
                yard.restart(0);
                yard.looks("az1", 4..10, 0..0);
                yard.looks("az2", 0..10, 0..0);
                yard.pass(1);
            } else {
                yard.pass(1);
            }
            let index = step % 4;
            answers.push(yard.reboot("az1", index));
            if step % 3 == 2 {
                yard.ends("az1", index, true);
                yard.is("az1", index, HealthClass::Healthy);
            }
        }
        answers
    };
    assert_eq!(story(true), story(false));
}

#[test]
fn evidence_of_paths_and_of_ourselves_is_not_taken_up() {
    let mut yard = Yard::of(&[("az1", 3)]);
    let now = yard.now();
    yard.guard.expect_canaries("default", 2);
    yard.guard.canary("default", 0, true, now);
    yard.guard.canary("default", 1, true, now);
    yard.guard.answered("default", &name("peer"), AssemblyIndex(0), now);
    yard.restart(1);
    yard.guard.expect_canaries("default", 2);
    let now = yard.now();
    assert!(!yard.guard.trusts_itself(now), "canaries have to answer anew");
    assert_eq!(yard.guard.path_proof("default", (&name("other"), AssemblyIndex(0)), now), None);
    assert_eq!(yard.ask("az1", 0, silent()).0, Answer::Refused(Refusal::Untrusted));
}

#[test]
fn what_is_begun_long_after_it_was_admitted_is_given_up_after_its_beginning() {
    // Others let go for it first, and then its definition is removed.
    let mut yard = Yard::of(&[("az1", 10)]);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
    yard.pass(600);
    let (action, give_up, now) = (ActionId(yard.actions), Duration::from_secs(900), yard.now());
    yard.guard.begins(&machine("az1", 0), action, give_up, now);
    yard.guard.part(&machine("az1", 0));
    yard.pass(899);
    assert_eq!(yard.reboot("az1", 0), Answer::Refused(Refusal::Budget));
    yard.pass(1);
    assert_eq!(yard.reboot("az1", 0), Answer::Admitted);
}
