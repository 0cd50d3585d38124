//! What a session says of a real sshd, in health and in each kind of trouble.

// clippy.toml allows this in tests, but does not count their helpers as such.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod acts;
mod channel;
mod forced;
mod from_guest;
mod guest;
mod hosts;
mod ipv6;
mod jumps;
mod probes;
mod resources;
mod trouble;
mod trust;
mod watch;
