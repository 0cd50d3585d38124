//! What direct probes are answered in the site of `world.rs`.

use cpe_proto::observation::Observation;

use super::Unit;

/// What a direct probe is answered, wherever it is made.
pub(super) fn of(unit: Unit, program: bool) -> Observation {
    match unit {
        Unit::Running if program => Observation::Expected("200".into()),
        Unit::Running => Observation::Connected,
        Unit::Activating if program => Observation::Warned("the certificate ends in 10 days".into()),
        Unit::Odd if program => Observation::Unexpected("503".into()),
        Unit::Masked if program => Observation::NotRunnable("the certificate is not trusted".into()),
        Unit::NotFound => Observation::NotAsked("its name cannot be resolved".into()),
        Unit::Hangs => Observation::Silent("no answer by the deadline".into()),
        _ => Observation::NotConnected("connection refused".into()),
    }
}
