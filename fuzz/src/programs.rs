//! What programs say: the resident shell in a guest, systemctl, an operator's own infrastructure, fence agents.

use cpe_infra::fuzzing;
use cpe_monitor::perfdata;
use cpe_monitor::ssh::fuzzing::{answers, ended, units as observed};
use cpe_proto::definition::UnitName;
use cpe_proto::observation::Observation;

use crate::printable;

/// Drawn at random for each channel: what a guest says cannot hold it but by an answer.
const NONCE: &str = "0123456789abcdef";

/// The longest text that is taken over from outside (`DETAIL_MAX_BYTES`, a detail of 1,000 characters), and words of ours around it.
const TEXT_MAX: usize = 5000;

/// The first byte says how what follows is cut into pieces: how it comes must not matter. `\x01` stands for the nonce.
pub(crate) fn resident(data: &[u8]) {
    let Some((size, data)) = data.split_first() else { return };
    let text = data.iter().flat_map(|byte| match byte {
        1 => NONCE.as_bytes().to_vec(),
        other => vec![*other],
    });
    let text: Vec<u8> = text.collect();
    let whole = answers(NONCE, std::iter::once(text.as_slice()));
    let pieces = answers(NONCE, text.chunks(usize::from(*size).max(1)));
    // What came before a line that is none is only believed where it came before it.
    assert_eq!(whole.1.is_some(), pieces.1.is_some(), "what is understood depends on how it came");
    assert!(pieces.0.starts_with(&whole.0) && (whole.1.is_some() || whole.0 == pieces.0));
    let lines = text.split(|byte| *byte == b'\n').count();
    assert!(whole.0.len() <= lines, "more answers than lines");
    if !text.windows(NONCE.len()).any(|window| window == NONCE.as_bytes()) {
        assert_eq!(whole.0, Vec::<String>::new(), "an answer without the nonce");
    }
}

/// One observation for each unit, in order; and nothing longer than what is kept.
pub(crate) fn units(data: &[u8]) {
    let Some((status, words)) = data.split_first() else { return };
    let (words, status) = (String::from_utf8_lossy(words), i32::from(*status));
    let asked = ["a.service", "b@1.timer", "c.service"].map(UnitName::parse);
    let asked: Vec<UnitName> = asked.into_iter().flatten().collect();
    let seen = observed(&words, status, &asked);
    assert_eq!(seen.len(), asked.len());
    for observation in seen.iter().chain([&ended(status, &words)]) {
        match observation {
            Observation::Unit(state) => {
                for word in [&state.load, &state.active, &state.sub] {
                    printable(word, TEXT_MAX);
                }
            }
            Observation::Exited(_, text) | Observation::NotRunnable(text) => printable(text, TEXT_MAX),
            _ => {}
        }
    }
}

/// So many figures at most, each a number under a name that can be the label of a metric, each name once.
pub(crate) fn perfdata(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for cut in [false, true] {
        let printed = perfdata::read(&text, cut);
        assert!(printed.measures.len() <= perfdata::MEASURES_MAX, "{} figures", printed.measures.len());
        for measure in &printed.measures {
            printable(&measure.label, perfdata::LABEL_MAX_BYTES);
            printable(&measure.unit, perfdata::LABEL_MAX_BYTES);
            assert!(!measure.label.is_empty() && measure.value.is_finite(), "{measure:?}");
            let same = printed.measures.iter().filter(|other| other.label == measure.label);
            assert_eq!(same.count(), 1, "{:?} comes twice", measure.label);
        }
    }
}

pub(crate) fn answer(data: &[u8]) {
    match fuzzing::instance(data) {
        Ok(answer) => {
            printable(&answer.detail, TEXT_MAX);
            printable(answer.instance.as_deref().unwrap_or_default(), TEXT_MAX);
            let address = answer.address.unwrap_or_default();
            printable(&address, 255);
            assert!(!address.contains([' ', '$', '`', ';', '/', '@']), "{address:?} is no address");
        }
        Err(error) => printable(&error, TEXT_MAX),
    }
    if let Err(error) = fuzzing::capabilities(data) {
        printable(&error, TEXT_MAX);
    }
}

pub(crate) fn metadata(data: &[u8]) {
    match fuzzing::options(data) {
        Ok(options) => {
            assert!(options.len() <= 500, "{} options", options.len());
            for option in options {
                // It goes into a line `name=value` of another program's input.
                printable(&option, 255);
                assert!(!option.contains('='), "{option:?} is no name");
            }
        }
        Err(error) => printable(&error, TEXT_MAX),
    }
}

fn on_one_line(text: &str) -> String {
    text.split(is_gap).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn is_gap(character: char) -> bool {
    character.is_whitespace() || character.is_control()
}

/// Two secrets, each on a line, then what an agent said: nothing of the secrets is left in what is repeated of it.
pub(crate) fn scrub(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.splitn(3, '\n');
    let (Some(one), Some(two), Some(said)) = (parts.next(), parts.next(), parts.next()) else { return };
    let secrets: Vec<&str> =
        [one, two].into_iter().filter(|secret| !secret.is_empty() && !"(hidden)".contains(secret)).collect();
    for cut in [false, true] {
        let repeated = fuzzing::repeated(said, cut, &secrets);
        for secret in &secrets {
            // What remains must not be a secret; that our own mark and its neighbours spell one is chance.
            let rest = repeated.replace("(hidden)", "\n");
            assert!(!rest.contains(secret), "{secret:?} is left in {repeated:?} of {said:?}");
            // It is told on one line. A secret with something around it that is no part of a line is not the word within.
            let (told, line) = (on_one_line(&repeated), on_one_line(secret));
            let around = secret.starts_with(is_gap) || secret.ends_with(is_gap);
            let left = |piece: &str| !around && piece.contains(&line);
            assert!(!told.split("(hidden)").any(left), "{secret:?} is told: {told:?} of {said:?}");
        }
        assert!(repeated.len() <= said.len().saturating_mul("(hidden)".len()) + "(hidden)".len());
    }
}
