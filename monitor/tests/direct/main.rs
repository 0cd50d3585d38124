//! Direct probes against real servers on loopback: what each kind sees of one that is well, and of one that is not.

mod certificate;
mod dns;
mod http;
mod icmp;
mod site;
mod tcp;
