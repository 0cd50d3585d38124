//! What is said between the parts of cpe: ids, time, the parsed deployable definition, observations, events,
//! decisions, the API's types. No logic beyond parsing and printing, and no I/O.
//!
//! The glossary (design.md section 1) in one line each:
//!
//! * [`Deployable`](definition::Deployable): an application, a named set of assemblies and the order between them.
//! * [`Assembly`](definition::Assembly): one virtual machine, or any host, of a deployable.
//! * [`Service`](definition::Service): something that must run in an assembly.
//! * [`Observation`](observation::Observation): what one probe saw, before anything is concluded from it.
//! * [`State`](state::State): what is concluded of a service, an assembly or a deployable.
//! * [`Rung`](rung::Rung): one kind of recovery, a step of the escalation ladder.
//! * [`Event`](event::Event): something that happened, told once. [`Decision`](decision::Decision): why.

pub mod api;
pub mod config;
pub mod decision;
pub mod definition;
pub mod document;
pub mod event;
pub mod fence;
pub mod id;
pub mod infrastructure;
pub mod observation;
pub mod rung;
pub mod secret;
pub mod snapshot;
pub mod ssh;
pub mod state;
pub mod time;
