//! DNS: one question to one server, over UDP with repetition, over TCP where the answer was cut, and from within a guest, where there
//! is nothing else (RFC 7766: each server speaks it).

use std::net::SocketAddr;
use std::time::Duration;

use cpe_proto::definition::{Dns, Record};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::connect::Context;
use super::trouble::{Answer, Outcome, Stage, Trouble};

/// A question without an answer is sent again after this.
const REPEAT: Duration = Duration::from_secs(1);

/// The largest answer over UDP without further agreement is 512 bytes (RFC 1035); what is larger is cut by the server.
const UDP_MAX: usize = 4096;

/// Asks, and looks for what is expected among the answers.
pub(super) async fn probe(context: &Context<'_>, dns: &Dns, host: &str) -> Outcome {
    let unfit =
        |why: &dyn std::fmt::Display| Trouble::Unfit(format!("{} cannot be asked for: {why}", dns.name));
    let mut name = Name::from_ascii(&*dns.name).map_err(|error| unfit(&error))?;
    name.set_fqdn(true);
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, record_type(dns.record)));
    let bytes = question.to_vec().map_err(|error| unfit(&error))?;
    if context.guest.is_some() {
        return judge(dns, &over_tcp(context, host, dns.server.port, &bytes, &question).await?);
    }
    let server = context.look_up(host, dns.server.port).await?.into_iter().next();
    let server = server.ok_or_else(|| Trouble::NotAsked(format!("{host} has no address")))?;
    context.progress.reach(Stage::Asked);
    let mut answer = over_udp(server, &bytes, &question).await?;
    if answer.metadata.truncation {
        answer = over_tcp(context, host, dns.server.port, &bytes, &question).await?;
    }
    judge(dns, &answer)
}

async fn over_udp(server: SocketAddr, bytes: &[u8], question: &Message) -> Result<Message, Trouble> {
    let what = format!("port {}", server.port());
    let lost = |error| Trouble::of(&what, &error);
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(own).await.map_err(lost)?;
    socket.connect(server).await.map_err(lost)?;
    let mut buffer = vec![0; UDP_MAX];
    loop {
        socket.send(bytes).await.map_err(lost)?;
        let answered = timeout(REPEAT, async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                // What is no answer to this question may be anybody's.
                if let Some(answer) = answer_to(question, &buffer[..length]) {
                    return Ok::<_, std::io::Error>(answer);
                }
            }
        });
        if let Ok(answer) = answered.await {
            return answer.map_err(lost);
        }
    }
}

async fn over_tcp(
    context: &Context<'_>,
    host: &str,
    port: u16,
    bytes: &[u8],
    question: &Message,
) -> Result<Message, Trouble> {
    let mut stream = context.connect(host, port).await?;
    context.progress.reach(Stage::Asked);
    let exchanged = async {
        // RFC 1035, 4.2.2: the length goes before each message.
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(bytes).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = exchanged.await.map_err(|error| Trouble::of(&format!("port {port}"), &error))?;
    answer_to(question, &answer)
        .ok_or_else(|| Trouble::Unexpected("the answer is to another question".to_owned()))
}

pub(super) fn answer_to(question: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let same = answer.metadata.id == question.metadata.id && answer.queries == question.queries;
    (same && answer.metadata.message_type == hickory_proto::op::MessageType::Response).then_some(answer)
}

pub(super) fn judge(dns: &Dns, answer: &Message) -> Outcome {
    let asked = format!("{} {}", dns.record, dns.name);
    let unexpected = |why: String| Err(Trouble::Unexpected(format!("{asked}: {why}")));
    if answer.metadata.response_code != ResponseCode::NoError {
        return unexpected(answer.metadata.response_code.to_string());
    }
    let wanted = record_type(dns.record);
    let found: Vec<String> = answer
        .answers
        .iter()
        .filter(|record| record.record_type() == wanted)
        .map(|record| spelled(dns.record, &record.data.to_string()))
        .collect();
    if found.is_empty() {
        return unexpected("no such record".to_owned());
    }
    let missing = dns.expect.iter().find(|expected| !found.contains(&spelled(dns.record, expected)));
    match missing {
        Some(missing) => unexpected(format!("{missing} is not among the answers: {}", found.join(", "))),
        None => Ok(Answer::Program(format!("{asked}: {}", found.join(", ")))),
    }
}

/// In one spelling, so that what is equal is equal as text. Texts are kept as they are.
fn spelled(record: Record, text: &str) -> String {
    match record {
        Record::Txt => text.to_owned(),
        Record::A | Record::Aaaa => {
            text.parse::<std::net::IpAddr>().map_or_else(|_| text.to_owned(), |address| address.to_string())
        }
        _ => text.trim_end_matches('.').to_ascii_lowercase(),
    }
}

pub(super) const fn record_type(record: Record) -> RecordType {
    match record {
        Record::A => RecordType::A,
        Record::Aaaa => RecordType::AAAA,
        Record::Cname => RecordType::CNAME,
        Record::Mx => RecordType::MX,
        Record::Ns => RecordType::NS,
        Record::Ptr => RecordType::PTR,
        Record::Srv => RecordType::SRV,
        Record::Txt => RecordType::TXT,
    }
}
