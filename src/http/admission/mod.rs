//! Who is served when there is not room for all: slots for bodies and answers, places among those that are worked on, and
//! the turns that clients take for them.

pub(super) mod places;
pub(super) mod seats;
pub(super) mod slots;
pub(super) mod turn;

pub(super) use self::{
    seats::Seat,
    slots::{Room, Slot},
    turn::{Needs, Turn, Turns},
};
