//! policy.md section 6: "one action at the shared point if an adapter can (evacuate a dead hypervisor)".

use cpe_proto::decision::{Answer, ChannelFact, Facts, Refusal};
use cpe_proto::id::{ActionId, AssemblyIndex};
use dped::{ActionOutcome, HealthClass, Place, Request};

use super::{HELD, Yard, machine, name, silent, unit_down};
use HealthClass::{Excluded, Healthy, Left};

/// A hypervisor with five machines that is gone at once, and another one; its hold is over.
fn dead() -> Yard {
    let mut yard = Yard::of(&[("hv7", 5), ("hv8", 5)]);
    yard.guard.shared_point(name("hv7"), name("prod"));
    yard.lose("hv7", 0..5);
    yard.pass(120);
    assert!(!yard.held("hv7"), "its members are judged, so that their engines can say what they want");
    yard
}

impl Yard {
    /// These engines want their machines recovered.
    fn speak(&mut self, machines: std::ops::Range<usize>) {
        for index in machines {
            assert_eq!(self.reboot("hv7", index), HELD, "nothing but the evacuation comes first");
        }
        self.pass(1);
    }

    fn came_of_it(&mut self, outcome: &ActionOutcome) {
        let number = self.evacuated.last().map_or(ActionId(0), |it| it.number);
        let now = self.now();
        self.guard.evacuated(&name("hv7"), number, outcome, now);
        self.listen();
    }

    fn said_last(&self) -> &str {
        self.said.last().map_or("", String::as_str)
    }
}

fn done() -> ActionOutcome {
    ActionOutcome::Done { detail: "moved".into() }
}

#[test]
fn a_dead_hypervisor_is_evacuated_once_and_what_is_still_down_is_started_slowly() {
    let mut yard = dead();
    yard.speak(0..5);
    let [evacuate] = &*yard.evacuated else { panic!("{:?}", yard.evacuated) };
    assert_eq!((&evacuate.domain, &evacuate.infrastructure), (&name("hv7"), &name("prod")));
    let members: Vec<_> = (0..5).map(|index| (machine("hv7", index), AssemblyIndex(0))).collect();
    assert_eq!(evacuate.members, members);
    assert!(
        yard.told.last().is_some_and(|told| told.contains("evacuated by infrastructure prod, once (!1)"))
    );
    assert!(yard.held("hv7"), "nothing else is done there meanwhile");
    assert_eq!(yard.reboot("hv8", 0), Answer::Admitted, "other domains go on");
    yard.pass(100);
    yard.came_of_it(&done());
    for index in 0..3 {
        yard.is("hv7", index, Healthy);
    }
    yard.pass(299);
    assert!(yard.held("hv7"), "its probes have their time");
    yard.pass(1);
    assert_eq!(
        yard.said_last(),
        "failure domain hv7: slow start, 1 repair at a time until it is verified; 2 are down"
    );
    assert_eq!((yard.reboot("hv7", 3), yard.reboot("hv7", 4)), (Answer::Admitted, HELD));
    assert_eq!(yard.evacuated.len(), 1);
}

#[test]
fn when_it_helped_the_hold_is_over_at_once() {
    let mut yard = dead();
    yard.speak(0..5);
    yard.came_of_it(&done());
    for index in 0..5 {
        yard.is("hv7", index, Healthy);
    }
    yard.pass(1);
    assert_eq!(yard.guard.holds().count(), 0, "{:?}", yard.said);
}

#[test]
fn a_domain_in_which_anything_lives_or_that_nobody_can_evacuate_is_not_evacuated() {
    for class in [Healthy, Excluded] {
        let mut yard = dead();
        yard.is("hv7", 4, class);
        yard.pass(1);
        assert_eq!(yard.evacuated, [], "{class:?}: healthy, in maintenance or given up");
        assert!(
            yard.said.iter().any(|said| said.contains("it is not evacuated: 1 of its 5")),
            "{:?}",
            yard.said
        );
        assert_eq!(yard.reboot("hv7", 0), Answer::Admitted, "slow start as ever");
    }
    let mut yard = Yard::of(&[("hv8", 5)]);
    yard.guard.shared_point(name("hv7"), name("prod"));
    yard.lose("hv8", 0..5);
    yard.pass(120);
    assert_eq!((yard.reboot("hv8", 0), yard.evacuated.len()), (Answer::Admitted, 0));
}

#[test]
fn only_machines_whose_engines_want_them_recovered_are_asked_for_and_too_few_are_no_dead_hypervisor() {
    let mut yard = dead();
    // One is paused or observed, and one says that only a service of it is to be restarted.
    yard.speak(0..3);
    assert_eq!(yard.ask("hv7", 3, unit_down()).0, Answer::Admitted);
    yard.ends("hv7", 3, false);
    yard.pass(28);
    assert_eq!(yard.evacuated, [], "the others are heard for 30 s");
    yard.pass(1);
    assert_eq!(yard.evacuated.first().map(|it| it.members.len()), Some(3));

    let mut yard = dead();
    yard.speak(0..2);
    yard.pass(30);
    assert_eq!(yard.evacuated, []);
    assert!(yard.said.iter().any(|said| said.contains("the engines of 2 of its 5 assemblies want")));
}

#[test]
fn in_a_pause_without_a_journal_without_trust_and_while_a_repair_is_in_flight_it_waits_and_hears_anew() {
    let mut yard = Yard::of(&[("hv7", 5)]);
    yard.guard.shared_point(name("hv7"), name("prod"));
    yard.lose("hv7", 0..2);
    assert_eq!(yard.reboot("hv7", 0), Answer::Admitted, "before the third is lost");
    yard.lose("hv7", 2..5);
    yard.pass(125);
    yard.speak(1..5);
    yard.pass(60);
    assert_eq!(yard.evacuated, [], "at most one recovery in flight per assembly");
    yard.ends("hv7", 0, false);
    yard.guard.set_paused(true);
    yard.pass(600);
    assert_eq!(yard.evacuated, []);
    yard.guard.set_paused(false);
    yard.guard.set_journal_writable(false);
    yard.speak(0..5);
    yard.pass(600);
    assert_eq!(yard.evacuated, []);
    yard.guard.set_journal_writable(true);
    yard.speak(0..5);
    assert_eq!(yard.evacuated.len(), 1);
}

#[test]
fn what_failed_or_was_not_begun_is_not_tried_again_and_the_slow_start_follows_at_once() {
    let refused = ActionOutcome::Failed { detail: "no spare hypervisor".into() };
    let unwritten =
        ActionOutcome::NotBegun { why: Refusal::Journal, detail: "the journal cannot be written".into() };
    for outcome in [refused, unwritten] {
        let mut yard = dead();
        yard.speak(0..5);
        yard.came_of_it(&outcome);
        assert_eq!(yard.reboot("hv7", 0), Answer::Admitted, "{outcome:?}");
        // That repair does not work either.
        yard.ends("hv7", 0, false);
        yard.pass(31);
        assert!(yard.said_last().contains("is exhausted"), "{:?}", yard.said);
        yard.pass(1800);
        assert_eq!(
            yard.reboot("hv7", 0),
            Answer::Admitted,
            "the next slow start, without another evacuation"
        );
        assert_eq!(yard.evacuated.len(), 1);
    }
}

#[test]
fn an_outcome_that_is_lost_with_cpe_is_looked_at_and_the_evacuation_never_repeated() {
    let mut yard = dead();
    yard.speak(0..5);
    yard.pass(60);
    yard.restart(40);
    yard.guard.shared_point(name("hv7"), name("prod"));
    assert!(yard.said_last().contains("may have been begun, and is not repeated"), "{:?}", yard.said);
    yard.looks("hv7", 0..0, 0..5);
    assert!(yard.held("hv7"));
    yard.pass(501);
    assert!(yard.said_last().contains("(!1) has no outcome; it is not repeated"), "{:?}", yard.said);
    // It comes when nobody waits for it any more.
    yard.came_of_it(&done());
    assert!(yard.said_last().contains("has no outcome"));
    yard.pass(299);
    assert_eq!(yard.reboot("hv7", 0), Answer::Admitted);
    assert_eq!(yard.evacuated.len(), 1);
    // Another hold of the same domain is another evacuation, with another number.
    yard.ends("hv7", 0, true);
    for index in 1..5 {
        yard.is("hv7", index, Healthy);
    }
    yard.pass(300);
    assert_eq!(yard.guard.holds().count(), 0);
    for index in 0..5 {
        yard.is("hv7", index, Left);
    }
    yard.pass(120);
    yard.speak(0..5);
    assert_eq!(yard.evacuated.last().map(|it| it.number), Some(ActionId(2)));
}

#[test]
fn a_restart_before_it_hears_the_engines_anew() {
    let mut yard = dead();
    assert_eq!(yard.ask("hv7", 0, silent()).0, HELD);
    yard.restart(5);
    yard.guard.shared_point(name("hv7"), name("prod"));
    yard.looks("hv7", 0..0, 0..5);
    yard.speak(1..4);
    assert_eq!(yard.evacuated, []);
    yard.speak(0..5);
    assert_eq!(yard.evacuated.first().map(|it| it.members.len()), Some(5));
}

#[test]
fn a_machine_that_answers_is_no_part_of_an_evacuation_whatever_is_wanted_for_it() {
    let mut yard = dead();
    let facts = Facts { channel: ChannelFact::Healthy, ..silent().facts };
    assert_eq!(yard.ask("hv7", 4, Request { facts, ..silent() }).0, HELD);
    yard.speak(0..4);
    yard.pass(31);
    assert_eq!(yard.evacuated.first().map(|it| it.members.len()), Some(4));
}

#[test]
fn what_was_evacuated_in_vain_is_not_evacuated_again_by_the_next_process() {
    let mut yard = dead();
    yard.speak(0..5);
    yard.came_of_it(&ActionOutcome::Failed { detail: "no host has room".into() });
    assert_eq!(yard.reboot("hv7", 0), Answer::Admitted, "the slow start");
    yard.ends("hv7", 0, false);
    let evacuated = yard.evacuated.len();
    yard.restart(5);
    yard.guard.shared_point(name("hv7"), name("prod"));
    yard.looks("hv7", 0..0, 0..5);
    for _ in 0..70 {
        for index in 0..5 {
            let _whatever_it_says = yard.reboot("hv7", index);
        }
        yard.pass(30);
    }
    assert_eq!(yard.evacuated.len(), evacuated, "{:?}", yard.said);
}

#[test]
fn while_one_machine_of_a_deployable_is_being_repaired_its_hypervisor_is_not_evacuated() {
    let mut yard = Yard::of(&[]);
    yard.guard.shared_point(name("hv7"), name("prod"));
    let (shop, domains) = (name("shop"), [name("hv7")]);
    let place = Place { infrastructure: Some(name("prod")), domains: &domains };
    let ask = |yard: &mut Yard, index: u16| {
        let now = yard.now();
        let asked =
            Request { action: ActionId(u64::from(index)), assembly: AssemblyIndex(index), ..silent() };
        yard.guard.ask(&shop, &asked, &place, now).0
    };
    let health = |yard: &mut Yard, class: HealthClass| {
        let now = yard.now();
        (0..4).for_each(|index| yard.guard.health(&shop, AssemblyIndex(index), &domains, class, now));
    };
    health(&mut yard, Healthy);
    yard.pass(1);
    assert_eq!(ask(&mut yard, 0), Answer::Admitted, "a reboot of the first");
    health(&mut yard, Left);
    yard.pass(121);
    (1..4).for_each(|index| assert_eq!(ask(&mut yard, index), HELD));
    yard.pass(29);
    assert_eq!(yard.evacuated, [], "{:?}", yard.said);
    let now = yard.now();
    yard.guard.release(&shop, ActionId(0), now);
    (0..4).for_each(|index| assert_eq!(ask(&mut yard, index), HELD));
    yard.pass(35);
    assert_eq!(yard.evacuated.len(), 1, "{:?}", yard.said);
}
