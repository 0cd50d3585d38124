//! Doors for the fuzz targets of `fuzz/`, with the feature `fuzzing` only: the readers of what servers answer to direct probes.

use std::time::SystemTime;

use cpe_proto::definition::{Dns, HostOf, PortOf, Record};
use cpe_proto::id::AssemblyIndex;
use cpe_proto::observation::Observation;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::Name;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::redirect::Location;
use super::trouble::{Trouble, of_service};
use super::{dns, expiry};

/// The id of the question that [`dns`](dns()) asks.
pub const QUESTION: u16 = 0x6370;

/// What is observed of a DNS server that was asked for the records of that kind of www.example.com; none: what came is no answer to it.
#[must_use]
pub fn dns(record: Record, expect: Option<&str>, answer: &[u8]) -> Option<Observation> {
    let mut question = Message::query();
    question.metadata.id = QUESTION;
    question.add_query(Query::query(Name::from_ascii("www.example.com.").ok()?, dns::record_type(record)));
    let answer = dns::answer_to(&question, answer)?;
    let asked = Dns::<AssemblyIndex> {
        name: "www.example.com".into(),
        record,
        expect: expect.into_iter().map(Into::into).collect(),
        server: PortOf { host: HostOf::Assembly(AssemblyIndex(0)), port: 53 },
    };
    Some(of_service(dns::judge(&asked, &answer)))
}

/// When a certificate in DER ends.
///
/// # Errors
/// What is wrong with it, as a person would be told.
pub fn expiry(der: &[u8]) -> Result<SystemTime, Observation> {
    expiry::of(&CertificateDer::from(der)).map_err(|why| of_service(Err(Trouble::Certificate(why))))
}

/// Where the redirect of an `https` server leads: whether that is the same server, its authority and the path; none: nowhere.
#[must_use]
pub fn redirect(to: &str) -> Option<(bool, String, String)> {
    let here =
        Location { secure: true, host: "2001:db8::1".to_owned(), port: 8443, path: "/a/b?c".to_owned() };
    let there = here.follow(to)?;
    Some((here.same_origin(&there), there.authority(None), there.path))
}
