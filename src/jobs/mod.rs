//! What jobs do, one handler a payload. A handler works on what it was handed and answers what became of it; it claims no
//! jobs, and all it tells the catalogue is that it is about to decode.

mod failure;
mod process_image;
mod recipe;

pub use failure::Failure;
pub use process_image::{Config, Handler, Report, Steps};
