//! The `cpe` program.
fn main() {}
