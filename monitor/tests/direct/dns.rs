//! Questions to a DNS server of the test.

use std::net::SocketAddr;

use cpe_proto::observation::Observation;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, MX};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use crate::site::{look, look_in_vain};

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

/// What the server says: it knows `www.example.com`, cuts what is asked of `big.example.com` over UDP, and is silent on `lost.`.
fn answer(asked: &[u8], over_udp: bool) -> Option<Vec<u8>> {
    let question = Message::from_vec(asked).expect("a question");
    let query = question.queries.first().expect("one question").clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_query(query.clone());
    let www = name("www.example.com.");
    match (query.name().to_ascii().as_str(), query.query_type()) {
        ("www.example.com.", RecordType::A) => {
            for last in [80, 81] {
                answer.add_answer(Record::from_rdata(www.clone(), 60, RData::A(A::new(192, 0, 2, last))));
            }
        }
        ("www.example.com.", RecordType::MX) => {
            let mail = MX::new(10, name("Mail.example.com."));
            answer.add_answer(Record::from_rdata(www, 60, RData::MX(mail)));
        }
        ("big.example.com.", _) if over_udp => answer.metadata.truncation = true,
        ("big.example.com.", _) => {
            let big = name("big.example.com.");
            answer.add_answer(Record::from_rdata(big, 60, RData::A(A::new(192, 0, 2, 90))));
        }
        ("lost.", _) => return None,
        _ => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    Some(answer.to_vec().expect("an answer"))
}

/// A server on one port of UDP and TCP; over UDP it loses the first question and says something else before each answer.
async fn server() -> SocketAddr {
    let (udp, tcp) = loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("its address")).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().expect("its address");
    tokio::spawn(async move {
        let (mut buffer, mut heard) = ([0; 1024], 0);
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            heard += 1;
            let Some(answer) = answer(&buffer[..length], true).filter(|_| heard > 1) else { continue };
            let mut other = answer.clone();
            other[0] ^= 0xff;
            for message in [&b"?"[..], &other, &answer] {
                let _gone = udp.send_to(message, from).await;
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut asked = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
            stream.read_exact(&mut asked).await.expect("a question");
            let answer = answer(&asked, false).expect("an answer");
            stream.write_u16(u16::try_from(answer.len()).expect("short")).await.expect("sent");
            stream.write_all(&answer).await.expect("sent");
        }
    });
    address
}

#[tokio::test]
async fn an_answer_is_compared_with_what_is_expected() {
    let server = server().await;
    let ask = |what: &str| format!("dns = {{ name = \"www.example.com\", server = \"{server}\"{what} }}");
    let seen = look(&ask("")).await;
    assert_eq!(seen, Observation::Expected("A www.example.com: 192.0.2.80, 192.0.2.81".into()));
    assert!(matches!(look(&ask(", expect = [\"192.0.2.81\"]")).await, Observation::Expected(_)));
    let seen = look(&ask(", expect = [\"192.0.2.81\", \"192.0.2.82\"]")).await;
    let why = "A www.example.com: 192.0.2.82 is not among the answers: 192.0.2.80, 192.0.2.81";
    assert_eq!(seen, Observation::Unexpected(why.into()));
    let seen = look(&ask(", type = \"MX\", expect = [\"10 mail.example.com\"]")).await;
    assert_eq!(seen, Observation::Expected("MX www.example.com: 10 mail.example.com".into()));
}

#[tokio::test]
async fn a_name_that_does_not_exist_and_a_record_that_is_not_there_are_told() {
    let server = server().await;
    let seen = look(&format!("dns = {{ name = \"nope.example.com\", server = \"{server}\" }}")).await;
    assert!(matches!(&seen, Observation::Unexpected(why) if why.contains("Non-Existent Domain")), "{seen:?}");
    let kind = format!("dns = {{ name = \"nope.example.com\", type = \"TXT\", server = \"{server}\" }}");
    assert!(matches!(look(&kind).await, Observation::Unexpected(_)));
}

#[tokio::test]
async fn an_answer_that_was_cut_is_asked_for_over_tcp() {
    let server = server().await;
    let seen = look(&format!("dns = {{ name = \"big.example.com\", server = \"{server}\" }}")).await;
    assert_eq!(seen, Observation::Expected("A big.example.com: 192.0.2.90".into()));
}

#[tokio::test]
async fn silence_is_no_answer() {
    let server = server().await;
    let seen = look_in_vain(&format!("dns = {{ name = \"lost\", server = \"{server}\" }}")).await;
    assert_eq!(seen, Observation::Silent("asked, and no answer by the deadline".into()));
}
