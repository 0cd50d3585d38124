//! Benchmarks: what cpe's parts cost, as tables with units. Each is a program of `src/bin`; this is what they share.
//!
//! They measure CPU time and memory, which a busy machine changes little, rather than wall time. Nothing is asserted: a number is
//! printed together with the machine, the pace and the duration that it holds for.

pub mod host;
pub mod process;
pub mod table;
