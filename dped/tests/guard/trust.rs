//! Self-trust: lag, gaps between ticks, a majority of the canaries of a path.

use std::time::Duration;

use cpe_proto::decision::Answer;
use cpe_proto::id::AssemblyIndex;
use dped::Prover;

use super::{UNTRUSTED, Yard, name, silent, unit_down};

fn with_canaries(count: usize) -> Yard {
    let mut yard = Yard::of(&[]);
    yard.guard.expect_canaries("default", count);
    yard
}

fn answer(yard: &mut Yard, answers: &[bool]) {
    let now = yard.now();
    for (index, answered) in answers.iter().enumerate() {
        yard.guard.canary("default", index, *answered, now);
    }
}

fn trusted(yard: &Yard) -> bool {
    yard.guard.self_trusted("default", yard.now())
}

#[test]
fn trusted_while_a_majority_of_the_canaries_of_a_path_answers() {
    let mut yard = with_canaries(5);
    for (answers, expected) in [
        ([true, true, true, true, true], true),
        ([true, true, true, false, false], true),
        ([true, true, false, false, false], false),
        ([false; 5], false),
    ] {
        answer(&mut yard, &answers);
        assert_eq!(trusted(&yard), expected, "{answers:?}");
    }
    let mut yard = with_canaries(4);
    answer(&mut yard, &[true, true, false, false]);
    assert!(!trusted(&yard), "half is no majority");
}

#[test]
fn a_lone_failing_canary_is_its_own_fault() {
    let mut yard = with_canaries(2);
    answer(&mut yard, &[true, false]);
    assert!(trusted(&yard));
    answer(&mut yard, &[false, false]);
    assert!(!trusted(&yard));
    let mut yard = with_canaries(1);
    answer(&mut yard, &[false]);
    assert!(trusted(&yard), "one alone cannot disprove a path");
}

#[test]
fn nothing_is_trusted_before_the_canaries_have_answered_nor_long_after() {
    let mut yard = with_canaries(3);
    assert!(!trusted(&yard));
    answer(&mut yard, &[true, true, true]);
    yard.pass(10);
    assert!(trusted(&yard));
    yard.pass(1);
    assert!(!trusted(&yard), "an answer counts for 10 s");
}

#[test]
fn one_path_does_not_speak_for_another() {
    let mut yard = with_canaries(2);
    yard.guard.expect_canaries("jump-a", 2);
    answer(&mut yard, &[true, true]);
    assert!(trusted(&yard));
    assert!(!yard.guard.self_trusted("jump-a", yard.now()));
    assert!(yard.guard.self_trusted("jump-b", yard.now()), "none configured: peers prove the path");
}

#[test]
fn untrusted_refuses_what_rests_on_absence_and_not_a_restart_on_positive_evidence() {
    let mut yard = with_canaries(2);
    answer(&mut yard, &[false, false]);
    let (refused, values) = yard.ask("a", 0, silent());
    assert_eq!(refused, UNTRUSTED);
    assert_eq!(&*values.last().unwrap().value, "not trusted: 0 of 2 canaries of path default answer");
    assert_eq!(yard.ask("a", 1, unit_down()).0, Answer::Admitted);
    let mut doubted = unit_down();
    doubted.facts.self_trusted = false;
    assert_eq!(yard.ask("a", 2, doubted).0, UNTRUSTED, "what was concluded without trust is not acted upon");
    answer(&mut yard, &[true, true]);
    assert_eq!(yard.reboot("a", 0), Answer::Admitted);
}

#[test]
fn a_gap_over_3_s_voids_the_canaries_and_trust_returns_after_fresh_ticks_and_answers() {
    let mut yard = with_canaries(2);
    answer(&mut yard, &[true, true]);
    assert!(trusted(&yard));
    yard.second += 4;
    assert!(!trusted(&yard), "before anybody noticed");
    yard.guard.handle_timeout(yard.now());
    assert!(!trusted(&yard));
    yard.pass(3);
    assert!(!trusted(&yard), "ticks alone are not enough");
    answer(&mut yard, &[true, true]);
    assert!(trusted(&yard));
    yard.second += 3;
    yard.guard.handle_timeout(yard.now());
    assert!(trusted(&yard), "3 s are no gap");
}

#[test]
fn a_gap_without_canaries_needs_fresh_ticks() {
    let mut yard = Yard::of(&[]);
    assert!(trusted(&yard));
    yard.second += 4;
    yard.guard.handle_timeout(yard.now());
    // Late answers do not shorten it.
    assert_eq!(yard.reboot("a", 0), UNTRUSTED);
    yard.pass(2);
    assert!(!trusted(&yard));
    yard.pass(1);
    assert!(trusted(&yard));
}

#[test]
fn a_lag_above_the_budget_is_no_time_to_conclude_anything() {
    let mut yard = Yard::of(&[]);
    let now = yard.now();
    yard.guard.lag(now, false);
    assert!(trusted(&yard));
    yard.guard.lag(now, true);
    assert!(!trusted(&yard));
    assert_eq!(yard.reboot("a", 0), UNTRUSTED);
    yard.pass(1);
    assert!(trusted(&yard), "punctual for 1 s");
}

#[test]
fn distrust_that_lasts_is_said_loudly_once_and_so_is_its_end() {
    let mut yard = with_canaries(2);
    answer(&mut yard, &[false, false]);
    yard.pass(60);
    assert_eq!(
        yard.told,
        [
            "cpe does not trust itself: 0 of 2 canaries of path default answer; nothing that rests on absence is done"
        ]
    );
    answer(&mut yard, &[true, true]);
    yard.pass(1);
    assert_eq!(yard.said.last().unwrap(), "cpe trusts itself again");
    assert_eq!(yard.said.len(), 2);
    let now = yard.now();
    yard.guard.lag(now, true);
    answer(&mut yard, &[true, true]);
    yard.pass(2);
    assert_eq!(yard.said.len(), 2, "a moment is not worth a word");
}

#[test]
fn the_newest_of_canaries_and_peers_proves_a_path() {
    let mut yard = with_canaries(2);
    let (me, peer) = (name("me"), name("peer"));
    let one = AssemblyIndex(0);
    assert_eq!(yard.guard.path_proof("default", (&me, one), yard.now()), None);
    answer(&mut yard, &[false, true]);
    let now = yard.now();
    assert_eq!(yard.guard.path_proof("default", (&me, one), now), Some((Duration::ZERO, Prover::Canary(1))));
    yard.pass(2);
    let now = yard.now();
    yard.guard.answered("default", &peer, one, now);
    yard.pass(1);
    assert_eq!(
        yard.guard.path_proof("default", (&me, one), yard.now()),
        Some((Duration::from_secs(1), Prover::Peer(peer, one)))
    );
}
