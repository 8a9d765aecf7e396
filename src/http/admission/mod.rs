//! Admission control: permits for bodies, responses, requests and connections, with fair queues per client.

pub(super) mod body_permits;
mod client_queues;
pub(super) mod connection_slots;
pub(super) mod permits;
pub(super) mod request;

pub(super) use self::{
    body_permits::{BodyPermit, Room},
    connection_slots::ConnectionSlot,
    request::{AdmissionControl, Needs, RequestAdmission},
};
