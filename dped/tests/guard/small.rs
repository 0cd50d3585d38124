//! A small site, of one to five machines, is served and never locked out by percentages.

use cpe_proto::decision::Answer;

use super::Yard;

/// Everything is down at once; each machine can be repaired. All must be back, and in bounded time.
fn all_down(domains: &[(&str, usize)]) -> (u64, Vec<String>) {
    let mut yard = Yard::of(domains);
    for (domain, count) in domains {
        yard.lose(domain, 0..*count);
    }
    let mut down: Vec<(&str, usize)> =
        domains.iter().flat_map(|(domain, count)| (0..*count).map(move |index| (*domain, index))).collect();
    let mut seconds = 0;
    while !down.is_empty() && seconds < 600 {
        let admitted: Vec<_> = down
            .iter()
            .copied()
            .filter(|(domain, index)| yard.reboot(domain, *index) == Answer::Admitted)
            .collect();
        yard.pass(20);
        for (domain, index) in &admitted {
            yard.ends(domain, *index, true);
        }
        down.retain(|machine| !admitted.contains(machine));
        seconds += 20;
    }
    assert!(down.is_empty(), "{domains:?}: {down:?} are down for ever");
    yard.pass(121);
    assert_eq!(yard.guard.holds().count(), 0, "{domains:?}");
    (seconds, yard.told)
}

#[test]
fn one_or_two_machines_are_recovered_at_once() {
    for domains in [&[("az1", 1)][..], &[("-", 1)], &[("az1", 2)], &[("-", 2)], &[("az1", 1), ("az2", 1)]] {
        assert_eq!(all_down(domains), (20, vec![]));
    }
}

#[test]
fn three_to_five_machines_without_a_common_domain_are_recovered_at_once_up_to_four() {
    assert_eq!(all_down(&[("-", 3)]), (20, vec![]));
    assert_eq!(all_down(&[("-", 4)]), (20, vec![]));
    let (seconds, told) = all_down(&[("-", 5)]);
    assert!((120..=300).contains(&seconds), "held for 2 min, then one after another: {seconds} s");
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn three_to_five_machines_in_one_domain_are_held_and_then_recovered() {
    for count in 3..=5 {
        let (seconds, told) = all_down(&[("az1", count)]);
        assert!((120..=300).contains(&seconds), "{count}: {seconds} s");
        assert_eq!(told.len(), 1, "{told:?}");
    }
}

#[test]
fn five_machines_in_two_domains_are_served() {
    for (one, other) in [(1, 4), (2, 3), (3, 2), (4, 1)] {
        let (seconds, _) = all_down(&[("az1", one), ("az2", other)]);
        assert!(seconds <= 300, "{one} and {other}: {seconds} s");
    }
}

#[test]
fn one_lost_machine_of_any_small_site_is_recovered_at_once() {
    for count in 1..=5 {
        let mut yard = Yard::of(&[("az1", count)]);
        yard.lose("az1", 0..1);
        yard.repaired("az1", 0);
        assert_eq!(yard.guard.holds().count(), 0);
    }
}
