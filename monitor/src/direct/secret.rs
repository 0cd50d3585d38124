//! The headers of a request. Secret values are read from their files for each probe, so that a new one needs no reload; they are in no
//! message.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use cpe_proto::definition::HeaderValue as Given;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::trouble::{Trouble, plain};
use crate::credentials;

/// The longest secret, in bytes.
const SECRET_MAX: u64 = 16 * 1024;

/// The headers that a definition wants to be sent.
pub(super) async fn headers(given: &[(Box<str>, Given)]) -> Result<HeaderMap, Trouble> {
    let mut headers = HeaderMap::with_capacity(given.len());
    for (name, value) in given {
        let unfit = |why: &str| Trouble::Unfit(format!("header {name}: {why}"));
        let key =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit("not a name that can be sent"))?;
        let value = match value {
            Given::Text(text) => HeaderValue::from_str(text),
            Given::File(file) => HeaderValue::from_bytes(&read(name, file.clone()).await?),
            Given::Credential(credential) => {
                HeaderValue::from_bytes(&read(name, credentials::folder().join(&**credential)).await?)
            }
        };
        let mut value = value.map_err(|_| unfit("its value cannot be sent: control characters"))?;
        value.set_sensitive(true);
        headers.append(key, value);
    }
    Ok(headers)
}

async fn read(name: &str, file: PathBuf) -> Result<Vec<u8>, Trouble> {
    let unfit = |why: String| Trouble::Unfit(format!("header {name}: {}: {why}", file.display()));
    let path = file.clone();
    let read = tokio::task::spawn_blocking(move || {
        let (mut text, file) = (Vec::new(), std::fs::File::open(path)?);
        let everybody = file.metadata()?.permissions().mode() & 0o004 != 0;
        file.take(SECRET_MAX + 1).read_to_end(&mut text)?;
        Ok::<_, std::io::Error>((text, everybody))
    });
    let Ok(read) = read.await else { return Err(Trouble::NotAsked(format!("header {name} was not read"))) };
    let (mut text, everybody) = read.map_err(|error| unfit(plain(&error)))?;
    if everybody {
        return Err(unfit("everybody may read it: chmod 0600".to_owned()));
    }
    while text.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        text.pop();
    }
    match text.len() as u64 {
        0 => Err(unfit("there is nothing in it".to_owned())),
        SECRET_MAX.. => Err(unfit("more than 16 KiB".to_owned())),
        _ => Ok(text),
    }
}
