//! Header fields: entity tags, ranges, content negotiation, forwarding headers and request ids.

pub(super) mod etag;
pub(super) mod forwarded;
pub(super) mod negotiate;
pub(super) mod range;
pub(super) mod request_id;

pub(super) use self::{
    forwarded::{Client, network_of},
    request_id::RequestId,
};
