//! Of which incidents a person is told: what they know of is not told again, and that one is over only to who was told of it.

use std::collections::BTreeSet;

use cpe_proto::id::{IncidentId, Name};
use dped::{IncidentKey, Notices};

fn incident(number: u64) -> IncidentKey {
    (Name::parse("shop").expect("a name"), IncidentId(number))
}

#[test]
fn an_incident_is_told_until_a_person_knows_of_it() {
    let mut notices = Notices::default();
    assert!(notices.tell(incident(1)) && notices.tell(incident(1)));
    assert_eq!(notices.told(), &BTreeSet::from([incident(1)]));
    assert!(!notices.is_acknowledged(&incident(1)));
    notices.acknowledge(incident(1));
    assert!(notices.is_acknowledged(&incident(1)) && !notices.is_acknowledged(&incident(2)));
    assert!(!notices.tell(incident(1)));
    assert!(notices.tell(incident(2)), "another one");
}

#[test]
fn its_end_is_told_to_who_was_told_of_it_and_did_not_know() {
    let mut notices = Notices::default();
    assert!(!notices.close(&incident(1)), "nobody was told of it");
    notices.tell(incident(2));
    assert!(notices.close(&incident(2)) && !notices.close(&incident(2)), "once");
    notices.tell(incident(3));
    notices.acknowledge(incident(3));
    assert!(!notices.close(&incident(3)), "they look after it");
    notices.acknowledge(incident(4));
    assert!(!notices.close(&incident(4)) && !notices.is_acknowledged(&incident(4)));
    assert_eq!(notices, Notices::default(), "nothing is kept of what is over");
}

#[test]
fn what_an_earlier_process_told_and_what_a_person_knew_then_is_known_to_the_next_one() {
    let mut notices = Notices::taken_up(BTreeSet::from([incident(1)]), BTreeSet::from([incident(2)]));
    assert!(notices.is_acknowledged(&incident(2)) && !notices.tell(incident(2)));
    assert!(notices.close(&incident(1)), "its end is told");
}

#[test]
fn so_many_are_remembered_and_no_more() {
    let mut notices = Notices::default();
    (0..10_000).for_each(|number| assert!(notices.tell(incident(number))));
    assert_eq!(notices.told().len(), 10_000);
    notices.tell(incident(10_000));
    assert_eq!(notices.told().len(), 10_000);
    assert!(!notices.told().contains(&incident(0)), "the first is forgotten");
}
