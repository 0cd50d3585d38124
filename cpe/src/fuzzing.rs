//! Doors for the fuzz targets of `fuzz/`, with the feature `fuzzing` only: what a client sends to the API, and what a mail server says.

pub use crate::api::fuzzing::Api;
pub use crate::notify::fuzzing::Letterbox;
