//! The headers of a request. Secret values are read from their files for each probe, so that a new one needs no reload; they are in no
//! message.

use cpe_proto::definition::HeaderValue as Given;
use cpe_proto::secret::SecretSource;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::trouble::Trouble;
use crate::secret;

/// The headers that a definition wants to be sent.
pub(super) async fn headers(given: &[(Box<str>, Given)]) -> Result<HeaderMap, Trouble> {
    let mut headers = HeaderMap::with_capacity(given.len());
    for (name, value) in given {
        let unfit = |why: &str| Trouble::Unfit(format!("header {name}: {why}"));
        let key =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit("not a name that can be sent"))?;
        let mut value = match value {
            Given::Text(text) => HeaderValue::from_str(text)
                .map_err(|_| unfit("its value cannot be sent: control characters"))?,
            Given::File(file) => read(name, SecretSource::File(file.clone())).await?,
            Given::Credential(credential) => {
                read(name, SecretSource::Credential(credential.to_string())).await?
            }
        };
        value.set_sensitive(true);
        headers.append(key, value);
    }
    Ok(headers)
}

async fn read(name: &str, source: SecretSource) -> Result<HeaderValue, Trouble> {
    let Ok(read) = tokio::task::spawn_blocking(move || secret::read(&source)).await else {
        return Err(Trouble::NotAsked(format!("header {name} was not read")));
    };
    let unfit = |why: &dyn std::fmt::Display| Trouble::Unfit(format!("header {name}: {why}"));
    let secret = read.map_err(|error| unfit(&error))?;
    // Not the library's own words: they could show what they are about.
    HeaderValue::from_str(secret.expose()).map_err(|_| unfit(&"its value cannot be sent: not plain ASCII"))
}
