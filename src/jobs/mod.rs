//! What jobs do, one handler a payload. A handler works on what it was handed and answers what became of it; it neither
//! claims jobs nor writes to the database.

mod budget;
mod failure;
mod process_image;

pub use budget::Budget;
pub use failure::Failure;
pub use process_image::{Config, Handler, Report, Steps};
